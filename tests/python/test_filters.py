"""Filters of tables and grants: whatever a recipient asks for, it gets what is left of the whole answer after everything else was
taken out, and nothing tells it that there is more."""

import base64
import datetime
import json
import re
import subprocess
import urllib.parse

import delta_sharing
import pyarrow
import pytest
from deltalake import DeltaTable, write_deltalake

from conftest import BINARY, Server, hash_of, set_commit_times, write_profile

UTC = datetime.timezone.utc
FEATURES = ("readerfeatures=deletionvectors,columnmapping,timestampntz,typewidening,typewidening-preview,varianttype,"
            "varianttype-preview,variantshredding,variantshredding-preview,geospatial")
PARQUET, DELTA = {}, {"delta-sharing-capabilities": f"responseformat=delta;{FEATURES}"}
FORMATS = {"parquet": PARQUET, "delta": DELTA}
# Of the test tables, those that are partitioned.
PARTITIONED = [
    "change_data_feed_mapped", "column_mapping_name", "multi_part_checkpoint", "no_stats_in_checkpoint", "odd_partitions",
    "v2_checkpoint_json", "v2_checkpoint_parquet",
]


def token(recipient):
    return f"dss_test-recipient-of-filters-{recipient}"


def recipient(name, *shares, **more):
    return {"name": name, "shares": list(shares), "tokens": [{"sha256": hash_of(token(name)), "expires": "never"}], **more}


def sales(path):
    """Three regions, appended, updated, deleted and compacted, with a change data feed."""
    def rows(first, count):
        numbers = range(first, first + count)
        return pyarrow.table({
            "id": pyarrow.array(numbers, pyarrow.int64()),
            "region": pyarrow.array([("EU", "US", "APAC", None)[number % 4] for number in numbers], pyarrow.string()),
            "day": pyarrow.array([datetime.date(2024, 5, 1 + number % 3) for number in numbers], pyarrow.date32()),
            "amount": pyarrow.array([number * 10 for number in numbers], pyarrow.int64()),
        })

    write_deltalake(path, rows(0, 60), partition_by=["region", "day"], configuration={"delta.enableChangeDataFeed": "true"})
    write_deltalake(path, rows(60, 60), mode="append")
    DeltaTable(path).update({"amount": "amount + 1"}, predicate="id % 5 = 0")
    DeltaTable(path).delete("id % 7 = 0")
    DeltaTable(path).optimize.compact()
    write_deltalake(path, rows(120, 24), mode="append")
    set_commit_times(path)
    return path


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return {"sales": sales(tmp_path_factory.mktemp("filtered") / "sales")}


def share(name, lake, filters=None):
    tables = [{"name": table, "location": str(path), "historyShared": True, **({"filter": filters[table]} if filters else {})}
              for table, path in lake.items() if not filters or table in filters]
    return {"name": name, "schemas": [{"name": "s", "tables": tables}]}


def first_partition_column(path):
    for commit in sorted((path / "_delta_log").glob("*.json")):
        for line in commit.read_text().splitlines():
            columns = "metaData" in line and json.loads(line).get("metaData", {}).get("partitionColumns")
            if columns:
                return columns[0]
    raise AssertionError(f"{path} is not partitioned")


@pytest.fixture(scope="module")
def catalog(lake, tmp_path_factory):
    """`all` has everything, `eu` what a filter of the table leaves, and recipients with grants that are filtered."""
    shares = {
        "version": 1,
        "shares": [
            share("all", lake),
            share("eu", lake, {"sales": "region = 'EU'"}),
            share("own", lake, {"sales": "region = ${recipient.region}"}),
            share("unfit", lake, {"sales": "country = 'EU'"}),
            share("unpartitioned", lake, {"sales": "amount = 10"}),
        ],
        "recipients": [
            recipient("everything", "all", "eu", "own", "unfit", "unpartitioned"),
            recipient("granted", {"name": "all", "filter": "region = 'EU'"}),
            recipient("acme", "own", {"name": "all", "filter": "region = ${recipient.region}"}, properties={"region": "EU"}),
            recipient("globex", "own", properties={"region": "US"}),
            recipient("both", {"name": "eu", "filter": "day = '2024-05-02'"}),
            recipient("contradiction", {"name": "eu", "filter": "region = 'US'"}),
        ],
    }
    path = tmp_path_factory.mktemp("filters") / "shares.yaml"
    path.write_text(json.dumps(shares))
    return path


