"""Writes the tables in `tests/tables/spark`, `tests/tables/features` and `examples` with Spark and its Delta connector.

    python3 -m venv venv && venv/bin/pip install pyspark==4.0.1 delta-spark==4.0.0     # needs Java 17
    venv/bin/python tests/tables/make/spark.py [tables|change_feeds|clone|features|examples|products ...]

Each table gets `expected.json`, the rows of its latest version as Spark reads them, `expected-vN.json`
for older versions, and `expected-changes.json` where it has a change data feed. The tests do not run
this; what it wrote is committed.
"""

import pathlib
import shutil
import sys

from pyspark.sql import SparkSession

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import canonical  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
TABLES = ROOT / "tests/tables/spark"
FEATURES = ROOT / "tests/tables/features"
EXAMPLES = ROOT / "examples/tables"

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars.packages", "io.delta:delta-spark_2.13:4.0.0")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.databricks.delta.snapshotPartitions", "2")
    .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")


def sql(text):
    return spark.sql(text)


def checkpoint(path):
    log = spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, str(path))
    log.checkpoint()


class Table:
    def __init__(self, name, root=TABLES):
        self.path = root / name
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.name = f"delta.`{self.path}`"

    def create(self, columns, properties=None, tail=""):
        props = {"delta.enableDeletionVectors": "false", **(properties or {})}
        listed = ", ".join(f"'{key}' = '{item}'" for key, item in props.items())
        sql(f"CREATE TABLE {self.name} ({columns}) USING delta {tail} TBLPROPERTIES ({listed})")
        return self

    def insert(self, select, files=1):
        sql(select).repartition(files).write.format("delta").mode("append").save(str(self.path))
        return self

    def do(self, text):
        sql(text.replace("TABLE_NAME", self.name))
        return self

    def checkpoint(self):
        checkpoint(self.path)
        return self

    def expect(self, version=None):
        reader = spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        records = (row.asDict() for row in reader.load(str(self.path)).collect())
        if not self.path.is_relative_to(EXAMPLES):
            suffix = "" if version is None else f"-v{version}"
            canonical.write(self.path / f"expected{suffix}.json", records)
        return self

    def expect_changes(self):
        changes = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0)
        records = (row.asDict() for row in changes.load(str(self.path)).drop("_commit_timestamp").collect())
        canonical.write(self.path / "expected-changes.json", records)
        return self


