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
from deployments.secret_store import SecretStore, SecretUnavailable
from services.gateway.repositories import RepositoryCache
from services.gateway.rules.changes import RefChange, change_from_json
from services.gateway.rules.matching import RunRequest, needs_paths, no_match_reason, ref_refusal, run_requests
from services.gateway.rules.rules import Repository, Triggers
from services.gateway.run_starter import FlowRunSpec, RunStarter

_log = logging.getLogger("ratchet.gateway")

LEASE_NAME = "git dispatcher"
LEASE_SECONDS = 15.0
"""How long the work of a gateway that was killed lies still before another one takes it up."""
POLL_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0


@dataclass
class Dispatcher:
    """Works on the inbox while it holds the lease; of several gateways over one ledger one does."""

    inbox: Inbox
    triggers: Triggers
    starter: RunStarter
    repositories: RepositoryCache
    vault: SecretStore
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    wait_until_idle: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}")
    _failures: dict[str, tuple[int, float]] = field(default_factory=dict)

    def run(self, stop: Event, wake: Event) -> None:
        """Work until `stop`; `wake` cuts an idle wait short. No error ends it."""
        while not stop.is_set():
            wake.clear()
            try:
                worked = self.run_once()
            except PortError as cause:
                _log.warning("the inbox cannot be worked on: %s", cause)
                worked = 0
            except Exception:
                _log.exception("the dispatcher met an error of ours; it goes on")
                worked = 0
            if not worked:
                wake.wait(POLL_SECONDS)
        try:
            self.inbox.release(LEASE_NAME, self.holder)
        except PortError:
            _log.warning("the lease was not released; it runs out by itself")

    def run_once(self, limit: int = 50) -> int:
        """Work on the turns that are due, and return how many were brought to an end."""
        now, ended = self.clock(), 0
        if self.inbox.lease(LEASE_NAME, self.holder, now, now + timedelta(seconds=LEASE_SECONDS)) is None:
            return 0
        held_until = self.monotonic() + LEASE_SECONDS / 2
        for turn in self.inbox.open_turns(limit + len(self._failures)):
            if self.monotonic() > held_until:
                break  # hold on to the lease first
            if self._is_due(turn):
                self.wait_until_idle()
                ended += self._process_turn(turn)
        return ended

    def _process_turn(self, turn: Turn) -> bool:
        try:
            outcome = self._outcome(turn)
        except (TransientError, SecretUnavailable) as cause:
            self._postpone(turn, str(cause))
            return False
        except TerminalError as cause:
            outcome = Outcome("refused", str(cause))
        except Exception as cause:  # an error of ours: the turns behind this one must not wait for it
            _log.exception("%s met an error of ours", turn.key)
            self._postpone(turn, f"an error of ours: {type(cause).__name__}")
            return False
        self.inbox.end_turn(turn, outcome, self.clock())
        self._failures.pop(turn.key, None)
        _log.info("%s: %s: %s", turn.key, outcome.state, outcome.reason)
        return True

    def _outcome(self, turn: Turn) -> Outcome:
        delivery = turn.delivery
        if not delivery.change:
            return Outcome("ignored", "this delivery starts nothing by its nature")
        change = change_from_json(delivery.change)
        allowed = self.triggers.repository(delivery.sender, change.repository)
        reason = ref_refusal(change.repository, change.ref, tag=change.kind == "tag", repository=allowed)
        if allowed is None or reason:
            return Outcome("ignored", reason)
        if needs_paths(self.triggers, change):
            change = self._with_paths(change, allowed)
        wanted = run_requests(self.triggers, change)
        if not wanted:
            return Outcome("ignored", no_match_reason(self.triggers, change))
        return self._start(turn, change, allowed, wanted)

    def _with_paths(self, change: RefChange, allowed: Repository) -> RefChange:
        token = self.vault.value(allowed.credentials) if allowed.credentials else ""
        merged = change.kind == "merge"
        paths = self.repositories.changed_files(allowed.clone, change.before, change.commit, merged=merged, token=token)
        return replace(change, paths=tuple(paths), paths_complete=True)

    def _start(self, turn: Turn, change: RefChange, allowed: Repository, planned_runs: list[RunRequest]) -> Outcome:
        runs: list[StartedRun] = []
        refused: list[str] = []
        for order in planned_runs:
            try:
                run_id = self.starter.start(git_run_spec(turn, change, allowed, order))
                runs.append(StartedRun(run_id, order.rule, order.deployment))
            except TerminalError as cause:
                refused.append(f"{order.rule}: {cause}")
        said = refused or [f"{order.deployment} by the rule {order.rule!r}" for order in planned_runs]
        return Outcome("started" if runs else "refused", "; ".join(said), tuple(runs))

    def _is_due(self, turn: Turn) -> bool:
        return self.monotonic() >= self._failures.get(turn.key, (0, 0.0))[1]

    def _postpone(self, turn: Turn, cause: str) -> None:
        """Try again after 1, 2, 4, ... 60 s; the first time it is noted, so that a person can see why it waits."""
        tries = self._failures.get(turn.key, (0, 0.0))[0] + 1
        wait = min(2.0 ** (tries - 1), MAX_RETRY_SECONDS)
        self._failures[turn.key] = tries, self.monotonic() + wait
        _log.warning("%s waits (%d tries): %s", turn.key, tries, cause)
        if tries == 1:
            self.inbox.note(Note(turn.delivery.id, "waits", cause, self.clock()))


def git_run_spec(turn: Turn, change: RefChange, allowed: Repository, order: RunRequest) -> FlowRunSpec:
    """Return the run: its key is that of turn and rule, its code that of the commit."""
    variables = {"RATCHET_COMMIT": change.commit, "RATCHET_REPOSITORY": allowed.clone}
    if allowed.credentials:
        variables["RATCHET_CREDENTIALS"] = allowed.credentials
    tags = ("git", f"commit:{change.commit}", f"delivery:{turn.delivery.id}", f"rule:{order.rule}")
    return FlowRunSpec(f"git/{turn.key}/{order.key}", order.deployment, order.parameters, variables, tags)


def open_repository_cache(state: Path) -> RepositoryCache:
    """Return the mirrors that a gateway keeps in its state folder."""
    return RepositoryCache(state / "gateway" / "repositories")
