"""The words of a message: what happened, since when, who owns it, where to look and what to do."""

from collections.abc import Mapping
from datetime import datetime

from tasks.notification.rules.kinds import event_kind

SUBJECT_PREFIXES = {
    "news": "",
    "new": "",
    "worse": "graver now: ",
    "reminder": "still: ",
    "recovered": "over: ",
}


def message_subject(occasion: str, severity: str, event: str, model: str, environment: str) -> str:
    """Return one line such as "[critical] churn (local): still: the model cannot be watched"."""
    tag = "recovered" if occasion == "recovered" else severity
    return f"[{tag}] {model} ({environment}): {SUBJECT_PREFIXES[occasion]}{event_kind(event).title}"


def message_body(
    sentence: str, links: Mapping[str, str], *, owner: str, cause: str, since: datetime, occurrences: int, is_open: bool
) -> str:
    """Return the text: the sentence, the links, the owner, and how to acknowledge what lasts.

    Args:
        sentence: what happened, in one sentence.
        links: label and address, or a command to type.
        owner: who looks after the model.
        cause: the alert's name.
        since: when it opened, with a time zone.
        occurrences: how often it has been seen since then.
        is_open: whether it lasts.
    """
    lines = [sentence, ""]
    if is_open and occurrences > 1:
        lines.append(f"Seen {occurrences} times since {since:%Y-%m-%d %H:%M %Z}.")
    lines += [f"{label}: {target}" for label, target in links.items()]
    lines.append(f"owner: {owner}")
    if is_open:
        lines.append(f'acknowledge (no more reminders): make ack ALERT="{cause}" BY=you')
    return "\n".join(lines)
