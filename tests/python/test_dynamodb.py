"""Shares and recipients in DynamoDB, tables in S3: the server over an AWS of our own, for the Python client."""

import base64
import datetime
import hmac
import json
import os
import re
import shutil
import subprocess
import time

import boto3.dynamodb.types
import canonical
import delta_sharing
import pytest

from aws import Aws
from conftest import BINARY, OTHER_TOKEN, Server, TOKEN, hash_of, write_profile

TABLE = "deltashare"
BUCKET = "catalog"
SHARED = ["py_versions", "py_odd_partitions", "change_data_feed", "deletion_vectors"]


def put(client, pk, sk, **attributes):
    serialize = boto3.dynamodb.types.TypeSerializer().serialize
    item = {"pk": pk, "sk": sk, "format": 1, **attributes}
    client.put_item(TableName=TABLE, Item={name: serialize(value) for name, value in item.items()})


def make_table(client):
    client.create_table(
        TableName=TABLE, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    )


@pytest.fixture(scope="module")
def dynamodb(aws, tables):
    client, s3 = aws.client("dynamodb"), aws.client("s3")
    make_table(client)
    s3.create_bucket(Bucket=BUCKET)
    put(client, "SHARE#retail", "SHARE", name="Retail", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11")
    put(client, "SHARE#retail", "SCHEMA#sales", name="Sales")
    for name in SHARED:
        for file in tables[name].rglob("*"):
            if file.is_file():
                s3.upload_file(str(file), BUCKET, f"{name}/{file.relative_to(tables[name])}")
        put(client, "SHARE#retail", f"TABLE#sales#{name}", name=name, schema="Sales", id=f"id-{name}",
            location=f"s3://{BUCKET}/{name}", historyShared=True)
    for recipient, token, share in (("acme", TOKEN, "Retail"), ("globex", OTHER_TOKEN, None)):
        put(client, f"RECIPIENT#{recipient}", "RECIPIENT", name=recipient, status="active")
        put(client, f"TOKEN#{hash_of(token)}", "TOKEN", recipient=recipient, id="1", expires="never")
        if share:
            put(client, f"RECIPIENT#{recipient}", f"SHARE#{share.lower()}", share=share, recipient=recipient)
    return client


@pytest.fixture(scope="module")
def server(aws, dynamodb):
    server = Server("--catalog", f"dynamodb:{TABLE}", env=aws.environment)
    yield server
    assert server.stop() == 0
    log = "".join(server.log)
    for secret in (TOKEN, hash_of(TOKEN), "X-Amz-Signature"):
        assert secret not in log


@pytest.fixture(scope="module")
def profile(server, tmp_path_factory):
    return write_profile(tmp_path_factory.mktemp("dynamodb") / "acme.share", server.endpoint, TOKEN)


def test_lists(profile):
    client = delta_sharing.SharingClient(str(profile))
    assert [share.name for share in client.list_shares()] == ["Retail"]
    assert sorted(table.name for table in client.list_all_tables()) == sorted(SHARED)


@pytest.mark.parametrize("name,form", [
    *((name, form) for name in SHARED for form in (True, False) if (name, form) != ("deletion_vectors", False)),
])
def test_rows(profile, tables, name, form):
    frame = delta_sharing.load_as_pandas(f"{profile}#retail.SALES.{name}", use_delta_format=form)
    assert canonical.rows(frame.to_dict("records")) == json.loads((tables[name] / "expected.json").read_text())


def test_what_is_not_granted_is_not_there(server):
    assert server.request("GET", "/shares", token=OTHER_TOKEN).json == {"items": []}
    assert server.request("GET", "/shares/retail", token=OTHER_TOKEN).status == 404
    assert server.request("GET", "/shares", token="dss_unknown").status == 401


def test_what_is_revoked_is_gone_with_the_next_request(server, dynamodb):
    put(dynamodb, "RECIPIENT#globex", "SHARE#retail", share="Retail", recipient="globex")
    assert server.request("GET", "/shares/retail", token=OTHER_TOKEN).status == 200
    dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": "RECIPIENT#globex"}, "sk": {"S": "SHARE#retail"}})
    assert server.request("GET", "/shares/retail", token=OTHER_TOKEN).status == 404
    put(dynamodb, "RECIPIENT#globex", "RECIPIENT", name="globex", status="disabled")
    assert server.request("GET", "/shares", token=OTHER_TOKEN).status == 401
    put(dynamodb, "RECIPIENT#globex", "RECIPIENT", name="globex", status="active")
    put(dynamodb, f"TOKEN#{hash_of(OTHER_TOKEN)}", "TOKEN", recipient="globex", id="1", expires="2020-01-01T00:00:00Z")
    answer = server.request("GET", "/shares", token=OTHER_TOKEN)
    assert answer.status == 401 and "expired" in answer.json["message"]


def test_pages_of_a_listing(server):
    names, token = [], None
    while True:
        answer = server.request("GET", "/shares/retail/all-tables?maxResults=1" + (f"&pageToken={token}" if token else "")).json
        names += [item["name"] for item in answer["items"]]
        token = answer.get("nextPageToken")
        if token is None:
            break
    assert sorted(names) == sorted(SHARED)


LISTINGS = ["/shares", "/shares/retail/schemas", "/shares/retail/schemas/sales/tables", "/shares/retail/all-tables"]


def after(server, listing, page_token, token=TOKEN):
    return server.request("GET", f"{listing}?pageToken={page_token}", token=token)


def is_refused(answer):
    return answer.status == 400 and answer.json["message"].startswith("invalid 'nextPageToken'")


def first_page_token(server, listing, token=TOKEN):
    """The token of a page of none: everything follows."""
    page_token = server.request("GET", f"{listing}?maxResults=0", token=token).json["nextPageToken"]
    assert re.fullmatch(r"[A-Za-z0-9_-]+", page_token)
    return page_token


def test_a_page_token_is_only_for_its_recipient_and_its_listing(server, dynamodb):
    neighbour = "dss_initech"
    put(dynamodb, "RECIPIENT#initech", "RECIPIENT", name="initech", status="active")
    put(dynamodb, f"TOKEN#{hash_of(neighbour)}", "TOKEN", recipient="initech", id="1", expires="never")
    put(dynamodb, "RECIPIENT#initech", "SHARE#retail", share="Retail", recipient="initech")
    page_tokens = {listing: first_page_token(server, listing) for listing in LISTINGS}
    for listing in LISTINGS:
        for made_for, page_token in page_tokens.items():
            answer = after(server, listing, page_token)
            if made_for == listing:
                assert answer.json == server.request("GET", listing).json
            else:
                assert is_refused(answer), (listing, made_for)
        assert is_refused(after(server, listing, page_tokens[listing], neighbour))
        own = first_page_token(server, listing, neighbour)
        assert after(server, listing, own, neighbour).json == server.request("GET", listing).json
        assert is_refused(after(server, listing, own))


def test_a_page_token_with_a_changed_character_is_refused(server):
    listing = LISTINGS[-1]
    page_token = server.request("GET", f"{listing}?maxResults=2").json["nextPageToken"]
    assert after(server, listing, page_token).status == 200
    for at, character in enumerate(page_token):
        changed = page_token[:at] + ("A" if character != "A" else "B") + page_token[at + 1:]
        assert is_refused(after(server, listing, changed)), at
    for cut in (page_token[:-1], page_token[:10], page_token + "A", "A" * 22):
        assert is_refused(after(server, listing, cut)), cut


def sealed(key, recipient, listing, last, expires):
    """A page token as the server makes it."""
    payload = json.dumps({"e": int(expires), "c": last}).encode()
    tag = hmac.new(key, digestmod="sha256")
    for part in (b"list", recipient.encode(), listing.encode(), payload):
        tag.update(len(part).to_bytes(8, "little") + part)
    return base64.urlsafe_b64encode(payload + tag.digest()[:16]).decode().rstrip("=")


def test_a_page_token_ends(server, dynamodb):
    item = dynamodb.get_item(TableName=TABLE, Key={"pk": {"S": "SERVER"}, "sk": {"S": "TOKEN_KEY"}})["Item"]
    for seconds in (60, -1):
        answer = after(server, "/shares", sealed(item["key"]["B"], "acme", "shares", "", time.time() + seconds))
        if seconds > 0:
            assert answer.json == server.request("GET", "/shares").json
        else:
            assert is_refused(answer) and "expired" in answer.json["message"]


def test_a_page_token_of_another_server_over_the_same_table_is_good(server, aws):
    second = Server("--catalog", f"dynamodb:{TABLE}", env=aws.environment)
    try:
        listing = LISTINGS[-1]
        first = server.request("GET", f"{listing}?maxResults=2").json
        rest = after(second, listing, first["nextPageToken"]).json
        assert first["items"] + rest["items"] == server.request("GET", listing).json["items"]
    finally:
        assert second.stop() == 0


@pytest.fixture
def bad(dynamodb):
    """A recipient with a share of its own, whose records a test may spoil."""
    token = "dss_test-recipient-with-bad-records"
    put(dynamodb, "RECIPIENT#umbrella", "RECIPIENT", name="umbrella", status="active")
    put(dynamodb, f"TOKEN#{hash_of(token)}", "TOKEN", recipient="umbrella", id="1", expires="never")
    put(dynamodb, "SHARE#bad", "SHARE", name="bad", id="id-bad")
    put(dynamodb, "SHARE#bad", "SCHEMA#s", name="s")
    put(dynamodb, "SHARE#bad", "TABLE#s#good", name="good", schema="s", id="i", location=f"s3://{BUCKET}/py_versions")
    for share in ("bad", "retail"):
        put(dynamodb, "RECIPIENT#umbrella", f"SHARE#{share}", share=share, recipient="umbrella")
    yield token
    for partition in ("SHARE#bad", "RECIPIENT#umbrella", f"TOKEN#{hash_of(token)}"):
        items = dynamodb.query(TableName=TABLE, KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": {"S": partition}})
        for item in items["Items"]:
            dynamodb.delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})


