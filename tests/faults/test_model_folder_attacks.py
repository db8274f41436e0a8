"""Model folders that reach for files outside, for keys or for the disk: each is refused, by every reader alike."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import JobFailed, NotFound, Rejected
from blocks.trainers.base import Trainer, TrainingJob
from blocks.trainers.fake import FakeTrainer
from blocks.trainers.local import LocalTrainer
from blocks.trainers.sagemaker import SageMakerTrainer
from tasks.shared.code import code_provenance
from tasks.shared.models import TeamModel, load_model
from tests.fixtures.promoted import promoted
from tests.fixtures.spec_cases import GOOD

KEY = "-----BEGIN PRIVATE KEY-----\nthe key of the house\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key outside the checkout."""
    path = tmp_path / "house" / "decisions.pem"
    path.parent.mkdir()
    path.write_text(KEY)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with the model `price`."""
    folder = tmp_path / "checkout" / "models" / "price"
    (folder / "lib").mkdir(parents=True)
    (folder / "model.yaml").write_text(GOOD)
    (folder / "expectations.yaml").write_text("name: price\nminimum_rows: 1\nexpectations: []\n")
    for name in ("CARD.md", "train.py", "lib/steps.py"):
        (folder / name).write_text("# a file\n")
    checkout = tmp_path / "checkout"
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "a model"]):
        subprocess.run(["git", *command], cwd=checkout, check=True, capture_output=True)
    return checkout


def replace_by_link(path: Path, target: Path) -> None:
    if path.exists():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(target)


def listen(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def hard_link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.hardlink_to(target)


def move_behind_link(folder: Path, outside: Path) -> None:
    folder.rename(outside)
    folder.symlink_to(outside)


def fill(folder: Path) -> None:
    for number in range(1001):
        (folder / f"part{number}.py").touch()


def nest(folder: Path) -> None:
    folder.joinpath(*["deeper"] * 20).mkdir(parents=True)


ATTACKS = {
    "a program that is a link to a key": (lambda m, k: replace_by_link(m / "train.py", k), "price/train.py is a link"),
    "a model.yaml that is a link": (lambda m, k: replace_by_link(m / "model.yaml", k), "price/model.yaml is a link"),
    "expectations that are a link": (lambda m, k: replace_by_link(m / "expectations.yaml", k), "expectations.yaml is a link"),
    "a card that is a link": (lambda m, k: replace_by_link(m / "CARD.md", k), "price/CARD.md is a link"),
    "a further link": (lambda m, k: replace_by_link(m / "notes.txt", k), "price/notes.txt is a link"),
    "a link with a hidden name": (lambda m, k: replace_by_link(m / ".notes", k), "price/.notes is a link"),
    "a link in a folder": (lambda m, k: replace_by_link(m / "lib" / "more.py", k), "price/lib/more.py is a link"),
    "a link to nothing yet": (lambda m, k: replace_by_link(m / "later", k.parent / "later"), "price/later is a link"),
    "a link inside the folder": (lambda m, _: replace_by_link(m / "same.py", m / "train.py"), "price/same.py is a link"),
    "a folder that is a link": (lambda m, k: replace_by_link(m / "lib", k.parent), "price/lib is a link"),
    "compiled code that is a link": (lambda m, k: replace_by_link(m / "__pycache__", k.parent), "__pycache__ is a link"),
    "a model that is a link": (lambda m, k: move_behind_link(m, k.parent / "price"), "price is a link"),
    "models that are a link": (lambda m, k: move_behind_link(m.parent, k.parent / "models"), "price is a link"),
    "a second name of a key": (lambda m, k: hard_link(m / "notes.txt", k), "notes.txt has a second name"),
    "a pipe": (lambda m, _: os.mkfifo(m / "pipe"), "price/pipe is a link, a device, a pipe"),
    "a pipe in a file's place": (lambda m, _: ((m / "CARD.md").unlink(), os.mkfifo(m / "CARD.md")), "CARD.md is a link, a device"),
    "a socket": (lambda m, _: listen(m / "socket"), "price/socket is a link, a device"),
    "a line end in a name": (lambda m, _: (m / "a\nb.py").touch(), "control characters"),
    "an escape in a name": (lambda m, _: (m / "a\x1b[2Jb.py").touch(), "control characters"),
    "a name that is not UTF-8": (lambda m, _: Path(os.fsdecode(os.fsencode(m) + b"/a\xff.py")).touch(), "UTF-8"),
    "names that differ in case": (lambda m, _: (m / "Train.py").touch(), "differ only in case"),
    "a repository": (lambda m, _: (m / ".git").mkdir(), "a repository inside"),
    "a repository elsewhere": (lambda m, k: (m / ".git").write_text(f"gitdir: {k}"), "a repository inside"),
    "a key by its name": (lambda m, _: (m / "model.pem").touch(), "looks like a key"),
    "variables": (lambda m, _: (m / "production.env").touch(), "looks like a key"),
    "a key by its name, set aside": (lambda m, _: (m / "id_rsa.bak").touch(), "looks like a key"),
    "an older key": (lambda m, _: (m / "model.pem.old.1~").touch(), "looks like a key"),
    "a key of PGP": (lambda m, _: (m / "a.txt").write_text(KEY.replace("KEY-", "KEY BLOCK-")), "holds a private key"),
    "a key of SSH2": (lambda m, _: (m / "a.txt").write_text("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----"), "holds a private key"),
    "a key of PuTTY": (lambda m, _: (m / "a.txt").write_text("-".join(["PuTTY-User-Key", "File", "3: x"])), "holds a private key"),
    "a key in UTF-16": (lambda m, _: (m / "a.txt").write_text(KEY, encoding="utf-16"), "holds a private key"),
    "a key by its content": (lambda m, _: (m / "notes.txt").write_text(KEY), "holds a private key"),
    "a large file": (lambda m, _: ((m / "rows.bin").touch(), os.truncate(m / "rows.bin", 2**40)), "more than 16,777,216 bytes"),
    "many files": (lambda m, _: fill(m), "more than 1,000 files"),
    "deep folders": (lambda m, _: nest(m), "folders deep"),
}  # fmt: skip


@pytest.fixture(params=ATTACKS.values(), ids=list(ATTACKS))
def attacked(request: pytest.FixtureRequest, root: Path, key: Path) -> tuple[Path, str]:
    """The attacked model's folder, and what the refusal says."""
    attack, says = request.param
    attack(root / "models" / "price", key)
    return root / "models" / "price", says


