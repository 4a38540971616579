"""`deltashare verify`: what it sees of servers that are right, and of each fault made for real."""

import datetime
import email.utils
import gzip
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading

import pytest

from conftest import BINARY, EXPIRED_TOKEN, Server, TOKEN, hash_of
from faults import Way, answer, cut, headers, rewrite, s3_error
from test_lambda import function, stack  # noqa: F401

LONELY_TOKEN = "dss_test-recipient-with-nothing"
DISABLED_BY_FILE = "dss_test-token-that-nobody-has"
MANY = 5_000
TABLES = ("py_versions", "no_stats", "deletion_vectors")


def verify(profile, *arguments, code=0):
    done = subprocess.run([str(BINARY), "verify", "--profile", str(profile), *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=300, env={"PATH": os.environ["PATH"]})
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    said = done.stdout + done.stderr
    for secret in (TOKEN, EXPIRED_TOKEN, LONELY_TOKEN, DISABLED_BY_FILE, "X-Amz-Signature", "X-Amz-Credential"):
        assert secret not in said, "a secret is shown"
    return done


def report(profile, code=0):
    return json.loads(verify(profile, "--output", "json", code=code).stdout)


def only_failure(profile):
    """What is said of a profile that fails for one reason: the whole text, in one line."""
    done = verify(profile, code=1)
    assert done.stdout.count("FAILED: ") == 1, done.stdout
    assert "1 check failed; do not send the profile yet" in done.stderr
    return " ".join(done.stdout.split())


def in_days(days):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@pytest.fixture(scope="module")
def copies(tables, tmp_path_factory):
    """Tables of our own, which may be damaged; one has so many files that its answer takes a while."""
    root = tmp_path_factory.mktemp("verify")
    for name in (*TABLES, "no_files", "damaged"):
        shutil.copytree(tables[name if name in TABLES else "py_versions"], root / name)
    lines = [json.loads(line) for line in (root / "no_stats/_delta_log" / f"{0:020}.json").read_text().splitlines()]
    head = [json.dumps(line) for line in lines if "metaData" in line or "protocol" in line]
    adds = [json.dumps({"add": {"path": f"part-{number:06}.parquet", "partitionValues": {}, "size": 1, "modificationTime": 0,
                                "dataChange": True}}) for number in range(MANY)]
    (root / "many/_delta_log").mkdir(parents=True)
    (root / "many/_delta_log" / f"{0:020}.json").write_text("\n".join([*head, *adds]))
    for number in range(MANY):
        (root / f"many/part-{number:06}.parquet").touch()
    some = next(file for file in (root / "no_stats").rglob("*.parquet") if "_delta_log" not in str(file))
    for file in (root / "many").glob("*.parquet"):
        file.unlink()
        os.link(some, file)
    return root


@pytest.fixture(scope="module")
def serving(copies, tmp_path_factory):
    """A server; what it shares is named by the recipients' shares."""
    table = lambda name: {"name": name, "location": str(copies / name)}  # noqa: E731
    file = tmp_path_factory.mktemp("verify-shares") / "shares.yaml"
    file.write_text(json.dumps({
        "version": 1,
        "shares": [
            {"name": "good share", "schemas": [{"name": "s", "tables": [table(name) for name in TABLES]}, {"name": "empty"}]},
            {"name": "large", "schemas": [{"name": "s", "tables": [table("many")]}]},
            {"name": "broken", "schemas": [{"name": "s", "tables": [table(name) for name in ("no_files", "damaged", "py_versions")]}]},
            {"name": "nothing"},
        ],
        "recipients": [
            {"name": "acme", "shares": ["good share"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "2999-01-01T00:00:00Z"},
                                                                {"sha256": hash_of(EXPIRED_TOKEN), "expires": "2020-01-01T00:00:00Z"}]},
            *({"name": share, "shares": [share], "tokens": [{"sha256": hash_of(f"dss_{share}"), "expires": "never"}]}
              for share in ("large", "broken", "nothing")),
            {"name": "lonely", "shares": [], "tokens": [{"sha256": hash_of(LONELY_TOKEN), "expires": "never"}]},
        ],
    }))
    server = Server("--shares", file)
    server.file = file
    yield server
    assert server.stop() == 0


@pytest.fixture
def write(serving, tmp_path):
    def write(endpoint=None, token=TOKEN, expires=None, **more):
        path = tmp_path / "some.share"
        path.write_text(json.dumps({"shareCredentialsVersion": 1, "endpoint": endpoint or serving.endpoint, "bearerToken": token,
                                    **({"expirationTime": expires} if expires else {}), **more}))
        return path
    return write


