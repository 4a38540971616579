"""`deltashare usage`: what it adds up is what answers granted, from the events of both servers."""

import csv
import datetime
import gzip
import io
import json
import os
import subprocess

import pytest

from conftest import BINARY, Server, TOKEN, hash_of
from insights import Insights, milliseconds
from test_lambda import TABLE_PATH, ask, event_of, start, stack  # noqa: F401

UTC = datetime.timezone.utc
FORMULA = "=1+1,\"x\""
NOW = datetime.datetime.now(UTC)
TODAY = NOW.date().isoformat()


def run(*arguments, code=0, stdin=None, environment=None):
    done = subprocess.run([str(BINARY), "usage", *map(str, arguments)], capture_output=True, input=stdin, timeout=60,
                          env={**os.environ, **(environment or {})})
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout.decode(), done.stderr.decode()


def figures(*arguments, **more):
    return json.loads(run(*arguments, "--format", "json", **more)[0])


def row(requests=0, refused=0, failed=0, files=0, size=0, **names):
    return {**names, "requests": requests, "refused": refused, "failed": failed, "files": files, "bytes": size}


def granted(answer):
    """The files of an answer, and their bytes."""
    assert answer.status == 200, answer.body
    sizes = [line["file"]["size"] for line in answer.lines if "file" in line]
    return len(sizes), sum(sizes)


def test_events_of_serve(tables, tmp_path):
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [
            {"name": name, "location": str(tables[name])} for name in ("py_versions", "deletion_vectors")]}]}],
        "recipients": [{"name": name, "shares": ["s"], "tokens": [{"sha256": hash_of(token), "expires": "never"}]}
                       for name, token in (("acme", TOKEN), (FORMULA, "dss_formula-recipient"))],
    }))
    server = Server("--shares", shares)
    count, size = 0, 0
    try:
        for _ in range(3):
            answer = server.request("POST", "/shares/s/schemas/d/tables/py_versions/query", body=b"{}", headers={"User-Agent": 'a "b" \\ files=99'})
            found = granted(answer)
            count, size = count + found[0], size + found[1]
        # What is downloaded is not counted again.
        url = next(line["file"]["url"] for line in answer.lines if "file" in line)
        assert server.request("GET", url.partition(f":{server.port}")[2], below_prefix=False, token=None).status == 200
        other = granted(server.request("POST", "/shares/s/schemas/d/tables/py_versions/query", body=b"{}", token="dss_formula-recipient"))
        server.request("GET", "/shares")
        server.request("GET", "/shares/s/schemas/d/tables/missing/version")
        server.request("POST", "/shares/s/schemas/d/tables/py_versions/query", body=b"{")
        server.request("GET", "/shares", token="dss_nobody")
        server.request("GET", "/health", token=None)
    finally:
        assert server.stop() == 0
    assert count and size
    log = "".join(server.log)
    file, packed = tmp_path / "serve.log", tmp_path / "serve.log.1.gz"
    file.write_text(log)
    packed.write_bytes(gzip.compress(log.encode()))
    orders = "s.d.py_versions"
    wanted = {
        "rows": [
            row(day=TODAY, recipient=FORMULA, table=orders, requests=1, files=other[0], size=other[1]),
            # Also the query with a body that is not JSON, whose table was not looked for.
            row(day=TODAY, recipient="acme", table="", requests=3, refused=2),
            row(day=TODAY, recipient="acme", table=orders, requests=3, files=count, size=size),
        ],
        "total": row(requests=7, refused=2, files=count + other[0], size=size + other[1]),
    }
    found = figures("--log-file", file)
    assert datetime.datetime.now(UTC).date() == NOW.date(), "midnight came in between: run the test again"
    assert (found["rows"], found["total"]) == (wanted["rows"], wanted["total"])
    assert (found["requestsWithoutToken"], found["unreadableEvents"]) == (1, 0) and found["otherLines"] >= 2
    assert figures("--log-file", packed)["total"] == wanted["total"]
    assert figures("--log-file", "-", stdin=packed.read_bytes())["total"] == wanted["total"]
    both = figures("--log-file", file, "--log-file", packed, "ACME", "--by", "recipient")
    assert both["rows"] == [row(recipient="acme", requests=12, refused=4, files=2 * count, size=2 * size)]
    assert figures("--log-file", file, "acme")["rows"][1] == row(day=TODAY, table=orders, requests=3, files=count, size=size)

    text, notes = run("--log-file", file, "--by", "recipient,table")
    lines = text.splitlines()
    assert lines[0].split() == ["recipient", "table", "requests", "refused", "failed", "files", "bytes"]
    assert lines[-1].split() == ["total", "7", "2", "0", str(count + other[0]), str(size + other[1])]
    assert "1 request had no valid token." in notes and "lines were not events of requests." in notes
    text, notes = run("--log-file", file, "--by", "recipient", "--format", "csv")
    assert text.splitlines()[1].startswith('"\'=1+1,""x""",1,0,0,')
    assert [line[0] for line in csv.reader(io.StringIO(text))] == ["recipient", "'" + FORMULA, "acme"]
    assert f"Total: 7 requests, 2 refused, 0 failed, {count + other[0]} files, {size + other[1]} bytes." in notes

    # Other days have nothing.
    tomorrow = (NOW + datetime.timedelta(days=1)).date().isoformat()
    assert figures("--log-file", file, "--from", tomorrow)["rows"] == []
    assert figures("--log-file", file, "--to", TODAY)["total"] == figures("--log-file", file, "--since", "1d")["total"] == wanted["total"]
    # An event that was cut off is said to be missing, wherever it was cut.
    last = log.rindex(" deltashare::audit: ")
    for end in range(last + 30, log.index(" duration_ms=", last) + 13, 9):
        file.write_text(log[:end])
        text, notes = run("--log-file", file, "--format", "json", code=1)
        assert json.loads(text)["unreadableEvents"] == 1
        assert f"the figures lack an event that cannot be read: {file}, line {log[:end].count(chr(10)) + 1}: an event is not whole" in notes
    packed.write_bytes(packed.read_bytes()[:-20])
    assert str(packed) in run("--log-file", packed, code=1)[1]


