"""Small real models, and a real host process, for the tests of serving."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from blocks.endpoints.base import Golden, Release
from blocks.endpoints.local import LocalEndpoint
from runtime.digests import folder_digest
from tests.checkout import ROOT
from tests.signing_keys import MODELS, signed

TOKEN = "a-token-for-tests-0123456789"  # noqa: S105 - not a secret
COLUMNS = ["tenure", "charges", "flag", "contract"]
ROWS = [[34, 20.5, 1, "month"], [1, None, 0, "year"], [70, 99.0, 0, "never seen"]]
REQUEST = json.dumps({"dataframe_split": {"columns": COLUMNS, "data": ROWS}})


def frame(rows: Sequence[Sequence[object]] = ROWS) -> pd.DataFrame:
    """The rows as the model saw them in training: doubles, one long, text."""
    kinds = {"tenure": "float64", "charges": "float64", "flag": "int64", "contract": "str"}
    return pd.DataFrame(rows, columns=COLUMNS).astype(kinds)


def churn_model(folder: Path, trees: int) -> Path:
    """Train a LightGBM pipeline on 400 rows and save it as the project's training programs do."""
    import mlflow.models
    import mlflow.sklearn
    from lightgbm import LGBMClassifier
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    random = np.random.default_rng(7)
    contracts = random.choice(["month", "year"], 400)
    columns = [random.integers(0, 72, 400), random.normal(60, 20, 400), random.integers(0, 2, 400), contracts]
    x = frame(list(zip(*columns, strict=True)))
    x.loc[:20, "charges"] = np.nan
    y = (x["tenure"] + random.normal(0, 10, 400) < 30).astype(int)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    steps = ColumnTransformer([("text", encoder, ["contract"])], remainder="passthrough")
    booster = LGBMClassifier(n_estimators=trees, n_jobs=1, verbosity=-1, random_state=7)
    pipeline = Pipeline([("columns", steps), ("booster", booster)]).fit(x, y)
    trusted = ["collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"]
    mlflow.sklearn.save_model(
        pipeline,
        str(folder),
        serialization_format="skops",
        skops_trusted_types=trusted,
        pyfunc_predict_fn="predict_proba",
        signature=mlflow.models.infer_signature(x, pipeline.predict_proba(x)),
        input_example=x[:3],
        pip_requirements=["lightgbm", "scikit-learn"],
    )
    return signed(folder)


def code_model(folder: Path, at_load: str = "pass", at_predict: str = "return [0.5] * len(model_input)") -> Path:
    """Save a model of plain Python that does as told when it is loaded, and when it is asked."""
    import mlflow.models
    import mlflow.pyfunc

    text = "import os, time, sys\nimport mlflow\n{}\nclass Told(mlflow.pyfunc.PythonModel):\n"
    text += "    def predict(self, context, model_input, params=None):\n        {}\n"
    text += "mlflow.models.set_model(Told())\n"
    program = folder.parent / f"{folder.name}.py"
    program.write_text(text.format("pass", "return [0.5] * len(model_input)"))
    signature = mlflow.models.infer_signature(frame(), [0.5])
    mlflow.pyfunc.save_model(str(folder), python_model=str(program), signature=signature, pip_requirements=[])
    (folder / program.name).write_text(text.format(at_load, at_predict))
    return signed(folder, loaders=["mlflow.pyfunc.loaders.code_model"], own_code=True)


def release(model: Path, version: str, predictions: object = None, endpoint: str = "churn") -> Release:
    """A release of the model, whose golden answer is its own (asked without any server) unless one is given."""
    if predictions is None:
        import mlflow.pyfunc

        predictions = np.asarray(mlflow.pyfunc.load_model(str(model)).predict(frame())).tolist()
    return Release(endpoint, version, model, folder_digest(model), Golden(REQUEST, json.dumps(predictions)))


@dataclass
class Host:
    """A host process over a state folder, and the adapter that speaks to it."""

    process: "subprocess.Popen[bytes]"
    url: str
    state: Path
    token_file: Path

    def endpoint(self, **fields: object) -> LocalEndpoint:
        """An adapter with its store below the host's state."""
        known = {"store": self.state / "releases", "trusted_keys": [MODELS.public]}
        return LocalEndpoint(url=self.url, token_file=self.token_file, **{**known, **fields})


def token_file(folder: Path) -> Path:
    """A token file as the host wants it."""
    path = folder / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


@contextmanager
def host(state: Path, *, load_seconds: float = 60) -> Iterator[Host]:
    """Start `python -m services.model_server`, wait until it answers, and end it afterwards."""
    state.mkdir(parents=True, exist_ok=True)
    token = token_file(state)
    command = [sys.executable, "-m", "services.model_server", "--port", "0", "--state", str(state)]
    command += ["--token-file", str(token), "--load-seconds", str(load_seconds), "--trusted-key", MODELS.public]
    with (state / "host.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout
    try:
        url = process.stdout.readline().decode().split()[-1]
        wait_for(url + "/ping", process)
        yield Host(process, url, state, token)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(url: str, process: "subprocess.Popen[bytes]", seconds: float = 60) -> None:
    """Wait until the address answers 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with code {process.returncode}"
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{url} did not answer within {seconds} s")
