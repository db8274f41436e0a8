"""The endpoints of a host: what is live, what stands by, and the switch between them by one reference."""

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from runtime.scoring import Model, Reply
from services.model_server import state
from services.model_server.loading import Refused, load, warm_up
from services.model_server.state import Line, Order, Placement

_log = logging.getLogger("ratchet.hosting")


@dataclass(frozen=True)
class Served:
    """A placement and its model; None when it did not load again after a restart, with the reason."""

    placement: Placement
    model: Model | None
    failure: str = ""


@dataclass
class Slot:
    """One endpoint. `live` is read once by a request, and replaced as a whole: that is the switch."""

    live: Served
    standby: Served | None = None
    changing: threading.Lock = field(default_factory=threading.Lock)
    requests: int = 0
    refused: int = 0
    failed: int = 0


class Fleet:
    """All endpoints of one state folder, which belongs to this process alone."""

    def __init__(self, folder: Path, load_seconds: float = 60.0, keys: Sequence[str] = ()) -> None:
        self.folder, self.load_seconds, self.keys = folder, load_seconds, keys
        self._slots: dict[str, Slot] = {}
        self._writing = threading.Lock()
        self._opening = threading.Lock()

    def start(self) -> None:
        """Load what served when the host last ran. What does not load answers 503; the others serve.

        Versions that stand by are loaded afterwards, in a thread of their own.
        """
        lines = state.read(self.folder)
        for name, line in lines.items():
            standby = Served(line.standby, None, "not loaded yet") if line.standby else None
            self._slots[name] = Slot(self._again(name, line.live), standby)
        threading.Thread(target=self._load_standbys, daemon=True).start()

    def release(self, name: str, order: Order) -> Slot:
        """Make the ordered version the live one, and keep the version before it in memory.

        Loading happens beside the live version, which goes on answering. Repeating an order changes nothing.

        Raises:
            Refused: it cannot be done; the version before it still answers.
        """
        slot = self._slots.get(name)
        if slot is None:
            return self._open(name, order)
        with slot.changing:
            self._refuse_another_digest(slot, order)
            if _is(slot.live, order) and slot.live.placement.log == order.log:
                return slot
            model = self._ready(slot, order)
            before = slot.live if slot.live.model else slot.standby
            standby = before if before and not _is(before, order, loaded=False) else None
            self._commit(name, slot, Served(_place(order), model), standby)
        _log.info("%s: version %s is live", name, order.version)
        return slot

    def withdraw(self, name: str) -> bool:
        """Stop answering under the name, now and after a restart; say whether it answered.

        Raises:
            Refused: the state cannot be written; it still answers.
        """
        slot = self._slots.get(name)
        if slot is None:
            return False
        with slot.changing, self._writing:
            kept = {other: it for other, it in self._slots.items() if other != name}
            self._store({other: _line(it.live, it.standby) for other, it in kept.items()}, "withdrawn")
            self._slots = kept
        _log.info("%s: withdrawn", name)
        return True

    def score(self, name: str, body: bytes, content_type: str) -> tuple[Reply, Placement] | None:
        """Answer one request by the live model, and say which that was; None when there is no such endpoint."""
        slot = self._slots.get(name)
        if slot is None:
            return None
        live = slot.live
        if live.model is None:
            problem = f"version {live.placement.version} did not load when the host started: {live.failure}"
            return Reply(503, b"", {}, problem), live.placement
        rules = live.placement.log
        return live.model.score(body, content_type, rules.key if rules else ""), live.placement

    def count(self, name: str, status: int) -> None:
        """Count an answer. Called by one thread."""
        slot = self._slots.get(name)
        if slot is None:  # withdrawn while it answered
            return
        slot.requests += 1
        slot.refused += 400 <= status < 500
        slot.failed += status >= 500

    def slots(self) -> dict[str, Slot]:
        """Return the endpoints, by name in order."""
        return dict(sorted(self._slots.items()))

    def _open(self, name: str, order: Order) -> Slot:
        """Make the endpoint with its first version; two first orders at once are done one after the other."""
        model = load(order, self.folder, self.load_seconds, self.keys)
        with self._opening:
            if name not in self._slots:
                live = Served(_place(order), model)
                slot = Slot(live)
                self._commit(name, slot, live, None)
                return slot
        return self.release(name, order)

    def _ready(self, slot: Slot, order: Order) -> Model:
        if slot.standby and slot.standby.model and _is(slot.standby, order):
            warm_up(order, slot.standby.model)
            return slot.standby.model
        return load(order, self.folder, self.load_seconds, self.keys)

    def _commit(self, name: str, slot: Slot, live: Served, standby: Served | None) -> None:
        """Write the state, then switch: a host that dies between the two comes back with the new version."""
        with self._writing:
            lines = {other: _line(it.live, it.standby) for other, it in self._slots.items()}
            self._store(lines | {name: _line(live, standby)}, "switched")
            slot.live, slot.standby = live, standby
            self._slots[name] = slot

    def _store(self, lines: dict[str, Line], done: str) -> None:
        try:
            state.write(self.folder, lines)
        except OSError as cause:
            problem = f"the state in {self.folder} cannot be written, so nothing was {done}: {cause}"
            raise Refused(503, "Unavailable", problem) from cause

    def _refuse_another_digest(self, slot: Slot, order: Order) -> None:
        for served in (slot.live, slot.standby):
            known = served.placement if served else None
            if known and known.version == order.version and known.digest != order.digest:
                problem = f"version {order.version} is here with the digest {known.digest}; a version never changes"
                raise Refused(409, "Conflict", problem)

    def _again(self, name: str, placement: Placement) -> Served:
        try:
            return Served(placement, load(placement, self.folder, self.load_seconds, self.keys))
        except Refused as cause:
            _log.error("%s: %s", name, cause)
            return Served(placement, None, str(cause))

    def _load_standbys(self) -> None:
        with suppress(ImportError):
            import_module("skops.io")  # it and what it needs take three seconds: before a release asks for them
        for name, slot in self.slots().items():
            with slot.changing:
                if slot.standby and slot.standby.model is None:
                    slot.standby = self._again(name, slot.standby.placement)


def _is(served: Served, order: Order, *, loaded: bool = True) -> bool:
    placement = served.placement
    same = (placement.version, placement.digest) == (order.version, order.digest)
    return same and (served.model is not None or not loaded)


def _place(order: Order) -> Placement:
    return Placement(**{**order.model_dump(), "since": datetime.now(UTC)})


def _line(live: Served, standby: Served | None) -> Line:
    return Line(live=live.placement, standby=standby.placement if standby else None)
