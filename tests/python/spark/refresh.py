"""Reads a table, waits, and reads it again: `refresh.py URL FORMAT SECONDS`. Prints the ids each time."""

import json
import sys
import time

import session

url, form, seconds = sys.argv[1:]
spark = session.make(**{
    "spark.delta.sharing.driver.refreshCheckIntervalMs": "1000",
    "spark.delta.sharing.driver.refreshThresholdMs": "6000",
    "spark.delta.sharing.driver.accessThresholdToExpireMs": "600000",
    "spark.delta.sharing.executor.refreshThresholdMs": "1000",
    "spark.delta.sharing.preSignedUrl.expirationMs": "15000",
})
frame = spark.read.format("deltaSharing").option("responseFormat", form).load(url)
for wait in (0, int(seconds)):
    time.sleep(wait)
    print(json.dumps(sorted(row.id for row in frame.select("id").collect())), flush=True)
spark.stop()
