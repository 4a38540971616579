"""Change data feeds and queries since a version: equal, commit by commit, to what the writer did."""

import json

import canonical
import delta_sharing
import pytest
from requests.exceptions import HTTPError

from conftest import Server, TOKEN, hash_of, set_commit_times

TABLE = "/shares/all/schemas/spark/tables/"
DELTA = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors,columnmapping"}
FEEDS = ["change_data_feed", "py_merged"]
MAPPED = "change_data_feed_mapped"


def url(profile, name):
    return f"{profile}#all.spark.{name}"


def expected(tables, name, first=0, last=99):
    changes = json.loads((tables[name] / "expected-changes.json").read_text())
    return [row for row in changes if first <= row["_commit_version"] <= last]


def rows(frame):
    return canonical.rows(frame.drop(columns="_commit_timestamp").to_dict("records"))


def changes(profile, name, form, **arguments):
    return delta_sharing.load_table_changes_as_pandas(url(profile, name), use_delta_format=form, **arguments)


@pytest.mark.parametrize("form", [True, False])
@pytest.mark.parametrize("name", FEEDS)
def test_the_whole_feed(profile, tables, name, form):
    assert rows(changes(profile, name, form, starting_version=0)) == expected(tables, name)


def test_the_feed_of_a_table_with_deletion_vectors_and_mapped_columns(profile, tables):
    assert rows(changes(profile, MAPPED, True, starting_version=0)) == expected(tables, MAPPED)
    with pytest.raises(HTTPError) as raised:
        changes(profile, MAPPED, False, starting_version=0)
    assert "Unsupported Delta Table Properties" in raised.value.response.json()["message"]


@pytest.mark.parametrize("form", [True, False])
@pytest.mark.parametrize("first,last", [(1, 1), (2, 2), (1, 3), (3, 4), (4, 99)])
def test_ranges_of_versions(profile, tables, first, last, form):
    frame = changes(profile, "change_data_feed", form, starting_version=first, ending_version=last)
    assert rows(frame) == expected(tables, "change_data_feed", first, last)


@pytest.mark.parametrize("form", [True, False])
def test_ranges_of_timestamps(profile, tables, form):
    # Commit N was made at N o'clock.
    frame = changes(profile, "change_data_feed", form,
                    starting_timestamp="2024-01-01T01:30:00Z", ending_timestamp="2024-01-01T04:59:00Z")
    assert rows(frame) == expected(tables, "change_data_feed", 2, 4)
    # In delta format the client makes timestamps of the milliseconds.
    times = {int(at.timestamp() * 1000) if form else at for at in frame["_commit_timestamp"]}
    assert times == {1704067200000 + hour * 3600000 for hour in (2, 3)}


def message(server, path):
    answer = server.request("GET", f"{TABLE}{path}")
    assert answer.status == 400, answer.body
    return answer.json["message"]


@pytest.mark.parametrize("path,text", [
    ("no_stats/changes?startingVersion=0", "cdf is not enabled on table all.spark.no_stats"),
    ("py_versions/changes?startingVersion=0", "as change data was not recorded for version [0]"),
    ("change_data_feed/changes", "No startingVersion or startingTimestamp provided for CDF read."),
    ("change_data_feed/changes?startingVersion=x", "startingVersion is not a valid number."),
    ("change_data_feed/changes?startingVersion=99", "Provided Start version(99) for reading change data is invalid."),
    ("change_data_feed/changes?startingVersion=3&endingVersion=2", "CDF range from start 3 to end 2 was invalid."),
    ("change_data_feed/changes?startingTimestamp=nonsense", "Invalid startingTimestamp:"),
    ("change_data_feed/changes?startingTimestamp=9000-01-01T00:00:00Z", "is after the latest available version"),
    ("change_data_feed/changes?startingVersion=0&maxFiles=0", "maxFiles must be positive."),
    ("change_data_feed/changes?startingVersion=0&maxFiles=x", "maxFiles: expected a number"),
])
def test_what_is_refused(server, path, text):
    assert text in message(server, path)


def test_times_beyond_the_log_mean_its_ends(server):
    whole = server.request("GET", f"{TABLE}change_data_feed/changes?startingVersion=0")
    for path in ("startingTimestamp=1970-01-01T00:00:00Z", "startingVersion=0&endingTimestamp=9000-01-01T00:00:00Z"):
        answer = server.request("GET", f"{TABLE}change_data_feed/changes?{path}")
        assert answer.headers["delta-table-version"] == "0" and len(answer.lines) == len(whole.lines)


def test_lines_of_the_feed(server):
    answer = server.request("GET", f"{TABLE}change_data_feed/changes?startingVersion=1&includeHistoricalMetadata=True")
    assert answer.headers["delta-table-version"] == "1"
    assert answer.lines[1]["metaData"]["version"] == 1
    kinds = {}
    for line in answer.lines[2:]:
        (kind, file), = line.items()
        assert {"url", "id", "partitionValues", "size", "version", "timestamp", "expirationTimestamp"} <= set(file)
        assert file["timestamp"] == 1704067200000 + file["version"] * 3600000
        kinds.setdefault(file["version"], set()).add(kind)
    # An insert, a merge, an insert, an OPTIMIZE, a delete of one row of a file.
    assert kinds == {1: {"add"}, 2: {"cdf"}, 3: {"add"}, 5: {"cdf"}}


