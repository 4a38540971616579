"""Logs as a random writer leaves them: every version and every range of changes is what the writer did, or is refused.

The writer keeps the true rows of each version and of each commit's changes. A refusal is right only where `Truth` says
so. `RANDOM_LOGS` sets how many seeds are tried, `RANDOM_LOGS_FROM` the first one."""

import collections
import datetime
import decimal
import hashlib
import io
import json
import os
import random
import re
import struct
import urllib.parse
import uuid
import zlib

import canonical
import delta_sharing
import pyarrow as pa
import pyarrow.parquet
import pytest
import requests
from delta_sharing.rest_client import DataSharingRestClient
from deltalake import DeltaTable
from requests.exceptions import HTTPError

from conftest import Server, TOKEN, hash_of, write_profile

FIRST = int(os.environ.get("RANDOM_LOGS_FROM", 0))
SEEDS = range(FIRST, FIRST + int(os.environ.get("RANDOM_LOGS", 40)))
COMMITS = 8
DELTA = "responseformat=delta;readerfeatures=deletionvectors,columnmapping,timestampntz"

UTC = datetime.timezone.utc
WORDS = ["plain", " ", "a b", "a%20b", "100%", "ü€😀", "a:b", "a/b", "a=b", "a+b", 'say "x"', "a\\b", "#?&", "~'*"]
MOMENTS = [datetime.datetime(2023, 11, 5, tzinfo=UTC), datetime.datetime(2024, 2, 29, 23, 59, 59, 250000, tzinfo=UTC),
           datetime.datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)]
