"""Resuming: a waiting run is resumed once its request is decided, even if Prefect or the gateway was down meanwhile."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import pytest

from blocks.approvals.base import Approvals
from blocks.common.errors import Unavailable
from blocks.records.approvals import Decision
from services.decisions import MAX_DECISION_AGE, RunResumer
from tests.fakes.environment import NOW, World
from tests.fixtures.approval_requests import evidence, request_over, say
from tests.waiting import wait_for


@dataclass
class Runs:
    """Runs of a Prefect server that is down for this many calls; each run must be resumed this many times."""

    unavailable_calls: int = 0
    tries: int = 1
    woken: list[str] = field(default_factory=list)

    def resume(self, run_id: str, decision: Decision) -> bool:
        if self.unavailable_calls:
            self.unavailable_calls -= 1
            raise Unavailable("away")
        self.woken.append(run_id)
        return self.woken.count(run_id) >= self.tries


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def approvals(env: World) -> Approvals:
    approvals = env.approvals()
    approvals.add_request(request_over(evidence(), flow_run_id="run-1"))
    approvals.add_request(request_over(evidence(), id="two", flow_run_id="run-2", approvals=2))
    return approvals


def test_a_run_is_woken_until_it_is_awake_and_then_left_alone(env: World, approvals: Approvals) -> None:
    runs = Runs(tries=2)
    waker = RunResumer(lambda: approvals, runs.resume)
    assert waker.step(NOW) == 0
    assert runs.woken == [], "nothing is decided yet"
    say(env, approvals.get_request("price-2"))
    assert [waker.step(NOW) for _ in range(4)] == [1, 0, 0, 0]
    assert runs.woken == ["run-1", "run-1"]


def test_a_run_that_takes_two_approvals_sleeps_on_after_the_first(env: World, approvals: Approvals) -> None:
    runs, two = Runs(), approvals.get_request("two")
    waker = RunResumer(lambda: approvals, runs.resume)
    say(env, two)
    waker.step(NOW)
    assert runs.woken == []
    say(env, two, by="ann@example.com")
    waker.step(NOW)
    assert runs.woken == ["run-2"]


def test_what_was_decided_while_prefect_or_the_gateway_was_away_is_woken_later(
    env: World, approvals: Approvals
) -> None:
    say(env, approvals.get_request("price-2"))
    runs = Runs(unavailable_calls=1)
    waker = RunResumer(lambda: approvals, runs.resume)
    with pytest.raises(Unavailable):
        waker.step(NOW)
    assert waker.step(NOW) == 0
    assert RunResumer(lambda: approvals, runs.resume).step(NOW) == 0, "a gateway that starts anew looks, too"
    assert runs.woken == ["run-1", "run-1"]
    assert RunResumer(lambda: approvals, runs.resume).step(NOW + MAX_DECISION_AGE + timedelta(days=1)) == 0
    assert len(runs.woken) == 2


def test_a_run_that_cannot_be_woken_keeps_no_other_asleep(env: World, approvals: Approvals) -> None:
    for name in ("price-2", "two"):
        say(env, approvals.get_request(name))
    say(env, approvals.get_request("two"), by="ann@example.com")
    runs = Runs(unavailable_calls=1)
    waker = RunResumer(lambda: approvals, runs.resume)
    with pytest.raises(Unavailable):
        waker.step(NOW)
    assert runs.woken == ["run-2"]
    assert waker.step(NOW) == 0
    assert runs.woken == ["run-2", "run-1"]


def test_a_decision_cuts_the_wait_short(env: World, approvals: Approvals) -> None:
    runs, stop, woken = Runs(), Event(), Event()
    thread = Thread(target=RunResumer(lambda: approvals, runs.resume, lambda: NOW).run, args=(stop, woken))
    thread.start()
    try:
        say(env, approvals.get_request("price-2"))
        woken.set()
        wait_for(lambda: runs.woken == ["run-1"], what="the waking")
    finally:
        stop.set()
        woken.set()
        thread.join(60)
    assert not thread.is_alive()
