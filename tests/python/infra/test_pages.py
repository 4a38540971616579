"""The pages and examples of infra/ and docs/: what they say is what the template does."""

import json
import re
import shlex

import boto3
import pytest
import tomlkit
from botocore import xform_name
from cloudformation import LEAST, ROOT, Stack, parse
from samcli.cli.types import CfnParameterOverridesType

from test_lint import BIN, run

INFRA = ROOT / "infra"
PAGES = sorted(INFRA.glob("*.md"))
DOCS = sorted((ROOT / "docs").glob("*.md"))
# Every page that people read.
ALL = [*sorted(ROOT.glob("*.md")), *DOCS, *PAGES, *sorted((ROOT / "examples").rglob("*.md")),
       *(ROOT / "tests" / name / "README.md" for name in (".", "load", "protocol_examples"))]


def policies():
    """(what a policy is, the policy), from the page on buckets."""
    text = (INFRA / "bucket-policies.md").read_text()
    return [(kind, json.loads(policy)) for kind, policy in re.findall(r"^(\w+ policy):\n\n```json\n(.*?)```", text, re.M | re.S)]


def test_policies_only_read():
    assert [kind for kind, _ in policies()] == ["Bucket policy", "Key policy", "Trust policy", "Role policy"]
    assert (INFRA / "bucket-policies.md").read_text().count("```json") == len(policies())
    allowed = {"s3:GetObject", "s3:ListBucket", "kms:Decrypt", "sts:AssumeRole"}
    for kind, policy in policies():
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow" and statement["Action"] in allowed, kind
            assert statement.get("Principal", {}).get("AWS") != "*"
            if statement["Action"] in ("s3:ListBucket", "kms:Decrypt"):
                assert "Condition" in statement, kind


def test_policies_are_valid(tmp_path):
    by_kind = dict(policies())
    role = {"AssumeRolePolicyDocument": by_kind["Trust policy"],
            "Policies": [{"PolicyName": "tables", "PolicyDocument": by_kind["Role policy"]}]}
    kept = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    resources = {
        "Bucket": {"Type": "AWS::S3::BucketPolicy", "Properties": {"Bucket": "lake", "PolicyDocument": by_kind["Bucket policy"]}},
        "Key": {"Type": "AWS::KMS::Key", **kept, "Properties": {"KeyPolicy": by_kind["Key policy"]}},
        "Role": {"Type": "AWS::IAM::Role", "Properties": role},
    }
    path = tmp_path / "policies.json"
    path.write_text(json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}))
    done = run(BIN / "cfn-lint", "--template", path, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    resources["Bucket"]["Properties"]["PolicyDocument"]["Statement"][0]["Effect"] = "Permit"
    path.write_text(json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}))
    assert run(BIN / "cfn-lint", "--template", path, home=tmp_path).returncode != 0, "policies are not looked at"


def test_the_role_of_another_account_reads_as_the_signer_role_does():
    [policy] = Stack(LEAST).of_type("AWS::IAM::Role")["SignerRole"]["Policies"]
    ours = {statement["Sid"]: statement["Action"] for statement in policy["PolicyDocument"]["Statement"]}
    theirs = {statement["Sid"]: statement["Action"] for statement in dict(policies())["Role policy"]["Statement"]}
    assert theirs == ours | {"DecryptTables": "kms:Decrypt"}


@pytest.mark.parametrize("environment", ["default", "consumer", "commercial"])
@pytest.mark.parametrize("commented", [False, True], ids=["as it is", "with every line"])
def test_the_example_of_samconfig_deploys_the_template(environment, commented):
    text = (INFRA / "samconfig.example.toml").read_text()
    if commented:
        text = re.sub(r'^  # "', '  "', text, flags=re.M)
    settings = tomlkit.parse(text).unwrap()[environment]
    assert settings["deploy"]["parameters"]["capabilities"] == "CAPABILITY_IAM"
    settings = settings["global"]["parameters"]
    stack = Stack(CfnParameterOverridesType().convert(tuple(settings["parameter_overrides"]), None, None))
    assert len(stack.values["TableBuckets"]) == len(stack.values["TableObjects"]) == (2 if environment == "default" else 1)
    if environment != "default":
        assert settings["stack_name"].endswith(environment)
        assert stack.outputs["Endpoint"] == f"https://sharing.example.com/{environment}/"
    elif commented:
        assert stack.outputs["Endpoint"] == "https://sharing.example.com/" and stack.values["AccessLogs"] == "true"


