"""The load tools work, and count what they say. What they time decides nothing here."""

import gzip
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from conftest import BINARY, ROOT
from lambda_runtime import BINARY as FUNCTION
from test_storage_requests import rows_of_costs

TOOLS = ROOT / "tests/load"
FILES = 300
sys.path.insert(0, str(TOOLS))

from stack import Stack  # noqa: E402


def run(tool, tmp_path, *arguments):
    """What a tool prints, and the figures that it writes."""
    figures = tmp_path / "figures.json"
    done = subprocess.run([sys.executable, str(TOOLS / tool), "--json", str(figures), *map(str, arguments)], capture_output=True, text=True,
                          timeout=300, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(figures.read_text())


def test_what_a_million_queries_cost(tmp_path):
    output, figures = run("queries", tmp_path, "--binary", FUNCTION, "--recipients", 5, "--seconds", 4, "--files", FILES, "--latency", "2,1",
                          "--rates", "version=3,head=1,ten=3,large=0.5")
    print(output)
    assert {kind: report["statuses"] for kind, report in figures["kinds"].items()} == {
        "version": {"200": 12}, "head": {"200": 4}, "ten": {"200": 12}, "large": {"200": 2}}
    said = rows_of_costs("Querying a table of ten files")
    units = next(float(row.split(" ")[0]) for what, row in said.items() if what.startswith("DynamoDB"))
    for kind, report in figures["kinds"].items():
        function, asked = report["function"], report["function"]["requests"]
        # Every event is there, and only the events that were sent.
        assert function["queries"] == sum(report["statuses"].values())
        assert function["units"] == units, kind
        # New commits are looked for with two requests, or by listing the log once a minute.
        assert asked.get("HEAD", 0) + asked.get("LIST", 0) == pytest.approx(1), kind
        assert asked.get("GET", 0) == pytest.approx(asked.get("HEAD", 0)), kind
        assert function["log_bytes"] > 300
        # Nothing is answered before S3 and DynamoDB have been asked.
        assert function["waited_ms"] >= 3 and function["duration_ms"]["p50"] >= 3 and function["processor_ms"] > 0
    sizes = {kind: report["function"]["sent_bytes"] for kind, report in figures["kinds"].items()}
    assert sizes["head"] < 1_000 and sizes["version"] < 1_000 < sizes["ten"] < sizes["large"]
    # The rows are those of the page, at its prices.
    rows = figures["kinds"]["ten"]["rows"]
    assert {what: row for what, row, *_ in rows if what != "sum"} == said
    for what, row, _, measured, usd in rows[:-1]:
        assert float(measured.split(" × ")[-1]) == float(row.split(" × ")[-1]), what
        quantity, price = map(float, measured.split(" × "))
        assert quantity * price == pytest.approx(usd, rel=1e-3, abs=1e-6), what
    assert rows[-1][4] == pytest.approx(sum(row[4] for row in rows[:-1]))
    assert 0 < figures["memory"]["last_MB"] <= figures["memory"]["peak_MB"]


def test_a_server_that_is_always_on(tmp_path):
    output, figures = run("queries", tmp_path, "--serve", "--binary", BINARY, "--recipients", 3, "--soak", 0.05, "--files", FILES, "--latency", 0,
                          "--rates", "version=3,ten=3")
    assert {kind: report["statuses"] for kind, report in figures["kinds"].items()} == {"version": {"200": 9}, "ten": {"200": 9}}
    asked = figures["all"]["requests"]
    assert asked["units"] > 0
    # Requests at the same time look for new commits once.
    assert 0 < asked.get("HEAD", 0) + asked.get("LIST", 0) <= 1
    assert "MB an hour" in output


class Stalled:
    """A reader that takes nothing after the first bytes until the function cannot write more. A thread that only waits for a
    processor is not taken for one that has nothing to do."""

    def __init__(self, pid):
        self.pid, self.stalled = pid, False

    def states(self):
        return {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in pathlib.Path(f"/proc/{self.pid}/task").iterdir()}

    def wait(self, taken):
        idle = 0
        while not self.stalled:
            time.sleep(0.05)
            idle = idle + 1 if self.states() == {"S"} else 0
            self.stalled = idle >= 10


def test_a_list_has_fewer_bytes_if_it_is_read_slowly(tmp_path):
    """The buffers of the connection hold all of it, so that nothing has to wait."""
    files = 8_000
    stack = Stack(tmp_path, {"large": (files, True)}, 1)
    try:
        sizes = {}
        for name, pace in {"at once": None, "slowly": lambda: Stalled(stack.pid)}.items():
            stack.server.pace = pace
            body, *_ = stack.server.query("large")
            assert gzip.decompress(body).count(b"\n") == files + 2
            sizes[name] = len(body) / files
    finally:
        stack.stop()
    print(f"bytes a file: {sizes}")
    assert sizes["slowly"] < 205 and sizes["slowly"] < sizes["at once"]
