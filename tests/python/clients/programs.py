"""Released clients, each behind a small program in its own language: `tests/clients`.

A program gets a profile and a directory for what it keeps. It reads a line of JSON on standard input and answers with
a line on standard output, as often as it is asked:

    {"do": "tables"}                                      {"tables": ["share.schema.table", …]}
    {"do": "rows", "table": "share.schema.table"}         {"rows": [{"column": value, …}, …]}
    {"do": "version", "table": "share.schema.table"}      {"version": 7}
    {"do": "changes", "table": "share.schema.table"}      {"add": 3, "cdf": 1, "remove": 2}

`limit` and `version` may follow; what the client says when it fails is in `error`. Dates are written as `2024-01-31`,
binary as hexadecimal. `tests/run` builds the programs, and names their commands in `CLIENTS`.
"""

import contextlib
import json
import os
import queue
import subprocess
import threading

PROGRAMS = json.loads(os.environ.get("CLIENTS", "{}"))


class Program:
    """A program that runs, ended by its own process id."""

    SECONDS = 300

    def __init__(self, name, profile, home):
        self.name = name
        program = PROGRAMS[name]
        self.errors = open(home / "stderr", "w+")
        self.process = subprocess.Popen(
            [*program["command"], str(profile), str(home)], env={**os.environ, **program.get("env", {})}, cwd=home, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def ask(self, do, table=None, **more):
        asked = {"do": do, **more}
        if table is not None:
            asked["table"] = f"retail.sales.{table}"
        line = None
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=self.SECONDS)
        except queue.Empty:
            self.process.kill()
            raise AssertionError(f"{self.name} does not answer") from None
        except BrokenPipeError:
            pass
        if line is None:
            self.errors.seek(0)
            raise AssertionError(f"{self.name} has ended: {self.errors.read()[-4000:]}")
        return json.loads(line)

    def rows(self, table, **more):
        told = self.ask("rows", table, **more)
        assert "rows" in told, told
        return told["rows"]

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()
