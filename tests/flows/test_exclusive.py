"""Exclusive retraining: one run of a model at a time, however many start at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.exclusive import one_at_a_time
from local.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_runs_of_a_new_model_that_begin_at_once_take_turns_and_none_fails(stack: Stack) -> None:
    together, inside, seen = threading.Barrier(4), threading.Lock(), []

    def work(number: int) -> None:
        together.wait(60)
        with one_at_a_time("retrain-brand-new"):
            assert inside.acquire(blocking=False), "two at once"
            seen.append(number)
            inside.release()

    with ThreadPoolExecutor(4) as runs:
        list(runs.map(work, range(4)))
    assert sorted(seen) == [0, 1, 2, 3]
