"""Recipients without a secret of this server: tokens of an OpenID provider, over a share file and over DynamoDB."""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import time

import delta_sharing
import pytest
from jwcrypto import jwk

from conftest import BINARY, OTHER_TOKEN, ROOT, Server, TOKEN, hash_of, write_profile
from openid import OpenId, sign
from test_dynamodb import make_table, put

AUDIENCE = "delta-sharing"
BUCKET = "federated"


@pytest.fixture(scope="module")
def openid():
    provider = OpenId()
    provider.new_key("RS256")
    yield provider
    provider.stop()


def policy(issuer, subject="acme-reader", claim="sub", audiences=(AUDIENCE,)):
    return {"issuer": issuer, "subjectClaim": claim, "subject": subject, "audiences": list(audiences)}


class FileCatalog:
    """A share file, whose recipients change while it is served."""

    def __init__(self, directory, tables):
        self.path = directory / "shares.yaml"
        self.tables = tables
        self.recipients = {}
        self.disabled = set()
        self.write()
        self.server = Server("--shares", self.path, "--allow-loopback-issuers")

    def write(self):
        location = str(self.tables["py_versions"])
        tables = [{"name": "py_versions", "location": location, "historyShared": True}]
        recipients = [{"name": "other", "shares": ["retail"], "tokens": [{"sha256": hash_of(OTHER_TOKEN), "expires": "never"}]}]
        recipients += [{"name": name, "shares": ["retail"], "oidc": oidc, **({"status": "disabled"} if name in self.disabled else {})}
                       for name, oidc in self.recipients.items()]
        written = {"version": 1, "shares": [{"name": "retail", "schemas": [{"name": "sales", "tables": tables}]}],
                   "recipients": recipients}
        replaced = self.path.with_suffix(".new")
        replaced.write_text(json.dumps(written) + "\n")
        os.replace(replaced, self.path)

    def set(self, **recipients):
        """The policies of recipients from now on."""
        self.recipients = {**self.recipients, **recipients}
        self.replace()

    def enable(self, name, active):
        (self.disabled.discard if active else self.disabled.add)(name)
        self.replace()

    def replace(self):
        count = len([line for line in self.server.log if "is in force" in line])
        self.write()
        end = time.monotonic() + 30
        while len([line for line in self.server.log if "is in force" in line]) == count:
            assert time.monotonic() < end, "".join(self.server.log)
            time.sleep(0.05)


