"""Tables that the tests write themselves, with the Python package `deltalake`."""

import datetime
import decimal
import pathlib

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake  # noqa: F401

import canonical


def expect(path, suffix="", version=None):
    table = DeltaTable(str(path), version=version)
    canonical.write(path / f"expected{suffix}.json", table.to_pyarrow_table().to_pylist())


def versions(path):
    """Append, append, overwrite, delete: four versions."""
    def batch(start, count, word):
        return pa.table({"id": pa.array(range(start, start + count), pa.int64()), "word": [word] * count})

    write_deltalake(path, batch(0, 5, "first"))
    write_deltalake(path, batch(5, 5, "second"), mode="append")
    write_deltalake(path, batch(100, 3, "third"), mode="overwrite")
    DeltaTable(path).delete("id = 101")
    for version in range(4):
        expect(pathlib.Path(path), f"-v{version}", version)


def odd_partitions(path):
    values = ["plain", "a b", "a%b", "a%20b", "a=b", "a:b", "a+b", "a#b", "a?b", "a&b", "ü€😀", "a'b", "~t", "*", None]
    table = pa.table({
        "id": pa.array(range(len(values)), pa.int64()),
        "p": pa.array(values, pa.string()),
        "day": pa.array([datetime.date(2024, 1, 1)] * (len(values) - 1) + [None], pa.date32()),
    })
    write_deltalake(path, table, partition_by=["p", "day"])


def nested(path):
    write_deltalake(path, pa.table({
        "id": pa.array([1, 2], pa.int64()),
        "point": pa.array([{"x": 1, "y": None}, None], pa.struct([("x", pa.int32()), ("y", pa.string())])),
        "list": pa.array([[1, 2, None], []], pa.list_(pa.int64())),
        "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(20, 4)),
        "bytes": pa.array([b"\x00\xff", None], pa.binary()),
        "at": pa.array([datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.timezone.utc), None], pa.timestamp("us", "UTC")),
    }))


def evolved(path):
    write_deltalake(path, pa.table({"id": pa.array([1, 2], pa.int64())}))
    added = pa.table({"id": pa.array([3], pa.int64()), "name": ["x"]})
    write_deltalake(path, added, mode="append", schema_mode="merge")


def many_files(path):
    days = pa.table({
        "id": pa.array(range(300), pa.int64()),
        "bucket": pa.array([f"b{number % 150:03}" for number in range(300)]),
    })
    write_deltalake(path, days, partition_by=["bucket"])


def checkpointed(path):
    """A checkpoint and commits after it; the commits before it are gone."""
    for number in range(6):
        write_deltalake(path, pa.table({"id": pa.array([number], pa.int64())}), mode="append")
        if number == 3:
            DeltaTable(path).create_checkpoint()
    for number in range(3):
        (pathlib.Path(path) / "_delta_log" / f"{number:020}.json").unlink()


def merged(path):
    write_deltalake(path, pa.table({"id": pa.array(range(5), pa.int64()), "v": ["old"] * 5}),
                    configuration={"delta.enableChangeDataFeed": "true"})
    source = pa.table({"id": pa.array([3, 4, 5], pa.int64()), "v": ["new"] * 3})
    (DeltaTable(path).merge(source, "t.id = s.id", source_alias="s", target_alias="t")
        .when_matched_update_all().when_not_matched_insert_all().execute())
    DeltaTable(path).optimize.compact()
    DeltaTable(path).update(updates={"v": "'updated'"}, predicate="id = 1")
    DeltaTable(path).delete("id = 2")
    changes = pa.table(DeltaTable(path).load_cdf(starting_version=0).read_all())
    records = changes.drop_columns(["_commit_timestamp"]).to_pylist()
    canonical.write(pathlib.Path(path) / "expected-changes.json", records)


def empty(path):
    DeltaTable.create(path, pa.schema([("id", pa.int64())]))


TABLES = {
    "py_versions": versions,
    "py_versions_from_2": versions,
    "py_odd_partitions": odd_partitions,
    "py_nested": nested,
    "py_evolved": evolved,
    "py_many_files": many_files,
    "py_checkpointed": checkpointed,
    "py_merged": merged,
    "py_empty": empty,
}


def make(root):
    """Writes every table below `root`, each with its `expected.json`: {name: directory}."""
    made = {}
    for name, write in TABLES.items():
        path = root / name
        path.mkdir(parents=True)
        write(str(path))
        expect(path)
        made[name] = path
    return made
