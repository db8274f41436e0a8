"""A program that writes Evidently's report on samples, with our scores. Only this module imports Evidently.

    python -m tasks.monitoring.rules.evidently_report FOLDER

The folder holds `reference.parquet`, `current.parquet` and `scores.json` (by column: score, threshold, drifted);
`report.html` and `report.json` are added. It is a separate process because Evidently needs seconds to load, and
gigabytes for many rows. Alerts depend only on our scores over all rows; Evidently's own scores are for information.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

os.environ.setdefault("DO_NOT_TRACK", "1")

from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import SingleValueCalculation, SingleValueMetric
from evidently.presets import DataDriftPreset
from evidently.tests import lt


class StabilityIndex(SingleValueMetric):  # type: ignore[misc]  # Evidently has no types for mypy
    """The population stability index of a column over all rows, from the monitoring report."""

    column: str
    score: float


class StabilityIndexCalculation(SingleValueCalculation[StabilityIndex]):  # type: ignore[misc]  # the same
    """Puts the score into the report."""

    def calculate(self, context: Any, current_data: Any, reference_data: Any) -> Any:
        """Return the score, and nothing for the reference."""
        return self.result(self.metric.score), None

    def display_name(self) -> str:
        """Return the name in the report."""
        return f"Population stability index of {self.metric.column}, over all rows"


def build_report(reference: pd.DataFrame, current: pd.DataFrame, scores: dict[str, dict[str, Any]]) -> Any:
    """Return Evidently's evaluated report: first our scores, each with its test, then its own comparison.

    Columns without a value in one of the samples are left out, because Evidently raises on them.
    """
    columns = [
        name
        for name in reference.columns
        if name in current and reference[name].notna().any() and current[name].notna().any()
    ]
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(reference[name])]
    texts = [name for name in columns if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    pair = [
        Dataset.from_pandas(rows[columns].replace([float("inf"), float("-inf")], float("nan")), definition)
        for rows in (current, reference)
    ]
    ours = [
        StabilityIndex(column=name, score=each["score"], tests=[lt(each["threshold"])])
        for name, each in scores.items()
        if each["score"] is not None
    ]
    return Report([*ours, DataDriftPreset(columns=columns)]).run(*pair)


def default_preset_drift(reference: pd.DataFrame, current: pd.DataFrame, columns: list[str]) -> tuple[bool, list[str]]:
    """Return the result of Evidently's default preset: whether the data set drifted, and which columns did."""
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(reference[name])]
    texts = [name for name in columns if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    pair = [Dataset.from_pandas(rows[columns], definition) for rows in (current, reference)]
    result = Report([DataDriftPreset(columns=columns)]).run(*pair)
    drifted = [
        each["config"]["column"]
        for each in result.dict()["metrics"]
        if each["config"].get("column") and _is_drift(each["config"], float(each["value"]))
    ]
    return len(drifted) >= len(columns) / 2, drifted


def _is_drift(config: dict[str, Any], value: float) -> bool:
    """Return whether a value is drift: a p-value below the threshold, or a distance at or above it."""
    threshold = float(config["threshold"])
    return value < threshold if "p_value" in str(config["method"]) else value >= threshold


def main(arguments: list[str]) -> int:
    """Write the report for a folder."""
    folder = Path(arguments[0])
    reference, current = (pd.read_parquet(folder / f"{part}.parquet") for part in ("reference", "current"))
    report = build_report(reference, current, json.loads((folder / "scores.json").read_text()))
    report.save_html(str(folder / "report.html"))
    report.save_json(str(folder / "report.json"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
