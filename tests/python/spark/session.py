"""Spark with the released Delta Sharing connector, and a recorder of what it asks the server for."""

import gzip
import http.client
import http.server
import json
import os
import pathlib
import re
import threading

from pyspark.sql import SparkSession

# The connector: coordinates for Spark to fetch, or files where they are on hand.
PACKAGES = os.environ.get("SPARK_CONNECTOR_PACKAGES")
JARS = os.environ.get("SPARK_CONNECTOR_JARS")


def connector():
    """The files of the connector, for a program that does without Spark's own fetching."""
    if JARS:
        return JARS.split(",")
    return sorted(map(str, pathlib.Path(os.environ["SPARK_IVY"]).glob("jars/*.jar")))


def make(**conf):
    builder = (
        SparkSession.builder.master("local[2]").appName("tests")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.databricks.delta.snapshotPartitions", "2")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.delta.sharing.streaming.queryTableVersionIntervalSeconds", "10s")
        .config("spark.sql.warehouse.dir", os.environ["SPARK_WAREHOUSE"])
        .config("spark.driver.extraJavaOptions", f"-Dderby.system.home={os.environ['SPARK_WAREHOUSE']}")
    )
    if JARS:
        builder = builder.config("spark.jars", JARS)
    else:
        builder = builder.config("spark.jars.packages", PACKAGES).config("spark.jars.ivy", os.environ["SPARK_IVY"])
    for key, value in conf.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


class Recorder:
    """A front on loopback that hands requests on to the server and keeps them, without what is secret in them."""

    HEADERS = ("content-type", "delta-sharing-capabilities", "fileidhash", "user-agent")

    def __init__(self, port):
        recorder = self
        self.recorded = {}
        self.requests = []
        self.tokens = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
                headers["Host"] = self.headers["Host"]
                upstream.request(self.command, self.path, body=body, headers=headers)
                answer = upstream.getresponse()
                data = answer.read()
                if "X-Amz-Signature" not in self.path:
                    recorder.keep(self.command, self.path, self.headers, body, answer, data)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date"):
                        self.send_header(name, value)
                if self.command == "HEAD":
                    self.send_header("Content-Length", answer.getheader("Content-Length") or "0")
                else:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)
                upstream.close()

            do_GET = do_POST = do_HEAD = handle_one

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}/delta-sharing/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def begin(self, name):
        """What follows belongs to the test of this name."""
        self.requests, self.tokens = self.recorded.setdefault(name, []), {}

    def write(self, path):
        """Writes the requests of each test, without those whose like another test has already made."""
        seen, kept = set(), {}
        for name, requests in self.recorded.items():
            shapes = {json.dumps({**request, "path": re.sub("tables/[^/]*", "", request["path"])}) for request in requests}
            if not shapes <= seen:
                kept[name] = requests
            seen |= shapes
        path.write_text(json.dumps(kept, indent=1) + "\n")

    def keep(self, method, path, headers, body, answer, data):
        """What was asked, with the tokens of earlier answers by name."""
        text = body.decode() if body else None
        for token, name in self.tokens.items():
            path = path.replace(token, f"{{{name}}}")
            text = text and text.replace(token, f"{{{name}}}")
        text = text and re.sub(r'("idempotency_?[kK]ey":\s*")[^"]*', r"\1k", text)
        kept = {name: value for name, value in ((name, headers.get(name)) for name in self.HEADERS) if value}
        # The connector and Spark, not the machine.
        kept["user-agent"] = " ".join(kept["user-agent"].split()[:2])
        self.requests.append({"method": method, "path": path, "headers": kept, "body": text, "status": answer.status})
        if answer.getheader("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        for name in ("nextPageToken", "refreshToken", "queryId"):
            for token in re.findall(rf'"{name}":"([^"]+)"', data.decode(errors="replace")):
                self.tokens[token] = name

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def stream(spark, url, where, process=None, **options):
    """Reads what a stream has until it has no more: a list of batches of rows."""
    batches = []
    frame = spark.readStream.format("deltaSharing").options(**{key: str(value) for key, value in options.items()}).load(url)

    def keep(batch, _):
        rows = [row.asDict() for row in batch.collect()]
        if rows:
            batches.append(rows)

    query = frame.writeStream.foreachBatch(keep).option("checkpointLocation", str(where)).start()
    try:
        query.processAllAvailable()
        if process:
            process(query)
    finally:
        query.stop()
    return batches