@pytest.fixture(scope="module")
def server(catalog):
    server = Server("--shares", catalog)
    yield server
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


class Reader:
    """A recipient that reads one table of one share."""

    def __init__(self, server, name, share, table="sales", headers=PARQUET):
        self.server, self.token, self.table, self.headers = server, token(name), f"/shares/{share}/schemas/s/tables/{table}", headers

    def get(self, path, status=200, **more):
        answer = self.server.request("GET", self.table + path, token=self.token, headers={**self.headers, **more})
        assert answer.status == status, answer.body
        return answer

    def post(self, body, path="/query", status=200, **more):
        answer = self.server.request("POST", self.table + path, body=json.dumps(body).encode(), token=self.token,
                                     headers={**self.headers, **more})
        assert answer.status == status, answer.body
        return answer

    def changes(self, status=200, **parameters):
        return self.get("/changes?" + urllib.parse.urlencode(parameters), status)


def parts(lines):
    """What a line of a file says, in either format."""
    found = []
    for line in lines:
        wrapper = line.get("file") or next((line[kind] for kind in ("add", "remove", "cdf", "cdc") if kind in line), None)
        if wrapper is not None:
            single = wrapper.get("deltaSingleAction", {})
            found.append(next(iter(single.values())) if single else wrapper)
    return found


def values(lines):
    return sorted({part["partitionValues"]["region"] for part in parts(lines)}, key=str)


def stable(lines, keep=lambda values: True):
    """Lines of files without what is another one each time, in their order."""
    found = []
    for line in lines:
        text = json.dumps(line, sort_keys=True)
        if "metaData" in line or "protocol" in line or "endStreamAction" in line:
            continue
        (part,) = parts([line])
        if keep(part["partitionValues"]):
            text = re.sub(r'"http://127[^"]*/deltashare-local/[0-9a-f]{32}([^"?]*)\?[^"]*"', r'"\1"', text)
            found.append(re.sub(r'"expirationTimestamp": \d+', "", text))
    return found


def metadata(lines):
    (found,) = [line["metaData"] for line in lines if "metaData" in line]
    return found


def sizes(lines):
    return sum(part["size"] for part in parts(lines))


EU = ("eu", "everything"), ("all", "granted"), ("all", "acme"), ("own", "acme")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share,name", EU)
def test_every_answer_is_what_is_left_of_the_whole_one(server, share, name, form):
    mine = Reader(server, name, share, headers=FORMATS[form])
    whole = Reader(server, "everything", "all", headers=FORMATS[form])
    is_mine = lambda values: values["region"] == "EU"  # noqa: E731
    asked = [lambda reader, body=body: reader.post(body).lines for body in (
        {}, {"version": 0}, {"version": 1}, {"version": 2}, {"version": 3}, {"version": 4},
        {"timestamp": "2024-01-01T02:30:00Z"}, {"startingVersion": 0}, {"startingVersion": 2}, {"startingVersion": 1, "endingVersion": 3},
        {"predicateHints": ["day = '2024-05-01'"]}, {"jsonPredicateHints": json.dumps({"op": "isNull", "children": [
            {"op": "column", "name": "region", "valueType": "string"}]})}, {"includeRefreshToken": True},
    )]
    asked += [lambda reader, bounds=bounds: reader.changes(**bounds).lines for bounds in (
        {"startingVersion": 0}, {"startingVersion": 2, "endingVersion": 3}, {"startingVersion": 1, "includeHistoricalMetadata": "true"},
        {"startingTimestamp": "2024-01-01T01:30:00Z"},
    )]
    some = 0
    for ask in asked:
        expected = stable(ask(whole), is_mine)
        lines = ask(mine)
        assert stable(lines) == expected
        some += len(expected)
        assert values(lines) in ([], ["EU"])
    assert some > 50


