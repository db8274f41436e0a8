"""What the guards said, for people: a sentence, and a table of all of them."""

from collections.abc import Sequence

from tasks.retraining.rules.facts import GuardResult, RetrainTrigger


def retrain_decision_sentence(trigger: RetrainTrigger, failed: Sequence[GuardResult]) -> str:
    """Return what comes of it: that it is retrained, or each guard in the way with its value and until when."""
    if not failed:
        return f"It is retrained because of {trigger.reason}"
    named = "; ".join(
        f"{each.guard}: {each.value} (needed: {each.limit}; not until {each.passes_text})" for each in failed
    )
    return f"It is not retrained because of {trigger.kind} of {trigger.raised_at:%Y-%m-%d}: {named}."


def guards_markdown(model: str, pending_approval: RetrainTrigger, results: Sequence[GuardResult]) -> str:
    """Return the page of a judgement as Markdown."""
    head = ["| guard | found | needed | not until |", "|---|---|---|---|"]
    rows = []
    for each in results:
        cells = ("✅ " if each.passed else "⛔ ") + each.guard, each.value, each.limit, each.passes_text
        rows.append(f"| {' | '.join(map(_markdown_cell, cells))} |")
    return (
        "\n".join(
            [f"## May {model} be retrained by itself?", "", _markdown_cell(pending_approval.reason), "", *head, *rows]
        )
        + "\n"
    )


def _markdown_cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())
