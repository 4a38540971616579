"""The page of an activation link in a real browser: with a mouse, with a keyboard only, on a phone, and without scripts."""

import json
import re

import pytest

from faults import Way
from test_activation import World, id_of

DESKTOP = {"width": 1200, "height": 900}
PHONE = {"width": 360, "height": 740}
# Their text can be read: the contrast of WCAG's level AA for every text of the page.
CONTRAST = """() => {
  const number = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => number(color).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const worst = {};
  for (const element of document.querySelectorAll("main *")) {
    const has = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!has || !element.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    worst[element.tagName] = Math.min(worst[element.tagName] ?? 99, (a + 0.05) / (b + 0.05));
  }
  return worst;
}"""


@pytest.fixture
def world(aws, request):
    world = World(aws, request.node.name)
    world.link_of_acme = world.acme("--expires", "90d", "--activation-from", "Contoso Ltd.")
    yield world
    world.stop()


def visible(page):
    """The one section that is shown."""
    return page.evaluate("[...document.querySelectorAll('section')].filter((section) => !section.hidden).map((section) => section.id)")


def wait_for(page, section):
    page.wait_for_selector(f"#{section}:not([hidden])")
    assert visible(page) == [section]


def opened(page, link, section="invitation"):
    page.goto(link)
    wait_for(page, section)
    return page


def use(page, press=None):
    """Downloads the profile: (the name of the file, the profile)."""
    with page.expect_download() as download:
        press() if press else page.click("#activate")
    return download.value.suggested_filename, json.loads(download.value.path().read_text())


def shares_of(world, profile):
    answer = world.server.request("GET", "/shares", token=profile["bearerToken"])
    assert answer.status == 200
    return [share["name"] for share in answer.json["items"]]


def no_foreign_request(page, world):
    assert page.origins() == {re.match(r"https?://[^/]+", world.server.endpoint)[0]}


def test_a_link_is_opened_and_used(world, open_page):
    page = opened(open_page(viewport=DESKTOP), world.link_of_acme)
    text = page.inner_text("main")
    for shown in ("Contoso Ltd. invites Acme to read shared data.", "127.0.0.1", "retail", "Link valid until", "Access until"):
        assert shown in text, shown
    page.show("activation-invitation")
    assert len(world.activations()) == 1
    name, profile = use(page)
    assert name == "Acme.share" and shares_of(world, profile) == ["Retail"] and world.activations() == []
    wait_for(page, "done")
    page.show("activation-done")
    # The profile can be downloaded again as long as the page is open, and the secret leaves the address bar.
    assert use(page, lambda: page.click("#again")) == (name, profile)
    assert "#" not in page.url and page.title() == "Your profile is ready"
    assert 'SharingClient("Acme.share")' in page.inner_text("#example")
    no_foreign_request(page, world)
    # The page itself, the invitation and the profile: no request has the secret or the id in its URL.
    asked = [(request.method, re.sub(r"^https?://[^/]+|#.*", "", request.url)) for request in page.requests
             if request.url.startswith("http")]
    assert asked == [("GET", "/delta-sharing/activate"), ("POST", "/delta-sharing/activate/invitation"), ("POST", "/delta-sharing/activate")]
    assert all("authorization" not in request.headers and "cookie" not in request.headers for request in page.requests)


def test_the_page_leads_to_the_one_that_opens_profiles(world, open_page, tmp_path):
    page = opened(open_page(viewport=DESKTOP), world.link_of_acme)
    _, profile = use(page)
    wait_for(page, "done")
    (tmp_path / "acme.share").write_text(json.dumps(profile))
    with page.context.expect_page() as other:
        page.click("text=the page for recipients")
    tab = other.value
    assert tab.url == world.server.endpoint
    tab.set_input_files("#file", str(tmp_path / "acme.share"))
    tab.wait_for_selector("#shares summary")
    assert "Retail" in tab.inner_text("#shares")
    # The profile is still there.
    assert use(page, lambda: page.click("#again"))[1] == profile
    no_foreign_request(page, world)


def test_a_server_without_that_page_is_not_linked_to(aws, request, open_page):
    world = World(aws, request.node.name, options=["--no-pages"])
    try:
        page = opened(open_page(viewport=DESKTOP), world.acme())
        use(page)
        wait_for(page, "done")
        assert page.locator("a").count() == 0 and "Keep the file like a password" in page.inner_text("#done")
    finally:
        world.stop()


def test_the_profile_can_be_copied(world, open_page):
    page = open_page(viewport=DESKTOP, permissions=["clipboard-read", "clipboard-write"])
    opened(page, world.link_of_acme)
    _, profile = use(page)
    page.click("#copy")
    page.wait_for_function("document.getElementById('status').textContent.includes('clipboard')")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == profile


def test_used_expired_wrong_and_incomplete_links_look_alike(world, open_page):
    use(opened(open_page(viewport=DESKTOP), world.link_of_acme))
    expired = world.link("token", "create", "acme")
    [item] = world.activations()
    world.client.put_item(TableName=world.table, Item={**item, "expires": {"S": "2020-01-01T00:00:00Z"}})
    page_url = world.server.endpoint + "activate"
    texts = set()
    for link in (world.link_of_acme, expired, page_url + "#" + "A" * 43, expired[:-1], expired + "A", page_url + "#", page_url):
        page = opened(open_page(viewport=DESKTOP), link, "unusable")
        texts.add((page.title(), page.inner_text("main")))
        no_foreign_request(page, world)
    page.show("activation-unusable")
    [(title, text)] = texts
    assert title == "This link cannot be used" and "ask the person who sent you the link for a new one" in text


