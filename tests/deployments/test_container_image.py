"""The container image: its entry point runs as on SageMaker, without Docker, and its Dockerfile copies real files."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.entry import PROGRAMS, resolve_command
from tests.checkout import ROOT
from tests.waiting import wait_for

FOLDER = ROOT / "runtime"
IMAGE = ROOT / "deployments" / "image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text()
LINES = [line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
CLEAN = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "LANG": "C.UTF-8"}


def entry(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(FOLDER / "entry.py"), *arguments],
        env={**CLEAN, **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def opt_ml(folder: Path, program: str) -> Path:
    """Create `/opt/ml` as SageMaker does, with this program in the channel `code`."""
    (folder / "input" / "config").mkdir(parents=True)
    (folder / "input" / "data" / "code").mkdir(parents=True)
    (folder / "input" / "data" / "code" / "train.py").write_text(program)
    (folder / "input" / "config" / "hyperparameters.json").write_text('{"rounds": "3"}')
    (folder / "input" / "config" / "inputdataconfig.json").write_text('{"code": {}}')
    return folder


def test_train_runs_the_program_of_the_channel_code(tmp_path: Path) -> None:
    program = "import os, pathlib\npathlib.Path(os.environ['SM_MODEL_DIR'], 'seen').write_text(os.environ['SM_HPS'])\n"
    done = entry("train", SAGEMAKER_BASE_DIR=str(opt_ml(tmp_path, program)))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "model" / "seen").read_text()) == {"rounds": "3"}


def test_a_training_that_fails_leaves_its_reason_and_its_exit_code(tmp_path: Path) -> None:
    done = entry("train", SAGEMAKER_BASE_DIR=str(opt_ml(tmp_path, "raise SystemExit('column fee is bad')")))
    assert done.returncode == 1
    assert "column fee is bad" in (tmp_path / "output" / "failure").read_text()


def test_a_stop_reaches_the_training_since_the_entry_point_became_it(tmp_path: Path) -> None:
    program = "import pathlib, time\npathlib.Path(__file__).with_name('started').touch()\ntime.sleep(60)\n"
    folder = opt_ml(tmp_path, program)
    job = subprocess.Popen(
        [sys.executable, str(FOLDER / "entry.py"), "train"], env={**CLEAN, "SAGEMAKER_BASE_DIR": str(folder)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for((folder / "input" / "data" / "code" / "started").exists)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_serve_says_what_is_wrong_with_a_model_that_is_not_there(tmp_path: Path) -> None:
    done = entry("serve", SM_MODEL_DIR=str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 1 and "not serving" in done.stderr


def test_any_other_command_runs_as_it_is() -> None:
    done = entry("python", "-c", "import sys; print(sys.argv[1:])", "train")
    assert (done.returncode, done.stdout.strip()) == (0, "['train']")


@pytest.mark.parametrize(
    ("arguments", "code", "told"), [((), 2, "say what to run"), (("no-such-program",), 127, "train, serve")]
)
def test_what_cannot_be_run_is_told(arguments: tuple[str, ...], code: int, told: str) -> None:
    done = entry(*arguments)
    assert done.returncode == code and told in done.stderr


def test_train_and_serve_are_the_files_that_are_there() -> None:
    assert {name: path.is_file() for name, path in PROGRAMS.items()} == {"train": True, "serve": True}
    assert resolve_command(["serve", "--x"]) == [sys.executable, str(FOLDER / "serve.py"), "--x"]


def copied() -> list[tuple[list[str], str]]:
    """Return the sources and the target of each COPY from the checkout."""
    words = [line.split()[1:] for line in LINES if line.startswith("COPY") and "--from=" not in line]
    return [(each[:-1], each[-1]) for each in words]


def test_everything_that_the_image_copies_is_there() -> None:
    sources = [source for found, _ in copied() for source in found]
    assert sources and [source for source in sources if not (ROOT / source).exists()] == []


def test_what_the_image_copies_and_nothing_else_is_let_through_by_its_ignore_file() -> None:
    sources = [source for found, _ in copied() for source in found]
    allowed = re.findall(r"^!(.+)$", (IMAGE / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert sources and sorted(sources) == sorted(allowed)


def test_the_entry_point_is_a_file_that_was_copied() -> None:
    (line,) = (line for line in LINES if line.startswith("ENTRYPOINT"))
    program = Path(json.loads(line.removeprefix("ENTRYPOINT"))[-1])
    (source,) = (found[0] for found, target in copied() if Path(target) == program.parent)
    assert (ROOT / source / program.name).is_file()


def test_the_environment_is_the_locked_one_from_no_index_that_is_named_here() -> None:
    installs = [part for line in LINES for part in line.split("&&") if re.search(r"\b(pip install|pip sync)\b", part)]
    assert len(installs) == 2 and all("--require-hashes" in part and ".lock" in part for part in installs)
    assert not re.search(r"--(extra-)?index|--find-links|--trusted-host|https?://", DOCKERFILE)


def test_base_images_have_a_version_and_are_of_the_python_that_we_lock_for() -> None:
    bases = [line.split()[1] for line in LINES if line.startswith("FROM")]
    (base,) = set(bases)
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base), (
        "a tag alone may name another image later"
    )


def test_what_the_container_runs_imports_nothing_of_the_project_but_its_siblings() -> None:
    for path in FOLDER.glob("*.py"):
        named = set(
            re.findall(
                r"^\s*(?:from|import) ((?:blocks|tasks|flows|deployments|services|local|ratchet)\b[\w.]*)",
                path.read_text(),
                re.MULTILINE,
            )
        )
        assert {name for name in named if not name.startswith("runtime")} == set(), path.name