class DynamoDbCatalog:
    """Records in DynamoDB, which the commands change."""

    def __init__(self, aws, tables):
        self.aws = aws
        client, s3 = aws.client("dynamodb"), aws.client("s3")
        if "deltashare" not in client.list_tables()["TableNames"]:
            make_table(client)
        s3.create_bucket(Bucket=BUCKET)
        for file in tables["py_versions"].rglob("*"):
            if file.is_file():
                s3.upload_file(str(file), BUCKET, f"t/{file.relative_to(tables['py_versions'])}")
        self.run("share", "create", "retail")
        self.run("schema", "create", "retail.sales")
        self.run("table", "create", "retail.sales.py_versions", "--location", f"s3://{BUCKET}/t", "--history")
        put(client, "RECIPIENT#other", "RECIPIENT", name="other", status="active")
        put(client, f"TOKEN#{hash_of(OTHER_TOKEN)}", "TOKEN", recipient="other", id="1", expires="never")
        put(client, "RECIPIENT#other", "SHARE#retail", share="retail", recipient="other")
        self.server = Server("--catalog", "dynamodb:deltashare", "--allow-loopback-issuers", env=aws.environment)

    def run(self, *arguments, code=0):
        done = subprocess.run([BINARY, *arguments], env={**os.environ, **self.aws.environment}, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    def shown(self, recipient):
        return json.loads(self.run("recipient", "show", recipient, "--output", "json").stdout)

    def enable(self, name, active):
        self.run("recipient", "update", name, "--enable" if active else "--disable")

    @staticmethod
    def options(policy):
        audiences = [option for audience in policy["audiences"] for option in ("--oidc-audience", audience)]
        return ["--oidc-issuer", policy["issuer"], "--oidc-subject-claim", policy["subjectClaim"],
                "--oidc-subject", policy["subject"], *audiences]

    def set(self, **recipients):
        for name, policies in recipients.items():
            known = [record["name"] for record in json.loads(self.run("recipient", "list", "--output", "json").stdout)]
            if name not in known:
                self.run("recipient", "create", name, "--share", "retail", *self.options(policies[0]))
            kept = [(wanted["issuer"], wanted["subjectClaim"], wanted["subject"]) for wanted in policies]
            for record in self.shown(name)["oidc"]:
                if (record["issuer"], record["subjectClaim"], record["subject"]) not in kept:
                    self.run("recipient", "update", name, "--no-oidc", record["id"])
            for wanted in policies:
                self.run("recipient", "update", name, *self.options(wanted))


@pytest.fixture(scope="module", params=["file", "dynamodb"])
def catalog(request, tables, tmp_path_factory):
    if request.param == "file":
        catalog = FileCatalog(tmp_path_factory.mktemp("oidc"), tables)
    else:
        from aws import Aws

        aws = Aws()
        request.addfinalizer(aws.stop)
        catalog = DynamoDbCatalog(aws, tables)
    yield catalog
    assert catalog.server.stop() == 0
    log = "".join(catalog.server.log)
    assert "panicked" not in log
    assert "eyJ" not in log, "a token is in the log"


def status(catalog, token):
    return catalog.server.request("GET", "/shares", token=token).status


def until(catalog, token, wanted):
    """Asks again until the answer is as wanted: an issuer is asked for its keys every few seconds at most."""
    end = time.monotonic() + 90
    while (found := status(catalog, token)) != wanted:
        assert time.monotonic() < end, f"{found} and not {wanted}\n{''.join(catalog.server.log[-20:])}"
        time.sleep(0.5)


def test_a_recipient_reads_with_a_token_of_its_provider(catalog, openid, tmp_path):
    catalog.set(acme=[policy(openid.issuer)])
    token = openid.token()
    profile = write_profile(tmp_path / "acme.share", catalog.server.endpoint, token)
    rows = delta_sharing.load_as_pandas(f"{profile}#retail.sales.py_versions")
    assert len(rows) > 0
    event = catalog.server.wait_for_log("QueryTable")
    assert 'recipient="acme"' in event
    digest = hashlib.sha256("\n".join([openid.issuer, "sub", "acme-reader"]).encode()).hexdigest()
    assert f'token.id="oidc:{digest[:8]}"' in event
    asked = len(openid.requests)
    for _ in range(3):
        assert status(catalog, openid.token(jti=os.urandom(4).hex())) == 200
    assert len(openid.requests) == asked, "keys that are known were fetched again"


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_each_algorithm(catalog, algorithm):
    provider = OpenId(path=f"/{algorithm}")
    try:
        key = provider.new_key(algorithm)
        other = provider.new_key("ES256" if algorithm != "ES256" else "RS256")
        catalog.set(acme=[policy(provider.issuer)])
        assert status(catalog, provider.token(key, algorithm)) == 200
        forged = jwk.JWK.generate(kty=key["kty"], kid=key["kid"], **({"size": 2048} if key["kty"] == "RSA" else {"crv": key["crv"]}))
        assert status(catalog, provider.token(forged, algorithm)) == 401
        # The key of another kind, with the id of the right one.
        confused = jwk.JWK(**{**other.export(as_dict=True), "kid": key["kid"]})
        kind = {"RSA": "RS256", "EC": "ES256"}[other["kty"]]
        assert status(catalog, provider.token(confused, kind)) == 401
    finally:
        provider.stop()


def unsigned(claims, header):
    encode = lambda part: base64.urlsafe_b64encode(part).rstrip(b"=").decode()  # noqa: E731
    return f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}."


def hmac_with(secret, claims, kid):
    text = unsigned(claims, {"alg": "HS256", "kid": kid})[:-1]
    signature = base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), "sha256")).rstrip(b"=").decode()
    return f"{text}.{signature}"