def tidy(root):
    for crc in root.rglob(".*.crc"):
        crc.unlink()
    for empty in [*root.rglob("_staged_commits"), *root.rglob("_commits")]:
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def tables():
    dv = Table("deletion_vectors").create("id BIGINT, name STRING", {"delta.enableDeletionVectors": "true"})
    dv.insert("SELECT id, concat('name ', id) AS name FROM range(100)", files=2).expect(1)
    dv.do("DELETE FROM TABLE_NAME WHERE id % 7 = 0").expect(2)
    dv.do("UPDATE TABLE_NAME SET name = 'changed' WHERE id BETWEEN 30 AND 40").expect()

    cm = Table("column_mapping_name").create(
        "id INT, old_name STRING, dropped INT, part STRING",
        {"delta.columnMapping.mode": "name"},
        "PARTITIONED BY (part)",
    )
    cm.insert("SELECT CAST(id AS INT) id, concat('n', id) old_name, 1 dropped, IF(id % 2 = 0, 'even', 'odd') part FROM range(10)")
    cm.do("ALTER TABLE TABLE_NAME RENAME COLUMN old_name TO `new name, with; signs`")
    cm.do("ALTER TABLE TABLE_NAME DROP COLUMN dropped")
    cm.insert("SELECT CAST(id AS INT) id, concat('n', id) `new name, with; signs`, 'more' part FROM range(10, 13)").expect()

    Table("column_mapping_id").create(
        "id INT, nested STRUCT<a: INT, b: STRING>, list ARRAY<INT>", {"delta.columnMapping.mode": "id"}
    ).insert(
        "SELECT CAST(id AS INT) id, named_struct('a', CAST(id AS INT), 'b', 'x') nested, array(1, 2) list FROM range(5)"
    ).do("ALTER TABLE TABLE_NAME RENAME COLUMN id TO key").expect()

    both = Table("mapped_and_deleted").create(
        "id BIGINT, `a b` STRING", {"delta.columnMapping.mode": "name", "delta.enableDeletionVectors": "true"}
    )
    both.insert("SELECT id, concat('v', id) `a b` FROM range(20)").do("DELETE FROM TABLE_NAME WHERE id IN (3, 4)")
    both.checkpoint().insert("SELECT id, 'late' `a b` FROM range(20, 22)").expect()

    off = Table("deletion_vectors_off").create("id BIGINT", {"delta.enableDeletionVectors": "true"})
    off.insert("SELECT id FROM range(30)").do("DELETE FROM TABLE_NAME WHERE id = 5")
    off.do("ALTER TABLE TABLE_NAME SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'false')").expect()

    for form in ("json", "parquet"):
        spark.conf.set("spark.databricks.delta.checkpointV2.topLevelFileFormat", form)
        spark.conf.set("spark.databricks.delta.checkpoint.partSize", "3")
        v2 = Table(f"v2_checkpoint_{form}").create("id BIGINT, day DATE", {"delta.checkpointPolicy": "v2"}, "PARTITIONED BY (day)")
        v2.insert("SELECT id, date_add(DATE'2024-01-01', CAST(id % 4 AS INT)) day FROM range(40)", files=2)
        v2.do("DELETE FROM TABLE_NAME WHERE day = DATE'2024-01-02'").checkpoint()
        v2.insert("SELECT id, DATE'2024-02-01' day FROM range(100, 103)").expect()
    spark.conf.unset("spark.databricks.delta.checkpointV2.topLevelFileFormat")

    multi = Table("multi_part_checkpoint").create("id BIGINT, n INT", {}, "PARTITIONED BY (n)")
    multi.insert("SELECT id, CAST(id % 8 AS INT) n FROM range(64)").checkpoint()
    multi.do("DELETE FROM TABLE_NAME WHERE n = 7").expect()
    spark.conf.unset("spark.databricks.delta.checkpoint.partSize")

    bare = Table("no_stats_in_checkpoint").create(
        "id BIGINT, name STRING, price DECIMAL(10,2), day DATE",
        {"delta.checkpoint.writeStatsAsJson": "false"},
        "PARTITIONED BY (day)",
    )
    bare.insert("SELECT id, concat('n', id) name, CAST(id * 1.5 AS DECIMAL(10,2)) price, DATE'2024-03-01' day FROM range(20)", files=2)
    bare.checkpoint().expect()

    Table("no_stats").create("id BIGINT, name STRING", {"delta.dataSkippingNumIndexedCols": "0"}).insert(
        "SELECT id, concat('n', id) name FROM range(5)"
    ).expect()

    wide = Table("type_widening").create("id INT, small SMALLINT", {"delta.enableTypeWidening": "true"})
    wide.insert("SELECT CAST(id AS INT) id, CAST(id AS SMALLINT) small FROM range(5)")
    wide.do("ALTER TABLE TABLE_NAME ALTER COLUMN id TYPE BIGINT").do("ALTER TABLE TABLE_NAME ALTER COLUMN small TYPE INT")
    wide.insert("SELECT id + 5000000000 id, CAST(100000 AS INT) small FROM range(3)").expect()

    Table("variant").create("id BIGINT, v VARIANT").insert(
        """SELECT id, parse_json(concat('{"a":', id, ',"b":["x"]}')) v FROM range(5)"""
    ).expect()

    tracked = Table("row_tracking").create("id BIGINT, name STRING", {"delta.enableRowTracking": "true"})
    tracked.insert("SELECT id, concat('n', id) name FROM range(10)").do("UPDATE TABLE_NAME SET name = 'x' WHERE id = 3").expect()

    clustered = Table("clustered")
    sql(f"CREATE TABLE {clustered.name} (id BIGINT, city STRING) USING delta CLUSTER BY (city) "
        "TBLPROPERTIES ('delta.enableDeletionVectors' = 'false')")
    clustered.insert("SELECT id, concat('c', id % 3) city FROM range(30)", files=3).do("OPTIMIZE TABLE_NAME").expect()

    ict = Table("in_commit_timestamps").create("id BIGINT", {"delta.enableInCommitTimestamps": "true"})
    for start in range(0, 30, 10):
        ict.insert(f"SELECT id FROM range({start}, {start + 10})")
    for version in (1, 2):
        ict.expect(version)
    ict.expect()

    late = Table("in_commit_timestamps_later").create("id BIGINT").insert("SELECT id FROM range(3)")
    late.do("ALTER TABLE TABLE_NAME SET TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')")
    late.insert("SELECT id FROM range(3, 6)").expect(1).expect()

    Table("vacuum_protocol_check").create("id BIGINT", {"delta.feature.vacuumProtocolCheck": "supported"}).insert(
        "SELECT id FROM range(4)"
    ).expect()

    Table("timestamp_ntz").create("id BIGINT, local TIMESTAMP_NTZ, instant TIMESTAMP").insert(
        "SELECT id, TIMESTAMP_NTZ'2024-03-10 02:30:00.123456' local, TIMESTAMP'2024-03-10 02:30:00.123456Z' instant FROM range(3)"
    ).expect()

    rules = Table("constraints").create(
        "id BIGINT NOT NULL, code VARCHAR(5) DEFAULT 'none'", {"delta.feature.allowColumnDefaults": "supported"}
    )
    rules.do("ALTER TABLE TABLE_NAME ADD CONSTRAINT positive CHECK (id >= 0)")
    rules.do("INSERT INTO TABLE_NAME (id, code) VALUES (1, 'a'), (2, 'b')").do("INSERT INTO TABLE_NAME (id) VALUES (3)").expect()

    types = Table("all_types").create(
        "b BOOLEAN, t TINYINT, s SMALLINT, i INT, l BIGINT, f FLOAT, d DOUBLE, dec DECIMAL(38,10), str STRING, bin BINARY, "
        "day DATE, ts TIMESTAMP, st STRUCT<x: INT, y: ARRAY<STRING>>, arr ARRAY<STRUCT<k: INT>>"
    )
    types.do(
        "INSERT INTO TABLE_NAME VALUES "
        "(true, 1, 2, 3, 4, 1.5, 2.25, 12345678901234567890.0123456789, 'ünï', X'00FF', DATE'1969-12-31', "
        "TIMESTAMP'1969-12-31 23:59:59.999999Z', named_struct('x', 1, 'y', array('a', NULL)), array(named_struct('k', 7))), "
        "(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    ).expect()

    odd = Table("odd_partitions").create("id BIGINT, p STRING, day DATE", {}, "PARTITIONED BY (p, day)")
    odd.do(
        "INSERT INTO TABLE_NAME VALUES (1, 'a b', DATE'2024-01-01'), (2, 'a%20b', DATE'2024-01-01'), (3, 'a=b', NULL), "
        "(4, 'a/b', DATE'2024-01-01'), (5, 'a:b', DATE'2024-01-01'), (6, 'ü€😀', DATE'2024-01-01'), (7, NULL, NULL), "
        "(8, 'a+b', DATE'2024-01-01'), (9, 'a#b?c', DATE'2024-01-01'), (10, '\"q\"', DATE'2024-01-01'), (11, '{x}', DATE'2024-01-01')"
    ).expect()

    evolved = Table("schema_evolution").create("id BIGINT").insert("SELECT id FROM range(3)")
    evolved.do("ALTER TABLE TABLE_NAME ADD COLUMNS (extra STRING COMMENT 'added later')")
    evolved.insert("SELECT id, 'new' extra FROM range(3, 6)").expect(1).expect()

    Table("empty").create("id BIGINT, name STRING").expect()

    emptied = Table("emptied").create("id BIGINT").insert("SELECT id FROM range(3)").do("DELETE FROM TABLE_NAME").expect()
    emptied.checkpoint()


def change_feeds():
    merged = Table("change_data_feed").create("id BIGINT, name STRING", {"delta.enableChangeDataFeed": "true"})
    merged.insert("SELECT id, concat('n', id) name FROM range(6)").expect(1)
    merged.do(
        "MERGE INTO TABLE_NAME t USING (SELECT id, 'merged' name FROM range(4, 9)) s ON t.id = s.id "
        "WHEN MATCHED AND t.id = 4 THEN DELETE WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
    )
    merged.do("MERGE INTO TABLE_NAME t USING (SELECT 99 id, 'x' name) s ON t.id = s.id WHEN MATCHED THEN DELETE")
    merged.insert("SELECT id, 'late' name FROM range(20, 23)", files=2).do("OPTIMIZE TABLE_NAME")
    merged.do("DELETE FROM TABLE_NAME WHERE id = 21").expect().expect_changes()

    mapped = Table("change_data_feed_mapped").create(
        "id BIGINT, `a b` STRING, part STRING",
        {"delta.enableChangeDataFeed": "true", "delta.enableDeletionVectors": "true", "delta.columnMapping.mode": "name"},
        "PARTITIONED BY (part)",
    )
    mapped.insert("SELECT id, concat('n', id) `a b`, IF(id % 2 = 0, 'x y', 'odd') part FROM range(20)")
    mapped.do("UPDATE TABLE_NAME SET `a b` = 'changed' WHERE id = 3").do("DELETE FROM TABLE_NAME WHERE id IN (4, 5)")
    mapped.insert("SELECT id, 'late' `a b`, 'x y' part FROM range(20, 22)").expect().expect_changes()


def clone():
    """A shallow clone: absolute paths of files and of deletion vectors. `@ROOT@` stands for where the
    tables lie, which the tests put in."""
    source = Table("clone_source").create("id BIGINT", {"delta.enableDeletionVectors": "true"})
    source.insert("SELECT id FROM range(20)", files=2).do("DELETE FROM TABLE_NAME WHERE id = 7").expect()
    target = Table("clone")
    sql(f"CREATE TABLE {target.name} SHALLOW CLONE {source.name}")
    target.do("DELETE FROM TABLE_NAME WHERE id = 8").expect()
    for commit in (target.path / "_delta_log").glob("*.json"):
        commit.write_text(commit.read_text().replace(str(TABLES), "@ROOT@"))
    for other in [*(target.path / "_delta_log").glob("*.crc"), *(target.path / "_delta_log").glob("*.checkpoint.parquet")]:
        other.unlink()


def features():
    """For each writer feature a table with a change data feed, rows that are inserted, updated and deleted, and
    what Spark reads of it. Properties that leave the files alone are put into `plain` by the tests themselves."""
    columns, rows = "id BIGINT, name STRING", "SELECT id, concat('n', id) name FROM range(1, 5)"

    def start(name, columns=columns, properties=None, tail=""):
        return Table(name, FEATURES).create(columns, {"delta.enableChangeDataFeed": "true", **(properties or {})}, tail)

    def change(table):
        table.do("UPDATE TABLE_NAME SET name = 'changed' WHERE id = 2").do("DELETE FROM TABLE_NAME WHERE id = 3")
        return table

    def close(table):
        table.expect().expect_changes()
        for checksum in (table.path / "_delta_log").glob("*.crc"):
            checksum.unlink()

    def supported(feature):
        return {f"delta.feature.{feature}": "supported"}

    close(change(start("plain").insert(rows)))
    close(change(start("table_features", columns, supported("domainMetadata")).insert(rows)))
    close(change(start("deletion_vectors", columns, {"delta.enableDeletionVectors": "true"}).insert(rows)))
    close(change(start("column_mapping_name", columns, {"delta.columnMapping.mode": "name"}).insert(rows)))
    close(change(start("column_mapping_id", columns, {"delta.columnMapping.mode": "id"}).insert(rows)))
    close(change(start("row_tracking", columns, {"delta.enableRowTracking": "true"}).insert(rows)))
    close(change(start("in_commit_timestamps", columns, {"delta.enableInCommitTimestamps": "true"}).insert(rows)))
    close(change(start("type_widening", columns, {"delta.enableTypeWidening": "true"}).insert(rows)))
    close(change(start("checkpoint_protection", columns, supported("checkpointProtection")).insert(rows)))
    close(change(start("vacuum_protocol_check", columns, supported("vacuumProtocolCheck")).insert(rows)))
    close(change(start("v2_checkpoint", columns, {"delta.checkpointPolicy": "v2"}).insert(rows)).checkpoint())
    close(change(start("iceberg_compat_v1", columns, {"delta.columnMapping.mode": "name", "delta.enableIcebergCompatV1": "true"}).insert(rows)))
    close(change(start("iceberg_compat_v2", columns, {"delta.columnMapping.mode": "name", "delta.enableIcebergCompatV2": "true"}).insert(rows)))
    close(change(start("clustering", columns, {}, "CLUSTER BY (name)").insert(rows).do("OPTIMIZE TABLE_NAME")))
    close(change(start("timestamp_ntz", f"{columns}, local TIMESTAMP_NTZ").insert(
        "SELECT id, concat('n', id) name, TIMESTAMP_NTZ'2024-03-10 02:30:00.5' local FROM range(1, 5)")))
    close(change(start("variant", f"{columns}, v VARIANT").insert(
        "SELECT id, concat('n', id) name, parse_json('{\"a\":1}') v FROM range(1, 5)")))
    close(change(start("not_null", "id BIGINT NOT NULL, name STRING").insert(rows)))
    close(change(start("char_and_varchar", "id BIGINT, name VARCHAR(20), code CHAR(3)").do(
        "INSERT INTO TABLE_NAME SELECT id, concat('n', id) name, 'abc' code FROM range(1, 5)")))
    close(change(start("check_constraints").do("ALTER TABLE TABLE_NAME ADD CONSTRAINT positive CHECK (id > 0)").insert(rows)))
    close(change(start("column_defaults", "id BIGINT, name STRING DEFAULT 'none'", supported("allowColumnDefaults")).insert(rows)))

    # What is switched on or changed within the range of the feed.
    close(change(start("row_tracking_later").insert(rows).do("ALTER TABLE TABLE_NAME SET TBLPROPERTIES ('delta.enableRowTracking' = 'true')")))
    close(change(start("in_commit_timestamps_later").insert(rows).do(
        "ALTER TABLE TABLE_NAME SET TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')")))
    close(change(start("check_constraints_later").insert(rows).do("ALTER TABLE TABLE_NAME ADD CONSTRAINT positive CHECK (id > 0)")))
    close(change(start("comment_later").insert(rows).do("ALTER TABLE TABLE_NAME ALTER COLUMN name COMMENT 'what it is called'")))
    close(change(start("default_later", columns, supported("allowColumnDefaults")).insert(rows).do(
        "ALTER TABLE TABLE_NAME ALTER COLUMN name SET DEFAULT 'none'")))
    close(change(start("table_comment_later").insert(rows).do("COMMENT ON TABLE TABLE_NAME IS 'about it'")))

    from delta.tables import DeltaTable, IdentityGenerator

    def built(name, add):
        table = Table(name, FEATURES)
        maker = DeltaTable.create(spark).location(str(table.path)).property("delta.enableChangeDataFeed", "true")
        add(maker.property("delta.enableDeletionVectors", "false")).execute()
        return table

    made = built("generated_columns", lambda maker: maker.addColumn("id", "BIGINT").addColumn("name", "STRING").addColumn(
        "twice", "BIGINT", generatedAlwaysAs="id * 2"))
    close(change(made.insert("SELECT id, concat('n', id) name FROM range(1, 5)")))
    # Each insert moves the high water mark, which is metadata of the column.
    made = built("identity_columns", lambda maker: maker.addColumn(
        "id", "BIGINT", generatedByDefaultAs=IdentityGenerator()).addColumn("name", "STRING"))
    made.do("INSERT INTO TABLE_NAME (name) VALUES ('a'), ('b')").do("INSERT INTO TABLE_NAME (name) VALUES ('c'), ('d')")
    close(change(made))


def examples():
    orders = Table("orders", EXAMPLES).create(
        "order_id BIGINT, customer_id BIGINT, amount DECIMAL(10,2), status STRING, order_date DATE",
        {"delta.enableChangeDataFeed": "true"},
        "PARTITIONED BY (order_date)",
    )
    for day in range(3):
        orders.insert(
            f"SELECT {day} * 20 + id order_id, 1 + (id * 7 + {day}) % 15 customer_id, CAST(10 + (id * 37 + {day} * 11) % 90 + 0.99 AS DECIMAL(10,2)) amount, "
            f"'open' status, date_add(DATE'2026-01-05', {day}) order_date FROM range(20)"
        )
    orders.do("UPDATE TABLE_NAME SET status = 'shipped' WHERE order_id < 25")
    orders.do("DELETE FROM TABLE_NAME WHERE order_id = 13")

    customers = Table("customers", EXAMPLES).create(
        "customer_id BIGINT, name STRING, town STRING, phone STRING",
        {"delta.enableDeletionVectors": "true", "delta.columnMapping.mode": "name"},
    )
    names = ["Ada", "Ben", "Chloé", "Dario", "Eva", "Femi", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mia", "Noor", "Otto"]
    towns = ["Köln", "Lyon", "Porto", "Leeds", "Graz"]
    values = ", ".join(f"({i + 1}, '{name}', '{towns[i % 5]}', '555-01{i:02}')" for i, name in enumerate(names))
    customers.do(f"INSERT INTO TABLE_NAME VALUES {values}")
    customers.do("ALTER TABLE TABLE_NAME RENAME COLUMN town TO city").do("ALTER TABLE TABLE_NAME DROP COLUMN phone")
    customers.do("DELETE FROM TABLE_NAME WHERE customer_id = 4")


def products():
    """The example that every client reads: no partitions, no reader features, no change data feed, and only types
    that the simplest reader of Parquet knows."""
    columns = {"product_id": "BIGINT", "name": "STRING", "category": "STRING", "price": "DOUBLE", "weight_kg": "FLOAT",
               "stock": "INT", "available": "BOOLEAN", "listed": "DATE", "barcode": "BINARY"}
    typed = ", ".join(f"CAST({name} AS {kind}) {name}" for name, kind in columns.items())
    select = lambda rows: f"SELECT {typed} FROM VALUES {', '.join(rows)} AS t({', '.join(columns)})"  # noqa: E731
    table = Table("products", EXAMPLES)
    sql(f"CREATE TABLE {table.name} USING delta TBLPROPERTIES ('delta.enableDeletionVectors' = 'false') AS " + select([
        "(101, 'Espresso cup', 'kitchen', 6.9, 0.25, 140, true, DATE'2025-02-03', X'4006381333931F')",
        "(102, 'Crème brûlée torch', 'kitchen', 34.5, 0.5, 12, true, DATE'2025-02-03', X'4006381333948F')",
        "(103, 'Cast-iron pan', 'kitchen', 59.0, 2.75, 0, false, DATE'2025-02-03', X'4006381333955F')",
        "(104, 'Desk lamp', 'office', 44.95, 1.5, 33, true, DATE'2025-03-17', X'4006381333962F')",
        "(105, 'Notebook, A5', 'office', 4.2, 0.125, 800, true, DATE'2025-03-17', X'4006381333979F')",
        "(106, 'Fountain pen', 'office', 27.0, 0.0625, 58, true, DATE'2025-03-17', NULL)",
        "(107, 'Garden shears', 'garden', 21.75, 0.75, 19, true, DATE'2025-04-28', X'4006381333986F')",
        "(108, 'Watering can', 'garden', 18.4, NULL, 0, false, DATE'2025-04-28', X'4006381333993F')",
    ]))
    table.insert(select([
        "(109, 'Seed box', 'garden', 3.8, 0.375, 250, true, DATE'2026-01-12', X'4006381334006F')",
        "(110, 'Gift card', NULL, 25.0, 0.0, 999, true, NULL, NULL)",
    ]))


PARTS = {
    "tables": tables, "change_feeds": change_feeds, "clone": clone, "features": features, "examples": examples,
    "products": products,
}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
    tidy(TABLES)
    tidy(FEATURES)
    tidy(EXAMPLES)
