"""What a server answered."""

import json


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        text = self.body.decode("ascii")
        assert text == "" or text.endswith("\n"), "the last line has no end"
        lines = text.split("\n")[:-1]
        assert all(lines), "a line is empty"
        return [json.loads(line) for line in lines]