def test_tokens_that_are_refused(catalog, openid):
    catalog.set(acme=[policy(openid.issuer)])
    now = int(time.time())
    key = openid.keys[-1]
    kid = key["kid"]
    assert status(catalog, openid.token()) == 200
    good = {
        "expired within the skew": openid.token(exp=now - 30),
        "not valid yet, within the skew": openid.token(nbf=now + 30, iat=now + 30),
        "several audiences": openid.token(aud=["other", AUDIENCE]),
        "no iat": openid.token(iat=None),
        "a fraction": openid.token(exp=now + 60.5),
        "no key id": openid.token(header={"kid": None}),
        "a long token": openid.token(groups=["group-%06d" % number for number in range(700)]),
    }
    for what, token in good.items():
        assert status(catalog, token) == 200, what
    pem, der = key.export_to_pem(), json.dumps(key.export_public(as_dict=True)).encode()
    modulus = base64.urlsafe_b64decode(key["n"] + "==")
    head, body, signature = openid.token().split(".")
    altered = base64.urlsafe_b64encode(json.dumps(openid.claims(sub="acme-reader", aud=AUDIENCE, x=1)).encode()).rstrip(b"=").decode()
    bad = {
        "none": unsigned(openid.claims(), {"alg": "none"}),
        "none with the key id": unsigned(openid.claims(), {"alg": "none", "kid": kid}),
        "None": unsigned(openid.claims(), {"alg": "None", "kid": kid}),
        "no signature": unsigned(openid.claims(), {"alg": "RS256", "kid": kid}),
        **{f"the public key as a secret, {number}": hmac_with(secret, openid.claims(), kid)
           for number, secret in enumerate((pem, der, modulus, b""))},
        "altered claims": f"{head}.{altered}.{signature}",
        "another audience": openid.token(aud="another"),
        "no audience": openid.token(aud=None),
        "an audience of a wrong type": openid.token(aud=7),
        "no exp": openid.token(exp=None),
        "exp is a string": openid.token(exp=str(now + 600)),
        "expired": openid.token(exp=now - 120),
        "not valid yet": openid.token(nbf=now + 120),
        "nbf is a string": openid.token(nbf=str(now - 120)),
        "issued in the future": openid.token(iat=now + 120),
        "iat is a string": openid.token(iat=str(now)),
        "another subject": openid.token(sub="acme-readers"),
        "another case": openid.token(sub="Acme-Reader"),
        "no subject": openid.token(sub=None),
        "a list of subjects, which sub never is": openid.token(sub=["x", "acme-reader"]),
        "the subject is a number": openid.token(sub=7),
        "the subject is an object": openid.token(sub={"acme-reader": "acme-reader"}),
        "the subject is in a list of lists": openid.token(sub=[["acme-reader"]]),
        "an issuer with a slash": openid.token(iss=openid.issuer + "/"),
        "an issuer with a slash, named by the key": openid.token(iss=openid.issuer.upper()),
        "a list of issuers": openid.token(iss=[openid.issuer]),
        "critical headers": openid.token(header={"crit": ["b64"], "b64": True}),
        "another algorithm of the key": openid.token(algorithm="RS512"),
        "key and URL in the header": sign(openid.claims(), forged := jwk.JWK.generate(kty="RSA", size=2048),
                                         {"alg": "RS256", "jwk": forged.export_public(as_dict=True), "jku": f"{openid.origin}/forged"}),
        "more parts": openid.token() + ".x",
    }
    asked = len(openid.requests)
    for what, token in bad.items():
        answer = catalog.server.request("GET", "/shares", token=token)
        assert answer.status == 401, what
        assert "eyJ" not in answer.body.decode()
    assert "/forged" not in openid.requests
    # A token without a key id may be signed with a key that is new, so the keys may have been fetched again, once.
    assert len(openid.requests) - asked <= 2
    expired = catalog.server.request("GET", "/shares", token=bad["expired"]).json
    assert expired["message"].startswith("The bearer token has expired")


def test_an_issuer_that_no_policy_names_is_not_contacted(catalog, openid):
    catalog.set(acme=[policy(openid.issuer)])
    stranger = OpenId()
    try:
        stranger.new_key()
        for token in (stranger.token(), stranger.token(iss=f"{openid.issuer}/"), stranger.token(header={"jku": stranger.origin})):
            assert status(catalog, token) == 401
        assert stranger.requests == []
    finally:
        stranger.stop()


