"""SageMaker's data capture as the endpoint's log: files of JSON lines in S3, and what each line says.

A release is captured below `<prefix>/<endpoint>/<version>/`, since a line does not say which version answered;
SageMaker goes on with `<its endpoint>/<variant>/yyyy/mm/dd/hh/<file>.jsonl`. No calls here but those of `CaptureStore`.
"""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import Corrupt, Rejected
from blocks.endpoints.base import InferenceLogPolicy, LogSegment

JSON, CSV = "application/json", "text/csv"
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class CapturedRelease:
    """What is known of a release whose requests were captured: its golden request, and its model's columns in order."""

    golden_request: str
    columns: tuple[str, ...]


def is_capture_allowed(rules: InferenceLogPolicy | None) -> bool:
    """Whether requests may be captured: SageMaker writes them as they came, and can leave nothing out nor hash it."""
    return rules is not None and not rules.excluded_columns and not rules.hashed_columns


def capture_config(address: str, percent: int) -> dict[str, Any]:
    """Return the `DataCaptureConfig` of an endpoint configuration: requests and answers, as text."""
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": address,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": [JSON], "CsvContentTypes": [CSV]},
    }


def parse_capture_line(line: bytes, version: str, release: CapturedRelease) -> dict[str, Any] | None:
    """Return what one line says, in the members of `LogSegment`; None for the golden request, and what has no answer.

    Raises:
        ValueError, KeyError, TypeError: the line is not of the documented form.
    """
    found = json.loads(line)
    given, said = (found["captureData"].get(name) for name in ("endpointInput", "endpointOutput"))
    if given is None or said is None:
        return None
    body, answer = _text(given), json.loads(_text(said))
    if (
        body == release.golden_request
        or not isinstance(answer, dict)
        or not isinstance(answer.get("predictions"), list)
    ):
        return None
    about, columns = found["eventMetadata"], _request_columns(body, given["observedContentType"], release.columns)
    return {
        "at": about["inferenceTime"].replace("Z", "+00:00"),
        "id": about.get("inferenceId") or about["eventId"],
        "version": version,
        "rows": len(answer["predictions"]),
        "columns": columns,
        "answer": {"predictions": answer["predictions"]},
    }


def input_columns(mlmodel: bytes | None) -> tuple[str, ...]:
    """Return the names of the columns that a model takes, by its file MLmodel; none where its signature names none."""
    try:
        inputs = json.loads(yaml.safe_load(mlmodel or b"")["signature"]["inputs"])
        return tuple(str(each["name"]) for each in inputs)
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        return ()


def _text(part: Mapping[str, str]) -> str:
    data = part["data"]
    return base64.b64decode(data).decode() if part["encoding"] == "BASE64" else data


def _request_columns(body: str, content_type: str, known: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of a request by column, in every shape that the container takes."""
    if content_type.partition(";")[0].strip().lower() == CSV:
        header, *lines = [line for line in csv.reader(io.StringIO(body, newline="")) if line]
        return _by_column(header, [[value or None for value in line] for line in lines])
    document = json.loads(body)
    if split := document.get("dataframe_split"):
        return _by_column(split.get("columns", known), split["data"])
    rows: Any = next((document[name] for name in ("dataframe_records", "instances", "inputs") if name in document), [])
    if isinstance(rows, dict):
        return {name: value if isinstance(value, list) else [value] for name, value in rows.items()}
    if rows and isinstance(rows[0], dict):
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: [row.get(name) for row in rows] for name in names}
    return _by_column(known, rows)


def _by_column(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)} if rows else {}


class CaptureStore:
    """The captured files of all endpoints below a prefix. Errors are botocore's, but for those of the files."""

    def __init__(
        self, folders: S3Folders, prefixes: S3Artifacts, root: str, release_of: Callable[[str, str], CapturedRelease]
    ) -> None:
        self._folders, self._prefixes, self._root, self._asked = folders, prefixes, root, release_of

    def segments(self, endpoint: str) -> list[str]:
        """Return the names of the files, oldest first."""
        names = [name for name in self._folders.list_keys(f"{self._root}/{endpoint}/") if name.endswith(SUFFIX)]
        return sorted(names, key=lambda name: name.split("/")[-5:])  # yyyy/mm/dd/hh/MM-SS-…

    def read(self, endpoint: str, segment: str) -> LogSegment:
        """Return one file's requests. Raises Corrupt when it cannot be read."""
        version = segment.partition("/")[0]
        asked, content = self._asked(endpoint, version), self._folders.get_bytes(self._key(endpoint, segment))
        try:
            lines = (content or b"").splitlines()
            found = [request for line in lines if line and (request := parse_capture_line(line, version, asked))]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as cause:
            where = self._folders.url(self._key(endpoint, segment))
            raise Corrupt(f"{where} is no file of data capture: {type(cause).__name__}: {cause}; remove it") from cause
        return LogSegment(segment, tuple(found))

    def read_all(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield every file, oldest first; one of golden requests alone, which are no traffic, is removed."""
        for segment in self.segments(endpoint):
            logged = self.read(endpoint, segment)
            if logged.requests:
                yield logged
            else:
                self.delete(endpoint, segment)

    def delete(self, endpoint: str, segment: str) -> None:
        """Remove a file; one that is gone already is no error."""
        self._prefixes.remove([self._key(endpoint, segment)])

    def _key(self, endpoint: str, segment: str) -> str:
        if {"", ".", ".."} & set(segment.split("/")) or not segment.endswith(SUFFIX):
            raise Rejected(f"{segment!r} is no segment of the log of {endpoint}")
        return f"{self._root}/{endpoint}/{segment}"
