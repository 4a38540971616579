"""Activation links: the commands that make them, and the requests of the page that uses them, over a DynamoDB of our own."""

import base64
import concurrent.futures
import datetime
import hashlib
import hmac
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from conftest import BINARY, ROOT, Server
from faults import Way, cut, s3_error
from lambda_runtime import Lambda
from test_admin import Admin, client_make

UNUSABLE = "The activation link was already used, has expired, or is not known to this server. Ask the provider of the share for a new link."
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-frame-options": "DENY"}


class World:
    """A catalog with the share `Retail`, its commands, and a server over it. What the server logs has no id and no secret."""

    def __init__(self, aws, name, options=(), **more):
        self.table = f"activation-{abs(hash(name))}"
        self.client = aws.client("dynamodb")
        client_make(self.client, self.table)
        self.server = Server("--catalog", f"dynamodb:{self.table}", *options, env={**aws.environment, **more})
        self.admin = Admin(aws, self.table, self.server.endpoint)
        self.admin.run("share", "create", "Retail")
        self.links = []

    def link(self, *arguments):
        """A new link, from a command with --activation."""
        printed = self.admin.run(*arguments, "--activation").stdout
        assert re.fullmatch(re.escape(self.server.endpoint) + r"activate#[A-Za-z0-9_-]{43}\n", printed)
        self.links.append(printed.strip())
        return self.links[-1]

    def acme(self, *arguments):
        return self.link("recipient", "create", "Acme", "--share", "retail", *arguments)

    def activations(self):
        found = self.client.scan(TableName=self.table, ConsistentRead=True)["Items"]
        return [item for item in found if item["pk"]["S"].startswith("ACTIVATION#")]

    def post(self, path, link, **more):
        return self.server.request("POST", path, json.dumps({"id": id_of(link)}), token=None, **more)

    def show(self, link):
        return self.post("/activate/invitation", link)

    def use(self, link):
        return self.post("/activate", link)

    def stop(self):
        assert self.server.stop() == 0
        log = "".join(self.server.log)
        assert "panicked" not in log
        for link in self.links:
            for secret in (link.partition("#")[2], id_of(link)[8:]):
                assert secret not in log, "a link is in the log"


@pytest.fixture
def world(aws, request):
    world = World(aws, request.node.name)
    yield world
    world.stop()


def secret_of(link):
    return base64.urlsafe_b64decode(link.partition("#")[2] + "=")


def derived(link, purpose):
    return hmac.digest(secret_of(link), f"deltashare activation {purpose}".encode(), "sha256")


def id_of(link):
    return derived(link, "id").hex()


def decrypted(link, purpose, ciphertext):
    return AESGCM(derived(link, purpose)).decrypt(ciphertext[:12], ciphertext[12:], None).decode()


def read(link, purpose, answer):
    assert answer.status == 200 and list(answer.json) == ["ciphertext"]
    return json.loads(decrypted(link, purpose, base64.b64decode(answer.json["ciphertext"])))


def is_unusable(answer):
    assert (answer.status, answer.json["errorCode"], answer.json["message"]) == (404, "RESOURCE_DOES_NOT_EXIST", UNUSABLE)
    # But for the id of the request, nothing tells one from another.
    return {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}, set(answer.json)


def lists(world, profile):
    answer = world.server.request("GET", "/shares", token=profile["bearerToken"])
    return [share["name"] for share in answer.json["items"]] if answer.status == 200 else answer.status


def test_a_link_hands_out_the_profile_once(world):
    link = world.acme("--expires", "10d", "--activation-from", "Contoso Ltd.")
    for _ in range(3):
        invitation = read(link, "invitation", world.show(link))
        assert (invitation["provider"], invitation["endpoint"], invitation["recipient"], invitation["shares"]) == (
            "Contoso Ltd.", world.server.endpoint, "Acme", ["retail"])
        left = datetime.datetime.fromisoformat(invitation["linkExpires"]) - datetime.datetime.now(datetime.timezone.utc)
        assert datetime.timedelta(hours=71, minutes=59) < left <= datetime.timedelta(hours=72)
    profile = read(link, "profile", world.use(link))
    assert profile["endpoint"] == world.server.endpoint and lists(world, profile) == ["Retail"]
    assert profile["expirationTime"][:19] == invitation["tokenExpires"][:19]
    assert world.activations() == []
    assert is_unusable(world.use(link)) == is_unusable(world.show(link)) == is_unusable(world.use(world.server.endpoint + "activate#" + "A" * 43))
    events = [line for line in world.server.log if "Activat" in line]
    assert any('action="Activate"' in line and 'recipient="Acme"' in line and "token.id" in line for line in events), events
    assert any('action="GetActivation"' in line and 'recipient="Acme"' in line for line in events)


