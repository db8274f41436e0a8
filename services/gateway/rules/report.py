"""What is told back about a run that a change started: a state for the commit, and a report to put under it."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from services.gateway.rules.changes import RefChange

CommitState = Literal["pending", "success", "failure", "error"]

REPORT_ARTIFACTS = ("evaluation", "checks", "rollback", "ingest", "experiment")
"""The artifacts of a run that belong into its report, in this order."""
MAX_COMMENT_LENGTH = 60_000
"""GitHub refuses a comment of more than 65,536 characters."""

_STATE_BY_NAME: Mapping[str, CommitState] = {
    "Deployed": "success",
    "RolledBack": "success",
    "Refused": "success",
    "Inconclusive": "success",
    "Held": "failure",
    "Rejected": "failure",
}
_STATE_BY_TYPE: Mapping[str, CommitState] = {
    "COMPLETED": "success",
    "FAILED": "failure",
    "CRASHED": "error",
    "CANCELLED": "error",
    "CANCELLING": "pending",
}


@dataclass(frozen=True)
class RunReport:
    """A flow run as it stands: Prefect's type and name of its state, and what there is to read about it."""

    run_id: str
    url: str
    deployment: str
    rule_name: str
    state_type: str
    state_name: str
    message: str
    parameters: Mapping[str, object]
    artifacts: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.state_type in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def commit_state(view: RunReport) -> CommitState:
    """Return the state for the commit: Held and Rejected are failures; Inconclusive and Refused are none.

    Refused means that the tier was a sample: measured, and never to be promoted.
    """
    if not view.ended:
        return "pending"
    return _STATE_BY_NAME.get(view.state_name) or _STATE_BY_TYPE.get(view.state_type, "error")


def status_line(view: RunReport) -> str:
    """Return the state in at most 140 characters, as GitHub takes them; verdict and reasons are in the message."""
    if view.state_name == "Suspended":
        return f"{view.rule_name}: waits for approval"[:140]
    words = f"{view.rule_name}: {view.state_name}" + (f". {view.message}" if view.ended and view.message else "")
    return " ".join(words.split())[:140]


def run_markdown(change: RefChange, view: RunReport) -> str:
    """Return the report: what changed, how it ended, then data, metrics against the champion, verdict."""
    signs = {"success": "✅", "failure": "⛔", "error": "💥", "pending": "⏳"}
    head = [
        f"# {signs[commit_state(view)]} {_text(view.rule_name)}: {_text(view.state_name)}",
        _text(view.message) if view.message else "",
        "\n".join(
            [
                "| | |",
                "|:--|:--|",
                f"| commit | `{change.commit}` ({change.kind} on `{_code(change.ref)}` by {_text(change.author)}) |",
                f"| run | [{_text(view.deployment)}]({view.url}) `{view.run_id}` |",
                *(f"| {_text(name)} | `{_code(str(value))}` |" for name, value in sorted(view.parameters.items())
                  if value not in (None, "", {})),
            ]
        ),
    ]  # fmt: skip
    parts = [_lower_headings(view.artifacts[key]) for key in REPORT_ARTIFACTS if key in view.artifacts]
    if not parts and view.ended:
        parts = ["This run left no report of data or metrics: it ended before there was one."]
    whole = "\n\n".join(part.strip() for part in [*head, *parts] if part.strip()) + "\n"
    if len(whole) <= MAX_COMMENT_LENGTH:
        return whole
    return f"{whole[:MAX_COMMENT_LENGTH]}\n\n… the rest is among the run's artifacts.\n"


def _lower_headings(markdown: str) -> str:
    """Return a report one level of headings lower, so that it stands below ours."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in markdown.splitlines())


def _text(value: str) -> str:
    """Return text that is shown as it stands: it makes no markup, mentions nobody and breaks no table."""
    flat = html.escape(" ".join(value.split())[:500], quote=False)
    for sign in "\\`*_[]~#!|":
        flat = flat.replace(sign, f"\\{sign}")
    return flat.replace("://", "&#58;//").replace("@", "&#64;")


def _code(value: str) -> str:
    return " ".join(value.split())[:200].replace("`", "'").replace("|", "/")
