"""The endpoints of a host: what is live, what stands by, and the switch between them by one reference."""

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

_log = logging.getLogger("ratchet.hosting")


@dataclass(frozen=True)
class ServedVersion:
    """A placement and its model; None when it did not load again after a restart, with the reason."""

    released: ReleasedVersion
    model: LoadedModel | None
    failure: str = ""


@dataclass
class EndpointSlot:
    """One endpoint. `live` is read once by a request, and replaced as a whole: that is the switch."""

    live: ServedVersion
    standby: ServedVersion | None = None
    change_lock: threading.Lock = field(default_factory=threading.Lock)
    requests: int = 0
    refused: int = 0
    failed: int = 0


class ServedEndpoints:
    """All endpoints of one state folder, which belongs to this process alone."""

    def __init__(self, folder: Path, load_seconds: float = 60.0, keys: Sequence[str] = ()) -> None:
        self.folder, self.load_seconds, self.keys = folder, load_seconds, keys
        self._slots: dict[str, EndpointSlot] = {}
        self._writing = threading.Lock()
        self._opening = threading.Lock()

    def start(self) -> None:
        """Load what served when the host last ran. What does not load answers 503; the others serve.

        Versions that stand by are loaded afterwards, in a thread of their own.
        """
        lines = state.read_state(self.folder)
        for name, line in lines.items():
            standby = ServedVersion(line.standby, None, "not loaded yet") if line.standby else None
            self._slots[name] = EndpointSlot(self._reload(name, line.live), standby)
        threading.Thread(target=self._load_standbys, daemon=True).start()

    def release(self, name: str, order: ReleaseRequest) -> EndpointSlot:
        """Make the ordered version the live one, and keep the version before it in memory.

        Loading happens beside the live version, which goes on answering. Repeating an order changes nothing.

        Raises:
            Refused: it cannot be done; the version before it still answers.
        """
        slot = self._slots.get(name)
        if slot is None:
            return self._create(name, order)
        with slot.change_lock:
            self._refuse_another_digest(slot, order)
            if _is_version(slot.live, order) and slot.live.released.log == order.log:
                return slot
            model = self._load_or_reuse(slot, order)
            before = slot.live if slot.live.model else slot.standby
            standby = before if before and not _is_version(before, order, loaded=False) else None
            self._commit(name, slot, ServedVersion(_placement(order), model), standby)
        _log.info("%s: version %s is live", name, order.version)
        return slot

    def remove(self, name: str) -> bool:
        """Stop answering under the name, now and after a restart; say whether it answered.

        Raises:
            Refused: the state cannot be written; it still answers.
        """
        slot = self._slots.get(name)
        if slot is None:
            return False
        with slot.change_lock, self._writing:
            kept = {other: it for other, it in self._slots.items() if other != name}
            self._write_state({other: _endpoint_state(it.live, it.standby) for other, it in kept.items()}, "withdrawn")
            self._slots = kept
        _log.info("%s: withdrawn", name)
        return True

    def score(self, name: str, body: bytes, content_type: str) -> tuple[ScoringResponse, ReleasedVersion] | None:
        """Answer one request by the live model, and say which that was; None when there is no such endpoint."""
        slot = self._slots.get(name)
        if slot is None:
            return None
        live = slot.live
        if live.model is None:
            problem = f"version {live.released.version} did not load when the host started: {live.failure}"
            return ScoringResponse(503, b"", {}, problem), live.released
        rules = live.released.log
        return live.model.score(body, content_type, rules.key if rules else ""), live.released

    def count_response(self, name: str, status: int) -> None:
        """Count an answer. Called by one thread."""
        slot = self._slots.get(name)
        if slot is None:  # withdrawn while it answered
            return
        slot.requests += 1
        slot.refused += 400 <= status < 500
        slot.failed += status >= 500

    def endpoints(self) -> dict[str, EndpointSlot]:
        """Return the endpoints, by name in order."""
        return dict(sorted(self._slots.items()))

    def _create(self, name: str, order: ReleaseRequest) -> EndpointSlot:
        """Make the endpoint with its first version; two first orders at once are done one after the other."""
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
        """Write the state, then switch: a host that dies between the two comes back with the new version."""
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
                problem = f"version {order.version} is here with the digest {known.digest}; a version never changes"
                raise ReleaseRefused(409, "Conflict", problem)

    def _reload(self, name: str, placement: ReleasedVersion) -> ServedVersion:
        try:
            return ServedVersion(placement, load_release(placement, self.folder, self.load_seconds, self.keys))
        except ReleaseRefused as cause:
            _log.error("%s: %s", name, cause)
            return ServedVersion(placement, None, str(cause))

    def _load_standbys(self) -> None:
        with suppress(ImportError):
            import_module("skops.io")  # it and what it needs take three seconds: before a release asks for them
        for name, slot in self.endpoints().items():
            with slot.change_lock:
                if slot.standby and slot.standby.model is None:
                    slot.standby = self._reload(name, slot.standby.released)


def _is_version(served: ServedVersion, order: ReleaseRequest, *, loaded: bool = True) -> bool:
    placement = served.released
    same = (placement.version, placement.digest) == (order.version, order.digest)
    return same and (served.model is not None or not loaded)


def _placement(order: ReleaseRequest) -> ReleasedVersion:
    return ReleasedVersion(**{**order.model_dump(), "since": datetime.now(UTC)})


def _endpoint_state(live: ServedVersion, standby: ServedVersion | None) -> EndpointState:
    return EndpointState(live=live.released, standby=standby.released if standby else None)