def test_the_configuration_must_name_the_issuer_and_stay_there(catalog):
    target = OpenId()
    target.new_key()
    provider = OpenId()
    provider.keys = target.keys
    configuration = "/.well-known/openid-configuration"
    try:
        cases = {
            "another issuer": {configuration: json.dumps({"issuer": provider.issuer + "/", "jwks_uri": f"{provider.origin}/keys"})},
            "plain http elsewhere": {configuration: json.dumps({"issuer": provider.issuer, "jwks_uri": "http://keys.invalid/keys"})},
            "a file": {configuration: json.dumps({"issuer": provider.issuer, "jwks_uri": "file:///etc/passwd"})},
            "not JSON": {configuration: "<html>"},
            "no keys": {"/keys": "{}"},
            "too large": {"/keys": json.dumps({"keys": [], "more": "x" * 300_000})},
        }
        for number, (what, documents) in enumerate(cases.items()):
            mirror = OpenId(path=f"/case{number}")
            mirror.keys = target.keys
            mirror.documents = {(f"/case{number}" + path if path == configuration else path):
                                text.replace(provider.origin, mirror.origin).replace(f'"{mirror.origin}', f'"{mirror.issuer}', 1).encode()
                                for path, text in documents.items()}
            try:
                catalog.set(acme=[policy(mirror.issuer)])
                assert status(catalog, mirror.token()) == 503, what
            finally:
                mirror.stop()
        provider.redirect = target.origin
        catalog.set(acme=[policy(provider.issuer)])
        assert status(catalog, provider.token()) == 503
        assert target.requests == [], "a redirect was followed"
        for reason in ("names the issuer", "is not https://", "302 Found", "has more than 262144 bytes"):
            assert "cannot be fetched" in catalog.server.wait_for_log(reason)
    finally:
        provider.stop()
        target.stop()


def test_keys_are_replaced(catalog):
    provider = OpenId()
    try:
        old = provider.new_key()
        catalog.set(acme=[policy(provider.issuer)])
        assert status(catalog, provider.token(old)) == 200
        new = provider.new_key("ES256")
        until(catalog, provider.token(new, "ES256"), 200)
        assert status(catalog, provider.token(old)) == 200
        # Tokens with keys that do not exist make the server ask, but seldom.
        asked = len(provider.requests)
        began = time.monotonic()
        for number in range(50):
            stranger = jwk.JWK.generate(kty="EC", crv="P-256", kid=f"x{number}")
            assert status(catalog, provider.token(stranger, "ES256")) == 401
        passed = time.monotonic() - began
        assert len(provider.requests) - asked <= 2 * (1 + passed / 10)
    finally:
        provider.stop()


def test_an_issuer_that_does_not_answer_affects_its_recipients_only(catalog, openid):
    provider = OpenId()
    known = provider.new_key()
    catalog.set(acme=[policy(openid.issuer)], globex=[policy(provider.issuer, "globex-reader")])
    assert status(catalog, provider.token(sub="globex-reader")) == 200
    provider.stop()
    unknown = jwk.JWK.generate(kty="RSA", size=2048, kid="new")
    until(catalog, provider.token(unknown, sub="globex-reader"), 503)
    answer = catalog.server.request("GET", "/shares", token=provider.token(unknown, sub="globex-reader"))
    assert answer.status == 503 and "retry-after" in answer.headers
    # A key that is known is good, and others do not notice.
    assert status(catalog, provider.token(known, sub="globex-reader")) == 200
    assert status(catalog, openid.token()) == 200
    assert status(catalog, OTHER_TOKEN) == 200
    assert status(catalog, TOKEN) == 401
    provider.keys.append(unknown)
    provider.start()
    try:
        until(catalog, provider.token(unknown, sub="globex-reader"), 200)
    finally:
        provider.stop()


def test_a_policy_that_is_gone_is_refused_from_the_next_request(catalog, openid):
    token = openid.token(sub="initech-reader", azp="initech")
    catalog.set(initech=[policy(openid.issuer, "initech-reader"), policy(openid.issuer, "someone")])
    for _ in range(2):
        assert status(catalog, token) == 200
    catalog.set(initech=[policy(openid.issuer, "someone")])
    assert status(catalog, token) == 401
    catalog.set(initech=[policy(openid.issuer, "initech", "azp"), policy(openid.issuer, "someone")])
    for _ in range(2):
        assert status(catalog, token) == 200
    # An audience that changes takes the token out of force too; a client that comes back, as the answer asks it to, finds out.
    catalog.set(initech=[policy(openid.issuer, "initech", "azp", ["another"]), policy(openid.issuer, "someone")])
    found = [status(catalog, token) for _ in range(2)]
    assert found[0] in (401, 503) and found[1] == 401
    catalog.set(initech=[policy(openid.issuer, "initech", "azp", ["another", AUDIENCE])])
    assert [status(catalog, token) for _ in range(2)] == [200, 200]


def test_a_token_of_several_recipients_is_refused(catalog, openid):
    catalog.set(acme=[policy(openid.issuer)], hooli=[policy(openid.issuer, "readers", "groups")])
    assert status(catalog, openid.token(groups=["writers"])) == 200
    assert status(catalog, openid.token(sub="somebody", groups=["writers", "readers"])) == 200
    assert status(catalog, openid.token(groups=["readers"])) == 401
    assert "acme" in catalog.server.wait_for_log("a token meets OIDC policies of several recipients")


