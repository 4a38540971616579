"""Local tables whose directories have something else than files, and what the log says of files that were handed out."""

import json
import os
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request

import pyarrow
import pytest
from deltalake import write_deltalake

from conftest import Server, TOKEN, hash_of

LAST = "_delta_log/00000000000000000002.json"
CHECKPOINT = "_delta_log/00000000000000000002.checkpoint.parquet"


@pytest.fixture
def served(tmp_path):
    """A table of three versions, and its neighbour, on a running server."""
    table, outside = tmp_path / "table", tmp_path / "outside"
    for number in range(3):
        rows = pyarrow.table({"id": pyarrow.array([number], pyarrow.int64())})
        write_deltalake(str(table), rows, mode="append")
    shutil.copytree(table, outside)
    path = tmp_path / "shares.yaml"
    tables = [{"name": name, "location": str(place), "historyShared": True} for name, place in (("t", table), ("other", outside))]
    path.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": tables}]}],
        "recipients": [{"name": "a", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", path)
    yield server, table, outside
    assert server.stop() == 0
    log = "".join(server.log)
    assert "X-Amz-Signature" not in log and "panicked" not in log


def ask(server, name="t"):
    return server.request("POST", f"/shares/all/schemas/spark/tables/{name}/query", body=b"{}")


def put(kind, path, outside):
    """Puts something at the path that is not a file of the table."""
    if path.is_symlink() or path.exists():
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        # A path of a socket is short.
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name("a pipe"))
        path.symlink_to("a pipe")
    elif kind == "link to a directory":
        path.symlink_to(path.parent)
    elif kind == "link out":
        path.symlink_to(outside / path.relative_to(path.parents[1]))
    elif kind == "dangling link":
        path.symlink_to("nothing")
    else:
        raise AssertionError(kind)


KINDS = ["pipe", "socket", "directory", "loop", "link to a pipe", "link to a directory", "link out", "dangling link"]


@pytest.mark.parametrize("kind,name", [
    *((kind, name) for name in (LAST, CHECKPOINT) for kind in KINDS),
    *((kind, "_delta_log") for kind in KINDS if "directory" not in kind),
])
def test_what_is_no_file_in_a_log_is_400_and_in_time(served, kind, name):
    server, table, outside = served
    if name == "_delta_log":
        shutil.rmtree(table / name)
    elif name == CHECKPOINT:
        # No way around it: the commits before are gone.
        (table / "_delta_log/00000000000000000000.json").unlink()
        (table / "_delta_log/_last_checkpoint").write_text(json.dumps({"version": 2, "size": 1}))
    put(kind, table / name, outside)
    began = time.monotonic()
    answer = ask(server)
    assert time.monotonic() - began < 20
    assert (answer.status, answer.json["errorCode"]) == (400, "UNSUPPORTED_OPERATION"), answer.body
    assert answer.json["message"].startswith("The table cannot be read: ") and "/" not in answer.json["message"], answer.body
    # Its neighbour is read as ever.
    assert len(ask(server, "other").lines) == 5


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "loop", "link out"])
def test_a_last_checkpoint_that_is_no_file_is_passed_over(served, kind):
    server, table, outside = served
    put(kind, table / "_delta_log/_last_checkpoint", outside)
    began = time.monotonic()
    answer = ask(server)
    assert time.monotonic() - began < 20
    assert answer.status in (200, 400), answer.body
    assert answer.status == 400 or len(answer.lines) == 5


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_data_file_that_is_no_file_is_refused_in_time(served):
    server, table, outside = served
    urls = {line["file"]["url"] for line in ask(server).lines[2:]}
    for kind in ("pipe", "socket", "directory", "loop"):
        url = urls.pop() if len(urls) > 1 else next(iter(urls))
        path = table / urllib.request.url2pathname(url.split("?")[0]).rsplit("/", 1)[1]
        if path.is_dir():
            path.rmdir()
        put(kind, path, outside)
        began = time.monotonic()
        status, body = get(url)
        assert time.monotonic() - began < 20
        assert (status, b"<Code>InvalidRequest</Code>" in body) == (400, True), (kind, status, body)
        assert str(table).encode() not in body


