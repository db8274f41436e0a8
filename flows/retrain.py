"""The main flow: from the lake to an approved and deployed model."""

from datetime import UTC, datetime

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.environment import open_environment
from blocks.records.approvals import Decision
from flows.approval import await_decision
from flows.authorization import authorize_run
from flows.exclusive import one_at_a_time
from flows.options import FLOW_OPTIONS, end_order
from flows.outcomes import end_run, report_problem
from flows.parameters import (
    AsOf,
    DataTier,
    EnvironmentName,
    Hyperparameters,
    ModelName,
    OrderId,
    PersonName,
    TriggerReason,
)
from flows.stopping import stop_training_jobs
from tasks.approval.rules.actions import Actor
from tasks.approval.tasks import request_approval
from tasks.dashboard.tasks import update_dashboard
from tasks.evaluation.tasks import evaluate
from tasks.evidence.tasks import store_evidence_pack
from tasks.notification.tasks import notify_run
from tasks.release.registry import registry_problem_text
from tasks.release.tasks import deploy
from tasks.sampling.tasks import publish, sample
from tasks.shared.models import load_model
from tasks.shared.records import DeploymentResult, EvaluationResult, PendingApproval, TrainingResult
from tasks.shared.rules.promotion import is_promotable_tier, may_be_promoted
from tasks.shared.rules.run_outcomes import Outcome, metric_text, outcome_words, run_name, versioned
from tasks.shared.waivers import valid_waivers
from tasks.training.tasks import backtest, estimate_cost, train
from tasks.validation.tasks import validate


@flow(
    name="retrain",
    flow_run_name="{model} on {tier}",
    **FLOW_OPTIONS
    | {"on_cancellation": [stop_training_jobs, end_order], "on_crashed": [stop_training_jobs, end_order]},
)
def retrain(
    model: ModelName,
    requested_by: PersonName,
    tier: DataTier = "full",
    as_of: AsOf = "",
    parameters: Hyperparameters | None = None,
    trigger_reason: TriggerReason = "",
    environment: EnvironmentName = "local",
    order: OrderId = "",
) -> State:
    """Sample and validate data, train and evaluate a challenger; when it passes, request approval and deploy it.

    Args:
        model: The model's name: a folder below models/.
        requested_by: Who requests this run: a name or e-mail address. This person may not approve the result.
        tier: Which data tier to train on. Only a model trained on the full tier can be promoted.
        as_of: A snapshot's id, or a time with its zone such as 2026-11-21T10:00:00Z. Empty is now.
        parameters: Hyperparameters that override those of model.yaml, and "seed". Empty uses model.yaml as it is.
        trigger_reason: Why the run was started; the approvers see it. Empty when a person simply requested it.
        environment: The set of adapters to run on: a file in deployments/environments/.
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved
            a name.
    """
    requester = authorize_run("retrain", model, environment, order, requested_by)
    with one_at_a_time(f"retrain-{model}"):
        data = sample(model, tier, as_of, environment)
        validation_result = validate(model, data, environment)
        publish(model, data, environment)
        terms = load_model(model).spec.evaluation
        cost_estimate = estimate_cost(
            model, data, environment, terms.trainings, include_serving=is_promotable_tier(tier)
        )
        training_result = train(model, data, cost_estimate, parameters or {}, environment)
        evaluation_result = evaluate(model, data, training_result, environment)
        if is_promotable_tier(tier) and not passed_or_waived(
                model, tier, training_result, evaluation_result, requester, environment):  # fmt: skip
            return end_not_promoted(model, training_result, evaluation_result, environment)
        if terms.backtests:
            backtest(model, data, cost_estimate, training_result, evaluation_result, environment)
        if not is_promotable_tier(tier):
            return end_sample_tier(model, tier, training_result, evaluation_result)
        pending_approval = request_approval(
            model, data, validation_result, training_result, evaluation_result, requester.by, environment,
            trigger_reason, requester.authenticated,
        )  # fmt: skip
        decision = await_decision(pending_approval, environment)
        sentence = notify_decision(model, pending_approval, decision, environment)
        if decision is None or not decision.approved:
            return end_not_approved(model, decision, sentence, training_result, evaluation_result)
        deployment_result = deploy(pending_approval.request_id, evaluation_result, environment)
        stored = store_evidence_pack(pending_approval.request_id, data, validation_result, training_result,
            evaluation_result, deployment_result, parameters or {}, environment, return_state=True)  # fmt: skip
        update_dashboard(model, environment)
        message = deployed_at(deployment_result, environment) + report_problem(stored, "The evidence pack")
        return finish_run(model, training_result, evaluation_result, "deployed", message)


