"""A way to AWS that fails as its rule says: throttled, reset, slow, cut off, or with another answer."""

import http.client
import http.server
import socket
import socketserver
import struct
import threading
import time
import urllib.parse

import pytest

from aws import Aws


@pytest.fixture(scope="module")
def aws():
    """AWS for the tests of one module, so that faults concern no other one."""
    own = Aws()
    yield own
    own.stop()


class Request:
    """What passes: what a rule decides by."""

    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.path, _, self.query = target.partition("?")
        self.path = urllib.parse.unquote(self.path)


def answer(status, body, content_type="application/xml"):
    """A rule's answer in place of AWS's."""
    return ("answer", status, body.encode(), content_type)


def s3_error(status, code):
    return answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>")


RESET = ("reset",)
SILENCE = ("silence",)


def cut(size):
    """Only the first bytes of the body, after which the connection is reset."""
    return ("cut", size)


def delay(seconds):
    return ("delay", seconds)


def rewrite(change):
    """The answer's body as `change` makes it."""
    return ("rewrite", change)


def headers(change):
    """The answer's headers, by their names in lower case, as `change` makes them."""
    return ("headers", change)


class Times:
    """A fault for the first so many requests that match; what matched is counted, faults or not."""

    def __init__(self, fault, times=10**9, match=lambda request: True):
        self.fault, self.left, self.match, self.matched, self.lock = fault, times, match, 0, threading.Lock()

    def __call__(self, request):
        with self.lock:
            if not self.match(request):
                return None
            self.matched += 1
            if self.left == 0:
                return None
            self.left -= 1
            return self.fault


class Way:
    """A proxy on loopback to what listens at `port`. `rule(request)` gives a fault, or None to pass.

    `answered(request, content, began)` is called when the answer is there, before it goes out. `began` is when the request came."""

    def __init__(self, port):
        self.target, self.rule, self.answered, self.over = port, None, None, threading.Event()
        way = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def pass_on(self):
                began = time.monotonic()
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, self.headers, body)
                fault = way.rule(request) if way.rule else None
                kind = fault[0] if fault else None
                if kind == "reset":
                    return self.reset()
                if kind == "silence":
                    way.over.wait(60)
                    return self.reset()
                if kind == "delay":
                    way.over.wait(fault[1])
                if kind == "answer":
                    return self.send(fault[1], {"Content-Type": fault[3]}, fault[2])
                connection = http.client.HTTPConnection("127.0.0.1", way.target, timeout=60)
                try:
                    connection.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
                    got = connection.getresponse()
                    content = got.read()
                finally:
                    connection.close()
                headers = {name: value for name, value in got.getheaders()
                           if name.lower() not in ("transfer-encoding", "connection", "content-length")}
                if kind == "rewrite":
                    content = fault[1](content)
                if kind == "headers":
                    headers = fault[1]({name.lower(): value for name, value in headers.items()})
                if way.answered:
                    way.answered(request, content, began)
                if kind == "cut":
                    self.send(got.status, headers, content, fault[1])
                    return self.reset()
                length = got.getheader("Content-Length") if self.command == "HEAD" else None
                self.send(got.status, headers, content, length=length)

            def send(self, status, headers, content, upto=None, length=None):
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[:upto])
                self.wfile.flush()

            def reset(self):
                # Without lingering a close is a reset.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                self.rfile.close()

            do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = pass_on

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except (OSError, ValueError):
                    pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            # As many connections may be opened at once as the server reads files ahead.
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
