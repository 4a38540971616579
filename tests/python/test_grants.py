"""Grants of some tables of a share: whatever a recipient asks of another table, it gets the answer to a table that does not exist."""

import json
import os
import re
import time

import pytest

from conftest import Server, hash_of
from test_admin import BUCKET, Admin, bucket, items, world  # noqa: F401
from test_filters import run

TOKEN = "dss_test-recipient-of-some-tables"
ASYNC = {"delta-sharing-capabilities": "responseformat=parquet;asyncquery=true"}
FIRST = {"sales": ["orders", "returns"], "hidden": ["orders", "secret"], "empty": []}


class FileCatalog:
    """A share file that changes while it is served."""

    def __init__(self, directory, location):
        self.path, self.location = directory / "shares.yaml", str(location)
        self.there, self.tables = FIRST, None
        self.write()
        self.server = Server("--shares", self.path, "--token-key", directory / "token.key")

    def write(self):
        schemas = [{"name": name, "tables": [{"name": table, "location": self.location, "historyShared": True} for table in tables]}
                   for name, tables in self.there.items()]
        grant = {"name": "retail", **({"tables": self.tables} if self.tables else {})}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"version": 1, "shares": [{"name": "retail", "schemas": schemas}], "recipients": [
            {"name": "acme", "shares": [grant], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}]}))
        os.replace(new, self.path)

    def change(self):
        before = sum("is in force" in line for line in self.server.log)
        self.write()
        end = time.monotonic() + 20
        while sum("is in force" in line for line in self.server.log) == before:
            assert time.monotonic() < end, "".join(self.server.log)
            time.sleep(0.05)

    def grant(self, *tables):
        self.tables = list(tables)
        self.change()

    def create(self, schema, table):
        self.there = {**self.there, schema: [*self.there.get(schema, []), table]}
        self.change()

    def explain(self, table):
        return run("explain", table, "-f", self.path, "--recipient", "acme")

    def stop(self):
        assert self.server.stop() == 0


class DynamoDbCatalog:
    def __init__(self, world, directory, aws, source):  # noqa: F811
        self.admin, self.server, client, table = world
        for file in source.rglob("*"):
            if file.is_file():
                aws.client("s3").upload_file(str(file), BUCKET, f"changes/{file.relative_to(source)}")
        self.admin.run("share", "create", "retail")
        for schema, tables in FIRST.items():
            self.admin.run("schema", "create", f"retail.{schema}")
            for name in tables:
                self.create(schema, name)
        self.admin.run("recipient", "create", "acme", "--share", "retail", "--expires", "never", "--profile", directory / "acme.share")
        # The same token as in the share file.
        own = json.loads((directory / "acme.share").read_text())["bearerToken"]
        item = items(client, table)[f"TOKEN#{hash_of(own)}", "TOKEN"]
        client.put_item(TableName=table, Item={**item, "pk": {"S": f"TOKEN#{hash_of(TOKEN)}"}})

    def grant(self, *tables):
        self.admin.run("grant", "acme", "--share", "retail", *(word for table in tables for word in ("--tables", table)))

    def create(self, schema, table):
        if [schema] not in [[each["name"]] for each in self.admin.json("schema", "list", "retail")]:
            self.admin.run("schema", "create", f"retail.{schema}")
        self.admin.run("table", "create", f"retail.{schema}.{table}", "--location", f"s3://{BUCKET}/changes", "--history")

    def explain(self, table):
        code = 0 if "secret" not in table else 3
        return self.admin.run("explain", table, "--recipient", "acme", code=code)

    def stop(self):
        pass


@pytest.fixture(params=["share file", "dynamodb"])
def catalog(request, tmp_path, tables):
    source = tables["change_data_feed"]
    if request.param == "share file":
        made = FileCatalog(tmp_path, source)
    else:
        made = DynamoDbCatalog(request.getfixturevalue("world"), tmp_path, request.getfixturevalue("aws"), source)
    yield made
    made.stop()


def ask(catalog, method, path, body=None, headers=None):
    body = json.dumps(body).encode() if body is not None else None
    return catalog.server.request(method, f"/shares/retail{path}", body=body, token=TOKEN, headers=headers)


def at(schema, table):
    return f"/schemas/{schema}/tables/{table}"


