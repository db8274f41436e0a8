"""The retry rule of all tasks: only the type of the error decides whether a task is retried."""

from typing import Any

from prefect.tasks import exponential_backoff

from blocks.common.errors import TransientError


async def is_transient(_task: Any, _task_run: Any, state: Any) -> bool:
    """Return whether the task failed with a `TransientError`; a Refusal or a TerminalError stays failed."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, TransientError)


TASK_OPTIONS: dict[str, Any] = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(backoff_factor=1),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
    "persist_result": True,
    "result_serializer": "json",
}
"""Options of every task: four retries after about 1, 2, 4 and 8 s for transient errors; results are persisted."""
