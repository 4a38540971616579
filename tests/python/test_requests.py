"""How requests are read: names in paths, numbers, the order of checks, credentials, and the share file's own rules."""

import base64
import http.client
import json
import subprocess
import urllib.parse

import delta_sharing
import pytest

from conftest import BINARY, SPARK_TABLES, TOKEN, Server, hash_of

LOCATION = str(SPARK_TABLES / "empty")
MISSING = "/shares/s/schemas/d/tables/missing"
OPEN = "/shares/s/schemas/d/tables/shared"
CLOSED = "/shares/s/schemas/d/tables/closed"


def table(name, location=LOCATION, **more):
    return {"name": name, "location": location, **more}


def share(name, *tables, schema="d"):
    return {"name": name, "schemas": [{"name": schema, "tables": list(tables)}]}


def write(path, *shares, recipients=True, **more):
    """A share file; with `recipients`, one that is granted everything."""
    content = {"version": 1, "shares": list(shares), **more}
    if recipients:
        tokens = [{"sha256": hash_of(TOKEN), "expires": "never"}]
        content["recipients"] = [{"name": "r", "shares": [share["name"] for share in shares], "tokens": tokens}]
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def running():
    servers = []

    def start(*arguments):
        servers.append(Server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Names that look like others once they are decoded twice, and tables with and without their history."""
    path = tmp_path_factory.mktemp("requests") / "shares.yaml"
    odd = [share(name, table(f"in {index}")) for index, name in enumerate(ODD_NAMES)]
    tables = [table("with space"), table("a+b"), table("shared", historyShared=True), table("closed")]
    server = Server("--shares", write(path, share("s", *tables), *odd))
    yield server
    assert server.stop() == 0
    log = "".join(server.log)
    assert "panicked" not in log and TOKEN not in log
    assert base64.b64encode(f"me:{TOKEN}".encode()).decode() not in log


# Names in paths

ODD_NAMES = ["100%25", "100%", "%2F", "%2f%2F", "a%2Bb", "größe 日本", "gr%C3%B6%C3%9Fe", "..", "%2e%2e", "x+y", "x y", "?#&=;"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_name_is_reached_by_its_own_escape(server, name):
    index = ODD_NAMES.index(name)
    escaped = urllib.parse.quote(name, safe="")
    assert server.request("GET", f"/shares/{escaped}").json["share"]["name"] == name
    schemas = server.request("GET", f"/shares/{escaped}/schemas").json["items"]
    assert schemas == [{"name": "d", "share": name}]
    for path in ("schemas/d/tables", "all-tables"):
        items = server.request("GET", f"/shares/{escaped}/{path}").json["items"]
        assert [(item["share"], item["name"]) for item in items] == [(name, f"in {index}")]
    assert server.request("GET", f"/shares/{escaped}/schemas/d/tables/in%20{index}/version").status == 200
    every = "".join(f"%{byte:02x}" for byte in name.encode())
    assert server.request("GET", f"/shares/{every}").json["share"]["name"] == name


@pytest.mark.parametrize("name", ["with%2520space", "with%252Bspace", "with%2Bspace", "a%252Bb", "a%20b", "%FF", "%C3", "with%2Fspace"])
def test_nothing_is_decoded_twice(server, name):
    answer = server.request("GET", f"/shares/s/schemas/d/tables/{name}/version")
    assert (answer.status, answer.json["errorCode"]) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("name", ["with%20space", "with+space", "WITH+SPACE", "a+b", "a%2Bb", "a%2bb"])
def test_a_plus_is_a_plus_or_a_space(server, name):
    assert server.request("GET", f"/shares/s/schemas/d/tables/{name}/version").status == 200


def test_a_literal_plus_comes_first(server):
    assert server.request("GET", "/shares/x+y").json["share"]["name"] == "x+y"
    assert server.request("GET", "/shares/x%20y").json["share"]["name"] == "x y"
    assert server.request("GET", "/shares/X%2By").json["share"]["name"] == "x+y"


def test_the_action_in_the_log_agrees_with_the_route(server):
    assert server.request("GET", "/shares/a%2Fschemas/all-tables").status == 404
    assert 'action="ListAllTables"' in server.wait_for_log("share 'a/schemas' not found")


def test_the_id_of_a_query_may_be_escaped(server):
    asked = {"delta-sharing-capabilities": "asyncquery=true"}
    pending = server.request("POST", f"{OPEN}/query", body=b'{"idempotencyKey":"k"}', headers=asked)
    query = pending.lines[0]["queryStatus"]["queryId"]
    every = "".join(f"%{ord(character):02X}" for character in query)
    assert server.request("POST", f"{OPEN}/queries/{every}", body=b"{}").status == 200
    assert server.request("POST", f"{OPEN}/queries/{every.replace('%', '%25')}", body=b"{}").status == 404


def test_a_prefix_may_be_escaped(running, tmp_path):
    server = running("--shares", write(tmp_path / "shares.yaml", share("shares")), "--prefix", "/a b/ü")
    for prefix in ("/a%20b/%C3%BC", "//%61%20b//%c3%bc", ""):
        answer = server.request("GET", f"{prefix}/shares/shares/schemas", below_prefix=False)
        assert (answer.status, len(answer.json["items"])) == (200, 1), prefix


# Numbers

BAD_NUMBERS = ["x3", "1e3", "%201", "1.0", "0x1", "1_000", "--1", "9223372036854775808", "-9223372036854775809", "%D9%A1"]
NOT_A_NUMBER = "expected a number but the string didn't have the appropriate format"


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize("path,message", [
    ("/shares?maxResults={}", f"maxResults: {NOT_A_NUMBER}"),
    (f"{OPEN}/metadata?version={{}}", f"version: {NOT_A_NUMBER}"),
    (f"{OPEN}/changes?startingVersion=0&maxFiles={{}}", f"maxFiles: {NOT_A_NUMBER}"),
    (f"{OPEN}/changes?startingVersion={{}}", "startingVersion is not a valid number."),
    (f"{OPEN}/changes?startingVersion=0&endingVersion={{}}", "endingVersion is not a valid number."),
])
def test_what_is_no_number_is_named(server, path, message, number):
    answer = server.request("GET", path.format(number))
    assert (answer.status, answer.json["errorCode"]) == (400, "INVALID_PARAMETER_VALUE")
    assert answer.json["message"].startswith(message)
    assert answer.json["message"].endswith(f"Not a numeric value: {urllib.parse.unquote(number)}")


@pytest.mark.parametrize("number", ["x3", "1e3", " 1", "1.0", "0x1", "9223372036854775808", 1.5, True, [1], 9223372036854775808])
@pytest.mark.parametrize("field", ["version", "startingVersion", "endingVersion", "maxFiles"])
def test_what_is_no_number_in_a_body_is_named(server, field, number):
    body = json.dumps({field: number})
    answer = server.request("POST", f"{OPEN}/query", body=body)
    assert (answer.status, answer.json["errorCode"]) == (400, "MALFORMED_REQUEST")
    shown = number if isinstance(number, str) else json.dumps(number)
    assert answer.json["message"] == f"{field} is not a valid number. Not a numeric value: {shown}"


def test_a_long_or_strange_value_is_cut_short(server):
    for text, shown in (("x" * 5000, "x" * 64), ("%00%0d%0a%E2%80%AE", r"\u{0}\u{d}\u{a}\u{202e}")):
        answer = server.request("GET", f"{OPEN}/changes?startingVersion={text}")
        assert answer.json["message"].endswith(f"value: {shown}")


@pytest.mark.parametrize("path,message", [
    ("/shares?maxResults=-1", "Acceptable values of 'maxResults' are 0 to 500, inclusive. (Default: 500)"),
    (f"{OPEN}/metadata?version=-1", "version cannot be negative."),
    (f"{OPEN}/changes?startingVersion=-1", "startingVersion cannot be negative."),
    (f"{OPEN}/changes?startingVersion=-9223372036854775808", "startingVersion cannot be negative."),
    (f"{OPEN}/changes?startingVersion=0&endingVersion=-1", "endingVersion cannot be negative."),
    (f"{OPEN}/changes?startingTimestamp=2024-01-01&endingVersion=-1", "endingVersion cannot be negative."),
    (f"{OPEN}/changes?startingVersion=0&maxFiles=-1", "maxFiles must be positive."),
])
def test_negative_numbers(server, path, message):
    answer = server.request("GET", path)
    assert (answer.status, answer.json["message"]) == (400, message)


@pytest.mark.parametrize("body,message", [
    ({"version": -1}, "table version cannot be negative."),
    ({"startingVersion": "-1"}, "startingVersion cannot be negative."),
    ({"startingVersion": 0, "endingVersion": -1}, "endingVersion cannot be negative."),
    ({"startingVersion": 3, "endingVersion": 2}, "startingVersion(3) must be smaller than or equal to endingVersion(2)."),
    ({"maxFiles": "-1"}, "maxFiles must be positive."),
])
def test_negative_numbers_in_a_body(server, body, message):
    answer = server.request("POST", f"{OPEN}/query", body=json.dumps(body))
    assert (answer.status, answer.json["message"]) == (400, message)


@pytest.mark.parametrize("path", ["/shares?maxResults=", "/shares?maxResults=%2B5", f"{OPEN}/metadata?version=", f"{OPEN}/metadata?version=00"])
def test_numbers_that_are_read(server, path):
    assert server.request("GET", path).status == 200


# The order of checks

HISTORY = "Reading table by version or timestamp is not supported because history sharing is not enabled on table: s.d.closed"
CDF = "cdf is not enabled on table s.d.closed: its provider does not share its history."


@pytest.mark.parametrize("parameters", [
    "", "startingVersion=x", "startingVersion=-1", "startingTimestamp=x", "startingVersion=0&startingTimestamp=x",
    "startingVersion=0&endingVersion=x", "startingVersion=0",
])
def test_changes_of_a_table_without_history_are_refused_for_that(server, parameters):
    headers = {"fileidhash": "md5"}
    answer = server.request("GET", f"{CLOSED}/changes?{parameters}", headers=headers)
    assert (answer.status, answer.json["message"]) == (400, CDF)
    assert server.request("GET", f"{MISSING}/changes?{parameters}", headers=headers).status == 404
    assert server.request("GET", f"{CLOSED}/changes?maxFiles=0&{parameters}").json["message"] == "maxFiles must be positive."


def test_a_range_of_changes_is_read_in_the_order_of_the_reference_server(server):
    for parameters, message in [
        ("startingVersion=x&startingTimestamp=x&endingVersion=x&endingTimestamp=x", "Multiple starting arguments"),
        ("endingVersion=x&endingTimestamp=x", "Multiple ending arguments"),
        ("endingVersion=x", "No startingVersion or startingTimestamp"),
        ("startingTimestamp=x&endingVersion=x", "endingVersion is not a valid number."),
        ("startingVersion=x&endingVersion=y", "startingVersion is not a valid number."),
        ("startingTimestamp=x&endingTimestamp=y", "Invalid startingTimestamp: 'x'"),
        ("startingVersion=0&endingTimestamp=y", "Invalid startingTimestamp: 'y'"),
    ]:
        answer = server.request("GET", f"{OPEN}/changes?{parameters}")
        assert answer.status == 400 and answer.json["message"].startswith(message), answer.json


def test_history_comes_before_the_syntax_of_a_timestamp(server):
    def answers(path):
        yield server.request("GET", f"{path}/version?startingTimestamp=x")
        yield server.request("GET", f"{path}/metadata?timestamp=x")
        yield server.request("POST", f"{path}/query", body=b'{"timestamp":"x"}')
        yield server.request("POST", f"{path}/query", body=b'{"startingVersion":3,"endingVersion":2}')

    for answer in answers(CLOSED):
        assert (answer.status, answer.json["message"]) == (400, HISTORY)
    for answer in answers(MISSING):
        assert answer.status == 404
    for answer in list(answers(OPEN))[:3]:
        assert (answer.status, answer.json["errorCode"]) == (400, "INVALID_PARAMETER_VALUE")
        assert answer.json["message"].startswith("Invalid startingTimestamp: 'x'")


# Credentials

def basic(credentials):
    return "Basic " + base64.b64encode(credentials.encode() if isinstance(credentials, str) else credentials).decode()


def authorized(server, *headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("GET", "/delta-sharing/shares")
    for header in headers:
        connection.putheader("Authorization", header)
    connection.endheaders()
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    if answer.status != 200:
        assert (answer.status, body["errorCode"]) == (401, "UNAUTHENTICATED") and TOKEN not in body["message"]
    return answer.status


EMPTY = ["", "Bearer", "Bearer ", "bearer:  ", basic("me:"), basic(":")]
MALFORMED = ["Basic", "Basic %%%", basic("no colon"), basic(b"me:\xff"), basic("me:a\nb"), "Digest x", TOKEN, "Bearer " + "x" * 5000, basic("me:" + "x" * 5000)]


@pytest.mark.parametrize("header", [basic(f"me:{TOKEN}"), basic(f":{TOKEN}"), basic(f"größe:{TOKEN}"), basic(f"me:{TOKEN}").replace("Basic", "bAsIc  "), basic(f"a:{TOKEN}").rstrip("=")])
def test_the_password_of_basic_credentials_is_the_token(server, header):
    assert authorized(server, header) == 200


@pytest.mark.parametrize("header", EMPTY + MALFORMED + [basic(f"{TOKEN}:"), basic(f"{TOKEN}:me"), basic(f"me:x:{TOKEN}"), basic("me:dss_unknown")])
def test_what_is_no_token_of_a_recipient(server, header):
    assert authorized(server, header) == 401


def test_the_cpp_client_sends_either_kind(server):
    assert authorized(server, basic(f"me:{TOKEN}")) == 200
    answer = server.request("POST", f"{OPEN}/query", body=b"{}", headers={"Authorization": f"Bearer: {TOKEN}"}, token=None)
    assert answer.status == 200
    assert authorized(server, basic(f"me:{TOKEN}"), f"Bearer: {TOKEN}") == 401


def test_a_profile_of_type_basic(server, tmp_path):
    profile = tmp_path / "basic.share"
    profile.write_text(json.dumps({
        "shareCredentialsVersion": 2, "type": "basic", "endpoint": server.endpoint, "username": "me", "password": TOKEN,
    }))
    assert "s" in [share.name for share in delta_sharing.SharingClient(str(profile)).list_shares()]


def test_an_open_server_asks_for_nothing(running, tmp_path):
    server = running("--shares", write(tmp_path / "shares.yaml", share("s"), recipients=False))
    assert authorized(server) == 200
    for header in [*EMPTY, "Bearer x", basic("me:x")]:
        assert authorized(server, header) == 200, header
    for header in MALFORMED:
        assert authorized(server, header) == 401, header


def test_the_reference_servers_token_may_come_as_a_password(running, tmp_path):
    token = "dss_token-of-everyone:with-a-colon"
    path = write(tmp_path / "shares.yaml", share("s"), recipients=False, authorization={"bearerToken": token})
    server = running("--shares", path)
    assert (authorized(server, basic(f"me:{token}")), authorized(server, f"Bearer {token}")) == (200, 200)
    assert (authorized(server), authorized(server, "Bearer "), authorized(server, basic(token))) == (401, 401, 401)


# The share file

def names(answer):
    return [item["name"] for item in answer.json["items"]]


def test_lists_are_in_the_order_of_the_file(running, tmp_path):
    tables = [table("zulu"), table("Alpha"), table("mike")]
    shares = [
        {"name": "b", "schemas": [{"name": "y", "tables": tables}, {"name": "x", "tables": [table("k"), table("j")]}]},
        {"name": "A", "schemas": []},
        {"name": "c", "schemas": []},
    ]
    path = tmp_path / "shares.yaml"
    server = running("--shares", write(path, *shares))

    def pages(listing, size):
        token, found = "", []
        while True:
            answer = server.request("GET", f"{listing}?maxResults={size}&pageToken={token}")
            found += names(answer)
            token = answer.json.get("nextPageToken")
            if not token:
                return found

    for listing, expected in [
        ("/shares", ["b", "A", "c"]),
        ("/shares/b/schemas", ["y", "x"]),
        ("/shares/b/schemas/y/tables", ["zulu", "Alpha", "mike"]),
        ("/shares/b/all-tables", ["zulu", "Alpha", "mike", "k", "j"]),
    ]:
        assert names(server.request("GET", listing)) == expected
        assert [pages(listing, size) for size in (1, 2, 3)] == [expected] * 3

    token = server.request("GET", "/shares/b/all-tables?maxResults=2").json["nextPageToken"]
    del tables[1]
    write(path, *shares)
    server.wait_for_log("changed and is in force")
    assert names(server.request("GET", f"/shares/b/all-tables?pageToken={token}")) == ["mike", "k", "j"]


def test_a_table_in_another_storage_is_an_error_of_its_own(running, tmp_path):
    path = tmp_path / "shares.yaml"
    azure = table("azure", "wasbs://c@account.blob.core.windows.net/t", historyShared=True)
    server = running("--shares", write(path, share("s", table("fine"), azure)))
    assert "s.d.azure" in server.wait_for_log("the scheme wasbs:// is not supported")
    assert names(server.request("GET", "/shares/s/all-tables")) == ["fine", "azure"]
    assert server.request("GET", "/shares/s/schemas/d/tables/fine/version").status == 200
    one = "/shares/s/schemas/d/tables/azure"
    for method, path_, body in [("GET", "version", None), ("GET", "metadata", None), ("POST", "query", b"{}"), ("GET", "changes?startingVersion=0", None)]:
        answer = server.request(method, f"{one}/{path_}", body=body)
        assert (answer.status, answer.json["errorCode"]) == (400, "UNSUPPORTED_OPERATION")
        assert "does not support its storage" in answer.json["message"] and "account" not in answer.json["message"]
    google = table("google", "gs://bucket/t")
    write(path, share("s", google, table("fine"), table("more")))
    assert "s.d.google" in server.wait_for_log("the scheme gs:// is not supported")
    server.wait_for_log("changed and is in force")
    assert names(server.request("GET", "/shares/s/all-tables")) == ["google", "fine", "more"]


def test_keys_without_effect_are_named_once(running, tmp_path):
    path = tmp_path / "shares.yaml"
    server = running("--shares", write(path, share("s"), host="localhost", port=80, refreshTokenTtlMs=1, endpoint="/delta-sharing"))
    assert server.wait_for_log("have no effect").rstrip().endswith(": host, port, refreshTokenTtlMs")
    write(path, share("s"), deltaTableCacheSize=10)
    assert server.wait_for_log("deltaTableCacheSize")
    server.wait_for_log("changed and is in force")
    assert len([line for line in server.log if "have no effect" in line]) == 2
    write(path, share("s"), ssl={"selfSigned": True})
    assert "plain HTTP" in server.wait_for_log("is refused")


def test_a_file_with_ssl_is_refused_at_start(tmp_path):
    path = tmp_path / "shares.yaml"
    path.write_text("version: 1\nshares: []\nssl:\n  selfSigned: false\n  certificateFile: x\n")
    done = subprocess.run([BINARY, "serve", "--shares", path, "--listen", "127.0.0.1:0"], capture_output=True, text=True)
    assert done.returncode == 2 and "ssl has no effect" in done.stderr and "line " in done.stderr
