"""Predict in a separate process whose environment holds no credentials.

    HOME=/a/separate/folder RATCHET_TRUSTED_KEYS=… python runtime/predict.py

It imports the libraries of models, and then reads commands from standard input, one JSON object per line: `load` (a
model's folder), or `frame` (a pickled data frame of the caller) with `out` (a .npy file to write), which uses the model
loaded last. A model is copied to a private folder, verified against the trusted keys, inspected, and loaded from the
copy. The response is one JSON object per line: {}, for a loaded model with `classes_` {"classes": […]}, or
{"error": …, "kind": …}. The program ends at the end of its
input, and removes the folder HOME. It imports only its siblings from the project.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if not __package__:  # started by its path: the package `runtime` is found one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.admission import UnsafeModel, UntrustedSignature, admit_model, pinned_keys
from runtime.signatures import signature_file


class PredictionProcess:
    """Executes commands; at most one model is loaded, with its private copy."""

    def __init__(self, keys: list[str] | None) -> None:
        self._keys = keys
        self._model: Any = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    def execute(self, command: Mapping[str, str]) -> dict[str, Any]:
        """Execute one command, and return {} or the error."""
        try:
            if "load" in command:
                return self._load(Path(command["load"]))
            self._predict(Path(command["frame"]), Path(command["out"]))
        except (UntrustedSignature, UnsafeModel) as refusal:
            return {"error": str(refusal), "kind": type(refusal).__name__}
        except BaseException as cause:  # loading and predicting run the model's own code, which may raise anything
            return {"error": str(cause), "kind": type(cause).__name__}
        return {}

    def _load(self, model: Path) -> dict[str, Any]:
        from mlflow import pyfunc

        self._model = None
        if self._copy:
            self._copy.cleanup()
        self._copy = tempfile.TemporaryDirectory(prefix="ratchet-model-")
        copy = Path(self._copy.name) / model.name
        shutil.copytree(model, copy, symlinks=True)
        if signature_file(model).exists():
            shutil.copyfile(signature_file(model), signature_file(copy))
        admit_model(copy, self._keys)
        self._model = pyfunc.load_model(str(copy), suppress_warnings=True)
        return {} if (classes := class_labels(self._model)) is None else {"classes": classes}

    def _predict(self, frame: Path, out: Path) -> None:
        import numpy as np
        import pandas as pd

        rows = pd.read_pickle(frame)  # noqa: S301 - written by the parent process, which is trusted
        predictions = np.asarray(self._model.predict(rows))
        if predictions.dtype.kind not in "fiub":
            predictions = as_numbers(predictions)
        with out.open("wb") as stream:
            np.save(stream, predictions.astype(np.float64), allow_pickle=False)


class LabelsReturned(Exception):
    """The model returned text: labels, not probabilities or numbers."""


def as_numbers(predictions: Any) -> Any:
    """Return predictions of objects as float64. Raises LabelsReturned, with the remedy, if they are text."""
    import numpy as np

    values = predictions.ravel().tolist()
    if label := next((each for each in values if isinstance(each, str)), ""):
        remedy = "log it with pyfunc_predict_fn='predict_proba', or return what predict_proba returns"
        raise LabelsReturned(f"it returned the label {label[:80]!r} instead of probabilities; {remedy}")
    return np.asarray(predictions, dtype=np.float64)


def class_labels(model: Any) -> list[str] | None:
    """Return the `classes_` of the model inside, as text in their order; None if it has none.

    Whole floats are written as integers: scikit-learn keeps the classes 0 and 1 as 0.0 and 1.0 if a column had a null.
    """
    try:
        inner = model.get_raw_model()
        labels = list(inner.classes_)
    except Exception:  # a model's own code may raise anything; most models have no classes_
        return None
    plain = [label.item() if getattr(label, "ndim", None) == 0 else label for label in labels]
    if not all(isinstance(label, (str, int, float)) for label in plain):
        return None
    return [str(int(label) if isinstance(label, float) and label.is_integer() else label) for label in plain]


def main() -> int:
    """Execute commands until the input ends."""
    sys.dont_write_bytecode = True
    responses = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a model's prints must not mix with the responses
    process = PredictionProcess(pinned_keys(os.environ))
    import mlflow.pyfunc
    import pandas
    import skops.io

    assert mlflow.pyfunc and pandas and skops.io  # noqa: S101 - imported before the first command, since it takes three seconds
    try:
        for line in sys.stdin:
            print(json.dumps(process.execute(json.loads(line))), file=responses, flush=True)
    finally:
        shutil.rmtree(os.environ["HOME"], ignore_errors=True)  # the parent process may be dead
    return 0


if __name__ == "__main__":
    sys.exit(main())