def test_what_is_refused(tmp_path):
    file = tmp_path / "log"
    file.write_text("hello\n\n{}\n")
    text, notes = run("--log-file", file)
    assert "There are no requests of recipients." in notes and "3 lines were not events of requests." in notes
    for arguments, code, told in (
        ((), 2, "required"), (("--log-file", tmp_path / "missing"), 1, "No such file"), (("--log-file", tmp_path), 1, "directory"),
        (("--log-file", file, "--log-group", "g"), 2, "cannot be used with"), (("--log-file", file, "--from", "2026-1-1"), 2, "not a date"),
        (("--log-file", file, "--from", "2026-02-01", "--to", "2026-01-31"), 2, "is after the last day"),
        (("--log-file", file, "--since", "30"), 2, "a time needs a unit"), (("--log-file", file, "--by", "week"), 2, "invalid value"),
        (("--log-file", file, "--since", "3d", "--from", "2026-02-01"), 2, "cannot be used with"),
    ):
        assert told in run(*arguments, code=code)[1]


@pytest.fixture
def insights():
    made = Insights({})
    yield made
    made.stop()


def cloud(insights):
    return {"AWS_ENDPOINT_URL": insights.endpoint, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true"}


def at(days_ago, time="12:00:00.000"):
    return f"{(NOW - datetime.timedelta(days=days_ago)).date().isoformat()}T{time}Z"


def days(number):
    return milliseconds(at(number, "00:00:00.000"))


def test_events_of_the_function(stack, insights, tmp_path):  # noqa: F811
    function = start(stack, seconds=150)
    try:
        count, size = 0, 0
        for _ in range(2):
            found = granted(ask(function, "POST", f"{TABLE_PATH}py_versions/query", body=b"{}"))
            count, size = count + found[0], size + found[1]
        assert ask(function, "GET", "/shares/retail").status == 200
        assert ask(function, "GET", "/shares", token="dss_unknown").status == 401
        assert ask(function, "GET", "/health", token=None).status == 200
        refused = ask(function, "POST", f"{TABLE_PATH}py_versions/query", body=b"{")
        event_of(function, refused.headers["x-request-id"])
    finally:
        function.stop()
    lines = [line.strip() for line in function.log]
    wanted = [row(recipient="acme", table="", requests=1, refused=1), row(recipient="acme", table="Retail", requests=1),
              row(recipient="acme", table="Retail.Sales.py_versions", requests=2, files=count, size=size)]
    file = tmp_path / "function.log"
    # As `aws logs tail` writes it.
    file.write_text("".join(f"{at(0)} 2026/11/27/[1]abc {line}\n" for line in lines))
    found = figures("--log-file", file, "--by", "recipient,table")
    assert found["rows"] == wanted and found["requestsWithoutToken"] == 1 and found["unreadableEvents"] == 0
    insights.groups["deltashare-FunctionLogs-1x"] = (days(40), 400, lines)
    searched = figures("--stack", "deltashare", "--by", "recipient,table", environment=cloud(insights))
    assert searched["rows"] == wanted and searched["total"] == found["total"]
    assert len(insights.asked) == 30


def line(time, recipient="acme", table="r.s.t", message="answered", **more):
    told = {"timestamp": time, "level": "INFO", "message": message, "request.id": "x", "recipient": recipient, "object": table, "Action": "QueryTable",
            "Latency": 1, **more}
    return json.dumps({name: value for name, value in told.items() if value is not None})


def test_every_event_is_counted_once(insights):
    group = "group"
    lines = [
        line(at(2, "23:59:59.999"), FilesSigned=1, BytesGranted=3), line(at(1, "00:00:00.000"), FilesSigned=2, BytesGranted=5 * 10**9),
        line(at(1, "23:59:59.001"), message="broken", FilesSigned=4, BytesGranted=7), line(at(0, "00:00:00.000"), recipient="globex", table=None),
        line(at(1), recipient=None, message="refused"), line(at(1), message="gone", FilesSigned=8, BytesGranted=11), "not JSON",
        line(at(4, "23:59:59.999")), line(at(1), message="refused"),
        # No requests for data.
        *(line(at(1), Action=action) for action in ("GetFile", "Health", "GetPage", "Preflight", "GetActivation", "Activate")),
    ]
    insights.groups = {group: (days(100), None, lines), "group2": (0, None, [line(at(1))])}
    insights.busy = 2
    found = figures("--log-group", group, "--since", "3d", environment=cloud(insights))
    assert found["rows"] == [
        row(day=at(2)[:10], recipient="acme", table="r.s.t", requests=1, files=1, size=3),
        row(day=at(1)[:10], recipient="acme", table="r.s.t", requests=4, refused=1, failed=1, files=14, size=5 * 10**9 + 18),
        row(day=TODAY, recipient="globex", table="", requests=1),
    ]
    assert (found["from"], found["to"]) == (at(3)[:10], TODAY) and len(insights.asked) == 4
    one = figures("globex", "--log-group", group, "--from", at(1)[:10], "--to", at(0)[:10], "--by", "day", environment=cloud(insights))
    assert one["rows"] == [row(day=TODAY, requests=1)]
    assert all("object" not in asked["queryString"] for asked in insights.asked[4:]), "a day has fewer rows without tables"


def test_a_day_with_more_rows_than_a_result_has_is_searched_in_parts(insights):
    lines = [line(at(1, f"{number % 24:02}:{number % 60:02}:00.000"), recipient=f"r{number}", FilesSigned=1, BytesGranted=number)
             for number in range(12_000)]
    # A crowd in ten minutes.
    lines += [line(at(1, f"10:0{number % 10}:00.{number % 1000:03}"), recipient=f"s{number}") for number in range(11_000)]
    insights.groups = {"g": (days(3), 30, lines)}
    found = figures("--log-group", "g", "--from", at(1)[:10], "--to", at(1)[:10], "--by", "day", environment=cloud(insights))
    assert found["rows"] == [row(day=at(1)[:10], requests=23_000, files=12_000, size=sum(range(12_000)))]
    assert len(insights.asked) > 10


def test_what_cloudwatch_refuses(insights):
    insights.groups = {"g": (days(2), 30, [line(at(1))]), "s-FunctionLogs-a": (0, None, []), "s-FunctionLogs-b": (0, None, [])}
    told = lambda *arguments, code=1: run(*arguments, code=code, environment=cloud(insights))[1]  # noqa: E731
    assert "there is no log group 'x'" in told("--log-group", "x")
    assert "there is no log group of a stack 'x'" in told("--stack", "x")
    assert "several log groups of a stack 's'; name one with --log-group: s-FunctionLogs-a, s-FunctionLogs-b" in told("--stack", "s", code=2)
    # What is older than the log group is not searched, and the command says so.
    assert f"note: the log group has no events before {at(2)[:10]}" in told("--log-group", "g", "--since", "20d", code=0)
    assert len(insights.asked) == 3
    for denied, permission in (("describe_log_groups", "DescribeLogGroups"), ("start_query", "StartQuery"), ("get_query_results", "GetQueryResults")):
        insights.denied = denied
        assert f"your credentials lack logs:{permission}" in told("--log-group", "g", "--since", "1d")
    insights.denied = None
    for status in ("Failed", "Timeout", "Cancelled"):
        insights.statuses = [status] * 3
        assert f"ended with the status {status}" in told("--log-group", "g", "--from", TODAY)
        insights.statuses = []
    insights.groups["g"][2].append(line(at(0), FilesSigned=1.5))
    assert "gave no number of files: '1.5'" in told("--log-group", "g", "--from", TODAY)
