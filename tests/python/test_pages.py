"""Pages, refresh tokens and asynchronous queries: as clients ask for them, and against what they must not do."""

import concurrent.futures
import json
import shutil

import pytest
from deltalake import DeltaTable, write_deltalake
import pyarrow

from conftest import OTHER_TOKEN, Server, TOKEN, hash_of

TABLE = "/shares/all/schemas/spark/tables/"
DELTA = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors,columnmapping"}
FORMS = [None, DELTA]


def query(server, name, body=None, headers=None, path="query", **more):
    answer = server.request("POST", f"{TABLE}{name}/{path}", body=json.dumps(body or {}).encode(), headers=headers, **more)
    return answer


def ids(lines):
    """The files of an answer: kind, version, id."""
    found = []
    for line in lines:
        (kind, file), = line.items()
        if kind == "endStreamAction":
            continue
        if "deltaSingleAction" in file:
            (kind, _), = file["deltaSingleAction"].items()
        found.append((kind, file.get("version"), file["id"]))
    return found


def pages(ask, size):
    """Every page of an answer; `ask` takes the paging parameters."""
    token, found = None, []
    while True:
        answer = ask({"maxFiles": size, **({"pageToken": token} if token else {})})
        assert answer.status == 200, answer.body
        lines = answer.lines
        assert "endStreamAction" in lines[-1]
        assert len(ids(lines[2:])) <= size
        found.append(answer)
        token = lines[-1]["endStreamAction"].get("nextPageToken")
        if token is None:
            return found
        assert len(ids(lines[2:])) == size
        assert all(character.isalnum() or character in "-_" for character in token)


def check_pages(found, whole):
    heads = {answer.body.split(b"\n")[0] + answer.body.split(b"\n")[1] for answer in found}
    assert heads == {whole.body.split(b"\n")[0] + whole.body.split(b"\n")[1]}
    assert {answer.headers["delta-table-version"] for answer in found} == {whole.headers["delta-table-version"]}
    assert [file for answer in found for file in ids(answer.lines[2:])] == ids(whole.lines[2:])


@pytest.mark.parametrize("size", [1, 7, 40, 100000])
@pytest.mark.parametrize("name", ["py_versions", "py_merged", "py_checkpointed", "empty"])
def test_pages_add_up_to_the_whole_answer(server, name, size):
    check_pages(pages(lambda paging: query(server, name, paging), size), query(server, name))


@pytest.mark.parametrize("size", [1, 3])
def test_pages_of_every_table_in_delta_format(server, tables, size):
    declared = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors,columnmapping,"
                "timestampntz,typewidening,varianttype,varianttype-preview"}
    for name in tables:
        each = 40 if name == "py_many_files" else size
        check_pages(pages(lambda paging: query(server, name, paging, declared), each), query(server, name, headers=declared))


@pytest.mark.parametrize("size", [1, 2, 50])
@pytest.mark.parametrize("name", ["change_data_feed", "py_merged"])
@pytest.mark.parametrize("headers", FORMS)
def test_pages_of_changes(server, name, size, headers):
    path = f"{TABLE}{name}/changes?startingVersion=0&includeHistoricalMetadata=true"

    def ask(paging):
        return server.request("GET", path + "".join(f"&{key}={value}" for key, value in paging.items()), headers=headers)

    check_pages(pages(ask, size), ask({}))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", ["py_versions", "change_data_feed", "change_data_feed_mapped"])
def test_pages_of_what_changed_since_a_version(server, name, size):
    body = {"startingVersion": 0, "predicateHints": []}
    check_pages(pages(lambda paging: query(server, name, {**body, **paging}, DELTA), size), query(server, name, body, DELTA))


def test_pages_end_with_when_their_urls_end(server):
    for answer in pages(lambda paging: query(server, "py_versions", paging), 1):
        lines = answer.lines
        end = lines[-1]["endStreamAction"]["minUrlExpirationTimestamp"]
        assert end == min(line["file"]["expirationTimestamp"] for line in lines[2:-1])


def first_token(server, name, body=None, headers=None, **more):
    answer = query(server, name, {"maxFiles": 1, **(body or {})}, headers, **more)
    return answer.lines[-1]["endStreamAction"]["nextPageToken"]


