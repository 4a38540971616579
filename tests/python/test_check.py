"""`deltashare check` and `deltashare checkpoint`: tables of share files and of DynamoDB, settings of buckets, slow logs."""

import json
import os
import shutil
import subprocess

import canonical
import delta_sharing
import deltalake
import pytest

from conftest import BINARY, Server, TOKEN, hash_of, write_profile
from faults import Way, answer, s3_error
from test_admin import Admin, bucket, retail, world  # noqa: F401
from test_dynamodb import put  # noqa: F401

COMMITS = 300
BUCKETS = {}


def run(*arguments, code=0, env=None):
    done = subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          timeout=120, env={**os.environ, **(env or {})})
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture
def long_log(tables, tmp_path):
    """A table with hundreds of commits after its last checkpoint, each adding a file."""
    table = tmp_path / "long"
    shutil.copytree(tables["py_versions"], table)
    log = table / "_delta_log"
    last = max(int(commit.stem) for commit in log.glob("*.json"))
    action = next(json.loads(line) for number in range(last, -1, -1)
                  for line in (log / f"{number:020}.json").read_text().splitlines() if '"add"' in line)
    for number in range(last + 1, COMMITS):
        path = f"more-{number}.parquet"
        os.link(table / action["add"]["path"], table / path)
        (log / f"{number:020}.json").write_text(json.dumps({"add": {**action["add"], "path": path}}) + "\n"
                                               + json.dumps({"commitInfo": {"timestamp": number, "operation": "WRITE"}}) + "\n")
    return table


def share_file(path, locations, recipient=False):
    tables = [{"name": name, "location": str(location)} for name, location in locations.items()]
    who = [{"name": "acme", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}]
    path.write_text(json.dumps({"version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": tables}]}],
                                "recipients": who if recipient else []}))
    return path


def test_the_tables_of_a_share_file_are_checked_without_aws(tables, tmp_path):
    (tmp_path / "empty").mkdir()
    file = share_file(tmp_path / "shares.yaml", {"a": tables["py_versions"], "b": tables["deletion_vectors"], "c": tmp_path / "empty",
                                                 "d": "gs://elsewhere/t"})
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true"}
    done = run("check", "-f", file, code=1, env=nowhere)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("s.d.a: readable, version 3, 1 files") and lines[1].startswith("s.d.b: readable")
    assert lines[1].endswith("for clients that declare deletionVectors") and lines[2].startswith("s.d.c: NOT readable")
    assert lines[3].startswith("s.d.d: NOT readable") and "the scheme gs:// is not supported" in lines[3]
    assert "2 of 4 tables cannot be read" in done.stderr
    seen = [json.loads(line) for line in run("check", "-f", file, "--output", "json", code=1, env=nowhere).stdout.splitlines()]
    assert [table["readable"] for table in seen] == [True, True, False, False] and seen[0]["commitsSinceCheckpoint"] == 4
    assert "cannot be used with" in run("check", "-f", file, "--function", "x", code=2).stderr


