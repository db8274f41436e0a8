"""An endpoint in memory, for tests and for trying flows: it knows golden requests and nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import Field, PrivateAttr

from blocks.common.compute import EndpointCompute
from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints.base import Endpoint, InferenceResponse, LiveVersion, LogSegment, ProbeResult, Release
from blocks.endpoints.golden import difference
from blocks.endpoints.traffic import TrafficInterval
from runtime.digests import folder_digest


@dataclass
class _FakeEndpointState:
    releases: dict[str, dict[str, Release]] = field(default_factory=dict)
    live: dict[str, LiveVersion] = field(default_factory=dict)
    log: dict[str, dict[str, LogSegment]] = field(default_factory=dict)


_SHARED_STATES: dict[str, _FakeEndpointState] = {}


class FakeEndpoint(Endpoint):
    """Answers a release's golden request with its golden predictions, and anything else with a 400."""

    _block_type_name = "Ratchet endpoint (fake)"
    _block_type_slug = "ratchet-endpoint-fake"

    reject_versions: tuple[str, ...] = Field((), description="Versions that preflight and switch refuse.")
    wrong_answer_versions: tuple[str, ...] = Field((), description="Versions that answer otherwise once they are live.")
    shared_state: str = Field("", description="Blocks that name the same space share what they serve; empty: its own.")
    fixed_traffic: tuple[TrafficInterval, ...] = Field(
        (), description="What it says of its traffic, whatever the name."
    )
    fixed_compute: EndpointCompute = Field(EndpointCompute(), description="What serving asks for: to be priced.")
    _own: _FakeEndpointState = PrivateAttr(default_factory=_FakeEndpointState)

    def compute(self, endpoint: str) -> EndpointCompute:
        """Return `asks_for`, whatever the name."""
        return self.fixed_compute

    def preflight(self, release: Release) -> ProbeResult:
        """Check the digest, and refuse the versions of `reject_versions`."""
        if (found := folder_digest(release.artifact)) != release.digest:
            raise Corrupt(f"artifact {release.artifact} has the digest {found}, expected {release.digest}")
        if release.version in self.reject_versions:
            raise Rejected(f"version {release.version} is refused: the fake was told to refuse it")
        golden = release.golden_example
        if problem := difference(golden, 200, b'{"predictions": %s}' % golden.expected_predictions.encode()):
            raise Rejected(f"version {release.version}: {problem}")
        return ProbeResult(release.version, release.digest, 0.0, 0.0)

    def switch(self, release: Release) -> LiveVersion:
        """Make the release the live one."""
        self.preflight(release)
        kept = self._memory.releases.setdefault(release.endpoint, {})
        if release.version in kept and kept[release.version].digest != release.digest:
            raise Rejected(f"version {release.version} is kept with another digest; a version never changes")
        kept[release.version] = release
        return self._update_endpoint(release)

    def rollback(self, endpoint: str, version: str) -> LiveVersion:
        """Make a release live that was live before."""
        kept = self._memory.releases.get(endpoint, {})
        if version not in kept:
            raise NotFound(f"endpoint {endpoint} has kept no version {version}; it has kept: {sorted(kept)}")
        return self._update_endpoint(kept[version])

    def undeploy(self, endpoint: str) -> None:
        """Answer no more under that name."""
        self._memory.live.pop(endpoint, None)

    def verify(self, release: Release) -> ProbeResult:
        """Compare version, digest and golden answer of the live release."""
        live = self.live_version(release.endpoint)
        if live is None or (live.version, live.digest) != (release.version, release.digest):
            raise Rejected(f"{release.endpoint} serves {live}; expected version {release.version} {release.digest}")
        answer = self.invoke(release.endpoint, release.golden_example.request.encode())
        if problem := difference(release.golden_example, answer.status, answer.body):
            raise Rejected(f"{release.endpoint}, version {release.version}: {problem}")
        return ProbeResult(release.version, release.digest, 0.0, 0.0)

    def live_version(self, endpoint: str) -> LiveVersion | None:
        """Return what is live."""
        return self._memory.live.get(endpoint)

    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> InferenceResponse:
        """Answer the golden request of the live release; 400 for anything else."""
        live = self.live_version(endpoint)
        if live is None:
            raise NotFound(f"nothing serves under the name {endpoint!r}")
        release = self._memory.releases[endpoint][live.version]
        headers: Mapping[str, str] = {"X-Model-Version": live.version, "X-Model-Digest": live.digest}
        status, text = 200, f'{{"predictions": {release.golden_example.expected_predictions}}}'
        if live.version in self.wrong_answer_versions:
            text = '{"predictions": [0.123456789]}'
        elif body.decode(errors="replace") != release.golden_example.request:
            status, text = 400, '{"error": "the fake knows the golden request alone"}'
        return InferenceResponse(status, text.encode(), "application/json", live.version, headers)

    def add_log_segment(self, endpoint: str, logged: LogSegment) -> None:
        """Put a segment into the log: the fake answers no traffic of its own."""
        self._memory.log.setdefault(endpoint, {})[logged.name] = logged

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield the segments that `keep` was given, by name in order."""
        yield from [each for _, each in sorted(self._memory.log.get(endpoint, {}).items())]

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Remove a segment."""
        self._memory.log.get(endpoint, {}).pop(segment, None)

    def traffic(self, endpoint: str) -> tuple[TrafficInterval, ...]:
        """Return `counted`: the fake answers no traffic of its own."""
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
