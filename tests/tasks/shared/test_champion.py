"""The version that serves is the ledger's, and nothing of it is loaded that was not approved.

`World` is an environment in memory, over the fakes that ship beside the adapters; the tests of other tasks use it.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from prefect.blocks.core import Block
from pydantic import PrivateAttr

from blocks.common.errors import NotFound
from blocks.database.fake import FakeLedger
from blocks.effects.base import Deployment
from blocks.endpoints.fake import FakeEndpoint
from blocks.environment import Environment
from blocks.lake.fake import FakeLake
from blocks.tracking.base import Version
from blocks.tracking.fake import MODEL_FILE, FakeTracking
from blocks.trainers.fake import FakeTrainer
from runtime.digests import folder_digest
from tasks.shared.champion import champion_files, champion_version, check_same_holdout
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tests.signing_keys import signing_in
from tests.tasks.shared.rules.model.spec_cases import BINARY

SPEC = parse_spec(BINARY, "models/price/model.yaml")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
"""When it is in the tests of tasks: what they call is given the time."""


class World(Environment):
    """An environment whose adapters are at hand, instead of blocks that a Prefect server keeps."""

    _block_type_name = "Ratchet environment in memory"
    _block_type_slug = "ratchet-environment-in-memory"
    _adapters: dict[str, Block] = PrivateAttr(default_factory=dict)

    @classmethod
    def at(cls, folder: Path, **knobs: Any) -> "World":
        """Return a world with its files below `folder`; `knobs` are those of the endpoint."""
        names = {f"{port}_adapter": port for port in ("lake", "trainer", "endpoint", "tracking", "ledger")}
        world = cls(name="local", scratch=folder / "scratch", signing=signing_in(folder), **names)
        world._adapters = {
            "lake": FakeLake(),
            "trainer": FakeTrainer(root=folder / "jobs", looks=0),
            "endpoint": FakeEndpoint(**knobs),
            "tracking": FakeTracking(root=folder / "runs").timed(lambda: NOW),
            "ledger": FakeLedger(),
        }
        return world

    def _adapter(self, path: str) -> Block:
        return self._adapters[path]


def register(world: World, weights: dict[str, float], holdout: float = SPEC.holdout) -> Version:
    """Train nothing, but register a model of these weights as the next version of `price`."""
    tracking: Any = world.tracking()
    key = json.dumps(weights)
    run = tracking.open_run(SPEC.name, key=key, name="test")
    tracking.log_model(run.id, weights)
    version: Version = tracking.register(SPEC.name, run.id, key=key, tags={"ratchet.holdout": str(holdout)})
    return version


def artifact_of(world: World, version: str) -> Path:
    """Return the artifact of a version as the evaluation fetched it."""
    return world.tracking().fetch(SPEC.name, version, world.scratch / "models" / SPEC.name / version)


def release(
    world: World, version: str, digest: str, status: Literal["serving", "failed"] = "serving", minutes: int = 0
) -> Deployment:
    """Write down that a version was deployed, with the digest that was approved."""
    line = Deployment(
        f"deploy:{SPEC.name}-{version}:{status}", SPEC.name, world.name, version, digest, "deploy", status,
        "max@example.com", "it is better", f"{SPEC.name}-{version}", NOW + timedelta(minutes=minutes),
    )  # fmt: skip
    return world.effects().record_deployment(line)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def test_no_version_serves_before_the_first_release(world: World) -> None:
    assert champion_version(world, SPEC.name) == ""


def test_the_version_that_serves_is_the_last_that_was_released_well(world: World) -> None:
    release(world, "1", "a")
    release(world, "2", "b", minutes=1)
    release(world, "3", "c", "failed", minutes=2)
    assert champion_version(world, SPEC.name) == "2"


def test_what_another_environment_serves_does_not_count(world: World) -> None:
    release(world, "1", "a")
    world.effects().record_deployment(replace(release(world, "2", "b"), id="there", environment="staging", version="9"))
    assert champion_version(world, SPEC.name) == "2"


def test_the_champions_files_are_those_that_were_approved(world: World) -> None:
    version = register(world, {"rooms": 1.0}).version
    release(world, version, folder_digest(artifact_of(world, version)))
    files = champion_files(world, SPEC.name, version)
    assert json.loads((files / MODEL_FILE).read_text()) == {"rooms": 1.0}


@pytest.mark.parametrize("fetched", [True, False], ids=["on this machine", "in the registry"])
def test_a_champion_whose_files_have_changed_is_refused(world: World, tmp_path: Path, fetched: bool) -> None:
    version = register(world, {"rooms": 1.0})
    release(world, version.version, folder_digest(tmp_path / "runs" / version.run_id / "model"))
    changed = artifact_of(world, version.version) if fetched else tmp_path / "runs" / version.run_id / "model"
    (changed / MODEL_FILE).write_text('{"rooms": -1.0}')
    with pytest.raises(Refusal, match=r"(?s)price version 1.*not those that were approved.*roll back"):
        champion_files(world, SPEC.name, version.version)


def test_a_champion_with_one_more_file_is_refused(world: World) -> None:
    version = register(world, {"rooms": 1.0}).version
    release(world, version, folder_digest(artifact_of(world, version)))
    (artifact_of(world, version) / "code.py").write_text("print('I run when the model is loaded')")
    with pytest.raises(Refusal, match="not those that were approved"):
        champion_files(world, SPEC.name, version)


def test_a_champion_that_the_registry_has_lost_is_not_found(world: World) -> None:
    release(world, "7", "a")
    with pytest.raises(NotFound, match="7"):
        champion_files(world, SPEC.name, "7")


def test_a_champion_of_the_same_holdout_rule_may_be_compared(world: World) -> None:
    version = register(world, {"rooms": 1.0}).version
    check_same_holdout(world, SPEC, version)


def test_a_champion_of_another_holdout_rule_may_have_seen_the_rows_that_decide(world: World) -> None:
    version = register(world, {"rooms": 1.0}, holdout=0.1).version
    with pytest.raises(Refusal, match=r"(?s)version 1.*another holdout rule.*0\.1.*now 0\.2"):
        check_same_holdout(world, SPEC, version)


def test_a_champion_that_says_nothing_of_its_holdout_is_refused(world: World) -> None:
    tracking: Any = world.tracking()
    run = tracking.open_run(SPEC.name, key="by hand", name="by hand")
    tracking.log_model(run.id, {"rooms": 1.0})
    tracking.register(SPEC.name, run.id, key="by hand", tags={})
    with pytest.raises(Refusal, match="another holdout rule"):
        check_same_holdout(world, SPEC, "1")


def test_a_champion_that_is_not_in_the_registry_is_refused_with_what_to_do(world: World) -> None:
    with pytest.raises(Refusal, match=r"(?s)not in the registry.*'9'.*roll back"):
        check_same_holdout(world, SPEC, "9")
