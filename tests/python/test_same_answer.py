"""An answer depends on the table and the question: not on who asked what before, not on which of several servers is
asked, and not on a checksum or a checkpoint that has come since."""

import concurrent.futures
import gzip
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import threading
import time

import pytest
from deltalake import DeltaTable

from conftest import Server, TOKEN, hash_of

TABLE = "/shares/all/schemas/spark/tables/"
EVERY_FEATURE = (
    "readerfeatures=deletionvectors,columnmapping,timestampntz,typewidening,typewidening-preview,varianttype,"
    "varianttype-preview,variantshredding,variantshredding-preview,geospatial"
)
CAPABILITIES = {
    "none": None,
    "parquet": "responseformat=parquet",
    "delta": "responseformat=delta",
    "delta with features": f"responseformat=delta;{EVERY_FEATURE}",
    "both": f"responseformat=delta,parquet;{EVERY_FEATURE}",
}
FORMS = ("parquet", "delta with features")

# What is another one each time: addresses and signatures, when URLs end, and tokens.
NEW_EACH_TIME = [
    (re.compile(r'http://127\.0\.0\.1:\d+/deltashare-local/[0-9a-f]{32}([^"?]*)\?[^"]*'), r"http://server\1"),
    (re.compile(r'"(expirationTimestamp|minUrlExpirationTimestamp)":\d+'), r'"\1":0'),
    (re.compile(r'"(nextPageToken|refreshToken|queryId|requestId)":"[^"]*"'), r'"\1":"x"'),
]
HEADERS_OF_EACH = {"date", "x-request-id", "content-length"}


class Asked:
    """One question, with or without pages; `ask` gives what must be the same in every answer."""

    def __init__(self, table, path, body=None, capabilities="none", packed=False, pages=None):
        self.table, self.path, self.body, self.capabilities = table, path, body, capabilities
        self.packed, self.pages = packed, pages

    def __repr__(self):
        method = "GET" if self.body is None else "POST"
        more = (" gzip" if self.packed else "") + (f" pages of {self.pages}" if self.pages else "")
        return f"{method} {self.table}/{self.path} {self.body or ''} [{CAPABILITIES[self.capabilities]}]{more}"

    def request(self, server, paging=None):
        headers = {"Accept-Encoding": "gzip"} if self.packed else {}
        if CAPABILITIES[self.capabilities]:
            headers["delta-sharing-capabilities"] = CAPABILITIES[self.capabilities]
        path, body = self.path, self.body
        if body is None:
            path += "".join(f"&{key}={value}" for key, value in (paging or {}).items())
            return server.request("GET", f"{TABLE}{self.table}/{path}", headers=headers)
        body = json.dumps({**body, **(paging or {})}).encode()
        return server.request("POST", f"{TABLE}{self.table}/{path}", body=body, headers=headers)

    def ask(self, *servers):
        """Of every page: status, headers and lines. The pages go to the servers in turn."""
        if self.pages is None:
            return [same(self.request(servers[0]))]
        found, token = [], None
        while True:
            answer = self.request(servers[len(found) % len(servers)], paging(self.pages, token))
            found.append(same(answer))
            token = next_token(answer)
            if token is None:
                return found


def paging(size, token):
    return {"maxFiles": size, **({"pageToken": token} if token else {})}


def text_of(answer):
    body = answer.body
    if answer.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return body.decode()


def same(answer):
    text = text_of(answer)
    for pattern, put in NEW_EACH_TIME:
        text = pattern.sub(put, text)
    headers = {key: value for key, value in answer.headers.items() if key not in HEADERS_OF_EACH}
    return answer.status, headers, text.split("\n")


def next_token(answer):
    if answer.status != 200:
        return None
    last = json.loads(text_of(answer).rstrip("\n").rpartition("\n")[2])
    return last["endStreamAction"].get("nextPageToken")


def newest(directory):
    return max(int(path.name[:20]) for path in (directory / "_delta_log").glob("*.json")
               if re.fullmatch(r"\d{20}\.json", path.name))


