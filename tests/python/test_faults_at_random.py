"""DynamoDB and S3 failing half the time, and all the time: an answer is whole, or it is 503. It is never 401, and never short."""

import collections
import concurrent.futures
import random
import re
import threading
import time

import pytest

from conftest import OTHER_TOKEN, TOKEN, Server
from faults import Way, aws  # noqa: F401
from test_dynamodb import SHARED, TABLE, dynamodb, put  # noqa: F401
from test_dynamodb_faults import FAULTS as DYNAMODB_FAULTS, LISTINGS, TABLES
from test_lambda_faults import LASTING as S3_FAULTS

REQUESTS = {"dynamodb": 300, "s3": 300, "both": 1000}
READERS = 48
# A request waits for its own retries, and here for those of 47 others on two processors.
IN_TIME = 30
# Longer than an error of a table's storage is remembered (`unavailable_millis`).
REMEMBERED = 2.5
DYNAMODB_KINDS = list(DYNAMODB_FAULTS.values())
S3_KINDS = [S3_FAULTS[kind] for kind in ("throttled", "failing", "reset", "cut off")]
ASKED = [
    *LISTINGS,
    *(("GET", f"{TABLES}/{name}/{what}") for name in SHARED for what in ("version", "metadata")),
    *(("POST", f"{TABLES}/{name}/query") for name in SHARED),
]

NEW_EACH_TIME = [(re.compile(rb'\?x-id=[^"]*'), b""), (re.compile(rb'"(expirationTimestamp|nextPageToken)":("[^"]*"|\d+)'), rb'"\1":0')]
DELTA = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors"}


class Share:
    """A rule: this share of the requests fails, each in one of the ways."""

    def __init__(self, share, kinds, seed):
        self.share, self.kinds, self.random, self.lock = share, kinds, random.Random(seed), threading.Lock()
        self.passed = self.failed = 0

    def __call__(self, _):
        with self.lock:
            if self.random.random() >= self.share:
                self.passed += 1
                return None
            self.failed += 1
            return self.random.choice(self.kinds)


@pytest.fixture(scope="module")
def ways(aws):
    ways = Way(aws.port), Way(aws.port)
    yield ways
    for way in ways:
        way.stop()


@pytest.fixture(scope="module")
def running(aws, dynamodb, ways):  # noqa: F811
    to_dynamodb, to_s3 = ways
    server = Server("--catalog", f"dynamodb:{TABLE}", env={
        **aws.environment, "AWS_ENDPOINT_URL_DYNAMODB": to_dynamodb.endpoint, "AWS_ENDPOINT_URL_S3": to_s3.endpoint})
    yield server
    for way in ways:
        way.rule = None
    assert server.stop() == 0
    log = "".join(server.log)
    assert "panicked" not in log and TOKEN not in log and "X-Amz-Signature" not in log


@pytest.fixture
def server(running, ways):
    """The server, with every way open before and after."""
    for way in ways:
        way.rule = None
    yield running
    for way in ways:
        way.rule = None


def ask(server, request, token=TOKEN):
    method, path = request
    return server.request(method, path, body=b"{}" if method == "POST" else None, headers=DELTA, token=token)


def content(answered):
    """What was asked for; signatures, times and page tokens differ from answer to answer."""
    body = answered.body
    for pattern, put in NEW_EACH_TIME:
        body = pattern.sub(put, body)
    return answered.headers.get("delta-table-version"), body


@pytest.fixture(scope="module")
def whole(running):
    found = {}
    for request in ASKED:
        answered = ask(running, request)
        assert answered.status == 200, (request, answered.body)
        found[request] = content(answered)
    return found


def verdict(server, request, whole):
    began = time.monotonic()
    answered = ask(server, request)
    assert time.monotonic() - began < IN_TIME, request
    if answered.status == 200:
        return "right" if content(answered) == whole[request] else f"wrong: {request} {answered.body[:300]}"
    if answered.status == 503 and answered.json["errorCode"] == "TEMPORARILY_UNAVAILABLE" and int(answered.headers["retry-after"]) > 0:
        return "503"
    return f"{answered.status}: {request} {answered.body[:300]}"


def verdicts(server, whole, requests, seed):
    order = [ASKED[number % len(ASKED)] for number in range(requests)]
    random.Random(seed).shuffle(order)
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        return collections.Counter(pool.map(lambda request: verdict(server, request, whole), order))


@pytest.mark.parametrize("failing", REQUESTS)
def test_half_of_the_requests_fail_and_no_answer_is_wrong(server, ways, whole, failing):
    rules = Share(0.5, DYNAMODB_KINDS, 1), Share(0.5, S3_KINDS, 2)
    for way, rule, name in zip(ways, rules, ("dynamodb", "s3")):
        way.rule = rule if failing in (name, "both") else None
    found = verdicts(server, whole, REQUESTS[failing], failing)
    met = sum(rule.failed for rule in rules)
    print(f"{failing}: {dict(found)}, {met} faults")
    # One answer of S3 is for everyone who asks for the table, and an error is remembered for a moment.
    assert met > (4 if failing == "s3" else REQUESTS[failing] // 8), "hardly a fault was met"
    assert set(found) <= {"right", "503"}, found
    assert found["right"] > found.total() // 10, "retries are worth nothing"
    for way in ways:
        way.rule = None
    time.sleep(REMEMBERED)
    assert set(verdicts(server, whole, len(ASKED), "after")) == {"right"}, "the faults outlast themselves"


@pytest.mark.parametrize("failing", REQUESTS)
def test_all_of_the_requests_fail_and_no_answer_is_wrong(server, ways, whole, failing):
    rules = Share(1, DYNAMODB_KINDS, 3), Share(1, S3_KINDS, 4)
    for way, rule, name in zip(ways, rules, ("dynamodb", "s3")):
        way.rule = rule if failing in (name, "both") else None
    found = verdicts(server, whole, 4 * len(ASKED), failing)
    print(f"{failing}: {dict(found)}")
    # Lists need no S3.
    assert set(found) == ({"right", "503"} if failing == "s3" else {"503"}), found
    if failing != "s3":
        # Whether a token is good cannot be known then.
        for token in ("dss_unknown", OTHER_TOKEN):
            assert ask(server, LISTINGS[0], token).status == 503
    for way in ways:
        way.rule = None
    time.sleep(REMEMBERED)
    assert set(verdicts(server, whole, len(ASKED), "after")) == {"right"}, "the faults outlast themselves"
