"""Rollback: to which version, from the endpoint's own copy, verified by the golden request of its release.

The task itself opens an environment of a Prefect server; `tests/flows/test_retrain.py` runs all of it. Here its parts
are tested, over the ledgers and the endpoint that it uses.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from blocks.common.errors import NotFound, Rejected
from blocks.database.ledger import SqlLedger
from blocks.effects.base import Effects
from blocks.effects.fake import FakeEffects
from blocks.endpoints.base import GoldenExample, Release
from blocks.endpoints.fake import FakeEndpoint
from blocks.records.deployments import Deployment
from runtime.digests import folder_digest
from tasks.approval.rules.history import champion_of, rollback_target
from tasks.release.deployment import golden_json, recorded_golden
from tasks.shared.rules.refusal import Refusal

GOLDEN = GoldenExample('{"instances": [1]}', "[0.75]")
AT = datetime(2026, 11, 21, 10, tzinfo=UTC)  # all lines at the same moment: the ledger decides their order


@pytest.fixture(params=["fake", "sqlite"])
def effects(request: pytest.FixtureRequest, tmp_path: Path) -> Effects:
    return FakeEffects() if request.param == "fake" else SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db").effects()


def line(
    version: str, action: Literal["deploy", "rollback"] = "deploy", status: Literal["serving", "failed"] = "serving"
) -> Deployment:
    return Deployment(
        f"{action}:{version}:{status}", "price", "local", version, "d", action, status, "max", "why", f"r{version}", AT
    )  # fmt: skip


DEPLOYED = [line("1"), line("2"), line("3")]
TARGETS = {
    "the one before today's": (DEPLOYED, "", "2"),
    "back once more": ([*DEPLOYED, line("2", "rollback")], "", "1"),
    "over a failed deployment": ([line("1"), line("2"), line("3", status="failed")], "", "1"),
    "a named one": (DEPLOYED, "1", "1"),
    "forward again by name": ([*DEPLOYED, line("2", "rollback")], "3", "3"),
}


def written(effects: Effects, lines: list[Deployment]) -> tuple[Deployment, ...]:
    for each in lines:
        effects.record_deployment(each)
    return effects.deployments("price", "local")


@pytest.mark.parametrize(("lines", "wanted", "target"), TARGETS.values(), ids=TARGETS)
def test_a_rollback_goes_to_a_version_that_served(
    effects: Effects, lines: list[Deployment], wanted: str, target: str
) -> None:
    assert rollback_target(written(effects, lines), wanted) == target


REFUSED = {
    "nothing was ever released": ([], "", "no earlier version"),
    "only one was": ([line("1")], "", "no earlier version"),
    "an unknown version": (DEPLOYED, "9", r"was never deployed.*'9'.*1, 2, 3"),
    "one that failed": ([line("1"), line("2"), line("3", status="failed")], "3", "was never deployed"),
    "the one that serves": (DEPLOYED, "3", "is deployed already"),
}


@pytest.mark.parametrize(("lines", "wanted", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_rollback_to_nowhere_is_refused(effects: Effects, lines: list[Deployment], wanted: str, problem: str) -> None:
    with pytest.raises(Refusal, match=rf"(?s){problem}"):
        rollback_target(written(effects, lines), wanted)


def test_the_same_rollback_written_twice_is_one_line(effects: Effects) -> None:
    written(effects, DEPLOYED)
    first = effects.record_deployment(replace(line("2", "rollback"), id="rollback:run-1"))
    again = effects.record_deployment(replace(line("2", "rollback"), id="rollback:run-1", by="other", reason="again"))
    assert again == first
    assert [each.id for each in effects.deployments("price", "local")].count("rollback:run-1") == 1
    assert champion_of(effects.deployments("price", "local")) == "2"


def test_what_a_version_must_answer_is_found_in_the_ledger(effects: Effects) -> None:
    effects.intend("deploy:r1", golden_json(GOLDEN), AT)
    assert recorded_golden(effects, "r1") == GOLDEN


def test_a_version_of_which_the_ledger_has_no_golden_request_is_refused(effects: Effects) -> None:
    with pytest.raises(Refusal, match=r"no golden example.*'r9'.*deployed by Ratchet"):
        recorded_golden(effects, "r9")


def released(endpoint: FakeEndpoint, folder: Path) -> dict[str, str]:
    """Release versions 1 and 2, delete their artifacts, and return their digests."""
    digests = {}
    for version in ("1", "2"):
        artifact = folder / version
        artifact.mkdir()
        (artifact / "weights").write_text(version)
        digests[version] = folder_digest(artifact)
        endpoint.switch(Release("price", version, artifact, digests[version], GOLDEN))
        (artifact / "weights").unlink()
    return digests


def test_the_version_before_serves_again_without_registry_or_artifact(tmp_path: Path) -> None:
    endpoint = FakeEndpoint()
    digests = released(endpoint, tmp_path)
    for _ in range(2):  # a repeated rollback changes nothing
        assert endpoint.rollback("price", "1").version == "1"
        assert endpoint.verify(Release("price", "1", Path(), digests["1"], GOLDEN)).version == "1"


def test_a_version_that_answers_otherwise_than_when_it_was_released_is_not_proven(tmp_path: Path) -> None:
    endpoint = FakeEndpoint(wrong_answer_versions=("1",))
    digests = released(endpoint, tmp_path)
    endpoint.rollback("price", "1")
    with pytest.raises(Rejected, match="predictions"):
        endpoint.verify(Release("price", "1", Path(), digests["1"], GOLDEN))


def test_a_version_that_the_endpoint_has_not_kept_is_not_found(tmp_path: Path) -> None:
    endpoint = FakeEndpoint()
    released(endpoint, tmp_path)
    with pytest.raises(NotFound, match=r"no stored version 9.*\['1', '2'\]"):
        endpoint.rollback("price", "9")
    assert endpoint.live_version("price").version == "2"  # type: ignore[union-attr]