def listed(catalog, path, size=None):
    """The names of a listing, in pages."""
    found, page = [], ""
    while page is not None:
        parameters = "&".join(filter(None, [f"maxResults={size}" if size else "", f"pageToken={page}" if page else ""]))
        answer = ask(catalog, "GET", f"{path}?{parameters}")
        assert answer.status == 200, answer.body
        assert len(found) < 100
        names = [f"{item['schema']}.{item['name']}" if "schema" in item else item["name"] for item in answer.json["items"]]
        page = answer.json.get("nextPageToken")
        assert size is None or len(names) == size or page is None
        found += names
    return sorted(found)


def routes(schema, table, kept):
    """Every request for a table, with what an earlier answer gave if `kept` has it."""
    name = at(schema, table)
    yield "GET", f"{name}/version", None, None
    yield "HEAD", name, None, None
    yield "GET", f"{name}/version?startingTimestamp=2024-01-01T00:00:00Z", None, None
    for headers in (None, {"delta-sharing-capabilities": "responseformat=delta"}):
        yield "GET", f"{name}/metadata", None, headers
        for body in ({}, {"version": 0}, {"startingVersion": 0}, {"includeRefreshToken": True}, {"maxFiles": 1}):
            yield "POST", f"{name}/query", body, headers
        yield "GET", f"{name}/changes?startingVersion=0", None, headers
    yield "POST", f"{name}/query", {}, ASYNC
    yield "POST", f"{name}/temporary-table-credentials", {}, None
    if kept:
        yield "POST", f"{name}/query", {"maxFiles": 1, "startingVersion": 0, "pageToken": kept["page"]}, None
        yield "POST", f"{name}/query", {"refreshToken": kept["refresh"]}, None
        yield "GET", f"{name}/changes?startingVersion=0&maxFiles=1&pageToken={kept['changes']}", None, None
        yield "POST", f"{name}/queries/{kept['query']}", {}, ASYNC


def keep(catalog, schema, table):
    """What answers for a table give the recipient to come back with."""
    name = at(schema, table)
    end = lambda answer: answer.lines[-1]["endStreamAction"]  # noqa: E731
    submitted = ask(catalog, "POST", f"{name}/query", {}, ASYNC)
    return {
        "page": end(ask(catalog, "POST", f"{name}/query", {"maxFiles": 1, "startingVersion": 0}))["nextPageToken"],
        "refresh": end(ask(catalog, "POST", f"{name}/query", {"includeRefreshToken": True}))["refreshToken"],
        "changes": end(ask(catalog, "GET", f"{name}/changes?startingVersion=0&maxFiles=1"))["nextPageToken"],
        "query": submitted.lines[0]["queryStatus"]["queryId"],
    }


def compared(answer, *names):
    """An answer without what differs each time."""
    body = re.sub(r'"requestId":"[0-9a-f-]+"', "", answer.body.decode())
    for name in names:
        body = body.replace(name, "NAME")
    varies = {"date", "x-request-id", "content-length"}
    return answer.status, body, {name: value for name, value in answer.headers.items() if name not in varies}


def is_not_there(catalog, schema, table, kept=None):
    for method, path, body, headers in routes(schema, table, kept):
        hidden = ask(catalog, method, path, body, headers)
        missing = ask(catalog, method, path.replace(at(schema, table), at(schema, "missing")), body, headers)
        assert hidden.status == 404, (method, path, hidden.body)
        assert compared(hidden, table) == compared(missing, "missing"), (method, path)


def test_what_the_patterns_leave_out_is_not_there(catalog):
    kept = keep(catalog, "hidden", "secret")
    assert listed(catalog, "/schemas") == ["empty", "hidden", "sales"]
    page = ask(catalog, "GET", "/all-tables?maxResults=1").json
    of_hidden = ask(catalog, "GET", "/schemas/hidden/tables?maxResults=1").json["nextPageToken"]

    # While the whole share is granted, every route answers: the test would find one that does not ask for the grant.
    answers = [ask(catalog, *route).status for route in routes("hidden", "secret", kept)]
    assert answers.count(200) > len(answers) - 3, answers

    catalog.grant("sales.*", "HIDDEN.ord*")
    for schema, table in (("hidden", "secret"), ("hidden", "Secret"), ("HIDDEN", "secret")):
        is_not_there(catalog, schema, table, kept)
    for size in (None, 1, 2, 3):
        assert listed(catalog, "/schemas", size) == ["hidden", "sales"]
        assert listed(catalog, "/all-tables", size) == ["hidden.orders", "sales.orders", "sales.returns"]
        assert listed(catalog, "/schemas/hidden/tables", size) == ["hidden.orders"]
    # Pages of listings that began before: what is left, and nothing else.
    left = ask(catalog, "GET", f"/all-tables?pageToken={page['nextPageToken']}").json
    assert "secret" not in json.dumps(left) and "nextPageToken" not in left
    assert ask(catalog, "GET", f"/schemas/hidden/tables?pageToken={of_hidden}").json["items"] == []

    catalog.grant("sales.orders")
    is_not_there(catalog, "hidden", "orders")
    is_not_there(catalog, "sales", "returns")
    assert ask(catalog, "POST", f"{at('sales', 'orders')}/query", {}).status == 200
    hidden, missing = (ask(catalog, "GET", f"/schemas/{name}/tables") for name in ("hidden", "missing"))
    assert hidden.status == 404 and compared(hidden, "hidden") == compared(missing, "missing")
    hidden, missing = (ask(catalog, "GET", f"/schemas/{name}/tables?pageToken={of_hidden}") for name in ("hidden", "missing"))
    assert (hidden.status, missing.status) == (404, 400), "the token is for this listing only"
    assert listed(catalog, "/schemas", 1) == ["sales"] and listed(catalog, "/all-tables", 1) == ["sales.orders"]


