"""SageMaker's training and transform jobs: attempts and their names, reasons, tags, and logs in CloudWatch.

The first attempt has the job's name on SageMaker. SageMaker never releases a name, so further attempts get a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from blocks.common.aws.clients import ignored_errors, response_or_none
from blocks.common.errors import NotFound
from blocks.common.jobs import NAME_PATTERN, JobStatus
from runtime.digests import text_digest

JOB_STATUSES = {
    "InProgress": JobStatus.in_progress,
    "Completed": JobStatus.completed,
    "Failed": JobStatus.failed,
    "Stopping": JobStatus.stopped,  # its results are not usable
    "Stopped": JobStatus.stopped,
}
"""Job status by SageMaker's status name."""
MAX_NAME_LENGTH = 63
MAX_STREAMS = 5
"""Maximum number of log streams to read: one per instance, and SageMaker's own on the data."""
TRAINING_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_TRANSIENT_REASONS = ("CapacityError", "InternalServerError", "InsufficientInstanceCapacity")


def failure_reason(description: Mapping[str, Any]) -> str:
    """Return the reason that the description of a failed job or endpoint gives."""
    return description.get("FailureReason") or "SageMaker gives no reason; see its log"


def is_transient(reason: str) -> bool:
    """Return whether AWS caused the failure, so that a retry may succeed."""
    return reason.startswith(_TRANSIENT_REASONS)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the form of a request, with values cut to the length that AWS allows."""
    return [{"Key": key, "Value": value[:256]} for key, value in tags.items()]


def attempt_name(name: str, number: int) -> str:
    """Return the SageMaker name of an attempt: the job's, from the second on with a number; at most 63 characters."""
    if number == 1:
        return name
    ending = f"-{number}"
    if len(name) + len(ending) <= MAX_NAME_LENGTH:
        return name + ending
    ending = f"-{text_digest(name)[:8]}{ending}"
    return name[: MAX_NAME_LENGTH - len(ending)].rstrip("-") + ending


@dataclass(frozen=True)
class SageMakerJobs:
    """All jobs of one kind in the account and region. Raises botocore's errors.

    `known_attempts` remembers the number of each job's latest attempt between calls.
    """

    client: Any
    kind: Literal["training", "transform"]
    known_attempts: dict[str, int]

    def latest(self, name: str) -> tuple[int, Mapping[str, Any] | None]:
        """Return number and description of the job's latest attempt, or 0 and None."""
        number = self.known_attempts.get(name, 1)
        latest = self._describe(attempt_name(name, number))
        if latest is None:
            return 0, None
        while not self._is_in_progress(latest):
            if (later := self._describe(attempt_name(name, number + 1))) is None:
                break
            number, latest = number + 1, later
        self.known_attempts[name] = number
        return number, latest

    def require_latest(self, name: str) -> tuple[int, Mapping[str, Any]]:
        """Return number and description of the job's latest attempt. Raises NotFound if there is none."""
        number, latest = self.latest(name)
        if latest is None:
            raise NotFound(f"no {self.kind} job {name!r} on SageMaker in this account and region")
        return number, latest

    def create(self, request: Mapping[str, Any]) -> None:
        """Create an attempt. If another process was first, its attempt is used."""
        with ignored_errors("ResourceInUse"):
            getattr(self.client, f"create_{self.kind}_job")(**request)

    def stop(self, name: str) -> None:
        """Request the stop of the job's latest attempt, unless it has ended."""
        _, latest = self.require_latest(name)
        if self._is_in_progress(latest):
            with ignored_errors("ValidationException"):  # it has just ended by itself
                getattr(self.client, f"stop_{self.kind}_job")(**{self._name_member: latest[self._name_member]})

    def _describe(self, attempt: str) -> Mapping[str, Any] | None:
        if not NAME_PATTERN.fullmatch(attempt):
            return None
        found = response_or_none(getattr(self.client, f"describe_{self.kind}_job"), **{self._name_member: attempt})
        return None if found is None else dict(found)

    def _is_in_progress(self, description: Mapping[str, Any]) -> bool:
        return str(description[f"{self.kind.title()}JobStatus"]) == "InProgress"

    @property
    def _name_member(self) -> str:
        return f"{self.kind.title()}JobName"


def last_log_lines(client: Any, group: str, prefix: str, count: int = 10) -> list[str]:
    """Return the last lines of the streams whose names start with `prefix`; none if there is no log."""
    found = response_or_none(client.describe_log_streams, logGroupName=group, logStreamNamePrefix=prefix)
    streams = sorted(stream["logStreamName"] for stream in found["logStreams"])[-MAX_STREAMS:] if found else []
    where = {"logGroupName": group, "startFromHead": False, "limit": count}
    pages = [response_or_none(client.get_log_events, logStreamName=name, **where) for name in streams]
    return [str(event["message"]).rstrip("\n") for page in pages if page for event in page["events"]][-count:]


@dataclass
class TrainingLogReader:
    """The lines of one attempt's log that were read so far. CloudWatch pages by tokens, the port by lines."""

    client: Any
    attempt: str
    _tokens: dict[str, str] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)

    def lines_after(self, position: int) -> list[str]:
        """Read new lines, and return all lines after the first `position`."""
        for stream in self._streams():
            self._read(stream)
        return self._lines[position:]

    def _streams(self) -> list[str]:
        """Return the attempt's streams, oldest first: their names end with their start time."""
        pages = self.client.get_paginator("describe_log_streams").paginate(
            logGroupName=TRAINING_LOG_GROUP, logStreamNamePrefix=f"{self.attempt}/"
        )
        found = response_or_none(pages.build_full_result)  # None: no job has ever logged here
        return sorted(stream["logStreamName"] for stream in found["logStreams"]) if found else []

    def _read(self, stream: str) -> None:
        while True:
            token = self._tokens.get(stream)
            more = {"nextToken": token} if token else {}
            page = self.client.get_log_events(
                logGroupName=TRAINING_LOG_GROUP, logStreamName=stream, startFromHead=True, **more
            )
            self._lines += [str(event["message"]).rstrip("\n") for event in page["events"]]
            self._tokens[stream] = page["nextForwardToken"]
            if page["nextForwardToken"] == token:  # this is the end; an empty page may come before it
                return
