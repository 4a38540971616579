"""Recipients with tokens of real OpenID providers: the released Python client gets the tokens, with the profile that the command
writes. `tests/run` installs the providers, and names them in `OPENID_PROVIDERS`."""

import json
import os
import subprocess

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

    def __init__(self, home):
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


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    if "missing" in PROVIDERS.get("oidc-provider", {"missing": "tests/run installs it"}):
        pytest.skip("oidc-provider: " + PROVIDERS.get("oidc-provider", {}).get("missing", "tests/run installs it"))
    provider = NodeProvider(tmp_path_factory.mktemp("provider"))
    yield provider
    provider.stop()


def token_of(provider):
    answer = requests.post(provider.token_endpoint, data={"grant_type": "client_credentials"}, auth=(CLIENT, SECRET), timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


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
    expected = len(json.loads((tables["py_versions"] / "expected.json").read_text())["rows"])
    assert len(delta_sharing.load_as_pandas(f"{profile}#retail.sales.py_versions")) == expected
    assert 'recipient="acme"' in catalog.server.wait_for_log("QueryTable")


def test_keys_are_replaced(catalog, provider, tmp_path):  # noqa: F811
    catalog.set(acme=[policy(provider.issuer, CLIENT, provider.claim)])
    old = token_of(provider)
    until(catalog, old, 200)
    for algorithm in ("ES256", "PS256", "EdDSA", "RS256"):
        provider.replace_key(algorithm)
        until(catalog, token_of(provider), 200)
        assert status(catalog, old) == 200, "the old key is still published"
    without_cached_tokens()
    profile = profile_of(catalog, provider, tmp_path / "acme.share")
    assert len(delta_sharing.load_as_pandas(f"{profile}#retail.sales.py_versions")) > 0


def test_clocks_differ(catalog, provider):  # noqa: F811
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
