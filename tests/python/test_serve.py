"""The command itself: what it prints, the share file while it runs, its end, and failures mid-stream."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse

import delta_sharing
import pytest

from conftest import BINARY, ROOT, SPARK_TABLES, TOKEN, Server, hash_of, write_profile


def shares(path, tables, **more):
    entries = [{"name": name, "location": str(location), "historyShared": True} for name, location in tables.items()]
    path.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": entries}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
        **more,
    }))
    return path


@pytest.fixture
def running():
    servers = []

    def start(*arguments, **options):
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_the_commands_it_prints_work(running, tmp_path):
    server = running("--profile", tmp_path / "you.share", cwd=ROOT)
    server.wait_for_log("load_as_pandas")
    assert (tmp_path / "you.share").stat().st_mode & 0o077 == 0
    token = json.loads((tmp_path / "you.share").read_text())["bearerToken"]
    printed = "".join(server.log)
    assert token not in printed
    commands = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    assert [command.split()[0] for command in commands] == ["curl", "python3", "python3"]
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    outputs = []
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert json.loads(outputs[0])["items"]
    assert "Table(" in outputs[1]
    assert "retail.sales.products" in commands[2] and "Crème brûlée torch" in outputs[2]


def test_help_is_complete():
    for arguments in (["--help"], ["serve", "--help"]):
        text = subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=True).stdout
        assert "Example" in text
    for option in ("--shares", "--listen", "--prefix", "--url-ttl", "--public-url", "--profile", "--max-connections", "--send-timeout", "--limit"):
        assert option in text


@pytest.mark.parametrize("content,reason", [
    ("version: 1\nshares:\n- name: a/b\n", "line 3: 'a/b' contains a slash"),
    ("version: 1\nshares: [", "line "),
    ("version: 3\n", "line 1: version must be 1"),
])
def test_a_bad_share_file_is_refused_at_start(tmp_path, content, reason):
    path = tmp_path / "shares.yaml"
    path.write_text(content)
    done = subprocess.run([BINARY, "serve", "--shares", path, "--listen", "127.0.0.1:0"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert reason in done.stderr and str(path) in done.stderr


def test_the_reference_servers_file_is_served_unchanged(running, tmp_path):
    path = tmp_path / "reference.yaml"
    path.write_text(f"""# The format version of this config file
version: 1
# Config shares/schemas/tables to share
shares:
- name: "share1"
  schemas:
  - name: "schema1"
    tables:
    - name: "table1"
      location: "{SPARK_TABLES}/all_types"
      id: "00000000-0000-0000-0000-000000000000"
    - name: "table2"
      location: "file://{SPARK_TABLES}/empty"
      historyShared: true
      startVersion: 0
authorization:
  bearerToken: "{TOKEN}"
host: "localhost"
port: 9999
endpoint: "/sharing"
preSignedUrlTimeoutSeconds: 900
stalenessAcceptable: false
""")
    server = running("--shares", path)
    assert server.endpoint.endswith("/sharing/")
    tables = server.request("GET", "/shares/share1/all-tables").json["items"]
    assert [(table["name"], table["id"][:8]) for table in tables][0] == ("table1", "00000000")
    file = server.request("POST", "/shares/share1/schemas/schema1/tables/table1/query", body=b"{}").lines[2]["file"]
    assert "X-Amz-Expires=900&" in file["url"]


def test_the_share_file_is_read_again_when_it_changes(running, tmp_path):
    path = shares(tmp_path / "shares.yaml", {"first": SPARK_TABLES / "empty"})
    server = running("--shares", path)
    names = lambda: [item["name"] for item in server.request("GET", "/shares/s/all-tables").json["items"]]  # noqa: E731
    assert names() == ["first"]
    shares(path, {"first": SPARK_TABLES / "empty", "second": SPARK_TABLES / "all_types"})
    server.wait_for_log("changed and is in force")
    assert names() == ["first", "second"]
    path.write_text("version: 1\nshares:\n- nam: s\n")
    assert "line 3" in server.wait_for_log("refused")
    assert names() == ["first", "second"]
    shares(path, {"second": SPARK_TABLES / "all_types"})
    server.wait_for_log("tables=1")
    assert names() == ["second"]


# Who may read

TABLES = f"""shares:
- name: s
  schemas:
  - name: d
    tables:
    - {{name: t, location: {SPARK_TABLES / 'empty'}}}
"""
RECIPIENT = f"""recipients:
- name: r
  shares: [s]
  tokens:
  - {{sha256: {hash_of(TOKEN)}, expires: never}}
