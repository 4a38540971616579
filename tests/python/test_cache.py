"""What the server keeps of tables between requests: within its limit, and nothing that the next answer needs."""

import http.client
import json
import re
import time
import urllib.parse

import pytest

from conftest import TOKEN, Server, hash_of
from test_storage_requests import add, head, lines

SCHEMA = "/shares/retail/schemas/sales/tables/"
EVICTED = "a table is no longer kept"


def write_table(path, columns=1, files=5, stats_bytes=20):
    log = path / "_delta_log"
    log.mkdir(parents=True)
    protocol, metadata = head()
    fields = [{"name": f"c{number}", "type": "long", "nullable": True, "metadata": {}} for number in range(columns)]
    metadata["metaData"]["schemaString"] = json.dumps({"type": "struct", "fields": fields})
    adds = [add(f"f{number:05}.parquet") for number in range(files)]
    for action in adds:
        action["add"]["stats"] = json.dumps({"numRecords": 1, "minValues": {"c0": "v" * stats_bytes}})
    (log / f"{0:020}.json").write_bytes(lines(protocol, metadata, *adds))


class Reader:
    def __init__(self, server):
        self.server = server

    def query(self, name):
        answer = self.server.request("POST", f"{SCHEMA}{name}/query", body=b"{}")
        assert answer.status == 200, answer.body
        return len(answer.lines) - 2

    def evicted(self, name):
        """What the log says of the tables that were dropped, once it says that of this one: (name, bytes freed, tables left, bytes left)."""
        self.server.wait_for_log(f"/{name}\" ")
        found = [re.search(r'table="[^"]*/(\w+)" freed_bytes=(\d+) tables=(\d+) kept_bytes=(\d+)', line) for line in self.server.log if EVICTED in line]
        return [(match[1], *map(int, match.groups()[1:])) for match in found]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    root = tmp_path_factory.mktemp("cached")
    names = [f"t{number}" for number in range(4)]
    for name in names:
        write_table(root / name)
    write_table(root / "wide", columns=500)
    write_table(root / "large", files=30_000, stats_bytes=600)
    shares = root / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "retail", "schemas": [{"name": "sales", "tables": [
            {"name": name, "location": str(root / name)} for name in [*names, "wide", "large"]]}]}],
        "recipients": [{"name": "acme", "shares": ["retail"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    return shares


@pytest.fixture
def reader(lake, request):
    started = []

    def start(cache_bytes):
        server = Server("--shares", lake, "--limit", f"cache_bytes={cache_bytes}")
        started.append(server)
        return Reader(server)

    yield start
    for server in started:
        assert server.stop() == 0
        assert "panicked" not in "".join(server.log)


@pytest.fixture
def size(reader):
    """What one of the small tables keeps."""
    nothing = reader(0)
    assert nothing.query("t0") == 5
    [(name, freed, tables, kept)] = nothing.evicted("t0")
    assert (name, tables, kept) == ("t0", 0, 0) and 10_000 < freed < 200_000
    return freed


def test_the_table_that_was_used_longest_ago_is_dropped(reader, size):
    mine = reader(size * 5 // 2)
    for name in ("t0", "t1", "t0", "t2"):
        assert mine.query(name) == 5
    [first] = mine.evicted("t1")
    assert first[0] == "t1" and first[2] == 2 and first[3] <= size * 5 // 2
    assert mine.query("t3") == 5
    assert [name for name, *_ in mine.evicted("t0")] == ["t1", "t0"]
    # It is read again.
    assert mine.query("t1") == 5
    assert [name for name, *_ in mine.evicted("t2")] == ["t1", "t0", "t2"]


def test_a_table_that_is_too_large_leaves_the_others_where_they_are(reader, size):
    mine = reader(size * 5 // 2)
    for name in ("t0", "t1", "wide"):
        assert mine.query(name) == 5
    [(name, freed, tables, _)] = mine.evicted("wide")
    assert (name, tables) == ("wide", 2) and freed > 10 * size


def test_a_table_in_use_stays(reader):
    """Of an answer that its client has not read yet."""
    mine = reader(0)
    connection = http.client.HTTPConnection("127.0.0.1", mine.server.port, timeout=60)
    path = urllib.parse.urlsplit(mine.server.endpoint).path.rstrip("/") + f"{SCHEMA}large/query"
    connection.request("POST", path, body=b"{}", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert answer.status == 200
    begin = answer.read(10_000)
    assert mine.query("t0") == 5
    assert {name for name, *_ in mine.evicted("t0")} == {"t0"}
    text = begin + answer.read()
    connection.close()
    assert text.count(b"\n") == 30_002 and b"INCOMPLETE" not in text
    assert {name for name, *_ in mine.evicted("large")} == {"t0", "large"}


def test_the_default_keeps_many_tables(reader, size):
    mine = reader(64 << 20)
    for name in ("t0", "t1", "t2", "t3", "wide"):
        assert mine.query(name) == 5
    time.sleep(0.2)
    assert EVICTED not in "".join(mine.server.log)
