"""Delta logs of any size, always the same for the same size. The data files do not exist, because no answer reads them."""

import json
import uuid

from deltalake import DeltaTable

COLUMNS = {"id": "long", "customer": "string", "amount": "double", "at": "timestamp", "status": "string", "quantity": "integer",
           "country": "string", "date": "date"}
BITS = 2**64 - 1


def bounds(low):
    return {"id": low, "customer": f"customer-{low % 1_000_000:06}", "amount": low % 10_000 + 0.25,
            "at": f"2024-01-{low % 28 + 1:02}T00:00:00.000Z", "status": f"s{low % 7}", "quantity": low % 100, "country": f"c{low % 200}"}


def add(number):
    """A file with statistics of seven columns. Names and values compress as real ones do."""
    mixed = (number ^ 0x9E3779B9) * 0xBF58476D1CE4E5B9 & BITS
    more = (mixed << 31 | mixed >> 33) * 0x94D049BB133111EB & BITS
    date = f"2024-{number // 28 % 12 + 1:02}-{number % 28 + 1:02}"
    name = uuid.UUID(int=mixed << 64 | more, version=4)
    stats = {"numRecords": 10_000 + mixed % 5_000, "minValues": bounds(mixed % 1_000_000), "maxValues": bounds(more % 1_000_000),
             "nullCount": {column: 0 for column in COLUMNS if column != "date"}}
    return {"add": {"path": f"date={date}/part-{number % 100_000:05}-{name}-c000.snappy.parquet", "partitionValues": {"date": date},
                    "size": 900_000 + more % 200_000, "modificationTime": 1_700_000_000_000, "dataChange": True,
                    "stats": json.dumps(stats, separators=(",", ":"))}}


def write_log(directory, files, checkpoint):
    """A table of so many files: one commit and its checkpoint, or a commit for each file and no checkpoint."""
    log = directory / "_delta_log"
    log.mkdir(parents=True)
    schema = {"type": "struct", "fields": [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in COLUMNS.items()]}
    head = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "5fba94ed-9794-4965-ba6e-6ee3c0d22af9", "format": {"provider": "parquet", "options": {}},
                      "schemaString": json.dumps(schema), "partitionColumns": ["date"], "configuration": {}, "createdTime": 1_700_000_000_000}},
    ]
    commits = [range(files)] if checkpoint else [[number] for number in range(files)]
    for version, numbers in enumerate(commits):
        with (log / f"{version:020}.json").open("w") as commit:
            for action in (*(head if version == 0 else []), *map(add, numbers)):
                commit.write(json.dumps(action) + "\n")
    if checkpoint:
        DeltaTable(str(directory)).create_checkpoint()