def test_a_token_that_comes_to_meet_policies_of_several_recipients(catalog, openid):
    """A server that has seen the token remembers for a minute what it stands for."""
    token = openid.token(sub="bluth-reader", azp="bluth")
    catalog.set(bluth=[policy(openid.issuer, "bluth-reader")])
    assert [status(catalog, token) for _ in range(2)] == [200, 200]
    catalog.set(sitwell=[policy(openid.issuer, "bluth", "azp")])
    until(catalog, token, 401)
    assert status(catalog, openid.token(sub="bluth-reader")) == 200
    # That the other recipient is disabled makes it no less ambiguous: enabling it must not take access from the first.
    catalog.enable("sitwell", False)
    assert status(catalog, token) == 401
    assert status(catalog, openid.token(sub="nobody", azp="bluth")) == 401
    catalog.enable("sitwell", True)
    assert status(catalog, openid.token(sub="nobody", azp="bluth")) == 200
    catalog.set(sitwell=[policy(openid.issuer, "sitwell", "azp")])
    assert status(catalog, token) == 200


def test_http_needs_its_option(tables, tmp_path, openid):
    catalog = FileCatalog(tmp_path, tables)
    catalog.server.stop()
    catalog.recipients = {"acme": [policy(openid.issuer)]}
    catalog.write()
    asked = len(openid.requests)
    server = Server("--shares", catalog.path)
    try:
        assert server.request("GET", "/shares", token=openid.token()).status == 503
        assert "is not https://" in server.wait_for_log("cannot be fetched")
        assert len(openid.requests) == asked
    finally:
        server.stop()


ISSUER = "https://idp.example.com/realms/a"


