"""The pause for an approval: a stack that stops while a run begins to wait does not end the run halfway."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import Pause

from flows import approval
from flows.approval import await_decision
from tasks.shared.records import PendingApproval
from tests.fakes.environment import World

ASKED = PendingApproval(
    request_id="r", digest="0" * 64, expires_at=datetime.now(UTC) + timedelta(days=1), request_markdown=""
)


@pytest.fixture
def asked_to_stop() -> Iterator[list[int]]:
    """Record each SIGTERM of the test's process instead of ending it; restore the handler afterwards."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval, "open_environment", lambda _: World.at(tmp_path))


def stopped_and_then(raises: BaseException) -> Any:
    """Return a replacement of Prefect's pause that gets SIGTERM once the server knows of the pause, then raises."""

    def suspend(**_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise raises

    return suspend


def test_a_run_that_waits_is_not_ended_from_the_moment_the_server_knows(
    asked_to_stop: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "suspend_flow_run", stopped_and_then(Pause()))
    with pytest.raises(Pause):
        await_decision(ASKED, "local")
    signal.raise_signal(signal.SIGTERM)
    assert asked_to_stop == []


def test_a_run_that_does_not_wait_in_the_end_can_be_stopped_again(
    asked_to_stop: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "suspend_flow_run", stopped_and_then(ConnectionError("Prefect is away")))
    with pytest.raises(ConnectionError):
        await_decision(ASKED, "local")
    signal.raise_signal(signal.SIGTERM)
    assert asked_to_stop == [signal.SIGTERM]
