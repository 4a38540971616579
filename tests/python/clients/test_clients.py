"""What released clients show of the same tables; where one shows less, that is written down as it is.

`docs/clients.md` tells it to readers.
"""

import json
import shutil

import canonical
import pytest

from conftest import ROOT, TOKEN, Server, hash_of, write_profile
from programs import PROGRAMS, Program

NAMES = ["python-1.4.2", "python-1.0.5", "ray", "rust", "node", "go"]
EXAMPLES = ROOT / "examples/tables"
# Test tables, beside the examples.
OTHERS = ["empty", "multi_part_checkpoint", "odd_partitions", "deletion_vectors", "column_mapping_name", "type_widening"]

COLUMNS = ["product_id", "name", "category", "price", "weight_kg", "stock", "available", "listed", "barcode"]
FIRST = [dict(zip(COLUMNS, row)) for row in [
    (101, "Espresso cup", "kitchen", 6.9, 0.25, 140, True, "2025-02-03", "4006381333931f"),
    (102, "Crème brûlée torch", "kitchen", 34.5, 0.5, 12, True, "2025-02-03", "4006381333948f"),
    (103, "Cast-iron pan", "kitchen", 59, 2.75, 0, False, "2025-02-03", "4006381333955f"),
    (104, "Desk lamp", "office", 44.95, 1.5, 33, True, "2025-03-17", "4006381333962f"),
    (105, "Notebook, A5", "office", 4.2, 0.125, 800, True, "2025-03-17", "4006381333979f"),
    (106, "Fountain pen", "office", 27, 0.0625, 58, True, "2025-03-17", None),
    (107, "Garden shears", "garden", 21.75, 0.75, 19, True, "2025-04-28", "4006381333986f"),
    (108, "Watering can", "garden", 18.4, None, 0, False, "2025-04-28", "4006381333993f"),
]]
ADDED = [dict(zip(COLUMNS, row)) for row in [
    (109, "Seed box", "garden", 3.8, 0.375, 250, True, "2026-01-12", "4006381334006f"),
    (110, "Gift card", None, 25, 0, 999, True, None, None),
]]
PRODUCTS = FIRST + ADDED

# Clients that read the files and leave out what is not in them: the partition columns.
WITHOUT_PARTITIONS = {"rust", "node", "go"}
# What each is refused.
REFUSED = {
    "python-1.4.2": {"type_widening": "typeWidening"},
    "python-1.0.5": {"deletion_vectors": "deletionVectors", "column_mapping_name": "columnMapping"},
    "ray": {"deletion_vectors": "deletionVectors", "column_mapping_name": "columnMapping"},
    "rust": {"deletion_vectors": "deletionVectors", "column_mapping_name": "columnMapping"},
    "node": {"deletion_vectors": "deletionVectors", "column_mapping_name": "columnMapping"},
    "go": {"deletion_vectors": "deletionVectors", "column_mapping_name": "columnMapping"},
}


def growing(name):
    return f"growing_for_{name.replace('.', '_')}"


@pytest.fixture(scope="session")
def growing_tables(tmp_path_factory):
    """For each client the products as they were at first."""
    root = tmp_path_factory.mktemp("growing")
    for name in NAMES:
        shutil.copytree(EXAMPLES / "products", root / growing(name))
        for late in (root / growing(name) / "_delta_log").glob("*1.*"):
            late.unlink()
    return root


