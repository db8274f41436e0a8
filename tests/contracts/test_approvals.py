"""The contract of approvals, over every adapter: one decision per request, one signed chain, no decision lost."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.approvals.base import Approvals
from blocks.approvals.chain import find_first_fault, record_from_entry, request_digest
from blocks.approvals.fake import FakeApprovals
from blocks.common.errors import Conflict, NotFound, Rejected, Unavailable
from blocks.database.ledger import Ledger, SqlLedger
from blocks.records.approvals import ErasureRecord, RefusedAttempt, Waiver
from runtime.keys import Signer
from tests.fixtures.decisions import DECISION, NOW, REQUEST
from tests.fixtures.ledgers import again, database, ledger, postgres
from tests.fixtures.signing_keys import SIGNER, TRUST, signing_in
from tests.processes import in_processes

__all__ = ["database", "ledger", "postgres"]  # fixtures


WAIVER = Waiver(
    "churn", "production", ("auc by plan",), "grace", "a new plan", "terminal", NOW, NOW + timedelta(days=9)
)
REFUSED = RefusedAttempt("churn-7", "decide", "ada", "terminal", "the requester may not decide", NOW)
ERASED = ErasureRecord(
    "churn",
    "production",
    "done",
    "dora",
    "request 17",
    "terminal",
    NOW,
    (("churn", 2, "3f", "a0"), ("log", 1, "", "b1")),
)


@pytest.fixture
def approvals(ledger: Ledger) -> Approvals:
    return ledger.approvals(TRUST)


def test_a_request_comes_back_as_it_was_asked(ledger: Ledger, approvals: Approvals) -> None:
    assert approvals.add_request(REQUEST) == REQUEST
    assert again(ledger).approvals(TRUST).get_request("churn-7") == REQUEST
    assert approvals.add_request(replace(REQUEST, evidence="{}", requested_by="eve")) == REQUEST


def test_a_request_cannot_be_exchanged_for_one_over_another_digest(approvals: Approvals) -> None:
    approvals.add_request(REQUEST)
    with pytest.raises(Conflict, match="churn-7.*another id"):
        approvals.add_request(replace(REQUEST, digest="e" * 64))
    assert approvals.get_request("churn-7").digest == REQUEST.digest


def test_an_unknown_request_is_told_with_the_open_ones(approvals: Approvals) -> None:
    with pytest.raises(NotFound, match="Open requests: none"):
        approvals.get_request("ghost")
    approvals.add_request(REQUEST)
    for call in (
        lambda: approvals.get_request("ghost"),
        lambda: approvals.record_decision(replace(DECISION, request_id="ghost"), SIGNER),
    ):
        with pytest.raises(NotFound, match=r"'ghost'.*churn-7 \(churn 7\)"):
            call()
    assert approvals.final_decision("ghost") is None


def test_open_requests_are_those_without_a_decision_oldest_first(approvals: Approvals) -> None:
    expired = replace(REQUEST, id="old", expires_at=NOW - timedelta(days=1))
    for each in (expired, REQUEST, replace(REQUEST, id="other", model="price")):
        approvals.add_request(each)
    assert [each.id for each in approvals.open_requests()] == ["old", "churn-7", "other"]
    assert [each.id for each in approvals.open_requests("churn")] == ["old", "churn-7"]
    approvals.record_decision(DECISION, SIGNER)
    assert [each.id for each in approvals.open_requests("churn")] == ["old"]


@pytest.mark.parametrize("approved", [True, False], ids=["approved", "rejected"])
def test_a_decision_is_recorded_once_and_its_repeat_returns_it(
    ledger: Ledger, approvals: Approvals, approved: bool
) -> None:
    approvals.add_request(REQUEST)
    given = replace(DECISION, approved=approved)
    assert approvals.record_decision(given, SIGNER) == given
    assert (
        approvals.record_decision(
            replace(given, at=NOW + timedelta(hours=2), reason="again", channel="prefect form"), SIGNER
        )
        == given
    )
    assert again(ledger).approvals(TRUST).final_decision("churn-7") == given


@pytest.mark.parametrize(
    "change",
    [{"approved": False}, {"by": "linus"}, {"digest": "e" * 64}],
    ids=["otherwise", "another person", "another digest"],
)
def test_a_second_decision_is_refused_and_says_who_decided_how(approvals: Approvals, change: dict[str, Any]) -> None:
    approvals.add_request(REQUEST)
    approvals.record_decision(DECISION, SIGNER)
    with pytest.raises(Conflict, match="approved by grace on 2026-11-21.*looks fine"):
        approvals.record_decision(replace(DECISION, **change), SIGNER)
    assert approvals.final_decision("churn-7") == DECISION


def test_a_request_that_takes_two_approvals_is_open_until_two_people_approved(approvals: Approvals) -> None:
    request = approvals.add_request(replace(REQUEST, approvals=2))
    over = request_digest(request)
    first = approvals.record_decision(DECISION, SIGNER)
    assert approvals.record_decision(replace(DECISION, by=" Grace "), SIGNER) == first, "one person approves once"
    assert approvals.final_decision("churn-7") is None
    assert approvals.open_requests() == (request,)
    second = approvals.record_decision(replace(DECISION, by="linus"), SIGNER)
    assert (approvals.final_decision("churn-7"), second.request_digest) == (second, over)
    assert approvals.open_requests() == ()
    with pytest.raises(Conflict, match="approved by linus"):
        approvals.record_decision(replace(DECISION, by="barbara", approved=False), SIGNER)


def test_the_first_rejection_ends_a_request_whatever_it_takes(approvals: Approvals) -> None:
    approvals.add_request(replace(REQUEST, approvals=3))
    approvals.record_decision(DECISION, SIGNER)
    no = approvals.record_decision(replace(DECISION, by="linus", approved=False), SIGNER)
    assert approvals.final_decision("churn-7") == no
    with pytest.raises(Conflict, match="rejected by linus"):
        approvals.record_decision(replace(DECISION, by="barbara"), SIGNER)


def test_decisions_waivers_and_refusals_are_one_signed_chain(ledger: Ledger, approvals: Approvals) -> None:
    approvals.add_request(REQUEST)
    approvals.record_refusal(REFUSED, None)
    waived = approvals.record_waiver(WAIVER, SIGNER)
    decided = approvals.record_decision(DECISION, SIGNER)
    approvals.record_refusal(REFUSED, SIGNER)
    approvals.record_erasure(ERASED, SIGNER)
    chain = again(ledger).approvals(TRUST).chain_entries()
    links = [link for link in chain if link.kind != "record"]
    assert [record_from_entry(link) for link in links] == [REFUSED, WAIVER, decided, REFUSED, ERASED]
    assert [link.number for link in chain] == [*range(1, len(chain) + 1)]
    assert links[1] == waived
    assert [bool(link.signature) for link in links] == [False, True, True, True, True]
    assert approvals.chain_entries("churn-7") == (links[0], links[2], links[3])
    assert find_first_fault(chain, TRUST.keys, requests={"churn-7": REQUEST}) is None


def test_links_that_many_threads_add_at_once_are_one_chain(approvals: Approvals) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: approvals.record_refusal(replace(REFUSED, by=f"person-{n}"), SIGNER), range(24)))
    assert len(approvals.chain_entries()) == 24
    assert find_first_fault(approvals.chain_entries(), TRUST.keys) is None


def test_of_sixteen_threads_deciding_at_once_one_is_recorded(approvals: Approvals) -> None:
    approvals.add_request(REQUEST)
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda n: attempt(approvals, f"person-{n}"), range(16)))
    recorded = approvals.final_decision("churn-7")
    assert recorded is not None
    assert sorted(outcomes) == sorted([recorded.by] + ["conflict"] * 15)
    assert len(approvals.chain_entries("churn-7")) == 1


def attempt(approvals: Approvals, person: str, signer: Signer = SIGNER) -> str:
    try:
        return approvals.record_decision(replace(DECISION, by=person, approved=person[-1] in "13579"), signer).by
    except Conflict:
        return "conflict"


@pytest.mark.slow  # each process imports its modules again
def test_of_four_processes_deciding_at_once_one_is_recorded(database: SqlLedger, tmp_path: Path) -> None:
    keys, url = signing_in(tmp_path), database.url  # keys in files: a key in memory goes into no other process
    approvals = database.approvals(keys.chain_trust())
    approvals.add_request(REQUEST)

    def decide(number: int) -> str:
        return attempt(SqlLedger(url=url).approvals(keys.chain_trust()), f"person-{number}", keys.signer("decisions"))

    outcomes = in_processes(4, decide)
    recorded = approvals.final_decision("churn-7")
    assert recorded is not None
    assert sorted(outcomes) == sorted([recorded.by] + ["conflict"] * 3)


def test_models_are_those_for_which_approval_was_requested(ledger: Ledger, approvals: Approvals) -> None:
    assert approvals.model_names("production") == ()
    for model, where in [("price", "production"), ("asked--max", "production"), ("other", "local")]:
        approvals.add_request(replace(REQUEST, id=f"{model}-1", model=model, environment=where))
    approvals.add_request(replace(REQUEST, id="price-2", model="price"))
    assert again(ledger).approvals(TRUST).model_names("production") == ("asked--max", "price")
    assert approvals.model_names("nowhere") == ()


def test_a_time_without_a_zone_is_refused(approvals: Approvals) -> None:
    with pytest.raises(Rejected, match="has no zone"):
        approvals.add_request(replace(REQUEST, expires_at=NOW.replace(tzinfo=None)))
    assert approvals.open_requests() == ()


def test_the_fake_fails_as_often_as_it_is_told() -> None:
    approvals = FakeApprovals(fail_writes=1)
    with pytest.raises(Unavailable):
        approvals.add_request(REQUEST)
    assert approvals.add_request(REQUEST) == REQUEST
