"""Every ledger keeps the same promises: each key once, one decision a request, nothing lost or changed."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from blocks.common.errors import Conflict, NotFound, Rejected, Unavailable
from blocks.ledger.base import ApprovalRequest, Decision, Deployment, Ledger, Refused, Waiver
from blocks.ledger.chain import first_fault, record_of, request_digest
from blocks.ledger.fake import FakeLedger
from blocks.ledger.sql import SqlLedger
from runtime.keys import Keyring
from tests.checkout import ROOT
from tests.contracts.ledgers import make_ledger, postgres
from tests.processes import APART
from tests.signing_keys import SIGNER

__all__ = ["postgres"]  # a fixture

NOW = datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)

REQUEST = ApprovalRequest(
    id="churn-7", model="churn", environment="production", version="7", digest="d" * 64,
    evidence='{"auc":0.84,"note":"“ünïcode” 100 %"}', requested_by="ada", requested_at=NOW,
    expires_at=NOW + timedelta(days=7), flow_run_id="run-1", approvers=("grace", "linus"), four_eyes=True,
)  # fmt: skip
DECISION = Decision(
    "churn-7", "d" * 64, True, "grace", "looks fine", "terminal", NOW, request_digest=request_digest(REQUEST)
)
WAIVER = Waiver(
    "churn", "production", ("auc by plan",), "grace", "a new plan", "terminal", NOW, NOW + timedelta(days=9)
)
REFUSED = Refused("churn-7", "decide", "ada", "terminal", "who asked may not decide", NOW)
DEPLOYMENT = Deployment(
    "dep-1", "churn", "production", "7", "d" * 64, "deploy", "serving", "ada", "approved", "churn-7", NOW
)


@pytest.fixture(
    params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)],
)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return make_ledger(request, tmp_path, request.param)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SqlLedger:
    return make_ledger(request, tmp_path, request.param)


def again(ledger: Ledger) -> Ledger:
    """Return the ledger as another process would open it."""
    return SqlLedger(url=ledger.url) if isinstance(ledger, SqlLedger) else ledger


def test_an_effect_is_intended_then_done_and_found_by_another_process(ledger: Ledger) -> None:
    assert ledger.effect("train:abc") is None
    intent = ledger.intend("train:abc", "submit job abc", NOW)
    assert (intent.state, intent.detail, intent.outcome, intent.at) == ("intent", "submit job abc", "", NOW)
    done = ledger.finish("train:abc", "job abc completed", NOW + timedelta(minutes=3))
    assert (done.state, done.detail, done.outcome) == ("done", "submit job abc", "job abc completed")
    assert done.at == NOW + timedelta(minutes=3)
    assert again(ledger).effect("train:abc") == done


def test_a_repeated_intent_returns_what_is_there_with_its_state(ledger: Ledger) -> None:
    first = ledger.intend("k", "first", NOW)
    assert ledger.intend("k", "second", NOW + timedelta(hours=1)) == first
    done = ledger.finish("k", "ok", NOW)
    assert ledger.intend("k", "third", NOW) == done


def test_the_first_outcome_of_an_effect_stays(ledger: Ledger) -> None:
    ledger.intend("k", "d", NOW)
    first = ledger.finish("k", "ok", NOW)
    assert ledger.finish("k", "failed", NOW + timedelta(hours=1)) == first


def test_what_was_never_intended_cannot_be_finished(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="nothing was intended under the key 'ghost'"):
        ledger.finish("ghost", "ok", NOW)


def test_a_request_comes_back_as_it_was_asked(ledger: Ledger) -> None:
    assert ledger.request_approval(REQUEST) == REQUEST
    assert again(ledger).approval_request("churn-7") == REQUEST
    assert ledger.request_approval(replace(REQUEST, evidence="{}", requested_by="eve")) == REQUEST


def test_a_request_cannot_be_exchanged_for_one_over_another_digest(ledger: Ledger) -> None:
    ledger.request_approval(REQUEST)
    with pytest.raises(Conflict, match="churn-7.*another id"):
        ledger.request_approval(replace(REQUEST, digest="e" * 64))
    assert ledger.approval_request("churn-7").digest == REQUEST.digest


def test_an_unknown_request_is_told_with_the_open_ones(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="Open requests: none"):
        ledger.approval_request("ghost")
    ledger.request_approval(REQUEST)
    for call in (
        lambda: ledger.approval_request("ghost"),
        lambda: ledger.decide(replace(DECISION, request_id="ghost"), SIGNER),
    ):
        with pytest.raises(NotFound, match=r"'ghost'.*churn-7 \(churn 7\)"):
            call()
    assert ledger.decision("ghost") is None


def test_open_requests_are_those_without_a_decision_oldest_first(ledger: Ledger) -> None:
    expired = replace(REQUEST, id="old", expires_at=NOW - timedelta(days=1))
    for each in (expired, REQUEST, replace(REQUEST, id="other", model="price")):
        ledger.request_approval(each)
    assert [each.id for each in ledger.open_requests()] == ["old", "churn-7", "other"]
    assert [each.id for each in ledger.open_requests("churn")] == ["old", "churn-7"]
    ledger.decide(DECISION, SIGNER)
    assert [each.id for each in ledger.open_requests("churn")] == ["old"]


@pytest.mark.parametrize("approved", [True, False], ids=["approved", "rejected"])
def test_a_decision_is_recorded_once_and_its_repeat_returns_it(ledger: Ledger, approved: bool) -> None:
    ledger.request_approval(REQUEST)
    given = replace(DECISION, approved=approved)
    assert ledger.decide(given, SIGNER) == given
    assert (
        ledger.decide(replace(given, at=NOW + timedelta(hours=2), reason="again", channel="prefect form"), SIGNER)
        == given
    )
    assert again(ledger).decision("churn-7") == given


@pytest.mark.parametrize(
    "change",
    [{"approved": False}, {"by": "linus"}, {"digest": "e" * 64}],
    ids=["otherwise", "another person", "another digest"],
)
def test_a_second_decision_is_refused_and_says_who_decided_how(ledger: Ledger, change: dict[str, Any]) -> None:
    ledger.request_approval(REQUEST)
    ledger.decide(DECISION, SIGNER)
    with pytest.raises(Conflict, match="approved by grace on 2026-11-21.*looks fine"):
        ledger.decide(replace(DECISION, **change), SIGNER)
    assert ledger.decision("churn-7") == DECISION


def test_a_request_that_takes_two_approvals_is_open_until_two_people_approved(ledger: Ledger) -> None:
    request = ledger.request_approval(replace(REQUEST, approvals=2))
    over = request_digest(request)
    first = ledger.decide(DECISION, SIGNER)
    assert ledger.decide(replace(DECISION, by=" Grace "), SIGNER) == first, "one person approves once"
    assert ledger.decision("churn-7") is None
    assert ledger.open_requests() == (request,)
    second = ledger.decide(replace(DECISION, by="linus"), SIGNER)
    assert (ledger.decision("churn-7"), second.request_digest) == (second, over)
    assert ledger.open_requests() == ()
    with pytest.raises(Conflict, match="approved by linus"):
        ledger.decide(replace(DECISION, by="barbara", approved=False), SIGNER)


def test_the_first_rejection_ends_a_request_whatever_it_takes(ledger: Ledger) -> None:
    ledger.request_approval(replace(REQUEST, approvals=3))
    ledger.decide(DECISION, SIGNER)
    no = ledger.decide(replace(DECISION, by="linus", approved=False), SIGNER)
    assert ledger.decision("churn-7") == no
    with pytest.raises(Conflict, match="rejected by linus"):
        ledger.decide(replace(DECISION, by="barbara"), SIGNER)


def test_decisions_waivers_and_refusals_are_one_signed_chain(ledger: Ledger) -> None:
    ledger.request_approval(REQUEST)
    ledger.refuse(REFUSED, None)
    waived = ledger.waive(WAIVER, SIGNER)
    decided = ledger.decide(DECISION, SIGNER)
    ledger.refuse(REFUSED, SIGNER)
    links = again(ledger).links()
    assert [record_of(link) for link in links] == [REFUSED, WAIVER, decided, REFUSED]
    assert [link.number for link in links] == [1, 2, 3, 4]
    assert links[1] == waived
    assert [bool(link.signature) for link in links] == [False, True, True, True]
    assert ledger.links("churn-7") == (links[0], links[2], links[3])
    assert first_fault(links, Keyring([SIGNER.public]), requests={"churn-7": REQUEST}) is None


def test_links_that_many_threads_add_at_once_are_one_chain(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.refuse(replace(REFUSED, by=f"person-{n}"), SIGNER), range(24)))
    assert len(ledger.links()) == 24
    assert first_fault(ledger.links(), Keyring([SIGNER.public])) is None


def test_deployments_are_kept_by_model_and_environment_newest_first(ledger: Ledger) -> None:
    earlier_clock = replace(DEPLOYMENT, id="dep-2", version="6", action="rollback", at=NOW - timedelta(hours=1))
    for each in (DEPLOYMENT, earlier_clock, replace(DEPLOYMENT, id="x", environment="local")):
        assert ledger.record_deployment(each) == each
    assert again(ledger).deployments("churn", "production") == (earlier_clock, DEPLOYMENT)
    assert ledger.deployments("price", "production") == ()


def test_models_are_those_for_which_something_was_asked_or_deployed(ledger: Ledger) -> None:
    assert ledger.models("production") == ()
    for model, where in [("price", "production"), ("churn--dana", "production"), ("other", "local")]:
        ledger.record_deployment(replace(DEPLOYMENT, id=f"{model}-1", model=model, environment=where))
    asked = ledger.request_approval(replace(REQUEST, id="asked-1", model="asked--max", environment="production"))
    assert again(ledger).models("production") == ("asked--max", "churn--dana", "price")
    assert asked.model == "asked--max" and ledger.models("nowhere") == ()


def test_a_deployment_is_recorded_once(ledger: Ledger) -> None:
    ledger.record_deployment(DEPLOYMENT)
    assert ledger.record_deployment(replace(DEPLOYMENT, status="failed")) == DEPLOYMENT
    assert len(ledger.deployments("churn", "production")) == 1


def test_times_come_back_in_utc_whatever_zone_they_were_given_in(ledger: Ledger) -> None:
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    assert ledger.intend("k", "d", tokyo).at.utcoffset() == timedelta(0)
    assert ledger.intend("k", "d", tokyo).at == NOW


def test_a_time_without_a_zone_is_refused(ledger: Ledger) -> None:
    naive = NOW.replace(tzinfo=None)
    for call in (
        lambda: ledger.intend("k", "d", naive),
        lambda: ledger.request_approval(replace(REQUEST, expires_at=naive)),
        lambda: ledger.record_deployment(replace(DEPLOYMENT, at=naive)),
    ):
        with pytest.raises(Rejected, match="has no zone"):
            call()
    assert ledger.effect("k") is None


def test_of_sixteen_threads_deciding_at_once_one_is_recorded(ledger: Ledger) -> None:
    ledger.request_approval(REQUEST)
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda n: attempt(ledger, f"person-{n}"), range(16)))
    recorded = ledger.decision("churn-7")
    assert recorded is not None
    assert sorted(outcomes) == sorted([recorded.by] + ["conflict"] * 15)
    assert len(ledger.links()) == 1


def attempt(ledger: Ledger, person: str) -> str:
    try:
        return ledger.decide(replace(DECISION, by=person, approved=person[-1] in "13579"), SIGNER).by
    except Conflict:
        return "conflict"


def in_processes(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in as many processes, released at once, and return what each returned or raised.

    The processes come from a fork server: this one has threads by now, and a fork could inherit a held lock.
    """
    start, results = APART.Barrier(count), APART.Queue()
    parts = [cloudpickle.dumps((work, number)) for number in range(count)]
    processes = [APART.Process(target=run_part, args=(part, start, results)) for part in parts]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    return found


