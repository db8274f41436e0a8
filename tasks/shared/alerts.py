"""Tell people what happened: written down first, delivered until it has arrived."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from blocks.environment import Environment
from blocks.outbox.base import Message, Outbox, Signal
from tasks.notification.rules.channels import channel_accepts
from tasks.notification.rules.kinds import Severity, event_kind
from tasks.notification.rules.story import DueMessage, due_messages, message_id
from tasks.notification.rules.words import message_body, message_subject
from tasks.shared.models import load_model
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.refusal import Refusal

AlertRecordState = Literal["news", "raised", "recovered", "acknowledged"]

CLOSED_CAUSE_LOOKBACK = timedelta(days=1)
"""A cause that is over is looked at for so long, for messages that a crash kept from being written down."""


def emit_alert(
    env: Environment,
    event_name: str,
    *,
    model: str,
    sentence: str,
    alert_record_key: str,
    state: AlertRecordState | None = None,
    subject_id: str = "",
    links: Mapping[str, str] | None = None,
    severity: Severity | None = None,
    payload: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> Signal:
    """Write down that something happened to a model, with the messages that follow, and emit it as a Prefect event.

    Args:
        env: the environment that it happened in.
        event_name: one of `tasks.notification.rules.kinds`.
        model: the model's name.
        sentence: what happened, in one sentence.
        alert_record_key: its name in the ledger: a repeat under the same key is no second event.
        state: what became of it; by default `raised` for what lasts, else `news`.
        subject_id: what of the model it is about, where several may be open at once: an approval request.
        links: where to look, besides the flow run: label and address, or a command to type.
        severity: how grave it is this time; by default as grave as its kind.
        payload: what the Prefect event carries besides: for automations, not for people.
        now: when it happened; by default the time of the call.
    """
    kind, outbox, at = event_kind(event_name), env.outbox(), now or datetime.now(UTC)
    signal = outbox.signal(
        Signal(
            key=alert_record_key,
            cause="/".join(filter(None, (model, env.name, event_name, subject_id))),
            event=event_name,
            state=state or ("raised" if kind.is_condition else "news"),
            model=model,
            environment=env.name,
            severity=severity or kind.severity,
            owner=model_owner(model),
            sentence=sentence,
            at=at,
            links={**_run_link(), **(links or {})},
        )
    )
    queue_messages(env, outbox, signal.cause, at)
    if flow_run.id:
        _emit_prefect_event(signal, payload or {})
    return signal


def model_owner(model: str) -> str:
    """Return who looks after the model; an alert is told also when its `model.yaml` cannot be read."""
    try:
        return load_model(model).spec.owner
    except Refusal:
        return f"unknown: models/{base_name(model)}/model.yaml cannot be read"


def retraining_mode(model: str) -> str:
    """Return whether the model is retrained by itself when watching finds something: `automatic`, or `by hand`."""
    try:
        return "automatic" if load_model(model).spec.retraining.automatic else "by hand"
    except Refusal:
        return "by hand"


def _emit_prefect_event(signal: Signal, extra_payload: Mapping[str, Any]) -> None:
    """Let Prefect's automations know; the ledger has it already, so a lost event is a late message at the worst."""
    suffix = f".{signal.state}" if signal.state in ("recovered", "acknowledged") else ""
    emit_event(
        f"{signal.event}{suffix}",
        resource={"prefect.resource.id": f"ratchet.model.{signal.model}", "prefect.resource.name": signal.model,
                  "ratchet.environment": signal.environment, "ratchet.retraining": retraining_mode(signal.model)},
        payload={**extra_payload, "sentence": signal.sentence, "severity": signal.severity, "cause": signal.cause,
                 "key": signal.key},
    )  # fmt: skip


def queue_messages(env: Environment, outbox: Outbox, cause: str, now: datetime) -> None:
    """Write down every message that the cause calls for by now; those that are there already stay as they are."""
    signals = outbox.signals(cause)
    for due_message in due_messages(signals, now, timedelta(hours=env.alerts.remind_hours)):
        alert_record = signals[due_message.record_index]
        for channel in env.alerts.channels:
            if channel_accepts(
                channel, severity=alert_record.severity, model=alert_record.model, event=alert_record.event
            ):
                outbox.post(_outbox_message(due_message, signals, channel.name, now))


def _outbox_message(word: DueMessage, signals: Sequence[Signal], channel: str, now: datetime) -> Message:
    told = signals[word.record_index]
    lasts = word.occasion in ("new", "worse", "reminder")
    return Message(
        id=message_id(word.id_source, word.occasion, channel),
        cause=told.cause,
        occasion=word.occasion,
        channel=channel,
        severity=told.severity,
        subject=message_subject(word.occasion, told.severity, told.event, told.model, told.environment),
        body=message_body(told.sentence, told.links, owner=told.owner, cause=told.cause, since=word.since, occurrences=word.occurrences,
                  is_open=lasts),
        at=now,
    )  # fmt: skip


def _run_link() -> dict[str, str]:
    """Return the address of this flow run's page, where there is a flow run."""
    page = url_for("flow-run", flow_run.id) if flow_run.id else None
    return {"run": page} if page else {}
