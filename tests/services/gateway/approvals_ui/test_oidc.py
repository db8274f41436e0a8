"""Sign-in at an OpenID Connect provider, a real HTTP server here: false tokens and stolen responses are refused."""

import base64
import hmac
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from blocks.common.gateway_settings import OpenIdConnect
from blocks.common.trust import ApprovalSettings
from services.gateway.approvals_ui.oidc_pages import SIGN_IN_FAILED
from tests.fakes.identity_provider import (
    CLIENT,
    CLIENT_SECRET,
    IdentityProvider,
    identity_provider,
    signed,
)
from tests.fixtures.office import Office, decide, hidden

NAMED = "env:OIDC_SECRET"
ADDRESS = "https://ratchet.example.com"
MAX = {"email": "max@example.com", "email_verified": True, "groups": ["ml-risk", "everyone"]}


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as found:
        found.person = dict(MAX)
        yield found


@pytest.fixture
def office(provider: IdentityProvider, tmp_path: Path) -> Office:
    rules = OpenIdConnect(
        issuer=provider.issuer, client_id=CLIENT, client_secret=NAMED, role_by_group={"ml-risk": "risk"}
    )
    office = Office.at(
        tmp_path, address=ADDRESS, permissions_by_role={"risk": "decide", "approver": "decide"}, oidc=rules
    )
    object.__setattr__(office.context, "read_secret", {NAMED: CLIENT_SECRET}.__getitem__)
    provider.clock = office.context.clock
    return office


def go(browser: httpx.Client, wanted: str = "") -> str:
    """Follow the link on the sign-in page, and the provider's redirect; return the path to which it leads back."""
    answer = browser.get("/sign-in/provider", params={"next": wanted} if wanted else {})
    assert answer.status_code == 303
    back = httpx.get(answer.headers["location"]).headers["location"]
    assert back.startswith(f"{ADDRESS}/sign-in/provider/callback?")
    return back.removeprefix(ADDRESS)


def sign_in(browser: httpx.Client, wanted: str = "") -> httpx.Response:
    return browser.get(go(browser, wanted))


def is_refused(office: Office, browser: httpx.Client, answer: httpx.Response) -> bool:
    """Return whether nobody was signed in, and the page says nothing else."""
    return (
        answer.status_code == 401
        and SIGN_IN_FAILED.replace("'", "&#39;") in answer.text
        and "__Host-ratchet-session" not in browser.cookies
        and browser.get("/approvals").status_code == 401
    )


def test_a_person_signs_in_at_the_provider_and_decides_with_the_role_of_their_group(office: Office) -> None:
    office.env.approval = ApprovalSettings(require_authentication=True, roles=("risk",))
    request = office.ask(roles=("risk",))
    browser = office.another()
    assert "Sign in with your organisation" in browser.get(f"/approvals/{request.id}").text
    back = sign_in(browser, f"/approvals/{request.id}")
    assert back.status_code == 200, "a page of ours: a redirect would not bring the strict cookie along"
    assert f'url=/approvals/{request.id}"' in back.text
    assert decide(browser, request.id).status_code == 303
    (made,) = office.decisions()
    issuer = office.env.gateway.oidc.issuer if office.env.gateway.oidc else ""
    assert (made.by, made.roles, made.channel) == (
        "max@example.com", ("risk",), f"approvals page, signed in at {issuer}",
    )  # fmt: skip
    assert made.authenticated


def test_a_program_of_a_person_of_the_provider_decides_with_a_token_from_the_page(office: Office) -> None:
    request, browser = office.ask(), office.another()
    sign_in(browser)
    assert browser.post("/token", data={"token": "made up"}).status_code == 403
    page = browser.post("/token", data=hidden(browser.get("/approvals"), "/token"))
    (token,) = re.findall(r'class="digest">([^<]{43})<', page.text)
    bearer = {"authorization": f"Bearer {token}"}
    said = {"approve": False, "reason": "not yet", "digest": request.digest}
    program = office.another()
    assert program.get("/approvals", headers=bearer).status_code == 401
    assert program.post(f"/api/approvals/{request.id}/decision", json=said, headers=bearer).status_code == 200
    assert office.decisions()[0].channel.startswith("approvals API, signed in at http://127.0.0.1")
    office.pass_time(minutes=61)
    assert program.get("/api/approvals", headers=bearer).status_code == 401


