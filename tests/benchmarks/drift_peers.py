"""What another library finds in the windows of `drift_kinds.py`, printed as JSON: the drifted columns by window.

    python tests/benchmarks/drift_peers.py (evidently | nannyml | alibi) FOLDER

A program of its own that imports nothing of ours, so that it runs with libraries that do not fit our lock file. The
folder holds `reference.parquet` and `windows.parquet` (the same columns, and `window`). Each uses its defaults.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd


def evidently(reference: pd.DataFrame, windows: list[pd.DataFrame]) -> list[list[str]]:
    """Return the columns that Evidently's default preset calls drifted."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(reference))
    before, found = Dataset.from_pandas(reference, definition), []
    for window in windows:
        metrics = Report([DataDriftPreset()]).run(Dataset.from_pandas(window, definition), before).dict()["metrics"]
        configs = [(each["config"], float(each["value"])) for each in metrics if each["config"].get("column")]
        found.append(
            [
                config["column"]
                for config, value in configs
                if (value < config["threshold"]) == ("p_value" in str(config["method"]))
            ]
        )
    return found


def nannyml(reference: pd.DataFrame, windows: list[pd.DataFrame]) -> list[list[str]]:
    """Return the columns with an alert of NannyML's univariate drift (Jensen-Shannon, three standard deviations)."""
    import nannyml

    calculator = nannyml.UnivariateDriftCalculator(column_names=list(reference), chunk_size=len(windows[0]))
    calculator.fit(reference)
    alerts = calculator.calculate(pd.concat(windows, ignore_index=True)).filter(period="analysis").to_df()
    return [
        [name for name in reference if alerts[(name, "jensen_shannon", "alert")].iloc[at]] for at in range(len(windows))
    ]


def alibi(reference: pd.DataFrame, windows: list[pd.DataFrame]) -> list[list[str]]:
    """Return the columns below the threshold of alibi-detect's TabularDrift (Kolmogorov-Smirnov, Bonferroni at 5 %)."""
    from alibi_detect.cd import TabularDrift

    detector = TabularDrift(reference.to_numpy(np.float64), p_val=0.05)
    found = []
    for window in windows:
        data = detector.predict(window.to_numpy(np.float64), drift_type="batch")["data"]
        found.append([name for name, p in zip(reference, data["p_val"], strict=True) if p < data["threshold"]])
    return found


def main(name: str, folder: Path) -> None:
    """Compare, and print."""
    reference, current = (pd.read_parquet(folder / f"{part}.parquet") for part in ("reference", "windows"))
    windows = [rows.drop(columns="window").reset_index(drop=True) for _, rows in current.groupby("window")]
    peer = {"evidently": evidently, "nannyml": nannyml, "alibi": alibi}[name]
    print("\n" + json.dumps(peer(reference, windows)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