def cost_tables():
    """The rows of each table of the page on cost that ends in a sum."""
    text = (INFRA / "cost.md").read_text()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip(" *") for cell in line.strip("| \n").split("|")] for line in table.splitlines()[2:]]
        if rows[-1][0] == "sum":
            yield rows


def test_the_sums_of_the_cost_page_are_right():
    tables = list(cost_tables())
    assert len(tables) == 6
    for *rows, last in tables:
        for what, arithmetic, result in rows:
            assert re.fullmatch(r"[\d. ×+]+", arithmetic), what
            assert eval(arithmetic.replace("×", "*")) == pytest.approx(float(result), abs=0.0051), what  # noqa: S307
        assert sum(float(row[2]) for row in rows) == pytest.approx(float(last[-1]), abs=0.011)


def test_the_prices_of_the_cost_page_are_used():
    text = (INFRA / "cost.md").read_text()
    prices = re.findall(r"^\| [^|]+ \| ([\d.]+) \|$", text.split("## A million")[0], re.M)
    used = " ".join(row[1] for *rows, _ in cost_tables() for row in rows)
    assert len(prices) == 9
    assert [price for price in prices if price not in used] == []


def test_what_a_token_costs_in_an_hour_follows_from_the_defaults():
    values = Stack(LEAST).values
    rate, in_five_minutes = int(values["RateLimit"]), int(values["WafRateLimit"])
    section = (INFRA / "cost.md").read_text().split("## What one token")[1].split("\n## ")[0]
    sums = {rows[-1][-1] for rows in cost_tables()}
    assert "0.0036 × 552.92 = 1.99" in section and {"552.92", "0.76", "6.73"} <= sums
    both = section.split("### Both together")[1]
    rows = re.findall(r"^\| (.+) \| ([\d. ×+]+) \| ([\d.]+) \|$", both, re.M)
    assert len(rows) == 7
    for what, arithmetic, result in rows:
        assert eval(arithmetic.replace("×", "*")) == pytest.approx(float(result), abs=0.0051), what  # noqa: S307
        assert arithmetic.startswith(f"{rate} ×") or "Waf=rates" in what
    assert f"{rate} requests a second, the default of `RateLimit`" in both
    assert f"{in_five_minutes:,} requests in five minutes are {in_five_minutes // 300} a second" in both
    assert in_five_minutes == 300 * rate / 4


def test_the_sizes_of_the_cost_page_follow_from_what_was_measured():
    section = (INFRA / "cost.md").read_text().split("## Sizes")[1].split("\n## ")[0]
    measured = re.search(r"^\| 100,000 \| [\d.]+ s \| ([\d.]+) s \|", (ROOT / "docs/performance.md").read_text(), re.M)[1]
    assert f"100,000 files with gzip in {measured} s" in section
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d,]+) \| (\d+) ms \| ([\d.]+) s \| (\d+) s \| (\d+) s \|$", section, re.M)
    assert len(rows) == 4
    for memory, core, rate, *times in rows:
        share = int(memory) / 1769
        assert float(core) == pytest.approx(share, abs=0.0051)
        files = share * 100_000 / float(measured)
        assert int(rate.replace(",", "")) == pytest.approx(files, abs=501)
        first = 24_000 / files
        # 2 MB a second after the first 6.
        expected = [1_000_000 / files, first, first + (25 - 6) / 2, first + (199 - 6) / 2]
        for told, time, error in zip(times, expected, (0.51, 0.051, 0.51, 0.51)):
            assert float(told) == pytest.approx(time, abs=error), memory


def test_the_cost_of_a_month_counts_the_alarms_of_the_template():
    alarms = Stack(LEAST).of_type("AWS::CloudWatch::Alarm").values()
    # An alarm over a query costs more, the more metrics the query finds.
    assert not [alarm for alarm in alarms if "Metrics" in alarm]
    assert f"| alarms | {len(alarms)} × 0.10 |" in (INFRA / "cost.md").read_text()


def test_the_rights_of_the_function_are_those_of_its_policy():
    section = (INFRA / "operating.md").read_text().split("The role of the function has the following permissions")[1].split("\n\n")[1]
    told = set(re.findall(r"`(\w+:\w+)`", section))
    policy = Stack(LEAST).of_type("AWS::IAM::Policy")["ServerPolicy"]["PolicyDocument"]
    actions = [statement["Action"] for statement in policy["Statement"]]
    assert told == {action for some in actions for action in ([some] if isinstance(some, str) else some)}


