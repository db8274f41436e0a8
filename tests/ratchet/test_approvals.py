"""The commands of approvals: list pending requests, select one, and record a decision before the run is resumed."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.approvals.base import Approvals
from blocks.common.errors import Conflict
from blocks.records.approvals import ApprovalRequest
from local.stack import STACK_STOPPED
from ratchet.commands.approvals import requests_text, select_request
from services.decisions import record_decision
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, World
from tests.fixtures.command_line import ratchet


def request(name: str = "churn-2", left: timedelta = timedelta(days=2, hours=3, minutes=30)) -> ApprovalRequest:
    """Return a pending approval request; no flow run waits for it."""
    return ApprovalRequest(
        id=name, model="churn", environment="local", version="2", digest="0123456789abcdef" * 4, evidence="{}",
        requested_by="dana@example.com", requested_at=NOW - timedelta(days=1), expires_at=NOW + left, flow_run_id="",
    )  # fmt: skip


ONE, OTHER = request(), request("price-1")


def test_the_only_request_need_not_be_named() -> None:
    assert select_request([ONE], "") == ONE


@pytest.mark.parametrize("wanted", [ONE, OTHER], ids=["first", "second"])
def test_a_named_request_is_chosen_among_several(wanted: ApprovalRequest) -> None:
    assert select_request([ONE, OTHER], wanted.id) == wanted


CHOICES = {
    "none waits": ([], "", r"no request is open.*Open requests: none\."),
    "none waits, one is named": ([], "churn-2", r"there is no such open request.*'churn-2'.*none"),
    "several wait, none is named": ([ONE, OTHER], "", r"say which request.*churn-2, price-1"),
    "another is named": ([ONE, OTHER], "churn-9", r"there is no such open request.*'churn-9'.*churn-2, price-1"),
    "a part of a name": ([ONE], "churn", r"there is no such open request.*'churn'.*churn-2"),
}


@pytest.mark.parametrize(("waiting", "wanted", "problem"), CHOICES.values(), ids=CHOICES)
def test_what_cannot_be_chosen_is_refused_with_what_there_is(
    waiting: list[ApprovalRequest], wanted: str, problem: str
) -> None:
    with pytest.raises(Refusal, match=problem):
        select_request(waiting, wanted)


def test_an_empty_list_says_that_nothing_waits() -> None:
    assert requests_text([], NOW) == "no approval request is open"


def test_the_list_has_a_line_each_with_requester_time_left_and_digest() -> None:
    first, second = requests_text([ONE, OTHER], NOW).splitlines()
    for part in ("churn-2", "by dana@example.com (not authenticated)", "2 d 3 h left", "digest 0123456789ab…"):
        assert part in first
    assert second.startswith("price-1")
    proved = requests_text([replace(ONE, requester_authenticated=True)], NOW)
    assert "not authenticated" not in proved


@pytest.mark.parametrize(
    ("left", "shown"),
    [(timedelta(0), "EXPIRED"), (timedelta(days=-3), "EXPIRED"), (timedelta(minutes=59), "0 d 0 h left"),
     (timedelta(days=7), "7 d 0 h left")],
    ids=["just now", "days ago", "within the hour", "a week"],
)  # fmt: skip
def test_the_list_shows_what_has_expired_and_how_long_the_others_have(left: timedelta, shown: str) -> None:
    assert shown in requests_text([request(left=left)], NOW)


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def approvals(env: World) -> Approvals:
    approvals = env.approvals()
    approvals.add_request(ONE)
    approvals.add_request(request("churn-1", left=timedelta(minutes=-1)))
    return approvals


def test_expired_requests_are_listed_so_that_people_see_them(env: World, approvals: Approvals) -> None:
    lines = requests_text(approvals.open_requests(), NOW).splitlines()
    assert ["EXPIRED" in line for line in lines] == [False, True]


@pytest.mark.parametrize("approved", [True, False], ids=["yes", "no"])
def test_a_decision_is_recorded_even_when_its_run_cannot_be_woken(
    env: World, approvals: Approvals, capsys: pytest.CaptureFixture[str], approved: bool
) -> None:
    made = record_decision(
        env, ONE, approved=approved, by="max@example.com", reason="the evidence convinces me", now=NOW
    )
    assert approvals.final_decision(ONE.id) == made
    assert (made.approved, made.by, made.channel) == (approved, "max@example.com", "terminal")
    assert "decision is recorded" in capsys.readouterr().out
    assert ONE not in approvals.open_requests()


REFUSED = {
    "the requester": (ONE, "dana@example.com", "it is mine", "the requester may not decide"),
    "nobody": (ONE, "", "it is better", "needs a name"),
    "no reason": (ONE, "max@example.com", "", "needs a reason"),
    "too late": (request("churn-1"), "max@example.com", "it is better", "has expired"),
}


@pytest.mark.parametrize(("asked", "by", "reason", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_decision_that_does_not_count_is_not_recorded_and_wakes_nobody(
    env: World,
    approvals: Approvals,
    capsys: pytest.CaptureFixture[str],
    asked: ApprovalRequest,
    by: str,
    reason: str,
    problem: str,
) -> None:
    with pytest.raises(Refusal, match=problem):
        record_decision(env, asked, approved=True, by=by, reason=reason, now=NOW)
    assert approvals.final_decision(asked.id) is None
    assert capsys.readouterr().out == ""


def test_what_is_decided_is_what_the_ledger_holds_and_not_what_was_handed_in(env: World, approvals: Approvals) -> None:
    forged = replace(ONE, digest="f" * 64, requested_by="nobody@example.com")
    with pytest.raises(Refusal, match="the requester may not decide"):
        record_decision(env, forged, approved=True, by="dana@example.com", reason="it is mine", now=NOW)
    assert (
        record_decision(env, forged, approved=True, by="max@example.com", reason="it is better", now=NOW).digest
        == ONE.digest
    )


def test_a_second_opinion_does_not_change_the_first(env: World, approvals: Approvals) -> None:
    record_decision(env, ONE, approved=False, by="max@example.com", reason="not now", now=NOW)
    with pytest.raises(Conflict, match=r"rejected by max@example\.com.*not now"):
        record_decision(env, ONE, approved=True, by="ann@example.com", reason="it is better", now=NOW)


@pytest.mark.parametrize("command", ["list", "show", "approve", "reject"])
def test_without_a_stack_every_command_says_how_to_start_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_STATE", str(tmp_path))
    signed = ["--by", "max@example.com", "--reason", "it is better"] if command in ("approve", "reject") else []
    refused = ratchet("approvals", command, *signed)
    assert (refused.exit_code, refused.stderr) == (1, f"error: {STACK_STOPPED}\n")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("approvals", "approve", "--reason", "it is better"), "--by"),
        (("approvals", "reject", "--by", "max@example.com"), "--reason"),
        (("approvals", "waive", "--model", "churn", "--until", "2027-01-01T00:00:00Z"), "--gate"),
        (("alerts", "ack", "drift"), "--by"),
    ],
    ids=" ".join,
)
def test_a_missing_option_is_named_before_the_stack_is_looked_for(
    words: tuple[str, ...], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_STATE", str(tmp_path))
    refused = ratchet(*words)
    assert refused.exit_code == 2 and f"Missing option '{option}'" in refused.stderr


def test_the_end_of_a_waiver_is_checked_before_the_stack_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_STATE", str(tmp_path))
    signed = ["--by", "max@example.com", "--reason", "it is better"]
    refused = ratchet("approvals", "waive", "--model", "churn", "--gate", "auc", "--until", "soon", *signed)
    assert refused.exit_code == 1 and "--until: a waiver needs an end (value: 'soon')" in refused.stderr


def test_an_unknown_command_is_refused_with_those_there_are() -> None:
    told = ratchet("approvals", "aprove").stderr
    assert all(word in told for word in ("list", "show", "approve", "reject"))
