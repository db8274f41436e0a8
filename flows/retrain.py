"""The main flow: from the lake to an approved, served model."""

from datetime import UTC, datetime

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from blocks.approvals.base import Decision
from flows.approval import await_decision
from flows.exclusive import one_at_a_time
from flows.parameters import AsOf, DataTier, EnvironmentName, Hyperparameters, ModelName, PersonName, TriggerReason
from flows.run_log import send_run_log
from flows.stopping import stop_training_jobs
from tasks.approval.tasks import request_approval
from tasks.dashboard.tasks import update_dashboard
from tasks.evaluation.tasks import evaluate
from tasks.evidence.tasks import store_evidence_pack
from tasks.notification.tasks import notify_run
from tasks.release.tasks import deploy
from tasks.sampling.tasks import publish, sample
from tasks.shared.records import EvaluationResult, PendingApproval, TrainingResult
from tasks.shared.waivers import all_gates_waived
from tasks.training.tasks import estimate_cost, train
from tasks.validation.tasks import validate


@flow(
    name="retrain",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{model} on {tier}",
    on_cancellation=[stop_training_jobs],
    on_crashed=[stop_training_jobs],
    on_running=[send_run_log],
)
def retrain(
    model: ModelName,
    requested_by: PersonName,
    tier: DataTier = "full",
    as_of: AsOf = "",
    parameters: Hyperparameters | None = None,
    because: TriggerReason = "",
    environment: EnvironmentName = "local",
) -> State:
    """Sample, check, train and evaluate a challenger; when it passes, ask for approval and deploy it.

    Args:
        model: The model's name: a folder below models/.
        requested_by: Who asks for this run: a name or e-mail address. That person may not approve its result.
        tier: How much of the data. Only a model of the full tier can be promoted.
        as_of: A snapshot's id, or a time with its zone such as 2026-11-21T10:00:00Z. Empty is now.
        parameters: Hyperparameters that replace those of model.yaml, and "seed". Empty takes them as they are.
        because: What asks for it, for whoever approves its result to read. Empty when you just want it.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    with one_at_a_time(f"retrain-{model}"):
        data = sample(model, tier, as_of, environment)
        validation_result = validate(model, data, environment)
        publish(model, data, environment)
        cost_estimate = estimate_cost(model, data, environment, include_serving=tier == "full")
        training_result = train(model, data, cost_estimate, parameters or {}, environment)
        evaluation_result = evaluate(model, data, training_result, environment)
        if tier != "full":
            return end_sample_tier(tier, evaluation_result)
        if evaluation_result.verdict != "pass" and not all_gates_waived(
            model, evaluation_result, requested_by, environment, datetime.now(UTC)
        ):
            return end_not_promoted(model, training_result, evaluation_result, environment)
        pending_approval = request_approval(
            model, data, validation_result, training_result, evaluation_result, requested_by, environment, because
        )
        decision = await_decision(pending_approval, environment)
        notify_run(
            model,
            AWAITING_APPROVAL,
            decision_sentence(pending_approval, decision),
            environment,
            about=pending_approval.request_id,
            state="recovered",
        )
        if decision is None:
            return Completed(name="Held", message=decision_sentence(pending_approval, decision))
        if not decision.approved:
            return Cancelled(name="Rejected", message=f"Rejected by {decision.by}: {decision.reason}")
        deployment_result = deploy(pending_approval.request_id, evaluation_result, environment)
        store_evidence_pack(
            pending_approval.request_id,
            data,
            validation_result,
            training_result,
            evaluation_result,
            deployment_result,
            parameters or {},
            environment,
        )
        update_dashboard(model, environment)
        return Completed(
            name="Deployed", message=f"Version {deployment_result.version} serves at {deployment_result.url}"
        )


def decision_sentence(pending_approval: PendingApproval, decision: Decision | None) -> str:
    """Return what became of a request, in one sentence."""
    if decision is None:
        return f"Nobody decided on {pending_approval.request_id} before it expired."
    verdict = "approved" if decision.approved else "rejected"
    return f"{pending_approval.request_id} was {verdict} by {decision.by}: {decision.reason}"


def end_not_promoted(
    model: str, training_result: TrainingResult, evaluation_result: EvaluationResult, environment: str
) -> State:
    """Tell people that the champion serves on, and return the end of the run: held, or inconclusive."""
    reasons = " ".join(evaluation_result.reasons)
    notify_run(
        model,
        "release.held",
        f"Version {training_result.version} does not replace the champion: {reasons}",
        environment,
    )
    return Completed(name=VERDICT_STATE_NAMES[evaluation_result.verdict], message=reasons)


AWAITING_APPROVAL = "release.awaiting-approval"
VERDICT_STATE_NAMES = {"hold": "Held", "inconclusive": "Inconclusive"}
"""How a verdict that stops the run is called as the state of the flow run."""


def end_sample_tier(tier: str, evaluation_result: EvaluationResult) -> State:
    """Return the end of a run on a sample: measured and registered, and never to be promoted."""
    message = f"Refused for production: it saw only the {tier} sample. Verdict there: {evaluation_result.verdict}."
    return Completed(name="Refused", message=f"{message} {' '.join(evaluation_result.reasons)}")
