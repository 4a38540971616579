"""The Lambda binary, started as Lambda starts it: DynamoDB, S3 and STS of our own behind it, API Gateway before it."""

import datetime
import gzip
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request

import canonical
import delta_sharing
import pytest

from conftest import Answer, TOKEN, hash_of, write_profile
from faults import wait_until
from lambda_runtime import BINARY, Lambda
from test_dynamodb import TABLE, make_table, put

BUCKET = "on-lambda"
OTHER_BUCKET = "of-another-account"
ROLE = "arn:aws:iam::000000000000:role/signer"
OTHER_ROLE = "arn:aws:iam::000000000000:role/other-signer"
SHARED = ["py_versions", "py_odd_partitions", "change_data_feed", "deletion_vectors", "mapped_and_deleted"]
MANY = 100_000


@pytest.fixture(scope="module")
def stack(tables, tmp_path_factory):
    from aws import Aws

    aws = Aws()
    dynamodb, s3, iam = aws.client("dynamodb"), aws.client("s3"), aws.client("iam")
    make_table(dynamodb)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    for role, bucket in ((ROLE, BUCKET), (OTHER_ROLE, OTHER_BUCKET)):
        s3.create_bucket(Bucket=bucket)
        name = role.rpartition("/")[2]
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        read = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}]}
        iam.put_role_policy(RoleName=name, PolicyName="read", PolicyDocument=json.dumps(read))
    put(dynamodb, "SHARE#retail", "SHARE", name="Retail", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11")
    put(dynamodb, "SHARE#retail", "SCHEMA#sales", name="Sales")
    for name in SHARED:
        for file in tables[name].rglob("*"):
            if file.is_file():
                s3.upload_file(str(file), BUCKET, f"{name}/{file.relative_to(tables[name])}")
    head = [line for line in (tables["py_versions"] / "_delta_log" / f"{0:020}.json").read_text().splitlines()
            if "metaData" in line or "protocol" in line]
    adds = (json.dumps({"add": {"path": f"part-{number:06}.parquet", "partitionValues": {}, "size": 1, "modificationTime": 0,
                                "dataChange": True, "stats": '{"numRecords":1}'}}) for number in range(MANY))
    s3.put_object(Bucket=BUCKET, Key=f"many/_delta_log/{0:020}.json", Body="\n".join([*head, *adds]).encode())
    for name in [*SHARED, "many"]:
        put(dynamodb, "SHARE#retail", f"TABLE#sales#{name}", name=name, schema="Sales", id=f"id-{name}",
            location=f"s3://{BUCKET}/{name}", historyShared=True)
    put(dynamodb, "RECIPIENT#acme", "RECIPIENT", name="acme", status="active")
    put(dynamodb, "RECIPIENT#acme", "SHARE#retail", share="Retail", recipient="acme")
    put(dynamodb, f"TOKEN#{hash_of(TOKEN)}", "TOKEN", recipient="acme", id="1", expires="never")
    yield aws
    aws.stop()


def start(stack, **more):
    environment = {**stack.environment, "DELTASHARE_TABLE": TABLE, "DELTASHARE_SIGNER_ROLE_ARN": ROLE, **more.pop("environment", {})}
    return Lambda(environment, **more)


@pytest.fixture(scope="module")
def function(stack):
    # A debug build takes half a minute to compress a large answer.
    function = start(stack, seconds=150)
    yield function
    function.stop()
    log = "".join(function.log)
    assert "panicked" not in log and not function.errors
    for secret in (TOKEN, hash_of(TOKEN), "X-Amz-Signature"):
        assert secret not in log, "a secret is in the log"


@pytest.fixture(scope="module")
def profile(function, tmp_path_factory):
    return write_profile(tmp_path_factory.mktemp("lambda") / "acme.share", function.endpoint, TOKEN)


def ask(function, method, path, body=None, headers=None, token=TOKEN, prefix="/delta-sharing"):
    connection = http.client.HTTPConnection("127.0.0.1", function.port, timeout=60)
    try:
        sent = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        connection.request(method, prefix + path, body=body, headers=sent)
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def test_nothing_is_left_to_open_at_the_first_event(stack):
    times, memory = [], []
    for _ in range(20):
        function = start(stack)
        times.append(function.started_after())
        memory.append(function.memory())
        assert function.connections(stack.port) >= 1, "DynamoDB is not connected to"
        end = time.monotonic() + 10
        while not any("the signer role was assumed" in line for line in function.log):
            assert time.monotonic() < end
            time.sleep(0.01)
        function.stop()
    print(f"start to first poll: median {sorted(times)[10] * 1000:.1f} ms; memory then: {sorted(memory)[10]:.1f} MB; "
          f"binary: {BINARY.stat().st_size / 1e6:.1f} MB")


def test_lists(profile):
    client = delta_sharing.SharingClient(str(profile))
    assert sorted(table.name for table in client.list_all_tables()) == sorted([*SHARED, "many"])


@pytest.mark.parametrize("name,form", [
    *((name, form) for name in SHARED for form in (True, False)
      if form or name not in ("deletion_vectors", "mapped_and_deleted")),
])
def test_rows(profile, tables, name, form):
    frame = delta_sharing.load_as_pandas(f"{profile}#retail.sales.{name}", use_delta_format=form)
    assert canonical.rows(frame.to_dict("records")) == json.loads((tables[name] / "expected.json").read_text())


def test_changes(profile, tables):
    frame = delta_sharing.load_table_changes_as_pandas(f"{profile}#retail.sales.change_data_feed", starting_version=0)
    records = canonical.rows(frame.drop(columns="_commit_timestamp").to_dict("records"))
    assert records == json.loads((tables["change_data_feed"] / "expected-changes.json").read_text())


TABLE_PATH = "/shares/retail/schemas/sales/tables/"


def test_every_kind_of_request(function):
    assert ask(function, "HEAD", f"{TABLE_PATH}py_versions").headers["delta-table-version"] == "3"
    for path in ("//shares", "/shares/", "/shares?maxResults=1&x=%20+y", "/shares/Ret%61il"):
        assert ask(function, "GET", path).status == 200, path
    assert ask(function, "GET", "/shares/a%2Fb").status == 404
    assert ask(function, "GET", "/nothing").status == 404
    assert ask(function, "DELETE", "/shares").status == 405
    assert ask(function, "GET", "/health", token=None).body == b"ok\n"
    answer = ask(function, "GET", "/shares", token="dss_unknown")
    assert answer.status == 401 and answer.json["errorCode"] == "UNAUTHENTICATED" and "content-length" not in answer.headers
    # The id in the answer is the one of the invocation, and of the log.
    refused = ask(function, "POST", f"{TABLE_PATH}py_versions/query", body=b"{")
    assert refused.status == 400
    end = time.monotonic() + 10
    while not any(refused.headers["x-request-id"] in line for line in function.log):
        assert time.monotonic() < end
        time.sleep(0.05)


def event_of(function, request_id):
    """The event of a request, with its metrics."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        lines = [json.loads(line) for line in list(function.log) if line.startswith("{")]
        found = [line for line in lines if line.get("request.id") == request_id and "Action" in line]
        if found:
            assert len(found) == 1
            return found[0]
        time.sleep(0.05)
    raise AssertionError("the log has no event of the request")


def metrics_of(event):
    """The metrics that CloudWatch takes out of an event, by their dimensions: {dimensions: {name: value}}."""
    found = {}
    for directive in event["_aws"]["CloudWatchMetrics"]:
        assert directive["Namespace"] == "deltashare"
        for dimensions in directive["Dimensions"]:
            assert all(isinstance(event[name], str) for name in dimensions)
            metrics = found.setdefault(tuple(dimensions), {})
            for metric in directive["Metrics"]:
                assert metric["Name"] not in metrics and isinstance(event[metric["Name"]], int)
                assert metric.get("Unit") in (None, "Milliseconds", "Bytes", "Seconds")
                metrics[metric["Name"]] = event[metric["Name"]]
    assert abs(event["_aws"]["Timestamp"] / 1000 - time.time()) < 3600
    return found


@pytest.mark.parametrize("level", ["trace", "lambda_runtime=trace,lambda_http=trace,aws_smithy_runtime=trace,aws_sigv4=trace,hyper=trace,deltashare=trace"])
def test_no_secret_is_logged_however_much_is_asked_for(stack, level):
    """What the function is built of logs events, requests and signatures."""
    function = start(stack, environment={"RUST_LOG": level})
    try:
        assert ask(function, "GET", "/shares").status == 200
        answer = ask(function, "POST", f"{TABLE_PATH}py_versions/query", body=b"{}")
        assert answer.status == 200
        event_of(function, answer.headers["x-request-id"])
    finally:
        function.stop()
    log = "".join(function.log)
    secrets = (TOKEN, "Bearer", "X-Amz-Signature", "SecretAccessKey", "SessionToken", "AWS4-HMAC-SHA256")
    for secret in secrets:
        assert secret not in log, "a secret is in the log"
    targets = {json.loads(line)["target"].split("::")[0] for line in function.log if '"level":"TRACE"' in line or '"level":"DEBUG"' in line}
    assert targets <= {"deltashare", "lambda"}, targets


def test_each_request_is_an_event_and_metrics(function):
    ask(function, "GET", "/health")
    answer = ask(function, "POST", f"{TABLE_PATH}py_odd_partitions/query", body=b"{}", headers={"User-Agent": "tests/1"})
    files = [line["file"] for line in answer.lines[2:]]
    event = event_of(function, answer.headers["x-request-id"])
    assert (event["recipient"], event["token.id"], event["Action"]) == ("acme", "1", "QueryTable")
    assert (event["object"], event["version"], event["format"]) == ("Retail.Sales.py_odd_partitions", 0, "parquet")
    assert (event["http.status"], event["user_agent"], event["source_ip"]) == (200, "tests/1", "127.0.0.1")
    assert (event["level"], event["message"]) == ("INFO", "answered") and "cold" not in event
    assert abs(datetime.datetime.fromisoformat(event["timestamp"]).timestamp() - time.time()) < 60
    size = sum(file["size"] for file in files)
    assert 1800 < event["ShortestUrlLife"] <= 3600 and event["Latency"] >= 0
    watched = {"ShortestUrlLife": event["ShortestUrlLife"]}
    assert metrics_of(event) == {
        ("FunctionName", "Action"): {"Latency": event["Latency"], "FilesSigned": len(files), "BytesGranted": size, **watched},
        ("FunctionName",): watched,
    }
    assert event["FunctionName"] == "deltashare" and not {"Errors", "Gone", "Broken", "AuthFailures", "ProviderFaults"} & set(event)

    refused = ask(function, "GET", "/shares", token="dss_unknown")
    event = event_of(function, refused.headers["x-request-id"])
    assert event["message"] == "refused" and event["error.code"] == "UNAUTHENTICATED" and "recipient" not in event
    assert metrics_of(event) == {
        ("FunctionName", "Action"): {"Latency": event["Latency"], "AuthFailures": 1}, ("FunctionName",): {"AuthFailures": 1}}


def test_the_first_event_of_an_instance_says_how_it_started(stack):
    function = start(stack)
    try:
        first, second = (event_of(function, ask(function, "GET", "/shares").headers["x-request-id"]) for _ in range(2))
    finally:
        function.stop()
    assert first["cold"] is True and 0 < first["init_ms"] < 20_000 and 5 < first["memory_mb"] < 500
    assert not {"cold", "init_ms"} & set(second) and second.get("memory_mb", 500) > first["memory_mb"]


def test_a_long_user_agent_is_cut(function):
    answer = ask(function, "GET", "/shares", headers={"User-Agent": "é" + "x" * 500})
    assert "user_agent" not in event_of(function, answer.headers["x-request-id"]), "it is not ASCII"
    answer = ask(function, "GET", "/shares", headers={"User-Agent": "x" * 500})
    assert event_of(function, answer.headers["x-request-id"])["user_agent"] == "x" * 128


def test_urls_are_signed_by_the_role_and_by_no_other(function):
    answer = ask(function, "POST", f"{TABLE_PATH}py_versions/query", body=b"{}")
    file = answer.lines[2]["file"]
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(file["url"]).query)
    assert query["X-Amz-Security-Token"] and not query["X-Amz-Credential"][0].startswith("test/")
    life = file["expirationTimestamp"] / 1000 - time.time()
    assert 1800 < life <= 3600 and abs(int(query["X-Amz-Expires"][0]) - life) < 60
    assert len(urllib.request.urlopen(file["url"], timeout=10).read()) == file["size"]
    for changed in (
        file["url"].replace("/py_versions/", "/many/"),
        file["url"].replace("X-Amz-Expires=", "X-Amz-Expires=9"),
        file["url"][:-1] + ("0" if file["url"][-1] != "0" else "1"),
    ):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(changed, timeout=10)
        assert raised.value.code in (400, 403)


def test_a_table_is_read_and_signed_by_its_own_role(stack, function, profile, tables):
    s3, dynamodb, name = stack.client("s3"), stack.client("dynamodb"), "py_versions"
    for file in tables[name].rglob("*"):
        if file.is_file():
            s3.upload_file(str(file), OTHER_BUCKET, f"t/{file.relative_to(tables[name])}")
    record = {"schema": "Sales", "location": f"s3://{OTHER_BUCKET}/t", "historyShared": True, "directoryAccess": True}
    put(dynamodb, "SHARE#lent", "SHARE", name="Lent", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b12")
    put(dynamodb, "SHARE#lent", "SCHEMA#sales", name="Sales")
    put(dynamodb, "SHARE#lent", "TABLE#sales#own", name="own", id="own", signerRole=OTHER_ROLE, **record)
    put(dynamodb, "SHARE#lent", "TABLE#sales#servers", name="servers", id="servers", **record)
    put(dynamodb, "SHARE#lent", "TABLE#sales#none", name="none", id="none", signerRole="arn:aws:iam::000000000000:role/none", **record)
    put(dynamodb, "SHARE#lent", "TABLE#sales#bad", name="bad", id="bad", signerRole="none", **record)
    put(dynamodb, "RECIPIENT#acme", "SHARE#lent", share="Lent", recipient="acme")
    try:
        frame = delta_sharing.load_as_pandas(f"{profile}#lent.sales.own", use_delta_format=False)
        assert canonical.rows(frame.to_dict("records")) == json.loads((tables[name] / "expected.json").read_text())
        query = "/shares/lent/schemas/sales/tables/{}/query".format
        # The server's role may not read there, and does not stand in for a role that cannot be assumed.
        for table in ("servers", "none", "bad"):
            refused = ask(function, "POST", query(table), body=b"{}")
            assert refused.status >= 400 and OTHER_BUCKET not in refused.body.decode() and "arn:" not in refused.body.decode(), table
        given = ask(function, "POST", "/shares/lent/schemas/sales/tables/own/temporary-table-credentials", body=b"{}").json
        keys = given["credentials"]["awsTempCredentials"]
        own = stack.client("s3", keys)
        assert own.list_objects_v2(Bucket=OTHER_BUCKET, Prefix="t/")["KeyCount"] > 4
    finally:
        dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": "RECIPIENT#acme"}, "sk": {"S": "SHARE#lent"}})


def test_a_large_table_streams(function):
    connection = http.client.HTTPConnection("127.0.0.1", function.port, timeout=120)
    connection.request("POST", f"/delta-sharing{TABLE_PATH}many/query", body=b"{}", headers={"Authorization": f"Bearer {TOKEN}"})
    began = time.monotonic()
    answer = connection.getresponse()
    assert answer.status == 200
    first = answer.readline()
    first_at = time.monotonic() - began
    lines = 1
    last = first
    while line := answer.readline():
        lines, last = lines + 1, line
    all_at = time.monotonic() - began
    connection.close()
    assert "protocol" in json.loads(first) and "file" in json.loads(last)
    assert lines == MANY + 2
    print(f"first line after {first_at:.2f} s, last after {all_at:.2f} s")
    packed = ask(function, "POST", f"{TABLE_PATH}many/query", body=b"{}", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(packed.body).count(b"\n") == MANY + 2
    print(f"memory after {MANY} files: {function.memory():.1f} MB, at most {function.memory('VmHWM'):.1f} MB")


def test_small_answers_do_not_wait_for_acknowledgements(function):
    for path in ("/health", "/shares"):
        times = []
        for _ in range(20):
            began = time.monotonic()
            assert ask(function, "GET", path).status == 200
            times.append(time.monotonic() - began)
        print(f"median of {path}: {sorted(times)[10] * 1000:.1f} ms")


def test_pages_go_on_in_another_container(stack, function):
    other = start(stack)
    try:
        token, files, functions = None, [], [function, other]
        while True:
            body = {"maxFiles": 4, **({"pageToken": token} if token else {})}
            lines = ask(functions[len(files) % 2], "POST", f"{TABLE_PATH}py_odd_partitions/query", body=json.dumps(body).encode()).lines
            files += [line["file"]["id"] for line in lines[2:-1]]
            functions.reverse()
            token = lines[-1]["endStreamAction"].get("nextPageToken")
            if token is None:
                break
        whole = ask(function, "POST", f"{TABLE_PATH}py_odd_partitions/query", body=b"{}").lines
        assert files == [line["file"]["id"] for line in whole[2:]]
    finally:
        other.stop()


def test_a_base_path_of_a_custom_domain(stack, tmp_path):
    function = start(stack, base_path="/consumer", environment={"DELTASHARE_BASE_PATH": "/consumer"})
    try:
        profile = write_profile(tmp_path / "domain.share", function.endpoint, TOKEN)
        assert [share.name for share in delta_sharing.SharingClient(str(profile)).list_shares()] == ["Retail"]
    finally:
        function.stop()


@pytest.mark.parametrize("function_url", [False, True], ids=["stage", "function URL"])
def test_the_other_addresses_of_a_function_with_a_base_path_have_none(stack, tmp_path, function_url):
    function = start(stack, function_url=function_url, environment={"DELTASHARE_BASE_PATH": "/consumer"})
    try:
        profile = write_profile(tmp_path / "other.share", function.endpoint, TOKEN)
        assert [share.name for share in delta_sharing.SharingClient(str(profile)).list_shares()] == ["Retail"]
    finally:
        function.stop()


def test_a_function_url(stack, tables, tmp_path):
    function = start(stack, function_url=True)
    try:
        profile = write_profile(tmp_path / "url.share", function.endpoint, TOKEN)
        frame = delta_sharing.load_as_pandas(f"{profile}#retail.sales.py_odd_partitions")
        assert canonical.rows(frame.to_dict("records")) == json.loads((tables["py_odd_partitions"] / "expected.json").read_text())
        for path in ("/shares?maxResults=1&x=%20+y", "/shares/Ret%61il"):
            assert ask(function, "GET", path, prefix="").status == 200
        # A body that is not text comes in base64.
        for content_type in ("application/json", "application/octet-stream"):
            answer = ask(function, "POST", f"{TABLE_PATH}py_versions/query", body=b'{"version": 1}', prefix="",
                         headers={"Content-Type": content_type})
            assert answer.status == 200 and answer.headers["delta-table-version"] == "1"
        event = event_of(function, answer.headers["x-request-id"])
        assert event["source_ip"] == "127.0.0.1"
        assert ask(function, "HEAD", f"{TABLE_PATH}py_versions", prefix="").headers["delta-table-version"] == "3"
    finally:
        function.stop()


def test_an_answer_that_has_begun_ends_visibly_at_the_deadline(stack):
    # Two seconds of the time are kept; in what is left the answer cannot all be taken.
    function = start(stack, seconds=12, chunk_delay=0.2)
    try:
        body, headers = b"{}", {"delta-sharing-capabilities": "includeendstreamaction=true"}
        ask(function, "GET", "/shares")
        cut = ask(function, "POST", f"{TABLE_PATH}many/query", body=body)
        assert cut.status == 200
        lines = cut.body.split(b"\n")
        assert 3 < len(lines) < MANY and b"INCOMPLETE ANSWER" in cut.body
        told = ask(function, "POST", f"{TABLE_PATH}many/query", body=body, headers=headers)
        assert "took too long" in told.lines[-1]["endStreamAction"]["errorMessage"]
        event = event_of(function, told.headers["x-request-id"])
        assert event["message"] == "broken" and event["error.code"] == "TEMPORARILY_UNAVAILABLE"
    finally:
        function.stop()


def test_there_is_an_answer_before_the_deadline(stack):
    # Two seconds of the time are kept for the answer, so that nothing is left for the query.
    function = start(stack, seconds=1)
    try:
        answer = ask(function, "GET", "/shares")
        assert answer.status == 503 and answer.headers["retry-after"]
    finally:
        function.stop()


def test_every_fault_of_the_environment_is_told(stack):
    function = start(stack, environment={"DELTASHARE_TABLE": "", "DELTASHARE_URL_TTL": "5"})
    try:
        assert function.process.wait(20) != 0
        wait_until(lambda: all(any(fault in line for line in function.log)
                               for fault in ("DELTASHARE_TABLE is not set", "DELTASHARE_URL_TTL is not a number")))
    finally:
        function.stop()


@pytest.mark.parametrize("path", ["", "/"])
def test_a_browser_gets_the_page_below_the_stage(function, path):
    html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    answer = ask(function, "GET", path, headers=html, token=None)
    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8" and b"<main>" in answer.body
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    again = ask(function, "GET", path, headers={**html, "If-None-Match": answer.headers["etag"]}, token=None)
    assert (again.status, again.body) == (304, b"")
    assert ask(function, "GET", path, headers={"Accept": "*/*"}, token=None).json["errorCode"] == "RESOURCE_DOES_NOT_EXIST"


def test_the_page_shows_what_the_function_shares(function, profile, browser_page):
    browser_page.goto(function.endpoint.rstrip("/"))
    browser_page.locator("#file").set_input_files(str(profile))
    browser_page.get_by_role("button", name="change_data_feed").click()
    browser_page.get_by_text("Older versions").wait_for()
    assert "Last commit" in browser_page.locator("#table").text_content()


def test_the_page_can_be_switched_off(stack):
    function = start(stack, environment={"DELTASHARE_PAGES": "off"})
    try:
        assert ask(function, "GET", "/", headers={"Accept": "text/html"}, token=None).status == 404
    finally:
        function.stop()


@pytest.mark.parametrize("variable, allowed", [
    ("https://app.example.com,http://localhost:3000", "http://localhost:3000"), ("any", "*"), ("https://app.example.com", None), ("not an origin", None),
    (None, None),
])
def test_origins_come_from_the_stage(stack, variable, allowed):
    function = start(stack, stage_variables=variable and {"corsOrigins": variable})
    try:
        origin = {"Origin": "http://localhost:3000"}
        asks = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = ask(function, "OPTIONS", f"{TABLE_PATH}py_versions/query", headers=asks, token=None)
        listed, refused = ask(function, "GET", "/shares", headers=origin), ask(function, "GET", "/shares", headers=origin, token=None)
        assert (preflight.status, listed.status, refused.status) == (204 if allowed else 405, 200, 401)
        for answer in (preflight, listed, refused):
            assert answer.headers.get("access-control-allow-origin") == allowed
        # API Gateway takes one value of each header.
        query = ask(function, "POST", f"{TABLE_PATH}py_versions/query", b"{}", headers={**origin, "Content-Type": "application/json"})
        varies = ["accept-encoding", *(["origin"] if (variable or "").startswith("http") else [])]
        assert query.status == 200 and query.headers["vary"] == ", ".join(varies)
        assert not allowed or "authorization" in preflight.headers["access-control-allow-headers"]
    finally:
        function.stop()
