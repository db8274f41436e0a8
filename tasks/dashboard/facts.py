"""What the dashboard of a model shows, gathered from the ledger, the lake, the endpoint, MLflow and Prefect.

Each part is learnt by itself: one that cannot be is `Unknown` with its reason, and the others are shown.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from blocks.approvals.chain import decisions_of
from blocks.common.errors import NotFound, PortError
from blocks.effects.base import Deployment
from blocks.environment import Environment
from tasks.approval.rules.history import champion
from tasks.dashboard.rules.episodes import Episode, episodes
from tasks.dashboard.rules.facts import Costs, DataSet, Decider, Facts, Landing, Release, Serving, Unknown
from tasks.dashboard.schedule import next_runs
from tasks.dashboard.traffic import logged_rows, traffic
from tasks.monitoring.rules.findings import WatchRules
from tasks.monitoring.rules.requests import dataset_of
from tasks.shared.models import Model
from tasks.shared.monitoring_history import looks_since
from tasks.shared.rules.cost.spent import by_month
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal

_log = logging.getLogger("ratchet.dashboard")

BACK = timedelta(days=90)
"""How far back looks and alerts are shown."""

T = TypeVar("T")


def gather(world: Environment, model: Model, now: datetime) -> Facts:
    """Return all that can be learnt of a model now."""
    spec = model.spec
    lines = learn("releases", lambda: world.effects().deployments(spec.name, world.name))
    serving = lines if isinstance(lines, Unknown) else learn("serving", lambda: serving_of(world, spec.name, lines))
    return Facts(
        model=spec.name,
        environment=world.name,
        description=spec.description,
        owner=spec.owner,
        drawn_at=now,
        serving=serving,
        releases=lines if isinstance(lines, Unknown) else tuple(map(release_of, lines)),
        episodes=learn("alerts", lambda: episodes_of(world, spec.name, now - BACK)),
        traffic=learn("traffic", lambda: traffic(world, spec, now)),
        logged=learn("inference log", lambda: logged_rows(world, spec, now)),
        looks=learn("looks", lambda: looks_since(world, spec.name, now - BACK)),
        data=learn("data", lambda: tuple(data_sets(world, spec))),
        costs=learn("cost", lambda: Costs(by_month(world.tracking().runs(spec.name)), spec.budget.per_month_usd)),
        schedule=learn("schedule", lambda: next_runs(spec.name)),
        index_counts=WatchRules().effect,
        links=links_of(world, spec.name, serving),
    )


def learn(what: str, ask: Callable[[], T]) -> T | Unknown:
    """Return what is asked for, or that it is unknown and why: whatever goes wrong, the other parts are shown."""
    try:
        return ask()
    except (PortError, Refusal) as problem:
        reason = str(problem)
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}"
    _log.warning("the dashboard cannot show %s: %s", what, reason)
    return Unknown(reason)


def serving_of(world: Environment, model: str, lines: tuple[Deployment, ...]) -> Serving | None:
    """Return the version that serves by the ledger and who approved it; None when none does."""
    version = champion(lines)
    if not version:
        return None
    line = next(each for each in lines if (each.version, each.status) == (version, "serving"))
    return Serving(
        release=release_of(line),
        digest=line.digest,
        requested_by=learn("request", lambda: world.approvals().approval_request(line.request_id).requested_by),
        deciders=learn("decisions", lambda: deciders_of(world, line.request_id)),
        answers=learn("endpoint", lambda: answering(world, model)),
    )


def answering(world: Environment, model: str) -> str:
    """Return the version that the endpoint itself says it answers with; "" for none."""
    found = world.endpoint().serving(model)
    return found.version if found else ""


def release_of(line: Deployment) -> Release:
    """Return a line of the ledger as it is shown."""
    return Release(line.version, line.action, line.status, line.by, line.reason, line.at)


def deciders_of(world: Environment, request_id: str) -> tuple[Decider, ...]:
    """Return who decided on a request, in order."""
    return tuple(
        Decider(each.by, each.at, each.approved, each.reason, each.channel, each.authenticated)
        for each in decisions_of(world.approvals().links(request_id))
    )


def episodes_of(world: Environment, model: str, since: datetime) -> tuple[Episode, ...]:
    """Return the alerts and news of a model that are open or newer than a time, oldest first."""
    outbox, found = world.outbox(), []
    for cause in outbox.causes(since):
        signals = outbox.signals(cause)
        if signals and (signals[0].model, signals[0].environment) == (model, world.name):
            found += [each for each in episodes(signals) if each.lasts or each.begin >= since]
    return tuple(sorted(found, key=lambda each: each.begin))


def data_sets(world: Environment, spec: ModelSpec) -> Iterator[DataSet]:
    """Yield the data sets of a model: its rows, its further tables, and what it was asked and answered."""
    uses = {spec.data.dataset: "the rows that it learns from"}
    uses |= {table.dataset: f"table {name}" for name, table in spec.data.tables.items()}
    uses |= {dataset_of(spec): "requests and answers"}
    for name, use in uses.items():
        try:
            snapshots = world.lake().as_of(name).snapshots
        except NotFound:
            yield DataSet(name, use, (), 0)
            continue
        landings = tuple(Landing(each.created_at, each.rows, each.source) for each in snapshots)
        yield DataSet(name, use, landings, learn(f"size of {name}", partial(stored_bytes, world, name)))


def stored_bytes(world: Environment, dataset: str) -> int:
    """Return what a data set takes."""
    return world.lake().footprint(dataset).stored.bytes


def links_of(world: Environment, model: str, serving: Serving | Unknown | None) -> dict[str, str]:
    """Return addresses: of the version that serves, where it has a page."""
    if not isinstance(serving, Serving):
        return {}
    found = learn("version's page", lambda: world.tracking().version(model, serving.release.version))
    return {"version in MLflow": found.url} if found is not None and not isinstance(found, Unknown) else {}
