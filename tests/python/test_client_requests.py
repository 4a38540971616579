"""What clients ask that cannot be installed from a package registry, and their answers read as each of them reads.

C++ (magpierre/cpp_delta_sharing_client), the Java connector (databrickslabs, over the REST client of Spark 0.4), DuckDB
(`duckdb_delta_sharing`), Clojure (`delta-sharing-client-clj`), Ruby (`delta_sharing`) and Power BI. What every client
needs is in `test_contract.py`.
"""

import base64
import gzip
import json
import re
import urllib.parse

import pytest

from conftest import TOKEN

TABLE = "/shares/all/schemas/spark/tables/"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
# A table with a feature that most of these do not declare, and its name.
REFUSED = ("deletion_vectors", "deletionVectors")


def ask(server, method, path, headers, body=None):
    """A request with these headers and no others but those of any request."""
    body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return server.request(method, path, body=body, headers=headers, token=None)


def expected(tables, name):
    return json.loads((tables[name] / "expected.json").read_text())


def records(files):
    return sum(json.loads(file["stats"])["numRecords"] for file in files)


def check_rows(sent, rows, body, matches=lambda row: True):
    """Without hints every row is sent; with them at least those that the client reads."""
    wanted = sum(map(matches, rows))
    assert min(body.get("limitHint", wanted), wanted) <= sent <= len(rows)
    if not any(body.get(hint) for hint in ("limitHint", "predicateHints", "jsonPredicateHints")):
        assert sent == len(rows)


def download(server, url, headers=None):
    parts = urllib.parse.urlsplit(url)
    return server.request("GET", f"{parts.path}?{parts.query}", headers=headers, token=None, below_prefix=False)


# C++: the endpoint with a slash and the path with another. Listings and metadata without a token, unless the
# endpoint's user part has it, as http://me:TOKEN@host/delta-sharing/; the query with a colon after Bearer.

