"""Captured requests of SageMaker: ingested once, typed and with their version, even after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.common.errors import Corrupt
from blocks.endpoints.base import InferenceLogPolicy
from blocks.lake.fake import FakeLake
from blocks.tracking.fake import FakeTracking
from tasks.monitoring.current import ingest_log_segments
from tests.fakes.environment import SPEC
from tests.fixtures.local_aws import SageMakerLab, sagemaker_endpoint, tiny_release

ROWS = [{"rooms": 3, "street": "Elm", "garden": 1, "house_id": "h1"}, {"rooms": 2.5, "house_id": "h2"}]
ANSWER = [[0.25, 0.75], [0.5, 0.5]]


def name_of(desk: SageMakerLab) -> str:
    return f"price-{desk.bucket[-8:]}"


def test_what_was_asked_lands_once_with_the_version_that_answered(desk: SageMakerLab, tmp_path: Path) -> None:
    spec, lake, endpoint = SPEC.model_copy(update={"name": name_of(desk)}), FakeLake(), sagemaker_endpoint(desk)
    body = json.dumps({"dataframe_records": ROWS})
    for version in ("1", "2"):
        release = tiny_release(tmp_path, version, spec.name, more={body: ANSWER})
        endpoint.switch(replace(release, log_policy=InferenceLogPolicy("house_id")))
        endpoint.verify(replace(release, log_policy=InferenceLogPolicy("house_id")))
        assert endpoint.invoke(spec.name, body.encode()).status == 200
        desk.server.operations.capture.flush()
    first = next(endpoint.log_segments(spec.name))
    done = ingest_log_segments(endpoint, lake, FakeTracking(root=tmp_path), spec)
    assert (done.rows, list(endpoint.log_segments(spec.name))) == (4, [])
    found = lake.read(lake.as_of(done.dataset)).sort_by([("_model_version", "ascending"), ("_row", "ascending")])
    assert found["house_id"].to_pylist() == ["h1", "h2"] * 2
    assert found["_model_version"].to_pylist() == ["1", "1", "2", "2"]
    assert found["rooms"].to_pylist() == [3.0, 2.5] * 2 and found["street"].to_pylist() == ["Elm", None] * 2
    assert found["_requested_at"].type == pa.timestamp("us", "UTC")
    desk.put(f"data-capture/{spec.name}/{first.name}", "")  # as if ingest was killed before it removed the segment
    assert ingest_log_segments(endpoint, lake, FakeTracking(root=tmp_path), spec).rows == 0
    endpoint.undeploy(spec.name)


def test_a_file_that_is_none_is_named_and_lands_nothing(desk: SageMakerLab, tmp_path: Path) -> None:
    spec, endpoint = SPEC.model_copy(update={"name": name_of(desk)}), sagemaker_endpoint(desk)
    desk.put(
        f"data-capture/{spec.name}/1/{spec.name}/AllTraffic/2026/11/25/12/00-00-000-a.jsonl", '{"captureData": 1}\n'
    )
    with pytest.raises(Corrupt, match=r"data-capture/.*00-00-000-a\.jsonl is not a data capture file"):
        ingest_log_segments(endpoint, FakeLake(), FakeTracking(root=tmp_path), spec)
    endpoint.delete_log_segment(spec.name, f"1/{spec.name}/AllTraffic/2026/11/25/12/00-00-000-a.jsonl")
    assert list(endpoint.log_segments(spec.name)) == []
