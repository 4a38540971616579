"""Checkpoints from which a query reads only the files of some partitions: no file of these is missing, in any order of queries."""

import json
import random

import pyarrow
import pyarrow.parquet
import pytest

from conftest import TOKEN, Server, hash_of

TABLE = "/shares/all/schemas/s/tables/t"
MAP = pyarrow.map_(pyarrow.string(), pyarrow.string())
ADD = pyarrow.struct([("path", pyarrow.string()), ("partitionValues", MAP), ("size", pyarrow.int64()),
                      ("modificationTime", pyarrow.int64()), ("dataChange", pyarrow.bool_()), ("stats", pyarrow.string())])
REMOVE = pyarrow.struct([("path", pyarrow.string()), ("deletionTimestamp", pyarrow.int64()), ("dataChange", pyarrow.bool_())])
TXN = pyarrow.struct([("appId", pyarrow.string()), ("version", pyarrow.int64())])
PROTOCOL = pyarrow.struct([("minReaderVersion", pyarrow.int32()), ("minWriterVersion", pyarrow.int32())])
METADATA = pyarrow.struct([
    ("id", pyarrow.string()), ("format", pyarrow.struct([("provider", pyarrow.string()), ("options", MAP)])),
    ("schemaString", pyarrow.string()), ("partitionColumns", pyarrow.list_(pyarrow.string())), ("configuration", MAP),
])
SCHEMA = pyarrow.schema([("protocol", PROTOCOL), ("metaData", METADATA), ("txn", TXN), ("remove", REMOVE), ("add", ADD)])
COLUMNS = {"type": "struct", "fields": [{"name": name, "type": kind, "nullable": True, "metadata": {}}
                                        for name, kind in [("id", "long"), ("p", "string"), ("q", "integer")]]}
HEAD = [
    {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
    {"metaData": {"id": "a7b2", "format": {"provider": "parquet", "options": []}, "schemaString": json.dumps(COLUMNS),
                  "partitionColumns": ["p", "q"], "configuration": []}},
]
P = ["a", "b", "ä", "it's", None]


def file(chance, number):
    """An add action whose path tells its partition; keys are in either order, as writers have them."""
    p, q = chance.choice(P), chance.choice([None, 1, 2])
    values = [("p", p), ("q", None if q is None else str(q))]
    chance.shuffle(values)
    path = f"{number}-{P.index(p)}-{q}"
    return {"path": path, "partitionValues": values, "size": 10, "modificationTime": 0, "dataChange": True,
            "stats": json.dumps({"numRecords": 1, "minValues": {"id": number}, "maxValues": {"id": number}, "nullCount": {"id": 0}})}


def checkpoint(chance, path, rows, clustered):
    """Rows in groups of different sizes; some have no rows at all, and some no files."""
    adds = [row for row in rows if "add" in row]
    if clustered:
        adds.sort(key=lambda row: row["add"]["path"].split("-")[1:])
    else:
        chance.shuffle(adds)
    groups, rest = [[row for row in rows if "add" not in row]], adds
    while rest:
        size = chance.choice([0, 1, 3, 20, 60])
        groups.append(rest[:size])
        rest = rest[size:]
    groups.append([])
    if chance.random() < 0.5:
        groups[1][:0] = groups.pop(0)
    groups = [group if chance.random() < 0.9 else group + [{"txn": {"appId": "a", "version": 1}}] for group in groups]
    with pyarrow.parquet.ParquetWriter(path, SCHEMA, use_dictionary=chance.random() < 0.7,
                                       data_page_version=chance.choice(["1.0", "2.0"])) as writer:
        for group in groups:
            columns = {name: pyarrow.array([row.get(name) for row in group], SCHEMA.field(name).type) for name in SCHEMA.names}
            writer.write_table(pyarrow.table(columns, schema=SCHEMA), row_group_size=1000)
    written = pyarrow.parquet.ParquetFile(path).metadata
    return [written.row_group(number).num_rows for number in range(written.num_row_groups)]


def table(chance, root):
    """Writes a log; returns the paths of the files of its newest version, and the rows of its row groups."""
    log = root / "_delta_log"
    log.mkdir(parents=True)
    files = [file(chance, number) for number in range(400)]
    removed = [{"remove": {"path": f"gone-{number}", "deletionTimestamp": 0, "dataChange": True}} for number in range(30)]
    rows = HEAD + removed + [{"add": add} for add in files]
    clustered = chance.random() < 0.5
    parts = chance.choice([1, 3])
    sizes = []
    for part in range(parts):
        name = "" if parts == 1 else f".{part + 1:010}.{parts:010}"
        sizes += checkpoint(chance, log / f"{0:020}.checkpoint{name}.parquet", rows[part::parts], clustered)
    paths = {add["path"] for add in files}
    gone = set(chance.sample(sorted(paths), 20))
    late = [file(chance, number) for number in range(400, 440)]
    actions = [{"remove": {"path": path, "deletionTimestamp": 0, "dataChange": True}} for path in sorted(gone)]
    actions += [{"add": {**add, "partitionValues": dict(add["partitionValues"])}} for add in late]
    (log / f"{1:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    return (paths - gone) | {add["path"] for add in late}, sizes


def shares(home, location):
    """A share file with a recipient of everything and one of some partitions."""
    tokens = {"everything": TOKEN, "some": "dss_some_partitions_of_the_table_are_shared_with_this_one"}
    grants = {"everything": "all", "some": {"name": "all", "filter": "p IN ('a', 'ä') AND q = 1 OR p IS NULL"}}
    path = home / "shares.yaml"
    path.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "all", "schemas": [{"name": "s", "tables": [{"name": "t", "location": str(location)}]}]}],
        "recipients": [{"name": name, "shares": [grants[name]], "tokens": [{"sha256": hash_of(token), "expires": "never"}]}
                       for name, token in tokens.items()],
    }))
    return path, tokens


