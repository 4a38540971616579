"""Every table feature and table property of Delta: what only concerns who writes a table must not keep the released
Python client, which replays the lines of an answer as a log, from its rows.

The tables with a feature are written by Spark (`tests/tables/features`); each has an insert, an update, a delete and a
change data feed. Features that Spark does not write, and properties, are put into the log of such a table.
"""

import dataclasses
import json
import shutil

import canonical
import delta_sharing
import pytest
from requests.exceptions import HTTPError

from conftest import ROOT, Server, TOKEN, hash_of, set_commit_times, write_profile

FEATURES = ROOT / "tests/tables/features"


@dataclasses.dataclass
class Case:
    """A table in the log of which something is put, and what reads of it end with."""

    table: str = "plain"
    configuration: dict = dataclasses.field(default_factory=dict)
    writer: tuple = ()
    reader: tuple = ()
    protocol: dict = None  # in place of the table's own
    column: dict = None  # metadata of the column `name`
    actions: tuple = ()  # more actions of the first commit
    commit_info: dict = None  # more of every commitInfo
    parquet: str = None  # what a read in parquet format is refused for; None where it gives rows
    delta: str = None
    feed: str = None  # the same of the feed in delta format

    def put(self, log):
        for commit in sorted(log.glob("?" * 20 + ".json")):
            actions = [json.loads(line) for line in commit.read_text().splitlines()]
            for action in actions:
                if "protocol" in action:
                    action["protocol"] = self.edited(action["protocol"])
                if "metaData" in action:
                    action["metaData"]["configuration"].update(self.configuration)
                    schema = json.loads(action["metaData"]["schemaString"])
                    for field in schema["fields"]:
                        if field["name"] == "name":
                            field["metadata"].update(self.column or {})
                    action["metaData"]["schemaString"] = json.dumps(schema)
                if "commitInfo" in action:
                    action["commitInfo"].update(self.commit_info or {})
            if int(commit.stem) == 0:
                actions.extend(self.actions)
            commit.write_text("".join(json.dumps(action) + "\n" for action in actions))

    def edited(self, protocol):
        protocol = dict(self.protocol or protocol)
        if self.writer or self.reader:
            protocol["minWriterVersion"] = 7
            protocol["writerFeatures"] = sorted({*protocol.get("writerFeatures", ()), *self.writer, *self.reader})
        if self.reader:
            protocol["minReaderVersion"] = 3
            protocol["readerFeatures"] = sorted({*protocol.get("readerFeatures", ()), *self.reader})
        return protocol


def needs(feature):
    """A table that is read in delta format only."""
    return {"parquet": feature}


def refused(feature):
    return {"parquet": feature, "delta": feature, "feed": feature}


def properties(**values):
    return {f"delta.{name.replace('__', '.')}": value for name, value in values.items()}


DOMAIN = {"domainMetadata": {"domain": "somebody.else", "configuration": "{\"a\":1}", "removed": False}}

# Written by Spark.
CASES = {
    "plain": Case(),
    "table_features": Case("table_features"),
    "deletion_vectors": Case("deletion_vectors", **needs("deletionVectors")),
    "column_mapping_name": Case("column_mapping_name", **needs("columnMapping")),
    "column_mapping_id": Case("column_mapping_id", **needs("columnMapping")),
    "row_tracking": Case("row_tracking"),
    "in_commit_timestamps": Case("in_commit_timestamps"),
    "type_widening": Case("type_widening"),  # no column was widened
    "checkpoint_protection": Case("checkpoint_protection"),
    "vacuum_protocol_check": Case("vacuum_protocol_check"),
    "v2_checkpoint": Case("v2_checkpoint"),
    "iceberg_compat_v1": Case("iceberg_compat_v1", **needs("columnMapping")),
    "iceberg_compat_v2": Case("iceberg_compat_v2", **needs("columnMapping")),
    "clustering": Case("clustering"),
    "timestamp_ntz": Case("timestamp_ntz", parquet="timestampNtz", feed="timestampNtz"),
    "variant": Case("variant", **refused("variantType")),
    "not_null": Case("not_null"),
    "char_and_varchar": Case("char_and_varchar"),
    "check_constraints": Case("check_constraints"),
    "column_defaults": Case("column_defaults"),
    "generated_columns": Case("generated_columns"),
    "identity_columns": Case("identity_columns"),
    "row_tracking_later": Case("row_tracking_later"),
    "in_commit_timestamps_later": Case("in_commit_timestamps_later"),
    "check_constraints_later": Case("check_constraints_later"),
    "comment_later": Case("comment_later"),
    "default_later": Case("default_later"),
    "table_comment_later": Case("table_comment_later"),
}

