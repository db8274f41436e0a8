"""Decisions on the approvals page: a person signs in, reads the evidence and decides; the decision is signed."""

from pathlib import Path

import pytest

from blocks.common.trust import ApprovalSettings
from blocks.records.people import Person
from tasks.approval.rules.evidence import evidence_digest
from tests.fixtures.approval_requests import JUDGED, evidence
from tests.fixtures.office import WORDS, Office, decide, hidden


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office.at(tmp_path)


def test_what_waits_is_listed_and_what_is_over_below(office: Office) -> None:
    first, second = office.ask(), office.ask(id="price-3")
    browser = office.signed_in()
    assert decide(browser, second.id, "reject").status_code == 303
    page = browser.get("/approvals").text
    waiting, over = page.split("<h2>Closed</h2>")
    assert first.id in waiting
    assert second.id not in waiting
    assert second.id in over
    assert "rejected" in over


def test_the_page_shows_what_is_decided_on(office: Office) -> None:
    request = office.ask(authors=("Nia Poe",))
    page = office.signed_in().get(f"/approvals/{request.id}").text
    for part in (
        request.digest, "auc is better by 0.02", "0.8500", "0.8300", "+0.0200 better", "dana@example.com", "Nia Poe",
        "12 passed, 0 failed", "none: no paid work", "00000001-aaaaaaaa", "trees",
    ):  # fmt: skip
        assert part in page, part


def test_a_decision_is_recorded_as_that_persons_proved_and_signed(office: Office) -> None:
    request = office.ask()
    browser = office.signed_in("Max@Example.com")
    answer = decide(browser, request.id, reason=" it is better ")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/approvals/{request.id}")
    (made,) = office.decisions()
    assert (made.by, made.approved, made.reason, made.digest) == (
        "Max@Example.com", True, "it is better", request.digest,
    )  # fmt: skip
    assert (made.authenticated, made.channel, made.roles) == (
        True, "approvals page, signed in by password", ("approver",),
    )  # fmt: skip
    assert office.woken == ["woken"]
    after = browser.get(f"/approvals/{request.id}").text
    assert "identity verified" in after
    assert 'name="verdict"' not in after


def test_a_program_decides_with_a_token(office: Office) -> None:
    request, bearer = office.ask(), office.token()
    (listed,) = office.client.get("/api/approvals", headers=bearer).json()["waiting"]
    assert (listed["id"], listed["state"], listed["verdict"]) == (request.id, "waiting", "pass")
    one = office.client.get(f"/api/approvals/{request.id}", headers=bearer).json()
    assert one["evidence"]["metrics"] == {"auc": 0.85}
    assert one["cannot_decide_reason"] == ""
    said = {"approve": True, "reason": "it is better", "digest": one["digest"]}
    answer = office.client.post(f"/api/approvals/{request.id}/decision", json=said, headers=bearer)
    assert (answer.status_code, answer.json()["authenticated"]) == (200, True)
    assert office.decisions()[0].channel == "approvals API, signed in by password"
    assert office.client.post(f"/api/approvals/{request.id}/decision", json=said, headers=bearer).status_code == 200
    assert len(office.decisions()) == 1, "the same word again is the same decision"


def test_two_people_approve_where_it_takes_two(office: Office) -> None:
    office.env.approval = ApprovalSettings(approvals=2, roles=("risk",), require_authentication=True)
    office.env.gateway = office.env.gateway.model_copy(update={"permissions_by_role": {"risk": "decide"}})
    request = office.ask(approvals=2, roles=("risk",))
    first, second = office.signed_in("max@example.com", "risk"), office.signed_in("ann@example.com", "risk")
    assert decide(first, request.id).status_code == 303
    page = first.get(f"/approvals/{request.id}").text
    assert "1 of 2" in page
    assert office.env.approvals().final_decision(request.id) is None
    assert decide(second, request.id).status_code == 303
    ended = office.env.approvals().final_decision(request.id)
    assert ended is not None
    assert ended.by == "ann@example.com"


