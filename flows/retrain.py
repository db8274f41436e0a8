"""The main flow: from the lake to an approved, served model."""

from datetime import UTC, datetime

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from blocks.approvals.base import Decision
from flows.approval import await_decision
from flows.exclusive import one_at_a_time
from flows.parameters import AsOf, Because, EnvironmentName, Hyperparameters, ModelName, Person, Tier
from flows.run_log import keep_log
from flows.stopping import stop_training
from tasks.approval.tasks import request_approval
from tasks.dashboard.tasks import draw_dashboard
from tasks.evaluation.tasks import judge
from tasks.evidence.tasks import keep_evidence
from tasks.notification.tasks import tell_of_run
from tasks.release.tasks import deploy
from tasks.sampling.tasks import publish, sample
from tasks.shared.records import Asked, Judged, Trained
from tasks.shared.waivers import is_waived
from tasks.training.tasks import price, train
from tasks.validation.tasks import expect


@flow(
    name="retrain",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{model} on {tier}",
    on_cancellation=[stop_training],
    on_crashed=[stop_training],
    on_running=[keep_log],
)
def retrain(
    model: ModelName,
    requested_by: Person,
    tier: Tier = "production",
    as_of: AsOf = "",
    parameters: Hyperparameters | None = None,
    because: Because = "",
    environment: EnvironmentName = "local",
) -> State:
    """Sample, check, train and evaluate a challenger; when it passes, ask for approval and deploy it.

    Args:
        model: The model's name: a folder below models/.
        requested_by: Who asks for this run: a name or e-mail address. That person may not approve its result.
        tier: How much of the data. Only a model of the production tier can be promoted.
        as_of: A snapshot's id, or a time with its zone such as 2026-11-21T10:00:00Z. Empty is now.
        parameters: Hyperparameters that replace those of model.yaml, and "seed". Empty takes them as they are.
        because: What asks for it, for whoever approves its result to read. Empty when you just want it.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    with one_at_a_time(f"retrain-{model}"):
        data = sample(model, tier, as_of, environment)
        checked = expect(model, data, environment)
        publish(model, data, environment)
        costed = price(model, data, environment, to_serve=tier == "production")
        trained = train(model, data, costed, parameters or {}, environment)
        judged = judge(model, data, trained, environment)
        if tier != "production":
            return refused_for_its_tier(tier, judged)
        if judged.outcome != "pass" and not is_waived(model, judged, requested_by, environment, datetime.now(UTC)):
            return not_promoted(model, trained, judged, environment)
        asked = request_approval(model, data, checked, trained, judged, requested_by, environment, because)
        decision = await_decision(asked, environment)
        tell_of_run(model, WAITING, outcome_of(asked, decision), environment, about=asked.request_id, state="recovered")
        if decision is None:
            return Completed(name="Held", message=outcome_of(asked, decision))
        if not decision.approved:
            return Cancelled(name="Rejected", message=f"Rejected by {decision.by}: {decision.reason}")
        done = deploy(asked.request_id, judged, environment)
        keep_evidence(asked.request_id, data, checked, trained, judged, done, parameters or {}, environment)
        draw_dashboard(model, environment)
        return Completed(name="Deployed", message=f"Version {done.version} serves at {done.url}")


def outcome_of(asked: Asked, decision: Decision | None) -> str:
    """Return what became of a request, in one sentence."""
    if decision is None:
        return f"Nobody decided on {asked.request_id} before it expired."
    verdict = "approved" if decision.approved else "rejected"
    return f"{asked.request_id} was {verdict} by {decision.by}: {decision.reason}"


def not_promoted(model: str, trained: Trained, judged: Judged, environment: str) -> State:
    """Tell people that the champion serves on, and return the end of the run: held, or inconclusive."""
    reasons = " ".join(judged.reasons)
    tell_of_run(
        model, "release.held", f"Version {trained.version} does not replace the champion: {reasons}", environment
    )
    return Completed(name=NAMES[judged.outcome], message=reasons)


WAITING = "release.awaiting-approval"
NAMES = {"hold": "Held", "inconclusive": "Inconclusive"}
"""How a verdict that stops the run is called as the state of the flow run."""


def refused_for_its_tier(tier: str, judged: Judged) -> State:
    """Return the end of a run on a sample: measured and registered, and never to be promoted."""
    message = f"Refused for production: it saw only the {tier} sample. Verdict there: {judged.outcome}."
    return Completed(name="Refused", message=f"{message} {' '.join(judged.reasons)}")