@pytest.fixture(scope="module")
def two_recipients(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "shares.yaml"
    table = {"name": "py_checkpointed", "location": str(tables["py_checkpointed"]), "historyShared": True}
    other = {"name": "other", "location": str(tables["py_checkpointed"]), "historyShared": True}
    path.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": [table, other]}]}],
        "recipients": [
            {"name": name, "shares": ["all"], "tokens": [{"sha256": hash_of(token), "expires": "never"}]}
            for name, token in (("a", TOKEN), ("b", OTHER_TOKEN))
        ],
    }))
    server = Server("--shares", path)
    yield server
    assert server.stop() == 0


def test_a_page_token_is_only_for_what_it_was_made_for(two_recipients):
    server = two_recipients
    token = first_token(server, "py_checkpointed")
    page = {"maxFiles": 1, "pageToken": token}
    assert query(server, "py_checkpointed", page).status == 200
    for answer in (
        query(server, "py_checkpointed", page, token=OTHER_TOKEN),
        query(server, "other", page),
        query(server, "py_checkpointed", {**page, "pageToken": token[:-1] + ("A" if token[-1] != "A" else "B")}),
        query(server, "py_checkpointed", {**page, "pageToken": "nonsense"}),
        server.request("GET", f"{TABLE}py_checkpointed/changes?startingVersion=0&maxFiles=1&pageToken={token}"),
    ):
        assert answer.status == 400 and "Error decoding the page token" in answer.json["message"], answer.body
    for body in ({"version": 1}, {"predicateHints": ["id > 1"]}, {"limitHint": 5}):
        answer = query(server, "py_checkpointed", {**page, **body})
        assert answer.status == 400 and "Query parameter mismatch" in answer.json["message"], answer.body
    answer = query(server, "py_checkpointed", page, DELTA)
    assert answer.status == 400 and "Query parameter mismatch" in answer.json["message"], answer.body


def test_a_page_can_be_asked_for_again(server):
    first = query(server, "py_many_files", {"maxFiles": 10})
    token = first.lines[-1]["endStreamAction"]["nextPageToken"]
    pages = [query(server, "py_many_files", {"maxFiles": 10, "pageToken": token}) for _ in range(3)]
    assert len({tuple(ids(page.lines[2:])) for page in pages}) == 1
    assert query(server, "py_many_files", {"maxFiles": 10}).lines[2]["file"]["id"] == first.lines[2]["file"]["id"]


def rows(count):
    return pyarrow.table({"id": pyarrow.array(range(count), pyarrow.int64())})


