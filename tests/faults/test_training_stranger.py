"""A training program as a stranger: it reads keys, other tiers and its parent, uses the network, and leaves links."""

import ctypes
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from blocks.common.errors import JobFailed, Rejected
from blocks.environment import Environment
from blocks.trainers.local import LocalTrainer
from runtime.train import JOIN_SESSION_KEYRING, KEYRING_CALLS
from tests.faults.test_trust_anchors import SETTINGS
from tests.fixtures.isolation import isolated
from tests.fixtures.training_jobs import HEALTHY, a_job

STRANGER = """
import ctypes, json, os, pathlib, signal, socket, urllib.request

told = json.loads(os.environ["SM_HPS"])
kernel = pathlib.Path("/proc/sys/kernel/core_pattern")

def tried(name, attempt):
    try:
        print("RESULT", json.dumps([name, attempt()]), flush=True)
    except Exception as problem:
        print("RESULT", json.dumps([name, "refused"]), type(problem).__name__, flush=True)

def environments():
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(path.read_text(errors="replace"))
        except OSError:
            pass
    return "parents-secret" in "".join(found)

def put(path, text="changed"):
    pathlib.Path(path).write_text(text)
    return "written"

tried("key", lambda: pathlib.Path(told["key"]).read_text())
tried("tier", lambda: os.listdir(told["tier"]))
tried("parent", environments)
tried("kill", lambda: os.kill(int(told["pid"]), 0) or "signalled")
tried("network", lambda: socket.create_connection(("127.0.0.1", int(told["port"])), timeout=3) and "connected")
tried("status", lambda: put(pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"], "status.json")))
tried("input", lambda: put(pathlib.Path(os.environ["SM_CHANNEL_TRAIN"], "part-0.csv")))
tried("kernel", lambda: put(kernel, kernel.read_text()))
tried("keyring", lambda: ctypes.CDLL(None).syscall(int(told["keyctl"]), 11, int(told["serial"]), 0, 0))
tried("keyrings", lambda: ctypes.CDLL(None).syscall(int(told["keyctl"]), 0, -4, 1))
tried("home", lambda: sorted(os.listdir(pathlib.Path(told["key"]).parents[1])))
if os.environ.get("MLFLOW_TRACKING_URI"):
    tried("tracking", lambda: urllib.request.urlopen(os.environ["MLFLOW_TRACKING_URI"] + "/x", timeout=10).read().decode())
tried("own", lambda: sorted(os.listdir(os.environ["SM_CHANNEL_TRAIN"])))
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("a model")
"""
NOTHING = {"key": "refused", "tier": "refused", "parent": False, "kill": "refused", "network": "refused",
           "status": "refused", "input": "refused", "kernel": "refused", "keyring": -1, "keyrings": -1}  # fmt: skip


SESSION_KEYRING = -3


