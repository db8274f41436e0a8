"""Reports: artifacts, notes, alerts and the registry's aliases say what was done, so their errors never fail it.

`only_reports` is the one way to do something after an effect. Artifacts are created by the functions of this module,
which have the names and arguments of Prefect's own.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import artifacts as prefect_artifacts
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from blocks.common.errors import TransientError


@dataclass
class ReportResult:
    """Why a report was not written, in one line; "" when it was."""

    problem: str = ""


@contextmanager
def only_reports(what: str) -> Iterator[ReportResult]:
    """Run a block that only reports on what is done: an error of it is logged, and fails nothing.

    A transient error is raised as long as the Prefect task has retries left. So the caller has to be one that finds,
    when it is repeated, what it has done.

    Args:
        what: the report, for the log: "the report of the ingest".
    """
    result = ReportResult()
    try:
        yield result
    except Exception as problem:  # whatever it is, memory included: what is reported on is done
        if isinstance(problem, TransientError) and _has_retries_left():
            raise
        result.problem = " ".join(f"{type(problem).__name__}: {problem}".split())[:500]
        _log().warning("%s was not written, and what it is about is done: %s", what, result.problem)


def create_markdown_artifact(**given: Any) -> None:
    """Create a Markdown artifact of the flow run; see Prefect's function of this name."""
    with only_reports(f"the artifact {given.get('key')!r}"):
        prefect_artifacts.create_markdown_artifact(**given)


def create_image_artifact(**given: Any) -> None:
    """Create an artifact of the flow run that shows an image; see Prefect's function of this name."""
    with only_reports(f"the artifact {given.get('key')!r}"):
        prefect_artifacts.create_image_artifact(**given)


def create_link_artifact(**given: Any) -> None:
    """Create an artifact of the flow run that is a link; see Prefect's function of this name."""
    with only_reports(f"the artifact {given.get('key')!r}"):
        prefect_artifacts.create_link_artifact(**given)


def create_table_artifact(**given: Any) -> None:
    """Create an artifact of the flow run that is a table; see Prefect's function of this name."""
    with only_reports(f"the artifact {given.get('key')!r}"):
        prefect_artifacts.create_table_artifact(**given)


def _has_retries_left() -> bool:
    """Whether this is a Prefect task that is run again after a transient error."""
    context = TaskRunContext.get()
    return context is not None and context.task_run.run_count <= context.task.retries


def _log() -> logging.Logger | logging.LoggerAdapter[Any]:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("ratchet.reports")
