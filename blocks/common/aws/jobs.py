"""What the descriptions of SageMaker's jobs have in common, training and transform alike."""

from collections.abc import Mapping
from typing import Any

from blocks.common.jobs import JobStatus

STATUS = {
    "InProgress": JobStatus.in_progress,
    "Completed": JobStatus.completed,
    "Failed": JobStatus.failed,
    "Stopping": JobStatus.stopped,  # nobody can use it any more
    "Stopped": JobStatus.stopped,
}
"""What the words of a description mean."""

_PASSING = ("CapacityError", "InternalServerError", "InsufficientInstanceCapacity")


def why_failed(described: Mapping[str, Any]) -> str:
    """Return the reason that a failed job's description gives."""
    return described.get("FailureReason") or "SageMaker gives no reason; see the job's log"


def is_passing(reason: str) -> bool:
    """Whether a failure is AWS's own, and may be gone in a moment."""
    return reason.startswith(_PASSING)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as a request takes them, no value longer than AWS allows."""
    return [{"Key": key, "Value": value[:256]} for key, value in tags.items()]
