"""A separate process that loads models and predicts, without this process's environment variables.

Rows and predictions are exchanged as files.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from blocks.common.errors import Rejected
from blocks.common.temporary_folders import temporary_folder

_PREDICT_PROGRAM = Path(__file__).resolve().parents[2] / "runtime" / "predict.py"


class PredictorProcess:
    """A running `runtime/predict.py`: it imports in the background, executes commands, and ends with this process."""

    def __init__(self, trusted_keys: Sequence[str]) -> None:
        resources = ExitStack()
        self._home = resources.enter_context(temporary_folder(None, "ratchet-predict-"))
        self._lock = threading.Lock()
        self._loaded: Path | None = None
        self._classes: tuple[str, ...] | None = None
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(_PREDICT_PROGRAM)],
                env=_process_environment(trusted_keys, str(self._home)),
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )
        self.close = weakref.finalize(self, _end_process, self._process, resources)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended; a model may have crashed it."""
        return self._process.poll() is not None

    def load(self, model: Path) -> Callable[[pd.DataFrame], np.ndarray]:
        """Load a model, and return a function that returns its predictions for a frame.

        One model is loaded at a time. If another was loaded since, the function loads its own again.

        Raises:
            Rejected: the model must not be loaded (unsigned, changed, or with a forbidden type) or does not load. The
                function raises it if the model does not accept the rows, or the process ended.
        """
        with self._lock:
            self._load(model)
        return partial(self._predict, model)

    def classes(self, model: Path) -> tuple[str, ...] | None:
        """Return the labels in the order of the model's probabilities, as its `classes_` has them; None without them.

        Raises:
            Rejected: as for `load`.
        """
        with self._lock:
            if self._loaded != model:
                self._load(model)
            return self._classes

    def _load(self, model: Path) -> None:
        self._loaded = None
        response = self._send_command({"load": str(model.resolve())})
        if "error" in response:
            raise Rejected(f"model {model} {_load_error(response)}")
        self._loaded, self._classes = model, tuple(response["classes"]) if "classes" in response else None

    def _predict(self, model: Path, frame: pd.DataFrame) -> np.ndarray:
        with self._lock, tempfile.TemporaryDirectory(prefix="rows-", dir=self._home) as folder:
            if self._loaded != model:  # another was loaded since
                self._load(model)
            rows, out = Path(folder) / "rows.pkl", Path(folder) / "predictions.npy"
            frame.to_pickle(rows)  # only in this direction: the process's output is never unpickled
            if failure := self._send_command({"frame": str(rows), "out": str(out)}):
                if failure["kind"] == "LabelsReturned":
                    raise Rejected(f"model {model}: {failure['error']}")
                message = failure["error"].rpartition("Error: ")[2][:500]
                raise Rejected(f"model {model} rejects {len(frame)} rows: {failure['kind']}: {message}")
            return np.asarray(np.load(out, allow_pickle=False))

    def _send_command(self, command: dict[str, str]) -> dict[str, Any]:
        try:
            assert self._process.stdin and self._process.stdout  # noqa: S101 - both are pipes
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            return dict(json.loads(self._process.stdout.readline()))
        except (OSError, ValueError) as cause:
            log = self._home / "log"
            lines = log.read_text(errors="replace")[-500:] if log.exists() else "it left no log"
            raise Rejected(f"the prediction process has ended ({self._process.poll()}): {lines}") from cause


_PREDICTORS: dict[tuple[int, tuple[str, ...]], PredictorProcess] = {}
_PREDICTORS_LOCK = threading.Lock()


def shared_predictor(keys: Sequence[str]) -> PredictorProcess:
    """Return this process's predictor with these trusted keys; start it on first use.

    All blocks share it, since each start takes three seconds. A fork starts its own, and a predictor that has ended is
    replaced.
    """
    with _PREDICTORS_LOCK:
        key = (os.getpid(), tuple(keys))
        if key not in _PREDICTORS or _PREDICTORS[key].has_ended:
            _PREDICTORS[key] = PredictorProcess(keys)
        return _PREDICTORS[key]


def as_predictions(result: object, artifact: Path, rows: int) -> np.ndarray:
    """Return a model's result as an array of float64 with one entry per row.

    Raises:
        Rejected: the result is not numeric, or has another number of rows.
    """
    try:
        predictions = np.asarray(result, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise Rejected(f"model {artifact} returned predictions that are not numbers: {cause}") from cause
    if predictions.ndim not in (1, 2) or len(predictions) != rows:
        raise Rejected(f"model {artifact} returned predictions of shape {predictions.shape} for {rows} rows")
    return predictions


def _end_process(process: "subprocess.Popen[str]", resources: ExitStack) -> None:
    """End the process by closing its input, then release its folder."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    resources.close()


def _load_error(failure: dict[str, str]) -> str:
    if failure["kind"] in ("UntrustedSignature", "UnsafeModel"):
        return f"is not loaded: {failure['error']}"
    return f"does not load: {failure['kind']}: {failure['error'].rpartition('Error: ')[2][:500]}"


def _process_environment(keys: Sequence[str], home: str) -> dict[str, str]:
    """Return the complete environment of the process."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "RATCHET_TRUSTED_KEYS": " ".join(keys),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