def test_who_may_not_decide_is_told_why_and_sees_no_form(office: Office) -> None:
    request = office.ask(authors=("Nia Poe",))
    office.env.people = {"nia@example.com": Person(aliases=("Nia Poe",))}
    for name, words in (
        ("dana@example.com", "The requester may not decide"),
        ("nia@example.com", "An author of the code may not decide"),
    ):
        page = office.signed_in(name).get(f"/approvals/{request.id}").text
        assert words in page
        assert 'name="verdict"' not in page


def test_who_may_look_sees_all_and_decides_nothing(office: Office) -> None:
    request = office.ask()
    browser = office.signed_in("vera@example.com", "viewer")
    page = browser.get(f"/approvals/{request.id}")
    assert "let you view requests, but not decide" in page.text
    token = hidden(page, "/sign-out")["token"]
    sent = {"token": token, "digest": request.digest, "verdict": "approve", "reason": "I want it"}
    assert browser.post(f"/approvals/{request.id}", data=sent).status_code == 403
    assert office.decisions() == []


def test_what_was_shown_and_is_asked_no_more_is_refused_and_recorded(office: Office) -> None:
    """The evidence in the database changes between the page and the click."""
    request = office.ask()
    browser = office.signed_in()
    other = evidence(judged=JUDGED.model_copy(update={"metrics": {"auc": 0.99}}))
    answer = decide(browser, request.id, digest=evidence_digest(other))
    assert answer.status_code == 409
    assert "has changed since it was shown" in answer.text
    assert (len(office.refused()), office.decisions()) == (1, [])
    bearer = office.token("ann@example.com")
    said = {"approve": True, "reason": "it is better", "digest": "0" * 64}
    assert office.client.post(f"/api/approvals/{request.id}/decision", json=said, headers=bearer).status_code == 409
    assert len(office.refused()) == 2


@pytest.mark.parametrize("fields", [{"reason": "  "}, {"reason": "x" * 2001}, {"verdict": "maybe"}], ids=str)
def test_a_decision_needs_a_verdict_and_a_reason_of_a_size(office: Office, fields: dict[str, str]) -> None:
    request = office.ask()
    answer = decide(office.signed_in(), request.id, **fields)
    assert answer.status_code == 422
    assert office.decisions() == []


def test_the_reason_is_not_lost_when_a_decision_is_refused(office: Office) -> None:
    request = office.ask()
    answer = decide(office.signed_in(), request.id, digest="0" * 64, reason="much <better>")
    assert "much &lt;better&gt;</textarea>" in answer.text


def test_a_request_of_another_environment_is_not_there(office: Office) -> None:
    office.ask(id="elsewhere", environment="production")
    browser = office.signed_in()
    assert "elsewhere" not in browser.get("/approvals").text
    assert browser.get("/approvals/elsewhere").status_code == 404
    assert browser.get("/approvals/ghost").status_code == 404


def test_evidence_that_is_not_that_of_its_digest_is_not_shown(office: Office) -> None:
    request = office.ask(id="changed", digest="f" * 64)
    page = office.signed_in().get(f"/approvals/{request.id}").text
    assert "does not match its digest" in page
    assert "auc" not in page
    assert 'name="verdict"' not in page


def test_whoever_signs_in_anew_ends_the_session_of_before(office: Office) -> None:
    browser = office.signed_in()
    first = browser.cookies["ratchet-session"]
    assert browser.get("/sign-in").headers["location"] == "/approvals"
    form = office.another()
    page = form.get("/sign-in")
    form.cookies.set("ratchet-session", first, domain="gateway.test")
    office.account("ann@example.com")
    sent = {**hidden(page), "name": "ann@example.com", "password": WORDS}
    assert form.post("/sign-in", data=sent).status_code == 303
    assert browser.get("/approvals").status_code == 401
    assert form.get("/approvals").status_code == 200
