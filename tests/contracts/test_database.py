"""The ledger's database: opened by many processes at once, after a fork, and in an event loop; rows are only added."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from blocks.common.errors import Rejected
from blocks.database.ledger import SqlLedger
from blocks.inbox.base import InboxNote
from blocks.outbox.base import SendAttempt
from tests.fixtures.alert_records import MESSAGE, NOW, RAISED
from tests.fixtures.decisions import DECISION, REQUEST
from tests.fixtures.deliveries import PUSH, STARTED
from tests.fixtures.deployments import DEPLOYMENT
from tests.fixtures.ledgers import database, make_ledger, postgres
from tests.fixtures.signing_keys import SIGNER
from tests.processes import in_processes

__all__ = ["database", "postgres"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow  # each process imports its modules again
def test_eight_processes_may_open_a_new_ledger_at_once(database: SqlLedger) -> None:
    url = database.url
    outcomes = in_processes(8, lambda n: SqlLedger(url=url).effects().intend(f"k{n}", "d", NOW).state)
    assert outcomes == ["intent"] * 8
    assert all(database.effects().effect(f"k{n}") is not None for n in range(8))


FORKS = """
import os, sys
from datetime import UTC, datetime
from blocks.database.ledger import SqlLedger
effects, now = SqlLedger(url=sys.argv[1]).effects(), datetime.now(UTC)
effects.intend("before", "d", now)
child = os.fork()
effects.intend("parent" if child else "child", "d", now)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert effects.effect("child") and effects.effect("parent")
"""


@pytest.mark.slow
def test_a_ledger_opened_before_a_fork_serves_both_sides(database: SqlLedger) -> None:
    command = [sys.executable, "-c", FORKS, database.url.get_secret_value()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert database.effects().effect("child") is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ratchet_decision_chain SET body = '{}'",
        "DELETE FROM ratchet_decision_chain",
        "UPDATE ratchet_effects SET text = 'x'",
        "DELETE FROM ratchet_deployments",
        "UPDATE ratchet_requests SET digest = 'x'",
        "UPDATE ratchet_signals SET summary = 'x'",
        "DELETE FROM ratchet_messages",
        "DELETE FROM ratchet_attempts",
        "DELETE FROM ratchet_deliveries",
        "DELETE FROM ratchet_delivery_turns",
        "DELETE FROM ratchet_delivery_ends",
        "DELETE FROM ratchet_delivery_runs",
        "DELETE FROM ratchet_delivery_reports",
        "DELETE FROM ratchet_delivery_notes",
    ],
)
def test_the_database_itself_refuses_to_change_or_delete_rows(database: SqlLedger, statement: str) -> None:
    approvals, effects, inbox, outbox = database.approvals(), database.effects(), database.inbox(), database.outbox()
    approvals.add_request(REQUEST)
    approvals.record_decision(DECISION, SIGNER)
    effects.intend("k", "d", NOW)
    effects.record_deployment(DEPLOYMENT)
    inbox.receive(PUSH, outcome=STARTED)
    inbox.record_report("run-1", "success", "", NOW, final=True)
    inbox.add_note(InboxNote("a", "b", "c", NOW))
    outbox.record_signal(RAISED)
    outbox.add_message(MESSAGE)
    outbox.record_attempt(SendAttempt("m1", 1, True, "", NOW))
    with pytest.raises((DBAPIError, Rejected), match="only added to"):
        database.database().write(lambda connection: connection.execute(text(statement)))
    assert approvals.final_decision("churn-7") == DECISION
    assert effects.deployments("churn", "production") == (DEPLOYMENT,)


@pytest.mark.slow
def test_a_database_that_is_not_there_is_refused_for_good(postgres: tuple[str, Path]) -> None:
    with pytest.raises(Rejected, match="does not exist") as caught:
        SqlLedger(url=f"{postgres[0]}/ghost").effects().effect("k")
    assert "secret-in-url" not in str(caught.value)


@pytest.mark.slow
def test_the_same_code_works_while_an_event_loop_is_running(postgres: tuple[str, Path], request: Any) -> None:
    effects = make_ledger(request, Path("loop"), "postgresql").effects()

    async def in_a_flow() -> str:
        return effects.intend("k", "d", NOW).state

    assert asyncio.run(in_a_flow()) == "intent"
