"""Reports of a triggered run to the git host: the state of the commit, and a Markdown report for a comment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runtime.foreign_text import (
    Markdown,
    escape_markdown,
    markdown_block,
    markdown_code,
    markdown_link,
    markdown_table,
    one_line,
    without_links,
)
from services.gateway.rules.changes import RefChange
from tasks.shared.rules.run_outcomes import end_text, outcome_words

CommitState = Literal["pending", "success", "failure", "error"]

REPORT_ARTIFACTS = ("evaluation", "backtests", "validation", "rollback", "ingest", "experiment")
"""The artifacts of a run that belong into its report, in this order."""
MAX_COMMENT_LENGTH = 60_000
"""GitHub refuses a comment of more than 65,536 characters."""

_STATE_BY_OUTCOME: Mapping[str, CommitState] = {"held": "failure", "expired": "failure", "rejected": "failure"}
_STATE_BY_TYPE: Mapping[str, CommitState] = {
    "COMPLETED": "success",
    "FAILED": "failure",
    "CRASHED": "error",
    "CANCELLED": "error",
    "CANCELLING": "pending",
}


@dataclass(frozen=True)
class RunReport:
    """A flow run as it stands: Prefect's type and name of its state, and what there is to read about it.

    `outcome` is what the run came to, by its tag: "held"; "" while it runs, or when it has none.
    """

    run_id: str
    url: str
    deployment: str
    rule_name: str
    state_type: str
    state_name: str
    message: str
    parameters: Mapping[str, object]
    artifacts: Mapping[str, str]
    outcome: str = ""

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.state_type in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def commit_state(view: RunReport) -> CommitState:
    """Return the state for the commit: held, expired and rejected are failures.

    Inconclusive is none, and neither is not promotable: the tier was a sample, measured and never to be promoted.
    """
    if not view.ended:
        return "pending"
    return _STATE_BY_OUTCOME.get(view.outcome) or _STATE_BY_TYPE.get(view.state_type, "error")


def status_line(view: RunReport) -> str:
    """Return the state in at most 140 characters, as GitHub takes them; verdict and reasons are in the message."""
    if view.state_name == "Suspended":
        return without_links(f"{view.rule_name}: waits for approval")[:140]
    words = end_text(view.outcome, view.state_name, view.message if view.ended else "")
    return without_links(f"{view.rule_name}: {words}")[:140]


def run_markdown(change: RefChange, view: RunReport) -> str:
    """Return the report: what changed, how it ended, then data, metrics against the champion, verdict."""
    signs = {"success": "✅", "failure": "⛔", "error": "💥", "pending": "⏳"}
    verdict = outcome_words(view.outcome) or view.state_name
    commit = Markdown("{} ({} on {} by {})").format(
        markdown_code(change.commit), change.kind, markdown_code(change.ref), change.author
    )
    run = Markdown("{} {}").format(markdown_link(view.deployment, view.url), markdown_code(view.run_id))
    values = [(_short(name), markdown_code(_short(value))) for name, value in sorted(view.parameters.items())
              if value not in (None, "", {})]  # fmt: skip
    head = [
        Markdown("# {} {}: {}").format(signs[commit_state(view)], view.rule_name, verdict),
        escape_markdown(_short(view.message, 500)),
        markdown_table(("", ""), [("commit", commit), ("run", run), *values]),
    ]
    parts: list[str] = []
    for key in REPORT_ARTIFACTS:  # as code: whoever may write to Prefect's API could have written them
        if key in view.artifacts:
            parts += [f"## {key}", markdown_block(view.artifacts[key].strip())]
    if not parts and view.ended:
        parts = ["This run has no report of data or metrics: it ended before it wrote one."]
    report = _without_mentions("\n\n".join(part.strip() for part in [*head, *parts] if part.strip()) + "\n")
    if len(report) <= MAX_COMMENT_LENGTH:
        return report
    return f"{report[:MAX_COMMENT_LENGTH]}\n\n… see the run's artifacts for the rest.\n"


def _short(value: object, most: int = 200) -> str:
    return one_line(value, most)


def _without_mentions(report: str) -> str:
    """Return the report with U+200B behind each escaped "@": git hosts look for names to mention in what is shown."""
    return report.replace("&#64;", "&#64;&#8203;")