def training_job(folder: Path) -> TrainingJob:
    return TrainingJob(name="price-1", program_folder=folder, channels={}, hyperparameters={})


def trainers(folder: Path) -> tuple[Trainer, ...]:
    nowhere = {"region": "us-east-1", "endpoint_url": "http://127.0.0.1:1"}
    cloud = SageMakerTrainer(
        bucket="b", role_arn="arn:aws:iam::1:role/r", image="i", instance_types=["ml.m5.large"], model_cache=folder, **nowhere
    )  # fmt: skip
    return LocalTrainer(root=folder / "local"), FakeTrainer(root=folder / "fake"), cloud


def test_it_is_refused_by_every_reader(attacked: tuple[Path, str], tmp_path: Path) -> None:
    folder, says = attacked
    checkout = tmp_path / "checkout"
    readers: list[Callable[[], Any]] = [
        lambda: load_model("price", checkout),
        lambda: code_provenance(checkout, "price"),
    ]
    readers += [lambda it=it: it.submit(training_job(folder)) for it in trainers(tmp_path)]  # type: ignore[misc]
    for read in readers:
        with pytest.raises(Rejected, match="models/price") as refused:
            read()
        assert says in str(refused.value)
        assert "the key of the house" not in str(refused.value)
        assert str(refused.value).isprintable()
    copies = [path for path in (tmp_path / "local").rglob("*") if path.is_file() and "the key" in path.read_text()]
    assert not copies, "nothing of it is in the folder of a job"


