"""Filters over tables whose metadata changes: a range of changes is whole or refused. The logs are written by hand, because no
writer makes most of them."""

import json
import os
import urllib.parse

import pytest

from conftest import Server
from test_filters import DELTA, PARQUET, Reader, parts, recipient

COLUMNS = (("id", "long"), ("region", "string"), ("day", "string"))
VECTOR = {"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 1, "sizeInBytes": 40, "cardinality": 6}


def protocol(reader=1, writer=4, **features):
    return {"protocol": {"minReaderVersion": reader, "minWriterVersion": writer, **features}}


def metadata(columns, partitions, **configuration):
    fields = [{"name": name, "type": kind, "nullable": True, "metadata": more[0] if more else {}} for name, kind, *more in columns]
    return {"metaData": {
        "id": "5fba94ed-9794-4965-ba6e-6ee3c0d22af9", "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}), "partitionColumns": partitions,
        "configuration": {"delta.enableChangeDataFeed": "true", **configuration}, "createdTime": 1,
    }}


def add(path, values, **more):
    return {"add": {"path": path, "partitionValues": values, "size": 10, "modificationTime": 1, "dataChange": True, **more}}


def remove(path, values):
    return {"remove": {"path": path, "deletionTimestamp": 1, "dataChange": True, "partitionValues": values, "size": 10}}


def mapped(*names):
    """Columns that keep their names in the log, whatever they are called."""
    return [(name, "long" if number == 1 else "string",
             {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"c{number}"})
            for number, name in enumerate(names, 1)]


MAPPING = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "3"}
EU = [(f"eu{number}", {"region": "EU"}) for number in range(4)]
US = [(f"us{number}", {"region": "US"}) for number in range(4)]
NAMED = [("one", "US", "EU"), ("two", "US", "EU"), ("three", "EU", "US")]
YEARS = [(f"y{year}", {"year": year}) for year in ("2024", "02024", "+2024", "2025")]

