"""Processes are killed while they write to the ledger: acknowledged rows are there, and no row is partial."""

import os
import signal
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.approvals.anchor import read_anchored_head
from blocks.approvals.rows import row_states
from blocks.database.ledger import SqlLedger
from blocks.records.approvals import ApprovalRequest, Decision
from blocks.records.deployments import Deployment
from ratchet.commands.audit import first_fault, read_ledger
from tests.fixtures.signing_keys import signing_in
from tests.processes import FORKSERVER, messages_until_killed

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
ROUNDS = 25


def write_until_killed(url: str, round_number: int, acknowledge: Callable[[str], None]) -> None:
    """Write requests, decisions and effects in a loop, and acknowledge the key of each."""
    ledger, number = SqlLedger(url=url), 0
    signing = signing_in(Path(url.removeprefix("sqlite:///")).parent)
    approvals, effects = ledger.approvals(signing.chain_trust()), ledger.effects(signing.chain_trust())
    signer = signing.signer("decisions")
    while True:
        key = f"{round_number}-{number}"
        effects.intend(key, "detail", NOW)
        approvals.add_request(ApprovalRequest(key, "m", "e", "1", key, "{}", "ada", NOW, NOW, "run"))
        approvals.record_decision(Decision(key, key, True, "grace", "", "terminal", NOW), signer)
        effects.record_deployment(Deployment(key, "m", "e", "1", key, "deploy", "serving", "ada", "", key, NOW))
        effects.finish(key, "outcome", NOW)
        acknowledge(key)
        number += 1


def acknowledged_before_the_kill(url: str, number: int) -> list[str]:
    """Kill a writer at a different moment in each round, but after it has done some of its work."""
    return messages_until_killed(write_until_killed, url, number, words=1 + number % 3, seconds=0.004 * (number % 13))


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    keys = [key for number in range(ROUNDS) for key in acknowledged_before_the_kill(url, number)]
    signing, ledger = signing_in(tmp_path), SqlLedger(url=url)
    approvals, effects = ledger.approvals(signing.chain_trust()), ledger.effects(signing.chain_trust())
    assert len(keys) > ROUNDS
    deployed = {each.id for each in effects.deployments("m", "e")}
    for key in keys:
        effect, decision = effects.effect(key), approvals.final_decision(key)
        assert effect is not None and (effect.state, effect.outcome) == ("done", "outcome")
        assert decision is not None and decision.approved
        assert key in deployed
    record = read_ledger(approvals)._replace(rows=row_states(ledger.database()))
    assert (
        first_fault(record, signing.chain_trust().keys, list(map(read_anchored_head, signing.chain_trust().heads)))
        is None
    )
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def intend_and_die(url: str) -> None:
    SqlLedger(url=url).effects().intend("switch:churn:7", "switch churn to 7", NOW)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow  # each process imports its modules again
def test_an_intent_survives_its_killed_writer_and_is_found_by_the_next(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    process = FORKSERVER.Process(target=intend_and_die, args=(url,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    found = SqlLedger(url=url).effects().intend("switch:churn:7", "the next attempt", NOW)
    assert (found.state, found.detail) == ("intent", "switch churn to 7")
    assert SqlLedger(url=url).effects().finish("switch:churn:7", "adopted", NOW).outcome == "adopted"


def make_and_wait(url: str, say: Callable[[str], None]) -> None:
    say("begun")
    SqlLedger(url=url).effects().intend("k", "d", NOW)
    signal.pause()


@pytest.mark.slow  # each process imports its modules again
def test_a_ledger_whose_maker_was_killed_is_made_whole_by_the_next(tmp_path: Path) -> None:
    for delay in (0.0, 0.01, 0.04, 0.1, 0.2, 0.3, 0.4):  # Alembic is loaded in between
        url = f"sqlite:///{tmp_path}/{delay}.db"
        messages_until_killed(make_and_wait, url, words=1, seconds=delay)
        assert SqlLedger(url=url).effects().intend("k", "again", NOW).state == "intent"
        assert SqlLedger(url=url).effects().deployments("m", "e") == ()