def test_a_link_that_is_used_while_its_page_is_open(world, open_page):
    first, second = opened(open_page(viewport=DESKTOP), world.link_of_acme), opened(open_page(viewport=DESKTOP), world.link_of_acme)
    use(first)
    second.click("#activate")
    wait_for(second, "unusable")
    assert second.evaluate("document.activeElement.id") == "title"


def test_a_scanner_that_opens_the_link_uses_nothing(world, open_page):
    for method in ("GET", "HEAD"):
        assert world.server.request(method, "/activate", token=None).status == 200
    scanner = open_page(viewport=DESKTOP)
    for _ in range(2):
        opened(scanner, world.link_of_acme)
        scanner.wait_for_load_state("networkidle")
        # It may move the mouse, scroll, and follow what looks like a link.
        assert scanner.locator("a[href]").count() == 0 and scanner.locator("form").count() == 0
        scanner.mouse.wheel(0, 500)
    assert len(world.activations()) == 1
    _, profile = use(opened(open_page(viewport=DESKTOP), world.link_of_acme))
    assert shares_of(world, profile) == ["Retail"]


def test_with_a_keyboard_only(world, open_page):
    page = opened(open_page(viewport=DESKTOP), world.link_of_acme)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "activate"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "solid3px"
    page.show("activation-focus")
    _, profile = use(page, lambda: page.keyboard.press("Enter"))
    wait_for(page, "done")
    # Screen readers say the new heading, and the next key leads to the buttons.
    assert page.evaluate("document.activeElement.id") == "title"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "again"
    assert use(page, lambda: page.keyboard.press("Space"))[1] == profile


def test_what_a_screen_reader_gets(world, open_page):
    page = opened(open_page(viewport=DESKTOP), world.link_of_acme)
    tree = page.locator("body").aria_snapshot()
    for part in ("- main:", '- heading "Invitation to shared data" [level=1]', '- button "Download the profile"', "- term: Shares", "- status"):
        assert part in tree, (part, tree)
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_and_in_either_scheme(world, open_page, scheme):
    for viewport in (PHONE, DESKTOP):
        link = world.link("token", "rotate", "acme", "--activation-from", "Contoso " + "W" * 80)
        page = opened(open_page(viewport=viewport, color_scheme=scheme), link)
        for section in ("invitation", "done"):
            if section == "done":
                use(page)
                wait_for(page, "done")
            assert page.overflow() == 0, section
            page.show(f"activation-{section}-{scheme}-{viewport['width']}")
            worst = page.evaluate(CONTRAST)
            assert worst and min(worst.values()) >= 4.5, worst
            height = min(page.evaluate("[...document.querySelectorAll('button')].filter((b) => b.checkVisibility()).map((b) => b.offsetHeight)"))
            assert height >= 44


def test_the_server_fails_for_a_while(aws, request, open_page):
    world = World(aws, request.node.name)
    way = Way(world.server.port)
    try:
        world.admin.environment["DELTASHARE_ENDPOINT"] = f"{way.endpoint}/delta-sharing/"
        link = world.admin.run("recipient", "create", "acme", "--activation").stdout.strip()
        way.rule = lambda request: ("answer", 503, b"{}", "application/json") if request.method == "POST" else None
        page = opened(open_page(viewport=DESKTOP), link, "retry")
        assert "The link was not used" in page.inner_text("main")
        page.show("activation-retry")
        way.rule = None
        page.click("#again-later")
        wait_for(page, "invitation")
        way.rule = lambda request: ("reset",) if request.method == "POST" else None
        page.click("#activate")
        wait_for(page, "retry")
        page.complains("ERR_CONNECTION_RESET")
        assert not page.problems
        way.rule = None
        _, profile = use(page, lambda: page.click("#again-later"))
        assert profile["endpoint"] == f"{way.endpoint}/delta-sharing/"
    finally:
        way.stop()
        world.stop()


def test_without_scripts(world, open_page):
    page = open_page(viewport=PHONE, java_script_enabled=False)
    page.goto(world.link_of_acme)
    text = page.inner_text("main")
    assert "needs JavaScript" in text and "deltashare activate" in text and "was not used" in text
    page.show("activation-noscript")
    assert len(world.activations()) == 1


def test_without_https(world, open_page):
    """A browser gives a page over plain HTTP no cryptography, unless it is of the same machine."""
    page = open_page(viewport=PHONE)
    page.context.route("http://sharing.example/**", lambda route: route.fulfill(
        status=200, headers=dict(reply.headers), body=reply.body))
    reply = world.server.request("GET", "/activate", token=None)
    page.page.goto("http://sharing.example/delta-sharing/activate#" + world.link_of_acme.partition("#")[2])
    wait_for(page, "insecure")
    assert "HTTPS" in page.title() and "The link was not used" in re.sub(r"\s+", " ", page.inner_text("main"))
    page.show("activation-insecure")
    assert page.overflow() == 0
    page.requests.clear()


def test_names_that_look_like_code(world, open_page):
    """The names of a recipient and of its provider are text, and a file has a name that every system takes."""
    name = 'x"><img src=x onerror=alert(1)> ..\\é日'
    link = world.link("recipient", "create", name, "--activation-from", "<script>alert(2)</script>")
    page = opened(open_page(viewport=PHONE), link)
    assert name in page.inner_text("#recipient") and "<script>" in page.inner_text("#provider")
    file, profile = use(page)
    assert re.fullmatch(r"[\w.-]+\.share", file) and profile["bearerToken"]
    assert page.overflow() == 0


def test_another_link_in_the_same_tab(world, open_page):
    page = opened(open_page(viewport=DESKTOP), world.server.endpoint + "activate#" + "A" * 43, "unusable")
    opened(page, world.link_of_acme)
    assert id_of(world.link_of_acme) not in page.url
