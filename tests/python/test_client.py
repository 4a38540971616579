"""The released Python client: every table, both formats, rows equal to what the writer wrote."""

import json

import canonical
import delta_sharing
import pytest
from requests.exceptions import HTTPError

from conftest import OTHER_TOKEN, SPARK_TABLES, write_profile

import deltalake_tables

NAMES = [path.name for path in sorted(SPARK_TABLES.iterdir())] + list(deltalake_tables.TABLES)

# Reader features that the table needs, so that it is not served in parquet format.
DELTA_ONLY = {
    "change_data_feed_mapped": "columnMapping",
    "clone": "deletionVectors",
    "clone_source": "deletionVectors",
    "column_mapping_id": "columnMapping",
    "column_mapping_name": "columnMapping",
    "deletion_vectors": "deletionVectors",
    "mapped_and_deleted": "columnMapping",
    "timestamp_ntz": "timestampNtz",
    "type_widening": "typeWidening",
    "variant": "variantType",
}
# Reader features that this client does not declare.
NOT_DECLARED = {"type_widening": "typeWidening", "variant": "variantType"}
# Deletion vectors are switched off, but one file still has one: parquet is refused at that file.
VECTORS_LEFT = {"deletion_vectors_off"}


def url(profile, name):
    return f"{profile}#all.spark.{name}"


def expected(tables, name, suffix=""):
    return json.loads((tables[name] / f"expected{suffix}.json").read_text())


def rows(frame):
    return canonical.rows(frame.to_dict("records"))


def refusal(load):
    with pytest.raises(HTTPError) as raised:
        load()
    assert raised.value.response.status_code == 400
    return raised.value.response.json()["message"]


def test_lists(profile, tables):
    client = delta_sharing.SharingClient(str(profile))
    assert [share.name for share in client.list_shares()] == ["all", "One Share"]
    schemas = client.list_schemas(delta_sharing.Share("one share"))
    assert [schema.name for schema in schemas] == ["Small", "empty"]
    small = client.list_tables(delta_sharing.Schema("SMALL", "ONE SHARE"))
    assert [(table.name, table.share, table.schema) for table in small] == [
        ("only", "One Share", "Small"), ("with space", "One Share", "Small"),
    ]
    assert {table.name for table in client.list_all_tables()} == set(tables) | {"only", "with space"}


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_the_default_format(profile, tables, name):
    if name in NOT_DECLARED:
        message = refusal(lambda: delta_sharing.load_as_pandas(url(profile, name)))
        assert NOT_DECLARED[name] in message
        return
    assert rows(delta_sharing.load_as_pandas(url(profile, name))) == expected(tables, name)


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_parquet_format(profile, tables, name):
    load = lambda: delta_sharing.load_as_pandas(url(profile, name), use_delta_format=False)  # noqa: E731
    if name in DELTA_ONLY:
        message = refusal(load)
        assert "Unsupported Delta Table Properties" in message and DELTA_ONLY[name] in message
    elif name in VECTORS_LEFT:
        assert "deletionVectors" in refusal(load)
    else:
        assert rows(load()) == expected(tables, name)


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_delta_format(profile, tables, name):
    load = lambda: delta_sharing.load_as_pandas(url(profile, name), use_delta_format=True)  # noqa: E731
    if name in NOT_DECLARED:
        assert NOT_DECLARED[name] in refusal(load)
    else:
        assert rows(load()) == expected(tables, name)


@pytest.mark.parametrize("form", [True, False])
def test_limit(profile, form):
    frame = delta_sharing.load_as_pandas(url(profile, "py_many_files"), limit=7, use_delta_format=form)
    assert len(frame) == 7


def test_hints_never_lose_rows(profile, tables):
    hints = json.dumps({"op": "equal", "children": [
        {"op": "column", "name": "bucket", "valueType": "string"},
        {"op": "literal", "value": "b001", "valueType": "string"}]})
    frame = delta_sharing.load_as_pandas(url(profile, "py_many_files"), jsonPredicateHints=hints)
    got = [row for row in rows(frame) if row["bucket"] == "b001"]
    assert got == [row for row in expected(tables, "py_many_files") if row["bucket"] == "b001"]


VERSIONS = [
    (name, int(path.stem.removeprefix("expected-v")))
    for name in NAMES
    for path in sorted((SPARK_TABLES / name).glob("expected-v*.json"))
] + [("py_versions", version) for version in range(4)]


@pytest.mark.parametrize("form", [True, False, None])
@pytest.mark.parametrize("name,version", VERSIONS)
def test_time_travel_by_version(profile, tables, name, version, form):
    load = lambda: delta_sharing.load_as_pandas(url(profile, name), version=version, use_delta_format=form)  # noqa: E731
    # Before the first deletion, no file has a deletion vector.
    if form is False and name in DELTA_ONLY and (name, version) != ("deletion_vectors", 1):
        assert DELTA_ONLY[name] in refusal(load)
    else:
        assert rows(load()) == expected(tables, name, f"-v{version}")


@pytest.mark.parametrize("timestamp,version", [
    ("2024-01-01T00:00:00Z", 0),
    ("2024-01-01T00:59:59.999Z", 0),
    ("2024-01-01T01:00:00Z", 1),
    ("2024-01-01T03:30:00+01:00", 2),
    ("2024-01-01T03:00:00Z", 3),
])
@pytest.mark.parametrize("form", [True, False])
def test_time_travel_by_timestamp(profile, tables, timestamp, version, form):
    frame = delta_sharing.load_as_pandas(url(profile, "py_versions"), timestamp=timestamp, use_delta_format=form)
    assert rows(frame) == expected(tables, "py_versions", f"-v{version}")


