"""Requests as other clients send them, byte for byte, and answers as they need them."""

import gzip
import json
import re
import urllib.parse

import pytest

from conftest import EXPIRED_TOKEN, OTHER_TOKEN, TOKEN

TABLE = "/shares/all/schemas/spark/tables/"
DELTA = "responseformat=delta;readerfeatures=deletionvectors,columnmapping,timestampntz"


def query(server, name, body=b"{}", headers=None, **rest):
    return server.request("POST", f"{TABLE}{name}/query", body=body, headers=headers, **rest)


# Paths

@pytest.mark.parametrize("path", ["/shares", "//shares", "/shares/", "///shares//"])
def test_slashes_do_not_count(server, path):
    assert server.request("GET", path).status == 200


def test_the_prefix_may_be_left_out(server):
    assert server.request("GET", "/shares", below_prefix=False).status == 200


@pytest.mark.parametrize("path", [f"/{TABLE}py_versions//query", f"{TABLE}py_versions/query/"])
def test_a_post_is_never_redirected(server, path):
    assert server.request("POST", path, body=b"{}").status == 200


@pytest.mark.parametrize("name", ["with%20space", "with+space", "WITH%20SPACE", "w%69th%20space"])
def test_names_are_decoded_once_and_a_plus_may_be_a_space(server, name):
    assert server.request("GET", f"/shares/one+share/schemas/small/tables/{name}/version").status == 200


