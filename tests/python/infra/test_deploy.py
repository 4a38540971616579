"""Whole stacks, deployed by SAM's own commands, with the real function behind them."""

import json
import re
import shutil
import urllib.request
import zipfile

import botocore.exceptions
import pytest
from cloud import BIN, Cloud
from cloudformation import ROOT, parse

DOMAIN = "sharing.example.com"
TABLES = ROOT / "examples/tables"
LAKE = ["TableBuckets=arn:aws:s3:::lake", "TableObjects=arn:aws:s3:::lake/*"]
CODE = ["CodeBucket=releases"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    cloud = Cloud(tmp_path_factory.mktemp("cloud"))
    s3 = cloud.aws.client("s3")
    s3.create_bucket(Bucket="lake")
    for name in ("products", "orders"):
        for file in (TABLES / name).rglob("*"):
            if file.is_file():
                s3.upload_file(str(file), "lake", f"{name}/{file.relative_to(TABLES / name)}")
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def release(cloud):
    """The unpacked files of a release, which are in a bucket too."""
    project, release = cloud.checkout("project"), cloud.home / "unpacked"
    cloud.run(project, "infra/package")
    shutil.copytree(project / "target/package", release)
    s3 = cloud.aws.client("s3")
    s3.create_bucket(Bucket="releases")
    for package in release.glob("*.zip"):
        s3.upload_file(str(package), "releases", f"deltashare/{package.name}")
    return release


def sam_deploy(cloud, directory, stack, *parameters, code=0):
    return cloud.sam(directory, "deploy", "--stack-name", stack, "--resolve-s3", "--capabilities", "CAPABILITY_IAM",
                     "--no-fail-on-empty-changeset", "--parameter-overrides", *CODE, *parameters, code=code)


def deploy(cloud, directory, stack, *parameters):
    sam_deploy(cloud, directory, stack, *LAKE, *parameters)
    cloud.add_methods(stack)
    return cloud.outputs(stack)


def share(cloud, outputs, table):
    """A share of one table, and the token of its recipient."""
    shares, profile = cloud.home / f"{table}.yaml", cloud.home / f"{outputs['TableName']}.share"
    location = {"name": table, "location": f"s3://lake/{table}"}
    shares.write_text(json.dumps({"version": 1, "shares": [{"name": table, "schemas": [{"name": "s", "tables": [location]}]}]}))
    cloud.deltashare(outputs["TableName"], "apply", "-f", shares)
    cloud.deltashare(outputs["TableName"], "recipient", "create", "acme", "--share", table, "--profile", profile,
                     "--endpoint", outputs["Endpoint"])
    written = json.loads(profile.read_text())
    assert written["endpoint"] == outputs["Endpoint"]
    return written["bearerToken"]


def shares(cloud, outputs, token):
    answer = cloud.ask(outputs["Endpoint"], "shares", token)
    assert answer.status == 200, answer.body
    return [item["name"] for item in answer.json["items"]]


def read(cloud, outputs, token, table):
    """The first bytes of the first file, which every file of Parquet has."""
    answer = cloud.ask(outputs["Endpoint"], f"shares/{table}/schemas/s/tables/{table}/query", token, b"{}")
    assert answer.status == 200, answer.body
    [first, *_] = [line["file"] for line in map(json.loads, answer.body.splitlines()) if "file" in line]
    with urllib.request.urlopen(first["url"], timeout=30) as file:
        return file.read(4)


def test_enter_at_every_question_deploys_a_server_that_answers(cloud):
    project = cloud.checkout("guided")
    cloud.sam(project, "build")
    code, questions, said = cloud.guided(project)
    assert code == 0, said
    assert "authentication" not in said and "Security Constraints" not in said
    asked = [question.removeprefix("Parameter ") for question, _ in questions if question.startswith("Parameter ")]
    assert asked == list(parse((ROOT / "template.yaml").read_text())["Parameters"])
    cloud.add_methods("sam-app")
    answer = cloud.ask(cloud.outputs("sam-app")["Endpoint"], "shares")
    assert (answer.status, answer.json["errorCode"]) == (401, "UNAUTHENTICATED")
    # The answers are kept, and the next deployment asks nothing.
    assert (project / "samconfig.toml").exists()
    assert "created/updated stack" in cloud.sam(project, "deploy")


def test_a_recipient_reads_what_the_stack_shares(cloud, release):
    outputs = deploy(cloud, release, "reads")
    token = share(cloud, outputs, "products")
    assert shares(cloud, outputs, token) == ["products"]
    assert read(cloud, outputs, token, "products") == b"PAR1"


def test_browsers_get_what_the_parameters_say(cloud, release):
    def ask(origin, method="GET", path="shares", **headers):
        sent = {"Origin": origin, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = cloud.ask(outputs["Endpoint"], path, method=method, headers=sent)
        return answer.status, answer.headers.get("access-control-allow-origin")

    preflight = {"method": "OPTIONS", "Access_Control_Request_Method": "POST"}
    outputs = deploy(cloud, release, "web", "CorsOrigins=https://app.example.com,http://localhost:3000")
    assert ask("http://localhost:3000") == (401, "http://localhost:3000") and ask("https://other.example.com") == (401, None)
    assert ask("https://app.example.com", **preflight) == (204, "https://app.example.com")
    assert ask("https://app.example.com", path="", Accept="text/html")[0] == 200
    assert deploy(cloud, release, "web", "CorsOrigins=*")["FunctionVersion"] == outputs["FunctionVersion"] == "1"
    assert ask("https://other.example.com", **preflight) == (204, "*")
    # Parameters that are not given keep their values.
    assert deploy(cloud, release, "web", "Pages=off")["FunctionVersion"] == "2"
    assert ask("https://app.example.com", path="", Accept="text/html") == (404, "*")
    assert ask("https://app.example.com", **preflight) == (204, "*")
    assert "origins without paths" in sam_deploy(cloud, release, "web", *LAKE, "CorsOrigins=https://app.example.com/", code=1)


def test_two_stacks_share_a_domain_and_neither_takes_it_away(cloud, release):
    cloudformation = cloud.aws.client("cloudformation")
    certificate = cloud.aws.client("acm").request_certificate(DomainName=DOMAIN, ValidationMethod="DNS")["CertificateArn"]
    cloudformation.create_stack(
        StackName="domain", TemplateBody=(ROOT / "infra/domain.yaml").read_text(),
        Parameters=[{"ParameterKey": "DomainName", "ParameterValue": DOMAIN}, {"ParameterKey": "CertificateArn", "ParameterValue": certificate}])
    cloudformation.get_waiter("stack_create_complete").wait(StackName="domain", WaiterConfig={"Delay": 1})
    assert cloud.outputs("domain")["DomainName"] == DOMAIN
    consumer, commercial = (deploy(cloud, release, name, f"DomainName={DOMAIN}", f"BasePath={name}") for name in ("consumer", "commercial"))
    assert consumer["Endpoint"] == f"https://{DOMAIN}/consumer/" and commercial["Endpoint"] == f"https://{DOMAIN}/commercial/"
    theirs, ours = share(cloud, consumer, "products"), share(cloud, commercial, "orders")
    assert shares(cloud, consumer, theirs) == ["products"] and shares(cloud, commercial, ours) == ["orders"]
    assert read(cloud, consumer, theirs, "products") == read(cloud, commercial, ours, "orders") == b"PAR1"
    assert cloud.ask(consumer["Endpoint"], "shares", ours).status == cloud.ask(commercial["Endpoint"], "shares", theirs).status == 401
    # Their alarms are their own.
    watched = {}
    for alarm in cloud.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]:
        for dimension in alarm["Dimensions"]:
            watched.setdefault(dimension["Value"], set()).add(alarm["MetricName"])
    assert watched[consumer["FunctionName"]] == watched[commercial["FunctionName"]] >= {"AuthFailures", "ShortestUrlLife"}
    cloud.sam(release, "delete", "--stack-name", "consumer", "--no-prompts", "--region", cloud.aws.region)
    with pytest.raises(botocore.exceptions.ClientError):
        cloud.outputs("consumer")
    assert shares(cloud, commercial, ours) == ["orders"]
    assert cloud.ask(consumer["Endpoint"], "shares", theirs).status in (403, 404)


def test_a_deployment_whose_parameters_mean_nothing_together_is_refused(cloud, release):
    said = sam_deploy(cloud, release, "wrong", *LAKE, "BasePath=consumer", code=1)
    assert "BasePath is a path below DomainName, which is empty." in said


def test_an_answer_that_is_not_what_was_asked_for_is_explained(cloud, release):
    said = sam_deploy(cloud, release, "wrong", "TableBuckets=lake", code=1)
    assert "TableBuckets" in said and "ARNs of buckets, separated by commas, such as arn:aws:s3:::lake" in said


def test_a_first_deployment_that_fails_is_mended_as_the_page_says(cloud, release):
    # API Gateway has no such domain.
    said = sam_deploy(cloud, release, "mended", *LAKE, "DomainName=nowhere.example.com", code=1)
    assert "ROLLBACK_COMPLETE" in said
    cloudformation, dynamodb = cloud.aws.client("cloudformation"), cloud.aws.client("dynamodb")
    [left] = [name for name in dynamodb.list_tables()["TableNames"] if name.startswith("mended-")]
    assert dynamodb.describe_table(TableName=left)["Table"]["ItemCount"] == 0
    cloudformation.delete_stack(StackName="mended")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="mended", WaiterConfig={"Delay": 1})
    dynamodb.update_table(TableName=left, DeletionProtectionEnabled=False)
    dynamodb.delete_table(TableName=left)
    outputs = deploy(cloud, release, "mended")
    assert shares(cloud, outputs, share(cloud, outputs, "products")) == ["products"]