@pytest.fixture(scope="session")
def shop(tables, growing_tables, tmp_path_factory):
    """The server, and a profile for it."""
    locations = {path.name: path for path in EXAMPLES.iterdir()}
    locations |= {name: tables[name] for name in OTHERS}
    locations |= {growing(name): growing_tables / growing(name) for name in NAMES}
    entries = [{"name": name, "location": str(path), "historyShared": True} for name, path in locations.items()]
    home = tmp_path_factory.mktemp("shop")
    (home / "shares.yaml").write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "retail", "schemas": [{"name": "sales", "tables": entries}]}],
        "recipients": [{"name": "buyer", "shares": ["retail"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", home / "shares.yaml")
    server.names = set(locations)
    server.profile = write_profile(home / "shop.share", server.endpoint, TOKEN)
    yield server
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


@pytest.fixture(scope="session")
def running(shop, tmp_path_factory):
    """A client by its name, started once."""
    programs = {}

    def named(name):
        missing = PROGRAMS.get(name, {"missing": "./tests/run clients builds it"}).get("missing")
        if missing:
            pytest.skip(f"{name}: {missing}")
        if name not in programs:
            programs[name] = Program(name, shop.profile, tmp_path_factory.mktemp(name))
        return programs[name]

    yield named
    for program in programs.values():
        program.stop()


@pytest.fixture(params=NAMES)
def client(request, running):
    """Every client in turn."""
    return running(request.param)


def same(client, got, expected):
    if client.name == "node":  # A row has no key for a null.
        expected = [{key: item for key, item in row.items() if item is not None} for row in expected]
    return canonical.rows(got) == canonical.rows(expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ray"])
def test_lists(running, shop, name):
    told = running(name).ask("tables", share="retail")
    assert sorted(told["tables"]) == sorted(f"retail.sales.{name}" for name in shop.names)


def test_a_plain_table(client):
    assert same(client, client.rows("products"), PRODUCTS)


@pytest.mark.parametrize("table,partitions", [("multi_part_checkpoint", {"n"}), ("odd_partitions", {"p", "day"})])
def test_a_partitioned_table(client, tables, table, partitions):
    expected = json.loads((tables[table] / "expected.json").read_text())
    if client.name in WITHOUT_PARTITIONS:
        expected = [{key: item for key, item in row.items() if key not in partitions} for row in expected]
    assert same(client, client.rows(table), expected)


def test_an_empty_table(client):
    told = client.ask("rows", "empty")
    if client.name == "rust":
        assert "expected at least 1 path" in told["error"], "it finds no file to open"
    else:
        assert told["rows"] == []


def test_a_table_with_a_feature_that_the_client_lacks(client):
    for table, feature in REFUSED[client.name].items():
        told = client.ask("rows", table)
        if client.name == "node":
            assert "400" in told["error"] and feature not in told["error"]
            assert feature in told["answer"]["message"], "axios keeps the answer in error.response.data"
        elif "answer" in told:
            assert feature in told["answer"]["message"], told
        else:
            assert feature in told["error"]
        if client.name == "rust":
            client.ask("renew")


def test_a_commit_between_two_reads(client, growing_tables):
    table = growing(client.name)
    assert same(client, client.rows(table), FIRST)
    commit = "_delta_log/00000000000000000001.json"
    shutil.copy(EXAMPLES / "products" / commit, growing_tables / table / commit)
    if client.name == "rust":
        assert same(client, client.rows(table), FIRST), "an object keeps what it read first"
        assert client.ask("renew") == {}
    assert same(client, client.rows(table), PRODUCTS)


@pytest.mark.parametrize("name", ["python-1.4.2", "python-1.0.5", "ray"])
def test_an_older_version(running, name):
    client = running(name)
    assert same(client, client.rows("products", version=0), FIRST)


# What only one client does

@pytest.mark.parametrize("name", ["python-1.4.2", "python-1.0.5"])
def test_python_limits_and_partitions(running, name):
    client = running(name)
    some = client.rows("products", limit=3)
    assert len(some) == 3 and all(row in canonical.rows(PRODUCTS) for row in some)
    told = client.ask("rows", "empty")
    assert told["columns"] == ["id", "name"]


def test_ray_leaves_the_limit_to_the_server(running):
    ray = running("ray")
    some = ray.rows("products", limit=1)
    # It reads whole files: as many as the server returns for the hint.
    assert 1 <= len(some) < len(PRODUCTS) and all(row in canonical.rows(PRODUCTS) for row in some)


def test_node_knows_no_limit(running):
    node = running("node")
    assert node.ask("rows", "products", limit=3) == {"nothing": "undefined"}


def test_node_makes_frames(running):
    told = running("node").ask("rows", "products", frame=True)
    assert told == {"columns": COLUMNS, "shape": [len(PRODUCTS), len(COLUMNS)]}


def test_node_reads_no_decimals(running):
    assert "DECIMAL" in running("node").ask("rows", "orders")["error"]


def test_go_gives_every_file_the_partition_of_the_last(running, tables):
    told = running("go").ask("rows", "multi_part_checkpoint")
    assert len(told["partitions"]) > 1 and len({json.dumps(values) for values in told["partitions"]}) == 1


def test_go_versions(running):
    go = running("go")
    assert go.ask("version", "products") == {"version": 1}
    assert go.ask("version", "missing")["panicked"], "it takes the header of an answer without looking at its status"


def test_go_finds_nothing_in_a_change_data_feed(running):
    told = running("go").ask("changes", "orders")
    assert told == {"add": 0, "cdf": 0, "remove": 0}, "it looks for lines that are called file and cdc"


def test_rust_versions(running):
    rust = running("rust")
    assert rust.ask("version", "products") == {"version": 1}
    assert rust.ask("version", "missing") == {"version": -1}


def test_rust_reads_an_older_version_only_into_an_empty_directory(running, shop, tmp_path):
    if running("rust"):
        rust = Program("rust", shop.profile, tmp_path)
        assert same(rust, rust.rows("products", version=0), FIRST)
        assert same(rust, rust.rows("products"), FIRST)
        rust.ask("renew")
        assert same(rust, rust.rows("products"), PRODUCTS)
        rust.ask("renew")
        assert same(rust, rust.rows("products", version=0), PRODUCTS), "the files of version 0 are there, and others too"
        rust.stop()


def test_rust_reads_no_decimals(running):
    assert running("rust").ask("rows", "orders")["panicked"]
