"""The requests to S3 and DynamoDB that an operation takes, which is what it costs, and what they notice of a table's log."""

import collections
import gzip
import json
import math
import re
import threading
import time
import urllib.parse
import uuid

import pytest
from deltalake import DeltaTable

from conftest import ROOT, SPARK_TABLES, TOKEN, Server, hash_of
from faults import Way, s3_error
from lambda_runtime import Lambda
from test_dynamodb import TABLE, make_table, put
from test_lambda import ask, event_of

BUCKET = "counted"
ROLE = "arn:aws:iam::000000000000:role/signer"
TABLES = "/shares/retail/schemas/sales/tables/"
WARM = {"HEAD": 1, "GET": 1}


class Counter:
    """A rule that counts what passes. `fault(request)` may say that something does not."""

    def __init__(self, kind):
        self.kind, self.fault, self.lock, self.counts = kind, None, threading.Lock(), collections.Counter()

    def __call__(self, request):
        with self.lock:
            self.counts.update(self.kind(request))
        return self.fault(request) if self.fault else None

    def since(self):
        """What was counted since the last call."""
        with self.lock:
            counts, self.counts = self.counts, collections.Counter()
        return dict(counts)


def kind_in_s3(request):
    return ["LIST" if "list-type" in request.query else request.method]


def items_read(request):
    """A strongly consistent read of an item of 4 KB is a read unit, whatever request it is in."""
    operation = request.headers["X-Amz-Target"].split(".")[1]
    body = json.loads(request.body)
    if operation == "BatchGetItem":
        return [operation] * sum(len(table["Keys"]) for table in body["RequestItems"].values())
    if operation == "TransactGetItems":
        return [operation] * len(body["TransactItems"])
    return [operation]


def lines(*actions):
    return "".join(json.dumps(action) + "\n" for action in actions).encode()


def head():
    schema = {"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]}
    return [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "0b7f6a9c-0000-4000-8000-000000000000", "format": {"provider": "parquet", "options": {}},
                      "schemaString": json.dumps(schema), "partitionColumns": [], "configuration": {}}},
    ]


def add(name):
    return {"add": {"path": name, "partitionValues": {}, "size": 1000, "modificationTime": 0, "dataChange": True,
                    "stats": '{"numRecords":1}'}}


class Log:
    """The log of a table in S3, of which each version adds a file."""

    def __init__(self, s3, name):
        self.s3, self.name = s3, name

    def key(self, version):
        return f"{self.name}/_delta_log/{version:020}.json"

    def commit(self, version, prefix="f"):
        actions = [*(head() if version == 0 else []), add(f"{prefix}{version:03}.parquet")]
        self.s3.put_object(Bucket=BUCKET, Key=self.key(version), Body=lines(*actions))

    def create(self, versions, prefix="f"):
        for version in range(versions):
            self.commit(version, prefix)
        return self

    def delete(self, *versions):
        for version in versions:
            self.s3.delete_object(Bucket=BUCKET, Key=self.key(version))


def names(answer):
    assert answer.status == 200, answer.body
    return sorted(urllib.parse.urlsplit(line["file"]["url"]).path.rpartition("/")[2] for line in answer.lines[2:])


def files(versions, prefix="f"):
    return [f"{prefix}{version:03}.parquet" for version in range(versions)]


@pytest.fixture(scope="module")
def aws():
    from aws import Aws

    own = Aws()
    own.client("s3").create_bucket(Bucket=BUCKET)
    yield own
    own.stop()


@pytest.fixture(scope="module")
def s3(aws):
    return aws.client("s3")


@pytest.fixture(scope="module")
def way(aws):
    way = Way(aws.port)
    way.rule = Counter(kind_in_s3)
    yield way
    way.stop()


# ---------------------------------------------------------------------------------------------------------------------------
# What is noticed

class Reader:
    """A server, and a table that it has read."""

    def __init__(self, way, server, log, versions):
        self.way, self.server, self.log = way, server, log
        assert names(self.query()) == files(versions)
        self.way.rule.since()

    def query(self):
        return self.server.request("POST", f"{TABLES}{self.log.name}/query", body=b"{}")

    def version(self):
        answer = self.server.request("GET", f"{TABLES}{self.log.name}/version")
        assert answer.status == 200, answer.body
        return int(answer.headers["delta-table-version"])


