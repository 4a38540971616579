"""How many requests to AWS each operation takes, and how many of them wait for each other, on a function that was just
started and on one that has read the table before. See `rounds.py`."""

import collections
import http.client
import json
import re
import urllib.parse
import uuid

import pyarrow.parquet
import pytest
from deltalake import DeltaTable

from conftest import ROOT, SPARK_TABLES, TOKEN, hash_of
from faults import Way
from lambda_runtime import Lambda
from rounds import Rounds
from test_dynamodb import TABLE, make_table, put
from test_storage_requests import BUCKET, ROLE, TABLES, add, head, lines

READER_ROLE = "arn:aws:iam::000000000000:role/reader"
DELTA = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors,columnmapping,v2checkpoint"}
# More than what is read with the footer of a checkpoint.
LARGE = 6_000
SPARK = ["multi_part_checkpoint", "v2_checkpoint_json", "v2_checkpoint_parquet"]

# What a cold operation on any table begins with, and a warm one.
COLD = [{"GetItem": 1}, {"BatchGetItem": 1}, {"GET hint": 1, "LIST": 1}]
WARM = [{"BatchGetItem": 1}, {"HEAD commit": 1, "GET commit": 1}]


def commits(number, **more):
    return {"GET commit": number, **{f"GET {kind}": count for kind, count in more.items()}}


COLUMNS = {"GET checkpoint": 1}
FIVE = commits(5, checkpoint=1)

# By the row of docs/performance.md: the operations that it stands for, each with its table, and what it takes after the
# beginning, cold and warm.
CASES = {
    "a table of one commit": ([("parquet", "one"), ("delta", "one")], [commits(1)], []),
    "a table of ten commits": ([("parquet", "ten"), ("delta", "ten"), ("version", "ten"), ("metadata", "ten")], [commits(10)], []),
    "a table of 48 commits": ([("parquet", "many")], [commits(48)], []),
    "a small checkpoint and five commits": (
        [("parquet", "small"), ("delta", "small"), ("version", "small"), ("metadata", "small"), ("parquet", "unhinted")], [FIVE], []),
    "a small checkpoint and five commits, with a version checksum": (
        [("delta", "checked")], [commits(5, checkpoint=1, checksum=1)], []),
    "a large checkpoint and five commits": ([("parquet", "large")], [FIVE, COLUMNS], [COLUMNS]),
    "a large checkpoint and five commits, version or metadata": ([("version", "large"), ("metadata", "large")], [FIVE], []),
    "a large checkpoint and five commits, delta format": ([("delta", "large")], [FIVE, COLUMNS, COLUMNS], [COLUMNS]),
    "a large checkpoint of three row groups and five commits": ([("parquet", "groups")], [FIVE, *[COLUMNS] * 4], [COLUMNS] * 3),
    "a checkpoint of three parts and one commit": ([("parquet", "multi_part_checkpoint")], [commits(1, checkpoint=3)], []),
    "a V2 checkpoint with three sidecars and one commit": (
        [("parquet", "v2_checkpoint_parquet")], [commits(1, checkpoint=1, sidecar=3)], []),
    "a V2 checkpoint in JSON with three sidecars and one commit": (
        [("parquet", "v2_checkpoint_json")], [commits(1, manifest=1, sidecar=3)], []),
    "a log of more than a thousand files": ([("parquet", "long")], [{"LIST": 1}, FIVE], []),
    "the changes of ten commits": ([("changes", "ten")], [commits(10), {"LIST": 1}], [{"LIST": 1}]),
}
# A role of the table's own is assumed before its storage is asked for anything.
OF_ROLE = ("parquet", "of_role")


def operation(kind, table):
    path = f"{TABLES}{table}"
    return {
        "parquet": ("POST", f"{path}/query", b"{}", {}),
        "delta": ("POST", f"{path}/query", b"{}", DELTA),
        "version": ("GET", f"{path}/version", None, {}),
        "metadata": ("GET", f"{path}/metadata", None, {}),
        "changes": ("GET", f"{path}/changes?startingVersion=1&endingVersion=4", None, {}),
    }[kind]