def test_a_new_stack_serves_the_table_that_a_deleted_one_left(cloud, release):
    old = deploy(cloud, release, "old")
    token = share(cloud, old, "products")
    cloud.sam(release, "delete", "--stack-name", "old", "--no-prompts", "--region", cloud.aws.region)
    new = deploy(cloud, release, "new", f"ServeTable={old['TableName']}")
    assert new["TableName"] == old["TableName"]
    assert shares(cloud, new, token) == ["products"]


def test_a_release_has_the_function_for_each_architecture(cloud, release):
    packages = sorted(file.name for file in release.glob("*.zip"))
    assert [re.fullmatch(r"deltashare-[\d.]+-[0-9a-f]{12}-(\w+)\.zip", name)[1] for name in packages] == ["arm64", "x86_64"]
    assert cloud.run(release, "sha256sum", "--check", "SHA256SUMS").count(": OK") == 3
    for name in packages:
        with zipfile.ZipFile(release / name) as package:
            [entry] = package.infolist()
            assert entry.filename == "bootstrap" and entry.external_attr >> 16 == 0o100755
            assert package.read(entry) == cloud.function.read_bytes()
    asked = cloud.log.read_text().splitlines()
    assert {"lambda build --release --arm64 --bin lambda", "lambda build --release --bin lambda"} <= set(asked)
    assert "is a valid SAM Template" in cloud.run(release, BIN / "sam", "validate", "--lint", "--template-file", "template.yaml")


