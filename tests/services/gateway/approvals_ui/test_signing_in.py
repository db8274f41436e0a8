"""Sign-in to the approvals page: nothing is shown without it, and a failed attempt reveals nothing."""

import re
import stat
import time
from pathlib import Path
from statistics import median

import httpx
import pytest
from argon2 import PasswordHasher

from blocks.common.errors import PortError
from blocks.records.people import Person
from services.gateway.approvals_ui.accounts import (
    MAX_FAILURES_BY_ADDRESS,
    MAX_FAILURES_BY_NAME,
    Accounts,
    hash_password,
    verify_password,
)
from services.gateway.approvals_ui.store import open_store
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW
from tests.fixtures.office import CHEAP, WORDS, Office, decide, hidden, sign_in

CLOSED = [
    ("GET", "/approvals"), ("GET", "/approvals/price-2"), ("GET", "/approvals/ghost"), ("POST", "/approvals/price-2"),
    ("GET", "/api/approvals"), ("GET", "/api/approvals/price-2"), ("GET", "/api/approvals/ghost"),
    ("POST", "/api/approvals/price-2/decision"), ("POST", "/api/sign-out"),
]  # fmt: skip
SCRYPT = "scrypt$4096$8$1$MDEyMzQ1Njc4OWFiY2RlZg==$BLi/oY39hBw/owpoCnC4inJjwRWuJsDnBNlE+UjmY6s="
"""WORDS as releases up to November 2026 stored them."""
SECRETS = ("price-2", "dana@example.com", "0.85", "auc")


@pytest.fixture
def office(tmp_path: Path) -> Office:
    office = Office.at(tmp_path)
    office.ask()
    return office


def set_hash(office: Office, name: str, stored: str) -> None:
    office.context.store.write(("UPDATE accounts SET password = ? WHERE name = ?", (stored, name)))


def stored_hash(accounts: Accounts, name: str) -> str:
    return str(accounts._store.rows("SELECT password FROM accounts WHERE name = ?", (name,))[0]["password"])


def shows_nothing(answer: httpx.Response, path: str = "") -> bool:
    """Return whether the response reveals nothing about any request, except the requested path."""
    text = answer.text.replace(path, "") if path else answer.text
    return not [each for each in SECRETS if each in text]


@pytest.mark.parametrize(("method", "path"), CLOSED, ids=" ".join)
def test_without_a_sign_in_nothing_is_shown_whether_it_is_there_or_not(office: Office, method: str, path: str) -> None:
    answer = office.client.request(method, path)
    assert answer.status_code == 401
    assert shows_nothing(answer, path)


TOKENS = {
    "none": {},
    "empty": {"authorization": "Bearer "},
    "made up": {"authorization": "Bearer " + "A" * 43},
    "basic": {"authorization": "Basic bWF4OnB3"},
    "long": {"authorization": "Bearer " + "A" * 9_000},
    "a made up cookie": {"cookie": "ratchet-session=" + "A" * 43},
}


@pytest.mark.parametrize("headers", TOKENS.values(), ids=TOKENS)
def test_a_token_that_nobody_gave_opens_nothing(office: Office, headers: dict[str, str]) -> None:
    for path in ("/approvals", "/api/approvals"):
        answer = office.client.get(path, headers=headers)
        assert answer.status_code == 401
        assert shows_nothing(answer)


def test_a_cookie_opens_no_api_and_an_api_token_no_page(office: Office) -> None:
    browser = office.signed_in()
    assert browser.get("/api/approvals").status_code == 401
    cookie = browser.cookies["ratchet-session"]
    assert office.client.get("/api/approvals", headers={"authorization": f"Bearer {cookie}"}).status_code == 401
    token = office.token("ann@example.com")["authorization"].removeprefix("Bearer ")
    assert office.client.get("/approvals", headers={"cookie": f"ratchet-session={token}"}).status_code == 401


WRONG = {
    "a wrong password": ("max@example.com", "wrong " * 4),
    "an unknown name": ("eve@example.com", WORDS),
    "a disabled account": ("gone@example.com", WORDS),
    "no password": ("max@example.com", ""),
    "no name": ("", WORDS),
    "a name that SQL reads": ("' OR 1=1 --", WORDS),
    "letters that are none": ("max\udc80", "\x00"),
    "a long password": ("max@example.com", "x" * 20_000),
}