def sent(server, body, token, delta):
    """The paths of the files of an answer, in all of its pages."""
    headers = {"Authorization": f"Bearer {token}"}
    if delta:
        headers["delta-sharing-capabilities"] = "responseformat=delta"
    paths = []
    while body is not None:
        answer = server.request("POST", f"{TABLE}/query", body=json.dumps(body).encode(), headers=headers)
        assert answer.status == 200, answer.body
        files = [line["file"] for line in answer.lines if "file" in line]
        urls = [file["deltaSingleAction"]["add"]["path"] if delta else file["url"] for file in files]
        paths += [url.split("?")[0].rsplit("/", 1)[1] for url in urls]
        next_token = next((line["endStreamAction"].get("nextPageToken") for line in answer.lines if "endStreamAction" in line), None)
        body = {**body, "pageToken": next_token} if next_token else None
    return paths


def partition(path):
    _, p, q = path.split("-")
    return P[int(p)], None if q == "None" else int(q)


QUERIES = {
    "p = 'a'": lambda p, q: p == "a",
    "p = 'b' AND q = 2": lambda p, q: p == "b" and q == 2,
    "p IS NULL": lambda p, q: p is None,
    "q IS NULL": lambda p, q: q is None,
    "p = 'b' OR q = 1": lambda p, q: p == "b" or q == 1,
    "p > 'z'": lambda p, q: p == "ä",
    "p = 'never'": lambda p, q: False,
    "id >= 0": lambda p, q: True,
}


@pytest.mark.parametrize("seed", range(6))
def test_no_file_of_a_partition_is_missing_whatever_was_asked_before(tmp_path, seed):
    chance = random.Random(seed)
    paths, sizes = table(chance, tmp_path / "t")
    assert 0 in sizes and len(sizes) > 5
    share_file, tokens = shares(tmp_path, tmp_path / "t")
    server = Server("--shares", share_file)
    try:
        allowed = {
            "everything": paths,
            "some": {path for path in paths
                     if (partition(path)[0] in ("a", "ä") and partition(path)[1] == 1) or partition(path)[0] is None},
        }
        for _ in range(40):
            sql, matches = chance.choice(list(QUERIES.items()))
            recipient, delta = chance.choice(list(tokens)), chance.random() < 0.3
            body = {"predicateHints": [sql]} if chance.random() < 0.8 else {}
            if chance.random() < 0.3:
                body["maxFiles"] = chance.choice([1, 7, 50])
            found = sent(server, body, tokens[recipient], delta)
            expected = {path for path in allowed[recipient] if not body.get("predicateHints") or matches(*partition(path))}
            assert len(found) == len(set(found))
            assert set(found) == expected, (sql, recipient, delta, body)
    finally:
        assert server.stop() == 0
