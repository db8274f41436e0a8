"""Tier statistics: a random tier is not marked, a skewed one is, and a column that was not measured is marked."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from blocks.engines.duckdb import DuckDBEngine
from tasks.validation.rules.parquet_rows import ParquetRows
from tasks.validation.rules.statistics import (
    TableStatistics,
    parent_statistics,
    statistic_differences,
    tier_comparison_markdown,
    tier_statistics,
)
from tasks.validation.tasks import parquet_rows

KINDS = {"label": "category", "price": "number", "rooms": "number", "plan": "category", "garden": "flag"}
ROWS = 4000


def houses(seed: int = 7, each: int = 1) -> pd.DataFrame:
    """Return houses with this many equal rows each."""
    chance = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"h{n}" for n in range(ROWS)],
            "label": chance.choice(["No", "Yes"], ROWS, p=[0.7, 0.3]),
            "price": chance.normal(1000, 50, ROWS),
            "rooms": np.where(chance.random(ROWS) < 0.05, np.nan, chance.integers(1, 9, ROWS)),
            "plan": chance.choice(list("abcdef"), ROWS),
            "garden": chance.integers(0, 2, ROWS),
        }
    )
    return frame.loc[frame.index.repeat(each)]


def laid(folder: Path, frame: pd.DataFrame, name: str) -> ParquetRows:
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / f"{name}.parquet")
    return parquet_rows([folder / f"{name}.parquet"], DuckDBEngine.model_validate({}))


def compared(folder: Path, all_rows: pd.DataFrame, tier: pd.DataFrame) -> tuple[TableStatistics, TableStatistics]:
    parent = parent_statistics(laid(folder, all_rows, "all"), "id", KINDS)
    return parent, tier_statistics(laid(folder, tier, "tier"), "id", parent)


def marked(parent: TableStatistics, tier: TableStatistics) -> set[tuple[str, str]]:
    return {(each.column, each.statistic) for each in statistic_differences(parent, tier) if each.is_significant}


def test_the_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    frame = houses()
    parent, tier = compared(tmp_path, frame, frame.head(400))
    told = {(each.column, each.statistic): each for each in statistic_differences(parent, tier)}
    assert (parent.rows, parent.entities, tier.rows, tier.entities) == (ROWS, ROWS, 400, 400)
    assert told["price", "mean"].parent == pytest.approx(frame.price.mean())
    assert told["price", "mean"].tier == pytest.approx(frame.price[:400].mean())
    assert told["label", "share of Yes"].parent == pytest.approx((frame.label == "Yes").mean())
    assert told["rooms", "null"].tier == pytest.approx(frame.rooms[:400].isna().mean())
    assert sum(column == "plan" for column, _ in told) == 1 + 3, "nulls and the three most frequent"
    error = frame.price.std(ddof=0) / 20 * np.sqrt(1 - 0.1)
    assert told["price", "mean"].standard_errors == pytest.approx(
        (frame.price[:400].mean() - frame.price.mean()) / error
    )


@pytest.mark.slow
def test_tiers_drawn_by_chance_are_rarely_marked(tmp_path: Path) -> None:
    frame = houses()
    found = [marked(*compared(tmp_path, frame, frame.sample(frac=0.1, random_state=seed))) for seed in range(30)]
    assert sum(map(bool, found)) <= 2, "one in a hundred is expected"


SKEWED = {
    "more of one class": (lambda d: pd.concat([d[d.label == "Yes"].head(300), d[d.label == "No"].head(300)]), ("label", "share of Yes")),
    "dearer": (lambda d: d.nlargest(2000, "price").sample(400, random_state=1), ("price", "mean")),
    "nulls": (lambda d: d.sample(400, random_state=1).assign(rooms=lambda t: t.rooms.where(t.garden == 1)), ("rooms", "null")),
    "a plan less": (lambda d: d[d.plan != "a"].head(400), ("plan", "share of a")),
}  # fmt: skip


@pytest.mark.parametrize(("skew", "figure"), SKEWED.values(), ids=SKEWED)
def test_a_skewed_tier_is_marked(tmp_path: Path, skew, figure: tuple[str, str]) -> None:  # type: ignore[no-untyped-def]
    frame = houses(seed=1)
    frame["plan"] = frame["plan"].where(frame["plan"] != "b", "a")  # so that "a" is among the most frequent
    parent, tier = compared(tmp_path, frame, skew(frame))
    assert figure in marked(parent, tier)
    assert "⚠️" in tier_comparison_markdown(parent, tier, "label")


def test_what_is_not_measured_in_the_tier_is_marked(tmp_path: Path) -> None:
    frame = houses()
    gone = frame.head(400).assign(rooms=np.nan).drop(columns="price")
    parent, tier = compared(tmp_path, frame, gone)
    assert {("price", "mean"), ("price", "null"), ("rooms", "mean")} <= marked(parent, tier)
    assert "not measured" in tier_comparison_markdown(parent, tier, "label")


def test_an_empty_tier_is_marked_throughout(tmp_path: Path) -> None:
    parent, tier = compared(tmp_path, houses(), houses().head(0))
    assert len(marked(parent, tier)) == len(parent.figures)


def test_like_rows_of_one_entity_say_no_more_than_one(tmp_path: Path) -> None:
    once, often = houses(), houses(each=10)
    first = compared(tmp_path, once, once.head(400))
    tenfold = compared(tmp_path, often, often.head(4000))
    for one, ten in zip(statistic_differences(*first), statistic_differences(*tenfold), strict=True):
        assert ten.standard_errors == pytest.approx(one.standard_errors)


def test_the_whole_as_its_own_tier_differs_in_nothing(tmp_path: Path) -> None:
    assert marked(*compared(tmp_path, houses(), houses().sample(frac=1, random_state=1))) == set()


def test_the_parent_is_kept_as_it_was_measured(tmp_path: Path) -> None:
    parent, _ = compared(tmp_path, houses(), houses().head(10))
    assert TypeAdapter(TableStatistics).validate_json(json.dumps(asdict(parent))) == parent


def test_the_target_comes_first_and_names_cannot_break_the_table(tmp_path: Path) -> None:
    frame = houses().assign(plan=lambda d: d.plan + "|*x*")
    lines = tier_comparison_markdown(*compared(tmp_path, frame, frame.head(400)), "label").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows[2].split("|")[2].strip() == "label"
    assert all(line.count("|") == 7 for line in rows)