TYPES = {
    "long": (pa.int64(), lambda r: r.randrange(1000)),
    "string": (pa.string(), lambda r: r.choice(WORDS)),
    "date": (pa.date32(), lambda r: datetime.date(2024, 1, 1) + datetime.timedelta(days=r.randrange(3))),
    "timestamp": (pa.timestamp("us", "UTC"), lambda r: r.choice(MOMENTS)),
    "decimal(10,2)": (pa.decimal128(10, 2), lambda r: decimal.Decimal(r.choice(["1.50", "-0.25", "100.00", "0.00"]))),
    "boolean": (pa.bool_(), lambda r: r.random() < 0.5),
    "double": (pa.float64(), lambda r: r.randrange(100) / 4),
}

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def z85(data):
    data += b"\0" * (-len(data) % 4)
    text = ""
    for (word,) in struct.iter_unpack(">I", data):
        text += "".join(Z85[word // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text


def bitmap(rows):
    """A deletion vector: a 64-bit roaring bitmap, in Delta's form, of rows below 65536."""
    rows = sorted(rows)
    return (struct.pack("<IQI", 1681511377, 1, 0) + struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16)
            + struct.pack(f"<{len(rows)}H", *rows))


class Column:
    def __init__(self, name, kind, physical=None, number=None):
        self.name, self.kind, self.physical, self.number, self.comment = name, kind, physical or name, number, None

    def field(self):
        metadata = {}
        if self.number is not None:
            metadata = {"delta.columnMapping.id": self.number, "delta.columnMapping.physicalName": self.physical}
        if self.comment:
            metadata["comment"] = self.comment
        return {"name": self.name, "type": self.kind, "nullable": True, "metadata": metadata}


class File:
    """Rows of a file are by column, so that they stay what they are when a column gets another name."""

    def __init__(self, path, rows, size, values, vector=None, deleted=frozenset()):
        self.path, self.rows, self.size, self.values = path, rows, size, values
        self.vector, self.deleted = vector, deleted

    @property
    def key(self):
        vector = self.vector or {}
        return self.path, vector.get("pathOrInlineDv"), vector.get("offset")

    @property
    def visible(self):
        return [row for index, row in enumerate(self.rows) if index not in self.deleted]


class Done:
    """An action of a commit."""

    def __init__(self, kind, file, data_change=True, sized=True, valued=True):
        self.kind, self.file, self.data_change, self.sized, self.valued = kind, file, data_change, sized, valued


class Version:
    """What is true of a version and of its commit."""

    def __init__(self, **what):
        self.__dict__.update(what)

    def project(self, row):
        return {column.name: row.get(column) for column in self.columns}

    @property
    def rows(self):
        return canonical.rows(self.project(row) for file in self.files for row in file.visible)

    @property
    def sent(self):
        """The files that stand for the changes of the commit."""
        cdc = [done for done in self.done if done.kind == "cdc"]
        return cdc or [done for done in self.done if done.data_change]

    @property
    def changes(self):
        """The changed rows, by name of column, each with the kind of its change."""
        found = []
        sent = self.sent
        removed = {done.file.path: done.file for done in sent if done.kind == "remove"}
        added = {done.file.path: done.file for done in sent if done.kind == "add"}
        for done in sent:
            file = done.file
            if done.kind == "cdc":
                found += file.rows
                continue
            other = (removed if done.kind == "add" else added).get(file.path)
            hidden = {id(row) for row in other.visible} if other else set()
            kind = {"add": "insert", "remove": "delete"}[done.kind]
            found += [(kind, row) for row in file.visible if id(row) not in hidden]
        return [{**self.project(row), "_change_type": kind} for kind, row in found]


class Truth:
    """When what may be refused."""

    def __init__(self, versions, on_disk):
        self.versions, self.on_disk = versions, on_disk

    def is_there(self, version):
        """Whether the log still has what makes up the version."""
        bases = [base for base in self.on_disk.checkpoints if base <= version] + [-1]
        return any(all(commit in self.on_disk.commits for commit in range(base + 1, version + 1)) for base in bases)

    def span(self, first, last):
        return self.versions[first:last + 1]

    def parquet_refuses(self, version):
        version = self.versions[version]
        return version.mapped or any(file.vector for file in version.files)

    def parquet_refuses_changes(self, first, last, feed):
        sent = lambda version: version.sent if feed else [done for done in version.done if done.kind != "cdc" and done.data_change]  # noqa: E731
        return any(version.mapped or any(done.file.vector for done in sent(version)) for version in self.span(first, last))

    def resolves_to_delta(self):
        """The format that a client gets which takes both."""
        newest = self.versions[-1]
        listed = {name for name in newest.protocol.get("readerFeatures", []) if name not in ("v2Checkpoint", "vacuumProtocolCheck")}
        used = newest.mapped or any(file.vector for file in newest.files)
        return used or (bool(listed) and listed <= {"deletionVectors", "columnMapping", "timestampNtz"})

    def commits_are_gone(self, first, last):
        return not self.is_there(first) or any(commit not in self.on_disk.commits for commit in range(first, last + 1))

    def feed_refuses(self, first, last):
        span = self.span(first, last)
        if not all(version.feed for version in span):
            return "the feed is off"
        partitioned = any(version.partition for version in span)
        for version in span:
            for done in version.sent:
                if not done.sized or (partitioned and not done.valued):
                    return "a removed file has no size or partition values"
        return None

    def since_refuses(self, first, last):
        """Whether a removed file is described nowhere: its commit does not, and what added it was cleaned up."""
        if first == 0 or self.is_there(first - 1):
            return False
        span = self.span(first, last)
        partitioned = any(version.partition for version in span)
        added = {done.file.key for version in span for done in version.done if done.kind == "add"}
        return any(done.kind == "remove" and done.data_change and done.file.key not in added
                   and (not done.sized or (partitioned and not done.valued)) for version in span for done in version.done)

    def client_cannot_read_feed(self, first, last):
        """The kernel of the client refuses a feed whose schema changed."""
        return len({version.layout for version in self.span(first, last)}) > 1


class Writer:
    def __init__(self, directory, seed):
        self.random = random.Random(seed)
        self.directory, self.log = directory, directory / "_delta_log"
        self.log.mkdir(parents=True)
        r = self.random
        self.versions, self.files, self.commits, self.checkpoints = [], {}, set(), set()
        self.columns = [Column("id", "long")]
        kinds = r.sample(list(TYPES), r.randint(1, 4))
        self.columns += [Column(r.choice([f"c{number}", f"c{number}", f"Ü {number}%"]), kind) for number, kind in enumerate(kinds)]
        partitions = [column.name for column in self.columns[1:] if column.kind != "double"]
        self.partition = r.sample(partitions, min(len(partitions), r.choice([0, 1, 1, 2])))
        self.features = set(r.sample(["deletionVectors", "columnMapping", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"],
                                     r.choice([0, 0, 1, 2])))
        self.writes = set(r.sample(["appendOnly", "invariants", "domainMetadata"], r.randint(0, 2)))
        self.legacy = not self.features or self.features == {"columnMapping"}
        self.configuration = {}
        if r.random() < 0.7:
            self.configuration["delta.enableChangeDataFeed"] = r.choice(["true", "true", "True"])
        if r.random() < 0.25:
            self.configuration["delta.enableInCommitTimestamps"] = "true"
            self.writes.add("inCommitTimestamp")
            self.legacy = False
        self.drops_sizes, self.drops_values = r.random() < 0.2, r.random() < 0.4
        self.writes_cdc = r.random() < 0.7
        self.number_of_columns, self.mode, self.description = len(self.columns), None, None
        self.time, self.next_id, self.id = 1_700_000_000_000, 0, str(uuid.UUID(int=r.getrandbits(128)))
        self.file_number = 0
        self.commit(self.add_rows(r.choice([0, 3, 5])), protocol=True, metadata=True)

    # The parts of a commit

    @property
    def feed(self):
        return self.configuration.get("delta.enableChangeDataFeed", "").lower() == "true"

    @property
    def mapped(self):
        return self.mode == "name" and any(column.physical != column.name for column in self.columns)

    def protocol(self):
        r = self.random
        if self.legacy:
            mapping = "columnMapping" in self.features
            return {"minReaderVersion": 2 if mapping else 1, "minWriterVersion": 5 if mapping else 4}
        writes = self.features | self.writes | ({"changeDataFeed"} if self.feed else set())
        shuffled = lambda names: r.sample(sorted(names), len(names))  # noqa: E731
        if not self.features:
            return {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": shuffled(writes)}
        return {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": shuffled(self.features), "writerFeatures": shuffled(writes)}

    def metadata(self):
        schema = {"type": "struct", "fields": [column.field() for column in self.columns]}
        configuration = dict(self.configuration)
        if self.mode:
            configuration["delta.columnMapping.mode"] = self.mode
            configuration["delta.columnMapping.maxColumnId"] = str(self.number_of_columns)
        metadata = {"id": self.id, "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps(schema),
                    "partitionColumns": self.partition, "configuration": configuration, "createdTime": 1}
        if self.description:
            metadata["description"] = self.description
        return metadata

    def need(self, feature):
        """True if the protocol has to change for it."""
        if feature in self.features and (feature != "deletionVectors" or not self.legacy):
            return False
        self.features.add(feature)
        self.legacy = self.legacy and feature == "columnMapping" and self.random.random() < 0.7
        return True

    def row(self):
        row = {}
        for column in self.columns:
            if column.name == "id" and column.kind == "long":
                row[column] = self.next_id
            elif self.random.random() < 0.85:
                row[column] = TYPES[column.kind][1](self.random)
        self.next_id += 1
        return row

    def text(self, column, value):
        """A partition value, in one of the forms that logs have."""
        r = self.random
        if value is None:
            return None
        if column.kind == "timestamp":
            if r.random() < 0.5:
                return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            return value.strftime("%Y-%m-%d %H:%M:%S" + (".%f" if value.microsecond else ""))
        if column.kind == "boolean":
            return "true" if value else "false"
        return str(value)

    def write(self, rows, kinds=None):
        """One file; with `kinds`, a file of change data. All rows have the same partition values."""
        r = self.random
        partition = [column for column in self.columns if column.name in self.partition]
        values, place = {}, ""
        for column in partition:
            text = self.text(column, rows[0].get(column))
            values[column.physical] = text
            escaped = re.sub(r'[\x00-\x1f"#%\'*/:=?\\{\[\]^]', lambda found: f"%{ord(found[0]):02X}", text or "")
            place += f"{column.physical}={escaped or '__HIVE_DEFAULT_PARTITION__'}/"
        if kinds:
            place = "_change_data/" + place
        self.file_number += 1
        place += f"part-{self.file_number:05}.parquet"
        data = {column.physical: pa.array([row.get(column) for row in rows], TYPES[column.kind][0])
                for column in self.columns if column not in partition}
        if kinds:
            data["_change_type"] = pa.array(kinds, pa.string())
        target = self.directory / place
        target.parent.mkdir(parents=True, exist_ok=True)
        pa.parquet.write_table(pa.table(data), target)
        path = urllib.parse.quote(place, safe="/=~" if r.random() < 0.5 else "/=~:+'*&")
        return File(path, rows, target.stat().st_size, values)

    def partition_of(self, row):
        return tuple(row.get(column) for column in self.columns if column.name in self.partition)

    def write_all(self, rows):
        groups = collections.defaultdict(list)
        for row in rows:
            groups[self.partition_of(row)].append(row)
        files = []
        for group in groups.values():
            if len(group) > 1 and self.random.random() < 0.3:
                at = self.random.randrange(1, len(group))
                files += [self.write(group[:at]), self.write(group[at:])]
            else:
                files.append(self.write(group))
        return files

    def add_rows(self, count):
        return [Done("add", file) for file in self.write_all([self.row() for _ in range(count)])]

    def removed(self, file, data_change=True):
        sized = not (self.drops_sizes and self.random.random() < 0.5)
        valued = not (self.drops_values and self.random.random() < 0.5)
        return Done("remove", file, data_change, sized, valued)

    def shuffled(self, action):
        return dict(self.random.sample(list(action.items()), len(action)))

    def line(self, done):
        r, file = self.random, done.file
        action = {"path": file.path, "dataChange": done.data_change}
        if done.kind == "cdc":
            action |= {"size": file.size, "partitionValues": file.values, "dataChange": False}
        elif done.kind == "add":
            action |= {"size": file.size, "partitionValues": file.values, "modificationTime": self.time}
            records = {"numRecords": len(file.rows)}
            if file.vector:
                action["stats"] = json.dumps({**records, "tightBounds": False})
            elif r.random() < 0.7:
                action["stats"] = r.choice([json.dumps(records), json.dumps({**records, "nullCount": {}}), None])
            if r.random() < 0.2:
                action["tags"] = {"made by": "a ü \"test\"", "x": "1"}
        else:
            action["deletionTimestamp"] = self.time
            action["extendedFileMetadata"] = done.sized and done.valued
            if done.sized:
                action["size"] = file.size
            if done.valued:
                action["partitionValues"] = file.values
        if file.vector:
            action["deletionVector"] = self.shuffled(file.vector)
        return {done.kind: self.shuffled(action)}

    def commit(self, done, protocol=False, metadata=False):
        r = self.random
        version = len(self.versions)
        self.time += r.choice([1, 1000, 3_600_000])
        for action in done:
            if action.kind == "remove":
                del self.files[action.file.key]
        for action in done:
            if action.kind == "add":
                self.files[action.file.key] = action.file
        current = self.protocol() if protocol else self.versions[-1].protocol
        lines = [self.line(action) for action in done]
        if protocol:
            lines.append({"protocol": self.shuffled(current)})
        if metadata:
            lines.append({"metaData": self.shuffled(self.metadata())})
        if r.random() < 0.15:
            lines.append({"txn": {"appId": "a stream", "version": version, "lastUpdated": self.time}})
        r.shuffle(lines)
        info = {"commitInfo": {"timestamp": self.time, "operation": "TEST", "operationParameters": {}, "engineInfo": "a test"}}
        timed = self.configuration.get("delta.enableInCommitTimestamps") == "true"
        if timed:
            info["commitInfo"]["inCommitTimestamp"] = self.time
        if timed or not lines or r.random() < 0.8:
            lines.insert(0, info)
        made = self.log / "made.tmp"
        made.write_text("".join(json.dumps(line, ensure_ascii=r.random() < 0.5) + "\n" for line in lines))
        made.rename(self.log / f"{version:020}.json")
        self.commits.add(version)
        columns = list(self.columns)
        fields = [{**column.field(), "metadata": {**column.field()["metadata"], "comment": None}} for column in columns]
        self.versions.append(Version(
            version=version, columns=[NamedColumn(column) for column in columns], files=list(self.files.values()), done=done,
            feed=self.feed, mapped=self.mapped, partition=list(self.partition), protocol=current,
            layout=json.dumps([fields, self.partition, self.mode]), metadata=metadata, schema=self.metadata()["schemaString"], timed=timed, time=self.time,
        ))
        if r.random() < 0.2:
            self.write_checksum()
        if r.random() < 0.15:
            self.write_checkpoint()

    # What is beside the commits

    def write_checksum(self):
        newest = self.versions[-1]
        vectors = [file.vector for file in newest.files if file.vector]
        checksum = {"tableSizeBytes": sum(file.size for file in newest.files), "numFiles": len(newest.files), "numMetadata": 1,
                    "numProtocol": 1, "metadata": self.metadata(), "protocol": newest.protocol}
        if self.random.random() < 0.5:
            checksum["numDeletionVectorsOpt"] = len(vectors)
        if newest.timed:
            checksum["inCommitTimestampOpt"] = newest.time
        (self.log / f"{newest.version:020}.crc").write_text(json.dumps(checksum))

    def write_checkpoint(self):
        """A checkpoint, where the package can write one, and then perhaps no commits before it."""
        newest = self.versions[-1].version
        try:
            DeltaTable(str(self.directory)).create_checkpoint()
        except Exception:
            return
        self.checkpoints.add(newest)
        if self.random.random() < 0.4:
            for version in range(self.random.randrange(newest + 1)):
                (self.log / f"{version:020}.json").unlink(missing_ok=True)
                self.commits.discard(version)

    # What is done

    def step(self):
        steps = ["append", "delete", "update", "overwrite", "optimize", "empty", "add_column", "comment", "property",
                 "toggle_feed", "map_columns", "list_feature"] + ["append", "vector", "update"] * 2
        if self.mode:
            steps += ["add_column", "rename", "drop_column", "unmap_columns", "replace"]
        name = self.random.choice(steps)
        while getattr(self, name)() is False:
            name = self.random.choice(steps)
        self.versions[-1].step = name

    def pick(self, rows=1):
        found = [file for file in self.files.values() if len(file.visible) >= rows]
        return self.random.choice(found) if found else None

    def cdc(self, changes):
        if not (self.feed and self.writes_cdc and changes and self.random.random() < 0.9):
            return []
        file = self.write([row for _, row in changes], [kind for kind, _ in changes])
        file.rows = changes
        return [Done("cdc", file, False)]

    def append(self):
        self.commit(self.add_rows(self.random.randint(1, 4)))

    def delete(self):
        file = self.pick()
        if not file:
            return False
        rows = file.visible
        gone = self.random.sample(rows, self.random.randint(1, len(rows)))
        rest = [row for row in rows if not any(row is other for other in gone)]
        self.commit([self.removed(file)] + [Done("add", new) for new in ([self.write(rest)] if rest else [])]
                    + self.cdc([("delete", row) for row in gone]))

    def update(self):
        file = self.pick()
        free = [column for column in self.columns[1:] if column.name not in self.partition]
        if not file or not free:
            return False
        column = self.random.choice(free)
        rows, changes = [], []
        for row in file.visible:
            if self.random.random() < 0.5:
                new = {**row, column: TYPES[column.kind][1](self.random)}
                changes += [("update_preimage", row), ("update_postimage", new)]
                row = new
            rows.append(row)
        self.commit([self.removed(file), Done("add", self.write(rows))] + self.cdc(changes))

    def overwrite(self):
        self.commit([self.removed(file) for file in self.files.values()] + self.add_rows(self.random.randint(0, 4)))

    def optimize(self):
        groups = collections.defaultdict(list)
        for file in self.files.values():
            if file.visible:
                groups[self.partition_of(file.rows[0])].append(file)
        if not groups:
            return False
        chosen = max(groups.values(), key=len)
        rows = [row for file in chosen for row in file.visible]
        self.commit([self.removed(file, False) for file in chosen] + [Done("add", self.write(rows), False)])

    def empty(self):
        self.commit([])

    def vector(self):
        file = self.pick(2)
        if not file:
            return False
        protocol = self.need("deletionVectors")
        left = [index for index in range(len(file.rows)) if index not in file.deleted]
        gone = self.random.sample(left, self.random.randint(1, len(left) - 1))
        deleted = file.deleted | set(gone)
        data = bitmap(deleted)
        if self.random.random() < 0.5:
            vector = {"storageType": "i", "pathOrInlineDv": z85(data), "sizeInBytes": len(data), "cardinality": len(deleted)}
        else:
            name, prefix = uuid.UUID(int=self.random.getrandbits(128)), self.random.choice(["", "ab"])
            target = self.directory / prefix / f"deletion_vector_{name}.bin"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(b"\1" + struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data)))
            vector = {"storageType": "u", "pathOrInlineDv": prefix + z85(name.bytes), "offset": 1, "sizeInBytes": len(data),
                      "cardinality": len(deleted)}
        new = File(file.path, file.rows, file.size, file.values, vector, frozenset(deleted))
        self.commit([self.removed(file), Done("add", new)] + self.cdc([("delete", file.rows[index]) for index in gone]), protocol)

    def add_column(self):
        name, kind = f"n{self.number_of_columns}", self.random.choice(list(TYPES))
        self.number_of_columns += 1
        column = Column(name, kind)
        if self.mode:
            column.number, column.physical = self.number_of_columns, f"col-{uuid.UUID(int=self.random.getrandbits(128))}"
        self.columns = self.columns + [column]
        self.commit(self.add_rows(self.random.randint(0, 2)), metadata=True)

    def comment(self):
        if self.random.random() < 0.5:
            self.random.choice(self.columns).comment = f"as of {len(self.versions)}"
        else:
            self.description = f"A table, as of {len(self.versions)}"
        self.commit([], metadata=True)

    def property(self):
        self.configuration[f"test.{len(self.versions)}"] = self.random.choice(["x", "ü", ""])
        self.commit(self.add_rows(self.random.randint(0, 1)), metadata=True)

    def toggle_feed(self):
        self.configuration["delta.enableChangeDataFeed"] = "false" if self.feed else "true"
        self.commit([], protocol=self.feed and not self.legacy, metadata=True)

    def list_feature(self):
        feature = self.random.choice(["deletionVectors", "columnMapping", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"])
        if feature in self.features:
            return False
        self.need(feature)
        self.commit([], protocol=True)

    def map_columns(self):
        if self.mode:
            return False
        protocol = self.need("columnMapping")
        for number, column in enumerate(self.columns):
            column.number = number + 1
        self.number_of_columns = max(self.number_of_columns, len(self.columns))
        self.mode = "name"
        self.commit([], protocol, metadata=True)

    def rename(self):
        column = self.random.choice(self.columns[1:])
        name = f"r{len(self.versions)}"
        self.partition = [name if old == column.name else old for old in self.partition]
        column.name = name
        self.commit([], metadata=True)

    def drop_column(self):
        free = [column for column in self.columns[1:] if column.name not in self.partition]
        if not free or len(self.columns) - len(self.partition) < 2:
            return False
        self.columns.remove(self.random.choice(free))
        self.commit([], metadata=True)

    def unmap_columns(self):
        """Column mapping is dropped: the files are written again."""
        removed = [self.removed(file, False) for file in self.files.values()]
        self.mode = None
        for column in self.columns:
            column.number, column.physical = None, column.name
        added = [Done("add", self.write(file.visible), False) for file in self.files.values() if file.visible]
        self.commit(removed + added, metadata=True)

    def replace(self):
        """Another table in place of this one, with columns of the same names."""
        removed = [self.removed(file) for file in self.files.values()]
        made = []
        for column in self.columns:
            self.number_of_columns += 1
            made.append(Column(column.name, column.kind, f"col-{uuid.UUID(int=self.random.getrandbits(128))}", self.number_of_columns))
        self.columns = made
        self.commit(removed + self.add_rows(self.random.randint(0, 3)), metadata=True)

    def text_of_log(self):
        texts = []
        for path in sorted(self.log.iterdir()):
            text = path.read_text() if path.suffix in (".json", ".crc") and path.stem.isdigit() else ""
            texts.append(f"--- {path.name}\n{text}")
        return "\n".join(texts)


class NamedColumn:
    """The name that a column has in a version."""

    def __init__(self, column):
        self.column, self.name = column, column.name

    def __hash__(self):
        return hash(self.column)

    def __eq__(self, other):
        return self.column is getattr(other, "column", other)


# The readers

@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("random")
    entries = [{"name": f"t{seed}", "location": str(root / f"t{seed}"), "historyShared": True} for seed in SEEDS]
    shares, key = root / "shares.yaml", root / "token.key"
    shares.write_text(json.dumps({
        "version": 1,
        "shares": [{"name": "all", "schemas": [{"name": "spark", "tables": entries}]}],
        "recipients": [{"name": "a", "shares": ["all"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    for seed in SEEDS:
        (root / f"t{seed}").mkdir()
    servers = [Server("--shares", shares, "--token-key", key) for _ in range(2)]
    yield servers, root, write_profile(root / "all.share", servers[0].endpoint, TOKEN)
    assert [server.stop() for server in servers] == [0, 0]
    assert not any("panicked" in line for server in servers for line in server.log)


class Refused(Exception):
    """A 400, with its message."""


class Files:
    """What the client reads of files, fetched whole and once, rather than in a dozen requests each."""

    def __init__(self):
        self.session, self.kept = requests.Session(), {}

    def table(self, url):
        key = url.partition("?")[0]
        if key not in self.kept:
            answer = self.session.get(url)
            assert answer.status_code == 200, answer.text
            self.kept[key] = answer.content
        return pyarrow.parquet.read_table(io.BytesIO(self.kept[key]))

    def use(self, monkeypatch):
        class Dataset:
            def __init__(dataset, source, **_):
                dataset.to_table = lambda: self.table(source)

        monkeypatch.setattr(delta_sharing.reader, "dataset", Dataset)
        monkeypatch.setattr(delta_sharing.reader, "ParquetFile", lambda url, filesystem: None)


class Reader:
    def __init__(self, served, seed):
        self.servers, _, profile = served
        self.name = f"t{seed}"
        self.url = f"{profile}#all.spark.{self.name}"

    def load(self, call):
        try:
            return call()
        except HTTPError as error:
            assert error.response.status_code == 400, f"{error.response.status_code}: {error.response.text}"
            raise Refused(error.response.json()["message"]) from None

    def snapshot(self, version, form):
        frame = self.load(lambda: delta_sharing.load_as_pandas(self.url, version=version, use_delta_format=form))
        return canonical.rows(frame.to_dict("records"))

    def changes(self, first, last, form):
        frame = self.load(lambda: delta_sharing.load_table_changes_as_pandas(
            self.url, starting_version=first, ending_version=last, use_delta_format=form))
        return canonical.rows(frame.drop(columns="_commit_timestamp").to_dict("records"))

    def query(self, body, capabilities):
        """The lines of an answer; those of the pages where the body has `maxFiles`, from two servers in turn."""
        headers = {"delta-sharing-capabilities": capabilities}
        lines, pages, token = [], 0, {}
        while True:
            answer = self.servers[pages % 2].request(
                "POST", f"/shares/all/schemas/spark/tables/{self.name}/query",
                body=json.dumps({**body, **token}).encode(), headers=headers)
            if answer.status == 400 and not pages:
                raise Refused(answer.json["message"])
            assert answer.status == 200, f"{answer.status} to page {pages}: {answer.body}"
            page = answer.lines
            end = page.pop()["endStreamAction"] if "maxFiles" in body else {}
            assert not pages or page[:2] == lines[:2]
            lines += page[2 if pages else 0:]
            pages += 1
            if not end.get("nextPageToken"):
                return lines
            token = {"pageToken": end["nextPageToken"]}


def check(what, expected, read, refuses):
    """`read` gives what is expected, or is refused where that is right."""
    try:
        got = read()
    except Refused as refused:
        assert refuses, f"{what}: refused: {refused}"
        return
    assert not refuses, f"{what}: not refused"
    if got != expected:
        missing = [row for row in expected if row not in got]
        surplus = [row for row in got if row not in expected]
        raise AssertionError(f"{what}: {len(got)} rows, not {len(expected)}; missing {missing[:5]}, surplus {surplus[:5]}")


def check_version(reader, truth, version, form):
    there = truth.is_there(version)
    in_delta = form or (form is None and truth.resolves_to_delta())
    refuses = not there or (not in_delta and truth.parquet_refuses(version))
    check(f"version {version} as {form}", truth.versions[version].rows, lambda: reader.snapshot(version, form), refuses)


def check_lines(reader, truth, version):
    """The lines of a version in delta format."""
    of = truth.versions[version]

    def vector_of(vector):
        return vector and (vector["sizeInBytes"], vector["cardinality"], vector.get("offset"),
                           vector["pathOrInlineDv"] if vector["storageType"] == "i" else "")

    def file_of(digest, values, size, vector):
        return digest, json.dumps(values, sort_keys=True), size, vector_of(vector)

    def read():
        lines = reader.query({"version": version}, DELTA)
        protocol, metadata = lines[0]["protocol"]["deltaProtocol"], lines[1]["metaData"]["deltaMetadata"]
        assert set(protocol.get("readerFeatures", [])) == set(of.protocol.get("readerFeatures", [])), protocol
        assert protocol["minReaderVersion"] == of.protocol["minReaderVersion"], protocol
        assert metadata["schemaString"] == of.schema and metadata["partitionColumns"] == of.partition, metadata
        found = []
        for line in lines[2:]:
            add = line["file"]["deltaSingleAction"]["add"]
            found.append(file_of(line["file"]["id"], add["partitionValues"], add["size"], add.get("deletionVector")))
        assert (lines[1]["metaData"]["numFiles"], lines[1]["metaData"]["size"]) == (len(found), sum(file[2] for file in found))
        return collections.Counter(found)

    expected = collections.Counter(
        file_of(hashlib.sha256(file.path.encode()).hexdigest(), file.values, file.size, file.vector) for file in of.files)
    check(f"lines of version {version}", expected, read, not truth.is_there(version))


def check_changes(reader, truth, first, last, form):
    columns = [column.name for column in truth.versions[last].columns]
    expected = canonical.rows(
        {**{name: change.get(name) for name in columns}, "_change_type": change["_change_type"], "_commit_version": version.version}
        for version in truth.span(first, last) for change in version.changes)
    refuses = (truth.commits_are_gone(first, last) or truth.feed_refuses(first, last)
               or (not form and truth.parquet_refuses_changes(first, last, True)))
    what = f"changes {first} to {last} as {form}"
    if form and not refuses and truth.client_cannot_read_feed(first, last):
        try:
            assert reader.changes(first, last, form) == expected, what
        except Refused as refused:
            raise AssertionError(f"{what}: refused: {refused}")
        except AssertionError:
            raise
        except Exception as error:
            assert "schema" in str(error).lower(), f"{what}: {error!r}"
        return
    check(what, expected, lambda: reader.changes(first, last, form), refuses)


def check_since(reader, truth, first, last, capabilities, paging):
    delta = capabilities == DELTA
    digest = hashlib.sha256 if delta else hashlib.md5

    def values_of(values):
        # In parquet format some get another form.
        return json.dumps(values, sort_keys=True) if delta else tuple(sorted(values))

    expected = collections.Counter(
        (version.version, done.kind, digest(done.file.path.encode()).hexdigest(), done.file.size, values_of(done.file.values))
        for version in truth.span(first, last) for done in version.done if done.kind != "cdc" and done.data_change)
    gone = truth.commits_are_gone(first, last) or truth.since_refuses(first, last)
    refuses = gone or (not delta and truth.parquet_refuses_changes(first, last, False))

    def read():
        found, described = collections.Counter(), []
        for line in reader.query({"startingVersion": first, "endingVersion": last, **paging}, capabilities)[2:]:
            (kind, file), = line.items()
            if kind == "metaData":
                described.append(file["version"])
            elif kind != "protocol":
                action = file
                if delta:
                    (kind, action), = file["deltaSingleAction"].items()
                found[(file["version"], kind, file["id"], action["size"], values_of(action["partitionValues"]))] += 1
        assert described == [version.version for version in truth.span(first + 1, last) if version.metadata]
        return found

    check(f"since {first} to {last} {paging} as {capabilities}", expected, read, refuses)


# What pandas says of how the client puts frames together.
@pytest.mark.filterwarnings("ignore:The behavior of DataFrame concatenation:FutureWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_log(served, seed, monkeypatch):
    # Errors are seen at once.
    monkeypatch.setattr(DataSharingRestClient, "_should_retry", lambda self, error: False)
    Files().use(monkeypatch)
    writer = Writer(served[1] / f"t{seed}", seed)
    reader = Reader(served, seed)
    r = random.Random(-seed - 1)
    failures = []

    def attempt(function, *arguments):
        try:
            function(reader, Truth(writer.versions, writer), *arguments)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")

    for _ in range(COMMITS):
        writer.step()
        if r.random() < 0.2:
            # Somebody reads while the table grows.
            attempt(check_version, len(writer.versions) - 1, r.random() < 0.5)
    count = len(writer.versions)
    for version in range(count):
        attempt(check_lines, version)
        attempt(check_version, version, False)
    for version in {count - 1, r.randrange(count)}:
        attempt(check_version, version, None)
        attempt(check_version, version, True)
    ranges = [(0, count - 1)] + [tuple(sorted((r.randrange(count), r.randrange(count)))) for _ in range(2)]
    on = [version for version in range(count) if writer.versions[version].feed]
    if on:
        first = last = r.choice(on)
        while last + 1 in on and r.random() < 0.8:
            last += 1
        ranges.append((first, last))
    for first, last in ranges:
        for form in (True, False):
            attempt(check_changes, first, last, form)
        for capabilities in (DELTA, "responseformat=parquet"):
            attempt(check_since, first, last, capabilities, r.choice([{}, {"maxFiles": 1}, {"maxFiles": 3}]))
    if failures:
        steps = [getattr(version, "step", "create") for version in writer.versions]
        text = "\n".join(failures)
        pytest.fail(f"seed {seed}: {steps}\n{text}\n{writer.text_of_log()}", pytrace=False)