@pytest.fixture
def way(serving):
    """A way to the server that changes what passes, and holds every answer back until it is whole."""
    way = Way(serving.port)
    way.to = way.endpoint + "/delta-sharing/"
    yield way
    way.stop()


def test_a_good_profile_is_described_and_may_be_sent(write):
    profile = write(expires=in_days(90))
    text = verify(profile).stdout
    assert "The recipient can read 3 tables; the profile can be sent." in text
    assert "1 shares, 2 schemas, 3 tables" in text and "valid until" in text and "89 days from now" in text
    rows = {line.split("  ")[0]: line for line in text.splitlines() if line.startswith("good share.s.")}
    assert len(rows) == 3 and all(row.endswith("ok") and "read in" in row for row in rows.values())
    assert " newer " in rows["good share.s.deletion_vectors"] and " all " in rows["good share.s.py_versions"]
    seen = report(profile)
    assert seen["failures"] == [] == seen["warnings"] and seen["shares"] == 1 and seen["schemas"] == 2
    tables = {table["table"]: table for table in seen["tables"]}
    assert tables["good share.s.py_versions"]["version"] == 3 and tables["good share.s.py_versions"]["files"] == 1
    assert 3500 < tables["good share.s.no_stats"]["urlLifeSeconds"] <= 3600
    assert tables["good share.s.no_stats"]["bytes"] > 0 and abs(seen["clockSkewSeconds"]) < 5


def test_a_large_answer_shows_compression_and_streaming(write):
    profile = write(token="dss_large")
    seen = report(profile)
    table, = seen["tables"]
    assert seen["gzip"] is True and seen["streaming"] is True and table["files"] == MANY
    assert table["firstLineMillis"] * 2 < table["lastLineMillis"]
    assert "streaming  yes: the first line of large.s.many after" in verify(profile).stdout


def test_an_answer_that_is_held_back_fails(write, way):
    text = only_failure(write(way.to, "dss_large"))
    assert "the answer for large.s.many is held back" in text and "turn off buffering" in text


def test_a_token_that_has_ended(write):
    text = only_failure(write(token=EXPIRED_TOKEN))
    assert "401 UNAUTHENTICATED" in text and "has expired" in text and "token rotate" in text
    # Only the profile says so; the server is asked nevertheless.
    text = only_failure(write(expires="2020-01-01T00:00:00.000Z"))
    assert "the token expired at 2020-01-01" in text and "good share.s.py_versions" in text
    assert re.search(r"token expired at 2020-01-01T00:00:00Z, \d{4} days ago", text) and "from now" not in text
    assert "in 23 hours" in verify(write(expires=in_days(1))).stdout
    assert "is not a time" in only_failure(write(expires="soon"))


def test_a_token_that_nobody_has(write):
    assert "401 UNAUTHENTICATED" in only_failure(write(token=DISABLED_BY_FILE))
    assert "no header can carry" in only_failure(write(token="two words"))


def test_a_recipient_that_sees_nothing(write):
    assert "the recipient sees no share" in only_failure(write(token=LONELY_TOKEN))
    seen = report(write(token="dss_nothing"))
    assert [warning["found"] for warning in seen["warnings"]] == ["share nothing has no table"]


def test_a_file_that_is_gone_is_told_from_one_that_is_damaged_and_one_that_is_there(write, copies):
    files = lambda name: [file for file in (copies / name).glob("*.parquet")]  # noqa: E731
    for file in files("no_files"):
        file.unlink()
    for file in files("damaged"):
        size = file.stat().st_size
        file.write_bytes(b"x" * size)
    seen = report(write(token="dss_broken"), code=1)
    found = {failure["about"]: failure for failure in seen["failures"]}
    assert found.keys() == {"broken.s.no_files", "broken.s.damaged"}
    gone = found["broken.s.no_files"]
    assert re.fullmatch(r"127\.0\.0\.1 answers 404 NoSuchKey for a file of the table", gone["found"]) and "VACUUM" in gone["help"]
    assert "not those of a Parquet file" in found["broken.s.damaged"]["found"]
    assert {table["table"]: table["failed"] for table in seen["tables"]} == {
        "broken.s.no_files": True, "broken.s.damaged": True, "broken.s.py_versions": False}
    done = verify(write(token="dss_broken"), code=1)
    assert "2 checks failed" in done.stderr


