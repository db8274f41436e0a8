"""Faults of the SageMaker endpoint: the deployed version stays deployed, and the message gives the reason."""

from pathlib import Path

import pytest

from blocks.common.errors import Corrupt, NotFound, Rejected, Unavailable
from local.sagemaker.faults import Fault
from tests.fixtures.clocks import Clock
from tests.fixtures.local_aws import SageMakerLab, sagemaker_endpoint, tiny_release
from tests.fixtures.sagemaker_load import load
from tests.fixtures.signing_keys import MODELS
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

CANARY = {"canary_percent": 50, "bake_seconds": 60}
"""A bake time of a minute takes a second at the tests' speed."""


@pytest.fixture
def name(desk: SageMakerLab) -> str:
    return f"churn-{desk.bucket[-12:]}"


def test_canary_updates_under_load_lose_no_request(desk: SageMakerLab, tmp_path: Path, name: str) -> None:
    endpoint = sagemaker_endpoint(desk, **CANARY)
    endpoint.switch(tiny_release(tmp_path, "1", name))
    with load(endpoint, name) as seen:
        wait_for(lambda: seen["1"])
        for version in ("2", "3"):
            endpoint.switch(tiny_release(tmp_path, version, name))
            endpoint.verify(tiny_release(tmp_path, version, name))
            wait_for(lambda version=version: seen[version])  # type: ignore[misc]
    assert set(seen) == {"1", "2", "3"}


def test_a_version_that_fails_its_callers_is_taken_back_by_its_alarm(
    desk: SageMakerLab, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.watched_by(Clock(), monkeypatch)  # would never end without the alarm
    endpoint = sagemaker_endpoint(desk, canary_percent=50, bake_seconds=600)
    endpoint.switch(tiny_release(tmp_path, "1", name))
    bad = tiny_release(tmp_path, "2", name, status=503)
    with (
        load(endpoint, name),
        pytest.raises(Rejected, match=f"(?s)serves .*-1-.*rolled back.*{name}-Invocation5XXErrors"),
    ):
        endpoint.switch(bad)
    endpoint.verify(tiny_release(tmp_path, "1", name))
    with pytest.raises(NotFound, match="has no stored version 2 that was deployed; it has: 1"):
        endpoint.rollback(name, "2")


@pytest.mark.parametrize("told", [{"die": 0}, {"ping": 500}], ids=["ends at once", "never healthy"])
def test_a_version_that_does_not_come_up_leaves_the_one_before_it(
    desk: SageMakerLab, tmp_path: Path, name: str, told: dict[str, int]
) -> None:
    sagemaker_endpoint(desk).switch(tiny_release(tmp_path, "1", name))
    endpoint = sagemaker_endpoint(desk, update_timeout_seconds=1 if "ping" in told else 60)
    broken = tiny_release(tmp_path, "2", name, **told)
    with pytest.raises(Unavailable if "ping" in told else Rejected, match=r"update_timeout_seconds|ping health check"):
        endpoint.switch(broken)
    endpoint.verify(tiny_release(tmp_path, "1", name))


def test_a_first_version_that_does_not_come_up_leaves_nothing_and_the_next_can_serve(
    desk: SageMakerLab, tmp_path: Path, name: str
) -> None:
    endpoint = sagemaker_endpoint(desk)
    with pytest.raises(Rejected, match="did not start.*ping health check"):
        endpoint.switch(tiny_release(tmp_path, "1", name, die=0))
    assert endpoint.live_version(name) is None
    assert endpoint.switch(tiny_release(tmp_path, "2", name)).version == "2"


def test_an_endpoint_that_is_lost_while_it_is_updated_is_made_anew_with_what_it_served(
    desk: SageMakerLab, tmp_path: Path, name: str
) -> None:
    endpoint = sagemaker_endpoint(desk)
    endpoint.switch(tiny_release(tmp_path, "1", name))
    desk.server.faults.add(Fault("lost", match=name, times=1))
    with pytest.raises(Rejected, match="failed while updating to.*recreated with .*-1-.*InService"):
        endpoint.switch(tiny_release(tmp_path, "2", name))
    endpoint.verify(tiny_release(tmp_path, "1", name))


def test_no_capacity_is_tried_again(desk: SageMakerLab, tmp_path: Path, name: str) -> None:
    endpoint = sagemaker_endpoint(desk)
    desk.server.faults.add(Fault("capacity", match=name, times=1))
    with pytest.raises(Unavailable, match="InsufficientInstanceCapacity"):
        endpoint.switch(tiny_release(tmp_path, "1", name))
    assert endpoint.switch(tiny_release(tmp_path, "1", name)).version == "1"


def test_an_update_that_is_stuck_is_waited_for_again_and_not_made_twice(
    desk: SageMakerLab, tmp_path: Path, name: str
) -> None:
    endpoint = sagemaker_endpoint(desk, update_timeout_seconds=0.3)
    desk.server.faults.add(Fault("stuck", match=name))
    with pytest.raises(Unavailable, match="is Creating for longer than update_timeout_seconds"):
        endpoint.switch(tiny_release(tmp_path, "1", name))
    desk.server.faults.clear()
    patient = sagemaker_endpoint(desk)
    first = patient.switch(tiny_release(tmp_path, "1", name))
    assert patient.switch(tiny_release(tmp_path, "1", name)) == first


def test_a_rollback_that_fails_is_said_plainly_and_restore_mends_it(
    desk: SageMakerLab, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.watched_by(Clock(), monkeypatch)  # would never end without the alarm
    endpoint = sagemaker_endpoint(desk, canary_percent=50, bake_seconds=600)
    endpoint.switch(tiny_release(tmp_path, "1", name))
    desk.server.faults.add(Fault("rollback_fails", match=name, times=1))
    bad = tiny_release(tmp_path, "2", name, status=503)
    with load(endpoint, name), pytest.raises(Rejected, match="the new AND the old version"):
        endpoint.switch(bad)
    endpoint.rollback(name, "1")
    with load(endpoint, name) as seen:
        endpoint.verify(tiny_release(tmp_path, "1", name))
    assert set(seen) <= {"1"}


def test_throttled_calls_only_take_longer(desk: SageMakerLab, tmp_path: Path, name: str) -> None:
    desk.server.faults.add(Fault("throttle", match="Endpoint|Model", probability=0.1))
    endpoint = sagemaker_endpoint(desk, poll_seconds=0.5)
    endpoint.switch(tiny_release(tmp_path, "1", name))
    assert endpoint.verify(tiny_release(tmp_path, "1", name)).version == "1"


def test_counts_that_autoscaling_made_survive_an_update(desk: SageMakerLab, tmp_path: Path, name: str) -> None:
    endpoint = sagemaker_endpoint(desk)
    endpoint.switch(tiny_release(tmp_path, "1", name))
    change = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 4}]
    desk.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=change)
    endpoint.switch(tiny_release(tmp_path, "2", name))
    assert desk.sagemaker.describe_endpoint(EndpointName=name)["ProductionVariants"][0]["CurrentInstanceCount"] == 4


