"""How a flow run ends: in one of Prefect's own states, with its outcome in message, tag and name."""

from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from runtime.foreign_text import one_line
from tasks.shared.records import TaskRecord
from tasks.shared.rules.run_outcomes import STATE_TYPES, Outcome, outcome_message, outcome_tags

_STATES = {"COMPLETED": Completed, "FAILED": Failed, "CANCELLED": Cancelled}


def end_run(outcome: Outcome, message: str, name: str) -> State:
    """Name and tag this flow run by its outcome, and return the state that it ends in.

    Never fails: a name and a tag only report, and what the run did stays done. A warning says what was not written.

    Args:
        outcome: what came of the run; it becomes the tag `outcome:<outcome>`.
        message: why, in a sentence; the state's message puts the outcome before it.
        name: what the run is called from now on, such as "churn · drift".
    """
    run_id = flow_run.id
    if run_id:
        try:
            _rename_and_tag(UUID(run_id), outcome, name)
        except Exception as problem:  # whatever it is, the run has done its work
            get_run_logger().warning("the run is not named and tagged %r: %s", outcome, problem)
    return _STATES[STATE_TYPES.get(outcome, "COMPLETED")](message=outcome_message(outcome, message))


def completed(message: str, result: TaskRecord) -> State:
    """Return the state of a run that has one outcome alone, with its message and its result."""
    return _STATES["COMPLETED"](message=one_line(message), data=result)


def report_problem(state: State, what: str) -> str:
    """Return, for the end of a message, why a task that only reports has failed; "" when it ended well.

    Call such a task with `return_state=True`, so that its failure does not fail a flow that has done its work.
    """
    return "" if state.is_completed() else f". {what} was not written: {(state.message or state.name or '')[:500]}"


def _rename_and_tag(run_id: UUID, outcome: Outcome, name: str) -> None:
    with get_client(sync_client=True) as client:
        tags = client.read_flow_run(run_id).tags
        client.update_flow_run(run_id, name=name, tags=outcome_tags(tags, outcome))