def test_a_table_that_cannot_be_read_does_not_hide_the_others(write, copies):
    log = copies / "py_versions/_delta_log"
    moved = log.rename(copies / "away")
    try:
        seen = report(write(), code=1)
        failure, = seen["failures"]
        assert failure["about"] == "good share.s.py_versions" and "the server answers" in failure["found"]
        assert "deltashare check" in failure["help"] and "request " in failure["found"]
        assert sum(not table["failed"] for table in seen["tables"]) == 2
    finally:
        moved.rename(log)


def test_an_endpoint_that_is_wrong(write, serving, tmp_path):
    base = serving.endpoint.removesuffix("delta-sharing/")
    text = only_failure(write(f"{base}wrong/"))
    assert "the server answers 404" in text and "prefix" in text
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = only_failure(write(f"http://127.0.0.1:{port}/delta-sharing/"))
    assert "127.0.0.1 cannot be reached" in text and "Is the server running" in text
    assert "no machine has the name sharing.invalid" in only_failure(write("https://sharing.invalid/delta-sharing/"))
    assert "the TLS connection to 127.0.0.1 fails" in only_failure(write(f"https://127.0.0.1:{serving.port}/delta-sharing/"))
    assert "is not a URL" in only_failure(write("sharing.example.com"))
    assert "not an http:// or https:// URL" in only_failure(write("ftp://sharing.example.com/"))


def test_what_is_no_delta_sharing_server(write, tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<html>It works!</html>"
            self.send_response(200 if self.path.startswith("/yes") else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_address[1]}"
        assert "it sends no list" in only_failure(write(f"{base}/yes/"))
        text = only_failure(write(f"{base}/no/"))
        assert "answers 403" in text and "is not a Delta Sharing server" in text
    finally:
        server.shutdown()
        server.server_close()


def test_a_token_that_a_gateway_repeats_is_not_shown(write, way):
    """API Gateway answers so where it does not know the path."""
    message = f"'{TOKEN}' not a valid key=value pair (missing equal-sign) in Authorization header: 'Bearer {TOKEN}'."
    way.rule = lambda request: answer(403, json.dumps({"message": message}), "application/json")
    text = only_failure(write(way.to))
    assert "(the token)" in text and "is not a Delta Sharing server" in text


def test_what_a_server_says_is_shown_without_secrets_and_without_what_moves_a_terminal(write, way):
    odd = f"{TOKEN} \x1b[2J\u202e https://b.s3.amazonaws.com/f?X-Amz-Signature={'ab' * 32}&x=1"
    way.rule = lambda request: answer(400, json.dumps({"errorCode": odd, "message": odd}), "application/json")
    host = way.to.split("//")[1]
    for endpoint in (way.to, f"http://user:{TOKEN}@{host}", f"{way.to}?secret=hush/"):
        for arguments in ((), ("--output", "json")):
            done = verify(write(endpoint), *arguments, code=1)
            shown = done.stdout + done.stderr
            assert TOKEN not in shown and "ab" * 20 not in shown and "hush" not in shown, shown
            assert "\x1b" not in shown and "\u202e" not in shown or arguments, shown


def test_answers_that_something_in_between_changes(write, way):
    query = lambda request: request.path.endswith("/query")  # noqa: E731
    without = lambda name: headers(lambda all_: {key: value for key, value in all_.items() if key != name})  # noqa: E731
    profile = write(way.to)

    def failures(fault):
        way.rule = lambda request: fault if query(request) else None
        return {failure["found"] for failure in report(profile, code=1)["failures"]}

    assert failures(without("content-encoding")) == {
        "the answer is compressed but its header content-encoding is gone, so that no client can read it"}
    assert failures(rewrite(lambda content: b"plain")) == {
        "the answer says that it is compressed, but it is not gzip or was cut off"}
    assert all("broke off" in failure for failure in failures(cut(40)))
    way.rule = lambda request: without("delta-table-version") if request.path.endswith("/version") else None
    assert {failure["found"] for failure in report(profile, code=1)["failures"]} == {"the answer has no header delta-table-version"}


@pytest.mark.parametrize("next_page,found", [
    (lambda number: "again", "a page token comes again"),
    (lambda number: "ab"[number % 2], "a page token comes again"),
    (lambda number: str(number), "has more than 5000 pages"),
])
def test_lists_that_never_end_are_given_up(write, next_page, found):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append(self.path)
            body = json.dumps({"items": [{"name": "s"}], "nextPageToken": next_page(len(asked))}).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert found in only_failure(write(f"http://127.0.0.1:{server.server_address[1]}/"))
    finally:
        server.shutdown()
        server.server_close()
    assert len(asked) <= 5_002


def test_answers_that_are_larger_than_any_are_given_up(write, way):
    """Spaces in place of a list, of metadata, and of a list of files."""
    of_size = lambda mib: " " * (mib * 1024 * 1024)  # noqa: E731
    profile = write(way.to, "dss_large")

    def failures(path, fault):
        way.rule = lambda request: fault if request.path.endswith(path) else None
        return {failure["found"] for failure in report(profile, code=1)["failures"]}

    assert failures("/shares", answer(200, of_size(40), "application/json")) == {"an answer of 127.0.0.1 has more than 32 MiB"}
    assert failures("/metadata", answer(200, of_size(140), "application/json")) == {"an answer of 127.0.0.1 has more than 128 MiB"}
    assert failures("/query", answer(200, of_size(80), "application/x-ndjson")) == {"a line of the answer has more than 64 MiB"}


def test_an_answer_without_end_is_not_read_without_end(write):
    sent = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path != "/refused/shares" else 500)
            self.end_headers()
            try:
                while sum(sent) < 1024:
                    self.wfile.write(b" " * (1024 * 1024))
                    sent.append(1)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for path, found in (("", "has more than 32 MiB"), ("refused/", "the server answers 500")):
            sent.clear()
            assert found in only_failure(write(f"http://127.0.0.1:{server.server_address[1]}/{path}"))
            assert sum(sent) < 256, "in MiB"
    finally:
        server.shutdown()
        server.server_close()


