"""Predict in a separate process whose environment holds no credentials.

    HOME=/a/separate/folder RATCHET_TRUSTED_KEYS=… python runtime/predict.py

It imports the libraries of models, and then reads commands from standard input, one JSON object per line: `load` (a
model's folder), or `frame` (a pickled data frame of the caller) with `out` (a .npy file to write), which uses the model
loaded last. A model is copied to a private folder, verified against the trusted keys, inspected, and loaded from the
copy. The response is one JSON object per line: {}, or {"error": …, "kind": …}. The program ends at the end of its
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
                self._load(Path(command["load"]))
            else:
                self._predict(Path(command["frame"]), Path(command["out"]))
        except (UntrustedSignature, UnsafeModel) as refusal:
            return {"error": str(refusal), "kind": type(refusal).__name__}
        except BaseException as cause:  # loading and predicting run the model's own code, which may raise anything
            return {"error": str(cause), "kind": type(cause).__name__}
        return {}

    def _load(self, model: Path) -> None:
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

    def _predict(self, frame: Path, out: Path) -> None:
        import numpy as np
        import pandas as pd

        rows = pd.read_pickle(frame)  # noqa: S301 - written by the parent process, which is trusted
        predictions = np.asarray(self._model.predict(rows), dtype=np.float64)
        with out.open("wb") as stream:
            np.save(stream, predictions, allow_pickle=False)


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
