"""One bucket that does not answer, or one recipient who does not read, is nobody else's trouble."""

import collections
import json
import pathlib
import re
import resource
import socket
import time

import pytest

from conftest import OTHER_TOKEN, Server, TOKEN, hash_of
from faults import SILENCE, Way, wait_until

FILES = 2_000
QUERY = "/shares/s/schemas/d/tables/{}/query"


def commit(directory, files, **fields):
    """A table of one commit; `fields` are in the action of each file."""
    (directory / "_delta_log").mkdir(parents=True)
    schema = {"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]}
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "0b7f6a9c-0000-4000-8000-000000000000", "format": {"provider": "parquet", "options": {}},
                      "schemaString": json.dumps(schema), "partitionColumns": [], "configuration": {}}},
    ]
    actions += [{"add": {"path": f"part-{number:06}.parquet", "partitionValues": {}, "size": 1000, "modificationTime": 0,
                         "dataChange": True, **fields}} for number in range(files)]
    (directory / "_delta_log/00000000000000000000.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    return directory


def threads(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"^Threads:\s+(\d+)", status, re.M)[1])


def memory(server, figure="VmRSS"):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"^{figure}:\s+(\d+) kB", status, re.M)[1]) * 1024


def share_file(path, tables):
    entries = [{"name": name, "location": str(location), "historyShared": True} for name, location in tables.items()]
    path.write_text(json.dumps({
        "version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": entries}]}],
        "recipients": [
            {"name": "greedy", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]},
            {"name": "other", "shares": ["s"], "tokens": [{"sha256": hash_of(OTHER_TOKEN), "expires": "never"}]},
        ],
    }))
    return path


