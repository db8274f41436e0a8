"""Data capture of the local SageMaker, read with boto3 from S3: the places and lines that AWS documents."""

import base64
import json
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.local_aws import SageMakerLab

KNOWN = {"requests": {"*": [0.5]}}


def capturing(desk: SageMakerLab, name: str, percent: int = 100, **more: Any) -> str:
    """Create an endpoint that captures, and return the place of its capture."""
    desk.model(f"{name}-model", KNOWN)
    where = f"s3://{desk.bucket}/data-capture"
    config = {"InitialSamplingPercentage": percent, "DestinationS3Uri": where,
              "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}], "EnableCapture": True, **more}  # fmt: skip
    desk.config(f"{name}-config", f"{name}-model", DataCaptureConfig=config)
    assert desk.endpoint(name, f"{name}-config")["EndpointStatus"] == "InService"
    return where


def lines(desk: SageMakerLab, prefix: str = "data-capture/") -> list[tuple[str, dict[str, Any]]]:
    desk.server.operations.capture.flush()
    keys = [each["Key"] for each in desk.s3.list_objects_v2(Bucket=desk.bucket, Prefix=prefix).get("Contents", ())]
    return [(key, json.loads(line)) for key in keys for line in desk.get(f"s3://{desk.bucket}/{key}").splitlines()]


def test_requests_and_answers_are_written_where_and_as_aws_documents_it(desk: SageMakerLab) -> None:
    listed = {"JsonContentTypes": ["application/json"], "CsvContentTypes": ["text/csv"]}
    where = capturing(desk, "watched", CaptureContentTypeHeader=listed)
    for body, kind in ((b'{"a": 1}', "application/json"), (b"1,2", "text/csv"), (b"\x00", "image/png")):
        desk.runtime.invoke_endpoint(
            EndpointName="watched", Body=body, ContentType=kind, InferenceId=f"mine-{len(body)}"
        )
    found = lines(desk)
    assert len(found) == 3
    place = r"data-capture/watched/AllTraffic/\d{4}/\d\d/\d\d/\d\d/\d\d-\d\d-\d{3}-[0-9a-f-]{36}\.jsonl"
    assert all(re.fullmatch(place, key) for key, _ in found)
    inputs = [line["captureData"]["endpointInput"] for _, line in found]
    assert inputs == [
        {"observedContentType": "application/json", "mode": "INPUT", "data": '{"a": 1}', "encoding": "JSON"},
        {"observedContentType": "text/csv", "mode": "INPUT", "data": "1,2", "encoding": "CSV"},
        {"observedContentType": "image/png", "mode": "INPUT", "data": "AA==", "encoding": "BASE64"},
    ]
    said = found[0][1]["captureData"]["endpointOutput"]
    assert (said["mode"], said["encoding"], json.loads(said["data"])) == ("OUTPUT", "JSON", {"predictions": [0.5]})
    about = found[0][1]["eventMetadata"]
    assert about["inferenceId"] == "mine-8" and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", about["inferenceTime"])
    assert found[0][1]["eventVersion"] == "0" and len({line["eventMetadata"]["eventId"] for _, line in found}) == 3
    shown = desk.sagemaker.describe_endpoint(EndpointName="watched")["DataCaptureConfig"]
    assert shown == {"EnableCapture": True, "CaptureStatus": "Started", "CurrentSamplingPercentage": 100,
                     "DestinationS3Uri": where, "KmsKeyId": ""}  # fmt: skip


def test_without_content_types_everything_is_base64(desk: SageMakerLab) -> None:
    capturing(desk, "plain", CaptureOptions=[{"CaptureMode": "Input"}])
    desk.ask("plain", ContentType="application/json")
    ((_, line),) = lines(desk)
    assert set(line["captureData"]) == {"endpointInput"}
    assert base64.b64decode(line["captureData"]["endpointInput"]["data"]) == b"anything"


@pytest.mark.parametrize(("percent", "least", "most"), [(0, 0, 0), (50, 10, 50), (100, 60, 60)])
def test_a_share_of_the_requests_is_captured(desk: SageMakerLab, percent: int, least: int, most: int) -> None:
    capturing(desk, f"share-{percent}", percent)
    for _ in range(60):
        desk.ask(f"share-{percent}")
    assert least <= len(lines(desk)) <= most


def test_capture_that_is_off_and_requests_that_fail_leave_nothing(desk: SageMakerLab) -> None:
    capturing(desk, "off", EnableCapture=False)
    desk.ask("off")
    desk.model("failing-model", {"requests": {}})
    config = {"InitialSamplingPercentage": 100, "DestinationS3Uri": f"s3://{desk.bucket}/data-capture",
              "CaptureOptions": [{"CaptureMode": "InputAndOutput"}]}  # fmt: skip
    desk.config("failing-config", "failing-model", DataCaptureConfig=config)
    desk.endpoint("failing", "failing-config")
    with pytest.raises(ClientError, match="400"):
        desk.ask("failing")
    assert lines(desk) == []
    assert desk.sagemaker.describe_endpoint(EndpointName="off")["DataCaptureConfig"]["CaptureStatus"] == "Stopped"


@pytest.mark.parametrize("wrong", [{"InitialSamplingPercentage": 101}, {"CaptureOptions": [{"CaptureMode": "Both"}]}])
def test_what_aws_would_refuse_is_refused(desk: SageMakerLab, wrong: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        capturing(desk, f"wrong-{len(str(wrong))}", **wrong)
