"""In-memory records of one resource type, with their history (to simulate delayed Describe responses)."""

import copy
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from local.sagemaker.errors import ApiError, validation_error
from local.sagemaker.settings import ACCOUNT

MAX_HISTORY = 60
"""Number of earlier states of a record that are kept."""


@dataclass(eq=False)
class Record:
    """One resource: its name, and the members of its Describe response, now and earlier."""

    name: str
    content: dict[str, Any]
    tags: dict[str, str] = field(default_factory=dict)
    history: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def update(self, **members: Any) -> None:
        """Set members (None removes one), and add the new state to the history."""
        with self.lock:
            now = datetime.now(UTC)
            self.content.update(members, LastModifiedTime=now)
            self.content = {key: value for key, value in self.content.items() if value is not None}
            self.history = [*self.history[-MAX_HISTORY:], (now, copy.deepcopy(self.content))]

    def as_of(self, lag_seconds: float = 0.0) -> dict[str, Any]:
        """Return the members as they were `lag_seconds` ago."""
        with self.lock:
            as_of = datetime.now(UTC) - timedelta(seconds=lag_seconds)
            states = [content for at, content in self.history if at <= as_of]
            return copy.deepcopy(states[-1] if states else self.history[0][1])

    def __getitem__(self, member: str) -> Any:
        return self.content[member]

    def get(self, member: str, default: Any = None) -> Any:
        """Return the current value of a member, or the default."""
        return self.content.get(member, default)


class RecordStore:
    """All records of one resource type ("TrainingJob"), by name."""

    def __init__(self, kind: str, region: str) -> None:
        slug = re.sub(r"(?<!^)(?=[A-Z])", "-", kind).lower()
        self.kind, self._arn_prefix = kind, f"arn:aws:sagemaker:{region}:{ACCOUNT}:{slug}/"
        self._records: dict[str, Record] = {}
        self._lock = threading.RLock()

    def _arn(self, name: str) -> str:
        return self._arn_prefix + name.lower()

    def add(self, request: Mapping[str, Any], **members: Any) -> Record:
        """Create a record from a request. Raises ApiError when the name is taken."""
        name = request[f"{self.kind}Name"]
        with self._lock:
            if name in self._records:
                taken = "ResourceInUse" if self.kind.endswith("Job") else "ValidationException"
                raise ApiError(taken, f'Cannot create already existing {self.kind} "{self._arn(name)}".')
            tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
            members_of_request = {key: value for key, value in request.items() if key != "Tags"}
            record = Record(name, {**members_of_request, f"{self.kind}Arn": self._arn(name)}, tags)
            record.update(CreationTime=datetime.now(UTC), **members)
            self._records[name] = record
            return record

    def get(self, name: str) -> Record:
        """Return a record. Raises ApiError (ValidationException, as AWS) when there is none."""
        with self._lock:
            if name not in self._records:
                raise validation_error(f'Requested resource not found: could not find {self.kind} "{self._arn(name)}".')
            return self._records[name]

    def remove(self, name: str) -> None:
        """Remove a record. Raises ApiError when there is none."""
        with self._lock:
            self.get(name)
            del self._records[name]

    def list_all(self) -> list[Record]:
        """Return all records, newest first."""
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record["CreationTime"], reverse=True)

    def has(self, name: str) -> bool:
        """Whether there is a record with that name."""
        return name in self._records

    def list_page(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return one page of a List operation, filtered."""
        summaries = f"{self.kind}Summaries" if self.kind.endswith("Job") else f"{self.kind}s"
        matching = [record.as_of() for record in self.list_all() if self._matches(record, request)]
        if request.get("SortOrder") == "Ascending":
            matching.reverse()
        start, size = int(request.get("NextToken", 0)), int(request.get("MaxResults", 100))
        next_token = str(start + size) if start + size < len(matching) else None
        return {summaries: matching[start : start + size], "NextToken": next_token}

    def _matches(self, record: Record, request: Mapping[str, Any]) -> bool:
        created, status = record["CreationTime"], request.get("StatusEquals")
        return (
            request.get("NameContains", "").lower() in record.name.lower()
            and (status is None or record.get(f"{self.kind}Status") == status)
            and request.get("CreationTimeAfter", created) <= created <= request.get("CreationTimeBefore", created)
        )


def find_by_arn(stores: Iterable[RecordStore], arn: str) -> Record:
    """Return the record with an ARN, of any resource type. Raises ApiError when there is none."""
    for store in stores:
        for record in store.list_all():
            if record[f"{store.kind}Arn"] == arn:
                return record
    raise validation_error(f"Requested resource not found: {arn}")
