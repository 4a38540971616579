"""The commands that change what is shared, over a DynamoDB of our own, with a server that shows what is in force."""

import concurrent.futures
import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time

import boto3.dynamodb.types
import delta_sharing
import pytest

from conftest import BINARY, ROOT, Server, hash_of
from faults import RESET, Way, cut
from test_dynamodb import make_table, put

BUCKET = "admin"
UUID = "6f1c0f0e-0b1e-4d2f-9d3c-2f1d0f5c8a11"


class Admin:
    """`deltashare` with an own DynamoDB table."""

    def __init__(self, aws, table, endpoint):
        self.environment = {**os.environ, **aws.environment, "DELTASHARE_TABLE": table, "DELTASHARE_ENDPOINT": endpoint}

    def run(self, *arguments, code=0, **more):
        done = subprocess.run([str(BINARY), *map(str, arguments)], env=self.environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60, **more)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--output", "json").stdout)

    def error(self, code, *arguments):
        return self.run(*arguments, code=code).stderr


@pytest.fixture(scope="module")
def bucket(aws, tables):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for file in tables["py_versions"].rglob("*"):
        if file.is_file():
            s3.upload_file(str(file), BUCKET, f"orders/{file.relative_to(tables['py_versions'])}")


@pytest.fixture
def world(aws, bucket, request):
    """An empty catalog, its commands, and a server over it."""
    table = f"admin-{abs(hash(request.node.name))}"
    client = aws.client("dynamodb")
    client_make(client, table)
    server = Server("--catalog", f"dynamodb:{table}", env=aws.environment)
    yield Admin(aws, table, server.endpoint), server, client, table
    assert server.stop() == 0


def client_make(client, table):
    import test_dynamodb

    before, test_dynamodb.TABLE = test_dynamodb.TABLE, table
    try:
        make_table(client)
    finally:
        test_dynamodb.TABLE = before


def token_of(profile):
    return json.loads(profile.read_text())["bearerToken"]


def retail(admin, tmp_path):
    admin.run("share", "create", "Retail", "--comment", "sales and stock")
    admin.run("schema", "create", "retail.Sales")
    admin.run("table", "create", "retail.sales.Orders", "--location", f"s3a://{BUCKET}/orders/", "--history", "--id", UUID)
    profile = tmp_path / "acme.share"
    admin.run("recipient", "create", "Acme", "--share", "retail", "--expires", "90d", "--profile", profile)
    return profile


def test_from_nothing_to_rows(world, tmp_path, tables):
    admin, server, client, table = world
    profile = retail(admin, tmp_path)
    assert profile.stat().st_mode & 0o777 == 0o600
    written = json.loads(profile.read_text())
    assert written["shareCredentialsVersion"] == 1 and written["endpoint"] == server.endpoint and written["endpoint"].endswith("/")
    ends = datetime.datetime.fromisoformat(written["expirationTime"])
    left = ends - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(days=89, hours=23) < left <= datetime.timedelta(days=90)
    rows = delta_sharing.load_as_pandas(f"{profile}#retail.sales.orders")
    assert sorted(rows["id"]) == sorted(row["id"] for row in json.loads((tables["py_versions"] / "expected.json").read_text()))
    listed = server.request("GET", "/shares/retail/all-tables", token=written["bearerToken"]).json["items"]
    assert [(item["share"], item["schema"], item["name"], item["id"]) for item in listed] == [("Retail", "Sales", "Orders", UUID)]
    # Nothing but the hash is stored.
    stored = json.dumps(client.scan(TableName=table)["Items"], default=str)
    assert written["bearerToken"] not in stored and hash_of(written["bearerToken"]) in stored


def test_lists_for_people_and_for_scripts(world, tmp_path):
    admin, *_ = world
    retail(admin, tmp_path)
    assert [share["name"] for share in admin.json("share", "list")] == ["Retail"]
    assert admin.json("schema", "list", "retail") == [{"name": "Sales"}]
    assert admin.json("table", "list", "retail") == [{
        "schema": "Sales", "name": "Orders", "location": f"s3://{BUCKET}/orders", "historyShared": True, "startVersion": 0,
        "directoryAccess": False, "id": UUID}]
    [token] = admin.json("token", "list", "acme")
    assert (token["state"], len(token["sha256"])) == ("live", 8)
    assert admin.json("recipient", "list") == [{
        "name": "Acme", "status": "active", "shares": ["Retail"], "liveTokens": 1, "tokenLimit": 2, "nextExpiry": token["expires"]}]
    admin.run("token", "create", "acme", "--expires", "12h", "--profile", tmp_path / "sooner.share")
    admin.run("recipient", "create", "none", "--expires", "never", "--comment", "has nothing", "--profile", tmp_path / "none.share")
    listed = {recipient["name"]: recipient for recipient in admin.json("recipient", "list")}
    assert listed["Acme"]["liveTokens"] == 2 and listed["Acme"]["nextExpiry"] < token["expires"]
    assert listed["none"]["shares"] == [] and listed["none"]["nextExpiry"] == "never"
    admin.run("token", "revoke", "none", admin.json("token", "list", "none")[0]["id"], "--yes")
    lines = {line.split()[0]: line.split() for line in admin.run("recipient", "list").stdout.splitlines()}
    assert lines["name"] == ["name", "status", "shares", "liveTokens", "tokenLimit", "nextExpiry", "comment"]
    assert lines["Acme"] == ["Acme", "active", "Retail", "2", "2", listed["Acme"]["nextExpiry"]]
    assert lines["none"] == ["none", "active", "0", "2", "has", "nothing"]
    text = admin.run("share", "list").stdout.splitlines()
    assert text[0].split() == ["name", "id", "comment"] and text[1].startswith("Retail  ") and "\x1b" not in "".join(text)
    shown = admin.run("recipient", "show", "acme").stdout
    assert "Retail" in shown and "active" in shown
    assert "Acme" in admin.run("share", "show", "RETAIL").stdout


def test_grant_and_revoke(world, tmp_path):
    admin, server, *_ = world
    profile = retail(admin, tmp_path)
    token = token_of(profile)
    admin.run("share", "create", "finance")
    names = lambda: [share["name"] for share in server.request("GET", "/shares", token=token).json["items"]]  # noqa: E731
    assert names() == ["Retail"]
    admin.run("grant", "acme", "--share", "finance")
    admin.run("grant", "acme", "--share", "finance")
    assert sorted(names()) == ["Retail", "finance"]
    admin.run("revoke", "acme", "--share", "Retail")
    assert names() == ["finance"]
    assert "there is no grant" in admin.error(3, "revoke", "acme", "--share", "retail")
    assert "there is no share 'none'" in admin.error(3, "grant", "acme", "--share", "none")
    assert "there is no recipient 'nobody'" in admin.error(3, "grant", "nobody", "--share", "finance")


def test_tokens(world, tmp_path):
    admin, server, *_ = world
    old = token_of(retail(admin, tmp_path))
    works = lambda token: server.request("GET", "/shares", token=token).status == 200  # noqa: E731
    admin.run("token", "rotate", "acme", "--grace", "1h", "--expires", "30d", "--profile", tmp_path / "second.share")
    second = token_of(tmp_path / "second.share")
    assert works(old) and works(second)
    assert "has 2 live tokens" in admin.error(2, "token", "create", "acme")
    # The oldest ends at once, so that there are never more than two.
    admin.run("token", "rotate", "acme", "--grace", "1h", "--profile", tmp_path / "third.share")
    third = token_of(tmp_path / "third.share")
    assert not works(old) and works(second) and works(third)
    ends = {token["id"]: token["expires"] for token in admin.json("token", "list", "acme")}
    admin.run("token", "rotate", "acme", "--grace", "0", "--expires", "never", "--profile", tmp_path / "fourth.share")
    fourth = token_of(tmp_path / "fourth.share")
    assert not works(second) and not works(third) and works(fourth)
    after = {token["id"]: token["expires"] for token in admin.json("token", "list", "acme")}
    assert all(after[token] <= end for token, end in ends.items()), "a token lives longer than before"
    live, = [token for token, end in after.items() if end == "never"]
    assert "Confirm with --yes" in admin.error(2, "token", "revoke", "acme", live)
    admin.run("token", "revoke", "acme", live, "--yes")
    assert not works(fourth)
    assert "there is no token" in admin.error(3, "token", "revoke", "acme", live, "--yes")
    admin.run("token", "create", "acme", "--profile", tmp_path / "fifth.share")
    assert works(token_of(tmp_path / "fifth.share"))


def target(request):
    """The operation of a request to DynamoDB."""
    return (request.headers.get("X-Amz-Target") or "").rpartition(".")[2]


@pytest.fixture
def way(aws, world):
    """A way between the commands and DynamoDB; the server has its own."""
    admin, *_ = world
    way = Way(int(aws.dynamodb.rpartition(":")[2]))
    admin.environment = {**admin.environment, "AWS_ENDPOINT_URL_DYNAMODB": way.endpoint}
    yield way
    way.stop()


def live_tokens(admin):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [token for token in admin.json("token", "list", "acme") if token["expires"] == "never" or token["expires"] > now]


