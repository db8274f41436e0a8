"""Read a tier of the lake as of a point in time, split it once, and write it as files for validation and training."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.engines.base import Engine
from blocks.lake.base import Lake
from runtime.digests import text_digest
from tasks.evidence.rules.differences import feature_baseline
from tasks.shared.models import TeamModel
from tasks.shared.records import TierData
from tasks.shared.rules import sql
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.model.holdout import parse_holdout_rule
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.rows.content import ContentDigest
from tasks.shared.rules.rows.join_rules import check_tables, refuse_changed_row_count
from tasks.shared.rules.rows.joins import model_rows_sql, row_order_sql, select_where
from tasks.shared.rules.rows.tiers import (
    CutOffs,
    TierRule,
    cut_off_sql,
    newest_sql,
    refuse_empty_split,
    split_conditions,
    tier_bucket_bound,
    training_condition,
)
from tasks.shared.tables import (
    TableFiles,
    TableReads,
    check_tier_rows,
    count_tier_rows,
    split_cut_offs,
    tier_rule,
)
from tasks.training.rules.backtests import Division
from tasks.validation.rules.parquet_rows import to_frame

TIER_LAYOUT_VERSION = 4
"""Raise this number when tiers are written in another way, so that tiers of the old way are not reused."""


def materialise(
    lake: Lake,
    engine: Engine,
    reads: TableReads,
    spec: ModelSpec,
    tier: str,
    scratch: Path,
    recorded_rule: str = "",
) -> TierData:
    """Write the tier below `scratch`, or find it there: the same reads and rules give the same rows in the same order.

    Neither a compaction of the lake nor another engine changes the rows, the digests, or the bits of a model that is
    trained on them (`row_order_sql`). `recorded_rule` is the holdout rule of a version that was trained before; ""
    takes that of `spec`.

    Raises:
        Refusal: the tier has no training row or no holdout row, a row has no time or group to divide by, or the tables
            cannot be joined.
    """
    bound = tier_bucket_bound(spec.tiers, tier)
    holdout = parse_holdout_rule(recorded_rule) if recorded_rule else spec.holdout_rule
    rule = [
        TIER_LAYOUT_VERSION,
        reads.digest,
        tier,
        bound,
        spec.tiers.stratify_by,
        holdout.text,
        spec.training.validation_share,
        spec.data.group,
        model_rows_sql(spec.data),
    ]
    digest = text_digest(json.dumps(rule))
    folder = scratch / "tiers" / spec.name / digest[:32]
    if not (folder / "tier.json").exists():
        facts = {
            "model": spec.name,
            "tier": tier,
            "as_of": reads.main.id,
            "tables": {name: read.id for name, read in reads.joined.items()},
            "reread_as_of": reads.reread_as_of,
            "data_digest": reads.digest,
            "digest": digest,
            "holdout_rule": holdout.text,
            "values": reads.values_version,
        }
        check_tables(spec.data, reads.columns())
        chosen = tier_rule(lake, engine, reads, spec, tier)
        files = reads.files(lake, spec.data, chosen.bound)
        check_tier_rows(engine, files, spec.data, chosen)
        cut_offs = split_cut_offs(lake, engine, reads, spec, holdout)
        parts = split_conditions(holdout, spec.data.entity, cut_offs, spec.training.validation_share)
        facts["cut_off"] = cut_offs.holdout.astimezone(UTC).isoformat() if cut_offs.holdout else ""
        _write_tier(engine, files, spec, chosen, parts, folder, facts)
    os.utime(
        folder / "tier.json"
    )  # when it was last used: garbage collection removes tiers that were not used for long
    return TierData(folder=folder, **json.loads((folder / "tier.json").read_text()))


def _write_tier(
    engine: Engine,
    files: TableFiles,
    spec: ModelSpec,
    tier_rule: TierRule,
    parts: Mapping[str, str],
    folder: Path,
    facts: Mapping[str, object],
) -> None:
    """Write the tier to a temporary folder, then rename it: a visible tier is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=folder.parent))
    try:
        counts = _write_split(engine, files, spec.data, tier_rule, parts, staged)
        refuse_empty_split(counts, f"the {facts['tier']} tier of {spec.data.dataset} as of {facts['as_of']}")
        found: dict[str, object] = {f"{part}_rows": count for part, count in counts.items()}
        found |= {"holdout_digest": content_digest(staged / "holdout")}
        found |= {"trained_until": _trained_until(engine, spec.data, staged)}
        (staged / "tier.json").write_text(json.dumps({**facts, **found}))
        staged.rename(folder)
    except OSError:
        if not (folder / "tier.json").exists():
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _trained_until(engine: Engine, data: DataSpec, staged: Path) -> str:
    """Return the newest time of the rows that train or validate, ISO 8601 in UTC; "" when rows have no time."""
    if not data.time:
        return ""
    files = [str(path) for part in ("train", "validation") for path in parquet_files(staged / part)]
    newest = engine.query(newest_sql(data.time), {"rows": files})["newest"][0].as_py()
    return str(newest.astimezone(UTC).isoformat()) if newest else ""


