"""OpenID Connect: the authorization code flow with PKCE, and full validation of the ID token, by Authlib.

OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3.7; RFC 7636 (PKCE, S256); RFC 9207 (`iss` in the callback).
Authlib's integration for Starlette keeps pending sign-ins in a cookie and accepts the algorithms that the provider
lists; so its parts are put together here.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from time import monotonic
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx
from authlib.oauth2 import ClientAuth, OAuth2Client, OAuth2Error
from authlib.oidc.core import CodeIDToken
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

from blocks.common.gateway_settings import OpenIdConnect, is_secure_url
from blocks.records.identity import exact_names

REQUEST_TIMEOUT_SECONDS, MAX_RESPONSE_BYTES = 10.0, 262_144
DISCOVERY_TTL_SECONDS, KEY_REFRESH_SECONDS = 3600.0, 30.0
"""Seconds that the discovery document and the keys are cached; seconds before an unknown key is fetched again."""
LEEWAY_SECONDS = 60
_tls = cache(httpx.create_ssl_context)  # reads the certificates of authorities once
_TAG = re.compile(r"\+[^@]*(?=@)")
_MIN_MODULUS_CHARACTERS = 342
"""Characters of base64 of a modulus of 2048 bits."""


class IdentityNotVerified(Exception):
    """The provider's response does not prove the user's identity. The message is for the log and contains no token."""


@dataclass(frozen=True)
class VerifiedIdentity:
    """The user's verified name, and those of their groups that map to a role."""

    name: str
    groups: tuple[str, ...]