def test_a_release_is_deployed_without_building(cloud, release):
    before = cloud.log.read_text()
    code, _, said = cloud.guided(release, answers={"Stack Name": "released", "Parameter CodeBucket": "releases"})
    assert code == 0, said
    assert cloud.log.read_text() == before, "cargo was asked for something"
    cloud.add_methods("released")
    assert cloud.ask(cloud.outputs("released")["Endpoint"], "shares").status == 401
    (release / "samconfig.toml").unlink()


def test_a_release_of_other_code_has_another_name(cloud):
    project, original = cloud.checkout("names"), cloud.function.read_bytes()
    try:
        for name, code in (("one", b"code"), ("again", b"code"), ("other", b"other code")):
            cloud.function.write_bytes(code)
            cloud.run(project, "infra/package", "x86_64", "--output", project / name)
    finally:
        cloud.function.write_bytes(original)
    one, again, other = (sorted(file.name for file in (project / name).iterdir()) for name in ("one", "again", "other"))
    assert one == again != other and (project / "one/SHA256SUMS").read_text() == (project / "again/SHA256SUMS").read_text()
    parameters = parse((project / "one/template.yaml").read_text())["Parameters"]
    assert parameters["Architecture"]["AllowedValues"] == ["x86_64"] and parameters["Architecture"]["Default"] == "x86_64"
    assert "is not empty" in cloud.run(project, "infra/package", "--output", project / "one", code=2)


def test_one_command_goes_back_to_the_version_before(cloud, release):
    outputs = deploy(cloud, release, "back")
    assert outputs["FunctionVersion"] == "1"
    changed = deploy(cloud, release, "back", "UrlTtl=900")
    assert changed["FunctionVersion"] == "2"

    def life():
        token_of = json.loads((cloud.home / f"{outputs['TableName']}.share").read_text())["bearerToken"]
        answer = cloud.ask(outputs["Endpoint"], "shares/products/schemas/s/tables/products/query", token_of, b"{}")
        return int(re.search(rb"X-Amz-Expires=(\d+)", answer.body)[1])

    share(cloud, outputs, "products")
    assert 800 < life() <= 900
    cloud.aws.client("lambda").update_alias(FunctionName=outputs["FunctionName"], Name="live", FunctionVersion="1")
    assert 1800 <= life() <= 3600
