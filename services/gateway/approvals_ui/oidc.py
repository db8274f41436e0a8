"""OpenID Connect: the authorization code flow with PKCE, and an ID token that is believed only when all of it is right.

OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3.7; RFC 7636 (PKCE, S256); RFC 9207 (`iss` in the answer).
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from blocks.common.gateway_settings import OpenIdConnect, is_secure_url

REQUEST_TIMEOUT_SECONDS, MAX_RESPONSE_BYTES = 10.0, 262_144
DISCOVERY_TTL_SECONDS, KEY_REFRESH_SECONDS = 3600.0, 30.0
"""How long what a provider says of itself is believed; and how soon it is asked again for a key that is not known."""
LEEWAY_SECONDS = 60
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}


class IdentityNotVerified(Exception):
    """The provider has not proved who somebody is; the message is for the log, and holds no token."""


@dataclass(frozen=True)
class VerifiedIdentity:
    """Who somebody is by the provider, and those of their groups that stand for a role."""

    name: str
    groups: tuple[str, ...]


class Provider:
    """An identity provider as its discovery document describes it. `clock` tells the time, of its tokens as well."""

    def __init__(
        self, rules: OpenIdConnect, redirect: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.rules, self.redirect = rules, redirect
        self._clock = clock
        self._said: dict[str, Any] = {}
        self._keys: list[dict[str, Any]] = []
        self._said_at = self._keys_at = 0.0
        self._lock = Lock()

    def authorization_url(self, state: str, nonce: str, verifier: str) -> str:
        """Return where a browser goes to sign in. Raises NotProved when the provider does not say."""
        asked = {
            "response_type": "code",
            "client_id": self.rules.client_id,
            "redirect_uri": self.redirect,
            "scope": " ".join(self.rules.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _base64(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        base = self._endpoint("authorization_endpoint")
        return f"{base}{'&' if '?' in base else '?'}{urlencode(asked)}"

    def check_callback(self, query: Mapping[str, str]) -> str:
        """Return the code of an answer that comes from this provider. Raises NotProved."""
        named = query.get("iss")
        if named is None and self._discovery_document().get("authorization_response_iss_parameter_supported") is True:
            raise IdentityNotVerified("the answer does not name its issuer, which this provider always does")
        if named is not None and named != self.rules.issuer:
            raise IdentityNotVerified("the answer names another issuer")
        if "error" in query:
            raise IdentityNotVerified(f"the provider says: {query['error'][:100]!r}")
        if not (code := query.get("code", "")):
            raise IdentityNotVerified("the answer has no code")
        return code

    def exchange_code(self, code: str, nonce: str, verifier: str, secret: str) -> VerifiedIdentity:
        """Return who the code stands for. Raises NotProved."""
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect,
            "client_id": self.rules.client_id, "code_verifier": verifier,
        }  # fmt: skip
        methods = self._discovery_document().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        basic = httpx.BasicAuth(_form_encoded(self.rules.client_id), _form_encoded(secret)) if secret else None
        if secret and "client_secret_basic" not in methods:
            form, basic = {**form, "client_secret": secret}, None
        said = _fetch_json("POST", self._endpoint("token_endpoint"), data=form, auth=basic)
        token = said.get("id_token")
        if not isinstance(token, str):
            raise IdentityNotVerified("the provider gave no ID token")
        return self.verify_id_token(token, nonce)

    def verify_id_token(self, token: str, nonce: str) -> VerifiedIdentity:
        """Return who an ID token is about. Raises NotProved unless each of its claims is as it must be."""
        rules = self.rules
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in rules.algorithms or header.get("crit") is not None:
                raise IdentityNotVerified(f"the ID token is signed by {algorithm!r}, which is not accepted")
            claims = jwt.decode(
                token,
                self._key(header.get("kid"), algorithm),
                algorithms=[algorithm],
                audience=rules.client_id,
                issuer=rules.issuer,
                options={
                    "require": ["iss", "sub", "aud", "exp", "iat", "nonce"],
                    "verify_exp": False,  # _check_times does this and the next two, by our clock
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            _check_times(claims, self._now())
        except jwt.PyJWTError as cause:
            raise IdentityNotVerified(f"the ID token is not valid: {type(cause).__name__}") from cause
        self._check_audience(claims)
        given = claims["nonce"]
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(errors="surrogatepass"), nonce.encode()):
            raise IdentityNotVerified("the ID token answers another sign-in")
        return VerifiedIdentity(self._name(claims), self._groups(claims))

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        """Refuse a token that was made for another client as well, unless it says that it is for this one."""
        audience, authorized_party = claims["aud"], claims.get("azp")
        many = isinstance(audience, list) and len(audience) > 1
        if (many and authorized_party is None) or (
            authorized_party is not None and authorized_party != self.rules.client_id
        ):
            raise IdentityNotVerified("the ID token was made for another client")

    def _name(self, claims: Mapping[str, Any]) -> str:
        claim = self.rules.name_claim
        name = claims.get(claim)
        if not isinstance(name, str) or not 2 <= len(name.strip()) <= 200:
            raise IdentityNotVerified(f"the ID token has no {claim!r}")
        if claim == "email" and self.rules.email_verified and claims.get("email_verified") is not True:
            raise IdentityNotVerified("the provider has not verified the e-mail address")
        return " ".join(name.split())

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        found = claims.get(self.rules.roles_claim, [])
        groups = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        return tuple(
            sorted({group for group in groups if isinstance(group, str) and group in self.rules.role_by_group})
        )

    def _key(self, name: object, algorithm: str) -> jwt.PyJWK:
        """Return the provider's key of that name; an unknown one is asked for again, as after a rotation."""
        for fresh in (False, True):
            fitting = [
                key
                for key in self._signing_keys(refresh=fresh)
                if key.get("kty") == _KEY_TYPES[algorithm]
                and key.get("use", "sig") == "sig"
                and key.get("alg", algorithm) == algorithm
                and (name is None or key.get("kid") == name)
            ]
            if len(fitting) == 1:
                found = jwt.PyJWK(fitting[0], algorithm=algorithm)
                if isinstance(found.key, RSAPublicKey) and found.key.key_size < 2048:
                    raise IdentityNotVerified("the provider's key is too short")
                return found
        raise IdentityNotVerified("the provider has no key by the name that the ID token gives, or several")

    def _signing_keys(self, *, refresh: bool) -> list[dict[str, Any]]:
        known_for = KEY_REFRESH_SECONDS if refresh else DISCOVERY_TTL_SECONDS
        if not self._is_recent(self._keys_at, known_for) or not self._keys:
            keys = _fetch_json("GET", self._endpoint("jwks_uri")).get("keys")
            found = [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []
            with self._lock:
                self._keys, self._keys_at = found, self._now()
        return self._keys

    def _endpoint(self, name: str) -> str:
        found = self._discovery_document().get(name)
        if not isinstance(found, str) or not is_secure_url(found):
            raise IdentityNotVerified(f"the provider names no {name} that others cannot read along")
        return found

    def _discovery_document(self) -> dict[str, Any]:
        if not self._is_recent(self._said_at, DISCOVERY_TTL_SECONDS):
            said = _fetch_json("GET", f"{self.rules.issuer.rstrip('/')}/.well-known/openid-configuration")
            if said.get("issuer") != self.rules.issuer:
                raise IdentityNotVerified("the provider's discovery document names another issuer")
            with self._lock:
                self._said, self._said_at = said, self._now()
        return self._said

    def _now(self) -> float:
        return self._clock().timestamp()

    def _is_recent(self, at: float, seconds: float) -> bool:
        """Return whether that was within so many seconds. A clock that was set back makes nothing recent for longer."""
        return 0 <= self._now() - at <= seconds


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    """Check when a token was issued, and from when until when it is valid, in seconds since 1970.

    As PyJWT does, which can take the time from the machine's clock alone.

    Raises:
        jwt.PyJWTError: it is not valid at that time, or a time in it is no number.
    """
    times: dict[str, int] = {}
    for name, error in (("iat", jwt.InvalidIssuedAtError), ("nbf", jwt.DecodeError), ("exp", jwt.DecodeError)):
        try:
            times |= {name: int(claims[name])} if name in claims else {}
        except (ValueError, TypeError, OverflowError):
            raise error(f"The claim {name} must be an integer.") from None
    if max(times["iat"], times.get("nbf", times["iat"])) > now + LEEWAY_SECONDS:
        raise jwt.ImmatureSignatureError("The token is not yet valid.")
    if times["exp"] <= now - LEEWAY_SECONDS:
        raise jwt.ExpiredSignatureError("The token has expired.")


def _fetch_json(method: str, address: str, **content: Any) -> dict[str, Any]:
    """Return the JSON object that a provider answers with: within a size and a time, and from nowhere else."""
    try:
        with (
            httpx.Client(timeout=REQUEST_TIMEOUT_SECONDS, follow_redirects=False) as client,
            client.stream(method, address, headers={"accept": "application/json"}, **content) as answer,
        ):
            body = b""
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise IdentityNotVerified("the provider's answer has no end")
            if answer.status_code != 200:
                raise IdentityNotVerified(f"the provider answers {answer.status_code}")
            said = httpx.Response(200, content=body).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as cause:
        raise IdentityNotVerified(f"the provider cannot be asked: {type(cause).__name__}") from cause
    if not isinstance(said, dict):
        raise IdentityNotVerified("the provider's answer is no JSON object")
    return said


def _form_encoded(text: str) -> str:
    """Return the text as RFC 6749, 2.3.1 wants it in the Basic scheme."""
    return urlencode({"": text})[1:]


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