@pytest.mark.parametrize("share,name", EU)
def test_sizes_are_of_what_is_shared(server, share, name):
    mine, whole = (Reader(server, who, of, headers=DELTA) for who, of in ((name, share), ("everything", "all")))
    lines = mine.post({}).lines
    told = metadata(lines)
    assert (told["size"], told["numFiles"]) == (sizes(lines), len(parts(lines)))
    assert told["numFiles"] < metadata(whole.post({}).lines)["numFiles"]
    for headers in (DELTA, {**PARQUET, "User-Agent": "Delta-Sharing-Spark/3.3"}):
        mine.headers = headers
        told = metadata(mine.get("/metadata").lines)
        assert (told["size"], told["numFiles"]) == (sizes(lines), len(parts(lines)))
    mine.headers = PARQUET
    assert "size" not in metadata(mine.get("/metadata").lines)
    assert "size" not in metadata(mine.post({}).lines)


@pytest.mark.parametrize("form", FORMATS)
def test_pages_have_the_files_of_one_answer(server, form):
    mine = Reader(server, "acme", "own", headers=FORMATS[form])
    bodies = [{}, {"version": 1}, {"startingVersion": 0}]
    for body in bodies:
        whole = mine.post(body).lines
        for size in (1, 2, 3, 100):
            found, page, pages = [], None, 0
            while page is not None or not pages:
                lines = mine.post({**body, "maxFiles": size, **({"pageToken": page} if page else {})}).lines
                assert len(parts(lines)) <= size and (len(parts(lines)) == size or "nextPageToken" not in lines[-1]["endStreamAction"])
                if form == "delta" and body != {"startingVersion": 0}:
                    assert metadata(lines)["numFiles"] == len(parts(whole))
                found += stable(lines)
                page, pages = lines[-1]["endStreamAction"].get("nextPageToken"), pages + 1
            assert found == stable(whole) and pages >= len(found) / size
    # The same of changes.
    whole, found, page = mine.changes(startingVersion=0).lines, [], None
    while True:
        lines = mine.changes(startingVersion=0, maxFiles=2, **({"pageToken": page} if page else {})).lines
        found += stable(lines)
        page = lines[-1]["endStreamAction"].get("nextPageToken")
        if page is None:
            break
    assert found == stable(whole)


def test_a_page_token_tells_nothing_of_other_files(server):
    mine = Reader(server, "acme", "own")
    first = mine.post({"maxFiles": 1}).lines[-1]["endStreamAction"]["nextPageToken"]
    payload = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))[:-16]
    assert json.loads(payload)["c"]["p"] == 1, "how many files come before the page, of those that are shared"


def test_refreshed_and_asynchronous_answers(server):
    mine = Reader(server, "acme", "own")
    first = mine.post({"includeRefreshToken": True}).lines
    again = mine.post({"refreshToken": first[-1]["endStreamAction"]["refreshToken"]}).lines
    assert stable(again) == stable(first) and values(again) == ["EU"]
    mine.headers = {"delta-sharing-capabilities": "asyncquery=true"}
    submitted = server.request("POST", mine.table + "/query", body=b"{}", token=mine.token, headers=mine.headers)
    query = re.search(r'"queryId":"([^"]+)"', submitted.body.decode())[1]
    lines = mine.post({}, f"/queries/{query}").lines
    assert stable(lines) == stable(first)
    for other in ("globex", "everything"):
        other = Reader(server, other, "own")
        other.post({"refreshToken": first[-1]["endStreamAction"]["refreshToken"]}, status=400)
        other.headers = mine.headers
        other.post({}, f"/queries/{query}", status=404)


def test_limits_count_shared_rows_only(server):
    mine = Reader(server, "acme", "own")
    lines = mine.post({"limitHint": 1}).lines
    assert len(parts(lines)) == 1 and values(lines) == ["EU"]
    assert stable(mine.post({"limitHint": 10_000}).lines) == stable(mine.post({}).lines)


