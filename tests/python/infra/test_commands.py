"""The commands of README.md, docs/ and infra/, typed into a shell in their order, against stacks on a stand-in of AWS."""

import http.server
import json
import os
import pathlib
import re
import shutil
import threading
import time

import pexpect
import pytest
from cloud import COMMAND, MINISTACK
from cloudformation import ROOT
from test_deploy import cloud, release, sam_deploy  # noqa: F401

PAGES = ["README.md", "docs/quickstart.md", "docs/share-file.md", "docs/serve.md", "docs/aws.md", "docs/troubleshooting.md",
         "infra/records.md", "infra/operating.md"]
AWS_CLI = os.environ.get("AWS_CLI") or shutil.which("aws")

# How commands begin that are not run here, and why.
NOT_RUN = {
    "cargo run -- serve": "the tests of the server start it",
    "./tests/run": "it would run this test",
    "deltashare serve --shares shares.yaml": "it runs until it is stopped; the tests of the server start it",
    "git clone": "this is the clone",
    "pip install delta-sharing": "./tests/run installs it",
    "python3 -c \"import delta_sharing": "test_serve.py runs the commands that the server prints",
    "pip install -r infra/requirements.txt": "test_pages.py holds these versions to those that the tests use",
    "sam build": "tests/python/build builds",
    "sam deploy --guided": "test_deploy.py answers its questions on a terminal",
    "aws dynamodb restore-table-to-point-in-time": "MiniStack has no restore; a copy of the table takes its place",
    "seq 400": "MiniStack has no throttling",
    "gzip -dc answer.gz": "MiniStack carries text only; test_lambda.py reads compressed answers",
    "aws logs tail": "only version 2 of the AWS CLI has it, which no package registry of Python carries",
    "deltashare usage": "MiniStack does not add up events; test_usage.py runs the command",
    "aws cloudformation deploy --stack-name sharing-domain": "MiniStack has no validation of certificates by DNS; test_deploy.py deploys the template",
}


