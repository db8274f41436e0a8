"""What a flow run comes to beside Prefect's own state: the outcome, its tag, and what the run is called in the end.

Prefect's UI filters runs by a fixed list of state names, so a run ends in one of Prefect's states. The outcome
stands in the state's message, in the run's name, and for programs in a tag: `outcome:held`.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from runtime.foreign_text import one_line

Outcome = Literal[
    "deployed",
    "held",
    "inconclusive",
    "rejected",
    "expired",
    "not_promotable",
    "rolled_back",
    "no_drift",
    "drift",
    "degraded",
    "not_checked",
    "off",
    "started",
    "refused",
    "delivered",
    "undelivered",
    "nothing_deployed",
    "reproduced",
    "not_reproduced",
    "planned",
    "removed",
]
StateType = Literal["COMPLETED", "FAILED", "CANCELLED"]

STATE_TYPES: Mapping[str, StateType] = {
    "rejected": "CANCELLED",
    "not_checked": "FAILED",
    "not_reproduced": "FAILED",
}
"""The type of Prefect's state that a run ends in, where it is not COMPLETED."""

TAG_PREFIX = "outcome:"
MINUS = "\N{MINUS SIGN}"


def outcome_tags(tags: Iterable[str], outcome: Outcome) -> list[str]:
    """Return a run's tags with that of the outcome, and without that of an earlier attempt."""
    return [*(tag for tag in tags if not tag.startswith(TAG_PREFIX)), f"{TAG_PREFIX}{outcome}"]


def outcome_of(tags: Iterable[str], state_type: str) -> str:
    """Return the outcome of a run by its tags, or "" when it has none.

    A run that was retried and failed bears the tag of the earlier attempt: an outcome counts only in a run whose
    state is of the type that the outcome ends in.
    """
    for tag in tags:
        outcome = tag.removeprefix(TAG_PREFIX)
        if tag.startswith(TAG_PREFIX) and STATE_TYPES.get(outcome, "COMPLETED") == state_type:
            return outcome
    return ""


def outcome_words(outcome: str) -> str:
    """Return an outcome as people read it: "rolled back"."""
    return outcome.replace("_", " ")


def outcome_message(outcome: Outcome, text: str) -> str:
    """Return the message of the state that a run ends in; it begins with the outcome, once: "Held: auc is ..."."""
    words, text = outcome_words(outcome).capitalize(), one_line(text)
    return text if text.startswith((f"{words}: ", f"{words} ")) else f"{words}: {text}"


def end_text(outcome: str, state_name: str, message: str) -> str:
    """Return how a run ended, in one line. The message says it by itself where the run has an outcome."""
    if outcome and message:
        return message
    return f"{state_name}: {message}" if message else state_name


def run_name(*parts: str) -> str:
    """Return the name of a flow run that has ended, such as "churn · drift"; empty parts are left out."""
    return " · ".join(one_line(part) for part in parts if part)


def versioned(model: str, version: str) -> str:
    """Return model and version as they stand in a run's name: "churn v4"."""
    return f"{model} v{version}"


def metric_text(metric: str, challenger: Mapping[str, float], champion: Mapping[str, float]) -> str:
    """Return the deciding metric with its difference to the champion, "auc 0.795 (−0.061)"; "" when not measured."""
    if metric not in challenger:
        return ""
    value = challenger[metric]
    text = f"{metric} {_signed(value, '.3f')}"
    return f"{text} ({_signed(value - champion[metric], '+.3f')})" if metric in champion else text


def _signed(value: float, form: str) -> str:
    return format(value, form).replace("-", MINUS)