def test_recipients_do_not_see_each_other(server):
    """The same warm table, by turns."""
    for _ in range(3):
        for name, region in (("acme", "EU"), ("globex", "US")):
            assert values(Reader(server, name, "own").post({}).lines) == [region]
            assert values(Reader(server, name, "own", headers=DELTA).post({}).lines) == [region]
            assert values(Reader(server, name, "own").changes(startingVersion=0).lines) == [region]


@pytest.fixture(scope="module")
def bytes_kept(catalog):
    """What the table keeps after a query, as the log says when nothing may be kept."""
    nothing = Server("--shares", catalog, "--limit", "cache_bytes=0")
    Reader(nothing, "acme", "own").post({})
    line = nothing.wait_for_log("a table is no longer kept")
    assert nothing.stop() == 0
    return int(re.search(r"freed_bytes=(\d+)", line)[1])


@pytest.mark.parametrize("cache", ["everything", "nothing", "no paused lists"])
def test_recipients_who_page_by_turns_get_only_theirs(server, catalog, bytes_kept, cache):
    """The same warm table, with lists that are paused, given up, or dropped with the table."""
    limit = {"everything": 64 << 20, "nothing": 0, "no paused lists": bytes_kept + 1000}[cache]
    small = Server("--shares", catalog, "--limit", f"cache_bytes={limit}")
    cases = [(name, form, what) for what in ("files", "changes") for form in FORMATS
             for name, share in (("acme", "own"), ("globex", "own"), ("everything", "all"))]
    shares = {"acme": "own", "globex": "own", "everything": "all"}

    def page(mine, what, token):
        more = {"pageToken": token} if token else {}
        if what == "files":
            return mine.post({"maxFiles": 1, **more}).lines
        return mine.changes(startingVersion=0, maxFiles=1, **more).lines

    try:
        found, tokens = {case: [] for case in cases}, dict.fromkeys(cases)
        left = list(cases)
        while left:
            for case in list(left):
                name, form, what = case
                lines = page(Reader(small, name, shares[name], headers=FORMATS[form]), what, tokens[case])
                found[case] += stable(lines)
                tokens[case] = lines[-1]["endStreamAction"].get("nextPageToken")
                if tokens[case] is None:
                    left.remove(case)
        for (name, form, what), paged in found.items():
            whole = Reader(server, name, shares[name], headers=FORMATS[form])
            lines = whole.post({}).lines if what == "files" else whole.changes(startingVersion=0).lines
            assert len(paged) > 1 and paged == stable(lines), (name, form, what)
        log = "".join(small.log)
        assert ("paused lists of a table are no longer kept" in log) == (cache != "everything")
        assert ("a table is no longer kept" in log) >= (cache == "nothing")
    finally:
        assert small.stop() == 0
    assert "panicked" not in "".join(small.log)


def test_filters_of_the_table_and_the_grant_both_hold(server):
    lines = Reader(server, "both", "eu").post({}).lines
    assert parts(lines) and all(part["partitionValues"] == {"region": "EU", "day": "2024-05-02"} for part in parts(lines))
    assert not parts(Reader(server, "contradiction", "eu").post({}).lines)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share,reason", [
    ("own", "the recipient has no property region"),
    ("unfit", "the table has no column country"),
    ("unpartitioned", "the table is not partitioned by the column amount"),
])
def test_what_does_not_fit_shares_nothing_and_says_so_to_the_provider(server, share, reason, form):
    mine = Reader(server, "everything", share, headers=FORMATS[form])
    for lines in (mine.post({}).lines, mine.post({"version": 1}).lines, mine.post({"startingVersion": 0}).lines,
                  mine.changes(startingVersion=0).lines, mine.post({"limitHint": 5}).lines):
        assert not parts(lines) and "metaData" in lines[1]
        text = json.dumps(lines)
        assert "filter" not in text and "property" not in text and "country" not in text
    if form == "delta":
        assert (metadata(mine.post({}).lines)["size"], metadata(mine.post({}).lines)["numFiles"]) == (0, 0)
    assert f"{share}.s.sales" in server.wait_for_log(reason)


