"""Tell people what happened: written down first, delivered until it has arrived."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from blocks.environment import Environment
from blocks.outbox.base import Message, Outbox, Signal
from tasks.notification.rules.channels import takes
from tasks.notification.rules.kinds import Severity, kind_of
from tasks.notification.rules.story import Due, due, message_id
from tasks.notification.rules.words import body, subject
from tasks.shared.models import load_model
from tasks.shared.rules.model.namespaces import base_of
from tasks.shared.rules.refusal import Refusal

State = Literal["news", "raised", "recovered", "acknowledged"]

LOOK_BACK = timedelta(days=1)
"""A cause that is over is looked at for so long, for messages that a crash kept from being written down."""


def tell(
    world: Environment,
    event: str,
    *,
    model: str,
    sentence: str,
    key: str,
    state: State | None = None,
    about: str = "",
    links: Mapping[str, str] | None = None,
    severity: Severity | None = None,
    payload: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> Signal:
    """Write down that something happened to a model, with the messages that follow, and emit it as a Prefect event.

    Args:
        world: the environment that it happened in.
        event: one of `tasks.notification.rules.kinds`.
        model: the model's name.
        sentence: what happened, in one sentence.
        key: its name in the ledger: a repeat under the same key is no second event.
        state: what became of it; by default `raised` for what lasts, else `news`.
        about: what of the model it is about, where several may be open at once: an approval request.
        links: where to look, besides the flow run: label and address, or a command to type.
        severity: how grave it is this time; by default as grave as its kind.
        payload: what the Prefect event carries besides: for automations, not for people.
        now: when it happened; by default the time of the call.
    """
    kind, outbox, at = kind_of(event), world.outbox(), now or datetime.now(UTC)
    signal = outbox.signal(
        Signal(
            key=key,
            cause="/".join(filter(None, (model, world.name, event, about))),
            event=event,
            state=state or ("raised" if kind.lasts else "news"),
            model=model,
            environment=world.name,
            severity=severity or kind.severity,
            owner=owner_of(model),
            sentence=sentence,
            at=at,
            links={**_run_link(), **(links or {})},
        )
    )
    write_messages(world, outbox, signal.cause, at)
    if flow_run.id:
        _emit(signal, payload or {})
    return signal


def owner_of(model: str) -> str:
    """Return who looks after the model; an alert is told also when its `model.yaml` cannot be read."""
    try:
        return load_model(model).spec.owner
    except Refusal:
        return f"unknown: models/{base_of(model)}/model.yaml cannot be read"


def retraining_of(model: str) -> str:
    """Return whether the model is retrained by itself when watching finds something: `automatic`, or `by hand`."""
    try:
        return "automatic" if load_model(model).spec.retraining.automatic else "by hand"
    except Refusal:
        return "by hand"


def _emit(signal: Signal, more: Mapping[str, Any]) -> None:
    """Let Prefect's automations know; the ledger has it already, so a lost event is a late message at the worst."""
    ended = f".{signal.state}" if signal.state in ("recovered", "acknowledged") else ""
    emit_event(
        f"{signal.event}{ended}",
        resource={"prefect.resource.id": f"ratchet.model.{signal.model}", "prefect.resource.name": signal.model,
                  "ratchet.environment": signal.environment, "ratchet.retraining": retraining_of(signal.model)},
        payload={**more, "sentence": signal.sentence, "severity": signal.severity, "cause": signal.cause,
                 "key": signal.key},
    )  # fmt: skip


def write_messages(world: Environment, outbox: Outbox, cause: str, now: datetime) -> None:
    """Write down every message that the cause calls for by now; those that are there already stay as they are."""
    signals = outbox.signals(cause)
    for word in due(signals, now, timedelta(hours=world.alerts.remind_hours)):
        told = signals[word.place]
        for channel in world.alerts.channels:
            if takes(channel, severity=told.severity, model=told.model, event=told.event):
                outbox.post(_message(word, signals, channel.name, now))


def _message(word: Due, signals: Sequence[Signal], channel: str, now: datetime) -> Message:
    told = signals[word.place]
    lasts = word.occasion in ("new", "worse", "reminder")
    return Message(
        id=message_id(word.name, word.occasion, channel),
        cause=told.cause,
        occasion=word.occasion,
        channel=channel,
        severity=told.severity,
        subject=subject(word.occasion, told.severity, told.event, told.model, told.environment),
        body=body(told.sentence, told.links, owner=told.owner, cause=told.cause, since=word.since, seen=word.seen,
                  open_=lasts),
        at=now,
    )  # fmt: skip


def _run_link() -> dict[str, str]:
    """Return the address of this flow run's page, where there is a flow run."""
    page = url_for("flow-run", flow_run.id) if flow_run.id else None
    return {"run": page} if page else {}
