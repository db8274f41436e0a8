"""The endpoint port: serves one model version at a time; the next version is verified before the switch."""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict

from blocks.common.collectable import ArtifactOwner
from blocks.common.errors import Rejected
from blocks.endpoints.golden import difference
from blocks.records.compute import EndpointCompute
from blocks.records.traffic import TrafficInterval


@dataclass(frozen=True)
class GoldenExample:
    """A request with known predictions. `request` is the JSON text posted to `/invocations`.

    `expected_predictions` is the `predictions` member of the response, as JSON text; numbers may differ by `tolerance`.
    """

    request: str
    expected_predictions: str
    tolerance: float = 1e-9


@dataclass(frozen=True)
class InferenceLogPolicy:
    """Which data an endpoint may write to the inference log.

    Attributes:
        entity_column: the column that identifies the entity of a row; callers may send it beside the model's columns.
        excluded_columns: columns that are never written.
        hashed_columns: columns of which only a keyed hash is written.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a rule that is not known is not kept

    entity_column: str = ""
    excluded_columns: tuple[str, ...] = ()
    hashed_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    """One model version to serve: the exact artifact (an MLflow model folder) and its digest.

    The artifact's signature is beside it: that of `model` is `model.sig`.
    If `log_policy` is None, no requests are logged.
    """

    endpoint: str
    version: str
    artifact: Path
    digest: str
    golden_example: GoldenExample
    log_policy: InferenceLogPolicy | None = None


@dataclass(frozen=True)
class LogSegment:
    """A closed segment of an endpoint's inference log: its answered requests, in order.

    Each request has the members `at` (ISO 8601 with zone), `id`, `version`, `rows`, `columns` (values by column, as
    they were sent) and `answer` (with `predictions`).
    """

    name: str
    requests: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class LiveVersion:
    """The model version that an endpoint serves now."""

    endpoint: str
    version: str
    digest: str
    deployed_at: datetime
    url: str


@dataclass(frozen=True)
class ProbeResult:
    """Result of probing a running model: load time in seconds, response time in milliseconds, last log lines."""

    version: str
    digest: str
    load_seconds: float
    response_ms: float
    log_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class InferenceResponse:
    """An HTTP response of the endpoint: status code, body, content type, and the model that sent it; "" if unknown."""

    status: int
    body: bytes
    content_type: str
    version: str
    digest: str


class Endpoint(ArtifactOwner, Block):
    """Serves models by name. If a release fails at any step, the previous version continues to serve."""

    @abstractmethod
    def compute(self, endpoint: str) -> EndpointCompute:
        """Return the compute that this endpoint will use, so that it can be priced before the release.

        No service is called. A paid adapter returns the maximum that `switch` and autoscaling may request.
        """

    @abstractmethod
    def preflight(self, release: Release) -> ProbeResult:
        """Load the exact artifact in the real server, without live traffic, and send it the golden request.

        Raises:
            Corrupt: the artifact does not have the release's digest.
            Rejected: the artifact is not signed by a trusted key, contains a forbidden type, does not load, does not
                respond in time, or returns other predictions; the message has the last log lines of the server.
        """

    @abstractmethod
    def switch(self, release: Release) -> LiveVersion:
        """Make this release the live version without failing a request. Repeating the call changes nothing.

        The adapter stores its own copy of the artifact, and those of earlier releases, for `rollback`.

        Raises:
            Corrupt, Rejected: as `preflight`; the previous version continues to serve.
        """

    @abstractmethod
    def rollback(self, endpoint: str, version: str) -> LiveVersion:
        """Roll back to an earlier release from the adapter's own copy; no registry and no training are needed.

        Raises:
            NotFound: the adapter has no copy of that version; the message lists those it has.
        """

    @abstractmethod
    def undeploy(self, endpoint: str) -> None:
        """Stop serving under that name, for example when a first version fails and there is none to roll back to.

        Stored copies remain for `rollback`. Repeating the call, or an unknown name, changes nothing.
        """

    def verify(self, release: Release) -> ProbeResult:
        """Check that the live endpoint serves this version and digest, and returns the golden predictions.

        Raises:
            Rejected: it does not; the message gives the expected and the actual value.
        """
        live = self.live_version(release.endpoint)
        return self._verify(release, live.version if live else "nothing", live.digest if live else "")

    def _verify(self, release: Release, version: str, digest: str) -> ProbeResult:
        """Compare the live version and digest, and then the response to the golden request; see `verify`."""
        expected = f"expected version {release.version} with the digest {release.digest}"
        if (version, digest) != (release.version, release.digest):
            raise Rejected(f"{release.endpoint} serves version {version} {digest}; {expected}")
        begin = time.monotonic()
        response = self.invoke(release.endpoint, release.golden_example.request.encode())
        milliseconds = (time.monotonic() - begin) * 1000
        problem = difference(release.golden_example, response.status, response.body)
        if not problem and (response.version, response.digest) != (release.version, release.digest):
            problem = f"version {response.version} {response.digest} responded; {expected}"
        if problem:
            raise Rejected(f"{release.endpoint}, version {response.version}: {problem}")
        return ProbeResult(release.version, release.digest, 0.0, milliseconds)

    @abstractmethod
    def live_version(self, endpoint: str) -> LiveVersion | None:
        """Return the live version, or None if nothing is deployed under that name."""

    @abstractmethod
    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> InferenceResponse:
        """Send one request to the live model and return the response, whatever its status.

        Raises:
            NotFound: nothing is deployed under that name.
        """

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield the log segments that were not deleted yet, oldest first, up to now.

        An endpoint without a log yields nothing.

        Raises:
            Corrupt: a segment cannot be read; the message names it.
        """
        yield from ()

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Delete a segment that was ingested. A missing segment is no error."""

    def traffic(self, endpoint: str) -> tuple[TrafficInterval, ...]:
        """Return request counts by time interval, oldest first, in one or several interval lengths.

        Intervals of one length do not overlap; intervals of different lengths count the same requests again. An empty
        result means that the endpoint does not count requests, not that there were none.
        """
        return ()
