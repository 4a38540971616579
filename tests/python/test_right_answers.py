"""What a table needs of its reader is decided by what its files are, in every version of an answer, and before the
status is sent. Files and bytes are counted as they are granted."""

import concurrent.futures
import json
import shutil
import socket
import time
import urllib.parse

import delta_sharing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import ROOT, TOKEN, Server, hash_of, set_commit_times, write_profile

BOTH = "responseformat=delta,parquet;readerfeatures=columnmapping,deletionvectors"
LONG = {"name": "id", "type": "long", "nullable": True, "metadata": {}}


def schema(*fields):
    return json.dumps({"type": "struct", "fields": list(fields)})


def mapped(field, physical):
    return {**field, "metadata": {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": physical}}


def protocol(reader=1, writer=2, readers=None, writers=None):
    action = {"minReaderVersion": reader, "minWriterVersion": writer}
    if readers is not None:
        action["readerFeatures"] = readers
    if writers is not None:
        action["writerFeatures"] = writers
    return {"protocol": action}


def metadata(fields=(LONG,), partitions=(), **configuration):
    return {"metaData": {
        "id": "2a1931c7-79fb-4650-b78e-e1e1a70db665", "format": {"provider": "parquet", "options": {}},
        "schemaString": schema(*fields), "partitionColumns": list(partitions), "createdTime": 0,
        "configuration": {f"delta.{key}": value for key, value in configuration.items()},
    }}


class Table:
    """A table whose log is written action by action. `add` and `remove` write the files too."""

    def __init__(self, path):
        self.path, self.version, self.sizes = path, 0, {}
        (path / "_delta_log").mkdir(parents=True)

    def commit(self, *actions):
        lines = "".join(json.dumps(action) + "\n" for action in actions)
        (self.path / f"_delta_log/{self.version:020}.json").write_text(lines)
        self.version += 1
        return self

    def add(self, name, ids=(1,), column="id", values=None, **other):
        path = self.path / name
        pq.write_table(pa.table({column: pa.array(list(ids), pa.int64())}), path)
        self.sizes[name] = path.stat().st_size
        return {"add": {"path": name, "partitionValues": values or {}, "size": self.sizes[name],
                        "modificationTime": 1, "dataChange": True, **other}}

    def remove(self, name, **other):
        return {"remove": {"path": name, "deletionTimestamp": 1, "dataChange": True, **other}}


VECTOR = {"storageType": "u", "pathOrInlineDv": "^-aqEH.-t@S}K{vb[*k^", "offset": 1, "sizeInBytes": 34, "cardinality": 1}
WITH_VECTORS = protocol(3, 7, ["deletionVectors"], ["deletionVectors", "changeDataFeed"])
FEED = {"enableChangeDataFeed": "true"}


def vectors_in_the_middle(t):
    t.commit(WITH_VECTORS, metadata(**FEED, enableDeletionVectors="true"), t.add("a"))
    t.commit(t.remove("a", size=1, partitionValues={}), t.add("a", deletionVector=VECTOR))
    t.commit(t.remove("a", size=1, partitionValues={}, deletionVector=VECTOR), t.add("b"))
    t.commit(protocol(1, 4), metadata(**FEED), t.add("c"))


def replaced_by_an_unmapped_one(t):
    t.commit(protocol(2, 5), metadata([mapped(LONG, "col-1")], **FEED, **{"columnMapping.mode": "name"}), t.add("a", column="col-1"))
    t.commit(metadata(**FEED), t.remove("a", size=1, partitionValues={}), t.add("b"))
    t.commit(t.add("c"))


def mapped_again_under_other_names(t):
    for version, name in enumerate(("col-1", "col-2")):
        t.commit(protocol(2, 5), metadata([mapped(LONG, name)], **FEED, **{"columnMapping.mode": "name"}), t.add(f"f{version}", column=name))


def times_in_the_middle(t):
    ntz = {"name": "at", "type": "timestamp_ntz", "nullable": True, "metadata": {}}
    t.commit(protocol(1, 4), metadata(**FEED), t.add("a"))
    t.commit(protocol(3, 7, ["timestampNtz"], ["timestampNtz", "changeDataFeed"]), metadata([LONG, ntz], **FEED), t.add("b"))
    t.commit(protocol(1, 4), metadata(**FEED), t.add("c"))


MIDDLE = {
    "mapped_in_the_middle": (None, "columnMapping"),
    "vectors_in_the_middle": (vectors_in_the_middle, "deletionVectors"),
    "replaced_by_an_unmapped_one": (replaced_by_an_unmapped_one, "columnMapping"),
    "mapped_again_under_other_names": (mapped_again_under_other_names, "columnMapping"),
    "times_in_the_middle": (times_in_the_middle, "timestampNtz"),
}


def two_metadata_in_a_commit(t):
    other = {**LONG, "name": "other"}
    t.commit(protocol(1, 4), metadata([other], **FEED), metadata([LONG], **FEED), t.add("a", [1, 2]))
    t.commit(metadata([other], **FEED), protocol(1, 5), metadata([LONG, other], **FEED), protocol(1, 4), t.add("b", [3]))


def many_files_named_twice(t):
    """Each file is in one row of the checkpoint, but for some; files with vectors are other files."""
    adds = [t.add(f"f{n}", [n]) for n in range(50)]
    t.commit(protocol(1, 4), metadata(), *adds)
    rows = [{"add": {**add["add"], "partitionValues": []}} for add in [*adds, *adds[10:20], *adds[10:15]]]
    action = {**metadata()["metaData"], "configuration": [], "format": {"provider": "parquet", "options": []}}
    fields = {
        "protocol": pa.struct([("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32())]),
        "metaData": pa.struct([
            ("id", pa.string()), ("format", pa.struct([("provider", pa.string()), ("options", pa.map_(pa.string(), pa.string()))])),
            ("schemaString", pa.string()), ("partitionColumns", pa.list_(pa.string())), ("createdTime", pa.int64()),
            ("configuration", pa.map_(pa.string(), pa.string()))]),
        "add": pa.struct([
            ("path", pa.string()), ("partitionValues", pa.map_(pa.string(), pa.string())), ("size", pa.int64()),
            ("modificationTime", pa.int64()), ("dataChange", pa.bool_())]),
    }
    rows = [protocol(1, 4), {"metaData": action}, *rows]
    table = pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in fields.items()})
    pq.write_table(table, t.path / f"_delta_log/{0:020}.checkpoint.parquet")
    t.commit(t.add("g", [50]), t.remove("f0"))


def large_commit_that_names_files_twice(t):
    """More than a mebibyte, so that it is read as a stream."""
    def add(name, **more):
        return {"add": {"path": name, "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True, **more}}
    stats = json.dumps({"numRecords": 1, "minValues": {"id": "x" * 400}})
    t.commit(protocol(1, 4), metadata([{**LONG, "name": "other"}]), metadata(), *(add(f"f{n}", stats=stats) for n in range(3000)),
             t.remove("f7"), t.remove("g"), add("g"), add("f8"))


def large_commit_that_takes_files_back(t):
    """What is taken back lies more than one batch before it."""
    t.commit(protocol(1, 4), metadata())
    stats = json.dumps({"numRecords": 1, "minValues": {"id": "x" * 200}})
    t.commit(*({"add": {"path": f"f{n}", "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True, "stats": stats}}
               for n in range(9000)), t.remove("f0"), t.remove("f4200"))
    t.commit(t.add("g"))


def actions_put_right_in_the_middle(t):
    def add(name, size=1):
        return {"add": {"path": name, "partitionValues": {}, "size": size, "modificationTime": 1, "dataChange": True}}
    t.commit(protocol(), metadata(), *(add(f"f{n}") for n in range(5000)), add("g", "1"), *(add(f"h{n}") for n in range(5000)))


def commit_that_takes_files_back(t, *first):
    t.commit(protocol(1, 4), metadata(**FEED), t.add("a"))
    def remove(name):
        return t.remove(name, size=t.sizes[name], partitionValues={})
    t.commit(*first, t.add("b"), remove("b"), remove("a"), t.add("a", [2]))


def large_feed_that_takes_files_back(t):
    commit_that_takes_files_back(t, {"commitInfo": {"operation": "WRITE", "userMetadata": "x" * 1_100_000}})


def large_commit_of_vectors(t):
    """A file with another vector is another file."""
    adds = [{"add": {"path": f"f{n}", "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True, "tags": {"t": "x" * 300}}}
            for n in range(3000)]
    t.commit(WITH_VECTORS, metadata(enableDeletionVectors="true"), *adds)
    t.commit(*(action for add in adds for action in (
        {"remove": {"path": add["add"]["path"], "size": 1, "partitionValues": {}, "dataChange": True, "deletionTimestamp": 1}},
        {"add": {**add["add"], "deletionVector": VECTOR}})))


def mapping_of_writers_only(t):
    t.commit(protocol(3, 7, [], ["columnMapping", "icebergCompatV1"]),
             metadata([mapped(LONG, "col-1")], **{"columnMapping.mode": "name"}), t.add("a", [1, 2], column="col-1"))


def mapping_to_the_same_names(t):
    t.commit(protocol(2, 5), metadata([mapped(LONG, "id")], **{"columnMapping.mode": "name"}), t.add("a", [1, 2]))


def vectors_allowed_and_unused(t):
    t.commit(WITH_VECTORS, metadata(enableDeletionVectors="true"), t.add("a", [1, 2]))


def vectors_used_and_gone(t):
    t.commit(WITH_VECTORS, metadata(enableDeletionVectors="true"), t.add("x"))
    t.commit(t.remove("x"), t.add("x", deletionVector=VECTOR))
    t.commit(t.remove("x", deletionVector=VECTOR), t.add("a", [1, 2]))


def features_listed_and_unused(t):
    names = ["timestampNtz", "typeWidening", "columnMapping", "variantType", "v2Checkpoint"]
    t.commit(protocol(3, 7, names, names), metadata(), t.add("a", [1, 2]))


PLAIN = {function.__name__: function for function in (
    mapping_to_the_same_names, vectors_allowed_and_unused, vectors_used_and_gone, features_listed_and_unused)}


def remove_without_size(t):
    t.commit(protocol(1, 4), metadata(**FEED))
    t.commit(t.add("1.parquet"))
    t.commit(t.remove("1.parquet"))


def remove_without_size_of_an_older_file(t):
    t.commit(protocol(1, 4), metadata([LONG, {**LONG, "name": "p"}], ["p"], **FEED), t.add("1.parquet", values={"p": "7"}))
    t.commit(t.add("2.parquet", values={"p": None}))
    t.commit(t.remove("1.parquet"), t.remove("2.parquet"))


def remove_without_partition_values(t):
    t.commit(protocol(1, 4), metadata([LONG, {**LONG, "name": "p"}], ["p"], **FEED), t.add("1.parquet", values={"p": "7"}))
    t.commit(t.add("2.parquet", values={"p": None}))
    t.commit(*(t.remove(name, size=t.sizes[name]) for name in ("1.parquet", "2.parquet")))


def remove_without_partition_values_before_there_are_any(t):
    p = {**LONG, "name": "p"}
    t.commit(protocol(1, 4), metadata([LONG, p], **FEED), t.add("1.parquet"))
    t.commit(t.remove("1.parquet", size=t.sizes["1.parquet"]))
    t.commit(metadata([LONG, p], ["p"], **FEED), t.add("2.parquet", values={"p": "7"}))


def remove_without_size_of_an_unknown_file(t):
    t.commit(protocol(1, 4), metadata(**FEED), t.add("a"))
    t.commit(t.remove("never"))


def feed_switched_off_and_on(t):
    t.commit(protocol(1, 4), metadata(**FEED), t.add("a"))
    t.commit(metadata(), t.add("b"))
    t.commit(metadata(**FEED), t.add("c"))


def outside(t):
    t.commit(protocol(1, 4), metadata(**FEED), t.add("a"))
    t.commit({"add": {"path": "../elsewhere", "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True}})


def no_size_at_all(t):
    t.commit(protocol(1, 4), metadata(**FEED), t.add("a"))
    t.commit({"add": {"path": "b", "partitionValues": {}, "modificationTime": 1, "dataChange": True}})


def replaced_with_other_names(t):
    """Read from version 1 on, the removed file is one of another table."""
    t.commit(protocol(2, 5), metadata([mapped(LONG, "col-1")], **FEED, **{"columnMapping.mode": "name"}), t.add("a", column="col-1"))
    t.commit(metadata(**FEED), t.remove("a", size=1, partitionValues={}), t.add("b"))


def repartitioned(t):
    p = {**LONG, "name": "p"}
    t.commit(protocol(1, 4), metadata([LONG, p], ["p"], **FEED), t.add("a", values={"p": "7"}))
    t.commit(metadata([LONG, p], **FEED), t.remove("a", size=1, partitionValues={"p": "7"}), t.add("b"))
    t.commit(t.add("c"))


def types_of_a_partition_column(t):
    for kind, value in (("boolean", "TRUE"), ("string", "Yes"), ("boolean", "No")):
        field = {"name": "p", "type": kind, "nullable": True, "metadata": {}}
        first = [protocol(1, 4)] if kind == "boolean" and value == "TRUE" else []
        t.commit(*first, metadata([LONG, field], ["p"], **FEED), t.add(f"{value}1", values={"p": value}))
        t.commit(t.add(f"{value}2", values={"p": value}))


def vectors_that_the_protocol_does_not_allow(t):
    t.commit(protocol(), metadata(), t.add("a", deletionVector=VECTOR))


def partitions(t):
    kinds = {"t": "timestamp", "n": "timestamp", "d": "date", "m": "decimal(10,2)", "b": "boolean", "s": "string"}
    fields = [LONG, *({"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in kinds.items())]
    t.commit(protocol(), metadata(fields, list(kinds)), *(
        t.add(f"f{n}", values=dict(zip(kinds, values))) for n, values in enumerate([
            ("2023-11-05T00:00:00.000000Z", "2023-11-05 00:00:00.25", "2023-1-5", "1.5", "True", "2023-1-5"),
            ("2023-11-05 00:00:00", "2023-11-05T02:00:00+02:00", "2023-01-05", "1E+2", "false", None),
        ])))


REST = {function.__name__: function for function in (
    large_commit_that_names_files_twice, large_commit_of_vectors, commit_that_takes_files_back, large_feed_that_takes_files_back,
    two_metadata_in_a_commit, many_files_named_twice,
    mapping_of_writers_only, remove_without_size, remove_without_size_of_an_older_file, remove_without_partition_values,
    remove_without_partition_values_before_there_are_any,
    remove_without_size_of_an_unknown_file, feed_switched_off_and_on, outside, no_size_at_all, partitions,
    replaced_with_other_names, repartitioned, types_of_a_partition_column, vectors_that_the_protocol_does_not_allow)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("right")
    makers = {**{name: make for name, (make, _) in MIDDLE.items()}, **PLAIN, **REST}
    for name, make in makers.items():
        if make is None:
            shutil.copytree(ROOT / "tests/tables/ranges" / name, root / name)
        else:
            make(Table(root / name))
        set_commit_times(root / name)
    big(root / "big")
    entries = [{"name": name, "location": str(root / name), "historyShared": True} for name in [*makers, "big"]]
    shares = root / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": entries}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares, env={"RUST_LOG": "info"})
    yield server
    assert server.stop() == 0


BIG_FILES = 60_000


def big(path):
    """A log of many files, far more than fit into the buffers of a connection."""
    (path / "_delta_log").mkdir(parents=True)
    with open(path / f"_delta_log/{0:020}.json", "w") as log:
        for action in (protocol(), metadata()):
            log.write(json.dumps(action) + "\n")
        for n in range(BIG_FILES):
            add = {"path": f"part-{n:05}", "partitionValues": {}, "size": 1000, "modificationTime": 1, "dataChange": True}
            log.write(json.dumps({"add": add}) + "\n")


@pytest.fixture(scope="module")
def profile(server, tmp_path_factory):
    return write_profile(tmp_path_factory.mktemp("profile") / "r.share", server.endpoint, TOKEN)


def at(name):
    return f"/shares/s/schemas/d/tables/{name}"


def capabilities(text):
    return {"delta-sharing-capabilities": text} if text else {}


def changes(server, name, since, headers=None):
    """The range from version 0 on, as a change data feed and as a query."""
    if since == "changes":
        return server.request("GET", f"{at(name)}/changes?startingVersion=0", headers=headers)
    return server.request("POST", f"{at(name)}/query", body=b'{"startingVersion":0}', headers=headers)


@pytest.mark.parametrize("since", ["changes", "query"])
@pytest.mark.parametrize("name", MIDDLE)
def test_every_version_of_a_range_counts(server, name, since):
    feature = MIDDLE[name][1]
    for client in ("", "responseformat=parquet", "responseformat=delta", "responseformat=delta,parquet"):
        answer = changes(server, name, since, capabilities(client))
        assert answer.status == 400 and feature in answer.json["message"], (client, answer.body)
        assert answer.json["errorCode"] == "UNSUPPORTED_OPERATION"
    answer = changes(server, name, since, capabilities(f"{BOTH},timestampntz"))
    assert answer.status == 200
    assert answer.headers["delta-sharing-capabilities"].startswith("responseformat=delta")
    assert "deltaProtocol" in answer.lines[0]["protocol"]


@pytest.mark.parametrize("name", ["mapped_in_the_middle", "replaced_by_an_unmapped_one", "mapped_again_under_other_names"])
def test_a_range_with_other_names_has_the_metadata_of_every_version(server, name):
    """With one metadata only, the columns of some files would be null for every client."""
    whole = changes(server, name, "changes", capabilities(BOTH)).lines
    versions = [line["metaData"]["version"] for line in whole if "metaData" in line]
    assert versions[0] == 0 and len(versions) > 1
    paged, token = [], ""
    while token is not None:
        path = f"{at(name)}/changes?startingVersion=0&maxFiles=1{token and f'&pageToken={token}'}"
        answer = server.request("GET", path, headers=capabilities(BOTH))
        assert answer.status == 200, answer.body
        paged += [line for line in answer.lines if not {"endStreamAction", "protocol"} & set(line)]
        token = answer.lines[-1]["endStreamAction"].get("nextPageToken")
    assert {line["metaData"]["version"] for line in paged if "metaData" in line} == set(versions)


def test_the_ends_of_a_range_alone_are_served(server):
    for path in ("startingVersion=0&endingVersion=1", "startingVersion=4"):
        answer = server.request("GET", f"{at('mapped_in_the_middle')}/changes?{path}")
        assert answer.status == 200 and answer.headers["delta-sharing-capabilities"] == "responseformat=parquet", answer.body


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_listed_and_not_used_is_served_in_parquet_format(server, profile, name):
    for client in ("", "responseformat=parquet", "responseformat=delta,parquet"):
        for answer in (server.request("GET", f"{at(name)}/metadata", headers=capabilities(client)),
                       server.request("POST", f"{at(name)}/query", body=b"{}", headers=capabilities(client))):
            assert answer.status == 200 and "responseformat=parquet" in answer.headers["delta-sharing-capabilities"]
    frame = delta_sharing.load_as_pandas(f"{profile}#s.d.{name}", use_delta_format=False)
    assert sorted(frame["id"]) == [1, 2]


def test_mapping_that_the_protocol_does_not_list(server, profile):
    answer = server.request("POST", f"{at('mapping_of_writers_only')}/query", body=b"{}")
    assert answer.status == 400 and "columnMapping" in answer.json["message"]
    assert "DROP FEATURE columnMapping" in answer.json["message"]
    frame = delta_sharing.load_as_pandas(f"{profile}#s.d.mapping_of_writers_only", use_delta_format=True)
    assert sorted(frame["id"]) == [1, 2]


BOTH_REMOVED = {("add", 0, "1.parquet", "7"), ("add", 1, "2.parquet", None), ("remove", 2, "1.parquet", "7"), ("remove", 2, "2.parquet", None)}


@pytest.mark.parametrize("name,files", [
    ("remove_without_size", {("add", 1, "1.parquet", None), ("remove", 2, "1.parquet", None)}),
    ("remove_without_size_of_an_older_file", BOTH_REMOVED),
    ("remove_without_partition_values", BOTH_REMOVED),
    ("remove_without_partition_values_before_there_are_any", {
        ("add", 0, "1.parquet", None), ("remove", 1, "1.parquet", None), ("add", 2, "2.parquet", "7")}),
])
def test_a_removal_has_the_size_of_what_it_removes(server, name, files):
    def told(lines):
        found = [(kind, file) for line in lines for kind, file in line.items() if kind in ("add", "remove")]
        assert len({file["size"] for _, file in found}) == 1
        return {(kind, file["version"], urllib.parse.urlsplit(file["url"]).path.rsplit("/")[-1], file["partitionValues"].get("p"))
                for kind, file in found}
    assert told(changes(server, name, "query").lines) == files
    later = server.request("POST", f"{at(name)}/query", body=b'{"startingVersion":2}')
    assert told(later.lines) == {file for file in files if file[1] == 2}
    pages, token = [], None
    while token is not None or not pages:
        body = {"startingVersion": 0, "maxFiles": 1, **({"pageToken": token} if token else {})}
        answer = server.request("POST", f"{at(name)}/query", body=json.dumps(body).encode())
        assert answer.status == 200, answer.body
        pages += answer.lines[2:]
        token = answer.lines[-1]["endStreamAction"].get("nextPageToken")
    assert told(pages) == files


@pytest.mark.parametrize("name,since,text", [
    ("remove_without_size", "changes", "The changes of version 2 cannot be read"),
    ("remove_without_size_of_an_older_file", "changes", "The changes of version 2 cannot be read"),
    ("remove_without_partition_values_before_there_are_any", "changes", "The changes of version 1 cannot be read"),
    ("remove_without_partition_values", "changes", "The changes of version 2 cannot be read"),
    ("remove_without_size_of_an_unknown_file", "changes", "The changes of version 1 cannot be read"),
    ("remove_without_size_of_an_unknown_file", "query", "The changes of version 1 cannot be read"),
    ("feed_switched_off_and_on", "changes", "as change data was not recorded for version [1]"),
    ("outside", "changes", "names a file that this server does not hand out"),
    ("outside", "query", "names a file that this server does not hand out"),
    ("no_size_at_all", "changes", "The changes of version 1 cannot be read"),
    ("no_size_at_all", "query", "The changes of version 1 cannot be read"),
])
def test_what_stands_in_the_way_of_a_range_is_a_400(server, name, since, text):
    for client in ("", f"{BOTH};includeEndStreamAction=true"):
        answer = changes(server, name, since, capabilities(client))
        assert answer.status == 400 and text in answer.json["message"], answer.body
        assert "again" not in answer.json["message"]


def test_what_the_first_commit_removes_belongs_to_the_version_before(server):
    for name in ("replaced_with_other_names", "repartitioned"):
        for client in ("", BOTH):
            answer = server.request("GET", f"{at(name)}/changes?startingVersion=1&endingVersion=1", headers=capabilities(client))
            assert answer.status == 400 and "Begin with an earlier version" in answer.json["message"], answer.body
    answer = server.request("POST", f"{at('replaced_with_other_names')}/query", body=b'{"startingVersion":1}')
    assert answer.status == 400 and "columnMapping" in answer.json["message"]


def test_partition_columns_that_change_are_carried_in_parquet_format_only(server):
    changed = f"{at('repartitioned')}/changes?startingVersion=0"
    for client in ("", BOTH):
        answer = server.request("GET", changed, headers=capabilities(client))
        assert answer.status == 200 and "responseformat=parquet" in answer.headers["delta-sharing-capabilities"]
    answer = server.request("GET", changed, headers=capabilities("responseformat=delta"))
    assert answer.status == 400 and "partition columns" in answer.json["message"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_partition_values_do_not_depend_on_the_page(server, size):
    def values(lines):
        return [file["partitionValues"]["p"] for line in lines for kind, file in line.items() if kind == "add"]
    name = "types_of_a_partition_column"
    assert values(changes(server, name, "changes").lines) == ["true", "true", "Yes", "Yes", "false", "false"]
    pages, token = [], ""
    while token is not None:
        path = f"{at(name)}/changes?startingVersion=0&maxFiles={size}{token and f'&pageToken={token}'}"
        answer = server.request("GET", path)
        assert answer.status == 200, answer.body
        pages += answer.lines
        token = answer.lines[-1]["endStreamAction"].get("nextPageToken")
    assert values(pages) == ["true", "true", "Yes", "Yes", "false", "false"]


def test_vectors_that_the_protocol_does_not_allow(server):
    for client in ("", BOTH):
        answer = server.request("POST", f"{at('vectors_that_the_protocol_does_not_allow')}/query", body=b"{}", headers=capabilities(client))
        assert answer.status == 400 and "which its protocol does not allow" in answer.json["message"], answer.body


def test_partition_values_have_one_form_in_parquet_format(server):
    values = [line["file"]["partitionValues"] for line in server.request("POST", f"{at('partitions')}/query", body=b"{}").lines[2:]]
    assert sorted(values, key=str) == sorted([
        {"t": "2023-11-05 00:00:00", "n": "2023-11-05 00:00:00.250000", "d": "2023-01-05", "m": "1.50", "b": "true", "s": "2023-1-5"},
        {"t": "2023-11-05 00:00:00", "n": "2023-11-05 00:00:00", "d": "2023-01-05", "m": "100.00", "b": "false", "s": None},
    ], key=str)
    delta = server.request("POST", f"{at('partitions')}/query", body=b"{}", headers=capabilities("responseformat=delta"))
    verbatim = [line["file"]["deltaSingleAction"]["add"]["partitionValues"]["t"] for line in delta.lines[2:]]
    assert sorted(verbatim) == ["2023-11-05 00:00:00", "2023-11-05T00:00:00.000000Z"]


@pytest.mark.parametrize("agent,told", [("Delta-Sharing-Spark/1.3.8 Spark/4.0.1", True), ("Delta-Sharing-Python/1.4.2", False), (None, False)])
def test_spark_gets_the_size_to_plan_with(server, agent, told):
    headers = {"User-Agent": agent} if agent else {}
    for _ in range(2):
        described = server.request("GET", f"{at('feed_switched_off_and_on')}/metadata", headers=headers).lines[1]["metaData"]
        assert ("size" in described, "numFiles" in described) == (told, told)
        # What somebody else asks in between makes no difference.
        server.request("POST", f"{at('feed_switched_off_and_on')}/query", body=b"{}", headers=capabilities("responseformat=delta"))


def event(server, request_id, seconds=15):
    """The event of a request, as fields."""
    line = server.wait_for_log(f'request.id="{request_id}" action', seconds)
    return dict(field.split("=", 1) for field in line.split() if "=" in field) | {"outcome": line.split("deltashare::audit: ")[1].split()[0]}


def open_answer(server, extra=""):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    path = urllib.parse.urlsplit(server.endpoint).path.rstrip("/") + at("big") + "/query"
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n{extra}Content-Length: 2\r\n\r\n{{}}".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    request_id = head.lower().split(b"x-request-id: ")[1].split(b"\r\n")[0].decode()
    return connection, request_id, head.split(b"\r\n\r\n", 1)[1]


@pytest.mark.parametrize("extra", ["", "Accept-Encoding: gzip\r\n"])
def test_what_a_client_took_before_it_left_is_counted(server, extra):
    connection, request_id, seen = open_answer(server, extra)
    while len(seen) < 200_000:
        seen += connection.recv(65536)
    connection.close()
    told = event(server, request_id)
    files, taken = int(told["files"]), seen.count(b'{"file":')
    assert told["outcome"] == "gone" and told["http.status"] == "200"
    assert 0 < taken <= files < BIG_FILES if not extra else 0 < files <= BIG_FILES
    assert int(told["bytes"]) == files * 1000


def test_a_whole_answer_is_counted_whole(server):
    answer = server.request("POST", f"{at('big')}/query", body=b"{}")
    told = event(server, answer.headers["x-request-id"])
    assert (told["outcome"], int(told["files"]), int(told["bytes"])) == ("answered", BIG_FILES, BIG_FILES * 1000)


@pytest.mark.parametrize("end", [True, False])
def test_an_answer_that_breaks_says_why_and_is_counted(server, tmp_path, end):
    """The last file of a long list lies outside of the table: 200 is sent by then."""
    broken = tmp_path / "broken"
    big(broken)
    with open(broken / f"_delta_log/{0:020}.json", "a") as log:
        add = {"path": "../elsewhere", "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True}
        log.write(json.dumps({"add": add}) + "\n")
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({"version": 1, "shares": [{"name": "s", "schemas": [
        {"name": "d", "tables": [{"name": "big", "location": str(broken)}]}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}]}))
    other = Server("--shares", shares, env={"RUST_LOG": "info"})
    try:
        connection, request_id, seen = open_answer(other, "delta-sharing-capabilities: includeEndStreamAction=true\r\n" if end else "")
        while chunk := connection.recv(1 << 20):
            seen += chunk
        reason = b"The table's log names a file that this server does not hand out."
        assert reason in seen and b"sk again" not in seen
        assert (b"INCOMPLETE ANSWER: " in seen) != end
        told = event(other, request_id)
        assert (told["outcome"], int(told["files"])) == ("broken", BIG_FILES)
    finally:
        assert other.stop() == 0


@pytest.mark.parametrize("client", ["", BOTH])
def test_the_last_metadata_of_a_commit_is_in_force(server, profile, client):
    """Delta's protocol allows one in each commit. Of several, Spark reads the last."""
    def columns(lines):
        schemas = [line["metaData"] for line in lines if "metaData" in line]
        schemas = [line["deltaMetadata"] if "deltaMetadata" in line else line for line in schemas]
        return [[field["name"] for field in json.loads(line["schemaString"])["fields"]] for line in schemas]
    path = at("two_metadata_in_a_commit")
    answer = server.request("POST", f"{path}/query", body=b"{}", headers=capabilities(client))
    assert columns(answer.lines) == [["id", "other"]]
    whole = server.request("GET", f"{path}/changes?startingVersion=0&includeHistoricalMetadata=true", headers=capabilities(client))
    assert columns(whole.lines) == [["id"], ["id", "other"]]
    for format in ("delta", "parquet"):
        frame = delta_sharing.load_as_pandas(f"{profile}#s.d.two_metadata_in_a_commit", use_delta_format=format == "delta")
        assert sorted(frame["id"]) == [1, 2, 3] and list(frame.columns) == ["id", "other"]


def paths(answer):
    """The names of the files of an answer, in its order."""
    def path(file):
        return file["deltaSingleAction"]["add"]["path"] if "deltaSingleAction" in file else file["url"]
    files = [path(line["file"]) for line in answer.lines if "file" in line]
    return [urllib.parse.urlsplit(file).path.rsplit("/", 1)[-1] for file in files]


@pytest.mark.parametrize("client", ["", BOTH])
def test_the_last_action_about_a_file_counts_in_a_large_commit(server, client):
    answer = server.request("POST", f"{at('large_commit_that_names_files_twice')}/query", body=b"{}", headers=capabilities(client))
    assert sorted(paths(answer)) == sorted([*(f"f{n}" for n in range(3000) if n != 7), "g"])
    assert '\\"id\\"' in json.dumps(answer.lines[1]) and "other" not in json.dumps(answer.lines[1])


@pytest.fixture
def cold(tmp_path):
    """Makes servers that have read nothing before, over one table."""
    servers = []

    def start(make):
        if not (tmp_path / "t").exists():
            make(Table(tmp_path / "t"))
        shares = tmp_path / "shares.yaml"
        shares.write_text(json.dumps({
            "version": 1, "authorization": "none",
            "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [{"name": "t", "location": str(tmp_path / "t")}]}]}],
        }))
        servers.append(Server("--shares", shares, "--token-key", tmp_path / "key"))
        return servers[-1]
    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize("client", ["", BOTH])
@pytest.mark.parametrize("make,files", [
    (large_commit_that_takes_files_back, {"g", *(f"f{n}" for n in range(9000))} - {"f0", "f4200"}),
    (actions_put_right_in_the_middle, {"g", *(f"{name}{n}" for name in "fh" for n in range(5000))}),
], ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_put_right_is_right_for_the_first_who_asks(cold, make, files, client):
    def ask(server, **body):
        return server.request("POST", f"{at('t')}/query", body=json.dumps(body).encode(), headers=capabilities(client))
    server = cold(make)
    with concurrent.futures.ThreadPoolExecutor(6) as many:
        answers = [paths(answer) for answer in many.map(lambda _: ask(server), range(6))]
    assert set(answers[0]) == files and len(answers[0]) == len(files)
    assert all(answer == answers[0] for answer in answers)
    # Each page from another server, which has read nothing before.
    pages, token = [], None
    while token is not None or not pages:
        answer = ask(cold(make), maxFiles=4500, **({"pageToken": token} if token else {}))
        assert answer.status == 200, answer.body
        pages += paths(answer)
        token = answer.lines[-1]["endStreamAction"].get("nextPageToken")
    assert pages == answers[0]


@pytest.mark.parametrize("since", ["changes", "query"])
@pytest.mark.parametrize("name", ["commit_that_takes_files_back", "large_feed_that_takes_files_back"])
def test_changes_have_every_action_of_a_commit(server, name, since):
    """Together they make the rows of the newest version, whatever the size of the commit."""
    lines = [json.dumps(line) for line in changes(server, name, since).lines]
    wanted = [("add", "a"), ("add", "b"), ("remove", "b"), ("remove", "a"), ("add", "a")]
    found = [(kind, path) for line in lines for kind in ("add", "remove") for path in "ab"
             if f'"{kind}": {{' in line and f"/{path}?" in line]
    assert found == wanted, lines


def test_a_large_commit_may_give_many_files_a_vector(server):
    answer = server.request("POST", f"{at('large_commit_of_vectors')}/query", body=b"{}", headers=capabilities(BOTH))
    assert sorted(paths(answer)) == sorted(f"f{n}" for n in range(3000))
    assert all("deletionVector" in json.dumps(line) for line in answer.lines[2:])


@pytest.mark.parametrize("client", ["", BOTH])
def test_a_file_that_a_checkpoint_names_twice_is_there_once(server, client):
    name = at("many_files_named_twice")
    answer = server.request("POST", f"{name}/query", body=b"{}", headers=capabilities(client))
    names = paths(answer)
    assert sorted(names) == sorted([*(f"f{n}" for n in range(1, 50)), "g"])
    pages, token = [], None
    while token is not None or not pages:
        body = json.dumps({"maxFiles": 7, **({"pageToken": token} if token else {})}).encode()
        answer = server.request("POST", f"{name}/query", body=body, headers=capabilities(client))
        assert answer.status == 200, answer.body
        pages += paths(answer)
        token = answer.lines[-1]["endStreamAction"].get("nextPageToken")
    assert pages == names
    planned = server.request("GET", f"{name}/metadata", headers={"user-agent": "Delta-Sharing-Spark/1.0"}).lines[1]["metaData"]
    assert planned["numFiles"] == 50


def test_a_start_between_two_milliseconds_is_after_the_first(server):
    path = f"{at('two_metadata_in_a_commit')}/version?startingTimestamp="
    first = server.request("GET", f"{at('two_metadata_in_a_commit')}/changes?startingVersion=0").lines
    times = sorted(line["add"]["timestamp"] for line in first if "add" in line)
    def text(millis, more):
        seconds, rest = divmod(millis, 1000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03}{more}Z"
    for more, version in (("", "0"), ("000", "0"), ("001", "1"), ("999", "1")):
        assert server.request("GET", path + text(times[0], more)).headers["delta-table-version"] == version
    assert server.request("GET", path + text(times[1], "001")).status == 400
