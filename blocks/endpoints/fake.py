"""An endpoint in memory, for tests and for trying flows: it knows golden requests and nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import Field, PrivateAttr

from blocks.common.compute import Hosting
from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints.base import Answer, Endpoint, Logged, Probe, Release, Serving
from blocks.endpoints.golden import difference
from blocks.endpoints.traffic import Traffic
from runtime.digests import folder_digest


@dataclass
class _Memory:
    kept: dict[str, dict[str, Release]] = field(default_factory=dict)
    live: dict[str, Serving] = field(default_factory=dict)
    log: dict[str, dict[str, Logged]] = field(default_factory=dict)


_SPACES: dict[str, _Memory] = {}


class FakeEndpoint(Endpoint):
    """Answers a release's golden request with its golden predictions, and anything else with a 400."""

    _block_type_name = "Ratchet endpoint (fake)"
    _block_type_slug = "ratchet-endpoint-fake"

    reject_versions: tuple[str, ...] = Field((), description="Versions that preflight and switch refuse.")
    wrong_answers: tuple[str, ...] = Field((), description="Versions that answer otherwise once they are live.")
    space: str = Field("", description="Blocks that name the same space share what they serve; empty: its own.")
    counted: tuple[Traffic, ...] = Field((), description="What it says of its traffic, whatever the name.")
    asks_for: Hosting = Field(Hosting(), description="What serving asks for: to be priced.")
    _own: _Memory = PrivateAttr(default_factory=_Memory)

    def hosting(self, endpoint: str) -> Hosting:
        """Return `asks_for`, whatever the name."""
        return self.asks_for

    def preflight(self, release: Release) -> Probe:
        """Check the digest, and refuse the versions of `reject_versions`."""
        if (found := folder_digest(release.artifact)) != release.digest:
            raise Corrupt(f"artifact {release.artifact} has the digest {found}, expected {release.digest}")
        if release.version in self.reject_versions:
            raise Rejected(f"version {release.version} is refused: the fake was told to refuse it")
        golden = release.golden
        if problem := difference(golden, 200, b'{"predictions": %s}' % golden.predictions.encode()):
            raise Rejected(f"version {release.version}: {problem}")
        return Probe(release.version, release.digest, 0.0, 0.0)

    def switch(self, release: Release) -> Serving:
        """Make the release the live one."""
        self.preflight(release)
        kept = self._memory.kept.setdefault(release.endpoint, {})
        if release.version in kept and kept[release.version].digest != release.digest:
            raise Rejected(f"version {release.version} is kept with another digest; a version never changes")
        kept[release.version] = release
        return self._go_live(release)

    def restore(self, endpoint: str, version: str) -> Serving:
        """Make a release live that was live before."""
        kept = self._memory.kept.get(endpoint, {})
        if version not in kept:
            raise NotFound(f"endpoint {endpoint} has kept no version {version}; it has kept: {sorted(kept)}")
        return self._go_live(kept[version])

    def withdraw(self, endpoint: str) -> None:
        """Answer no more under that name."""
        self._memory.live.pop(endpoint, None)

    def verify(self, release: Release) -> Probe:
        """Compare version, digest and golden answer of the live release."""
        live = self.serving(release.endpoint)
        if live is None or (live.version, live.digest) != (release.version, release.digest):
            raise Rejected(f"{release.endpoint} serves {live}; expected version {release.version} {release.digest}")
        answer = self.invoke(release.endpoint, release.golden.request.encode())
        if problem := difference(release.golden, answer.status, answer.body):
            raise Rejected(f"{release.endpoint}, version {release.version}: {problem}")
        return Probe(release.version, release.digest, 0.0, 0.0)

    def serving(self, endpoint: str) -> Serving | None:
        """Return what is live."""
        return self._memory.live.get(endpoint)

    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> Answer:
        """Answer the golden request of the live release; 400 for anything else."""
        live = self.serving(endpoint)
        if live is None:
            raise NotFound(f"nothing serves under the name {endpoint!r}")
        release = self._memory.kept[endpoint][live.version]
        headers: Mapping[str, str] = {"X-Model-Version": live.version, "X-Model-Digest": live.digest}
        status, text = 200, f'{{"predictions": {release.golden.predictions}}}'
        if live.version in self.wrong_answers:
            text = '{"predictions": [0.123456789]}'
        elif body.decode(errors="replace") != release.golden.request:
            status, text = 400, '{"error": "the fake knows the golden request alone"}'
        return Answer(status, text.encode(), "application/json", live.version, headers)

    def keep(self, endpoint: str, logged: Logged) -> None:
        """Put a segment into the log: the fake answers no traffic of its own."""
        self._memory.log.setdefault(endpoint, {})[logged.segment] = logged

    def logged(self, endpoint: str) -> Iterator[Logged]:
        """Yield the segments that `keep` was given, by name in order."""
        yield from [each for _, each in sorted(self._memory.log.get(endpoint, {}).items())]

    def forget_logged(self, endpoint: str, segment: str) -> None:
        """Remove a segment."""
        self._memory.log.get(endpoint, {}).pop(segment, None)

    def traffic(self, endpoint: str) -> tuple[Traffic, ...]:
        """Return `counted`: the fake answers no traffic of its own."""
        return self.counted

    @property
    def _memory(self) -> _Memory:
        return _SPACES.setdefault(self.space, _Memory()) if self.space else self._own

    def _go_live(self, release: Release) -> Serving:
        before = self.serving(release.endpoint)
        if before and before.version == release.version:
            return before
        url = f"fake://{release.endpoint}"
        live = Serving(release.endpoint, release.version, release.digest, datetime.now(UTC), url)
        self._memory.live[release.endpoint] = live
        return live
