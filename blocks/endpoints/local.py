"""Endpoints on this machine: preflight in a separate scoring server, serving by the model server over HTTP."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import Field, TypeAdapter

from blocks.common.collectable import FolderArtifacts
from blocks.common.errors import Corrupt, NotFound, PortError, Rejected, Unavailable
from blocks.endpoints.base import Endpoint, InferenceResponse, LiveVersion, LogSegment, ProbeResult, Release
from blocks.endpoints.release_store import ReleaseStore
from blocks.endpoints.scoring_process import PreflightSettings
from blocks.records.collectable import Collectable
from blocks.records.compute import EndpointCompute
from blocks.records.traffic import TrafficInterval

_TRAFFIC_ADAPTER = TypeAdapter(list[TrafficInterval])


class LocalEndpoint(PreflightSettings, Endpoint):
    """Serves from a model server on this machine; stores a copy of each release below the server's state folder."""

    _block_type_name = "Ratchet endpoint (local)"
    _block_type_slug = "ratchet-endpoint-local"

    url: str = Field(description="URL of the model server, such as http://127.0.0.1:8081.")
    token_file: Path = Field(description="File of mode 0600 with the model server's admin token.")
    releases_folder: Path = Field(description="Folder for copies of releases; below the model server's state folder.")
    trusted_keys: list[str] = Field(
        default=[],
        description="Public keys of models that preflight loads; the model server has its own list.",
    )
    response_timeout_seconds: float = Field(
        60.0, gt=0, description="Timeout for a response of the live model, in seconds."
    )

    def compute(self, endpoint: str) -> EndpointCompute:
        """Return this machine, which costs nothing."""
        return EndpointCompute()

    def preflight(self, release: Release) -> ProbeResult:
        """Copy the artifact, load the copy in a separate server, and send it the golden request."""
        stored = self._releases.save(release)
        try:
            return self._probe(stored, self.trusted_keys)
        except Rejected:
            self._releases.delete_refused(stored)
            raise

    def switch(self, release: Release) -> LiveVersion:
        """Copy the artifact unless it is stored, and let the model server load it, verify it and switch."""
        stored = self._releases.save(release)
        live = self._put_release(stored)
        self._releases.mark_deployed(stored)
        return live

    def rollback(self, endpoint: str, version: str) -> LiveVersion:
        """Let the model server serve a stored release again; the previous version is usually still in its memory."""
        return self._put_release(self._releases.deployed_release(endpoint, version))

    def undeploy(self, endpoint: str) -> None:
        """Let the model server remove the endpoint; it returns 404 from then on."""
        self._admin("DELETE", f"/admin/endpoints/{endpoint}", accepted=(204, 404))

    def verify(self, release: Release) -> ProbeResult:
        """Compare the live version, its digest and its predictions with the release."""
        live = self._status(release.endpoint) or {"version": "nothing", "digest": "", "load_seconds": 0.0}
        return replace(self._verify(release, live["version"], live["digest"]), load_seconds=live["load_seconds"])

    def live_version(self, endpoint: str) -> LiveVersion | None:
        """Return the version that the model server serves.

        Raises:
            Unavailable: the model server has a version, but could not load it at its start.
        """
        live = self._status(endpoint)
        return self._to_live_version(live) if live else None

    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> InferenceResponse:
        """Send one request to the live model."""
        path = f"/endpoints/{endpoint}/invocations"
        headers = {"Content-Type": content_type}
        response = self._request("POST", path, self.response_timeout_seconds, content=body, headers=headers)
        if response.status_code == 404:
            raise NotFound(f"nothing is deployed under the name {endpoint!r} at {self.url}")
        names = ("Content-Type", "X-Model-Version", "X-Model-Digest")
        media_type, version, digest = (response.headers.get(name, "") for name in names)
        return InferenceResponse(response.status_code, response.content, media_type, version, digest)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the copies of these endpoints' releases; the live one has a keep reason."""
        artifacts: list[Collectable] = []
        for name in names:
            live = self._status(name)
            for folder in sorted((self.releases_folder / name).glob("*")):
                reason = "it is live" if live and live["version"] == folder.name else ""
                artifacts += self._folders.collectables_of([folder], keep_reason=reason)
        return tuple(artifacts)

    def size_bytes(self, key: str) -> int:
        """Return the bytes of a copy; see `ArtifactOwner.size_bytes`."""
        return self._folders.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete a copy; see `ArtifactOwner.delete_collectables`."""
        self._folders.delete_collectables(key)

    @property
    def _folders(self) -> FolderArtifacts:
        return FolderArtifacts(self.releases_folder, "release", depth=2)

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Let the model server close its open segments, and read all segments one after the other."""
        path = f"/admin/endpoints/{endpoint}/log"
        for name in self._admin("GET", path).json():
            content = self._admin("GET", f"{path}/{name}").content
            try:
                requests = tuple(json.loads(line) for line in gzip.decompress(content).splitlines())
            except (OSError, EOFError, ValueError, zlib.error) as cause:
                problem = f"segment {name} of the log of {endpoint} cannot be read: {cause}"
                raise Corrupt(f"{problem}; delete it from the model server's folder log/{endpoint}") from cause
            yield LogSegment(name, requests)

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Let the model server delete a segment."""
        self._admin("DELETE", f"/admin/endpoints/{endpoint}/log/{segment}")

    def traffic(self, endpoint: str) -> tuple[TrafficInterval, ...]:
        """Return the model server's request counts; nothing if the endpoint does not exist."""
        response = self._get(f"/endpoints/{endpoint}/traffic")
        return tuple(_TRAFFIC_ADAPTER.validate_json(response.content)) if response is not None else ()

    def _admin(
        self, method: str, path: str, accepted: Sequence[int] = (200, 204), json: object = None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token()}"}
        response = self._request(method, path, self.load_timeout_seconds + 30, headers=headers, json=json)
        if response.status_code not in accepted:
            raise _port_error(response)
        return response

    @property
    def _releases(self) -> ReleaseStore:
        return ReleaseStore(self.releases_folder)

    def _put_release(self, stored: Release) -> LiveVersion:
        body = {
            "version": stored.version,
            "artifact": str(stored.artifact.resolve()),
            "digest": stored.digest,
            "golden": asdict(stored.golden_example),
            "log": asdict(stored.log_policy) if stored.log_policy else None,
        }
        response = self._admin("PUT", f"/admin/endpoints/{stored.endpoint}", json=body)
        return self._to_live_version(response.json())

    def _status(self, endpoint: str) -> dict[str, Any] | None:
        response = self._get(f"/endpoints/{endpoint}")
        return None if response is None else dict(response.json())

    def _get(self, path: str) -> httpx.Response | None:
        """Return the response, or None if the endpoint does not exist."""
        response = self._request("GET", path, 10)
        if response.status_code not in (200, 404):
            raise _port_error(response)
        return response if response.status_code == 200 else None

    def _to_live_version(self, live: dict[str, Any]) -> LiveVersion:
        if not live["serving"]:
            problem = (
                f"{live['endpoint']}: version {live['version']} does not load in the model server: {live['failure']}"
            )
            raise Unavailable(f"{problem}; roll back to another version")
        since = datetime.fromisoformat(live["since"])
        address = f"{self.url.rstrip('/')}/endpoints/{live['endpoint']}/invocations"
        return LiveVersion(live["endpoint"], live["version"], live["digest"], since, address)

    def _request(self, method: str, path: str, seconds: float, **content: Any) -> httpx.Response:
        try:
            with httpx.Client(base_url=self.url, timeout=seconds, trust_env=False) as client:
                return client.request(method, path, **content)
        except httpx.TransportError as cause:
            error = f"{type(cause).__name__}: {cause}"
            problem = f"the model server at {self.url} does not respond to {method} {path}: {error}"
            raise Unavailable(f"{problem}; is it started (make up)?") from cause

    def _token(self) -> str:
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as cause:
            raise Rejected(f"the model server's token cannot be read from {self.token_file}: {cause}") from cause


def _port_error(response: httpx.Response) -> PortError:
    """Return the port error for a response of the model server with an error status."""
    try:
        body = response.json()
        text, kind = str(body["error"]), str(body.get("kind", ""))
    except (ValueError, KeyError, TypeError):
        text, kind = response.text[:300], ""
    message = f"the model server returned {response.status_code}: {text}"
    if response.status_code >= 500:
        return Unavailable(message)
    return Corrupt(message) if kind == "Corrupt" else Rejected(message)