def errors_since(server, before):
    """The errors in the log from there on, of which there is one at least."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = [line for line in server.log[before:] if "ERROR" in line]
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("".join(server.log))


def check(aws, *arguments):
    command = [str(BINARY), "check", "--table", TABLE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **aws.environment})


GOOD = {"name": "t", "schema": "s", "id": "i", "location": f"s3://{BUCKET}/py_versions"}
BAD_TABLES = [
    ({**GOOD, "historyShared": "true"}, "historyShared that is not a boolean"), ({**GOOD, "location": 1}, "location that is not a string"),
    ({**GOOD, "startVersion": "0"}, "startVersion that is not a whole number"), ({**GOOD, "format": 2}, "has format 2"),
    ({"name": "t", "schema": "s"}, "has no attribute id"), ({**GOOD, "signerRole": "me"}, "signerRole that is not the ARN"),
]


@pytest.mark.parametrize("attributes,reason", BAD_TABLES)
def test_a_bad_table_costs_its_neighbours_nothing(server, aws, dynamodb, bad, attributes, reason):
    put(dynamodb, "SHARE#bad", "TABLE#s#t", **attributes)
    for listing in ("/shares/bad/all-tables", "/shares/bad/schemas/s/tables"):
        before = len(server.log)
        answer = server.request("GET", listing, token=bad)
        assert answer.status == 200 and [item["name"] for item in answer.json["items"]] == ["good"]
        event, = errors_since(server, before)
        for text in (TABLE, "SHARE#bad", "TABLE#s#t", reason):
            assert text in event, event
    for method, path in (("GET", "version"), ("GET", "metadata"), ("POST", "query"), ("GET", "changes?startingVersion=0")):
        answer = server.request(method, f"/shares/bad/schemas/s/tables/t/{path}", token=bad)
        assert (answer.status, answer.json["errorCode"]) == (400, "UNSUPPORTED_OPERATION"), answer.body
        assert "The record of the table cannot be read" in answer.json["message"]
        answer = server.request(method, f"/shares/bad/schemas/s/tables/good/{path}", token=bad)
        assert answer.status == 200 or "does not share its history" in answer.json["message"], answer.body
    checked = check(aws)
    assert checked.returncode == 1
    assert re.search(rf"^SHARE#bad TABLE#s#t: NOT readable: the table record .*{reason}", checked.stdout, re.MULTILINE), checked.stdout
    assert "bad.s.good: readable" in checked.stdout and "bad.s.t:" not in checked.stdout
    assert "1 records cannot be read" in checked.stderr


@pytest.mark.parametrize("pk,sk,attributes,listed", [
    ("SHARE#bad", "SHARE", {"name": "bad"}, ["Retail"]), ("SHARE#bad", "SHARE", {"name": "bad", "id": "x", "deleting": "no"}, ["Retail"]),
    ("RECIPIENT#umbrella", "SHARE#bad", {"recipient": "umbrella"}, ["Retail"]),
    ("RECIPIENT#umbrella", "SHARE#bad", {"share": "bad", "format": 7}, ["Retail"]),
])
def test_a_bad_share_or_grant_costs_the_others_nothing(server, dynamodb, bad, pk, sk, attributes, listed):
    put(dynamodb, pk, sk, **attributes)
    answer = server.request("GET", "/shares", token=bad)
    assert answer.status == 200 and [item["name"] for item in answer.json["items"]] == listed
    for path in ("/shares/bad", "/shares/bad/all-tables", "/shares/bad/schemas/s/tables/good/version"):
        answer = server.request("GET", path, token=bad)
        assert answer.status in (400, 403) and "cannot be read. Contact the provider" in answer.json["message"], answer.body
    # A recipient without the grant learns nothing.
    assert server.request("GET", "/shares/bad").status == 404
    assert server.request("GET", "/shares").status == 200


def test_a_bad_token_or_recipient_lets_nobody_in(server, dynamodb, bad):
    token_key = f"TOKEN#{hash_of(bad)}"
    for attributes in ({"expires": "never"}, {"recipient": "umbrella"}, {"recipient": "umbrella", "expires": 1},
                       {"recipient": "umbrella", "expires": "never", "format": 2}):
        assert server.request("GET", "/shares", token=bad).status == 200
        put(dynamodb, token_key, "TOKEN", **attributes)
        for path in ("/shares", "/shares/bad", "/shares/bad/all-tables"):
            answer = server.request("GET", path, token=bad)
            assert (answer.status, answer.json["errorCode"]) == (401, "UNAUTHENTICATED"), answer.body
        put(dynamodb, token_key, "TOKEN", recipient="umbrella", id="1", expires="never")
    for attributes in ({"name": "umbrella"}, {"status": "Active"}, {"status": True}, {"status": "active", "format": 2}):
        before = len(server.log)
        put(dynamodb, "RECIPIENT#umbrella", "RECIPIENT", **attributes)
        for path in ("/shares", "/shares/bad", "/shares/bad/all-tables", "/shares/bad/schemas/s/tables/good/version"):
            answer = server.request("GET", path, token=bad)
            assert (answer.status, answer.json["errorCode"]) == (403, "PERMISSION_DENIED"), answer.body
        assert "RECIPIENT#umbrella" in errors_since(server, before)[0]
        assert server.request("GET", "/shares").status == 200


@pytest.mark.parametrize("expires,works", [
    ("never", True), ("2999-01-31T12:00:00Z", True), ("2999-01-31T12:00:00.123+01:00", True), ("2999-01-31", True), ("2999-01-31 12:00", True),
    ("2999-01-31T12:00:00", True), ("2999-01-31T12:00:00+0100", True),
    # The date of today has begun everywhere that matters; that of tomorrow has not begun in UTC.
    ("today", False), ("tomorrow", True), ("an hour ago", False), ("in an hour", True),
    ("Never", False), ("soon", False), ("31.01.2999", False), ("32492966400", False), ("", False),
])
def test_an_expiry_is_what_people_write(server, dynamodb, bad, expires, works):
    now = datetime.datetime.now(datetime.timezone.utc)
    times = {"today": now.date().isoformat(), "tomorrow": (now + datetime.timedelta(days=1)).date().isoformat(),
             "an hour ago": (now - datetime.timedelta(hours=1)).replace(tzinfo=None).isoformat(),
             "in an hour": (now + datetime.timedelta(hours=1)).replace(tzinfo=None).isoformat(sep=" ", timespec="minutes")}
    put(dynamodb, f"TOKEN#{hash_of(bad)}", "TOKEN", recipient="umbrella", id="1", expires=times.get(expires, expires))
    answer = server.request("GET", "/shares", token=bad)
    assert answer.status == (200 if works else 401), answer.body


@pytest.mark.parametrize("name", ["%E6%97%A5" * 255, "x" * 3000, "%25" * 700])
def test_names_over_the_limits_of_keys_are_not_there(server, name):
    for path in (name, f"{name}/schemas", f"{name}/all-tables", f"retail/schemas/{name}/tables", f"{name}/schemas/s/tables/t/version",
                 f"retail/schemas/{name}/tables/t/version", f"retail/schemas/sales/tables/{name}/version"):
        answer = server.request("GET", f"/shares/{path}")
        assert (answer.status, answer.json["errorCode"]) == (404, "RESOURCE_DOES_NOT_EXIST"), answer.body


@pytest.fixture
def on_this_machine(tmp_path, tables):
    """A directory that is a table, with a file that its log names beside it."""
    table = tmp_path / "table"
    shutil.copytree(tables["py_versions"], table)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    add = {"add": {"path": f"file://{secret}", "partitionValues": {}, "size": 6, "modificationTime": 0, "dataChange": True}}
    commits = sorted((table / "_delta_log").glob("*.json"))
    (table / "_delta_log" / f"{len(commits):020}.json").write_text(json.dumps(add) + "\n")
    return table


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}", "FILE://localhost{}", "{}/../table"])
def test_a_record_cannot_name_a_directory_of_the_host(server, aws, dynamodb, bad, on_this_machine, form):
    location = form.format(on_this_machine)
    s3 = f"s3://{BUCKET}/py_versions"
    for attributes in ({"location": location}, {"location": location, "allowedLocations": ["/"]}, {"location": s3, "allowedLocations": ["/"]},
                       {"location": s3, "allowedLocations": ["s3://other/t", location]}, {"location": "/"}, {"location": "."}):
        before = len(server.log)
        put(dynamodb, "SHARE#bad", "TABLE#s#t", name="t", schema="s", id="i", historyShared=True, **attributes)
        for method, path in (("GET", "version"), ("GET", "metadata"), ("POST", "query"), ("GET", "changes?startingVersion=0")):
            answer = server.request(method, f"/shares/bad/schemas/s/tables/t/{path}", token=bad)
            assert (answer.status, answer.json["errorCode"]) == (400, "UNSUPPORTED_OPERATION"), answer.body
            assert "does not support its storage" in answer.json["message"] and "/table" not in answer.json["message"]
        event = errors_since(server, before)[0]
        assert "a location of a shared table cannot be read" in event and "bad.s.t" in event
        checked = check(aws)
        assert checked.returncode == 1
        assert re.search(r"^bad\.s\.t: NOT readable: .*only a share file can name", checked.stdout, re.MULTILINE), checked.stdout
    # There is no gateway that could hand out a file of this machine.
    answer = server.request("GET", "/deltashare-local/x/etc/passwd", below_prefix=False, token=None)
    assert answer.status == 404 and answer.json["errorCode"] == "RESOURCE_DOES_NOT_EXIST"


def test_without_its_table_a_server_does_not_start(aws):
    with pytest.raises(RuntimeError, match="the catalog cannot be read: there is no DynamoDB table 'missing' in region us-east-1 of account 000000000000. "
                       "Name the table with --catalog dynamodb:TABLE, the region with AWS_REGION"):
        Server("--catalog", "dynamodb:missing", env=aws.environment)


def test_a_dynamodb_that_is_down_is_503(tmp_path):
    own = Aws()
    server = None
    try:
        make_table(own.client("dynamodb"))
        server = Server("--catalog", f"dynamodb:{TABLE}", env=own.environment)
        assert server.request("GET", "/shares").status == 401
        own.stop()
        for _ in range(2):
            answer = server.request("GET", "/shares")
            assert answer.status == 503 and answer.json["errorCode"] == "TEMPORARILY_UNAVAILABLE"
            assert int(answer.headers["retry-after"]) > 0
    finally:
        if own.process.poll() is None:
            own.stop()
        if server is not None:
            assert server.stop() == 0


def test_a_catalog_that_is_none_is_refused():
    for text in ("dynamodb:", "x", "dynamodb:a b"):
        with pytest.raises(RuntimeError, match=re.escape("not a catalog such as dynamodb:deltashare")):
            Server("--catalog", text)
