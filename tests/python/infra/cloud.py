"""An AWS that deploys whole stacks: MiniStack, SAM's own commands, and the function of this build behind API Gateway."""

import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pexpect
from cloudformation import ROOT, transformed

sys.path.append(str(ROOT / "tests/python"))

from answer import Answer  # noqa: E402
from aws import REGION, Aws  # noqa: E402

BIN = pathlib.Path(sys.executable).parent
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
FUNCTION = pathlib.Path(os.environ.get("DELTASHARE_LAMBDA", TARGET / "debug/lambda"))
COMMAND = pathlib.Path(os.environ.get("DELTASHARE", TARGET / "debug/deltashare"))
# MiniStack wants another version of an AWS library than SAM, so it lives in the environment of the other tests.
MINISTACK = os.environ.get("MINISTACK_PYTHON", str(ROOT / "tests/.env/python/bin/python"))

# A cargo that writes down what it was asked, and has built the function already.
CARGO = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
  "lambda build"*) mkdir -p target/lambda/lambda && cp "{function}" target/lambda/lambda/bootstrap ;;
  metadata*) exit 1 ;;
esac
"""


class Cloud:
    """An AWS of our own, and the machine of somebody who deploys to it."""

    def __init__(self, home):
        self.home, self.log = home, home / "asked"
        self.tools = home / "bin"
        self.tools.mkdir()
        self.function = home / "function"
        # A debug build is ten times as large with what a debugger reads.
        subprocess.run(["strip", "-o", self.function, FUNCTION], check=True)
        for name in ("cargo", "cargo-lambda"):
            (self.tools / name).write_text(CARGO.format(log=self.log, function=self.function))
            (self.tools / name).chmod(0o755)
        self.aws = Aws(python=MINISTACK, services="")
        self.environment = os.environ | self.aws.environment | {
            "HOME": str(home), "PATH": f"{self.tools}:{BIN}:{os.environ['PATH']}", "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true", "SAM_CLI_TELEMETRY": "0", "NO_COLOR": "1",
        }

    def stop(self):
        self.aws.stop()

    def checkout(self, name):
        """A copy of what `sam build` needs of the project."""
        project = self.home / name
        project.mkdir()
        for file in ("template.yaml", "Cargo.toml"):
            shutil.copy(ROOT / file, project)
        shutil.copytree(ROOT / "infra", project / "infra")
        return project

    def sam(self, project, *arguments, code=0):
        return self.run(project, BIN / "sam", *arguments, code=code)

    def run(self, directory, *command, code=0):
        done = subprocess.run(list(map(str, command)), cwd=directory, env=self.environment, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def guided(self, project, *arguments, answers=None):
        """`sam deploy --guided` on a terminal of its own: (exit code, questions, what it said)."""
        answers, questions, said = dict(answers or {}), [], []
        child = pexpect.spawn(str(BIN / "sam"), ["deploy", "--guided", *arguments], cwd=str(project), env=self.environment,
                              timeout=300, encoding="utf-8", dimensions=(50, 300))
        try:
            # A question is short; what SAM says of an upload is long.
            while child.expect([r"([^\r\n]*) \[([^\]\r\n]*)\]: ", pexpect.EOF], searchwindowsize=1000) == 0:
                said.append(child.before + child.after)
                question = re.sub(r"\x1b\[[\d;]*m", "", child.match[1]).strip()
                questions.append((question, child.match[2]))
                child.sendline(answers.pop(question, ""))
            said.append(child.before)
        finally:
            child.close()
        assert not answers, f"nobody asked for {answers}"
        return child.exitstatus, questions, "".join(said)

    def resource(self, stack, name):
        described = self.aws.client("cloudformation").describe_stack_resource(StackName=stack, LogicalResourceId=name)
        return described["StackResourceDetail"]["PhysicalResourceId"]

    def add_methods(self, stack):
        """What MiniStack leaves out of the OpenAPI document of a stack: methods that are called ANY."""
        api, gateway = self.resource(stack, "Api"), self.aws.client("apigateway")
        alias, paths = self.resource(stack, "FunctionAliaslive"), transformed()["Resources"]["Api"]["Properties"]["Body"]["paths"]
        for resource in gateway.get_resources(restApiId=api)["items"]:
            [(name, method)] = paths.get(resource["path"], {"": None}).items()
            if name != "x-amazon-apigateway-any-method":
                continue
            integration = method["x-amazon-apigateway-integration"]
            uri = integration["uri"]["Fn::Sub"][0].replace("${Alias}", alias)
            uri = uri.replace("${AWS::Partition}", "aws").replace("${AWS::Region}", REGION)
            # Nor does it know the path that streams.
            uri = uri.replace("/response-streaming-invocations", "/invocations")
            place = {"restApiId": api, "resourceId": resource["id"], "httpMethod": "ANY"}
            gateway.put_method(**place, authorizationType="NONE")
            gateway.put_integration(**place, type="AWS_PROXY", integrationHttpMethod=integration["httpMethod"], uri=uri)

    def outputs(self, stack):
        [described] = self.aws.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}

    def ask(self, endpoint, path, token=None, body=None, method=None, headers=None):
        """A request to an address of the stack, sent to this machine."""
        host, start = re.fullmatch(r"https://([^/]+)(/.*)", endpoint).groups()
        if given := re.fullmatch(rf"(\w+)\.execute-api\.{REGION}\.amazonaws\.com", host):
            host, start = f"127.0.0.1:{self.aws.port}", f"/_aws/execute-api/{given[1]}{start}"
        connection = http.client.HTTPConnection("127.0.0.1", self.aws.port, timeout=60)
        try:
            headers = {"Host": host} | ({"Authorization": f"Bearer {token}"} if token else {}) | (headers or {})
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method or ("GET" if body is None else "POST"), start + path, body=body, headers=headers)
            answer = connection.getresponse()
            status, headers, body = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()
        # API Gateway takes status and headers from the start of what a function streams; MiniStack leaves them there.
        if b"\0" * 8 in body:
            start, body = body.split(b"\0" * 8, 1)
            status, headers = json.loads(start)["statusCode"], json.loads(start)["headers"]
        return Answer(status, headers, body)

    def deltashare(self, table, *arguments):
        done = subprocess.run([COMMAND, *map(str, arguments)], env=self.environment | {"DELTASHARE_TABLE": table}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