# Features that are put into the protocol, with what goes with them.
CASES |= {f"feature {name}": case for name, case in {
    "appendOnly": Case("table_features", writer=["appendOnly"], configuration=properties(appendOnly="true")),
    "invariants": Case("table_features", writer=["invariants"], column={
        "delta.invariants": json.dumps({"expression": {"expression": "name IS NOT NULL"}})}),
    "allowColumnDefaults": Case("table_features", writer=["allowColumnDefaults"], column={
        "CURRENT_DEFAULT": "'none'", "EXISTS_DEFAULT": "'none'"}),
    "generatedColumns": Case("table_features", writer=["generatedColumns"], column={
        "delta.generationExpression": "concat('n', id)"}),
    "domainMetadata": Case("table_features", writer=["domainMetadata"], actions=[DOMAIN]),
    "clustering": Case("table_features", writer=["clustering", "domainMetadata"], actions=[{"domainMetadata": {
        "domain": "delta.clustering", "configuration": json.dumps({"clusteringColumns": [["name"]]}), "removed": False}}]),
    "clustering without domainMetadata": Case(writer=["clustering"]),
    "rowTracking": Case("table_features", writer=["rowTracking"]),
    "rowTracking without domainMetadata": Case(writer=["rowTracking"], configuration=properties(enableRowTracking="true")),
    "rowTracking suspended": Case("row_tracking", configuration=properties(rowTrackingSuspended="true")),
    "inCommitTimestamp not enabled": Case("table_features", writer=["inCommitTimestamp"]),
    "inCommitTimestamp switched off": Case("in_commit_timestamps", configuration=properties(enableInCommitTimestamps="false")),
    "icebergCompatV1 without columnMapping": Case("table_features", writer=["icebergCompatV1"]),
    "icebergCompatV2 without columnMapping": Case("table_features", writer=["icebergCompatV2"]),
    "icebergCompatV2 beside V1": Case("iceberg_compat_v2", writer=["icebergCompatV1"],
                                      configuration=properties(enableIcebergCompatV1="true"), **needs("columnMapping")),
    "icebergCompatV2 with deletionVectors": Case("iceberg_compat_v2", reader=["deletionVectors", "columnMapping"],
                                                 **needs("columnMapping")),
    "icebergCompatV3": Case("column_mapping_name", writer=["icebergCompatV3"], configuration=properties(
        enableIcebergCompatV3="true"), **needs("columnMapping")),
    "icebergWriterCompatV1": Case("column_mapping_name", writer=["icebergWriterCompatV1", "icebergCompatV2"], configuration=properties(
        enableIcebergWriterCompatV1="true", enableIcebergCompatV2="true"), **needs("columnMapping")),
    "icebergWriterCompatV3": Case("column_mapping_name", writer=["icebergWriterCompatV3"], **needs("columnMapping")),
    "materializePartitionColumns": Case("table_features", writer=["materializePartitionColumns"],
                                        configuration=properties(enableMaterializePartitionColumnsFeature="true")),
    "collations": Case("table_features", writer=["collations", "domainMetadata"],
                       column={"__COLLATIONS": {"name": "ICU.en_US-ci"}}),
    "collations-preview": Case("table_features", writer=["collations-preview"],
                               column={"__COLLATIONS": {"name": "spark.UTF8_LCASE"}}),
    "checkpointProtection": Case("table_features", writer=["checkpointProtection"],
                                 configuration=properties(requireCheckpointProtectionBeforeVersion="2")),
    "coordinatedCommits-preview": Case("in_commit_timestamps", writer=["coordinatedCommits-preview"], configuration={
        "delta.coordinatedCommits.commitCoordinator-preview": "dynamodb",
        "delta.coordinatedCommits.commitCoordinatorConf-preview": "{}",
        "delta.coordinatedCommits.tableConf-preview": "{}"}),
    "redirectWriterOnly-preview": Case("table_features", writer=["redirectWriterOnly-preview"],
                                       configuration={"delta.redirectWriterOnly-preview": "{\"state\":\"DROP-REDIRECT-IN-PROGRESS\"}"}),
    "somethingNew": Case("table_features", writer=["somethingNew"], configuration=properties(enableSomethingNew="true"),
                         column={"delta.somethingNew": {"deep": [1, None, {"a": 1.5}]}}),
    "vacuumProtocolCheck": Case("table_features", reader=["vacuumProtocolCheck"]),
    "v2Checkpoint": Case("table_features", reader=["v2Checkpoint"]),
    "columnMapping mode none": Case("table_features", reader=["columnMapping"], configuration=properties(columnMapping__mode="none")),
    "columnMapping not enabled": Case("table_features", reader=["columnMapping"]),
    "deletionVectors not enabled": Case("table_features", reader=["deletionVectors"]),
    "typeWidening-preview": Case("table_features", reader=["typeWidening-preview"]),  # no column uses it
    "variantType-preview": Case("table_features", reader=["variantType-preview"]),  # no column uses it
    "variantShredding-preview": Case("table_features", reader=["variantShredding-preview"]),  # no column uses it
    "catalogManaged": Case("in_commit_timestamps", reader=["catalogManaged"], **refused("catalogManaged")),
    "catalogOwned-preview": Case("in_commit_timestamps", reader=["catalogOwned-preview"], **refused("catalogOwned-preview")),
    "redirectReaderWriter-preview": Case("table_features", reader=["redirectReaderWriter-preview"],
                                         **refused("redirectReaderWriter-preview")),
    "somethingUnread": Case("table_features", reader=["somethingUnread"], **refused("somethingUnread")),
}.items()}

