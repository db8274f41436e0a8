"""The dispatcher: for each open turn of the inbox it evaluates the trigger rules and starts flow runs.

It is idempotent. After a crash it processes the turn again with the same idempotency keys, so no run starts twice.
A turn stays open until its outcome is stored, so none is lost.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from uuid import uuid4

from blocks.common.errors import NotFound, PortError, TerminalError, TransientError, Unavailable
from blocks.inbox.base import Delivery, Inbox, InboxNote, ProcessingAttempt, ProcessingOutcome, StartedRun
from deployments.git import Merge, RepositoryCache
from deployments.secret_store import SecretStore, SecretUnavailable
from runtime.digests import text_digest
from services.gateway.orders import MISSED, OrderSigner
from services.gateway.rules.changes import RefChange, change_from_json
from services.gateway.rules.matching import (
    RunRequest,
    needs_paths,
    no_match_reason,
    pattern_matches,
    ref_refusal,
    run_requests,
)
from services.gateway.rules.rules import Repository, Triggers
from services.gateway.run_starter import Code, FlowRunSpec, RunStarter
from tasks.approval.rules.actions import ORDER_PARAMETER

_log = logging.getLogger("ratchet.gateway")

LEASE_NAME = "git dispatcher"
LEASE_SECONDS = 15.0
"""Seconds after which another gateway takes over the lease of one that was killed."""
POLL_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0
MIRROR_LAG = timedelta(minutes=10)
"""How long a delivery waits for its commit: a mirror may receive it after the host has delivered the push."""
_DELIVERIES_SEARCHED = 200


@dataclass
class Dispatcher:
    """Processes the inbox while it holds the lease. Only one of several gateways over the same ledger holds it."""

    inbox: Inbox
    triggers: Triggers
    starter: RunStarter
    repositories: RepositoryCache
    secret_store: SecretStore
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    wait_until_idle: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    sign_order: OrderSigner = lambda turn, change, planned: ""
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}")
    _failures: dict[str, tuple[int, float]] = field(default_factory=dict)

    def run(self, stop: Event, wake: Event) -> None:
        """Work until `stop` is set; `wake` ends an idle wait early. No error ends the loop."""
        while not stop.is_set():
            wake.clear()
            try:
                worked = self.run_once()
            except PortError as cause:
                _log.warning("the inbox cannot be processed: %s", cause)
                worked = 0
            except Exception:
                _log.exception("internal error in the dispatcher; continuing")
                worked = 0
            if not worked:
                wake.wait(POLL_SECONDS)
        try:
            self.inbox.release_lease(LEASE_NAME, self.holder)
        except PortError:
            _log.warning("the lease was not released; it expires automatically")

    def run_once(self, limit: int = 50) -> int:
        """Process the turns that are due, and return how many were completed."""
        now, ended = self.clock(), 0
        if self.inbox.acquire_lease(LEASE_NAME, self.holder, now, now + timedelta(seconds=LEASE_SECONDS)) is None:
            return 0
        held_until = self.monotonic() + LEASE_SECONDS / 2
        for turn in self.inbox.pending_attempts(limit + len(self._failures)):
            if self.monotonic() > held_until:
                break  # renew the lease first
            if self._is_due(turn):
                self.wait_until_idle()
                ended += self._process_turn(turn)
        return ended

    def _process_turn(self, turn: ProcessingAttempt) -> bool:
        try:
            outcome = self._outcome(turn)
        except (TransientError, SecretUnavailable) as cause:
            self._postpone(turn, str(cause))
            return False
        except TerminalError as cause:
            outcome = ProcessingOutcome("refused", str(cause))
        except Exception as cause:  # a bug here: the turns after this one must not wait for it
            _log.exception("internal error while processing %s", turn.key)
            self._postpone(turn, f"internal error: {type(cause).__name__}")
            return False
        self.inbox.finish_attempt(turn, outcome, self.clock())
        self._failures.pop(turn.key, None)
        _log.info("%s: %s: %s", turn.key, outcome.state, outcome.reason)
        return True

    def _outcome(self, turn: ProcessingAttempt) -> ProcessingOutcome:
        delivery = turn.delivery
        if not delivery.change:
            return ProcessingOutcome("ignored", "deliveries of this kind never start a run")
        change = change_from_json(delivery.change)
        allowed = self.triggers.repository(delivery.sender, change.repository)
        reason = ref_refusal(change.repository, change.ref, tag=change.kind == "tag", repository=allowed)
        if allowed is None or reason:
            return ProcessingOutcome("ignored", reason)
        if needs_paths(self.triggers, change):
            change = self._with_paths(turn, change, allowed)
        planned_runs = run_requests(self.triggers, change)
        if not planned_runs:
            return ProcessingOutcome("ignored", no_match_reason(self.triggers, change))
        return self._start(turn, change, allowed, planned_runs)

    def _with_paths(self, turn: ProcessingAttempt, change: RefChange, allowed: Repository) -> RefChange:
        """Return the change with the files that differ, by git. For a while, a commit that is missing is waited for."""
        token = self.secret_store.value(allowed.credentials) if allowed.credentials else ""
        try:
            if change.kind == "merge":
                heads = self._known_heads(turn.delivery, change)
                merge = Merge(change.ref, change.commit, change.head, change.before, heads)
                paths = self.repositories.merged_files(allowed.clone, merge, token=token)
            else:
                paths = self.repositories.changed_files(allowed.clone, change.before, change.commit, token=token)
        except NotFound as cause:
            if self.clock() - turn.requested_at < MIRROR_LAG:
                raise Unavailable(f"{cause}; a mirror may receive it later") from cause
            raise
        return replace(change, paths=tuple(paths), paths_complete=True)

    def _known_heads(self, delivery: Delivery, change: RefChange) -> tuple[str, ...]:
        """Return earlier heads of the branch, as deliveries named them; first what the push of the same commit had."""
        same = (delivery.sender, delivery.repository, delivery.ref, delivery.commit)
        recent = [status.turn.delivery for status in self.inbox.delivery_statuses(_DELIVERIES_SEARCHED)]
        alike = [each for each in recent if (each.sender, each.repository, each.ref, each.commit) == same]
        changes = [change_from_json(each.change) for each in alike if each.change and each.id != delivery.id]
        before = [each.before for each in changes if each.kind == "push" and each.before]
        return (*before, *self.inbox.commits(change.repository, change.ref))

    def _start(
        self, turn: ProcessingAttempt, change: RefChange, allowed: Repository, planned_runs: list[RunRequest]
    ) -> ProcessingOutcome:
        runs: list[StartedRun] = []
        refused: list[str] = []
        for planned in planned_runs:
            try:
                order = self.sign_order(turn, change, planned)
                run_id = self.starter.start(git_run_spec(turn, change, allowed, planned, order))
                runs.append(StartedRun(run_id, planned.rule, planned.deployment))
            except TerminalError as cause:
                refused.append(f"{planned.rule}: {cause}")
        reasons = refused or [f"{planned.deployment} by the rule {planned.rule!r}" for planned in planned_runs]
        return ProcessingOutcome("started" if runs else "refused", "; ".join(reasons), tuple(runs))

    def _is_due(self, turn: ProcessingAttempt) -> bool:
        return self.monotonic() >= self._failures.get(turn.key, (0, 0.0))[1]

    def _postpone(self, turn: ProcessingAttempt, cause: str) -> None:
        """Retry after 1, 2, 4, ... 60 s. The first failure adds a note, so that people see why the delivery waits."""
        tries = self._failures.get(turn.key, (0, 0.0))[0] + 1
        wait = min(2.0 ** (tries - 1), MAX_RETRY_SECONDS)
        self._failures[turn.key] = tries, self.monotonic() + wait
        _log.warning("%s waits (%d tries): %s", turn.key, tries, cause)
        if tries == 1:
            self.inbox.add_note(InboxNote(turn.delivery.id, "waits", cause, self.clock()))


def git_run_spec(
    turn: ProcessingAttempt, change: RefChange, allowed: Repository, planned: RunRequest, order: str = ""
) -> FlowRunSpec:
    """Return the flow run to start. Its idempotency key names the turn and the rule; its code is the pushed commit."""
    variables = Code(change.commit, allowed.clone, allowed.credentials or "").variables()
    parameters = {**planned.parameters, ORDER_PARAMETER: order} if order else planned.parameters
    tags = ("git", f"commit:{change.commit}", f"delivery:{turn.delivery.id}", f"rule:{planned.rule}")
    return FlowRunSpec(f"git/{turn.key}/{planned.key}", planned.deployment, parameters, variables, tags)


def open_repository_cache(state: Path) -> RepositoryCache:
    """Return the cached repositories in the state folder of a gateway."""
    return RepositoryCache(state / "gateway" / "repositories")


@dataclass(frozen=True)
class MissedPush:
    """A branch whose newest commit was never delivered; `last_delivered` is the last one that was ("" for none)."""

    repository: Repository
    branch: str
    commit: str
    last_delivered: str


def find_missed_pushes(
    inbox: Inbox, triggers: Triggers, repositories: RepositoryCache, secret_store: SecretStore
) -> Iterator[MissedPush]:
    """Yield the configured branches whose newest commit was never delivered, as `git ls-remote` shows it.

    Raises:
        Unavailable, Rejected: a repository cannot be read.
    """
    for repository in triggers.repositories:
        token = secret_store.value(repository.credentials) if repository.credentials else ""
        for branch, commit in sorted(repositories.branch_heads(repository.clone, token=token).items()):
            delivered = inbox.commits(repository.name, branch)
            if commit not in delivered and any(pattern_matches(pattern, branch) for pattern in repository.branches):
                yield MissedPush(repository, branch, commit, delivered[0] if delivered else "")


def ingest_missed_push(inbox: Inbox, push: MissedPush, by: str, now: datetime) -> str:
    """Add a missed push to the inbox as if it had been delivered, and return its id. Git supplies its files later."""
    name, sender = push.repository.name, push.repository.sender
    change = RefChange("push", name, push.branch, push.commit, push.last_delivered, by)
    delivery_id = f"{sender}:missed:{name}:{push.branch}:{push.commit}"
    digest = text_digest(delivery_id)
    inbox.receive(Delivery(delivery_id, sender, MISSED, name, push.branch, push.commit, digest, change.text(), now))
    return delivery_id
