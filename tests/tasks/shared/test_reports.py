"""Reports never fail what is done; a transient error is retried while the task has retries left."""

import ast
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from blocks.common.errors import Rejected, Unavailable
from runtime.foreign_text import Markdown
from tasks.shared import reports
from tasks.shared.reports import only_reports
from tasks.shared.retries import is_transient
from tests.structure import python_files

ALLOWED = {"tasks.shared.reports", "tasks.shared.progress", "tasks.shared.checks"}
"""Progress guards its own artifact; validation's report comes before any effect, and belongs to the check."""


@pytest.mark.parametrize(
    "problem", [Rejected("no"), Unavailable("later"), MemoryError("600 MB"), ConnectionError("down"), KeyError("x")]
)
def test_whatever_goes_wrong_in_a_report_is_logged_and_fails_nothing(
    problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ratchet.reports"), only_reports("the report of it") as result:
        raise problem
    assert result.problem.startswith(type(problem).__name__)
    assert "the report of it was not written, and what it is about is done" in caplog.text


def test_the_end_of_the_process_is_no_report() -> None:
    with pytest.raises(KeyboardInterrupt), only_reports("it"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("attempt", "retried"), [(1, True), (4, True), (5, False)])
def test_a_transient_error_is_retried_as_long_as_the_task_is(
    attempt: int, retried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(task_run=SimpleNamespace(run_count=attempt), task=SimpleNamespace(retries=4))
    monkeypatch.setattr(reports, "TaskRunContext", SimpleNamespace(get=lambda: context))
    outcomes = []
    for problem in (Unavailable("later"), Rejected("never")):
        try:
            with only_reports("it"):
                raise problem
            outcomes.append(False)
        except Unavailable:
            outcomes.append(True)
    assert outcomes == [retried, False]


@pytest.mark.server
@pytest.mark.slow
def test_prefect_tries_a_report_again_and_the_task_ends_well() -> None:
    attempts = []

    @task(retries=3, retry_delay_seconds=0, retry_condition_fn=is_transient)
    def lands() -> str:
        attempts.append("landed")
        with only_reports("the report"):
            raise Unavailable("the registry is away")
        return "done"

    @flow
    def run() -> str:
        return lands()

    with prefect_test_harness(server_startup_timeout=120):
        assert run() == "done"
    assert len(attempts) == 4


ARTIFACTS: dict[str, dict[str, Any]] = {
    "markdown": {"markdown": Markdown("# It")},
    "image": {"image_url": "data:image/png;base64,"},
    "link": {"link": "http://127.0.0.1:4200", "link_text": "Prefect"},
    "table": {"table": [{"a": 1}]},
}


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_an_artifact_that_prefect_does_not_take_fails_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def down(**given: Any) -> None:
        asked.append(given["key"])
        raise ConnectionError("the Prefect server does not answer")

    for each in ("markdown", "image", "table"):
        monkeypatch.setattr(reports.prefect_artifacts, f"create_{each}_artifact", down)
    getattr(reports, f"create_{kind}_artifact")(key="it", **ARTIFACTS[kind])
    assert asked == ["it"]


def test_no_other_module_creates_artifacts_or_emits_events_without_a_guard() -> None:
    unguarded = set()
    for module, path in python_files().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "prefect.artifacts":
                unguarded.add(module)
    assert unguarded - ALLOWED == set(), "import them from tasks.shared.reports"