def passed_or_waived(
    model: str,
    tier: str,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    requester: Actor,
    environment: str,
) -> bool:
    """Whether the challenger may be promoted: it passed, or waivers stand now for every gate that did not open."""
    if may_be_promoted(tier, evaluation_result.verdict):
        return True
    env, spec = open_environment(environment), load_model(model).spec
    waivers = valid_waivers(env, spec, training_result, evaluation_result, requester, datetime.now(UTC))
    return may_be_promoted(tier, evaluation_result.verdict, waived=bool(waivers))


def notify_decision(model: str, pending_approval: PendingApproval, decision: Decision | None, environment: str) -> str:
    """Notify people that the approval request is no longer open, and return its outcome in one sentence."""
    request = pending_approval.request_id
    sentence = f"Nobody decided on {request} before it expired."
    if decision is not None:
        verdict = "approved" if decision.approved else "rejected"
        sentence = f"{request} was {verdict} by {decision.by}: {decision.reason}"
    notify_run(model, "approval.requested", sentence, environment, about=request, state="recovered")
    return sentence


def end_not_approved(
    model: str,
    decision: Decision | None,
    sentence: str,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
) -> State:
    """Return the final state of a run whose request was rejected, or expired without a decision."""
    return finish_run(model, training_result, evaluation_result, "rejected" if decision else "expired", sentence)


def deployed_at(deployment_result: DeploymentResult, environment: str) -> str:
    """Return version and address of a deployment in one sentence, and what the registry does not say yet."""
    problem = registry_problem_text(deployment_result.registry_problem, deployment_result.model, environment)
    return f"version {deployment_result.version} serves at {deployment_result.url}{problem}"


def end_not_promoted(
    model: str, training_result: TrainingResult, evaluation_result: EvaluationResult, environment: str
) -> State:
    """Notify people that the champion stays deployed, and return the final state: held or inconclusive."""
    reasons = " ".join(evaluation_result.reasons)
    sentence = f"Version {training_result.version} does not replace the champion: {reasons}"
    notify_run(model, "evaluation.held", sentence, environment)
    outcome: Outcome = "inconclusive" if evaluation_result.verdict == "inconclusive" else "held"
    return finish_run(model, training_result, evaluation_result, outcome, reasons)


def end_sample_tier(
    model: str, tier: str, training_result: TrainingResult, evaluation_result: EvaluationResult
) -> State:
    """Return the final state of a run on a sample: its model is evaluated and registered, but cannot be promoted."""
    message = f"it saw only the {tier} sample. Verdict there: {evaluation_result.verdict}."
    message = f"{message} {' '.join(evaluation_result.reasons)}"
    return finish_run(model, training_result, evaluation_result, "not_promotable", message, f" ({tier})")


def finish_run(
    model: str,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    outcome: Outcome,
    message: str,
    note: str = "",
) -> State:
    """Return the final state of a run that trained. Its name is like "churn v4 · held · auc 0.795 (−0.061)"."""
    metrics = metric_text(
        evaluation_result.deciding_metric, evaluation_result.metrics, evaluation_result.champion_metrics
    )
    name = run_name(versioned(model, training_result.version), outcome_words(outcome) + note, metrics)
    return end_run(outcome, message, name)