def test_a_checkpoint_makes_a_long_log_short(long_log, tmp_path):
    file = share_file(tmp_path / "shares.yaml", {"long": long_log}, recipient=True)
    done = run("check", "-f", file)
    assert f"warning: {COMMITS} commits follow the last checkpoint" in done.stdout
    before_files = sorted(os.listdir(long_log / "_delta_log"))
    assert "Confirm with --yes" in run("checkpoint", "s.d.long", "-f", file, code=2).stderr
    assert sorted(os.listdir(long_log / "_delta_log")) == before_files

    def rows():
        server = Server("--shares", file)
        try:
            profile = write_profile(tmp_path / "p.share", server.endpoint, TOKEN)
            frame = delta_sharing.load_as_pandas(f"{profile}#s.d.long")
            files = server.request("POST", "/shares/s/schemas/d/tables/long/query", body=b"{}").lines[2:]
            return canonical.rows(frame.to_dict("records")), sorted(file["file"]["id"] for file in files)
        finally:
            server.stop()

    before = rows()
    done = run("checkpoint", "S.d.LONG", "-f", file, "--yes")
    assert f"a checkpoint of version {COMMITS - 1}" in done.stderr
    added = set(os.listdir(long_log / "_delta_log")) - set(before_files)
    assert added == {"_last_checkpoint", f"{COMMITS - 1:020}.checkpoint.parquet"}
    done = run("check", "-f", file)
    assert "warning" not in done.stdout and f"version {COMMITS - 1}, {COMMITS - 3} files" in done.stdout, done.stdout
    assert rows() == before
    # Without the commits, only the checkpoint is left to read.
    for number in range(COMMITS - 1):
        (long_log / "_delta_log" / f"{number:020}.json").unlink()
    assert rows() == before
    assert len(deltalake.DeltaTable(str(long_log)).file_uris()) == COMMITS - 3
    assert "already has a checkpoint" in run("checkpoint", "s.d.long", "-f", file).stderr
    assert "there is no table 's.d.none'" in run("checkpoint", "s.d.none", "-f", file, code=3).stderr


EVERYTHING = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors,columnmapping,timestampntz,varianttype,"
                                            "typewidening,v2checkpoint,vacuumprotocolcheck"}


def test_every_table_reads_the_same_with_a_checkpoint_and_without(tables, tmp_path):
    """Deletion vectors, column mapping, partitions with odd values: whatever is in them."""
    copies = {}
    for name, directory in tables.items():
        shutil.copytree(directory, tmp_path / "tables" / name)
        copies[name] = tmp_path / "tables" / name
    file = share_file(tmp_path / "shares.yaml", copies, recipient=True)

    def answers():
        server = Server("--shares", file)
        try:
            return {name: answer_of(server, name) for name in copies}
        finally:
            server.stop()

    def answer_of(server, name):
        got = server.request("POST", f"/shares/s/schemas/d/tables/{name}/query", body=b"{}", headers=EVERYTHING)
        if got.status != 200:
            return got.status
        protocol, metadata, *files = got.lines
        added = [line["file"]["deltaSingleAction"]["add"] for line in files]
        ids = [line["file"]["id"] for line in files]
        parts = [(key, add["size"], add["partitionValues"], (add.get("deletionVector") or {}).get("cardinality"))
                 for key, add in zip(ids, added)]
        return protocol, metadata["metaData"]["deltaMetadata"], sorted(parts, key=str)

    before, written, refused = answers(), [], []
    for name, directory in copies.items():
        done = subprocess.run([str(BINARY), "checkpoint", f"s.d.{name}", "-f", str(file), "--yes"], capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 1), done
        (written if "was written" in done.stderr else refused).append((name, done.stderr.strip()))
    print(refused)
    assert len(written) > len(refused)
    after = answers()
    for name in copies:
        assert after[name] == before[name], name


