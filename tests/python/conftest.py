"""The real server, over every test table, for the released Python client and for raw requests."""

import contextlib
import datetime
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPARK_TABLES = ROOT / "tests/tables/spark"
sys.path.insert(0, str(ROOT / "tests/tables/make"))

import canonical  # noqa: E402,F401
import deltalake_tables  # noqa: E402
from answer import Answer  # noqa: E402

TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
BINARY = pathlib.Path(os.environ.get("DELTASHARE", TARGET / "debug/deltashare"))
TOKEN = "dss_test-recipient-with-every-share"
OTHER_TOKEN = "dss_test-recipient-with-one-share"
EXPIRED_TOKEN = "dss_test-token-that-has-expired"

# The files whose tests take longest, in this order. They begin first, so that no worker is left with one of them at the end.
LONGEST = [f"test_{name}.py" for name in (
    "engines", "wild_logs", "same_answer", "faults_kill", "random_logs", "neighbours", "recipient_page", "lambda", "connections", "admin",
    "hostile_logs", "check", "right_answers", "faults_commits", "faults_clients", "function_check", "admin_scripts",
    "first_poll_tls", "lambda_faults",
)]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


class Server:
    """One `deltashare serve`, ended by its own process id."""

    def __init__(self, *arguments, before=(), cwd=None, env=None):
        """`before` is a command that runs the server in its place."""
        self.process = subprocess.Popen(
            [*before, str(BINARY), "serve", "--listen", "127.0.0.1:0", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env={**os.environ, **(env or {})},
        )
        self.log = []
        self._logger = threading.Thread(target=self._read_log, daemon=True)
        self._logger.start()
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on (http://127\.0\.0\.1:(\d+)/.*)\n", line)
        if not found:
            self.process.wait(10)
            self._logger.join(5)
            raise RuntimeError(f"no server: {line!r} {''.join(self.log)}")
        self.endpoint, self.port = found[1], int(found[2])

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def wait_for_log(self, text, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [line for line in self.log if text in line]
            if found:
                return found[-1]
            time.sleep(0.05)
        raise AssertionError(f"{text!r} is not in the log:\n{''.join(self.log)}")

    def stop(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        code = self.process.wait(30)
        self._logger.join(5)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def request(self, method, path, body=None, headers=None, token=TOKEN, below_prefix=True, timeout=30):
        """A raw request; `path` goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = dict(headers or {})
            if token is not None:
                sent.setdefault("Authorization", f"Bearer {token}")
            prefix = urllib.parse.urlsplit(self.endpoint).path.rstrip("/") if below_prefix else ""
            connection.request(method, prefix + path, body=body, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, dict((k.lower(), v) for k, v in response.getheaders()), response.read())
        finally:
            connection.close()


def hash_of(token):
    return hashlib.sha256(token.encode()).hexdigest()


def write_profile(path, endpoint, token):
    path.write_text(json.dumps({"shareCredentialsVersion": 1, "endpoint": endpoint, "bearerToken": token}))
    return path


def set_commit_times(table, start="2024-01-01T00:00:00+00:00", hours=1):
    """Commit N was made N hours after `start`: git and copies do not keep the times of files."""
    begin = datetime.datetime.fromisoformat(start).timestamp()
    for commit in (table / "_delta_log").glob("*.json"):
        if re.fullmatch(r"\d{20}\.json", commit.name):
            when = begin + int(commit.stem) * hours * 3600
            os.utime(commit, (when, when))


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """Every test table, in a directory of its own: {name: directory}."""
    root = tmp_path_factory.mktemp("tables")
    found = {}
    for source in sorted(SPARK_TABLES.iterdir()):
        target = root / source.name
        shutil.copytree(source, target)
        for commit in (target / "_delta_log").glob("*.json"):
            text = commit.read_text()
            if "@ROOT@" in text:
                commit.write_text(text.replace("@ROOT@", str(root)))
        found[source.name] = target
    for name, directory in deltalake_tables.make(root / "py").items():
        found[name] = directory
    for directory in found.values():
        set_commit_times(directory)
    return found


@pytest.fixture(scope="session")
def share_file(tables, tmp_path_factory):
    """Share `all` with every table, share `one` with one, and recipients of either."""
    entries = []
    for name, directory in tables.items():
        entry = {"name": name, "location": str(directory), "historyShared": name != "no_stats"}
        if name == "clone":
            entry["allowedLocations"] = [str(tables["clone_source"])]
        if name == "py_versions_from_2":
            entry["startVersion"] = 2
        entries.append(entry)
    one = {"name": "only", "location": str(tables["no_stats"])}
    spaced = {"name": "with space", "location": str(tables["no_stats"])}
    shares = {
        "version": 1,
        "shares": [
            {"name": "all", "schemas": [{"name": "spark", "tables": entries}]},
            {"name": "One Share", "schemas": [{"name": "Small", "tables": [one, spaced]}, {"name": "empty", "tables": []}]},
        ],
        "recipients": [
            {"name": "everyone", "shares": ["all", "One Share"], "tokens": [
                {"sha256": hash_of(TOKEN), "expires": "2999-01-01T00:00:00Z"},
                {"sha256": hash_of(EXPIRED_TOKEN), "expires": "2020-01-01T00:00:00Z"},
            ]},
            {"name": "someone", "shares": ["one share"], "tokens": [{"sha256": hash_of(OTHER_TOKEN), "expires": "never"}]},
        ],
    }
    path = tmp_path_factory.mktemp("shares") / "shares.yaml"
    path.write_text(json.dumps(shares))  # JSON is YAML
    return path


def stop_without_secrets(server, *secrets):
    """Ends a server, whose log must have neither a panic nor a secret."""
    assert server.stop() == 0
    log = "".join(server.log)
    assert "panicked" not in log
    for secret in (*secrets, "X-Amz-Signature"):
        assert secret not in log, "a secret is in the log"


@pytest.fixture(scope="session")
def server(share_file):
    server = Server("--shares", share_file)
    yield server
    stop_without_secrets(server, TOKEN, OTHER_TOKEN, EXPIRED_TOKEN)


@pytest.fixture(scope="session")
def profile(server, tmp_path_factory):
    return write_profile(tmp_path_factory.mktemp("profile") / "all.share", server.endpoint, TOKEN)


@pytest.fixture(scope="session")
def aws():
    from aws import Aws

    aws = Aws()
    yield aws
    aws.stop()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; tests are skipped where the machine has none and cannot fetch one."""
    from browser import Missing, launched

    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(launched())
        except Missing as lacking:
            pytest.skip(str(lacking))
        yield browser


@pytest.fixture
def open_page(browser):
    """Opens pages of a browser, `open_page(**options)`, which may complain of nothing and ask nobody but loopback."""
    from browser import Watched

    pages = []

    def open_page(**options):
        pages.append(Watched(browser, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()
    assert [problem for page in pages for problem in page.problems] == []
    assert {origin for page in pages for origin in page.origins() if not re.match(r"http://(127\.0\.0\.1|localhost):", origin)} == set()


@pytest.fixture
def browser_page(open_page):
    """One page with a desktop's viewport."""
    return open_page(viewport={"width": 1200, "height": 900})