class Provider:
    """An identity provider, as its discovery document describes it. `clock` is also used to check its tokens."""

    def __init__(
        self, rules: OpenIdConnect, redirect: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.rules, self.redirect = rules, redirect
        self._clock = clock
        self._documents: dict[str, tuple[float, dict[str, Any]]] = {}

    def authorization_url(self, state: str, nonce: str, verifier: str) -> str:
        """Return the address at which the browser signs in. Raises IdentityNotVerified when it is not known."""
        rules, endpoint = self.rules, self._endpoint("authorization_endpoint")
        client = OAuth2Client(
            None, rules.client_id, scope=rules.scopes, redirect_uri=self.redirect, code_challenge_method="S256"
        )
        try:
            address, _ = client.create_authorization_url(endpoint, state, verifier, nonce=nonce)
        except ValueError as cause:
            raise IdentityNotVerified("the provider's authorization_endpoint is not an address") from cause
        return str(address)

    def check_callback(self, query: Mapping[str, str]) -> str:
        """Return the authorization code of a callback from this provider. Raises IdentityNotVerified."""
        issuer = query.get("iss")
        if issuer is None and self._discovery_document().get("authorization_response_iss_parameter_supported") is True:
            raise IdentityNotVerified("the callback does not name its issuer, although this provider always does")
        if issuer is not None and issuer != self.rules.issuer:
            raise IdentityNotVerified("the callback names another issuer")
        if "error" in query:
            raise IdentityNotVerified(f"the provider reports the error {query['error'][:100]!r}")
        if not (code := query.get("code", "")):
            raise IdentityNotVerified("the callback has no code")
        return code

    def exchange_code(self, code: str, nonce: str, verifier: str, secret: str) -> VerifiedIdentity:
        """Exchange the code for an ID token and return its identity. Raises IdentityNotVerified."""
        methods = self._discovery_document().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        try:
            basic = bool(secret) and "client_secret_basic" in methods
            method = "client_secret_basic" if basic else "client_secret_post" if secret else "none"
            # RFC 6749, section 2.3.1 encodes both before they are put into the Basic scheme; Authlib does not
            known = [quote_plus(text) if basic else text for text in (self.rules.client_id, secret)]
            client = OAuth2Client(_TokenSession(), *known, method, redirect_uri=self.redirect)
            token = client.fetch_token(self._endpoint("token_endpoint"), code=code, code_verifier=verifier)
        except (OAuth2Error, ValueError, TypeError, AttributeError, RecursionError) as cause:
            raise IdentityNotVerified(f"the provider gives no token: {_reason(cause)}") from cause
        if not isinstance(token.get("id_token"), str):
            raise IdentityNotVerified("the provider's response has no ID token")
        return self.verify_id_token(token["id_token"], nonce, token.get("access_token"))

    def verify_id_token(self, token: str, nonce: str, access_token: object = None) -> VerifiedIdentity:
        """Return the identity in an ID token. Raises IdentityNotVerified unless all its claims are valid."""
        client_id = self.rules.client_id
        expected = {
            "iss": {"essential": True, "value": self.rules.issuer},
            "aud": {"essential": True, "value": client_id},
            "azp": {"value": client_id},
        }
        try:
            decoded = self._decode(token)
            params = {"nonce": nonce, "client_id": client_id, "access_token": access_token}
            claims = CodeIDToken(decoded.claims, decoded.header, expected, params)
            claims.validate(self._now(), LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as cause:
            raise IdentityNotVerified(f"the ID token is not valid: {_reason(cause)}") from cause
        return VerifiedIdentity(self._name(claims), self._groups(claims))

    def _decode(self, token: str) -> jwt.Token:
        """Verify the signature. For an unknown key the keys are fetched again (key rotation). Raises JoseError."""
        registry = JWSRegistry(algorithms=self.rules.algorithms, strict_check_header=False)
        try:
            return jwt.decode(token, self._signing_keys(DISCOVERY_TTL_SECONDS), registry=registry)
        except InvalidKeyIdError:
            return jwt.decode(token, self._signing_keys(KEY_REFRESH_SECONDS), registry=registry)

    def _name(self, claims: Mapping[str, Any]) -> str:
        claim = self.rules.name_claim
        name = claims.get(claim)
        if not isinstance(name, str) or not 2 <= len(name.strip()) <= 200:
            raise IdentityNotVerified(f"the ID token has no {claim!r}")
        if claim == "email" and self.rules.email_verified and claims.get("email_verified") is not True:
            raise IdentityNotVerified("the provider has not verified the e-mail address")
        if not _is_plain(name):
            raise IdentityNotVerified(f"{name!r} could be taken for another person's name")
        return " ".join(name.split())

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        claim = claims.get(self.rules.roles_claim, [])
        groups = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
        return tuple(
            sorted({group for group in groups if isinstance(group, str) and group in self.rules.role_by_group})
        )

    def _signing_keys(self, max_age_seconds: float) -> KeySet:
        listed = self._document(self._endpoint("jwks_uri"), max_age_seconds).get("keys")
        return KeySet([key for each in (listed if isinstance(listed, list) else []) for key in _usable_keys(each)])

    def _endpoint(self, name: str) -> str:
        address = self._discovery_document().get(name)
        if not isinstance(address, str) or not is_secure_url(address):
            raise IdentityNotVerified(f"the provider's {name} is missing or is not an https address")
        return address

    def _discovery_document(self) -> dict[str, Any]:
        address = f"{self.rules.issuer.rstrip('/')}/.well-known/openid-configuration"
        document = self._document(address, DISCOVERY_TTL_SECONDS)
        if document.get("issuer") != self.rules.issuer:
            self._documents.clear()  # it may be right the next time
            raise IdentityNotVerified("the provider's discovery document names another issuer")
        return document

    def _document(self, address: str, max_age_seconds: float) -> dict[str, Any]:
        """Return the JSON object at an address, fetched again when it is older, or when the clock was set back."""
        fetched_at, document = self._documents.get(address, (0.0, {}))
        if not 0 <= self._now() - fetched_at <= max_age_seconds:
            document = _fetch_object(address)
            self._documents[address] = self._now(), document
        return document

    def _now(self) -> float:
        return self._clock().timestamp()


class _TokenSession:
    """The session that Authlib's client sends its request for a token with."""

    def post(self, address: str, data: dict[str, str], headers: dict[str, str], auth: ClientAuth) -> httpx.Response:
        """Send a form, with the client's proof of who it is."""
        address, headers, body = auth.prepare("POST", address, dict(headers), urlencode(data))
        return _fetch("POST", address, headers, body, (200, 400, 401))  # Authlib reads the errors of OAuth


def _fetch_object(address: str) -> dict[str, Any]:
    """Return the JSON object at an address of the provider."""
    try:
        content = _fetch("GET", address, {"accept": "application/json"}).json()
    except (ValueError, RecursionError) as cause:
        raise IdentityNotVerified("the provider's response is not JSON") from cause
    if not isinstance(content, dict):
        raise IdentityNotVerified("the provider's response is not a JSON object")
    return content


def _fetch(
    method: str, address: str, headers: Mapping[str, str], body: str | None = None, accepted: Sequence[int] = (200,)
) -> httpx.Response:
    """Return a response of an accepted status, within a size and a time limit; redirects are not followed."""
    deadline, content = monotonic() + REQUEST_TIMEOUT_SECONDS, b""
    try:
        with (
            httpx.Client(verify=_tls(), timeout=REQUEST_TIMEOUT_SECONDS, follow_redirects=False) as client,
            client.stream(method, address, headers=headers, content=body) as response,
        ):
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_RESPONSE_BYTES:
                    raise IdentityNotVerified(f"the provider's response is larger than {MAX_RESPONSE_BYTES:,} bytes")
                if monotonic() > deadline:
                    raise IdentityNotVerified(f"the response took longer than {REQUEST_TIMEOUT_SECONDS:g} s")
            if response.status_code not in accepted:
                raise IdentityNotVerified(f"the provider responds with status {response.status_code}")
            return httpx.Response(response.status_code, content=content, request=response.request)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as cause:
        raise IdentityNotVerified(f"the request to the provider failed: {type(cause).__name__}") from cause


def _usable_keys(listed: object) -> list[Key]:
    """Return the key if it can verify signatures. Others are left out, as RFC 7517, section 5 says."""
    if not isinstance(listed, dict) or listed.get("use", "sig") != "sig" or listed.get("kty") not in {"RSA", "EC"}:
        return []
    if listed["kty"] == "RSA" and len(str(listed.get("n"))) < _MIN_MODULUS_CHARACTERS:
        return []
    with suppress(JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return [JWKRegistry.import_key(listed)]
    return []


def _reason(cause: Exception) -> str:
    """Return what is wrong, for the log: of other errors than Authlib's only the class, as they may quote a token."""
    return f"{type(cause).__name__} {[getattr(cause, name, None) for name in ('error', 'description')]!r:.200}"


def _is_plain(name: str) -> bool:
    """Whether the name has no letters that the rule of names drops or replaces, and names one person only.

    A provider can have an account of its own for each spelling; here they would be one person.
    """
    plain = " ".join(unicodedata.normalize("NFC", name).split())
    folded = _TAG.sub("", unicodedata.normalize("NFD", unicodedata.normalize("NFD", plain).casefold()))
    local, at, _ = folded.rpartition("@")
    domain = plain.rpartition("@")[2].lower() if at else ""
    with suppress(UnicodeError):  # names of domains are compared in ASCII, which "ß" and "。" are replaced for
        encoded = domain.encode("idna")
        if domain not in (encoded.decode("ascii"), encoded.decode("idna")):
            return False
        folded = f"{local}@{encoded.decode('ascii')}" if at else folded
    known = {unicodedata.normalize("NFKD", each) for each in exact_names(name)}
    return known == {folded} and unicodedata.is_normalized("NFKC", plain)