def small_table(directory, *commits):
    schema = json.dumps({"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]})
    first = [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
             {"metaData": {"id": directory.name, "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
                           "partitionColumns": [], "configuration": {}}}]
    (directory / "_delta_log").mkdir(parents=True)
    for version, actions in enumerate([first, *commits]):
        (directory / f"_delta_log/{version:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    return directory


def added(path, **more):
    return {"add": {"path": path, "partitionValues": {}, "size": 9, "modificationTime": 0, "dataChange": True, **more}}


def removed(path):
    return {"remove": {"path": path, "deletionTimestamp": 1, "dataChange": True}}


def test_a_checkpoint_is_of_its_own_table_whatever_the_name_of_the_directory(tmp_path):
    odd, other = small_table(tmp_path / "a%20b", [added("1.parquet")]), small_table(tmp_path / "a b", [added("2.parquet")])
    file = share_file(tmp_path / "shares.yaml", {"t": odd})
    assert "was written" in run("checkpoint", "s.d.t", "-f", file, "--yes").stderr
    [written] = (odd / "_delta_log").glob("*.checkpoint.parquet")
    assert b"1.parquet" in written.read_bytes() and b"2.parquet" not in written.read_bytes()
    assert not list((other / "_delta_log").glob("*.parquet"))


@pytest.mark.parametrize("commits", [
    # Of what a commit says twice, the last counts. What writes checkpoints here takes the first.
    [[added("1"), added("2")], [added("3"), removed("3"), removed("2"), added("2")]],
    [[added("1")], [added("2", size=5), added("2", size=6)]],
    [[added("1")], [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"protocol": {"minReaderVersion": 1, "minWriterVersion": 4}}]],
    [[{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [], "writerFeatures": ["unheardOf"]}}, added("1")]],
])
def test_a_checkpoint_that_readers_would_see_another_table_by_is_not_written(tmp_path, commits):
    table = small_table(tmp_path / "t", *commits)
    before = sorted(path.name for path in (table / "_delta_log").iterdir())
    error = run("checkpoint", "s.d.t", "-f", share_file(tmp_path / "shares.yaml", {"t": table}), "--yes", code=1).stderr
    assert "no checkpoint of table 's.d.t' was written: " in error and ("readers would see another" in error or "unheardOf" in error), error
    assert sorted(path.name for path in (table / "_delta_log").iterdir()) == before


def upload(s3, bucket_name, prefix, directory):
    for file in directory.rglob("*"):
        if file.is_file():
            s3.upload_file(str(file), bucket_name, f"{prefix}/{file.relative_to(directory)}")


def test_a_checkpoint_in_s3_is_written_with_the_rights_of_who_is_signed_in(world, aws, long_log, tmp_path):  # noqa: F811
    admin, server, *_ = world
    s3 = aws.client("s3")
    upload(s3, "admin", "a b/long=1", long_log)
    retail(admin, tmp_path)
    admin.run("table", "create", "retail.sales.long", "--location", "s3://admin/a b/long=1")
    token = json.loads((tmp_path / "acme.share").read_text())["bearerToken"]
    query = lambda: sorted(line["file"]["id"] for line in server.request(  # noqa: E731
        "POST", "/shares/retail/schemas/sales/tables/long/query", body=b"{}", token=token).lines[2:])
    before = query()
    done = admin.run("checkpoint", "retail.sales.long", "--yes")
    assert f"a checkpoint of version {COMMITS - 1}" in done.stderr
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket="admin", Prefix="a b/long=1/_delta_log/", MaxKeys=1000)["Contents"]}
    assert f"a b/long=1/_delta_log/{COMMITS - 1:020}.checkpoint.parquet" in keys and "a b/long=1/_delta_log/_last_checkpoint" in keys
    assert query() == before and len(before) == COMMITS - 3
    other = Server("--catalog", f"dynamodb:{admin.environment['DELTASHARE_TABLE']}", env=aws.environment)
    try:
        assert sorted(line["file"]["id"] for line in other.request(
            "POST", "/shares/retail/schemas/sales/tables/long/query", body=b"{}", token=token).lines[2:]) == before
    finally:
        other.stop()
    assert '"commitsSinceCheckpoint":0' in admin.run("check", "--output", "json").stdout


def test_a_checkpoint_that_may_not_be_written_says_so(world, aws, long_log, tmp_path):  # noqa: F811
    admin, *_ = world
    upload(aws.client("s3"), "admin", "read-only", long_log)
    retail(admin, tmp_path)
    admin.run("table", "create", "retail.sales.long", "--location", "s3://admin/read-only")
    iam = aws.client("iam")
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket", "dynamodb:*"], "Resource": "*"}]}))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    admin.environment = {**admin.environment, "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    error = admin.error(1, "checkpoint", "retail.sales.long", "--yes")
    assert "no checkpoint of table 'retail.sales.long' was written" in error and "s3:PutObject" in error
    assert key["SecretAccessKey"] not in error


@pytest.fixture
def own_bucket(aws, tables, request):
    """A bucket whose settings a test may change, with one table."""
    name = f"check-{abs(hash(request.node.name))}"[:60]
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=name)
    upload(s3, name, "lake/orders", tables["py_versions"])
    return name, s3


