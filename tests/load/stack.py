"""The function or `deltashare serve` on stand-ins for AWS: a catalog in DynamoDB, tables in S3, and what counts the requests to both."""

import base64
import collections
import email.message
import json
import re
import threading
import time
import urllib.parse

import logs
from aws import Aws
from conftest import Server, hash_of
from faults import Way
from lambda_runtime import Invocation, Lambda
from measured import processor_seconds, token
from test_dynamodb import TABLE, make_table, put
from test_storage_requests import kind_in_s3

BUCKET = "load"
ROLE = "arn:aws:iam::000000000000:role/signer"
TABLES = "/shares/load/schemas/d/tables/"
# As long as the session tokens of AWS. It is in every presigned URL.
SESSION_TOKEN = base64.b64encode(bytes(number * 167 % 256 for number in range(768))).decode()


def read_units(request, content):
    """The read units that DynamoDB bills for a request: one for 4 KB if the read is strongly consistent, otherwise half of one."""
    operation, body = request.headers["X-Amz-Target"].split(".")[1], json.loads(request.body)
    if operation == "GetItem":
        return 1 if body.get("ConsistentRead") else 0.5
    if operation == "BatchGetItem":
        return sum(len(table["Keys"]) * (1 if table.get("ConsistentRead") else 0.5) for table in body["RequestItems"].values())
    if operation == "TransactGetItems":
        return 2 * len(body["TransactItems"])
    if operation in ("Query", "Scan"):
        return max(1, -(-len(content) // 4096)) * (1 if body.get("ConsistentRead") else 0.5)
    return 0


class Counts(collections.Counter):
    """What is counted for a request, or for all of them."""

    def __init__(self, *counted):
        super().__init__(*counted)
        self.waits = []

    def waited(self):
        """For how many seconds there was at least one request to S3 or DynamoDB."""
        seconds, until = 0, 0
        for began, ended in sorted(self.waits):
            seconds += max(0, ended - max(began, until))
            until = max(until, ended)
        return seconds


class Event:
    """What the function did for one event."""

    def __init__(self, invocation, pid):
        self.id, self.event, self.counts = invocation.id, invocation.event, Counts()
        self.log_bytes, self.seconds, self.processor = 0, None, None
        self.began, self.processor_before = time.monotonic(), processor_seconds(pid)

    def end(self, pid):
        self.seconds, self.processor = time.monotonic() - self.began, processor_seconds(pid) - self.processor_before


class Function(Lambda):
    """The function, and what it did for each event. It gets one event at a time, as from Lambda, so that what it asks of AWS
    belongs to the event that it has."""

    def __init__(self, *arguments, **more):
        self.current, self.events, self.last_logged = None, {}, None
        super().__init__(*arguments, **more)

    def begins(self, invocation):
        self.current = self.events[invocation.id] = Event(invocation, self.process.pid)

    def polls(self):
        if self.current:
            self.current.end(self.process.pid)
        self.current = None
        super().polls()

    def logs(self, line):
        if found := re.search(r'"request\.id":"([^"]+)"', line):
            self.last_logged = found[1]
        # The line of the metrics has no id, and follows the event's.
        if self.last_logged in self.events:
            self.events[self.last_logged].log_bytes += len(line.encode())
        else:
            super().logs(line)

    def query(self, table):
        """The answer to a query of the first recipient, without what is in front of the function: (bytes, seconds, seconds until the
        first bytes)."""
        headers = email.message.Message()
        for name, value in {"Authorization": f"Bearer {token(0)}", "Accept-Encoding": "gzip", "Content-Type": "application/json"}.items():
            headers[name] = value
        invocation = Invocation(self.event("POST", f"{self.stage}{TABLES}{table}/query", headers, b"{}", "127.0.0.1"), self.seconds)
        begin, first, chunks = time.monotonic(), None, []
        self.waiting.put(invocation)
        for chunk in invocation.stream():
            first = first or time.monotonic() - begin
            chunks.append(chunk)
        seconds = time.monotonic() - begin
        head, _, body = b"".join(chunks).partition(b"\0" * 8)
        if json.loads(head)["statusCode"] != 200:
            raise RuntimeError(f"{head.decode()}: {body.decode(errors='replace')}")
        return body, seconds, first


class Stack:
    """The stand-ins and one server. `latency` has the milliseconds that a request to S3 and to DynamoDB takes at least."""

    def __init__(self, folder, tables, recipients, latency=(0, 0), serve=False, pace=None, limits=""):
        """`tables`: {name: (files, whether there is a checkpoint)}."""
        self.counts, self.lock, self.latency, self.seconds = Counts(), threading.Lock(), dict(zip(("S3", "DynamoDB"), latency)), {}
        self.stopping, self.server = [], None
        # Without checks of signatures, a session token can have the length that those of AWS have.
        self.aws = Aws(signatures=False)
        self.stopping.append(self.aws)
        try:
            self._write_catalog(recipients, tables)
            self._write_tables(folder, tables)
            ways = {"S3": Way(self.aws.port), "DynamoDB": Way(urllib.parse.urlsplit(self.aws.dynamodb).port), "STS": Way(self.aws.port)}
            self.stopping += ways.values()
            for name in self.latency:
                ways[name].answered = lambda request, content, began, name=name: self._answered(name, request, content, began)
            session = f"<SessionToken>{SESSION_TOKEN}</SessionToken>".encode()
            ways["STS"].rule = lambda request: ("rewrite", lambda content: re.sub(rb"<SessionToken>.*?</SessionToken>", session, content))
            environment = {**self.aws.environment, **{f"AWS_ENDPOINT_URL_{name.upper()}": way.endpoint for name, way in ways.items()}}
            if serve:
                self.server = Server("--catalog", f"dynamodb:{TABLE}", env={**environment, "AWS_SESSION_TOKEN": SESSION_TOKEN})
            else:
                self.server = Function({**environment, "DELTASHARE_TABLE": TABLE, "DELTASHARE_SIGNER_ROLE_ARN": ROLE,
                                        "DELTASHARE_LIMITS": limits}, seconds=150, pace=pace)
            self.stopping.append(self.server)
        except BaseException:
            self.stop()
            raise
        self.pid, self.port = self.server.process.pid, self.server.port
        self.prefix = urllib.parse.urlsplit(self.server.endpoint).path.rstrip("/")

    def _write_catalog(self, recipients, tables):
        dynamodb, iam = self.aws.client("dynamodb"), self.aws.client("iam")
        make_table(dynamodb)
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
        iam.create_role(RoleName=ROLE.rpartition("/")[2], AssumeRolePolicyDocument=json.dumps(trust))
        put(dynamodb, "SHARE#load", "SHARE", name="load", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11")
        put(dynamodb, "SHARE#load", "SCHEMA#d", name="d")
        for name in tables:
            put(dynamodb, "SHARE#load", f"TABLE#d#{name}", name=name, schema="d", id=f"id-{name}", location=f"s3://{BUCKET}/{name}",
                historyShared=True)
        for number in range(recipients):
            name = f"recipient-{number:03}"
            put(dynamodb, f"RECIPIENT#{name}", "RECIPIENT", name=name, status="active")
            put(dynamodb, f"RECIPIENT#{name}", "SHARE#load", share="load", recipient=name)
            put(dynamodb, f"TOKEN#{hash_of(token(number))}", "TOKEN", recipient=name, id="1", expires="never")

    def _write_tables(self, folder, tables):
        s3 = self.aws.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        for name, (files, checkpoint) in tables.items():
            logs.write_log(folder / name, files, checkpoint)
            for file in (folder / name / "_delta_log").iterdir():
                s3.upload_file(str(file), BUCKET, f"{name}/_delta_log/{file.name}")

    def _answered(self, service, request, content, began):
        time.sleep(max(0, began + self.latency[service] / 1000 - time.monotonic()))
        ended = time.monotonic()
        counted = {kind_in_s3(request)[0]: 1} if service == "S3" else {
            "units": read_units(request, content), request.headers["X-Amz-Target"].split(".")[1]: 1}
        with self.lock:
            self.seconds.setdefault(service, []).append(ended - began)
            # Memory that grows with the duration of the measurement would be for nothing.
            del self.seconds[service][:-10_000]
            self.counts.update(counted)
            if event := getattr(self.server, "current", None):
                event.counts.update(counted)
                event.counts.waits.append((began, ended))

    def stop(self):
        for each in reversed(self.stopping):
            each.stop()
        self.stopping = []
