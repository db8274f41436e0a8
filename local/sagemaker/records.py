"""What the local SageMaker remembers of one kind of thing: the answers of Describe, with their history."""

import copy
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from local.sagemaker.errors import ApiError, validation_error

MAX_HISTORY = 60
"""How many earlier states of a record are kept, to answer late on demand."""


@dataclass(eq=False)
class Record:
    """One thing: its name, and the members of its Describe as they are now and as they were."""

    name: str
    content: dict[str, Any]
    tags: dict[str, str] = field(default_factory=dict)
    history: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def update(self, **members: Any) -> None:
        """Set members (None removes one), and remember how it was."""
        with self.lock:
            now = datetime.now(UTC)
            self.content.update(members, LastModifiedTime=now)
            self.content = {key: value for key, value in self.content.items() if value is not None}
            self.history = [*self.history[-MAX_HISTORY:], (now, copy.deepcopy(self.content))]

    def as_of(self, lag_seconds: float = 0.0) -> dict[str, Any]:
        """Return the members as they were `lag_seconds` ago."""
        with self.lock:
            then = datetime.now(UTC) - timedelta(seconds=lag_seconds)
            known = [content for at, content in self.history if at <= then]
            return copy.deepcopy(known[-1] if known else self.history[0][1])

    def __getitem__(self, member: str) -> Any:
        return self.content[member]

    def get(self, member: str, default: Any = None) -> Any:
        """Return a member as it is now, or the default."""
        return self.content.get(member, default)


class RecordStore:
    """All records of a kind ("TrainingJob"): made once a name, found by name, listed in pages."""

    def __init__(self, kind: str, arn: Callable[[str], str], taken: str = "ValidationException") -> None:
        self.kind, self._arn, self._taken = kind, arn, taken
        self._records: dict[str, Record] = {}
        self._lock = threading.RLock()

    def add(self, request: Mapping[str, Any], **members: Any) -> Record:
        """Make a record of a request. Raises Refused when there is one of that name."""
        name = request[f"{self.kind}Name"]
        with self._lock:
            if name in self._records:
                raise ApiError(self._taken, f'Cannot create already existing {self.kind} "{self._arn(name)}".')
            tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
            stated = {key: value for key, value in request.items() if key != "Tags"}
            record = Record(name, {**stated, f"{self.kind}Arn": self._arn(name)}, tags)
            record.update(CreationTime=datetime.now(UTC), **members)
            self._records[name] = record
            return record

    def get(self, name: str) -> Record:
        """Return a record. Raises Refused as AWS does: a ValidationException."""
        with self._lock:
            if name not in self._records:
                raise validation_error(f'Requested resource not found: could not find {self.kind} "{self._arn(name)}".')
            return self._records[name]

    def remove(self, name: str) -> Record:
        """Forget a record, and return it."""
        with self._lock:
            record = self.get(name)
            del self._records[name]
            return record

    def list_all(self) -> list[Record]:
        """Return all records, newest first."""
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record["CreationTime"], reverse=True)

    def has(self, name: str) -> bool:
        """Whether there is a record of that name."""
        return name in self._records

    def list_page(self, request: Mapping[str, Any], summaries: str) -> dict[str, Any]:
        """Return one page of a List operation, filtered, under the member `summaries`."""
        chosen = [record.as_of() for record in self.list_all() if self._wanted(record, request)]
        if request.get("SortOrder") == "Ascending":
            chosen.reverse()
        start, size = int(request.get("NextToken", 0)), int(request.get("MaxResults", 100))
        more = str(start + size) if start + size < len(chosen) else None
        return {summaries: chosen[start : start + size], "NextToken": more}

    def _wanted(self, record: Record, request: Mapping[str, Any]) -> bool:
        made, status = record["CreationTime"], request.get("StatusEquals")
        return (
            request.get("NameContains", "").lower() in record.name.lower()
            and (status is None or record.get(f"{self.kind}Status") == status)
            and request.get("CreationTimeAfter", made) <= made <= request.get("CreationTimeBefore", made)
        )


def find_by_arn(shelves: Iterable[RecordStore], arn: str) -> Record:
    """Return the record of an ARN, whatever its kind. Raises Refused."""
    for shelf in shelves:
        for record in shelf.list_all():
            if record[f"{shelf.kind}Arn"] == arn:
                return record
    raise validation_error(f"Requested resource not found: {arn}")
