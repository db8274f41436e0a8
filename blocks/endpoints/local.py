"""Models on this machine: proven in a server of their own, served by `services.model_server` over HTTP."""

import gzip
import json
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import Field, TypeAdapter

from blocks.common.collectable import Collectable, FolderArtifacts
from blocks.common.compute import EndpointCompute
from blocks.common.errors import Corrupt, NotFound, PortError, Rejected, Unavailable
from blocks.endpoints.base import Endpoint, InferenceResponse, LiveVersion, LogSegment, ProbeResult, Release
from blocks.endpoints.golden import difference
from blocks.endpoints.release_store import ReleaseStore
from blocks.endpoints.scoring_process import probe_server, scoring_server
from blocks.endpoints.traffic import TrafficInterval

_SERVE_PROGRAM = Path(__file__).resolve().parents[2] / "runtime" / "serve.py"
_TRAFFIC_ADAPTER = TypeAdapter(list[TrafficInterval])


class LocalEndpoint(Endpoint):
    """Serves from a host on this machine; keeps a copy of each release below the host's state folder."""

    _block_type_name = "Ratchet endpoint (local)"
    _block_type_slug = "ratchet-endpoint-local"

    url: str = Field(description="The host's address, such as http://127.0.0.1:8081.")
    token_file: Path = Field(description="File of mode 0600 with the host's admin token.")
    releases_folder: Path = Field(description="Folder for copies of releases; below the host's state folder.")
    trusted_keys: list[str] = Field(
        default=[], description="Public keys whose models preflight loads; the host has its own list."
    )
    load_timeout_seconds: float = Field(
        60.0, gt=0, description="How long a model may take to load and answer, in seconds."
    )
    response_timeout_seconds: float = Field(
        60.0, gt=0, description="How long the live model may take to answer, in seconds."
    )
    serve_command: list[str] = Field(
        default_factory=lambda: [sys.executable, str(_SERVE_PROGRAM)],
        description="The scoring server that preflight starts: a program and its arguments.",
    )

    def compute(self, endpoint: str) -> EndpointCompute:
        """Return this machine, which costs nothing."""
        return EndpointCompute()

    def preflight(self, release: Release) -> ProbeResult:
        """Copy the artifact, load the copy in a server of its own, and put the golden request to it."""
        kept = self._releases.save(release)
        deadline = time.monotonic() + self.load_timeout_seconds
        try:
            with scoring_server(
                self.serve_command, kept.artifact, kept.version, deadline, self.trusted_keys, kept.digest
            ) as server:
                return probe_server(server, kept, max(deadline - time.monotonic(), 0.1))
        except Rejected as cause:
            self._releases.delete_refused(kept)
            raise Rejected(f"version {release.version} of {release.endpoint} is refused: {cause}") from cause

    def switch(self, release: Release) -> LiveVersion:
        """Copy the artifact where it is not kept yet, and have the host load it, prove it and switch."""
        kept = self._releases.save(release)
        serving = self._put_release(kept)
        self._releases.mark_deployed(kept)
        return serving

    def rollback(self, endpoint: str, version: str) -> LiveVersion:
        """Have the host serve a kept release again; the one before the live one is still in its memory."""
        return self._put_release(self._releases.deployed_release(endpoint, version))

    def undeploy(self, endpoint: str) -> None:
        """Have the host forget the name; it answers 404 from then on."""
        headers = {"Authorization": f"Bearer {self._token()}"}
        response = self._request(
            "DELETE", f"/admin/endpoints/{endpoint}", self.load_timeout_seconds + 30, headers=headers
        )
        if response.status_code not in (204, 404):
            raise _port_error(response)

    def verify(self, release: Release) -> ProbeResult:
        """Compare what the host says of itself and what the live model answers with the release."""
        live = self._status(release.endpoint)
        found = (live["version"], live["digest"]) if live else ("nothing", "")
        if found != (release.version, release.digest):
            expected = f"version {release.version} with the digest {release.digest}"
            raise Rejected(f"{release.endpoint} serves version {found[0]} {found[1]}; expected {expected}")
        begin = time.monotonic()
        answer = self.invoke(release.endpoint, release.golden_example.request.encode())
        seconds = time.monotonic() - begin
        problem = difference(release.golden_example, answer.status, answer.body)
        if problem or answer.version != release.version:
            raise Rejected(f"{release.endpoint}, version {answer.version}: {problem or 'another version answered'}")
        return ProbeResult(
            release.version, release.digest, float(live["load_seconds"]) if live else 0.0, seconds * 1000
        )

    def live_version(self, endpoint: str) -> LiveVersion | None:
        """Return what the host says it serves.

        Raises:
            Unavailable: the host knows a version, but could not load it when it started.
        """
        live = self._status(endpoint)
        return self._to_live_version(live) if live else None

    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> InferenceResponse:
        """Send one request to the live model."""
        path = f"/endpoints/{endpoint}/invocations"
        headers = {"Content-Type": content_type}
        response = self._request("POST", path, self.response_timeout_seconds, content=body, headers=headers)
        if response.status_code == 404:
            raise NotFound(f"nothing serves under the name {endpoint!r} at {self.url}")
        version = response.headers.get("X-Model-Version", "")
        kind = response.headers.get("Content-Type", "")
        return InferenceResponse(response.status_code, response.content, kind, version, dict(response.headers))

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the copies of these endpoints' releases, the live one held; see `ArtifactOwner.kept`."""
        found: list[Collectable] = []
        for name in names:
            live = self._status(name)
            for place in sorted((self.releases_folder / name).glob("*")):
                held = "it is live" if live and live["version"] == place.name else ""
                found += self._folders.collectables_of([place], keep_reason=held)
        return tuple(found)

    def size_bytes(self, key: str) -> int:
        """Return the bytes of a copy; see `ArtifactOwner.size`."""
        return self._folders.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Remove a copy; see `ArtifactOwner.discard`."""
        self._folders.delete_collectables(key)

    @property
    def _folders(self) -> FolderArtifacts:
        return FolderArtifacts(self.releases_folder, "release", depth=2)

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Have the host end the segments it has begun, and read them one after the other."""
        path = f"/admin/endpoints/{endpoint}/log"
        for name in self._admin("GET", path).json():
            content = self._admin("GET", f"{path}/{name}").content
            try:
                requests = tuple(json.loads(line) for line in gzip.decompress(content).splitlines())
            except (OSError, EOFError, ValueError, zlib.error) as cause:
                problem = f"segment {name} of the log of {endpoint} cannot be read: {cause}"
                raise Corrupt(f"{problem}; remove it from the host's folder log/{endpoint}") from cause
            yield LogSegment(name, requests)

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Have the host remove a segment."""
        self._admin("DELETE", f"/admin/endpoints/{endpoint}/log/{segment}")

    def traffic(self, endpoint: str) -> tuple[TrafficInterval, ...]:
        """Return what the host has counted; nothing where it serves nothing under that name."""
        response = self._request("GET", f"/endpoints/{endpoint}/traffic", 10)
        if response.status_code == 404:
            return ()
        if response.status_code != 200:
            raise _port_error(response)
        return tuple(_TRAFFIC_ADAPTER.validate_json(response.content))

    def _admin(self, method: str, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token()}"}
        response = self._request(method, path, self.load_timeout_seconds + 30, headers=headers)
        if response.status_code not in (200, 204):
            raise _port_error(response)
        return response

    @property
    def _releases(self) -> ReleaseStore:
        return ReleaseStore(self.releases_folder)

    def _put_release(self, kept: Release) -> LiveVersion:
        golden = kept.golden_example
        order = {
            "version": kept.version,
            "artifact": str(kept.artifact.resolve()),
            "digest": kept.digest,
            "golden": {
                "request": golden.request,
                "predictions": golden.expected_predictions,
                "tolerance": golden.tolerance,
            },
            "log": asdict(kept.log_policy) if kept.log_policy else None,
        }
        headers = {"Authorization": f"Bearer {self._token()}"}
        path = f"/admin/endpoints/{kept.endpoint}"
        response = self._request("PUT", path, self.load_timeout_seconds + 30, json=order, headers=headers)
        if response.status_code != 200:
            raise _port_error(response)
        return self._to_live_version(response.json())

    def _status(self, endpoint: str) -> dict[str, Any] | None:
        response = self._request("GET", f"/endpoints/{endpoint}", 10)
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise _port_error(response)
        return dict(response.json())

    def _to_live_version(self, live: dict[str, Any]) -> LiveVersion:
        if not live["serving"]:
            problem = f"{live['endpoint']}: version {live['version']} does not load in the host: {live['failure']}"
            raise Unavailable(f"{problem}; restore another version")
        since = datetime.fromisoformat(live["since"])
        address = f"{self.url.rstrip('/')}/endpoints/{live['endpoint']}/invocations"
        return LiveVersion(live["endpoint"], live["version"], live["digest"], since, address)

    def _request(self, method: str, path: str, seconds: float, **content: Any) -> httpx.Response:
        try:
            with httpx.Client(base_url=self.url, timeout=seconds, trust_env=False) as client:
                return client.request(method, path, **content)
        except httpx.TransportError as cause:
            problem = f"the host at {self.url} does not answer {method} {path}: {type(cause).__name__}: {cause}"
            raise Unavailable(f"{problem}; is it started (make up)?") from cause

    def _token(self) -> str:
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as cause:
            raise Rejected(f"the host's token cannot be read from {self.token_file}: {cause}") from cause


def _port_error(response: httpx.Response) -> PortError:
    """Return the port's error for an answer of the host that is not 200."""
    try:
        body = response.json()
        text, kind = str(body["error"]), str(body.get("kind", ""))
    except (ValueError, KeyError, TypeError):
        text, kind = response.text[:300], ""
    message = f"the host answered {response.status_code}: {text}"
    if response.status_code >= 500:
        return Unavailable(message)
    return Corrupt(message) if kind == "Corrupt" else Rejected(message)
