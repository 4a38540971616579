"""Tables with hostile logs, next to one that is fine.

Each gets a clear answer within seconds, the memory of the process stays bounded, and the table beside it is served as ever.
"""

import concurrent.futures
import json
import pathlib
import time

import pyarrow as pa
import pytest

from conftest import TOKEN, Server, hash_of
from hostile import (ACTIONS, PROTOCOL, Table, add, checkpoint, commit, file_metadata, group, leaf, lines, many, metadata,
                     nested_groups, nested_lists, parquet, rows, write_checkpoint)

SECONDS = 30
MEGABYTES = 600
MIB = 1 << 20
LAST_VERSION = 2**63 - 1
DAMAGED = "its Delta log is damaged or incomplete"
DEEP = "its log is nested too deeply"


def columns(count):
    return {"type": "struct", "fields": [
        {"name": f"c{at}", "type": "long", "nullable": True, "metadata": {}} for at in range(count)]}


def with_line(root, line):
    """A table whose newest commit has this line, given as pieces."""
    table = Table(root)
    with open(table.log / commit(1), "w") as file:
        for piece in line:
            file.write(piece)
        file.write("\n")
    return table


def sparse(table, name, size=3 << 30):
    with open(table.log / name, "wb") as file:
        file.truncate(size)
    return table


def with_checkpoint(root, content, whole=True):
    """A table with a checkpoint of version 1: bytes, or a table of actions. Not whole, it has nothing else."""
    table = Table(root)
    table.write(commit(1), lines(add("b.parquet")))
    if isinstance(content, bytes):
        table.write(checkpoint(1), content)
    else:
        actions, options = content
        write_checkpoint(table.log / checkpoint(1), actions, **options)
    if not whole:
        (table.log / commit(0)).unlink()
    return table.point_at(1)


def with_stats(count, size):
    """Actions of which each has the same large statistic."""
    actions = rows(PROTOCOL, metadata(), *[add(f"f{at}") for at in range(count)])
    files = actions.column("add").combine_chunks()
    fields = [files.field(at) for at in range(files.type.num_fields)]
    values = pa.DictionaryArray.from_arrays(pa.array([None, None] + [0] * count, pa.int32()), ["x" * size])
    fields[-1] = values if count * size > 2**31 else values.cast(pa.string())
    types = [pa.field(field.name, value.type) for field, value in zip(files.type, fields)]
    files = pa.StructArray.from_arrays(fields, fields=types, mask=files.is_null())
    return actions.set_column(ACTIONS.get_field_index("add"), pa.field("add", files.type), files)


def with_names(root, protocol=PROTOCOL, **names):
    return Table(root, whole=False).write(commit(0), lines(protocol, metadata(**names), add("a.parquet")))


def features(count, reader):
    names = [f"feature{at}" for at in range(count)]
    protocol = {"minReaderVersion": 3 if reader else 1, "minWriterVersion": 7, "writerFeatures": names}
    return {"protocol": {**protocol, **({"readerFeatures": names} if reader else {})}}


def many_listed(root, claimed):
    """A footer with a list of more booleans than bytes, which take none, in a field that no reader knows."""
    booleans = b"\x09\x1e" + b"\xf1" + claimed  # field 15, written with its whole id
    return with_checkpoint(root, parquet(file_metadata([group(b"r", 1), leaf(b"x")], more=booleans)), whole=False)


