"""The container's entry point `train`, run as on SageMaker: a process, a base folder, JSON files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT

ENTRY_POINT = ROOT / "runtime" / "train.py"
SHOW = "import json, os\nprint(json.dumps({k: v for k, v in os.environ.items() if k.startswith('SM_')}))\n"


def lay_out(base: Path, source: str) -> Path:
    """Create a base folder with a channel of data, one of code, and the three files of configuration."""
    for channel in ("train", "code"):
        (base / "input" / "data" / channel).mkdir(parents=True)
    (base / "input" / "data" / "code" / "train.py").write_text(source)
    config = base / "input" / "config"
    config.mkdir()
    (config / "hyperparameters.json").write_text('{"rounds": "3"}')
    (config / "inputdataconfig.json").write_text('{"train": {}, "code": {}}')
    (config / "resourceconfig.json").write_text('{"current_host": "algo-1", "hosts": ["algo-1"]}')
    return base


def start(base: Path, **environment: str) -> "subprocess.Popen[str]":
    clean = {"PATH": os.environ["PATH"], "SAGEMAKER_BASE_DIR": str(base), "PYTHONUNBUFFERED": "1", **environment}
    command = [sys.executable, str(ENTRY_POINT)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=clean, stdout=pipe, stderr=pipe, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_the_program_sees_what_sagemaker_would_show_it(tmp_path: Path) -> None:
    code, out, _ = finish(start(lay_out(tmp_path, SHOW)))
    seen = json.loads(out)
    assert code == 0 and not (tmp_path / "output" / "failure").exists()
    assert seen["SM_MODEL_DIR"] == str(tmp_path / "model") and (tmp_path / "model").is_dir()
    assert seen["SM_OUTPUT_DATA_DIR"] == str(tmp_path / "output" / "data")
    assert seen["SM_CHANNEL_TRAIN"] == str(tmp_path / "input" / "data" / "train")
    assert json.loads(seen["SM_CHANNELS"]) == ["code", "train"]
    assert json.loads(seen["SM_HPS"]) == {"rounds": "3"} and seen["SM_CURRENT_HOST"] == "algo-1"


def test_a_failure_leaves_the_last_words_and_the_exit_code(tmp_path: Path) -> None:
    source = "import sys\nfor n in range(40): print('line', n, file=sys.stderr)\nsys.exit('column fee is bad')\n"
    code, _, err = finish(start(lay_out(tmp_path, source)))
    failure = (tmp_path / "output" / "failure").read_text()
    assert code == 1 and "line 0\n" in err
    assert "column fee is bad" in failure and "exit code 1" in failure and "line 0\n" not in failure
    assert len(failure) <= 1024


def test_a_program_ended_by_a_signal_counts_as_128_and_its_number(tmp_path: Path) -> None:
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    code, _, _ = finish(start(lay_out(tmp_path, source)))
    assert code == 128 + signal.SIGKILL
    assert "SIGKILL" in (tmp_path / "output" / "failure").read_text()


def test_sigterm_reaches_the_program_which_may_end_in_order(tmp_path: Path) -> None:
    source = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('checkpoint kept', flush=True), sys.exit(0)))\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    process = start(lay_out(tmp_path, source))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    code, out, _ = finish(process)
    assert code == 0 and out == "checkpoint kept\n"


def test_how_it_ended_is_written_for_whoever_comes_later(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    finish(start(lay_out(tmp_path / "good", "pass"), RATCHET_STATUS_FILE=str(status)))
    assert json.loads(status.read_text())["exit_code"] == 0
    finish(start(lay_out(tmp_path / "bad", "raise ValueError('no')"), RATCHET_STATUS_FILE=str(status)))
    assert json.loads(status.read_text())["exit_code"] == 1
    assert "ValueError: no" in json.loads(status.read_text())["reason"]


def test_training_ends_when_the_process_that_asked_for_it_is_gone(tmp_path: Path) -> None:
    """Without that it would run for an hour."""
    parent = subprocess.Popen(["sleep", "3600"])
    source = "import time\nprint('ready', flush=True)\ntime.sleep(3600)\n"
    process = start(lay_out(tmp_path, source), RATCHET_PARENT_PID=str(parent.pid))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    parent.kill()
    parent.wait()
    code, _, _ = finish(process)
    assert code != 0
    assert "interrupted" in (tmp_path / "output" / "failure").read_text()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        pytest.param("input/config/hyperparameters.json", "{", "Expecting", id="broken JSON"),
        pytest.param("input/config/hyperparameters.json", "[1]", "not an object", id="a list"),
        pytest.param("input/data/code/train.py", None, "no train.py", id="no program"),
    ],
)
def test_unusable_input_is_named(tmp_path: Path, file: str, content: str | None, said: str) -> None:
    lay_out(tmp_path, SHOW)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    code, _, _ = finish(start(tmp_path))
    assert code == 1 and said in (tmp_path / "output" / "failure").read_text()


def test_without_a_code_channel_the_named_folder_is_run(tmp_path: Path) -> None:
    lay_out(tmp_path / "base", SHOW)
    program = tmp_path / "program"
    (tmp_path / "base" / "input" / "data" / "code").rename(program)
    code, out, _ = finish(start(tmp_path / "base", RATCHET_PROGRAM=str(program)))
    assert code == 0 and "SM_MODEL_DIR" in out
