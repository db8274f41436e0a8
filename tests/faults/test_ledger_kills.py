"""Processes are killed while they write to the ledger: what was acknowledged is there, and nothing is torn."""

import os
import signal
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.ledger.anchor import read_head
from blocks.ledger.base import ApprovalRequest, Decision, Deployment
from blocks.ledger.chain import first_fault
from blocks.ledger.sql import SqlLedger
from tests.processes import APART, said_until_killed
from tests.signing_keys import signing_in

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
ROUNDS = 25


def write_until_killed(url: str, round_number: int, acknowledge: Callable[[str], None]) -> None:
    """Write work after work, and acknowledge the key of each."""
    ledger, number = SqlLedger(url=url), 0
    signer = signing_in(Path(url.removeprefix("sqlite:///")).parent).signer("decisions")
    while True:
        key = f"{round_number}-{number}"
        ledger.intend(key, "detail", NOW)
        ledger.request_approval(ApprovalRequest(key, "m", "e", "1", key, "{}", "ada", NOW, NOW, "run"))
        ledger.decide(Decision(key, key, True, "grace", "", "terminal", NOW), signer)
        ledger.record_deployment(Deployment(key, "m", "e", "1", key, "deploy", "serving", "ada", "", key, NOW))
        ledger.finish(key, "outcome", NOW)
        acknowledge(key)
        number += 1


def acknowledged_before_the_kill(url: str, number: int) -> list[str]:
    """Kill a writer at another moment of its work in each round, but after some of it is done."""
    return said_until_killed(write_until_killed, url, number, words=1 + number % 3, seconds=0.004 * (number % 13))


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    keys = [key for number in range(ROUNDS) for key in acknowledged_before_the_kill(url, number)]
    ledger = SqlLedger(url=url)
    assert len(keys) > ROUNDS
    deployed = {each.id for each in ledger.deployments("m", "e")}
    for key in keys:
        effect, decision = ledger.effect(key), ledger.decision(key)
        assert effect is not None and (effect.state, effect.outcome) == ("done", "outcome")
        assert decision is not None and decision.approved
        assert key in deployed
    signing = signing_in(tmp_path)
    assert first_fault(ledger.links(), signing.keys("decisions"), head=read_head(Path(signing.decisions_head))) is None
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def intend_and_die(url: str) -> None:
    SqlLedger(url=url).intend("switch:churn:7", "switch churn to 7", NOW)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow  # each process imports its world anew
def test_an_intent_survives_its_killed_writer_and_is_found_by_the_next(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    process = APART.Process(target=intend_and_die, args=(url,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    found = SqlLedger(url=url).intend("switch:churn:7", "the next attempt", NOW)
    assert (found.state, found.detail) == ("intent", "switch churn to 7")
    assert SqlLedger(url=url).finish("switch:churn:7", "adopted", NOW).outcome == "adopted"


def make_and_wait(url: str, say: Callable[[str], None]) -> None:
    say("begun")
    SqlLedger(url=url).intend("k", "d", NOW)
    signal.pause()


@pytest.mark.slow  # each process imports its world anew
def test_a_ledger_whose_maker_was_killed_is_made_whole_by_the_next(tmp_path: Path) -> None:
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04):
        url = f"sqlite:///{tmp_path}/{delay}.db"
        said_until_killed(make_and_wait, url, words=1, seconds=delay)
        assert SqlLedger(url=url).intend("k", "again", NOW).state == "intent"
        assert SqlLedger(url=url).deployments("m", "e") == ()