def test_the_record_has_nothing_that_reads_the_profile(world):
    link = world.acme()
    [item] = world.activations()
    assert set(item) == {"pk", "sk", "format", "recipient", "sha256", "expires", "deleteAfter", "invitation", "profile"}
    assert item["pk"]["S"] == f"ACTIVATION#{id_of(link)}" and item["sk"]["S"] == "ACTIVATION"
    expires = datetime.datetime.fromisoformat(item["expires"]["S"])
    assert int(item["deleteAfter"]["N"]) == int(expires.timestamp())
    profile = json.loads(decrypted(link, "profile", item["profile"]["B"]))
    everything = json.dumps(world.client.scan(TableName=world.table)["Items"], default=lambda value: value.decode("latin-1"))
    for secret in (profile["bearerToken"], link.partition("#")[2], "retail.sales"):
        assert secret not in everything
    assert item["sha256"]["S"] == hashlib.sha256(profile["bearerToken"].encode()).hexdigest()


def test_opening_the_page_uses_nothing(world):
    link = world.acme()
    page = world.server.request("GET", "/activate", token=None)
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8" and HEADERS.items() <= page.headers.items()
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'", name
    assert policy["connect-src"] == "'self'" and "unsafe" not in str(policy) and "*" not in str(policy)
    for element in ("script", "style"):
        [text] = re.findall(rf"<{element}>(.*?)</{element}>", page.body.decode(), re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{element}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:,)""", page.body.decode())
    head = world.server.request("HEAD", "/activate", token=None)
    assert head.status == 200 and head.body == b"" and head.headers["content-security-policy"] == page.headers["content-security-policy"]
    # Paths that the base path or a scanner spells in another way.
    for path in ("/activate/", "//activate", "/activate?utm_source=mail"):
        assert world.server.request("GET", path, token=None).body == page.body, path
    assert world.server.request("GET", "/activate", token=None, below_prefix=False).body == page.body
    for method, path in (("PUT", "/activate"), ("DELETE", "/activate"), ("GET", "/activate/invitation")):
        assert world.server.request(method, path, token=None).status == 405, (method, path)
    assert world.server.request("GET", f"/activate/{id_of(link)}", token=None).status == 404
    assert len(world.activations()) == 1 and read(link, "profile", world.use(link))


def test_a_request_that_is_not_one_uses_nothing(world):
    link = world.acme()
    for body in (None, "", "{}", "null", "[]", '{"id": null}', '{"id": 1}', "x", "id=" + id_of(link), b"\xff", '{"id": ["' + id_of(link) + '"]}'):
        for path in ("/activate", "/activate/invitation"):
            answer = world.server.request("POST", path, body, token=None)
            assert answer.status == 400 and HEADERS.items() <= answer.headers.items(), (path, body)
            assert id_of(link).encode() not in answer.body
    for wrong in ("", "0", id_of(link)[:-1], id_of(link).upper(), id_of(link) + "0", "é" * 64, link.partition("#")[2]):
        answer = world.server.request("POST", "/activate", json.dumps({"id": wrong}), token=None)
        assert answer.status == 404 and answer.json["message"] == UNUSABLE and HEADERS.items() <= answer.headers.items()
    assert world.server.request("POST", "/activate", b"x" * (1 << 20 | 1), token=None).status == 413
    assert read(link, "profile", world.use(link))


def test_of_many_at_once_one_gets_the_profile(world):
    link = world.acme()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: world.use(link), range(12)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses.count(200) == 1 and set(statuses) <= {200, 404, 503}, statuses
    assert is_unusable(world.use(link))


def test_a_link_that_has_expired(world):
    link = world.acme("--activation-expires", "1h")
    [item] = world.activations()
    # DynamoDB deletes it days later.
    item["expires"]["S"] = "2020-01-01T00:00:00Z"
    world.client.put_item(TableName=world.table, Item=item)
    assert is_unusable(world.show(link)) == is_unusable(world.use(link))
    assert len(world.activations()) == 1
    assert "unusedLink" not in world.admin.json("token", "list", "acme")[0]


def test_a_link_never_outlives_its_token(world):
    link = world.acme("--expires", "2h", "--activation-expires", "30d")
    invitation = read(link, "invitation", world.show(link))
    assert invitation["linkExpires"] == invitation["tokenExpires"]


def test_a_record_that_cannot_be_read_is_unknown(world):
    link = world.acme()
    [item] = world.activations()
    for name, value in (("format", {"N": "2"}), ("expires", {"S": "never"}), ("expires", {"S": "soon"}), ("sha256", {"S": "x"}),
                        ("profile", {"S": "x"}), ("recipient", {"S": "a/b"})):
        world.client.put_item(TableName=world.table, Item={**item, name: value})
        assert is_unusable(world.show(link)) and is_unusable(world.use(link)), name
    assert "a record of the catalog cannot be read" in "".join(world.server.log)
    world.client.put_item(TableName=world.table, Item=item)
    assert read(link, "profile", world.use(link))


def test_a_link_ends_with_its_token(world):
    """Whatever ends the token: a rotation, a revocation, a deletion, or a script that deletes one record of it."""
    admin = world.admin
    first = world.acme()
    [token] = admin.json("token", "list", "acme")
    assert token["unusedLink"].startswith("until ")
    second = world.link("token", "rotate", "acme", "--grace", "24h")
    assert is_unusable(world.use(first)) and len(world.activations()) == 1
    listed = admin.json("token", "list", "acme")
    assert sorted("unusedLink" in token for token in listed) == [False, True]
    rotated = admin.run("token", "rotate", "acme", "--grace", "0").stderr
    assert "Its activation link was not used, and was deleted." in rotated
    assert is_unusable(world.use(second)) and world.activations() == []

    third = world.link("token", "create", "acme")
    shares = read(third, "invitation", world.show(third))["shares"]
    assert shares == ["Retail"]
    newest = admin.json("token", "list", "acme")
    [unused] = [token for token in newest if "unusedLink" in token]
    admin.run("token", "revoke", "acme", unused["id"], "--yes")
    assert is_unusable(world.use(third)) and world.activations() == []

    fourth = world.link("token", "create", "acme")
    [item] = world.activations()
    world.client.delete_item(TableName=world.table, Key={"pk": {"S": f"TOKEN#{item['sha256']['S']}"}, "sk": {"S": "TOKEN"}})
    assert is_unusable(world.show(fourth)) and is_unusable(world.use(fourth))

    fifth = world.link("token", "rotate", "acme")
    admin.run("recipient", "delete", "acme", "--yes")
    assert is_unusable(world.use(fifth))
    assert {item["pk"]["S"] for item in world.client.scan(TableName=world.table)["Items"]} == {"SHARE#retail", "SERVER"}


def test_the_link_of_a_disabled_recipient_waits(world):
    link = world.acme()
    world.admin.run("recipient", "update", "acme", "--disable")
    assert is_unusable(world.show(link)) == is_unusable(world.use(link))
    assert len(world.activations()) == 1
    world.admin.run("recipient", "update", "acme", "--enable")
    assert lists(world, read(link, "profile", world.use(link))) == ["Retail"]


def test_the_other_commands_leave_links_alone(world, tmp_path):
    link = world.acme()
    exported = tmp_path / "shares.yaml"
    exported.write_text(world.admin.run("export").stdout)
    assert id_of(link) not in exported.read_text()
    world.admin.run("apply", "-f", exported, "--prune")
    world.admin.run("check", code=0)
    assert read(link, "profile", world.use(link))


def test_what_the_commands_print(world, tmp_path):
    done = world.admin.run("recipient", "create", "acme", "--share", "retail", "--activation")
    assert done.stdout.count("\n") == 1 and done.stdout.strip() not in done.stderr
    for text in ("can read retail", "works once", "until", "as you would send a password"):
        assert text in done.stderr, text
    assert "https" not in done.stderr
    for arguments in (("recipient", "create", "globex"), ("token", "rotate", "globex"), ("token", "create", "globex")):
        answer = world.admin.json(*arguments, "--activation", "--activation-expires", "7d")
        assert set(answer) == {"done", "link", "linkExpires"}
        world.links.append(answer["link"])
        assert read(answer["link"], "profile", world.use(answer["link"]))
        if arguments[0] == "token":
            world.admin.run("token", "rotate", "globex", "--grace", "0")
    far = world.admin.run("token", "rotate", "acme", "--activation", "--endpoint", "http://sharing.example.com/")
    assert far.stdout.startswith("http://sharing.example.com/activate#") and "only at an endpoint with https" in far.stderr
    for arguments, text in (
        (("--activation", "--profile", tmp_path / "x.share"), "cannot be used with"),
        (("--activation-expires", "1h"), "--activation"),
        (("--activation-from", "Contoso"), "--activation"),
        (("--activation", "--activation-expires", "31d"), "at most 30d"),
        (("--activation", "--activation-expires", "0"), "already have expired"),
        (("--activation", "--activation-expires", "72"), "needs a unit"),
        (("--activation", "--activation-from", ""), "1 to 100 characters"),
        (("--activation", "--endpoint", "https://a.example/?x=1"), "query"),
    ):
        assert text in world.admin.error(2, "recipient", "create", "other", *arguments), arguments
    assert world.admin.error(3, "token", "rotate", "nobody", "--activation")
    assert [recipient["name"] for recipient in world.admin.json("recipient", "list")] == ["acme", "globex"]


def test_the_command_that_uses_a_link(world, tmp_path):
    link, profile = world.acme(), tmp_path / "acme.share"
    shown = json.loads(world.admin.run("activate", link, "--show", "--output", "json").stdout)
    assert (shown["recipient"], shown["shares"]) == ("Acme", ["retail"])
    assert "Acme" in world.admin.run("activate", link, "--show").stdout
    taken = tmp_path / "taken.share"
    taken.write_text("mine")
    assert "the link was not used" in world.admin.error(2, "activate", link, "--profile", taken)
    assert "the link was not used" in world.admin.error(2, "activate", link, "--profile", tmp_path / "no/such/directory")
    done = subprocess.run([str(BINARY), "activate", "-", "--profile", str(profile)], input=link + "\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Acme" in done.stderr, done
    assert profile.stat().st_mode & 0o777 == 0o600 and lists(world, json.loads(profile.read_text())) == ["Retail"]
    again = tmp_path / "again.share"
    assert UNUSABLE in world.admin.error(1, "activate", link, "--profile", again) and not again.exists()
    assert "not an activation link" in world.admin.error(2, "activate", link[:-1], "--profile", again)
    other = world.link("token", "create", "acme")
    swapped = other.partition("#")[0] + "#" + link.partition("#")[2]
    assert UNUSABLE in world.admin.error(1, "activate", swapped, "--profile", again)


def test_a_record_that_was_changed_is_not_decrypted(world, tmp_path):
    link = world.acme()
    [item] = world.activations()
    profile = bytearray(item["profile"]["B"])
    profile[-20] ^= 1
    world.client.put_item(TableName=world.table, Item={**item, "profile": {"B": bytes(profile)}})
    path = tmp_path / "acme.share"
    assert "does not decrypt" in world.admin.error(1, "activate", link, "--profile", path) and not path.exists()


def test_a_server_of_a_share_file_has_no_links(server):
    link = server.endpoint + "activate#" + "A" * 43
    body = json.dumps({"id": id_of(link)})
    assert server.request("GET", "/activate", token=None).status == 200
    for path in ("/activate", "/activate/invitation"):
        assert is_unusable(server.request("POST", path, body, token=None))


@pytest.mark.parametrize("prefix", ["/", "/a b/c", "/delta-sharing/"])
def test_links_below_any_prefix(aws, request, prefix, tmp_path):
    world = World(aws, request.node.name)
    server = Server("--catalog", f"dynamodb:{world.table}", "--prefix", prefix, env=aws.environment)
    try:
        world.admin.environment["DELTASHARE_ENDPOINT"] = server.endpoint.replace(" ", "%20")
        link = world.admin.run("recipient", "create", "acme", "--activation").stdout.strip()
        world.admin.run("activate", link, "--profile", tmp_path / "acme.share")
        assert json.loads((tmp_path / "acme.share").read_text())["endpoint"] == server.endpoint.replace(" ", "%20")
    finally:
        assert server.stop() == 0
        world.stop()


@pytest.mark.parametrize("base_path", ["", "/consumer"])
def test_links_of_the_function(aws, request, base_path, tmp_path):
    world = World(aws, request.node.name)
    function = Lambda({**aws.environment, "DELTASHARE_TABLE": world.table, "DELTASHARE_BASE_PATH": base_path,
                       "DELTASHARE_SIGNER_ROLE_ARN": "arn:aws:iam::000000000000:role/signer"}, base_path=base_path)
    try:
        world.admin.environment["DELTASHARE_ENDPOINT"] = function.endpoint
        link = world.admin.run("recipient", "create", "acme", "--activation").stdout.strip()
        world.links.append(link)
        with urllib.request.urlopen(link.partition("#")[0]) as page:
            assert page.headers["content-security-policy"].startswith("default-src 'none'") and b"Invitation" in page.read()
        assert len(world.activations()) == 1
        world.admin.run("activate", link, "--profile", tmp_path / "acme.share")
        assert UNUSABLE in world.admin.error(1, "activate", link, "--profile", tmp_path / "again.share")
        assert json.loads((tmp_path / "acme.share").read_text())["endpoint"] == function.endpoint
        end = time.monotonic() + 10
        while len(events := [json.loads(line) for line in function.log if '"Action"' in line]) < 4 and time.monotonic() < end:
            time.sleep(0.05)
        assert [(event["Action"], event["http.status"], event.get("recipient")) for event in events] == [
            ("GetActivation", 200, None), ("GetActivation", 200, "acme"), ("Activate", 200, "acme"), ("GetActivation", 404, None)]
        log = "".join(function.log)
        assert id_of(link)[8:] not in log and link.partition("#")[2] not in log
    finally:
        function.stop()
        world.stop()


def is_transaction(request):
    return request.headers.get("X-Amz-Target", "").endswith("TransactWriteItems")


@pytest.fixture
def behind_way(aws, request):
    """The same, with a way to DynamoDB that can fail."""
    way = Way(urllib.parse.urlsplit(aws.dynamodb).port)
    world = World(aws, request.node.name, AWS_ENDPOINT_URL_DYNAMODB=way.endpoint)
    yield world, way
    way.rule = None
    world.stop()
    way.stop()


def test_a_lost_answer_of_dynamodb_loses_no_profile(behind_way):
    """The record is deleted, but the server does not know it: the SDK repeats the transaction, which DynamoDB recognizes."""
    world, way = behind_way
    link = world.acme()
    seen = []

    def lose_the_first(request):
        if is_transaction(request):
            seen.append(request)
            return cut(0) if len(seen) == 1 else None
        return None

    way.rule = lose_the_first
    answer = world.use(link)
    assert len(seen) == 2 and seen[0].body == seen[1].body
    # The only thing that the role of the function may delete.
    [step] = json.loads(seen[0].body)["TransactItems"]
    assert list(step) == ["Delete"] and step["Delete"]["Key"]["pk"] == {"S": f"ACTIVATION#{id_of(link)}"}
    assert read(link, "profile", answer) and world.activations() == []


def test_a_catalog_that_does_not_answer_uses_nothing(behind_way):
    world, way = behind_way
    link = world.acme()
    refused = s3_error(500, "InternalServerError")
    for match in (lambda request: True, is_transaction):
        way.rule = lambda request: refused if match(request) else None
        answer = world.use(link)
        assert answer.status == 503 and "retry-after" in answer.headers and HEADERS.items() <= answer.headers.items()
    way.rule = None
    assert read(link, "profile", world.use(link))


def test_the_documented_derivation():
    """The page on records describes how scripts make links, with values to compare."""
    page = (ROOT / "infra/records.md").read_text()
    [secret] = re.findall(r"activate#([A-Za-z0-9_-]{43})", page)
    link = "activate#" + secret
    [item] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.S) if "ACTIVATION#" in block]
    assert item["pk"]["S"] == f"ACTIVATION#{id_of(link)}"
    invitation = json.loads(decrypted(link, "invitation", base64.b64decode(item["invitation"]["B"])))
    profile = json.loads(decrypted(link, "profile", base64.b64decode(item["profile"]["B"])))
    assert profile["bearerToken"] == "dss_example" and item["sha256"]["S"] == hashlib.sha256(b"dss_example").hexdigest()
    assert invitation["recipient"] == item["recipient"]["S"]
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    scope = {}
    exec(code, scope)  # noqa: S102
    made = scope["activation"](secret_of(link), invitation, profile)
    assert made["pk"] == f"ACTIVATION#{id_of(link)}"
    assert json.loads(decrypted(link, "profile", made["profile"])) == profile
