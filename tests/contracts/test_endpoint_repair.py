"""A process that dies between switch and ledger, over every endpoint adapter: repair asks the real endpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.endpoints.base import Endpoint, Release
from blocks.endpoints.fake import FakeEndpoint
from blocks.records.approvals import ApprovalRequest
from blocks.tracking.base import EVIDENCE_TAG
from tasks.approval.rules.actions import Actor
from tasks.approval.rules.history import champion_of
from tasks.release.deployment import golden_json, switch_and_record
from tasks.release.repair import repair_release
from tasks.release.rollback import rollback_version
from tests.fakes.environment import NOW, World, register
from tests.fixtures.approval_requests import FIRST, JUDGED, TRAINED, evidence
from tests.fixtures.approved_releases import approved
from tests.fixtures.local_aws import sagemaker_endpoint, tiny_release
from tests.fixtures.scoring import churn_model, host, release

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(params=["fake", "local", "sagemaker"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Endpoint, Release, Release]]:
    """Return an adapter, and two releases of the endpoint `price`."""
    if request.param == "sagemaker":
        desk = request.getfixturevalue("desk")
        yield sagemaker_endpoint(desk), *(tiny_release(tmp_path, number, endpoint="price") for number in "12")
    else:
        models = [churn_model(tmp_path / str(trees), trees) for trees in (3, 5)]
        one, two = (release(model, number, endpoint="price") for model, number in zip(models, "12", strict=True))
        if request.param == "fake":
            yield FakeEndpoint(), one, two
        else:
            with host(tmp_path / "host") as server:
                yield server.endpoint(), one, two


def request_for(env: World, release: Release, before: str) -> ApprovalRequest:
    trained = TRAINED.model_copy(update={"version": release.version, "model_digest": release.digest})
    request = approved(env, evidence(trained=trained, judged=JUDGED if before else FIRST))
    env.effects().intend(f"deploy:{request.id}", golden_json(release.golden_example), NOW)
    return request


def test_what_a_killed_process_switched_is_recorded_by_repair(
    served: tuple[Endpoint, Release, Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, one, two = served
    env = World.at(tmp_path / "world")
    env._adapters["endpoint"] = endpoint
    for rooms in (1.0, 2.0):
        version = register(env, {"rooms": rooms}).version
        env.tracking().tag_version("price", version, {EVIDENCE_TAG: "digest of its signature"})
    switch_and_record(env, request_for(env, one, ""), one, "")
    repair_release(env, "price", NOW)  # finishes the effect
    request = request_for(env, two, "1")

    def die(*_: object) -> None:
        raise Killed

    def agreed() -> tuple[str, str, str]:
        live, named = endpoint.live_version("price"), env.tracking().version("price", "@champion")
        ledger = champion_of(env.effects().deployments("price", "local"))
        return live.version if live else "", ledger, named.version if named else ""

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(type(env.effects()), "record_deployment", die)
        switch_and_record(env, request, two, "1")
    assert agreed() == ("2", "1", "1")
    assert repair_release(env, "price", NOW).open == []
    assert agreed() == ("2", "2", "2")

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(type(env.effects()), "record_deployment", die)
        rollback_version(
            env, "price", "", actor=Actor("ann", authenticated=True), reason="it is slow", key="rollback:run-1"
        )
    assert agreed() == ("1", "2", "2")
    assert repair_release(env, "price", NOW).open == []
    assert agreed() == ("1", "1", "1")
    again = repair_release(env, "price", NOW)
    assert (again.done, again.open) == ([], [])
