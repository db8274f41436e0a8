"""Records of tracked runs and registered model versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class TrackingRun:
    """A tracking run. `url` is a page for people. `metrics` has the last value of each metric.

    `started` and `ended` are None if unknown; `ended` is None while the run is active.
    """

    id: str
    experiment: str
    status: str
    url: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    started: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class ModelVersion:
    """A registered model version: its number as text, the run that created it, and a page for people."""

    name: str
    version: str
    run_id: str
    url: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