# What each table is, and what a query of it says: None where it is answered from what is whole.
ATTACKS = {
    "brackets in a commit": (lambda root: with_line(root, ["[" * 30_000]), DEEP),
    "objects in a commit": (lambda root: with_line(root, ['{"commitInfo":' + '{"a":' * 30_000 + "1" + "}" * 30_001]), DEEP),
    "brackets in a commit of a megabyte": (lambda root: with_line(root, ['{"commitInfo":' + "[" * 2 * MIB]), DEEP),
    "brackets in the statistics": (
        lambda root: with_names(root, configuration={"delta.checkpoint.writeStatsAsJson": "false"}) and
        Table.write(TableAt(root), commit(1), lines(add("b.parquet", stats="[" * 30_000))), "either"),
    "brackets in the schema": (lambda root: with_names(root, schema="[" * 30_000), "schema cannot be read"),
    "brackets in _last_checkpoint": (lambda root: Table(root).write("_last_checkpoint", "[" * 30_000), None),
    "brackets in a checksum": (lambda root: Table(root).write(f"{0:020}.crc", "[" * 30_000), None),
    "brackets in a V2 checkpoint": (
        lambda root: Table(root).write(f"{0:020}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json", "[" * 30_000), "either"),
    "groups in a footer": (lambda root: with_checkpoint(root, nested_groups(3_000)), None),
    "groups in the only footer": (lambda root: with_checkpoint(root, nested_groups(3_000), whole=False), DEEP),
    "lists in the only footer": (lambda root: with_checkpoint(root, nested_lists(3_000), whole=False), DEEP),
    "groups as deep as the limit": (lambda root: with_checkpoint(root, nested_groups(190), whole=False), DAMAGED),
    "booleans that take no bytes": (lambda root: many_listed(root, b"\xff\xff\xff\xff\x07"), DAMAGED),
    "a footer larger than the file": (
        lambda root: with_checkpoint(root, b"PAR1" + b"\xff\xff\xff\x00PAR1", whole=False), DAMAGED),
    "children that are not there": (
        lambda root: with_checkpoint(root, parquet(file_metadata([group(b"r", 2**31 - 1), leaf(b"x")])), whole=False), DAMAGED),
    "a commit of the last version": (lambda root: Table(root).write(commit(LAST_VERSION), ""), "a commit of its log is empty"),
    "a commit of the last version with actions": (
        lambda root: Table(root).write(commit(LAST_VERSION), lines(add("b.parquet"))), DAMAGED),
    "a commit beyond the last version": (lambda root: Table(root).write(commit(2**64 - 1), ""), None),
    "a checkpoint of the last version": (lambda root: Table(root).write(checkpoint(LAST_VERSION), ""), None),
    "a checkpoint beyond the last version": (lambda root: Table(root).write(checkpoint(2**64 - 1), "x"), None),
    "_last_checkpoint names the last version": (lambda root: Table(root).point_at(LAST_VERSION), None),
    "_last_checkpoint names one beyond it": (lambda root: Table(root).point_at(2**64 - 1), None),
    "a compacted commit up to the last version": (
        lambda root: Table(root).write(f"{0:020}.{LAST_VERSION:020}.compacted.json", "x"), None),
    "a checkpoint of two billion parts": (
        lambda root: Table(root).write(f"{0:020}.checkpoint.0000000001.4294967295.parquet", "x"), None),
    "reader features": (lambda root: with_names(root, features(100_000, True)), "lists too many names"),
    "writer features": (lambda root: with_names(root, features(100_000, False)), "lists too many names"),
    "partition columns": (
        lambda root: with_names(root, schema=columns(20_000), partitions=[f"c{at}" for at in range(20_000)]), "lists too many names"),
    "the same partition column": (
        lambda root: with_names(root, schema=columns(2), partitions=["c1"] * 100_000), "lists too many names"),
    "properties": (lambda root: with_names(root, configuration={f"k{at}": "v" for at in range(100_000)}), "lists too many names"),
    "columns": (lambda root: with_names(root, schema=columns(60_000)), "its schema is too large"),
    "the same column": (lambda root: with_names(root, schema=json.dumps(columns(1)).replace(
        '"fields": [', '"fields": [' + json.dumps(columns(1)["fields"][0]) + ", ", 1).replace("]", "]")), "schema cannot be read"),
    "a schema of a comment": (lambda root: with_names(root, schema="x" * 17 * MIB), "its schema is too large"),
    "an action of a gigabyte": (
        lambda root: with_line(root, ['{"add":{"path":"b","stats":"', *["x" * MIB] * 1024, '"}}']), "an action that is too large"),
    "an action of numbers": (lambda root: with_line(root, ['{"commitInfo":[', *["1," * (MIB // 2)] * 200, "1]}"]),
                             "an action that is too large"),
    "a gigabyte of large actions": (
        lambda root: with_line(root, [lines(add(f"f{at}", stats="x" * MIB)) for at in range(1024)]), "too many large actions"),
    "a commit of zeros": (lambda root: sparse(Table(root), commit(1)), DAMAGED),
    "a large _last_checkpoint": (lambda root: sparse(Table(root), "_last_checkpoint"), None),
    "a large checksum": (lambda root: sparse(Table(root), f"{0:020}.crc"), None),
    "a large checkpoint": (lambda root: sparse(Table(root), checkpoint(0)), None),
    "one large statistic": (
        lambda root: with_checkpoint(root, (with_stats(1, 500 * MIB), {})), "a page that is too large"),
    "one large statistic, by Zstandard": (
        lambda root: with_checkpoint(root, (with_stats(1, 500 * MIB), {"compression": "zstd"})), "a page that is too large"),
    "one large statistic, by gzip": (
        lambda root: with_checkpoint(root, (with_stats(1, 500 * MIB), {"compression": "gzip"})), "a page that is too large"),
    "one large statistic, by Brotli": (
        lambda root: with_checkpoint(root, (with_stats(1, 70 * MIB), {"compression": "brotli"})), None),
    "a statistic that many files share": (
        lambda root: with_checkpoint(root, (with_stats(3_000, 400_000), {"dictionary_pagesize_limit": 10 * MIB})),
        "too many large actions"),
}


class TableAt(Table):
    def __init__(self, root):
        self.root, self.log = root, root / "_delta_log"


def entry(name, root):
    return {"name": name, "location": str(root), "historyShared": True}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """One server over every table: {attack: table name}, and the good table beside them."""
    root = tmp_path_factory.mktemp("hostile")
    good = Table(root / "good")
    names = {attack: f"t{at}" for at, attack in enumerate(ATTACKS)}
    (root / "damaged").mkdir()
    entries = [entry("good", good.root), entry("damaged", root / "damaged"), *(entry(name, root / name) for name in names.values())]
    shares = {
        "version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": entries}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }
    for name in names.values():
        (root / name).mkdir()
    path = root / "shares.yaml"
    path.write_text(json.dumps(shares))
    server = Server("--shares", path)
    yield Hostile(server, root, names)
    alive = server.process.poll() is None
    server.stop()
    assert alive, "the server is gone"
    assert "panicked" not in "".join(server.log)


class Hostile:
    def __init__(self, server, root, names):
        self.server, self.root, self.names = server, root, names

    def ask(self, table, method, path, body=None):
        headers = {"Content-Type": "application/json"} if body is not None else None
        body = None if body is None else json.dumps(body).encode()
        return self.server.request(method, f"/shares/s/schemas/d/tables/{table}{path}", body, headers)

    def peak_megabytes(self):
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) // 1024


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_table_is_answered_and_its_neighbour_too(hostile, attack):
    make, says = ATTACKS[attack]
    name = hostile.names[attack]
    make(hostile.root / name)
    for method, path, body in [
        ("POST", "/query", {}), ("GET", "/version", None), ("GET", "/metadata", None), ("POST", "/query", {"version": LAST_VERSION}),
        ("POST", "/query", {"startingVersion": 0}), ("GET", "/changes?startingVersion=0", None),
        ("GET", f"/changes?startingVersion={LAST_VERSION}", None),
    ]:
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor() as others:
            beside = others.submit(hostile.ask, "good", "POST", "/query", {})
            answer = hostile.ask(name, method, path, body)
            assert beside.result().status == 200
        assert time.monotonic() - began < SECONDS, (path, body)
        assert answer.status in (200, 400), (path, body, answer.body[:300])
        if path == "/query" and body == {} and says != "either":
            if says is None:
                assert answer.status == 200 and any("file" in line for line in answer.lines), answer.body[:300]
            else:
                text = answer.body.decode()
                assert says in text, text[:300]
    assert hostile.peak_megabytes() < MEGABYTES


@pytest.mark.parametrize("version", [1, 5, 999, 10**6, LAST_VERSION, 2**64 - 1])
def test_a_version_that_is_not_listed_is_refused_though_the_newest_is_damaged(hostile, version):
    if not (hostile.root / "damaged" / "_delta_log").exists():
        Table(hostile.root / "damaged").write(commit(1), "no JSON\n").write(commit(7), lines(add("b.parquet")))
    began = time.monotonic()
    answer = hostile.ask("damaged", "POST", "/query", {"version": version})
    assert answer.status == 400, answer.body[:300]
    assert time.monotonic() - began < SECONDS
    assert hostile.ask("damaged", "POST", "/query", {"version": 0}).status == 200


def test_a_limit_that_a_table_meets_can_be_raised(tmp_path):
    with_names(tmp_path, configuration={f"x{at}": "" for at in range(11)})
    path = tmp_path / "shares.yaml"
    path.write_text(json.dumps({
        "version": 1, "authorization": "none",
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [entry("t", tmp_path)]}]}],
    }))
    for number, status in [(10, 400), (11, 200)]:
        server = Server("--shares", path, "--limit", f"log_names={number}", "--limit", "log_depth=1000")
        try:
            answer = server.request("GET", "/shares/s/schemas/d/tables/t/metadata")
        finally:
            server.stop()
        assert answer.status == status, answer.body
