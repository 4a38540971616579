"""The catalog while DynamoDB fails: an answer is whole, or it is 503 in time; and how often DynamoDB is asked."""

import concurrent.futures
import itertools
import json
import secrets
import time

import pytest

from conftest import Server, hash_of
from faults import RESET, SILENCE, Times, Way, answer, aws, cut, delay, rewrite  # noqa: F401
from test_dynamodb import BUCKET, TABLE, dynamodb, put  # noqa: F401

IN_TIME = 20
TABLES = "/shares/retail/schemas/sales/tables"
QUERY = ("POST", f"{TABLES}/py_versions/query")
LISTINGS = [
    ("GET", "/shares"), ("GET", "/shares?maxResults=2"), ("GET", "/shares/retail/schemas"), ("GET", "/shares/retail/all-tables"),
    ("GET", TABLES),
]
REQUESTS = [*LISTINGS, ("GET", "/shares/retail"), ("GET", f"{TABLES}/py_versions/metadata")]


@pytest.fixture(scope="module")
def catalog(dynamodb):  # noqa: F811
    """More than one of everything that is listed, and a name with a space."""
    for number in range(7):
        put(dynamodb, f"SHARE#s{number}", "SHARE", name=f"S{number}", id=f"id-{number}")
        put(dynamodb, "RECIPIENT#acme", f"SHARE#s{number}", share=f"S{number}", recipient="acme")
        put(dynamodb, "SHARE#retail", f"SCHEMA#x{number}", name=f"X{number}")
    put(dynamodb, "SHARE#retail", "TABLE#sales#with%20space", name="with space", schema="Sales", id="id-space",
        location=f"s3://{BUCKET}/py_versions")
    return dynamodb


@pytest.fixture
def way(aws):
    way = Way(aws.port)
    yield way
    way.stop()


@pytest.fixture
def server(aws, catalog, way):
    server = Server("--catalog", f"dynamodb:{TABLE}", env={**aws.environment, "AWS_ENDPOINT_URL_DYNAMODB": way.endpoint})
    yield server
    way.rule = None
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


@pytest.fixture
def fresh(catalog):
    """Makes a token that the server has not seen."""
    def make():
        token = f"dss_{secrets.token_urlsafe(32)}"
        put(catalog, f"TOKEN#{hash_of(token)}", "TOKEN", recipient="acme", id="1", expires="never")
        return token
    return make


def ask(server, request, token):
    method, path = request
    return server.request(method, path, body=b"{}" if method == "POST" else None, token=token)


def content(answered):
    """What is listed; page tokens hold the time they were made at."""
    assert answered.status == 200, answered.body
    if "x-ndjson" in answered.headers["content-type"]:
        return answered.lines
    listed = answered.json
    return {**listed, "nextPageToken": "nextPageToken" in listed}


@pytest.fixture
def whole(server, fresh):
    token = fresh()
    found = {request: content(ask(server, request, token)) for request in REQUESTS}
    assert [len(found[request]["items"]) for request in LISTINGS] == [8, 2, 8, 5, 5]
    return found


def of(operation):
    return lambda request: request.headers["X-Amz-Target"].endswith(f".{operation}")


OPERATIONS = ("GetItem", "BatchGetItem", "Query")


def refusal(status, code):
    return answer(status, json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "as told"}),
                  "application/x-amz-json-1.0")


