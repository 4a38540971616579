"""Shares and recipients in DynamoDB, tables in S3: the server over an AWS of our own, for the Python client."""

import base64
import hmac
import json
import re
import time

import boto3.dynamodb.types
import canonical
import delta_sharing
import pytest

from aws import Aws
from conftest import OTHER_TOKEN, Server, TOKEN, hash_of, write_profile

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


def test_without_its_table_a_server_does_not_start(aws):
    with pytest.raises(RuntimeError, match="the catalog cannot be read: DynamoDB: ResourceNotFoundException"):
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