@pytest.fixture
def sockets():
    """Opens connections that may never be read, as many as the test likes, and closes them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    opened = []

    def ask(server, method, path, token):
        connection = socket.socket()
        # Small buffers on both sides, so that little of an answer is on its way.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", server.port))
        prefix = server.endpoint.split(str(server.port), 1)[1].rstrip("/")
        connection.sendall(f"{method} {prefix}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                           "Content-Length: 2\r\n\r\n{}".encode())
        opened.append(connection)
        return connection

    ask.opened = opened
    yield ask
    for connection in opened:
        connection.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def whole(connection):
    """Reads the rest of an answer: whether it ends as it should."""
    rest = b""
    try:
        while data := connection.recv(1 << 16):
            rest = (rest + data)[-100:]
    except ConnectionError:
        pass
    return rest.endswith(b"\r\n0\r\n\r\n")


def paths_asked(way):
    """Counts what comes to the storage, and answers nothing of it."""
    asked = []

    def rule(request):
        asked.append(request.path)
        return SILENCE

    way.rule = rule
    return asked


def test_a_bucket_that_does_not_answer_is_nobody_elses_trouble(aws, tmp_path, sockets):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="dies")
    way = Way(aws.port)
    tables = {"alive": commit(tmp_path / "alive", 50)}
    for number in range(4):
        source = commit(tmp_path / f"dead{number}", 10) / "_delta_log/00000000000000000000.json"
        s3.upload_file(str(source), "dies", f"dead{number}/_delta_log/00000000000000000000.json")
        tables[f"dead{number}"] = f"s3://dies/dead{number}"
    environment = {**aws.environment, "AWS_ENDPOINT_URL_S3": way.endpoint}
    server = Server("--shares", share_file(tmp_path / "shares.yaml", tables), env=environment)
    try:
        # Two of the tables have been read before, two have not.
        for name in ("dead0", "dead1"):
            assert len(server.request("POST", QUERY.format(name), body=b"{}").lines) == 12
        asked = paths_asked(way)
        began, longest, most = time.monotonic(), 0, 0
        while time.monotonic() - began < 30:
            for number in range(4):
                sockets(server, "POST", QUERY.format(f"dead{number}"), TOKEN if number else OTHER_TOKEN)
                sockets(server, "GET", f"/shares/s/schemas/d/tables/dead{number}/metadata", TOKEN)
            before = time.monotonic()
            answer = server.request("POST", QUERY.format("alive"), body=b"{}", token=OTHER_TOKEN)
            longest = max(longest, time.monotonic() - before)
            assert answer.status == 200 and len(answer.lines) == 52
            most = max(most, threads(server))
            time.sleep(max(0, 0.25 - (time.monotonic() - before)))
        print(f"{len(sockets.opened)} requests to a bucket that does not answer, which got {len(asked)}: "
              f"neighbours waited for {longest:.2f} s at most, {most} threads")
        assert longest < 20
        assert most < 100
        assert len(asked) < len(sockets.opened)
        # Who asks now gets an answer, soon.
        before = time.monotonic()
        answer = server.request("POST", QUERY.format("dead0"), body=b"{}", token=OTHER_TOKEN)
        assert answer.status == 503 and int(answer.headers["retry-after"]) > 0
        assert time.monotonic() - before < 20

        # When all have hung up, the storage is asked nothing more.
        for connection in sockets.opened:
            connection.close()
        time.sleep(3)
        rest = len(asked)
        time.sleep(5)
        assert len(asked) <= rest, asked[rest:]
        way.rule = None
        answer = server.request("POST", QUERY.format("dead3"), body=b"{}")
        assert answer.status == 200 and len(answer.lines) == 12
    finally:
        way.stop()
        server.stop()
    assert "panicked" not in "".join(server.log)


def test_a_recipient_who_does_not_read_is_nobody_elses_trouble(tmp_path, sockets):
    tables = {"big": commit(tmp_path / "big", FILES), "alive": commit(tmp_path / "alive", 50)}
    server = Server("--shares", share_file(tmp_path / "shares.yaml", tables))
    try:
        assert len(server.request("POST", QUERY.format("big"), body=b"{}").lines) == FILES + 2
        before_all = memory(server)
        began, longest = time.monotonic(), 0
        for number in range(600):
            sockets(server, "POST", QUERY.format("big"), TOKEN)
            if number % 50 == 49:
                before = time.monotonic()
                answer = server.request("POST", QUERY.format("alive"), body=b"{}", token=OTHER_TOKEN)
                longest = max(longest, time.monotonic() - before)
                assert answer.status == 200 and len(answer.lines) == 52
        begun, refused = [], []
        for connection in sockets.opened:
            head = connection.recv(300)
            if head.startswith(b"HTTP/1.1 200 "):
                begun.append(connection)
            else:
                refused.append(head)
        assert len(begun) <= 64
        assert all(re.search(rb"(?i)\r\nretry-after: [1-9]", head) for head in refused)
        # On a slow machine some of the 64 may have waited for too long: 503.
        statuses = collections.Counter(head[9:12] for head in refused)
        assert set(statuses) <= {b"429", b"503"} and statuses[b"429"] > 400, statuses
        time.sleep(2)
        held, used = memory(server) - before_all, threads(server)
        print(f"{len(begun)} answers that are not read: {held / len(begun) / 1024:.0f} KiB each, {used} threads, "
              f"neighbours waited for {longest:.2f} s at most, all took {time.monotonic() - began:.1f} s")
        assert longest < 20
        assert used < 100
        # The table that is not read is there for others.
        answer = server.request("POST", QUERY.format("big"), body=b"{}", token=OTHER_TOKEN)
        assert answer.status == 200 and len(answer.lines) == FILES + 2
        wait_until(lambda: bool(sockets(server, "POST", QUERY.format("big"), TOKEN).recv(300)[9:12] == b"429"))
        # What costs little is not refused.
        assert server.request("GET", "/shares/s/schemas/d/tables/big/metadata").status == 200

        # One who hangs up is gone at once, the others are given up after a minute, and nobody has an answer that looks whole.
        begun.pop().close()
        server.wait_for_log(" gone")
        wait_until(lambda: server.request("POST", QUERY.format("alive"), body=b"{}").status == 200, seconds=150)
        # The answer or the connection, whichever notices first. One that is not given up yet would go on when it is read.
        ended = re.compile(r"(gone|broken) .*greedy.*s\.d\.big")
        wait_until(lambda: sum(map(bool, map(ended.search, list(server.log)))) > len(begun), seconds=200)
        reason = re.compile("was not read in time|did not read its answer")
        wait_until(lambda: any(map(reason.search, list(server.log))))
        begun[0].settimeout(300)
        assert not whole(begun[0])
    finally:
        server.stop()
    assert "panicked" not in "".join(server.log)


def test_large_actions_are_decoded_one_answer_after_the_other(tmp_path, sockets):
    # A batch of this table takes some 130 MB while it is decoded, and eight of them were decoded at the same time.
    tables = {"fat": commit(tmp_path / "fat", 620, stats=json.dumps({"numRecords": 1, "x": "y" * 100_000})), "alive": commit(tmp_path / "alive", 50)}
    server = Server("--shares", share_file(tmp_path / "shares.yaml", tables))
    try:
        for _ in range(24):
            sockets(server, "POST", QUERY.format("fat"), TOKEN)
        for connection in sockets.opened:
            assert connection.recv(300)[9:12] in (b"200", b"429", b"503")
            answer = server.request("POST", QUERY.format("alive"), body=b"{}", token=OTHER_TOKEN)
            assert answer.status == 200 and len(answer.lines) == 52
        most = memory(server, "VmHWM")
        print(f"24 answers of large actions: {most >> 20} MiB at most")
        assert most < 600 << 20
    finally:
        server.stop()
    assert "panicked" not in "".join(server.log)
