"""Alerts: record an event in the ledger first, then queue the messages about it until they are delivered."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from blocks.environment import Environment, TrustDiffers, check_registered
from blocks.outbox.base import AlertMessage, Outbox
from blocks.records.alerts import AlertRecord
from runtime.foreign_text import one_line
from tasks.notification.rules.kinds import AlertRecordState, Severity, channel_accepts, event_kind
from tasks.notification.rules.story import (
    DueMessage,
    due_messages,
    is_alert_open,
    message_body,
    message_id,
    message_subject,
)
from tasks.shared.models import load_model
from tasks.shared.reports import only_reports
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.refusal import Refusal

CLOSED_CAUSE_LOOKBACK = timedelta(days=1)
"""Closed alerts are still checked for this long, for messages that a crash prevented from being queued."""


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
) -> AlertRecord:
    """Record an event of a model in the ledger, queue its messages, and emit it as a Prefect event.

    Args:
        env: the environment of the event.
        event_name: one of `tasks.notification.rules.kinds`.
        model: the model's name; empty: the event concerns the whole environment.
        sentence: what happened, in one sentence.
        alert_record_key: its key in the ledger. A second call with the same key records nothing new.
        state: the state of the alert; by default `raised` for a lasting condition, else `news`.
        subject_id: what the event concerns when several may be open at once, such as an approval request.
        links: further links beside the flow run: label and address, or a command to type.
        severity: the severity; by default that of the event's kind.
        payload: further values of the Prefect event, for automations.
        now: when it happened; by default the time of the call.
    """
    kind, outbox, at = event_kind(event_name), env.outbox(), now or datetime.now(UTC)
    signal = outbox.record_signal(
        AlertRecord(
            key=alert_record_key,
            cause=alert_cause(env, model, event_name, subject_id),
            event=event_name,
            state=state or ("raised" if kind.is_condition else "news"),
            model=model,
            environment=env.name,
            severity=severity or kind.severity,
            owner=model_owner(model),
            summary=one_line(sentence),
            at=at,
            links={**_run_link(), **(links or {})},
        )
    )
    queue_messages(env, outbox, signal.cause, at)
    if flow_run.id:
        with only_reports("the Prefect event of an alert"):
            _emit_prefect_event(signal, payload or {})
    return signal


def report_registered_settings(env: Environment, found_by: str) -> None:
    """Raise the alert that the blocks on the Prefect server are not those of the trust file, or end it.

    Nothing is recorded while nothing changes. `found_by` says who found the difference, such as a flow run.
    """
    event, sentence = "environment.changed", ""
    try:
        check_registered(env)
    except TrustDiffers as difference:
        sentence = str(difference)
        logging.getLogger("ratchet.trust").error("%s", sentence)
    if is_alert_open(env.outbox().signals(alert_cause(env, "", event))) != bool(sentence):
        state: AlertRecordState = "raised" if sentence else "recovered"
        emit_alert(
            env,
            event,
            model="",
            sentence=sentence or "The blocks on the Prefect server are those of the trust file again.",
            alert_record_key=f"{event}:{state}:{found_by}",
            state=state,
        )


def alert_cause(env: Environment, model: str, event_name: str, subject_id: str = "") -> str:
    """Return what the records of one alert have in common: model, environment, event and, if given, the subject."""
    return "/".join(filter(None, (model, env.name, event_name, subject_id)))


def model_owner(model: str) -> str:
    """Return the owner of the model. An alert is sent even when `model.yaml` cannot be read."""
    if not model:
        return "whoever runs the environment"
    try:
        return load_model(model).spec.owner
    except Refusal:
        return f"unknown: models/{base_name(model)}/model.yaml cannot be read"


def retraining_mode(model: str) -> str:
    """Return whether an alert starts a retraining of the model: `automatic`, or `manual`."""
    try:
        return "automatic" if model and load_model(model).spec.retraining.automatic else "manual"
    except Refusal:
        return "manual"


def _emit_prefect_event(signal: AlertRecord, extra_payload: Mapping[str, Any]) -> None:
    """Emit the Prefect event for automations. The alert is in the ledger: a lost event only delays messages."""
    suffix = f".{signal.state}" if signal.state in ("recovered", "acknowledged") else ""
    emit_event(
        f"{signal.event}{suffix}",
        resource={"prefect.resource.id": f"ratchet.model.{signal.model}" if signal.model
                                         else f"ratchet.environment.{signal.environment}",
                  "prefect.resource.name": signal.model or signal.environment,
                  "ratchet.environment": signal.environment, "ratchet.retraining": retraining_mode(signal.model)},
        payload={**extra_payload, "sentence": signal.summary, "severity": signal.severity, "cause": signal.cause,
                 "key": signal.key},
    )  # fmt: skip


def queue_messages(env: Environment, outbox: Outbox, cause: str, now: datetime) -> None:
    """Queue every message of the cause that is due by now; queued ones are not changed."""
    signals = outbox.signals(cause)
    for due_message in due_messages(signals, now, timedelta(hours=env.alerts.remind_hours)):
        alert_record = signals[due_message.record_index]
        for channel in env.alerts.channels:
            if channel_accepts(
                channel, severity=alert_record.severity, model=alert_record.model, event=alert_record.event
            ):
                outbox.add_message(_outbox_message(due_message, signals, channel.name, now))


def _outbox_message(
    due_message: DueMessage, signals: Sequence[AlertRecord], channel: str, now: datetime
) -> AlertMessage:
    signal = signals[due_message.record_index]
    is_open = due_message.occasion in ("new", "worse", "reminder")
    return AlertMessage(
        id=message_id(due_message.id_source, due_message.occasion, channel),
        cause=signal.cause,
        occasion=due_message.occasion,
        channel=channel,
        severity=signal.severity,
        subject=message_subject(due_message.occasion, signal.severity, signal.event, signal.model, signal.environment),
        body=message_body(signal.summary, signal.links, owner=signal.owner, cause=signal.cause,
                          since=due_message.since, occurrences=due_message.occurrences, is_open=is_open),
        at=now,
    )  # fmt: skip


def _run_link() -> dict[str, str]:
    """Return the link to this flow run's page; empty outside a flow run."""
    page = url_for("flow-run", flow_run.id) if flow_run.id else None
    return {"run": page} if page else {}