def test_the_cookies_of_the_way_there_and_back(office: Office) -> None:
    browser = office.another()
    first = browser.get("/sign-in/provider")
    (state_cookie,) = first.headers.get_list("set-cookie")
    assert state_cookie.startswith("__Host-ratchet-oidc-state=")
    assert {"HttpOnly", "Secure", "SameSite=lax", "Max-Age=600"} <= set(state_cookie.split("; "))
    asked = dict(httpx.URL(first.headers["location"]).params)
    assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    assert "code_verifier" not in asked
    back = sign_in(browser)
    session = [each for each in back.headers.get_list("set-cookie") if "ratchet-session=" in each]
    assert {"HttpOnly", "Secure", "SameSite=strict"} <= set(session[0].split("; "))


def test_a_key_on_an_elliptic_curve_proves_who_somebody_is(office: Office, provider: IdentityProvider) -> None:
    provider.key = ec.generate_private_key(ec.SECP256R1())
    assert sign_in(office.another()).status_code == 200


def test_a_rotation_of_keys_is_followed_half_a_minute_after_the_last(
    office: Office, provider: IdentityProvider
) -> None:
    assert sign_in(office.another()).status_code == 200
    provider.key, provider.key_id = ec.generate_private_key(ec.SECP256R1()), "key-2"
    office.pass_time(seconds=30)
    assert sign_in(office.another()).status_code == 401, "it asks for keys twice a minute at most"
    office.pass_time(seconds=1)
    assert sign_in(office.another()).status_code == 200
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_who_has_no_group_with_a_role_sees_nothing(office: Office, provider: IdentityProvider) -> None:
    for groups in ([], ["everyone"], "ml-risky", {"ml-risk": True}, None, [["ml-risk"]]):
        provider.person["groups"] = groups
        browser = office.another()
        assert sign_in(browser).status_code == 403
        assert "__Host-ratchet-session" not in browser.cookies


def test_a_group_that_means_nothing_any_more_ends_what_its_people_may_do(office: Office) -> None:
    browser = office.another()
    sign_in(browser)
    assert browser.get("/approvals").status_code == 200
    gateway = office.env.gateway
    assert gateway.oidc is not None
    office.env.gateway = gateway.model_copy(update={"oidc": gateway.oidc.model_copy(update={"role_by_group": {}})})
    assert browser.get("/approvals").status_code == 403
    office.env.gateway = gateway.model_copy(update={"oidc": None})
    assert browser.get("/approvals").status_code == 401
    assert browser.get("/sign-in/provider").status_code == 404