def commands(text):
    """The commands of the shell's blocks of a page, each with all of its lines."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        lines = []
        for line in block.splitlines():
            lines.append(line)
            code = "\n".join(lines)
            quotes = re.sub(r"\\\n", "", code)
            if not line.endswith("\\") and quotes.count("'") % 2 == 0:
                yield code
                lines = []
        assert not lines, block


def documented():
    return [(page, command) for page in PAGES for command in commands((ROOT / page).read_text())]


def begins(command, start):
    return " ".join(command.replace("\\\n", " ").split()).startswith(start)


class Shell:
    """One bash on a terminal, which is asked as somebody asks it who reads a page."""

    def __init__(self, directory, environment):
        self.file = directory.parent / "typed"
        self.child = pexpect.spawn("bash", ["--norc", "--noprofile"], cwd=str(directory), env=environment, timeout=300, encoding="utf-8",
                                   dimensions=(50, 250), echo=False)
        self.run("PS1=; PS2=; set +m")

    def run(self, command):
        """What it said, and how it ended; every question is answered with yes."""
        self.file.write_text(command + "\n")
        self.child.sendline(". ../typed; echo \"ended:$?:\"")
        said = []
        while True:
            found = self.child.expect([r"\[y/N\] ", r"ended:(\d+):\r\n"])
            said.append(self.child.before)
            if found == 1:
                return "".join(said), int(self.child.match[1])
            self.child.sendline("y")

    def stop(self):
        self.child.close(force=True)


class Front:
    """The address of a stack on this machine, over plain HTTP, with what API Gateway makes of a stream."""

    def __init__(self, cloud, endpoint):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else None
                answer = cloud.ask(endpoint, self.path.removeprefix("/delta-sharing/"), body=body, method=self.command,
                                   headers={name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")})
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_POST = do_HEAD = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}/delta-sharing/"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class World:
    """A stack that is called deltashare, and a directory with all that the pages speak of."""

    def __init__(self, cloud, release):
        self.cloud, self.dynamodb = cloud, cloud.aws.client("dynamodb")
        s3 = cloud.aws.client("s3")
        s3.create_bucket(Bucket="my-bucket")
        for bucket, name in (("my-bucket", "tables/orders"), ("lake", "tables/orders-2")):
            for file in (ROOT / "examples/tables/orders").rglob("*"):
                if file.is_file():
                    s3.upload_file(str(file), bucket, f"{name}/{file.relative_to(ROOT / 'examples/tables/orders')}")
        buckets = "arn:aws:s3:::lake,arn:aws:s3:::my-bucket"
        # MiniStack reads what a function streams as text, so nothing is compressed; `deltashare verify` is tested with gzip elsewhere.
        for more in (["Gzip=off"], ["Gzip=off", "UrlTtl=1800"]):
            sam_deploy(cloud, release, "deltashare", f"TableBuckets={buckets}", f"TableObjects={buckets.replace(',', '/*,')}/*", *more)
        cloud.add_methods("deltashare")
        self.outputs = cloud.outputs("deltashare")
        self.front = Front(cloud, self.outputs["Endpoint"])
        self.home = cloud.home / "reader"
        shutil.copytree(release, self.home)
        shutil.copytree(ROOT / "infra", self.home / "infra")
        tools = cloud.home / "commands"
        tools.mkdir()
        for name, target in (("deltashare", COMMAND), ("aws", AWS_CLI), ("python", MINISTACK)):
            (tools / name).write_text(f'#!/bin/sh\nexec "{pathlib.Path(target).absolute()}" "$@"\n')
            (tools / name).chmod(0o755)
        environment = cloud.environment | {"PATH": f"{tools}:{cloud.environment['PATH']}", "ENDPOINT": self.front.endpoint, "TERM": "dumb",
                                           "AWS_PAGER": "", "no_proxy": "*"}
        self.shell = Shell(self.home, environment)

    def stop(self):
        self.shell.stop()
        self.front.stop()

    @property
    def table(self):
        return self.outputs["TableName"]

    def items(self, table):
        return [item for page in self.dynamodb.get_paginator("scan").paginate(TableName=table) for item in page["Items"]]

    def forget(self):
        """Back to a stack that shares nothing."""
        for item in self.items(self.table):
            if item["pk"]["S"] != "SERVER":
                self.dynamodb.delete_item(TableName=self.table, Key={key: item[key] for key in ("pk", "sk")})
        for file in self.home.glob("*.share"):
            file.unlink()

    def share(self, recipients=()):
        """What pages take for granted: a file with one table, applied, and recipients with their profiles."""
        self.forget()
        table = {"name": "orders", "location": "s3://my-bucket/tables/orders", "historyShared": True}
        (self.home / "shares.yaml").write_text(json.dumps({"version": 1, "shares": [
            {"name": "retail", "schemas": [{"name": "sales", "tables": [table]}]}, {"name": "finance", "schemas": []}]}))
        self.cloud.deltashare(self.table, "apply", "-f", self.home / "shares.yaml")
        for name in recipients:
            self.cloud.deltashare(self.table, "recipient", "create", name, "--share", "retail", "--share", "finance",
                                  "--endpoint", self.front.endpoint, "--profile", self.home / f"{name}.share")

    def restore(self):
        """What DynamoDB does in a restore, as far as it can be seen in the end."""
        described = self.dynamodb.describe_table(TableName=self.table)["Table"]
        self.dynamodb.create_table(TableName="deltashare-restored", BillingMode="PAY_PER_REQUEST",
                                   **{name: described[name] for name in ("KeySchema", "AttributeDefinitions")})
        for item in self.items(self.table):
            self.dynamodb.put_item(TableName="deltashare-restored", Item=item)

    def token_of(self, recipient):
        said = self.cloud.deltashare(self.table, "token", "list", recipient, "--output", "json")
        return json.loads(said)[0]["id"]

    def typed(self, command):
        """The command as it is typed here: with what its words in capitals stand for."""
        words = {"TABLE": self.table, "FUNCTION": self.outputs["FunctionName"], "LOG_GROUP": self.outputs["LogGroup"],
                 "ENDPOINT": self.front.endpoint, "SIGNER_ROLE": self.outputs["SignerRoleArn"].partition("role/")[2], "BUCKET": "releases"}
        if "TOKEN_ID" in command:
            words["TOKEN_ID"] = self.token_of("acme")
        command = re.sub(rf"(?<![$\w])({'|'.join(words)})\b", lambda word: words[word[1]], command)
        command = command.replace("DELTASHARE_TABLE=…", f"DELTASHARE_TABLE={self.table}")
        command = command.replace("DELTASHARE_ENDPOINT=https://…/delta-sharing/", f"DELTASHARE_ENDPOINT={self.front.endpoint}")
        return command.replace("--function-version 7", "--function-version 1")


@pytest.fixture(scope="module")
def world(cloud, release):  # noqa: F811
    if AWS_CLI is None:
        pytest.skip("the AWS CLI is not installed; ./tests/run installs it")
    world = World(cloud, release)
    yield world
    world.stop()


# What there is before a command, where the one before it left something else.
BEFORE = {
    "deltashare apply -f shares.yaml --table": lambda world: world.share(),
    # The quickstart serves from this machine, where the recipient's profile is written by hand.
    "deltashare token new": lambda world: world.share(["acme"]),
    "deltashare check --table TABLE # with your own credentials": lambda world: world.share(["acme"]),
    "export DELTASHARE_TABLE": lambda world: world.forget(),
    "aws cloudformation describe-stacks": lambda world: world.share(["acme"]),
    "deltashare recipient create acme --share retail --expires 90d --profile acme.share --table": lambda world: world.share(),
    "aws dynamodb wait table-exists": lambda world: world.restore(),
    "until aws dynamodb wait table-exists": lambda world: world.restore(),
    "aws dynamodb update-item": lambda world: world.share(["globex", "initech"]),
    "deltashare export --table TABLE > shares.yaml": lambda world: world.share(["globex"]),
}
# What a command says, where that it ends with 0 tells too little; and those that do not end with 0.
SAYS = {
    'curl -i "$ENDPOINT"shares': "UNAUTHENTICATED",
    "deltashare check": "readable",
    "deltashare checkpoint": "checkpoint of version 5|has a checkpoint",
    "deltashare verify": "can be sent",
    "python -c \"import delta_sharing": "order",
    "deltashare plan -f shares.yaml": "",
    "sha256sum --check": "OK",
    # MiniStack answers HEAD without the start of the stream, which has the headers.
    "curl -s -I -H": "200 OK",
    "curl -s -D - -o answer.gz": "delta-table-version",
    'curl -i -H "Authorization': "UNAUTHENTICATED",
    "aws cloudwatch list-metrics": "",
    "aws lambda list-versions-by-function": "2",
    "aws cloudformation list-stack-resources": "deltashare-Table",
    "deltashare token list acme": "live",
}
ENDS = {"diff then.yaml now.yaml": (0, 1)}


def find(table, command, default=None):
    """The entry of the longest beginning."""
    found = [start for start in table if begins(command, start)]
    return table[max(found, key=len)] if found else default


def test_every_command_that_is_not_run_is_in_a_page():
    for start in NOT_RUN:
        assert any(begins(command, start) for _, command in documented()), start


def test_what_is_brought_back_from_a_restored_table_is_what_the_page_says(world):
    [*back, apply] = [command for _, command in documented() if "back.yaml" in command]
    assert len(back) == 2
    world.share(["disabled", "rotated"])

    def deltashare(*arguments):
        return world.cloud.deltashare(world.table, *arguments)

    (world.home / "then.yaml").write_text(deltashare("export"))
    deltashare("recipient", "update", "disabled", "--disable")
    deltashare("table", "delete", "retail.sales.orders", "--yes")
    for number in range(2):
        deltashare("token", "rotate", "rotated", "--grace", "24h", "--endpoint", world.front.endpoint,
                   "--profile", world.home / f"rotated-{number}.share")
    said = "".join(world.shell.run(world.typed(command))[0] for command in back)
    assert "+ table retail.sales.orders" in said and "of rotated" in said and "disabled" not in said
    refused, ended = world.shell.run(world.typed(apply))
    assert ended == 2 and "would have 3 live tokens" in refused and not json.loads(deltashare("table", "list", "retail", "--output", "json"))
    # As the page says: the oldest one is struck from the file.
    file = world.home / "back.yaml"
    tokens = r"(?m)^( *)- name: rotated\n(?:\1 .*\n)*"
    file.write_text(re.sub(tokens, lambda found: re.sub(r"(?ms)^ *tokens:\n.*", "", found[0]), file.read_text()))
    said, ended = world.shell.run(world.typed(apply))
    assert ended == 0 and "retail.sales.orders" in said.lower(), said
    states = {recipient["name"]: recipient["status"] for recipient in json.loads(deltashare("recipient", "list", "--output", "json"))}
    assert states == {"disabled": "disabled", "rotated": "active"}


def test_the_commands_of_the_pages_from_the_first_to_the_last(world):
    failures, ran = [], 0
    for page, command in documented():
        # Of several commands in one line, those that can be run.
        parts = [part for part in command.split(" && ") if find(NOT_RUN, part) is None and not part.startswith(("cd ", "cargo ", "rustup "))]
        if not parts:
            continue
        command = " && ".join(parts)
        find(BEFORE, command, lambda _: None)(world)
        began = time.monotonic()
        said, ended = world.shell.run(world.typed(command))
        ran += 1
        print(f"$ {command}\n{said}[{ended}, {time.monotonic() - began:.1f} s]")
        if ended not in find(ENDS, command, (0,)) or not re.search(find(SAYS, command, ""), said):
            failures.append(f"{page}: {command}\n{said}[{ended}]")
    assert not failures, "\n\n".join(failures)
    assert ran > 50
