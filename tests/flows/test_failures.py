"""The log of a refused run: it says what is wrong, without a traceback."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.logging import get_logger

import flows  # noqa: F401 - what is tested is that importing any flow is enough
from blocks.common.errors import Rejected, Unavailable
from local.stack import Stack
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.support import outcome, run
from tests.waiting import wait_for

REFUSAL = Refusal("has no such column", where="file.csv, line 1", value="tenur", remedy="Did you mean tenure?")


class Lines(logging.Handler):
    """Keeps the lines that Prefect's handlers would send."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(params=["flow_runs", "task_runs", "engine"])
def logger(request: pytest.FixtureRequest) -> Iterator[tuple[logging.Logger, Lines]]:
    logger, lines = get_logger(request.param), Lines()
    others, logger.handlers = logger.handlers, [lines]  # Prefect's own would look for a server
    yield logger, lines
    logger.handlers = others


def logged(to: tuple[logging.Logger, Lines], error: Exception) -> str:
    try:
        raise error
    except type(error) as caught:
        to[0].exception("Encountered exception during execution: %r", caught)
    return "\n".join(to[1].lines)


@pytest.mark.parametrize("error", [REFUSAL, Rejected("s3://in: no right to read it.")], ids=["rule", "port"])
def test_a_refusal_is_its_sentence(logger: tuple[logging.Logger, Lines], error: Exception) -> None:
    assert logged(logger, error) == f"Encountered exception during execution: {error}"


@pytest.mark.parametrize("error", [ValueError("a mistake of ours"), Unavailable("busy")], ids=["ours", "transient"])
def test_other_errors_keep_their_traceback(logger: tuple[logging.Logger, Lines], error: Exception) -> None:
    assert "Traceback (most recent call last)" in logged(logger, error)


def whole_log(run: FlowRun) -> str:
    """Return a run's log, or nothing while its last line is missing: Prefect sends logs later than the state."""
    with get_client(sync_client=True) as client:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    text = "\n".join(log.message for log in logs)
    return text if "Finished in state" in text else ""


@pytest.mark.stack
@pytest.mark.slow
def test_the_log_of_a_refused_run_names_file_column_and_remedy(stack: Stack, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("customerID,tenur\na,1\n")
    refused = run("ingest/ingest", model="alpha", source=str(wrong))
    assert outcome(refused).startswith("Failed: ")
    text = wait_for(lambda: whole_log(refused), what="the last line of the log")
    assert "wrong.csv" in text
    assert "tenur" in text
    assert "Traceback" not in text
