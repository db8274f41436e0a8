"""What the guards said, for people: a sentence, and a table of all of them."""

from collections.abc import Sequence

from tasks.retraining.rules.facts import Asked, Said


def sentence(asked: Asked, refused: Sequence[Said]) -> str:
    """Return what comes of it: that it is retrained, or each guard in the way with its value and until when."""
    if not refused:
        return f"It is retrained because of {asked.because}"
    named = "; ".join(f"{each.guard}: {each.value} (needed: {each.limit}; not until {each.when})" for each in refused)
    return f"It is not retrained because of {asked.kind} of {asked.at:%Y-%m-%d}: {named}."


def table(model: str, asked: Asked, said: Sequence[Said]) -> str:
    """Return the page of a judgement as Markdown."""
    head = ["| guard | found | needed | not until |", "|---|---|---|---|"]
    rows = []
    for each in said:
        cells = ("✅ " if each.allows else "⛔ ") + each.guard, each.value, each.limit, each.when
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join([f"## May {model} be retrained by itself?", "", _cell(asked.because), "", *head, *rows]) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())
