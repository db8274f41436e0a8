"""The contract of endpoints, over every adapter and the fake."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints.base import Endpoint, InferenceLogPolicy, LogSegment, Release
from blocks.endpoints.fake import FakeEndpoint
from runtime.signatures import signature_file
from tests.fixtures.local_aws import sagemaker_endpoint, tiny_release
from tests.fixtures.scoring import ModelServer, churn_model, host, release
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
ROW = {"tenure": 1, "charges": 2.5, "flag": 0, "contract": "year", "customer": "c-1"}


@dataclass
class Subject:
    """An adapter and three releases of one endpoint, whose name no other test uses."""

    endpoint: Endpoint
    one: Release
    two: Release
    three: Release


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [churn_model(folder / str(trees), trees) for trees in (3, 5, 7)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with host(tmp_path_factory.mktemp("host")) as started:
        yield started


@pytest.fixture(params=["local", "fake", "sagemaker"])
def subject(request: pytest.FixtureRequest, models: list[Path], tmp_path: Path) -> Subject:
    name = f"{request.node.originalname.replace('_', '-')[5:60]}"
    if request.param == "sagemaker":  # a tiny server with fixed predictions: the real one takes 4 s to start
        desk = request.getfixturevalue("desk")
        name = f"{name[:40].strip('-')}-{desk.bucket[-6:]}"
        known = {json.dumps({"dataframe_records": [ROW]}): [[0.5, 0.5]]}
        releases = [tiny_release(tmp_path, str(number), endpoint=name, more=known) for number in (1, 2, 3)]
        return Subject(sagemaker_endpoint(desk), *releases)
    adapter = request.getfixturevalue("running").endpoint() if request.param == "local" else FakeEndpoint()
    releases = [release(model, str(number), endpoint=name) for number, model in enumerate(models, 1)]
    return Subject(adapter, *releases)


def test_what_serving_will_ask_for_is_known_before_a_release(subject: Subject) -> None:
    asked = subject.endpoint.compute(subject.one.endpoint)
    assert asked.instance_count >= 1 and asked.hours_per_month > 0
    assert bool(asked.instance_type) == bool(asked.region)


def test_what_was_never_asked_has_no_traffic(subject: Subject) -> None:
    assert subject.endpoint.traffic(subject.one.endpoint) == ()


def test_the_host_tells_its_adapter_what_it_counted(running: ModelServer, models: list[Path]) -> None:
    endpoint, one = running.endpoint(), release(models[0], "1", endpoint="counted")
    endpoint.switch(one)
    endpoint.verify(one)
    assert endpoint.traffic("counted") == (), "golden requests are no traffic"
    assert endpoint.invoke("counted", b"{}").status == 400
    hour, minute = endpoint.traffic("counted")
    assert (hour.interval_seconds, minute.interval_seconds) == (3600, 60)
    assert (hour.requests, hour.client_errors, hour.server_errors, sum(hour.latency_bins.values())) == (1, 1, 0, 1)


def test_nothing_serves_before_the_first_release(subject: Subject) -> None:
    assert subject.endpoint.live_version(subject.one.endpoint) is None
    with pytest.raises(NotFound, match=subject.one.endpoint):
        subject.endpoint.invoke(subject.one.endpoint, subject.one.golden_example.request.encode())


def test_a_release_goes_from_preflight_to_serving(subject: Subject) -> None:
    probe = subject.endpoint.preflight(subject.one)
    assert (probe.version, probe.digest) == ("1", subject.one.digest)
    assert subject.endpoint.live_version(subject.one.endpoint) is None, "preflight is apart from live traffic"

    before = datetime.now(UTC) - timedelta(seconds=1)  # SageMaker's times may be whole seconds
    live = subject.endpoint.switch(subject.one)
    assert (live.version, live.digest, live.endpoint) == ("1", subject.one.digest, subject.one.endpoint)
    assert before <= live.deployed_at <= datetime.now(UTC)
    assert subject.endpoint.live_version(subject.one.endpoint) == live
    assert subject.endpoint.verify(subject.one).version == "1"

    answer = subject.endpoint.invoke(subject.one.endpoint, subject.one.golden_example.request.encode())
    assert (answer.status, answer.version, answer.content_type) == (200, "1", "application/json")
    came, expected = json.loads(answer.body)["predictions"], json.loads(subject.one.golden_example.expected_predictions)
    assert came == [pytest.approx(row, abs=1e-9) for row in expected]


def test_a_second_release_takes_over_and_restore_brings_the_first_back(subject: Subject) -> None:
    loaded = {}
    for next_one in (subject.one, subject.two, subject.three):
        subject.endpoint.switch(next_one)
        loaded[next_one.version] = subject.endpoint.verify(next_one).load_seconds
    for version, expected in (("2", subject.two), ("1", subject.one), ("3", subject.three)):
        assert subject.endpoint.rollback(subject.one.endpoint, version).version == version
        again = subject.endpoint.verify(expected).load_seconds
        assert version != "2" or again == loaded["2"], "the one before is in memory yet, and not loaded anew"


def test_repeating_a_switch_or_a_restore_changes_nothing(subject: Subject) -> None:
    subject.endpoint.switch(subject.one)
    first = subject.endpoint.switch(subject.two)
    assert subject.endpoint.switch(subject.two) == first
    assert subject.endpoint.rollback(first.endpoint, "2") == first
    back = subject.endpoint.rollback(first.endpoint, "1")
    assert subject.endpoint.rollback(first.endpoint, "1") == back


def test_restore_needs_no_original_artifact(subject: Subject, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(subject.one.artifact, tmp_path / "fetched")
    shutil.copy(signature_file(subject.one.artifact), signature_file(copy))
    subject.endpoint.switch(replace(subject.one, artifact=copy))
    subject.endpoint.switch(subject.two)
    shutil.rmtree(copy)
    assert subject.endpoint.rollback(subject.one.endpoint, "1").digest == subject.one.digest
    subject.endpoint.verify(subject.one)


def test_a_version_that_never_served_is_not_restored(subject: Subject) -> None:
    subject.endpoint.switch(subject.one)
    subject.endpoint.preflight(subject.two)
    for version in ("2", "99"):
        with pytest.raises(NotFound, match=rf"{version}.*1"):
            subject.endpoint.rollback(subject.one.endpoint, version)
    subject.endpoint.verify(subject.one)


def test_an_artifact_of_another_digest_is_corrupt_and_changes_nothing(subject: Subject) -> None:
    subject.endpoint.switch(subject.one)
    changed = replace(subject.two, digest="0" * 64)
    for step in (subject.endpoint.preflight, subject.endpoint.switch):
        with pytest.raises(Corrupt, match=f"(?s){subject.two.digest}.*{changed.digest}"):
            step(changed)
    subject.endpoint.verify(subject.one)


def test_what_is_withdrawn_answers_no_more_and_can_be_restored(subject: Subject) -> None:
    endpoint, name = subject.endpoint, subject.one.endpoint
    endpoint.undeploy(name)  # no version is deployed: nothing changes
    endpoint.switch(subject.one)
    endpoint.switch(subject.two)
    for _ in range(2):
        endpoint.undeploy(name)
        assert endpoint.live_version(name) is None
        with pytest.raises(NotFound, match=name):
            endpoint.invoke(name, subject.one.golden_example.request.encode())
    assert endpoint.rollback(name, "1").version == "1"
    endpoint.verify(subject.one)
    endpoint.switch(subject.two)
    endpoint.verify(subject.two)


def test_a_version_never_changes_its_content(subject: Subject) -> None:
    subject.endpoint.switch(subject.one)
    with pytest.raises(Rejected, match="a version never changes"):
        subject.endpoint.switch(replace(subject.two, version="1"))
    subject.endpoint.verify(subject.one)


@pytest.mark.parametrize("predictions", ["[]", "[[NaN, NaN]]", "not json", "null"])
def test_a_golden_answer_that_proves_nothing_is_refused(subject: Subject, predictions: str) -> None:
    golden = replace(subject.one.golden_example, expected_predictions=predictions)
    with pytest.raises(Rejected):
        subject.endpoint.preflight(replace(subject.one, golden_example=golden))


def test_verify_says_what_it_expected_and_what_it_found(subject: Subject) -> None:
    with pytest.raises(Rejected, match="expected version 2"):
        subject.endpoint.verify(subject.two)
    subject.endpoint.switch(subject.one)
    with pytest.raises(Rejected, match="(?s)version.*1.*expected version 2"):
        subject.endpoint.verify(subject.two)
    wrong = replace(
        subject.one, golden_example=replace(subject.one.golden_example, expected_predictions="[[0.25, 0.75]]")
    )
    with pytest.raises(Rejected, match="predictions"):
        subject.endpoint.verify(wrong)


def test_a_request_that_cannot_be_scored_is_answered_with_its_status(subject: Subject) -> None:
    subject.endpoint.switch(subject.one)
    answer = subject.endpoint.invoke(subject.one.endpoint, b'{"dataframe_records": []}')
    assert answer.status == 400
    assert json.loads(answer.body)["error"]
    subject.endpoint.verify(subject.one)


def test_what_was_asked_is_collected_segment_by_segment_until_it_is_discarded(subject: Subject) -> None:
    endpoint, name = subject.endpoint, subject.one.endpoint
    assert list(endpoint.log_segments(name)) == []
    endpoint.switch(replace(subject.one, log_policy=InferenceLogPolicy(entity_column="customer")))
    for _ in range(2):
        ask(endpoint, name, ROW)
        endpoint.invoke(name, subject.one.golden_example.request.encode())
    first, second = endpoint.log_segments(name)
    assert [request["columns"]["customer"] for logged in (first, second) for request in logged.requests] == [
        ["c-1"]
    ] * 2
    assert {request["version"] for request in first.requests} == {"1"}
    for _ in range(2):
        endpoint.delete_log_segment(name, first.name)
    assert [logged.name for logged in endpoint.log_segments(name)] == [second.name]


def ask(endpoint: Endpoint, name: str, row: dict[str, object]) -> None:
    """Send a request of one row, and wait for its segment of the log; the fake is given the segment directly."""
    if isinstance(endpoint, FakeEndpoint):
        columns = {column: [value] for column, value in row.items()}
        request = {"at": "2026-11-25T12:00:00+00:00", "id": "r", "version": "1", "rows": 1, "columns": columns}
        segment = f"{len(list(endpoint.log_segments(name))):04d}"
        endpoint.add_log_segment(name, LogSegment(segment, ({**request, "answer": {"predictions": [[0.5, 0.5]]}},)))
        return
    before = len(list(endpoint.log_segments(name)))
    answer = endpoint.invoke(name, json.dumps({"dataframe_records": [row]}).encode())
    assert answer.status == 200, answer.body
    wait_for(
        lambda: len(list(endpoint.log_segments(name))) > before
    )  # SageMaker writes every minute, here every second


def test_the_fake_refuses_and_errs_as_told(models: list[Path]) -> None:
    fake = FakeEndpoint(reject_versions=("1",), wrong_answer_versions=("2",))
    with pytest.raises(Rejected, match="version 1"):
        fake.switch(release(models[0], "1"))
    wrong = release(models[1], "2")
    fake.switch(wrong)
    with pytest.raises(Rejected, match="predictions"):
        fake.verify(wrong)


def test_fakes_of_one_space_share_what_they_serve(models: list[Path]) -> None:
    FakeEndpoint(shared_state="shared-in-a-test").switch(release(models[0], "1"))
    assert FakeEndpoint(shared_state="shared-in-a-test").live_version("churn") is not None
    assert FakeEndpoint().live_version("churn") is None
