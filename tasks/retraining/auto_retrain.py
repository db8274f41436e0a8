"""Answer an alert of watching: decide whether the model is retrained by itself, and write down what was decided."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from blocks.common.errors import TerminalError
from blocks.environment import Environment
from blocks.outbox.base import Outbox, Signal
from tasks.notification.rules.story import is_open
from tasks.retraining.label_arrivals import labelled_rows, landed_since
from tasks.retraining.rules.facts import Asked, Facts, Kind, Rows, Unknown
from tasks.retraining.rules.guards import refusals, weigh
from tasks.retraining.rules.report import sentence, table
from tasks.shared.alerts import tell
from tasks.shared.champion import champion_version
from tasks.shared.cost import make_bill, read_prices
from tasks.shared.models import Model
from tasks.shared.records import Answered
from tasks.shared.rules.cost.budget import Bill, stays_here
from tasks.shared.rules.refusal import Refusal

KINDS: dict[str, Kind] = {"model.drift.detected": "drift", "model.quality.degraded": "quality"}
STARTED, REFUSED = "retraining.started", "retraining.refused"
_Found = TypeVar("_Found")


def answer_signal(world: Environment, model: Model, event: str, key: str, now: datetime) -> tuple[Answered, str]:
    """Return what comes of a signal, and the page of what the guards say; "" where they were not asked.

    The ledger holds what was decided before anything is started: who is killed in between finds it there, starts
    the run under the same key, and counts it.

    Raises:
        Refusal: the ledger has no such signal.
    """
    name, outbox = model.spec.name, world.outbox()
    signals = outbox.signals(f"{name}/{world.name}/{event}")
    signal = _signal(signals, key, f"{name}/{world.name}/{event}")
    asked = Asked(KINDS[event], signal.at, is_open(signals), signal.sentence)
    requester = f"automation: {event}"
    if not model.spec.retraining.automatic:
        off = "retraining.automatic in model.yaml is off, so nothing is started by itself."
        return Answered(outcome="Off", key=signal.key, sentence=off, because=asked.because, requested_by=requester), ""
    before = _decided(outbox, name, world.name, signal.key)
    page = ""
    if before is None:
        said = weigh(model.spec.retraining, gather(world, model, asked, now))
        refused, page = refusals(said), table(name, asked, said)
        before = tell(
            world, REFUSED if refused else STARTED, model=name, sentence=sentence(asked, refused),
            key=f"{REFUSED if refused else STARTED}:{signal.key}",
            severity="warning" if any(each.guard == "in vain" for each in refused) else "info",
            payload={"guards": [each.guard for each in refused], "answers": signal.key}, now=now,
        )  # fmt: skip
    return Answered(
        outcome="Retraining" if before.event == STARTED else "Refused",
        key=signal.key,
        sentence=before.sentence,
        because=asked.because,
        requested_by=requester,
    ), page


def gather(world: Environment, model: Model, asked: Asked, now: datetime) -> Facts:
    """Find out what the guards look at; what cannot be found out is written down as unknown."""
    spec, signals = model.spec, world.outbox().signals(f"{model.spec.name}/{world.name}/{STARTED}")
    lines = [line for line in world.effects().deployments(spec.name, world.name) if line.status == "serving"]
    rows = _found(lambda: landed_since(world, spec, champion_version(world, spec.name), now))
    return Facts(
        now=now,
        asked=asked,
        started=tuple(each.at for each in signals),
        approved=tuple(line.at for line in lines if line.action == "deploy"),
        serving_since=max((line.at for line in lines), default=None),
        waiting=tuple(
            (each.id, each.expires_at)
            for each in world.approvals().open_requests(spec.name)
            if each.environment == world.name
        ),
        rows=rows,
        bill=_found(lambda: _bill(world, model, rows, now)),
        budget=spec.budget,
    )


def _signal(signals: tuple[Signal, ...], key: str, cause: str) -> Signal:
    """Return the signal that is to be answered: an event alone, which anybody may emit, starts nothing."""
    raised = [each for each in signals if each.state == "raised" and key in {"", each.key}]
    if not raised:
        remedy = "Only what watching wrote there is answered: run watch_drift, or leave the key empty."
        raise Refusal("the ledger has no such alert", where=cause, value=key or None, remedy=remedy)
    return raised[-1]


def _decided(outbox: Outbox, model: str, environment: str, key: str) -> Signal | None:
    """Return what was decided over a signal before, as by a run that was killed."""
    for event in (STARTED, REFUSED):
        for each in outbox.signals(f"{model}/{environment}/{event}"):
            if each.key == f"{event}:{key}":
                return each
    return None


def _bill(world: Environment, model: Model, rows: Rows | Unknown, now: datetime) -> Bill:
    """Return what the run may cost at worst, by the trainer that would take as many rows as there are now."""
    small = False
    if world.has_small_trainer and not isinstance(rows, Unknown):
        expected = int(labelled_rows(world, model.spec) * (1 - model.spec.holdout))
        small = stays_here(expected, model.spec.budget.local_rows)
    return make_bill(world, model, world.trainer_for(small=small), read_prices(), now, to_serve=True)


def _found(find: Callable[[], _Found]) -> _Found | Unknown:
    """Return what is found; what may be found in a moment is raised, and tried again."""
    try:
        return find()
    except (Refusal, TerminalError) as refused:
        return Unknown(str(refused).rstrip("."))
