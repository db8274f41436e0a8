"""Attacks on the sign-in: forged cookies and forms, redirects elsewhere, false providers, names of other people."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from blocks.common.gateway_settings import OpenIdConnect
from services.gateway.approvals_ui.accounts import hash_password
from services.gateway.approvals_ui.oidc_pages import MAX_PENDING_SIGN_INS, SIGN_IN_FAILED
from tests.fakes.identity_provider import CLIENT, IdentityProvider, identity_provider, signed
from tests.fixtures.office import WORDS, Office, decide, hidden, sign_in

ADDRESS = "https://ratchet.example.com"


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office.at(tmp_path)


# --- cookies, forms and redirects

CRLF = r'"a\015\012X-Evil: 1\073 Domain=evil.example"'


@pytest.mark.parametrize("name", ["ratchet-pre-session", "ratchet-session", "ratchet-oidc-state"])
def test_the_value_of_a_cookie_becomes_no_header(office: Office, name: str) -> None:
    for path in ("/sign-in", "/approvals", "/sign-in/provider/callback?state=x&code=y"):
        answer = office.client.get(path, headers={"cookie": f"{name}={CRLF}"})
        assert "x-evil" not in answer.headers
        for raw_name, value in answer.headers.raw:
            assert b"\n" not in raw_name + value
            assert b"; domain" not in value.lower()


def test_a_session_that_was_planted_before_the_sign_in_is_worth_nothing_after_it(office: Office) -> None:
    thief = office.signed_in("eve@example.com")
    planted = thief.cookies["ratchet-session"]
    office.account()
    victim = office.another()
    victim.cookies.set("ratchet-session", "A" * 43)
    assert sign_in(victim, "max@example.com").status_code == 303
    assert office.another().get("/approvals", headers={"cookie": "ratchet-session=" + "A" * 43}).status_code == 401
    page = thief.get("/approvals")
    victim = office.another()
    form = {**hidden(victim.get("/sign-in")), "name": "max@example.com", "password": WORDS}
    pre_session = victim.cookies["ratchet-pre-session"]
    cookies = f"ratchet-session={planted}; ratchet-pre-session={pre_session}"
    answer = office.another().post("/sign-in", data=form, headers={"cookie": cookies})
    assert planted not in answer.headers["set-cookie"]
    assert thief.get("/approvals").status_code == 401, "the session that the browser had ends"
    assert "eve@example.com" in page.text


@pytest.mark.parametrize("site", ["cross-site", "same-site"], ids=["another site", "another port of this host"])
def test_a_form_that_another_page_sends_does_nothing_even_with_a_valid_token(office: Office, site: str) -> None:
    request, browser = office.ask(), office.signed_in()
    forms = {
        path: hidden(browser.get(f"/approvals/{request.id}" if "/app" in path else "/approvals"), path)
        for path in (f"/approvals/{request.id}", "/token", "/sign-out")
    }
    browser.headers["sec-fetch-site"] = site
    for path, form in forms.items():
        assert form["token"]
        assert browser.post(path, data={**form, "verdict": "approve", "reason": "it is better"}).status_code == 403
    browser.headers["sec-fetch-site"] = "same-origin"
    assert browser.get("/approvals").status_code == 200, "nobody was signed out"
    assert office.decisions() == []
    stranger = office.another()
    form = {**hidden(stranger.get("/sign-in")), "name": "max@example.com", "password": WORDS}
    assert stranger.post("/sign-in", data=form, headers={"sec-fetch-site": site}).status_code == 403
    assert decide(browser, request.id).status_code == 303


ELSEWHERE = (
    "///evil.example", "/\\/evil.example", "https:evil.example", "https:/evil.example", "\\\\evil.example", "/%2f%2fevil.example",
    "/approvals/%2e%2e", "/approvals/..", "/approvals/.", "/approvals//evil.example", "/approvals/x#@evil.example", "/approvals/\t",
    "/approvals@evil.example", " //evil.example", "/approvals\u2028", "data:text/html,x", "/APPROVALS", "/approvals/x;y",
)  # fmt: skip


@pytest.mark.parametrize("wanted", ELSEWHERE)
def test_no_form_of_an_address_leads_elsewhere_after_signing_in(office: Office, wanted: str) -> None:
    office.account()
    assert hidden(office.client.get("/sign-in", params={"next": wanted}))["next"] == "/approvals"
    assert sign_in(office.client, "max@example.com", next=wanted).headers["location"] == "/approvals"


def test_a_parameter_that_occurs_twice_counts_as_none(office: Office) -> None:
    answer = office.client.get("/sign-in?next=/approvals/one&next=/approvals/two")
    assert hidden(answer)["next"] == "/approvals"
    assert office.client.get("/approvals?" + "a=1&" * 30).status_code == 401
    assert office.client.get("/sign-in?" + "a=1&" * 30).status_code == 400


# --- many passwords at once


def test_many_attempts_at_once_hash_two_passwords_at_a_time() -> None:
    running, most, lock = 0, 0, threading.Lock()
    two_at_once = threading.Event()

    class Watched(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            nonlocal running, most
            with lock:
                running, most = running + 1, max(most, running + 1)
                if running == 2:
                    two_at_once.set()
            two_at_once.wait(10)
            with lock:
                running -= 1
            return ""

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: hash_password(f"password {number}", Watched()), range(16)))
    assert most == 2


# --- identity providers


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as found:
        found.person = {"email": "max@example.com", "email_verified": True, "groups": ["ml-risk"]}
        yield found


def rules_of(provider: IdentityProvider, **changes: Any) -> OpenIdConnect:
    said = {"issuer": provider.issuer, "client_id": CLIENT, "client_secret": "env:OIDC_SECRET"}
    return OpenIdConnect(**said, **{"role_by_group": {"ml-risk": "risk"}, **changes})


@pytest.fixture
def guarded(provider: IdentityProvider, tmp_path: Path) -> Office:
    """The approvals page of an environment whose people sign in at the provider."""
    permissions = {"risk": "decide", "approver": "decide"}
    office = Office.at(tmp_path, address=ADDRESS, permissions_by_role=permissions, oidc=rules_of(provider))
    object.__setattr__(office.context, "read_secret", lambda name: "a client's secret: 100 % & more")
    provider.clock = office.context.clock
    return office


def go(browser: httpx.Client) -> str:
    """Sign in at the provider, and return the path of the callback."""
    there = browser.get("/sign-in/provider").headers["location"]
    return httpx.get(there).headers["location"].removeprefix(ADDRESS)


def outcome(office: Office) -> str:
    """Return "signed in" or "refused" for a new browser that signs in at the provider."""
    browser = office.another()
    answer = browser.get(go(browser))
    if answer.status_code == 200:
        return "signed in"
    assert answer.status_code == 401
    assert SIGN_IN_FAILED.replace("'", "&#39;") in answer.text
    assert "__Host-ratchet-session" not in browser.cookies
    return "refused"


def _number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


OCT = {"kty": "oct", "kid": "key-1", "k": base64.urlsafe_b64encode(b"k" * 32).decode()}
KEY_SETS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda key: {"keys": []},
    "no list": lambda key: {"keys": "key-1"},
    "no keys": lambda key: {},
    "a list": lambda key: [key],
    "entries that are no keys": lambda key: {"keys": [None, 7, "x", [], {}]},
    "a secret of the same id": lambda key: {"keys": [OCT]},
    "of another kind": lambda key: {"keys": [{**key, "kty": "EC"}]},
    "of an unknown kind": lambda key: {"keys": [{**key, "kty": "AKP"}]},
    "for encryption": lambda key: {"keys": [{**key, "use": "enc"}]},
    "for another algorithm": lambda key: {"keys": [{**key, "alg": "RS512"}]},
    "of another id": lambda key: {"keys": [{**key, "kid": "key-2"}]},
    "an id that is no text": lambda key: {"keys": [{**key, "kid": ["key-1"]}]},
    "a modulus that is no number": lambda key: {"keys": [{**key, "n": "é" * 400}]},
    "a modulus of zeros": lambda key: {"keys": [{**key, "n": "A" * 400}]},
    "an exponent of one": lambda key: {"keys": [{**key, "e": "AQ"}]},
    "without a modulus": lambda key: {"keys": [{"kty": "RSA", "kid": "key-1"}]},
    "on another curve": lambda key: {"keys": [{"kty": "EC", "kid": "key-1", "crv": "P-192", "x": "AA", "y": "AA"}]},
}


@pytest.mark.parametrize("change", KEY_SETS.values(), ids=KEY_SETS)
def test_keys_that_verify_nothing_let_nobody_in(
    guarded: Office, provider: IdentityProvider, change: Callable[[dict[str, Any]], Any]
) -> None:
    keys = change(provider.keys()["keys"][0])
    provider.keys = lambda: keys  # type: ignore[method-assign]
    assert outcome(guarded) == "refused"


def test_a_key_that_nobody_understands_does_not_hide_the_others(guarded: Office, provider: IdentityProvider) -> None:
    own = provider.keys()["keys"][0]
    listed = [None, {"kty": "AKP", "kid": "pq"}, {"kty": "RSA", "kid": "x", "n": "AA", "e": "AQAB"}, OCT, own]
    provider.keys = lambda: {"keys": listed}  # type: ignore[method-assign]
    assert outcome(guarded) == "signed in"


def test_a_key_of_another_size_of_curve_proves_nothing(guarded: Office, provider: IdentityProvider) -> None:
    provider.key = ec.generate_private_key(ec.SECP384R1())
    provider.sign = lambda it, claims: jwt.encode(claims, it.key, "ES384", {"kid": it.key_id})
    assert outcome(guarded) == "refused"


def _with_header(**header: Any) -> Callable[[IdentityProvider, dict[str, Any]], str]:
    return lambda it, claims: jwt.encode(claims, it.key, it.algorithm, {"kid": it.key_id, **header})


TOKENS: dict[str, Callable[[IdentityProvider, dict[str, Any]], Any]] = {
    "very long": lambda it, claims: signed(it, {**claims, "x": "x" * 200_000}),
    "an endless header": _with_header(x="x" * 100_000),
    "nested deep": lambda it, claims: "[" * 3_000 + "." + "[" * 3_000 + ".",
    "surrogates": lambda it, claims: "\ud800.\ud800.\ud800",
    "line ends": lambda it, claims: signed(it, claims) + "\r\n.x",
    "two signatures": lambda it, claims: signed(it, claims) + "." + signed(it, claims).split(".")[2],
    "encrypted": lambda it, claims: "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..x.x.x",
    "no algorithm": lambda it, claims: "e30." + signed(it, claims).split(".", 1)[1],
    "claims in a list": lambda it, claims: jwt.api_jws.encode(b"[]", it.key, "RS256", {"kid": it.key_id}),
    "of another client of this provider": lambda it, claims: signed(it, {**claims, "aud": "other", "azp": CLIENT}),
    "for several, by another": lambda it, claims: signed(it, {**claims, "aud": [CLIENT], "azp": ""}),
    "the hash of another access token": lambda it, claims: signed(it, {**claims, "at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}),
    "a hash that is no text": lambda it, claims: signed(it, {**claims, "at_hash": {"a": 1}}),
    "a subject that is no text": lambda it, claims: signed(it, {**claims, "sub": 7}),
    "an expiry that never comes": lambda it, claims: signed(it, {**claims, "exp": float("nan")}),
    "an expiry that is true": lambda it, claims: signed(it, {**claims, "exp": True}),
}  # fmt: skip


@pytest.mark.parametrize("sign", TOKENS.values(), ids=TOKENS)
def test_a_token_that_is_twisted_lets_nobody_in(
    guarded: Office, provider: IdentityProvider, sign: Callable[[IdentityProvider, dict[str, Any]], Any]
) -> None:
    provider.sign = sign
    assert outcome(guarded) == "refused"


def test_headers_that_name_a_key_of_their_own_are_not_followed(guarded: Office, provider: IdentityProvider) -> None:
    own = rsa.generate_private_key(65537, 2048)
    numbers = own.public_key().public_numbers()
    shown = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    provider.sign = lambda it, claims: jwt.encode(claims, own, "RS256", {"jwk": shown, "kid": it.key_id})
    assert outcome(guarded) == "refused"
    provider.sign = lambda it, claims: jwt.encode(claims, own, "RS256", {"x5u": f"{it.issuer}/own", "kid": it.key_id})
    assert outcome(guarded) == "refused"
    assert "/own" not in provider.asked


NAMES = {
    "with an invisible space": "max\u200b@example.com",
    "with a filler": "max\u3164@example.com",
    "turned around": "\u202emax@example.com",
    "in full width": "ｍａｘ@example.com",
    "with a ligature": "o\ufb03ce@example.com",
    "with a control character": "max\x07@example.com",
    "beside a name": "Eve <max@example.com>",
    "in brackets": "<max@example.com>",
    "with a line end": "max@example.com\n\x00",
    "with a joiner of marks": "max\u034f@example.com",
    "with a joiner of marks at its end": "max@example.com\u034f",
    "name with a joiner of marks": "Max\u034f",
    "name with a joiner inside": "M\u034fax",
    "with a comment": "Max (second)",
    "with the dot of the root": "max@example.com.",
    "with a dot of another script": "max@example\u3002com",
    "with an invisible space in the domain": "max@exam\u200bple.com",
    "with a soft hyphen in the domain": "max@exam\u00adple.com",
    "with a variation in the domain": "max@exam\ufe00ple.com",
    "with a dot in half width": "max@example\uff61com",
    "with a domain that ASCII replaces": "max@exa\u00dfmple.com",
    "with an encoded domain in brackets": "<ann@xn--mller-kva.de>",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("claim", ["email", "name"])
def test_a_name_that_reads_as_that_of_another_person_lets_nobody_in(
    guarded: Office, provider: IdentityProvider, claim: str, name: str
) -> None:
    rules = rules_of(provider, name_claim=claim)
    guarded.env.gateway = guarded.env.gateway.model_copy(update={"oidc": rules})
    provider.person[claim] = name
    assert outcome(guarded) == "refused"


@pytest.mark.parametrize("name", ["Zoë Müller", "Ann  Lee", "İpek Şahin", "李雷", "max+risk@example.com", "Straße", "ann@müller.de",
                                  "ann@xn--mller-kva.de", "Ann@MÜLLER.de"])  # fmt: skip
def test_a_name_in_any_alphabet_signs_in(guarded: Office, provider: IdentityProvider, name: str) -> None:
    rules = rules_of(provider, name_claim="name")
    guarded.env.gateway = guarded.env.gateway.model_copy(update={"oidc": rules})
    provider.person["name"] = name
    assert outcome(guarded) == "signed in"


def test_the_answer_of_one_provider_does_not_count_for_the_next(guarded: Office, provider: IdentityProvider) -> None:
    """Mix-up: the configuration names another provider while somebody is on the way; it must not get the code."""
    with identity_provider() as other:
        browser = guarded.another()
        answer = go(browser)
        guarded.env.gateway = guarded.env.gateway.model_copy(update={"oidc": rules_of(other)})
        assert browser.get(answer).status_code == 401
        assert browser.get(answer.replace("iss=", "x=")).status_code == 401
        assert "/token" not in other.asked
        assert other.asked == [], "it was not even asked"


@pytest.mark.parametrize("twice", ["code", "state", "iss"])
def test_an_answer_with_a_parameter_twice_lets_nobody_in(guarded: Office, twice: str) -> None:
    browser = guarded.another()
    answer = go(browser)
    value = dict(httpx.URL(f"{ADDRESS}{answer}").params)[twice]
    assert browser.get(f"{answer}&{twice}={value}").status_code == 401


def test_the_browser_carries_nothing_but_a_random_value_on_its_way(guarded: Office) -> None:
    """State, nonce and verifier are on the server, each for one answer: a cookie of a client could be used again."""
    browser = guarded.another()
    there = httpx.URL(browser.get("/sign-in/provider").headers["location"])
    (cookie,) = [value for name, value in browser.cookies.items() if "oidc" in name]
    assert len(cookie) == 43
    assert cookie not in str(there)
    rows = guarded.context.store.rows("SELECT * FROM pending_sign_ins")
    stored = json.dumps([list(row) for row in rows])
    for value in (cookie, there.params["state"], there.params["nonce"], there.params["code_challenge"]):
        assert value not in stored
    guarded.context.store.write(
        *[
            ("INSERT INTO pending_sign_ins VALUES (?, '/', 9e12)", (f"{number}",))
            for number in range(MAX_PENDING_SIGN_INS)
        ]
    )
    browser.get("/sign-in/provider")
    assert len(guarded.context.store.rows("SELECT digest FROM pending_sign_ins")) == MAX_PENDING_SIGN_INS


class Trap(BaseHTTPRequestHandler):
    """A provider's token endpoint of which the test says what it does."""

    reply: Callable[["Trap"], None]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(self.path)
        type(self).reply(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _redirect(it: Trap) -> None:
    it.send_response(307)
    it.send_header("location", "/stolen")
    it.end_headers()


def _endless(it: Trap) -> None:
    it.send_response(200)
    it.end_headers()
    for _ in range(40):
        it.wfile.write(b"x" * 10_000)


def _json(status: int, content: object) -> Callable[[Trap], None]:
    def reply(it: Trap) -> None:
        it.send_response(status)
        it.end_headers()
        it.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

    return reply


REPLIES = {
    "a redirect": _redirect,
    "without an end": _endless,
    "an error": _json(400, {"error": "invalid_grant\r\nINFO 'ceo' signed in", "error_description": ["x"]}),
    "an error that is no text": _json(401, {"error": {"a": 1}}),
    "a fault": _json(503, {"id_token": "x"}),
    "a token of a refusal": _json(403, {"id_token": "x"}),
    "a list": _json(200, [1]),
    "nothing": _json(200, b""),
    "nested deep": _json(200, b"[" * 100_000),
    "no ID token": _json(200, {"access_token": "x"}),
    "an expiry that is no number": _json(200, {"id_token": "x", "expires_in": "soon", "expires_at": []}),
    "tokens that are no text": _json(200, {"id_token": ["x"], "access_token": 7}),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_provider_that_answers_anything_else_than_a_token_lets_nobody_in(
    guarded: Office, provider: IdentityProvider, reply: Callable[[Trap], None], caplog: pytest.LogCaptureFixture
) -> None:
    trap = type("OneTrap", (Trap,), {"reply": staticmethod(reply), "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), trap) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            provider.more = {"token_endpoint": f"http://127.0.0.1:{server.server_address[1]}/token"}
            assert outcome(guarded) == "refused"
        finally:
            server.shutdown()
            thread.join()
    assert trap.asked == ["/token"], "the code went nowhere else"
    assert not [each for each in caplog.records if each.name.startswith("ratchet") and "\n" in each.getMessage()]


@pytest.mark.parametrize("methods", [None, 7, "client_secret_basic", [], [["client_secret_post"]]], ids=str)
def test_a_document_of_a_provider_that_is_twisted_is_no_fault_of_ours(
    guarded: Office, provider: IdentityProvider, methods: Any
) -> None:
    provider.more = {"token_endpoint_auth_methods_supported": methods}
    assert outcome(guarded) in {"signed in", "refused"}


ENDPOINTS = (
    "https://",
    "javascript:alert(1)",
    "http://127.0.0.1:1@evil.example/",
    "https://a\r\nx: y/",
    "https://a\\b",
    "https://[",
    7,
)


@pytest.mark.parametrize("address", ENDPOINTS, ids=str)
def test_nobody_is_sent_to_an_address_that_is_none(guarded: Office, provider: IdentityProvider, address: Any) -> None:
    provider.more = {"authorization_endpoint": address}
    answer = guarded.another().get("/sign-in/provider")
    assert (answer.status_code, "is unavailable at the moment" in answer.text) == (503, True)
