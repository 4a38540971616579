"""The page for recipients: what a browser gets at the endpoint, and what the page shows of a profile."""

import contextlib
import datetime
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse

import pytest

from conftest import EXPIRED_TOKEN, ROOT, TOKEN, Server, hash_of, set_commit_times, stop_without_secrets

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
HOSTILE = "<img src=x onerror=alert(1)>"
HOSTILE_TABLE = f"'\"`$(id) {HOSTILE}"
NEVER = "dss_token-of-the-page-that-never-ends"


def hostile_table(directory):
    """A table without rows, whose every text is meant for a page that inserts it as HTML."""
    log = directory / "_delta_log"
    log.mkdir(parents=True)
    script = "</script><script>alert(2)</script>"
    fields = [
        {"name": HOSTILE, "type": "long", "nullable": True, "metadata": {"comment": script}},
        {"name": "nested", "type": {"type": "struct", "fields": [
            {"name": script, "type": {"type": "array", "elementType": "string", "containsNull": True}, "nullable": True, "metadata": {}}]},
         "nullable": False, "metadata": {}},
        {"name": "__proto__", "type": {"type": "map", "keyType": "string", "valueType": "decimal(10,2)", "valueContainsNull": True},
         "nullable": True, "metadata": {"comment": "javascript:alert(3)"}},
    ]
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "hostile", "format": {"provider": "parquet", "options": {}}, "name": HOSTILE, "description": f"{script} &amp;",
                      "schemaString": json.dumps({"type": "struct", "fields": fields}), "partitionColumns": [HOSTILE],
                      "configuration": {}, "createdTime": 0}},
    ]
    (log / f"{0:020}.json").write_text("\n".join(map(json.dumps, actions)))
    return directory


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    home = tmp_path_factory.mktemp("page")
    tables = []
    for name in ("products", "orders", "customers"):
        directory = shutil.copytree(ROOT / "examples/tables" / name, home / name)
        set_commit_times(directory)
        tables.append({"name": name, "location": str(directory), "historyShared": name != "customers"})
    hostile = {"name": HOSTILE_TABLE, "location": str(hostile_table(home / "hostile"))}
    (home / "broken/_delta_log").mkdir(parents=True)
    (home / "broken/_delta_log" / f"{0:020}.json").write_text("damaged")
    broken = {"name": "broken", "location": str(home / "broken")}
    path = home / "shares.yaml"
    path.write_text(json.dumps({
        "version": 1,
        "shares": [
            {"name": "retail", "schemas": [{"name": "sales", "tables": tables}]},
            {"name": HOSTILE, "schemas": [{"name": HOSTILE, "tables": [hostile, broken]}]},
        ],
        "recipients": [{"name": "r", "shares": ["retail", HOSTILE], "tokens": [
            {"sha256": hash_of(TOKEN), "expires": "2999-01-01T00:00:00Z"},
            {"sha256": hash_of(EXPIRED_TOKEN), "expires": "2020-01-01T00:00:00Z"},
            {"sha256": hash_of(NEVER), "expires": "never"},
        ]}],
    }))
    return path


@pytest.fixture(scope="module")
def server(shares):
    server = Server("--shares", shares)
    yield server
    stop_without_secrets(server, TOKEN, EXPIRED_TOKEN, NEVER)


@pytest.fixture(scope="module")
def off(shares):
    server = Server("--shares", shares, "--no-pages")
    yield server
    assert server.stop() == 0


def write_profile(path, server, token=TOKEN, **more):
    profile = {"shareCredentialsVersion": 1, "endpoint": server.endpoint, "bearerToken": token,
               "expirationTime": "2999-01-01T00:00:00.000Z", **more}
    path.write_text(json.dumps({name: value for name, value in profile.items() if value is not None}, indent=2))
    return path


@pytest.fixture
def profile(server, tmp_path):
    return write_profile(tmp_path / "acme.share", server)


def root_of(server):
    return f"http://127.0.0.1:{server.port}"


# Without a browser