def run_part(part: bytes, start: Any, results: Any) -> None:
    """Run one part in its own process, when all are there."""
    work, number = cloudpickle.loads(part)
    start.wait(100)
    try:
        results.put(work(number))
    except Exception as error:
        results.put(repr(error))


@pytest.mark.slow  # each process imports its world anew
def test_of_four_processes_deciding_at_once_one_is_recorded(database: SqlLedger) -> None:
    database.request_approval(REQUEST)
    url = database.url
    outcomes = in_processes(4, lambda n: attempt(SqlLedger(url=url), f"person-{n}"))
    recorded = database.decision("churn-7")
    assert recorded is not None
    assert sorted(outcomes) == sorted([recorded.by] + ["conflict"] * 3)


@pytest.mark.slow  # each process imports its world anew
def test_eight_processes_may_open_a_new_ledger_at_once(database: SqlLedger) -> None:
    url = database.url
    outcomes = in_processes(8, lambda n: SqlLedger(url=url).intend(f"k{n}", "d", NOW).state)
    assert outcomes == ["intent"] * 8
    assert all(database.effect(f"k{n}") is not None for n in range(8))


FORKS = """
import os, sys
from datetime import UTC, datetime
from blocks.ledger.sql import SqlLedger
from runtime.keys import Keyring
ledger, now = SqlLedger(url=sys.argv[1]), datetime.now(UTC)
ledger.intend("before", "d", now)
child = os.fork()
ledger.intend("parent" if child else "child", "d", now)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert ledger.effect("child") and ledger.effect("parent")
"""