def test_in_commit_timestamps_decide_over_file_times(profile, tables):
    log = tables["in_commit_timestamps"] / "_delta_log"
    times = [json.loads((log / f"{version:020}.json").read_text().splitlines()[0])["commitInfo"]["inCommitTimestamp"]
             for version in range(4)]
    from datetime import datetime, timezone
    for version in (1, 2):
        at = datetime.fromtimestamp(times[version] / 1000, timezone.utc).isoformat()
        frame = delta_sharing.load_as_pandas(url(profile, "in_commit_timestamps"), timestamp=at)
        assert rows(frame) == expected(tables, "in_commit_timestamps", f"-v{version}")
        assert delta_sharing.get_table_version(url(profile, "in_commit_timestamps"), at) == version


def test_versions(profile):
    version = lambda name, start=None: delta_sharing.get_table_version(url(profile, name), start)  # noqa: E731
    assert version("py_versions") == 3
    assert version("py_empty") == 0
    assert version("py_versions", "2024-01-01T00:00:00Z") == 0
    assert version("py_versions", "2024-01-01T00:30:00Z") == 1
    assert version("py_versions", "2023-01-01T00:00:00Z") == 0
    assert version("py_versions_from_2") == 3


def test_metadata_and_protocol(profile, tables):
    metadata = delta_sharing.get_table_metadata(url(profile, "py_odd_partitions"))
    assert metadata.partition_columns == ["p", "day"]
    fields = json.loads(metadata.schema_string)["fields"]
    assert [field["name"] for field in fields] == ["id", "p", "day"]
    assert metadata.configuration == {}
    assert delta_sharing.get_table_protocol(url(profile, "py_odd_partitions")).min_reader_version == 1
    feed = delta_sharing.get_table_metadata(url(profile, "change_data_feed"))
    assert feed.configuration == {"enableChangeDataFeed": "true"}


def error_text(call):
    with pytest.raises(Exception) as raised:
        call()
    error = raised.value
    text = str(error)
    if isinstance(error, HTTPError):
        assert 400 <= error.response.status_code < 500
        text += error.response.text
    return text


@pytest.mark.parametrize("arguments,texts", [
    ({"name": "no_stats", "version": 0}, ["Reading table by version or timestamp is not supported", "all.spark.no_stats"]),
    ({"name": "no_stats", "timestamp": "2024-01-01T00:00:00Z"}, ["Reading table by version or timestamp is not supported"]),
    ({"name": "py_versions", "version": 1, "timestamp": "x"}, ["Please only provide one of"]),
    ({"name": "py_versions", "version": 9}, ["Cannot load table version"]),
    ({"name": "py_versions", "timestamp": "randomTimestamp"}, ["Invalid startingTimestamp:", "randomTimestamp"]),
    ({"name": "py_versions", "timestamp": "2000-01-01T00:00:00Z"},
     ["before the earliest available version", "Please use a timestamp greater"]),
    ({"name": "py_versions", "timestamp": "9000-01-01T00:00:00Z"},
     ["is after the latest available version", "Please use a timestamp less"]),
    ({"name": "py_versions_from_2", "version": 1}, ["You can only query table data since version 2."]),
    ({"name": "py_versions_from_2", "timestamp": "2024-01-01T01:00:00Z"},
     ["You can only query table data since version 2.The provided timestamp", "corresponds to 1"]),
    ({"name": "missing"}, ["[Share/Schema/Table] 'all/spark/missing' does not exist"]),
])
@pytest.mark.parametrize("form", [True, False])
def test_error_texts(profile, arguments, texts, form):
    arguments = dict(arguments)
    target = url(profile, arguments.pop("name"))
    text = error_text(lambda: delta_sharing.load_as_pandas(target, use_delta_format=form, **arguments))
    for expected_text in texts:
        assert expected_text in text


def test_error_texts_of_version_and_metadata(profile):
    text = error_text(lambda: delta_sharing.get_table_version(url(profile, "no_stats"), "2024-01-01T00:00:00Z"))
    assert "Reading table by version or timestamp is not supported" in text
    text = error_text(lambda: delta_sharing.get_table_version(url(profile, "py_versions"), "9000-01-01T00:00:00Z"))
    assert "is after the latest available version" in text
    text = error_text(lambda: delta_sharing.get_table_version(url(profile, "py_versions"), "random"))
    assert "Invalid startingTimestamp:" in text and "random" in text


def test_a_recipient_reads_its_own_shares_and_nothing_else(server, tables, tmp_path):
    profile = write_profile(tmp_path / "one.share", server.endpoint, OTHER_TOKEN)
    client = delta_sharing.SharingClient(str(profile))
    assert [share.name for share in client.list_shares()] == ["One Share"]
    frame = delta_sharing.load_as_pandas(f"{profile}#One Share.Small.only")
    assert rows(frame) == expected(tables, "no_stats")
    assert "does not exist" in error_text(lambda: delta_sharing.load_as_pandas(url(profile, "no_stats")))


def test_a_wrong_token_is_refused(server, tmp_path):
    profile = write_profile(tmp_path / "wrong.share", server.endpoint, "dss_unknown")
    with pytest.raises(HTTPError) as raised:
        delta_sharing.SharingClient(str(profile)).list_shares()
    assert raised.value.response.status_code == 401