# The filter of each table, and its commits.
TABLES = {
    "repartitioned": ("region = 'EU'", [
        [protocol(), metadata(COLUMNS, ["region"])] + [add(*file) for file in EU + US],
        [metadata(COLUMNS, ["day"])] + [remove(*file) for file in EU + US] + [add("new", {"day": "1"})],
    ]),
    "more_columns": ("region = 'EU'", [
        [protocol(), metadata(COLUMNS, ["region"])] + [add(*file) for file in EU + US],
        [metadata(COLUMNS, ["region", "day"])] + [remove(*file) for file in EU + US]
        + [add(f"new{number}", {"region": region, "day": "1"}) for number, region in enumerate(["EU", "US"] * 3)],
    ]),
    "fits_later": ("region = 'EU' OR day = '1'", [
        [protocol(), metadata(COLUMNS, ["region"])] + [add(*file) for file in EU],
        [metadata(COLUMNS, ["region", "day"])] + [remove(*file) for file in EU] + [add("new", {"region": "US", "day": "1"})],
    ]),
    "swapped": ("region = 'EU'", [
        [protocol(2, 5), metadata(mapped("id", "region", "origin"), ["region", "origin"], **MAPPING)]
        + [add(path, {"c2": one, "c3": other}) for path, one, other in NAMED],
        [metadata(mapped("id", "origin", "region"), ["origin", "region"], **MAPPING)]
        + [remove(path, {"c2": one, "c3": other}) for path, one, other in NAMED],
    ]),
    "retyped": ("year IN ('2024')", [
        [protocol(), metadata((("id", "long"), ("year", "string")), ["year"])] + [add(*file) for file in YEARS],
        [metadata((("id", "long"), ("year", "integer")), ["year"])] + [remove(*file) for file in YEARS] + [add("new", {"year": "2024"})],
    ]),
    "renamed_and_back": ("region = 'EU'", [
        [protocol(2, 5), metadata(mapped("id", "region", "day"), ["region"], **MAPPING), add("eu1", {"c2": "EU"}), add("us1", {"c2": "US"})],
        [metadata(mapped("id", "area", "day"), ["area"], **MAPPING)],
        [add("eu2", {"c2": "EU"}), remove("eu1", {"c2": "EU"})],
        [metadata(mapped("id", "region", "day"), ["region"], **MAPPING)],
        [add("eu3", {"c2": "EU"})],
    ]),
    "other_vectors": ("region = 'EU'", [
        [protocol(3, 7, readerFeatures=["deletionVectors"], writerFeatures=["deletionVectors", "changeDataFeed"]),
         metadata(COLUMNS, ["region"], **{"delta.enableDeletionVectors": "true"}),
         add("eu", {"region": "EU"}), add("us", {"region": "US"}, deletionVector=VECTOR)],
    ]),
    "own_vectors": ("region = 'EU'", [
        [protocol(3, 7, readerFeatures=["deletionVectors"], writerFeatures=["deletionVectors", "changeDataFeed"]),
         metadata(COLUMNS, ["region"], **{"delta.enableDeletionVectors": "true"}),
         add("eu", {"region": "EU"}, deletionVector=VECTOR), add("us", {"region": "US"})],
    ]),
    "removed_without_values": ("region = 'EU'", [
        [protocol(), metadata(COLUMNS, ["region"]), add("eu", {"region": "EU"}), add("us", {"region": "US"})],
        [remove("eu", {})],
    ]),
}
TWICE = '{"add":{"path":"%s","partitionValues":{"region":"%s","region":"%s"},"size":10,"modificationTime":1,"dataChange":true}}'


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("changing")
    tables = []

    def write(name, condition, commits):
        (root / name / "_delta_log").mkdir(parents=True)
        for version, commit in enumerate(commits):
            path = root / name / "_delta_log" / f"{version:020}.json"
            path.write_text("".join((action if isinstance(action, str) else json.dumps(action)) + "\n" for action in commit))
            os.utime(path, (1_700_000_000 + version * 3600,) * 2)
        tables.append({"name": name, "location": str(root / name), "historyShared": True, "filter": condition})

    for name, (condition, commits) in TABLES.items():
        write(name, condition, commits)
    write("twice", "region = 'EU'", [[protocol(), metadata(COLUMNS, ["region"]), TWICE % ("us_eu", "US", "EU"), TWICE % ("eu_us", "EU", "US")]])
    shares = root / "shares.yaml"
    shares.write_text(json.dumps({"version": 1, "shares": [{"name": "f", "schemas": [{"name": "s", "tables": tables}]}],
                                  "recipients": [recipient("acme", "f")]}))
    server = Server("--shares", shares)
    yield server
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


@pytest.fixture(params=["parquet", "delta"])
def reader(request, server):
    return lambda table: Reader(server, "acme", "f", table, PARQUET if request.param == "parquet" else DELTA)


def names(lines):
    """The files of an answer, each after its action."""
    found = []
    for line in lines:
        for kind, wrapper in line.items():
            if kind not in ("protocol", "metaData", "endStreamAction"):
                single = wrapper.get("deltaSingleAction")
                kind, part = next(iter(single.items())) if single else (kind.replace("file", "add"), wrapper)
                url = urllib.parse.urlsplit(part.get("url") or part["path"])
                found.append(f"{kind} {url.path.rsplit('/', 1)[1]}")
    return found


@pytest.mark.parametrize("table,start,version", [
    ("repartitioned", 0, 1), ("repartitioned", 1, 1), ("fits_later", 0, 1), ("fits_later", 1, 1), ("retyped", 0, 1), ("retyped", 1, 1),
    ("renamed_and_back", 0, 1), ("renamed_and_back", 1, 3), ("renamed_and_back", 2, 3),
])
def test_a_range_in_which_a_filter_means_something_else_is_refused(reader, server, table, start, version):
    table = reader(table)
    for refused in (table.post({"startingVersion": start}, status=400), table.post({"startingVersion": start, "maxFiles": 1}, status=400),
                    table.changes(400, startingVersion=start)):
        message = refused.json["message"]
        assert f"version {version} " in message or "change within the range" in message, message
        assert "filter" not in message and "region" not in message and "year" not in message