def test_of_sixteen_rotations_at_once_one_is_made(world, way, tmp_path):
    admin, server, *_ = world
    old = token_of(retail(admin, tmp_path))
    # No write passes before all sixteen have read what they write over.
    all_have_read = threading.Barrier(16)

    def hold_back(request):
        if target(request) == "TransactWriteItems" and not all_have_read.broken:
            try:
                all_have_read.wait(60)
            except threading.BrokenBarrierError:
                pass

    def rotate(number):
        profile = tmp_path / f"{number}.share"
        done = subprocess.run([str(BINARY), "token", "rotate", "acme", "--grace", "1h", "--profile", str(profile)],
                              env=admin.environment, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stderr, profile

    way.rule = hold_back
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(rotate, range(16)))
    way.rule = None
    made = [profile for code, _, profile in results if code == 0]
    lost = [(code, error) for code, error, _ in results if code != 0]
    assert len(made) == 1 and all(code == 3 and "changed by somebody else" in error for code, error in lost), results
    assert all(not profile.exists() for code, _, profile in results if code != 0)
    assert len(live_tokens(admin)) == 2
    for token in (old, token_of(made[0])):
        assert server.request("GET", "/shares", token=token).status == 200


def test_of_two_editors_of_a_record_one_is_told(world, way, tmp_path):
    admin, _, client, table = world
    retail(admin, tmp_path)

    def somebody_else(*arguments):
        """Lets somebody else be faster, once."""
        def rule(request):
            if target(request) == "TransactWriteItems":
                way.rule = None
                other = {**admin.environment, "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{way.target}"}
                subprocess.run([str(BINARY), *arguments], env=other, check=True, capture_output=True, timeout=60)
        way.rule = rule

    orders = "retail.sales.orders"
    for first, second in (
        (("table", "update", orders, "--start-version", "1"), ("table", "update", orders, "--no-history")),
        (("share", "update", "retail", "--comment", "a"), ("share", "update", "retail", "--comment", "b")),
        (("recipient", "update", "acme", "--disable"), ("recipient", "update", "acme", "--comment", "b")),
        (("table", "delete", orders, "--yes"), ("table", "update", orders, "--start-version", "2")),
    ):
        somebody_else(*first)
        assert "changed by somebody else" in admin.error(3, *second), second
    assert admin.json("share", "show", "retail")["comment"] == "a"
    assert admin.json("recipient", "show", "acme")["status"] == "disabled"


def items(client, table):
    found = []
    for page in client.get_paginator("scan").paginate(TableName=table):
        found += page["Items"]
    return {(item["pk"]["S"], item["sk"]["S"]): item for item in found}


def check_invariants(there):
    """What must be true of the records at any time."""
    served = {pk for (pk, sk), item in there.items() if sk == "SHARE" and "deleting" not in item}
    active = {pk for (pk, sk), item in there.items() if sk == "RECIPIENT" and item["status"]["S"] == "active"}
    for (pk, sk), item in there.items():
        if pk.startswith("SHARE#") and pk in served and sk.startswith("GRANT#"):
            assert (f"RECIPIENT#{sk[6:]}", pk) in there or f"RECIPIENT#{sk[6:]}" not in active
        if pk in active and sk.startswith("SHARE#"):
            assert (sk, "SHARE") in there and (sk, f"GRANT#{pk[10:]}") in there or sk not in served
        if pk in active and sk.startswith("TOKEN#"):
            assert there[f"TOKEN#{item['sha256']['S']}", "TOKEN"]["expires"] == item["expires"]
        if sk == "TOKEN":
            of = f"RECIPIENT#{item['recipient']['S'].lower()}"
            assert of not in active or (of, f"TOKEN#{item['id']['S']}") in there


CUT_OFF = {
    "recipient create": ("recipient", "create", "globex", "--share", "retail"),
    "grant": ("grant", "other", "--share", "retail"),
    "token rotate": ("token", "rotate", "acme", "--grace", "1h"),
    "recipient delete": ("recipient", "delete", "acme", "--yes"),
    "share delete": ("share", "delete", "retail", "--yes"),
    "table update": ("table", "update", "retail.sales.orders", "--no-history"),
}


@pytest.mark.parametrize("kind", CUT_OFF)
@pytest.mark.parametrize("told", [True, False], ids=["request lost", "answer lost"])
def test_an_operation_that_is_cut_off_anywhere_happened_or_did_not(world, way, tmp_path, kind, told):
    """Cut off after its first request, its second, and so on until it gets through; then it is said again."""
    admin, server, client, table = world
    token = token_of(retail(admin, tmp_path))
    admin.run("recipient", "create", "other")
    for number in range(130 if kind == "share delete" else 0):
        client.put_item(TableName=table, Item={name: {"S": value} for name, value in {
            "pk": "SHARE#retail", "sk": f"TABLE#sales#t{number}", "name": f"t{number}", "schema": "Sales", "id": str(number),
            "location": f"s3://x/{number}"}.items()} | {"format": {"N": "1"}})
    before = items(client, table)
    command, cuts = [str(BINARY), *CUT_OFF[kind]], 0
    for passing in range(60):
        for key in items(client, table).keys() - before.keys():
            client.delete_item(TableName=table, Key={"pk": {"S": key[0]}, "sk": {"S": key[1]}})
        for item in before.values():
            client.put_item(TableName=table, Item=item)
        way.rule = After(passing, RESET if told else cut(0))
        done = subprocess.run(command, env={**admin.environment, "AWS_MAX_ATTEMPTS": "1"}, capture_output=True, text=True, timeout=120)
        way.rule = None
        there = items(client, table)
        check_invariants(there)
        table_there = server.request("GET", "/shares/retail/schemas/sales/tables/orders/version", token=token).status
        assert table_there in ((200, 404, 401) if "delete" in kind else (200,))
        if done.returncode == 0:
            break
        cuts += 1
        if told and there == before:
            continue
        # What has begun is finished by saying it again, or it is done.
        again = subprocess.run(command, env=admin.environment, capture_output=True, text=True, timeout=120)
        assert again.returncode == 0 or again.returncode == 3 and ("already exists" in again.stderr or "there is no" in again.stderr), again
        check_invariants(items(client, table))
    assert done.returncode == 0, done.stderr
    assert cuts >= 2


class After:
    """A fault for every request after so many."""

    def __init__(self, passing, fault):
        self.passing, self.fault, self.seen = passing, fault, 0

    def __call__(self, request):
        self.seen += 1
        return self.fault if self.seen > self.passing else None


def test_what_is_shared_is_changed(world, tmp_path):
    admin, server, client, table = world
    token = token_of(retail(admin, tmp_path))
    orders = "retail.sales.orders"
    query = "/shares/retail/schemas/sales/tables/orders/version?startingTimestamp=2020-01-01T00:00:00Z"
    assert server.request("GET", query, token=token).status == 200
    said = admin.run("table", "update", orders, "--no-history", "--start-version", "1").stderr
    assert "historyShared true -> false" in said and "startVersion 0 -> 1" in said and "location" not in said
    assert server.request("GET", query, token=token).status == 400
    admin.run("table", "update", orders, "--history", "--start-version", "0", "--allow", "s3://lake/a", "--allow", "s3://lake/b",
              "--signer-role", "arn:aws:iam::123456789012:role/other")
    shown = admin.json("table", "show", orders)
    assert shown == {"schema": "Sales", "name": "Orders", "id": UUID, "location": f"s3://{BUCKET}/orders", "historyShared": True,
                     "startVersion": 0, "directoryAccess": False, "allowedLocations": ["s3://lake/a", "s3://lake/b"],
                     "signerRole": "arn:aws:iam::123456789012:role/other"}
    text = admin.run("table", "show", orders).stdout
    assert "signerRole        arn:aws:iam::123456789012:role/other" in text and "allowedLocations  s3://lake/a, s3://lake/b" in text
    # What deltashare does not know of a record is left alone.
    client.update_item(TableName=table, Key={"pk": {"S": "SHARE#retail"}, "sk": {"S": "TABLE#sales#orders"}},
                       UpdateExpression="SET colour = :c", ExpressionAttributeValues={":c": {"S": "blue"}})
    admin.run("table", "update", orders, "--no-allow", "--no-signer-role", "--directory-access")
    record = client.get_item(TableName=table, Key={"pk": {"S": "SHARE#retail"}, "sk": {"S": "TABLE#sales#orders"}})["Item"]
    assert record["colour"] == {"S": "blue"} and "signerRole" not in record and record["allowedLocations"] == {"L": []}
    assert "already has these settings" in admin.run("table", "update", orders, "--directory-access").stderr
    assert server.request("GET", query, token=token).status == 200

    admin.run("share", "update", "retail", "--comment", "sales only")
    shown = admin.json("share", "show", "RETAIL")
    assert (shown["name"], shown["comment"]) == ("Retail", "sales only")
    assert shown["schemas"] == [{"name": "Sales"}] and shown["recipients"] == [{"recipient": "Acme"}]
    assert shown["tables"] == [{"schema": "Sales", "name": "Orders", "location": f"s3://{BUCKET}/orders"}]
    admin.run("share", "update", "retail", "--no-comment")
    assert "comment" not in admin.json("share", "show", "retail")
    assert admin.json("schema", "show", "retail.sales") == {
        "name": "Sales", "tables": [{"name": "Orders", "location": f"s3://{BUCKET}/orders"}]}

    admin.run("recipient", "update", "acme", "--disable", "--comment", "left us")
    assert server.request("GET", "/shares", token=token).status == 401
    shown = admin.json("recipient", "show", "acme")
    assert (shown["status"], shown["comment"], shown["shares"]) == ("disabled", "left us", [{"share": "Retail"}])
    admin.run("recipient", "update", "acme", "--enable", "--no-comment")
    assert server.request("GET", "/shares", token=token).status == 200