# Protocols of older writers, and ones that are spelled in an unusual way.
CASES |= {f"protocol {name}": Case(protocol=protocol) for name, protocol in {
    "1,4": {"minReaderVersion": 1, "minWriterVersion": 4},
    "1,6": {"minReaderVersion": 1, "minWriterVersion": 6},
    "2,5": {"minReaderVersion": 2, "minWriterVersion": 5},
    "2,6": {"minReaderVersion": 2, "minWriterVersion": 6},
    "1,7 without features": {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": []},
    "1,7 with one feature": {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["changeDataFeed"]},
    "2,7 without columnMapping": {"minReaderVersion": 2, "minWriterVersion": 7, "writerFeatures": ["changeDataFeed"]},
    "3,7 without reader features": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [], "writerFeatures": ["changeDataFeed"]},
    "3,7 without features": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [], "writerFeatures": []},
    "3,7 with a feature twice": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["v2Checkpoint", "v2Checkpoint"],
                                 "writerFeatures": ["v2Checkpoint", "changeDataFeed", "changeDataFeed"]},
}.items()}

# Table properties: of Delta, of other writers, and values that are spelled in other ways.
CASES |= {f"property {name}": Case(configuration=configuration) for name, configuration in {
    "appendOnly": properties(appendOnly="true"),
    "autoOptimize": properties(autoOptimize="true", autoOptimize__autoCompact="auto", autoOptimize__optimizeWrite="true"),
    "checkpoint.writeStatsAsJson": properties(checkpoint__writeStatsAsJson="false"),
    "checkpoint.writeStatsAsStruct": properties(checkpoint__writeStatsAsStruct="true"),
    "checkpointInterval": properties(checkpointInterval="7"),
    "checkpointInterval 0": properties(checkpointInterval="0"),
    "checkpointPolicy classic": properties(checkpointPolicy="classic"),
    "checkpointPolicy v2 without the feature": properties(checkpointPolicy="v2"),
    "checkpointPolicy unknown": properties(checkpointPolicy="newest"),
    "checkpointRetentionDuration": properties(checkpointRetentionDuration="interval 2 days"),
    "columnMapping.mode none": properties(columnMapping__mode="none", columnMapping__maxColumnId="0"),
    "columnMapping.maxColumnId": properties(columnMapping__maxColumnId="2"),
    "compatibility.symlinkFormatManifest": properties(compatibility__symlinkFormatManifest__enabled="true"),
    "constraints": properties(constraints__positive="id > 0"),
    "dataSkippingNumIndexedCols": properties(dataSkippingNumIndexedCols="1"),
    "dataSkippingNumIndexedCols all": properties(dataSkippingNumIndexedCols="-1"),
    "dataSkippingNumIndexedCols garbage": properties(dataSkippingNumIndexedCols="some"),
    "dataSkippingStatsColumns": properties(dataSkippingStatsColumns="id"),
    "dataSkippingStatsColumns unknown": properties(dataSkippingStatsColumns="not_there,`a.b`"),
    "dataSkippingStatsColumns garbage": properties(dataSkippingStatsColumns="`"),
    "deletedFileRetentionDuration": properties(deletedFileRetentionDuration="interval 1 week"),
    "deletedFileRetentionDuration garbage": properties(deletedFileRetentionDuration="a while"),
    "enableChangeDataFeed TRUE": properties(enableChangeDataFeed="TRUE"),
    "enableDeletionVectors without the feature": properties(enableDeletionVectors="true"),
    "enableExpiredLogCleanup": properties(enableExpiredLogCleanup="false"),
    "enableFullRetentionRollback": properties(enableFullRetentionRollback="true"),
    "enableIcebergCompatV1 without the feature": properties(enableIcebergCompatV1="true"),
    "enableIcebergCompatV2 without the feature": properties(enableIcebergCompatV2="true"),
    "enableInCommitTimestamps without the feature": properties(enableInCommitTimestamps="true"),
    "enableRowTracking without the feature": properties(enableRowTracking="true"),
    "enableTypeWidening without the feature": properties(enableTypeWidening="true"),
    "enableTypeWidening false": properties(enableTypeWidening="false"),
    "enableVariantShredding": properties(enableVariantShredding="true"),
    "feature": {"delta.feature.appendOnly": "supported", "delta.feature.changeDataFeed": "enabled"},
    "isolationLevel": properties(isolationLevel="WriteSerializable"),
    "isolationLevel unknown": properties(isolationLevel="Loose"),
    "logRetentionDuration": properties(logRetentionDuration="interval 30 days"),
    "logRetentionDuration in calendar units": properties(logRetentionDuration="interval 1 month 2 years"),
    "logRetentionDuration upper case": properties(logRetentionDuration="INTERVAL 30 DAYS"),
    "logRetentionDuration negative": properties(logRetentionDuration="interval -3 days"),
    "lastCommitTimestamp": {"delta.lastCommitTimestamp": "1", "delta.lastUpdateVersion": "3"},
    "minReaderVersion": {"delta.minReaderVersion": "3", "delta.minWriterVersion": "7"},
    "parquet.compression.codec": properties(parquet__compression__codec="zstd"),
    "parquet.compression.codec unknown": properties(parquet__compression__codec="best"),
    "parquet.format.version": properties(parquet__format__version="2.12.0"),
    "randomizeFilePrefixes": properties(randomizeFilePrefixes="true", randomPrefixLength="4"),
    "rowTracking columns": {"delta.rowTracking.materializedRowIdColumnName": "_row-id-col-1",
                            "delta.rowTracking.materializedRowCommitVersionColumnName": "_row-commit-version-col-1"},
    "rowTracking column that is one of the table": {"delta.rowTracking.materializedRowIdColumnName": "name"},
    "rowTrackingSuspended": properties(rowTrackingSuspended="true"),
    "setTransactionRetentionDuration": properties(setTransactionRetentionDuration="interval 12 hours"),
    "targetFileSize": properties(targetFileSize="104857600"),
    "targetFileSize with a unit": properties(targetFileSize="100mb"),
    "tuneFileSizesForRewrites": properties(tuneFileSizesForRewrites="true"),
    "universalFormat.enabledFormats": properties(universalFormat__enabledFormats="iceberg,hudi"),
    "of somebody else": {"owner": "somebody", "pipelines.reset.allowed": "false", "": "", "ü": "€\u2028", "nested.json": "{\"a\":[1]}"},
    "very long": {"notes": "x" * 100_000},
}.items()}