@pytest.fixture
def growing(tmp_path):
    """A table, and two servers with one key, as behind one URL."""
    table = tmp_path / "table"
    for _ in range(25):
        write_deltalake(str(table), rows(3), mode="append", configuration={"delta.enableChangeDataFeed": "true"})
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": [
            {"name": "growing", "location": str(table), "historyShared": True}]}]}],
        "recipients": [{"name": "a", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    key = tmp_path / "token.key"
    servers = [Server("--shares", shares, "--token-key", key) for _ in range(2)]
    yield table, servers
    for server in servers:
        assert server.stop() == 0
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_text().strip()) == 64


@pytest.mark.parametrize("form", ["query", "since", "changes"])
def test_pages_from_two_servers_while_commits_land(growing, form):
    table, servers = growing
    asked = 0

    def ask(paging):
        nonlocal asked
        asked += 1
        # Before each page a commit lands, now and then a checkpoint, and the other server is asked.
        write_deltalake(str(table), rows(2), mode="append")
        if asked % 3 == 0:
            DeltaTable(str(table)).create_checkpoint()
        server = servers[asked % 2]
        if form == "changes":
            more = "".join(f"&{key}={value}" for key, value in paging.items())
            return server.request("GET", f"{TABLE}growing/changes?startingVersion=0{more}")
        return query(server, "growing", {**({"startingVersion": 0} if form == "since" else {}), **paging})

    found = pages(ask, 4)
    files = [file for answer in found for file in ids(answer.lines[2:])]
    # The 25 files there were, and the one that came before the first page.
    assert len(files) == len(set(files)) == 26
    assert len({answer.body.split(b"\n")[1] for answer in found}) == 1


def test_pages_end_when_the_table_is_made_again_at_the_same_version(growing):
    table, servers = growing
    log = table / "_delta_log"
    first = query(servers[0], "growing", {"maxFiles": 5})
    token = first.lines[-1]["endStreamAction"]["nextPageToken"]
    # The same id, version and size of commits; other files.
    for commit in log.glob("*.json"):
        lines = [json.loads(line) for line in commit.read_text().splitlines()]
        for add in (line["add"] for line in lines if "add" in line):
            (table / add["path"]).rename(table / add["path"].replace("part", "trap"))
            add["path"] = add["path"].replace("part", "trap")
        commit.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    answer = query(servers[1], "growing", {"maxFiles": 5, "pageToken": token})
    assert answer.status == 400 and "Please restart the query" in answer.json["message"], answer.body
    assert query(servers[1], "growing", {"maxFiles": 5}).status == 200


def test_pages_end_where_the_log_they_came_from_is_gone(growing):
    table, servers = growing
    DeltaTable(str(table)).create_checkpoint()
    first = query(servers[0], "growing", {"maxFiles": 5})
    token = first.lines[-1]["endStreamAction"]["nextPageToken"]
    checkpoint, = (table / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.unlink()
    (table / "_delta_log/_last_checkpoint").unlink()
    # The server that gave the first page has what it needs; another one would list other files first.
    assert query(servers[0], "growing", {"maxFiles": 5, "pageToken": token}).status == 200
    answer = query(servers[1], "growing", {"maxFiles": 5, "pageToken": token})
    assert answer.status == 400 and "Please restart the query" in answer.json["message"], answer.body


@pytest.mark.parametrize("headers", FORMS)
def test_a_refresh_token_asks_for_the_same_version_again(growing, headers):
    table, servers = growing
    asked = {"includeRefreshToken": True, "predicateHints": []}
    first = query(servers[0], "growing", asked, headers)
    token = first.lines[-1]["endStreamAction"]["refreshToken"]
    write_deltalake(str(table), rows(2), mode="overwrite")
    for server in servers:
        again = query(server, "growing", {**asked, "refreshToken": token}, headers)
        assert ids(again.lines[2:-1]) == ids(first.lines[2:-1]) and len(ids(first.lines[2:-1])) == 25
        assert again.headers["delta-table-version"] == first.headers["delta-table-version"] == "24"
        token = again.lines[-1]["endStreamAction"]["refreshToken"]
    assert query(servers[0], "growing", asked, headers).headers["delta-table-version"] == "25"
    # The first page of a refreshed answer, and the next one.
    def ask(paging):
        refresh = {} if "pageToken" in paging else {"includeRefreshToken": True, "refreshToken": token}
        return query(servers[0], "growing", {"predicateHints": [], **paging, **refresh}, headers)

    found = pages(ask, 10)
    assert [file for answer in found for file in ids(answer.lines[2:])] == ids(first.lines[2:-1])


def test_refresh_tokens_are_only_for_what_they_were_made_for(two_recipients):
    token = query(two_recipients, "py_checkpointed", {"includeRefreshToken": True}).lines[-1]["endStreamAction"]["refreshToken"]
    assert query(two_recipients, "py_checkpointed", {"refreshToken": token}).status == 200
    for answer in (
        query(two_recipients, "other", {"refreshToken": token}),
        query(two_recipients, "py_checkpointed", {"refreshToken": token}, token=OTHER_TOKEN),
        query(two_recipients, "py_checkpointed", {"refreshToken": "x"}),
        query(two_recipients, "py_checkpointed", {"refreshToken": first_token(two_recipients, "py_checkpointed")}),
    ):
        assert answer.status == 400 and "Error decoding refresh token" in answer.json["message"]


def test_a_table_made_anew_is_not_the_one_that_was_read(growing):
    table, servers = growing
    token = query(servers[0], "growing", {"includeRefreshToken": True}).lines[-1]["endStreamAction"]["refreshToken"]
    shutil.rmtree(table)
    for _ in range(25):
        write_deltalake(str(table), rows(1), mode="append")
    for server in servers:
        answer = query(server, "growing", {"refreshToken": token})
        assert answer.status == 400 and "does not match the table being queried" in answer.json["message"], answer.body


# Asynchronous queries

ASYNC = {"delta-sharing-capabilities": "responseformat=parquet;asyncquery=true"}


def submit(server, name, body=None, headers=ASYNC, **more):
    answer = query(server, name, {"idempotency_key": "k", **(body or {})}, headers, **more)
    assert answer.status == 200, answer.body
    assert answer.headers["delta-sharing-capabilities"] == headers["delta-sharing-capabilities"].split(";readerfeatures")[0].split(";asyncquery")[0] + ";asyncquery=true"
    (status,) = answer.lines
    assert status["queryStatus"]["status"] == "pending"
    return status["queryStatus"]["queryId"], answer


@pytest.mark.parametrize("body", [{}, {"version": 1}, {"startingVersion": 0, "endingVersion": 2}])
def test_an_asynchronous_query(server, body):
    whole = query(server, "py_versions", body)
    query_id, submitted = submit(server, "py_versions", body)
    # Sent again, it is the same query.
    assert submit(server, "py_versions", body)[0] == query_id
    assert submit(server, "py_versions", {**body, "idempotency_key": "other"})[0] != query_id
    assert submitted.headers["delta-table-version"] == whole.headers["delta-table-version"]
    for size in (1, 1000):
        found = pages(lambda paging: query(server, "py_versions", paging, ASYNC, path=f"queries/{query_id}"), size)
        check_pages(found, whole)
        assert all("asyncquery=true" in page.headers["delta-sharing-capabilities"] for page in found)


def test_the_answer_to_an_asynchronous_query_keeps_to_what_was_submitted(server):
    query_id, answer = submit(server, "py_versions", headers={**ASYNC, "fileidhash": "delta"})
    assert answer.headers["fileidhash"] == "delta"
    result = query(server, "py_versions", {}, ASYNC, path=f"queries/{query_id}")
    assert result.headers["fileidhash"] == "delta" and len(result.lines[2]["file"]["id"]) == 64


def test_pages_of_an_asynchronous_query_fit_through_a_gateway_that_buffers(tmp_path):
    table = tmp_path / "table"
    write_deltalake(str(table), rows(1), mode="overwrite")
    log = table / "_delta_log"
    adds = [{"add": {"path": f"part-{n:06}.parquet", "partitionValues": {}, "size": 1, "modificationTime": 0,
                     "dataChange": True, "stats": json.dumps({"numRecords": n, "note": "x" * 1000})}} for n in range(8000)]
    (log / "00000000000000000001.json").write_text("\n".join(map(json.dumps, adds)) + "\n")
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": [{"name": "t", "location": str(table)}]}]}],
        "recipients": [{"name": "a", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares)
    try:
        query_id, _ = submit(server, "t")
        token, seen, sizes = None, [], []
        while True:
            body = {"pageToken": token} if token else {}
            answer = query(server, "t", body, ASYNC, path=f"queries/{query_id}")
            sizes.append(len(answer.body))
            seen += ids(answer.lines[2:])
            token = answer.lines[-1]["endStreamAction"].get("nextPageToken")
            if token is None:
                break
        assert len(seen) == len(set(seen)) == 8001
        assert len(sizes) > 2 and max(sizes) < 6_000_000
    finally:
        assert server.stop() == 0


def test_ids_of_queries_are_only_for_what_they_were_made_for(two_recipients):
    query_id, _ = submit(two_recipients, "py_checkpointed")
    path = f"queries/{query_id}"
    assert query(two_recipients, "py_checkpointed", {}, ASYNC, path=path).status == 200
    for answer in (
        query(two_recipients, "other", {}, ASYNC, path=path),
        query(two_recipients, "py_checkpointed", {}, ASYNC, path=path, token=OTHER_TOKEN),
        query(two_recipients, "py_checkpointed", {}, ASYNC, path="queries/x"),
    ):
        assert (answer.status, answer.json["errorCode"]) == (404, "RESOURCE_DOES_NOT_EXIST"), answer.body


def test_what_cannot_be_answered_is_refused_when_it_is_submitted(server):
    for body, text in (({"version": 99}, "Cannot load table version 99"), ({"startingVersion": 99}, "Provided Start version(99)")):
        answer = query(server, "py_versions", body, ASYNC)
        assert answer.status == 400 and text in answer.json["message"]
    answer = query(server, "deletion_vectors", {}, ASYNC)
    assert answer.status == 400 and "Unsupported Delta Table Properties" in answer.json["message"]


def test_the_result_of_a_query_is_one_version_for_each_first_page(growing):
    table, servers = growing
    query_id, _ = submit(servers[0], "growing")
    ask = lambda server, paging: query(server, "growing", paging, ASYNC, path=f"queries/{query_id}")  # noqa: E731
    first = ask(servers[0], {"maxFiles": 20})
    write_deltalake(str(table), rows(2), mode="append")
    token = first.lines[-1]["endStreamAction"]["nextPageToken"]
    second = ask(servers[1], {"maxFiles": 20, "pageToken": token})
    assert len(ids(first.lines[2:-1]) + ids(second.lines[2:-1])) == 25


def test_many_readers_page_at_once(server):
    whole = query(server, "py_many_files")
    read = lambda size: pages(lambda paging: query(server, "py_many_files", paging), size)  # noqa: E731
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for found in pool.map(read, [9, 11, 13, 17] * 4):
            assert [file for answer in found for file in ids(answer.lines[2:])] == ids(whole.lines[2:])
