"""Start `retrain` automatically after an alert, when the model has retraining.automatic and every guard passes."""

from typing import cast

from prefect import flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.utilities.urls import url_for

from flows.exclusive import one_at_a_time
from flows.options import FLOW_OPTIONS
from flows.outcomes import end_run
from flows.parameters import AlertRecordKey, EnvironmentName, ModelName, RetrainEvent
from runtime.foreign_text import one_line
from tasks.retraining.tasks import decide_auto_retrain
from tasks.shared.actions import ALERT_ORDER
from tasks.shared.records import AutoRetrainDecision
from tasks.shared.rules.run_outcomes import run_name

RETRAIN_DEPLOYMENT = "retrain/retrain"


@flow(name="auto_retrain", flow_run_name="{event} of {model}", **FLOW_OPTIONS)
def auto_retrain(
    model: ModelName,
    event: RetrainEvent = "model.drift.detected",
    alert_record_key: AlertRecordKey = "",
    environment: EnvironmentName = "local",
) -> State:
    """Check every guard of `retraining` in model.yaml, and start `retrain` when all pass. One alert starts one run.

    An automation starts this flow when monitoring raises an alert for a model with `retraining.automatic`.

    Args:
        model: The model's name: a folder below models/.
        event: The alert that was raised.
        alert_record_key: Which finding, by its name in the ledger. Empty is the newest.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    with one_at_a_time(f"auto-retrain-{model}"):
        decision = decide_auto_retrain(model, event, alert_record_key, environment)
    started = start_retrain(model, decision, environment) if decision.outcome == "started" else ""
    name = run_name(model, f"auto-retrain {decision.outcome}")
    return end_run(decision.outcome, f"{decision.summary} {started}".strip(), name)


def start_retrain(model: str, decision: AutoRetrainDecision, environment: str) -> str:
    """Start the run, or find the one that was started with the same key; return its name and address."""
    started_run = run_deployment(
        RETRAIN_DEPLOYMENT,
        parameters={
            "model": model,
            "requested_by": decision.requested_by,
            "trigger_reason": one_line(decision.trigger_reason, 2000),
            "environment": environment,
            "order": f"{ALERT_ORDER}{decision.alert_record_key}",
        },
        idempotency_key=f"auto-retrain/{decision.alert_record_key}",
        tags=["auto-retrain"],
        timeout=0,
        as_subflow=False,
    )
    flow_run = cast(FlowRun, started_run)  # outside an event loop the call is synchronous
    return f"Run {flow_run.name}: {url_for('flow-run', flow_run.id) or flow_run.id}"
