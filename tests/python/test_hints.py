"""`predicateHints`, `jsonPredicateHints` and `limitHint`: what is sent has every row that the client reads, and less than everything."""

import datetime
import decimal
import hashlib
import json
import math
import random
import struct
import subprocess
import time
import urllib.parse

import delta_sharing
import pyarrow
import pyarrow.parquet
import pytest
from deltalake import DeltaTable, write_deltalake

from conftest import BINARY, Server, TOKEN, hash_of
from test_client import DELTA_ONLY, NAMES, NOT_DECLARED, expected, rows, url

UTC = datetime.timezone.utc
TABLE = "/shares/all/schemas/spark/tables/"
DELTA = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors,columnmapping,timestampntz,"
         "typewidening,typewidening-preview,varianttype,varianttype-preview,variantshredding,variantshredding-preview,geospatial"}


def ask(server, body, name, headers=None, table=TABLE):
    answer = server.request("POST", f"{table}{name}/query", body=json.dumps(body).encode(), headers=headers)
    assert answer.status == 200, answer.body
    return answer.lines


def files(lines):
    return [line["file"]["id"] for line in lines if "file" in line]


def node(op, *children):
    return {"op": op, "children": list(children)}


def column(name, value_type):
    return {"op": "column", "name": name, "valueType": value_type}


def literal(value, value_type):
    return {"op": "literal", "value": value, "valueType": value_type}


# --- A table of random rows, and what every predicate is for each of them

SCHEMA = pyarrow.schema([
    ("day", pyarrow.date32()), ("region", pyarrow.string()), ("n", pyarrow.int64()), ("i", pyarrow.int32()),
    ("x", pyarrow.float64()), ("f", pyarrow.float32()), ("d", pyarrow.decimal128(20, 2)),
    ("t", pyarrow.timestamp("us", "UTC")), ("s", pyarrow.string()), ("b", pyarrow.bool_()),
    ("st", pyarrow.struct([("k", pyarrow.int64()), ("v", pyarrow.string())])),
])
DAY = datetime.date(2024, 2, 27)
TIME = datetime.datetime(2024, 2, 27, tzinfo=UTC)
TEXTS = ["", "a", "A", "ab", "b", "m" * 31, "m" * 32, "m" * 40 + "a", "m" * 40 + "z", "\ufffd", "\U0001f600", "zz", "it's", "a%b"]
DOUBLES = [-math.inf, -2.5, -0.0, 0.0, 0.1, 1.0, 2.5, 1e300, math.inf, math.nan]
FLOATS = [-1.5, 0.0, 0.1, 0.2, 1.0, 16777216.0]


def one_in(chance, value, other=None):
    return other if chance.random() < 0.15 else value


def values(chance, center):
    """A row whose values lie near `center`, so that files differ."""
    near = lambda spread: center + chance.randint(-spread, spread)  # noqa: E731
    pick = lambda of: of[max(0, min(len(of) - 1, (center + chance.randint(-1, 1)) % len(of)))]  # noqa: E731
    return {
        "n": one_in(chance, near(2)), "i": one_in(chance, near(1)), "x": one_in(chance, pick(DOUBLES)),
        "f": one_in(chance, struct.unpack("f", struct.pack("f", pick(FLOATS)))[0]),
        "d": one_in(chance, decimal.Decimal(near(3)) / 4), "t": one_in(chance, TIME + datetime.timedelta(hours=near(9), microseconds=chance.randint(0, 2000))),
        "s": one_in(chance, pick(TEXTS)), "b": one_in(chance, chance.random() < 0.5),
        "st": one_in(chance, {"k": one_in(chance, near(2)), "v": one_in(chance, pick(TEXTS))}, {"k": None, "v": None}),
    }


