"""Delta logs with oddities as other writers leave them, and what Spark and the Delta kernel read of them.

The tests write the tables each time. What the judges say is committed in `tests/tables/wild.json`; it is made with

    python3 -m venv venv && venv/bin/pip install pyspark==4.0.1 delta-spark==4.0.0 pyarrow deltalake==1.6.6     # needs Java 17
    venv/bin/python tests/tables/make/wild.py --judge [WORD ...]

With words, only the tables whose names have one of them are judged again.
"""

import json
import pathlib
import re
import sys
import tempfile

import pyarrow as pa
import pyarrow.parquet as parquet

import canonical

JUDGED = pathlib.Path(__file__).resolve().parents[1] / "wild.json"
LEFT_OUT = object()
FIELDS = [("id", "long"), ("name", "string")]


def schema(*fields):
    made = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in fields or FIELDS]
    return json.dumps({"type": "struct", "fields": made})


def with_changes(values, changes):
    return {key: value for key, value in {**values, **changes}.items() if value is not LEFT_OUT}


def protocol(reader=1, writer=4, **changes):
    return {"protocol": with_changes({"minReaderVersion": reader, "minWriterVersion": writer}, changes)}


def metadata(*fields, **changes):
    return {"metaData": with_changes({
        "id": "11111111-2222-3333-4444-555555555555", "format": {"provider": "parquet", "options": {}},
        "schemaString": schema(*fields), "partitionColumns": [], "configuration": {"delta.enableChangeDataFeed": "true"},
        "createdTime": 1700000000000,
    }, changes)}


def info(**changes):
    return {"commitInfo": {"timestamp": 1700000000000, "operation": "WRITE", "operationParameters": {}, **changes}}


