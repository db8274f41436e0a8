"""What the descriptions of SageMaker's jobs have in common, training and transform alike."""

from collections.abc import Mapping
from typing import Any

from blocks.common.jobs import JobStatus

JOB_STATUSES = {
    "InProgress": JobStatus.in_progress,
    "Completed": JobStatus.completed,
    "Failed": JobStatus.failed,
    "Stopping": JobStatus.stopped,  # nobody can use it any more
    "Stopped": JobStatus.stopped,
}
"""What the words of a description mean."""

_TRANSIENT_REASONS = ("CapacityError", "InternalServerError", "InsufficientInstanceCapacity")


def failure_reason(description: Mapping[str, Any]) -> str:
    """Return the reason that a failed job's description gives."""
    return description.get("FailureReason") or "SageMaker gives no reason; see the job's log"


def is_transient(reason: str) -> bool:
    """Whether a failure is AWS's own, and may be gone in a moment."""
    return reason.startswith(_TRANSIENT_REASONS)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as a request takes them, no value longer than AWS allows."""
    return [{"Key": key, "Value": value[:256]} for key, value in tags.items()]
