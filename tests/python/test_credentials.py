"""Credentials of people and machines: whatever the AWS CLI takes, for DynamoDB, S3 and STS alike."""

import datetime
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from conftest import BINARY, Server, TOKEN, hash_of
from faults import Way, answer
from test_admin import bucket, client_make  # noqa: F401
from test_check import role

NAME = "credentials"


class Person:
    """Who runs the commands, with a home of their own and nothing in the environment."""

    def __init__(self, aws, home):
        self.home = home
        (home / ".aws").mkdir()
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "AWS_ENDPOINT_URL": aws.endpoint, "DELTASHARE_TABLE": NAME,
                            "AWS_ENDPOINT_URL_DYNAMODB": aws.dynamodb, "AWS_EC2_METADATA_DISABLED": "true"}

    def configure(self, text, credentials=""):
        (self.home / ".aws/config").write_text(text)
        (self.home / ".aws/credentials").write_text(credentials)

    def run(self, *arguments, code=0, **environment):
        done = subprocess.run([str(BINARY), *map(str, arguments)], env={**self.environment, **environment}, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=120)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done


@pytest.fixture(scope="module")
def catalog(aws, bucket):  # noqa: F811
    """A share with a table in S3, made with keys in the environment."""
    client_make(aws.client("dynamodb"), NAME)
    run = lambda *arguments: subprocess.run([str(BINARY), *arguments], check=True, capture_output=True, timeout=60, env={  # noqa: E731
        **os.environ, **aws.environment, "DELTASHARE_TABLE": NAME})
    run("share", "create", "s")
    run("schema", "create", "s.d")
    run("table", "create", "s.d.t", "--location", "s3://admin/orders")


@pytest.fixture
def person(aws, catalog, tmp_path):
    return Person(aws, tmp_path)


def works(person, **environment):
    """DynamoDB and S3 are read."""
    assert json.loads(person.run("share", "list", "--output", "json", **environment).stdout)[0]["name"] == "s"
    assert "s.d.t: readable, version 3" in person.run("check", **environment).stdout


def test_a_profile_with_keys(person):
    person.configure("[profile work]\nregion = us-east-1\n", "[work]\naws_access_key_id = test\naws_secret_access_key = test\n")
    works(person, AWS_PROFILE="work")
    # The default profile has neither keys nor a region.
    assert "no AWS region is set" in person.run("share", "list", code=2).stderr
    error = person.run("share", "list", code=1, AWS_REGION="us-east-1").stderr
    assert "no AWS credentials are set" in error and "aws sso login" in error


def process(person, seconds):
    """A credential_process that counts its calls, and whose credentials live for some seconds."""
    script, calls = person.home / "process.py", person.home / "calls"
    script.write_text(
        "import datetime, json\n"
        f"open({str(calls)!r}, 'a').write('x')\n"
        f"ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds={seconds})\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': 'test', 'SecretAccessKey': 'test', 'Expiration': ends.strftime('%Y-%m-%dT%H:%M:%SZ')}))\n")
    person.configure(f"[default]\nregion = us-east-1\ncredential_process = {sys.executable} {script}\n")
    return lambda: len(calls.read_text()) if calls.exists() else 0


def test_a_credential_process(person):
    calls = process(person, 3600)
    works(person)
    # Once for each command, which asks DynamoDB and S3.
    assert calls() == 2
    person.configure("[default]\nregion = us-east-1\ncredential_process = false\n")
    error = person.run("share", "list", code=1).stderr
    assert "credentials of profile 'default' cannot be loaded" in error