def test_every_alarm_has_its_advice():
    text = (INFRA / "operating.md").read_text()
    section = text.split("## Alarms")[1].split("What no alarm sees")[0]
    advised = re.findall(r"^\| `(\w+)` \|", section, re.M)
    assert sorted(advised) == sorted(Stack(LEAST).of_type("AWS::CloudWatch::Alarm"))


def test_parameters_and_outputs_that_pages_name_exist():
    stack = Stack(LEAST)
    domain = parse((INFRA / "domain.yaml").read_text())
    known = set(stack.template["Parameters"]) | set(stack.template["Outputs"]) | set(domain["Parameters"]) | set(domain["Outputs"])
    for page in [ROOT / "README.md", ROOT / "docs/aws.md", ROOT / "docs/limits.md", *PAGES]:
        if page.name == "records.md":
            continue
        text = page.read_text()
        # What is set in a shell or passed to another command is no parameter of the stack.
        named = set(re.findall(r"\b([A-Z]\w+)=(?!=)", re.sub(r"PointInTimeRecoveryEnabled=|Enabled=true,AttributeName=|Name=FunctionName,Value=|export .*", "", text)))
        named |= set(re.findall(r"(?:output|parameter)s? `([A-Z]\w+)`", text))
        assert named <= known, page.name


def test_the_tools_that_build_are_pinned_as_they_are_tested():
    pinned = [line for line in (INFRA / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    tested = (ROOT / "tests/python/infra/requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in pinned)
    assert {"aws-sam-cli", "cargo-lambda", "ziglang"} == {line.split("==")[0] for line in pinned} and set(pinned) <= set(tested)


def aws_commands(text):
    """The words of every call of the AWS CLI, also of those whose result is an argument of another."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in line.removeprefix("until ").split("; do ")[0].split(" && "):
            words = shlex.split(command, comments=True)
            if words[:1] == ["aws"]:
                yield words[1:]
                for nested in re.findall(r"\$\((aws [^)]*)\)", command):
                    yield shlex.split(nested)[1:]


def documented_aws_commands():
    for page in [ROOT / "README.md", *DOCS, *PAGES]:
        # What a page shows in a line may go over several, such as a policy.
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
            for words in aws_commands(re.sub(r"'\{.*?\}'", lambda json: json[0].replace("\n", " "), block, flags=re.S)):
                yield pytest.param(words, id=f"{page.name}: {' '.join(words[:2])}")


# What the CLI adds to the operations of AWS.
CUSTOM = {
    ("cloudformation", "deploy"): {"stack-name", "template-file", "parameter-overrides", "capabilities"},
    ("logs", "tail"): {"follow", "filter-pattern"},
    ("s3", "cp"): {"exclude", "include", "recursive"},
}


@pytest.mark.parametrize("words", list(documented_aws_commands()))
def test_commands_of_the_aws_cli_are_understood(words):
    service, operation = words[:2]
    options = {word.removeprefix("--") for word in words if word.startswith("--")} - {"query", "output"}
    if (service, operation) in CUSTOM:
        assert options <= CUSTOM[service, operation]
        return
    client = boto3.client({"s3api": "s3"}.get(service, service), region_name="eu-central-1")
    if operation == "wait":
        waiter = client.waiter_names[[name.replace("_", "-") for name in client.waiter_names].index(words[2])]
        method = xform_name(client.get_waiter(waiter).config.operation)
    else:
        method = operation.replace("-", "_")
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    members = model.input_shape.members
    known = {xform_name(name, "-") for name in members}
    known |= {f"no-{xform_name(name, '-')}" for name, shape in members.items() if shape.type_name == "boolean"}
    assert options <= known
    assert {xform_name(name, "-") for name in model.input_shape.required_members} <= options


def test_there_are_documented_commands_of_the_aws_cli():
    assert len(list(documented_aws_commands())) > 20


def anchors(page):
    """What GitHub calls the headings of a page in links."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere():
    wrong, followed = [], 0
    for page in ALL:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            followed += 1
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append(f"{page.relative_to(ROOT)}: {link}")
    assert not wrong and followed > 80


def test_the_operators_policy_is_limited_to_the_table():
    policy = json.loads(re.search(r"```json\n(.*?)```", (INFRA / "operating.md").read_text(), re.S)[1])
    [statement] = policy["Statement"]
    assert all(action.startswith("dynamodb:") and "*" not in action for action in statement["Action"])
    assert statement["Resource"].endswith(":table/TABLE")