def test_sizes_that_no_file_has_are_a_failure(write, way):
    huge = lambda content: gzip.compress(re.sub(rb'"size":\d+', b'"size":18446744073709551615', gzip.decompress(content)))  # noqa: E731
    way.rule = lambda request: rewrite(huge) if request.path.endswith("/query") else None
    found = {failure["found"] for failure in report(write(way.to), code=1)["failures"]}
    assert len(found) == 1 and "the sizes of the files cannot be right" in found.pop()


@pytest.mark.parametrize("status,code,helps", [
    (403, "AccessDenied", "which permission is missing"), (400, "ExpiredToken", "credentials that the server signs with have expired"),
    (404, "NoSuchBucket", "The bucket of the table does not exist"), (404, "NoSuchKey", "VACUUM"),
    (403, "InvalidAccessKeyId", "AWS does not recognize the credentials"), (403, "InvalidObjectState", "archived"),
    (403, "SomethingElse", "its code says why"), (416, "InvalidRange", "The file is empty")])
def test_what_s3_says_instead_of_a_file_is_called_what_it_is(copies, tmp_path, status, code, helps):
    """By way of a server whose URLs lead through what answers so."""
    way = Way(0)
    file = tmp_path / "shares.yaml"
    file.write_text(json.dumps({
        "version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [{"name": "t", "location": str(copies / "py_versions")}]}]}],
        "recipients": [{"name": "r", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}]}))
    server = Server("--shares", file, "--public-url", way.endpoint)
    way.target = server.port
    way.rule = lambda request: s3_error(status, code) if "X-Amz-Signature" in request.query else None
    try:
        profile = tmp_path / "p.share"
        profile.write_text(json.dumps({"shareCredentialsVersion": 1, "endpoint": server.endpoint, "bearerToken": TOKEN}))
        [failure] = report(profile, code=1)["failures"]
    finally:
        server.stop()
        way.stop()
    assert failure["found"] == f"127.0.0.1 answers {status} {code} for a file of the table" and helps in failure["help"], failure


def test_a_clock_that_is_wrong_is_a_warning(write, way):
    hour = datetime.timedelta(hours=1)
    late = lambda: email.utils.format_datetime(datetime.datetime.now(datetime.timezone.utc) - hour, usegmt=True)  # noqa: E731
    way.rule = lambda request: headers(lambda all_: {**all_, "date": late()})
    seen = report(write(way.to))
    assert -3610 < seen["clockSkewSeconds"] < -3590
    assert ["behind" in warning["found"] for warning in seen["warnings"]] == [True]


def test_urls_that_live_too_short_are_a_warning(write, serving):
    server = Server("--shares", serving.file, "--url-ttl", "5m")
    try:
        done = verify(write(server.endpoint))
        assert done.stdout.count("warning: ") == 1 and "URLs are valid for" in done.stdout
    finally:
        server.stop()