def answer(server, method, path, accept, **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = server.request(method, path, headers={**({"Accept": accept} if accept else {}), **sent}, token=None, below_prefix=False)
    for own in ("date", "x-request-id"):
        answer.headers.pop(own)
    return answer.status, answer.headers, re.sub(rb',"requestId":"[^"]+"', b"", answer.body)


@pytest.mark.parametrize("path", ["/", "/delta-sharing", "/delta-sharing/", "//", "/delta-sharing//"])
def test_a_browser_gets_the_page_with_and_without_the_prefix(server, path):
    status, headers, content = answer(server, "GET", path, HTML)
    assert status == 200 and content.startswith(b"<!doctype html>") and headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'", name
    assert policy["connect-src"] == "'self'" and "unsafe" not in headers["content-security-policy"]
    # Nothing is loaded from anywhere.
    assert not re.search(rb'(src|href)="(?!data:|#)', content) and b"@import" not in content and b"url(" not in content
    assert answer(server, "HEAD", path, HTML)[::2] == (200, b"")
    assert answer(server, "GET", path, HTML, if_none_match=headers["etag"])[::2] == (304, b"")


@pytest.mark.parametrize("method, accept, headers", [
    ("GET", None, {}),
    ("GET", "*/*", {}),
    ("GET", "application/json", {}),
    ("GET", "application/json, text/html;q=0.5", {}),
    ("GET", HTML, {"authorization": f"Bearer {TOKEN}"}),
    ("HEAD", None, {}),
    ("POST", HTML, {}),
    ("OPTIONS", HTML, {}),
])
@pytest.mark.parametrize("path", ["/", "/delta-sharing/"])
def test_clients_get_what_they_got_without_pages(server, off, path, method, accept, headers):
    ours = answer(server, method, path, accept, **headers)
    assert ours == answer(off, method, path, accept, **headers)
    assert ours[0] == 404 and ours[1]["content-type"].startswith("application/json")


def test_pages_can_be_switched_off(off):
    status, headers, content = answer(off, "GET", "/", HTML)
    assert status == 404 and json.loads(content)["errorCode"] == "RESOURCE_DOES_NOT_EXIST"
    assert "content-security-policy" not in headers


def test_paths_of_the_api_are_no_pages(server):
    for path in ("/shares", "/index.html", "/delta-sharing/shares", "/shares/retail/schemas/sales/tables/products/metadata"):
        status, headers, _ = answer(server, "GET", path, HTML)
        assert status in (401, 404) and headers["content-type"].startswith("application/json"), path


def test_the_event_of_a_page_has_its_own_action(server):
    answer(server, "GET", "/", HTML)
    assert "GetPage" in server.wait_for_log("GetPage")


# In a browser


def open_profile(page, server, path, base="/delta-sharing/"):
    page.goto(root_of(server) + base)
    page.locator("#file").set_input_files(str(path))
    return page


def choose(page, table):
    page.get_by_role("button", name=table, exact=True).click()
    page.get_by_role("heading", name="Read this table").wait_for()


def facts(page, of="#table"):
    """What the page says, by its names."""
    return dict(zip(page.locator(f"{of} dt").all_text_contents(), page.locator(f"{of} dd").all_text_contents()))


def messages(page):
    return " ".join(page.locator(".message").all_text_contents())


def tokens_sent(page):
    return [request.url for request in page.requests if TOKEN in str(request.headers)]


@pytest.mark.parametrize("base", ["/delta-sharing/", "/delta-sharing", "/"])
def test_a_recipient_sees_what_is_shared(browser_page, server, profile, base):
    page = open_profile(browser_page, server, profile, base)
    page.get_by_role("button", name="products").wait_for()
    page.get_by_role("button", name="broken").wait_for()
    assert page.locator("summary").all_text_contents() == ["retail 3 tables", f"{HOSTILE} 2 tables"]
    assert page.locator("nav h4").all_text_contents() == ["sales", HOSTILE]
    said = facts(page, "#profile-facts")
    assert said["Server"] == server.endpoint and re.match(r"Expires in \d+ years, on .*\b299[89]\b", said["Token"])
    assert page.origins() == {root_of(server)}
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_a_table_has_its_columns_version_and_size(browser_page, server, profile):
    page = open_profile(browser_page, server, profile)
    choose(page, "orders")
    page.get_by_text("Change data feed").wait_for()
    said = facts(page)
    log = ROOT / "examples/tables/orders/_delta_log"
    version = max(int(commit.stem) for commit in log.glob("*.json"))
    assert said["Version"] == str(version) and said["Partitioned by"] == "order_date"
    assert (said["Older versions"], said["Change data feed"]) == ("shared", "shared")
    assert re.fullmatch(r"[\d.]+ kB in \d+ files", said["Size"])
    # The time that `set_commit_times` gave the newest commit.
    time = datetime.datetime.fromisoformat(page.locator("#table time").get_attribute("datetime"))
    assert time == datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(hours=version)
    rows = [row.locator("th, td").all_text_contents() for row in page.locator("tbody tr").all()]
    assert ["order_datepartition", "date", "yes"] in [row[:3] for row in rows]
    page.show("table")
    assert page.locator("#message").text_content() == ""


def test_a_table_without_history(browser_page, server, profile):
    page = open_profile(browser_page, server, profile)
    choose(page, "customers")
    page.get_by_text("Change data feed").wait_for()
    said = facts(page)
    assert (said["Older versions"], said["Change data feed"]) == ("not shared", "not shared")
    assert "Last commit" not in said, "no endpoint says it"
    assert "deletionVectors" in said["Clients need"]
    page.get_by_label("Node").check()
    assert "cannot read this table" in page.locator(".hints").text_content()


def test_hostile_names_are_text(browser_page, server, profile):
    page = open_profile(browser_page, server, profile)
    page.get_by_role("button", name=HOSTILE_TABLE, exact=True).click()
    page.get_by_role("heading", name="Read this table").wait_for()
    assert page.locator("h2#table-title").text_content() == HOSTILE_TABLE
    cells = page.locator("tbody th, tbody td").all_text_contents()
    assert cells[0].startswith(HOSTILE) and "</script><script>alert(2)</script>" in cells and "__proto__" in cells
    assert page.locator("body img, body script[src], iframe, object").count() == 0
    assert page.locator("script").count() == 1
    for name in ("pandas", "Spark", "SQL", "Power BI", "R", "Node", "curl"):
        page.get_by_label(name, exact=True).check()
        assert page.locator(".snippet pre").count() > 0
    page.show("hostile")
    assert page.origins() == {root_of(server)}


def test_snippets_of_hostile_names_stay_in_their_quotes(browser_page, server, tmp_path):
    profile = write_profile(tmp_path / "it's $(touch ran) `x`.share", server)
    page = open_profile(browser_page, server, profile)
    choose(page, HOSTILE_TABLE)
    code = snippet(page, "curl", "Terminal: the schema")
    done = subprocess.run(["bash", "-c", code.replace("curl ", "curl --silent --fail ")], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[1])["metaData"]["id"] == "hostile", done.stderr
    assert not (tmp_path / "ran").exists()
    python = snippet(page, "pandas", "Python")
    assert compile(python, "snippet", "exec") and f"it's $(touch ran) `x`.share#{HOSTILE}.{HOSTILE}." in python
    for name, title in (("Spark", "PySpark"), ("Node", "JavaScript")):
        code = snippet(page, name, title)
        quoted = re.search(r'"(?:[^"\\]|\\.)*onerror(?:[^"\\]|\\.)*"', code)[0]
        assert HOSTILE in json.loads(quoted)
    sql = snippet(page, "SQL", "Spark SQL")
    assert f"(path 'it\\'s $(touch ran) `x`.share#{HOSTILE}.{HOSTILE}.\\'\"`$(id) {HOSTILE}'" in sql
    assert f"VIEW `'\"``$(id) {HOSTILE}` USING" in sql


def test_a_table_that_cannot_be_read(browser_page, server, profile):
    page = open_profile(browser_page, server, profile)
    page.get_by_role("button", name="broken").click()
    page.locator("#table .message").wait_for()
    assert len(page.locator("#table .message").text_content()) > 20
    choose(page, "products")
    assert page.locator("#table .message").count() == 0


def snippet(page, client, title):
    page.get_by_label(client, exact=True).check()
    return page.get_by_role("region", name=title, exact=True).text_content()


@pytest.mark.parametrize("table", ["products", "orders", "customers"])
def test_the_snippet_for_pandas_runs(browser_page, server, profile, table):
    page = open_profile(browser_page, server, profile)
    choose(page, table)
    code = snippet(page, "pandas", "Python")
    done = subprocess.run([sys.executable, "-c", code], cwd=profile.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and re.search(r"\[\d+ rows x|^0 ", done.stdout, re.M), done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl not found")
@pytest.mark.parametrize("table", ["products", "customers"])
@pytest.mark.parametrize("spacing", [None, 2], ids=["one line", "indented"])
def test_the_snippets_for_curl_run(browser_page, server, profile, table, spacing):
    profile.write_text(json.dumps(json.loads(profile.read_text()), indent=spacing))
    page = open_profile(browser_page, server, profile)
    choose(page, table)
    for title, last in (("Terminal: the schema", "metaData"), ("Terminal: the files, with URLs that work for a short time", "file")):
        code = snippet(page, "curl", title)
        assert TOKEN not in code
        done = subprocess.run(["bash", "-c", code], cwd=profile.parent, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and last in json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_the_clipboard_gets_what_is_shown(open_page, server, profile):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    open_profile(page, server, profile)
    choose(page, "products")
    page.get_by_role("button", name="Copy: Python").click()
    page.get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == snippet(page, "pandas", "Python")


def test_no_snippet_shows_the_token(browser_page, server, profile):
    page = open_profile(browser_page, server, profile)
    choose(page, "products")
    for client in ("pandas", "Spark", "SQL", "Power BI", "R", "Node", "curl"):
        page.get_by_label(client, exact=True).check()
        assert TOKEN not in page.content()


def test_a_token_that_has_expired(browser_page, server, tmp_path):
    profile = write_profile(tmp_path / "old.share", server, EXPIRED_TOKEN, expirationTime="2020-01-01T00:00:00.000Z")
    page = open_profile(browser_page, server, profile)
    page.locator("#message .message").wait_for()
    assert re.match(r"Expired \d+ years ago, on .* Ask your data provider for a new profile\.", facts(page, "#profile-facts")["Token"])
    assert "expired" in messages(page)
    page.show("expired")


def test_a_token_that_the_server_does_not_know(browser_page, server, tmp_path):
    page = open_profile(browser_page, server, write_profile(tmp_path / "wrong.share", server, "dss_wrong"))
    page.locator("#message .message").wait_for()
    assert "Ask your data provider for a new profile" in messages(page)
    # Nothing is being loaded any more.
    assert page.inner_text("#status") == ""


@pytest.mark.parametrize("left, words", [
    (datetime.timedelta(days=29, hours=1), "29 days"), (datetime.timedelta(hours=5, minutes=1), "5 hours"),
    (datetime.timedelta(minutes=10, seconds=20), "10 minutes"), (None, None),
])
def test_the_expiration_time_is_in_words(browser_page, server, tmp_path, left, words):
    time = left and (datetime.datetime.now(datetime.UTC) + left).isoformat()
    page = open_profile(browser_page, server, write_profile(tmp_path / "a.share", server, NEVER, expirationTime=time))
    page.get_by_role("button", name="products").wait_for()
    said = facts(page, "#profile-facts")["Token"]
    assert said.startswith(f"Expires in {words}, on ") if words else said == "The profile names no expiration time."


@pytest.mark.parametrize("endpoint", ["https://sharing.example.com/delta-sharing/", "http://localhost:{port}/delta-sharing/",
                                      "https://me:secret@sharing.example.com/"])
def test_the_token_of_another_server_is_not_sent(browser_page, server, tmp_path, endpoint):
    profile = write_profile(tmp_path / "other.share", server, endpoint=endpoint.format(port=server.port))
    page = open_profile(browser_page, server, profile)
    page.locator("#message .message").wait_for()
    assert "for another server" in messages(page) and "Your token was not sent" in messages(page)
    assert [request.url for request in page.requests] == [server.endpoint]
    assert "secret" not in page.content()
    assert "SHARE.SCHEMA.TABLE" in snippet(page, "pandas", "Python")
    page.show("other-server")


def test_a_profile_of_version_2_without_a_token(browser_page, server, tmp_path):
    profile = write_profile(tmp_path / "oauth.share", server, token=None, shareCredentialsVersion=2, type="oauth_client_credentials",
                            clientId="id", clientSecret="hidden-secret", tokenEndpoint="https://login.example.com/token")
    page = open_profile(browser_page, server, profile)
    page.locator("#message .message").wait_for()
    assert "cannot read with this profile" in messages(page) and "oauth_client_credentials" in messages(page)
    assert "SHARE.SCHEMA.TABLE" in snippet(page, "pandas", "Python")
    assert page.get_by_label("curl").count() == 0
    assert [request.url for request in page.requests] == [server.endpoint] and "hidden-secret" not in page.content()


def test_an_open_server_needs_no_token(browser_page, shares, tmp_path):
    path = tmp_path / "open.yaml"
    content = json.loads(shares.read_text())
    path.write_text(json.dumps({"version": 1, "authorization": "none", "shares": content["shares"][:1]}))
    server = Server("--shares", path)
    try:
        page = open_profile(browser_page, server, write_profile(tmp_path / "open.share", server, ""))
        page.get_by_role("button", name="products").wait_for()
    finally:
        server.stop()


def test_a_profile_of_version_2_with_a_token(browser_page, server, tmp_path):
    page = open_profile(browser_page, server, write_profile(tmp_path / "v2.share", server, shareCredentialsVersion=2, type="bearer_token"))
    page.get_by_role("button", name="products").wait_for()


@pytest.mark.parametrize("content, said", [
    ("not json", "is not JSON"), ("[]", "not a profile"), ("{}", "shareCredentialsVersion"), ("null", "not a profile"),
    ('{"shareCredentialsVersion": 3}', "shareCredentialsVersion"), ('{"shareCredentialsVersion": 1}', "endpoint"),
    ('{"shareCredentialsVersion": 1, "endpoint": "javascript:alert(1)", "bearerToken": "x"}', "not an HTTP address"),
    ('{"shareCredentialsVersion": 1, "endpoint": "https://x.example/"}', "no token"),
    ('{"shareCredentialsVersion": 1, "endpoint": "https://x.example/", "bearerToken": "a\\nb"}', "characters"),
    ("x" * 70_000, "too large"), ("", "is not JSON"),
])
def test_files_that_are_no_profiles(browser_page, server, tmp_path, content, said):
    path = tmp_path / "file"
    path.write_text(content)
    page = open_profile(browser_page, server, path)
    page.locator("#message .message").wait_for()
    assert said in messages(page) and page.locator("#open").is_visible() and page.locator("#profile").is_hidden()


def test_closing_the_profile_forgets_it(browser_page, server, profile):
    page = open_profile(browser_page, server, profile)
    choose(page, "products")
    page.get_by_role("button", name="Close profile").click()
    assert page.locator("#open").is_visible() and page.locator("#browse").is_hidden()
    assert "products" not in page.content() and "acme.share" not in page.content() and TOKEN not in page.content()
    assert page.evaluate("document.activeElement.id") == "file" and page.locator("#file").input_value() == ""
    page.reload()
    assert page.locator("#profile").is_hidden()
    # The same file opens again.
    page.locator("#file").set_input_files(str(profile))
    page.get_by_role("button", name="products").wait_for()


def test_another_profile_takes_the_place_of_the_first(browser_page, server, profile, tmp_path):
    page = open_profile(browser_page, server, profile)
    choose(page, "products")
    other = write_profile(tmp_path / "other.share", server, "dss_wrong")
    page.locator("#file").set_input_files(str(other))
    page.locator("#message .message").wait_for()
    assert page.locator("#loaded-name").text_content() == "other.share" and page.get_by_role("button", name="products").count() == 0


def test_a_dropped_file_opens(browser_page, server, profile):
    page = browser_page
    page.goto(server.endpoint)
    transfer = page.evaluate_handle("""(text) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([text], 'dropped.share'));
        return transfer;
    }""", profile.read_text())
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    page.get_by_role("button", name="products").wait_for()
    assert page.locator("#loaded-name").text_content() == "dropped.share"


def test_the_keyboard_is_enough(browser_page, server, profile):
    page, choosers = browser_page, []
    # Before the page is there: the browser opens a dialog of its own until it knows of this.
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.goto(server.endpoint)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Space")
    end = time.monotonic() + 30
    while not choosers and time.monotonic() < end:
        page.wait_for_timeout(50)
    choosers[0].set_files(str(profile))
    page.get_by_role("button", name="products").wait_for()
    assert page.evaluate("document.activeElement.id") == "profile-title"

    def press_until(key, condition):
        for _ in range(40):
            page.keyboard.press(key)
            if page.evaluate(condition):
                return
        raise AssertionError(f"the focus does not get to {condition}")

    press_until("Tab", "document.activeElement.textContent === 'products'")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Read this table").wait_for()
    assert page.evaluate("document.activeElement.id") == "table-title"
    press_until("Tab", "document.activeElement.id === 'client-pandas'")
    page.keyboard.press("ArrowRight")
    assert page.locator("#client-spark").is_checked() and "spark.read" in page.locator("#table").text_content()
    press_until("Tab", "document.activeElement.textContent === 'Copy'")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus cannot be seen"
    press_until("Shift+Tab", "document.activeElement.id === 'close'")
    page.keyboard.press("Enter")
    assert page.locator("#open").is_visible()


def test_every_control_has_a_name_and_headings_are_in_order(browser_page, server, profile):
    page = open_profile(browser_page, server, profile)
    choose(page, "products")
    unnamed = page.evaluate("""[...document.querySelectorAll('button, input, a, [role=region]')].filter((control) => {
        const label = control.labels?.length ? control.labels[0].textContent : '';
        return !(control.getAttribute('aria-label') || label || control.textContent).trim();
    }).map((control) => control.outerHTML)""")
    assert unnamed == []
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].filter((one) => one.checkVisibility()).map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert page.locator("html").get_attribute("lang") == "en" and page.locator("main").count() == 1
    assert page.locator("#status").text_content().startswith("Table products: ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_and_can_be_read(open_page, server, profile, width, scheme):
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(server.endpoint)
    page.show(f"start-{width}-{scheme}")
    assert page.overflow() == 0
    page.locator("#file").set_input_files(str(profile))
    for table in ("orders", HOSTILE_TABLE):
        choose(page, table)
        for client in ("pandas", "Power BI", "curl"):
            page.get_by_label(client, exact=True).check()
            assert page.overflow() == 0, (table, client)
        page.show(f"{'hostile' if table == HOSTILE_TABLE else table}-{width}-{scheme}")
    low = [(text, ratio) for text, ratio in page.evaluate(CONTRAST) if ratio < 4.5]
    assert low == []


# The contrast of each text with its background, by WCAG.
CONTRAST = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const color = channels(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')]
    .filter((node) => node.checkVisibility() && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))
    .filter((node) => node.tagName !== 'SCRIPT')
    .map((node) => {
      const [a, b] = [luminance(channels(getComputedStyle(node).color)), luminance(behind(node))];
      return [node.textContent.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""


def test_a_page_of_another_origin_cannot_frame_the_page(open_page, server, tmp_path):
    (tmp_path / "index.html").write_text(f'<!doctype html><iframe src="{server.endpoint}"></iframe>')
    with static(tmp_path) as origin:
        page = open_page()
        page.goto(f"{origin}/index.html")
        page.complains("frame-ancestors")
        page.wait_for_timeout(500)
        assert all(frame.url in ("", "chrome-error://chromewebdata/") or frame == page.main_frame for frame in page.frames)


@contextlib.contextmanager
def static(directory):
    """A server of files: its origin."""
    import functools
    import http.server
    import threading

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(directory)))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{files.server_port}"
    finally:
        files.shutdown()
        files.server_close()


def test_many_tables_have_a_filter_and_many_shares_are_listed_when_opened(open_page, shares, tmp_path):
    location = json.loads(shares.read_text())["shares"][0]["schemas"][0]["tables"][0]["location"]
    many = [{"name": f"share {number}", "schemas": [{"name": "s", "tables": [
        {"name": f"table {number}-{index}", "location": location} for index in range(20)]}]} for number in range(12)]
    path = tmp_path / "many.yaml"
    path.write_text(json.dumps({"version": 1, "shares": many, "recipients": [
        {"name": "r", "shares": [share["name"] for share in many], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}]}))
    server = Server("--shares", path)
    try:
        page = open_profile(open_page(), server, write_profile(tmp_path / "many.share", server))
        page.get_by_text("share 11", exact=True).wait_for()
        assert page.get_by_role("button", name="table 0-0", exact=True).count() == 0
        page.get_by_text("share 3", exact=True).click()
        page.get_by_role("button", name="table 3-7", exact=True).wait_for()
        page.get_by_label("Find a table").fill("3-7")
        assert page.locator("nav li:visible").all_text_contents() == ["table 3-7"]
        asked = [urllib.parse.unquote(urllib.parse.urlsplit(request.url).path) for request in page.requests]
        assert [path for path in asked if path.endswith("all-tables")] == ["/delta-sharing/shares/share 3/all-tables"]
    finally:
        server.stop()