READS = ["rows in parquet format", "rows in delta format", "rows in the default format", "feed in parquet format", "feed in delta format",
         "feed since version 2 in delta format"]


def name_of(case):
    return "".join(c if c.isalnum() else "_" for c in case)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    entries = []
    for name, case in CASES.items():
        directory = root / name_of(name)
        shutil.copytree(FEATURES / case.table, directory)
        case.put(directory / "_delta_log")
        set_commit_times(directory)
        entries.append({"name": name_of(name), "location": str(directory), "historyShared": True})
    shares = root / "shares.yaml"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "s", "schemas": [{"name": "d", "tables": entries}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares)
    yield write_profile(root / "all.share", server.endpoint, TOKEN)
    assert server.stop() == 0


def parameters():
    made = []
    for name in CASES:
        reads = (READS[0], READS[1], READS[4]) if name.startswith("property") else READS
        for read in reads:
            made.append(pytest.param(name, read, id=f"{name}: {read}"))
    return made


def first_version(read):
    return 2 if "since version 2" in read else 0


def load(url, read):
    form = {"parquet": False, "delta": True, "default": None}[read.split()[-2]]
    if read.startswith("rows"):
        frame = delta_sharing.load_as_pandas(url, use_delta_format=form)
    else:
        changes = delta_sharing.load_table_changes_as_pandas(url, starting_version=first_version(read), use_delta_format=form)
        frame = changes.drop(columns="_commit_timestamp")
    return canonical.rows(frame.to_dict("records"))


def refusal(case, read):
    """What a read is refused for, in the words of the answer, or None."""
    if read.startswith("feed") and "delta" in read:
        return case.feed
    return {"parquet": case.parquet, "delta": case.delta, "default": case.delta}[read.split()[-2]]


@pytest.mark.parametrize("name,read", parameters())
def test_what_a_client_reads(profile, name, read):
    case, url = CASES[name], f"{profile}#s.d.{name_of(name)}"
    refused = refusal(case, read)
    if refused:
        with pytest.raises(HTTPError) as raised:
            load(url, read)
        assert raised.value.response.status_code == 400
        assert refused in raised.value.response.json()["message"]
        return
    suffix = "" if read.startswith("rows") else "-changes"
    expected = json.loads((FEATURES / case.table / f"expected{suffix}.json").read_text())
    assert load(url, read) == [row for row in expected if row.get("_commit_version", 99) >= first_version(read)]
