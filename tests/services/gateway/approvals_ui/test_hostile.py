"""Attacks on the approvals page: forged forms, scripts, redirects and endless bodies are refused."""

from pathlib import Path
from urllib.parse import urlencode

import pytest

from runtime.foreign_text import hidden_characters
from tests.fixtures.approval_requests import JUDGED, TRAINED, evidence, request_over
from tests.fixtures.office import WORDS, Office, decide, hidden, sign_in

SCRIPT = "<script>alert(1)</script>"
HOSTILE = (SCRIPT, "\"'><img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "javascript:alert(1)", "\u202e]]>", "</textarea>")


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office.at(tmp_path)


def test_a_form_without_the_token_of_the_session_does_nothing(office: Office) -> None:
    request = office.ask()
    browser, other = office.signed_in(), office.signed_in("ann@example.com")
    own = hidden(browser.get(f"/approvals/{request.id}"), f"/approvals/{request.id}")
    foreign = hidden(other.get(f"/approvals/{request.id}"), f"/approvals/{request.id}")
    assert own["token"] != foreign["token"]
    for token in ("", "0" * 64, foreign["token"], own["token"][:-1], own["token"].upper() + "é"):
        sent = {"token": token, "digest": request.digest, "verdict": "approve", "reason": "it is better"}
        assert browser.post(f"/approvals/{request.id}", data=sent).status_code == 403
    sent = {"digest": request.digest, "verdict": "approve", "reason": "it is better"}
    assert browser.post(f"/approvals/{request.id}", data=sent).status_code == 403
    twice = urlencode({"token": own["token"], **sent}) + "&token=x"
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert browser.post(f"/approvals/{request.id}", content=twice, headers=form).status_code == 403
    assert browser.post(f"/approvals/{request.id}", json={**sent, "token": own["token"]}).status_code == 415
    assert office.decisions() == []


def test_nobody_is_signed_in_by_a_form_of_another_browser(office: Office) -> None:
    office.account()
    foreign = hidden(office.another().get("/sign-in"))
    victim = office.another()
    sent = {**foreign, "name": "max@example.com", "password": WORDS}
    assert victim.post("/sign-in", data=sent).status_code == 403
    victim.get("/sign-in")
    assert victim.post("/sign-in", data=sent).status_code == 403
    assert "ratchet-session" not in victim.cookies


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_that_is_markup_is_shown_letter_by_letter(office: Office, text: str) -> None:
    shown = evidence(
        judged=JUDGED.model_copy(update={"reasons": (text,), "metrics": {text: 0.5}, "champion_metrics": {text: 0.4}}),
        trained=TRAINED.model_copy(update={"parameters": {text: text}, "commit": text, "version": text}),
    )
    request = request_over(shown, id="hostile", requested_by=f"dana {text}", authors=(f"bob {text}",))
    office.env.approvals().add_request(request)
    shown_whole = text.isprintable()  # a name or a reason with other characters is refused
    browser = office.signed_in(f"max {text}" if shown_whole else "max@example.com")
    for page in (browser.get("/approvals"), browser.get("/approvals/hostile")):
        assert page.status_code == 200
        assert "\u202e" not in page.text, "it would turn what follows around"
        assert "{{" not in text or f"max {text}" in page.text, "no template is made of it"
        for raw in ("<script", "<img", "onerror=alert(1)>", 'javascript:alert(1)"'):
            assert raw not in page.text
    refused = decide(browser, "hostile", digest="0" * 64, reason=f"{text} and more")
    assert refused.status_code == 409
    assert "<script" not in refused.text
    assert "</textarea> and more" not in refused.text
    hidden_text = bool(hidden_characters(text))
    end = decide(browser, "hostile", "reject", reason=f"no {text}")
    assert (end.status_code == 403) == hidden_text, "a reason with hidden characters is refused"
    assert "<script" not in browser.get("/approvals/hostile").text
    assert len(office.decisions()) == (0 if hidden_text else 1)


def test_every_answer_forbids_scripts_frames_caches_and_what_is_elsewhere(office: Office) -> None:
    request = office.ask()
    browser = office.signed_in()
    answers = [
        browser.get("/approvals"), browser.get(f"/approvals/{request.id}"), office.client.get("/sign-in"),
        office.client.get("/approvals"), office.client.get("/api/approvals"), browser.get("/approvals/ghost"),
    ]  # fmt: skip
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for outside in ("http://", "https://", "//cdn", " style=", "<script", " onclick"):
            assert outside not in answer.text
    assert browser.get("/static/style.css").headers["content-type"].startswith("text/css")


