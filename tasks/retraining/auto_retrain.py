"""Answer an alert of watching: decide whether the model is retrained by itself, and write down what was decided."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from blocks.common.errors import TerminalError
from blocks.environment import Environment
from blocks.outbox.base import Outbox, Signal
from tasks.notification.rules.story import is_alert_open
from tasks.retraining.label_arrivals import labelled_rows, labelled_rows_since
from tasks.retraining.rules.facts import LabelledRows, RetrainFacts, RetrainTrigger, TriggerKind, Unknown
from tasks.retraining.rules.guards import evaluate_guards, failed_guards
from tasks.retraining.rules.report import guards_markdown, retrain_decision_sentence
from tasks.shared.alerts import emit_alert
from tasks.shared.champion import champion_version
from tasks.shared.cost import read_prices, worst_case_costs
from tasks.shared.models import TeamModel
from tasks.shared.records import AutoRetrainDecision
from tasks.shared.rules.cost.budget import CostBreakdown, is_local_work
from tasks.shared.rules.refusal import Refusal

TRIGGER_KINDS: dict[str, TriggerKind] = {"model.drift.detected": "drift", "model.quality.degraded": "quality"}
RETRAIN_STARTED, RETRAIN_REFUSED = "retraining.started", "retraining.refused"
_T = TypeVar("_T")


def decide_on_alert(
    env: Environment, model: TeamModel, event: str, key: str, now: datetime
) -> tuple[AutoRetrainDecision, str]:
    """Return what comes of a signal, and the page of what the guards say; "" where they were not asked.

    The ledger holds what was decided before anything is started: who is killed in between finds it there, starts
    the run under the same key, and counts it.

    Raises:
        Refusal: the ledger has no such signal.
    """
    model_name, outbox = model.spec.name, env.outbox()
    signals = outbox.signals(f"{model_name}/{env.name}/{event}")
    signal = _open_alert_record(signals, key, f"{model_name}/{env.name}/{event}")
    trigger = RetrainTrigger(TRIGGER_KINDS[event], signal.at, is_alert_open(signals), signal.sentence)
    requester = f"automation: {event}"
    if not model.spec.retraining.automatic:
        switched_off_text = "retraining.automatic in model.yaml is off, so nothing is started by itself."
        return AutoRetrainDecision(
            outcome="Off",
            alert_record_key=signal.key,
            summary=switched_off_text,
            trigger_reason=trigger.reason,
            requested_by=requester,
        ), ""
    earlier_record = _earlier_decision(outbox, model_name, env.name, signal.key)
    page = ""
    if earlier_record is None:
        guard_results = evaluate_guards(model.spec.retraining, gather_retrain_facts(env, model, trigger, now))
        refused, page = failed_guards(guard_results), guards_markdown(model_name, trigger, guard_results)
        earlier_record = emit_alert(
            env, RETRAIN_REFUSED if refused else RETRAIN_STARTED, model=model_name, sentence=retrain_decision_sentence(trigger, refused),
            alert_record_key=f"{RETRAIN_REFUSED if refused else RETRAIN_STARTED}:{signal.key}",
            severity="warning" if any(each.guard == "in vain" for each in refused) else "info",
            payload={"guards": [each.guard for each in refused], "answers": signal.key}, now=now,
        )  # fmt: skip
    return AutoRetrainDecision(
        outcome="Retraining" if earlier_record.event == RETRAIN_STARTED else "Refused",
        alert_record_key=signal.key,
        summary=earlier_record.sentence,
        trigger_reason=trigger.reason,
        requested_by=requester,
    ), page


def gather_retrain_facts(
    env: Environment, model: TeamModel, pending_approval: RetrainTrigger, now: datetime
) -> RetrainFacts:
    """Find out what the guards look at; what cannot be found out is written down as unknown."""
    spec, signals = model.spec, env.outbox().signals(f"{model.spec.name}/{env.name}/{RETRAIN_STARTED}")
    lines = [line for line in env.effects().deployments(spec.name, env.name) if line.status == "serving"]
    rows = _or_unknown(lambda: labelled_rows_since(env, spec, champion_version(env, spec.name), now))
    return RetrainFacts(
        now=now,
        trigger=pending_approval,
        earlier_retrainings=tuple(each.at for each in signals),
        deployed_at=tuple(line.at for line in lines if line.action == "deploy"),
        deployed_since=max((line.at for line in lines), default=None),
        pending_approvals=tuple(
            (each.id, each.expires_at)
            for each in env.approvals().open_requests(spec.name)
            if each.environment == env.name
        ),
        rows=rows,
        costs=_or_unknown(lambda: _worst_case_cost(env, model, rows, now)),
        budget=spec.budget,
    )


def _open_alert_record(signals: tuple[Signal, ...], key: str, cause: str) -> Signal:
    """Return the signal that is to be answered: an event alone, which anybody may emit, starts nothing."""
    raised = [each for each in signals if each.state == "raised" and key in {"", each.key}]
    if not raised:
        remedy = "Only what watching wrote there is answered: run `monitor`, or leave the key empty."
        raise Refusal("the ledger has no such alert", where=cause, value=key or None, remedy=remedy)
    return raised[-1]


def _earlier_decision(outbox: Outbox, model: str, environment: str, key: str) -> Signal | None:
    """Return what was decided over a signal before, as by a run that was killed."""
    for event in (RETRAIN_STARTED, RETRAIN_REFUSED):
        for each in outbox.signals(f"{model}/{environment}/{event}"):
            if each.key == f"{event}:{key}":
                return each
    return None


def _worst_case_cost(env: Environment, model: TeamModel, rows: LabelledRows | Unknown, now: datetime) -> CostBreakdown:
    """Return what the run may cost at worst, by the trainer that would take as many rows as there are now."""
    small = False
    if env.has_small_trainer and not isinstance(rows, Unknown):
        expected = int(labelled_rows(env, model.spec) * (1 - model.spec.holdout))
        small = is_local_work(expected, model.spec.budget.local_rows)
    return worst_case_costs(env, model, env.trainer_for(small=small), read_prices(), now, include_serving=True)


def _or_unknown(find: Callable[[], _T]) -> _T | Unknown:
    """Return what is found; what may be found in a moment is raised, and tried again."""
    try:
        return find()
    except (Refusal, TerminalError) as refused:
        return Unknown(str(refused).rstrip("."))
