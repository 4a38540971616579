"""The released Spark connector against the server: everything that its options say, with rows compared."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import canonical
import pyarrow
import pyspark
import pytest
from deltalake import DeltaTable, write_deltalake

import session
from conftest import Server, TOKEN, hash_of, set_commit_times, write_profile

FORMS = ["parquet", "delta"]
PLAIN = ["py_versions", "py_odd_partitions", "py_nested", "py_evolved", "py_many_files", "py_checkpointed", "py_empty",
         "all_types", "schema_evolution", "odd_partitions", "clustered", "constraints", "no_stats"]
ADVANCED = ["deletion_vectors", "column_mapping_name", "column_mapping_id", "mapped_and_deleted", "timestamp_ntz", "clone"]


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    os.environ["SPARK_WAREHOUSE"] = str(tmp_path_factory.mktemp("warehouse"))
    spark = session.make()
    yield spark
    spark.stop()


@pytest.fixture(scope="session")
def recorder(server):
    """Keeps what Spark asks of the tables that stay as they are, in the file that $SPARK_REQUESTS names."""
    recorder = session.Recorder(server.port)
    yield recorder
    recorder.stop()
    if os.environ.get("SPARK_REQUESTS"):
        recorder.write(pathlib.Path(os.environ["SPARK_REQUESTS"]))


@pytest.fixture
def url(recorder, request, tmp_path_factory):
    recorder.begin(request.node.name)
    profile = write_profile(tmp_path_factory.getbasetemp() / "spark.share", recorder.endpoint, TOKEN)
    return lambda name: f"{profile}#all.spark.{name}"


@pytest.fixture
def conf(spark):
    """Sets configuration for one test."""
    before = {}

    def put(key, value):
        before.setdefault(key, spark.conf.get(key, None))
        spark.conf.set(key, value)

    yield put
    for key, value in before.items():
        spark.conf.unset(key) if value is None else spark.conf.set(key, value)


def load(spark, url, **options):
    return spark.read.format("deltaSharing").options(**{key: str(value) for key, value in options.items()}).load(url)


def rows(frame):
    return canonical.rows(row.asDict() for row in frame.collect())


def expected(tables, name, suffix=""):
    return json.loads((tables[name] / f"expected{suffix}.json").read_text())


# Batch

@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PLAIN)
def test_rows(spark, url, tables, name, form):
    assert rows(load(spark, url(name), responseFormat=form)) == expected(tables, name)


@pytest.mark.parametrize("name", ADVANCED)
def test_rows_of_tables_with_reader_features(spark, url, tables, name):
    assert rows(load(spark, url(name), responseFormat="delta")) == expected(tables, name)


def test_a_table_that_parquet_format_cannot_tell_is_refused(spark, url):
    with pytest.raises(Exception) as raised:
        load(spark, url("deletion_vectors"), responseFormat="parquet").collect()
    assert "Unsupported Delta Table Properties" in str(raised.value)


@pytest.mark.parametrize("form", FORMS)
def test_filters_and_limits(spark, url, form):
    frame = load(spark, url("py_many_files"), responseFormat=form)
    assert sorted(row.id for row in frame.where("bucket = 'b007'").collect()) == [7, 157]
    assert sorted(row.id for row in frame.where("bucket >= 'b148' AND id > 200").collect()) == [298, 299]
    assert len(frame.limit(3).collect()) == 3
    assert frame.count() == 300


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_version_as_of(spark, url, tables, version, form):
    frame = load(spark, url("py_versions"), versionAsOf=version, responseFormat=form)
    assert rows(frame) == expected(tables, "py_versions", f"-v{version}")


@pytest.mark.parametrize("form", FORMS)
def test_timestamp_as_of(spark, url, tables, form):
    # Commit N was made at N o'clock.
    frame = load(spark, url("py_versions"), timestampAsOf="2024-01-01T01:30:00Z", responseFormat=form)
    assert rows(frame) == expected(tables, "py_versions", "-v1")


@pytest.mark.parametrize("form", FORMS)
def test_sql(spark, url, tables, form):
    name = f"shared_{form}"
    spark.sql(f"CREATE TABLE {name} USING deltaSharing OPTIONS (responseFormat '{form}') LOCATION '{url('py_versions')}'")
    try:
        assert rows(spark.sql(f"SELECT * FROM {name}")) == expected(tables, "py_versions")
        assert spark.sql(f"SELECT max(id) AS top FROM {name} WHERE word = 'third'").first().top == 102
    finally:
        spark.sql(f"DROP TABLE {name}")


@pytest.fixture
def recorded(share_file, tmp_path):
    """Starts a server with other options, behind a recorder: the recorder, and the URLs of the tables."""
    started = []

    def start(*arguments):
        server = Server("--shares", share_file, *arguments)
        recorder = session.Recorder(server.port)
        started.append((recorder, server))
        profile = write_profile(tmp_path / "recorded.share", recorder.endpoint, TOKEN)
        return recorder, lambda name: f"{profile}#all.spark.{name}"

    yield start
    for recorder, server in started:
        recorder.stop()
        assert server.stop() == 0


def queries(recorder):
    """The bodies of the queries of this test."""
    return [json.loads(request["body"]) for request in recorder.requests if request["path"].endswith("/query")]


@pytest.mark.parametrize("form", FORMS)
def test_pages(spark, recorder, url, conf, tables, form):
    conf("spark.delta.sharing.queryPagination.enabled", "true")
    conf("spark.delta.sharing.maxFilesPerQueryRequest", "7")
    conf("spark.delta.sharing.query.includeEndStreamAction", "true")
    assert rows(load(spark, url("py_many_files"), responseFormat=form)) == expected(tables, "py_many_files")
    assert len([query for query in queries(recorder) if "pageToken" in query]) >= 21


@pytest.mark.parametrize("form", FORMS)
def test_end_stream_action(spark, recorder, url, conf, tables, form):
    conf("spark.delta.sharing.query.includeEndStreamAction", "true")
    assert rows(load(spark, url("py_versions"), responseFormat=form)) == expected(tables, "py_versions")
    asked = [request for request in recorder.requests if request["path"].endswith("/query")]
    assert all("includeendstreamaction=true" in request["headers"]["delta-sharing-capabilities"].lower() for request in asked) and asked


@pytest.mark.parametrize("paged", ["true", "false"])
def test_asynchronous_queries(spark, recorder, url, conf, tables, paged):
    conf("spark.delta.sharing.network.useAsyncQuery", "true")
    conf("spark.delta.sharing.network.asyncQueryRetryInterval", "1000")
    conf("spark.delta.sharing.queryPagination.enabled", paged)
    conf("spark.delta.sharing.maxFilesPerQueryRequest", "40")
    assert rows(load(spark, url("py_many_files"), responseFormat="parquet")) == expected(tables, "py_many_files")
    polls = [request for request in recorder.requests if "/queries/" in request["path"]]
    assert len(polls) == (4 if paged == "true" else 1)


@pytest.mark.parametrize("form", FORMS)
def test_the_change_data_feed(spark, url, tables, form):
    for name in ("change_data_feed", "py_merged"):
        frame = load(spark, url(name), readChangeFeed="true", startingVersion=0, responseFormat=form)
        assert rows(frame.drop("_commit_timestamp")) == json.loads((tables[name] / "expected-changes.json").read_text())


def changes(tables, name, first, last):
    every = json.loads((tables[name] / "expected-changes.json").read_text())
    return [row for row in every if first <= row["_commit_version"] <= last]


@pytest.mark.parametrize("form", FORMS)
def test_ranges_of_the_change_data_feed(spark, url, tables, form):
    name = "change_data_feed"
    by_version = load(spark, url(name), readChangeFeed="true", startingVersion=1, endingVersion=3, responseFormat=form)
    assert rows(by_version.drop("_commit_timestamp")) == changes(tables, name, 1, 3)
    by_time = load(spark, url(name), readChangeFeed="true", startingTimestamp="2024-01-01T01:30:00Z",
                   endingTimestamp="2024-01-01T04:59:00Z", responseFormat=form)
    assert rows(by_time.drop("_commit_timestamp")) == changes(tables, name, 2, 4)


def test_the_change_data_feed_of_a_table_with_deletion_vectors_and_mapped_columns(spark, url, tables):
    name = "change_data_feed_mapped"
    frame = load(spark, url(name), readChangeFeed="true", startingVersion=0, responseFormat="delta")
    assert rows(frame.drop("_commit_timestamp")) == json.loads((tables[name] / "expected-changes.json").read_text())


@pytest.mark.parametrize("form", FORMS)
def test_pages_of_the_change_data_feed(spark, recorder, url, conf, tables, form):
    conf("spark.delta.sharing.queryPagination.enabled", "true")
    conf("spark.delta.sharing.maxFilesPerQueryRequest", "1")
    conf("spark.delta.sharing.query.includeEndStreamAction", "true")
    frame = load(spark, url("change_data_feed"), readChangeFeed="true", startingVersion=0, responseFormat=form)
    assert rows(frame.drop("_commit_timestamp")) == json.loads((tables["change_data_feed"] / "expected-changes.json").read_text())
    assert [request for request in recorder.requests if "pageToken=" in request["path"]]


# Structured streaming

def batch(first, count, word="new"):
    return pyarrow.table({"id": pyarrow.array(range(first, first + count), pyarrow.int64()), "word": [word] * count})


@pytest.fixture
def growing(tmp_path):
    """Makes a table that the test may write on, and a server for it: its directory and its URL."""
    servers = []

    def start(configuration=None, commits=(), times=True):
        table = tmp_path / "table"
        write_deltalake(str(table), batch(0, 2, "v0"), configuration=configuration)
        for commit in commits:
            commit(table)
        if times:
            set_commit_times(table)
        shares = tmp_path / "shares.yaml"
        shares.write_text(json.dumps({
            "version": 1,
            "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": [
                {"name": "growing", "location": str(table), "historyShared": True}]}]}],
            "recipients": [{"name": "a", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
        }))
        server = Server("--shares", shares)
        servers.append(server)
        profile = write_profile(tmp_path / "g.share", server.endpoint, TOKEN)
        return table, f"{profile}#all.spark.growing"

    yield start
    for server in servers:
        assert server.stop() == 0


def append(first, count=2, word="more"):
    return lambda table: write_deltalake(str(table), batch(first, count, word), mode="append")


def delete(predicate):
    return lambda table: DeltaTable(str(table)).delete(predicate)


def update(predicate, word):
    return lambda table: DeltaTable(str(table)).update(updates={"word": f"'{word}'"}, predicate=predicate)


def compact(table):
    DeltaTable(str(table)).optimize.compact()


def ids(batches):
    return sorted(row["id"] for rows in batches for row in rows)


@pytest.mark.parametrize("form", FORMS)
def test_streams_of_tables_that_stay(spark, url, tables, tmp_path, form):
    whole = session.stream(spark, url("py_checkpointed"), tmp_path / "a", maxFilesPerTrigger=2, responseFormat=form)
    assert canonical.rows(row for rows in whole for row in rows) == expected(tables, "py_checkpointed")
    assert len(whole) == 3
    since = session.stream(spark, url("change_data_feed"), tmp_path / "b", startingVersion=1, responseFormat=form, skipChangeCommits="true")
    assert since


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_begins_with_the_table_as_it_is(spark, growing, tmp_path, form):
    _, url = growing(commits=[append(2), append(4), compact])
    assert ids(session.stream(spark, url, tmp_path / "c", responseFormat=form)) == list(range(6))


@pytest.mark.parametrize("form", FORMS)
def test_starting_version(spark, growing, tmp_path, form):
    _, url = growing(commits=[append(2), append(4), compact, append(6)])
    assert ids(session.stream(spark, url, tmp_path / "c", startingVersion=2, responseFormat=form)) == [4, 5, 6, 7]
    assert ids(session.stream(spark, url, tmp_path / "d", startingVersion=0, responseFormat=form)) == list(range(8))
    if form == "parquet":
        # In delta format the connector asks for what comes after the newest version, up to the newest version.
        assert ids(session.stream(spark, url, tmp_path / "e", startingVersion="latest", responseFormat=form)) == []


@pytest.mark.parametrize("form", FORMS)
def test_starting_timestamp(spark, growing, tmp_path, form):
    # Commit N was made at N o'clock.
    _, url = growing(commits=[append(2), append(4), append(6)])
    options = {"startingTimestamp": "2024-01-01T01:30:00Z", "responseFormat": form}
    assert ids(session.stream(spark, url, tmp_path / "c", **options)) == [4, 5, 6, 7]


@pytest.mark.parametrize("form", FORMS)
def test_files_bytes_and_versions_at_a_time(spark, growing, tmp_path, form):
    _, url = growing(commits=[append(2 * n) for n in range(1, 6)])
    whole = list(range(12))
    common = {"startingVersion": 0, "responseFormat": form}
    each = session.stream(spark, url, tmp_path / "c", maxFilesPerTrigger=1, **common)
    assert ids(each) == whole and len(each) == 6
    each = session.stream(spark, url, tmp_path / "d", maxBytesPerTrigger=1, **common)
    assert ids(each) == whole and len(each) == 6
    each = session.stream(spark, url, tmp_path / "e", maxVersionsPerRpc=2, **common)
    assert ids(each) == whole


@pytest.mark.parametrize("form", FORMS)
def test_deletes_and_changes(spark, growing, tmp_path, form):
    _, url = growing(commits=[append(2), delete("word = 'v0'"), append(4), update("id = 4", "changed"), append(6)])
    common = {"startingVersion": 0, "responseFormat": form}
    with pytest.raises(Exception):
        session.stream(spark, url, tmp_path / "a", **common)
    with pytest.raises(Exception):
        session.stream(spark, url, tmp_path / "b", ignoreDeletes="true", **common)
    # Changed files come again whole.
    assert ids(session.stream(spark, url, tmp_path / "c", ignoreChanges="true", **common)) == [0, 1, 2, 3, 4, 4, 5, 5, 6, 7]
    assert ids(session.stream(spark, url, tmp_path / "d", skipChangeCommits="true", **common)) == list(range(8))


@pytest.mark.parametrize("form", FORMS)
def test_deletes_of_whole_files(spark, growing, tmp_path, form):
    _, url = growing(commits=[append(2), delete("word = 'v0'"), append(4)])
    options = {"startingVersion": 0, "responseFormat": form, "ignoreDeletes": "true"}
    assert ids(session.stream(spark, url, tmp_path / "c", **options)) == list(range(6))


def test_streams_of_the_change_data_feed(spark, growing, tmp_path):
    # The connector has them in parquet format only.
    form = "parquet"
    _, url = growing({"delta.enableChangeDataFeed": "true"},
                        [append(2), update("id = 2", "changed"), delete("id = 3")])
    batches = session.stream(spark, url, tmp_path / "c", readChangeFeed="true", startingVersion=0, responseFormat=form)
    seen = sorted((row["_commit_version"], row["_change_type"], row["id"], row["word"]) for rows in batches for row in rows)
    assert seen == [
        (0, "insert", 0, "v0"), (0, "insert", 1, "v0"), (1, "insert", 2, "more"), (1, "insert", 3, "more"),
        (2, "update_postimage", 2, "changed"), (2, "update_preimage", 2, "more"), (3, "delete", 3, "more"),
    ]
    later = session.stream(spark, url, tmp_path / "d", readChangeFeed="true", responseFormat=form,
                           startingTimestamp="2024-01-01T01:30:00Z")
    assert {row["_commit_version"] for rows in later for row in rows} == {2, 3}


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_sees_each_row_once_while_a_writer_commits(spark, growing, tmp_path, form):
    # In delta format the connector does not begin with a table of one version.
    table, url = growing(commits=[append(100)], times=False)
    writing = threading.Event()

    def write():
        for number in range(1, 13):
            append(2 * number)(table)
            if number % 4 == 0:
                compact(table)
            time.sleep(1.5)
        writing.set()

    writer = threading.Thread(target=write)

    def process(query):
        writer.start()
        end = time.monotonic() + 90
        while time.monotonic() < end:
            query.processAllAvailable()
            if writing.is_set():
                # The client asks for the newest version every ten seconds.
                time.sleep(11)
                query.processAllAvailable()
                return
            time.sleep(1)

    batches = session.stream(spark, url, tmp_path / "c", process, startingVersion=0, maxFilesPerTrigger=2, responseFormat=form)
    writer.join()
    assert ids(batches) == [*range(26), 100, 101]
    assert len(batches) > 5


@pytest.mark.parametrize("form", FORMS)
def test_a_schema_that_changes_in_the_middle(spark, growing, tmp_path, form):
    wide = pyarrow.table({"id": pyarrow.array([9], pyarrow.int64()), "word": ["wide"], "extra": pyarrow.array([1], pyarrow.int64())})
    table, url = growing(commits=[append(2)])

    def process(query):
        write_deltalake(str(table), wide, mode="append", schema_mode="merge")
        # The client asks for the newest version every ten seconds.
        time.sleep(11)
        query.processAllAvailable()

    options = {"startingVersion": 0, "responseFormat": form}
    with pytest.raises(Exception, match="(?i)schema"):
        session.stream(spark, url, tmp_path / "c", process, **options)
    # The stream ends where its schema does; begun again, it goes on with the new one.
    again = session.stream(spark, url, tmp_path / "c", **options)
    assert [(row["id"], row["extra"]) for rows in again for row in rows] == [(9, 1)]


@pytest.mark.parametrize("form", FORMS)
def test_urls_are_asked_for_again_before_they_end(recorded, tables, tmp_path, form):
    """A client whose thresholds are a few seconds reads a table again after its first URLs have ended."""
    recorder, url = recorded("--url-ttl", "15s")
    program = pathlib.Path(__file__).parent / "refresh.py"
    done = subprocess.run(
        [sys.executable, str(program), url("py_many_files"), form, "20"], capture_output=True, text=True, timeout=300,
        env={**os.environ, "SPARK_WAREHOUSE": str(tmp_path / "warehouse")})
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    every = sorted(row["id"] for row in expected(tables, "py_many_files"))
    assert [json.loads(line) for line in done.stdout.splitlines()] == [every, every]
    assert [query for query in queries(recorder) if "refreshToken" in query], "no URL was refreshed"


def test_a_scala_program(spark, profile, tables, tmp_path):
    """Compiled with Spark's own compiler, against the connector's classes, and run on its own."""
    spark_jars = pathlib.Path(pyspark.__file__).parent / "jars"
    classpath = os.pathsep.join([str(spark_jars / "*"), *session.connector()])
    classes = tmp_path / "classes"
    classes.mkdir()
    source = pathlib.Path(__file__).parent / "ReadShared.scala"
    subprocess.run(["java", "-cp", classpath, "scala.tools.nsc.Main", "-usejavacp", "-nowarn", "-d", str(classes), str(source)],
                   check=True, timeout=300)
    opens = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in
             ("java.lang", "java.lang.invoke", "java.io", "java.net", "java.nio", "java.util", "java.util.concurrent",
              "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar")]
    done = subprocess.run(["java", *opens, "-cp", f"{classes}{os.pathsep}{classpath}", "ReadShared", str(profile)],
                          capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.split(" ")[0] in ("rows", "changes", "streamed"))
    assert int(found["rows"]) == len(expected(tables, "py_versions"))
    assert int(found["changes"]) == len(json.loads((tables["change_data_feed"] / "expected-changes.json").read_text()))
    assert int(found["streamed"]) == len(expected(tables, "py_checkpointed"))
