"""Lambda's Runtime API and what stands before a function, as the function sees them, on loopback.

Requests become REST (v1) events, as API Gateway sends them with `ANY /{proxy+}` and response streaming, or events
of a function URL (v2); what the function streams back goes to the client as it comes.
"""

import base64
import http.server
import json
import os
import pathlib
import queue
import re
import signal
import socketserver
import subprocess
import threading
import time
import urllib.parse
import uuid

from conftest import TARGET

BINARY = pathlib.Path(os.environ.get("DELTASHARE_LAMBDA", TARGET / "debug/lambda"))
STAGE = "delta-sharing"


class Threads(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class Invocation:
    def __init__(self, event, seconds, direct=False):
        self.direct, self.failed = direct, False
        self.id = str(uuid.uuid4())
        self.event = event
        self.deadline = int((time.time() + seconds) * 1000)
        self.chunks = queue.Queue()

    def stream(self):
        """The prelude and then the chunks, each with when it came."""
        while True:
            chunk = self.chunks.get(timeout=60)
            if chunk is None:
                return
            yield chunk


class Pace:
    """How fast Lambda takes an answer: the first bytes as they come, and the others at a fixed rate."""

    def __init__(self, first=6_000_000, rate=2_000_000):
        self.first, self.rate, self.since = first, rate, None

    def wait(self, taken):
        """Returns when more may be taken than these bytes."""
        if taken > self.first:
            self.since = self.since or time.monotonic()
            time.sleep(max(0, self.since + (taken - self.first) / self.rate - time.monotonic()))


class Lambda:
    """One function, started as Lambda starts it, and its front."""

    def __init__(self, environment, seconds=30, base_path="", function_url=False, chunk_delay=0, pace=None, stage_variables=None):
        """`pace()` gives what waits after each chunk of an answer, such as a `Pace`."""
        self.function_url, self.chunk_delay, self.pace = function_url, chunk_delay, pace
        self.stage_variables = stage_variables
        self.waiting, self.invocations, self.base_path, self.seconds = queue.Queue(), {}, base_path, seconds
        self.errors = []
        self.runtime = self._serve(self._runtime_handler())
        self.front = self._serve(self._front_handler())
        self.stage = "" if base_path or function_url else f"/{STAGE}"
        self.endpoint = f"http://127.0.0.1:{self.front.server_address[1]}{base_path}{self.stage}/"
        self.port = self.front.server_address[1]
        self.log, self.polled = [], queue.Queue()
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [str(BINARY)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**environment, "PATH": os.environ["PATH"], "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:%d" % self.runtime.server_address[1],
                 "AWS_LAMBDA_FUNCTION_NAME": "deltashare", "AWS_LAMBDA_FUNCTION_VERSION": "1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
                 "AWS_LAMBDA_LOG_GROUP_NAME": "g", "AWS_LAMBDA_LOG_STREAM_NAME": "s"},
        )
        threading.Thread(target=lambda: [self.logs(line) for line in self.process.stdout], daemon=True).start()

    def polls(self):
        """Called when the function asks for an event, and so has ended the one before."""
        self.polled.put(time.monotonic())

    def begins(self, invocation):
        """Called before the function gets an event."""

    def logs(self, line):
        """Called for each line that the function logs."""
        self.log.append(line)

    def started_after(self):
        """Seconds from the start of the process until it asked for the first event."""
        return self.polled.get(timeout=20) - self.began

    def memory(self, what="VmRSS"):
        """A size in MB that the kernel has of the process."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) / 1024

    def connections(self, port):
        """How many connections the process has open to a port of this machine."""
        descriptors = pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir()
        own = {os.readlink(descriptor) for descriptor in descriptors}
        rows = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
        return sum(row[2] == f"0100007F:{port:04X}" and f"socket:[{row[9]}]" in own for row in rows)

    def _serve(self, handler):
        server = Threads(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def stop(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.wait(5)
        for server in (self.runtime, self.front):
            server.shutdown()
            server.server_close()

    def _runtime_handler(function):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Small writes of a stream go out as they come.
            disable_nagle_algorithm = True

            def do_GET(self):
                assert self.path == "/2018-06-01/runtime/invocation/next", self.path
                function.polls()
                invocation = function.waiting.get()
                function.invocations[invocation.id] = invocation
                function.begins(invocation)
                body = json.dumps(invocation.event).encode()
                self.send_response(200)
                for name, value in {
                    "Lambda-Runtime-Aws-Request-Id": invocation.id, "Lambda-Runtime-Deadline-Ms": str(invocation.deadline),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:deltashare",
                    "Content-Type": "application/json", "Content-Length": str(len(body)),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                parts = self.path.split("/")
                if parts[-1] == "error":
                    length = int(self.headers.get("Content-Length") or 0)
                    error = self.rfile.read(length).decode()
                    function.errors.append(error)
                    invocation = function.invocations.get(parts[-2])
                    if invocation and invocation.direct:
                        invocation.failed = True
                        invocation.chunks.put(error.encode())
                        invocation.chunks.put(None)
                    elif invocation:
                        invocation.chunks.put(json.dumps({"statusCode": 502, "headers": {}}).encode() + b"\0" * 8)
                        invocation.chunks.put(None)
                else:
                    assert parts[-1] == "response", self.path
                    if function.invocations[parts[-2]].direct:
                        assert "Lambda-Runtime-Function-Response-Mode" not in self.headers
                        invocation = function.invocations.pop(parts[-2])
                        invocation.chunks.put(self.rfile.read(int(self.headers["Content-Length"])))
                        invocation.chunks.put(None)
                        self.send_response(202)
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    assert self.headers["Lambda-Runtime-Function-Response-Mode"] == "streaming"
                    assert self.headers["Content-Type"] == "application/vnd.awslambda.http-integration-response"
                    invocation = function.invocations.pop(parts[-2])
                    pace, taken = function.pace() if function.pace else None, 0
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        invocation.chunks.put(self.rfile.read(size))
                        time.sleep(function.chunk_delay)
                        taken += size
                        if pace:
                            pace.wait(taken)
                        self.rfile.readline()
                    self.rfile.readline()
                    invocation.chunks.put(None)
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        return Handler

    def _front_handler(function):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Small writes of a stream go out as they come.
            disable_nagle_algorithm = True

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.startswith("/2015-03-31/functions/"):
                    return self.invoke(body)
                invocation = Invocation(function.event(self.command, self.path, self.headers, body, self.client_address[0]), function.seconds)
                function.waiting.put(invocation)
                chunks, prelude = invocation.stream(), b""
                while b"\0" * 8 not in prelude:
                    prelude += next(chunks)
                head, rest = prelude.split(b"\0" * 8, 1)
                head = json.loads(head)
                self.send_response(head["statusCode"])
                for name, value in head["headers"].items():
                    assert isinstance(value, str), f"{name} has more than one value"
                    self.send_header(name, value)
                if self.command == "HEAD":
                    self.end_headers()
                    return
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.chunk(rest)
                for chunk in chunks:
                    self.chunk(chunk)
                self.wfile.write(b"0\r\n\r\n")

            def invoke(self, body):
                """Lambda's own API: an event that comes neither from API Gateway nor from a function URL."""
                if self.path != "/2015-03-31/functions/deltashare/invocations":
                    return self.whole(404, b'{"Message": "Function not found"}', {"x-amzn-ErrorType": "ResourceNotFoundException"})
                invocation = Invocation(json.loads(body), function.seconds, direct=True)
                function.waiting.put(invocation)
                content = b"".join(invocation.stream())
                self.whole(200, content, {"X-Amz-Function-Error": "Unhandled"} if invocation.failed else {})

            def whole(self, status, content, headers):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def chunk(self, data):
                if data:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()

            do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = answer

            def log_message(self, *_):
                pass

        return Handler

    def event(self, method, target, headers, body, source):
        """What API Gateway makes of a request to `/{stage}/…`, or to a custom domain with a base path."""
        path, _, query = target.partition("?")
        assert path.startswith(self.stage), path
        event_path = path[len(self.stage):] or "/"
        if self.function_url:
            return self.function_url_event(method, path, query, headers, body, source)
        parameters = urllib.parse.parse_qs(query, keep_blank_values=True)
        return {
            "resource": "/{proxy+}", "path": event_path, "httpMethod": method,
            "headers": dict(headers.items()), "multiValueHeaders": {name: headers.get_all(name) for name in headers},
            "queryStringParameters": {name: values[-1] for name, values in parameters.items()} or None,
            "multiValueQueryStringParameters": parameters or None,
            "pathParameters": {"proxy": urllib.parse.unquote(event_path.lstrip("/"))}, "stageVariables": self.stage_variables,
            "requestContext": {
                "resourceId": "abc123", "resourcePath": "/{proxy+}", "httpMethod": method, "path": path, "accountId": "000000000000",
                "protocol": "HTTP/1.1", "stage": STAGE, "requestId": str(uuid.uuid4()), "apiId": "api", "domainName": "127.0.0.1",
                "domainPrefix": "api", "requestTime": "23/Nov/2026:12:00:00 +0000", "requestTimeEpoch": int(time.time() * 1000),
                "extendedRequestId": "x",
                "identity": {"sourceIp": source, "userAgent": headers.get("User-Agent"), "cognitoIdentityPoolId": None, "accountId": None,
                             "cognitoIdentityId": None, "caller": None, "accessKey": None, "cognitoAuthenticationType": None,
                             "cognitoAuthenticationProvider": None, "userArn": None, "user": None},
            },
            "body": body.decode() if body else None, "isBase64Encoded": False,
        }

    def function_url_event(self, method, path, query, headers, body, source):
        """What a function URL makes of a request."""
        text = (headers.get("Content-Type") or "").startswith(("application/json", "text/"))
        parameters = urllib.parse.parse_qs(query, keep_blank_values=True)
        return {
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
            "headers": {name.lower(): ",".join(headers.get_all(name)) for name in headers},
            **({"queryStringParameters": {name: ",".join(values) for name, values in parameters.items()}} if parameters else {}),
            "requestContext": {
                "accountId": "anonymous", "apiId": "abc123", "domainName": "abc123.lambda-url.us-east-1.on.aws", "domainPrefix": "abc123",
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": source, "userAgent": headers.get("User-Agent")},
                "requestId": str(uuid.uuid4()), "routeKey": "$default", "stage": "$default", "time": "23/Nov/2026:12:00:00 +0000",
                "timeEpoch": int(time.time() * 1000),
            },
            **({"body": body.decode() if text else base64.b64encode(body).decode()} if body else {}),
            "isBase64Encoded": bool(body) and not text,
        }
