"""Recipients that can use some addresses only: their requests, and the URLs of their answers, wherever they come from.

Linux has all of 127.0.0.0/8 on its loopback interface, so that a client chooses the address that it comes from. S3 and STS are
those of MiniStack, which checks the policies of sessions, `aws:SourceIp` among their conditions.
"""

import http.client
import json
import re
import time
import urllib.parse

import boto3
import botocore.config
import pytest

from conftest import Answer, Server, hash_of
from faults import aws  # noqa: F401
from lambda_runtime import Lambda
from test_admin import bucket, items, retail, token_of, world  # noqa: F401
from test_check import role
from test_dynamodb import TABLE, make_table, put

BUCKET = "addresses"
ACME, GLOBEX, NOBODY = "127.0.0.2", "127.0.0.3", "127.0.0.9"
# Which ranges each recipient has.
ALLOWED = {"acme": ["127.0.0.2/32", "2001:db8::/32"], "globex": ["127.0.0.3", "::ffff:127.0.0.4"], "initech": None}
FEED = "/shares/s/schemas/d/tables/feed"
VERSIONS = "/shares/s/schemas/d/tables/versions"
LOCAL = "/shares/s/schemas/d/tables/local"
ASYNC = {"delta-sharing-capabilities": "responseformat=parquet;asyncquery=true"}


def token(recipient):
    return f"dss_test-recipient-with-addresses-{recipient}"


