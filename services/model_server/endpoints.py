"""Endpoints of the model server: the live version, the standby version, and the switch between them."""

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from runtime.scoring import LoadedModel, ScoringResponse
from services.model_server import state
from services.model_server.loading import ReleaseRefused, check_golden_request, load_release
from services.model_server.state import EndpointState, ReleasedVersion, ReleaseRequest

_log = logging.getLogger("ratchet.model_server")


@dataclass(frozen=True)
class ServedVersion:
    """A released version and its model; the model is None, with the reason, when it did not load after a restart."""

    released: ReleasedVersion
    model: LoadedModel | None
    failure: str = ""


@dataclass
class EndpointSlot:
    """One endpoint. A request reads `live` once; replacing that reference is the switch to another version."""

    live: ServedVersion
    standby: ServedVersion | None = None
    change_lock: threading.Lock = field(default_factory=threading.Lock)
    requests: int = 0
    refused: int = 0
    failed: int = 0


class ServedEndpoints:
    """All endpoints of one state folder, which only this process uses."""

    def __init__(self, folder: Path, load_seconds: float = 60.0, keys: Sequence[str] = ()) -> None:
        self.folder, self.load_seconds, self.keys = folder, load_seconds, keys
        self._slots: dict[str, EndpointSlot] = {}
        self._writing = threading.Lock()
        self._opening = threading.Lock()

    def start(self) -> None:
        """Load the versions served before the restart. An endpoint whose version does not load responds 503.

        Standby versions load afterwards in a background thread.
        """
        lines = state.read_state(self.folder)
        for name, line in lines.items():
            standby = ServedVersion(line.standby, None, "not loaded yet") if line.standby else None
            self._slots[name] = EndpointSlot(self._reload(name, line.live), standby)
        threading.Thread(target=self._load_standbys, daemon=True).start()

    def release(self, name: str, order: ReleaseRequest) -> EndpointSlot:
        """Make the requested version live, and keep the previous version in memory.

        The live version continues to respond while the new one loads. Repeating a request changes nothing.

        Raises:
            ReleaseRefused: the version cannot be released; the previous version still responds.
        """
        slot = self._slots.get(name)
        if slot is None:
            return self._create(name, order)
        with slot.change_lock:
            self._refuse_another_digest(slot, order)
            if _is_version(slot.live, order) and slot.live.released.log == order.log:
                return slot
            model = self._load_or_reuse(slot, order)
            previous = slot.live if slot.live.model else slot.standby
            standby = previous if previous and not _is_version(previous, order, loaded=False) else None
            self._commit(name, slot, ServedVersion(_placement(order), model), standby)
        _log.info("%s: version %s is live", name, order.version)
        return slot

    def remove(self, name: str) -> bool:
        """Remove an endpoint, also for the next restart; return whether there was one.

        Raises:
            ReleaseRefused: the state cannot be written; the endpoint still responds.
        """
        slot = self._slots.get(name)
        if slot is None:
            return False
        with slot.change_lock, self._writing:
            others = {other: it for other, it in self._slots.items() if other != name}
            self._write_state({other: _endpoint_state(it.live, it.standby) for other, it in others.items()}, "removed")
            self._slots = others
        _log.info("%s: removed", name)
        return True

    def score(self, name: str, body: bytes, content_type: str) -> tuple[ScoringResponse, ReleasedVersion] | None:
        """Score one request with the live model and return the response and the version; None without an endpoint."""
        slot = self._slots.get(name)
        if slot is None:
            return None
        live = slot.live
        if live.model is None:
            problem = f"version {live.released.version} did not load when the server started: {live.failure}"
            return ScoringResponse(503, b"", {}, problem), live.released
        rules = live.released.log
        return live.model.score(body, content_type, rules.entity_column if rules else ""), live.released

    def count_response(self, name: str, status: int) -> None:
        """Count a response. Called by one thread only."""
        slot = self._slots.get(name)
        if slot is None:  # removed during the request
            return
        slot.requests += 1
        slot.refused += 400 <= status < 500
        slot.failed += status >= 500

    def endpoints(self) -> dict[str, EndpointSlot]:
        """Return the endpoints, sorted by name."""
        return dict(sorted(self._slots.items()))

    def _create(self, name: str, order: ReleaseRequest) -> EndpointSlot:
        """Create the endpoint with its first version. Two simultaneous first releases run one after the other."""
        model = load_release(order, self.folder, self.load_seconds, self.keys)
        with self._opening:
            if name not in self._slots:
                live = ServedVersion(_placement(order), model)
                slot = EndpointSlot(live)
                self._commit(name, slot, live, None)
                return slot
        return self.release(name, order)

    def _load_or_reuse(self, slot: EndpointSlot, order: ReleaseRequest) -> LoadedModel:
        if slot.standby and slot.standby.model and _is_version(slot.standby, order):
            check_golden_request(order, slot.standby.model)
            return slot.standby.model
        return load_release(order, self.folder, self.load_seconds, self.keys)

    def _commit(self, name: str, slot: EndpointSlot, live: ServedVersion, standby: ServedVersion | None) -> None:
        """Write the state, then switch: a server that dies in between restarts with the new version."""
        with self._writing:
            lines = {other: _endpoint_state(it.live, it.standby) for other, it in self._slots.items()}
            self._write_state(lines | {name: _endpoint_state(live, standby)}, "switched")
            slot.live, slot.standby = live, standby
            self._slots[name] = slot

    def _write_state(self, lines: dict[str, EndpointState], action: str) -> None:
        try:
            state.write_state(self.folder, lines)
        except OSError as cause:
            problem = f"the state in {self.folder} cannot be written, so nothing was {action}: {cause}"
            raise ReleaseRefused(503, "Unavailable", problem) from cause

    def _refuse_another_digest(self, slot: EndpointSlot, order: ReleaseRequest) -> None:
        for served in (slot.live, slot.standby):
            known = served.released if served else None
            if known and known.version == order.version and known.digest != order.digest:
                problem = f"version {order.version} is loaded with the digest {known.digest}; a version never changes"
                raise ReleaseRefused(409, "Conflict", problem)

    def _reload(self, name: str, released: ReleasedVersion) -> ServedVersion:
        try:
            return ServedVersion(released, load_release(released, self.folder, self.load_seconds, self.keys))
        except ReleaseRefused as cause:
            _log.error("%s: %s", name, cause)
            return ServedVersion(released, None, str(cause))

    def _load_standbys(self) -> None:
        with suppress(ImportError):
            import_module("skops.io")  # the import takes three seconds: do it before a release needs it
        for name, slot in self.endpoints().items():
            with slot.change_lock:
                if slot.standby and slot.standby.model is None:
                    slot.standby = self._reload(name, slot.standby.released)


def _is_version(served: ServedVersion, order: ReleaseRequest, *, loaded: bool = True) -> bool:
    released = served.released
    same = (released.version, released.digest) == (order.version, order.digest)
    return same and (served.model is not None or not loaded)


def _placement(order: ReleaseRequest) -> ReleasedVersion:
    return ReleasedVersion(**{**order.model_dump(), "since": datetime.now(UTC)})


def _endpoint_state(live: ServedVersion, standby: ServedVersion | None) -> EndpointState:
    return EndpointState(live=live.released, standby=standby.released if standby else None)
