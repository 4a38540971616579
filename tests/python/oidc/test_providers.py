"""Recipients with tokens of real OpenID providers: the released Python client gets the tokens, with the profile that the command
writes. `tests/run` installs the providers, and names them in `OPENID_PROVIDERS`."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import delta_sharing
import pytest
import requests
from delta_sharing._internal_auth import AuthCredentialProviderFactory
from jwcrypto import jwk

from openid import KINDS
from test_oidc import DynamoDbCatalog, catalog, policy, status, until  # noqa: F401

PROVIDERS = json.loads(os.environ.get("OPENID_PROVIDERS", "{}"))
CLIENT, SECRET = "acme-reader", "a-secret-of-the-recipient"


class NodeProvider:
    """The npm package oidc-provider, ended by its own process id."""

    claim = "client_id"
    algorithms = ("ES256", "PS256", "EdDSA", "RS256")

    def __init__(self, _):
        environment = {**os.environ, **PROVIDERS["oidc-provider"]["env"]}
        self.process = subprocess.Popen(PROVIDERS["oidc-provider"]["command"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, env=environment)
        self.keys = []
        self.replace_key("RS256")

    def replace_key(self, algorithm):
        """Tokens are signed with a new key from now on; the old one stays published."""
        key = jwk.JWK.generate(**KINDS[algorithm], kid=f"key-{len(self.keys)}", use="sig", alg=algorithm)
        self.keys.insert(0, key.export(as_dict=True))
        self.algorithm = algorithm
        self.start()

    def start(self, skew=0):
        self.process.stdin.write(json.dumps({"keys": self.keys, "algorithm": self.algorithm, "skew": skew}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.issuer, self.token_endpoint = answer["issuer"], answer["token"]

    def stop(self):
        self.process.kill()
        self.process.wait(10)


class Keycloak:
    """Keycloak with a realm of its own, ended by its own process group."""

    claim = "azp"
    algorithms = ("RS256",)
    # It builds itself when it starts for the first time.
    SECONDS = 600

    def __init__(self, home):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.origin = f"http://127.0.0.1:{free.getsockname()[1]}"
        # It writes below its home.
        shutil.copytree(PROVIDERS["keycloak"]["home"], home / "keycloak")
        realm = home / "keycloak/data/import/acme-realm.json"
        realm.parent.mkdir(parents=True)
        realm.write_text(json.dumps(self.realm()))
        self.log = open(home / "log", "w+")
        self.process = subprocess.Popen(
            ["bash", "bin/kc.sh", "start-dev", "--cache=local", "--http-host=127.0.0.1",
             f"--http-port={self.origin.rpartition(':')[2]}", "--import-realm"],
            cwd=home / "keycloak", stdout=self.log, stderr=self.log, start_new_session=True,
            env={**os.environ, "KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": "an-admin-of-the-test",
                 "JAVA_OPTS_APPEND": "-Xmx700m"},
        )
        self.issuer = f"{self.origin}/realms/acme"
        self.token_endpoint = f"{self.issuer}/protocol/openid-connect/token"
        end = time.monotonic() + self.SECONDS
        while True:
            try:
                if requests.get(f"{self.issuer}/.well-known/openid-configuration", timeout=30).status_code == 200:
                    return
            except requests.RequestException:
                pass
            if time.monotonic() > end or self.process.poll() is not None:
                self.stop()
                raise AssertionError(f"Keycloak does not start: {(home / 'log').read_text()[-4000:]}")
            time.sleep(1)

    @staticmethod
    def realm():
        audience = {"included.custom.audience": "delta-sharing", "access.token.claim": "true"}
        return {"realm": "acme", "enabled": True, "sslRequired": "none", "accessTokenLifespan": 3600, "clients": [{
            "clientId": CLIENT, "secret": SECRET, "publicClient": False, "standardFlowEnabled": False, "serviceAccountsEnabled": True,
            "protocolMappers": [{"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
                                 "config": audience}],
        }]}

    def replace_key(self, algorithm):
        """A key of a higher priority; the old one stays published."""
        login = requests.post(f"{self.origin}/realms/master/protocol/openid-connect/token", timeout=60, data={
            "grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "an-admin-of-the-test"})
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        realm = requests.get(f"{self.origin}/admin/realms/acme", headers=headers, timeout=60).json()["id"]
        made = requests.post(f"{self.origin}/admin/realms/acme/components", headers=headers, timeout=60, json={
            "name": f"key-{time.time_ns()}", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": realm, "config": {"priority": [str(time.time_ns() // 10**6)], "algorithm": [algorithm], "keySize": ["2048"]}})
        assert made.status_code == 201, made.text

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self.log.close()


@pytest.fixture(scope="module", params=["oidc-provider", "keycloak"])
def provider(request, tmp_path_factory):
    missing = PROVIDERS.get(request.param, {"missing": "tests/run installs it"}).get("missing")
    if missing:
        pytest.skip(f"{request.param}: {missing}")
    provider = {"oidc-provider": NodeProvider, "keycloak": Keycloak}[request.param](tmp_path_factory.mktemp("provider"))
    yield provider
    provider.stop()


def token_of(provider):
    answer = requests.post(provider.token_endpoint, data={"grant_type": "client_credentials"}, auth=(CLIENT, SECRET), timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def key_of(token):
    return json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]


def profile_of(catalog, provider, path):  # noqa: F811
    """As the command writes it for the recipient, who adds the secret."""
    if isinstance(catalog, DynamoDbCatalog):
        catalog.run("profile", "acme", "--oidc-token-endpoint", provider.token_endpoint, "--oidc-client-id", CLIENT,
                    "--endpoint", catalog.server.endpoint, "--profile", str(path))
        profile = json.loads(path.read_text())
        assert profile["clientSecret"].startswith("REPLACE-")
    else:
        profile = {"shareCredentialsVersion": 2, "type": "oauth_client_credentials", "endpoint": catalog.server.endpoint,
                   "tokenEndpoint": provider.token_endpoint, "clientId": CLIENT}
    path.write_text(json.dumps({**profile, "clientSecret": SECRET}))
    return path


def without_cached_tokens():
    AuthCredentialProviderFactory._AuthCredentialProviderFactory__oauth_auth_provider_cache.clear()


def test_the_python_client_reads(catalog, provider, tables, tmp_path):  # noqa: F811
    catalog.set(acme=[policy(provider.issuer, CLIENT, provider.claim)])
    profile = profile_of(catalog, provider, tmp_path / "acme.share")
    without_cached_tokens()
    assert [table.name for table in delta_sharing.SharingClient(str(profile)).list_all_tables()] == ["py_versions"]
    expected = len(json.loads((tables["py_versions"] / "expected.json").read_text()))
    assert len(delta_sharing.load_as_pandas(f"{profile}#retail.sales.py_versions")) == expected
    assert 'recipient="acme"' in catalog.server.wait_for_log("QueryTable")


def test_keys_are_replaced(catalog, provider, tmp_path):  # noqa: F811
    catalog.set(acme=[policy(provider.issuer, CLIENT, provider.claim)])
    old = token_of(provider)
    until(catalog, old, 200)
    for algorithm in provider.algorithms:
        provider.replace_key(algorithm)
        new = token_of(provider)
        assert key_of(new) != key_of(old)
        until(catalog, new, 200)
        assert status(catalog, old) == 200, "the old key is still published"
    without_cached_tokens()
    profile = profile_of(catalog, provider, tmp_path / "acme.share")
    assert len(delta_sharing.load_as_pandas(f"{profile}#retail.sales.py_versions")) > 0


def test_clocks_differ(catalog, provider):  # noqa: F811
    if not isinstance(provider, NodeProvider):
        pytest.skip("the clock of Keycloak cannot be set")
    catalog.set(acme=[policy(provider.issuer, CLIENT, provider.claim)])
    until(catalog, token_of(provider), 200)
    try:
        for skew, wanted in ((45, 200), (300, 401), (-3600 - 30, 200), (-3600 - 300, 401)):
            provider.start(skew)
            assert status(catalog, token_of(provider)) == wanted, skew
    finally:
        provider.start()


def test_tokens_for_others_are_refused(catalog, provider):  # noqa: F811
    token = token_of(provider)
    catalog.set(acme=[policy(provider.issuer, CLIENT, provider.claim)])
    until(catalog, token, 200)
    catalog.set(acme=[policy(provider.issuer, "another-client", provider.claim)])
    assert status(catalog, token) == 401
    catalog.set(acme=[policy(provider.issuer, CLIENT, provider.claim, ["another-audience"])])
    assert status(catalog, token) == 401
