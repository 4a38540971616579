"""An OpenID provider of our own, on loopback: tests choose its keys, its documents, and what its tokens say."""

import http.server
import json
import threading
import time

from jwcrypto import jwk, jws

KINDS = {
    "RS256": {"kty": "RSA", "size": 2048},
    "PS256": {"kty": "RSA", "size": 2048},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
}


class OpenId:
    def __init__(self, path=""):
        self.keys = []
        self.requests = []
        self.documents = {}
        self.redirect = None
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                provider.requests.append(self.path)
                document = provider.document(self.path)
                if document is None:
                    self.send_response(302 if provider.redirect else 404)
                    if provider.redirect:
                        self.send_header("Location", provider.redirect + self.path)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_):
                pass

        self.handler = Handler
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.origin = f"http://127.0.0.1:{self.port}"
        self.issuer = self.origin + path
        self.run()

    def run(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def document(self, path):
        below = self.issuer.removeprefix(self.origin).rstrip("/")
        if path in self.documents:
            return self.documents[path]
        if self.redirect:
            return None
        if path == f"{below}/.well-known/openid-configuration":
            return json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.origin}/keys"}).encode()
        if path == "/keys":
            return json.dumps({"keys": [key.export_public(as_dict=True) for key in self.keys]}).encode()
        return None

    def stop(self):
        """Whoever asks now gets no connection."""
        self.server.shutdown()
        self.server.server_close()

    def start(self):
        """Answers again, at the same address."""
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.run()

    def new_key(self, algorithm="RS256", kid=None, **more):
        key = jwk.JWK.generate(**KINDS[algorithm], kid=kid or f"key-{len(self.keys)}-{time.time_ns()}", **more)
        self.keys.append(key)
        return key

    def claims(self, **claims):
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "delta-sharing", "sub": "acme-reader", "iat": now, "exp": now + 600, **claims}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key=None, algorithm="RS256", header=None, **claims):
        key = key or self.keys[-1]
        return sign(self.claims(**claims), key, {"alg": algorithm, "kid": key.get("kid"), "typ": "JWT", **(header or {})})


def sign(claims, key, header):
    signed = jws.JWS(json.dumps(claims).encode())
    # Those that must not be used too.
    signed.allowed_algs = [header["alg"]]
    signed.add_signature(key, None, json.dumps({name: value for name, value in header.items() if value is not None}))
    return signed.serialize(compact=True)
