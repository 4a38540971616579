"""The page on costs: its prices, and what it says that a million requests cost."""

import re

from measured import ROOT

MB = 1_000_000
# What Lambda sends without a limit of its rate, and what API Gateway bills as one request.
FIRST, PART = 6 * MB, 10 * MB

# What the rows of the page multiply: how the row begins, how the price begins, and the quantity for a million queries.
ROWS = [
    ("API Gateway", "API Gateway REST, a million requests", lambda query: max(1, -(-query.sent_bytes // PART))),
    ("Lambda, requests", "Lambda, a million requests", lambda query: 1),
    ("Lambda, 1 GB for", "Lambda arm64, a million GB-seconds", lambda query: query.billed_seconds * query.memory / 1024),
    ("Lambda, ", "Lambda, a GB streamed", lambda query: max(0, query.sent_bytes - FIRST) / 1000),
    ("DynamoDB", "DynamoDB, a million read units", lambda query: query.units),
    ("S3, HEAD and GET", "S3, a million GET or HEAD", lambda query: query.gets),
    ("S3, LIST", "S3, a million LIST", lambda query: query.lists),
    ("logs", "CloudWatch Logs, a GB ingested", lambda query: query.log_bytes / 1000),
    ("data out", "data to the internet, a GB", lambda query: query.sent_bytes / 1000),
]


def page():
    return (ROOT / "infra/cost.md").read_text()


def prices(text):
    """The first table of the page: {what begins a row: price}."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \|$", text.split("\n## ")[0], re.M)
    return {beginning: next(float(price) for unit, price in rows if unit.startswith(beginning)) for _, beginning, _ in ROWS}


def rows(text, heading):
    """The rows below a heading of the page: [(what, quantity × price, USD)], and their sum."""
    section = text.split(f"\n### {heading}\n")[1].split("\n#")[0]
    found = re.findall(r"^\| ([^|*]+) \| ([\d.]+ × [\d.×+ ]+) \| ([\d.]+) \|$", section, re.M)
    return [(what, arithmetic, float(usd)) for what, arithmetic, usd in found], float(re.search(r"^\| \*\*sum\*\* \| \| \*\*([\d.]+)\*\* \|$", section, re.M)[1])


def compare(query, heading):
    """For each row of the page: (what, its arithmetic, its USD, what was measured, USD)."""
    text = page()
    price, found = prices(text), []
    said, total = rows(text, heading)
    for what, arithmetic, usd in said:
        beginning, quantity = next((beginning, quantity) for start, beginning, quantity in ROWS if what.startswith(start))
        amount = quantity(query)
        found.append((what, arithmetic, usd, f"{amount:.4g} × {price[beginning]:g}", amount * price[beginning]))
    return [*found, ("sum", "", total, "", sum(row[4] for row in found))]
