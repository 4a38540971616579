"""The scripts in examples/admin and the page that shows them: as they stand, against an AWS of our own."""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

import delta_sharing
import pytest

from conftest import ROOT, Server
from test_admin import Admin, client_make, items, put_raw

PAGE = ROOT / "examples/admin/README.md"
TABLE = "deltashare-scripts"


@pytest.fixture(scope="module")
def world(aws, tables):
    client, s3 = aws.client("dynamodb"), aws.client("s3")
    client_make(client, TABLE)
    s3.create_bucket(Bucket="my-bucket")
    for file in tables["py_versions"].rglob("*"):
        if file.is_file():
            s3.upload_file(str(file), "my-bucket", f"tables/orders/{file.relative_to(tables['py_versions'])}")
    server = Server("--catalog", f"dynamodb:{TABLE}", env=aws.environment)
    yield server, client, Admin(aws, TABLE, server.endpoint)
    assert server.stop() == 0


@pytest.fixture(scope="module")
def run(aws, world, tmp_path_factory):
    """Runs commands in a directory that has examples/ as a clone has it, and the variables that the page names."""
    server, *_ = world
    directory = tmp_path_factory.mktemp("scripts")
    (directory / "examples").symlink_to(ROOT / "examples")
    python = pathlib.Path(sys.executable).parent
    environment = {**os.environ, **aws.environment, "PATH": f"{python}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1",
                   "AWS_DEFAULT_REGION": aws.environment["AWS_REGION"],
                   "DELTASHARE_TABLE": TABLE, "ENDPOINT": server.endpoint}

    def run(command, code=0):
        done = subprocess.run(["bash", "-euc", command], cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    run.directory = directory
    return run


def test_the_page_from_the_first_command_to_the_last(world, run, tables):
    server, client, admin = world
    share, recipient, revoke_share, revoke_token = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert "is now shared" in run(share).stdout
    assert "Laptop in it is valid until" in run(recipient).stdout
    profile = run.directory / "acme.share"
    assert profile.stat().st_mode & 0o777 == 0o600
    token = json.loads(profile.read_text())["bearerToken"]
    assert token not in json.dumps(items(client, TABLE), default=str, skipkeys=True)
    rows = delta_sharing.load_as_pandas(f"{profile}#retail.sales.orders")
    assert sorted(rows["id"]) == sorted(row["id"] for row in json.loads((tables["py_versions"] / "expected.json").read_text()))

    # To deltashare, the records are as good as its own.
    assert admin.run("check").stdout.startswith("retail.sales.orders: readable")
    assert "note:" not in admin.run("export").stderr
    [listed] = admin.json("token", "list", "acme")
    assert (listed["id"], listed["state"]) == ("Laptop", "live")
    for item in items(client, TABLE).values():
        if "expires" in item:
            ends = datetime.datetime.fromisoformat(item["expires"]["S"])
            assert int(item["deleteAfter"]["N"]) == int((ends + datetime.timedelta(days=90)).timestamp())

    run(revoke_share)
    assert server.request("GET", "/shares", token=token).json == {"items": []}
    run(revoke_token)
    assert server.request("GET", "/shares", token=token).status == 401
    left = {pk: item for (pk, sk), item in items(client, TABLE).items() if "TOKEN" in pk or "TOKEN#" in sk or "GRANT" in sk}
    assert left == {}


def test_a_table_that_is_shared_again_keeps_the_ids_of_its_share(world, run):
    server, client, admin = world
    script = "python3 examples/admin/share_table.py"
    run(f"{script} 'Retail Data 日本.Sales.Orders' s3://my-bucket/tables/orders")
    before = items(client, TABLE)
    run(f"{script} 'retail data 日本.SALES.Items' s3://my-bucket/tables/orders")
    after = items(client, TABLE)
    assert {key: after[key] for key in before} == before and len(after) == len(before) + 1
    assert "ConditionalCheckFailed" in run(f"{script} 'retail data 日本.sales.ORDERS' s3://my-bucket/tables/other", code=1).stderr
    assert items(client, TABLE) == after
    run(f"{script} a.b.c /etc", code=2)
    assert "note:" not in admin.run("export").stderr


def test_a_recipient_that_cannot_be_added_leaves_no_profile(world, run):
    _, client, _ = world
    before = items(client, TABLE)
    add = 'python3 examples/admin/add_recipient.py globex --endpoint "$ENDPOINT" --profile globex.share'
    assert "there is no share none" in run(f"{add} --share none", code=2).stderr
    assert not (run.directory / "globex.share").exists() and items(client, TABLE) == before
    run(add)
    profile = (run.directory / "globex.share").read_text()
    run(add, code=1)
    assert (run.directory / "globex.share").read_text() == profile
    run(add.replace("globex.share", "again.share"), code=1)
    assert not (run.directory / "again.share").exists()


def test_a_token_is_revoked_by_the_name_that_its_list_has(world, run):
    server, client, admin = world
    token = "dss_by-a-script"
    from conftest import hash_of

    put_raw(client, TABLE, "RECIPIENT#initech", "RECIPIENT", name="Initech", status="active")
    for pk, sk, more in ((f"TOKEN#{hash_of(token)}", "TOKEN", {}), ("RECIPIENT#initech", "TOKEN#PHONE", {"sha256": hash_of(token)})):
        put_raw(client, TABLE, pk, sk, recipient="Initech", id="PHONE", expires="2999-01-31", **more)
    assert server.request("GET", "/shares", token=token).status == 200
    assert "has no token phone" in run("python3 examples/admin/revoke.py Initech --token phone", code=2).stderr
    run("python3 examples/admin/revoke.py INITECH --token PHONE")
    assert server.request("GET", "/shares", token=token).status == 401
    assert admin.json("token", "list", "initech") == []
    assert "changed by somebody else" not in admin.run("token", "create", "initech").stderr