def test_the_profile_of_a_token_at_hand(world, tmp_path):
    admin, server, *_ = world
    made = retail(admin, tmp_path)
    token = tmp_path / "token.txt"
    token.write_text(token_of(made) + "\n")
    again = tmp_path / "again.share"
    admin.run("profile", "ACME", "--token-file", token, "--profile", again)
    assert json.loads(again.read_text()) == {**json.loads(made.read_text()), "expirationTime": json.loads(again.read_text())["expirationTime"]}
    assert json.loads(again.read_text())["expirationTime"][:19] == json.loads(made.read_text())["expirationTime"][:19]
    assert again.stat().st_mode & 0o777 == 0o600
    assert "already exists" in admin.error(2, "profile", "acme", "--token-file", token, "--profile", again)
    piped = subprocess.run([str(BINARY), "profile", "acme", "--token-file", "-"], env=admin.environment, input=token.read_text(),
                           capture_output=True, text=True, timeout=60)
    assert json.loads(piped.stdout) == json.loads(again.read_text())
    assert "does not contain a token of recipient 'other'" in admin.error(2, "profile", "other", "--token-file", token)
    token.write_text("dss_none")
    error = admin.error(2, "profile", "acme", "--token-file", token)
    assert "does not contain a token of recipient 'acme'" in error and "dss_none" not in error
    assert "No such file" in admin.error(2, "profile", "acme", "--token-file", tmp_path / "none")


def test_tokens_that_expire_soon_are_listed_over_all_recipients(world):
    admin, *_ = world
    admin.run("share", "create", "retail")
    for name, expires in (("soon", "10d"), ("later", "20d"), ("always", "never")):
        admin.run("recipient", "create", name, "--expires", expires)
    admin.run("recipient", "create", "gone", "--expires", "1s")
    time.sleep(2)
    everyone = [(token["recipient"], token["state"]) for token in admin.json("token", "list")]
    assert everyone == [("always", "live"), ("gone", "ended"), ("later", "live"), ("soon", "live")]
    of = lambda *arguments: [token["recipient"] for token in admin.json("token", "list", "--expiring", *arguments)]
    assert of("14d") == ["soon"] and of("30d") == ["later", "soon"] and of("1h") == []
    assert len(admin.json("token", "list", "soon", "--expiring", "14d")) == 1
    assert admin.json("token", "list", "later", "--expiring", "14d") == []
    assert "there is no recipient 'none'" in admin.error(3, "token", "list", "none", "--expiring", "14d")
    assert "No token expires" in admin.run("token", "list", "--expiring", "1h").stderr
    warned = admin.run("check").stderr
    assert "the last token of recipient soon" in warned and "every token of recipient gone has expired" in warned
    assert "later" not in warned and "always" not in warned


def test_a_new_token_works_with_the_lines_that_are_printed_for_a_share_file(tables, tmp_path):
    run = lambda *arguments: subprocess.run([str(BINARY), "token", "new", *arguments], capture_output=True, text=True, timeout=60)
    shares = f"version: 1\nshares:\n- name: s\n  schemas:\n  - name: d\n    tables:\n    - name: t\n      location: {tables['py_versions']}\n"
    file = tmp_path / "shares.yaml"

    def reads(lines, token):
        file.write_text(f"{shares}recipients:\n- name: acme\n  shares: [s]\n{lines}")
        server = Server("--shares", file)
        try:
            return server.request("GET", "/shares", token=token).status
        finally:
            server.stop()

    shown = run("--expires", "1h").stdout
    token, lines = re.match(r"token:  (dss_\S+)\nsha256: [0-9a-f]{64}\n\n((?:.*\n)+)", shown).groups()
    assert hash_of(token) in lines
    assert reads(lines, token) == 200 and reads(lines, token + "x") == 401
    made = json.loads(run("--output", "json").stdout)
    assert made["sha256"] == hash_of(made["token"])
    profile = tmp_path / "acme.share"
    done = run("--profile", str(profile), "--endpoint", "http://127.0.0.1:1/delta-sharing/")
    token = json.loads(profile.read_text())["bearerToken"]
    assert token not in done.stdout + done.stderr and hash_of(token) in done.stdout
    assert profile.stat().st_mode & 0o777 == 0o600
    assert reads(done.stdout, token) == 200
    assert run("--profile", str(profile), "--endpoint", "http://127.0.0.1:1/").returncode == 2
    assert run("--profile", str(tmp_path / "other")).returncode == 2


def test_a_recipient_that_is_deleted(world, tmp_path):
    admin, server, client, table = world
    token = token_of(retail(admin, tmp_path))
    admin.run("recipient", "delete", "acme", "--yes")
    assert server.request("GET", "/shares", token=token).status == 401
    left = [item["pk"]["S"] + " " + item["sk"]["S"] for item in client.scan(TableName=table)["Items"]]
    assert not [key for key in left if "acme" in key or key.startswith("TOKEN#")]
    assert "there is no recipient" in admin.error(3, "recipient", "delete", "acme", "--yes")


def test_filters_and_properties(world, tmp_path):
    admin, server, client, table = world
    retail(admin, tmp_path)
    orders, stores = "retail.sales.orders", "retail.sales.stores"
    said = lambda *arguments: admin.run(*arguments).stderr  # noqa: E731
    by_region = "region = ${recipient.region}"
    admin.run("table", "create", stores, "--location", "s3://lake/stores", "--filter", by_region)
    assert admin.json("table", "show", stores)["filter"] == by_region
    assert {each["name"]: each.get("filter") for each in admin.json("table", "list", "retail")} == {"Orders": None, "stores": by_region}
    assert by_region in admin.run("table", "list", "retail").stdout and by_region in admin.run("share", "show", "retail").stdout
    assert said("table", "update", orders, "--filter", "year = 2024") == f"Table '{orders}' was updated: filter none -> year = 2024\n"
    assert said("table", "update", orders, "--start-version", "1").endswith("startVersion 0 -> 1\n")
    assert "filter year = 2024 -> year = 2025 (can share other rows than before)" in said("table", "update", orders, "--filter", "year = 2025")
    assert admin.json("table", "show", orders)["filter"] == "year = 2025"
    assert "filter year = 2025 -> none (shares more rows than before)" in said("table", "update", orders, "--no-filter")
    assert "already has these settings" in said("table", "update", orders, "--no-filter")
    assert "filter" not in admin.json("table", "show", orders)

    assert said("grant", "acme", "--share", "retail") == "Share 'retail' is granted to 'acme', which sees it with its next request.\n"
    assert "with the filter year = 2024 from the next request; before, the grant had no filter. URLs" in said(
        "grant", "acme", "--share", "retail", "--filter", "year = 2024")
    error = admin.error(2, "grant", "acme", "--share", "retail")
    assert "is granted to 'Acme' with the filter year = 2024. To change the filter, add --filter; to remove it, add --no-filter" in error
    assert "before, the grant had the filter year = 2024" in said("grant", "acme", "--share", "retail", "--filter", "year = 2025")
    assert admin.json("recipient", "show", "acme")["shares"] == [{"share": "Retail", "filter": "year = 2025"}]
    assert admin.json("share", "show", "retail")["recipients"] == [{"recipient": "Acme", "filter": "year = 2025"}]
    assert "year = 2025" in admin.run("recipient", "show", "acme").stdout
    assert [recipient["shares"] for recipient in admin.json("recipient", "list")] == [["Retail"]]
    assert "with no filter from the next request; before, the grant had the filter year = 2025" in said(
        "grant", "acme", "--share", "retail", "--no-filter")
    assert admin.json("recipient", "show", "acme")["shares"] == [{"share": "Retail"}]

    admin.run("recipient", "update", "acme", "--property", "region=EU", "--property", "tier=a=b, c")
    assert admin.json("recipient", "show", "acme")["properties"] == {"region": "EU", "tier": "a=b, c"}
    assert re.search("^properties +region=EU, tier=a=b, c$", admin.run("recipient", "show", "acme").stdout, re.M)
    admin.run("recipient", "update", "acme", "--property", "region=US", "--no-property", "tier", "--comment", "moved")
    shown = admin.json("recipient", "show", "acme")
    assert (shown["properties"], shown["comment"]) == ({"region": "US"}, "moved")
    admin.run("recipient", "create", "globex", "--share", "retail", "--property", "region=EU", "--profile", tmp_path / "globex.share")
    assert admin.json("recipient", "show", "globex")["properties"] == {"region": "EU"}
    admin.run("recipient", "update", "acme", "--no-property", "region")
    assert "properties" not in admin.json("recipient", "show", "acme")

    # A server reads it all, and what it cannot read it refuses.
    token = token_of(tmp_path / "globex.share")
    listed = lambda: [each["name"] for each in server.request("GET", "/shares/retail/all-tables", token=token).json["items"]]  # noqa: E731
    assert listed() == ["Orders", "stores"]
    there = items(client, table)
    assert there["SHARE#retail", "TABLE#sales#stores"]["format"] == {"N": "2"}
    client.put_item(TableName=table, Item={**there["SHARE#retail", "TABLE#sales#stores"], "filter": {"NULL": True}})
    assert listed() == ["Orders"]
    assert "an attribute filter that is not a string" in admin.run("table", "show", stores).stderr
    client.put_item(TableName=table, Item={**there["SHARE#retail", "TABLE#sales#stores"]})
    client.put_item(TableName=table, Item={**there["RECIPIENT#globex", "SHARE#retail"], "filter": {"NULL": True}})
    for command in (("recipient", "show", "globex"), ("share", "show", "retail")):
        assert ("warning: servers refuse requests for a share, because the grant record RECIPIENT#globex SHARE#retail has an attribute "
                "filter that is not a string\n") in admin.run(*command).stderr
    client.put_item(TableName=table, Item=there["RECIPIENT#globex", "SHARE#retail"])

    # What is written down is what is there, and what is left out of a file goes.
    file = tmp_path / "shares.yaml"
    file.write_text(admin.run("export").stdout)
    planned = admin.run("plan", "-f", file)
    assert planned.stdout == "" and "nothing to change" in planned.stderr
    assert "warning: recipient Acme has no property region, so it sees no rows of Retail.Sales.stores\n" in planned.stderr
    kept = [line for line in file.read_text().splitlines() if "filter:" not in line]
    file.write_text("\n".join(kept).replace("region: EU", "region: US") + "\n")
    assert admin.run("apply", "-f", file).stdout == (
        "~ recipient globex: property region EU -> US (filters that read them can share other rows than before)\n"
        f"~ table Retail.Sales.stores: filter {by_region} -> none (shares more rows than before)\n")
    assert "filter" not in admin.json("table", "show", stores)