def test_tables_that_are_added_are_shared_at_once(catalog):
    catalog.grant("sales.*", "eu_*.orders", "empty.first")
    assert listed(catalog, "/schemas") == ["sales"]
    catalog.create("sales", "late")
    catalog.create("eu_1", "orders")
    catalog.create("eu_1", "secret")
    catalog.create("empty", "first")
    assert listed(catalog, "/schemas") == ["empty", "eu_1", "sales"]
    assert listed(catalog, "/all-tables", 1) == ["empty.first", "eu_1.orders", "sales.late", "sales.orders", "sales.returns"]
    assert ask(catalog, "POST", f"{at('eu_1', 'orders')}/query", {}).status == 200
    is_not_there(catalog, "eu_1", "secret")


def test_explain_knows_the_tables_of_a_grant(catalog):
    catalog.grant("sales.*")
    assert "A query sends" in catalog.explain("retail.sales.orders").stdout
    refused = catalog.explain("retail.hidden.secret")
    assert refused.returncode == 3 and (
        "table 'retail.hidden.secret' is not granted to recipient 'acme': of share 'retail', the grant includes only the tables "
        "sales.*") in refused.stderr


def test_commands_name_the_tables_of_a_grant(world, aws, tables, tmp_path):  # noqa: F811
    admin, server, client, table = world
    catalog = DynamoDbCatalog(world, tmp_path, aws, tables["change_data_feed"])
    said = lambda *arguments: admin.run(*arguments).stderr  # noqa: E731
    assert ("Share 'retail' is granted to 'acme' with the tables sales.* and no filter from the next request; before, the grant had every "
            "table and no filter. URLs") in said("grant", "acme", "retail.sales.*")
    assert items(client, table)["RECIPIENT#acme", "SHARE#retail"]["format"] == {"N": "3"}
    error = admin.error(2, "grant", "acme", "--share", "retail")
    assert "only the tables sales.* are granted to 'acme'. To change the tables, add --tables; to grant the whole share, add --all-tables" in error
    assert "note: share 'retail' has no table that matches sales.x or stock.*" in said(
        "grant", "acme", "retail.stock.*", "retail.sales.x", "retail.sales.ord*")
    both = ["sales.ord*", "sales.x", "stock.*"]
    assert admin.json("recipient", "show", "acme")["shares"] == [{"share": "retail", "tables": both}]
    assert admin.json("share", "show", "retail")["recipients"] == [{"recipient": "acme", "tables": both}]
    [row] = admin.json("recipient", "list")
    assert (row["shares"], row["tables"]) == (["retail"], [f"retail.{pattern}" for pattern in both])
    for command in (("recipient", "show", "acme"), ("share", "show", "retail")):
        assert "sales.ord*, sales.x, stock.*" in admin.run(*command).stdout
    assert "retail.sales.ord*, retail.sales.x, retail.stock.*" in admin.run("recipient", "list").stdout
    for arguments, text in (
        (("retail.sales",), "is not SHARE.SCHEMA.TABLE"), (("*.sales.*",), "without a wildcard"),
        (("retail.sales.*", "other.a.b"), "grant each share with a command of its own"), ((), "required"),
        (("retail.sales.*", "--share", "retail"), "cannot be used with"), (("--share", "retail", "--tables", "sales"), "is not SCHEMA.TABLE"),
        (("--share", "retail", "--tables", "a.*", "--all-tables"), "cannot be used with"),
    ):
        assert text in admin.error(2, "grant", "acme", *arguments)
    assert "there is no share 'other'" in admin.error(3, "grant", "acme", "other.sales.*")

    # What it sees, with the filters, and until when.
    admin.run("table", "update", "retail.sales.orders", "--filter", "a = 1")
    admin.run("grant", "acme", "retail.sales.*", "--filter", "b = 2 OR b = 3")
    shown = admin.json("recipient", "show", "acme")
    assert shown["visibleTables"] == [
        {"table": "retail.sales.orders", "filter": "(a = 1) AND (b = 2 OR b = 3)"}, {"table": "retail.sales.returns", "filter": "b = 2 OR b = 3"}]
    assert shown["readsUntil"] == "never" and "moreTables" not in shown
    text = admin.run("recipient", "show", "acme").stdout
    assert re.search(r"readsUntil +a token never expires", text) and "retail.sales.returns  b = 2 OR b = 3" in text
    for token in admin.json("token", "list", "acme"):
        admin.run("token", "revoke", "acme", token["sha256"], "--yes")
    assert re.search(r"readsUntil +reads nothing: it has no token\n", admin.run("recipient", "show", "acme").stdout)
    assert "readsUntil" not in (shown := admin.json("recipient", "show", "acme")) and shown["visibleTables"] == []
    admin.run("token", "create", "acme", "--expires", "90d", "--profile", tmp_path / "new.share")
    admin.run("token", "create", "acme", "--expires", "30d", "--profile", tmp_path / "sooner.share")
    ends = [token["expires"] for token in admin.json("token", "list", "acme")]
    assert admin.json("recipient", "show", "acme")["readsUntil"] == max(ends)
    shown = admin.run("recipient", "show", "acme").stdout
    assert re.search(rf"readsUntil +{re.escape(max(ends))} \(in 89 days\)", shown)
    admin.run("recipient", "update", "acme", "--disable")
    assert "reads nothing: it is disabled" in admin.run("recipient", "show", "acme").stdout
    admin.run("recipient", "update", "acme", "--enable")

    # A share file says the same.
    file = tmp_path / "shares.yaml"
    file.write_text(admin.run("export").stdout)
    assert admin.run("plan", "-f", file).stdout == "" and "sales.*" in file.read_text()
    wider = file.read_text().replace("sales.*", "'*.*'")
    assert wider != file.read_text()
    file.write_text(wider)
    assert admin.run("plan", "-f", file).stdout == (
        "~ grant of retail to acme: tables [sales.*] -> [*.*] (shares more tables than before)\n")
    # As long as there are tables that the file does not have, the grant does not get more of them.
    file.write_text(re.sub(r" *- name: secret\n(?: +[^ -].*\n)+", "", wider))
    assert "secret" not in file.read_text()
    done = admin.run("apply", "-f", file)
    assert done.stdout == "" and "2 changes need --prune" in done.stderr
    assert admin.json("recipient", "show", "acme")["shares"][0]["tables"] == ["sales.*"]
    assert [line[:3] for line in admin.run("apply", "-f", file, "--prune").stdout.splitlines()] == ["- t", "~ g"]
    assert "retail.hidden.orders" in [each["table"] for each in admin.json("recipient", "show", "acme")["visibleTables"]]
    assert "before, the grant had the tables *.* and the filter b = 2 OR b = 3" in said(
        "grant", "acme", "--share", "retail", "--all-tables", "--no-filter")
    assert items(client, table)["RECIPIENT#acme", "SHARE#retail"]["format"] == {"N": "1"}
    assert admin.json("recipient", "show", "acme")["shares"] == [{"share": "retail"}]


def test_the_patterns_of_a_grant_that_cannot_be_read_are_named(world, aws, tables, tmp_path):  # noqa: F811
    admin, _, client, table = world
    DynamoDbCatalog(world, tmp_path, aws, tables["change_data_feed"])
    item = items(client, table)["RECIPIENT#acme", "SHARE#retail"]
    client.put_item(TableName=table, Item={**item, "tables": {"L": [{"S": "sales"}]}, "format": {"N": "3"}})
    warning = ("warning: servers refuse requests for a share, because the grant record RECIPIENT#acme SHARE#retail has an attribute tables "
               "that names no tables: 'sales' is not SCHEMA.TABLE, such as sales.orders or sales.*\n")
    for command in (("recipient", "show", "acme"), ("share", "show", "retail")):
        assert warning in admin.run(*command).stderr
    assert admin.json("recipient", "show", "acme")["visibleTables"] == []
    assert "has an attribute tables that names no tables" in admin.error(1, "grant", "acme", "--share", "retail")
