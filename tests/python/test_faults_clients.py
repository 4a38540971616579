"""Clients that die in the middle of an answer, or of their own request: nothing of them is left in the server."""

import json
import os
import pathlib
import random
import socket
import struct
import sys

import pytest

from conftest import TOKEN, Server, hash_of
from faults import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")

FILES = 8_000
CLIENTS, ROUNDS = 8, 6
PATH = "/delta-sharing/shares/s/schemas/d/tables/large"


@pytest.fixture
def server(tmp_path):
    log = tmp_path / "large/_delta_log"
    log.mkdir(parents=True)
    schema = {"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]}
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11", "format": {"provider": "parquet", "options": {}},
                      "schemaString": json.dumps(schema), "partitionColumns": [], "configuration": {}, "createdTime": 0}},
        *({"add": {"path": f"part-{number:06}.parquet", "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": True,
                   "stats": '{"numRecords":1}'}} for number in range(FILES)),
    ]
    (log / f"{0:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [{"name": "large", "location": str(tmp_path / "large")}]}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares)
    yield server
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def figure(server, name):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1])


def request(headers="", body="{}"):
    return (f"POST {PATH}/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
            f"{headers}Content-Length: {len(body)}\r\n\r\n{body}").encode()


def die(connection, reset):
    if reset:
        # Without lingering a close is a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def leave(server, kind, chance):
    """A client that goes: before its request is whole, before the answer, in it, or with more of it than it takes."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    whole = request("Accept-Encoding: gzip\r\n" if chance.random() < 0.5 else "")
    if kind == "half a request":
        connection.sendall(whole[:chance.randrange(1, len(whole))])
        return connection
    connection.sendall(whole)
    if kind == "before the answer":
        return connection
    got = connection.recv(chance.randrange(12, 8192))
    assert got.startswith(b"HTTP/1.1 200"), got[:200]
    if kind == "half an answer":
        for _ in range(chance.randrange(10)):
            connection.recv(4096)
    return connection


def round_of_clients(server, chance):
    """All of them at once, so that answers pile up; then they die, and one who stays has the whole answer."""
    kinds = ["half a request", "before the answer", "the first bytes", "half an answer"]
    clients = [leave(server, kinds[number % len(kinds)], chance) for number in range(CLIENTS)]
    for client in clients:
        die(client, reset=chance.random() < 0.5)
    answered = server.request("POST", f"{PATH.removeprefix('/delta-sharing')}/query", body=b"{}")
    assert answered.status == 200 and len(answered.lines) == FILES + 2


def left(server):
    """What the server holds once it holds nothing of its clients. Idle threads are kept for ten seconds."""
    wait_until(lambda: descriptors(server) == server.descriptors, 60)
    wait_until(lambda: figure(server, "Threads") <= server.threads, 60)
    return figure(server, "VmRSS")


def test_nothing_is_left_of_clients_that_die(server):
    server.descriptors, server.threads = descriptors(server), figure(server, "Threads")
    chance = random.Random(1)
    # The first of them also fill caches and what the allocator keeps.
    round_of_clients(server, chance)
    first = left(server)
    for _ in range(ROUNDS):
        round_of_clients(server, chance)
    last = left(server)
    print(f"{server.descriptors} descriptors, {server.threads} threads, {first} kB, later {last} kB, at most {figure(server, 'VmHWM')} kB")
    assert last < first + 60_000, "what is left of each client grows"
