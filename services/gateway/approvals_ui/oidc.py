"""OpenID Connect: the authorization code flow with PKCE, and full validation of the ID token.

OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3.7; RFC 7636 (PKCE, S256); RFC 9207 (`iss` in the callback).
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
"""Seconds that the discovery document and the keys are cached; seconds before an unknown key is fetched again."""
LEEWAY_SECONDS = 60
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}


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
        self._discovery: dict[str, Any] = {}
        self._keys: list[dict[str, Any]] = []
        self._discovery_at = self._keys_at = 0.0
        self._lock = Lock()

    def authorization_url(self, state: str, nonce: str, verifier: str) -> str:
        """Return the address at which the browser signs in. Raises IdentityNotVerified when it is not known."""
        parameters = {
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
        return f"{base}{'&' if '?' in base else '?'}{urlencode(parameters)}"

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
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect,
            "client_id": self.rules.client_id, "code_verifier": verifier,
        }  # fmt: skip
        methods = self._discovery_document().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        basic = httpx.BasicAuth(_form_encoded(self.rules.client_id), _form_encoded(secret)) if secret else None
        if secret and "client_secret_basic" not in methods:
            form, basic = {**form, "client_secret": secret}, None
        response = _fetch_json("POST", self._endpoint("token_endpoint"), data=form, auth=basic)
        token = response.get("id_token")
        if not isinstance(token, str):
            raise IdentityNotVerified("the provider's response has no ID token")
        return self.verify_id_token(token, nonce)

    def verify_id_token(self, token: str, nonce: str) -> VerifiedIdentity:
        """Return the identity in an ID token. Raises IdentityNotVerified unless all its claims are valid."""
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
                    "verify_exp": False,  # _check_times checks this and the next two, by the provider's `clock`
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            _check_times(claims, self._now())
        except jwt.PyJWTError as cause:
            raise IdentityNotVerified(f"the ID token is not valid: {type(cause).__name__}") from cause
        self._check_audience(claims)
        claim = claims["nonce"]
        if not isinstance(claim, str) or not hmac.compare_digest(claim.encode(errors="surrogatepass"), nonce.encode()):
            raise IdentityNotVerified("the nonce of the ID token does not match this sign-in")
        return VerifiedIdentity(self._name(claims), self._groups(claims))

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        """Refuse a token for several clients, unless its `azp` names this client."""
        audience, authorized_party = claims["aud"], claims.get("azp")
        many = isinstance(audience, list) and len(audience) > 1
        if (many and authorized_party is None) or (
            authorized_party is not None and authorized_party != self.rules.client_id
        ):
            raise IdentityNotVerified("the ID token was issued for another client")

    def _name(self, claims: Mapping[str, Any]) -> str:
        claim = self.rules.name_claim
        name = claims.get(claim)
        if not isinstance(name, str) or not 2 <= len(name.strip()) <= 200:
            raise IdentityNotVerified(f"the ID token has no {claim!r}")
        if claim == "email" and self.rules.email_verified and claims.get("email_verified") is not True:
            raise IdentityNotVerified("the provider has not verified the e-mail address")
        return " ".join(name.split())

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        claim = claims.get(self.rules.roles_claim, [])
        groups = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
        return tuple(
            sorted({group for group in groups if isinstance(group, str) and group in self.rules.role_by_group})
        )

    def _key(self, name: object, algorithm: str) -> jwt.PyJWK:
        """Return the provider's key with that id. For an unknown id the keys are fetched again (key rotation)."""
        for refresh in (False, True):
            matching = [
                key
                for key in self._signing_keys(refresh=refresh)
                if key.get("kty") == _KEY_TYPES[algorithm]
                and key.get("use", "sig") == "sig"
                and key.get("alg", algorithm) == algorithm
                and (name is None or key.get("kid") == name)
            ]
            if len(matching) == 1:
                jwk = jwt.PyJWK(matching[0], algorithm=algorithm)
                if isinstance(jwk.key, RSAPublicKey) and jwk.key.key_size < 2048:
                    raise IdentityNotVerified("the provider's key is too short")
                return jwk
        raise IdentityNotVerified("the provider has no key with the id that the ID token names, or more than one")

    def _signing_keys(self, *, refresh: bool) -> list[dict[str, Any]]:
        max_age_seconds = KEY_REFRESH_SECONDS if refresh else DISCOVERY_TTL_SECONDS
        if not self._is_recent(self._keys_at, max_age_seconds) or not self._keys:
            listed = _fetch_json("GET", self._endpoint("jwks_uri")).get("keys")
            keys = [key for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
            with self._lock:
                self._keys, self._keys_at = keys, self._now()
        return self._keys

    def _endpoint(self, name: str) -> str:
        address = self._discovery_document().get(name)
        if not isinstance(address, str) or not is_secure_url(address):
            raise IdentityNotVerified(f"the provider's {name} is missing or is not an https address")
        return address

    def _discovery_document(self) -> dict[str, Any]:
        if not self._is_recent(self._discovery_at, DISCOVERY_TTL_SECONDS):
            document = _fetch_json("GET", f"{self.rules.issuer.rstrip('/')}/.well-known/openid-configuration")
            if document.get("issuer") != self.rules.issuer:
                raise IdentityNotVerified("the provider's discovery document names another issuer")
            with self._lock:
                self._discovery, self._discovery_at = document, self._now()
        return self._discovery

    def _now(self) -> float:
        return self._clock().timestamp()

    def _is_recent(self, at: float, seconds: float) -> bool:
        """Whether `at` is within the last `seconds`. A time in the future, after the clock was set back, is not."""
        return 0 <= self._now() - at <= seconds


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    """Check the claims `iat`, `nbf` and `exp` of a token, in seconds since 1970.

    The checks are those of PyJWT, which can only use the clock of the machine.

    Raises:
        jwt.PyJWTError: the token is not valid at `now`, or one of the claims is not a number.
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
    """Return the JSON object of a provider's response, within a size and a time limit; redirects are not followed."""
    try:
        with (
            httpx.Client(timeout=REQUEST_TIMEOUT_SECONDS, follow_redirects=False) as client,
            client.stream(method, address, headers={"accept": "application/json"}, **content) as response,
        ):
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise IdentityNotVerified(f"the provider's response is larger than {MAX_RESPONSE_BYTES:,} bytes")
            if response.status_code != 200:
                raise IdentityNotVerified(f"the provider responds with status {response.status_code}")
            content_object = httpx.Response(200, content=body).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as cause:
        raise IdentityNotVerified(f"the request to the provider failed: {type(cause).__name__}") from cause
    if not isinstance(content_object, dict):
        raise IdentityNotVerified("the provider's response is not a JSON object")
    return content_object


def _form_encoded(text: str) -> str:
    """Return the text encoded for the Basic scheme, as RFC 6749, section 2.3.1 requires."""
    return urlencode({"": text})[1:]


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
