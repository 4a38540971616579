"""Temporary credentials for a table's directory, from an STS and an S3 that check them."""

import json
import time
import urllib.request

import botocore.exceptions
import pyarrow
import pytest
from deltalake import DeltaTable, write_deltalake

from conftest import OTHER_TOKEN, Server, TOKEN, hash_of

BUCKET = "lake"
# Odd on purpose. What a policy would take for a variable is a unit test's: this S3 knows no variables.
PREFIX = "tables/$a 'b'=+é t"
ROLE = "arn:aws:iam::000000000000:role/readers"


@pytest.fixture(scope="module")
def bucket(aws, tmp_path_factory):
    """A table in S3, its neighbours, and a role that may read the whole bucket."""
    table = tmp_path_factory.mktemp("directory") / "table"
    for number in range(3):
        write_deltalake(str(table), pyarrow.table({"id": pyarrow.array([number], pyarrow.int64())}), mode="append")
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for file in table.rglob("*"):
        if file.is_file():
            for prefix in (PREFIX, f"{PREFIX}-evil", "tables/other"):
                s3.upload_file(str(file), BUCKET, f"{prefix}/{file.relative_to(table)}")
    iam = aws.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName="readers", AssumeRolePolicyDocument=json.dumps(trust))
    allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_role_policy(RoleName="readers", PolicyName="read", PolicyDocument=json.dumps(allowed))
    return s3


@pytest.fixture(scope="module")
def server(aws, bucket, tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("directory-shares") / "shares.yaml"
    location = f"s3://{BUCKET}/{PREFIX}"
    shared = {"location": location, "historyShared": True}
    path.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": [
            {"name": "open", **shared, "directoryAccess": True},
            {"name": "plain", **shared, "location": f"s3://{BUCKET}/tables/other", "directoryAccess": True},
            {"name": "closed", **shared},
            {"name": "no_history", "location": location},
            {"name": "local", "location": str(tables["py_versions"]), "historyShared": True},
        ]}]}],
        "recipients": [
            {"name": "acme corp", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]},
            {"name": "nobody", "shares": [], "tokens": [{"sha256": hash_of(OTHER_TOKEN), "expires": "never"}]},
        ],
    }))
    server = Server("--shares", path, "--directory-role", ROLE, env=aws.environment)
    yield server
    assert server.stop() == 0
    assert "sessionToken" not in "".join(server.log)


def ask(server, table="open", body=None, **more):
    body = None if body is None else json.dumps(body).encode()
    return server.request("POST", f"/shares/all/schemas/spark/tables/{table}/temporary-table-credentials", body=body, **more)


def denied(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**arguments)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, raised.value


def test_the_credentials_read_the_table_and_nothing_else(server, aws, bucket):
    answer = ask(server)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("application/json") and answer.headers["cache-control"] == "no-store"
    credentials = answer.json["credentials"]
    assert credentials["location"] == f"s3://{BUCKET}/{PREFIX}"
    s3 = aws.client("s3", credentials["awsTempCredentials"])
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/_delta_log/")["Contents"]
    assert len(listed) == 3
    for entry in listed:
        assert s3.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
    for neighbour in (f"{PREFIX}-evil", "tables/other"):
        denied(s3.get_object, Bucket=BUCKET, Key=f"{neighbour}/_delta_log/{0:020}.json")
        denied(s3.list_objects_v2, Bucket=BUCKET, Prefix=f"{neighbour}/")
    denied(s3.list_objects_v2, Bucket=BUCKET)
    denied(s3.put_object, Bucket=BUCKET, Key=f"{PREFIX}/new", Body=b"")
    denied(s3.delete_object, Bucket=BUCKET, Key=listed[0]["Key"])


def test_the_expiry_is_the_one_of_the_credentials(server):
    left = ask(server).json["credentials"]["expirationTime"] / 1000 - time.time()
    assert 3500 < left <= 3601


def test_a_delta_reader_reads_the_table_with_them(server, aws):
    credentials = ask(server, "plain").json["credentials"]
    keys = credentials["awsTempCredentials"]
    options = {
        "AWS_ENDPOINT_URL": aws.endpoint, "AWS_REGION": aws.environment["AWS_REGION"], "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": keys["accessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["secretAccessKey"], "AWS_SESSION_TOKEN": keys["sessionToken"],
    }
    table = DeltaTable(credentials["location"], storage_options=options)
    assert sorted(table.to_pyarrow_table().column("id").to_pylist()) == [0, 1, 2]


@pytest.mark.parametrize("location,status", [
    (None, 200), (f"s3://{BUCKET}/{PREFIX}", 200), (f"s3a://{BUCKET}/{PREFIX}/", 200), (f"s3://{BUCKET}/{PREFIX}/_delta_log", 200),
    (f"s3://{BUCKET}/{PREFIX}-evil", 400), (f"s3://{BUCKET}/tables", 400), (f"s3://other/{PREFIX}", 400), ("/etc", 400),
    ("file:///etc", 400), ("nonsense", 400),
])
def test_a_location_that_is_asked_for(server, location, status):
    answer = ask(server, body=None if location is None else {"location": location})
    assert answer.status == status, answer.body
    if status == 400:
        assert "The requested location must be the same as or under" in answer.json["message"]


def test_who_may_not(server):
    for table, status, text in (
        ("closed", 403, "not enabled on table: all.spark.closed"),
        ("local", 403, "not enabled on table: all.spark.local"),
        ("no_history", 400, "history sharing is not enabled on table: all.spark.no_history"),
        ("missing", 404, "does not exist"),
    ):
        answer = ask(server, table)
        assert answer.status == status and text in answer.json["message"], answer.body
    assert ask(server, token=OTHER_TOKEN).status == 404
    assert ask(server, token="dss_unknown").status == 401
    bad = server.request("POST", "/shares/all/schemas/spark/tables/open/temporary-table-credentials", body=b"{")
    assert bad.status == 400 and bad.json["errorCode"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize("form", ["parquet", "delta"])
def test_who_may_is_told_so(server, form):
    headers = {"delta-sharing-capabilities": f"responseformat={form}"}
    for table, told in (("open", True), ("closed", False)):
        line = server.request("GET", f"/shares/all/schemas/spark/tables/{table}/metadata", headers=headers).lines[1]["metaData"]
        listed, = [item for item in server.request("GET", "/shares/all/all-tables").json["items"] if item["name"] == table]
        for shown in (line, listed):
            assert shown.get("accessModes") == (["url", "dir"] if told else None)
            assert shown.get("location") == (f"s3://{BUCKET}/{PREFIX}" if told else None)


def test_the_table_is_read_by_url_too(server):
    answer = server.request("POST", "/shares/all/schemas/spark/tables/open/query", body=b"{}")
    files = [line["file"] for line in answer.lines[2:]]
    assert len(files) == 3
    for file in files:
        assert len(urllib.request.urlopen(file["url"], timeout=10).read()) == file["size"]


@pytest.mark.parametrize("more,reason", [
    ({"historyShared": False}, "historyShared must be true"), ({"startVersion": 1}, "startVersion must be 0"),
    ({"allowedLocations": ["s3://other/t"]}, "allowedLocations names others"), ({"location": "."}, "only a table in S3"),
])
def test_a_share_file_that_gives_too_much_is_refused(tmp_path, more, reason):
    table = {"name": "t", "location": "s3://lake/t", "historyShared": True, "directoryAccess": True, **more}
    path = tmp_path / "shares.yaml"
    path.write_text(json.dumps({"version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [table]}]}]}))
    with pytest.raises(RuntimeError, match=f"directoryAccess of table 't': .*{reason}"):
        Server("--shares", path)
