"""An OpenID Connect provider on this machine: a real HTTP server with discovery, keys, codes and signed ID tokens.

It enforces the rules on clients (PKCE, redirect, secret, each code once); `spoil` makes it send false tokens.
"""

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT, CLIENT_SECRET = "ratchet", "a client's secret: 100 % & more"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_ONCE = rsa.generate_private_key(65537, 2048)


@dataclass
class IdentityProvider:
    """The provider; `person` holds the claims of the person who signs in, at once and without a prompt."""

    issuer: str = ""
    key: Key = _ONCE
    key_id: str = "key-1"
    person: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[dict[str, Any]], Any] = lambda claims: None
    sign: Callable[["IdentityProvider", dict[str, Any]], str] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def algorithm(self) -> str:
        return "RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256"

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "authorization_response_iss_parameter_supported": True,
            **self.more,
        }

    def keys(self) -> dict[str, Any]:
        kind = jwt.algorithms.RSAAlgorithm if self.algorithm == "RS256" else jwt.algorithms.ECAlgorithm
        shown = json.loads(kind.to_jwk(self.key.public_key()))  # type: ignore[arg-type]
        return {"keys": [{**shown, "kid": self.key_id, "use": "sig", "alg": self.algorithm}]}

    def authorize(self, query: dict[str, str]) -> str:
        """Return the address to which the browser is redirected, with a code."""
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state'], 'iss': self.issuer})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Return the ID token for a code, once, to the client that requested it."""
        query = self.codes.pop(form.get("code", ""), None)
        given = base64.b64decode(authorization.removeprefix("Basic ")).decode().split(":")
        proved = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if query is None or [unquote(each.replace("+", " ")) for each in given] != [CLIENT, CLIENT_SECRET]:
            return 401, {"error": "invalid_client"}
        if proved.rstrip(b"=").decode() != query["code_challenge"] or form["redirect_uri"] != query["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(self.clock().timestamp())
        claims = {"iss": self.issuer, "sub": "u-1", "aud": CLIENT, "iat": now, "exp": now + 300,
                  "nonce": query["nonce"], **self.person}  # fmt: skip
        self.spoil(claims)
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": (self.sign or signed)(self, claims)}


def signed(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    """Return the claims as the provider signs them."""
    return jwt.encode(claims, provider.key, provider.algorithm, {"kid": provider.key_id})


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """Run a provider on a free port of 127.0.0.1."""
    provider = IdentityProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked.append(self.path.partition("?")[0])
            query = dict(parse_qsl(urlsplit(self.path).query))
            if self.path.startswith("/authorize"):
                self.send_response(302)
                self.send_header("location", provider.authorize(query))
                self.send_header("content-length", "0")
                self.end_headers()
                return
            found = {"/.well-known/openid-configuration": provider.document, "/keys": provider.keys}.get(self.path)
            self.answer(*(200, found()) if found else (404, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            self.answer(*provider.token(dict(parse_qsl(body)), self.headers.get("authorization", "")))

        def answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
