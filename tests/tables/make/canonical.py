"""Rows in a form that does not depend on who read them: what `expected*.json` holds.

A row is a JSON object. Integral floats are written as integers, because pandas turns integers with
nulls into floats; other numbers as they are; decimals as text without trailing zeros; dates as
`2024-01-31`; timestamps as `2024-01-31T12:00:00.000000` in UTC; binary as hexadecimal; maps as a list
of pairs; null, NaN and NaT as null. Rows are sorted by their text.
"""

import datetime
import decimal
import json
import math


def value(x):
    if x is None:
        return None
    if isinstance(x, bool):
        return x
    if isinstance(x, int):
        return x
    if isinstance(x, float):
        if math.isnan(x):
            return None
        return int(x) if math.isfinite(x) and x == int(x) else x
    if isinstance(x, decimal.Decimal):
        text = format(x.normalize(), "f")
        return "0" if text == "-0" else text
    if isinstance(x, datetime.datetime):
        if x != x:  # NaT
            return None
        if x.tzinfo is not None:
            x = x.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return x.strftime("%Y-%m-%dT%H:%M:%S.%f")
    if isinstance(x, datetime.date):
        return x.isoformat()
    if isinstance(x, (bytes, bytearray, memoryview)):
        return bytes(x).hex()
    if isinstance(x, str):
        return x
    if hasattr(x, "asDict"):  # a row of Spark
        return {key: value(item) for key, item in x.asDict().items()}
    if isinstance(x, dict):
        return {key: value(item) for key, item in x.items()}
    if hasattr(x, "tolist"):  # numpy
        return value(x.tolist())
    if type(x).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(x, (list, tuple)):
        return [value(item) for item in x]
    if hasattr(x, "toJson"):  # a variant of Spark
        return json.loads(x.toJson())
    raise TypeError(f"no canonical form of {type(x)}")


def rows(records):
    """The canonical rows of an iterable of dictionaries, sorted."""
    made = [{key: value(item) for key, item in record.items()} for record in records]
    return sorted(made, key=lambda row: json.dumps(row, sort_keys=True))


def write(path, records):
    made = rows(records)
    lines = ",\n".join(json.dumps(row, sort_keys=True) for row in made)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"[\n{lines}\n]\n" if made else "[]\n")
