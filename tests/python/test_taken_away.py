"""Tokens of a query, after the provider took away what they were given for, and long after the query began."""

import base64
import hmac
import json
import os
import time

import pyarrow
import pytest
from deltalake import write_deltalake

from conftest import Server, TOKEN, hash_of, set_commit_times

TABLE = "/shares/all/schemas/spark/tables/t"
DAY = 24 * 60 * 60


@pytest.fixture
def shared(tmp_path):
    """A table of ten versions on a running server, whose share file can be changed."""
    table = tmp_path / "table"
    for number in range(10):
        rows = pyarrow.table({"id": pyarrow.array([number], pyarrow.int64())})
        write_deltalake(str(table), rows, mode="append", configuration={"delta.enableChangeDataFeed": "true"})
    set_commit_times(table)
    return Shared(tmp_path, table)


class Shared:
    def __init__(self, directory, table):
        self.table, self.path, self.key = table, directory / "shares.yaml", directory / "token.key"
        self.write(historyShared=True)
        self.server = Server("--shares", self.path, "--token-key", self.key)

    def write(self, **more):
        tables = [{"name": "t", "location": str(self.table), **more}]
        text = json.dumps({
            "version": 1,
            "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": tables}]}],
            "recipients": [{"name": "a", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
        })
        new = self.path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.path)

    def change(self, **more):
        """Changes what is shared, and waits until it is in force."""
        before = sum("is in force" in line for line in self.server.log)
        self.write(**more)
        end = time.monotonic() + 20
        while sum("is in force" in line for line in self.server.log) == before:
            assert time.monotonic() < end, "".join(self.server.log)
            time.sleep(0.05)

    def query(self, **body):
        return self.server.request("POST", f"{TABLE}/query", body=json.dumps(body).encode())

    def changes(self, parameters, token=None):
        path = f"{TABLE}/changes?{parameters}&maxFiles=2" + (f"&pageToken={token}" if token else "")
        return self.server.request("GET", path)

    def sealed(self, kind, claims, expires, **began):
        """A token as the server makes it."""
        # Names, the id that is made of them, and the location.
        listed, = self.server.request("GET", "/shares/all/all-tables").json["items"]
        bound_to = ["a", "all", "spark", "t", listed["id"], str(self.table.resolve())]
        payload = json.dumps({"e": int(expires), "c": claims, **began}).encode()
        tag = hmac.new(bytes.fromhex(self.key.read_text().strip()), digestmod="sha256")
        for part in (kind.encode(), *(part.encode() for part in bound_to), payload):
            tag.update(len(part).to_bytes(8, "little") + part)
        return base64.urlsafe_b64encode(payload + tag.digest()[:16]).decode().rstrip("=")


@pytest.fixture(autouse=True)
def stopped(shared):
    yield
    assert shared.server.stop() == 0


def said(token):
    """What a token says; it is signed, not secret."""
    return json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[:-16])


def end_of(answer):
    assert answer.status == 200, answer.body
    return answer.lines[-1]["endStreamAction"]


def is_refused(answer, *texts):
    assert answer.status == 400, answer.body
    return any(text in answer.json["message"] for text in texts)


def test_pages_of_changes_keep_to_a_start_version_that_was_raised(shared):
    first = end_of(shared.changes("startingVersion=0"))["nextPageToken"]
    second = end_of(shared.changes("startingVersion=0", first))["nextPageToken"]
    shared.change(historyShared=True, startVersion=5)
    for token in (first, second):
        assert is_refused(shared.changes("startingVersion=0", token), "since version 5")
    # What is still shared goes on.
    token = end_of(shared.changes("startingVersion=5"))["nextPageToken"]
    assert shared.changes("startingVersion=5", token).status == 200
    shared.change(historyShared=False)
    assert is_refused(shared.changes("startingVersion=5", token), "does not share its history")


def test_pages_of_changes_by_time_keep_to_a_start_version_that_was_raised(shared):
    token = end_of(shared.changes("startingTimestamp=2000-01-01T00:00:00Z"))["nextPageToken"]
    shared.change(historyShared=True, startVersion=1)
    assert is_refused(shared.changes("startingTimestamp=2000-01-01T00:00:00Z", token), "since version 1")


