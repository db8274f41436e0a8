"""Records of what runs in a cloud account and costs money."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class PaidJob:
    """A running training or transform job. `max_seconds` limits its run time; `started` is when it was created.

    `flow_run_id` and `run_id` are the ids of its flow run and its tracking run, "" if the tags do not name them.
    """

    name: str
    flow_run_id: str
    instance_type: str
    instance_count: int
    started: datetime
    max_seconds: int
    run_id: str = ""


@dataclass(frozen=True)
class PaidEndpoint:
    """An endpoint in service: its instances by variant, since when, and its requests since a given time.

    `endpoint_config` is the configuration from which it can be created again after a deletion.
    """

    name: str
    endpoint_config: str
    instance_type: str
    instances_by_variant: Mapping[str, int]
    in_service_since: datetime
    requests: float

    @property
    def instance_count(self) -> int:
        """The number of its instances."""
        return sum(self.instances_by_variant.values())


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one job: their size, and when the newest was written."""

    job: str
    size_bytes: int
    last_modified: datetime
    keys: tuple[str, ...] = field(default=(), repr=False)
