"""Lines of SageMaker's data capture: their meaning for every form of a request, and which requests are captured."""

import base64
import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from blocks.endpoints.base import GoldenExample, InferenceLogPolicy
from blocks.endpoints.sagemaker_capture import CapturedRelease, input_columns, is_capture_allowed, parse_capture_line
from blocks.endpoints.sagemaker_release_store import StoredRelease
from blocks.endpoints.sagemaker_requests import ServingSettings, config_request, model_request, release_name

GOLDEN = '{"dataframe_split": {"columns": ["rooms"], "data": [[1]]}}'
ASKED = CapturedRelease(GOLDEN, ("rooms", "street"))
HOSTING = ServingSettings(
    role_arn="arn:aws:iam::123456789012:role/r", image="image:1", trusted_keys=["k"], bucket="b", capture_percent=20
)


def kept(log: InferenceLogPolicy | None) -> StoredRelease:
    return StoredRelease(
        "price", "3", "d" * 64, GoldenExample(GOLDEN, "[1]"), "s3://b/releases/price/3/d/", log_policy=log
    )


def part(data: str, content_type: str, mode: str, encoding: str = "") -> dict[str, str]:
    known = encoding or ("CSV" if "csv" in content_type else "JSON")
    text = base64.b64encode(data.encode()).decode() if known == "BASE64" else data
    return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": known}


def line(
    given: str, said: str = '{"predictions": [0.5, 0.25]}', content_type: str = "application/json", **more: Any
) -> bytes:
    encoding = more.pop("encoding", "")
    parts = {"endpointInput": part(given, content_type, "INPUT", encoding),
             "endpointOutput": part(said, "application/json", "OUTPUT", encoding)}  # fmt: skip
    about = {"eventId": "e-1", "inferenceTime": "2026-11-25T12:00:00Z", **more}
    return json.dumps({"captureData": parts, "eventMetadata": about, "eventVersion": "0"}).encode()


COLUMNS = {"rooms": [1, 2], "street": ["Elm", None]}
BODIES = {
    "split": '{"dataframe_split": {"columns": ["rooms", "street"], "data": [[1, "Elm"], [2, null]]}}',
    "split without names": '{"dataframe_split": {"data": [[1, "Elm"], [2, null]]}}',
    "records": '{"dataframe_records": [{"rooms": 1, "street": "Elm"}, {"rooms": 2}]}',
    "instances": '{"instances": [[1, "Elm"], [2, null]]}',
    "columnar inputs": '{"inputs": {"rooms": [1, 2], "street": ["Elm", null]}}',
}


@pytest.mark.parametrize("encoding", ["JSON", "BASE64"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_every_shape_of_a_request_is_read_by_column(body: str, encoding: str) -> None:
    found = parse_capture_line(line(body, encoding=encoding), "3", ASKED)
    assert found == {"at": "2026-11-25T12:00:00+00:00", "id": "e-1", "version": "3", "rows": 2, "columns": COLUMNS,
                     "answer": {"predictions": [0.5, 0.25]}}  # fmt: skip


def test_csv_is_read_as_text_and_an_empty_field_is_missing() -> None:
    found = parse_capture_line(line("street,rooms\nElm,1\n,2\n", content_type="text/csv; charset=utf-8"), "3", ASKED)
    assert found is not None and found["columns"] == {"street": ["Elm", None], "rooms": ["1", "2"]}


def test_the_callers_own_id_is_the_request_s() -> None:
    found = parse_capture_line(line(BODIES["split"], inferenceId="mine"), "3", ASKED)
    assert found is not None and found["id"] == "mine"


@pytest.mark.parametrize("said", ['{"error": "no"}', '{"predictions": {"a": 1}}', "[1]"])
def test_the_golden_request_and_what_is_no_list_of_answers_is_no_traffic(said: str) -> None:
    assert parse_capture_line(line(GOLDEN), "3", ASKED) is None
    assert parse_capture_line(line(BODIES["split"], said), "3", ASKED) is None
    alone = {"captureData": {"endpointInput": {}}, "eventMetadata": {}, "eventVersion": "0"}
    assert parse_capture_line(json.dumps(alone).encode(), "3", ASKED) is None


def test_columns_are_those_of_the_model_s_signature() -> None:
    text = b'signature:\n  inputs: \'[{"type": "double", "name": "rooms"}, {"type": "string", "name": "street"}]\'\n'
    assert input_columns(text) == ("rooms", "street")
    for other in (None, b"", b"flavors: {}", b'signature: {inputs: \'[{"type": "tensor"}]\'}', b": :", b"signature: 5"):
        assert input_columns(other) == ()


@pytest.mark.parametrize(
    ("rules", "captured"),
    [(None, False), (InferenceLogPolicy(), True), (InferenceLogPolicy("house_id"), True), (InferenceLogPolicy(excluded_columns=("name",)), False),
     (InferenceLogPolicy(hashed_columns=("name",)), False)],
    ids=["no log", "all", "with the key", "a column to leave out", "a column to hash"],
)  # fmt: skip
def test_nothing_is_captured_of_which_a_part_may_not_be_written(
    rules: InferenceLogPolicy | None, captured: bool
) -> None:
    request = config_request(kept(rules), HOSTING)
    assert ("DataCaptureConfig" in request) is is_capture_allowed(rules) is captured
    model = botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateEndpointConfig")
    assert not ParamValidator().validate(request, model.input_shape).has_errors()
    if captured:
        assert request["DataCaptureConfig"]["DestinationS3Uri"] == "s3://b/data-capture/price/3"
        assert request["DataCaptureConfig"]["InitialSamplingPercentage"] == 20


def test_other_rules_are_another_configuration_and_the_key_reaches_the_container() -> None:
    names = {
        release_name(kept(rules), HOSTING) for rules in (None, InferenceLogPolicy(), InferenceLogPolicy("house_id"))
    }
    assert len(names) == 3
    said = model_request(kept(InferenceLogPolicy("house_id")), HOSTING)["PrimaryContainer"]["Environment"]
    assert said["RATCHET_ENTITY_COLUMN"] == "house_id"
    assert "RATCHET_ENTITY_COLUMN" not in model_request(kept(None), HOSTING)["PrimaryContainer"]["Environment"]
