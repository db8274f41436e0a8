"""Prefect task of automatic retraining: decide whether a monitoring alert starts a retraining, and record the decision.

The facts include the label arrivals: labelled rows added since the deployed version's snapshot.
"""

from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from prefect import get_run_logger, task

from blocks.common.errors import TerminalError
from blocks.environment import Environment, open_environment
from blocks.lake.base import AsOf
from blocks.records.alerts import AlertRecord
from runtime.foreign_text import Markdown
from tasks.notification.rules.story import is_alert_open
from tasks.retraining.rules.guards import (
    LabelledRows,
    RetrainFacts,
    RetrainTrigger,
    TriggerKind,
    Unknown,
    evaluate_guards,
    failed_guards,
    guards_markdown,
    retrain_decision_sentence,
)
from tasks.shared.actions import RETRAIN_STARTED
from tasks.shared.alerts import alert_cause, emit_alert
from tasks.shared.champion import champion_version
from tasks.shared.cost import read_prices, worst_case_costs
from tasks.shared.models import TeamModel, load_model
from tasks.shared.records import AutoRetrainDecision
from tasks.shared.reports import create_markdown_artifact
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules import sql
from tasks.shared.rules.cost.budget import CostBreakdown, is_local_work
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import signed_version_facts

TRIGGER_KINDS: dict[str, TriggerKind] = {"model.drift.detected": "drift", "model.quality.degraded": "quality"}
RETRAIN_REFUSED = "retraining.refused"
_T = TypeVar("_T")


@task(name="decide auto-retrain", **TASK_OPTIONS)
def decide_auto_retrain(model: str, event: str, key: str, environment: str) -> AutoRetrainDecision:
    """Decide once whether an alert's signal (the newest if `key` is empty) starts a retraining; show the guards."""
    env = open_environment(environment)
    decision, guards_page = decide_on_alert(env, load_model(model), event, key, datetime.now(UTC))
    if guards_page:
        create_markdown_artifact(key="auto-retrain-guards", markdown=guards_page, description=decision.summary[:200])
    get_run_logger().info("%s: %s", decision.outcome, decision.summary)
    return decision


def decide_on_alert(
    env: Environment, model: TeamModel, event: str, key: str, now: datetime
) -> tuple[AutoRetrainDecision, Markdown]:
    """Return the decision on an alert's signal, and the guards' report as Markdown ("" when no guard was evaluated).

    The ledger records the decision before the run starts. After a crash in between, a retry finds the decision, and
    starts the run under the same key.

    Raises:
        Refusal: the ledger has no such signal.
    """
    model_name, outbox = model.spec.name, env.outbox()
    cause = alert_cause(env, model_name, event)
    signals = outbox.signals(cause)
    signal = _open_alert_record(signals, key, cause)
    trigger = RetrainTrigger(TRIGGER_KINDS[event], signal.at, is_alert_open(signals), signal.summary)
    requester = f"automation: {event}"
    if not model.spec.retraining.automatic:
        switched_off_text = "Automatic retraining is off (retraining.automatic in model.yaml)."
        return AutoRetrainDecision(
            outcome="off",
            alert_record_key=signal.key,
            summary=switched_off_text,
            trigger_reason=trigger.reason,
            requested_by=requester,
        ), Markdown("")
    earlier_record = _earlier_decision(env, model_name, signal.key)
    page = Markdown("")
    if earlier_record is None:
        guard_results = evaluate_guards(model.spec.retraining, gather_retrain_facts(env, model, trigger, now))
        failed, page = failed_guards(guard_results), guards_markdown(model_name, trigger, guard_results)
        event_name = RETRAIN_REFUSED if failed else RETRAIN_STARTED
        earlier_record = emit_alert(
            env, event_name, model=model_name, sentence=retrain_decision_sentence(trigger, failed),
            alert_record_key=f"{event_name}:{signal.key}",
            severity="warning" if any(each.guard == "unsuccessful retrainings" for each in failed) else "info",
            payload={"guards": [each.guard for each in failed], "alert_record_key": signal.key}, now=now,
        )  # fmt: skip
    return AutoRetrainDecision(
        outcome="started" if earlier_record.event == RETRAIN_STARTED else "refused",
        alert_record_key=signal.key,
        summary=earlier_record.summary,
        trigger_reason=trigger.reason,
        requested_by=requester,
    ), page


