"""Retries: only the type of the error decides whether a task is retried."""

import asyncio
from importlib import import_module

import pytest
from prefect.states import Crashed, Failed, exception_to_failed_state

from blocks.common.errors import (
    ConcurrentWrite,
    Conflict,
    Corrupt,
    JobFailed,
    NotFound,
    Rejected,
    TransientError,
    Unavailable,
)
from tasks.shared.retries import TASK_OPTIONS, is_transient
from tasks.shared.rules.refusal import Refusal
from tests.checkout import ROOT

CASES = [
    (TransientError("busy"), True),
    (Unavailable("the lake does not answer"), True),
    (ConcurrentWrite("another writer was first"), True),
    (Rejected("no"), False),
    (Corrupt("a byte was flipped"), False),
    (Conflict("it is there already"), False),
    (NotFound("nothing of that name"), False),
    (JobFailed("out of memory"), False),
    (Refusal("the table is empty"), False),
    (ValueError("a bug of ours"), False),
    (ConnectionError("not one of ours"), False),
    (KeyboardInterrupt(), False),
]


@pytest.mark.parametrize(("error", "again"), CASES, ids=[type(error).__name__ for error, _ in CASES])
def test_only_a_transient_error_is_tried_again(error: BaseException, again: bool) -> None:
    async def decided() -> bool:
        return await is_transient(None, None, await exception_to_failed_state(error))

    assert asyncio.run(decided()) is again


@pytest.mark.parametrize(
    "state", [Failed(data=Unavailable("busy")), Crashed(data=Unavailable("busy"))], ids=["failed", "crashed"]
)
def test_a_state_that_carries_a_transient_error_is_tried_again(state: object) -> None:
    assert asyncio.run(is_transient(None, None, state)) is True


def test_a_transient_error_that_a_terminal_one_was_made_from_is_not_tried_again() -> None:
    error = Rejected("gave up")
    error.__cause__ = Unavailable("busy")
    assert asyncio.run(is_transient(None, None, Failed(data=error))) is False


def test_tries_are_few_and_their_results_are_kept_as_text() -> None:
    assert TASK_OPTIONS["retries"] == 4
    assert TASK_OPTIONS["retry_delay_seconds"](TASK_OPTIONS["retries"]) == [1, 2, 4, 8]
    assert TASK_OPTIONS["retry_condition_fn"] is is_transient
    assert (TASK_OPTIONS["persist_result"], TASK_OPTIONS["result_serializer"]) == (True, "json")


def test_every_task_of_a_stage_is_tried_by_this_rule() -> None:
    from prefect import Task

    stages = [import_module(f"tasks.{path.parent.name}.tasks") for path in (ROOT / "tasks").glob("*/tasks.py")]
    tasks = {each.name: each for stage in stages for each in vars(stage).values() if isinstance(each, Task)}
    assert len(stages) == 14 and len(tasks) == 27
    assert {name for name, each in tasks.items() if each.retry_condition_fn is not is_transient} == set()
    assert {name for name, each in tasks.items() if not each.persist_result} == set()
