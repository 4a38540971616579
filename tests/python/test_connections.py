"""What senders without a token, and clients that do not read, can do to `serve`: open sockets, and leave them."""

import http.client
import json
import resource
import select
import socket
import time
import urllib.parse

import pytest

from conftest import SPARK_TABLES, TOKEN, Server, hash_of
from faults import wait_until

# What is attacked answers its neighbours within this many seconds, on a machine that is busy with other tests.
SOON = 15

FEW_FILES = ["sh", "-c", 'ulimit -n 128; exec "$0" "$@"']


def large_table(path):
    """A table with a file that no socket buffers, and with an answer that none does."""
    log = path / "_delta_log"
    log.mkdir(parents=True)
    schema = json.dumps({"type": "struct", "fields": [{"name": "a", "type": "long", "nullable": True, "metadata": {}}]})
    add = {"partitionValues": {}, "size": 64 << 20, "modificationTime": 0, "dataChange": True}
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "m", "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
                      "partitionColumns": [], "configuration": {}}},
        {"add": {"path": "large.parquet", **add}},
        *({"add": {"path": f"{number}.parquet", **add}} for number in range(30_000)),
    ]
    (log / f"{0:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    with (path / "large.parquet").open("wb") as file:
        file.truncate(64 << 20)
    return path


@pytest.fixture(scope="module")
def share_file(tmp_path_factory):
    root = tmp_path_factory.mktemp("connections")
    tables = [
        {"name": "small", "location": str(SPARK_TABLES / "empty")},
        {"name": "large", "location": str(large_table(root / "large"))},
    ]
    path = root / "shares.yaml"
    path.write_text(json.dumps({
        "version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": tables}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    return path


@pytest.fixture
def attacked(share_file):
    """Starts a server, and closes what attacks it."""
    servers, sockets = [], []

    def start(*arguments, **options):
        server = Server("--shares", share_file, *arguments, **options)
        server.attack = lambda sent=b"", address="127.0.0.1": sockets.append(connect(server, sent, address)) or sockets[-1]
        servers.append(server)
        return server

    yield start
    for attacker in sockets:
        attacker.close()
    for server in servers:
        assert server.stop() == 0
        assert "panicked" not in "".join(server.log)


def connect(server, sent=b"", address="127.0.0.1"):
    """A socket that has sent this, and that takes as little as a socket can."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(SOON)
    connection.bind((address, 0))
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(sent)
    return connection


def ask(server, path="/delta-sharing/shares", address="127.0.0.1"):
    """A neighbour's request: the answer, and how long it took."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON, source_address=(address, 0))
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        response.read()
        return response, time.monotonic() - began
    finally:
        connection.close()


def closed_after(connection, seconds, every=None):
    """How long the server leaves a connection open, while `every` is sent each half second; what it sent last."""
    began = time.monotonic()
    received = b""
    while time.monotonic() - began < seconds:
        readable, _, _ = select.select([connection], [], [], 0.5)
        try:
            if readable:
                got = connection.recv(65536)
                if not got:
                    return time.monotonic() - began, received
                received += got
            elif every:
                connection.sendall(every)
        except (ConnectionResetError, BrokenPipeError):
            return time.monotonic() - began, received
    raise AssertionError(f"still open after {seconds} s")


@pytest.mark.parametrize("sent", [b"", b"GET /delta-sharing/shares HTTP/1.1\r\nHost: x\r\nX-"])
def test_sockets_without_a_request_lock_nobody_out(attacked, sent):
    server = attacked(before=FEW_FILES)
    for _ in range(500):
        server.attack(sent)
    for _ in range(20):
        for path in ("/delta-sharing/shares", "/health"):
            response, seconds = ask(server, path)
            assert response.status == 200 and seconds < SOON
    assert "connections_of_address=" in server.wait_for_log("connections are at their limit")
    assert "WARN" in server.wait_for_log("may open only 128 files")


def get(server, target):
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()


def large_file(server):
    answer = server.request("POST", "/shares/s/schemas/d/tables/large/query", body=b"{}")
    url = next(line["file"]["url"] for line in answer.lines[2:] if "large.parquet" in line["file"]["url"])
    parts = urllib.parse.urlsplit(url)
    return f"{parts.path}?{parts.query}"


def test_slow_readers_of_files_take_only_what_is_theirs(attacked):
    server = attacked("--max-connections", "20", "--max-connections-per-address", "8", "--send-timeout", "5s")
    request = get(server, large_file(server))
    slow = [server.attack(request, "127.0.0.2") for _ in range(8)]
    assert all(connection.recv(1) for connection in slow)
    for _ in range(50):
        server.attack(request, "127.0.0.2")
    for _ in range(10):
        response, seconds = ask(server)
        assert response.status == 200 and seconds < SOON
    # The sender itself gets 503, except for the health of the server.
    response, _ = ask(server, address="127.0.0.2")
    assert (response.status, response.getheader("connection")) == (503, "close") and response.getheader("retry-after")
    assert ask(server, "/health", address="127.0.0.2")[0].status == 200
    assert ask(server, "/delta-sharing/health/", address="127.0.0.2")[0].status == 200
    assert "127.0.0.2" in server.wait_for_log("did not read its answer", seconds=30)
    # They are gone, before they had the whole file, and their places are free.
    end = time.monotonic() + SOON
    while ask(server, address="127.0.0.2")[0].status != 200:
        assert time.monotonic() < end
        time.sleep(0.2)
    wait_until(lambda: sum(" gone " in line and "127.0.0.2" in line for line in list(server.log)) >= len(slow))
    received = 0
    # What the kernel still has for it may come as late as its next probe of a window that was closed.
    slow[0].settimeout(120)
    try:
        while got := slow[0].recv(1 << 20):
            received += len(got)
    except ConnectionResetError:
        pass
    assert received < 64 << 20


def test_health_is_answered_when_every_place_is_taken(attacked):
    server = attacked("--max-connections", "8", "--max-connections-per-address", "8", "--send-timeout", "60s")
    request = get(server, large_file(server))
    for _ in range(8):
        assert server.attack(request).recv(1)
    for _ in range(100):
        server.attack(request)
    for _ in range(20):
        response, seconds = ask(server, "/health")
        assert response.status == 200 and seconds < SOON
        assert ask(server)[0].status == 503


def test_a_reader_that_is_slow_but_reads_has_the_whole_file(attacked):
    """It takes three times as long as a client that does not read may wait."""
    server = attacked("--send-timeout", "2s")
    connection = server.attack(get(server, large_file(server)))
    received, began = 0, time.monotonic()
    while received < 64 << 20:
        got = connection.recv(1 << 20)
        assert got, f"the answer broke off after {received} bytes"
        received += len(got)
        time.sleep(max(0, began + 7 * received / (64 << 20) - time.monotonic()))


def test_an_answer_that_nobody_reads_ends_and_its_event_says_so(attacked):
    server = attacked("--send-timeout", "3s")
    body = "{}"
    server.attack((
        f"POST /delta-sharing/shares/s/schemas/d/tables/large/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode())
    server.wait_for_log("did not read its answer", seconds=30)
    end = time.monotonic() + SOON
    while not [line for line in server.log if "QueryTable" in line and ("gone" in line or "broken" in line)]:
        assert time.monotonic() < end, "".join(server.log)
        time.sleep(0.1)


@pytest.mark.parametrize("sent,every", [
    (b"", None),
    (b"GET /", None),
    (b"GET /delta-sharing/shares HTTP/1.1\r\nHost: x\r\nX-Long: ", b"x"),
    (b"", b"\r\n"),
])
def test_a_request_that_does_not_come_ends_its_connection(attacked, sent, every):
    seconds, received = closed_after(attacked().attack(sent), 30, every)
    assert seconds < 20 and b" 200 " not in received


@pytest.mark.parametrize("every", [None, b" "])
def test_half_a_body_is_a_408(attacked, every):
    server = attacked()
    connection = server.attack((
        f"POST /delta-sharing/shares/s/schemas/d/tables/small/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Length: 1000\r\n\r\n{"
    ).encode())
    seconds, received = closed_after(connection, 60, every)
    assert received.startswith(b"HTTP/1.1 408 ") and b"REQUEST_TIMEOUT" in received and seconds < 50


def test_a_sender_without_a_token_is_not_waited_for(attacked):
    connection = attacked().attack(
        b"POST /delta-sharing/shares/s/schemas/d/tables/small/query HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    seconds, received = closed_after(connection, 20)
    assert received.startswith(b"HTTP/1.1 401 ") and seconds < SOON


def test_an_idle_connection_ends_and_one_in_use_does_not(attacked):
    server = attacked("--idle-timeout", "6s")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON)
    for _ in range(8):
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b"ok\n"
        used = connection.sock
        time.sleep(1)
    assert connection.sock is used
    assert closed_after(used, 40)[0] < 30
    connection.close()


def test_http_2_is_not_spoken(attacked):
    server = attacked()
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    seconds, received = closed_after(server.attack(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings), 20)
    assert seconds < SOON and (received == b"" or received.startswith(b"HTTP/1.1 "))


def test_a_header_without_end_is_a_431(attacked):
    server = attacked()
    for length, status in [(60_000, b"200"), (70_000, b"431")]:
        connection = server.attack()
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * length + b"\r\nConnection: close\r\n\r\n")
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert connection.recv(100).split(b" ")[1] == status


def cpu_seconds(process):
    with open(f"/proc/{process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_listener_that_runs_out_of_files_says_so_and_goes_on(attacked):
    server = attacked()
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (5, limits[1]))
    server.attack(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert "ERROR" in server.wait_for_log("connections cannot be accepted")
    began = cpu_seconds(server.process)
    time.sleep(3)
    assert cpu_seconds(server.process) - began < 1
    assert len([line for line in server.log if "cannot be accepted" in line]) == 1
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
    assert ask(server)[0].status == 200


def test_the_log_says_where_a_request_came_from(attacked):
    server = attacked()
    ask(server, address="127.0.0.3")
    assert "ListShares" in server.wait_for_log("127.0.0.3")


@pytest.mark.parametrize("option,value", [
    ("--max-connections", "0"), ("--max-connections-per-address", "many"), ("--idle-timeout", "2h"), ("--send-timeout", "0s"),
])
def test_a_limit_that_makes_no_sense_is_refused(share_file, option, value):
    with pytest.raises(RuntimeError, match="invalid value"):
        Server("--shares", share_file, option, value)
