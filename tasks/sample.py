"""Take a tier of the lake at a point in time, split it once, and lay it down as files for checks and training."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task

from blocks.digests import file_digest
from blocks.environment import open_environment
from blocks.lake.base import AsOf, Lake
from tasks.logic.model_spec import ModelSpec
from tasks.logic.refusal import Refusal
from tasks.logic.tiers import split, tier_bound
from tasks.models import load_model
from tasks.records import TierData
from tasks.retries import STAGE


@task(name="sample", **STAGE)
def sample(model: str, tier: str, as_of: str, environment: str) -> TierData:
    """Return the tier of the model's data as of a snapshot or time ("" is now), split into train and holdout."""
    world = open_environment(environment)
    lake, spec = world.lake(), load_model(model).spec
    read = lake.as_of(spec.data.dataset, as_of or None)
    return materialise(lake, read, spec, tier, world.scratch)


def materialise(lake: Lake, read: AsOf, spec: ModelSpec, tier: str, scratch: Path) -> TierData:
    """Lay the tier down below `scratch`, or find it there: the same read and rules make the same bytes.

    Raises:
        Refusal: the tier holds no row to train on, or none to decide with.
    """
    columns = [spec.data.entity, *spec.data.features, spec.data.target]
    bound = tier_bound(spec.tiers, tier)
    rule = json.dumps([read.digest, tier, bound, spec.holdout, columns])
    digest = hashlib.sha256(rule.encode()).hexdigest()
    folder = scratch / "tiers" / spec.name / digest[:32]
    if not (folder / "tier.json").exists():
        table = lake.read(read, below_bucket=bound, columns=columns)
        try:
            parts = split(table, spec.data.entity, spec.holdout)
        except Refusal as cause:
            where = f"the {tier} tier of {spec.data.dataset} as of {read.id}"
            remedy = "Ingest more rows, or raise the tier's rate in model.yaml."
            raise Refusal(str(cause), where=where, value=table.num_rows, remedy=remedy) from cause
        facts = {"model": spec.name, "tier": tier, "as_of": read.id, "data_digest": read.digest, "digest": digest}
        _lay_down(folder, {"train": parts.train, "holdout": parts.holdout}, facts)
    return TierData(folder=folder, **json.loads((folder / "tier.json").read_text()))


def _lay_down(folder: Path, parts: dict[str, pa.Table], facts: dict[str, str]) -> None:
    """Write beside, then rename: a tier that is visible is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=folder.parent))
    try:
        for name, rows in parts.items():
            (staged / name).mkdir()
            pq.write_table(rows, staged / name / "rows.parquet")
        counts = {f"{name}_rows": rows.num_rows for name, rows in parts.items()}
        digest = file_digest(staged / "holdout" / "rows.parquet")
        (staged / "tier.json").write_text(json.dumps({**facts, **counts, "holdout_digest": digest}))
        staged.rename(folder)
    except OSError:
        if not (folder / "tier.json").exists():
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
