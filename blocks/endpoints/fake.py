"""A fake endpoint in memory, for tests and for trying flows: it answers golden requests only."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import Field, PrivateAttr

from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints.base import Endpoint, InferenceResponse, LiveVersion, LogSegment, ProbeResult, Release
from blocks.endpoints.golden import difference
from blocks.records.compute import EndpointCompute
from blocks.records.traffic import TrafficInterval
from runtime.digests import folder_digest


@dataclass
class _FakeEndpointState:
    releases: dict[str, dict[str, Release]] = field(default_factory=dict)
    live: dict[str, LiveVersion] = field(default_factory=dict)
    log: dict[str, dict[str, LogSegment]] = field(default_factory=dict)


_SHARED_STATES: dict[str, _FakeEndpointState] = {}


class FakeEndpoint(Endpoint):
    """Returns the golden predictions for a release's golden request, and status 400 for anything else."""

    _block_type_name = "Ratchet endpoint (fake)"
    _block_type_slug = "ratchet-endpoint-fake"

    reject_versions: tuple[str, ...] = Field((), description="Versions that preflight and switch refuse.")
    wrong_answer_versions: tuple[str, ...] = Field(
        (), description="Versions that return other predictions once they are live."
    )
    shared_state: str = Field("", description="Blocks with the same name here share their state; empty: own state.")
    fixed_traffic: tuple[TrafficInterval, ...] = Field((), description="Result of `traffic`, whatever the name.")
    fixed_compute: EndpointCompute = Field(EndpointCompute(), description="Compute of every endpoint.")
    _own: _FakeEndpointState = PrivateAttr(default_factory=_FakeEndpointState)

    def compute(self, endpoint: str) -> EndpointCompute:
        """Return `fixed_compute`, whatever the name."""
        return self.fixed_compute

    def preflight(self, release: Release) -> ProbeResult:
        """Check the digest, and refuse the versions of `reject_versions`."""
        if (found := folder_digest(release.artifact)) != release.digest:
            raise Corrupt(f"artifact {release.artifact} has the digest {found}, expected {release.digest}")
        if release.version in self.reject_versions:
            raise Rejected(f"version {release.version} is refused because reject_versions of this fake lists it")
        golden = release.golden_example
        if problem := difference(golden, 200, b'{"predictions": %s}' % golden.expected_predictions.encode()):
            raise Rejected(f"version {release.version}: {problem}")
        return ProbeResult(release.version, release.digest, 0.0, 0.0)

    def switch(self, release: Release) -> LiveVersion:
        """Make the release the live one."""
        self.preflight(release)
        stored = self._memory.releases.setdefault(release.endpoint, {})
        if release.version in stored and stored[release.version].digest != release.digest:
            raise Rejected(f"version {release.version} is stored with another digest; a version never changes")
        stored[release.version] = release
        return self._update_endpoint(release)

    def rollback(self, endpoint: str, version: str) -> LiveVersion:
        """Roll back to a release that was live before."""
        stored = self._memory.releases.get(endpoint, {})
        if version not in stored:
            raise NotFound(f"endpoint {endpoint} has no stored version {version}; it has: {sorted(stored)}")
        return self._update_endpoint(stored[version])

    def undeploy(self, endpoint: str) -> None:
        """Stop serving under that name."""
        self._memory.live.pop(endpoint, None)

    def live_version(self, endpoint: str) -> LiveVersion | None:
        """Return the live version."""
        return self._memory.live.get(endpoint)

    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> InferenceResponse:
        """Return the golden predictions for the golden request of the live release; 400 for anything else."""
        live = self.live_version(endpoint)
        if live is None:
            raise NotFound(f"nothing is deployed under the name {endpoint!r}")
        release = self._memory.releases[endpoint][live.version]
        status, text = 200, f'{{"predictions": {release.golden_example.expected_predictions}}}'
        if live.version in self.wrong_answer_versions:
            text = '{"predictions": [0.123456789]}'
        elif body.decode(errors="replace") != release.golden_example.request:
            status, text = 400, '{"error": "the fake answers the golden request only"}'
        return InferenceResponse(status, text.encode(), "application/json", live.version, live.digest)

    def add_log_segment(self, endpoint: str, logged: LogSegment) -> None:
        """Add a segment to the log: the fake has no traffic of its own."""
        self._memory.log.setdefault(endpoint, {})[logged.name] = logged

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield the added segments, ordered by name."""
        yield from [each for _, each in sorted(self._memory.log.get(endpoint, {}).items())]

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Delete a segment."""
        self._memory.log.get(endpoint, {}).pop(segment, None)

    def traffic(self, endpoint: str) -> tuple[TrafficInterval, ...]:
        """Return `fixed_traffic`: the fake has no traffic of its own."""
        return self.fixed_traffic

    @property
    def _memory(self) -> _FakeEndpointState:
        return _SHARED_STATES.setdefault(self.shared_state, _FakeEndpointState()) if self.shared_state else self._own

    def _update_endpoint(self, release: Release) -> LiveVersion:
        before = self.live_version(release.endpoint)
        if before and before.version == release.version:
            return before
        url = f"fake://{release.endpoint}"
        live = LiveVersion(release.endpoint, release.version, release.digest, datetime.now(UTC), url)
        self._memory.live[release.endpoint] = live
        return live