def questions(name, directory):
    """Everything that is asked of one table."""
    last = newest(directory)
    for path in ("version", "version?startingTimestamp=2024-01-01T00:30:00Z"):
        yield Asked(name, path)
    for capabilities in CAPABILITIES:
        yield Asked(name, "metadata", capabilities=capabilities)
        yield Asked(name, "query", {}, capabilities)
    feed = "changes?startingVersion={}&endingVersion={}{}"
    history = "&includeHistoricalMetadata=true", "&includeHistoricalProtocol=true"
    for form in FORMS:
        yield Asked(name, f"metadata?version={last // 2}", capabilities=form)
        for body in ({"version": last}, {"version": last // 2}, {"timestamp": "2024-01-01T01:30:00Z"}, {"limitHint": 1},
                     {"startingVersion": 0}, {"startingVersion": last // 2, "endingVersion": last},
                     {"startingVersion": last, "includeHistoricalProtocol": True}):
            yield Asked(name, "query", body, form)
        for first, end in {(0, last), (last // 2, last), (min(1, last), last // 2 + 1)}:
            for more in ("", history[0], "".join(history)):
                yield Asked(name, feed.format(first, end, more), capabilities=form)
        yield Asked(name, "query", {}, form, packed=True)
        yield Asked(name, feed.format(0, last, history[0]), capabilities=form, packed=True)
        small, large = (40, 120) if name == "py_many_files" else (1, 3)
        yield Asked(name, "query", {}, form, pages=small)
        yield Asked(name, feed.format(0, last, history[0]), capabilities=form, pages=small)
        yield Asked(name, "query", {"version": last // 2}, form, pages=large)
        yield Asked(name, "query", {"startingVersion": 0}, form, pages=large)
        yield Asked(name, feed.format(0, last, ""), capabilities=form, pages=large)


def lines_of(pages):
    """The lines of an answer: the head of the first page, the files of all."""
    lines = []
    for status, headers, page in pages:
        assert status == 200, page
        assert page[:2] == pages[0][2][:2] and page[-1] == ""
        lines += [line for line in page[2:-1] if not line.startswith('{"endStreamAction"')]
    return pages[0][2][:2] + lines


def serve_twice(path, tables, shared=None):
    """Two servers with one share file and one key, as behind one URL."""
    shares = shared or path / "shares.yaml"
    if shared is None:
        entries = [{"name": name, "location": str(directory), "historyShared": True} for name, directory in tables.items()]
        shares.write_text(json.dumps({
            "version": 1,
            "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": entries}]}],
            "recipients": [{"name": "a", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
        }))
    return [Server("--shares", shares, "--token-key", path / "token.key") for _ in range(2)]


def test_whoever_asked_before(tables, share_file, tmp_path):
    asked = [question for name, directory in tables.items() for question in questions(name, directory)]
    one, other = serve_twice(tmp_path, tables, share_file)
    try:
        first = [question.ask(one) for question in asked]
        whole = {(question.table, question.path, json.dumps(question.body), question.capabilities): answer
                 for question, answer in zip(asked, first) if question.pages is None and not question.packed}
        statuses = {answer[0][0] for answer in first}
        assert statuses == {200, 400}, statuses
        for question, pages in zip(asked, first):
            # Pages, and what is packed, are the whole answer in other words.
            answer = whole.get((question.table, question.path, json.dumps(question.body), question.capabilities))
            if answer and pages[0][0] == 200:
                assert lines_of(pages) == lines_of(answer), question
            elif answer:
                assert pages[0][0] == answer[0][0] and pages[0][2] == answer[0][2], question
        differing = []
        # Another server in another order; the first one again; and pages from both in turn.
        for seed, servers, share in ((1, (other,), 1), (2, (one,), 0.4), (3, (other, one), 0.5)):
            order = [index for index, question in enumerate(asked) if question.pages or len(servers) == 1]
            for index in random.Random(seed).sample(order, int(len(order) * share)):
                if asked[index].ask(*servers) != first[index]:
                    differing.append((seed, asked[index]))
        assert not differing, f"{len(differing)} of {len(asked)}: {differing[:20]}"
    finally:
        codes = [server.stop() for server in (one, other)]
    assert codes == [0, 0] and not any("panicked" in line for server in (one, other) for line in server.log)


# What comes to a table between the pages of an answer

ARRIVALS = ["py_versions", "py_many_files", "py_merged", "py_odd_partitions", "change_data_feed", "change_data_feed_mapped",
            "deletion_vectors", "deletion_vectors_off", "column_mapping_name", "in_commit_timestamps", "row_tracking",
            "odd_partitions", "v2_checkpoint_parquet", "multi_part_checkpoint", "schema_evolution"]


def replay(log, last):
    """The protocol, the metadata and the files of a version whose commits are all there; None where they are not."""
    protocol = metadata = None
    files = {}
    for version in range(last + 1):
        path = log / f"{version:020}.json"
        if not path.exists():
            return None
        for line in path.read_text().splitlines():
            action = json.loads(line)
            protocol = action.get("protocol", protocol)
            metadata = action.get("metaData", metadata)
            for kind in ("remove", "add"):
                if kind in action:
                    file = action[kind]
                    vector = file.get("deletionVector") or {}
                    key = file["path"], vector.get("pathOrInlineDv"), vector.get("offset")
                    files.pop(key, None)
                    if kind == "add":
                        files[key] = file
    return protocol, metadata, list(files.values())


def write_checksum(log, version):
    found = replay(log, version)
    if found is None:
        return False
    protocol, metadata, files = found
    vectors = [file["deletionVector"] for file in files if file.get("deletionVector")]
    checksum = {
        "tableSizeBytes": sum(file["size"] for file in files), "numFiles": len(files), "numMetadata": 1, "numProtocol": 1,
        "numDeletionVectorsOpt": len(vectors), "numDeletedRecordsOpt": sum(vector["cardinality"] for vector in vectors),
        "metadata": metadata, "protocol": protocol,
    }
    commit = (log / f"{version:020}.json").read_text().splitlines()
    for line in commit:
        time = json.loads(line).get("commitInfo", {}).get("inCommitTimestamp")
        if time is not None:
            checksum["inCommitTimestampOpt"] = time
    (log / f"{version:020}.crc").write_text(json.dumps(checksum))
    return True


def append(directory):
    """Another commit, which adds one of the files again under another name."""
    log = directory / "_delta_log"
    last = newest(directory)
    time = 4102444800000 + last
    info = {"commitInfo": {"inCommitTimestamp": time, "timestamp": time, "operation": "WRITE", "operationParameters": {}}}
    found = replay(log, last)
    partitions = found[1]["partitionColumns"] if found else []
    add = {"path": f"appended-{last}.parquet", "partitionValues": {name: None for name in partitions}, "size": 1,
           "modificationTime": time, "dataChange": True}
    text = "\n".join(map(json.dumps, (info, {"add": add}))) + "\n"
    made = log / "made.tmp"
    made.write_text(text)
    made.rename(log / f"{last + 1:020}.json")


def checkpoint(directory):
    """A checkpoint, where the package can read the table."""
    try:
        DeltaTable(str(directory)).create_checkpoint()
        return True
    except Exception:
        return False


@pytest.fixture(scope="module")
def arriving(tables, tmp_path_factory):
    """Copies without checksums, and three servers over them; the third one only tells the whole answers."""
    root = tmp_path_factory.mktemp("arriving")
    copies = {}
    for name in ARRIVALS:
        shutil.copytree(tables[name], root / name)
        log = root / name / "_delta_log"
        for path in log.glob("*.crc"):
            path.unlink()
        # Old commits would be cleaned up by who writes the checkpoint.
        for path in log.glob("*.json"):
            if re.fullmatch(r"\d{20}\.json", path.name):
                when = time.time() - 3600 + int(path.stem)
                os.utime(path, (when, when))
        copies[name] = root / name
    servers = serve_twice(root, copies)
    servers.append(Server("--shares", root / "shares.yaml", "--token-key", root / "token.key"))
    yield copies, servers
    assert [server.stop() for server in servers] == [0, 0, 0]


@pytest.mark.parametrize("name", ARRIVALS)
def test_whatever_came_since(arriving, name):
    copies, (one, other, third) = arriving
    directory = copies[name]
    log = directory / "_delta_log"
    last = newest(directory)
    size = 40 if name == "py_many_files" else 1
    asked = [
        Asked(name, *question, capabilities=form, pages=size)
        for form in FORMS
        for question in (("query", {}), ("query", {"version": last}), ("query", {"startingVersion": 0}),
                         ("changes?startingVersion=0", None), ("changes?startingVersion=0&includeHistoricalMetadata=true", None))
    ]
    # Each first page is asked for before anything comes, and the page after it before and after each arrival.
    started = []
    for question in asked:
        whole = same(Asked(name, question.path, question.body, question.capabilities).request(third))
        answer = question.request(one, paging(size, None))
        assert answer.status == whole[0], (question, answer.body)
        if answer.status == 200:
            started.append((question, whole, [same(answer)], next_token(answer)))
    assert started

    arrivals = [
        lambda: write_checksum(log, last),
        lambda: append(directory),
        lambda: checkpoint(directory),
        lambda: write_checksum(log, last + 1),
        lambda: append(directory),
    ]
    for number, arrive in enumerate(arrivals):
        arrive()
        going_on = []
        for question, whole, pages, token in started:
            if token is not None:
                server = (other, one)[number % 2]
                answer = question.request(server, paging(size, token))
                assert answer.status == 200, (question, number, answer.body)
                pages.append(same(answer))
                token = next_token(answer)
            going_on.append((question, whole, pages, token))
        started = going_on
    for question, whole, pages, token in started:
        while token is not None:
            answer = question.request((one, other)[len(pages) % 2], paging(size, token))
            assert answer.status == 200, (question, answer.body)
            pages.append(same(answer))
            token = next_token(answer)
        assert lines_of(pages) == lines_of([whole]), question
    # The version itself is what it was, to whoever asks only now.
    for form in FORMS:
        question = Asked(name, "query", {"version": last}, form)
        assert question.ask(one) == question.ask(other) == question.ask(third), question


# Readers while a writer writes

def file_ids(lines, form):
    digest = hashlib.md5 if form == "parquet" else hashlib.sha256
    found = []
    for line in lines:
        (kind, file), = json.loads(line).items()
        if "deltaSingleAction" in file:
            (kind, _), = file["deltaSingleAction"].items()
        found.append((kind, file.get("version"), file["id"]))
    return digest, found


class Writer:
    """Commits that add and remove files; what each one did, and which files each version has."""

    def __init__(self, directory, seed):
        self.log = directory / "_delta_log"
        self.log.mkdir(parents=True)
        self.directory = directory
        self.random = random.Random(seed)
        self.active, self.versions, self.changes = [], [], []
        schema = {"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]}
        self.commit([
            {"protocol": {"minReaderVersion": 1, "minWriterVersion": 4}},
            {"metaData": {"id": "6f1c0f0e-0b1e-4d2f-9d3c-2f1d0f5c8a11", "format": {"provider": "parquet", "options": {}},
                          "schemaString": json.dumps(schema), "partitionColumns": [], "createdTime": 0,
                          "configuration": {"delta.enableChangeDataFeed": "true"}}},
        ], added=5)

    def commit(self, first=(), added=None):
        version = len(self.versions)
        added = self.random.randint(0, 3) if added is None else added
        removed = self.random.sample(self.active, min(len(self.active), self.random.randint(0, 2)) if version else 0)
        moves_only = bool(version) and self.random.random() < 0.2
        new = [f"part-{version:03}-{number}.parquet" for number in range(added)]
        actions = list(first) + [{"commitInfo": {"timestamp": version, "operation": "WRITE"}}]
        actions += [{"remove": {"path": path, "deletionTimestamp": 1, "dataChange": not moves_only, "size": 1,
                                "extendedFileMetadata": True, "partitionValues": {}}} for path in removed]
        actions += [{"add": {"path": path, "partitionValues": {}, "size": 1, "modificationTime": 1,
                             "dataChange": not moves_only}} for path in new]
        self.active = [path for path in self.active if path not in removed] + new
        self.versions.append(set(self.active))
        kept = [] if moves_only else [("add", version, path) for path in new] + [("remove", version, path) for path in removed]
        self.changes.append(kept)
        made = self.log / "made.tmp"
        made.write_text("\n".join(map(json.dumps, actions)) + "\n")
        made.rename(self.log / f"{version:020}.json")


def test_readers_page_while_a_writer_writes(tmp_path):
    writer = Writer(tmp_path / "t", 5)
    for _ in range(5):
        writer.commit()
    servers = serve_twice(tmp_path, {"t": tmp_path / "t"})
    done, until = threading.Event(), time.monotonic() + 20
    answers = [0]

    def read(number):
        choose = random.Random(number)
        form = FORMS[number % 2]
        feed = number % 3 == 2
        while not done.is_set():
            known = len(writer.versions) - 1
            question = Asked("t", *(("changes?startingVersion=0", None) if feed else ("query", {})), capabilities=form)
            token, lines, versions, heads = None, [], set(), set()
            while True:
                answer = question.request(choose.choice(servers), paging(2, token))
                assert answer.status == 200, (question, answer.body)
                page = text_of(answer).split("\n")
                versions.add(answer.headers["delta-table-version"])
                heads.add(tuple(page[:2]))
                lines += page[2:-2]
                token = next_token(answer)
                if token is None:
                    break
                time.sleep(choose.random() / 100)
            assert len(heads) == len(versions) == 1
            digest, found = file_ids(lines, form)
            assert len(found) == len(set(found))
            identify = lambda path: digest(path.encode()).hexdigest()  # noqa: E731
            upto = len(writer.versions)
            if not feed:
                version = int(versions.pop())
                assert known <= version < upto
                assert {file for _, _, file in found} == {identify(path) for path in writer.versions[version]}, version
            else:
                kind = lambda name: {"cdf": "cdc"}.get(name, name)  # noqa: E731
                got = {(kind(name), version, file) for name, version, file in found}
                whole = [{(name, at, identify(path)) for commit in writer.changes[: end + 1] for name, at, path in commit}
                         for end in range(known, upto)]
                assert got in whole, f"{len(got)} changes are those of no version from {known} to {upto}"
            answers[0] += 1

    try:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            readers = [pool.submit(read, number) for number in range(6)]
            try:
                for number in itertools.count():
                    writer.commit()
                    if number % 10 == 9:
                        assert checkpoint(writer.directory)
                    late = time.monotonic() - until
                    if any(reader.done() for reader in readers) or (answers[0] > 12 and (number >= 59 or late > 0)) or late > 100:
                        break
                    time.sleep(0.15)
            finally:
                done.set()
            for reader in readers:
                reader.result()
        assert answers[0] > 12
    finally:
        codes = [server.stop() for server in servers]
    assert codes == [0, 0] and not any("panicked" in line for server in servers for line in server.log)