def test_what_was_shared_under_another_name_is_not_mixed(server):
    table = Reader(server, "acme", "f", "swapped", DELTA)
    assert names(table.post({"version": 0}).lines) == ["add three"]
    for start in (0, 1):
        table.post({"startingVersion": start}, status=400)


def test_a_range_that_begins_where_a_filter_changes_is_refused(server):
    """As a client sends it that has read up to the version before. The commit removes nothing."""
    table = Reader(server, "acme", "f", "renamed_and_back", DELTA)
    for asked in ({"startingVersion": 1, "endingVersion": 2}, {"startingVersion": 1, "endingVersion": 1}, {"startingVersion": 3}):
        assert "which part of the table is shared" in table.post(asked, status=400).json["message"]
        table.changes(400, **asked)


def test_versions_on_either_side_can_be_read(server, reader):
    assert names(reader("repartitioned").post({"version": 0}).lines) == [f"add eu{number}" for number in range(4)]
    assert names(reader("repartitioned").post({}).lines) == []
    assert names(reader("retyped").post({}).lines) == ["add new"]
    table = Reader(server, "acme", "f", "renamed_and_back", DELTA)
    assert names(table.post({}).lines) == ["add eu3", "add eu2"]
    assert names(table.post({"version": 2}).lines) == []
    assert names(table.post({"startingVersion": 4}).lines) == ["add eu3"]


def test_pages_of_a_commit_that_changes_the_partition_columns(reader):
    """The filter means the same before and after. Other ranges push the cursor out of memory between any two pages."""
    table, found, page = reader("more_columns"), [], None
    whole = names(table.post({"startingVersion": 0}).lines)
    assert sorted(whole) == sorted([f"{action} eu{number}" for action in ("add", "remove") for number in range(4)]
                                   + ["add new0", "add new2", "add new4"])
    assert sorted(names(table.post({"startingVersion": 1}).lines)) == sorted(whole)[4:] and len(whole) == 11
    while True:
        lines = table.post({"startingVersion": 0, "maxFiles": 1, **({"pageToken": page} if page else {})}).lines
        found += names(lines)
        page = lines[-1]["endStreamAction"].get("nextPageToken")
        if page is None:
            break
        for end in (0, 1) * 3:
            table.post({"startingVersion": 0, "endingVersion": end, "maxFiles": 1})
    assert found == whole


def test_only_deletion_vectors_of_shared_files_need_a_client_that_reads_them(server):
    table = Reader(server, "acme", "f", "other_vectors")
    for answer in (table.post({}), table.post({"startingVersion": 0}), table.changes(startingVersion=0)):
        assert names(answer.lines) == ["add eu"]
    assert len(table.get("/metadata").lines) == 2
    table = Reader(server, "acme", "f", "own_vectors")
    table.post({}, status=400)
    table.post({"startingVersion": 0}, status=400)
    assert names(Reader(server, "acme", "f", "own_vectors", DELTA).post({}).lines) == ["add eu"]


def test_a_removal_that_may_be_of_a_shared_file_is_not_left_out(reader):
    table = reader("removed_without_values")
    assert names(table.post({"version": 0}).lines) == ["add eu"] and not parts(table.post({}).lines)
    for start in (0, 1):
        for refused in (table.post({"startingVersion": start}, status=400), table.changes(400, startingVersion=start)):
            assert "The changes of version 1 cannot be read" in refused.json["message"]


def test_of_a_value_that_is_there_twice_the_last_counts(reader):
    table = reader("twice")
    assert names(table.post({}).lines) == names(table.post({"startingVersion": 0}).lines) == ["add us_eu"]