@pytest.fixture(scope="module")
def random_table(tmp_path_factory):
    """A served table of 60 small files: the server, and the rows of each file by its id."""
    chance = random.Random(13)
    home = tmp_path_factory.mktemp("hints")
    location = home / "table"
    for number in range(60):
        day, region = one_in(chance, DAY + datetime.timedelta(days=number % 4)), one_in(chance, "EU US it's".split()[number % 3])
        rows_of_file = [{"day": day, "region": region, **values(chance, number // 5)} for _ in range(chance.randint(1, 4))]
        data = pyarrow.Table.from_pylist(rows_of_file, schema=SCHEMA)
        write_deltalake(location, data, mode="append", partition_by=["day", "region"], configuration={"delta.dataSkippingNumIndexedCols": "20"} if number == 0 else None)
    by_file = {}
    actions = DeltaTable(location).get_add_actions()
    for path, partition in zip(actions.column("path").to_pylist(), actions.column("partition").to_pylist()):
        content = pyarrow.parquet.ParquetFile(location / urllib.parse.unquote(path)).read().to_pylist()
        by_file[hashlib.md5(path.encode()).hexdigest()] = [{**row, **partition} for row in content]
    assert len(by_file) == 60
    shares = home / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": [{"name": "random", "location": str(location), "historyShared": True}]}]}],
        "recipients": [{"name": "a", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares)
    server.shares = shares
    yield server, by_file
    assert server.stop() == 0


def f32(number):
    return struct.unpack("f", struct.pack("f", number))[0]


def spark_order(x):
    return (1, 0.0) if isinstance(x, float) and math.isnan(x) else (0, x)


# How clients differ: whether NaN is the greatest number, as in Spark, or compares with nothing; whether a 32-bit number
# is compared as one; and in which time zone a timestamp without one is.
WAYS = [(nan, single, hours) for nan in (True, False) for single in (True, False) for hours in (-12, 0, 14)]


class Leaf:
    """`column <operator> literal`."""

    def __init__(self, chance):
        self.name = chance.choice(["day", "region", "n", "i", "x", "f", "d", "t", "s", "b", "st.k", "st.v"])
        kind = {"st.k": "n", "st.v": "s", "region": "s"}.get(self.name, self.name)
        self.kind = kind
        self.operator = chance.choice(["=", "<>", "<", "<=", ">", ">=", "IS NULL", "IN", "LIKE", "BETWEEN", "<=>"])
        if kind != "s" and self.operator == "LIKE" or kind == "b" and self.operator not in ("=", "<>", "<=>"):
            self.operator = "IS NULL"
        self.values = [self.literal(chance) for _ in range({"IN": chance.randint(1, 4), "BETWEEN": 2, "IS NULL": 0}.get(self.operator, 1))]
        self.prefix = chance.choice(TEXTS)[:33].replace("%", "")

    def literal(self, chance):
        """A value, as SQL, and as (valueType, value) of JSON."""
        number = chance.randint(-1, 13)
        match self.kind:
            case "day":
                day = DAY + datetime.timedelta(days=chance.randint(-1, 4))
                return day, chance.choice([f"DATE '{day}'", f"'{day}'", f"CAST('{day}' AS DATE)"]), ("date", str(day))
            case "n" | "i":
                return number, str(number), (chance.choice(["long", "int"]) if self.kind == "i" else "long", str(number))
            case "x":
                x = chance.choice([x for x in DOUBLES if math.isfinite(x)] + [0.10000000000000003])
                return x, f"{x!r}", ("double", repr(x))
            case "f":
                f = chance.choice(FLOATS)
                return f, f"{f!r}", (chance.choice(["float", "double"]), repr(f))
            case "d":
                d = decimal.Decimal(number) / chance.choice([1, 4, 8])
                return d, f"{d:f}", None
            case "t":
                t = TIME + datetime.timedelta(hours=number, microseconds=chance.choice([0, 0, 500, 1500]))
                if chance.random() < 0.5:
                    text = t.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                    return t, f"TIMESTAMP '{text}'", ("timestamp", text)
                text = t.strftime("%Y-%m-%d %H:%M:%S.%f")
                return t.replace(tzinfo=None), f"TIMESTAMP '{text}'", ("timestamp", text)
            case "s":
                s = chance.choice(TEXTS)
                return s, "'" + s.replace("'", "''") + "'", ("string", s)
            case "b":
                return chance.random() < 0.5, None, None

    def sql(self):
        name = {"day": "CAST(partitionValues.day AS DATE)", "region": "`Region`"}.get(self.name, self.name)
        texts = [text or str(value).upper() for value, text, _ in self.values]
        match self.operator:
            case "IS NULL":
                return f"{name} IS NULL"
            case "IN":
                return f"{name} IN ({', '.join(texts)})"
            case "LIKE":
                prefix = self.prefix.replace("'", "''")
                return f"{name} LIKE '{prefix}%'"
            case "BETWEEN":
                return f"{name} BETWEEN {texts[0]} AND {texts[1]}"
        return f"{name} {self.operator} {texts[0]}"

    def json(self):
        """`None` if JSON predicates do not have it."""
        ops = {"=": "equal", "<": "lessThan", "<=": "lessThanOrEqual", ">": "greaterThan", ">=": "greaterThanOrEqual"}
        if self.operator == "IS NULL":
            return node("isNull", column(self.name, {"day": "date", "n": "long", "i": "int", "s": "string"}.get(self.kind, "string")))
        if self.operator not in ops or self.values[0][2] is None:
            return None
        value_type, value = self.values[0][2]
        return node(ops[self.operator], column(self.name, value_type), literal(value, value_type))

    def holds(self, row, way):
        spark, single, hours = way
        value = row
        for part in self.name.split("."):
            value = value and value[part]
        if self.operator == "IS NULL":
            return value is None

        def compare(operator, other):
            if value is None:
                return False if operator == "<=>" else None
            mine, other = value, other
            if self.kind == "f" and single:
                other = f32(other)
            if self.kind == "t" and other.tzinfo is None:
                other = (other - datetime.timedelta(hours=hours)).replace(tzinfo=UTC)
            if self.kind in "sx" and isinstance(mine, float) and spark:
                mine, other = spark_order(mine), spark_order(other)
            if isinstance(mine, str):
                mine, other = mine.encode(), other.encode()
            return {"=": mine == other, "<=>": mine == other, "<>": mine != other, "<": mine < other, "<=": mine <= other,
                    ">": mine > other, ">=": mine >= other}[operator]

        match self.operator:
            case "IN":
                return None if value is None else any(compare("=", other) for other, *_ in self.values)
            case "BETWEEN":
                return conjunction([compare(">=", self.values[0][0]), compare("<=", self.values[1][0])])
            case "LIKE":
                return None if value is None else value.startswith(self.prefix)
        return compare(self.operator, self.values[0][0])


def conjunction(outcomes):
    return False if False in outcomes else None if None in outcomes else True


def disjunction(outcomes):
    return True if True in outcomes else None if None in outcomes else False


class Tree:
    """AND, OR and NOT over leaves."""

    def __init__(self, chance, depth=3):
        self.operator = chance.choice(["AND", "OR", "NOT"]) if depth and chance.random() < 0.7 else None
        count = {"AND": 2, "OR": 2, "NOT": 1}.get(self.operator, 0)
        self.children = [Tree(chance, depth - 1) for _ in range(count)] or [Leaf(chance)]

    def sql(self):
        parts = [f"({child.sql()})" for child in self.children]
        return f"NOT {parts[0]}" if self.operator == "NOT" else f" {self.operator} ".join(parts)

    def json(self):
        parts = [child.json() for child in self.children]
        if None in parts:
            return None
        return node(self.operator.lower(), *parts) if self.operator else parts[0]

    def holds(self, row, way):
        outcomes = [child.holds(row, way) for child in self.children]
        match self.operator:
            case "NOT":
                return None if outcomes[0] is None else not outcomes[0]
            case "AND":
                return conjunction(outcomes)
            case "OR":
                return disjunction(outcomes)
        return outcomes[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_files_that_are_left_out_have_no_row_that_matches(random_table, seed):
    server, by_file = random_table
    chance, sent, wanted = random.Random(seed), 0, 0
    for _ in range(100):
        tree = Tree(chance)
        bodies = [{"predicateHints": [tree.sql()]}]
        if tree.json() is not None:
            bodies += [{"jsonPredicateHints": json.dumps(tree.json())}, {"jsonPredicateHints": tree.json()}]
        matching = {name for name, content in by_file.items() if any(tree.holds(row, way) for row in content for way in WAYS)}
        for body in bodies:
            kept = set(files(ask(server, body, "random")))
            assert matching <= kept, (body, [row for name in matching - kept for row in by_file[name]])
            sent, wanted = sent + len(kept), wanted + len(matching)
    # Statistics are not exact, and half of the predicates are satisfied by some row of most files.
    print(f"{sent} files were sent, of which {wanted} have rows that match")
    assert sent < 1.35 * wanted, (sent, wanted)


@pytest.mark.parametrize("seed", range(2))
def test_a_limit_sends_as_many_rows_as_match(random_table, seed):
    server, by_file = random_table
    chance = random.Random(1000 + seed)
    for _ in range(60):
        tree, limit = Tree(chance, 1), chance.choice([1, 2, 5, 20, 1000])
        body = {"predicateHints": [tree.sql()]}
        everything = files(ask(server, body, "random"))
        limited = files(ask(server, {**body, "limitHint": chance.choice([limit, str(limit)])}, "random"))
        assert limited == everything[:len(limited)]
        for way in WAYS:
            rows_in = lambda names: sum(tree.holds(row, way) is True for name in names for row in by_file[name])  # noqa: E731
            assert rows_in(limited) >= min(limit, rows_in(everything)), (body, limit)


def test_a_limit_ends_an_answer_once_enough_rows_are_sent(random_table):
    server, by_file = random_table
    everything = files(ask(server, {}, "random"))
    for limit in (1, 3, 10, 50):
        limited = files(ask(server, {"limitHint": limit}, "random"))
        assert limited == everything[:len(limited)]
        assert sum(len(by_file[name]) for name in limited[:-1]) < limit <= sum(len(by_file[name]) for name in limited)


@pytest.mark.parametrize("limit", [0, -5, "x", "", None, 1.5, [1], {}, True, "-3", 10**30])
def test_what_is_no_limit_is_ignored(random_table, limit):
    server, by_file = random_table
    assert len(files(ask(server, {"limitHint": limit}, "random"))) == len(by_file)


def test_the_limit_of_the_cpp_client_is_ignored(random_table):
    server, by_file = random_table
    agent = {"user-agent": "delta-sharing-CPP/0.1.0"}
    assert len(files(ask(server, {"limitHint": 1}, "random", agent))) == len(by_file)


@pytest.mark.parametrize("body", [
    {"predicateHints": ["n > 6"]}, {"predicateHints": ["region = 'EU'", "n > 3"]}, {"limitHint": 30},
    {"predicateHints": ["region = 'EU'"], "limitHint": 9}, {"predicateHints": ["n > 10000"]},
])
def test_pages_of_a_query_with_hints_add_up_to_the_whole_answer(random_table, body):
    server, _ = random_table
    whole = files(ask(server, body, "random"))
    for size in (1, 3, 1000):
        found, token = [], None
        while True:
            lines = ask(server, {**body, "maxFiles": size, **({"pageToken": token} if token else {})}, "random")
            page, token = files(lines), lines[-1]["endStreamAction"].get("nextPageToken")
            found += page
            assert len(page) == size or token is None
            # A page is not announced that has no file.
            assert page or not found
            if token is None:
                break
        assert found == whole


@pytest.mark.parametrize("body", [{"predicateHints": ["n > 6 AND region = 'EU'"]}, {"limitHint": 7}])
def test_asynchronous_queries_have_the_hints_of_their_submission(random_table, body):
    server, _ = random_table
    capabilities = {"delta-sharing-capabilities": "responseformat=parquet;asyncquery=true"}
    pending = ask(server, body, "random", capabilities)[0]["queryStatus"]["queryId"]
    answer = server.request("POST", f"{TABLE}random/queries/{pending}", body=b"{}", headers=capabilities)
    assert files(answer.lines) == files(ask(server, body, "random"))


@pytest.mark.parametrize("body,reason", [
    ({"predicateHints": ["nothing = 1"]}, "the table has no such column"),
    ({"predicateHints": ["n = 'x'"]}, "n is compared with a value of another type"),
    ({"predicateHints": ["string"]}, "the table has no such column"),
    ({"predicateHints": ["((("]}, "the text is not an expression of SQL"),
    ({"predicateHints": ["f(n, 'a value') = 1"]}, "a function is not supported"),
    ({"predicateHints": ["n = 1 OR g(n)"]}, "a function is not supported"),
    ({"predicateHints": [{"n": 1}, 7]}, "the text is not an expression of SQL"),
    ({"jsonPredicateHints": "{"}, "jsonPredicateHints is not JSON"),
    ({"jsonPredicateHints": '{"op":"="}'}, "an operation is not one of the protocol"),
    ({"jsonPredicateHints": [1]}, "a predicate is a JSON object"),
    ({"jsonPredicateHints": node("equal", column("n", "integer"), literal("1", "long"))}, "a value type is not one of the protocol"),
])
def test_a_hint_that_is_not_understood_leaves_out_nothing_and_is_in_the_event(random_table, body, reason):
    server, by_file = random_table
    lines = len(server.log)
    assert len(files(ask(server, body, "random"))) == len(by_file)
    assert "left_out=0" in event(server, lines, reason)


def event(server, lines, text):
    """The line of the log with this text after the first lines."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = [line for line in server.log[lines:] if text in line]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{text!r} is not in {server.log[lines:]}")


def test_the_part_of_a_hint_that_is_understood_is_used(random_table):
    server, by_file = random_table
    used = files(ask(server, {"predicateHints": ["n = 3"]}, "random"))
    assert 0 < len(used) < len(by_file)
    for sql in (["n = 3 AND f(n) = 1"], ["n = 3", "((("], ["", "n = 3"]):
        lines = len(server.log)
        assert files(ask(server, {"predicateHints": sql}, "random")) == used
        event(server, lines, f"left_out={len(by_file) - len(used)}")


# --- Every test table: with the official client, filtered answers have the rows of unfiltered ones that are filtered afterwards

TYPES = {"string": "string", "long": "long", "integer": "int", "short": "int", "byte": "int", "date": "date", "boolean": "bool",
         "double": "double", "float": "float", "timestamp": "timestamp", "timestamp_ntz": "timestamp"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_DECLARED])
def test_the_official_client_gets_every_row_that_matches(server, profile, tables, name):
    content = expected(tables, name)
    metadata = ask(server, {}, name, DELTA)[1]["metaData"]["deltaMetadata"]
    forms = [True] if name in DELTA_ONLY else [True, None]
    for field in json.loads(metadata["schemaString"])["fields"]:
        value_type = TYPES.get(field["type"]) if isinstance(field["type"], str) else None
        if value_type is None:
            continue
        own = field["name"]
        distinct = sorted({json.dumps(row.get(own)) for row in content})[:3]
        for value in map(json.loads, distinct):
            if value is None:
                hints = node("isNull", column(own, value_type))
            elif isinstance(value, bool):
                hints = node("equal", column(own, value_type), literal(json.dumps(value), value_type))
            else:
                text = f"{value}Z" if field["type"] == "timestamp" else str(value)
                hints = node("equal", column(own, value_type), literal(text, value_type))
            for form in forms:
                frame = delta_sharing.load_as_pandas(url(profile, name), jsonPredicateHints=json.dumps(hints), use_delta_format=form)
                wanted = [row for row in content if row.get(own) == value]
                assert [row for row in rows(frame) if row.get(own) == value] == wanted, hints


@pytest.mark.parametrize("name", ["deletion_vectors", "mapped_and_deleted", "py_many_files", "schema_evolution"])
def test_the_official_client_gets_as_many_rows_as_it_asks_for(profile, tables, name):
    content = expected(tables, name)
    for limit in {1, 2, len(content) - 1, len(content), len(content) + 5}:
        frame = delta_sharing.load_as_pandas(url(profile, name), limit=limit, use_delta_format=True)
        assert len(frame) == min(limit, len(content))
        assert all(row in content for row in rows(frame))


def test_logical_names_are_used_and_physical_ones_are_not(server, tables):
    everything = files(ask(server, {}, "column_mapping_name", DELTA))
    metadata = ask(server, {}, "column_mapping_name", DELTA)[1]["metaData"]["deltaMetadata"]
    names = [field["name"] for field in json.loads(metadata["schemaString"])["fields"] if field["type"] in ("long", "integer")]
    assert names and everything
    for name in names:
        assert files(ask(server, {"predicateHints": [f"`{name}` > 1000000"]}, "column_mapping_name", DELTA)) == []
        physical = json.loads(metadata["schemaString"])
        other = next(f["metadata"]["delta.columnMapping.physicalName"] for f in physical["fields"] if f["name"] == name)
        assert files(ask(server, {"predicateHints": [f"`{other}` > 1000000"]}, "column_mapping_name", DELTA)) == everything


# --- deltashare explain

def explain(server, *options):
    command = [BINARY, "explain", "all.spark.random", "-f", server.shares, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("sql,limit", [
    (["n = 3 AND region = 'EU'", "s LIKE 'a%'"], None), (["region = 'EU'"], 5), ([], 12), ([], None), (["f(n) = 1", "n > 1000"], None),
])
def test_explain_says_what_a_query_sends(random_table, sql, limit):
    server, by_file = random_table
    options = [option for text in sql for option in ("--where", text)] + (["--limit", str(limit)] if limit else [])
    done = explain(server, *options, "--output", "json")
    assert done.returncode == 0, done.stderr
    explained = json.loads(done.stdout)
    sent = ask(server, {"predicateHints": sql, "limitHint": limit}, "random")
    assert explained["sentFiles"] == len(files(sent))
    assert explained["sentBytes"] == sum(line["file"]["size"] for line in sent if "file" in line)
    assert (explained["files"], explained["table"]) == (len(by_file), "all.spark.random")
    shown = explain(server, *options).stdout
    assert f"A query sends {len(files(sent))} of {len(by_file)} files" in shown


def test_explain_says_what_each_condition_does(random_table):
    server, _ = random_table
    done = explain(server, "--where", "n = 3 AND f(n) = 1", "--where", "b = true", "--json-where", json.dumps(
        node("equal", column("day", "date"), literal("2024-02-27", "date"))))
    assert "n = 3\n  leaves out " in done.stdout and " files by statistics of n\n" in done.stdout
    assert "CAST(day AS DATE) = DATE '2024-02-27'\n  leaves out " in done.stdout and " files by partition values\n" in done.stdout
    assert "not used: a function is not supported\n" in done.stdout


def test_explain_names_a_table_that_is_not_there(random_table):
    server, _ = random_table
    done = subprocess.run([BINARY, "explain", "all.spark.none", "-f", server.shares], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "there is no table 'all.spark.none'" in done.stderr