@pytest.fixture
def reader(aws, s3, way, tmp_path, request):
    """A server that has read a table of five versions."""
    limits = getattr(request, "param", [])
    log = Log(s3, f"t{abs(hash(request.node.name)):x}").create(5)
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "retail", "schemas": [{"name": "sales", "tables": [
            {"name": log.name, "location": f"s3://{BUCKET}/{log.name}", "historyShared": True}]}]}],
        "recipients": [{"name": "acme", "shares": ["retail"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    way.rule.fault = None
    server = Server("--shares", shares, *(word for limit in limits for word in ("--limit", limit)),
                    env={**aws.environment, "AWS_ENDPOINT_URL_S3": way.endpoint})
    yield Reader(way, server, log, 5)
    way.rule.fault = None
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


def test_a_table_that_was_read_is_not_listed_again(reader):
    for _ in range(3):
        assert names(reader.query()) == files(5)
        assert reader.way.rule.since() == WARM
        assert reader.version() == 4
        assert reader.way.rule.since() == WARM


@pytest.mark.parametrize("reader", [["log_listing_seconds=1"]], indirect=True)
def test_a_table_is_listed_when_the_last_listing_is_old(reader):
    time.sleep(1.5)
    assert names(reader.query()) == files(5)
    assert reader.way.rule.since() == {"LIST": 1}


def test_a_commit_is_in_the_next_answer(reader):
    for version in range(5, 9):
        reader.log.commit(version)
        if version % 2:
            assert names(reader.query()) == files(version + 1)
        else:
            assert reader.version() == version
        # The new commit is read before the listing, and not once more.
        assert reader.way.rule.since() == {"HEAD": 1, "GET": 1, "LIST": 1}
        assert names(reader.query()) == files(version + 1)
        assert reader.way.rule.since() == WARM


@pytest.mark.parametrize("versions", [1, 4, 5, 6, 9])
def test_a_table_that_was_created_again_is_noticed(reader, versions):
    """In the same second, with commits of the same sizes."""
    for prefix in ("g", "h"):
        reader.log.delete(*range(9))
        reader.log.create(versions, prefix)
        assert names(reader.query()) == files(versions, prefix)
        assert reader.version() == versions - 1


def test_a_newest_commit_that_was_deleted_is_noticed(reader):
    reader.log.delete(4)
    assert names(reader.query()) == files(4)
    assert reader.version() == 3


def of_commit(log, version):
    return lambda request: request.path.endswith("/" + log.key(version))


def test_a_missing_file_that_is_forbidden_is_not_taken_for_missing(reader):
    """Without s3:ListBucket, S3 answers 403 for a key that does not exist."""
    is_next = of_commit(reader.log, 5)
    denied = s3_error(403, "AccessDenied")
    reader.way.rule.fault = lambda request: denied if is_next(request) else None
    assert names(reader.query()) == files(5)
    assert reader.way.rule.since() == {"HEAD": 1, "GET": 1, "LIST": 1}
    # It may be there, and then it has to be read.
    reader.log.commit(5)
    refused = reader.query()
    assert refused.status == 400 and "permission denied" in refused.json["message"]
    reader.way.rule.fault = lambda request: denied if is_next(request) or "list-type" in request.query else None
    refused = reader.query()
    assert refused.status == 400 and "permission denied" in refused.json["message"]
    reader.way.rule.fault = None
    assert names(reader.query()) == files(6)


# ---------------------------------------------------------------------------------------------------------------------------
# What is fetched before it is asked for

DELTA = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=v2checkpoint"}


@pytest.fixture
def cold(aws, s3, way, tmp_path):
    """A server, and tables that it has not read: one of commits, and two with a V2 checkpoint and sidecars."""
    log, *with_sidecars = (Log(s3, f"{name}-{uuid.uuid4()}") for name in ("commits", "sidecars", "lies"))
    log.create(5)
    source = SPARK_TABLES / "v2_checkpoint_parquet/_delta_log"
    for table in with_sidecars:
        for file in source.rglob("*"):
            if file.is_file():
                s3.upload_file(str(file), BUCKET, f"{table.name}/_delta_log/{file.relative_to(source)}")
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "retail", "schemas": [{"name": "sales", "tables": [
            {"name": each.name, "location": f"s3://{BUCKET}/{each.name}"} for each in (log, *with_sidecars)]}]}],
        "recipients": [{"name": "acme", "shares": ["retail"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    way.rule.fault = None
    way.rule.since()
    server = Server("--shares", shares, env={**aws.environment, "AWS_ENDPOINT_URL_S3": way.endpoint})
    yield lambda of, headers=None: server.request("POST", f"{TABLES}{of.name}/query", body=b"{}", headers=headers), log, *with_sidecars
    way.rule.fault = None
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


def test_a_failure_of_what_is_fetched_early_is_the_answer_once(cold, way):
    query, log, *_ = cold
    denied, is_second = s3_error(403, "AccessDenied"), of_commit(log, 2)
    way.rule.fault = lambda request: denied if is_second(request) else None
    refused = query(log)
    assert refused.status == 400 and "permission denied" in refused.json["message"]
    asked = way.rule.since()
    assert asked["LIST"] == 1 and asked["GET"] <= 1 + 5 + 1, asked
    way.rule.fault = None
    assert names(query(log)) == files(5)


def test_a_version_checksum_that_cannot_be_read_changes_no_answer(cold, s3, way):
    query, log, *_ = cold
    s3.put_object(Bucket=BUCKET, Key=log.key(4).replace(".json", ".crc"), Body=b"not used")
    denied = s3_error(403, "AccessDenied")
    asked = []
    way.rule.fault = lambda request: asked.append(request.path) or denied if request.path.endswith(".crc") else None
    answer = query(log, DELTA)
    assert answer.status == 200 and answer.lines[1]["metaData"]["numFiles"] == 5
    # Once more if it failed before it was asked for.
    assert 1 <= len(asked) <= 2


@pytest.mark.parametrize("sidecars", [
    lambda files: [{**file, "sizeInBytes": file["sizeInBytes"] + 1} for file in files],
    lambda files: [{**file, "sizeInBytes": 5} for file in files],
    lambda files: [{**file, "sizeInBytes": 0} for file in files],
    lambda files: [{**file, "path": "gone.parquet"} for file in files],
    lambda files: [{**file, "path": f"../../{file['path']}"} for file in files],
    lambda files: files[:1],
    lambda files: [*files, *({"path": f"{number}.parquet", "sizeInBytes": 10} for number in range(1_000))],
    lambda files: None,
])
def test_what_the_hint_says_of_sidecars_changes_no_answer(cold, s3, way, sidecars):
    query, _, table, lying = cold
    hint = json.loads((SPARK_TABLES / "v2_checkpoint_parquet/_delta_log/_last_checkpoint").read_text())
    hint["v2Checkpoint"]["sidecarFiles"] = sidecars(hint["v2Checkpoint"]["sidecarFiles"])
    s3.put_object(Bucket=BUCKET, Key=f"{lying.name}/_delta_log/_last_checkpoint", Body=json.dumps(hint).encode())
    expected = names(query(table))
    way.rule.since()
    assert names(query(lying)) == expected and len(expected) > 3
    # It cannot make the server send many requests.
    assert way.rule.since()["GET"] <= 1 + 2 + 16 + 4


# ---------------------------------------------------------------------------------------------------------------------------
# What is billed

FILES = {"ten": 10, "medium": 24_000, "large": 100_000}


@pytest.fixture(scope="module")
def billed(aws, s3, way, tmp_path_factory):
    """The function, with a table of ten commits and two with a checkpoint, and what counts requests to S3 and DynamoDB."""
    dynamodb, iam = aws.client("dynamodb"), aws.client("iam")
    make_table(dynamodb)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    read = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]}]}
    iam.create_role(RoleName="signer", AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName="signer", PolicyName="read", PolicyDocument=json.dumps(read))
    put(dynamodb, "SHARE#retail", "SHARE", name="Retail", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11")
    put(dynamodb, "SHARE#retail", "SCHEMA#sales", name="Sales")
    for name in FILES:
        put(dynamodb, "SHARE#retail", f"TABLE#sales#{name}", name=name, schema="Sales", id=f"id-{name}",
            location=f"s3://{BUCKET}/{name}", historyShared=True)
    put(dynamodb, "RECIPIENT#acme", "RECIPIENT", name="acme", status="active")
    put(dynamodb, "RECIPIENT#acme", "SHARE#retail", share="Retail", recipient="acme")
    put(dynamodb, f"TOKEN#{hash_of(TOKEN)}", "TOKEN", recipient="acme", id="5f3a9c1e", expires="never")
    Log(s3, "ten").create(10)
    for name in ("medium", "large"):
        directory = tmp_path_factory.mktemp("billed") / name
        log = directory / "_delta_log"
        log.mkdir(parents=True)
        adds = (add(f"part-{number:05}-{uuid.UUID(int=number * 0x9e3779b97f4a7c15f39cc0605cedc835 % 2**128)}.parquet") for number in range(FILES[name]))
        (log / f"{0:020}.json").write_bytes(lines(*head(), *adds))
        DeltaTable(str(directory)).create_checkpoint()
        for file in log.iterdir():
            s3.upload_file(str(file), BUCKET, f"{name}/_delta_log/{file.name}")
    to_dynamodb = Way(urllib.parse.urlsplit(aws.dynamodb).port)
    to_dynamodb.rule = Counter(items_read)
    way.rule.fault = None
    function = Lambda({**aws.environment, "DELTASHARE_TABLE": TABLE, "DELTASHARE_SIGNER_ROLE_ARN": ROLE,
                       "AWS_ENDPOINT_URL_S3": way.endpoint, "AWS_ENDPOINT_URL_DYNAMODB": to_dynamodb.endpoint,
                       # A debug build may take longer than a minute for the large answer.
                       "DELTASHARE_LIMITS": "log_listing_seconds=3600"}, seconds=150)
    yield function, way.rule, to_dynamodb.rule
    function.stop()
    to_dynamodb.stop()
    assert "panicked" not in "".join(function.log) and not function.errors


def query_on_lambda(function, name, body=b"{}"):
    """How many lines the answer has."""
    answer = ask(function, "POST", f"{TABLES}{name}/query", body=body, headers={"Accept-Encoding": "gzip"})
    assert answer.status == 200, answer.body
    text = gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body
    return text.count(b"\n")


def rows_of_costs(heading):
    """What each row below a heading of the page on costs multiplies."""
    section = (ROOT / "infra/cost.md").read_text().split(f"\n### {heading}\n")[1].split("\n#")[0]
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| [\d.]+ \|$", section, re.M))


@pytest.mark.parametrize("name,heading", [
    ("ten", "Querying a table of ten files"), ("medium", "The first 6 MB of an answer"), ("large", "Querying a table of 100,000 files"),
])
def test_the_page_on_costs_has_the_requests_of_a_query(billed, name, heading):
    function, in_s3, in_dynamodb = billed
    query_on_lambda(function, name, b'{"maxFiles":1}')
    in_s3.since(), in_dynamodb.since()
    assert query_on_lambda(function, name) == FILES[name] + 2
    asked, read = in_s3.since(), in_dynamodb.since()
    print(f"{name}: {asked} {read}")
    assert set(asked) <= {"HEAD", "GET"}
    rows = rows_of_costs(heading)
    assert rows["S3, HEAD and GET"] == f"{asked['HEAD'] + asked['GET']} × 0.40"
    assert rows["DynamoDB: token, recipient, grant, share and table"] == f"{sum(read.values())} × 0.125"


# As API Gateway and CloudFormation give them, with the longest text that an event keeps of a client.
USUAL = {"FunctionName": "deltashare-Function-0123456789AB", "source_ip": "203.0.113.100", "user_agent": "x" * 128}


@pytest.mark.parametrize("heading,method,path", [
    ("Listing shares, schemas or tables", "GET", "/shares"),
    ("Querying a table of ten files", "POST", f"{TABLES}ten/query"),
    ("Querying a table of 100,000 files", "POST", f"{TABLES}large/query"),
    ("The first 6 MB of an answer", "POST", f"{TABLES}medium/query"),
])
def test_the_page_on_costs_has_the_size_of_an_event(billed, heading, method, path):
    function, _, _ = billed
    lines = []
    for _ in range(2):
        answer = ask(function, method, path, body=b'{"maxFiles":10}' if method == "POST" else None,
                     headers={"User-Agent": USUAL["user_agent"], "Accept-Encoding": "gzip"})
        event = event_of(function, answer.headers["x-request-id"])
        lines = [line for line in list(function.log) if event["request.id"] in line]
    # Nothing else is logged of a request.
    assert len(lines) == 1 and not {"cold", "init_ms"} & set(event) and answer.status == 200
    event.pop("memory_mb", None)
    measured = len(json.dumps(event | USUAL, separators=(",", ":"))) + 1
    print(f"{heading}: {measured} bytes")
    told = math.ceil(measured / 100) / 10
    assert rows_of_costs(heading)[f"logs, {told} KB each"] == f"{told} × 0.50"


def test_the_page_on_costs_has_the_size_of_the_event_of_an_unknown_token(billed):
    function, _, _ = billed
    answer = ask(function, "GET", "/shares", token="dss_unknown", headers={"User-Agent": USUAL["user_agent"]})
    event = event_of(function, answer.headers["x-request-id"])
    event.pop("memory_mb", None)
    measured = len(json.dumps(event | USUAL, separators=(",", ":"))) + 1
    print(f"unknown token: {measured} bytes")
    told = math.ceil(measured / 100) / 10 * 0.50
    assert f"3.50 + 0.20 + 0.13 + 0.125 + {told:.2f} = " in (ROOT / "infra/cost.md").read_text()