@pytest.mark.parametrize("asked", [
    {}, {"version": 9}, {"timestamp": "2024-01-01T09:00:00Z"}, {"startingVersion": 3}, {"startingVersion": 3, "endingVersion": 9},
], ids=str)
def test_pages_of_queries_keep_to_what_is_shared_now(shared, asked):
    token = end_of(shared.query(maxFiles=1, **asked))["nextPageToken"]
    page = {"maxFiles": 1, "pageToken": token, **asked}
    assert shared.query(**page).status == 200
    shared.change(historyShared=True, startVersion=10)
    assert is_refused(shared.query(**page), "since version 10")
    shared.change(historyShared=False)
    # The first lines say whether history is shared, and they are the same on every page.
    told = "history sharing is not enabled" if asked else "was changed since the first page"
    assert is_refused(shared.query(**page), told)


def test_a_refresh_token_keeps_to_a_start_version_that_was_raised(shared):
    token = end_of(shared.query(includeRefreshToken=True))["refreshToken"]
    assert shared.query(refreshToken=token).status == 200
    shared.change(historyShared=False, startVersion=10)
    assert is_refused(shared.query(refreshToken=token), "since version 10")


def test_the_result_of_a_query_that_was_submitted_keeps_to_what_is_shared_now(shared):
    headers = {"delta-sharing-capabilities": "responseformat=parquet;asyncquery=true"}
    body = json.dumps({"version": 3}).encode()
    submitted = shared.server.request("POST", f"{TABLE}/query", body=body, headers=headers).lines[0]["queryStatus"]["queryId"]
    result = f"{TABLE}/queries/{submitted}"
    assert shared.server.request("POST", result, body=b"{}", headers=headers).status == 200
    shared.change(historyShared=True, startVersion=4)
    assert is_refused(shared.server.request("POST", result, body=b"{}", headers=headers), "since version 4")
    shared.change(historyShared=False)
    assert is_refused(shared.server.request("POST", result, body=b"{}", headers=headers), "history sharing is not enabled")


def test_refreshed_answers_end_a_week_after_the_query_began(shared):
    began = said(end_of(shared.query(includeRefreshToken=True))["refreshToken"])
    assert abs(began["e"] - began["b"] - DAY) < 60 and abs(began["b"] - time.time()) < 60
    # As a client would that asks again and again: each token says when the query began.
    now = int(time.time())
    for days in (1, 3, 6.5):
        token = shared.sealed("refresh", began["c"], now + DAY, b=int(now - days * DAY))
        follows = said(end_of(shared.query(refreshToken=token))["refreshToken"])
        assert follows["b"] == now - days * DAY
        assert follows["e"] - follows["b"] <= 7 * DAY
        # And so do the pages of what is refreshed.
        page = said(end_of(shared.query(refreshToken=token, maxFiles=2))["nextPageToken"])
        assert page["b"] == follows["b"] and page["e"] - page["b"] <= 7 * DAY
    late = shared.sealed("refresh", began["c"], now + DAY, b=now - 7 * DAY - 1)
    assert is_refused(shared.query(refreshToken=late), "refresh token has expired")


@pytest.mark.parametrize("form", ["files", "changes"])
def test_pages_end_a_week_after_the_query_began(shared, form):
    def ask(token=None):
        if form == "changes":
            return shared.changes("startingVersion=0", token)
        return shared.query(maxFiles=2, **({"pageToken": token} if token else {}))

    first = said(end_of(ask())["nextPageToken"])
    assert abs(first["e"] - first["b"] - 3 * DAY) < 60
    now = int(time.time())
    token = shared.sealed(form, first["c"], now + DAY, b=now - 6 * DAY)
    follows = said(end_of(ask(token))["nextPageToken"])
    assert (follows["b"], follows["e"]) == (now - 6 * DAY, now + DAY)
    late = shared.sealed(form, first["c"], now + DAY, b=now - 7 * DAY - 1)
    assert is_refused(ask(late), "page token has expired")


def test_a_token_of_an_older_server_is_good_and_the_query_begins_with_it(shared):
    made = said(end_of(shared.query(includeRefreshToken=True))["refreshToken"])
    follows = said(end_of(shared.query(refreshToken=shared.sealed("refresh", made["c"], time.time() + DAY)))["refreshToken"])
    assert abs(follows["b"] - time.time()) < 60
