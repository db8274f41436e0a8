"""Answer what watching found: retrain by itself, where the model wants that and every guard allows it."""

from typing import cast

from prefect import flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed
from prefect.utilities.urls import url_for

from flows.exclusive import one_at_a_time
from flows.parameters import AlertRecordKey, EnvironmentName, ModelName, RetrainEvent
from flows.run_log import send_run_log
from tasks.retraining.tasks import decide_auto_retrain
from tasks.shared.records import AutoRetrainDecision

RETRAIN_DEPLOYMENT = "retrain/retrain"


@flow(
    name="auto_retrain",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{event} of {model}",
    on_running=[send_run_log],
)
def auto_retrain(
    model: ModelName,
    event: RetrainEvent = "model.drift.detected",
    key: AlertRecordKey = "",
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
        decision = decide_auto_retrain(model, event, key, environment)
    if decision.outcome != "Retraining":
        return Completed(name=decision.outcome, message=decision.summary)
    return Completed(name="Retraining", message=f"{decision.summary} {start_retrain(model, decision, environment)}")


def start_retrain(model: str, answered: AutoRetrainDecision, environment: str) -> str:
    """Start the run, or find it started under the same key; return where it is seen."""
    started_run = run_deployment(
        RETRAIN_DEPLOYMENT,
        parameters={
            "model": model,
            "requested_by": answered.requested_by,
            "because": answered.trigger_reason[:2000],
            "environment": environment,
        },
        idempotency_key=f"answer/{answered.alert_record_key}",
        tags=["automatic"],
        timeout=0,
        as_subflow=False,
    )
    flow_run = cast(FlowRun, started_run)  # outside an event loop it waits for the answer
    return f"Run {flow_run.name}: {url_for('flow-run', flow_run.id) or flow_run.id}"