def claims_with(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(claims: dict[str, Any]) -> None:
        for name, value in changes.items():
            if value is None:
                claims.pop(name)
            else:
                claims[name] = value

    return spoil


SPOILED = {
    "another issuer": claims_with(iss="https://evil.example"),
    "another client": claims_with(aud="another"),
    "another client beside, unnamed": claims_with(aud=[CLIENT, "another"]),
    "made for another client": claims_with(aud=[CLIENT, "another"], azp="another"),
    "an expiry that is no number": claims_with(exp="soon"),
    "valid from when is no number": claims_with(nbf=[0]),
    "issued when is no number": claims_with(iat=float("inf")),
    "another nonce": claims_with(nonce="0" * 64),
    "a nonce that is no text": claims_with(nonce=["x"]),
    "no nonce": claims_with(nonce=None),
    "no expiry": claims_with(exp=None),
    "no audience": claims_with(aud=None),
    "no subject": claims_with(sub=None),
    "no issuer": claims_with(iss=None),
    "no name": claims_with(email=None),
    "a name that is no text": claims_with(email=["max@example.com"]),
    "an address that nobody verified": claims_with(email_verified=False),
    "an address of which nobody says": claims_with(email_verified=None),
    "verified as text": claims_with(email_verified="true"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_token_with_a_claim_that_is_not_right_proves_nothing(
    office: Office, provider: IdentityProvider, spoil: Callable[[dict[str, Any]], None]
) -> None:
    provider.spoil = spoil
    browser = office.another()
    assert is_refused(office, browser, sign_in(browser))


@pytest.mark.parametrize(
    ("claim", "seconds", "proves"),
    [
        pytest.param("exp", -59, True, id="just not expired"),
        pytest.param("exp", -60, False, id="expired"),
        pytest.param("nbf", 60, True, id="only just valid"),
        pytest.param("nbf", 61, False, id="not valid yet"),
        pytest.param("iat", 60, True, id="of a clock that is ahead"),
        pytest.param("iat", 61, False, id="from the future"),
    ],
)
@pytest.mark.parametrize("at", ["2001-09-09T01:46:40Z", "2100-01-01T00:00:00Z"])
def test_a_token_counts_for_its_time_and_a_minute_more(
    office: Office, provider: IdentityProvider, at: str, claim: str, seconds: int, proves: bool
) -> None:
    office.times["now"] = now = datetime.fromisoformat(at)
    provider.spoil = claims_with(**{claim: int(now.timestamp()) + seconds})
    browser = office.another()
    answer = sign_in(browser)
    assert answer.status_code == 200 if proves else is_refused(office, browser, answer)


def _unsigned(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, None, "none", {"kid": provider.key_id})  # type: ignore[arg-type]


def _by_hand(header: dict[str, Any], claims: dict[str, Any], key: bytes) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part(header)}.{part(claims)}"
    mac = base64.urlsafe_b64encode(hmac.new(key, text.encode(), sha256).digest()).rstrip(b"=").decode()
    return f"{text}.{mac}"


def _by_its_public_key(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    """The oldest attack: the public key, which everybody has, used as the secret of an HMAC."""
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _by_hand({"alg": "HS256", "kid": provider.key_id}, claims, provider.key.public_key().public_bytes(*form))


def _by_another_key(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, rsa.generate_private_key(65537, 2048), "RS256", {"kid": provider.key_id})


def _with_a_key_in_its_header(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    own = rsa.generate_private_key(65537, 2048)
    shown = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))
    return jwt.encode(claims, own, "RS256", {"kid": provider.key_id, "jwk": shown, "jku": "https://evil.example/keys"})


def _changed_afterwards(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    head, _, signature = signed(provider, claims).split(".")
    other = json.dumps({**claims, "email": "ceo@example.com"}).encode()
    return f"{head}.{base64.urlsafe_b64encode(other).rstrip(b'=').decode()}.{signature}"


FORGED = {
    "unsigned": _unsigned,
    "HS256 by the client's secret": lambda p, c: _by_hand({"alg": "HS256"}, c, CLIENT_SECRET.encode()),
    "HS256 by the public key": _by_its_public_key,
    "another key of the same name": _by_another_key,
    "a key that it brings itself": _with_a_key_in_its_header,
    "a key that nobody knows": lambda p, c: jwt.encode(c, p.key, "RS256", {"kid": "key-9"}),
    "changed afterwards": _changed_afterwards,
    "RS512": lambda p, c: jwt.encode(c, p.key, "RS512", {"kid": p.key_id}),
    "a critical header": lambda p, c: jwt.encode(c, p.key, "RS256", {"kid": p.key_id, "crit": ["x"], "x": 1}),
    "no token": lambda p, c: "not.a.token",
    "empty": lambda p, c: "",
    "a number": lambda p, c: 7,
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_token_that_the_provider_has_not_signed_proves_nothing(
    office: Office, provider: IdentityProvider, forge: Callable[[IdentityProvider, dict[str, Any]], str]
) -> None:
    provider.sign = forge
    browser = office.another()
    assert is_refused(office, browser, sign_in(browser))


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_key_that_is_too_short_proves_nothing(office: Office, provider: IdentityProvider) -> None:
    provider.key = rsa.generate_private_key(65537, 1024)  # noqa: S505
    browser = office.another()
    assert is_refused(office, browser, sign_in(browser))


def test_an_answer_counts_in_the_browser_that_asked(office: Office) -> None:
    victim, thief = office.another(), office.another()
    answer = go(victim)
    assert is_refused(office, thief, thief.get(answer)), "another browser: login CSRF, or a stolen answer"
    assert is_refused(office, victim, victim.get("/sign-in/provider/callback?code=x&state=made-up"))


def test_an_answer_counts_once(office: Office) -> None:
    once = office.another()
    answer = go(once)
    assert once.get(answer).status_code == 200
    assert once.get(answer).status_code == 401


def test_an_answer_counts_for_ten_minutes(office: Office) -> None:
    late = office.another()
    answer = go(late)
    office.pass_time(minutes=11)
    assert is_refused(office, late, late.get(answer))


CHANGED = {
    "no state": lambda it: it.replace("state=", "stale="),
    "another state": lambda it: it.replace("state=", "state=x"),
    "no code": lambda it: it.replace("code=", "mode="),
    "another code": lambda it: it.replace("code=", "code=x"),
    "no issuer": lambda it: it.replace("iss=", "his="),
    "another issuer": lambda it: it.replace("iss=", "iss=https://evil.example/?"),
    "an error": lambda it: it + "&error=access_denied",
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_an_answer_that_was_changed_on_its_way_proves_nothing(office: Office, change: Callable[[str], str]) -> None:
    browser = office.another()
    assert is_refused(office, browser, browser.get(change(go(browser))))


DISCOVERED = {
    "another issuer": {"issuer": "https://evil.example"},
    "an address that can be read along": {"token_endpoint": "http://evil.example/token"},
    "no token address": {"token_endpoint": None},
}


@pytest.mark.parametrize("more", DISCOVERED.values(), ids=DISCOVERED)
def test_a_provider_whose_document_is_not_right_is_not_used(
    office: Office, provider: IdentityProvider, more: dict[str, Any]
) -> None:
    provider.more = more
    browser = office.another()
    answer = browser.get("/sign-in/provider")
    if answer.status_code == 303:
        back = httpx.get(answer.headers["location"]).headers["location"]
        assert is_refused(office, browser, browser.get(back.removeprefix(ADDRESS)))
    else:
        assert (answer.status_code, "is unavailable at the moment" in answer.text) == (503, True)


def test_a_provider_that_is_away_is_told_and_passwords_go_on(office: Office, provider: IdentityProvider) -> None:
    provider.more = {"authorization_endpoint": None}
    assert office.another().get("/sign-in/provider").status_code == 503
    assert office.signed_in("ann@example.com").get("/approvals").status_code == 200


def test_neither_code_nor_token_nor_secret_is_in_the_log(
    office: Office, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    seen: list[str] = []

    def sign(it: IdentityProvider, claims: dict[str, Any]) -> str:
        seen.append(signed(it, claims))
        return seen[-1]

    provider.sign = sign
    browser = office.another()
    answer = go(browser)
    assert browser.get(answer).status_code == 200
    provider.spoil = claims_with(aud="another")
    sign_in(office.another())
    code = dict(httpx.URL(f"{ADDRESS}{answer}").params)["code"]
    ours = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("ratchet"))
    assert "signed in at" in ours
    assert "Invalid claim: 'aud'" in ours
    for value in (*seen, code, CLIENT_SECRET, browser.cookies["__Host-ratchet-session"]):
        assert value not in ours


def test_without_an_address_nobody_is_sent_anywhere(office: Office) -> None:
    browser = office.another()
    office.env.gateway = office.env.gateway.model_copy(update={"address": ""})
    assert browser.get("/sign-in/provider").status_code == 503