def test_every_route_without_any_other_region(server):
    """Whatever is asked, nothing that it answers with has a name of another region, or of a file there."""
    whole = Reader(server, "everything", "all", headers=DELTA)
    others = {part["path"] if "path" in part else part["url"] for part in parts(whole.post({"startingVersion": 0}).lines)
              if part["partitionValues"]["region"] != "EU"}
    names = {urllib.parse.urlsplit(other).path.rsplit("/", 1)[1] for other in others}
    assert len(names) > 20
    for headers in FORMATS.values():
        mine = Reader(server, "acme", "own", headers=headers)
        answers = [
            mine.get("/version"), mine.get("/metadata"), mine.post({}), mine.post({"version": 0}), mine.post({"startingVersion": 0}),
            mine.changes(startingVersion=0), mine.changes(startingVersion=0, includeHistoricalMetadata="true"),
            mine.post({"maxFiles": 1}), mine.post({}, "/temporary-table-credentials", status=403),
        ]
        for answer in answers:
            text = answer.body.decode() + json.dumps(answer.headers)
            assert not any(name in text for name in names) and "APAC" not in text and "US" not in re.findall(r"region=(\w+)", text)
    for path in ("/shares/own/schemas/s/tables", "/shares/own/all-tables"):
        (item,) = server.request("GET", path, token=token("acme")).json["items"]
        assert set(item) == {"name", "schema", "share", "shareId", "id"}


def test_the_directory_is_refused(server):
    mine = Reader(server, "granted", "all")
    mine.post({}, "/temporary-table-credentials", status=403)


def test_the_python_client_reads_what_is_shared(server, tmp_path):
    profile = write_profile(tmp_path / "acme.share", server.endpoint, token("acme"))
    everything = write_profile(tmp_path / "all.share", server.endpoint, token("everything"))
    mine = delta_sharing.load_as_pandas(f"{profile}#own.s.sales")
    whole = delta_sharing.load_as_pandas(f"{everything}#all.s.sales")
    expected = whole[whole["region"] == "EU"]
    assert sorted(mine["id"]) == sorted(expected["id"]) and set(mine["region"]) == {"EU"}
    changes = delta_sharing.load_table_changes_as_pandas(f"{profile}#own.s.sales", starting_version=0)
    all_changes = delta_sharing.load_table_changes_as_pandas(f"{everything}#all.s.sales", starting_version=0)
    all_changes = all_changes[all_changes["region"] == "EU"]
    key = ["id", "_change_type", "_commit_version"]
    assert sorted(map(tuple, changes[key].values)) == sorted(map(tuple, all_changes[key].values)) and len(changes)


def quoted(value):
    return "'" + value.replace("'", "''") + "'"


def everything(reader):
    """The answers that a table has, by what is asked."""
    asked = {
        "files": ("POST", "/query", b"{}"), "since": ("POST", "/query", b'{"startingVersion": 0}'),
        "changes": ("GET", "/changes?startingVersion=0", None),
    }
    found = {}
    for what, (method, path, body) in asked.items():
        answer = reader.server.request(method, reader.table + path, body=body, token=reader.token, headers=reader.headers)
        if answer.status == 200:
            found[what] = answer.lines
    return found


def test_tables_of_other_writers(tables, tmp_path):
    """Column mapping, checkpoints of every kind, odd values: what is left of the whole answer."""
    columns = {name: first_partition_column(tables[name]) for name in PARTITIONED}
    entries = {name: tables[name] for name in PARTITIONED}

    def answers(file, filters=None):
        path = tmp_path / file
        path.write_text(json.dumps({"version": 1, "shares": [share("all", entries, filters)],
                                    "recipients": [recipient("everything", "all")]}))
        server = Server("--shares", path)
        try:
            return {(name, form): everything(Reader(server, "everything", "all", name, headers))
                    for name in PARTITIONED for form, headers in FORMATS.items()}
        finally:
            assert server.stop() == 0

    whole = answers("whole.yaml")
    wanted = {}
    for (name, _), found in whole.items():
        values = {value for part in parts(found.get("files", [])) for value in list(part["partitionValues"].values())[:1] if value}
        wanted.setdefault(name, min(values)) if values else None
    assert set(wanted) == set(PARTITIONED)
    compared = set()
    filtered = answers("filtered.yaml", {name: f"`{columns[name]}` = {quoted(value)}" for name, value in wanted.items()})
    for (name, form), found in whole.items():
        assert set(filtered[name, form]) == set(found), (name, form)
        for what, lines in found.items():
            expected = stable(lines, lambda values, name=name: wanted[name] in values.values())
            assert stable(filtered[name, form][what]) == expected, (name, form, what)
            if expected and len(expected) < len(parts(lines)):
                compared.add((name, form, what))
    # One of them has a single partition.
    assert {name for name, _, _ in compared} == set(PARTITIONED) - {"no_stats_in_checkpoint"}
    assert {what for _, _, what in compared} == {"files", "since", "changes"}