@pytest.mark.parametrize(("name", "password"), WRONG.values(), ids=WRONG)
def test_whatever_is_wrong_the_answer_is_the_same(office: Office, name: str, password: str) -> None:
    office.account()
    office.account("gone@example.com")
    office.context.accounts.disable("gone@example.com")
    answer = sign_in(office.client, name.encode(errors="replace").decode(), password)
    assert answer.status_code == 401
    assert "Name or password is wrong." in answer.text
    assert "ratchet-session" not in office.client.cookies
    said = office.client.post(
        "/api/sign-in", json={"name": name.encode(errors="replace").decode(), "password": password}
    )
    assert (said.status_code, said.json()["reason"]) == (401, "Name or password is wrong.")


@pytest.mark.parametrize("kind", ["of this release", "of an earlier release"])
def test_an_unknown_name_takes_as_long_as_a_wrong_password(tmp_path: Path, kind: str) -> None:
    office = Office.at(tmp_path)
    office.context.accounts._hasher = PasswordHasher(time_cost=2, memory_cost=4_096, parallelism=1)
    office.account()
    if kind == "of an earlier release":
        set_hash(office, "max@example.com", SCRYPT)
    office.context.accounts._dummy_hash  # noqa: B018  (made once, at the first attempt)

    def seconds(name: str) -> float:
        begun = time.process_time()  # of this process: the load of the machine does not count
        assert sign_in(office.client, name, "wrong wrong wrong").status_code == 401
        return time.process_time() - begun

    known = median(seconds("max@example.com") for _ in range(7))
    unknown = median(seconds(f"nobody{number}@example.com") for number in range(7))
    assert 0.4 < unknown / known < 2.5


@pytest.mark.parametrize("name", ["max@example.com", "eve@example.com"], ids=["an account", "none"])
def test_after_some_failures_nobody_signs_in_under_that_name_for_a_while(office: Office, name: str) -> None:
    office.account()
    for _ in range(MAX_FAILURES_BY_NAME):
        assert sign_in(office.another("10.9.9.9"), name, "wrong wrong wrong").status_code == 401
    locked = sign_in(office.another("10.8.8.8"), f" {name.upper()}")
    assert (locked.status_code, "Too many attempts" in locked.text) == (429, True)
    assert office.client.post("/api/sign-in", json={"name": name, "password": WORDS}).status_code == 429
    office.pass_time(minutes=16)
    assert sign_in(office.another(), name).status_code == (303 if name.startswith("max") else 401)


def test_from_one_address_not_many_names_are_tried(office: Office) -> None:
    office.account()
    for number in range(MAX_FAILURES_BY_ADDRESS):
        assert sign_in(office.client, f"guess{number}@example.com", "wrong wrong wrong").status_code == 401
    assert sign_in(office.client, "max@example.com").status_code == 429
    assert sign_in(office.another("10.0.0.2"), "max@example.com").status_code == 303


def test_a_sign_in_that_succeeds_forgives_the_failures_before(office: Office) -> None:
    office.account()
    for _ in range(3):
        for _ in range(MAX_FAILURES_BY_NAME - 1):
            sign_in(office.client, "max@example.com", "wrong wrong wrong")
        assert sign_in(office.another("10.0.0.7"), "max@example.com").status_code == 303
        office.pass_time(minutes=16)


def test_a_role_that_is_not_configured_lets_nobody_in(office: Office) -> None:
    office.account("odd@example.com", "astronaut")
    answer = sign_in(office.client, "odd@example.com")
    assert (answer.status_code, "ratchet-session" in office.client.cookies) == (403, False)
    said = office.client.post("/api/sign-in", json={"name": "odd@example.com", "password": WORDS})
    assert said.status_code == 403


def test_a_role_taken_out_of_the_configuration_closes_sessions_that_are_open(office: Office) -> None:
    browser, bearer = office.signed_in(), office.token("ann@example.com")
    office.env.gateway = office.env.gateway.model_copy(update={"permissions_by_role": {"viewer": "view"}})
    for answer in (browser.get("/approvals"), office.client.get("/api/approvals", headers=bearer)):
        assert answer.status_code == 403
        assert shows_nothing(answer)