def test_a_filter_stays_as_long_as_the_recipient_that_it_hides_rows_from(world, tmp_path):
    admin, _, _, _ = world
    file = tmp_path / "shares.yaml"

    def write(condition, *recipients):
        table = {"name": "orders", "location": "s3://lake/orders", **({"filter": condition} if condition else {})}
        file.write_text(json.dumps({"version": 1, "shares": [{"name": "retail", "schemas": [{"name": "sales", "tables": [table]}]}],
                                    "recipients": [{"name": name, "shares": ["retail"]} for name in recipients]}))

    write("region = 'EU'", "acme", "globex")
    admin.run("apply", "-f", file)
    write(None, "acme")
    prune = f"deltashare apply -f {file} --prune\n"
    assert admin.run("plan", "-f", file).stderr == f"0 changes to apply; 2 changes need --prune. To apply them: {prune}"
    kept = admin.run("apply", "-f", file)
    assert kept.stdout == "" and "0 changes applied. 2 changes need --prune" in kept.stderr
    assert admin.json("table", "show", "retail.sales.orders")["filter"] == "region = 'EU'"
    assert admin.run("plan", "-f", file, "--prune").stderr == f"2 changes to apply, including 1 deletion, with: {prune}"
    assert [line[:3] for line in admin.run("apply", "-f", file, "--prune").stdout.splitlines()] == ["- r", "~ t"]
    assert "filter" not in admin.json("table", "show", "retail.sales.orders")
    # A filter that goes alone needs nothing.
    write("region = 'US'", "acme")
    admin.run("apply", "-f", file)
    write(None, "acme")
    assert "1 change applied" in admin.run("apply", "-f", file).stderr


def test_serve_warns_of_recipients_without_properties(tmp_path):
    file = tmp_path / "shares.yaml"
    tables = [{"name": "t", "location": "s3://lake/t", "filter": "region = ${recipient.region}"}]
    file.write_text(json.dumps({"version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": tables}]}], "recipients": [
        {"name": "acme", "shares": ["s"], "properties": {"other": "kept quiet"}}, {"name": "globex", "shares": ["s"], "properties": {"region": "EU"}}]}))
    server = Server("--shares", file)
    assert server.stop() == 0
    log = "".join(server.log)
    assert "recipient acme has no property region, so it sees no rows of s.d.t" in log and "globex" not in log and "kept quiet" not in log


def test_a_large_share_that_is_deleted_is_never_half_served(world, tmp_path):
    admin, server, client, table = world
    token = token_of(retail(admin, tmp_path))
    import test_dynamodb

    before, test_dynamodb.TABLE = test_dynamodb.TABLE, table
    try:
        for number in range(350):
            put(client, "SHARE#retail", f"TABLE#sales#t{number}", name=f"t{number}", schema="Sales", id=str(number), location="s3://x/y")
    finally:
        test_dynamodb.TABLE = before
    killed = subprocess.Popen([str(BINARY), "share", "delete", "retail", "--yes"], env=admin.environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while server.request("GET", "/shares/retail", token=token).status == 200:
        assert time.monotonic() < end
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    # Whatever is left of it, nothing of it is served, and its name is not free.
    assert server.request("GET", "/shares", token=token).json == {"items": []}
    assert server.request("GET", "/shares/retail/schemas/sales/tables/orders/version", token=token).status == 404
    there = [item for item in client.scan(TableName=table)["Items"] if item["pk"]["S"] == "SHARE#retail"]
    if there:
        assert "is being deleted" in admin.error(2, "share", "create", "retail")
        assert "there is no share 'Retail'" in admin.error(3, "grant", "acme", "--share", "retail")
        admin.run("share", "delete", "retail", "--yes")
    there = [item for item in client.scan(TableName=table)["Items"] if "retail" in item["pk"]["S"] + item["sk"]["S"]]
    assert not there
    admin.run("share", "create", "retail")


def shares_file(path, *, history=True, recipients=("acme", "globex"), tables=("Orders", "Items"), token="dss_plan", expires="2999-01-01T00:00:00Z"):
    path.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "Retail", "schemas": [
            {"name": "Sales", "tables": [
                {"name": name, "location": f"s3://{BUCKET}/{'orders' if name == 'Orders' else name}/", "historyShared": history}
                for name in tables]},
            {"name": "empty"},
        ]}],
        "recipients": [{"name": name, "shares": ["retail"], "tokens": [{"sha256": hash_of(f"{token}-{name}"), "expires": expires}]}
                       for name in recipients],
    }))
    return path


def test_a_share_file_is_applied(world, tmp_path, tables):
    admin, server, *_ = world
    file = shares_file(tmp_path / "shares.yaml")
    planned = admin.run("plan", "-f", file)
    assert "+ share Retail" in planned.stdout and "+ table Retail.Sales.Orders" in planned.stdout and "+ grant of retail to acme" in planned.stdout
    assert "dss_plan" not in planned.stdout
    assert server.request("GET", "/shares", token="dss_plan-acme").status == 401
    admin.run("apply", "-f", file)
    assert server.request("GET", "/shares", token="dss_plan-acme").json["items"][0]["name"] == "Retail"
    assert server.request("POST", "/shares/retail/schemas/sales/tables/orders/query", body=b"{}", token="dss_plan-acme").status == 200
    # Again, it changes nothing.
    assert admin.run("apply", "-f", file).stdout == "" == admin.run("plan", "-f", file).stdout
    # What is written down is what is there.
    exported = tmp_path / "exported.yaml"
    exported.write_text(admin.run("export").stdout)
    assert admin.run("plan", "-f", exported).stdout == ""
    assert server_reads(exported, tables)

    other = shares_file(tmp_path / "other.yaml", history=False, recipients=("acme",), tables=("Orders",), expires="2998-01-01T00:00:00Z")
    planned = admin.run("plan", "-f", other).stdout
    for line in ("~ table Retail.Sales.Orders: historyShared true -> false\n", "- table Retail.Sales.Items", "- recipient globex, with its tokens and grants",
                 "until 2999-01-01T00:00:00Z -> 2998-01-01T00:00:00Z"):
        assert line in planned, planned
    # The counts are those of apply with the same options.
    counted = admin.run("plan", "-f", other).stderr
    assert counted == (f"2 changes to apply, with: deltashare apply -f {other}; 2 deletions need --prune. To apply everything: "
                       f"deltashare apply -f {other} --prune\n")
    pruned = admin.run("plan", "-f", other, "--prune")
    assert pruned.stdout == planned and pruned.stderr == f"4 changes to apply, including 2 deletions, with: deltashare apply -f {other} --prune\n"
    applied = admin.run("apply", "-f", other)
    assert "2 changes applied. 2 deletions need --prune: plan shows them" in applied.stderr
    assert admin.run("plan", "-f", other).stderr == (
        f"0 changes to apply; 2 deletions need --prune. To apply them: deltashare apply -f {other} --prune\n")
    assert server.request("GET", "/shares", token="dss_plan-globex").status == 200
    assert "- " not in applied.stdout
    admin.run("apply", "-f", other, "--prune")
    assert server.request("GET", "/shares", token="dss_plan-globex").status == 401
    assert len(server.request("GET", "/shares/retail/all-tables", token="dss_plan-acme").json["items"]) == 1
    assert admin.run("plan", "-f", other).stdout == ""


