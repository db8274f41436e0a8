"""Predictions of models by a process of its own, in whose environment there is nothing to steal.

    HOME=/a/folder/of/its/own RATCHET_TRUSTED_KEYS=… python runtime/predict.py

It imports what a model needs, and then reads orders from standard input, one JSON object a line: `load` (a model's
folder), and then any number of `frame` (a pickled data frame, of whoever orders) with `out` (a .npy file to write): the
model that was loaded last is asked. A model is copied privately, verified against the pinned keys, inspected, and
loaded from the copy. The answer is one JSON object a line: {}, or {"error": …, "kind": …}. It ends when its input does,
and removes the folder HOME. It imports nothing of the project but its siblings.
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
    """What is loaded: one model at a time, with the private copy that it came from."""

    def __init__(self, keys: list[str] | None) -> None:
        self._keys = keys
        self._model: Any = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    def answer(self, order: Mapping[str, str]) -> dict[str, Any]:
        """Carry out one order, and say how it went."""
        try:
            if "load" in order:
                self._load(Path(order["load"]))
            else:
                self._predict(Path(order["frame"]), Path(order["out"]))
        except (UntrustedSignature, UnsafeModel) as no:
            return {"error": str(no), "kind": type(no).__name__}
        except BaseException as cause:  # loading and predicting run the model's own code: anything may come
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

        rows = pd.read_pickle(frame)  # noqa: S301 - of whoever started us, who may do anything anyway
        predictions = np.asarray(self._model.predict(rows), dtype=np.float64)
        with out.open("wb") as stream:
            np.save(stream, predictions, allow_pickle=False)


def main() -> int:
    """Answer orders until there are no more."""
    sys.dont_write_bytecode = True
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a model prints is no answer
    process = PredictionProcess(pinned_keys(os.environ))
    import mlflow.pyfunc
    import pandas
    import skops.io

    assert mlflow.pyfunc and pandas and skops.io  # noqa: S101 - imported ahead of the first order: three seconds
    try:
        for line in sys.stdin:
            print(json.dumps(process.answer(json.loads(line))), file=answers, flush=True)
    finally:
        shutil.rmtree(os.environ["HOME"], ignore_errors=True)  # ours alone, whoever started us may be dead
    return 0


if __name__ == "__main__":
    sys.exit(main())