def check(aws, file, *arguments, code=0, **environment):
    done = run("check", "-f", file, "--output", "json", *arguments, code=code, env={**aws.environment, **environment})
    table, = [json.loads(line) for line in done.stdout.splitlines()]
    return table, done


def test_settings_of_a_bucket_that_will_stop_recipients_are_named(aws, own_bucket, tmp_path):
    name, s3 = own_bucket
    file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
    table, _ = check(aws, file)
    assert table["readable"] and "problems" not in table
    # What stands in for S3 here takes this setting, and does not tell it.
    way = Way(aws.port)
    pays = ('<RequestPaymentConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Payer>Requester</Payer>'
            "</RequestPaymentConfiguration>")
    way.rule = lambda request: answer(200, pays) if "requestPayment" in request.query else None
    rule = lambda number, **more: {"ID": f"rule-{number}", "Status": "Enabled", **more}  # noqa: E731
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [
        rule(1, Filter={"Prefix": "lake/"}, Expiration={"Days": 30}),
        rule(2, Filter={"Prefix": "lake/orders/_delta_log/"}, Transitions=[{"Days": 90, "StorageClass": "GLACIER"}]),
        rule(3, Filter={"Prefix": "else/"}, Expiration={"Days": 1}),
        {**rule(4, Filter={"Prefix": ""}, Expiration={"Days": 1}), "Status": "Disabled"},
        rule(5, Filter={"Prefix": ""}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 3}),
    ]})
    try:
        table, done = check(aws, file, code=1, AWS_ENDPOINT_URL_S3=way.endpoint)
    finally:
        way.stop()
    assert table["readable"] and len(table["problems"]) == 3, table
    pays, deletes, archives = table["problems"]
    assert "Requester Pays" in pays and name in pays
    assert "rule 'rule-1' deletes files 30 days" in deletes and "rule 'rule-2' archives files 90 days" in archives
    assert "3 problems will stop recipients" in done.stderr
    assert run("check", "-f", file, code=1, env=aws.environment).stdout.count("  PROBLEM: ") == 2


def role(aws, name, *statements):
    iam = aws.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))
    return f"arn:aws:iam::000000000000:role/{name}"