class Tracking(BaseHTTPRequestHandler):
    """A server that answers each request with its Host."""

    def do_GET(self) -> None:
        body = f"host {self.headers['Host'].partition(':')[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[int]:
    """Run a server of this machine, and return its port."""
    served = HTTPServer(("127.0.0.1", 0), Tracking)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served.server_port
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Put a key, another tier, and a variable of this process where the program looks for them."""
    for place in ("state/keys/models.pem", "state/scratch/tiers/other/part-0.csv"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text("a secret")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "parents-secret")
    _, add_key, keyctl = KEYRING_CALLS[os.uname().machine]
    call = ctypes.CDLL(None).syscall
    call(keyctl, JOIN_SESSION_KEYRING, None)
    serial = call(add_key, b"user", b"ticket", b"a secret", 8, SESSION_KEYRING)
    return {"key": str(tmp_path / "state/keys/models.pem"), "tier": str(tmp_path / "state/scratch/tiers/other"),
            "pid": str(os.getpid()), "keyctl": str(keyctl), "serial": str(serial)}  # fmt: skip


def results(trainer: LocalTrainer, folder: Path, told: dict[str, str], **variables: str) -> dict[str, object]:
    lines: list[str] = []
    job = a_job(folder, STRANGER, environment=variables)
    object.__setattr__(job, "hyperparameters", told)
    trainer.run(job, lines.append)
    return dict(json.loads(line.removeprefix("RESULT ").rpartition("]")[0] + "]") for line in lines if "RESULT" in line)


@isolated
def test_an_isolated_program_finds_its_inputs_and_nothing_else(
    secrets: dict[str, str], server: int, tmp_path: Path
) -> None:
    trainer = LocalTrainer(root=tmp_path / "state" / "jobs", isolation="bubblewrap")
    found = results(trainer, tmp_path, {**secrets, "port": str(server)})
    assert found == {**NOTHING, "home": ["jobs"], "own": ["part-0.csv"]}
    model = trainer.state("churn-1").model_folder
    assert model is not None and (model / "model.txt").read_text() == "a model"
    assert (tmp_path / "train" / "part-0.csv").read_text() == "a,b\n1,2\n"


@isolated
def test_an_isolated_program_reaches_the_tracking_server_and_no_other_port(
    secrets: dict[str, str], server: int, tmp_path: Path
) -> None:
    trainer = LocalTrainer(root=tmp_path / "state" / "jobs", isolation="bubblewrap")
    closed = {**secrets, "port": "1"}
    found = results(trainer, tmp_path, closed, MLFLOW_TRACKING_URI=f"http://localhost:{server}")
    assert found["tracking"] == "host localhost"
    assert {name: found[name] for name in NOTHING} == NOTHING


@isolated
def test_a_declared_network_opens_the_network_alone(secrets: dict[str, str], server: int, tmp_path: Path) -> None:
    trainer = LocalTrainer(root=tmp_path / "state" / "jobs", isolation="bubblewrap", network=True)
    found = results(trainer, tmp_path, {**secrets, "port": str(server)})
    assert {name: found[name] for name in NOTHING} == {**NOTHING, "network": "connected"}


def test_without_isolation_a_program_reads_what_its_user_may(secrets: dict[str, str], tmp_path: Path) -> None:
    """This is what docs/models.md says of a laptop."""
    trainer = LocalTrainer(root=tmp_path / "state" / "jobs")
    lines: list[str] = []
    trainer.run(a_job(tmp_path, f"print(open({secrets['key']!r}).read())\n"), lines.append)
    assert lines == ["a secret"]


@pytest.mark.parametrize("isolation", ["none", pytest.param("bubblewrap", marks=isolated)])
def test_a_model_with_a_link_to_a_key_is_not_taken(isolation: str, secrets: dict[str, str], tmp_path: Path) -> None:
    source = f"import os\nos.symlink({secrets['key']!r}, os.path.join(os.environ['SM_MODEL_DIR'], 'MLmodel'))\n"
    trainer = LocalTrainer(root=tmp_path / "state" / "jobs", isolation=isolation)
    with pytest.raises(JobFailed, match="model/MLmodel, which is neither a file nor a folder"):
        trainer.run(a_job(tmp_path, source), lambda _line: None)


LEFT = {
    "a setuid bit": ("path = os.path.join(os.environ['SM_MODEL_DIR'], 'tool'); open(path, 'w').close(); "
                     "os.chmod(path, 0o4755)", "model/tool, which has a setuid, setgid or sticky bit"),
    "a second name": ("path = os.path.join(os.environ['SM_MODEL_DIR'], 'a'); open(path, 'w').close(); "
                      "os.link(path, path + 'b')", "model/ab?, which has a second name"),
    "a link in the output": ("os.symlink('/etc/passwd', os.path.join(os.environ['SM_OUTPUT_DATA_DIR'], 'l'))",
                             "data/l, which is neither a file nor a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "problem"), LEFT.values(), ids=LEFT)
def test_a_model_with_more_than_plain_files_is_not_taken(source: str, problem: str, tmp_path: Path) -> None:
    trainer = LocalTrainer(root=tmp_path / "jobs")
    with pytest.raises(JobFailed, match=problem):
        trainer.run(a_job(tmp_path, f"import os\n{source}\n"), lambda _line: None)


@isolated
def test_an_interpreter_brings_its_own_folder_and_not_what_lies_beside_it(tmp_path: Path) -> None:
    """A link such as ~/.local/bin/python stands for the interpreter: `~/.local` is not bound."""
    (tmp_path / "home" / "bin").mkdir(parents=True)
    (tmp_path / "home" / "secret").write_text("a secret")
    python = tmp_path / "home" / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    source = f"import os\nprint(os.listdir({str(tmp_path / 'home')!r}))\n"
    lines: list[str] = []
    trainer = LocalTrainer(root=tmp_path / "jobs", isolation="bubblewrap", python=str(python))
    trainer.run(a_job(tmp_path, source), lines.append)
    assert lines == ["['bin']"]


@isolated
def test_an_interpreter_whose_folder_is_the_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(sys.prefix) / "me"))
    trainer = LocalTrainer(root=tmp_path / "jobs", isolation="bubblewrap")
    with pytest.raises(Rejected, match="holds other files"):
        trainer.run(a_job(tmp_path, HEALTHY), lambda _line: None)


@isolated
def test_a_program_that_fails_or_hangs_ends_in_the_sandbox_as_outside_of_it(tmp_path: Path) -> None:
    trainer = LocalTrainer(root=tmp_path / "jobs", isolation="bubblewrap", grace_seconds=0.2)
    with pytest.raises(JobFailed, match="column fee is bad"):
        trainer.run(a_job(tmp_path, "import sys\nsys.exit('column fee is bad')\n"), lambda _line: None)
    hanging = "import subprocess, time\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)\n"
    with pytest.raises(JobFailed, match="1 s \\(max_seconds\\)"):
        trainer.run(a_job(tmp_path, hanging, name="churn-2", max_seconds=1), lambda _line: None)


def test_bubblewrap_that_is_not_installed_is_named_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    trainer = LocalTrainer(root=tmp_path / "jobs", isolation="bubblewrap")
    with pytest.raises(Rejected, match="apt-get install bubblewrap"):
        trainer.run(a_job(tmp_path, HEALTHY), lambda _line: None)
    assert not (tmp_path / "runs").exists()


AUTHENTICATED = {**SETTINGS, "approval": {"require_authentication": True}}


def test_a_server_says_how_it_isolates_training_or_is_refused() -> None:
    with pytest.raises(Rejected, match=r"trainer\.isolation.*bubblewrap.*none"):
        Environment.from_settings("production", AUTHENTICATED)
    for isolation in ("none", "bubblewrap"):
        declared = {**AUTHENTICATED, "trainer": {**SETTINGS["trainer"], "isolation": isolation}}
        assert Environment.from_settings("production", declared).approval.require_authentication
    assert Environment.from_settings("laptop", SETTINGS)