def test_lines_of_the_feed_in_delta_format(server):
    answer = server.request("GET", f"{TABLE}{MAPPED}/changes?startingVersion=0&includeHistoricalProtocol=true", headers=DELTA)
    assert answer.lines[0]["protocol"]["version"] == answer.lines[1]["metaData"]["version"]
    for line in answer.lines[2:]:
        file = line["file"]
        assert {"id", "version", "timestamp", "expirationTimestamp", "deltaSingleAction"} <= set(file)
        (kind, action), = file["deltaSingleAction"].items()
        assert kind in ("add", "remove", "cdc") and action["size"] > 0 and "X-Amz-Signature" in action["path"]


def since(server, name, body, headers=None):
    return server.request("POST", f"{TABLE}{name}/query", body=json.dumps(body).encode(), headers=headers)


def test_what_changed_since_a_version(server):
    answer = since(server, "py_versions", {"predicateHints": [], "startingVersion": 1, "endingVersion": 2})
    assert answer.headers["delta-table-version"] == "1"
    assert answer.lines[1]["metaData"]["version"] == 1
    seen = [(kind, file["version"]) for line in answer.lines[2:] for kind, file in line.items()]
    # An append, then an overwrite of the two files there were.
    assert sorted(seen) == [("add", 1), ("add", 2), ("remove", 2), ("remove", 2)]


def test_what_changed_adds_up_to_the_newest_version(server):
    for name in ("py_versions", "py_merged", "change_data_feed"):
        files = set()
        for line in since(server, name, {"startingVersion": 0}).lines[2:]:
            (kind, file), = line.items()
            if kind == "add":
                files.add(file["id"])
            elif kind == "remove":
                files.discard(file["id"])
        newest = {line["file"]["id"] for line in since(server, name, {}).lines[2:]}
        # Rewrites without data change are left out, so the sets differ only where there was one.
        assert files and (files == newest or name != "py_versions")


def test_streams_see_changes_of_the_metadata(server):
    lines = since(server, "schema_evolution", {"startingVersion": 0}).lines
    changed = [line["metaData"] for line in lines[2:] if "metaData" in line]
    assert [metadata["version"] for metadata in changed] == [2]
    assert "extra" in changed[0]["schemaString"] and "extra" not in lines[1]["metaData"]["schemaString"]


def test_streams_in_delta_format(server):
    answer = since(server, "deletion_vectors", {"startingVersion": 0}, DELTA)
    actions = [line["file"]["deltaSingleAction"] for line in answer.lines[2:]]
    assert any("deletionVector" in action.get("add", {}) for action in actions)
    assert since(server, "deletion_vectors", {"startingVersion": 0}).status == 400


@pytest.mark.parametrize("name,body,text", [
    ("no_stats", {"startingVersion": 0}, "Reading table by version or timestamp is not supported"),
    ("py_versions", {"startingVersion": 9}, "Provided Start version(9) for reading change data is invalid."),
    ("py_versions", {"startingVersion": 2, "endingVersion": 1}, "must be smaller than or equal to endingVersion(1)."),
    ("py_versions_from_2", {"startingVersion": 1}, "You can only query table data since version 2."),
    ("py_checkpointed", {"startingVersion": 0}, "Cannot load table version 0"),
])
def test_what_is_refused_of_streams(server, name, body, text):
    answer = since(server, name, body)
    assert answer.status == 400 and text in answer.json["message"], answer.body


def test_an_end_that_is_not_there_yet_is_the_newest_version(server):
    plain = since(server, "py_versions", {"startingVersion": 1}).lines
    later = since(server, "py_versions", {"startingVersion": 1, "endingVersion": 50}).lines
    assert len(plain) == len(later)


def test_a_feed_that_is_switched_off_within_the_range(tables, tmp_path):
    from deltalake import DeltaTable, write_deltalake
    import pyarrow as pa
    path = tmp_path / "t"
    batch = pa.table({"id": pa.array([1], pa.int64())})
    write_deltalake(path, batch, configuration={"delta.enableChangeDataFeed": "true"})
    for value in ("false", "true"):
        DeltaTable(path).alter.set_table_properties({"delta.enableChangeDataFeed": value})
        write_deltalake(path, batch, mode="append")
    set_commit_times(path)
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [{"name": "t", "location": str(path), "historyShared": True}]}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares)
    try:
        changed = "/shares/s/schemas/d/tables/t/changes"
        assert "not recorded for version [1]" in server.request("GET", f"{changed}?startingVersion=1").json["message"]
        assert "not recorded for version [2]" in server.request("GET", f"{changed}?startingVersion=0&endingVersion=2").json["message"]
        # Off and on again within the range.
        answer = server.request("GET", f"{changed}?startingVersion=0")
        assert answer.status == 400 and "not recorded for version [1]" in answer.json["message"]
        assert server.request("GET", f"{changed}?startingVersion=3").status == 200
    finally:
        assert server.stop() == 0
