"""The commands that change what is shared, over a DynamoDB of our own, with a server that shows what is in force."""

import concurrent.futures
import datetime
import json
import os
import signal
import subprocess
import time

import delta_sharing
import pytest

from conftest import BINARY, Server, hash_of
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
        "schema": "Sales", "name": "Orders", "location": f"s3://{BUCKET}/orders", "historyShared": "true", "startVersion": "0",
        "directoryAccess": "false", "id": UUID}]
    assert admin.json("recipient", "list") == [{"name": "Acme", "status": "active"}]
    assert [token["id"] for token in admin.json("token", "list", "acme")]
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
    assert "Say so with --yes" in admin.error(2, "token", "revoke", "acme", live)
    admin.run("token", "revoke", "acme", live, "--yes")
    assert not works(fourth)
    assert "there is no token" in admin.error(3, "token", "revoke", "acme", live, "--yes")
    admin.run("token", "create", "acme", "--profile", tmp_path / "fifth.share")
    assert works(token_of(tmp_path / "fifth.share"))


def test_of_many_rotations_at_once_one_is_made(world, tmp_path):
    admin, server, *_ = world
    old = token_of(retail(admin, tmp_path))

    def rotate(number):
        profile = tmp_path / f"{number}.share"
        done = subprocess.run([str(BINARY), "token", "rotate", "acme", "--grace", "1h", "--profile", str(profile)],
                              env=admin.environment, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stderr, profile

    # All of them read the recipient before one of them has written: the first is held back by nothing but the others.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(rotate, range(16)))
    made = [profile for code, _, profile in results if code == 0]
    lost = [(code, error) for code, error, _ in results if code != 0]
    assert made and all(code == 3 and "changed by somebody else" in error for code, error in lost), lost
    assert all(not profile.exists() for code, _, profile in results if code != 0)
    live = [token for token in admin.json("token", "list", "acme")
            if token["expires"] == "never" or token["expires"] > datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")]
    assert len(live) <= 2
    working = [profile for profile in made if server.request("GET", "/shares", token=token_of(profile)).status == 200]
    assert 1 <= len(working) <= 2 and old


def test_a_recipient_that_is_deleted(world, tmp_path):
    admin, server, client, table = world
    token = token_of(retail(admin, tmp_path))
    admin.run("recipient", "delete", "acme", "--yes")
    assert server.request("GET", "/shares", token=token).status == 401
    left = [item["pk"]["S"] + " " + item["sk"]["S"] for item in client.scan(TableName=table)["Items"]]
    assert not [key for key in left if "acme" in key or key.startswith("TOKEN#")]
    assert "there is no recipient" in admin.error(3, "recipient", "delete", "acme", "--yes")


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
    for line in ("~ table Retail.Sales.Orders: historyShared true -> false;", "- table Retail.Sales.Items", "- recipient globex, with its tokens and grants",
                 "until 2999-01-01T00:00:00Z -> 2998-01-01T00:00:00Z"):
        assert line in planned, planned
    applied = admin.run("apply", "-f", other)
    assert "2 are left, because they delete" in applied.stderr
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
    assert "Retail.Sales.gone: NOT readable: The table cannot be read: table files missing." in done.stdout
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
    ("version: 1\nauthorization: {bearerToken: x}", "cannot be kept in DynamoDB"),
    ("version: 1\nshares: [{name: s, schemas: [{name: d, tables: [{name: t, location: .}]}]}]\nrecipients: []", "is not in S3"),
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
    (("share", "create", "Retail"), 3, "share 'Retail' is there already"),
    (("schema", "create", "retail"), 2, "is not SHARE.SCHEMA"),
    (("schema", "create", "none.x"), 3, "there is no share 'none'"),
    (("schema", "create", "retail.SALES"), 3, "is there already"),
    (("table", "create", "retail.sales", "--location", "s3://lake/b"), 2, "is not SHARE.SCHEMA.TABLE"),
    (("table", "create", "retail.none.t", "--location", "s3://lake/b"), 3, "there is no schema 'none'"),
    (("table", "create", "retail.sales.t", "--location", "/tmp"), 2, "lies in s3://"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/*"), 2, "wildcard"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/b/../c"), 2, "location s3://lake/b/../c"),
    (("table", "create", "retail.sales.t", "--location", f"s3://{BUCKET}/orders/2024"), 2, "overlaps that of table 'Sales.Orders'"),
    (("table", "create", "retail.sales.t", "--location", "s3://lake/b", "--directory-access"), 2, "needs --history"),
    (("table", "create", "retail.sales.orders", "--location", f"s3://{BUCKET}/orders"), 3, "is there already"),
    (("table", "delete", "retail.sales.none", "--yes"), 3, "there is no table"),
    (("schema", "delete", "retail.sales", "--yes"), 2, "has 1 tables"),
    (("recipient", "create", "acme"), 3, "recipient 'acme' is there already"),
    (("recipient", "create", "b", "--share", "none"), 3, "there is no share 'none'"),
    (("recipient", "create", "b", "--expires", "0"), 2, "ended already"),
    (("recipient", "create", "b", "--expires", "soon"), 2, "not a time"),
    (("recipient", "create", "b", "--profile", "."), 2, "is there already"),
    (("share", "delete", "retail"), 2, "Say so with --yes"),
])
def test_what_is_refused(world, tmp_path, arguments, code, text):
    admin, *_ = world
    retail(admin, tmp_path)
    assert text in admin.error(code, *arguments)
    assert admin.json("recipient", "list") == [{"name": "Acme", "status": "active"}]


def test_a_dynamodb_that_is_not_there_is_a_failure(world):
    admin, *_ = world
    admin.environment = {**admin.environment, "DELTASHARE_TABLE": "missing"}
    assert "ResourceNotFoundException" in admin.error(1, "share", "create", "x")


def test_help_is_complete(world):
    admin, *_ = world
    commands = [("serve",), ("grant",), ("revoke",), ("plan",), ("apply",), ("export",), ("check",)]
    for group, names in {"share": "create list show delete", "schema": "create list delete", "table": "create list delete",
                         "recipient": "create list show delete", "token": "create list rotate revoke"}.items():
        commands += [(group,), *((group, name) for name in names.split())]
    for command in commands:
        shown = admin.run(*command, "--help").stdout
        assert "Example" in shown, command
