"""How many round trips to AWS an operation waits for, one after the other.

A stand-in knows which requests belong together, and answers none of a round before all of them have come. A request
that waits for the answer to another one of its round would never come, so an operation that ends within so many rounds
has no longer chain of requests that wait for each other. The speed of the machine decides nothing.
"""

import collections
import re
import threading

# A round that lacks a request fails. This only decides how long that takes.
SECONDS = 60

KINDS = [
    (r"_last_checkpoint", "hint"), (r"\d{20}\.json", "commit"), (r"\d{20}\.crc", "checksum"),
    (r"\d{20}\.checkpoint\.(.*\.)?parquet", "checkpoint"), (r"\d{20}\.checkpoint\..*\.json", "manifest"),
]


def label(service, request):
    """What a request asks for, without the numbers of versions."""
    if service == "dynamodb":
        return request.headers["X-Amz-Target"].split(".")[1]
    if service == "sts":
        return re.search(rb"Action=(\w+)", request.body)[1].decode()
    if "list-type" in request.query:
        return "LIST"
    if "/_sidecars/" in request.path:
        return f"{request.method} sidecar"
    name = request.path.rpartition("/")[2]
    return f"{request.method} " + next(kind for pattern, kind in KINDS if re.fullmatch(pattern, name))


class Rounds:
    """Rules for the ways to several services, which answer in rounds. While no rounds are expected, everything passes."""

    def __init__(self):
        self.changed = threading.Condition()
        self.pass_all()

    def rule(self, service):
        return lambda request: self.hold(label(service, request))

    def expect(self, rounds):
        """Answers in these rounds from now on; each has a number of requests for each label. What comes after them waits for
        `pass_all`."""
        with self.changed:
            self.rounds = [collections.Counter(labels) for labels in rounds]
            self.came, self.now, self.wrong, self.late = collections.Counter(), 0, [], []
            self.changed.notify_all()

    def pass_all(self):
        with self.changed:
            self.rounds = None
            self.changed.notify_all()

    def hold(self, label):
        with self.changed:
            rounds, mine = self.rounds, None
            if rounds is None:
                return
            mine = self.now
            over = lambda: self.rounds is not rounds or self.now > mine
            if mine == len(rounds):
                self.late.append(label)
                return self.wait(over, f"{label} after the last round")
            self.came[label] += 1
            if self.came[label] > rounds[mine][label]:
                self.wrong.append(f"{label} in round {mine + 1}")
            elif self.came == rounds[mine]:
                self.came, self.now = collections.Counter(), mine + 1
                self.changed.notify_all()
            else:
                self.wait(over, f"round {mine + 1} after {dict(self.came)}")

    def wait(self, over, where):
        if not self.changed.wait_for(lambda: over() or self.wrong, SECONDS):
            self.wrong.append(f"nothing more came: {where}")
            self.changed.notify_all()

    def check(self):
        """All the rounds came, and nothing that did not belong to them."""
        with self.changed:
            assert not self.wrong, self.wrong
            assert self.now == len(self.rounds), f"round {self.now + 1} of {len(self.rounds)} did not come"