ELSEWHERE = (
    "https://evil.example", "//evil.example", "/\\evil.example", "/approvals/../../x", "/approvals/x?y=//evil",
    "javascript:alert(1)", "/approvals\n//evil", "/approvals/x\r\nset-cookie: a=b", "/hooks/github", "/api/approvals",
)  # fmt: skip


@pytest.mark.parametrize("wanted", ELSEWHERE)
def test_nobody_is_sent_elsewhere_after_signing_in(office: Office, wanted: str) -> None:
    office.account()
    page = office.client.get("/sign-in", params={"next": wanted})
    assert hidden(page)["next"] == "/approvals"
    answer = sign_in(office.client, "max@example.com", next=wanted)
    assert (answer.status_code, answer.headers["location"]) == (303, "/approvals")
    assert office.client.get("/sign-in", params={"next": wanted}).headers["location"] == "/approvals"


def test_who_came_for_a_request_is_brought_to_it(office: Office) -> None:
    request = office.ask()
    office.account()
    page = office.client.get(f"/approvals/{request.id}")
    sent = {**hidden(page), "name": "max@example.com", "password": WORDS}
    assert office.client.post("/sign-in", data=sent).headers["location"] == f"/approvals/{request.id}"


def test_a_link_in_a_message_leads_on_with_the_cookie_that_browsers_keep_back(office: Office) -> None:
    """SameSite=Strict: the first request from another site lacks the cookie, the next one from our own page has it."""
    request = office.ask()
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    answer = office.client.get(f"/approvals/{request.id}", headers=link)
    assert answer.status_code == 401
    assert f'content="0; url=/approvals/{request.id}"' in answer.text
    again = office.client.get(f"/approvals/{request.id}", headers={"sec-fetch-site": "same-origin"})
    assert 'name="password"' in again.text


SIZES = {
    "a long body": ("POST", "/sign-in", b"name=" + b"x" * 40_000, 413),
    "a long body of a program": ("POST", "/api/sign-in", b'{"name": "' + b"x" * 40_000, 413),
    "many fields": ("POST", "/sign-in", b"&".join(b"f%d=1" % n for n in range(100)), 400),
    "a long query": ("GET", "/sign-in?next=" + "x" * 5_000, b"", 414),
    "deep JSON": ("POST", "/api/sign-in", b"[" * 20_000, 400),
    "a key twice": ("POST", "/api/sign-in", b'{"name": "a", "name": "b", "password": "c"}', 400),
    "no text": ("POST", "/api/sign-in", b'{"name": 7, "password": ["x"]}', 422),
    "no JSON": ("POST", "/api/sign-in", b"name=max", 400),
}


@pytest.mark.parametrize(("method", "path", "body", "status"), SIZES.values(), ids=SIZES)
def test_what_is_too_large_or_twisted_is_refused(
    office: Office, method: str, path: str, body: bytes, status: int
) -> None:
    kind = "application/json" if path.startswith("/api") else "application/x-www-form-urlencoded"
    answer = office.client.request(method, path, content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert "Traceback" not in answer.text


def test_an_api_call_that_is_no_json_is_refused(office: Office) -> None:
    request, bearer = office.ask(), office.token()
    where = f"/api/approvals/{request.id}/decision"
    assert office.client.post(where, data={"approve": "true"}, headers=bearer).status_code == 415
    for said in ({}, {"approve": "yes", "reason": "x", "digest": request.digest}, {"approve": True, "reason": "long"}):
        assert office.client.post(where, json=said, headers=bearer).status_code == 422
    assert office.decisions() == []


def test_who_decides_is_who_signed_in_whatever_the_body_says(office: Office) -> None:
    request, bearer = office.ask(), office.token()
    said = {"approve": True, "reason": "it is better", "digest": request.digest, "by": "ceo@example.com",
            "reviewer": "ceo@example.com", "authenticated": False, "roles": ["model-risk"]}  # fmt: skip
    assert office.client.post(f"/api/approvals/{request.id}/decision", json=said, headers=bearer).status_code == 200
    (made,) = office.decisions()
    assert (made.by, made.authenticated, made.roles) == ("max@example.com", True, ("approver",))