def test_a_filter_that_changes_ends_its_page_tokens(lake, tmp_path):
    """A place in a list is one among the files that were shared."""
    path = tmp_path / "shares.yaml"

    def write(condition):
        path.write_text(json.dumps({"version": 1, "shares": [share("own", {"sales": lake["sales"]}, {"sales": condition})],
                                    "recipients": [recipient("acme", "own")]}))

    write("region = 'EU'")
    server = Server("--shares", path)
    try:
        mine = Reader(server, "acme", "own")
        page = mine.post({"maxFiles": 1}).lines[-1]["endStreamAction"]["nextPageToken"]
        mine.post({"maxFiles": 1, "pageToken": page})
        write("region IN ('EU', 'US')")
        end = datetime.datetime.now(UTC) + datetime.timedelta(seconds=20)
        while values(mine.post({}).lines) != ["EU", "US"]:
            assert datetime.datetime.now(UTC) < end
        mine.post({"maxFiles": 1, "pageToken": page}, status=400)
    finally:
        assert server.stop() == 0


def run(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize("share,name", EU)
def test_explain_shows_what_a_recipient_can_read(server, catalog, share, name):
    explained = run("explain", f"{share}.s.sales", "-f", catalog, "--recipient", name, "--output", "json")
    assert explained.returncode == 0, explained.stderr
    told, lines = json.loads(explained.stdout), Reader(server, name, share).post({}).lines
    assert (told["files"], told["bytes"], told["sentFiles"]) == (len(parts(lines)), sizes(lines), len(parts(lines)))
    assert told["shared"]["tableFiles"] == len(parts(Reader(server, "everything", "all").post({}).lines))
    assert told["shared"]["sharesNothing"] is None and told["shared"]["recipient"] == name
    shown = run("explain", f"{share}.s.sales", "-f", catalog, "--recipient", name, "--where", "day = '2024-05-01'").stdout
    assert f"{name} can read {len(parts(lines))} of {told['shared']['tableFiles']} files" in shown
    other_days = sum(part["partitionValues"]["day"] != "2024-05-01" for part in parts(lines))
    assert "by the filter of the" in shown and f"leaves out {other_days} of {len(parts(lines))} files" in shown


def test_explain_says_why_nothing_is_shared(catalog):
    for share, reason in (("own", "the recipient has no property region"), ("unfit", "the table has no column country")):
        shown = run("explain", f"{share}.s.sales", "-f", catalog, "--recipient", "everything").stdout
        assert f"nothing is shared: {reason}" in shown and "sends 0 of 0 files" in shown
    assert "The filter of the table is not applied: country = 'EU'." in run("explain", "unfit.s.sales", "-f", catalog).stdout
    assert run("explain", "own.s.sales", "-f", catalog, "--recipient", "nobody").returncode == 3
    refused = run("explain", "own.s.sales", "-f", catalog, "--recipient", "both")
    assert refused.returncode == 3 and "share 'own' is not granted to recipient 'both'" in refused.stderr


def test_check_finds_filters_that_do_not_fit(catalog):
    checked = run("check", "-f", catalog)
    assert checked.returncode == 1
    assert "PROBLEM: the filter of the table shares nothing: the table has no column country" in checked.stdout
    assert "PROBLEM: the filter of the table shares nothing: the table is not partitioned by the column amount" in checked.stdout
    assert "recipient everything has no property region, so it sees no rows of own.s.sales" in checked.stderr
    assert "acme" not in checked.stderr and "grant" not in checked.stdout
