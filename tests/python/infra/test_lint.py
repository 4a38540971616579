"""What the linters and the policy scanner say of the templates."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from cloudformation import LEAST, MOST, ROOT, Stack

BIN = pathlib.Path(sys.executable).parent
TEMPLATES = ["template.yaml", "infra/account-logging.yaml", "infra/domain.yaml"]

# What the scanner finds, and why it stays. A finding that is gone must go from here too.
EXCEPTIONS = {
    ("CKV_AWS_73", "Stage"): "X-Ray is left out: the event of each request has its durations, and traces cost extra",
    ("CKV_AWS_76", "Stage"): "access logs need a role of the account, without which a deployment fails: AccessLogs=true adds them",
    ("CKV_AWS_120", "Stage"): "answers differ by recipient and hold presigned URLs; streamed ones cannot be cached either",
    ("CKV_AWS_116", "Function"): "a dead letter queue is for asynchronous calls; this function is called synchronously",
    ("CKV_AWS_117", "Function"): "it reaches only S3, DynamoDB and STS, whose public endpoints need no VPC; IAM is what limits it",
    ("CKV_AWS_173", "Function"): "its variables hold names, no secrets; they are encrypted with the key that AWS owns",
    ("CKV_AWS_115", "Function"): "a reservation fails in a new account, which has none to spare; MaxConcurrency makes one",
    ("CKV_AWS_158", "FunctionLogs"): "encrypted with the key that AWS owns; it holds no tokens and no presigned URLs",
    ("CKV_AWS_158", "ApiLogs"): "as the log of the function",
    ("CKV_AWS_158", "WafLogs"): "as the log of the function; the Authorization header is redacted",
    ("CKV_AWS_119", "Table"): "encrypted with the key that AWS owns; it holds hashes of random tokens, not tokens",
    ("CKV_AWS_258", "Url"): "the function checks the bearer token itself; clients of the protocol cannot sign requests for IAM",
}


def run(*command, cwd=ROOT, home):
    """A tool, away from the user's own settings and without a network."""
    env = os.environ | {
        "HOME": str(home), "AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none", "AWS_EC2_METADATA_DISABLED": "true", "SAM_CLI_TELEMETRY": "0",
    }
    return subprocess.run(list(map(str, command)), cwd=cwd, env=env, text=True, capture_output=True, timeout=300)


def test_sam_validates_the_template(tmp_path):
    done = run(BIN / "sam", "validate", "--lint", "--template-file", "template.yaml", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is a valid SAM Template" in done.stdout


@pytest.mark.parametrize("template", TEMPLATES)
def test_cfn_lint_finds_nothing(template, tmp_path):
    done = run(BIN / "cfn-lint", "--include-checks", "I", "--template", template, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("parameters", [{}, LEAST, LEAST | {"Waf": "rates"}, MOST], ids=["nothing", "least", "rates", "most"])
def test_cfn_lint_finds_nothing_in_what_is_deployed(parameters, tmp_path):
    path = tmp_path / "template.json"
    path.write_text(json.dumps(deployed(parameters)))
    # SAM gives the alias, which nothing replaces, what keeps versions of the function.
    done = run(BIN / "cfn-lint", "--template", path, "--ignore-checks", "W3011", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_template_has_no_yaml_aliases():
    # CloudFormation does not read them.
    text = (ROOT / "template.yaml").read_text()
    for line in text.splitlines():
        value = line.split(": ", 1)[-1].strip()
        assert not value.startswith(("&", "*")), line


def deployed(parameters):
    """A plain template of what these parameters deploy."""
    stack = Stack(parameters)
    resources = {name: dict(about) for name, about in stack.resources.items()}
    for about in resources.values():
        restore_references(about)
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}


def restore_references(node):
    """Text with a `${…}` left in it becomes a Fn::Sub again."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node))
    for key, value in items:
        if isinstance(value, (dict, list)):
            restore_references(value)
        elif isinstance(value, str) and "${" in value:
            node[key] = {"Fn::Sub": value}


def findings(path, home):
    done = run(BIN / "checkov", "--file", path, "--framework", "cloudformation", "--output", "json",
               "--skip-download", "--quiet", cwd=home, home=home)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0 and report["summary"]["passed"] > 0, done.stdout
    failed = report["results"]["failed_checks"]
    return {(each["check_id"], each["resource"].split(".")[1]): each["check_name"] for each in failed}


def test_the_policy_scanner_finds_only_what_is_explained(tmp_path):
    found = {}
    for name, parameters in (("least", LEAST), ("most", MOST)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(deployed(parameters)))
        for (check, resource), what in findings(path, tmp_path).items():
            # SAM ends the name of the stage in a hash.
            found[check, "Stage" if resource.startswith("ApiStage") else resource] = what
    assert {each: what for each, what in found.items() if each not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) - set(found) == set(), "exceptions that nothing needs"


@pytest.mark.parametrize("template", ["account-logging", "domain"])
def test_the_policy_scanner_finds_nothing_in_the_other_templates(template, tmp_path):
    assert findings(ROOT / f"infra/{template}.yaml", tmp_path) == {}


def test_the_policy_scanner_sees_a_policy_that_allows_too_much(tmp_path):
    template = deployed(LEAST)
    [statement, *_] = template["Resources"]["ServerPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    statement |= {"Action": "*", "Resource": "*"}
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template))
    assert "ServerPolicy" in {resource for _, resource in findings(path, tmp_path)}
