"""Logs as they are in the wild: the server gives the rows that Spark reads, or says exactly why it does not.

`tests/tables/make/wild.py` makes the tables and has put on record what Spark reads of them (`tests/tables/wild.json`).
"""

import json

import canonical
import delta_sharing
import pytest
from requests.exceptions import HTTPError

from conftest import Server, TOKEN, hash_of, set_commit_times, write_profile

import wild

JUDGED = json.loads(wild.JUDGED.read_text())
DELTA = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=deletionvectors,columnmapping,timestampntz;includeEndStreamAction=true"}
PARQUET = {"delta-sharing-capabilities": "responseformat=parquet;includeEndStreamAction=true"}
FORMS = {"parquet": False, "delta": True}
READS = [f"{what} in {form} format" for what in ("rows", "feed") for form in FORMS]

READ_NAMES = {"rows/parquet": READS[0], "rows/delta": READS[1], "feed/parquet": READS[2], "feed/delta": READS[3]}


def reads(groups):
    """{(case, read): reason} of {reason: {case: reads}}, where reads are such as `all` or `rows feed/delta`."""
    return {(name, READ_NAMES[read]): reason for reason, cases in groups.items() for name, which in cases.items()
            for read in READ_NAMES for word in which.split() if word in ("all", read, read.split("/")[0])}


