"""Resume flow runs whose approval requests are decided.

The decisions are already stored in the ledger, so an outage of the gateway or of Prefect loses nothing.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Protocol
from uuid import UUID

import httpx

from blocks.approvals.base import Approvals
from blocks.approvals.chain import decisions_of
from blocks.common.errors import PortError, Unavailable
from blocks.records.approvals import Decision

_log = logging.getLogger("ratchet.approvals_ui")

MAX_DECISION_AGE = timedelta(days=30)
RETRY_SECONDS, POLL_SECONDS = 4.0, 60.0
MAX_FAILURES = 3
"""After this many failures in one pass Prefect is treated as unavailable, and the pass ends."""


class SuspendedRuns(Protocol):
    """The flow runs that may be suspended."""

    def resume(self, run_id: str, decision: Decision) -> bool:
        """Resume a suspended run; return whether nothing more is to be done for it.

        Raises:
            Unavailable: Prefect does not respond.
        """


class PrefectSuspendedRuns:
    """Suspended runs, over the Prefect API that this process is configured for."""

    def resume(self, run_id: str, decision: Decision) -> bool:
        """Resume a suspended run with its form filled in. The run itself reads the decision from the ledger."""
        from prefect.client.orchestration import get_client
        from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound, PrefectHTTPStatusError

        from services.decisions import resume_run

        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(UUID(run_id)).state
            if state is None or not state.is_paused():
                return state is not None and state.is_final()
            resume_run(UUID(run_id), decision)
        except NotPausedError:  # it was resumed in the meantime
            return False
        except (ObjectNotFound, FlowPauseTimeout, ValueError) as cause:
            _log.warning("flow run %s cannot be resumed: %s", run_id, type(cause).__name__)
            return True
        except PrefectHTTPStatusError as cause:
            if (status := cause.response.status_code) >= 500 or status in {401, 403, 429}:
                raise Unavailable(f"Prefect responds with status {status}") from cause
            _log.warning("flow run %s cannot be resumed: Prefect responds with status %d", run_id, status)
            return True
        except RuntimeError as cause:  # the message of Prefect says why it does not resume the run
            raise Unavailable(f"flow run {run_id} was not resumed: {cause}") from cause
        except httpx.HTTPError as cause:
            raise Unavailable(f"Prefect does not respond: {type(cause).__name__}") from cause
        return False  # check it once more: a run that failed to start is resumed again


class RunResumer:
    """Resumes runs, one after the other."""

    def __init__(
        self,
        approvals: Callable[[], Approvals],
        runs: SuspendedRuns,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._approvals, self._runs, self._clock = approvals, runs, clock
        self._resumed: set[str] = set()

    def run(self, stop: Event, wake: Event) -> None:
        """Work until `stop` is set; `wake` ends an idle wait early. No error ends the loop."""
        failed = 0
        while not stop.is_set():
            wake.clear()
            try:
                left, failed = self.step(self._clock()), 0
            except PortError as cause:
                _log.warning("runs could not be resumed: %s", cause)
                left, failed = 1, failed + 1
            except Exception:
                _log.exception("internal error while resuming runs; continuing")
                left, failed = 1, failed + 1
            wake.wait(min(RETRY_SECONDS * 2**failed, POLL_SECONDS) if left else POLL_SECONDS)

    def step(self, now: datetime) -> int:
        """Resume the runs of recent decisions, and return how many runs must be checked again.

        Raises:
            Unavailable: Prefect is unavailable, or some runs could not be resumed; the others were.
        """
        approvals, to_check_again, failures = self._approvals(), 0, list[Unavailable]()
        recent = [each for each in decisions_of(approvals.chain_entries()) if each.at > now - MAX_DECISION_AGE]
        for name in dict.fromkeys(each.request_id for each in recent if each.request_id not in self._resumed):
            end = approvals.final_decision(name)
            if end is None:
                continue  # more approvals are needed
            run_id = approvals.get_request(name).flow_run_id
            try:
                if not run_id or self._runs.resume(run_id, end):
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
