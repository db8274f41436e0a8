"""The error's type alone decides whether a task is tried again."""

import asyncio

import pytest
from prefect.states import Crashed, Failed, exception_to_failed_state

from blocks.common.errors import Conflict, Corrupt, JobFailed, LostRace, NotFound, Rejected, TransientError, Unavailable
from tasks.shared.retries import STAGE, is_transient
from tasks.shared.rules.refusal import Refusal

CASES = [
    (TransientError("busy"), True),
    (Unavailable("the lake does not answer"), True),
    (LostRace("another writer was first"), True),
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
    assert STAGE["retries"] == 4
    assert STAGE["retry_delay_seconds"](STAGE["retries"]) == [1, 2, 4, 8]
    assert STAGE["retry_condition_fn"] is is_transient
    assert (STAGE["persist_result"], STAGE["result_serializer"]) == (True, "json")


def test_every_task_of_a_stage_is_tried_by_this_rule() -> None:
    from prefect import Task

    from tasks.approval import requests as approve
    from tasks.batch import scoring as score
    from tasks.evaluation import evaluating as evaluate
    from tasks.ingestion import landing as ingest
    from tasks.release import deployment as deploy
    from tasks.release import rollback
    from tasks.shared import tiers as sample
    from tasks.training import jobs as train
    from tasks.training import trials as experiment
    from tasks.validation import checking as expect

    rooms = (approve, deploy, evaluate, expect, experiment, ingest, rollback, sample, score, train)
    tasks = {each.name: each for room in rooms for each in vars(room).values() if isinstance(each, Task)}
    assert len(tasks) == 12
    assert {name for name, each in tasks.items() if each.retry_condition_fn is not is_transient} == set()
    assert {name for name, each in tasks.items() if not each.persist_result} == set()