FAULTS = {
    **{code: refusal(400, code) for code in ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")},
    "InternalServerError": refusal(500, "InternalServerError"), "unavailable": answer(503, "no"), "reset": RESET, "cut off": cut(1),
}


@pytest.mark.parametrize("kind", [*FAULTS, "slow"])
def test_what_passes_is_not_seen(server, way, whole, fresh, kind):
    fault = {**FAULTS, "slow": delay(0.3)}[kind]
    for request in REQUESTS:
        # The first of each operation that the request needs.
        faults = [Times(fault, 1, of(operation)) for operation in OPERATIONS]
        way.rule = lambda asked: next(filter(None, [rule(asked) for rule in faults]), None)  # noqa: B023
        assert content(ask(server, request, fresh())) == whole[request], request
        met = sum(rule.left == 0 for rule in faults)
        assert met >= 2, f"{request} met only {met} faults"


def test_silence_once_is_not_seen(server, way, whole, fresh):
    way.rule = fault = Times(SILENCE, 1)
    request = ("GET", "/shares/retail/all-tables")
    assert content(ask(server, request, fresh())) == whole[request]
    assert fault.left == 0


@pytest.mark.parametrize("operation", [None, "BatchGetItem", "Query"])
@pytest.mark.parametrize("kind", [*FAULTS, "silent"])
def test_what_lasts_is_503_in_time(server, way, whole, fresh, kind, operation):
    """Never 401, never an empty or a short list: not for a token that is new, known, or none."""
    known = fresh()
    ask(server, ("GET", "/shares/retail"), known)
    needed = LISTINGS if operation == "Query" else [*REQUESTS, QUERY]
    asked = [(request, token) for request in needed for token in (fresh(), known)]
    if operation is None:
        asked.append((REQUESTS[0], "dss_unknown"))
    way.rule = Times({**FAULTS, "silent": SILENCE}[kind], match=of(operation) if operation else lambda _: True)
    for answered, took in together(server, asked):
        assert answered.status == 503 and answered.json["errorCode"] == "TEMPORARILY_UNAVAILABLE", answered.body
        assert int(answered.headers["retry-after"]) > 0
        assert took < IN_TIME
    way.rule = None
    for request in REQUESTS:
        assert content(ask(server, request, known)) == whole[request]


def together(server, asked):
    def timed(request, token):
        began = time.monotonic()
        return ask(server, request, token), time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        return [each.result() for each in [pool.submit(timed, *each) for each in asked]]


def batches_of(part):
    """A rule: BatchGetItem answers for `part` of the keys, and leaves out the others."""
    def rule(request):
        if not of("BatchGetItem")(request):
            return None
        asked = json.loads(request.body)["RequestItems"][TABLE]
        taken, left = part(asked["Keys"])

        def change(body):
            got = json.loads(body)
            items = got["Responses"].get(TABLE, [])
            got["Responses"] = {TABLE: [item for item in items if {"pk": item["pk"], "sk": item["sk"]} in taken]}
            got["UnprocessedKeys"] = {TABLE: {**asked, "Keys": left}} if left else {}
            return json.dumps(got).encode()
        return rewrite(change)
    return rule


def half(keys):
    return keys[:(len(keys) + 1) // 2], keys[(len(keys) + 1) // 2:]


class OneByOne:
    """A rule: Query answers with no item, then with one item, and tells that there are more."""

    def __init__(self):
        self.asked = itertools.count()

    def __call__(self, request):
        if not of("Query")(request):
            return None
        return rewrite(lambda body: self.change(json.loads(request.body), json.loads(body), next(self.asked) % 2))

    def change(self, asked, got, size):
        items = got["Items"]
        if size == 0:
            values = asked["ExpressionAttributeValues"]
            last = asked.get("ExclusiveStartKey") or {"pk": values[":pk"], "sk": values[":prefix"]}
        else:
            last = {name: items[0][name] for name in ("pk", "sk")} if items else None
        got["Items"], got["Count"] = items[:size], len(items[:size])
        got.pop("LastEvaluatedKey", None)
        if last:
            got["LastEvaluatedKey"] = last
        return json.dumps(got).encode()


@pytest.mark.parametrize("operation", ["BatchGetItem", "Query"])
def test_what_is_answered_in_parts_is_whole(server, way, whole, fresh, operation):
    token = fresh()
    for request in REQUESTS:
        seen = Times(None, match=of(operation))
        parts = batches_of(half) if operation == "BatchGetItem" else OneByOne()
        way.rule = lambda asked: seen(asked) or parts(asked)  # noqa: B023
        assert content(ask(server, request, token)) == whole[request], request
        if operation == "BatchGetItem" or request in LISTINGS:
            assert seen.matched > 1, request


def test_parts_that_never_end_are_503_in_time(server, way, whole, fresh):
    empty = OneByOne()
    empty.asked = itertools.repeat(0)
    for rule, asked in ((batches_of(lambda keys: ([], keys)), [*REQUESTS, QUERY]), (empty, LISTINGS)):
        way.rule = rule
        for answered, took in together(server, [(request, fresh()) for request in asked]):
            assert answered.status == 503 and int(answered.headers["retry-after"]) > 0, answered.body
            assert took < IN_TIME


ROUND_TRIP = 0.3


class Recording:
    """A rule that makes every request take a while, and knows which of them waited for another."""

    def __init__(self):
        self.requests = []

    def __call__(self, request):
        self.requests.append((time.monotonic(), request.headers["X-Amz-Target"].rpartition(".")[2], json.loads(request.body)))
        return delay(ROUND_TRIP)

    def operations(self):
        return [operation for _, operation, _ in self.requests]

    def sequential(self):
        trips, last = 0, -ROUND_TRIP
        for began, _, _ in self.requests:
            if began - last >= ROUND_TRIP:
                trips, last = trips + 1, began
        return trips


@pytest.mark.parametrize("name", ["py_versions", "with%20space", "with+space"])
def test_a_query_waits_for_two_round_trips_and_in_a_warm_process_for_one(server, way, fresh, name):
    token = fresh()
    request = ("POST", f"{TABLES}/{name}/query")
    lookups = 2 if "+" in name else 1
    for operations, trips in ((["GetItem"] + ["BatchGetItem"] * lookups, 2), (["BatchGetItem"] * lookups, 1)):
        way.rule = recording = Recording()
        assert ask(server, request, token).status == 200
        assert (recording.operations(), recording.sequential()) == (operations, trips)
        for _, _, parameters in recording.requests:
            # Tokens and grants are read with strong consistency.
            read = parameters.get("RequestItems", {}).get(TABLE, parameters)
            assert read["ConsistentRead"] is True
            assert not {"FilterExpression", "IndexName", "ScanFilter", "QueryFilter"} & parameters.keys()


def test_what_is_revoked_is_gone_in_a_warm_process(server, catalog, fresh):
    token = fresh()
    assert ask(server, QUERY, token).status == 200
    catalog.delete_item(TableName=TABLE, Key={"pk": {"S": f"TOKEN#{hash_of(token)}"}, "sk": {"S": "TOKEN"}})
    assert ask(server, QUERY, token).status == 401
