"""The champion: the version that is deployed according to the ledger; only its approved files are loaded.

`EnvironmentReader` is an environment in memory, over the fakes beside the adapters; the tests of other tasks use it.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import NotFound
from blocks.tracking.fake import MODEL_FILE
from runtime.digests import folder_digest
from tasks.shared.champion import champion_version, check_holdout_rule, verified_champion_files
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import SPEC, World, artifact_of, register, release


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


def test_no_version_serves_before_the_first_release(env: World) -> None:
    assert champion_version(env, SPEC.name) == ""


def test_the_version_that_serves_is_the_last_that_was_released_well(env: World) -> None:
    release(env, "1", "a")
    release(env, "2", "b", minutes=1)
    release(env, "3", "c", "failed", minutes=2)
    assert champion_version(env, SPEC.name) == "2"


def test_what_another_environment_serves_does_not_count(env: World) -> None:
    release(env, "1", "a")
    env.effects().record_deployment(replace(release(env, "2", "b"), id="there", environment="aws", version="9"))
    assert champion_version(env, SPEC.name) == "2"


def test_the_champions_files_are_those_that_were_approved(env: World) -> None:
    version = register(env, {"rooms": 1.0}).version
    release(env, version, folder_digest(artifact_of(env, version)))
    files = verified_champion_files(env, SPEC.name, version)
    assert json.loads((files / MODEL_FILE).read_text()) == {"rooms": 1.0}


@pytest.mark.parametrize("fetched", [True, False], ids=["on this machine", "in the registry"])
def test_a_champion_whose_files_have_changed_is_refused(env: World, tmp_path: Path, fetched: bool) -> None:
    version = register(env, {"rooms": 1.0})
    release(env, version.version, folder_digest(tmp_path / "runs" / version.run_id / "model"))
    changed = artifact_of(env, version.version) if fetched else tmp_path / "runs" / version.run_id / "model"
    (changed / MODEL_FILE).write_text('{"rooms": -1.0}')
    with pytest.raises(Refusal, match=r"(?s)price version 1.*not those that were approved.*roll back"):
        verified_champion_files(env, SPEC.name, version.version)


def test_a_champion_with_one_more_file_is_refused(env: World) -> None:
    version = register(env, {"rooms": 1.0}).version
    release(env, version, folder_digest(artifact_of(env, version)))
    (artifact_of(env, version) / "code.py").write_text("print('I run when the model is loaded')")
    with pytest.raises(Refusal, match="not those that were approved"):
        verified_champion_files(env, SPEC.name, version)


def test_a_champion_that_the_registry_has_lost_is_not_found(env: World) -> None:
    release(env, "7", "a")
    with pytest.raises(NotFound, match="7"):
        verified_champion_files(env, SPEC.name, "7")


def test_a_champion_of_the_same_holdout_rule_may_be_compared(env: World) -> None:
    """The check must not raise."""
    version = register(env, {"rooms": 1.0}).version
    check_holdout_rule(env, SPEC, version)


def test_a_champion_of_another_holdout_rule_may_have_seen_the_rows_that_decide(env: World) -> None:
    version = register(env, {"rooms": 1.0}, holdout=0.1).version
    with pytest.raises(Refusal, match=r"(?s)version 1.*another holdout rule.*0\.1.*now 0\.2"):
        check_holdout_rule(env, SPEC, version)


def test_a_champion_that_says_nothing_of_its_holdout_is_refused(env: World) -> None:
    tracking: Any = env.tracking()
    run = tracking.open_run(SPEC.name, key="by hand", name="by hand")
    tracking.log_model(run.id, {"rooms": 1.0})
    tracking.register(SPEC.name, run.id, key="by hand", tags={})
    with pytest.raises(Refusal, match="another holdout rule"):
        check_holdout_rule(env, SPEC, "1")


def test_a_champion_that_is_not_in_the_registry_is_refused_with_what_to_do(env: World) -> None:
    with pytest.raises(Refusal, match=r"(?s)not in the registry.*'9'.*roll back"):
        check_holdout_rule(env, SPEC, "9")
