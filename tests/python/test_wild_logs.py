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
    # The first version of the feed has no schema that a client could be given.
    "The table's schema cannot be read": {
        "metaData without schemaString": "feed",
        "metaData with null for its schemaString": "feed",
        "metaData without schemaString, repaired later": "feed",
        "metaData with null for its schemaString, repaired later": "feed",
    },
    # Spark takes these files for empty ones and leaves their rows out.
    "without the file's size": {
        "add with no size": "all",
        "add with null for its size": "all",
        "add with a negative size": "all",
        "remove with no size": "feed",
    },
    "a commit of its log is empty": {
        "a commit of no bytes": "all",
    },
    "a column of a checkpoint has another type": {
        "checkpoint with timestamps for modificationTime": "rows",
    },
    "names a file that this server does not hand out": {
        "path of many directories": "all",
        "path that begins with a point": "all",
        "path that goes up and down": "all",
        "path with two slashes": "all",
    },
    "its schema has no columns": {
        "schema of no columns": "all",
    },
    # The client would have to know the feature, which the protocol does not list.
    "timestampNtz": {
        "schema with type \"timestamp_ntz\"": "rows/parquet feed/parquet",
    },
    "variantType": {
        "schema with type \"variant\"": "all",
    },
})
# Refused by Spark, served here: the client reads something, or the answer is a refusal after all.
SERVED = {
    "metaData with null for its configuration",
    "metaData with no configuration",
    "metaData with null for its format",
    "metaData with no format",
    "metaData with no options of the format",
    "metaData with null for the options of the format",
    "add with null for its partitionValues",
    "add with no partitionValues",
    "add with stats that are no text",
    "add with dataChange in text",
    "add and remove of one path in a commit",
    "remove and add of one path in a commit",
    "remove with no partitionValues",
    "a byte order mark",
    "a byte order mark in version 0",
    "a line that is a list",
    "crc that is wrong in its metadata",
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
    return [pytest.param(name, read, id=f"{name}: {read}") for name in wild.CASES for read in READS]


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


@pytest.mark.parametrize("name", wild.CASES)
def test_streams(server, tables, name):
    for read in READS[:2]:
        assert_whole(stream(server, tables, name, read))