# Read by Spark in some way, but rightly refused here: what the answer says.
REFUSED = reads({
    "damaged": {
        "metaData without schemaString": "feed",
        "metaData with null for its schemaString": "feed",
        "add with no size": "rows",
        "add with null for its size": "rows",
        "add with a negative size": "rows",
    },
    "names a file that this server does not hand out": {
        "path of many directories": "rows",
        "path that begins with a point": "rows",
        "path that goes up and down": "rows",
        "path with two slashes": "rows",
    },
    "schema": {
        "schema of no columns": "feed",
    },
})
# Refused by Spark, served here: the client reads something, or the answer is a refusal after all.
SERVED = {
    "metaData with a floating createdTime",
    "metaData with a createdTime in text",
    "add with a floating modificationTime",
    "add with a modificationTime in text",
    "add with a floating size",
    "add with a size in text",
    "add with a size with an exponent",
    "remove with a floating deletionTimestamp",
    "remove with extendedFileMetadata false",
    "remove with only a path",
    "schema with a column that must not be null but is",
    "schema with odd metadata",
    "blank lines",
    "spaces around lines",
    "lines over several lines",
    "commitInfo with values of all kinds",
    "commitInfo that is a text",
    "protocol 1,4 with empty readerFeatures",
    "protocol 1,4 with both lists empty",
    "protocol 1,4 with writerFeatures",
    "protocol 1,4 with readerFeatures",
    "protocol 1,7 without writerFeatures",
    "protocol 1,7 with no writerFeatures",
    "protocol 2,7 with readerFeatures",
    "protocol 3,7 without readerFeatures",
    "protocol 3,7 without lists",
    "protocol 3,5",
    "protocol in text",
    "protocol in floating numbers",
    "checkpoint, all commits gone",
    "checkpoint, all commits gone, no _last_checkpoint",
    "a log compaction that is garbage",
    "path with a space",
    "path with an encoded colon",
    "path in two encodings",
    "partition value timestamp \"0001-01-01 00:00:00\"",
    "partition column that the schema lacks",
    "schema with an array of void",
    "schema with unknown fields",
    "remove of a file that was never added",
    "schema with type \"void\"",
    "schema with type \"null\"",
    "schema with type \"varchar(10)\"",
    "schema with type \"char(3)\"",
    "schema with type \"interval year to month\"",
    "schema with a user-defined type",
}
# The answer is right, but this client makes something else of it than Spark: why.
CLIENT = reads({
    "Spark leaves out files of size 0": {
        "add with size 0": "all",
    },
    "the client reads this value in another way than Spark": {
        "partition value timestamp \"2023-11-05T02:00:00+02:00\"": "rows/delta feed/delta",
        "partition value decimal(10,2) \"1.505\"": "rows/parquet feed/parquet",
        "partition value decimal(10,2) \"123456789012\"": "rows/parquet feed/parquet",
    },
    "PROTOCOL.md: an empty text is null": {
        "partition value string \"\"": "all",
        "partition value binary \"\"": "rows/delta feed/delta",
    },
    "the client prefers what is in the files": {
        "partition column that the files have too": "rows/parquet feed/parquet",
    },
    "the client cannot read the value": {
        "partition value timestamp \"2023-11-05\"": "rows/delta feed/delta",
        "partition value timestamp \"yesterday\"": "all",
        "partition value date \"2023-01-05 00:00:00\"": "rows/delta feed/delta",
        "partition value date \"2023-01-05T00:00:00Z\"": "rows/delta feed/delta",
        "partition value date \"+2023-01-05\"": "rows/parquet feed/parquet",
        "partition value date \"tomorrow\"": "all",
        "partition value decimal(10,2) \"1.5\"": "rows/delta feed/delta",
        "partition value decimal(10,2) \"1E+2\"": "rows/delta feed/delta",
        "partition value decimal(10,2) \"1\"": "rows/delta feed/delta",
        "partition value decimal(10,2) \"1.505\"": "rows/delta feed/delta",
        "partition value decimal(10,2) \"1e2\"": "rows/delta feed/delta",
        "partition value decimal(10,2) \"123456789012\"": "rows/delta feed/delta",
        "partition value boolean \"t\"": "rows/delta feed/delta",
        "partition value boolean \"1\"": "rows/delta feed/delta",
        "partition value boolean \"yes\"": "rows/delta feed/delta",
        "partition value integer \" 5\"": "rows/delta feed/delta",
        "partition value integer \"5.0\"": "all",
        "partition value integer \"3000000000\"": "all",
        "partition value integer \"five\"": "all",
        "partition value long \"1e3\"": "all",
        "partition value double \"1.5d\"": "all",
        "partition value binary \"abc\"": "rows/parquet feed/parquet",
        "partition value binary \"\\u0001\\u0002\"": "rows/parquet feed/parquet",
        "partition value binary \"\"": "rows/parquet feed/parquet",
    },
    "the client does not know the type": {
        "schema nested 50 deep": "rows/delta feed/delta",
        "schema with type \"void\"": "all",
        "schema with type \"null\"": "all",
        "schema with type \"varchar(10)\"": "all",
        "schema with type \"char(3)\"": "all",
        "schema with type \"decimal\"": "rows/delta feed/delta",
        "schema with type \"timestamp_ntz\"": "all",
        "schema with type \"interval day to second\"": "all",
        "schema with type \"variant\"": "all",
        "schema with type \"string collate UTF8_LCASE\"": "all",
        "schema with an empty struct in it": "rows/delta feed/delta",
        "schema with type \"interval year to month\"": "all",
        "schema with a user-defined type": "all",
        "schema with an array of void": "rows/delta feed/delta",
    },
    "the file is not there": {
        "remove of a file that was never added": "feed",
    },
    "the file lacks a column that must not be null": {
        "schema with a column that must not be null but is": "rows/delta feed/delta",
    },
})
# What the server gets wrong.
BROKEN = reads({
    "refused as damaged, though Spark reads it": {
        "metaData without schemaString, repaired later": "all",
        "metaData with null for its schemaString, repaired later": "all",
        "metaData with null value in its configuration": "all",
        "metaData with a boolean in its configuration": "feed",
        "metaData with null for its format": "feed",
        "metaData with no format": "feed",
        "metaData with no options of the format": "feed",
        "metaData with null for the options of the format": "feed",
        "metaData with null for an option of the format": "all",
        "metaData with no provider": "all",
        "add with null for its partitionValues": "rows",
        "add with no partitionValues": "rows",
        "add with stats that are no text": "rows",
        "add with no dataChange": "rows",
        "add with null for its dataChange": "rows",
        "add with no modificationTime": "rows",
        "add with null for its modificationTime": "rows",
        "remove with only a path": "rows",
        "remove with no dataChange": "rows",
        "a byte order mark": "rows",
        "a byte order mark in version 0": "rows",
        "a line that is a list": "rows",
        "a lone surrogate": "all",
        "a commit of no bytes": "all",
        "protocol without minWriterVersion": "all",
        "checkpoint without partitionValues": "rows",
        "checkpoint with timestamps for modificationTime": "rows",
    },
    "breaks off: A change of the table names a file without its size or its partition values (Spark refuses it)": {
        "add with null for its partitionValues": "feed",
        "add with no partitionValues": "feed",
        "remove with no partitionValues": "feed",
        "remove with extendedFileMetadata false and nothing else": "feed",
        "remove with a path and dataChange": "feed",
        "remove with null for what is optional": "feed",
    },
    "breaks off: damaged (Spark refuses it)": {
        "add with stats that are no text": "feed",
        "lines over several lines": "feed",
        "a commit of only a newline": "feed",
        "commitInfo that is a text": "feed",
    },
    "breaks off: damaged": {
        "add with null for its dataChange": "feed",
        "add with dataChange in text": "feed",
        "add with a floating modificationTime": "feed",
        "add with a modificationTime in text": "feed",
        "add with a negative size": "feed",
        "add with a floating size": "feed",
        "add with a size in text": "feed",
        "add with a size with an exponent": "feed",
        "remove with a floating deletionTimestamp": "feed",
        "a key twice in an action": "feed",
        "partition value that is a number": "feed",
    },
    "breaks off: A change of the table names a file without its size or its partition values": {
        "add with no size": "feed",
        "add with null for its size": "feed",
        "remove with no size": "feed",
    },
    "other rows than Spark reads": {
        "add of one path twice in a commit": "feed",
        "add of one path twice in a commit, with other tags": "feed",
        "add and remove of one path in a commit": "rows",
        "remove and add of one path in a commit": "rows",
        "remove with no dataChange": "feed",
        "remove of one path twice": "feed",
        "two file actions in a line": "feed",
        "checkpoint with a file twice": "rows/parquet",
    },
    "a boolean that is not spelled `true` is read as false by clients of the parquet format": {
        "partition value boolean \"True\"": "rows/parquet feed/parquet",
        "partition value boolean \"TRUE\"": "rows/parquet feed/parquet",
        "partition value boolean \"t\"": "rows/parquet feed/parquet",
        "partition value boolean \"1\"": "rows/parquet feed/parquet",
        "partition value boolean \"yes\"": "rows/parquet feed/parquet",
    },
    "breaks off: The table's log names a file that this server does not hand out": {
        "path of many directories": "feed",
        "path that begins with a point": "feed",
        "path that goes up and down": "feed",
        "path with two slashes": "feed",
    },
    "breaks off: The table's log names a file that this server does not hand out. (Spark refuses it)": {
        "path with a percent that encodes nothing": "feed",
    },
    "minWriterVersion: the client's kernel wants at least 4 for a change data feed": {
        "protocol 1,1": "feed/delta",
    },
    "readerFeatures: the client's kernel wants each in writerFeatures too": {
        "protocol 3,7 with a reader feature only": "rows/delta feed/delta",
    },
    "writerFeatures: the client's kernel wants those of readers in readerFeatures too": {
        "protocol 3,7 with a writer feature of readers only": "rows/delta feed/delta",
    },
    "a schema without columns aborts the process of the client": {
        "schema of no columns": "feed",
    },
    "metadata of columns: the client's kernel misses it": {
        "schema with a field without metadata": "rows/delta feed/delta",
    },
    "served, though nobody can read the schema": {
        "metaData with an empty schemaString, repaired later": "feed/delta",
        "metaData with an empty schemaString": "rows/delta feed/delta",
        "schema of no columns": "rows",
        "schema with type \"decimal(50,2)\"": "all",
        "schema with a name in another case": "all",
        "schema with a name twice": "all",
        "schema that is no JSON": "rows/delta feed/delta",
        "schema that is a number": "rows/delta feed/delta",
        "schema that is null": "rows/delta feed/delta",
        "schema that is a list": "rows/delta feed/delta",
        "schema that is a type": "rows/delta feed/delta",
        "schema without fields": "rows/delta feed/delta",
        "schema without a type": "rows/delta feed/delta",
        "schema with a field without a type": "rows/delta feed/delta",
        "schema nested 5000 deep": "all",
        "schema with type \"quaternion\"": "all",
        "schema with type \"LONG\"": "all",
        "schema with type \"int\"": "all",
        "schema with type \"bigint\"": "all",
        "schema with type \"calendar_interval\"": "all",
        "schema with type \"geometry(4326)\"": "all",
        "schema with type \"\"": "all",
        "schema with an unknown complex type": "all",
        "schema with null for metadata": "rows/delta feed/delta",
        "schema with a field without nullable": "rows/delta feed/delta",
        "schema with a field without a name": "rows/delta feed/delta",
    },
    "served, though it contradicts itself": {
        "add and remove of one path in a commit": "feed",
        "remove and add of one path in a commit": "feed",
    },
    "a protocol that breaks the rules goes out as it is, which the client's kernel refuses": {
        "protocol 1,8": "all",
        "protocol 1,7 without writerFeatures": "rows/delta feed/delta",
        "protocol 3,7 without readerFeatures": "rows/delta feed/delta",
        "protocol 3,7 without lists": "rows/delta feed/delta",
        "protocol 3,5": "rows/delta feed/delta",
        "protocol 1,7 with no writerFeatures": "feed/delta",
    },
    "a .crc that contradicts the log is believed": {
        "crc that is wrong in its metadata": "all",
    },
    "served, though the partition column is null for every client": {
        "partitionColumns in another case": "all",
    },
    "delta.columnMapping.id: the client's kernel refuses it where columns are not mapped": {
        "schema with ids of mapping where columns are not mapped": "rows/delta feed/delta",
    },
})
# Streams (`startingVersion` in a query) that begin with 200 and break off.
BROKEN_OFF = {
    "add with null for its partitionValues",
    "add with no partitionValues",
    "add with stats that are no text",
    "add with null for its dataChange",
    "add with dataChange in text",
    "add with a floating modificationTime",
    "add with a modificationTime in text",
    "add with no size",
    "add with null for its size",
    "add with a negative size",
    "add with a floating size",
    "add with a size in text",
    "add with a size with an exponent",
    "remove with no size",
    "remove with no partitionValues",
    "remove with a floating deletionTimestamp",
    "remove with extendedFileMetadata false and nothing else",
    "remove with a path and dataChange",
    "remove with null for what is optional",
    "lines over several lines",
    "a key twice in an action",
    "a commit of only a newline",
    "commitInfo that is a text",
    "path of many directories",
    "path that begins with a point",
    "path that goes up and down",
    "path with two slashes",
    "path with a percent that encodes nothing",
    "partition value that is a number",
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    made = wild.make(tmp_path_factory.mktemp("wild"))
    for directory in made.values():
        set_commit_times(directory)
    return made


@pytest.fixture(scope="module")
def server(tables, tmp_path_factory):
    entries = [{"name": directory.name, "location": str(directory), "historyShared": True} for directory in tables.values()]
    shares = tmp_path_factory.mktemp("shares") / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": entries}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares)
    yield server
    assert server.stop() == 0
    assert "panicked" not in "".join(server.log)


@pytest.fixture(scope="module")
def profile(server, tmp_path_factory):
    return write_profile(tmp_path_factory.mktemp("profile") / "all.share", server.endpoint, TOKEN)


def url(profile, name):
    return f"{profile}#s.d.{wild.directory_of(name)}"


def ask(server, tables, name, read):
    """The raw answer to what the client asks for in a read."""
    table = f"/shares/s/schemas/d/tables/{wild.directory_of(name)}"
    headers = DELTA if "delta" in read else PARQUET
    if read.startswith("rows"):
        return server.request("POST", f"{table}/query", body=b"{}", headers=headers)
    first = wild.first_version(tables[name])
    return server.request("GET", f"{table}/changes?startingVersion={first}&includeHistoricalMetadata=true", headers=headers)


def stream(server, tables, name, read):
    table = f"/shares/s/schemas/d/tables/{wild.directory_of(name)}"
    body = json.dumps({"startingVersion": wild.first_version(tables[name])}).encode()
    return server.request("POST", f"{table}/query", body=body, headers=DELTA if "delta" in read else PARQUET)


def load(profile, tables, name, read):
    form = FORMS[read.split()[-2]]
    if read.startswith("rows"):
        frame = delta_sharing.load_as_pandas(url(profile, name), use_delta_format=form)
    else:
        first = wild.first_version(tables[name])
        frame = delta_sharing.load_table_changes_as_pandas(url(profile, name), starting_version=first, use_delta_format=form)
        frame = frame.drop(columns="_commit_timestamp")
    return canonical.rows(frame.to_dict("records"))


def assert_whole(answer):
    """An answer that a server may give: complete, or a refusal that says why."""
    assert answer.status in (200, 400), answer.body[:300]
    if answer.status == 400:
        assert answer.json["message"]
        return
    end = answer.lines[-1]
    assert "endStreamAction" in end and not end["endStreamAction"].get("errorMessage"), end


def parameters():
    made = []
    for name in wild.CASES:
        for read in READS:
            broken = BROKEN.get((name, read))
            marks = [pytest.mark.xfail(reason=broken, strict=False)] if broken else []
            made.append(pytest.param(name, read, id=f"{name}: {read}", marks=marks))
    return made


@pytest.mark.parametrize("name,read", parameters())
def test_what_spark_reads(server, profile, tables, name, read):
    verdict = JUDGED[name]["spark" if read.startswith("rows") else "spark feed"]
    answer = ask(server, tables, name, read)
    assert_whole(answer)
    if "rows" in verdict and (name, read) not in REFUSED:
        assert answer.status == 200, answer.body
        if (name, read) not in CLIENT:
            assert load(profile, tables, name, read) == verdict["rows"]
    elif (name, read) in REFUSED:
        assert answer.status == 400 and REFUSED[name, read] in answer.json["message"], answer.body
    elif name not in SERVED:
        assert answer.status == 400, verdict["error"]
    elif answer.status == 200 and (name, read) not in CLIENT:
        load(profile, tables, name, read)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.xfail(reason="a stream breaks off", strict=False)] if name in BROKEN_OFF else []) for name in wild.CASES])
def test_streams(server, tables, name):
    for read in READS[:2]:
        answer = stream(server, tables, name, read)
        assert_whole(answer)