@pytest.mark.parametrize("text,found", [
    ("not json", "is not one that clients read"),
    ('{"shareCredentialsVersion": 1}', "it has no endpoint"),
    ('{"shareCredentialsVersion": 1, "endpoint": "https://a/"}', "it has no bearerToken, the token"),
    ('{"shareCredentialsVersion": 1, "endpoint": "https://a/", "bearerToken": 5}', "bearerToken is not a string"),
    ('{"shareCredentialsVersion": 1, "endpoint": "https://a/", "bearerToken": "dss_x", "expirationTime": 5}', "expirationTime is not a string"),
    ('{"endpoint": "https://a/", "bearerToken": "dss_x"}', "it has no shareCredentialsVersion"),
    ('{"shareCredentialsVersion": 2, "endpoint": "https://a/", "bearerToken": "dss_x"}', "shareCredentialsVersion is 2"),
    ('{"shareCredentialsVersion": 2, "type": "oauth_client_credentials", "endpoint": "https://a/", "tokenEndpoint": "https://b/",'
     ' "clientId": "c", "clientSecret": "d"}', "is one for OAuth"),
    ('{"shareCredentialsVersion": 2, "type": "basic", "endpoint": "https://a/", "username": "u", "password": "p"}', "a user name and a password"),
    ('[1, "https://a/", "dss_x"]', "is JSON, but not an object"),
    ("\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page, not a profile"),
    ("", "the file is empty"),
    ("\ufeff{}", "byte order mark"),
])
def test_a_file_that_is_no_profile(tmp_path, text, found):
    path = tmp_path / "some.share"
    path.write_text(text)
    assert found in only_failure(path)
    missing = subprocess.run([str(BINARY), "verify", "--profile", str(tmp_path / "none.share")], capture_output=True, text=True, timeout=60)
    assert missing.returncode == 2 and "No such file" in missing.stderr


@pytest.fixture(scope="module")
def at_the_function(stack, copies):  # noqa: F811
    """A share of its own for a recipient of its own, with a table of many files."""
    from test_lambda import BUCKET
    from test_dynamodb import put

    dynamodb, s3 = stack.client("dynamodb"), stack.client("s3")
    s3.upload_file(str(copies / "many/_delta_log" / f"{0:020}.json"), BUCKET, f"verified/_delta_log/{0:020}.json")
    s3.upload_file(str(copies / "many/part-000000.parquet"), BUCKET, "verified/part-000000.parquet")
    put(dynamodb, "SHARE#verified", "SHARE", name="verified", id="0b4f1f0a-6c0f-4a35-9d0a-6a3f6d6e2b77")
    put(dynamodb, "SHARE#verified", "SCHEMA#s", name="s")
    for name, location in (("many", "verified"), ("py_versions", "py_versions")):
        put(dynamodb, "SHARE#verified", f"TABLE#s#{name}", name=name, schema="s", id=f"verified-{name}", location=f"s3://{BUCKET}/{location}")
    put(dynamodb, "RECIPIENT#verifier", "RECIPIENT", name="verifier", status="active")
    put(dynamodb, "RECIPIENT#verifier", "SHARE#verified", share="verified", recipient="verifier")
    put(dynamodb, f"TOKEN#{hash_of('dss_verifier')}", "TOKEN", recipient="verifier", id="v", expires="never")
    return "dss_verifier"


def test_the_function_is_verified_as_it_is_deployed(function, at_the_function, write):  # noqa: F811
    seen = report(write(function.endpoint, at_the_function))
    assert seen["failures"] == [] and seen["gzip"] is True and seen["streaming"] is True
    assert {table["table"]: table["files"] for table in seen["tables"]} == {"verified.s.many": MANY, "verified.s.py_versions": 1}
    assert all(1800 < table["urlLifeSeconds"] <= 3600 for table in seen["tables"])


def test_a_role_that_may_not_read_the_files_is_named(stack, at_the_function, write):  # noqa: F811
    """The signer role may read the log, and none of the files."""
    from test_lambda import BUCKET, start

    iam = stack.client("iam")
    iam.create_role(RoleName="log-only", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}))
    iam.put_role_policy(RoleName="log-only", PolicyName="read", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*/_delta_log/*"}]}))
    function = start(stack, environment={"DELTASHARE_SIGNER_ROLE_ARN": "arn:aws:iam::000000000000:role/log-only"}, seconds=150)
    try:
        seen = report(write(function.endpoint, at_the_function), code=1)
        assert len(seen["failures"]) == 2
        for failure in seen["failures"]:
            assert "answers 403 AccessDenied" in failure["found"] and "which permission is missing" in failure["help"], failure
    finally:
        function.stop()
