"""The message of an ingest run: it says how many rows were accepted, and how many were set aside and why."""

from contextlib import nullcontext

import pytest

from flows.ingest import ingest
from tasks.approval.rules.actions import Actor
from tasks.shared.records import IngestResult

RESULT = IngestResult(
    dataset="people", snapshot="1", rows_in=200, accepted=195, quarantined=5,
    summary="195 of 200 accepted, 5 set aside: 5 null target (quarantine snapshot 1).",
)  # fmt: skip


def test_the_state_of_a_run_bears_the_summary_and_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.ingest.authorize_run", lambda *_: Actor("somebody"))
    monkeypatch.setattr("flows.ingest.one_at_a_time", lambda _: nullcontext())
    monkeypatch.setattr("flows.ingest.ingest_source", lambda *_: RESULT)
    state = ingest.fn("people", "people.csv")
    assert (state.is_completed(), state.message, state.data) == (True, RESULT.summary, RESULT)
