"""A world in memory in which a model serves, and traffic as its endpoint would have logged it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from blocks.endpoints.base import Logged
from blocks.endpoints.fake import FakeEndpoint
from blocks.engines.duckdb import DuckDBEngine
from runtime.digests import folder_digest
from tasks.monitoring.rules.findings import WatchRules
from tasks.monitoring.runs import Draw, Wanted, watch
from tasks.shared.models import Model
from tasks.shared.reads import fix_reads
from tasks.shared.records import Watched
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.shared.tiers import materialise
from tests.tasks.shared.rules.model.spec_cases import BINARY
from tests.tasks.shared.test_champion import NOW, World, release

MODEL = Model(Path("models/price"), parse_spec(BINARY, "models/price/model.yaml"))
UNTIL = datetime(2026, 11, 25, tzinfo=UTC)
DAY = timedelta(days=1)
WEIGHTS = {"rooms": 0.5, "garden": -1.0}


def houses(count: int, seed: int = 0, first: int = 0) -> pd.DataFrame:
    """Houses with a label that the model's weights explain."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "house_id": [f"h{number}" for number in range(first, first + count)],
            "rooms": random.normal(0, 1, count).round(3),
            "street": random.choice(["Elm", "Oak", "Ash"], count, p=[0.5, 0.3, 0.2]),
            "garden": random.integers(0, 2, count),
        }
    )
    score = rows["rooms"] * WEIGHTS["rooms"] + rows["garden"] * WEIGHTS["garden"]
    likely = 1 / (1 + np.exp(-4 * score))
    return rows.assign(price=np.where(random.random(count) < likely, "Yes", "No"))


def land(world: World, rows: pd.DataFrame, key: str) -> None:
    """Append houses to the lake."""
    ids = pa.array(rows["house_id"].tolist())
    table = pa.table({**{name: pa.array(rows[name].tolist()) for name in rows}, "_bucket": pa.array(tier_buckets(ids))})
    world.lake().append("houses", table, source="test", key=key, at=UNTIL - 9 * DAY)


def serving(folder: Path, rows: int = 3000) -> World:
    """Return a world in which version 1 of `price` was promoted on so many houses."""
    world = World.at(folder)
    world._adapters["blocks.engines.duckdb.DuckDBEngine"] = DuckDBEngine()
    land(world, houses(rows), "first")
    promote(world)
    return world


def promote(world: World, model: Model = MODEL, weights: Mapping[str, float] = WEIGHTS) -> None:
    """Register and release a version over what the lake holds now."""
    spec, tracking = model.spec, world.tracking()
    reads = fix_reads(world.lake(), spec.data, "")
    tier = materialise(world.lake(), world.engine(), reads, spec, "production", world.scratch)
    tags = {
        "ratchet.tier": "production",
        "ratchet.snapshot": reads.main.id,
        "ratchet.data_digest": reads.digest,
        "ratchet.tier_digest": tier.digest,
        "ratchet.read_at": reads.at,
    }
    run = tracking.open_run(spec.name, key="test", name="test")
    tracking.log_model(run.id, weights)  # type: ignore[attr-defined]  # the fake's own
    version = tracking.register(spec.name, run.id, key="test", tags=tags)
    artifact = tracking.fetch(spec.name, version.version, world.scratch / "fetched")
    released = UNTIL - 60 * DAY
    release(world, version.version, folder_digest(artifact), minutes=int((released - NOW) / timedelta(minutes=1)))


def ask(
    world: World, rows: pd.DataFrame, *, days_ago: float = 0.5, version: str = "1", said: Sequence[Any] | None = None
) -> None:
    """Have the endpoint log one request with these rows, so many days before UNTIL."""
    endpoint = world.endpoint()
    assert isinstance(endpoint, FakeEndpoint)
    columns = {name: [None if pd.isna(v) else v for v in rows[name].tolist()] for name in rows if name != "price"}
    score = rows["rooms"].fillna(0) * WEIGHTS["rooms"] + rows["garden"] * WEIGHTS["garden"]
    positive = 1 / (1 + np.exp(-score))
    answers = np.column_stack([1 - positive, positive]).tolist() if said is None else list(said)
    number = len(list(endpoint.logged("price"))) + int(days_ago * 1000)
    segment = f"{number:08d}-{len(rows)}"
    at = (UNTIL - days_ago * DAY).isoformat()
    request = {"at": at, "id": segment, "version": version, "rows": len(rows), "columns": columns}
    endpoint.keep("price", Logged(segment, ({**request, "answer": {"predictions": answers}},)))


def ask_days(world: World, count: int, days: int = 3, **change: Any) -> None:
    """Ask about so many new houses on each of the last days, changed as told."""
    for day in range(days):
        ask(world, houses(count, seed=100 + day, first=10_000 * (day + 1)).assign(**change), days_ago=day + 0.5)


def undrawn(*_: Any) -> None:
    """Draw nothing: a picture takes longer than the rest."""


def looked(
    world: World,
    folder: Path,
    *,
    model: Model = MODEL,
    wanted: Wanted | None = None,
    draw: Draw = undrawn,
    **rules: Any,
) -> Watched:
    """Look at the model as the flow does."""
    return watch(world, model, WatchRules(**rules), wanted or Wanted(UNTIL, DAY), folder / "look", draw)


def causes(seen: Watched) -> set[str]:
    """Return the causes of all that is told."""
    return {cause for told in seen.told for cause in told.causes}


def judgement(seen: Watched) -> Mapping[str, Any]:
    """Return what was written for programs."""
    read: dict[str, Any] = json.loads((seen.folder / "judgement.json").read_text())
    return read