def test_a_server_fetches_credentials_again_before_they_end(person, catalog):
    calls = process(person, 24)
    file = person.home / "shares.yaml"
    file.write_text(json.dumps({
        "version": 1, "shares": [{"name": "s", "schemas": [{"name": "d", "tables": [{"name": "t", "location": "s3://admin/orders"}]}]}],
        "recipients": [{"name": "acme", "shares": ["s"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}]}))
    environment = {**{name: "" for name in os.environ if name.startswith("AWS_")}, **person.environment}
    server = Server("--shares", file, env=environment)
    try:
        assert calls() == 0, "nothing was asked for yet"
        lives = []
        for _ in range(2):
            line = server.request("POST", "/shares/s/schemas/d/tables/t/query", body=b"{}").lines[2]
            lives.append(line["file"]["expirationTimestamp"] / 1000 - time.time())
            asked = calls()
            time.sleep(6)
        assert asked >= 2, "the same credentials were used until their end"
        assert all(15 < life <= 24 for life in lives), "a URL lives longer than what signed it"
    finally:
        assert server.stop() == 0


def test_a_role_of_a_profile(person, aws):
    arn = role(aws, "administrator", {"Effect": "Allow", "Action": ["dynamodb:*", "s3:*"], "Resource": "*"})
    narrow = role(aws, "catalog-only", {"Effect": "Allow", "Action": ["dynamodb:*"], "Resource": "*"})
    keys = "[base]\naws_access_key_id = test\naws_secret_access_key = test\n"
    profile = lambda role_arn: f"[profile admin]\nregion = us-east-1\nrole_arn = {role_arn}\nsource_profile = base\n"  # noqa: E731
    person.configure(profile(arn), keys)
    works(person, AWS_PROFILE="admin")
    # S3 is read with the same role, and with no other.
    person.configure(profile(narrow), keys)
    assert "permission denied" in person.run("check", code=1, AWS_PROFILE="admin").stdout
    person.configure(profile("arn:aws:iam::000000000000:role/none"), keys)
    error = person.run("share", "list", code=1, AWS_PROFILE="admin").stderr
    assert "profile 'admin'" in error and "assume" in error.lower()


def test_a_signer_role_is_assumed_with_the_credentials_of_a_profile(person, aws):
    process(person, 3600)
    signer = role(aws, "signs", {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"})
    assert "s.d.t: readable" in person.run("check", "--signer-role", signer).stdout


@pytest.fixture(scope="module")
def session(aws):
    """Credentials of a session."""
    arn = role(aws, "session", {"Effect": "Allow", "Action": ["dynamodb:*", "s3:*"], "Resource": "*"})
    return aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]


class Endpoint:
    """What hands out credentials by HTTP: of a container, of an instance, or of IAM Identity Center."""

    def __init__(self, body):
        endpoint, self.asked = self, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self):
                # The session token of an instance's metadata.
                self.answer(b"session", {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": "21600"})

            def do_GET(self):
                endpoint.asked.append((self.path, dict(self.headers)))
                # An instance names its role first.
                self.answer(b"role" if self.path.endswith("/security-credentials/") else json.dumps(body).encode())

            def answer(self, content, headers={}):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def in_an_hour():
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)


def test_credentials_of_a_container(person, session):
    body = {"AccessKeyId": session["AccessKeyId"], "SecretAccessKey": session["SecretAccessKey"], "Token": session["SessionToken"],
            "Expiration": in_an_hour().strftime("%Y-%m-%dT%H:%M:%SZ")}
    with Endpoint(body) as endpoint:
        works(person, AWS_REGION="us-east-1", AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{endpoint.url}/role")
        assert [path for path, _ in endpoint.asked] == ["/role", "/role"]


def test_credentials_of_an_instance(person, session):
    body = {"Code": "Success", "AccessKeyId": session["AccessKeyId"], "SecretAccessKey": session["SecretAccessKey"],
            "Token": session["SessionToken"], "Expiration": in_an_hour().strftime("%Y-%m-%dT%H:%M:%SZ")}
    with Endpoint(body) as endpoint:
        works(person, AWS_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT=endpoint.url)
        assert any(path.startswith("/latest/meta-data/iam/security-credentials/") for path, _ in endpoint.asked)


def test_local_tables_need_no_instance(tmp_path):
    # Where there is none, each request to it takes a second or more.
    with Endpoint({}) as endpoint:
        server = Server(cwd=tmp_path, env={"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "false",
                                           "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint.url})
        try:
            token = json.loads((tmp_path / "example.share").read_text())["bearerToken"]
            assert server.request("POST", "/shares/retail/schemas/sales/tables/products/query", body=b"{}", token=token).status == 200
            assert not endpoint.asked and "WARN" not in "".join(server.log)
        finally:
            server.stop()


SSO = """[profile sso]
region = us-east-1
sso_session = company
sso_account_id = 000000000000
sso_role_name = Administrators

[sso-session company]
sso_region = us-east-1
sso_start_url = https://company.awsapps.com/start
"""


def sso_token(person, ends):
    cache = person.home / ".aws/sso/cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / f"{hashlib.sha1(b'company').hexdigest()}.json").write_text(json.dumps({
        "startUrl": "https://company.awsapps.com/start", "region": "us-east-1", "accessToken": "an-access-token",
        "expiresAt": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}))


def test_a_session_of_iam_identity_center(person):
    person.configure(SSO)
    said = "the AWS SSO session of profile 'sso' has expired: sign in with aws sso login --profile sso"
    # Never signed in, and signed in too long ago.
    assert said in person.run("share", "list", code=1, AWS_PROFILE="sso").stderr
    sso_token(person, datetime.datetime(2020, 1, 1))
    assert said in person.run("share", "list", code=1, AWS_PROFILE="sso").stderr
    assert said in person.run("serve", "--catalog", f"dynamodb:{NAME}", code=1, AWS_PROFILE="sso").stderr


def test_a_live_session_of_iam_identity_center(person, session):
    person.configure(SSO)
    sso_token(person, in_an_hour())
    keys = {"accessKeyId": session["AccessKeyId"], "secretAccessKey": session["SecretAccessKey"], "sessionToken": session["SessionToken"],
            "expiration": int(in_an_hour().timestamp() * 1000)}
    with Endpoint({"roleCredentials": keys}) as endpoint:
        works(person, AWS_PROFILE="sso", AWS_ENDPOINT_URL_SSO=endpoint.url)
        path, headers = endpoint.asked[0]
        assert path.startswith("/federation/credentials?") and "role_name=Administrators" in path
        assert {name.lower(): value for name, value in headers.items()}["x-amz-sso_bearer_token"] == "an-access-token"


def test_a_session_that_aws_login_began(person):
    person.configure("[profile signed-in]\nregion = us-east-1\nlogin_session = arn:aws:iam::000000000000:user/someone\n")
    error = person.run("share", "list", code=1, AWS_PROFILE="signed-in").stderr
    assert "the AWS session of profile 'signed-in' has expired: sign in with aws login --profile signed-in" in error


def test_keys_in_the_environment_whose_session_has_ended(person, aws):
    way = Way(int(aws.dynamodb.rpartition(":")[2]))
    body = json.dumps({"__type": "com.amazon.coral.service#ExpiredTokenException", "message": "The security token included in the request is expired"})
    way.rule = lambda request: answer(400, body, "application/x-amz-json-1.0")
    try:
        error = person.run("share", "list", code=1, AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test",
                           AWS_SESSION_TOKEN="t", AWS_ENDPOINT_URL_DYNAMODB=way.endpoint).stderr
        assert "the AWS session has expired: sign in again" in error
    finally:
        way.stop()