def test_links_that_are_swapped_while_files_are_read_lead_nowhere(served):
    server, table, outside = served
    lines = ask(server).lines[2:]
    url = lines[0]["file"]["url"]
    name = url.split("?")[0].rsplit("/", 1)[1]
    inside, secret = table / name, outside / "secret"
    secret.write_bytes(b"secret" * 1000)
    content = inside.read_bytes()
    kept, link, stop = table / "kept", table / "link", threading.Event()
    kept.write_bytes(content)

    def swap():
        while not stop.is_set():
            link.symlink_to(secret)
            os.replace(link, inside)
            os.link(kept, link)
            os.replace(link, inside)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        seen = {200: 0, 404: 0}
        began = time.monotonic()
        while time.monotonic() - began < 5 or (not all(seen.values()) and time.monotonic() - began < 60):
            status, body = get(url)
            seen[status] += 1
            assert b"secret" not in body
            assert status == 404 or body == content
    finally:
        stop.set()
        swapping.join(20)
    assert all(seen.values()), seen


def test_a_directory_that_is_swapped_for_a_link_leads_nowhere(served):
    server, table, outside = served
    url = ask(server).lines[2]["file"]["url"]
    name = url.split("?")[0].rsplit("/", 1)[1]
    (outside / name).write_bytes(b"secret")
    table.rename(table.with_name("moved"))
    table.symlink_to(outside)
    status, body = get(url)
    assert status == 404 and b"secret" not in body


def test_each_file_that_is_handed_out_leaves_an_event(served):
    server, table, _ = served
    file = ask(server).lines[2]["file"]
    url, size = file["url"], file["size"]
    path = str(table.resolve() / url.split("?")[0].rsplit("/", 1)[1])

    def event(request, expected):
        """The event of the request that was sent last."""
        end = time.monotonic() + 10
        before = len(server.log)
        try:
            urllib.request.urlopen(request, timeout=10).read()
        except urllib.error.HTTPError:
            pass
        while True:
            found = [line for line in server.log[before:] if 'action="GetFile"' in re.sub(r"\x1b\[[0-9;]*m", "", line)]
            if found or time.monotonic() > end:
                break
            time.sleep(0.02)
        line, = found
        for text in expected:
            assert text in line, line
        assert "Signature" not in line and url.split("X-Amz-Signature=")[1] not in line
        return line

    ranged = urllib.request.Request(url, headers={"Range": "bytes=0-9", "User-Agent": "reader/1"})
    wrong = url[:-1] + ("0" if url[-1] != "0" else "1")
    assert " INFO " in event(url, [f"bytes={size}", "http.status=200", f'object="{path}"', "answered", "request.id="])
    event(ranged, ["bytes=10", "http.status=206", f'object="{path}"', 'user_agent="reader/1"'])
    event(wrong, ["bytes=0", "http.status=403", f'object="{path}"', "refused", 'error.code="PERMISSION_DENIED"'])
    os.unlink(path)
    event(url, ["bytes=0", "http.status=404", f'object="{path}"', "refused", 'error.code="RESOURCE_DOES_NOT_EXIST"'])


@pytest.mark.parametrize("more,text", [
    ({"location": "/"}, "root directory of this machine"),
    ({"allowedLocations": ["/"]}, "root directory of this machine"),
    ({"allowedLocations": ["file:///"]}, "root directory of this machine"),
])
def test_a_share_file_that_opens_the_whole_machine_is_refused(tmp_path, tables, more, text):
    table = {"name": "t", "location": str(tables["py_versions"]), **more}
    path = tmp_path / "shares.yaml"
    path.write_text(json.dumps({"version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [table]}]}], "recipients": []}))
    with pytest.raises(RuntimeError, match=text):
        Server("--shares", path)