def _write_split(
    engine: Engine, files: TableFiles, data: DataSpec, chosen: TierRule, parts: Mapping[str, str], staged: Path
) -> dict[str, int]:
    """Write the rows of each part, those that its condition in SQL takes, and return how many there are."""
    order, within = row_order_sql(data), chosen.condition()
    if not data.tables:
        queries = {
            part: model_rows_sql(data, " AND ".join(filter(None, [within, rule]))) for part, rule in parts.items()
        }
        return {part: _write_query(engine, f"{rows} {order}", files, staged / part) for part, rows in queries.items()}
    found = _write_query(engine, model_rows_sql(data, within, bound=chosen.bound), files, staged / "joined")
    refuse_changed_row_count(data, count_tier_rows(engine, files, chosen), found)
    joined = {"rows": tuple(map(str, parquet_files(staged / "joined")))}
    queries = {part: select_where(map(sql.quoted_name, data.row_columns), "rows", rule) for part, rule in parts.items()}
    counts = {part: _write_query(engine, f"{rows} {order}", joined, staged / part) for part, rows in queries.items()}
    shutil.rmtree(staged / "joined")
    return counts


def _write_query(engine: Engine, sql: str, files: TableFiles, to: Path) -> int:
    """Write the result as Parquet files below a folder, a single file as rows.parquet; return how many rows."""
    rows = engine.write(sql, files, to)
    written = parquet_files(to)
    if len(written) == 1:
        written[0].rename(to / "rows.parquet")
    return rows


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files of a part of a tier, in the order of their rows."""
    return sorted(folder.glob("*.parquet"))


def content_digest(folder: Path) -> str:
    """Return the digest of a part's rows in order, in bounded memory. It does not depend on how the files are cut."""
    digest = ContentDigest()
    for path in parquet_files(folder):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                digest.update(pa.Table.from_batches([batch]))
    return digest.hexdigest()


def divide_again(engine: Engine, data: TierData, spec: ModelSpec, division: Division) -> TierData:
    """Write the parts of another division of the tier's rows below its folder, or find them there.

    It keeps the digest of the tier, which garbage collection spares while a run reads it.

    By hash, training gets no more rows than in the tier, so that both models know equally many; the entities whose rows
    are left out are chosen by another hash.
    """
    home = data.folder / "backtests" / text_digest(repr(division))[:16]
    if not (home / "parts.json").exists():
        home.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".staged-", dir=home.parent) as temporary:
            staged = Path(temporary) / "parts"
            counts = _write_parts(engine, data, spec, division, staged)
            (staged / "parts.json").write_text(json.dumps(counts))
            staged.rename(home)
    changes = {
        **json.loads((home / "parts.json").read_text()),
        "folder": home,
        "holdout_digest": "",
        "holdout_rule": division.rule.text,
        "cut_off": division.cut_off.isoformat() if division.cut_off else "",
        "trained_until": "",
        "unused_rows": 0,
    }
    return data.model_copy(update=changes)


def _write_parts(
    engine: Engine, data: TierData, spec: ModelSpec, division: Division, staged: Path
) -> Mapping[str, int]:
    """Write the rows of train, holdout and, where the model has them, validation; return how many there are."""
    rule, entity, share = division.rule, spec.data.entity, spec.training.validation_share
    files = {"main": [str(path) for part in data.all_parts for path in parquet_files(part)]}
    cut_offs = CutOffs(division.cut_off)
    if rule.time and share:
        older = training_condition(rule, entity, cut_offs)
        validation = engine.query(cut_off_sql(rule.time, share, older), files)["cut_off"][0].as_py()
        cut_offs = CutOffs(division.cut_off, validation or division.cut_off)
    columns, order = sql.quoted_names(spec.data.row_columns), row_order_sql(spec.data, stored_bucket=False)
    counts = {"validation_rows": 0}
    for part, condition in split_conditions(rule, entity, cut_offs, share, division.until).items():
        if part == "unused":
            continue
        rows = select_where([columns], "main", condition)
        if part == "train" and not rule.time:
            by_hash = order.replace("ORDER BY", f"ORDER BY {sql.bucket_sql(entity, 25)},", 1)
            rows = select_where([columns], f"({rows} {by_hash} LIMIT {data.train_rows}) AS chosen")
        counts[f"{part}_rows"] = engine.write(f"{rows} {order}", files, staged / part)
    return counts


def newest_time(engine: Engine, data: TierData, column: str) -> datetime:
    """Return the time of the newest row of the holdout, in UTC."""
    found = engine.query(newest_sql(column), {"rows": [str(path) for path in parquet_files(data.holdout)]})
    newest: datetime = found["newest"][0].as_py()
    return newest.astimezone(UTC)


BASELINE_ROWS = 100_000
"""The largest number of training rows from which the baseline of the features is computed."""


def training_feature_baseline(team_model: TeamModel, data: TierData) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return how many training rows were read, and the baseline of their features."""
    features = team_model.spec.data.features
    with pq.ParquetFile(parquet_files(data.train)[0]) as file:
        first = next(file.iter_batches(BASELINE_ROWS, columns=list(features)))
    rows = to_frame(pa.Table.from_batches([first]))
    return len(rows), feature_baseline(rows, features)