def test_who_is_revoked_sees_nothing_any_more(office: Office) -> None:
    browser = office.signed_in()
    office.env.people = {"m": Person(aliases=("max@example.com",), revoked=True)}
    assert browser.get("/approvals").status_code == 403


def test_a_session_ends_after_hours_and_after_doing_nothing(office: Office) -> None:
    browser, bearer = office.signed_in(), office.token("ann@example.com")
    for _ in range(9):
        office.pass_time(minutes=50)
        assert browser.get("/approvals").status_code == 200
    office.pass_time(minutes=31)  # 8 hours and a minute
    assert browser.get("/approvals").status_code == 401
    assert office.client.get("/api/approvals", headers=bearer).status_code == 401, "it did nothing for an hour"


def test_a_clock_that_goes_back_keeps_no_session_open(office: Office) -> None:
    browser = office.signed_in()
    office.pass_time(hours=-2)
    assert browser.get("/approvals").status_code == 401


def test_a_session_that_ended_meanwhile_decides_nothing(office: Office) -> None:
    browser = office.signed_in()
    page = browser.get("/approvals/price-2")
    office.pass_time(hours=2)
    sent = {**hidden(page, "/approvals/price-2"), "verdict": "approve", "reason": "it is better"}
    assert browser.post("/approvals/price-2", data=sent).status_code == 401
    assert office.decisions() == []


def test_signing_out_ends_the_session_on_the_server(office: Office) -> None:
    browser = office.signed_in()
    stolen = browser.cookies["ratchet-session"]
    page = browser.get("/approvals")
    assert browser.post("/sign-out", data={"token": "made up"}).status_code == 403
    assert browser.post("/sign-out", data=hidden(page, "/sign-out")).status_code == 303
    assert "ratchet-session" not in browser.cookies
    assert office.client.get("/approvals", headers={"cookie": f"ratchet-session={stolen}"}).status_code == 401
    bearer = office.token("ann@example.com")
    assert office.client.post("/api/sign-out", headers=bearer).status_code == 200
    assert office.client.get("/api/approvals", headers=bearer).status_code == 401


def test_an_account_that_is_disabled_or_given_a_new_password_is_signed_out(office: Office) -> None:
    browser = office.signed_in()
    office.account()
    assert browser.get("/approvals").status_code == 401
    browser = office.signed_in()
    office.context.accounts.disable("MAX@example.com")
    assert browser.get("/approvals").status_code == 401
    with pytest.raises(Refusal, match=r"no such account.*max@example\.com"):
        office.context.accounts.disable("ghost")


def test_where_passwords_are_off_nobody_signs_in_with_one(office: Office) -> None:
    browser = office.signed_in()
    office.env.gateway = office.env.gateway.model_copy(update={"allow_passwords": False})
    assert browser.get("/approvals").status_code == 401
    assert 'name="password"' not in office.client.get("/sign-in").text
    assert office.client.post("/api/sign-in", json={"name": "max@example.com", "password": WORDS}).status_code == 403


@pytest.mark.parametrize("address", ["", "https://ratchet.example.com"], ids=["http", "https"])
def test_cookies_are_for_nobody_elses_eyes(tmp_path: Path, address: str) -> None:
    office = Office.at(tmp_path, address=address)
    office.account()
    answer = sign_in(office.client, "max@example.com")
    cookies = answer.headers.get_list("set-cookie")
    (session,) = [each for each in cookies if "ratchet-session=" in each]
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=28800"} <= set(session.split("; "))
    assert ("Secure" in session.split("; ")) is bool(address)
    assert session.startswith("__Host-") is bool(address)
    assert "Domain" not in session
    assert office.client.get("/approvals").status_code == 200