class Table:
    """A table that is being written. `first` to `last` are the versions of its commits."""

    def __init__(self, path):
        self.path, self.log = path, path / "_delta_log"
        self.log.mkdir(parents=True)

    def write(self, path, table=None, ids=(1,)):
        """A file of data: its size."""
        if table is None:
            table = pa.table({"id": pa.array(ids, pa.int64()), "name": [f"n{number}" for number in ids]})
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, target, compression="none")
        return target.stat().st_size

    def add(self, path, ids=(1,), table=None, at=None, **changes):
        """Writes a file and gives its `add`; `at` is where it lies, if `path` is not that."""
        size = self.write(at or path, table, ids)
        return {"add": with_changes({"path": path, "partitionValues": {}, "size": size, "modificationTime": 1700000000000,
                                     "dataChange": True}, changes)}

    def remove(self, path, **changes):
        target = self.path / path
        return {"remove": with_changes({"path": path, "deletionTimestamp": 1700000001000, "dataChange": True, "extendedFileMetadata": True,
                                        "partitionValues": {}, "size": target.stat().st_size if target.exists() else 450}, changes)}

    def commit(self, version, *actions, text=None):
        if text is None:
            text = "".join(line(action) + "\n" for action in actions)
        (self.log / f"{version:020}.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    def checkpoint(self, version, actions, edit=None, name=None, last=True, columns=None):
        """A checkpoint of these actions; `edit` changes the Arrow table."""
        made = pa.Table.from_pylist(actions, schema=columns or CHECKPOINT)
        if edit:
            made = edit(made)
        parquet.write_table(made, self.log / (name or f"{version:020}.checkpoint.parquet"))
        if last:
            (self.log / "_last_checkpoint").write_text(json.dumps({"version": version, "size": len(actions)}))

    def forget(self, *versions):
        for version in versions:
            (self.log / f"{version:020}.json").unlink()


def line(action):
    return action if isinstance(action, str) else json.dumps(action)


TEXTS = pa.map_(pa.string(), pa.string())
CHECKPOINT = pa.schema([
    ("protocol", pa.struct([("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32()),
                            ("readerFeatures", pa.list_(pa.string())), ("writerFeatures", pa.list_(pa.string()))])),
    ("metaData", pa.struct([("id", pa.string()), ("name", pa.string()), ("description", pa.string()),
                            ("format", pa.struct([("provider", pa.string()), ("options", TEXTS)])), ("schemaString", pa.string()),
                            ("partitionColumns", pa.list_(pa.string())), ("configuration", TEXTS), ("createdTime", pa.int64())])),
    ("add", pa.struct([("path", pa.string()), ("partitionValues", TEXTS), ("size", pa.int64()), ("modificationTime", pa.int64()),
                       ("dataChange", pa.bool_()), ("stats", pa.string()), ("tags", TEXTS)])),
    ("remove", pa.struct([("path", pa.string()), ("deletionTimestamp", pa.int64()), ("dataChange", pa.bool_())])),
    ("txn", pa.struct([("appId", pa.string()), ("version", pa.int64()), ("lastUpdated", pa.int64())])),
])
CASES = {}


def case(name, make):
    assert name not in CASES, name
    CASES[name] = make


def usual(first=(), second=(), third=(), head=None, meta=None):
    """Version 0 creates the table, 1 adds a file, 2 another; the arguments are functions of the table or actions."""
    def make(t):
        a, b = t.add("a.parquet", (1, 2)), t.add("b.parquet", (3,))
        value = lambda x, *default: x(t, *default) if callable(x) else x  # noqa: E731
        t.commit(0, info(), head or protocol(), meta or metadata(), *value(first))
        t.commit(1, info(), *(value(second, a) or [a]))
        t.commit(2, info(), *(value(third, b) or [b]))
    return make


def metadata_cases():
    for word, value in {"without schemaString": LEFT_OUT, "with null for its schemaString": None, "with an empty schemaString": ""}.items():
        case(f"metaData {word}, repaired later", usual(meta=metadata(schemaString=value), second=lambda t, a: [metadata(), a]))
        case(f"metaData {word}", usual(meta=metadata(schemaString=value)))
    feed = "delta.enableChangeDataFeed"
    for word, changes in {
        "null value in its configuration": {"configuration": {feed: "true", "a": None}},
        "null for its configuration": {"configuration": None},
        "no configuration": {"configuration": LEFT_OUT},
        "a boolean in its configuration": {"configuration": {feed: True, "n": 5}},
        "null for its format": {"format": None},
        "no format": {"format": LEFT_OUT},
        "no options of the format": {"format": {"provider": "parquet"}},
        "null for the options of the format": {"format": {"provider": "parquet", "options": None}},
        "null for an option of the format": {"format": {"provider": "parquet", "options": {"a": None}}},
        "no provider": {"format": {"options": {}}},
        "its provider in capitals": {"format": {"provider": "PARQUET", "options": {}}},
        "null for its partitionColumns": {"partitionColumns": None},
        "no partitionColumns": {"partitionColumns": LEFT_OUT},
        "no id": {"id": LEFT_OUT},
        "null for its id": {"id": None},
        "an empty id": {"id": ""},
        "an id that is no UUID": {"id": "my table"},
        "no createdTime": {"createdTime": LEFT_OUT},
        "a floating createdTime": {"createdTime": 1700000000000.0},
        "a createdTime in text": {"createdTime": "1700000000000"},
        "null for its name": {"name": None, "description": None},
        "unknown fields": {"owner": "x", "more": {"a": [1]}},
    }.items():
        case(f"metaData with {word}", usual(meta=metadata(**changes)))
    other = "99999999-2222-3333-4444-555555555555"
    case("metaData that changes the id", usual(third=lambda t, b: [metadata(id=other), b]))
    case("metaData twice in a commit", usual(first=[metadata()]))
    case("metaData twice in a commit, another one", usual(first=[metadata(id=other)]))


def add_cases():
    for word, changes in {
        "null for its partitionValues": {"partitionValues": None},
        "no partitionValues": {"partitionValues": LEFT_OUT},
        "partitionValues of no column": {"partitionValues": {"x": "1"}},
        "null for its tags": {"tags": None},
        "null in its tags": {"tags": {"a": None}},
        "null for its stats": {"stats": None},
        "empty stats": {"stats": ""},
        "stats that are garbage": {"stats": "{\"numRecords\":"},
        "stats that are no text": {"stats": {"numRecords": 2}},
        "stats of another kind": {"stats": "{\"numRecords\":\"2\",\"minValues\":{\"id\":\"x\"}}"},
        "stats of empty texts": {"stats": "{\"numRecords\":2,\"minValues\":{},\"maxValues\":{},\"nullCount\":{}}"},
        "no dataChange": {"dataChange": LEFT_OUT},
        "null for its dataChange": {"dataChange": None},
        "dataChange in text": {"dataChange": "true"},
        "no modificationTime": {"modificationTime": LEFT_OUT},
        "null for its modificationTime": {"modificationTime": None},
        "a floating modificationTime": {"modificationTime": 1700000000000.0},
        "a modificationTime in text": {"modificationTime": "1700000000000"},
        "no size": {"size": LEFT_OUT},
        "null for its size": {"size": None},
        "size 0": {"size": 0},
        "a negative size": {"size": -1},
        "unknown fields": {"more": {"a": [1]}, "x": None},
        "null for what is optional": {"deletionVector": None, "baseRowId": None, "defaultRowCommitVersion": None, "clusteringProvider": None},
    }.items():
        case(f"add with {word}", usual(second=lambda t, a, changes=changes: [{"add": with_changes(a["add"], changes)}]))
    for word, form in {"a floating size": lambda size: float(size), "a size in text": str, "a size with an exponent": None}.items():
        def second(t, a, form=form):
            if form is None:
                return [json.dumps(a).replace(f'"size": {a["add"]["size"]}', f'"size": {a["add"]["size"] / 1000:.3f}e3')]
            return [{"add": {**a["add"], "size": form(a["add"]["size"])}}]
        case(f"add with {word}", usual(second=second))
    case("add of one path in two commits", usual(third=lambda t, b: [b, t.add("a.parquet", (1, 2))]))
    case("add of one path in two commits, without dataChange", usual(third=lambda t, b: [b, t.add("a.parquet", (1, 2), dataChange=False)]))
    case("add of one path twice in a commit", usual(second=lambda t, a: [a, a]))
    case("add of one path twice in a commit, with other tags", usual(second=lambda t, a: [a, {"add": {**a["add"], "tags": {"a": "b"}}}]))
    case("add and remove of one path in a commit", usual(third=lambda t, b: [b, t.remove("b.parquet")]))
    case("remove and add of one path in a commit", usual(third=lambda t, b: [t.remove("a.parquet"), t.add("a.parquet", (1, 2)), b]))
    case("add after a remove", lambda t: (
        usual(third=lambda t, b: [b, t.remove("a.parquet")])(t), t.commit(3, info(), t.add("a.parquet", (1, 2)))))


def remove_cases():
    for word, changes in {
        "no size": {"size": LEFT_OUT},
        "no partitionValues": {"partitionValues": LEFT_OUT},
        "no deletionTimestamp": {"deletionTimestamp": LEFT_OUT},
        "null for its deletionTimestamp": {"deletionTimestamp": None},
        "a floating deletionTimestamp": {"deletionTimestamp": 1700000001000.0},
        "extendedFileMetadata false": {"extendedFileMetadata": False},
        "extendedFileMetadata false and nothing else": {"extendedFileMetadata": False, "size": LEFT_OUT, "partitionValues": LEFT_OUT},
        "only a path": {key: LEFT_OUT for key in ("size", "partitionValues", "deletionTimestamp", "extendedFileMetadata", "dataChange")},
        "a path and dataChange": {key: LEFT_OUT for key in ("size", "partitionValues", "deletionTimestamp", "extendedFileMetadata")},
        "null for what is optional": {"size": None, "partitionValues": None, "tags": None, "deletionVector": None},
        "no dataChange": {"dataChange": LEFT_OUT},
    }.items():
        case(f"remove with {word}", usual(third=lambda t, b, changes=changes: [b, t.remove("a.parquet", **changes)]))
    case("remove of a file that was never added", usual(third=lambda t, b: [b, t.remove("never.parquet")]))
    case("remove of everything", usual(third=lambda t, b: [t.remove("a.parquet")]))
    case("remove of one path twice", usual(third=lambda t, b: [b, t.remove("a.parquet"), t.remove("a.parquet")]))


def text_cases():
    def texts(edit, version=1):
        def make(t):
            usual()(t)
            commit = t.log / f"{version:020}.json"
            commit.write_bytes(edit(commit.read_bytes()))
        return make

    case("unknown actions", usual(second=lambda t, a: [{"somethingNew": {"a": 1}}, a, {"cdx": None}]))
    case("an action that is null", usual(second=lambda t, a: ['{"add":null}', a, '{"remove":null,"txn":null}']))
    case("an action beside nulls", usual(second=lambda t, a: [{**a, "remove": None, "metaData": None, "protocol": None, "commitInfo": None}]))
    case("an empty action", usual(second=lambda t, a: ["{}", a]))
    case("two actions in a line", usual(second=lambda t, a: [{**a, **info()}]))
    case("two file actions in a line", usual(third=lambda t, b: [{**b, **t.remove("a.parquet")}]))
    case("blank lines", texts(lambda text: b"\n\n" + text.replace(b"\n", b"\n\n  \n")))
    case("CRLF at the end of lines", texts(lambda text: text.replace(b"\n", b"\r\n")))
    case("no newline at the end", texts(lambda text: text.rstrip(b"\n")))
    case("a byte order mark", texts(lambda text: b"\xef\xbb\xbf" + text))
    case("a byte order mark in version 0", texts(lambda text: b"\xef\xbb\xbf" + text, 0))
    case("spaces around lines", texts(lambda text: b"  " + text.replace(b"\n", b" \t\n ")))
    case("lines over several lines", texts(lambda text: b"\n".join(json.dumps(json.loads(one), indent=1).encode() for one in text.splitlines())))
    case("a last line cut off", texts(lambda text: text[:-30]))
    case("a commit that is not JSON", texts(lambda text: b"nothing\n"))
    case("a line that is a number", texts(lambda text: b"1\n" + text))
    case("a line that is a list", texts(lambda text: b"[]\n" + text))
    case("a lone surrogate", usual(second=lambda t, a: ['{"commitInfo":{"operation":"\\ud800"}}', a]))
    case("bytes that are not UTF-8 in commitInfo", texts(lambda text: text.replace(b'"WRITE"', b'"WR\xff\xfeITE"')))
    case("a key twice in an action", texts(lambda text: text.replace(b'"dataChange": true', b'"dataChange": false, "dataChange": true')))
    case("a commit of only commitInfo", usual(third=lambda t, b: [info()]))
    case("a commit of only a newline", lambda t: (usual()(t), t.commit(3, text="\n")))
    case("a commit of no bytes", lambda t: (usual()(t), t.commit(3, text="")))

    def plain(t):
        t.commit(0, protocol(), metadata())
        t.commit(1, t.add("a.parquet", (1, 2)))
        t.commit(2, t.add("b.parquet", (3,)))
    case("no commitInfo", plain)
    case("commitInfo last", lambda t: (t.commit(0, metadata(), protocol(), info()), t.commit(1, t.add("a.parquet", (1, 2)), info())))
    case("commitInfo twice", usual(second=lambda t, a: [info(operation="OTHER"), a]))
    case("commitInfo with values of all kinds", usual(second=lambda t, a: [info(
        operationParameters={"a": 1, "b": {"c": [None]}, "d": None}, operationMetrics={"n": 1.5}, isBlindAppend="yes", readVersion="0",
        timestamp="2023-11-14T22:13:20Z", notebook={"notebookId": 5}), a]))
    case("commitInfo of a merge with numbers", usual(second=lambda t, a: [info(
        operation="MERGE", operationMetrics={"numTargetRowsInserted": 2, "numTargetRowsUpdated": 0, "numTargetRowsDeleted": 0}), a]))
    case("commitInfo that is a text", usual(second=lambda t, a: ['{"commitInfo":"hello"}', a]))
    case("txn with odd values", usual(second=lambda t, a: [{"txn": {"appId": "a", "version": 1}}, {"txn": {"appId": "b", "version": 2, "lastUpdated": None}}, a]))
    case("domainMetadata without the feature", usual(second=lambda t, a: [
        {"domainMetadata": {"domain": "d", "configuration": "", "removed": False}}, a]))


def protocol_cases():
    case("protocol repeated", usual(second=lambda t, a: [protocol(), a]))
    case("protocol twice in a commit", usual(first=[protocol(1, 4)]))
    case("protocol only in version 1", lambda t: (
        t.commit(0, info(), metadata()), t.commit(1, info(), protocol(), t.add("a.parquet", (1, 2)))))
    case("no protocol", lambda t: (t.commit(0, info(), metadata()), t.commit(1, info(), t.add("a.parquet", (1, 2)))))
    case("no metaData", lambda t: (t.commit(0, info(), protocol()), t.commit(1, info(), t.add("a.parquet", (1, 2)))))
    for word, head in {
        "1,4 with empty readerFeatures": protocol(readerFeatures=[]),
        "1,4 with both lists empty": protocol(readerFeatures=[], writerFeatures=[]),
        "1,4 with null for the lists": protocol(readerFeatures=None, writerFeatures=None),
        "1,4 with writerFeatures": protocol(writerFeatures=["appendOnly"]),
        "1,4 with readerFeatures": protocol(readerFeatures=["columnMapping"], writerFeatures=["columnMapping"]),
        "1,1": protocol(1, 1),
        "0,0": protocol(0, 0),
        "2,5 without mapping": protocol(2, 5),
        "1,7 with writerFeatures only": protocol(1, 7, writerFeatures=["changeDataFeed", "appendOnly"]),
        "1,7 without writerFeatures": protocol(1, 7),
        "1,7 with no writerFeatures": protocol(1, 7, writerFeatures=[]),
        "1,7 with a writerFeature that is new": protocol(1, 7, writerFeatures=["changeDataFeed", "somethingNew"]),
        "1,8": protocol(1, 8),
        "2,7 with readerFeatures": protocol(2, 7, readerFeatures=["columnMapping"], writerFeatures=["columnMapping", "changeDataFeed"]),
        "3,7 with no readerFeatures": protocol(3, 7, readerFeatures=[], writerFeatures=["changeDataFeed"]),
        "3,7 without readerFeatures": protocol(3, 7, writerFeatures=["changeDataFeed"]),
        "3,7 without lists": protocol(3, 7),
        "3,7 with a reader feature only": protocol(3, 7, readerFeatures=["v2Checkpoint"], writerFeatures=["changeDataFeed"]),
        "3,7 with a writer feature of readers only": protocol(3, 7, readerFeatures=[], writerFeatures=["changeDataFeed", "columnMapping"]),
        "3,7 with a reader feature that is for writers": protocol(3, 7, readerFeatures=["appendOnly"], writerFeatures=["changeDataFeed", "appendOnly"]),
        "3,5": protocol(3, 5, readerFeatures=["deletionVectors"]),
        "4,7": protocol(4, 7, readerFeatures=[], writerFeatures=[]),
        "in text": protocol("1", "4"),
        "in floating numbers": protocol(1.0, 4.0),
        "without minReaderVersion": protocol(LEFT_OUT, 4),
        "without minWriterVersion": protocol(1, LEFT_OUT),
        "with unknown fields": protocol(comment="x"),
    }.items():
        case(f"protocol {word}", usual(head=head))


def checkpoint_cases():
    def checkpointed(edit=None, forget=(0, 1), after=True, **arguments):
        """Three versions, a checkpoint of version 2, and version 3."""
        def make(t):
            usual()(t)
            adds = [t.add("a.parquet", (1, 2), stats='{"numRecords":2}'), t.add("b.parquet", (3,))]
            t.checkpoint(2, [protocol(), metadata(), *adds, {"txn": {"appId": "a", "version": 1}}], edit, **arguments)
            t.forget(*forget)
            if after:
                t.commit(3, info(), t.add("c.parquet", (4,)))
        return make

    def pointing(text):
        return lambda t: (checkpointed()(t), (t.log / "_last_checkpoint").write_text(text))

    case("checkpoint, commits before it gone", checkpointed())
    case("checkpoint, all commits gone", checkpointed(forget=(0, 1, 2), after=False))
    case("checkpoint, all commits gone, no _last_checkpoint", checkpointed(forget=(0, 1, 2), after=False, last=False))
    case("checkpoint, its own commit gone", checkpointed(forget=(0, 1, 2)))
    case("checkpoint without _last_checkpoint", checkpointed(last=False))
    case("checkpoint, _last_checkpoint names an older one that is gone", pointing('{"version":1,"size":3}'))
    case("checkpoint, _last_checkpoint names a newer one that is not there", pointing('{"version":9,"size":3}'))
    case("checkpoint, _last_checkpoint is garbage", pointing("{"))
    case("checkpoint, _last_checkpoint is empty", pointing(""))
    case("checkpoint, _last_checkpoint has unknown fields and another size", pointing(
        '{"version":2,"size":99,"sizeInBytes":1,"numOfAddFiles":7,"checkpointSchema":{"type":"struct","fields":[]},"checksum":"x","more":{}}'))
    case("checkpoint, _last_checkpoint says parts that are not there", pointing('{"version":2,"size":3,"parts":2}'))
    case("checkpoint without the columns txn and remove", checkpointed(lambda table: table.drop_columns(["txn", "remove"])))

    def fields(name, keep):
        """Only some fields of a column."""
        def edit(table):
            at = table.schema.get_field_index(name)
            column = table.column(name).combine_chunks()
            kept = [field for field in column.type if keep(field.name)]
            made = pa.StructArray.from_arrays([column.field(field.name) for field in kept], fields=kept, mask=column.is_null())
            return table.set_column(at, name, made)
        return edit

    case("checkpoint without stats and tags", checkpointed(fields("add", lambda name: name not in ("stats", "tags"))))
    case("checkpoint without modificationTime and dataChange", checkpointed(fields("add", lambda name: name not in ("modificationTime", "dataChange"))))
    case("checkpoint without partitionValues", checkpointed(fields("add", lambda name: name != "partitionValues")))
    case("checkpoint without feature lists", checkpointed(fields("protocol", lambda name: "Features" not in name)))
    case("checkpoint without name and createdTime", checkpointed(fields("metaData", lambda name: name not in ("name", "description", "createdTime"))))
    case("checkpoint without configuration", checkpointed(fields("metaData", lambda name: name != "configuration")))
    case("checkpoint with columns in another order", checkpointed(lambda table: table.select(["txn", "add", "remove", "metaData", "protocol"])))
    case("checkpoint with columns that are unknown", checkpointed(
        lambda table: table.append_column("more", pa.array([{"x": 1}] * len(table), pa.struct([("x", pa.int64())])))))

    def cast(name, types):
        def edit(table):
            at = table.schema.get_field_index(name)
            kind = pa.struct([pa.field(field.name, types.get(field.name, field.type)) for field in table.schema.field(name).type])
            column = table.column(name).combine_chunks()
            made = pa.StructArray.from_arrays([column.field(field.name).cast(field.type) for field in kind], fields=list(kind), mask=column.is_null())
            return table.set_column(at, pa.field(name, kind), made)
        return edit

    case("checkpoint with int32 for sizes", checkpointed(cast("add", {"size": pa.int32()})))
    case("checkpoint with int64 for versions", checkpointed(cast("protocol", {"minReaderVersion": pa.int64(), "minWriterVersion": pa.int64()})))
    case("checkpoint with large strings", checkpointed(cast("add", {"path": pa.large_string(), "stats": pa.large_string()})))
    case("checkpoint with a dictionary of paths", checkpointed(cast("add", {"path": pa.dictionary(pa.int32(), pa.string())})))
    case("checkpoint with floating sizes", checkpointed(cast("add", {"size": pa.float64()})))
    case("checkpoint with timestamps for modificationTime", checkpointed(cast("add", {"modificationTime": pa.timestamp("ms")})))

    def structs(table):
        at = table.schema.get_field_index("add")
        column = table.column("add").combine_chunks()
        kept = [field for field in column.type if field.name != "stats"]
        stats = pa.StructArray.from_arrays([pa.array([2] * len(column), pa.int64())], names=["numRecords"])
        made = pa.StructArray.from_arrays(
            [*(column.field(field.name) for field in kept), stats], fields=[*kept, pa.field("stats_parsed", stats.type)], mask=column.is_null())
        return table.set_column(at, "add", made)
    case("checkpoint with stats as structs only", checkpointed(structs))

    def parts(t, keep=(1, 2), forget=(0, 1)):
        usual()(t)
        t.checkpoint(2, [protocol(), metadata(), t.add("a.parquet", (1, 2))], name=f"{2:020}.checkpoint.{1:010}.{2:010}.parquet", last=False)
        t.checkpoint(2, [t.add("b.parquet", (3,))], name=f"{2:020}.checkpoint.{2:010}.{2:010}.parquet", last=False)
        (t.log / "_last_checkpoint").write_text('{"version":2,"size":4,"parts":2}')
        for part in {1, 2} - set(keep):
            (t.log / f"{2:020}.checkpoint.{part:010}.{2:010}.parquet").unlink()
        t.forget(*forget)
        t.commit(3, info(), t.add("c.parquet", (4,)))
    case("checkpoint in parts", parts)
    case("checkpoint in parts, one missing, all commits there", lambda t: parts(t, (1,), ()))
    case("checkpoint in parts, one missing, commits gone", lambda t: parts(t, (2,)))
    case("checkpoint in parts and one in whole", lambda t: (parts(t), t.checkpoint(
        2, [protocol(), metadata(), t.add("a.parquet", (1, 2)), t.add("b.parquet", (3,))], last=False)))
    case("checkpoint that is garbage, all commits there", lambda t: (
        checkpointed(forget=())(t), (t.log / f"{2:020}.checkpoint.parquet").write_bytes(b"PAR1 no")))
    case("checkpoint of no bytes, all commits there", lambda t: (
        checkpointed(forget=())(t), (t.log / f"{2:020}.checkpoint.parquet").write_bytes(b"")))
    case("checkpoint with a file twice", checkpointed(lambda table: pa.concat_tables([table, table.slice(2, 1)])))

    def by_deltalake(t):
        from deltalake import DeltaTable
        usual(meta=metadata(configuration={}), head=protocol(1, 2))(t)
        DeltaTable(str(t.path)).create_checkpoint()
        t.forget(0, 1)
        t.commit(3, info(), t.add("c.parquet", (4,)))
    case("checkpoint by deltalake", by_deltalake)


def log_cases():
    def beside(name, text):
        return lambda t: (usual()(t), (t.log / name).write_bytes(text.encode()))

    wrong = {"txnId": "x", "tableSizeBytes": 1, "numFiles": 1, "numMetadata": 1, "numProtocol": 1, "metadata": metadata()["metaData"],
             "protocol": protocol()["protocol"]}
    case("crc that is wrong", beside(f"{2:020}.crc", json.dumps(wrong)))
    case("crc that is wrong in its metadata", beside(f"{2:020}.crc", json.dumps({
        **wrong, "metadata": metadata(("other", "long"))["metaData"], "protocol": protocol(1, 7, writerFeatures=["x"])["protocol"]})))
    case("crc with only sizes", beside(f"{2:020}.crc", '{"tableSizeBytes":5,"numFiles":2,"numMetadata":1,"numProtocol":1}'))
    case("crc that is garbage", beside(f"{2:020}.crc", "{{"))
    case("crc of no bytes", beside(f"{2:020}.crc", ""))
    case("crc of an older version that is garbage", beside(f"{1:020}.crc", "garbage"))
    case("files that are not of the log", lambda t: (usual()(t), [
        (t.log / name).write_text("x") for name in (".tmp", "0.json", f"{3:020}.json.tmp", f"_{3:020}.json", f"{3:020}.json~", "readme.md", f"{9:020}.zip")]))
    case("a log compaction", lambda t: (usual()(t), (t.log / f"{1:020}.{2:020}.compacted.json").write_text(
        "".join(json.dumps(action) + "\n" for action in (t.add("a.parquet", (1, 2)), t.add("b.parquet", (3,)))))))
    case("a log compaction that is garbage", beside(f"{1:020}.{2:020}.compacted.json", "garbage"))
    case("a staged commit that was not made", lambda t: (
        usual()(t), (t.log / "_staged_commits").mkdir(), (t.log / f"_staged_commits/{3:020}.0000-1.json").write_text("{}")))
    case("a gap between versions", lambda t: (usual()(t), t.commit(4, info(), t.add("c.parquet", (4,)))))
    case("a gap at the start", lambda t: (usual()(t), t.forget(0)))
    case("a version beyond all others", lambda t: (usual()(t), t.commit(1000000, info(), t.add("c.parquet", (4,)))))
    case("an empty log", lambda t: None)


def path_cases():
    def at(path, where=None):
        return usual(third=lambda t, b: [t.add(path, (3,), at=where)])

    case("path of a long name", at("x" * 240 + ".parquet"))
    case("path of many directories", at("/".join(["d" * 100] * 30) + "/b.parquet"))
    case("path with an encoded space", at("b%20c.parquet", "b c.parquet"))
    case("path with a space", at("b c.parquet"))
    case("path with an encoded percent", at("b%2520c.parquet", "b%20c.parquet"))
    case("path with letters of other scripts", at("ü€😀.parquet"))
    case("path with encoded letters of other scripts", at("%C3%BC%E2%82%AC.parquet", "ü€.parquet"))
    case("path with encoded signs", at("p%3D1/b%2Bc%23d%3Fe.parquet", "p=1/b+c#d?e.parquet"))
    case("path with a plus", at("b+c.parquet"))
    case("path with an encoded colon", at("b%3Ac.parquet", "b:c.parquet"))
    case("path with lower-case encoding", at("b%c3%bc.parquet", "bü.parquet"))
    case("path that begins with a point", at("./b.parquet", "b.parquet"))
    case("path that goes up and down", at("x/../b.parquet", "b.parquet"))
    case("path with two slashes", at("x//b.parquet", "x/b.parquet"))
    case("path in a directory with an underscore", at("_hidden/b.parquet"))
    case("path without an ending", at("b"))
    case("path with a percent that encodes nothing", at("b%zz.parquet"))
    for word, form in {"file:": "file:{}", "file://": "file://{}", "nothing": "{}"}.items():
        case(f"path that is absolute, with {word}", usual(
            third=lambda t, b, form=form: [t.add(form.format(t.path.resolve() / "b.parquet"), (3,), at="b.parquet")]))
    case("path in two encodings", usual(
        third=lambda t, b: [t.add("b c.parquet", (3,))], second=lambda t, a: [a, t.add("b%20c.parquet", (3,), at="b c.parquet")]))


def partition_cases():
    def valued(kind, value, name="p"):
        def make(t):
            data = pa.table({"id": pa.array([1], pa.int64())})
            values = {} if value is LEFT_OUT else {name: value}
            t.commit(0, info(), protocol(), metadata(("id", "long"), (name, kind), partitionColumns=[name]))
            t.commit(1, info(), t.add("a.parquet", table=data, partitionValues=values))
        return make

    for kind, values in {
        "timestamp": ["2023-11-05T00:00:00.000000Z", "2023-11-05T01:02:03Z", "2023-11-05 00:00:00.25", "2023-11-05 00:00:00", "2023-11-05",
                      "2023-11-05T00:00:00.123456789Z", "2023-11-05 00:00:00.000000", "2023-11-05T02:00:00+02:00", "2023-11-05 00:00:00 UTC", "yesterday",
                      "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999", ""],
        "date": ["2023-01-05", "2023-1-5", "2023-01-05 00:00:00", "2023-01-05T00:00:00Z", "0001-01-01", "9999-12-31", "+2023-01-05", "tomorrow", ""],
        "decimal(10,2)": ["1.50", "1.5", "1E+2", "1", "-0.00", "1.505", "1e2", "123456789012", ""],
        "boolean": ["true", "True", "TRUE", "t", "1", "yes", ""],
        "integer": ["5", "+5", "05", " 5", "5.0", "3000000000", "five", ""],
        "long": ["9223372036854775807", "-9223372036854775808", "1e3"],
        "double": ["1.5", "1E2", "NaN", "Infinity", "-inf", "1.5d", "-0.0"],
        "string": ["", "__HIVE_DEFAULT_PARTITION__", "null", " ", "ä\u2028b", "a/b=c%20", None, LEFT_OUT],
        "binary": ["abc", "\u0001\u0002", ""],
    }.items():
        for value in values:
            shown = "left out" if value is LEFT_OUT else json.dumps(value)
            case(f"partition value {kind} {shown}", valued(kind, value))
    case("partition value in another case", lambda t: (
        t.commit(0, info(), protocol(), metadata(("id", "long"), ("Part", "string"), partitionColumns=["Part"])),
        t.commit(1, info(), t.add("a.parquet", table=pa.table({"id": pa.array([1], pa.int64())}), partitionValues={"part": "x"}))))
    case("partitionColumns in another case", lambda t: (
        t.commit(0, info(), protocol(), metadata(("id", "long"), ("Part", "string"), partitionColumns=["part"])),
        t.commit(1, info(), t.add("a.parquet", table=pa.table({"id": pa.array([1], pa.int64())}), partitionValues={"part": "x"}))))
    case("partition value that is a number", lambda t: (
        t.commit(0, info(), protocol(), metadata(("id", "long"), ("p", "integer"), partitionColumns=["p"])),
        t.commit(1, info(), t.add("a.parquet", table=pa.table({"id": pa.array([1], pa.int64())}), partitionValues={"p": 5}))))
    case("partition column that the schema lacks", usual(meta=metadata(partitionColumns=["p"]), second=lambda t, a: [
        {"add": {**a["add"], "partitionValues": {"p": "1"}}}]))
    case("partition column that the files have too", lambda t: (
        t.commit(0, info(), protocol(), metadata(partitionColumns=["name"])),
        t.commit(1, info(), t.add("a.parquet", (1,), partitionValues={"name": "of the log"}))))


def schema_cases():
    def stringed(text):
        return usual(meta=metadata(schemaString=text))

    def field(**changes):
        made = with_changes({"name": "more", "type": "string", "nullable": True, "metadata": {}}, changes)
        fields = [*json.loads(schema())["fields"], made]
        return stringed(json.dumps({"type": "struct", "fields": fields}))

    case("schema that is no JSON", stringed("struct<id: long>"))
    case("schema that is a number", stringed("42"))
    case("schema that is null", stringed("null"))
    case("schema that is a list", stringed("[]"))
    case("schema that is a type", stringed('"long"'))
    case("schema without fields", stringed('{"type":"struct"}'))
    case("schema without a type", stringed('{"fields":[]}'))
    case("schema of no columns", stringed('{"type":"struct","fields":[]}'))
    case("schema nested 50 deep", field(type=nested(50)))
    case("schema nested 5000 deep", stringed('{"type":"struct","fields":[{"name":"a","nullable":true,"metadata":{},"type":' * 5000 + '"long"' + "}]}" * 5000))
    for kind in ("quaternion", "void", "null", "varchar(10)", "char(3)", "decimal", "decimal(10, 2)", "decimal(50,2)", "LONG", "int", "bigint", "timestamp_ntz",
                 "interval day to second", "interval year to month", "calendar_interval", "variant", "geometry(4326)", "string collate UTF8_LCASE", ""):
        case(f"schema with type {json.dumps(kind)}", field(type=kind))
    case("schema with a user-defined type", field(type={
        "type": "udt", "class": "org.apache.spark.ml.linalg.VectorUDT", "pyClass": "pyspark.ml.linalg.VectorUDT", "sqlType": {
            "type": "struct", "fields": [{"name": "x", "type": "double", "nullable": True, "metadata": {}}]}}))
    case("schema with an unknown complex type", field(type={"type": "tensor", "of": "float"}))
    case("schema with an array of void", field(type={"type": "array", "elementType": "void", "containsNull": True}))
    case("schema with an empty struct in it", field(type={"type": "struct", "fields": []}))
    case("schema with a map", field(type={"type": "map", "keyType": "string", "valueType": "long", "valueContainsNull": True}))
    case("schema with a field without metadata", field(metadata=LEFT_OUT))
    case("schema with null for metadata", field(metadata=None))
    case("schema with a field without nullable", field(nullable=LEFT_OUT))
    case("schema with a field without a name", field(name=LEFT_OUT))
    case("schema with a field without a type", field(type=LEFT_OUT))
    case("schema with an empty name", field(name=""))
    case("schema with odd metadata", field(metadata={"a": None, "b": [1, "x"], "c": {"d": 1.5}}))
    case("schema with ids of mapping where columns are not mapped", field(
        metadata={"delta.columnMapping.id": 3, "delta.columnMapping.physicalName": "more"}))
    case("schema with unknown fields", field(comment="x", more=[1]))
    case("schema with a name in another case", field(name="ID"))
    case("schema with a name twice", field(name="id"))
    case("schema with a name with signs", field(name="a.b c;{}()\n=,"))
    case("schema with a column that must not be null but is", field(nullable=False))


def nested(depth):
    kind = "long"
    for _ in range(depth):
        kind = {"type": "struct", "fields": [{"name": "a", "type": kind, "nullable": True, "metadata": {}}]}
    return kind


for cases in (metadata_cases, add_cases, remove_cases, text_cases, protocol_cases, checkpoint_cases, log_cases, path_cases, partition_cases, schema_cases):
    cases()


def directory_of(name):
    return f"t{list(CASES).index(name):03}"


def make(root):
    """Writes every table: {name: directory}."""
    made = {}
    for name, write in CASES.items():
        made[name] = root / directory_of(name)
        write(Table(made[name]))
    return made


def first_version(directory):
    """The oldest commit."""
    commits = [int(path.stem) for path in (directory / "_delta_log").glob("?" * 20 + ".json")]
    return min(commits, default=0)


def reason(error):
    """What an error says, without where and when this was."""
    text = " ".join(str(error).split("\n\nJVM stacktrace")[0].split())
    text = re.sub(r"(file:/+)?/?tmp/\S+", "…", text)
    return re.sub(r"An error occurred while calling o\d+\.\w+\. : ", "", text)[:160]


def judge(words):
    import deltalake
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.jars.packages", "io.delta:delta-spark_2.13:4.0.0")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.driver.memory", "1500m").config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC").config("spark.sql.shuffle.partitions", "1")
        .config("spark.databricks.delta.snapshotPartitions", "1").getOrCreate()
    )
    spark.sparkContext.setLogLevel("OFF")

    def rows(read):
        try:
            return {"rows": canonical.rows(read())}
        except Exception as error:  # whatever it is, it is the verdict
            return {"error": reason(error)}

    def snapshot(directory):
        return [row.asDict() for row in spark.read.format("delta").load(str(directory)).collect()]

    def feed(directory):
        reader = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", first_version(directory))
        return [row.asDict() for row in reader.load(str(directory)).drop("_commit_timestamp").collect()]

    def by_deltalake(directory):
        table = deltalake.DeltaTable(str(directory))
        return pa.table(deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all()).to_pylist()

    judged = json.loads(JUDGED.read_text()) if JUDGED.exists() else {}
    with tempfile.TemporaryDirectory() as root:
        for name, directory in make(pathlib.Path(root)).items():
            if words and not any(word in name for word in words):
                continue
            verdict = {"spark": rows(lambda: snapshot(directory)), "spark feed": rows(lambda: feed(directory)),
                       "deltalake": rows(lambda: by_deltalake(directory))}
            if verdict["deltalake"] == verdict["spark"]:
                verdict["deltalake"] = "as spark"
            judged[name] = verdict
            print(name, verdict, flush=True)
    judged = {name: judged[name] for name in CASES if name in judged}
    JUDGED.write_text("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(verdict)}" for name, verdict in judged.items()) + "\n}\n")


if __name__ == "__main__":
    assert sys.argv[1:2] == ["--judge"], __doc__
    judge(sys.argv[2:])
