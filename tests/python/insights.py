"""A stand-in for CloudWatch Logs, as far as `deltashare usage` asks it: log groups, and the queries of Logs Insights, with the
answers that AWS documents. Queries are really run over the events, but only those of the form that the command sends."""

import datetime
import http.server
import json
import re
import threading
import uuid

QUERY = re.compile(
    r'filter ispresent\(Action\) and ispresent\(recipient\) and Action not in (\[[^\]]*\]) and toMillis\(@timestamp\) >= (\d+) and '
    r"toMillis\(@timestamp\) < (\d+) \| stats count\(\*\) as requests, sum\(FilesSigned\) as files, sum\(BytesGranted\) as bytes by "
    r"([\w, ]+)")


def milliseconds(time):
    return int(datetime.datetime.fromisoformat(time).timestamp() * 1000)


class Insights:
    """`groups` are {name: (creation time, retention in days, lines)}."""

    def __init__(self, groups):
        self.groups, self.queries, self.polls, self.busy, self.statuses = groups, {}, {}, 0, []
        self.asked, self.denied, self.read = [], None, {}
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def describe_log_groups(self, body):
        names = sorted(name for name in self.groups if name.startswith(body["logGroupNamePrefix"]))
        # Two pages, whatever there is.
        start = int(body.get("nextToken", 0))
        found = [{"logGroupName": name, "creationTime": self.groups[name][0], "retentionInDays": self.groups[name][1]}
                 for name in names[start:start + 1]]
        return {"logGroups": found, **({"nextToken": str(start + 1)} if start + 1 < len(names) else {})}

    def start_query(self, body):
        if self.busy:
            self.busy -= 1
            raise Refused("LimitExceededException", "Account maximum query concurrency limit of [30] reached.")
        created, retention, _ = self.groups[body["logGroupName"]]
        if body["endTime"] * 1000 < created:
            raise Refused("MalformedQueryException", "Query's end date and time is either before the log groups creation time or "
                          "exceeds the log groups log retention settings")
        assert body["startTime"] < body["endTime"] and 1 <= body["limit"] <= 10_000
        query = str(uuid.uuid4())
        self.queries[query], self.polls[query] = body, 0
        self.asked.append(body)
        return {"queryId": query}

    def get_query_results(self, body):
        query = body["queryId"]
        self.polls[query] += 1
        # Partial results come before the whole one.
        status = self.statuses.pop(0) if self.statuses else "Running" if self.polls[query] == 1 else "Complete"
        rows = self.run(self.queries[query]) if status in ("Complete", "Running") else []
        return {"status": status, "results": rows if status == "Complete" else rows[:1], "encryptionKey": "x",
                "statistics": {"recordsMatched": 1.0, "recordsScanned": 2.0, "bytesScanned": 3.0}}

    def events(self, lines):
        """The lines that are JSON, with the time that Lambda gives them."""
        if self.read.get(id(lines), (0, []))[0] != len(lines):
            found = []
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                found.append({**event, "@timestamp": milliseconds(event["timestamp"])} if "timestamp" in event else event)
            self.read[id(lines)] = len(lines), found
        return self.read[id(lines)][1]

    def run(self, body):
        not_counted, first, end, by = QUERY.fullmatch(body["queryString"]).groups()
        by, found = by.split(", "), {}
        for event in self.events(self.groups[body["logGroupName"]][2]):
            if "Action" not in event or "recipient" not in event or event["Action"] in json.loads(not_counted):
                continue
            time = event["@timestamp"]
            if not (body["startTime"] * 1000 <= time <= body["endTime"] * 1000 and int(first) <= time < int(end)):
                continue
            # A field that an event lacks is in no row.
            row = found.setdefault(tuple(event.get(name) for name in by), [0, 0, 0])
            for at, value in enumerate((1, event.get("FilesSigned", 0), event.get("BytesGranted", 0))):
                row[at] += value
        rows = []
        for key, figures in found.items():
            row = [{"field": name, "value": value} for name, value in zip(by, key) if value is not None]
            # Large sums are written like this.
            row += [{"field": name, "value": str(value) if value < 10**7 else repr(float(value)).replace("e+", "E")}
                    for name, value in zip(("requests", "files", "bytes"), figures)]
            rows.append(row)
        return rows[:body["limit"]]

    def _handler(stand_in):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                target = self.headers["X-Amz-Target"]
                assert target.startswith("Logs_20140328.") and "/logs/aws4_request" in self.headers["Authorization"]
                name = re.sub(r"(?<!^)(?=[A-Z])", "_", target.partition(".")[2]).lower()
                try:
                    if stand_in.denied == name:
                        raise Refused("AccessDeniedException", "User is not authorized")
                    status, answer = 200, getattr(stand_in, name)(body)
                except Refused as refused:
                    status, answer = 400, {"__type": refused.args[0], "message": refused.args[1]}
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        return Handler


class Refused(Exception):
    pass