def server_reads(path, tables):
    """Whether `serve` takes the file; its tables are in S3, which is not asked before they are read."""
    server = Server("--shares", path)
    try:
        return server.request("GET", "/shares", token="dss_plan-acme").status == 200
    finally:
        assert server.stop() == 0


def test_a_file_without_recipients_leaves_them_alone(world, tmp_path):
    admin, server, *_ = world
    token = token_of(retail(admin, tmp_path))
    exported = yaml_without_recipients(admin.run("export").stdout)
    file = tmp_path / "shares.yaml"
    file.write_text(exported)
    assert admin.run("plan", "-f", file).stdout == ""
    file.write_text(exported.replace("historyShared: true", "historyShared: false"))
    assert admin.run("apply", "-f", file, "--prune").stdout.startswith("~ table Retail.Sales.Orders: historyShared true -> false")
    assert server.request("GET", "/shares/retail", token=token).status == 200


def yaml_without_recipients(text):
    kept = text[:text.index("\nrecipients:") + 1]
    assert "Orders" in kept and "Acme" not in kept
    return kept


def test_locations_within_each_other_are_refused(world, tmp_path):
    admin, *_ = world
    file = tmp_path / "shares.yaml"
    tables = [{"name": name, "location": f"s3://lake/{at}"} for name, at in (("a", "a"), ("b", "a-b"), ("c", "a/c"), ("d", "a"))]
    file.write_text(json.dumps({"version": 1, "shares": [{"name": "S", "schemas": [{"name": "s", "tables": tables}]}], "recipients": []}))
    assert "the location of table 'S.s.c' is inside the location of 'S.s." in admin.error(2, "apply", "-f", file)
    assert admin.json("share", "list") == []


def test_check_opens_every_table(world, tmp_path, tables):
    admin, *_ = world
    retail(admin, tmp_path)
    version = len(list((tables["py_versions"] / "_delta_log").glob("*.json"))) - 1
    line = admin.run("check").stdout
    assert line.startswith(f"Retail.Sales.Orders: readable, version {version}, 1 files, ") and "us-east-1" in line
    checked = json.loads(admin.run("check", "--output", "json").stdout)
    assert checked["readable"] and checked["version"] == version and checked["bytes"] > 0
    admin.run("table", "create", "retail.sales.gone", "--location", f"s3://{BUCKET}/nothing/here")
    done = admin.run("check", code=1)
    # Once, and without what the kernel makes of it.
    said = "The table cannot be read: there is no Delta table at its location. (it has no _delta_log/ with a version)"
    assert f"Retail.Sales.gone: NOT readable: {said}\n" in done.stdout and "damaged" not in done.stdout
    assert "1 of 2 tables cannot be read" in done.stderr