def write_log(log, first, versions, after=0, checkpoint=False):
    """The log of a table whose first version adds so many files and each later one a file, perhaps with a checkpoint."""
    log.mkdir(parents=True)
    name = lambda number: f"part-{number:05}-{uuid.UUID(int=number * 0x9e3779b97f4a7c15f39cc0605cedc835 % 2**128)}.parquet"
    protocol, metadata = head()
    protocol["protocol"]["minWriterVersion"] = 4
    metadata["metaData"]["configuration"] = {"delta.enableChangeDataFeed": "true"}
    adds = [[add(name(number)) for number in range(first)], *([add(name(first + version))] for version in range(1, versions + after))]
    for version, actions in enumerate(adds):
        begin = [protocol, metadata] if version == 0 else []
        (log / f"{version:020}.json").write_bytes(lines(*begin, *actions))
        if checkpoint and version == versions - 1:
            DeltaTable(str(log.parent)).create_checkpoint()
    return log


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Starts functions whose requests to AWS pass in rounds."""
    from aws import Aws

    aws = Aws()
    s3, dynamodb, iam = aws.client("s3"), aws.client("dynamodb"), aws.client("iam")
    s3.create_bucket(Bucket=BUCKET)
    make_table(dynamodb)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    read = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}]}
    for role in (ROLE, READER_ROLE):
        name = role.rpartition("/")[2]
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        iam.put_role_policy(RoleName=name, PolicyName="read", PolicyDocument=json.dumps(read))
    root = tmp_path_factory.mktemp("rounds")
    log_of = lambda name: root / name / "_delta_log"
    write_log(log_of("one"), 1, 1)
    write_log(log_of("ten"), 1, 10)
    write_log(log_of("many"), 1, 48)
    small = write_log(log_of("small"), 10, 3, 5, checkpoint=True)
    (write_log(log_of("unhinted"), 10, 3, 5, checkpoint=True) / "_last_checkpoint").unlink()
    checked = write_log(log_of("checked"), 10, 3, 5, checkpoint=True)
    (checked / f"{7:020}.crc").write_text(json.dumps({"tableSizeBytes": 17_000, "numFiles": 17}))
    large = write_log(log_of("large"), LARGE, 3, 5, checkpoint=True)
    groups = next(write_log(log_of("groups"), 3 * LARGE, 3, 5, checkpoint=True).glob("*.checkpoint.parquet"))
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(groups), groups, row_group_size=LARGE + 10)
    assert pyarrow.parquet.ParquetFile(groups).metadata.num_row_groups == 3
    write_log(log_of("long"), 10, 1_030, 5, checkpoint=True)
    sizes = {log: next(log.glob("*.checkpoint.parquet")) for log in (small, large)}
    assert sizes[small].stat().st_size < 256 * 1024 < sizes[large].stat().st_size
    assert pyarrow.parquet.ParquetFile(sizes[large]).metadata.num_row_groups == 1
    logs = {log.parent.name: log for log in root.glob("*/_delta_log")} | {name: SPARK_TABLES / name / "_delta_log" for name in SPARK}
    for name, log in logs.items():
        for file in log.rglob("*"):
            if file.is_file():
                s3.upload_file(str(file), BUCKET, f"{name}/_delta_log/{file.relative_to(log)}")
    put(dynamodb, "SHARE#retail", "SHARE", name="Retail", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11")
    put(dynamodb, "SHARE#retail", "SCHEMA#sales", name="Sales")
    for name, more in {**dict.fromkeys(logs, {}), "of_role": {"signerRole": READER_ROLE}}.items():
        put(dynamodb, "SHARE#retail", f"TABLE#sales#{name}", name=name, schema="Sales", id=f"id-{name}",
            location=f"s3://{BUCKET}/{'ten' if more else name}", historyShared=True, **more)
    put(dynamodb, "RECIPIENT#acme", "RECIPIENT", name="acme", status="active")
    put(dynamodb, "RECIPIENT#acme", "SHARE#retail", share="Retail", recipient="acme")
    put(dynamodb, f"TOKEN#{hash_of(TOKEN)}", "TOKEN", recipient="acme", id="1", expires="never")
    rounds = Rounds()
    ways = {"s3": Way(aws.port), "sts": Way(aws.port), "dynamodb": Way(urllib.parse.urlsplit(aws.dynamodb).port)}
    for service, way in ways.items():
        way.rule = rounds.rule(service)
    rounds.environment = {
        **aws.environment, "DELTASHARE_TABLE": TABLE, "DELTASHARE_SIGNER_ROLE_ARN": ROLE, "DELTASHARE_LIMITS": "log_listing_seconds=3600",
        **{f"AWS_ENDPOINT_URL_{service.upper()}": way.endpoint for service, way in ways.items()},
    }
    yield rounds
    rounds.pass_all()
    for way in ways.values():
        way.stop()
    aws.stop()


def first_line(rounds, function, expected, kind, table):
    """Asks for something, whose answer has to begin after these rounds."""
    method, path, body, headers = operation(kind, table)
    rounds.expect(expected)
    connection = http.client.HTTPConnection("127.0.0.1", function.port, timeout=150)
    try:
        connection.request(method, "/delta-sharing" + path, body=body, headers={"Authorization": f"Bearer {TOKEN}", **headers})
        answer = connection.getresponse()
        begin = [answer.readline() for _ in range({"version": 0, "metadata": 2}.get(kind, 3))]
        rounds.check()
        assert answer.status == 200 and all(begin), (answer.status, begin, rounds.late)
        # What the rest of the answer takes.
        rounds.pass_all()
        answer.read()
    finally:
        rounds.pass_all()
        connection.close()


@pytest.mark.parametrize("row,kind,table", [(row, *asked) for row, (operations, *_) in CASES.items() for asked in operations])
def test_the_first_line_comes_after_so_many_round_trips(rounds, row, kind, table):
    _, cold, warm = CASES[row]
    function = Lambda(rounds.environment, seconds=150)
    try:
        # Its own key and its credentials are read before the first event.
        function.started_after()
        first_line(rounds, function, COLD + cold, kind, table)
        for _ in range(2):
            first_line(rounds, function, WARM + warm, kind, table)
    finally:
        function.stop()
    assert "panicked" not in "".join(function.log) and not function.errors


def test_the_role_of_a_table_takes_one_more_round_trip(rounds):
    function = Lambda(rounds.environment, seconds=150)
    try:
        function.started_after()
        cold = [*COLD[:2], {"AssumeRole": 1}, *COLD[2:], commits(10)]
        first_line(rounds, function, cold, *OF_ROLE)
        first_line(rounds, function, WARM, *OF_ROLE)
    finally:
        function.stop()


def test_no_ordinary_operation_takes_more_than_six_round_trips():
    """With the one for the table's role, or at AWS for the region of its bucket."""
    most = {row: len(COLD + cold) + 1 for row, (_, cold, _) in CASES.items()}
    assert {row: trips for row, trips in most.items() if trips > 6} == {
        # The files are counted first, which reads the checkpoint once more.
        "a large checkpoint and five commits, delta format": 7,
        # Protocol and metadata are read from one, and each that is not at the end is searched for sidecars.
        "a large checkpoint of three row groups and five commits": 9,
    }


def test_the_page_on_performance_has_the_requests(rounds):
    section = (ROOT / "docs/performance.md").read_text().split("\n## Round trips\n")[1].split("\n## ")[0]
    written = {row[0]: row[1:] for row in (tuple(cell.strip() for cell in line.strip("|").split("|"))
                                           for line in section.splitlines() if re.match(r"\| (a|the changes)\b", line))}
    counted = {}
    for row, (_, cold, warm) in CASES.items():
        cells = []
        for all_rounds in (COLD + cold, WARM + warm):
            sums = sum(map(collections.Counter, all_rounds), collections.Counter())
            cells += [sum(count for name, count in sums.items() if name.startswith(("GET ", "HEAD "))), sums["LIST"], len(all_rounds)]
        counted[row] = tuple(map(str, cells))
    assert written == counted