@pytest.fixture(scope="module")
def commands(aws, tables):
    if "deltashare" not in aws.client("dynamodb").list_tables()["TableNames"]:
        make_table(aws.client("dynamodb"))

    def run(*arguments, code=0):
        environment = {**os.environ, **aws.environment}
        done = subprocess.run([BINARY, *map(str, arguments)], env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    return run


def test_commands(commands, tmp_path):
    options = ["--oidc-issuer", ISSUER, "--oidc-subject-claim", "azp", "--oidc-subject", "Umbrella #1",
               "--oidc-audience", "a", "--oidc-audience", "b"]
    assert "no token, but an OIDC policy" in commands("recipient", "create", "umbrella", *options).stderr
    shown = json.loads(commands("recipient", "show", "umbrella", "--output", "json").stdout)
    assert shown["tokens"] == []
    [found] = shown["oidc"]
    assert (found["issuer"], found["subjectClaim"], found["subject"], found["audiences"]) == (ISSUER, "azp", "Umbrella #1", ["a", "b"])
    [listed] = [record for record in json.loads(commands("recipient", "list", "--output", "json").stdout) if record["name"] == "umbrella"]
    assert listed["oidcPolicies"] == 1 and listed["liveTokens"] == 0
    # One subject, one recipient.
    commands("recipient", "create", "vandelay", *options, code=3)
    commands("recipient", "create", "vandelay", *options[:-4], code=2)
    commands("recipient", "create", "vandelay", *options, "--profile", tmp_path / "x", code=2)
    assert "--expires" in commands("recipient", "create", "vandelay", *options, "--expires", "30d", code=2).stderr
    commands("recipient", "create", "vandelay", "--oidc-issuer", "http://idp.example.com", "--oidc-subject", "x",
             "--oidc-audience", "a", code=2)
    commands("recipient", "create", "vandelay", code=2)
    # Audiences are replaced.
    assert "now is" in commands("recipient", "update", "umbrella", *options[:-2]).stderr
    assert "was added" in commands("recipient", "update", "umbrella", "--oidc-issuer", ISSUER, "--oidc-subject", "x",
                                   "--oidc-audience", "a").stderr
    shown = json.loads(commands("recipient", "show", "umbrella", "--output", "json").stdout)
    assert {policy["subject"]: policy["audiences"] for policy in shown["oidc"]} == {"Umbrella #1": ["a"], "x": ["a"]}
    # A share file has the same.
    exported = tmp_path / "shares.yaml"
    exported.write_text(commands("export").stdout)
    assert "nothing to change" in commands("plan", "-f", exported).stderr
    changed = tmp_path / "changed.yaml"
    changed.write_text(exported.read_text().replace("Umbrella #1", "Umbrella #2"))
    planned = commands("plan", "-f", changed).stdout
    assert re.search(r"^- OIDC policy \w{8} of umbrella: azp \"Umbrella #1\" of ", planned, re.M)
    assert re.search(r"^\+ OIDC policy \w{8} of umbrella: azp \"Umbrella #2\" of .*, audience \"a\"$", planned, re.M)
    commands("apply", "-f", changed, "--prune")
    assert "nothing to change" in commands("plan", "-f", changed).stderr
    commands("apply", "-f", exported, "--prune")
    # The profile has no secret.
    profile = tmp_path / "umbrella.share"
    commands("profile", "umbrella", "--oidc-token-endpoint", "https://idp.example.com/token", "--oidc-client-id", "Umbrella #1",
             "--oidc-scope", "read", "--endpoint", "https://sharing.example.com/delta-sharing", "--profile", profile)
    assert json.loads(profile.read_text()) == {
        "shareCredentialsVersion": 2, "type": "oauth_client_credentials", "endpoint": "https://sharing.example.com/delta-sharing/",
        "tokenEndpoint": "https://idp.example.com/token", "clientId": "Umbrella #1",
        "clientSecret": "REPLACE-WITH-YOUR-CLIENT-SECRET", "scope": "read",
    }
    # With a policy removed, and with the recipient gone, nothing remains.
    commands("recipient", "update", "umbrella", "--no-oidc", found["id"])
    commands("recipient", "update", "umbrella", "--no-oidc", found["id"], code=3)
    commands("recipient", "delete", "umbrella", "--yes")
    commands("recipient", "create", "umbrella", *options)
    assert len(json.loads(commands("recipient", "show", "umbrella", "--output", "json").stdout)["oidc"]) == 1
    commands("recipient", "delete", "umbrella", "--yes")


def test_records_that_cannot_be_read(commands, aws, tables):
    client = aws.client("dynamodb")
    commands("recipient", "create", "wonka", "--oidc-issuer", ISSUER, "--oidc-subject", "wonka", "--oidc-audience", "a")
    partition = "OIDC#" + hashlib.sha256(ISSUER.encode()).hexdigest()
    good = {"recipient": "wonka", "issuer": ISSUER, "subjectClaim": "sub", "subject": "x", "audiences": ["a"]}
    cases = {
        "another key": ("POLICY#sub#y", {}),
        "no audience": ("POLICY#sub#x", {"audiences": []}),
        "an issuer without TLS": ("POLICY#sub#x", {"issuer": "http://idp.example.com"}),
        "a newer format": ("POLICY#sub#x", {"format": 2}),
        "no recipient": ("POLICY#sub#x", {"recipient": None}),
    }
    for what, (sort, changes) in cases.items():
        put(client, partition, sort, **{name: value for name, value in {**good, **changes}.items() if value is not None})
        found = commands("export", code=1).stderr
        assert "the OIDC policy record OIDC#" in found, what
        client.delete_item(TableName="deltashare", Key={"pk": {"S": partition}, "sk": {"S": sort}})
    put(client, partition, "POLICY#sub#x", **{**good, "recipient": "nobody"})
    assert "belongs to a recipient that has no record" in commands("export").stderr
    client.delete_item(TableName="deltashare", Key={"pk": {"S": partition}, "sk": {"S": "POLICY#sub#x"}})
    commands("recipient", "delete", "wonka", "--yes")


def test_share_files_with_mistakes(tmp_path):
    path = tmp_path / "shares.yaml"

    def refused(*policies):
        recipients = [{"name": f"r{number}", "oidc": [entry]} for number, entry in enumerate(policies)]
        path.write_text(json.dumps({"version": 1, "shares": [], "recipients": recipients}) + "\n")
        done = subprocess.run([BINARY, "serve", "--shares", path, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr
        return done.stderr

    good = policy(ISSUER)
    assert "there is no audience" in refused({**good, "audiences": []})
    assert "not a URL such as" in refused({**good, "issuer": "http://idp.example.com"})
    assert "does not name a subject" in refused({**good, "subjectClaim": "aud"})
    assert "already has a policy for sub" in refused(good, good)
    assert "unknown field" in refused({**good, "audience": "x"})
    assert "missing field" in refused({name: value for name, value in good.items() if name != "subject"})


def test_the_pages_have_the_fields():
    page = (ROOT / "infra/records.md").read_text()
    for name in ("issuer", "subjectClaim", "subject", "audiences"):
        assert f"`{name}`" in page