@pytest.mark.parametrize("name", ["with%2520space", "..", "%2e%2e", "a%2Fb", "%00", "%FF", "x" * 4096, "%C3%BC"])
def test_names_that_are_nothing_are_not_found(server, name):
    answer = server.request("GET", f"{TABLE}{name}/version")
    assert answer.status == 404
    assert answer.json["errorCode"] == answer.json["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_unknown_paths_and_methods(server):
    assert server.request("GET", "/nothing").json["errorCode"] == "RESOURCE_DOES_NOT_EXIST"
    answer = server.request("DELETE", "/shares")
    assert (answer.status, answer.json["errorCode"]) == (405, "METHOD_NOT_ALLOWED")


# Lists

def test_lists_page_and_end_without_a_token(server):
    first = server.request("GET", "/shares?maxResults=1").json
    assert len(first["items"]) == 1
    second = server.request("GET", f"/shares?maxResults=1&pageToken={first['nextPageToken']}").json
    assert len(second["items"]) == 1 and "nextPageToken" not in second
    alias = server.request("GET", f"/shares?nextPageToken={first['nextPageToken']}").json
    assert alias == second
    assert re.fullmatch(r"[A-Za-z0-9_-]+", first["nextPageToken"])


def test_lists_are_arrays_also_where_they_are_empty(server):
    answer = server.request("GET", "/shares/one%20share/schemas/empty/tables")
    assert answer.json == {"items": []}
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_zero_results_and_bad_numbers(server):
    none = server.request("GET", "/shares?maxResults=0").json
    assert none["items"] == [] and none["nextPageToken"]
    for bad in ("-1", "501", "string"):
        assert server.request("GET", f"/shares?maxResults={bad}").status == 400


def test_a_page_token_is_bound_to_recipient_and_listing(server):
    token = server.request("GET", "/shares?maxResults=1").json["nextPageToken"]
    others = [
        server.request("GET", f"/shares?pageToken={token}", token=OTHER_TOKEN),
        server.request("GET", f"/shares/all/schemas?pageToken={token}"),
        server.request("GET", f"/shares?pageToken={token[:-2]}AA"),
        server.request("GET", "/shares?pageToken=nonsense"),
    ]
    assert [(answer.status, answer.json["message"][:23]) for answer in others] == [(400, "invalid 'nextPageToken'")] * 4


def test_listed_tables_have_ids(server):
    for item in server.request("GET", "/shares/all/all-tables").json["items"]:
        assert set(item) == {"name", "schema", "share", "shareId", "id"}
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", item["id"])


def test_get_share(server):
    share = server.request("GET", "/shares/ONE%20SHARE").json
    assert share["share"]["name"] == "One Share" and share["share"]["id"]
    assert server.request("GET", "/shares/none").json["message"] == "share 'none' not found"
    assert server.request("GET", "/shares/all/schemas/none/tables").json["message"] == "schema 'none' not found"
    assert server.request("GET", "/shares/none/all-tables").status == 404


# Authentication

@pytest.mark.parametrize("header", [f"bearer {TOKEN}", f"BEARER   {TOKEN} ", f"Bearer: {TOKEN}"])
def test_spellings_of_the_header(server, header):
    assert server.request("GET", "/shares", headers={"Authorization": header}, token=None).status == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic abc", "Bearer dss_unknown", f"Bearer {EXPIRED_TOKEN}", "Bearer " + "x" * 60_000])
def test_what_is_not_authenticated(server, header):
    headers = {} if header is None else {"Authorization": header}
    answer = server.request("GET", "/shares", headers=headers, token=None)
    assert answer.status == 401
    assert answer.json["errorCode"] == "UNAUTHENTICATED" and "Bearer" in answer.headers["www-authenticate"]


ROUTES = [
    ("GET", "/shares/{share}"),
    ("GET", "/shares/{share}/schemas"),
    ("GET", "/shares/{share}/all-tables"),
    ("GET", "/shares/{share}/schemas/spark/tables"),
    ("HEAD", "/shares/{share}/schemas/spark/tables/empty"),
    ("GET", "/shares/{share}/schemas/spark/tables/empty/version"),
    ("GET", "/shares/{share}/schemas/spark/tables/empty/metadata"),
    ("POST", "/shares/{share}/schemas/spark/tables/empty/query"),
    ("GET", "/shares/{share}/schemas/spark/tables/empty/changes?startingVersion=0"),
    ("POST", "/shares/{share}/schemas/spark/tables/empty/queries/x"),
    ("POST", "/shares/{share}/schemas/spark/tables/empty/temporary-table-credentials"),
]


@pytest.mark.parametrize("method,path", ROUTES)
def test_a_share_that_is_not_granted_looks_like_one_that_does_not_exist(server, method, path):
    body = b"{}" if method == "POST" else None
    foreign = server.request(method, path.format(share="all"), body=body, token=OTHER_TOKEN)
    missing = server.request(method, path.format(share="xyz"), body=body, token=OTHER_TOKEN)
    assert foreign.status == missing.status == 404
    # The ids of the two requests are as long as each other.
    of_request = lambda answer: answer.headers["x-request-id"].encode()  # noqa: E731
    assert foreign.body.replace(b"all", b"xyz").replace(of_request(foreign), of_request(missing)) == missing.body
    ignored = {"x-request-id", "date"}
    assert {k: v for k, v in foreign.headers.items() if k not in ignored} == \
        {k: v for k, v in missing.headers.items() if k not in ignored}


# Versions and metadata

def test_head_of_a_table_is_its_version(server):
    answer = server.request("HEAD", f"{TABLE}py_versions")
    assert (answer.status, answer.headers["delta-table-version"], answer.body) == (200, "3", b"")
    missing = server.request("HEAD", f"{TABLE}missing")
    assert (missing.status, missing.body) == (404, b"")


@pytest.mark.parametrize("text", ["2024-01-01T01:00:00Z", "2024-01-01T01%3A00%3A00Z", "2024-01-01T02:00:00+01:00", "2024-01-01%2001:00:00"])
def test_starting_timestamps_as_clients_write_them(server, text):
    answer = server.request("GET", f"{TABLE}py_versions/version?startingTimestamp={text}")
    assert (answer.status, answer.headers.get("delta-table-version")) == (200, "1"), answer.body


def test_metadata_is_two_lines(server):
    answer = server.request("GET", f"{TABLE}py_versions/metadata")
    assert answer.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    assert answer.headers["delta-sharing-capabilities"] == "responseformat=parquet"
    protocol, metadata = answer.lines
    assert protocol == {"protocol": {"minReaderVersion": 1}}
    assert set(metadata["metaData"]) >= {"id", "format", "schemaString", "partitionColumns", "configuration"}
    assert "version" not in metadata["metaData"]


def test_metadata_in_delta_format_has_the_size(server):
    answer = server.request("GET", f"{TABLE}deletion_vectors/metadata", headers={"delta-sharing-capabilities": DELTA})
    protocol, metadata = answer.lines
    assert "deletionVectors" in protocol["protocol"]["deltaProtocol"]["readerFeatures"]
    assert metadata["metaData"]["size"] > 0 and metadata["metaData"]["numFiles"] > 0
    plain = server.request("GET", f"{TABLE}py_versions/metadata", headers={"delta-sharing-capabilities": "responseformat=delta"})
    assert "readerFeatures" not in plain.lines[0]["protocol"]["deltaProtocol"]
    assert plain.headers["delta-sharing-capabilities"] == "responseformat=delta"


@pytest.mark.parametrize("header,expected", [
    (None, "parquet"), ("", "parquet"), ("responseformat=parquet", "parquet"), ("ResponseFormat=Delta", "delta"),
    ("responseformat=delta,parquet", "parquet"), (" responseformat = delta , parquet ; x=y; z", "parquet"),
    ("responseformat=iceberg", "parquet"),
])
def test_negotiation_for_a_table_without_reader_features(server, header, expected):
    headers = {} if header is None else {"delta-sharing-capabilities": header}
    for answer in (server.request("GET", f"{TABLE}py_versions/metadata", headers=headers), query(server, "py_versions", headers=headers)):
        assert answer.headers["delta-sharing-capabilities"] == f"responseformat={expected}"
        key = "minReaderVersion" if expected == "parquet" else "deltaProtocol"
        assert key in answer.lines[0]["protocol"]


def test_a_feature_that_was_not_declared_is_refused_by_name(server):
    for headers in ({}, {"delta-sharing-capabilities": "responseformat=delta"},
                    {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=columnmapping"}):
        for answer in (query(server, "deletion_vectors", headers=headers),
                       server.request("GET", f"{TABLE}deletion_vectors/metadata", headers=headers)):
            assert (answer.status, answer.json["errorCode"]) == (400, "UNSUPPORTED_OPERATION")
            assert "Unsupported Delta Table Properties" in answer.json["message"]
            assert "deletionVectors" in answer.json["message"]


@pytest.mark.parametrize("name,feature", [
    ("type_widening", "typewidening"), ("variant", "varianttype"), ("timestamp_ntz", "timestampntz"),
    ("column_mapping_id", "columnmapping"),
])
def test_a_feature_that_was_declared_is_served(server, tables, name, feature):
    headers = {"delta-sharing-capabilities": f"responseformat=parquet,delta;readerfeatures={feature},other"}
    answer = query(server, name, headers=headers)
    assert (answer.status, answer.headers["delta-sharing-capabilities"]) == (200, "responseformat=delta")
    records = sum(json.loads(line["file"]["deltaSingleAction"]["add"]["stats"])["numRecords"] for line in answer.lines[2:])
    assert records == len(json.loads((tables[name] / "expected.json").read_text()))


def test_features_of_the_log_only_concern_nobody_else(server):
    for name in ("v2_checkpoint_json", "v2_checkpoint_parquet", "vacuum_protocol_check"):
        assert query(server, name).headers["delta-sharing-capabilities"] == "responseformat=parquet"


def test_a_file_without_statistics_has_no_field_for_them(server):
    lines = query(server, "no_stats_in_checkpoint").lines[2:]
    assert len(lines) == 2 and all("stats" not in line["file"] for line in lines)


# Queries

def test_a_file_line_in_parquet_format(server, tables):
    answer = query(server, "odd_partitions")
    assert answer.headers["delta-table-version"] == "1"
    files = [line["file"] for line in answer.lines[2:]]
    assert len(files) == len(json.loads((tables["odd_partitions"] / "expected.json").read_text()))
    for file in files:
        assert set(file) == {"url", "id", "partitionValues", "size", "stats", "expirationTimestamp"}
        assert re.fullmatch("[0-9a-f]{32}", file["id"]) and set(file["partitionValues"]) == {"p", "day"}
        assert isinstance(file["stats"], str) and file["size"] > 0
        assert "X-Amz-Signature=" in file["url"]
    assert len({file["id"] for file in files}) == len(files)
    assert answer.body.isascii()


def test_a_file_line_in_delta_format(server):
    answer = query(server, "deletion_vectors", headers={"delta-sharing-capabilities": DELTA})
    vectors = 0
    for line in answer.lines[2:]:
        file = line["file"]
        add = file["deltaSingleAction"]["add"]
        assert re.fullmatch("[0-9a-f]{64}", file["id"])
        assert set(add) >= {"path", "partitionValues", "size", "modificationTime", "dataChange", "stats"}
        if "deletionVector" in add:
            vectors += 1
            vector = add["deletionVector"]
            assert vector["storageType"] == "p" and "X-Amz-Signature=" in vector["pathOrInlineDv"]
            assert {"offset", "sizeInBytes", "cardinality"} <= set(vector)
            assert re.fullmatch("[0-9a-f]{64}", file["deletionVectorFileId"])
    assert vectors


def test_row_ids_are_kept(server):
    add = query(server, "row_tracking", headers={"delta-sharing-capabilities": DELTA}).lines[2]["file"]["deltaSingleAction"]["add"]
    assert isinstance(add["baseRowId"], int) and isinstance(add["defaultRowCommitVersion"], int)


def test_versioned_queries_name_the_version(server):
    answer = query(server, "py_versions", b'{"version": "1"}')
    assert answer.headers["delta-table-version"] == "1"
    assert "version" not in answer.lines[1]["metaData"]
    for line in answer.lines[2:]:
        assert line["file"]["version"] == 1 and "timestamp" not in line["file"]


@pytest.mark.parametrize("header,length", [("parquet", 32), ("DELTA ", 64)])
def test_file_id_hashes(server, header, length):
    answer = query(server, "py_versions", headers={"fileidhash": header})
    assert answer.headers["fileidhash"] == header.strip().lower()
    assert all(len(line["file"]["id"]) == length for line in answer.lines[2:])
    assert query(server, "py_versions", headers={"fileidhash": "md5"}).status == 400


def test_ids_are_the_same_in_every_answer(server):
    ids = [[line["file"]["id"] for line in query(server, "py_many_files").lines[2:]] for _ in range(3)]
    assert sorted(ids[0]) == sorted(ids[1]) == sorted(ids[2]) and len(set(ids[0])) == 150


@pytest.mark.parametrize("body", [
    b"", b"null", b"{}", b'{"params":{"a":1}}', b'{"predicateHints":[""],"limitHint":0}', b'{"limitHint":"1000"}',
    b'{"limitHint":-5}', b'{"predicateHints":["garbage ((("]}', b'{"jsonPredicateHints":"{"}', b'{"jsonPredicateHints":{"op":"x"}}',
    b'{"version":null,"timestamp":null,"predicateHints":null}', b'{"responseFormat":"delta","queryId":"x"}', b'{"idempotency_key":"k"}',
])
def test_lenient_bodies_get_every_file(server, body):
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json; charset=UTF-8"}):
        answer = query(server, "py_many_files", body, headers=headers)
        assert (answer.status, len(answer.lines)) == (200, 152)


@pytest.mark.parametrize("body", [
    b"{", b"[]", b"7", b'"x"', b"\xff\xfe", b'{"a":"\xff"}', b'{"version":1e400}', b'{"version":9223372036854775808}',
    b'{"version":-1}', b'{"version":1.5}', b'{"maxFiles":0}', b'{"predicateHints":"x"}', b'{"timestamp":7}',
    b'{"predicateHints":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"startingVersion":99}', b'{"maxFiles":"x"}', b'{"pageToken":"x"}', b'{"refreshToken":"x"}',
])
def test_bad_bodies_get_a_clear_400(server, body):
    answer = query(server, "py_versions", body)
    assert answer.status == 400 and answer.json["message"] and answer.json["errorCode"]


def test_a_body_of_a_mebibyte_is_the_largest(server):
    largest = b'{"predicateHints":["' + b"x" * (2**20 - 23) + b'"]}'
    assert len(largest) == 2**20 and query(server, "py_versions", largest).status == 200
    for body in (largest + b" ", b" " * (10 * 2**20 + 1)):
        answer = query(server, "py_versions", body)
        assert (answer.status, answer.json["errorCode"]) == (413, "REQUEST_TOO_LARGE")


def test_the_end_of_the_stream_only_where_it_was_asked_for(server):
    plain = query(server, "py_versions")
    assert all("file" in line for line in plain.lines[2:])
    asked = query(server, "py_versions", headers={"delta-sharing-capabilities": "includeEndStreamAction=true"})
    assert asked.headers["delta-sharing-capabilities"] == "responseformat=parquet;includeendstreamaction=true"
    assert asked.lines[-1]["endStreamAction"]["minUrlExpirationTimestamp"] == asked.lines[2]["file"]["expirationTimestamp"]
    spark = query(server, "py_versions", b'{"predicateHints":[],"includeRefreshToken":true}')
    assert "endStreamAction" in spark.lines[-1]
    metadata = server.request("GET", f"{TABLE}py_versions/metadata", headers={"delta-sharing-capabilities": "includeEndStreamAction=true"})
    assert len(metadata.lines) == 2


def test_gzip_only_where_it_is_accepted(server):
    plain = query(server, "py_many_files")
    assert "content-encoding" not in plain.headers
    packed = query(server, "py_many_files", headers={"Accept-Encoding": "gzip, deflate"})
    assert packed.headers["content-encoding"] == "gzip"
    ids = lambda body: sorted(json.loads(line)["file"]["id"] for line in body.splitlines()[2:])  # noqa: E731
    assert ids(gzip.decompress(packed.body)) == ids(plain.body)


# Files

def file_url(server, name="py_odd_partitions", index=0):
    url = query(server, name).lines[2 + index]["file"]["url"]
    parts = urllib.parse.urlsplit(url)
    assert (parts.hostname, parts.port) == ("127.0.0.1", server.port)
    return parts.path, parts.query


def fetch(server, path, query_string, method="GET", headers=None):
    return server.request(method, f"{path}?{query_string}", headers=headers, token=None, below_prefix=False)


def test_every_file_of_an_odd_table_can_be_fetched(server):
    for line in query(server, "py_odd_partitions").lines[2:]:
        parts = urllib.parse.urlsplit(line["file"]["url"])
        whole = fetch(server, parts.path, parts.query)
        assert whole.status == 200 and len(whole.body) == line["file"]["size"]
        decoded = fetch(server, parts.path.replace("%3D", "="), parts.query)
        assert decoded.body == whole.body


def test_ranges(server):
    path, rest = file_url(server)
    whole = fetch(server, path, rest).body
    part = fetch(server, path, rest, headers={"Range": "bytes=4-9"})
    assert (part.status, part.body) == (206, whole[4:10])
    assert part.headers["content-range"] == f"bytes 4-9/{len(whole)}"
    assert fetch(server, path, rest, headers={"Range": "bytes=-4"}).body == b"PAR1"
    assert fetch(server, path, rest, headers={"Range": f"bytes={len(whole)}-"}).status == 416


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "POST"])
def test_a_url_to_get_is_only_that(server, method):
    path, rest = file_url(server)
    assert fetch(server, path, rest, method=method).status in (403, 405)


def test_a_changed_url_is_refused(server):
    path, rest = file_url(server)
    other, _ = file_url(server, index=1)
    parameters = urllib.parse.parse_qs(rest)
    signature = parameters["X-Amz-Signature"][0]
    flipped = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    tries = [
        (path, rest.replace(signature, flipped)),
        (path, rest.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200")),
        (path, ""),
        (path, "&".join(part for part in rest.split("&") if not part.startswith("X-Amz-Signature"))),
        (other, rest),
        (path.rsplit("/", 1)[0] + "/", rest),
        (path.rsplit("/", 2)[0] + "/../_delta_log/00000000000000000000.json", rest),
        ("/".join(path.split("/")[:3]) + "/_delta_log/00000000000000000000.json", rest),
        ("/".join(path.split("/")[:2]), rest),
    ]
    for changed in tries:
        answer = fetch(server, *changed)
        assert answer.status in (400, 403, 404), changed
        assert b"PAR1" not in answer.body and b"commitInfo" not in answer.body
