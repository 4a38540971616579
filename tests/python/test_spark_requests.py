"""What the Spark connector asks, recorded from it, and asked again: answers must be such as it accepts.

`RECORD=1 ./tests/run clients` records them, where the connector's jars can be had.
"""

import json
import re

import pytest

from conftest import ROOT

RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "tests/python/spark_requests").glob("*.json"))}
CASES = [(version, name) for version, tests in RECORDED.items() for name in tests]
TOKENS = ("nextPageToken", "refreshToken", "queryId")
PARQUET_FILE = {"url", "id", "partitionValues", "size"}


def ask(server, request, tokens):
    def fill(text):
        for name in TOKENS:
            if text and f"{{{name}}}" in text:
                text = text.replace(f"{{{name}}}", tokens[name])
        return text

    body = fill(request["body"])
    path = fill(request["path"]).removeprefix("/delta-sharing")
    return server.request(request["method"], path, body=body and body.encode(), headers=request["headers"])


def capabilities(header):
    """As the connector reads them: no spaces, each entry one key and its value."""
    return dict(entry.split("=") for entry in header.lower().split(";"))


def check(request, answer):
    """Whether the connector would take the answer; its lines."""
    path = request["path"].split("?")[0]
    asked = capabilities(request["headers"]["delta-sharing-capabilities"])
    if path.endswith("/version"):
        assert int(answer.headers["delta-table-version"]) >= 0 and answer.body == b""
        return []
    assert answer.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    told = capabilities(answer.headers["delta-sharing-capabilities"])
    assert told["responseformat"] in asked["responseformat"].split(",")
    assert answer.headers.get("fileidhash") == request["headers"].get("fileidhash")
    assert answer.headers["delta-table-version"].isdigit()
    lines = answer.lines
    if path.endswith("/metadata"):
        assert [list(line) for line in lines] == [["protocol"], ["metaData"]]
        return lines
    if "queryStatus" in lines[0]:
        assert told["asyncquery"] == "true" and len(lines) == 1
        return lines
    if told.get("includeendstreamaction") == "true":
        assert asked["includeendstreamaction"] == "true"
        assert "endStreamAction" in lines[-1], "a missing endStreamAction is a failure to the connector"
    files = lines[2:-1] if "endStreamAction" in lines[-1] else lines[2:]
    delta = told["responseformat"] == "delta"
    changes = "/changes" in path or "startingVersion" in (request["body"] or "")
    assert list(lines[0]) == ["protocol"] and list(lines[1]) == ["metaData"]
    if delta and not changes:
        assert lines[1]["metaData"]["size"] >= 0
    for line in files:
        (kind, file), = line.items()
        if kind == "metaData" or kind == "protocol":
            assert changes
            continue
        assert kind in ({"file"} if delta or not changes else {"add", "remove", "cdf"})
        assert file["expirationTimestamp"] > 0 and file["id"]
        if changes:
            assert file["version"] >= 0 and file["timestamp"] > 0
        if delta:
            (_, action), = file["deltaSingleAction"].items()
            assert action["path"].startswith("http") and action["size"] >= 0
        else:
            assert PARQUET_FILE <= set(file)
    return lines


@pytest.mark.parametrize("version,name", CASES)
def test_recorded_requests(server, version, name):
    tokens, heads = {}, {}
    for request in RECORDED[version][name]:
        answer = ask(server, request, tokens)
        assert answer.status == request["status"], answer.body
        if answer.status != 200:
            assert answer.json["errorCode"] and answer.json["message"]
            continue
        lines = check(request, answer)
        for line in lines:
            status = line.get("queryStatus") or line.get("endStreamAction") or {}
            tokens.update((token, status[token]) for token in TOKENS if token in status)
        # Pages of one answer have the same head, to the byte.
        question = (re.sub("&pageToken=[^&]*", "", request["path"]), request["headers"]["delta-sharing-capabilities"])
        paged = "pageToken" in (request["body"] or "") or "pageToken" in request["path"]
        if lines and "queryStatus" not in lines[0]:
            head = answer.body.split(b"\n")[:2]
            if paged:
                assert heads[question] == head
            heads[question] = head


def test_both_lines_of_the_connector_are_recorded():
    assert set(RECORDED) == {"3.5", "4.0"}
    for version, tests in RECORDED.items():
        requests = [request for each in tests.values() for request in each]
        agents = {request["headers"]["user-agent"].split()[1].rsplit(".", 1)[0] for request in requests}
        assert agents == {f"Spark/{version}"}
        paths = {re.sub(r"^.*/tables/[^/]*/|\?.*$|/\{.*$", "", request["path"]) for request in requests}
        assert paths == {"version", "metadata", "query", "changes", "queries"}, paths
