"""The evaluation of two models' predictions for the holdout rows of a tier."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.rules.evaluation import Comparable, Evaluation, Leak, count_leaked, evaluate_predictions
from tasks.evaluation.rules.leaks import LeakSearch, sample_positions, sampled_rows, search_leaks
from tasks.evaluation.rules.spending import SpentLevel
from tasks.shared.models import TeamModel
from tasks.shared.records import TierData
from tasks.shared.rules.model.holdout import HoldoutRule, parse_holdout_rule
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import parquet_files
from tasks.validation.rules.parquet_rows import to_frame


def evaluate_on_holdout(
    model: TeamModel,
    data: TierData,
    rows: pd.DataFrame,
    challenger: np.ndarray,
    champion: np.ndarray | None,
    champion_version: str,
    seed: int,
    *,
    spent_level: SpentLevel | None = None,
    comparable: Comparable | None = None,
) -> Evaluation:
    """Evaluate both models' predictions of the holdout rows, and count what the holdout shares with training.

    They are compared on the rows of `comparable` (see `comparable_rows`); None compares them on all.
    """
    spec = model.spec
    rule = _rule(spec, data)
    return evaluate_predictions(
        task_type=spec.task,
        classes=spec.data.classes,
        spec=spec.evaluation,
        truth=rows[spec.data.target],
        slice_columns=rows[[rule.column for rule in spec.evaluation.slices]],
        challenger=challenger,
        champion=champion,
        champion_version=champion_version,
        leak=find_leak(data, rule, spec.data.entity, rows),
        leak_search=search_tier(model, data, rule, rows),
        seed=seed,
        spent_level=spent_level,
        training_rows=data.train_rows,
        comparable=comparable,
    )


def comparable_rows(spec: ModelSpec, data: TierData, rows: pd.DataFrame, since: datetime | None) -> Comparable | None:
    """Return which rows of the holdout are newer than `since`; None when all are compared."""
    if since is None:
        return None
    return Comparable((_times(rows, _rule(spec, data)) > since).to_numpy(dtype=bool), since.isoformat())


def _rule(spec: ModelSpec, data: TierData) -> HoldoutRule:
    return parse_holdout_rule(data.holdout_rule) if data.holdout_rule else spec.holdout_rule


def find_leak(data: TierData, rule: HoldoutRule, entity: str, rows: pd.DataFrame) -> Leak:
    """Count the entities or groups on both sides; by time, the holdout rows not newer than training and its gap."""
    if rule.by != "time":
        key, named = (rule.group, "groups") if rule.group else (entity, "entities")
        parts = [pq.read_table(part, columns=[key]) for part in data.training_parts.values()]
        leaked = count_leaked(pa.concat_tables(parts)[key], rows[key])
        if leaked or not rule.time:
            return Leak(leaked, f"{named} of the holdout were seen in training")
    if not data.trained_until:
        raise Refusal(
            "it is unknown until when the training rows go", where=rule.sentence, remedy="Sample the data again."
        )
    trained = [pq.read_table(part, columns=[rule.time]).to_pandas() for part in data.training_parts.values()]
    newest = max(datetime.fromisoformat(data.trained_until), *(_times(part, rule).max() for part in trained))
    late = int((~(_times(rows, rule) > newest + rule.gap)).sum())
    return Leak(late, "rows of the holdout are not newer than the training rows and the gap after them")


def _times(rows: pd.DataFrame, rule: HoldoutRule) -> pd.Series:
    """Return the times of the rows in UTC."""
    return pd.to_datetime(rows[rule.time], utc=True)


def search_tier(model: TeamModel, data: TierData, rule: HoldoutRule, holdout: pd.DataFrame) -> LeakSearch:
    """Look for signs of a leak in samples of a tier's training rows and of its holdout rows.

    A rule by time may have an entity on both sides: rows of the same entity are then no repeats.
    """
    spec = model.spec
    entity = spec.data.entity if rule.time else ""
    columns = list(dict.fromkeys(filter(None, [*spec.data.features, spec.data.target, entity])))
    train, train_rows = sample_rows(data.train, columns, len(spec.data.classes))
    chosen = sample_positions(len(holdout), sampled_rows(len(holdout), len(columns), len(spec.data.classes)))
    return search_leaks(
        task=spec.task,
        classes=spec.data.classes,
        features=spec.data.features,
        target=spec.data.target,
        train=train.dropna(subset=[spec.data.target]),
        holdout=holdout[columns].iloc[chosen],
        train_rows=train_rows,
        entity=entity,
    )


def sample_rows(folder: Path, columns: Sequence[str], classes: int = 1) -> tuple[pd.DataFrame, int]:
    """Return evenly spaced rows of a part of a tier, read in bounded memory, and how many rows there are in all."""
    files = parquet_files(folder)
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    positions, first, batches = sample_positions(rows, sampled_rows(rows, len(columns), classes)), 0, []
    for file in files:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(columns=list(columns)):
                own = positions[np.searchsorted(positions, first) : np.searchsorted(positions, first + len(batch))]
                batches.append(batch.take(pa.array(own - first)))
                first += len(batch)
    return to_frame(pa.Table.from_batches(batches)), rows
