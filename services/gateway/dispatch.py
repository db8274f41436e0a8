"""The one dispatcher: takes open turns from the inbox, asks the rules, starts flow runs, writes down the outcome.

Killed at any point it begins the turn anew: the runs' idempotency keys are those of before, so nothing is started
twice, and a turn is over only when its outcome is written, so nothing is lost.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from uuid import uuid4

from blocks.common.errors import PortError, TerminalError, TransientError
from blocks.inbox.base import Inbox, Note, Outcome, StartedRun, Turn
from deployments.secret_store import Unreadable, Vault
from services.gateway.repositories import Mirrors
from services.gateway.rules.changes import Change, read_change
from services.gateway.rules.matching import Order, needs_paths, not_allowed, nothing_matches, orders
from services.gateway.rules.rules import Repository, Triggers
from services.gateway.starting import RunOrder, Starter

_log = logging.getLogger("ratchet.gateway")

LEASE = "git dispatcher"
LEASE_SECONDS = 15.0
"""How long the work of a gateway that was killed lies still before another one takes it up."""
IDLE_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0


@dataclass
class Dispatcher:
    """Works on the inbox while it holds the lease; of several gateways over one ledger one does."""

    inbox: Inbox
    triggers: Triggers
    starter: Starter
    mirrors: Mirrors
    vault: Vault
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    give_way: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}")
    _failures: dict[str, tuple[int, float]] = field(default_factory=dict)

    def run(self, stop: Event, woken: Event) -> None:
        """Work until `stop`; `woken` cuts an idle wait short. No error ends it."""
        while not stop.is_set():
            woken.clear()
            try:
                worked = self.step()
            except PortError as cause:
                _log.warning("the inbox cannot be worked on: %s", cause)
                worked = 0
            except Exception:
                _log.exception("the dispatcher met an error of ours; it goes on")
                worked = 0
            if not worked:
                woken.wait(IDLE_SECONDS)
        try:
            self.inbox.release(LEASE, self.holder)
        except PortError:
            _log.warning("the lease was not released; it runs out by itself")

    def step(self, limit: int = 50) -> int:
        """Work on the turns that are due, and return how many were brought to an end."""
        now, ended = self.clock(), 0
        if self.inbox.lease(LEASE, self.holder, now, now + timedelta(seconds=LEASE_SECONDS)) is None:
            return 0
        held_until = self.monotonic() + LEASE_SECONDS / 2
        for turn in self.inbox.open_turns(limit + len(self._failures)):
            if self.monotonic() > held_until:
                break  # hold on to the lease first
            if self._is_due(turn):
                self.give_way()
                ended += self._work(turn)
        return ended

    def _work(self, turn: Turn) -> bool:
        try:
            outcome = self._outcome(turn)
        except (TransientError, Unreadable) as cause:
            self._put_off(turn, str(cause))
            return False
        except TerminalError as cause:
            outcome = Outcome("refused", str(cause))
        except Exception as cause:  # an error of ours: the turns behind this one must not wait for it
            _log.exception("%s met an error of ours", turn.key)
            self._put_off(turn, f"an error of ours: {type(cause).__name__}")
            return False
        self.inbox.end_turn(turn, outcome, self.clock())
        self._failures.pop(turn.key, None)
        _log.info("%s: %s: %s", turn.key, outcome.state, outcome.reason)
        return True

    def _outcome(self, turn: Turn) -> Outcome:
        delivery = turn.delivery
        if not delivery.change:
            return Outcome("ignored", "this delivery starts nothing by its nature")
        change = read_change(delivery.change)
        allowed = self.triggers.repository(delivery.sender, change.repository)
        reason = not_allowed(change.repository, change.ref, tag=change.kind == "tag", allowed=allowed)
        if allowed is None or reason:
            return Outcome("ignored", reason)
        if needs_paths(self.triggers, change):
            change = self._with_paths(change, allowed)
        wanted = orders(self.triggers, change)
        if not wanted:
            return Outcome("ignored", nothing_matches(self.triggers, change))
        return self._start(turn, change, allowed, wanted)

    def _with_paths(self, change: Change, allowed: Repository) -> Change:
        token = self.vault.value(allowed.credentials) if allowed.credentials else ""
        merged = change.kind == "merge"
        paths = self.mirrors.changed(allowed.clone, change.before, change.commit, merged=merged, token=token)
        return replace(change, paths=tuple(paths), complete=True)

    def _start(self, turn: Turn, change: Change, allowed: Repository, wanted: list[Order]) -> Outcome:
        runs: list[StartedRun] = []
        refused: list[str] = []
        for order in wanted:
            try:
                run_id = self.starter.start(run_order(turn, change, allowed, order))
                runs.append(StartedRun(run_id, order.rule, order.deployment))
            except TerminalError as cause:
                refused.append(f"{order.rule}: {cause}")
        said = refused or [f"{order.deployment} by the rule {order.rule!r}" for order in wanted]
        return Outcome("started" if runs else "refused", "; ".join(said), tuple(runs))

    def _is_due(self, turn: Turn) -> bool:
        return self.monotonic() >= self._failures.get(turn.key, (0, 0.0))[1]

    def _put_off(self, turn: Turn, cause: str) -> None:
        """Try again after 1, 2, 4, ... 60 s; the first time it is noted, so that a person can see why it waits."""
        tries = self._failures.get(turn.key, (0, 0.0))[0] + 1
        wait = min(2.0 ** (tries - 1), LONGEST_WAIT_SECONDS)
        self._failures[turn.key] = tries, self.monotonic() + wait
        _log.warning("%s waits (%d tries): %s", turn.key, tries, cause)
        if tries == 1:
            self.inbox.note(Note(turn.delivery.id, "waits", cause, self.clock()))


def run_order(turn: Turn, change: Change, allowed: Repository, order: Order) -> RunOrder:
    """Return the run: its key is that of turn and rule, its code that of the commit."""
    variables = {"RATCHET_COMMIT": change.commit, "RATCHET_REPOSITORY": allowed.clone}
    if allowed.credentials:
        variables["RATCHET_CREDENTIALS"] = allowed.credentials
    tags = ("git", f"commit:{change.commit}", f"delivery:{turn.delivery.id}", f"rule:{order.rule}")
    return RunOrder(f"git/{turn.key}/{order.key}", order.deployment, order.parameters, variables, tags)


def mirrors_below(state: Path) -> Mirrors:
    """Return the mirrors that a gateway keeps in its state folder."""
    return Mirrors(state / "gateway" / "repositories")