@pytest.mark.parametrize("name", ["CARD.md", "model.yaml", "expectations.yaml"])
def test_a_link_is_not_read_into_an_evidence_pack(
    name: str, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files were checked when the model was loaded; a run later writes the pack."""
    from tests.fixtures import promoted as fixture

    written = fixture.model_folder

    def with_link(folder: Path) -> TeamModel:
        model = written(folder)
        replace_by_link(folder / name, key)
        return model

    monkeypatch.setattr(fixture, "model_folder", with_link)
    with pytest.raises(Rejected, match=f"{name} is a link"):
        promoted(tmp_path)


@pytest.mark.parametrize("inside", ["train.py", "lib"])
def test_a_link_that_is_put_there_after_the_check_is_not_followed(
    inside: str, root: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, looked = root / "models" / "price", os.stat

    def swap_after_check(path: Any, *arguments: Any, **named: Any) -> os.stat_result:
        found = looked(path, *arguments, **named)
        if path == inside:
            replace_by_link(folder / inside, key if inside == "train.py" else key.parent)
        return found

    monkeypatch.setattr(os, "stat", swap_after_check)
    with pytest.raises(Rejected, match=f"price/{inside} is a link"):
        load_model("price", root)


def test_a_link_that_came_by_git_is_refused_in_the_clone(root: Path, key: Path, tmp_path: Path) -> None:
    replace_by_link(root / "models" / "price" / "CARD.md", key)
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for command in (["add", "--all"], [*who, "commit", "--quiet", "-m", "a link"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    subprocess.run(["git", "clone", "--quiet", str(root), str(tmp_path / "clone")], check=True, capture_output=True)
    assert (tmp_path / "clone" / "models" / "price" / "CARD.md").is_symlink()
    with pytest.raises(Rejected, match="CARD.md is a link"):
        load_model("price", tmp_path / "clone")


def test_a_job_gets_the_files_that_were_checked_and_no_hidden_ones(root: Path, tmp_path: Path) -> None:
    folder = root / "models" / "price"
    (folder / ".env").write_text("TOKEN=1")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "train.pyc").write_bytes(b"compiled")
    (folder / "train.py").write_text("")
    trainer = LocalTrainer(root=tmp_path / "local")
    trainer.run(training_job(folder), lambda _: None)
    copied = tmp_path / "local" / "price-1" / "001" / "input" / "data" / "code"
    found = sorted(path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file())
    assert found == ["CARD.md", "expectations.yaml", "lib/steps.py", "model.yaml", "train.py"]


def test_a_trained_model_behind_a_link_is_none(tmp_path: Path, key: Path) -> None:
    (key.parent / "MLmodel").write_text("flavors: {}")
    program = tmp_path / "program"
    program.mkdir()
    (program / "train.py").write_text(
        f"import os\nos.symlink({str(key.parent)!r}, os.path.join(os.environ['SM_MODEL_DIR'], 'model'))\n"
    )
    with pytest.raises(JobFailed, match="model"):
        LocalTrainer(root=tmp_path / "jobs").run(training_job(program), lambda _: None)


SECRETS = {
    ".env": "TOKEN=hunter2",
    "data/customers.csv": "hunter2",
    "id_ed25519": "hunter2",
    "notes/passwords.txt": "hunter2",
    "deployments/environments/production.toml": "password = 'hunter2'",
    "models/price/.env": "hunter2",
    "models/demand/rows.csv": "hunter2",
    "tasks/.env": "hunter2",
    "tasks/credentials.json": "hunter2",
}


def test_the_patch_of_uncommitted_changes_holds_the_code_that_runs_and_nothing_else(root: Path) -> None:
    for name, content in SECRETS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    assert code_provenance(root, "price").patch == ""
    (root / "tasks" / "step.py").write_text("STEP = 1\n")
    (root / "models" / "price" / "new.py").write_text("SEED = 1\n")
    patch = code_provenance(root, "price--dana").patch
    assert "+STEP = 1" in patch and "+SEED = 1" in patch
    assert "hunter2" not in patch


def test_a_tracked_file_with_a_secret_is_not_in_the_patch(root: Path) -> None:
    (root / "production.toml").write_text("")
    subprocess.run(["git", "add", "production.toml"], cwd=root, check=True)
    (root / "production.toml").write_text("password = 'hunter2'")
    assert "hunter2" not in code_provenance(root, "price").patch


def test_a_program_that_git_ignores_is_in_the_patch(root: Path) -> None:
    """Otherwise two trainings with other programs would have one digest."""
    (root / ".git" / "info" / "exclude").write_text("weights.txt\n")
    (root / "models" / "price" / "weights.txt").write_text("0.5\n")
    assert "+0.5" in code_provenance(root, "price").patch


def test_a_private_key_in_changed_code_is_not_stored(root: Path) -> None:
    (root / "tasks").mkdir()
    (root / "tasks" / "step.py").write_text(f'KEY = """{KEY}"""\n')
    with pytest.raises(Rejected, match="hold a private key"):
        code_provenance(root, "price")


def test_a_folder_that_is_missing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="gone"):
        FakeTrainer(root=tmp_path).submit(training_job(tmp_path / "models" / "gone"))
