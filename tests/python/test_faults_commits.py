"""A thousand commits under eight readers: each answer is one version exactly, and none that was over when it was asked for."""

import gzip
import json
import os
import re
import threading
import urllib.parse

import pytest
from deltalake import DeltaTable

from conftest import TOKEN, Server, hash_of

COMMITS = 1000
CHECKPOINTS = 90
# The answers that each reader has at least meanwhile.
ANSWERS = 12
# A version has the files of its last commits: each commit adds one and removes one.
WINDOW = 12
PATH = "/shares/s/schemas/d/tables/moving"
# Eight readers and a writer share what processors there are.
PATIENCE = 300
DELTA = {"delta-sharing-capabilities": "responseformat=delta"}


def files_of(version):
    return [f"part-{number:05}.parquet" for number in range(max(1, version - WINDOW + 1), version + 1)]


class Moving:
    """A table in a directory, and the version that it has at least."""

    def __init__(self, directory):
        self.directory, self.log, self.version = directory, directory / "_delta_log", 0
        self.log.mkdir(parents=True)
        schema = {"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]}
        self._write(0, [
            {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
            {"metaData": {"id": "0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b11", "format": {"provider": "parquet", "options": {}},
                          "schemaString": json.dumps(schema), "partitionColumns": [], "configuration": {"delta.enableChangeDataFeed": "true"}, "createdTime": 0}},
        ])
        self.commit()

    def _write(self, version, actions):
        whole = self.log / f".{version}.tmp"
        whole.write_text("".join(json.dumps(action) + "\n" for action in actions))
        os.rename(whole, self.log / f"{version:020}.json")
        self.version = version

    def commit(self):
        version = self.version + 1
        actions = [{"commitInfo": {"timestamp": version, "operation": "MERGE"}},
                   {"add": {"path": files_of(version)[-1], "partitionValues": {}, "size": 1, "modificationTime": version,
                            "dataChange": True, "stats": '{"numRecords":1}'}}]
        if version > WINDOW:
            actions.append({"remove": {"path": files_of(version - 1)[0], "deletionTimestamp": version, "dataChange": True,
                                       "partitionValues": {}, "size": 1, "extendedFileMetadata": True}})
        self._write(version, actions)
        if version % CHECKPOINTS == 0:
            DeltaTable(str(self.directory)).create_checkpoint()


@pytest.fixture
def moving(tmp_path):
    return Moving(tmp_path / "moving")


@pytest.fixture
def server(moving, tmp_path):
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [
            {"name": "moving", "location": str(moving.directory), "historyShared": True}]}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares)
    yield server
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


def names(lines):
    """The files of an answer, in either format."""
    text = "\n".join(json.dumps(line) for line in lines if "file" in line)
    return [urllib.parse.urlsplit(url).path.rpartition("/")[2] for url in re.findall(r'"(?:url|path)": "([^"]+)"', text)]


def lines_of(answered):
    assert answered.status == 200, answered.body
    if answered.headers.get("content-encoding") == "gzip":
        answered.body = gzip.decompress(answered.body)
    return answered.lines


def query(server, body, headers=None):
    answered = server.request("POST", f"{PATH}/query", body=json.dumps(body).encode(), headers=headers, timeout=PATIENCE)
    return int(answered.headers["delta-table-version"]), lines_of(answered)


def whole(headers):
    def read(server, _):
        version, lines = query(server, {}, headers)
        assert sorted(names(lines)) == files_of(version), version
        return version
    return read


def pages(server, _):
    found, version, token = [], None, {}
    while token is not None:
        at, lines = query(server, {"maxFiles": 5, **token})
        assert version in (None, at), "the version changes from page to page"
        version = at
        found += names(lines)
        next_token = lines[-1]["endStreamAction"].get("nextPageToken")
        token = {"pageToken": next_token} if next_token else None
    assert sorted(found) == files_of(version), version
    return version


def older(server, floor):
    version = max(0, floor // 2)
    at, lines = query(server, {"version": version})
    assert at == version and sorted(names(lines)) == files_of(version)
    return floor


def poll(server, _):
    answered = server.request("GET", f"{PATH}/version", timeout=PATIENCE)
    assert answered.status == 200, answered.body
    return int(answered.headers["delta-table-version"])


def changes(server, floor):
    first = max(1, floor - 8)
    answered = server.request("GET", f"{PATH}/changes?startingVersion={first}&endingVersion={floor}", timeout=PATIENCE)
    found = [(kind, line[kind]["version"]) for line in lines_of(answered) for kind in ("add", "remove") if kind in line]
    wanted = [(kind, version) for version in range(first, floor + 1) for kind in ("add", "remove")
              if kind == "add" or version > WINDOW]
    assert sorted(found) == sorted(wanted)
    return floor


READERS = {
    "parquet": whole(None), "delta": whole(DELTA), "gzip": whole({"Accept-Encoding": "gzip"}),
    "delta and gzip": whole({**DELTA, "Accept-Encoding": "gzip"}), "pages": pages, "an older version": older, "a poll": poll,
    "changes": changes,
}


def test_a_thousand_commits_under_eight_readers(server, moving):
    over, failures, answers = threading.Event(), [], dict.fromkeys(READERS, 0)

    def follow(name):
        last = 0
        try:
            while not failures and (last < COMMITS or not over.is_set()):
                floor = max(last, moving.version)
                version = READERS[name](server, floor)
                assert version >= floor, f"version {version} after version {floor}"
                last = version
                answers[name] += 1
        except Exception as failure:  # noqa: BLE001
            failures.append((name, failure))
            over.set()

    readers = [threading.Thread(target=follow, args=(name,)) for name in READERS]
    for reader in readers:
        reader.start()
    while moving.version < COMMITS and not over.wait(0.01):
        # On a busy machine too, all of them read while it changes.
        if min(answers.values()) * COMMITS >= ANSWERS * (moving.version - COMMITS // 10):
            moving.commit()
    over.set()
    for reader in readers:
        reader.join(PATIENCE)
    print(answers)
    assert not failures, failures
    assert moving.version == COMMITS and min(answers.values()) >= ANSWERS * 9 // 10, answers
