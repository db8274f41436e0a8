"""Wake the flow runs whose requests are decided: a decision is safe in the ledger before, and waits for nobody.

It looks at what was decided and at the runs that wait, so a gateway or Prefect that is away loses nothing.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Protocol
from uuid import UUID

import httpx

from blocks.approvals.base import Approvals, Decision
from blocks.approvals.chain import decisions_of
from blocks.common.errors import PortError, Unavailable

_log = logging.getLogger("ratchet.desk")

MAX_DECISION_AGE = timedelta(days=30)
RETRY_SECONDS, POLL_SECONDS = 4.0, 60.0
MAX_FAILURES = 3
"""After so many Prefect is taken to be away, for all of them."""


class SuspendedRuns(Protocol):
    """The flow runs that may wait."""

    def wake(self, run_id: str, made: Decision) -> bool:
        """Resume a run that waits; return whether it has been woken or does not wait any more.

        Raises:
            Unavailable: Prefect does not answer.
        """


class PrefectSuspendedRuns:
    """Runs over the Prefect API of this process's settings."""

    def wake(self, run_id: str, made: Decision) -> bool:
        """Resume a run that waits, with the form filled in as it was decided; the run looks into the ledger anyway."""
        from prefect.client.orchestration import get_client
        from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound, PrefectHTTPStatusError

        from services.decisions import resume_run

        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(UUID(run_id)).state
            if state is None or not state.is_paused():
                return state is not None and state.is_final()
            resume_run(UUID(run_id), made)
        except NotPausedError:  # somebody was quicker
            return False
        except (ObjectNotFound, FlowPauseTimeout, ValueError) as cause:
            _log.warning("flow run %s cannot be woken: %s", run_id, type(cause).__name__)
            return True
        except PrefectHTTPStatusError as cause:
            if (status := cause.response.status_code) >= 500 or status in {401, 403, 429}:
                raise Unavailable(f"Prefect answers {status}") from cause
            _log.warning("flow run %s cannot be woken: Prefect answers %d", run_id, status)
            return True
        except RuntimeError as cause:  # Prefect's own words: why it does not resume the run
            raise Unavailable(f"flow run {run_id} sleeps on: {cause}") from cause
        except httpx.HTTPError as cause:
            raise Unavailable(f"Prefect does not answer: {type(cause).__name__}") from cause
        return False  # looked at once more: a run that failed to start again is woken again


class RunResumer:
    """Wakes runs, one after the other."""

    def __init__(
        self,
        approvals: Callable[[], Approvals],
        runs: SuspendedRuns,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._approvals, self._runs, self._clock = approvals, runs, clock
        self._resumed: set[str] = set()

    def run(self, stop: Event, wake: Event) -> None:
        """Work until `stop`; `wake` cuts an idle wait short. No error ends it."""
        failed = 0
        while not stop.is_set():
            wake.clear()
            try:
                left, failed = self.step(self._clock()), 0
            except PortError as cause:
                _log.warning("runs could not be woken: %s", cause)
                left, failed = 1, failed + 1
            except Exception:
                _log.exception("waking runs met an error of ours; it goes on")
                left, failed = 1, failed + 1
            wake.wait(min(RETRY_SECONDS * 2**failed, POLL_SECONDS) if left else POLL_SECONDS)

    def step(self, now: datetime) -> int:
        """Wake what was decided lately, and return how many runs are to be looked at again.

        Raises:
            Unavailable: after the others were woken: some could not be, or Prefect is away.
        """
        approvals, to_check_again, failures = self._approvals(), 0, list[Unavailable]()
        recent = [each for each in decisions_of(approvals.links()) if each.at > now - MAX_DECISION_AGE]
        for name in dict.fromkeys(each.request_id for each in recent if each.request_id not in self._resumed):
            end = approvals.decision(name)
            if end is None:
                continue  # it takes more approvals yet
            run_id = approvals.approval_request(name).flow_run_id
            try:
                if not run_id or self._runs.wake(run_id, end):
                    self._resumed.add(name)
                else:
                    to_check_again += 1
            except Unavailable as cause:
                failures.append(cause)
                if len(failures) == MAX_FAILURES:
                    break
        if failures:
            raise failures[0]
        return to_check_again
