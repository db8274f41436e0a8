"""Helpers for SageMaker jobs: names of attempts, and descriptions, training and transform alike."""

from collections.abc import Mapping
from typing import Any

from blocks.common.jobs import JobStatus
from runtime.digests import text_digest

JOB_STATUSES = {
    "InProgress": JobStatus.in_progress,
    "Completed": JobStatus.completed,
    "Failed": JobStatus.failed,
    "Stopping": JobStatus.stopped,  # its results are not usable
    "Stopped": JobStatus.stopped,
}
"""Job status by SageMaker's status name."""

_TRANSIENT_REASONS = ("CapacityError", "InternalServerError", "InsufficientInstanceCapacity")


def failure_reason(description: Mapping[str, Any]) -> str:
    """Return the reason that a failed job's description gives."""
    return description.get("FailureReason") or "SageMaker gives no reason; see the job's log"


def is_transient(reason: str) -> bool:
    """Return whether AWS caused the failure, so that a retry may succeed."""
    return reason.startswith(_TRANSIENT_REASONS)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the form of a request, with values cut to the length that AWS allows."""
    return [{"Key": key, "Value": value[:256]} for key, value in tags.items()]


MAX_NAME_LENGTH = 63


def attempt_name(name: str, number: int) -> str:
    """Return the SageMaker name of an attempt: the job's, from the second on with a number; at most 63 characters."""
    if number == 1:
        return name
    ending = f"-{number}"
    if len(name) + len(ending) <= MAX_NAME_LENGTH:
        return name + ending
    ending = f"-{text_digest(name)[:8]}{ending}"
    return name[: MAX_NAME_LENGTH - len(ending)].rstrip("-") + ending