"""


def anonymous(server):
    return server.request("GET", "/shares", token=None).status


@pytest.mark.parametrize("empty", [
    "recipients:",
    "recipients:\n# - name: r\n#   shares: [s]",
    "recipients: ~",
    "authorization:",
    "authorization:\n#  bearerToken: x",
    "recipients:\nauthorization:",
])
def test_a_key_with_nothing_below_it_is_closed(running, tmp_path, empty):
    path = tmp_path / "shares.yaml"
    path.write_text(f"version: 1\n{TABLES}{empty}\n")
    server = running("--shares", path)
    assert (anonymous(server), server.request("GET", "/shares").status) == (401, 401)
    server.wait_for_log("nobody can read")


def start(path, *arguments, listen="127.0.0.1:0"):
    """What a start that is refused says."""
    command = [BINARY, "serve", "--shares", path, "--listen", listen, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.mark.parametrize("line", [
    "authorization:\n  bearerToken:", "authorization:\n  bearerToken: ''", "authorization: {}", "authorization: yes",
    "authorization: none\nrecipients:", "authorization: none\nrecipients: []",
])
def test_a_key_that_leaves_it_unclear_who_may_read_is_refused(tmp_path, line):
    path = tmp_path / "shares.yaml"
    path.write_text(f"version: 1\n{TABLES}{line}\n")
    assert re.search(r"line \d+: ", start(path))


@pytest.mark.parametrize("token", ["x", "one-token-for-every-share", "a" * 31])
def test_a_short_token_is_refused_with_the_command_that_makes_one(tmp_path, token):
    path = tmp_path / "shares.yaml"
    path.write_text(f"version: 1\n{TABLES}authorization:\n  bearerToken: {token}\n")
    said = start(path)
    command = re.search(r"with: (.*)$", said, re.M)[1]
    assert f" {token}" not in said
    made = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout.strip()
    assert re.fullmatch(r"dss_[0-9a-f]{64}", made)


@pytest.mark.parametrize("arguments,listen", [
    (["--public-url", "http://127.0.0.1:1"], "0.0.0.0:0"),
    (["--public-url", "https://sharing.example.com"], "127.0.0.1:0"),
    (["--public-url", "http://localhost.example.com"], "127.0.0.1:0"),
    (["--public-url", "http://localhost:1"], "[::]:0"),
])
def test_being_open_to_other_machines_has_to_be_said(running, tmp_path, arguments, listen):
    path = tmp_path / "shares.yaml"
    path.write_text(f"version: 1\n{TABLES}")
    assert "authorization: none" in start(path, *arguments, listen=listen)
    path.write_text(f"version: 1\n{TABLES}authorization: none\n")
    if listen == "127.0.0.1:0":
        server = running("--shares", path, *arguments)
        assert anonymous(server) == 200
        server.wait_for_log("anyone who can reach this server can read every share")


@pytest.mark.parametrize("arguments", [[], ["--public-url", "http://localhost:8080"], ["--public-url", "http://[::1]:80"]])
def test_silence_is_open_on_this_machine_as_at_the_reference_server(running, tmp_path, arguments):
    path = tmp_path / "shares.yaml"
    path.write_text(f"version: 1\n{TABLES}")
    server = running("--shares", path, *arguments)
    assert anonymous(server) == 200
    server.wait_for_log("neither authorization nor recipients")


@pytest.mark.parametrize("opened", [TABLES, f"{TABLES}authorization: none\n"])
def test_a_running_server_is_never_opened_by_its_file(running, tmp_path, opened):
    path = tmp_path / "shares.yaml"
    path.write_text(f"version: 1\n{TABLES}{RECIPIENT}")
    server = running("--shares", path)
    path.write_text(f"version: 1\n{opened}")
    assert "ERROR" in server.wait_for_log("never makes a running server public")
    assert (anonymous(server), server.request("GET", "/shares").status) == (401, 200)
    # A closed server stays closed too when it was open before.
    path.write_text(f"version: 1\n{TABLES}recipients:\n")
    server.wait_for_log("changed and is in force")
    assert (anonymous(server), server.request("GET", "/shares").status) == (401, 401)


def test_an_open_server_can_be_closed_and_stays_closed(running, tmp_path):
    path = tmp_path / "shares.yaml"
    path.write_text(f"version: 1\n{TABLES}authorization: none\n")
    server = running("--shares", path)
    assert anonymous(server) == 200
    path.write_text(f"version: 1\n{TABLES}{RECIPIENT}")
    server.wait_for_log("changed and is in force")
    assert anonymous(server) == 401
    path.write_text(f"version: 1\n{TABLES}authorization: none\n")
    server.wait_for_log("never makes a running server public")
    assert anonymous(server) == 401


def test_a_file_that_is_written_slowly_is_taken_when_it_is_whole(running, tmp_path):
    """Written in place, a piece at a time, as a slow copy does: what is there first would be open, and share more."""
    path = tmp_path / "shares.yaml"
    text = f"version: 1\n{TABLES}{RECIPIENT}"
    path.write_text(text)
    server = running("--shares", path)
    more = text.replace("name: t,", "name: new,")
    pieces = more.splitlines(keepends=True)
    seen = set()
    with path.open("w") as file:
        for piece in pieces:
            file.write(piece)
            file.flush()
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                seen.add(anonymous(server))
                names = [item["name"] for item in server.request("GET", "/shares/s/all-tables").json["items"]]
                assert names == ["t"]
    assert seen == {401}
    server.wait_for_log("changed and is in force")
    assert [item["name"] for item in server.request("GET", "/shares/s/all-tables").json["items"]] == ["new"]
    assert len([line for line in server.log if "share file" in line]) == 1, "".join(server.log)


def test_a_file_that_stays_cut_off_is_not_taken(running, tmp_path):
    path = tmp_path / "shares.yaml"
    text = f"version: 1\n{TABLES}{RECIPIENT}"
    path.write_text(text)
    server = running("--shares", path)
    for cut in (0, len("version: 1\n"), len(f"version: 1\n{TABLES}"), len(text) // 2):
        path.write_text(text[:cut])
        end = time.monotonic() + 4
        while time.monotonic() < end:
            assert (anonymous(server), server.request("GET", "/shares").status) == (401, 200), cut
            time.sleep(0.05)
    assert not [line for line in server.log if "is in force" in line and "refused" not in line]


def test_a_file_that_is_replaced_by_a_link_as_a_config_map_is_taken(running, tmp_path):
    for version, name in [("1", "first"), ("2", "second")]:
        directory = tmp_path / f"..{version}"
        directory.mkdir()
        (directory / "shares.yaml").write_text(f"version: 1\n{TABLES.replace('name: t,', f'name: {name},')}{RECIPIENT}")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "shares.yaml").symlink_to("..data/shares.yaml")
    server = running("--shares", tmp_path / "shares.yaml")
    names = lambda: [item["name"] for item in server.request("GET", "/shares/s/all-tables").json["items"]]  # noqa: E731
    assert names() == ["first"]
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    server.wait_for_log("changed and is in force")
    assert names() == ["second"]


def test_a_table_that_is_no_longer_shared_cannot_be_fetched(running, tmp_path):
    path = shares(tmp_path / "shares.yaml", {"t": SPARK_TABLES / "all_types", "other": SPARK_TABLES / "empty"})
    server = running("--shares", path)
    url = urllib.parse.urlsplit(server.request("POST", "/shares/s/schemas/d/tables/t/query", body=b"{}").lines[2]["file"]["url"])
    get = lambda: server.request("GET", f"{url.path}?{url.query}", token=None, below_prefix=False).status  # noqa: E731
    assert get() == 200
    shares(path, {"other": SPARK_TABLES / "empty"})
    server.wait_for_log("changed and is in force")
    assert get() in (403, 404)


def test_urls_end(running, tmp_path):
    server = running("--shares", shares(tmp_path / "shares.yaml", {"t": SPARK_TABLES / "all_types"}), "--url-ttl", "3s")
    for _ in range(20):
        file = server.request("POST", "/shares/s/schemas/d/tables/t/query", body=b"{}").lines[2]["file"]
        url = urllib.parse.urlsplit(file["url"])
        get = lambda: server.request("GET", f"{url.path}?{url.query}", token=None, below_prefix=False)  # noqa: E731
        early = get()
        # A busy machine may have used up the time.
        if time.time() * 1000 < file["expirationTimestamp"]:
            break
    assert early.status == 200
    time.sleep(max(0, file["expirationTimestamp"] / 1000 - time.time()) + 1.5)
    late = get()
    assert late.status == 403 and b"PAR1" not in late.body


def test_a_public_url_goes_into_presigned_urls(running, tmp_path):
    path = shares(tmp_path / "shares.yaml", {"t": SPARK_TABLES / "all_types"})
    server = running("--shares", path, "--public-url", "https://sharing.example.com", "--prefix", "/x/y")
    assert server.endpoint.endswith("/x/y/")
    url = server.request("POST", "/shares/s/schemas/d/tables/t/query", body=b"{}").lines[2]["file"]["url"]
    assert url.startswith("https://sharing.example.com/")
    parts = urllib.parse.urlsplit(url)
    answer = server.request("GET", f"{parts.path}?{parts.query}", headers={"Host": "sharing.example.com"}, token=None, below_prefix=False)
    assert answer.status == 200


def test_sigterm_lets_a_request_in_flight_finish(running, tmp_path):
    server = running("--shares", shares(tmp_path / "shares.yaml", {"t": SPARK_TABLES / "all_types"}))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
    connection.putrequest("POST", "/delta-sharing/shares/s/schemas/d/tables/t/query")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", "2")
    connection.endheaders()
    connection.send(b"{")
    time.sleep(1.5)
    os.kill(server.process.pid, signal.SIGTERM)
    time.sleep(0.5)
    connection.send(b"}")
    response = connection.getresponse()
    assert response.status == 200 and response.read().endswith(b"}\n")
    connection.close()
    assert server.process.wait(20) == 0


def test_sigterm_does_not_wait_for_ever(running, tmp_path):
    server = running("--shares", shares(tmp_path / "shares.yaml", {"t": SPARK_TABLES / "all_types"}))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
    connection.putrequest("POST", "/delta-sharing/shares/s/schemas/d/tables/t/query")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", "2")
    connection.endheaders()
    time.sleep(1.5)
    began = time.monotonic()
    assert server.stop() == 0
    assert 8 < time.monotonic() - began < 25
    connection.close()


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A table whose newest commit is fine, whose checkpoint's data pages are overwritten, and whose older
    commits are gone: the failure comes after the first files."""
    target = tmp_path_factory.mktemp("broken") / "table"
    shutil.copytree(SPARK_TABLES / "v2_checkpoint_json", target)
    log = target / "_delta_log"
    newest = max(log.glob("*.json"), key=lambda path: path.name)
    version = min(int(path.name[:20]) for path in log.glob("*.checkpoint.*"))
    for commit in log.glob("*.json"):
        if re.fullmatch(r"\d{20}\.json", commit.name) and int(commit.stem) <= version:
            commit.unlink()
    added, = [line for line in map(json.loads, newest.read_text().splitlines()) if "add" in line][:1]
    with newest.open("a") as commit:
        for number in range(100):
            commit.write(json.dumps({"add": {**added["add"], "path": f"{number}-{added['add']['path']}"}}) + "\n")
    for other in log.glob("*.crc"):
        other.unlink()
    sidecars = sorted((log / "_sidecars").iterdir())
    assert len(sidecars) > 1
    for sidecar in sidecars:
        damaged = bytearray(sidecar.read_bytes())
        pages_end = len(damaged) - 8 - int.from_bytes(damaged[-8:-4], "little")
        damaged[4:pages_end] = b"\xff" * (pages_end - 4)
        sidecar.write_bytes(damaged)
    return target


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_failure_after_the_status_cannot_be_missed(running, tmp_path, broken, encoding):
    server = running("--shares", shares(tmp_path / "shares.yaml", {"t": broken}))
    path = "/shares/s/schemas/d/tables/t/query"
    with pytest.raises(http.client.IncompleteRead) as raised:
        server.request("POST", path, body=b"{}", headers={"Accept-Encoding": encoding})
    if encoding == "identity":
        lines = raised.value.partial.decode().splitlines()
        assert "file" in json.loads(lines[2])
        with pytest.raises(json.JSONDecodeError):
            json.loads(lines[-1])
    asked = {"delta-sharing-capabilities": "includeEndStreamAction=true"}
    lines = server.request("POST", path, body=b"{}", headers=asked).lines
    assert lines[-1]["endStreamAction"]["errorMessage"]
    server.wait_for_log("failed after its status was sent")