def test_an_endpoint_of_somebody_else_is_not_touched(desk: SageMakerLab, tmp_path: Path, name: str) -> None:
    desk.config(name, desk.model(name, {}))
    desk.endpoint(name, name)
    endpoint = sagemaker_endpoint(desk)
    for step in (lambda: endpoint.switch(tiny_release(tmp_path, "1", name)), lambda: endpoint.live_version(name)):
        with pytest.raises(Rejected, match="belongs to another program"):
            step()
    assert desk.ask(name) == [name]


def test_the_signature_goes_with_the_files_and_the_container_knows_whose_counts(
    desk: SageMakerLab, tmp_path: Path, name: str
) -> None:
    sagemaker_endpoint(desk).switch(tiny_release(tmp_path, "1", name))
    config = desk.sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
    container = desk.sagemaker.describe_model(ModelName=config)["PrimaryContainer"]
    address = container["ModelDataSource"]["S3DataSource"]["S3Uri"]
    assert desk.get(f"{address}model.sig") == (tmp_path / "model-1.sig").read_bytes()
    assert container["Environment"]["RATCHET_TRUSTED_KEYS"] == MODELS.public_key_line


def test_files_that_went_missing_in_the_bucket_are_put_there_again(
    desk: SageMakerLab, tmp_path: Path, name: str
) -> None:
    endpoint, one = sagemaker_endpoint(desk), tiny_release(tmp_path, "1", name)
    endpoint.switch(one)
    desk.s3.delete_object(Bucket=desk.bucket, Key=f"releases/{name}/1/{one.digest}/model/answers.json")
    endpoint.undeploy(name)
    endpoint.switch(one)
    endpoint.verify(one)  # raises when a prediction is not the expected one


def test_an_artifact_that_changes_while_it_is_copied_is_never_used(
    desk: SageMakerLab, tmp_path: Path, name: str
) -> None:
    endpoint, one = sagemaker_endpoint(desk), tiny_release(tmp_path, "1", name)
    (one.artifact / "answers.json").write_text("{}")
    with pytest.raises(Corrupt, match="fetch it again"):
        endpoint.switch(one)
    assert endpoint.live_version(name) is None
    with pytest.raises(NotFound):
        endpoint.rollback(name, "1")
