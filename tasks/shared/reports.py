"""Reports: artifacts, notes, alerts and the registry's aliases say what was done, so their errors never fail it.

`only_reports` is the one way to do something after an effect. Artifacts are created by the functions of this module
alone, which show foreign text as text: Prefect's UI renders Markdown in descriptions, too.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import artifacts as prefect_artifacts
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from blocks.common.errors import TransientError
from runtime.foreign_text import Markdown, escape_markdown, markdown_link, one_line


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


def create_markdown_artifact(*, key: str, markdown: Markdown, description: str | Markdown = "") -> None:
    """Create a Markdown artifact of the flow run.

    Text that is not of the type `Markdown` is shown as it is, and never as links or images. So is the description.
    """
    with only_reports(f"the artifact {key!r}"):
        prefect_artifacts.create_markdown_artifact(
            key=key, markdown=escape_markdown(markdown), description=escape_markdown(description)
        )


def create_image_artifact(*, key: str, image_url: str, description: str | Markdown = "") -> None:
    """Create an artifact of the flow run that shows a PNG of ours, by its `data:` URL.

    Raises:
        ValueError: the URL is another: a page would fetch it.
    """
    if not image_url.startswith("data:image/png;base64,"):
        raise ValueError(f"the image of the artifact {key!r} is no PNG of ours; give its bytes to png_url")
    with only_reports(f"the artifact {key!r}"):
        prefect_artifacts.create_image_artifact(key=key, image_url=image_url, description=escape_markdown(description))


def create_link_artifact(*, key: str, link: str, link_text: str, description: str | Markdown = "") -> None:
    """Create an artifact of the flow run that is a link; an address that is not of http or https is shown as text."""
    with only_reports(f"the artifact {key!r}"):
        prefect_artifacts.create_markdown_artifact(
            key=key, markdown=markdown_link(link_text, link), description=escape_markdown(description)
        )


def create_table_artifact(*, key: str, table: Sequence[Mapping[str, object]], description: str | Markdown = "") -> None:
    """Create an artifact of the flow run that is a table, whose cells are plain text."""
    rows = [{one_line(name): one_line(value) for name, value in row.items()} for row in table]
    with only_reports(f"the artifact {key!r}"):
        prefect_artifacts.create_table_artifact(key=key, table=rows, description=escape_markdown(description))


def _has_retries_left() -> bool:
    """Whether this is a Prefect task that is run again after a transient error."""
    context = TaskRunContext.get()
    return context is not None and context.task_run.run_count <= context.task.retries


def _log() -> logging.Logger | logging.LoggerAdapter[Any]:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("ratchet.reports")