def test_a_bucket_policy_that_refuses_the_role_is_named(aws, own_bucket, tmp_path):
    name, s3 = own_bucket
    arns = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    arn = role(aws, "policy-refused", {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": arns})
    file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
    assert check(aws, file, "--signer-role", arn)[0]["readable"]
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Sid": "NotThese", "Effect": "Deny", "Principal": {"AWS": arn}, "Action": "s3:GetObject", "Resource": arns[1]}]}))
    table, _ = check(aws, file, "--signer-role", arn, code=1)
    assert not table["readable"] and "denies by statement 'NotThese'" in table["reason"], table


def test_files_that_the_role_may_not_read_although_it_reads_the_log(aws, own_bucket, tmp_path):
    name, _ = own_bucket
    arn = role(aws, "log-only-check", {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{name}"},
               {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*/_delta_log/*"})
    file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
    table, _ = check(aws, file, "--signer-role", arn, code=1)
    assert table["version"] == 3 and "the role is not allowed to read the files (S3 answers 403 AccessDenied" in table["reason"]
    assert table["allow"]["Action"] == ["s3:GetObject", "s3:ListBucket"]


def test_a_file_that_is_gone_is_noticed(aws, own_bucket, tmp_path):
    name, s3 = own_bucket
    for item in s3.list_objects_v2(Bucket=name, Prefix="lake/orders/")["Contents"]:
        if item["Key"].endswith(".parquet") and "_delta_log" not in item["Key"]:
            s3.delete_object(Bucket=name, Key=item["Key"])
    file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
    table, _ = check(aws, file, code=1)
    assert "a file that the log names is gone" in table["reason"] and "404 NoSuchKey" in table["reason"]


def test_a_kms_key_that_the_role_may_not_use_is_named(aws, own_bucket, tmp_path):
    """S3's own words: what stands in for it here does not ask KMS."""
    name, s3 = own_bucket
    key = "arn:aws:kms:us-east-1:000000000000:key/0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11"
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [
        {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}]})
    message = (f"User: arn:aws:sts::000000000000:assumed-role/signer/deltashare-server is not authorized to perform: kms:Decrypt on "
               f"resource: {key} because no identity-based policy allows the kms:Decrypt action")
    body = f"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
    way = Way(aws.port)
    way.rule = lambda request: answer(403, body) if request.path.endswith(".parquet") and "_delta_log" not in request.path else None
    try:
        file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
        table, _ = check(aws, file, code=1, AWS_ENDPOINT_URL_S3=way.endpoint)
        assert f"is not allowed to use the KMS key {key}" in table["reason"] and f"encrypted with the KMS key {key}" in table["reason"]
        assert table["allow"] == {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key}
    finally:
        way.stop()


def test_what_may_not_be_asked_of_a_bucket_is_said_and_fails_nothing(aws, own_bucket, tmp_path):
    name, _ = own_bucket
    iam = aws.client("iam")
    iam.create_user(UserName="checker")
    iam.put_user_policy(UserName="checker", PolicyName="read", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}]}))
    key = iam.create_access_key(UserName="checker")["AccessKey"]
    file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
    table, done = check(aws, file, AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])
    assert table["readable"]
    for permission in ("s3:GetBucketRequestPayment", "s3:GetLifecycleConfiguration", "s3:GetBucketPolicy", "s3:GetEncryptionConfiguration"):
        assert f"{permission} for bucket {name}" in done.stderr


def test_records_that_miss_another_one_are_named(world, tmp_path):  # noqa: F811
    admin, _, client, table = world
    retail(admin, tmp_path)
    assert admin.run("check").stdout.count("\n") == 1
    client.delete_item(TableName=table, Key={"pk": {"S": "SHARE#retail"}, "sk": {"S": "GRANT#acme"}})
    client.put_item(TableName=table, Item={name: {"S": value} for name, value in {
        "pk": "RECIPIENT#acme", "sk": "SHARE#gone", "share": "gone", "recipient": "acme"}.items()} | {"format": {"N": "1"}})
    done = admin.run("check")
    assert "RECIPIENT#acme SHARE#retail: the grant record is in force, but its share does not list it" in done.stdout
    assert "RECIPIENT#acme SHARE#gone: the grant record belongs to a share that has no record" in done.stdout


def test_a_list_of_tables_has_their_details(world, tmp_path):  # noqa: F811
    admin, *_ = world
    retail(admin, tmp_path)
    admin.run("table", "create", "retail.sales.gone", "--location", "s3://admin/nothing/here")
    listed = {table["name"]: table for table in admin.json("table", "list", "retail", "--details")}
    assert listed["Orders"]["version"] == 3 and listed["Orders"]["files"] == 1 and listed["Orders"]["bytes"] > 0
    assert "version" not in listed["gone"]
    text = admin.run("table", "list", "retail", "--details").stdout.splitlines()
    assert text[0].split()[:6] == ["schema", "name", "location", "version", "files", "bytes"]
    assert "version" not in admin.json("table", "list", "retail")[0]


def in_directories(tables, tmp_path, spoil):
    """A share file with a table for each way to spoil its files."""
    copies = {}
    for name, change in spoil.items():
        shutil.copytree(tables["py_versions"], tmp_path / name)
        for file in (tmp_path / name).glob("*.parquet"):
            change(file)
        copies[name] = tmp_path / name
    return share_file(tmp_path / "shares.yaml", copies, recipient=True)


def test_files_of_a_directory_that_are_gone_or_are_not_parquet_are_noticed(tables, tmp_path):
    def lead_outside(file):
        file.unlink()
        (tmp_path / "outside").write_bytes(b"PAR1")
        file.symlink_to(tmp_path / "outside")

    def directory(file):
        file.unlink()
        file.mkdir()

    file = in_directories(tables, tmp_path, {
        "right": lambda file: None, "gone": lambda file: file.unlink(), "text": lambda file: file.write_text("hello"),
        "empty": lambda file: file.write_bytes(b""), "linked": lead_outside, "directory": directory})
    seen = {table["table"]: table for table in map(json.loads, run("check", "-f", file, "--output", "json", code=1).stdout.splitlines())}
    assert seen["s.d.right"]["readable"] and seen["s.d.right"]["version"] == 3
    reasons = {name.removeprefix("s.d."): table["reason"] for name, table in seen.items() if not table["readable"]}
    assert reasons.keys() == {"gone", "text", "empty", "linked", "directory"}
    assert "a file that the log names is gone" in reasons["gone"] and "is not a Parquet file" in reasons["text"]
    assert "is empty" in reasons["empty"] and "outside the table's root" in reasons["linked"] and "a directory" in reasons["directory"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    assert "5 of 6 tables cannot be read" in run("check", "-f", file, code=1).stderr


def test_a_clone_reads_the_files_of_its_source(tables, tmp_path):
    file = share_file(tmp_path / "shares.yaml", {"clone": tables["clone"]})
    shares = json.loads(file.read_text())
    assert "does not hand out" in run("check", "-f", file, code=1).stdout
    shares["shares"][0]["schemas"][0]["tables"][0]["allowedLocations"] = [str(tables["clone_source"])]
    file.write_text(json.dumps(shares))
    assert "s.d.clone: readable" in run("check", "-f", file).stdout


def test_files_in_s3_that_are_not_parquet_are_noticed(aws, own_bucket, tmp_path):
    name, s3 = own_bucket
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=name, Prefix="lake/orders/")["Contents"]]
    file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
    for content, reason in ((b"hello world", "is not a Parquet file"), (b"", "is empty")):
        for key in keys:
            if key.endswith(".parquet") and "_delta_log" not in key:
                s3.put_object(Bucket=name, Key=key, Body=content)
        table, _ = check(aws, file, code=1)
        assert reason in table["reason"], table


TROUBLES = {
    "ExpiredToken": (400, "the AWS credentials have expired: sign in again"),
    "InvalidAccessKeyId": (403, "AWS does not recognize the credentials"),
    "SignatureDoesNotMatch": (403, "does not belong to the access key"),
    "RequestTimeTooSkewed": (403, "the clock of this machine is wrong"),
    "NoSuchBucket": (404, "there is no such bucket"),
    "PermanentRedirect": (301, "in a different region"),
    "KMS.DisabledException": (400, "the KMS key of the table's files cannot be used"),
    "AccessDenied": (403, "permission denied"),
}


@pytest.mark.parametrize("code", TROUBLES)
@pytest.mark.parametrize("what", ["log", "files"])
def test_an_error_of_s3_is_called_what_it_is(aws, own_bucket, tmp_path, code, what):
    name, _ = own_bucket
    status, reason = TROUBLES[code]
    fails = (lambda request: "_delta_log" in request.path or "list-type" in request.query) if what == "log" else (
        lambda request: request.path.endswith(".parquet") and "_delta_log" not in request.path)
    way = Way(aws.port)
    way.rule = lambda request: s3_error(status, code) if fails(request) else None
    try:
        file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
        table, done = check(aws, file, code=1, AWS_ENDPOINT_URL_S3=way.endpoint)
    finally:
        way.stop()
    expected = "the role is not allowed to read the files" if (code, what) == ("AccessDenied", "files") else reason
    assert expected in table["reason"] and f"S3 answers {status} {code}" in table["reason"], table
    # Only where a permission is missing does one help.
    assert ("allow" in table) == (code == "AccessDenied"), table
    said = table["reason"] + done.stderr
    assert "<Code>" not in said and "Error performing" not in said and "damaged" not in said, said


def test_a_bucket_that_is_not_there_is_called_that(aws, tmp_path):
    file = share_file(tmp_path / "shares.yaml", {"t": "s3://no-such-bucket-anywhere/t"})
    table, done = check(aws, file, code=1)
    assert "there is no such bucket: correct the location of the table" in table["reason"], table
    assert "NoSuchBucket" in done.stderr and "lack the permission" not in done.stderr


def test_s3_that_does_not_answer_is_called_that_without_the_text_of_libraries(tmp_path):
    file = share_file(tmp_path / "shares.yaml", {"t": "s3://some-bucket/t"})
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}
    for more in ((), ("--signer-role", "arn:aws:iam::123456789012:role/signer")):
        done = run("check", "-f", file, *more, code=1, env=nowhere)
        assert "does not answer: " in done.stdout and "Connection refused" in done.stdout, done.stdout
        assert "lack the permission" not in done.stderr and "DispatchFailure" not in done.stderr
    error = run("share", "list", code=1, env=nowhere).stderr
    assert error == "error: DynamoDB does not answer: Connection refused (os error 111)\n"


def test_a_commit_that_is_missing_is_named_by_its_file(tmp_path):
    table = small_table(tmp_path / "t", [added("1.parquet")], [added("2.parquet")], [added("3.parquet")])
    (table / "_delta_log" / f"{2:020}.json").unlink()
    said = run("check", "-f", share_file(tmp_path / "shares.yaml", {"t": table}), code=1).stdout
    assert f"{1:020}.json -> {3:020}.json" in said and "ParsedLogPath" not in said and "FileMeta" not in said, said


def test_only_access_denied_is_called_a_missing_permission(aws, own_bucket, tmp_path):
    name, _ = own_bucket
    way = Way(aws.port)
    settings = {"policy": s3_error(501, "NotImplemented"), "lifecycle": s3_error(403, "AccessDenied"),
                "encryption": s3_error(400, "ExpiredToken"), "requestPayment": s3_error(404, "NoSuchBucket")}
    way.rule = lambda request: next((fault for setting, fault in settings.items() if setting in request.query), None)
    try:
        file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"})
        table, done = check(aws, file, AWS_ENDPOINT_URL_S3=way.endpoint)
    finally:
        way.stop()
    assert table["readable"]
    lines = done.stderr.splitlines()
    assert f"not checked, because your credentials lack the permission: s3:GetLifecycleConfiguration for bucket {name}" in lines
    assert f"not checked: the policy of bucket {name}: S3 answers 501 NotImplemented: as told" in lines
    assert any(f"the encryption of bucket {name}: the AWS credentials have expired" in line for line in lines)
    assert any(f"the request payment of bucket {name}: there is no such bucket" in line for line in lines)


@pytest.mark.parametrize("status,code,expected,fault", [
    (400, "ExpiredToken", 503, "credentials"), (403, "InvalidAccessKeyId", 400, "credentials"), (404, "NoSuchBucket", 400, "location"),
    (403, "RequestTimeTooSkewed", 503, "credentials"), (301, "PermanentRedirect", 400, "location")])
def test_a_server_logs_what_s3_says_and_tells_recipients_nothing_of_it(aws, own_bucket, tmp_path, status, code, expected, fault):
    name, _ = own_bucket
    way = Way(aws.port)
    way.rule = lambda request: s3_error(status, code)
    file = share_file(tmp_path / "shares.yaml", {"orders": f"s3://{name}/lake/orders"}, recipient=True)
    server = Server("--shares", file, env={**aws.environment, "AWS_ENDPOINT_URL_S3": way.endpoint})
    try:
        refused = server.request("POST", "/shares/s/schemas/d/tables/orders/query", body=b"{}")
        line = server.wait_for_log(f'fault="{fault}"')
    finally:
        server.stop()
        way.stop()
    assert refused.status == expected, refused.body
    for secret in (name, code, "AWS", "lake"):
        assert secret not in refused.body.decode(), refused.body
    assert f"S3 answers {status} {code}" in line and TROUBLES[code][1] in line, line