@pytest.mark.slow
def test_a_ledger_opened_before_a_fork_serves_both_sides(database: SqlLedger) -> None:
    command = [sys.executable, "-c", FORKS, database.url.get_secret_value()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert database.effect("child") is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ratchet_decision_chain SET body = '{}'",
        "DELETE FROM ratchet_decision_chain",
        "UPDATE ratchet_effects SET text = 'x'",
        "DELETE FROM ratchet_deployments",
        "UPDATE ratchet_requests SET digest = 'x'",
    ],
)
def test_the_database_itself_refuses_to_change_or_delete_rows(database: SqlLedger, statement: str) -> None:
    database.request_approval(REQUEST)
    database.decide(DECISION, SIGNER)
    database.intend("k", "d", NOW)
    database.record_deployment(DEPLOYMENT)
    with pytest.raises((DBAPIError, Rejected), match="only added to"):
        database._database().write(lambda connection: connection.execute(text(statement)))
    assert database.decision("churn-7") == DECISION
    assert database.deployments("churn", "production") == (DEPLOYMENT,)


@pytest.mark.slow
def test_a_database_that_is_not_there_is_refused_for_good(postgres: tuple[str, Path]) -> None:
    with pytest.raises(Rejected, match="does not exist") as caught:
        SqlLedger(url=f"{postgres[0]}/ghost").effect("k")
    assert "secret-in-url" not in str(caught.value)


@pytest.mark.slow
def test_the_same_code_works_while_an_event_loop_is_running(postgres: tuple[str, Path], request: Any) -> None:
    ledger = make_ledger(request, Path("loop"), "postgresql")

    async def in_a_flow() -> str:
        return ledger.intend("k", "d", NOW).state

    assert asyncio.run(in_a_flow()) == "intent"


def test_the_fake_fails_as_often_as_it_is_told() -> None:
    ledger = FakeLedger(fail_writes=1)
    with pytest.raises(Unavailable):
        ledger.intend("k", "d", NOW)
    assert ledger.intend("k", "d", NOW).state == "intent"
