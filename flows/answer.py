"""Answer what watching found: retrain by itself, where the model wants that and every guard allows it."""

from typing import cast

from prefect import flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed
from prefect.utilities.urls import url_for

from flows.exclusive import one_at_a_time
from flows.parameters import Alert, AlertKey, EnvironmentName, ModelName
from flows.run_log import keep_log
from tasks.retraining.tasks import answer_alert
from tasks.shared.records import Answered

RETRAIN = "retrain/retrain"


@flow(
    name="answer",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{event} of {model}",
    on_running=[keep_log],
)
def answer(
    model: ModelName,
    event: Alert = "model.drift.detected",
    key: AlertKey = "",
    environment: EnvironmentName = "local",
) -> State:
    """Ask every guard of `retraining` in model.yaml, and start `retrain` when all allow it: one run for one finding.

    An automation starts this when watching finds something in a model that has `retraining.automatic`.

    Args:
        model: The model's name: a folder below models/.
        event: What watching found.
        key: Which finding, by its name in the ledger. Empty is the newest.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    with one_at_a_time(f"answer-{model}"):
        answered = answer_alert(model, event, key, environment)
    if answered.outcome != "Retraining":
        return Completed(name=answered.outcome, message=answered.sentence)
    return Completed(name="Retraining", message=f"{answered.sentence} {start(model, answered, environment)}")


def start(model: str, answered: Answered, environment: str) -> str:
    """Start the run, or find it started under the same key; return where it is seen."""
    begun = run_deployment(
        RETRAIN,
        parameters={
            "model": model,
            "requested_by": answered.requested_by,
            "because": answered.because[:2000],
            "environment": environment,
        },
        idempotency_key=f"answer/{answered.key}",
        tags=["automatic"],
        timeout=0,
        as_subflow=False,
    )
    run = cast(FlowRun, begun)  # outside an event loop it waits for the answer
    return f"Run {run.name}: {url_for('flow-run', run.id) or run.id}"
