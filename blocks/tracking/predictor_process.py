"""The process that loads models and predicts: started with none of our environment, and asked by files."""

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

import numpy as np
import pandas as pd

from blocks.common.errors import Rejected
from blocks.common.temporary_folders import temporary_folder

_PREDICT_PROGRAM = Path(__file__).resolve().parents[2] / "runtime" / "predict.py"


class PredictorProcess:
    """A process of `runtime/predict.py`: it imports while nobody waits, then answers; it goes with us."""

    def __init__(self, trusted_keys: Sequence[str]) -> None:
        held = ExitStack()  # the folder outlives a killed process, and is swept up where we are killed with it
        self._home = held.enter_context(temporary_folder(None, "ratchet-predict-"))
        self._lock = threading.Lock()
        self._loaded: Path | None = None
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
        self.close = weakref.finalize(self, _end_process, self._process, held)

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone: a model may have taken it along."""
        return self._process.poll() is not None

    def load(self, model: Path) -> Callable[[pd.DataFrame], np.ndarray]:
        """Load a model, and return a function that says what it says of rows.

        One model is loaded at a time: where another was since, the function loads its own anew.

        Raises:
            Rejected: the model may not be loaded (unsigned, changed, of a kind that is not allowed) or does not load;
                the function: it refuses the rows, or the process ended.
        """
        with self._lock:
            self._load(model)
        return partial(self._predict, model)

    def _load(self, model: Path) -> None:
        self._loaded = None
        if said := self._send_command({"load": str(model.resolve())}):
            raise Rejected(f"model {model} {_load_error(said)}")
        self._loaded = model

    def _predict(self, model: Path, frame: pd.DataFrame) -> np.ndarray:
        with self._lock, tempfile.TemporaryDirectory(prefix="rows-", dir=self._home) as folder:
            if self._loaded != model:  # another was loaded since
                self._load(model)
            rows, out = Path(folder) / "rows.pkl", Path(folder) / "said.npy"
            frame.to_pickle(rows)  # there and not back: what a model answers is never unpickled
            if said := self._send_command({"frame": str(rows), "out": str(out)}):
                words = said["error"].rpartition("Error: ")[2][:500]
                raise Rejected(f"model {model} refuses {len(frame)} rows: {said['kind']}: {words}")
            return np.asarray(np.load(out, allow_pickle=False))

    def _send_command(self, order: dict[str, str]) -> dict[str, str]:
        try:
            assert self._process.stdin and self._process.stdout  # noqa: S101 - both are pipes
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return dict(json.loads(self._process.stdout.readline()))
        except (OSError, ValueError) as cause:
            log = self._home / "log"
            words = log.read_text(errors="replace")[-500:] if log.exists() else "it left no words"
            raise Rejected(f"the process that predicts has ended ({self._process.poll()}): {words}") from cause


_PREDICTORS: dict[tuple[int, tuple[str, ...]], PredictorProcess] = {}
_PREDICTORS_LOCK = threading.Lock()


def shared_predictor(keys: Sequence[str]) -> PredictorProcess:
    """Return this process's predictor with these pinned keys, started when it is first asked for.

    There is one, however many blocks ask: each start takes it three seconds. A fork starts its own, and where a model
    ended it another is started.
    """
    with _PREDICTORS_LOCK:
        at = (os.getpid(), tuple(keys))
        if at not in _PREDICTORS or _PREDICTORS[at].has_ended:
            _PREDICTORS[at] = PredictorProcess(keys)
        return _PREDICTORS[at]


def _end_process(process: "subprocess.Popen[str]", held: ExitStack) -> None:
    """End the process by closing its input, then give its folder back."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    held.close()


def _load_error(said: dict[str, str]) -> str:
    if said["kind"] in ("Unsigned", "Refused"):
        return f"is not loaded: {said['error']}"
    return f"does not load: {said['kind']}: {said['error'].rpartition('Error: ')[2][:500]}"


def _process_environment(keys: Sequence[str], home: str) -> dict[str, str]:
    """Return all that the process's environment holds."""
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