def gather_retrain_facts(env: Environment, model: TeamModel, trigger: RetrainTrigger, now: datetime) -> RetrainFacts:
    """Gather the facts that the guards evaluate. A fact that cannot be found is `Unknown`."""
    spec, signals = model.spec, env.outbox().signals(alert_cause(env, model.spec.name, RETRAIN_STARTED))
    lines = [line for line in env.effects().deployments(spec.name, env.name) if line.status == "serving"]
    rows = _or_unknown(lambda: labelled_rows_since(env, spec, champion_version(env, spec.name), now))
    return RetrainFacts(
        now=now,
        trigger=trigger,
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


def _open_alert_record(signals: tuple[AlertRecord, ...], key: str, cause: str) -> AlertRecord:
    """Return the alert's signal in the ledger. An event without a signal starts nothing: anybody may emit events."""
    raised = [each for each in signals if each.state == "raised" and key in {"", each.key}]
    if not raised:
        remedy = "Only alerts recorded by monitoring start a retraining: run `monitor`, or leave the key empty."
        raise Refusal("the ledger has no such alert", where=cause, value=key or None, remedy=remedy)
    return raised[-1]


def _earlier_decision(env: Environment, model: str, key: str) -> AlertRecord | None:
    """Return an earlier decision on a signal, for example by a run that was killed; None without one."""
    for event in (RETRAIN_STARTED, RETRAIN_REFUSED):
        for each in env.outbox().signals(alert_cause(env, model, event)):
            if each.key == f"{event}:{key}":
                return each
    return None


def _worst_case_cost(env: Environment, model: TeamModel, rows: LabelledRows | Unknown, now: datetime) -> CostBreakdown:
    """Return the worst-case cost of the run, on the trainer for the present number of rows."""
    small = False
    if env.has_small_trainer and not isinstance(rows, Unknown):
        expected = int(labelled_rows(env, model.spec) * (1 - (model.spec.holdout_rule.share or 0.0)))
        small = is_local_work(expected, model.spec.budget.local_rows)
    return worst_case_costs(env, model, env.trainer_for(small=small), read_prices(), now,
                            trials=model.spec.evaluation.trainings, include_serving=True)  # fmt: skip


def _or_unknown(find: Callable[[], _T]) -> _T | Unknown:
    """Return the fact, or `Unknown` after a terminal error. A transient error is raised: the task is retried."""
    try:
        return find()
    except (Refusal, TerminalError) as refused:
        return Unknown(str(refused).rstrip("."))


def labelled_rows_since(env: Environment, spec: ModelSpec, version: str, now: datetime) -> LabelledRows:
    """Return the number of labelled rows added after a version's snapshot, and the time of the newest label.

    Raises:
        Refusal: no version is deployed, or the ledger has no approved evidence of it.
        NotFound: the data set or the snapshot does not exist.
    """
    if not version:
        raise Refusal("no version is deployed", where=spec.name, remedy="Retrain and approve a first version.")
    champion_read = env.lake().as_of(spec.data.dataset, signed_version_facts(env, spec.name, version).as_of)
    return LabelledRows(
        labelled_rows(env, spec) - labelled_rows(env, spec, champion_read), _newest_label_time(env, spec, now)
    )


def labelled_rows(env: Environment, spec: ModelSpec, read: AsOf | None = None) -> int:
    """Return the number of labelled rows in a read of the main table (by default the present one)."""
    lake = env.lake()
    files = lake.files(read or lake.as_of(spec.data.dataset))
    query = sql.select_sql(f"count({sql.quoted_name(spec.data.target)}) AS labelled", "rows")
    return int(env.engine().query(query, {"rows": files})["labelled"][0].as_py())


def _newest_label_time(env: Environment, spec: ModelSpec, now: datetime) -> datetime | None:
    """Return the time of the newest label: the row's own time (future ones excluded), else its snapshot's time."""
    lake, data = env.lake(), spec.data
    read = lake.as_of(data.dataset)
    if data.time:
        time = f"CAST({sql.quoted_name(data.time)} AS TIMESTAMPTZ)"
        past = f"{time} <= CAST({sql.text_literal(now.isoformat())} AS TIMESTAMPTZ)"
        known = f"WHERE {sql.quoted_name(data.target)} IS NOT NULL AND {past}"
        answer = env.engine().query(sql.select_sql(f"max({time}) AS newest", "rows", known), {"rows": lake.files(read)})
        newest: datetime | None = answer["newest"][0].as_py()
        return newest
    if not (total := labelled_rows(env, spec, read)):
        return None
    # The first snapshot with all labels. The count only grows, so a binary search reads few snapshots.
    place = bisect_left(
        read.snapshots, total, key=lambda each: labelled_rows(env, spec, lake.as_of(data.dataset, each.id))
    )
    return read.snapshots[place].created_at
