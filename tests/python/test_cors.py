"""Pages of other sites: which of them may read answers, with raw requests and in a browser."""

import json
import subprocess

import pytest

from conftest import BINARY, ROOT, TOKEN, Server, hash_of
from test_recipient_page import static

APP = "https://app.example.com"
TABLE = "/shares/retail/schemas/sales/tables/products"
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,delta-sharing-capabilities"}


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    path = tmp_path_factory.mktemp("cors") / "shares.yaml"
    table = {"name": "products", "location": str(ROOT / "examples/tables/products"), "historyShared": True}
    path.write_text(json.dumps({
        "version": 1, "shares": [{"name": "retail", "schemas": [{"name": "sales", "tables": [table]}]}],
        "recipients": [{"name": "r", "shares": ["retail"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    return path


@pytest.fixture(scope="module")
def running(shares):
    servers = []

    def start(*origins):
        servers.append(Server("--shares", shares, *(f"--cors-origin={origin}" for origin in origins)))
        return servers[-1]

    yield start
    for server in servers:
        assert server.stop() == 0


@pytest.fixture(scope="module")
def closed(running):
    return running()


@pytest.fixture(scope="module")
def open_to_app(running):
    return running(APP, "http://localhost:3000")


@pytest.fixture(scope="module")
def open_to_all(running):
    return running("*")


def of_cors(answer):
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-") or name == "vary"}


def names(value):
    return set(value.split(", "))


REQUESTS = [
    ("GET", "/shares", TOKEN, 200), ("GET", "/shares", None, 401), ("GET", "/shares", "dss_wrong", 401), ("GET", "/nothing", TOKEN, 404),
    ("GET", f"{TABLE}/metadata", TOKEN, 200), ("HEAD", TABLE, TOKEN, 200), ("POST", f"{TABLE}/query", TOKEN, 200),
    ("DELETE", "/shares", TOKEN, 405), ("GET", "/health", None, 200),
]


@pytest.mark.parametrize("method, path, token, status", REQUESTS)
def test_nothing_is_allowed_by_default(closed, method, path, token, status):
    plain = closed.request(method, path, token=token)
    answer = closed.request(method, path, token=token, headers={"Origin": APP})
    assert (answer.status, of_cors(answer)) == (plain.status, of_cors(plain)) and answer.status == status
    assert not any(name.startswith("access-control-") for name in of_cors(answer))
    assert closed.request("OPTIONS", path, token=None, headers={"Origin": APP, **ASKS}).status in (404, 405)


@pytest.mark.parametrize("method, path, token, status", REQUESTS)
def test_an_allowed_origin_may_read_every_answer(open_to_app, method, path, token, status):
    answer = open_to_app.request(method, path, token=token, headers={"Origin": APP})
    assert answer.status == status and answer.headers["access-control-allow-origin"] == APP
    assert "origin" in names(answer.headers["vary"])
    assert names(answer.headers["access-control-expose-headers"]) >= {
        "delta-table-version", "delta-sharing-capabilities", "fileidhash", "retry-after", "x-request-id"}
    assert "access-control-allow-credentials" not in answer.headers
    # What an answer has that a page can read only if it is listed.
    listed = names(answer.headers["access-control-expose-headers"])
    safe = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma"}
    hidden = {"date", "vary", "transfer-encoding", "allow", "connection", "www-authenticate"}
    assert {name for name in answer.headers if not name.startswith("access-control-")} <= listed | safe | hidden


@pytest.mark.parametrize("origin", ["https://app.example.com:8443", "http://app.example.com", "https://evil.example", "https://app.example.com.evil.example",
                                    "https://xapp.example.com", "null", "", f"{APP}/"])
def test_other_origins_may_not(open_to_app, origin):
    for method, path, token, status in REQUESTS:
        answer = open_to_app.request(method, path, token=token, headers={"Origin": origin})
        assert answer.status == status and "access-control-allow-origin" not in answer.headers
        assert "origin" in names(answer.headers["vary"]), "a cache may keep the answer for an allowed origin"
    answer = open_to_app.request("OPTIONS", "/shares", token=None, headers={"Origin": origin, **ASKS})
    assert answer.status == 405 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/shares", f"{TABLE}/query", "/shares/secret/schemas/x/tables/y/query", "/", "/nothing"])
@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
def test_a_preflight_needs_no_token_and_says_nothing_of_the_catalog(open_to_app, path, origin):
    answer = open_to_app.request("OPTIONS", path, token=None, headers={"Origin": origin, **ASKS})
    assert (answer.status, answer.body) == (204, b"")
    headers = of_cors(answer)
    assert headers.pop("access-control-allow-origin") == origin and headers.pop("vary") == "origin"
    assert names(headers.pop("access-control-allow-methods")) == {"GET", "HEAD", "POST"}
    assert names(headers.pop("access-control-allow-headers")) >= {"accept", "authorization", "content-type", "delta-sharing-capabilities", "fileidhash", "range"}
    assert int(headers.pop("access-control-max-age")) > 0
    assert not headers


def test_the_event_of_a_preflight_has_its_own_action_and_no_recipient(open_to_app):
    open_to_app.request("OPTIONS", f"{TABLE}/query", headers={"Origin": APP, **ASKS})
    line = open_to_app.wait_for_log("Preflight")
    assert "204" in line and "recipient" not in line.replace("recipient=\"\"", "")


def test_options_of_others_are_answered_as_ever(open_to_app, closed):
    for headers in ({}, {"Origin": APP}, ASKS):
        assert open_to_app.request("OPTIONS", "/shares", headers=headers).status == closed.request("OPTIONS", "/shares", headers=headers).status == 405


def test_every_origin(open_to_all):
    answer = open_to_all.request("GET", "/shares", headers={"Origin": "https://anything.example"})
    assert answer.headers["access-control-allow-origin"] == "*" and "vary" not in answer.headers
    assert open_to_all.request("OPTIONS", "/shares", token=None, headers={"Origin": "null", **ASKS}).status == 204


@pytest.mark.parametrize("origin, said", [
    ("https://app.example.com/", "write https://app.example.com"), ("https://app.example.com/path", "write https://app.example.com"),
    ("app.example.com", "neither an origin"), ("https://*.example.com", "neither an origin"), ("null", "neither an origin"), ("", "neither an origin"),
    ("HTTPS://APP.EXAMPLE.COM", "write https://app.example.com"),
])
def test_what_is_no_origin_is_refused_when_the_server_starts(shares, origin, said):
    done = subprocess.run([BINARY, "serve", "--shares", shares, "--listen", "127.0.0.1:0", f"--cors-origin={origin}"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_the_example_for_buckets_allows_what_files_need(aws):
    [text] = [block.split("```")[0] for block in (ROOT / "docs/browsers.md").read_text().split("```json\n")[1:]]
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="for-browsers")
    s3.put_bucket_cors(Bucket="for-browsers", CORSConfiguration=json.loads(text))
    [rule] = s3.get_bucket_cors(Bucket="for-browsers")["CORSRules"]
    assert rule["AllowedOrigins"] == [APP] and rule["AllowedMethods"] == ["GET"] and rule["AllowedHeaders"] == ["range"]


FETCH = """async ({ endpoint, token, table }) => {
  const headers = { Authorization: `Bearer ${token}` };
  const shares = await fetch(`${endpoint}shares`, { headers });
  const metadata = await fetch(`${endpoint}${table}/metadata`, { headers: { ...headers, 'delta-sharing-capabilities': 'responseformat=delta' } });
  const query = await fetch(`${endpoint}${table}/query`, { method: 'POST', headers: { ...headers, 'Content-Type': 'application/json' }, body: '{}' });
  const refused = await fetch(`${endpoint}shares`, { headers: { Authorization: 'Bearer wrong' } });
  const lines = (await query.text()).trim().split('\\n').map((line) => JSON.parse(line));
  const { url, size } = lines.at(-1).file;
  const file = await fetch(url);
  const part = await fetch(url, { headers: { Range: 'bytes=0-3' } });
  return {
    shares: (await shares.json()).items.map((share) => share.name),
    version: metadata.headers.get('delta-table-version'), format: metadata.headers.get('delta-sharing-capabilities'), id: query.headers.get('x-request-id'),
    refused: [refused.status, (await refused.json()).errorCode],
    file: (await file.arrayBuffer()).byteLength === size,
    part: [part.status, await part.text(), part.headers.get('content-range') !== null],
  };
}"""


def test_a_page_of_an_allowed_origin_reads_a_table_and_its_files(open_page, running, tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html><title>App</title>")
    with static(tmp_path) as origin:
        server = running(origin)
        page = open_page()
        page.goto(f"{origin}/index.html")
        read = page.evaluate(FETCH, {"endpoint": server.endpoint, "token": TOKEN, "table": TABLE[1:]})
        assert read["shares"] == ["retail"] and int(read["version"]) >= 1 and read["format"].startswith("responseformat=delta") and read["id"]
        assert read["refused"] == [401, "UNAUTHENTICATED"] and read["file"] is True and read["part"] == [206, "PAR1", True]


def test_a_page_of_another_origin_reads_nothing(open_page, open_to_app, tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html><title>App</title>")
    with static(tmp_path) as origin:
        page = open_page()
        page.goto(f"{origin}/index.html")
        said = page.evaluate("""async ({ endpoint, token }) => {
            try {
                return (await fetch(`${endpoint}shares`, { headers: { Authorization: `Bearer ${token}` } })).status;
            } catch (error) {
                return error.name;
            }
        }""", {"endpoint": open_to_app.endpoint, "token": TOKEN})
        assert said == "TypeError"
        page.complains("blocked by CORS policy")
        page.complains("net::ERR_FAILED")
