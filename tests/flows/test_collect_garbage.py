"""Garbage collection as people run it: a dry run by default, and results of a waiting run are kept."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.states import Completed, Suspended

from blocks.common.collectable import ResultArtifacts
from blocks.records.collectable import Collectable
from local.stack import Stack
from tests.fixtures.support import outcome, run

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@task(persist_result=True, result_serializer="json")
def measure(what: str) -> str:
    """Return `what`, as a stored result."""
    return what


@flow(persist_result=True, result_serializer="json")
def short(what: str) -> Any:
    """Store the result of a task and the flow's own."""
    measure(what)
    return what


def held(kept: tuple[Collectable, ...], folder: Path, what: str) -> list[bool]:
    """Return for each result of that run whether it is kept."""
    return [bool(each.keep_reason) for each in kept if what in (folder / each.key.removeprefix("result:")).read_text()]


def test_results_of_a_run_that_waits_are_held_and_those_of_one_that_ended_are_not(stack: Stack, tmp_path: Path) -> None:
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path}), get_client(sync_client=True) as client:
        states: list[State[Any]] = [short(what, return_state=True) for what in ("ended", "waiting")]
        waiting = states[1].state_details.flow_run_id
        assert isinstance(waiting, UUID)
        client.set_flow_run_state(waiting, Suspended(), force=True)
        kept = ResultArtifacts(tmp_path).collectables([])
        assert held(kept, tmp_path, "ended") == [False, False]
        assert True in held(kept, tmp_path, "waiting")
        client.set_flow_run_state(waiting, Completed(), force=True)
        assert not any(held(ResultArtifacts(tmp_path).collectables([]), tmp_path, "waiting"))


def test_a_sweep_is_dry_unless_told_otherwise_and_spares_what_is_young(stack: Stack) -> None:
    dry = run("collect_garbage/collect-garbage")
    assert outcome(dry) == "planned" and "would remove 0 things" in str(dry.state.message if dry.state else "")
    assert outcome(run("collect_garbage/collect-garbage", dry_run=False, grace_days=1)) == "removed"
