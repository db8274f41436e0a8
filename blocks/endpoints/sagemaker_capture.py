"""SageMaker data capture as the inference log: JSON lines files in S3, and how to parse a line.

The prefix `<prefix>/<endpoint>/<version>/` names the version, since a line does not; SageMaker appends
`<its endpoint>/<variant>/yyyy/mm/dd/hh/<file>.jsonl`. Only `CaptureStore` calls AWS.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import Corrupt, Rejected
from blocks.endpoints.base import InferenceLogPolicy, LogSegment
from blocks.endpoints.sagemaker_release_store import S3ReleaseStore
from runtime.columns import BadInput
from runtime.payload import request_columns

JSON, CSV = "application/json", "text/csv"
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class CapturedRelease:
    """A release whose requests were captured: its golden request, and its model's input columns in order."""

    golden_request: str
    columns: tuple[str, ...]


def is_capture_allowed(policy: InferenceLogPolicy | None) -> bool:
    """Return whether requests may be captured: SageMaker can neither exclude nor hash columns."""
    return policy is not None and not policy.excluded_columns and not policy.hashed_columns


def capture_config(address: str, percent: int) -> dict[str, Any]:
    """Return the `DataCaptureConfig` of an endpoint configuration: requests and responses, as text."""
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": address,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": [JSON], "CsvContentTypes": [CSV]},
    }


def parse_capture_line(line: bytes, version: str, release: CapturedRelease) -> dict[str, Any] | None:
    """Return the request of one line, with the members of `LogSegment`.

    Return None for the golden request, and for a request without a successful response.

    Raises:
        BadInput, ValueError, KeyError, TypeError: the line does not have the documented form.
    """
    captured = json.loads(line)
    request, response = (captured["captureData"].get(name) for name in ("endpointInput", "endpointOutput"))
    if request is None or response is None:
        return None
    body, content = _text(request), json.loads(_text(response))
    predictions = content.get("predictions") if isinstance(content, dict) else None
    if body == release.golden_request or not isinstance(predictions, list):
        return None
    metadata = captured["eventMetadata"]
    return {
        "at": metadata["inferenceTime"].replace("Z", "+00:00"),
        "id": metadata.get("inferenceId") or metadata["eventId"],
        "version": version,
        "rows": len(predictions),
        "columns": _request_columns(body, request["observedContentType"], release.columns),
        "answer": {"predictions": predictions},
    }


def input_columns(mlmodel: bytes | None) -> tuple[str, ...]:
    """Return the input columns of a model from its MLmodel file; none if its signature names none."""
    try:
        inputs = json.loads(yaml.safe_load(mlmodel or b"")["signature"]["inputs"])
        return tuple(str(each["name"]) for each in inputs)
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        return ()


def _text(part: Mapping[str, str]) -> str:
    data = part["data"]
    return base64.b64decode(data).decode() if part["encoding"] == "BASE64" else data


def _request_columns(body: str, content_type: str, known: Sequence[str]) -> dict[str, list[Any]]:
    try:
        return request_columns(body.encode(), content_type, known)
    except BadInput:
        if known:
            raise
        return {}  # a model without named columns takes other formats


class CaptureStore:
    """The capture files of all endpoints below a prefix. Raises botocore's errors, and port errors about the files."""

    def __init__(self, folders: S3Folders, root: str, releases: S3ReleaseStore) -> None:
        self._folders, self._root, self._releases = folders, root, releases
        self._read_releases: dict[str, CapturedRelease] = {}

    def segments(self, endpoint: str) -> list[str]:
        """Return the names of the files, oldest first."""
        names = [name for name in self._folders.list_keys(f"{self._root}/{endpoint}/") if name.endswith(SUFFIX)]
        return sorted(names, key=lambda name: name.split("/")[-5:])  # yyyy/mm/dd/hh/MM-SS-…

    def read(self, endpoint: str, segment: str) -> LogSegment:
        """Return one file's requests. Raises Corrupt if it cannot be read."""
        version = segment.partition("/")[0]
        release, content = self._release_of(endpoint, version), self._folders.get_bytes(self._key(endpoint, segment))
        try:
            lines = (content or b"").splitlines()
            requests = [request for line in lines if line and (request := parse_capture_line(line, version, release))]
        except (BadInput, ValueError, KeyError, TypeError, IndexError, AttributeError) as cause:
            problem = f"{self._folders.url(self._key(endpoint, segment))} is not a data capture file"
            raise Corrupt(f"{problem}: {type(cause).__name__}: {cause}; delete it") from cause
        return LogSegment(segment, tuple(requests))

    def read_all(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield every file, oldest first; a file with golden requests only is deleted."""
        for segment in self.segments(endpoint):
            logged = self.read(endpoint, segment)
            if logged.requests:
                yield logged
            else:
                self.delete(endpoint, segment)

    def delete(self, endpoint: str, segment: str) -> None:
        """Delete a file; a missing one is no error."""
        self._folders.delete([self._key(endpoint, segment)])

    def _release_of(self, endpoint: str, version: str) -> CapturedRelease:
        """Return the release; empty if its copy was deleted, so that all of its requests count as traffic."""
        if version not in self._read_releases:
            stored = self._releases.record(endpoint, version)
            golden = stored.golden_example.request if stored else ""
            mlmodel = self._releases.model_file(endpoint, version, stored.digest, "MLmodel") if stored else None
            self._read_releases[version] = CapturedRelease(golden, input_columns(mlmodel))
        return self._read_releases[version]

    def _key(self, endpoint: str, segment: str) -> str:
        if {"", ".", ".."} & set(segment.split("/")) or not segment.endswith(SUFFIX):
            raise Rejected(f"{segment!r} is not a segment of the log of {endpoint}")
        return f"{self._root}/{endpoint}/{segment}"
