"""The Lambda binary while AWS fails: an answer is right, or it is an error, and it comes in time."""

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timedelta, timezone

import delta_sharing
import canonical
import pytest

from conftest import TOKEN, write_profile
from faults import RESET, SILENCE, Times, Way, answer, cut, delay, rewrite, s3_error, wait_until
from test_lambda import TABLE_PATH, ask, event_of, metrics_of, stack, start  # noqa: F401

QUERY = f"{TABLE_PATH}change_data_feed/query"
IN_TIME = 20


class Ways:
    """The ways to S3, STS and DynamoDB."""

    def __init__(self, port):
        self.s3, self.sts, self.dynamodb = Way(port), Way(port), Way(port)
        self.environment = {"AWS_ENDPOINT_URL_S3": self.s3.endpoint, "AWS_ENDPOINT_URL_STS": self.sts.endpoint,
                            "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb.endpoint}

    def each(self):
        return self.s3, self.sts, self.dynamodb


@pytest.fixture(scope="module")
def ways(stack):  # noqa: F811
    ways = Ways(stack.port)
    yield ways
    for way in ways.each():
        way.stop()


@pytest.fixture(scope="module")
def running(stack, ways):  # noqa: F811
    function = start(stack, environment=ways.environment, seconds=60)
    yield function
    function.stop()
    log = "".join(function.log)
    assert "panicked" not in log and not function.errors
    for secret in (TOKEN, "X-Amz-Signature"):
        assert secret not in log


@pytest.fixture
def function(running, ways):
    """The function, with every way open before and after."""
    for way in ways.each():
        way.rule = None
    yield running
    for way in ways.each():
        way.rule = None


@pytest.fixture(scope="module")
def whole(running):
    return paths(ask(running, "POST", QUERY, body=b"{}"))


def paths(answered):
    assert answered.status == 200, answered.body
    return sorted(urllib.parse.urlsplit(line["file"]["url"]).path for line in answered.lines[2:])


def of_log(request):
    return "_delta_log" in request.path + urllib.parse.unquote(request.query)


def of_commit(version):
    return lambda request: request.path.endswith(f"_delta_log/{version:020}.json")


SLOW_DOWN = s3_error(503, "SlowDown")
THROTTLED = answer(400, '{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slower"}',
                   "application/x-amz-json-1.0")
# What passes after two of them, and every request of a container that has not read the table before.
PASSING = {
    "throttled": SLOW_DOWN, "failing": s3_error(500, "InternalError"), "reset": RESET, "slow": delay(0.3),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_at_s3_is_not_seen(stack, ways, whole, kind):  # noqa: F811
    ways.s3.rule = fault = Times(PASSING[kind], 2, of_log)
    function = start(stack, environment=ways.environment, seconds=60)
    try:
        assert paths(ask(function, "POST", QUERY, body=b"{}")) == whole
        assert fault.matched > 4
    finally:
        ways.s3.rule = None
        function.stop()


LASTING = {
    "throttled": SLOW_DOWN, "failing": s3_error(500, "InternalError"), "reset": RESET, "silent": SILENCE,
    "expired": s3_error(400, "ExpiredToken"), "cut off": cut(40),
}


@pytest.mark.parametrize("kind", LASTING)
def test_what_lasts_at_s3_is_503_in_time(function, ways, whole, kind):
    ways.s3.rule = fault = Times(LASTING[kind], match=of_log)
    began = time.monotonic()
    answered = ask(function, "POST", QUERY, body=b"{}")
    assert time.monotonic() - began < IN_TIME
    assert answered.status == 503 and answered.json["errorCode"] == "TEMPORARILY_UNAVAILABLE"
    assert int(answered.headers["retry-after"]) > 0
    assert fault.matched <= 10, "a request of many attempts"
    ways.s3.rule = None
    assert paths(ask(function, "POST", QUERY, body=b"{}")) == whole


STS_THROTTLED = answer(400, "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>slower</Message></Error></ErrorResponse>",
                       "text/xml")
STS_DENIED = answer(403, "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>arn:aws:iam::1:role/x</Message></Error></ErrorResponse>",
                    "text/xml")
MENDED_BY_THE_PROVIDER = {
    "access_denied": ("s3", s3_error(403, "AccessDenied"), of_log, 400, "WARN"),
    "log": ("s3", s3_error(404, "NoSuchKey"), of_commit(2), 400, "WARN"),
    "role": ("sts", STS_DENIED, None, 503, "ERROR"),
    "credentials": ("s3", s3_error(400, "ExpiredToken"), of_log, 503, "ERROR"),
    "location": ("s3", s3_error(404, "NoSuchBucket"), of_log, 400, "WARN"),
}


@pytest.mark.parametrize("fault", MENDED_BY_THE_PROVIDER)
def test_what_the_provider_must_mend_is_logged_and_counted_by_its_kind(stack, ways, fault):  # noqa: F811
    way, failure, match, status, level = MENDED_BY_THE_PROVIDER[fault]
    # The role is assumed before the first request.
    getattr(ways, way).rule = Times(failure, **({"match": match} if match else {}))
    function = start(stack, environment=ways.environment | {"RUST_LOG": "warn,deltashare=error,deltashare::audit=info"}, seconds=60)
    try:
        refused = ask(function, "POST", QUERY, body=b"{}")
        event = event_of(function, refused.headers["x-request-id"])
    finally:
        getattr(ways, way).rule = None
        function.stop()
    assert (refused.status, event["level"], event["fault"]) == (status, level, fault)
    assert event["object"] == "Retail.Sales.change_data_feed" and event["error.source"]
    found = metrics_of(event)
    assert event["Fault"] == fault and found["FunctionName",]["ProviderFaults"] == found["FunctionName", "Fault"]["ProviderFaults"] == 1
    assert "FilesSigned" not in event and event.get("Errors") == (1 if level == "ERROR" else None)
    assert refused.json["requestId"] == event["request.id"] and refused.json["apiRequestId"] == event["api.request.id"]


@pytest.mark.parametrize("kind", ["throttled", "reset", "cut off", "denied", "missing"])
def test_a_commit_that_cannot_be_read_is_never_a_shorter_list(stack, ways, whole, kind):  # noqa: F811
    fault = {**LASTING, "denied": s3_error(403, "AccessDenied"), "missing": s3_error(404, "NoSuchKey")}[kind]
    # A container that has not read the table before.
    function = start(stack, environment=ways.environment, seconds=60)
    try:
        ask(function, "GET", "/shares")
        ways.s3.rule = Times(fault, match=of_commit(2))
        refused = ask(function, "POST", QUERY, body=b"{}")
        assert refused.status in (400, 503), refused.body
        assert "on-lambda" not in refused.body.decode()
    finally:
        ways.s3.rule = None
        function.stop()


def test_a_hint_that_is_denied_is_taken_as_missing(stack, ways, whole):  # noqa: F811
    """S3 says 403 of what is not there to a role that may list only a part of the bucket."""
    ways.s3.rule = denied = Times(s3_error(403, "AccessDenied"), match=lambda request: request.path.endswith("_last_checkpoint"))
    function = start(stack, environment=ways.environment)
    try:
        assert paths(ask(function, "POST", QUERY, body=b"{}")) == whole
        assert denied.matched > 0
    finally:
        ways.s3.rule = None
        function.stop()


def test_expired_credentials_are_renewed_once(function, ways, whole):
    before = credential(function)
    ways.sts.rule = assumed = Times(None)
    # Two requests at the same time have the credentials, and both are refused.
    ways.s3.rule = lambda request: s3_error(400, "ExpiredToken") if of_log(request) and not assumed.matched else None
    assert paths(ask(function, "POST", QUERY, body=b"{}")) == whole
    assert assumed.matched == 1
    assert credential(function) != before
    assert assumed.matched == 1


def credential(function):
    """The access key that signs now, from the URL of a table that is warm."""
    url = ask(function, "POST", f"{TABLE_PATH}py_odd_partitions/query", body=b"{}").lines[2]["file"]["url"]
    return urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["X-Amz-Credential"][0].split("/")[0]


def ending_in(seconds):
    """STS, whose credentials end after so many seconds."""
    def change(content):
        end = (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return re.sub(rb"<Expiration>[^<]*</Expiration>", f"<Expiration>{end}</Expiration>".encode(), content)
    return Times(rewrite(change))


def test_credentials_that_end_during_a_session_are_renewed_before(stack, ways):  # noqa: F811
    ways.sts.rule = assumed = ending_in(31 * 60 + 4)
    function = start(stack, environment=ways.environment)
    try:
        first = credential(function)
        assert assumed.matched == 1
        wait_until(lambda: credential(function) != first)
        assert assumed.matched == 2
    finally:
        ways.sts.rule = None
        function.stop()


@pytest.mark.parametrize("left,url_ttl,life", [(40 * 60, 3600, 40 * 60), (3600, 900, 900)])
def test_urls_end_with_what_signed_them(stack, ways, left, url_ttl, life):  # noqa: F811
    ways.sts.rule = ending_in(left)
    function = start(stack, environment={**ways.environment, "DELTASHARE_URL_TTL": str(url_ttl)})
    try:
        file = ask(function, "POST", QUERY, body=b"{}").lines[2]["file"]
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(file["url"]).query)
        signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        expires = int(query["X-Amz-Expires"][0])
        assert life - 60 <= expires <= life
        assert file["expirationTimestamp"] == int((signed + timedelta(seconds=expires)).timestamp() * 1000)
    finally:
        ways.sts.rule = None
        function.stop()


def test_a_url_is_refused_once_it_has_expired(stack, ways):  # noqa: F811
    ways.sts.rule = ending_in(5)
    function = start(stack, environment=ways.environment)
    try:
        file = ask(function, "POST", QUERY, body=b"{}").lines[2]["file"]
        assert len(urllib.request.urlopen(file["url"], timeout=10).read()) == file["size"]
        wait_until(lambda: time.time() * 1000 > file["expirationTimestamp"] + 1000)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(file["url"], timeout=10)
        assert refused.value.code == 403
    finally:
        ways.sts.rule = None
        function.stop()


@pytest.mark.parametrize("fault", [RESET, STS_THROTTLED, STS_DENIED], ids=["reset", "throttled", "denied"])
def test_without_sts_tables_are_503_and_lists_are_not(stack, ways, whole, fault):  # noqa: F811
    ways.sts.rule = Times(fault)
    function = start(stack, environment=ways.environment, seconds=60)
    try:
        assert ask(function, "GET", "/shares").status == 200
        began = time.monotonic()
        refused = ask(function, "POST", QUERY, body=b"{}")
        assert refused.status == 503 and "arn:" not in refused.body.decode()
        assert time.monotonic() - began < IN_TIME
        ways.sts.rule = None
        assert paths(ask(function, "POST", QUERY, body=b"{}")) == whole
    finally:
        ways.sts.rule = None
        function.stop()


@pytest.mark.parametrize("fault", [THROTTLED, RESET, delay(0.3)], ids=["throttled", "reset", "slow"])
def test_what_passes_at_dynamodb_is_not_seen(function, ways, whole, fault):
    ways.dynamodb.rule = seen = Times(fault, 1)
    assert paths(ask(function, "POST", QUERY, body=b"{}")) == whole
    assert seen.left == 0


@pytest.mark.parametrize("fault", [THROTTLED, RESET, SILENCE], ids=["throttled", "reset", "silent"])
def test_what_lasts_at_dynamodb_is_503_and_never_401_or_empty(function, ways, fault):
    ways.dynamodb.rule = Times(fault)
    for method, path, body in (("GET", "/shares", None), ("GET", "/shares/retail/all-tables", None), ("POST", QUERY, b"{}")):
        began = time.monotonic()
        answered = ask(function, method, path, body=body)
        assert answered.status == 503 and int(answered.headers["retry-after"]) > 0, path
        assert time.monotonic() - began < IN_TIME


def test_a_client_reads_rows_through_all_of_it(function, ways, tables, tmp_path):
    """Every third request for records and logs fails in some way, for as long as a client works."""
    ways.s3.rule = every_third = EveryThird([SLOW_DOWN, RESET, cut(40), delay(0.1)], of_log)
    ways.dynamodb.rule = EveryThird([THROTTLED, RESET, delay(0.1)], lambda request: True)
    profile = write_profile(tmp_path / "faults.share", function.endpoint, TOKEN)
    for name in ("py_versions", "py_odd_partitions", "deletion_vectors"):
        frame = delta_sharing.load_as_pandas(f"{profile}#retail.sales.{name}", use_delta_format=True)
        assert canonical.rows(frame.to_dict("records")) == json.loads((tables[name] / "expected.json").read_text())
    assert every_third.matched > 9


class EveryThird:
    """One fault after the other, each after two requests that pass."""

    def __init__(self, faults, match):
        self.faults, self.match, self.matched = faults, match, 0

    def __call__(self, request):
        if not self.match(request):
            return None
        self.matched += 1
        return self.faults[self.matched // 3 % len(self.faults)] if self.matched % 3 == 0 else None
