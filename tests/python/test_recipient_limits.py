"""Limits of recipients: requests in a minute and bytes in a day, counted in memory or in DynamoDB."""

import concurrent.futures
import datetime
import http.client
import json
import re
import time

import pytest

from conftest import Server, hash_of
from faults import RESET, Way, answer, aws, wait_until  # noqa: F401
from lambda_runtime import Lambda
from test_addresses import ASYNC, ask, token
from test_admin import bucket, items, retail, world  # noqa: F401
from test_check import role
from test_dynamodb import TABLE, make_table, put

BUCKET = "usage"
TABLES = "/shares/s/schemas/d/tables"
LIMITS = {"few": {"requestsPerMinute": 10}, "bytes": {"bytesPerDay": 1}, "both": {"requestsPerMinute": 1000, "bytesPerDay": 10**12}, "free": {}}
SHARED = ["change_data_feed", "deletion_vectors", "py_odd_partitions"]
DELTA = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors"}
WARNING = "a recipient has used 80 % of a limit"


@pytest.fixture(scope="module")
def stack(aws, tables):  # noqa: F811
    s3, dynamodb = aws.client("s3"), aws.client("dynamodb")
    s3.create_bucket(Bucket=BUCKET)
    for name in SHARED:
        for file in tables[name].rglob("*"):
            if file.is_file():
                s3.upload_file(str(file), BUCKET, f"{name}/{file.relative_to(tables[name])}")
    aws.signer = role(aws, "usage-signer", {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"})
    make_table(dynamodb)
    put(dynamodb, "SHARE#s", "SHARE", name="s", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11")
    put(dynamodb, "SHARE#s", "SCHEMA#d", name="d")
    for name in SHARED:
        put(dynamodb, "SHARE#s", f"TABLE#d#{name}", name=name, schema="d", id=f"id-{name}", location=f"s3://{BUCKET}/{name}",
            historyShared=True, directoryAccess=True)
    for name, limits in LIMITS.items():
        put(dynamodb, f"RECIPIENT#{name}", "RECIPIENT", name=name, status="active", **({"format": 2, **limits} if limits else {}))
        put(dynamodb, f"RECIPIENT#{name}", "SHARE#s", share="s", recipient=name)
        put(dynamodb, f"TOKEN#{hash_of(token(name))}", "TOKEN", recipient=name, id="1", expires="never")
    return aws


@pytest.fixture
def used(stack):
    """What is counted, by recipient and window; nothing at first."""
    client = stack.client("dynamodb")

    def read():
        return {key: int(item["used"]["N"]) for key, item in items(client, TABLE).items() if key[0].startswith("USAGE#")}

    for pk, sk in read():
        client.delete_item(TableName=TABLE, Key={"pk": {"S": pk}, "sk": {"S": sk}})
    return read


@pytest.fixture(scope="module", params=["serve", "function"])
def front(request, stack):
    if request.param == "function":
        server = Lambda({**stack.environment, "DELTASHARE_TABLE": TABLE, "DELTASHARE_SIGNER_ROLE_ARN": stack.signer})
    else:
        server = serve(stack)
    yield server
    server.stop()
    assert "panicked" not in "".join(server.log)


def serve(stack, **environment):
    return Server("--catalog", f"dynamodb:{TABLE}", "--signer-role", stack.signer, "--directory-role", stack.signer,
                  env={**stack.environment, **environment})


def write_share_file(path, location):
    recipients = [{"name": name, "shares": ["s"], "tokens": [{"sha256": hash_of(token(name)), "expires": "never"}], **limits}
                  for name, limits in LIMITS.items()]
    tables = [{"name": "t", "location": str(location)}]
    path.write_text(json.dumps({"version": 1, "recipients": recipients, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": tables}]}]}))
    return path


def within_a_minute():
    """Waits for the next minute if this one ends soon."""
    left = 60 - time.time() % 60
    if left < 40:
        time.sleep(left + 0.1)


def get(endpoint, recipient, path="/shares", method="GET", **more):
    return ask(endpoint, "127.0.0.1", recipient, method, path, **more)


def query(endpoint, recipient, table, body=b"{}", headers=None):
    return get(endpoint, recipient, f"{TABLES}/{table}/query", "POST", body=body, headers=headers)


def is_refused(refused, seconds, text):
    assert refused.status == 429, refused.body
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= seconds
    assert refused.json["errorCode"] == "REQUEST_LIMIT_EXCEEDED" and text in refused.json["message"]
    return wait


def warnings(*servers):
    return sum(WARNING in line for server in servers for line in server.log)


def at_once(count, call):
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        return sorted(threads.map(call, range(count)))


def test_of_twenty_requests_at_once_ten_pass(stack, used):
    """Of two servers together."""
    servers = [serve(stack), serve(stack)]
    within_a_minute()
    try:
        statuses = at_once(20, lambda number: get(servers[number % 2].endpoint, "few").status)
        assert statuses == [200] * 10 + [429] * 10
        [(key, count)] = used().items()
        assert key[0] == "USAGE#few" and re.fullmatch(r"MINUTE#\d{4}-\d\d-\d\dT\d\d:\d\d", key[1]) and count == 10
        item = items(stack.client("dynamodb"), TABLE)[key]
        begin = datetime.datetime.fromisoformat(key[1][7:] + "+00:00").timestamp()
        assert item["format"] == {"N": "1"} and item["deleteAfter"] == {"N": str(int(begin) + 60 + 3600)}
        # Nobody else is refused, and nothing is written for who has no limit.
        assert all(get(server.endpoint, "free").status == 200 for server in servers) and len(used()) == 1
        wait_until(lambda: warnings(*servers))
        assert warnings(*servers) == 1
    finally:
        assert [server.stop() for server in servers] == [0, 0]


def test_a_server_with_a_share_file_counts_in_memory(tables, tmp_path):
    server = Server("--shares", write_share_file(tmp_path / "shares.yaml", tables["py_versions"]))
    within_a_minute()
    try:
        assert at_once(20, lambda _: get(server.endpoint, "few").status) == [200] * 10 + [429] * 10
        is_refused(get(server.endpoint, "few"), 60, "a limit of 10 requests per minute")
        assert get(server.endpoint, "free").status == 200
        line = re.sub(r"\x1b\[[0-9;]*m", "", server.wait_for_log(WARNING))
        assert 'recipient="few"' in line and 'limit.name="requestsPerMinute"' in line and "used=8" in line
        # The limit of a day is noticed after the answer that passes it.
        assert query(server.endpoint, "bytes", "t").status == 200
        is_refused(get(server.endpoint, "bytes"), 24 * 3600, "a limit of 1B per day")
        assert query(server.endpoint, "both", "t").status == 200 and get(server.endpoint, "both").status == 200
        wait_until(lambda: warnings(server) >= 2)
        assert warnings(server) == 2
    finally:
        assert server.stop() == 0


def test_every_route_counts_once_and_is_refused(front, used, stack):
    path = f"{TABLES}/change_data_feed"
    query_id = query(front.endpoint, "free", "change_data_feed", headers=ASYNC).lines[0]["queryStatus"]["queryId"]
    routes = [
        ("GET", "/shares", None), ("GET", "/shares/s", None), ("GET", "/shares/s/schemas", None), ("GET", "/shares/s/schemas/d/tables", None),
        ("GET", "/shares/s/all-tables", None), ("HEAD", path, None), ("GET", f"{path}/version", None), ("GET", f"{path}/metadata", None),
        ("POST", f"{path}/query", b"{}"), ("GET", f"{path}/changes?startingVersion=0", None), ("POST", f"{path}/queries/{query_id}", b"{}"),
        ("POST", f"{path}/temporary-table-credentials", b"{}"), ("GET", "/shares/no+such+share/all-tables", None),
        ("GET", "/shares/s/schemas/no+such/tables", None), ("GET", f"{TABLES}/no+such/version", None),
    ]
    client = stack.client("dynamodb")
    for method, route, body in routes:
        within_a_minute()
        for pk, sk in used():
            client.delete_item(TableName=TABLE, Key={"pk": {"S": pk}, "sk": {"S": sk}})
        assert get(front.endpoint, "few", route, method, body=body).status in (200, 404), route
        [(key, count)] = used().items()
        assert count == 1, (route, count)
        client.update_item(TableName=TABLE, Key={"pk": {"S": key[0]}, "sk": {"S": key[1]}}, UpdateExpression="SET used = :all",
                           ExpressionAttributeValues={":all": {"N": "10"}})
        refused = get(front.endpoint, "few", route, method, body=body)
        assert refused.status == 429, route
        if method != "HEAD":
            is_refused(refused, 60, "a limit of 10 requests per minute")
        assert get(front.endpoint, "free", route, method, body=body).status in (200, 404)
        # The next minute has an item of its own.
        client.delete_item(TableName=TABLE, Key={"pk": {"S": key[0]}, "sk": {"S": key[1]}})
        assert get(front.endpoint, "few", route, method, body=body).status in (200, 404), route
    # What is not good enough to be read for is not counted.
    before = used()
    assert get(front.endpoint, "unknown").status == 401 and get(front.endpoint, "few", "/nothing").status == 404
    assert get(front.endpoint, "few", f"{path}/query", "POST", body=b"{").status == 400 and used() == before


def day(used):
    return {key[0]: count for key, count in used().items() if key[1] == f"DAY#{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"}


def sizes(lines):
    """The bytes behind the URLs of an answer in delta format."""
    total = 0
    for line in lines:
        action = line.get("file", {}).get("deltaSingleAction", {})
        for kind in ("add", "cdc", "remove"):
            if kind in action:
                total += action[kind]["size"]
                total += action[kind].get("deletionVector", {}).get("sizeInBytes", 0)
    return total


def test_bytes_of_files_and_of_deletion_vectors_count_for_the_day(front, used, stack):
    sum_of = 0
    for ask_for in (
        lambda: query(front.endpoint, "both", "deletion_vectors", headers=DELTA),
        lambda: query(front.endpoint, "both", "py_odd_partitions", b'{"maxFiles": 2}', headers=DELTA),
        lambda: get(front.endpoint, "both", f"{TABLES}/change_data_feed/changes?startingVersion=0", headers=DELTA),
    ):
        found = ask_for()
        assert found.status == 200 and sizes(found.lines) > 0
        sum_of += sizes(found.lines)
        assert day(used) == {"USAGE#both": sum_of}
    assert any("deletionVector" in json.dumps(line) for line in query(front.endpoint, "both", "deletion_vectors", headers=DELTA).lines)
    before = day(used)
    for path in ("/shares", f"{TABLES}/py_odd_partitions/metadata", f"{TABLES}/py_odd_partitions/version"):
        assert get(front.endpoint, "both", path).status == 200
    assert query(front.endpoint, "both", "py_odd_partitions", headers=ASYNC).status == 200
    assert day(used) == before, "these have no URLs"
    assert not [key for key in used() if key[0] == "USAGE#free"]


def test_the_answer_that_passes_the_limit_of_the_day_is_the_last_one(front, used, stack):
    client = stack.client("dynamodb")
    before = warnings(front)
    assert get(front.endpoint, "bytes").status == 200
    assert query(front.endpoint, "bytes", "py_odd_partitions").status == 200
    now = datetime.datetime.now(datetime.timezone.utc)
    for _ in range(2):
        wait = is_refused(query(front.endpoint, "bytes", "py_odd_partitions"), 24 * 3600, "a limit of 1B per day")
        assert abs(wait - (24 * 3600 - (now.hour * 3600 + now.minute * 60 + now.second))) < 60
        assert get(front.endpoint, "bytes").status == 429
    [key] = [key for key in used() if key[1].startswith("DAY#")]
    client.update_item(TableName=TABLE, Key={"pk": {"S": key[0]}, "sk": {"S": key[1]}}, UpdateExpression="SET used = :none",
                       ExpressionAttributeValues={":none": {"N": "0"}})
    assert get(front.endpoint, "bytes").status == 200
    wait_until(lambda: warnings(front) > before)
    assert warnings(front) == before + 1
    # A sum that is no number is not taken for nothing.
    client.put_item(TableName=TABLE, Item={"pk": {"S": key[0]}, "sk": {"S": key[1]}, "used": {"S": "0"}})
    assert get(front.endpoint, "bytes").status == 503
    client.delete_item(TableName=TABLE, Key={"pk": {"S": key[0]}, "sk": {"S": key[1]}})


def test_who_has_a_limit_of_bytes_gets_no_credentials_for_a_directory(front, used):
    for recipient, status in (("both", 403), ("few", 200), ("free", 200)):
        if recipient == "few":
            within_a_minute()
        assert get(front.endpoint, recipient, f"{TABLES}/py_odd_partitions/temporary-table-credentials", "POST", body=b"{}").status == status
        listed = get(front.endpoint, recipient, "/shares/s/all-tables").json["items"]
        assert all(("accessModes" in item) == (status == 200) for item in listed)


@pytest.mark.parametrize("fault", [
    answer(400, json.dumps({"__type": "com.amazon.coral.service#AccessDeniedException", "message": "as told"}), "application/x-amz-json-1.0"), RESET,
], ids=["denied", "reset"])
def test_who_cannot_be_counted_is_not_served(stack, used, fault):
    way = Way(int(stack.dynamodb.rpartition(":")[2]))
    server = serve(stack, AWS_ENDPOINT_URL_DYNAMODB=way.endpoint)
    try:
        assert query(server.endpoint, "both", "py_odd_partitions").status == 200
        way.rule = lambda request: fault if request.headers["X-Amz-Target"].endswith(".UpdateItem") else None
        for recipient, path in (("few", "/shares"), ("both", "/shares"), ("few", "/shares/s")):
            refused = get(server.endpoint, recipient, path)
            assert refused.status == 503 and "retry-after" in refused.headers, refused.body
        assert get(server.endpoint, "free").status == query(server.endpoint, "free", "py_odd_partitions").status == 200
        # At the end of an answer: it is not whole without its count.
        assert get(server.endpoint, "bytes").status == 200
        assert query(server.endpoint, "bytes", "py_odd_partitions").status == 503
        if fault != RESET:
            server.wait_for_log("dynamodb:UpdateItem for items whose partition key begins with USAGE#")
        # The sum cannot be read.
        way.rule = lambda request: fault if request.headers["X-Amz-Target"].endswith(".GetItem") and b"USAGE#" in request.body else None
        assert get(server.endpoint, "bytes").status == 503 and get(server.endpoint, "few").status == 200
    finally:
        way.rule = None
        assert server.stop() == 0
        way.stop()


def test_what_a_client_does_not_read_to_its_end_counts_too(tables, tmp_path):
    table = tmp_path / "many"
    (table / "_delta_log").mkdir(parents=True)
    first = tables["py_versions"] / "_delta_log" / f"{0:020}.json"
    head = [line for line in first.read_text().splitlines() if "metaData" in line or "protocol" in line]
    adds = (json.dumps({"add": {"path": f"part-{number:06}.parquet", "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": True}})
            for number in range(100_000))
    (table / "_delta_log" / f"{0:020}.json").write_text("\n".join([*head, *adds]) + "\n")
    server = Server("--shares", write_share_file(tmp_path / "shares.yaml", table))
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", f"/delta-sharing{TABLES}/t/query", b"{}", {"Authorization": f"Bearer {token('bytes')}"})
        answered = connection.getresponse()
        assert answered.status == 200 and answered.read(10_000)
        assert get(server.endpoint, "bytes").status == 200, "the answer is not over"
        connection.close()
        answered.close()
        end = time.monotonic() + 60
        while get(server.endpoint, "bytes").status == 200 and time.monotonic() < end:
            time.sleep(0.1)
        is_refused(get(server.endpoint, "bytes"), 24 * 3600, "per day")
        server.wait_for_log(" gone ")
    finally:
        server.stop()


@pytest.mark.parametrize("key,value,reason", [
    ("requestsPerMinute", 0, "must be from 1 to 60000"), ("requestsPerMinute", -1, "not a whole number"), ("requestsPerMinute", "many", "not a whole number"),
    ("requestsPerMinute", 60001, "must be from 1 to 60000"), ("requestsPerMinute", 1.5, "not a whole number"), ("requestsPerMinute", None, "has no value"),
    ("requestsPerMinute", {"a": 1}, "it is not a number"), ("bytesPerDay", "10 apples", "not a number of bytes such as 10GB"),
    ("bytesPerDay", "0GB", "must be from 1 to 1000000TB"), ("bytesPerDay", None, "has no value"), ("bytesPerDay", "10gb", "not a number of bytes"),
])
def test_a_share_file_with_a_wrong_limit_is_refused(tmp_path, tables, key, value, reason):
    path = write_share_file(tmp_path / "shares.yaml", tables["py_versions"])
    content = json.loads(path.read_text())
    content["recipients"][3][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(RuntimeError) as refused:
        Server("--shares", path)
    assert reason in str(refused.value)


def test_commands_set_and_show_and_remove_limits(world, tmp_path):  # noqa: F811
    admin, server, client, table = world
    retail(admin, tmp_path)

    def record():
        return items(client, table)["RECIPIENT#globex", "RECIPIENT"]

    for option, wrong in (("--requests-per-minute", "0"), ("--requests-per-minute", "many"), ("--bytes-per-day", "10gb"), ("--bytes-per-day", "0")):
        assert "invalid value" in admin.error(2, "recipient", "create", "globex", option, wrong)
    admin.run("recipient", "create", "globex", "--requests-per-minute", "600", "--bytes-per-day", "10GB")
    assert (record()["format"], record()["requestsPerMinute"], record()["bytesPerDay"]) == ({"N": "2"}, {"N": "600"}, {"N": "10000000000"})
    shown = admin.json("recipient", "show", "globex")
    assert (shown["requestsPerMinute"], shown["bytesPerDay"]) == (600, 10_000_000_000)
    exported = admin.run("export").stdout
    assert "  requestsPerMinute: 600\n  bytesPerDay: 10GB\n" in exported
    file = tmp_path / "shares.yaml"

    def plan_and_apply(text):
        file.write_text(text)
        planned = admin.run("plan", "-f", file).stdout
        assert admin.run("apply", "-f", file).stdout == planned and admin.run("plan", "-f", file).stdout == ""
        return planned

    assert plan_and_apply(exported) == plan_and_apply(exported.replace("10GB", "10000000000")) == ""
    assert plan_and_apply(exported.replace("600", "60").replace("10GB", "'5 GiB'")) == (
        "~ recipient globex: requestsPerMinute 600 -> 60, bytesPerDay 10GB -> 5GiB\n")
    assert plan_and_apply(exported.replace("  requestsPerMinute: 600\n", "")) == (
        "~ recipient globex: requestsPerMinute 60 -> none, bytesPerDay 5GiB -> 10GB (removes a restriction)\n")
    admin.run("recipient", "update", "globex", "--requests-per-minute", "5", "--allowed-ip", "192.0.2.1", "--no-bytes-per-day")
    assert "bytesPerDay" not in record() and record()["requestsPerMinute"] == {"N": "5"} and record()["format"] == {"N": "2"}
    admin.run("recipient", "update", "globex", "--no-requests-per-minute", "--comment", "x")
    assert "requestsPerMinute" not in record() and record()["format"] == {"N": "2"}
    admin.run("recipient", "update", "globex", "--no-allowed-ips")
    assert record()["format"] == {"N": "1"}
    # Sums are neither exported nor compared, and no command reports them.
    put_usage = {"pk": {"S": "USAGE#globex"}, "sk": {"S": "DAY#2026-11-27"}, "format": {"N": "1"}, "used": {"N": "5"}}
    client.put_item(TableName=table, Item=put_usage)
    assert "USAGE" not in admin.run("export").stdout and admin.run("check").stderr.count("USAGE") == 0