def test_neither_passwords_nor_tokens_are_in_the_desks_file_or_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    office = Office.at(tmp_path)
    request = office.ask()
    browser = office.signed_in()
    token = office.token("ann@example.com")["authorization"].removeprefix("Bearer ")
    sign_in(office.another(), "max@example.com", "a password that is wrong")
    decide(browser, request.id)
    cookie = browser.cookies["ratchet-session"]
    file = office.context.store.path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    secret = office.context.store.secret("forms")
    for value in (WORDS, "a password that is wrong", token, cookie):
        assert value.encode() not in file.read_bytes()
        assert value not in caplog.text
    assert secret.hex() not in caplog.text
    assert "max@example.com" in caplog.text, "who signed in is in the log"


def test_a_password_is_kept_by_argon2_with_a_salt_of_its_own() -> None:
    one, two = hash_password("a" * 12, CHEAP), hash_password("a" * 12, CHEAP)
    assert one != two
    assert re.fullmatch(r"\$argon2id\$v=19\$m=8,t=1,p=1\$\S{22}\$\S{43}", one)
    assert verify_password("a" * 12, one)
    assert verify_password("ａ" * 12, one), "the same letters in full width"
    for wrong in ("a" * 11, "a" * 13, "A" * 12, ""):
        assert not verify_password(wrong, one)
    for kept in (
        "",
        "$argon2id$",
        "plain$16$1$1$AAAA$AAAA",
        one.replace("argon2id", "argon2x"),
        "scrypt$3$1$1$AAAA$AAAA",
    ):
        assert not verify_password("a" * 12, kept)


def test_a_new_account_costs_a_thief_64_megabytes_for_each_guess(tmp_path: Path) -> None:
    accounts = Accounts(open_store(tmp_path))
    accounts.add("max@example.com", WORDS, ["viewer"], NOW)
    assert stored_hash(accounts, "max@example.com").startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_password_of_an_earlier_release_is_valid_and_stored_anew_once(office: Office) -> None:
    office.account()
    set_hash(office, "max@example.com", SCRYPT)
    assert sign_in(office.another(), "max@example.com", "wrong wrong wrong").status_code == 401
    assert stored_hash(office.context.accounts, "max@example.com") == SCRYPT
    browser = office.another()
    assert sign_in(browser, "max@example.com").status_code == 303
    new = stored_hash(office.context.accounts, "max@example.com")
    assert new.startswith("$argon2id$")
    assert sign_in(office.another(), "max@example.com").status_code == 303
    assert stored_hash(office.context.accounts, "max@example.com") == new
    assert browser.get("/approvals").status_code == 200, "its sessions go on"


def test_a_password_is_stored_anew_when_the_cost_of_hashes_changes(office: Office) -> None:
    office.account()
    office.context.accounts._hasher = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    vars(office.context.accounts).pop("_dummy_hash", None)
    assert sign_in(office.client, "max@example.com").status_code == 303
    assert stored_hash(office.context.accounts, "max@example.com").startswith("$argon2id$v=19$m=16,t=2,p=1$")


def test_nobody_signs_in_with_the_password_of_another(office: Office) -> None:
    office.account()
    office.context.accounts.add("ann@example.com", "another password of ann", ["approver"], NOW)
    set_hash(office, "max@example.com", SCRYPT)
    for name, password in (
        ("ann@example.com", WORDS),
        ("max@example.com", "another password of ann"),
        ("eve@example.com", WORDS),
    ):
        assert sign_in(office.another(), name, password).status_code == 401


@pytest.mark.parametrize(
    ("name", "password", "roles"),
    [("x", WORDS, ["viewer"]), ("max", "short", ["viewer"]), ("max", WORDS, []), ("max", "x" * 257, ["viewer"])],
    ids=["name", "short", "no role", "long"],
)
def test_an_account_that_protects_nothing_is_refused(
    office: Office, name: str, password: str, roles: list[str]
) -> None:
    with pytest.raises(Refusal):
        office.context.accounts.add(name, password, roles, office.times["now"])
    assert office.context.accounts.list_all() == ()


def test_a_file_that_cannot_be_used_lets_nobody_in(office: Office) -> None:
    browser = office.signed_in()
    office.context.store.path.unlink()
    office.context.store.path.mkdir()
    answer = browser.get("/approvals")
    assert answer.status_code == 503
    assert shows_nothing(answer)
    with pytest.raises(PortError):
        office.context.accounts.list_all()
