"""Record of one artifact that garbage collection may remove."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Collectable:
    """One stored artifact that garbage collection may delete.

    Attributes:
        key: kind and name: `run:<id>`, `model:<id>`, `version:<model>/<number>`, `attempt:<job>/<number>`,
            `release:<endpoint>/<version>`, `tier:<model>/<digest>`, `fetched-model:<model>/<version>`, `result:<name>`,
            and in S3 `training-output:<attempt>`, `training-input:<digest>`, `batch-inference:<job>`.
        description: what it is, for people.
        last_used: when it was last written or used, with a time zone.
        depends_on: keys of the artifacts that this one needs; they need not exist.
        keep_reason: why it must not be deleted, such as "it is running"; "" if nothing forbids it.
    """

    key: str
    description: str
    last_used: datetime
    depends_on: tuple[str, ...] = field(default=())
    keep_reason: str = ""
