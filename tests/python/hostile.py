"""Hostile logs of Delta tables, and the Thrift that some of them need."""

import json
import struct

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = {"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]}
PROTOCOL = {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}


def metadata(schema=SCHEMA, partitions=(), configuration=None):
    return {"metaData": {
        "id": "5fba94ed-9794-4965-ba6e-6ee3c0d22af9", "format": {"provider": "parquet", "options": {}},
        "schemaString": schema if isinstance(schema, str) else json.dumps(schema), "partitionColumns": list(partitions),
        "configuration": configuration or {"delta.enableChangeDataFeed": "true"}, "createdTime": 1,
    }}


def add(path, **more):
    return {"add": {"path": path, "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True, **more}}


def lines(*actions):
    return "".join(json.dumps(action) + "\n" for action in actions)


def commit(version):
    return f"{version:020}.json"


def checkpoint(version):
    return f"{version:020}.checkpoint.parquet"


class Table:
    """A table's log, written by hand."""

    def __init__(self, root, whole=True):
        self.root, self.log = root, root / "_delta_log"
        self.log.mkdir(parents=True)
        if whole:
            self.write(commit(0), lines(PROTOCOL, metadata(), add("a.parquet")))

    def write(self, name, content):
        mode = "wb" if isinstance(content, bytes) else "w"
        with open(self.log / name, mode) as file:
            file.write(content)
        return self

    def point_at(self, version):
        return self.write("_last_checkpoint", json.dumps({"version": version, "size": 3}))


ACTIONS = pa.schema([
    ("protocol", pa.struct([("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32())])),
    ("metaData", pa.struct([
        ("id", pa.string()),
        ("format", pa.struct([("provider", pa.string()), ("options", pa.map_(pa.string(), pa.string()))])),
        ("schemaString", pa.string()), ("partitionColumns", pa.list_(pa.string())),
        ("configuration", pa.map_(pa.string(), pa.string())), ("createdTime", pa.int64()),
    ])),
    ("add", pa.struct([
        ("path", pa.string()), ("partitionValues", pa.map_(pa.string(), pa.string())), ("size", pa.int64()),
        ("modificationTime", pa.int64()), ("dataChange", pa.bool_()), ("stats", pa.string()),
    ])),
])


def rows(*actions):
    """A table of actions for a checkpoint."""
    found = []
    for action in actions:
        row = {name: None for name in ACTIONS.names}
        for name, value in action.items():
            value = dict(value)
            for key in ("partitionValues", "configuration"):
                if key in value:
                    value[key] = list(value[key].items())
            if name == "metaData":
                value["format"] = {"provider": "parquet", "options": []}
            row[name] = value
        found.append(row)
    return pa.Table.from_pylist(found, schema=ACTIONS)


def write_checkpoint(path, table, **options):
    pq.write_table(table, path, **{"compression": "snappy", **options})


def varint(value):
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def integer(value):
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def text(value):
    return varint(len(value)) + value


def many(kind, elements):
    head = bytes([len(elements) << 4 | kind]) if len(elements) < 15 else bytes([0xF0 | kind]) + varint(len(elements))
    return head + b"".join(elements)


def group(name, children, repetition=1, converted=None):
    """An element of a schema with children: its repetition, its name, their number, and what it stands for."""
    stands_for = b"" if converted is None else b"\x15" + integer(converted)
    return (b"\x35" + integer(repetition) + b"\x18" + text(name) + b"\x15" + integer(children) + stands_for
            + b"\x00")


def leaf(name):
    return b"\x15\x02" + b"\x25\x02" + b"\x18" + text(name) + b"\x00"


def parquet(metadata, body=b""):
    """A Parquet file of a footer and what comes before it."""
    return b"PAR1" + body + metadata + struct.pack("<I", len(metadata)) + b"PAR1"


def file_metadata(schema, row_groups=(), num_rows=0, more=b""):
    """A footer: version, schema, number of rows, row groups, and fields that readers pass over."""
    return (b"\x15\x02" + b"\x19" + many(12, schema) + b"\x16" + integer(num_rows) + b"\x19" + many(12, list(row_groups))
            + more + b"\x00")


LIST, REPEATED = 3, 2


def nested_groups(depth):
    return parquet(file_metadata([group(b"r", 1)] + [group(b"g", 1)] * depth + [leaf(b"x")]))


def nested_lists(depth):
    """A list has two levels."""
    level = [group(b"element", 1, converted=LIST), group(b"list", 1, repetition=REPEATED)]
    return parquet(file_metadata([group(b"r", 1)] + level * (depth // 2) + [leaf(b"element")]))