def test_check_says_which_permission_is_missing(world, tmp_path, aws):
    admin, *_ = world
    retail(admin, tmp_path)
    iam = aws.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName="nothing", AssumeRolePolicyDocument=json.dumps(trust))
    done = admin.run("check", "--signer-role", "arn:aws:iam::000000000000:role/nothing", code=1)
    assert "permission denied" in done.stdout
    allow = json.loads(done.stdout.split("what allows it: ")[1].splitlines()[0])
    assert allow["Resource"] == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/orders/*"] and allow["Effect"] == "Allow"


def test_everything_goes_with_an_empty_file(world, tmp_path):
    admin, _, client, table = world
    admin.run("apply", "-f", shares_file(tmp_path / "shares.yaml"))
    empty = tmp_path / "empty.yaml"
    empty.write_text('{"version": 1, "shares": [], "recipients": []}')
    admin.run("apply", "-f", empty, "--prune")
    left = [item["pk"]["S"] for item in client.scan(TableName=table)["Items"]]
    assert left == ["SERVER"]


@pytest.mark.parametrize("text,reason", [
    ("version: 2", "version must be 1"), ("version: 1\nrecipents: []", "unknown field"),
    ("version: 1\nauthorization: {bearerToken: dss_one-token-for-everybody-who-reads}", "cannot be kept in DynamoDB"),
    ("version: 1\nauthorization: none\n", "cannot be open to everyone"),
    ("version: 1\nshares: [{name: s, schemas: [{name: d, tables: [{name: t, location: .}]}]}]\nrecipients: []", "is not in S3"),
    ("version: 1\nshares: [{name: s, schemas: [{name: d, tables: [{name: t, location: 'gs://b/t'}]}]}]\nrecipients: []",
     "line 2: table s.d.t cannot be read: the scheme gs:// is not supported"),
])
def test_a_file_that_cannot_be_applied_changes_nothing(world, tmp_path, text, reason):
    admin, _, client, table = world
    file = tmp_path / "shares.yaml"
    file.write_text(text)
    for command in ("plan", "apply"):
        assert reason in admin.error(2, command, "-f", file)
    assert [item["pk"]["S"] for item in client.scan(TableName=table)["Items"]] == ["SERVER"]


@pytest.mark.parametrize("arguments,code,text", [
    (("share", "create", "a/b"), 2, "contains a slash"),
    (("share", "create", ""), 2, "a name is empty"),
    (("share", "create", "Retail"), 3, "share 'Retail' already exists"),
    (("schema", "create", "retail"), 2, "is not SHARE.SCHEMA"),
    (("schema", "create", "none.x"), 3, "there is no share 'none'"),
    (("schema", "create", "retail.SALES"), 3, "already exists"),
    (("table", "create", "retail.sales", "--location", "s3://lake/b"), 2, "is not SHARE.SCHEMA.TABLE"),
    (("table", "create", "retail.none.t", "--location", "s3://lake/b"), 3, "there is no schema 'none'"),
    (("table", "create", "retail.sales.t", "--location", "/tmp"), 2, "must be in s3://"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/*"), 2, "wildcard"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/b/../c"), 2, "location s3://lake/b/../c"),
    (("table", "create", "retail.sales.t", "--location", f"s3://{BUCKET}/orders/2024"), 2, "overlaps that of table 'Sales.Orders'"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/b", "--directory-access"), 2, "requires --history"),
    (("table", "create", "retail.sales.orders", "--location", f"s3://{BUCKET}/orders"), 3, "already exists"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/b", "--signer-role", "x"), 2, "not a role"),
    (("table", "update", "retail.sales.orders"), 2, "required"),
    (("table", "update", "retail.sales.orders", "--history", "--no-history"), 2, "cannot be used with"),
    (("table", "update", "retail.sales.none", "--history"), 3, "there is no table"),
    (("table", "update", "retail.sales.orders", "--location", "s3://lake/../b"), 2, "location s3://lake/../b"),
    (("table", "update", "retail.sales.orders", "--directory-access", "--no-history"), 2, "requires --history"),
    (("table", "show", "retail.sales.order"), 3, "there is no table"),
    (("schema", "show", "retail.sale"), 3, "there is no schema"),
    (("share", "update", "none", "--comment", "x"), 3, "there is no share"),
    (("recipient", "update", "acme"), 2, "required"),
    (("table", "delete", "retail.sales.none", "--yes"), 3, "there is no table"),
    (("schema", "delete", "retail.sales", "--yes"), 2, "has 1 table;"),
    (("recipient", "create", "acme"), 3, "recipient 'acme' already exists"),
    (("recipient", "create", "b", "--share", "none"), 3, "there is no share 'none'"),
    (("recipient", "create", "b", "--expires", "0"), 2, "already have expired"),
    (("recipient", "create", "b", "--expires", "soon"), 2, "not a time"),
    (("recipient", "create", "b", "--expires", "90"), 2, "a time needs a unit: 90d for days"),
    (("token", "rotate", "acme", "--grace", "24"), 2, "a time needs a unit: 24d for days, 24h for hours"),
    (("recipient", "create", "b", "--profile", "."), 2, "already exists"),
    (("share", "delete", "retail"), 2, "Confirm with --yes"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/b", "--filter", "a <> 1"), 2, "'<>' is not allowed at this place"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/b", "--filter", ""), 2, "it is empty"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/b", "--history", "--directory-access", "--filter", "a = 1"), 2,
     "cannot be used with --start-version, --allow or --filter"),
    (("table", "update", "retail.sales.orders", "--filter", "a = 1", "--directory-access"), 2, "--allow or --filter"),
    (("table", "update", "retail.sales.orders", "--filter", "a = 1", "--no-filter"), 2, "cannot be used with"),
    (("grant", "acme", "--share", "retail", "--filter", "a = 1", "--no-filter"), 2, "cannot be used with"),
    (("grant", "acme", "--share", "retail", "--filter", "a = ${region}"), 2, "a property is written ${recipient.name}"),
    (("revoke", "acme", "--share", "retail", "--filter", "a = 1"), 2, "unexpected argument"),
    (("recipient", "create", "b", "--property", "region"), 2, "it is not NAME=VALUE"),
    (("recipient", "create", "b", "--property", "region="), 2, "property region has no value"),
    (("recipient", "create", "b", "--property", "2nd=x"), 2, "the name of a property"),
    (("recipient", "create", "b", "--property", "a=1", "--property", "a=2"), 2, "property a is set twice"),
    (("recipient", "update", "acme", "--property", "a=1", "--no-property", "a"), 2, "property a is both set and removed"),
    (("recipient", "update", "acme", "--no-property", "a"), 3,
     "there is no property 'a' of recipient 'acme'; to see its properties: deltashare recipient show acme"),
])
def test_what_is_refused(world, tmp_path, arguments, code, text):
    admin, *_ = world
    retail(admin, tmp_path)
    before = admin.json("recipient", "list")
    assert text in admin.error(code, *arguments)
    assert admin.json("recipient", "list") == before and [recipient["name"] for recipient in before] == ["Acme"]


def test_a_command_that_comes_next_works_as_it_is_pasted_whatever_the_names(world, tmp_path):
    admin, *_ = world
    paste = lambda command: subprocess.run(["sh", "-c", command.replace("deltashare", str(BINARY), 1)], env=admin.environment,  # noqa: E731
                                           capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, cwd=tmp_path)
    next_of = lambda said: said.strip().split("\n")[-1].rsplit(": ", 1)[1]  # noqa: E731
    share = "-it's $HOME"
    said = admin.run("share", "create", "--", share).stderr
    done = paste(next_of(said).replace("SCHEMA", "s"))
    assert done.returncode == 0, done
    done = paste(next_of(done.stderr).replace("TABLE", "t").replace("s3://BUCKET/PREFIX", "s3://lake/t"))
    assert done.returncode == 0, done
    assert [table["name"] for table in json.loads(admin.run("table", "list", "--output", "json", "--", share).stdout)] == ["t"]
    missing = admin.error(3, "schema", "create", "--", "-x.s")
    assert paste(missing.split("create it with: ")[1].split(";")[0]).returncode == 0
    said = admin.run("recipient", "create", "--profile", tmp_path / "a.share", "--", "-acme").stderr
    done = paste(said.split("Grant it a share with: ")[1].split("\n")[0].replace("SHARE", "-x").replace("--share -x", "--share=-x"))
    assert done.returncode == 0, done
    # A file, too.
    file = shares_file(tmp_path / "-shares.yaml")
    said = subprocess.run([str(BINARY), "plan", "--file=-shares.yaml"], env=admin.environment, capture_output=True, text=True, timeout=60,
                          cwd=tmp_path).stderr
    assert "deltashare apply --file=-shares.yaml" in said and file.exists()


def test_a_dynamodb_table_that_is_not_there_is_named_with_its_region_and_account(world, tmp_path):
    admin, *_ = world
    said = ("error: there is no DynamoDB table 'missing' in region us-east-1 of account 000000000000. Name the table with --table or "
            "DELTASHARE_TABLE, the region with AWS_REGION, and the account by its credentials, for example with AWS_PROFILE\n")
    file = shares_file(tmp_path / "shares.yaml")
    for command in (("share", "create", "x"), ("share", "list"), ("recipient", "list"), ("token", "list", "x"), ("table", "show", "a.b.c"),
                    ("grant", "x", "--share", "y"), ("export",), ("plan", "-f", file), ("check",)):
        assert admin.error(1, *command, "--table", "missing") == said, command
    admin.environment = {**admin.environment, "DELTASHARE_TABLE": "missing"}
    assert admin.error(1, "share", "list") == said


def test_every_command_says_what_happened_and_what_comes_next(world, tmp_path):
    """Each with the beginning of a next command that is typed as it is."""
    admin, server, client, table = world
    said = lambda *arguments: admin.run(*arguments).stderr  # noqa: E731
    assert said("share", "list") == "There is no share yet. Create one with: deltashare share create SHARE\n"
    assert "deltashare recipient create RECIPIENT --share SHARE" in said("recipient", "list")
    assert said("share", "create", "Retail Data") == (
        "Share 'Retail Data' was created. Next, create a schema in it: deltashare schema create 'Retail Data.SCHEMA'\n")
    assert "Share 'retail data' has no schema yet" in said("schema", "list", "retail data")
    assert "table create 'Retail Data.Sales.TABLE' --location s3://BUCKET/PREFIX" in said("schema", "create", "Retail Data.Sales")
    assert "has no table yet" in said("table", "list", "retail data")
    assert "deltashare check\n" in said("table", "create", "Retail Data.sales.orders", "--location", f"s3://{BUCKET}/orders")
    # The option that the command was given is in the one that comes next.
    admin.environment = {name: value for name, value in admin.environment.items() if name != "DELTASHARE_TABLE"}
    assert f"; create it with: deltashare schema create 'Retail Data.hr' --table {table}\n" in admin.error(
        3, "table", "create", "Retail Data.hr.staff", "--location", "s3://lake/staff", "--table", table)
    admin.environment["DELTASHARE_TABLE"] = table
    for command, error in {
        ("schema", "create", "none.x"): "there is no share 'none'; create it with: deltashare share create none; to see which there are: deltashare share list",
        ("schema", "list", "none"): "there is no share 'none'", ("table", "list", "none"): "there is no share 'none'",
        ("table", "create", "none.s.t", "--location", "s3://lake/t"): "there is no share 'none'",
        ("table", "show", "Retail Data.sales.none"): "deltashare table list 'Retail Data'",
        ("token", "list", "none"): "there is no recipient 'none'; create it with: deltashare recipient create none; to see which there are: deltashare recipient list",
        ("token", "revoke", "none", "x", "--yes"): "deltashare token list none", ("revoke", "none", "--share", "x"): "deltashare recipient show none",
    }.items():
        assert error in admin.error(3, *command), command

    profile = tmp_path / "acme.share"
    made = said("recipient", "create", "acme", "--profile", profile)
    [token] = admin.json("token", "list", "acme")
    assert made == (
        "Recipient 'acme' was created and cannot read anything yet. Grant it a share with: deltashare grant acme --share SHARE\n"
        f"The profile {profile} holds the only copy of the token {token['id']}, which is valid until {token['expires']}. Send it to the "
        "recipient as you would send a password.\n")
    assert said("grant", "acme", "--share", "retail data") == "Share 'retail data' is granted to 'acme', which sees it with its next request.\n"
    rotated = said("token", "rotate", "acme", "--grace", "1h", "--profile", tmp_path / "second.share")
    tokens = {each["id"]: each for each in admin.json("token", "list", "acme")}
    old = tokens.pop(token["id"])
    [(new, _)] = tokens.items()
    assert f"The old token {old['id']} is valid until {old['expires']}.\n" in rotated and f"the only copy of the token {new}" in rotated
    again = admin.run("token", "rotate", "acme", "--grace", "0")
    assert f"The old token {new} has expired. The old token {old['id']} has expired.\n" in again.stderr
    assert "The profile above holds the only copy" in again.stderr and json.loads(again.stdout)["bearerToken"]
    assert {each["id"]: each["state"] for each in admin.json("token", "list", "acme")}[old["id"]] == "ended"
    [live] = [each["id"] for each in admin.json("token", "list", "acme") if each["state"] == "live"]
    assert "which is valid without expiration" in said("token", "create", "acme", "--expires", "never", "--profile", tmp_path / "third.share")
    assert "requests with it now get 401. URLs that were issued before stay valid until they expire" in said("token", "revoke", "acme", live, "--yes")
    assert "To enable it again: deltashare recipient update acme --enable\n" in said("recipient", "update", "acme", "--disable")
    assert "its comment is now 'new'" in said("share", "update", "retail data", "--comment", "new")
    assert "no longer granted to 'acme'. URLs that" in said("revoke", "acme", "--share", "retail data")
    assert "its files in S3 were not changed" in said("table", "delete", "retail data.sales.orders", "--yes")
    assert "with 1 records of its schemas, tables and grants" in said("share", "delete", "retail data", "--yes")
    assert "with its tokens and grants. URLs that" in said("recipient", "delete", "acme", "--yes")


def put_raw(client, table, pk, sk, **attributes):
    serialize = boto3.dynamodb.types.TypeSerializer().serialize
    item = {name: serialize(value) for name, value in {"pk": pk, "sk": sk, "format": 1, **attributes}.items()}
    client.put_item(TableName=table, Item=item)


@pytest.fixture
def second(aws, world, request):
    """Another empty catalog."""
    table = f"second-{abs(hash(request.node.name))}"
    client_make(aws.client("dynamodb"), table)
    admin, server, *_ = world
    other = Admin(aws, table, server.endpoint)
    return other, table


def test_an_export_that_is_applied_elsewhere_is_the_same_catalog(world, second, aws, tmp_path):
    admin, server, client, table = world
    other, other_table = second
    retail(admin, tmp_path)
    admin.run("share", "create", "Hidden Data", "--comment", "it's: #1\n- two")
    admin.run("recipient", "create", "globex", "--share", "hidden data", "--expires", "never", "--comment", "null", "--profile", tmp_path / "globex.share")
    admin.run("recipient", "update", "acme", "--disable")
    # As scripts write: a set for a list, a date, a space and no zone, an id in capitals, a role.
    put_raw(client, table, "SHARE#retail", "TABLE#sales#clone", name="clone", schema="Sales", id="7", location=f"S3A://{BUCKET}/clone/",
            allowedLocations={f"s3://{BUCKET}/b", f"s3a://{BUCKET}/a/"}, signerRole="arn:aws:iam::123456789012:role/other", startVersion=3)
    tokens = {"dss_date": "2999-01-31", "dss_space": "2999-01-31 12:00"}
    for token, expires in tokens.items():
        put_raw(client, table, "RECIPIENT#initech", "RECIPIENT", name="initech", status="active")
        put_raw(client, table, f"TOKEN#{hash_of(token)}", "TOKEN", recipient="Initech", id=token.upper(), expires=expires, created="2026-11-01T12:00:00Z")
        put_raw(client, table, "RECIPIENT#initech", f"TOKEN#{token.upper()}", recipient="Initech", id=token.upper(), expires=expires,
                sha256=hash_of(token).upper())
    put_raw(client, table, "RECIPIENT#initech", "SHARE#hidden%20data", share="Hidden Data", recipient="initech")
    file = tmp_path / "exported.yaml"
    exported = admin.run("export")
    file.write_text(exported.stdout)
    assert "2 shares, 2 tables and 3 recipients exported." in exported.stderr
    assert "the grant record RECIPIENT#initech SHARE#hidden%20data is in force, but its share does not list it" in exported.stderr
    assert admin.run("plan", "-f", file).stderr == "The DynamoDB table already matches the file; there is nothing to change.\n"
    planned = other.run("plan", "-f", file).stderr
    assert f"to apply, with: deltashare apply -f {file}\n" in planned
    assert "Servers use the new state from the next request" in other.run("apply", "-f", file).stderr
    assert other.run("export").stdout == exported.stdout
    copy = Server("--catalog", f"dynamodb:{other_table}", env=aws.environment)
    try:
        for token in (token_of(tmp_path / "acme.share"), token_of(tmp_path / "globex.share"), *tokens):
            for path in ("/shares", "/shares/retail/all-tables", "/shares/hidden%20data"):
                ours, theirs = server.request("GET", path, token=token), copy.request("GET", path, token=token)
                same = [(answer.status, {name: value for name, value in answer.json.items() if name != "requestId"})
                        for answer in (ours, theirs)]
                assert same[0] == same[1], path
        assert copy.request("GET", "/shares", token=token_of(tmp_path / "acme.share")).status == 401, "a disabled recipient came back"
        assert copy.request("GET", "/shares", token="dss_date").json["items"][0]["name"] == "Hidden Data"
    finally:
        assert copy.stop() == 0


SPOILED = [
    ("SHARE#retail", "TABLE#sales#orders", {"signerRole": {"S": "me"}}, "signerRole that is not the ARN of a role"),
    ("SHARE#retail", "TABLE#sales#orders", {"allowedLocations": {"S": "s3://lake/a"}}, "allowedLocations that is not a list of strings"),
    ("SHARE#retail", "TABLE#sales#orders", {"location": {"S": "/etc"}}, "table Retail.Sales.Orders: location /etc: "),
    ("SHARE#retail", "TABLE#sales#orders", {"schema": {"S": "gone"}}, "has a name that is not the one in its key"),
    ("SHARE#retail", "SHARE", {"name": {"S": "Wholesale"}}, "has a name that is not the one in its key"),
    ("RECIPIENT#acme", "RECIPIENT", {"status": {"S": "off"}}, "neither active nor disabled"),
    ("RECIPIENT#acme", "RECIPIENT", {"properties": {"S": "region=EU"}}, "properties that is not a map of strings"),
    ("RECIPIENT#acme", "SHARE#retail", {"filter": {"NULL": True}}, "filter that is not a string"),
    ("SHARE#retail", "TABLE#sales#orders", {"filter": {"S": "a <> 1"}}, "filter that is not a filter: '<>' is not allowed at this place"),
    ("SHARE#retail", "TABLE#sales#orders", {"format": {"N": "2"}}, "has format 2, but no attribute filter"),
    ("TOKEN", "TOKEN", {"expires": {"S": "next year"}}, "expires that is not a time such as 2027-01-31T12:00:00Z, a date"),
]


@pytest.mark.parametrize("pk,sk,attributes,reason", SPOILED)
def test_what_a_server_cannot_read_is_never_exported_compared_or_changed(world, tmp_path, pk, sk, attributes, reason):
    admin, _, client, table = world
    retail(admin, tmp_path)
    file = tmp_path / "before.yaml"
    file.write_text(admin.run("export").stdout)
    key = next(key for key in items(client, table) if key[0].startswith(pk) and key[1] == sk)
    client.put_item(TableName=table, Item={**items(client, table)[key], **attributes})
    before = items(client, table)
    done = admin.run("export", code=1)
    assert done.stdout == "" and reason in done.stderr and "nothing was exported" in done.stderr
    if "/etc" not in reason:
        for command in ("plan", "apply"):
            done = admin.run(command, "-f", file, code=1)
            assert done.stdout == "" and reason in done.stderr
    if sk.startswith("TABLE#") and "/etc" not in reason:
        assert reason in admin.error(1, "table", "update", "retail.sales.orders", "--no-history")
        assert reason in admin.run("table", "show", "retail.sales.orders").stderr
    if sk == "TOKEN":
        [token] = admin.json("token", "list", "acme")
        assert token["state"] == "unreadable"
        admin.run("token", "revoke", "acme", token["id"], "--yes")
        assert not [each for each in items(client, table) if "TOKEN#" in "".join(each)]
    else:
        assert items(client, table) == before


def test_a_change_keeps_what_a_script_wrote(world, tmp_path):
    admin, _, client, table = world
    retail(admin, tmp_path)
    key = {"pk": {"S": "SHARE#retail"}, "sk": {"S": "TABLE#sales#orders"}}
    client.update_item(TableName=table, Key=key, UpdateExpression="SET allowedLocations = :set",
                       ExpressionAttributeValues={":set": {"SS": ["s3://lake/b", "s3://lake/a"]}})
    assert admin.json("table", "show", "retail.sales.orders")["allowedLocations"] == ["s3://lake/a", "s3://lake/b"]
    assert admin.run("table", "update", "retail.sales.orders", "--start-version", "1").stderr == (
        "Table 'retail.sales.orders' was updated: startVersion 0 -> 1\n")
    kept = client.get_item(TableName=table, Key=key)["Item"]["allowedLocations"]
    assert kept == {"L": [{"S": "s3://lake/a"}, {"S": "s3://lake/b"}]}


def test_a_location_overlaps_another_however_that_is_spelled(world, tmp_path):
    admin, _, client, table = world
    retail(admin, tmp_path)
    put_raw(client, table, "SHARE#retail", "TABLE#sales#lake", name="lake", schema="Sales", id="7", location="S3A://lake/tables/")
    assert "overlaps that of table 'Sales.lake': s3://lake/tables" in admin.error(
        2, "table", "create", "retail.sales.t", "--location", "s3://lake/tables/orders")


def test_a_file_without_ids_keeps_those_that_are_there(world, tmp_path):
    admin, server, client, table = world
    token = token_of(retail(admin, tmp_path))
    share_id = admin.json("share", "show", "retail")["id"]
    file = shares_file(tmp_path / "shares.yaml", history=False, tables=("Orders", "Items"), recipients=())
    applied = admin.run("apply", "-f", file)
    assert "id" not in re.sub("Items", "", applied.stdout), applied.stdout
    assert admin.json("share", "show", "retail")["id"] == share_id
    assert admin.json("table", "show", "retail.sales.orders")["id"] == UUID
    listed = server.request("GET", "/shares/retail/all-tables", token=token).json["items"]
    assert {item["name"]: (item["id"] == UUID, item["shareId"] == share_id) for item in listed} == {"Orders": (True, True), "Items": (False, True)}
    # What the file does name is changed.
    text = json.loads(file.read_text())
    text["shares"][0]["schemas"][0]["tables"][0]["id"] = "another"
    file.write_text(json.dumps(text))
    assert admin.run("apply", "-f", file).stdout == f"~ table Retail.Sales.Orders: id {UUID} -> another\n"


def test_a_file_that_says_nothing_of_a_disabled_recipient_leaves_it_disabled(world, tmp_path):
    admin, server, *_ = world
    file = shares_file(tmp_path / "shares.yaml", recipients=("acme",))
    admin.run("apply", "-f", file)
    admin.run("recipient", "update", "acme", "--disable")
    admin.run("apply", "-f", file)
    assert server.request("GET", "/shares", token="dss_plan-acme").status == 401
    text = json.loads(file.read_text())
    text["recipients"][0]["status"] = "active"
    file.write_text(json.dumps(text))
    assert admin.run("apply", "-f", file).stdout == "~ recipient acme: status disabled -> active\n"
    assert server.request("GET", "/shares", token="dss_plan-acme").status == 200


def test_too_many_tokens_are_refused_before_anything_is_changed(world, tmp_path):
    admin, _, client, table = world
    file = shares_file(tmp_path / "shares.yaml", recipients=("acme",))
    text = json.loads(file.read_text())
    text["recipients"][0]["tokens"] += [{"sha256": hash_of(f"dss_{number}"), "expires": "never"} for number in range(2)]
    file.write_text(json.dumps(text))
    for command in ("plan", "apply"):
        assert "recipient 'acme' would have 3 live tokens, but can have at most 2" in admin.error(2, command, "-f", file)
    assert [pk for pk, _ in items(client, table)] == ["SERVER"]
    # Two that replace two.
    text["recipients"][0]["tokens"].pop()
    file.write_text(json.dumps(text))
    admin.run("apply", "-f", file)
    text["recipients"][0]["tokens"] = [{"sha256": hash_of(f"dss_new{number}"), "expires": "2999-01-31"} for number in range(2)]
    file.write_text(json.dumps(text))
    assert "4 live tokens" in admin.error(2, "apply", "-f", file)
    admin.run("apply", "-f", file, "--prune")
    assert sorted(token["expires"] for token in admin.json("token", "list", "acme")) == ["2999-01-31T00:00:00Z"] * 2
    # One that has ended makes room, and counts again where a file gives it another end.
    tokens = [{"sha256": hash_of(f"dss_new{number}"), "expires": "2999-01-31"} for number in range(3)]

    def write(ends, number):
        tokens[0]["expires"] = ends
        text["recipients"][0]["tokens"] = tokens[:number]
        file.write_text(json.dumps(text))

    for number in (2, 3):
        write("2020-01-31", number)
        admin.run("apply", "-f", file)
    write("2999-01-31", 3)
    assert "3 live tokens" in admin.error(2, "apply", "-f", file)
    assert len([token for token in admin.json("token", "list", "acme") if token["state"] == "live"]) == 2


def test_a_recipient_is_renamed_and_tokens_move(world, tmp_path):
    """A token belongs to one recipient, so it is removed from one before another gets it; that needs --prune."""
    admin, server, *_ = world
    policy = {"issuer": "https://idp.example.com", "subjectClaim": "azp", "subject": "reader", "audiences": ["a"]}
    file, token = tmp_path / "shares.yaml", {"sha256": hash_of("dss_moves"), "expires": "never"}

    def write(**recipients):
        content = json.loads(shares_file(file, recipients=()).read_text())
        content["recipients"] = [{"name": name, "shares": ["retail"], **more} for name, more in recipients.items()]
        file.write_text(json.dumps(content))

    def reads():
        """A server that knows the token of another recipient asks for the request once more."""
        return [server.request("GET", "/shares", token="dss_moves").status for _ in range(2)][-1]

    write(globex={"tokens": [token], "oidc": [policy]})
    admin.run("apply", "-f", file)
    assert reads() == 200
    for name, others in (("acme", {}), ("initech", {"acme": {"tokens": [], "oidc": []}}), ("acme", {"initech": {"tokens": [], "oidc": []}})):
        write(**{name: {"tokens": [token], "oidc": [policy]}, **others})
        planned = admin.run("plan", "-f", file)
        assert " need --prune. To apply" in planned.stderr
        lines = [line for line in planned.stdout.splitlines() if "token" in line or "policy" in line]
        assert lines.index(next(line for line in lines if line.startswith("- "))) < lines.index(
            next(line for line in lines if line.startswith("+ token")))
        # Without it, the token stays where it is, and nothing fails halfway.
        applied = admin.run("apply", "-f", file)
        assert "token" not in applied.stdout and "policy" not in applied.stdout and " need --prune" in applied.stderr
        assert reads() == 200
        admin.run("apply", "-f", file, "--prune")
        assert admin.run("plan", "-f", file).stdout == ""
        assert reads() == 200 and [token["state"] for token in admin.json("token", "list", name)] == ["live"]
        assert len(admin.json("recipient", "show", name)["oidc"]) == 1
    # Two recipients can change places, also while both have two tokens. Each token keeps its ID and its creation time.
    others = [{"sha256": hash_of(f"dss_plan-{number}"), "expires": "never"} for number in range(3)]
    write(acme={"tokens": [token, others[0]]}, initech={"tokens": others[1:]})
    admin.run("apply", "-f", file, "--prune")

    def known(name):
        return sorted((token["id"], token.get("created")) for token in admin.json("token", "list", name))

    before = known("acme"), known("initech")
    for first, second in (("initech", "acme"), ("acme", "initech")):
        write(**{first: {"tokens": [token, others[0]]}, second: {"tokens": others[1:]}})
        assert "8 changes need --prune" in admin.run("plan", "-f", file).stderr
        assert admin.run("apply", "-f", file).stdout == ""
        admin.run("apply", "-f", file, "--prune")
        assert admin.run("plan", "-f", file).stdout == "" and reads() == 200
        assert (known(first), known(second)) == before


def test_a_token_that_moves_comes_after_what_its_new_recipient_loses(world, tmp_path):
    admin, *_ = world
    file = tmp_path / "shares.yaml"

    def write(owner, tables):
        content = json.loads(shares_file(file, recipients=(), tables=tables).read_text())
        content["recipients"] = [{"name": "acme", "shares": []}, {"name": "initech", "shares": ["retail"]}]
        content["recipients"][owner]["tokens"] = [{"sha256": hash_of("dss_moves"), "expires": "never"}]
        file.write_text(json.dumps(content))

    write(0, ("Orders", "Items"))
    admin.run("apply", "-f", file)
    write(1, ("Orders",))
    applied = admin.run("apply", "-f", file, "--prune").stdout.splitlines()
    assert [line.split(" ")[:2] for line in applied] == [["-", "token"], ["-", "table"], ["+", "token"]]


def test_a_share_that_is_made_again_is_granted_to_nobody(world, tmp_path):
    """Also where a script did not list the grant at the share."""
    admin, server, client, table = world
    token = token_of(retail(admin, tmp_path))
    client.delete_item(TableName=table, Key={"pk": {"S": "SHARE#retail"}, "sk": {"S": "GRANT#acme"}})
    admin.run("share", "delete", "retail", "--yes")
    admin.run("share", "create", "retail")
    assert server.request("GET", "/shares", token=token).json == {"items": []}


def test_the_records_of_a_token_say_when_dynamodb_may_delete_them(world, tmp_path):
    admin, _, client, table = world
    retail(admin, tmp_path)
    admin.run("token", "create", "acme", "--expires", "never", "--profile", tmp_path / "never.share")

    def check():
        tokens = [item for item in items(client, table).values() if "expires" in item]
        for item in tokens:
            if item["expires"]["S"] == "never":
                assert "deleteAfter" not in item
            else:
                ends = datetime.datetime.fromisoformat(item["expires"]["S"])
                assert int(item["deleteAfter"]["N"]) == int((ends + datetime.timedelta(days=90)).timestamp())
        return len(tokens)

    assert check() == 4
    admin.run("token", "rotate", "acme", "--grace", "1h", "--profile", tmp_path / "rotated.share")
    assert check() == 6 and "never" not in {item.get("expires", {}).get("S") for item in items(client, table).values()}
    file = tmp_path / "shares.yaml"
    file.write_text(admin.run("export").stdout)
    # A token that has ended stays ended, so that there are not more live ones than a recipient may have.
    lives = lambda end: end == "never" or datetime.datetime.fromisoformat(end) > datetime.datetime.now(datetime.timezone.utc)  # noqa: E731
    file.write_text(re.sub("expires: (.*)", lambda end: "expires: never" if lives(end[1].strip("'\"")) else end[0], file.read_text()))
    client.update_item(TableName=table, Key={"pk": {"S": "RECIPIENT#acme"}, "sk": {"S": "RECIPIENT"}}, UpdateExpression="SET revision = :r",
                       ExpressionAttributeValues={":r": {"N": "7"}})
    assert "until" in admin.run("apply", "-f", file).stdout
    assert check() == 6


def test_help_is_complete(world):
    admin, *_ = world
    commands = [("serve",), ("grant",), ("revoke",), ("plan",), ("apply",), ("export",), ("check",), ("explain",), ("profile",), ("checkpoint",), ("verify",)]
    for group, names in {"share": "create list show update delete", "schema": "create list show delete",
                         "table": "create list show update delete", "recipient": "create list show update delete",
                         "token": "create list rotate revoke"}.items():
        commands += [(group,), *((group, name) for name in names.split())]
    for command in commands:
        shown = admin.run(*command, "--help").stdout
        assert "Example" in shown, command


def documented_commands():
    """Every call of `deltashare` in the code of the pages."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "infra").glob("*.md"))]:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    if part.split()[:1] == ["deltashare"]:
                        words = shlex.split(part, comments=True)
                        yield pytest.param(words[1:], id=f"{page.name}: {part.strip()[:60]}")


@pytest.mark.parametrize("words", list(documented_commands()))
def test_documented_commands_are_understood(words):
    words = ["https://sharing.example.com/" if word == "ENDPOINT" else word for word in words]
    words = words[:words.index(">")] if ">" in words else words
    done = subprocess.run([str(BINARY), *words, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    unknown = subprocess.run([str(BINARY), *words, "--not-an-option", "--help"], capture_output=True, text=True, timeout=60)
    assert unknown.returncode == 2


def test_there_are_documented_commands():
    assert len(list(documented_commands())) > 20
