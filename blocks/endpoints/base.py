"""The endpoint port: one model version at a time answers; the next is proven before the switch."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block

from blocks.common.collectable import ArtifactOwner
from blocks.common.compute import EndpointCompute
from blocks.endpoints.traffic import TrafficInterval


@dataclass(frozen=True)
class GoldenExample:
    """A request whose answer is known: JSON text as posted to `/invocations`, and the predictions it must give.

    `expected_predictions` is the answer's `expected_predictions` member as JSON text; numbers may differ by `tolerance`.
    """

    request: str
    expected_predictions: str
    tolerance: float = 1e-9


@dataclass(frozen=True)
class InferenceLogPolicy:
    """What an endpoint may keep of requests and answers.

    `entity_column` is the column that names who a row is about: callers may send it beside the model's columns. Columns to
    `excluded_columns` are never written; of those that are `hashed_columns` only a keyed hash is.
    """

    entity_column: str = ""
    excluded_columns: tuple[str, ...] = ()
    hashed_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    """One model version as it is to be served: the exact artifact (an MLflow model folder) and its digest.

    Its signature lies beside it: that of `model` is `model.sig`.
    Without rules for the log (`log_policy` is None) nothing of what it is asked is kept.
    """

    endpoint: str
    version: str
    artifact: Path
    digest: str
    golden_example: GoldenExample
    log_policy: InferenceLogPolicy | None = None


@dataclass(frozen=True)
class LogSegment:
    """Answered requests of an endpoint, one after the other, in a segment of its log that changes no more.

    Each has the members `at` (ISO 8601 with zone), `id`, `version`, `rows`, `columns` (values by column, as they
    were sent) and `answer` (with `predictions`).
    """

    name: str
    requests: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class LiveVersion:
    """What an endpoint answers with now."""

    endpoint: str
    version: str
    digest: str
    deployed_at: datetime
    url: str


@dataclass(frozen=True)
class ProbeResult:
    """What a check of a running model saw: seconds to load, milliseconds to answer, and its log's last lines."""

    version: str
    digest: str
    load_seconds: float
    response_ms: float
    log_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class InferenceResponse:
    """An HTTP answer of the endpoint: status code, body, content type, and the version that made it."""

    status: int
    body: bytes
    content_type: str
    version: str
    headers: Mapping[str, str]


class Endpoint(ArtifactOwner, Block):
    """Serves models by name. A release that fails at any point leaves the version before it serving."""

    @abstractmethod
    def compute(self, endpoint: str) -> EndpointCompute:
        """Return what serving under that name will ask for, so that it can be priced before anything is released.

        Nothing is asked of a service. An adapter that pays says the most that `switch` and scaling may ask for.
        """

    @abstractmethod
    def preflight(self, release: Release) -> ProbeResult:
        """Load the exact artifact in the real server, apart from live traffic, and put the golden request to it.

        Raises:
            Corrupt: the artifact's digest is not the release's.
            Rejected: it is not signed by a pinned key, is of what is not allowed, does not load, does not answer in
                time, or answers otherwise than the golden one; the message carries the server's own last words.
        """

    @abstractmethod
    def switch(self, release: Release) -> LiveVersion:
        """Make the release the one that answers, without failing a request. Repeating it changes nothing.

        The adapter keeps its own copy of the artifact, and those of earlier releases, for `restore`.

        Raises:
            Corrupt, Rejected: as `preflight`; the version before it still answers.
        """

    @abstractmethod
    def rollback(self, endpoint: str, version: str) -> LiveVersion:
        """Make an earlier release answer again, from the adapter's own copy: no registry, no training.

        Raises:
            NotFound: the adapter has not kept that version; the message lists those it has.
        """

    @abstractmethod
    def undeploy(self, endpoint: str) -> None:
        """Stop answering under that name: for a first version that failed, which has none before it to restore.

        What was kept stays for `restore`. Repeating it, or a name that never served, changes nothing.
        """

    @abstractmethod
    def verify(self, release: Release) -> ProbeResult:
        """Ask the live endpoint: is it this version and digest, and does it give the golden answer?

        Raises:
            Rejected: it is not, or does not; the message says what was expected and what came.
        """

    @abstractmethod
    def live_version(self, endpoint: str) -> LiveVersion | None:
        """Return what answers now, or None when nothing was released there, or it was withdrawn."""

    @abstractmethod
    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> InferenceResponse:
        """Send one request to the live model and return its answer, whatever its status.

        Raises:
            NotFound: nothing serves under that name.
        """

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield what the endpoint has logged and nobody has taken away yet, oldest first, up to this moment.

        An endpoint that keeps no log yields nothing.

        Raises:
            Corrupt: a segment cannot be read; the message names it.
        """
        yield from ()

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Remove a segment that has been stored elsewhere. One that is gone already changes nothing."""

    def traffic(self, endpoint: str) -> tuple[TrafficInterval, ...]:
        """Return how the endpoint was asked and how it fared, oldest first: stretches of one or several lengths.

        Those of one length do not overlap; those of another may count the same requests once more, in finer or
        coarser steps. An endpoint that counts nothing returns nothing: that says nothing of its traffic.
        """
        return ()