CPP = {"User-Agent": "delta-sharing-CPP/0.0.1", "Accept": "*/*"}
CPP_BASIC = {**CPP, "Authorization": "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()}
CPP_QUERY = {**CPP, "Content-Type": "application/json; charset=UTF-8", "Authorization": f"Bearer: {TOKEN}"}

# Basic authentication: expected of the server, and to be counted as soon as it has it.


def getline(body):
    """As std::getline: a last line needs no end, a line may be empty."""
    text = body.decode()
    return text.removesuffix("\n").split("\n") if text else []


@pytest.mark.parametrize("path,keys", [
    ("//shares", {"name"}),
    ("//shares/all/schemas", {"name", "share"}),
    ("//shares/all/schemas/spark/tables", {"name", "share", "schema"}),
    ("//shares/all/all-tables", {"name", "share", "schema"}),
])
def test_cpp_lists_with_the_token_of_the_endpoint(server, path, keys):
    answer = ask(server, "GET", path, CPP_BASIC)
    assert answer.status == 200, answer.body
    assert answer.json["items"] and all(keys <= set(item) for item in answer.json["items"])


def test_cpp_metadata(server):
    answer = ask(server, "GET", f"/{TABLE}no_stats/metadata", CPP_BASIC)
    assert answer.status == 200, answer.body
    lines = getline(answer.body)
    assert len(lines) == 2
    metadata = json.loads(lines[1])["metaData"]
    assert metadata["format"]["provider"] == "parquet" and metadata["id"] and metadata["partitionColumns"] == []
    assert json.loads(metadata["schemaString"])["fields"]


@pytest.mark.parametrize("path", ["//shares", f"/{TABLE}no_stats/metadata"])
def test_cpp_is_told_who_it_is_not_without_a_token(server, path):
    answer = ask(server, "GET", path, CPP)
    assert answer.status == 401 and answer.json["errorCode"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("limit", [0, 1, -1, 21845, -2147483648, 2147483647])
@pytest.mark.parametrize("name", ["clustered", "schema_evolution", "empty"])
def test_cpp_query_with_a_limit_that_nobody_set(server, tables, name, limit):
    answer = ask(server, "POST", f"/{TABLE}{name}/query", CPP_QUERY, {"limitHint": limit, "predicateHints": []})
    assert answer.status == 200, answer.body
    files = [json.loads(line)["file"] for line in getline(answer.body)[2:]]
    for file in files:
        # Numbers in these two, and null for the statistics, end the program.
        assert not {"version", "timestamp"} & set(file) and isinstance(file["stats"], str)
        assert isinstance(file["partitionValues"], dict) and file["size"] > 0 and file["id"]
    assert records(files) == len(expected(tables, name))


def test_cpp_urls_have_two_segments_before_the_name(server):
    answer = ask(server, "POST", f"/{TABLE}clustered/query", CPP_QUERY, {"limitHint": 0, "predicateHints": []})
    for line in getline(answer.body)[2:]:
        url = json.loads(line)["file"]["url"]
        host, *directories, name = url.split("?")[0].removeprefix("http://").split("/")
        assert len(directories) == 2 and name.endswith(".parquet"), url
        assert download(server, url, CPP).body.startswith(b"PAR1")


def test_cpp_metadata_of_a_table_that_is_refused(server):
    name, feature = REFUSED
    answer = ask(server, "POST", f"/{TABLE}{name}/query", CPP_QUERY, {"limitHint": 0, "predicateHints": []})
    assert answer.status == 400 and feature in answer.json["message"]


# Java: the version by HEAD, then metadata and query. No capabilities, so the format is parquet.

JAVA = {**BEARER, "User-Agent": "Delta-Sharing-Java/0.1.0 java/11.0.2", "Accept-Encoding": "gzip,deflate",
        "Connection": "Keep-Alive"}


def java_lines(answer):
    """As its REST client: 200 and nothing else, the version in a header, lines between ends of any kind."""
    assert answer.status == 200, answer.body
    assert answer.headers["delta-table-version"].isdigit()
    body = gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body
    lines = re.split("[\n\r]+", body.decode())
    while lines and not lines[-1]:
        lines.pop()
    return [json.loads(line) for line in lines]


def test_java_lists(server, tables):
    shares = ask(server, "GET", "/shares", JAVA)
    assert [item["name"] for item in shares.json["items"]] == ["all", "One Share"]
    assert "nextPageToken" not in shares.json, "it asks on for ever where there is an empty one"
    found = []
    for share in shares.json["items"]:
        listed = ask(server, "GET", f"/shares/{urllib.parse.quote_plus(share['name'])}/all-tables", JAVA).json
        assert "nextPageToken" not in listed
        found += [item["name"] for item in listed["items"]]
    assert set(found) == set(tables) | {"only", "with space"}


def test_java_version_and_metadata(server):
    version = ask(server, "HEAD", f"{TABLE}schema_evolution", JAVA)
    assert (version.status, version.body) == (200, b"") and int(version.headers["delta-table-version"]) == 3
    lines = java_lines(ask(server, "GET", f"{TABLE}schema_evolution/metadata", JAVA))
    assert len(lines) == 2, "more is an error to it"
    assert lines[0]["protocol"]["minReaderVersion"] == 1
    assert [field["name"] for field in json.loads(lines[1]["metaData"]["schemaString"])["fields"]] == ["id", "extra"]


@pytest.mark.parametrize("name", ["odd_partitions", "schema_evolution", "empty"])
@pytest.mark.parametrize("body", [{"predicateHints": []}, {"predicateHints": ["id > 3"], "limitHint": 2}])
def test_java_query(server, tables, name, body):
    lines = java_lines(ask(server, "POST", f"{TABLE}{name}/query", {**JAVA, "Content-Type": "application/json"}, body))
    assert lines[0]["protocol"] and lines[1]["metaData"]
    files = [line["file"] for line in lines[2:]]
    check_rows(records(files), expected(tables, name), body, lambda row: row.get("id", 4) > 3)
    for file in files:
        # The id is the name of a file; java.net.URI takes only what RFC 2396 allows.
        assert re.fullmatch("[0-9a-f]+", file["id"])
        assert re.fullmatch(r"http://[A-Za-z0-9.:]+/[A-Za-z0-9\-_.!~*'():@&=+$,/%]*\?[A-Za-z0-9\-_.!~*'():@&=+$,/?%]*", file["url"])
        data = download(server, file["url"], {"User-Agent": "Java/11.0.2", "Accept": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"})
        assert data.status == 200 and len(data.body) == file["size"]


def test_java_refusals(server):
    name, feature = REFUSED
    missing = ask(server, "HEAD", f"{TABLE}missing", JAVA)
    assert (missing.status, missing.body) == (404, b"")
    refused = ask(server, "POST", f"{TABLE}{name}/query", {**JAVA, "Content-Type": "application/json"}, {"predicateHints": []})
    assert refused.status == 400 and feature in refused.body.decode(), "the body is in the text of its exception"


# DuckDB: delta format alone; it says that it is Spark.

DUCKDB = {
    **BEARER, "Content-Type": "application/json", "User-Agent": "delta-sharing-spark/3.1.0",
    "Accept": "application/x-ndjson,application/json",
    "delta-sharing-capabilities":
        "responseformat=delta;readerfeatures=deletionvectors,columnmapping,timestampntz,varianttype-preview,varianttype",
}


def duckdb_lines(answer):
    assert answer.status == 200, answer.body
    assert "link" not in answer.headers, "it would ask for that page"
    lines = [json.loads(line) for line in answer.body.decode().split("\n") if line]
    assert isinstance(lines[0]["protocol"]["deltaProtocol"]["minReaderVersion"], int)
    metadata = lines[1]["metaData"]["deltaMetadata"]
    assert metadata["format"]["provider"] and isinstance(metadata["schemaString"], str) and metadata["id"]
    assert isinstance(metadata.get("name", ""), str) and isinstance(metadata.get("description", ""), str), "null is an error"
    assert "url" in metadata.get("accessModes", ["url"])
    return lines


def duckdb_file(file):
    assert isinstance(file["id"], str)
    (kind, action), = file["deltaSingleAction"].items()
    assert action["path"].startswith("http://") and isinstance(action["size"], int)
    if vector := action.get("deletionVector"):
        assert vector["storageType"] == "p" and vector["pathOrInlineDv"].startswith("http://")
        assert all(isinstance(vector[name], int) for name in ("offset", "sizeInBytes", "cardinality"))
    return kind, action


def test_duckdb_lists_in_pages(server):
    names, token = [], ""
    while True:
        listed = ask(server, "GET", f"/shares/all/all-tables?maxResults=7{'&pageToken=' + token if token else ''}", DUCKDB).json
        names += [item["name"] for item in listed["items"]]
        if not listed.get("nextPageToken"):
            break
        token = listed["nextPageToken"]
    whole = ask(server, "GET", "/shares/all/all-tables", DUCKDB).json["items"]
    assert names == [item["name"] for item in whole]


def test_duckdb_version_and_metadata(server):
    assert ask(server, "HEAD", f"{TABLE}deletion_vectors", DUCKDB).headers["delta-table-version"] == "3"
    assert len(duckdb_lines(ask(server, "GET", f"{TABLE}deletion_vectors/metadata", DUCKDB))) == 2


@pytest.mark.parametrize("name", ["deletion_vectors", "column_mapping_name", "odd_partitions", "variant", "timestamp_ntz", "empty"])
@pytest.mark.parametrize("body", [
    {"predicateHints": [], "responseFormat": "delta"},
    {"jsonPredicateHints": '{"children":[{"name":"id","op":"column","valueType":"long"},{"op":"literal","value":"3","valueType":"long"}],"op":"equal"}',
     "limitHint": 5, "predicateHints": ["string"], "responseFormat": "delta"},
])
def test_duckdb_query(server, tables, name, body):
    lines = duckdb_lines(ask(server, "POST", f"{TABLE}{name}/query", DUCKDB, body))
    actions = [duckdb_file(line["file"]) for line in lines[2:]]
    assert all(kind == "add" for kind, _ in actions)
    deleted = sum(action.get("deletionVector", {}).get("cardinality", 0) for _, action in actions)
    check_rows(records(action for _, action in actions) - deleted, expected(tables, name), body, lambda row: row.get("id", 3) == 3)


def test_duckdb_changes(server):
    answer = ask(server, "GET", f"{TABLE}change_data_feed/changes?startingVersion=0", DUCKDB)
    files = [line["file"] for line in duckdb_lines(answer)[2:]]
    assert files and all(isinstance(file["version"], int) and isinstance(file["timestamp"], int) for file in files)
    assert {duckdb_file(file)[0] for file in files} == {"add", "cdc"}


def test_duckdb_is_refused_what_it_did_not_declare(server):
    answer = ask(server, "POST", f"{TABLE}type_widening/query", DUCKDB, {"predicateHints": [], "responseFormat": "delta"})
    assert answer.status == 400 and "typeWidening" in answer.json["message"]


# Clojure: capabilities in the case of Delta's own names, by what the caller says the table needs.

CLOJURE = {"authorization": f"Bearer {TOKEN}", "User-Agent": "http-kit/2.0", "Accept-Encoding": "gzip, deflate"}
CLOJURE_CAPABILITIES = {
    1: "responseformat=parquet",
    2: "responseformat=parquet,delta;readerfeatures=columnMapping",
    3: "responseformat=delta;readerfeatures=columnMapping,deletionVectors,timestampNtz,v2Checkpoint,vacuumProtocolCheck",
}


def clojure_text(answer):
    """As http-kit: a body is text where its type says so; else the client takes it for nothing."""
    assert answer.status == 200, answer.body
    assert re.search("text|json|xml", answer.headers["content-type"])
    return (gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body).decode()


def clojure_lines(answer):
    lines = clojure_text(answer).split("\n")
    while lines and not lines[-1]:
        lines.pop()
    protocol, metadata, *files = map(json.loads, lines)
    assert set(protocol) == {"protocol"} and set(metadata) == {"metaData"}
    for line in files:
        assert len(line) == 1 and set(line) <= {"file", "add", "remove", "cdf", "metaData"}
    assert answer.headers["delta-table-version"].isdigit()
    return protocol["protocol"], metadata["metaData"], files


def test_clojure_lists(server):
    for path in ("/shares", "/shares/all/schemas", "/shares/all/schemas/spark/tables", "/shares/all/all-tables?maxResults=3"):
        assert json.loads(clojure_text(ask(server, "GET", path, CLOJURE)))["items"]
    assert json.loads(clojure_text(ask(server, "GET", "/shares/all", CLOJURE)))["share"]["name"] == "all"


def test_clojure_version(server):
    answer = ask(server, "GET", f"{TABLE}py_versions/version?startingTimestamp=2024-01-01T01%3A00%3A00Z", CLOJURE)
    assert (answer.status, answer.headers["delta-table-version"]) == (200, "1")


@pytest.mark.parametrize("name,reader,form", [
    ("odd_partitions", 1, "parquet"), ("odd_partitions", 2, "parquet"), ("odd_partitions", 3, "delta"),
    ("column_mapping_name", 2, "delta"), ("deletion_vectors", 3, "delta"), ("v2_checkpoint_json", 1, "parquet"),
    ("timestamp_ntz", 3, "delta"), ("empty", 1, "parquet"),
])
def test_clojure_query(server, tables, name, reader, form):
    headers = {**CLOJURE, "delta-sharing-capabilities": CLOJURE_CAPABILITIES[reader]}
    metadata = ask(server, "GET", f"{TABLE}{name}/metadata", headers)
    body = {"limitHint": 10}
    queried = ask(server, "POST", f"{TABLE}{name}/query", {**headers, "Content-Type": "application/json; charset=utf-8"}, body)
    heads = [clojure_lines(answer)[:2] for answer in (metadata, queried)]
    assert heads[0] == heads[1]
    protocol, described, files = clojure_lines(queried)
    assert ("deltaProtocol" in protocol, "deltaMetadata" in described) == ((form == "delta",) * 2)
    actions = [line["file"] for line in files]
    if form == "delta":
        assert all(len(action["deltaSingleAction"]) == 1 for action in actions)
        actions = [action["deltaSingleAction"]["add"] for action in actions]
    deleted = sum(action.get("deletionVector", {}).get("cardinality", 0) for action in actions)
    check_rows(records(actions) - deleted, expected(tables, name), body)


def test_clojure_changes(server):
    headers = {**CLOJURE, "delta-sharing-capabilities": CLOJURE_CAPABILITIES[1]}
    path = f"{TABLE}change_data_feed/changes?startingVersion=0&endingVersion=3&includeHistoricalMetadata=true"
    _, _, actions = clojure_lines(ask(server, "GET", path, headers))
    assert {key for line in actions for key in line} >= {"add", "cdf"}


@pytest.mark.parametrize("reader,name,feature", [
    (1, "column_mapping_name", "columnMapping"), (2, "deletion_vectors", "deletionVectors"), (3, "type_widening", "typeWidening"),
])
def test_clojure_refusals(server, reader, name, feature):
    headers = {**CLOJURE, "delta-sharing-capabilities": CLOJURE_CAPABILITIES[reader], "Content-Type": "application/json; charset=utf-8"}
    answer = ask(server, "POST", f"{TABLE}{name}/query", headers, {})
    assert answer.status == 400 and answer.headers["content-type"].startswith("application/json")
    assert answer.json["error_code"] == answer.json["errorCode"] == "UNSUPPORTED_OPERATION"
    assert feature in answer.json["message"]


# Ruby: the endpoint with a slash and the path with another, parquet format, pages by `nextPageToken`.

RUBY = {**BEARER, "Content-Type": "application/json", "delta-sharing-capabilities": "responseformat=parquet",
        "Accept-Encoding": "gzip;q=1.0,deflate;q=0.6,identity;q=0.3", "Accept": "*/*", "User-Agent": "Ruby"}


def ruby_body(answer):
    assert 200 <= answer.status < 300, answer.body
    return (gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body).decode()


def test_ruby_lists(server):
    for path in ("//shares", "//shares/all/schemas", "//shares/all/schemas/spark/tables", "//shares/all/all-tables"):
        listed = json.loads(ruby_body(ask(server, "GET", path, RUBY)))
        assert listed["items"] and "nextPageToken" not in listed
    assert ask(server, "GET", f"/{TABLE}py_versions/version", RUBY).headers["delta-table-version"] == "3"


def test_ruby_metadata(server):
    lines = [line for line in ruby_body(ask(server, "GET", f"/{TABLE}odd_partitions/metadata", RUBY)).split("\n") if line]
    assert json.loads(json.loads(lines[1])["metaData"]["schemaString"])["type"] == "struct"


@pytest.mark.parametrize("name", ["odd_partitions", "schema_evolution"])
@pytest.mark.parametrize("body", [{}, {"predicateHints": ["id > 1"], "jsonPredicateHints": '{"op":"isNull"}', "limitHint": 1}])
def test_ruby_query(server, tables, name, body):
    lines = [json.loads(line) for line in ruby_body(ask(server, "POST", f"/{TABLE}{name}/query", RUBY, body)).split("\n") if line]
    files = [line["file"] for line in lines if "file" in line]
    assert [set(line) for line in lines[:2]] == [{"protocol"}, {"metaData"}]
    check_rows(records(files), expected(tables, name), body, lambda row: row.get("id", 2) > 1)
    names = [field["name"] for field in json.loads(lines[1]["metaData"]["schemaString"])["fields"]]
    for file in files:
        assert set(file["partitionValues"]) <= set(names)
        assert download(server, file["url"]).body.startswith(b"PAR1")


def test_ruby_changes(server):
    body = ruby_body(ask(server, "GET", f"/{TABLE}change_data_feed/changes?startingVersion=0&endingVersion=2", RUBY))
    assert len([json.loads(line) for line in body.split("\n") if line]) > 2


def test_ruby_refusals(server):
    name, feature = REFUSED
    answer = ask(server, "POST", f"/{TABLE}{name}/query", RUBY, {})
    assert answer.status == 400 and feature in answer.body.decode(), "the body is in the text of its exception"
    assert ask(server, "GET", "//shares", {**RUBY, "Authorization": "Bearer dss_unknown"}).status == 401
    assert ask(server, "GET", f"/{TABLE}missing/version", RUBY).status == 404


# Power BI: lists, then version, metadata and rows in parquet format with a limit that is a million where none is set.

POWER_BI = {**BEARER, "User-Agent": "Microsoft.Data.Mashup (https://go.microsoft.com/fwlink/?LinkID=304225)",
            "Accept-Encoding": "gzip, deflate"}


def dotnet(url):
    """What System.Uri makes of a URL: an escaped equals sign and characters that need no escape are written plainly."""
    for character in "=~-._":
        url = url.replace(f"%{ord(character):02X}", character)
    return url


def power_bi_lines(answer):
    """A row for each line; an empty one is a row of nulls."""
    assert answer.status == 200, answer.body
    body = gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body
    lines = body.decode().removesuffix("\n").split("\n")
    assert all(lines) and "\r" not in body.decode()
    return [json.loads(line) for line in lines]


def test_power_bi_navigates(server, tables):
    shares = ask(server, "GET", "/shares", POWER_BI).json["items"]
    assert [share["name"] for share in shares] == ["all", "One Share"]
    schemas = ask(server, "GET", "/shares/One%20Share/schemas", POWER_BI).json["items"]
    assert {(schema["name"], schema["share"]) for schema in schemas} == {("empty", "One Share"), ("Small", "One Share")}
    listed = ask(server, "GET", "/shares/all/schemas/spark/tables", POWER_BI).json["items"]
    assert {table["name"] for table in listed} == set(tables)
    assert all((table["share"], table["schema"]) == ("all", "spark") for table in listed)


@pytest.mark.parametrize("method,path", [("HEAD", ""), ("GET", "/version")])
def test_power_bi_version(server, method, path):
    answer = ask(server, method, f"{TABLE}py_versions{path}", POWER_BI)
    assert (answer.status, answer.headers["delta-table-version"], answer.body) == (200, "3", b"")


@pytest.mark.parametrize("name", ["odd_partitions", "py_odd_partitions", "schema_evolution", "empty", "all_types"])
@pytest.mark.parametrize("body", [{"limitHint": 1000000}, {"predicateHints": [], "limitHint": 1000000}, {}])
def test_power_bi_rows(server, tables, name, body):
    assert len(power_bi_lines(ask(server, "GET", f"{TABLE}{name}/metadata", POWER_BI))) == 2
    headers = {**POWER_BI, "Content-Type": "application/json; charset=utf-8"}
    lines = power_bi_lines(ask(server, "POST", f"{TABLE}{name}/query", headers, body))
    files = [line["file"] for line in lines[2:]]
    assert lines[0]["protocol"]["minReaderVersion"] == 1
    assert records(files) == len(expected(tables, name))
    for file in files:
        data = download(server, dotnet(file["url"]), {"User-Agent": POWER_BI["User-Agent"]})
        assert data.status == 200 and len(data.body) == file["size"], dotnet(file["url"])


def test_urls_are_rewritten_where_there_is_something_to_rewrite(server):
    files = power_bi_lines(ask(server, "POST", f"{TABLE}py_odd_partitions/query", POWER_BI, {}))[2:]
    assert any("%3D" in urllib.parse.urlsplit(line["file"]["url"]).path for line in files)


def test_power_bi_refusals(server):
    name, feature = REFUSED
    answer = ask(server, "POST", f"{TABLE}{name}/query", {**POWER_BI, "Content-Type": "application/json"}, {"limitHint": 1000})
    assert answer.status == 400 and feature in answer.json["message"]
    assert ask(server, "GET", "/shares", {**POWER_BI, "Authorization": "Bearer dss_unknown"}).status == 401
