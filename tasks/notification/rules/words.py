"""The words of a message: what happened, since when, who owns it, where to look and what to do."""

from collections.abc import Mapping
from datetime import datetime

from tasks.notification.rules.kinds import kind_of

OPENINGS = {
    "news": "",
    "new": "",
    "worse": "graver now: ",
    "reminder": "still: ",
    "recovered": "over: ",
}


def subject(occasion: str, severity: str, event: str, model: str, environment: str) -> str:
    """Return one line such as "[critical] churn (local): still: the model cannot be watched"."""
    tag = "recovered" if occasion == "recovered" else severity
    return f"[{tag}] {model} ({environment}): {OPENINGS[occasion]}{kind_of(event).title}"


def body(
    sentence: str, links: Mapping[str, str], *, owner: str, cause: str, since: datetime, seen: int, open_: bool
) -> str:
    """Return the text: the sentence, the links, the owner, and how to acknowledge what lasts.

    Args:
        sentence: what happened, in one sentence.
        links: label and address, or a command to type.
        owner: who looks after the model.
        cause: the alert's name.
        since: when it opened, with a time zone.
        seen: how often it has been seen since then.
        open_: whether it lasts.
    """
    lines = [sentence, ""]
    if open_ and seen > 1:
        lines.append(f"Seen {seen} times since {since:%Y-%m-%d %H:%M %Z}.")
    lines += [f"{label}: {target}" for label, target in links.items()]
    lines.append(f"owner: {owner}")
    if open_:
        lines.append(f'acknowledge (no more reminders): make ack ALERT="{cause}" BY=you')
    return "\n".join(lines)