def fetch(source, url, method="GET", headers=None, body=None):
    """A request from this address."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60, source_address=(source, 0))
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body=body, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def ask(endpoint, source, recipient, method, path, body=None, headers=None):
    url = endpoint.rstrip("/") + path
    return fetch(source, url, method, {"Authorization": f"Bearer {token(recipient)}", **(headers or {})}, body)


def query(endpoint, source, recipient, table=FEED, **more):
    answer = ask(endpoint, source, recipient, "POST", f"{table}/query", b"{}", **more)
    assert answer.status == 200, answer.body
    return [line["file"]["url"] for line in answer.lines[2:]]


@pytest.fixture(scope="module")
def stack(aws, tables):  # noqa: F811
    """A table in S3, a role that reads it, and both catalogs."""
    s3, dynamodb = aws.client("s3"), aws.client("dynamodb")
    s3.create_bucket(Bucket=BUCKET)
    for name, table in (("feed", tables["change_data_feed"]), ("versions", tables["py_odd_partitions"])):
        for file in table.rglob("*"):
            if file.is_file():
                s3.upload_file(str(file), BUCKET, f"{name}/{file.relative_to(table)}")
    aws.signer = role(aws, "addresses-signer", {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"})
    make_table(dynamodb)
    put(dynamodb, "SHARE#s", "SHARE", name="s", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11")
    put(dynamodb, "SHARE#s", "SCHEMA#d", name="d")
    put(dynamodb, "SHARE#s", "TABLE#d#feed", name="feed", schema="d", id="id-feed", location=f"s3://{BUCKET}/feed", historyShared=True,
        directoryAccess=True)
    put(dynamodb, "SHARE#s", "TABLE#d#versions", name="versions", schema="d", id="id-versions", location=f"s3://{BUCKET}/versions")
    for name, ranges in ALLOWED.items():
        restricted = {"format": 2, "allowedIps": ranges} if ranges else {}
        put(dynamodb, f"RECIPIENT#{name}", "RECIPIENT", name=name, status="active", **restricted)
        put(dynamodb, f"RECIPIENT#{name}", "SHARE#s", share="s", recipient=name)
        put(dynamodb, f"TOKEN#{hash_of(token(name))}", "TOKEN", recipient=name, id="1", expires="never")
    put(dynamodb, "RECIPIENT#former", "RECIPIENT", name="former", status="disabled", format=2, allowedIps=["127.0.0.2/32"])
    put(dynamodb, f"TOKEN#{hash_of(token('former'))}", "TOKEN", recipient="former", id="1", expires="never")
    return aws


def write_share_file(path, tables, allowed=ALLOWED):
    recipients = [{"name": name, "shares": ["s"], "tokens": [{"sha256": hash_of(token(name)), "expires": "never"}],
                   **({"allowedIps": ranges} if ranges else {})} for name, ranges in allowed.items()]
    recipients.append({"name": "former", "status": "disabled", "allowedIps": ["127.0.0.2/32"], "shares": ["s"],
                       "tokens": [{"sha256": hash_of(token("former")), "expires": "never"}]})
    path.write_text(json.dumps({
        "version": 1, "recipients": recipients, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [
            {"name": "feed", "location": f"s3://{BUCKET}/feed", "historyShared": True, "directoryAccess": True},
            {"name": "versions", "location": f"s3://{BUCKET}/versions"}, {"name": "local", "location": str(tables["py_versions"])},
        ]}]}]}) + "\n")
    return path


@pytest.fixture(scope="module")
def share_file(tables, tmp_path_factory):
    return write_share_file(tmp_path_factory.mktemp("addresses") / "shares.yaml", tables)


@pytest.fixture(scope="module", params=["share file", "dynamodb", "function", "function url"])
def front(request, stack, share_file):
    """A server, which knows the address of its clients from their connections, or from the events of API Gateway."""
    if "function" in request.param:
        environment = {**stack.environment, "DELTASHARE_TABLE": TABLE, "DELTASHARE_SIGNER_ROLE_ARN": stack.signer}
        server = Lambda(environment, function_url=request.param == "function url")
    else:
        catalog = ["--shares", share_file] if request.param == "share file" else ["--catalog", f"dynamodb:{TABLE}"]
        roles = ["--signer-role", stack.signer, "--directory-role", stack.signer]
        server = Server(*catalog, *roles, env=stack.environment)
    yield server
    server.stop()
    log = "".join(server.log)
    assert "panicked" not in log and "X-Amz-Signature" not in log


def routes(endpoint, source, recipient):
    """Every route that a token is for: method, path, body and headers."""
    asked = ask(endpoint, source, recipient, "POST", f"{FEED}/query", b"{}", ASYNC)
    query_id = asked.lines[0]["queryStatus"]["queryId"]
    return [
        ("GET", "/shares", None), ("GET", "/shares/s", None), ("GET", "/shares/s/schemas", None), ("GET", "/shares/s/schemas/d/tables", None),
        ("GET", "/shares/s/all-tables", None), ("HEAD", FEED, None), ("GET", f"{FEED}/version", None), ("GET", f"{FEED}/metadata", None),
        ("POST", f"{FEED}/query", b"{}"), ("POST", f"{FEED}/query", b'{"maxFiles": 1}'), ("GET", f"{FEED}/changes?startingVersion=0", None),
        ("POST", f"{FEED}/queries/{query_id}", b"{}"), ("GET", f"{FEED}/queries/{query_id}", None),
        ("POST", f"{FEED}/temporary-table-credentials", b"{}"),
    ]


@pytest.mark.parametrize("recipient,inside", [("acme", ACME), ("globex", GLOBEX), ("globex", "127.0.0.4")])
def test_every_route_is_for_the_addresses_of_its_recipient(front, recipient, inside):
    for method, path, body in routes(front.endpoint, inside, recipient):
        assert ask(front.endpoint, inside, recipient, method, path, body).status == 200, (method, path)
        for outside in {ACME, GLOBEX, "127.0.0.4", "127.0.0.1", NOBODY} - ({inside} if recipient == "acme" else {GLOBEX, "127.0.0.4"}):
            refused = ask(front.endpoint, outside, recipient, method, path, body)
            assert refused.status == 403, (method, path, outside)
            if method != "HEAD":
                assert refused.json["errorCode"] == "PERMISSION_DENIED"
                assert refused.json["message"].startswith(f"This profile cannot be used from the address {outside}."), refused.body
        assert ask(front.endpoint, inside, "initech", method, path, body).status in (200, 404), "a query id is for its recipient"


def test_a_page_that_was_begun_inside_ends_there(front):
    """Tokens of pages and of refreshed answers are no way around."""
    first = ask(front.endpoint, ACME, "acme", "POST", f"{VERSIONS}/query", b'{"maxFiles": 1, "includeRefreshToken": true}')
    end = first.lines[-1]["endStreamAction"]
    for body in ({"maxFiles": 1, "pageToken": end["nextPageToken"]}, {"refreshToken": end["refreshToken"]}):
        body = json.dumps(body).encode()
        assert ask(front.endpoint, ACME, "acme", "POST", f"{VERSIONS}/query", body).status == 200
        assert ask(front.endpoint, NOBODY, "acme", "POST", f"{VERSIONS}/query", body).status == 403
    listing = ask(front.endpoint, ACME, "acme", "GET", "/shares/s/all-tables?maxResults=0").json["nextPageToken"]
    for source, status in ((ACME, 200), (NOBODY, 403)):
        assert ask(front.endpoint, source, "acme", "GET", f"/shares/s/all-tables?pageToken={listing}").status == status


def test_a_token_that_is_not_good_is_that_from_everywhere(front):
    for source in (ACME, NOBODY):
        for recipient in ("former", "unknown"):
            assert ask(front.endpoint, source, recipient, "GET", "/shares").status == 401


@pytest.mark.parametrize("headers", [
    {"X-Forwarded-For": ACME}, {"X-Forwarded-For": f"{ACME}, {ACME}"}, {"Forwarded": f"for={ACME}"}, {"X-Real-IP": ACME},
    {"True-Client-IP": ACME}, {"CF-Connecting-IP": ACME}, {"X-Forwarded-For": f"{ACME}, 127.0.0.1"},
], ids=str)
def test_no_header_moves_a_client(front, headers):
    assert ask(front.endpoint, NOBODY, "acme", "GET", "/shares", headers=headers).status == 403
    assert ask(front.endpoint, ACME, "acme", "GET", "/shares", headers={name: NOBODY for name in headers}).status == 200


def test_s3_refuses_a_url_that_was_taken_elsewhere(front):
    """The server reads the log from 127.0.0.1, which no list has: only what signs is bound."""
    urls = query(front.endpoint, ACME, "acme") + [
        line["add" if "add" in line else "cdf"]["url"]
        for line in ask(front.endpoint, ACME, "acme", "GET", f"{FEED}/changes?startingVersion=0").lines[2:] if "add" in line or "cdf" in line]
    assert len(urls) > 3
    for url in urls:
        assert fetch(ACME, url).status == 200
        for outside in ("127.0.0.1", GLOBEX, NOBODY):
            for headers in ({}, {"X-Forwarded-For": ACME}, {"Range": "bytes=0-3"}):
                refused = fetch(outside, url, headers=headers)
                assert refused.status == 403 and b"<Code>AccessDenied</Code>" in refused.body, (outside, refused.body)
    for url in query(front.endpoint, "127.0.0.4", "globex"):
        assert fetch(GLOBEX, url).status == fetch("127.0.0.4", url).status == 200
        assert fetch(ACME, url).status == fetch("127.0.0.1", url).status == 403
    for url in query(front.endpoint, NOBODY, "initech"):
        assert all(fetch(source, url).status == 200 for source in (ACME, NOBODY, "127.0.0.1"))


def test_credentials_for_a_directory_are_bound_as_well(front, stack):
    def urls(recipient, source):
        answer = ask(front.endpoint, source, recipient, "POST", f"{FEED}/temporary-table-credentials", b"{}")
        keys = answer.json["credentials"]["awsTempCredentials"]
        config = botocore.config.Config(s3={"addressing_style": "path"}, signature_version="s3v4")
        s3 = boto3.client("s3", endpoint_url=stack.endpoint, region_name=stack.region, aws_access_key_id=keys["accessKeyId"],
                          aws_secret_access_key=keys["secretAccessKey"], aws_session_token=keys["sessionToken"], config=config)
        commit = {"Bucket": BUCKET, "Key": f"feed/_delta_log/{0:020}.json"}
        return [s3.generate_presigned_url("get_object", Params=commit),
                s3.generate_presigned_url("list_objects_v2", Params={"Bucket": BUCKET, "Prefix": "feed/"})]

    for url in urls("acme", ACME):
        assert fetch(ACME, url).status == 200
        assert fetch("127.0.0.1", url).status == fetch(GLOBEX, url).status == 403
    for url in urls("initech", NOBODY):
        assert fetch(ACME, url).status == fetch("127.0.0.1", url).status == 200


def test_one_session_for_each_list(front):
    for _ in range(3):
        query(front.endpoint, ACME, "acme")
        query(front.endpoint, GLOBEX, "globex")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in front.log if "the signer role was assumed" in line]
    for ranges in ("127.0.0.2/32, 2001:db8::/32", "127.0.0.3/32, 127.0.0.4/32"):
        assert sum(ranges in line for line in plain) == 1, plain


def test_the_event_has_the_address_that_was_refused(front):
    before = len(front.log)
    ask(front.endpoint, NOBODY, "acme", "GET", "/shares", headers={"X-Forwarded-For": ACME})
    end, found = time.monotonic() + 20, []
    while not found and time.monotonic() < end:
        time.sleep(0.05)
        found = [line for line in front.log[before:] if "cannot be used from the address" in line and NOBODY in line]
    line = re.sub(r"\x1b\[[0-9;]*m", "", found[-1])
    assert "source_ip" in line and NOBODY in line and "acme" in line and ACME not in line


def test_urls_of_the_local_gateway_are_bound(stack, share_file):
    server = Server("--shares", share_file, env=stack.environment)
    try:
        urls = query(server.endpoint, ACME, "acme", LOCAL)
        for url in urls:
            assert fetch(ACME, url).status == 200
            for outside in ("127.0.0.1", GLOBEX, NOBODY):
                refused = fetch(outside, url, headers={"X-Forwarded-For": ACME})
                assert refused.status == 403 and b"<Code>AccessDenied</Code>" in refused.body
        # The part of the path that stands for the addresses, in other spellings, and in the place of another.
        root = re.search(r"/deltashare-local/([0-9a-f]{32})/", urls[0])[1]
        for spelled in (f"%{ord(root[0]):02X}{root[1:]}", f"%{ord(root[0]):02x}{root[1:]}", "".join(f"%{ord(digit):02X}" for digit in root)):
            assert fetch(NOBODY, urls[0].replace(root, spelled)).status == 403
        open_url = query(server.endpoint, NOBODY, "initech", LOCAL)[0]
        open_root = re.search(r"/deltashare-local/([0-9a-f]{32})/", open_url)[1]
        assert root != open_root and fetch(NOBODY, open_url).status == 200
        assert fetch(NOBODY, urls[0].replace(root, open_root)).status == 403
        assert fetch(NOBODY, open_url.replace(open_root, root)).status == 403
        line = server.wait_for_log("was issued to a recipient that cannot use this address")
        assert "GetFile" in line and NOBODY in line
    finally:
        assert server.stop() == 0


def test_without_a_role_no_url_of_s3_is_issued(stack, share_file):
    server = Server("--shares", share_file, env=stack.environment)
    try:
        answer = ask(server.endpoint, ACME, "acme", "POST", f"{FEED}/query", b"{}")
        assert answer.status == 403 and answer.json["message"].startswith("This server issues no URLs to recipients that can use some addresses only.")
        line = re.sub(r"\x1b\[[0-9;]*m", "", server.wait_for_log("set --signer-role, or signerRole of the table"))
        assert 'fault="role"' in line
        # What has no URLs is answered, and so is everyone else.
        assert ask(server.endpoint, ACME, "acme", "GET", f"{FEED}/metadata").status == 200
        assert fetch(NOBODY, query(server.endpoint, NOBODY, "initech")[0]).status == 200
    finally:
        assert server.stop() == 0


def test_a_change_applies_to_the_next_request(stack):
    server = Server("--catalog", f"dynamodb:{TABLE}", "--signer-role", stack.signer, env=stack.environment)
    client = stack.client("dynamodb")

    def status(source):
        return ask(server.endpoint, source, "acme", "GET", "/shares").status

    try:
        assert (status(ACME), status(NOBODY)) == (200, 403)
        put(client, "RECIPIENT#acme", "RECIPIENT", name="acme", status="active", format=2, allowedIps={"127.0.0.8/30"})
        assert (status(ACME), status(NOBODY)) == (403, 200)
        assert fetch(NOBODY, query(server.endpoint, NOBODY, "acme")[0]).status == 200
        # As a script gets it wrong, which must never open the recipient to every address.
        for wrong in ({"allowedIps": []}, {"allowedIps": None}, {"allowedIps": "127.0.0.9"}, {"allowedIps": ["127.0.0.9/8"]},
                      {"allowedIps": [9]}, {"allowedIPs": ["127.0.0.9/32"], "format": 2}, {"format": 3}):
            put(client, "RECIPIENT#acme", "RECIPIENT", name="acme", status="active", **wrong)
            answer = ask(server.endpoint, NOBODY, "acme", "GET", "/shares")
            assert answer.status == 403 and "record of the recipient cannot be read" in answer.json["message"], wrong
        # A restriction holds whatever the format is.
        put(client, "RECIPIENT#acme", "RECIPIENT", name="acme", status="active", allowedIps=["127.0.0.2"])
        assert (status(ACME), status(NOBODY)) == (200, 403)
    finally:
        put(client, "RECIPIENT#acme", "RECIPIENT", name="acme", status="active", format=2, allowedIps=ALLOWED["acme"])
        assert server.stop() == 0


PROXY = "127.0.0.5"


def test_trusted_proxies_say_where_a_request_comes_from(stack, share_file):
    server = Server("--shares", share_file, "--trusted-proxies", f"{PROXY},127.0.0.6/32", "--trusted-proxies", "2001:db8:ffff::/48",
                    env=stack.environment)

    def status(source, *forwarded):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30, source_address=(source, 0))
        connection.putrequest("GET", "/delta-sharing/shares")
        connection.putheader("Authorization", f"Bearer {token('acme')}")
        for value in forwarded:
            connection.putheader("X-Forwarded-For", value)
        connection.endheaders()
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    try:
        assert status(PROXY, ACME) == 200
        assert status(PROXY, f"{NOBODY}, {ACME}, 127.0.0.6") == 200
        assert status(PROXY, NOBODY, f"::ffff:{ACME}", "127.0.0.6:4711") == 200
        assert status(PROXY, "[2001:db8::7]:443, 2001:db8:ffff::1") == 200
        for refused in ([NOBODY], [f"{ACME}, {NOBODY}"], [ACME, NOBODY], [f"{ACME}, unknown"], [ACME, "\x80"], [], ["127.0.0.6"], [f"{ACME},127.0.0.7"]):
            assert status(PROXY, *refused) == 403, refused
        # From elsewhere it is what a client wrote.
        assert status(NOBODY, ACME) == 403 and status(ACME, NOBODY) == 200
        # URLs of local tables go through the same proxy.
        forwarded = {"X-Forwarded-For": ACME}
        url = query(server.endpoint, PROXY, "acme", LOCAL, headers=forwarded)[0]
        assert fetch(PROXY, url, headers=forwarded).status == fetch(ACME, url).status == 200
        for headers in ({"X-Forwarded-For": NOBODY}, {"X-Forwarded-For": f"{ACME}, x"}, {}):
            assert fetch(PROXY, url, headers=headers).status == 403
        assert fetch(NOBODY, url, headers=forwarded).status == 403
        line = re.sub(r"\x1b\[[0-9;]*m", "", server.wait_for_log("from some addresses only, and the address of the request is not known"))
        assert "source_ip" not in line
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("allowed,reason", [
    ([], "line 1: allowedIps: the list of allowed addresses is empty"), (None, "allowedIps has no value"),
    (["203.0.113.7/24"], "write 203.0.113.0/24 for the range, or 203.0.113.7/32 for the address"),
    (["example.com"], "'example.com' is not a range of addresses"), ("203.0.113.0/24", "expected sequence"),
    ([f"203.{number}.113.0/24" for number in range(51)], "at most 50 ranges"),
    ([f"2001:db8:1111:1111:1111:1111:1111:{number:x}" for number in range(0x1000, 0x1000 + 40)], "does not fit into the session policy"),
])
def test_a_share_file_with_a_wrong_list_is_refused(tmp_path, tables, allowed, reason):
    path = write_share_file(tmp_path / "shares.yaml", tables)
    content = json.loads(path.read_text())
    content["recipients"][0]["allowedIps"] = allowed
    path.write_text(json.dumps(content))
    with pytest.raises(RuntimeError) as refused:
        Server("--shares", path)
    assert reason in str(refused.value)


def test_commands_set_and_show_and_remove_addresses(world, tmp_path):  # noqa: F811
    admin, _, client, table = world
    retail(admin, tmp_path)

    def record():
        return items(client, table)["RECIPIENT#globex", "RECIPIENT"]

    for wrong, reason in (("203.0.113.7/24", "write 203.0.113.0/24 for the range"), ("x", "is not a range of addresses")):
        assert reason in admin.error(2, "recipient", "create", "globex", "--allowed-ip", wrong)
        assert reason in admin.error(2, "recipient", "update", "acme", "--allowed-ip", wrong)
    many = [argument for number in range(51) for argument in ("--allowed-ip", f"203.{number}.113.0/24")]
    assert "at most 50 ranges" in admin.error(2, "recipient", "create", "globex", *many)
    assert not [key for key in items(client, table) if "globex" in key[0]]

    admin.run("recipient", "create", "globex", "--allowed-ip", "203.0.113.0/24", "--allowed-ip", "::ffff:198.51.100.7")
    written = {"L": [{"S": "198.51.100.7/32"}, {"S": "203.0.113.0/24"}]}
    assert (record()["format"], record()["allowedIps"]) == ({"N": "2"}, written)
    assert admin.json("recipient", "show", "globex")["allowedIps"] == ["198.51.100.7/32", "203.0.113.0/24"]
    assert "198.51.100.7/32, 203.0.113.0/24" in admin.run("recipient", "show", "globex").stdout
    # Other changes leave it as it is.
    admin.run("recipient", "update", "globex", "--comment", "x", "--property", "region=EU")
    admin.run("token", "rotate", "globex")
    assert (record()["format"], record()["allowedIps"]) == ({"N": "2"}, written)

    exported = admin.run("export").stdout
    of_globex = "  allowedIps:\n  - 198.51.100.7/32\n  - 203.0.113.0/24\n"
    assert exported.count("allowedIps") == exported.count(of_globex) == 1
    file = tmp_path / "shares.yaml"

    def plan_and_apply(globex, acme=None, more=""):
        text = exported.replace(of_globex, f"  allowedIps: {globex}\n")
        file.write_text((text.replace("- name: Acme\n", f"- name: Acme\n  allowedIps: {acme}\n") if acme else text) + more)
        planned = admin.run("plan", "-f", file).stdout
        assert admin.run("apply", "-f", file).stdout == planned
        assert admin.run("plan", "-f", file).stdout == ""
        return planned

    assert plan_and_apply("[198.51.100.7/32, 203.0.113.0/24]") == ""
    assert plan_and_apply("[203.0.113.0/24, 198.51.100.7]") == ""
    assert plan_and_apply("[203.0.113.0/24]", "['2001:db8::/32']") == ("~ recipient Acme: allowedIps none -> [2001:db8::/32]\n"
                                "~ recipient globex: allowedIps [198.51.100.7/32, 203.0.113.0/24] -> [203.0.113.0/24]\n")
    initech = "- name: initech\n  allowedIps:\n  - 203.0.113.9\n  shares:\n  - Retail\n"
    assert plan_and_apply("[203.0.113.0/24]", more=initech) == ("+ recipient initech, allowedIps none -> [203.0.113.9/32]\n+ grant of retail to initech\n"
                                "~ recipient Acme: allowedIps [2001:db8::/32] -> none (removes a restriction)\n")
    assert items(client, table)["RECIPIENT#acme", "RECIPIENT"]["format"] == {"N": "1"}

    said = admin.run("recipient", "update", "globex", "--allowed-ip", "192.0.2.0/24").stderr
    assert "Other addresses are refused from the next request." in said and "stay valid until they expire" in said
    assert admin.json("recipient", "show", "globex")["allowedIps"] == ["192.0.2.0/24"]
    assert "cannot be used with" in admin.error(2, "recipient", "update", "globex", "--allowed-ip", "192.0.2.0/24", "--no-allowed-ips")
    admin.run("recipient", "update", "globex", "--no-allowed-ips")
    assert record()["format"] == {"N": "1"} and "allowedIps" not in record()
    assert "allowedIps" not in admin.json("recipient", "show", "globex")


def test_a_new_profile_works_from_its_addresses_only(world, tmp_path):  # noqa: F811
    admin, server, _, _ = world
    retail(admin, tmp_path)
    admin.run("recipient", "create", "globex", "--share", "retail", "--allowed-ip", "127.0.0.2", "--profile", tmp_path / "globex.share")
    headers = {"Authorization": f"Bearer {token_of(tmp_path / 'globex.share')}"}
    assert fetch(ACME, f"{server.endpoint}shares", headers=headers).status == 200
    assert fetch(NOBODY, f"{server.endpoint}shares", headers=headers).status == 403