@pytest.mark.parametrize("form", [True, False, None])
def test_the_python_client_raises_when_an_answer_breaks_off(running, tmp_path, broken, form):
    server = running("--shares", shares(tmp_path / "shares.yaml", {"t": broken}))
    profile = write_profile(tmp_path / "r.share", server.endpoint, TOKEN)
    with pytest.raises(Exception):
        delta_sharing.load_as_pandas(f"{profile}#s.d.t", use_delta_format=form)


def test_a_share_file_that_is_far_too_large_is_refused(tmp_path):
    path = tmp_path / "shares.yaml"
    with open(path, "wb") as file:
        file.truncate(8 << 30)
    done = subprocess.run([BINARY, "serve", "--shares", path, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "more than 64 MiB" in done.stderr


def test_no_secret_is_logged_however_much_is_asked_for(running, tables, tmp_path):
    """Other crates log what they send and receive."""
    file = shares(tmp_path / "shares.yaml", {"t": tables["no_stats"]})
    for level in ("trace", "trace,hyper=trace,s3s=trace,h2=trace", "hyper::proto=trace"):
        server = running("--shares", file, env={"RUST_LOG": level})
        answer = server.request("POST", "/shares/s/schemas/d/tables/t/query", body=b"{}")
        url = answer.lines[2]["file"]["url"]
        split = urllib.parse.urlsplit(url)
        assert server.request("GET", f"{split.path}?{split.query}", below_prefix=False, token=None).status == 200
        assert server.stop() == 0
        log = "".join(server.log)
        assert TOKEN not in log and "X-Amz-Signature" not in log and "Bearer" not in log
        assert not re.search(r"(TRACE|DEBUG) (?!deltashare)", log), log
