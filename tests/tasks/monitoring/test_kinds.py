"""Monitoring runs on columns of every kind: drift names the column, and a reference of an older layout is not read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import PrivateAttr

from blocks.engines.base import QueryTables
from blocks.engines.duckdb import DuckDBEngine
from tasks.monitoring.reference import load_reference
from tasks.monitoring.reporting import REPORT_COLUMNS
from tasks.monitoring.rules.report import monitoring_plot
from tasks.shared.rules.model.spec import parse_spec
from tests.fakes.environment import World
from tests.fixtures.monitored import MODEL, ask_days, causes, houses, judgement, land, looked, promote, serving
from tests.fixtures.spec_cases import BINARY

Column = Callable[[pd.DataFrame], np.ndarray | pd.Series]


def serving_rooms(folder: Path, **columns: Column) -> World:
    """Return an environment whose version was trained on houses with these columns."""
    env = World.at(folder)
    env._adapters["blocks.engines.duckdb.DuckDBEngine"] = DuckDBEngine()
    land(env, houses(3000).assign(**columns), "first")
    promote(env)
    return env


def zeros(share: float) -> Column:
    return lambda rows: np.where(np.random.default_rng(len(rows)).random(len(rows)) < share, 0.0, rows["rooms"] + 5)


def note(words: int) -> Column:
    return lambda rows: np.array([f"{key[1:].zfill(6)} " * words for key in rows["house_id"]])


def far(rows: pd.DataFrame) -> np.ndarray:
    return np.where(rows.index % 10 == 0, 1e6, rows["rooms"])


def same(rows: pd.DataFrame) -> np.ndarray:
    return rows["rooms"].to_numpy()


KINDS: dict[str, tuple[str, Column, Column, str]] = {
    "95 % zeros, then 60 %": ("rooms", zeros(0.95), zeros(0.6), "rooms (mean "),
    "a constant 5, then 100": ("rooms", lambda r: np.full(len(r), 5.0), lambda r: np.full(len(r), 100.0), "5 → 100"),
    "a tenth far outside": ("rooms", same, far, "rooms (mean "),
    "free text that gets longer": ("street", note(3), note(9), "street (length) (mean "),
}


@pytest.mark.parametrize(("column", "before", "now", "words"), KINDS.values(), ids=KINDS)
def test_drift_names_the_column(tmp_path: Path, column: str, before: Column, now: Column, words: str) -> None:
    env = serving_rooms(tmp_path, **{column: before})
    ask_days(env, 500, **{column: before})
    assert looked(env, tmp_path).outcome == "no_drift"
    later = serving_rooms(tmp_path / "later", **{column: before})
    ask_days(later, 500, **{column: now})
    seen = looked(later, tmp_path / "later", draw=monitoring_plot)
    assert seen.outcome == "drift" and f"distribution:{column}" in causes(seen)
    assert words in seen.summary


def test_free_text_is_stored_neither_in_the_reference_nor_in_the_samples(tmp_path: Path) -> None:
    env = serving_rooms(tmp_path, street=note(3))
    ask_days(env, 300, street=note(3))
    seen = looked(env, tmp_path)
    stored = load_reference(env, MODEL, "1").folder / "reference.json"
    texts = [stored.read_text(), (seen.folder / "monitoring-report.json").read_text()]
    assert all("000012" not in text and '"text"' in text for text in texts)
    assert pd.read_parquet(seen.folder / "current.parquet")["street"].dtype == float


def test_values_after_none_at_all_are_told(tmp_path: Path) -> None:
    env = serving_rooms(tmp_path, street=lambda rows: pd.Series(["Elm", *[None] * (len(rows) - 1)], dtype=object))
    ask_days(env, 500)
    seen = looked(env, tmp_path, draw=monitoring_plot)
    assert "nulls:street" in causes(seen)


def test_a_reference_of_an_older_layout_is_made_again_and_not_read(tmp_path: Path) -> None:
    env = serving(tmp_path)
    made = load_reference(env, MODEL, "1").folder
    stem, _, layout = made.name.rpartition("-")
    older = made.rename(made.with_name(f"{stem}-{int(layout) - 1}"))
    (older / "reference.json").write_text('{"columns": [{"name": "rooms", "edges": [0.0]}], "counts": {}}')
    ask_days(env, 500)
    assert looked(env, tmp_path).outcome == "no_drift"
    assert (made / "reference.json").exists()


def test_a_column_with_two_findings_counts_once_in_the_sentence(tmp_path: Path) -> None:
    env = serving(tmp_path)
    rooms = {"rooms": lambda rows: (rows["rooms"] + 9).where(rows.index % 5 != 0)}
    ask_days(env, 500, **rooms, street="Ash", garden=1)
    seen = looked(env, tmp_path)
    assert {"nulls:rooms", "distribution:rooms"} <= causes(seen)
    columns = {cause.partition(":")[2] for cause in causes(seen)}
    assert seen.summary.endswith(f"; and {len(columns) - 3} more.")


def test_windows_are_said_in_words(tmp_path: Path) -> None:
    env = serving(tmp_path)
    ask_days(env, 500)
    assert "Data: the 3 newest windows of 1 day of the inference log" in (
        (looked(env, tmp_path).folder / "report.md").read_text()
    )
    once = looked(env, tmp_path, windows=1, min_breached_windows=1)
    assert "Data: the newest window of 1 day of" in (once.folder / "report.md").read_text()


class CountingEngine(DuckDBEngine):
    """Counts its queries."""

    _queries: int = PrivateAttr(default=0)

    @contextmanager
    def query_session(self, tables: QueryTables) -> Iterator[Callable[[str], pa.Table]]:
        with super().query_session(tables) as query:

            def counted(sql: str) -> pa.Table:
                self._queries += 1
                return query(sql)

            yield counted


def queries_of_a_run(folder: Path, width: int) -> int:
    """Return how many queries a monitoring run makes for this many columns, of which all have drifted."""
    numbers = {f"n{at}": lambda rows: rows["rooms"] + 3 for at in range(width // 2)}
    texts = {f"c{at}": lambda rows: rows["street"].replace("Oak", "Fir") for at in range(width // 2)}
    known = "    rooms: number\n"
    features = "".join([known, *(f"    {n}: number\n" for n in numbers), *(f"    {c}: category\n" for c in texts)])
    model = replace(MODEL, spec=parse_spec(BINARY.replace(known, features), "model.yaml"))
    env, engine = World.at(folder), CountingEngine()
    env._adapters["blocks.engines.duckdb.DuckDBEngine"] = engine
    names = {**dict.fromkeys(numbers, same), **dict.fromkeys(texts, lambda rows: rows["street"])}
    land(env, houses(2000).assign(**names), "first")
    promote(env, model)
    ask_days(env, 300, **numbers, **texts)
    seen = looked(env, folder, model=model)
    assert len([cause for cause in causes(seen) if cause.startswith("distribution:")]) == width
    return engine._queries


def test_the_queries_of_a_run_do_not_grow_with_the_columns_one_by_one(tmp_path: Path) -> None:
    few, many = (queries_of_a_run(tmp_path / str(width), width) for width in (20, 80))
    assert many - few <= 30, "60 columns more"


def test_evidently_s_report_is_about_the_columns_that_changed_most(tmp_path: Path) -> None:
    env = serving(tmp_path)
    ask_days(env, 500, garden=1)
    seen = looked(env, tmp_path)
    first = pd.read_parquet(seen.folder / "current.parquet").columns[0]
    assert REPORT_COLUMNS < 100 and first == judgement(seen)["column_drifts"][0]["column"]["name"] == "garden"
