"""Backtests: the cut-offs before the holdout's, the holdout by hash that they are compared with, and their report."""

import json
import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from runtime.foreign_text import Markdown, markdown_table
from tasks.evaluation.rules.metrics import higher_is_better
from tasks.shared.rules.figures import BLUE, FAINT, GREY, RED, drawn_png
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.model.parts import ComparisonSpec
from tasks.shared.rules.rows.tiers import before_gap

_LEAST_SHARE, _LARGEST_SHARE = 0.0001, 0.5


@dataclass(frozen=True)
class Division:
    """A division of a tier's rows into training and holdout.

    Attributes:
        name: "0" for that of the tier, "1" for the cut-off before it, "2" for the one before that; "hash".
        rule: what the rows are divided by.
        cut_off: by time, from when on rows are in the holdout.
        until: by time, from when on they are no longer in it.
    """

    name: str
    rule: HoldoutRule
    cut_off: datetime | None = None
    until: datetime | None = None

    @property
    def words(self) -> str:
        """The division for people: the days of its holdout, or what its hash is of."""
        if self.cut_off is None or self.until is None:
            return f"{self.rule.share:g} of the {'groups' if self.rule.group else 'entities'}, by hash"
        return f"{_minute(self.cut_off)} to {_minute(self.until)}"


@dataclass(frozen=True)
class BacktestFigure:
    """What a model that was trained on one division showed on its holdout.

    Attributes:
        value: the metric of the comparison; None when there is none.
        problem: why there is none.
        failed: whether an error is why.
    """

    division: Division
    train_rows: int = 0
    rows: int = 0
    value: float | None = None
    problem: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Backtests:
    """The figures of all divisions.

    Attributes:
        terms: they say the metric, and the margin between time and hash that needs a note.
        evaluated: the figure of the version itself, on the holdout.
        windows: those of the earlier cut-offs, newest first.
        by_hash: that of the division by the hash of entities or groups.
    """

    terms: ComparisonSpec
    evaluated: BacktestFigure
    windows: tuple[BacktestFigure, ...]
    by_hash: BacktestFigure

    @property
    def figures(self) -> tuple[BacktestFigure, ...]:
        """All figures: by time from the oldest to the version's own, and by hash."""
        return (*reversed(self.windows), self.evaluated, self.by_hash)

    @property
    def note(self) -> str:
        """What the approvers should know: the loss by time, and which backtests failed; "" when there is neither."""
        failed = [each.division.words for each in self.figures if each.failed]
        failures = f"{len(failed)} of {len(self.windows) + 1} backtests failed: {'; '.join(failed)}." if failed else ""
        return " ".join(filter(None, (self.loss, failures)))

    @property
    def loss(self) -> str:
        """The note that the model loses more than the margin between hash and time; "" when it does not."""
        hashed, timed = self.by_hash.value, self.evaluated.value
        if hashed is None or timed is None:
            return ""
        metric, margin = self.terms.metric, self.terms.margin
        if (hashed - timed if higher_is_better(metric) else timed - hashed) <= margin:
            return ""
        of = "group" if self.by_hash.division.rule.group else "entity"
        return (
            f"{metric} {hashed:.4g} by {of} and {timed:.4g} by time, more than the margin of {margin:g} apart: the "
            f"model knows rows of the same time. For newer rows expect {timed:.4g}."
        )

    @property
    def conclusion(self) -> str:
        """The note of the loss, or why there is none."""
        if self.by_hash.value is None or self.evaluated.value is None:
            return "The figures by hash and by time cannot be compared: one of them is missing."
        return self.loss or f"By time the model loses no more than the margin of {self.terms.margin:g}."


def backtest_divisions(
    rule: HoldoutRule, cut_off: datetime, newest: datetime, count: int, holdout_share: float
) -> tuple[tuple[Division, ...], Division]:
    """Return the divisions to train: `count` windows before the cut-off, newest first, and one by hash.

    Each window is as long as the holdout, from its cut-off to its newest row, and has the gap of the rule before it. By
    hash, entities are divided (with group and time, groups): the rule's share of the groups, or as large a share of the
    entities as the holdout has of the rows.
    """
    ends = [cut_off]
    for _ in range(count):
        ends.append(before_gap(ends[-1], newest - cut_off))
    group_share = rule.share if rule.group else None
    rules = [replace(rule, since=since.isoformat(), share=group_share) for since in ends]
    windows = tuple(Division(str(n), rules[n], ends[n], ends[n - 1]) for n in range(1, count + 1))
    bounded = round(min(max(group_share or holdout_share, _LEAST_SHARE), _LARGEST_SHARE), 4)
    return windows, Division("hash", HoldoutRule("group" if rule.group else "entity", bounded, group=rule.group))


def few_rows_problem(train_rows: int, rows: int, minimum: int) -> str:
    """Return why a division is not trained: fewer than the minimum of rows on one side; "" when it is."""
    if min(train_rows, rows) >= minimum:
        return ""
    return f"skipped: {train_rows:,} rows to train and {rows:,} to measure; evaluation.minimum_rows is {minimum:,}"


def finite_or_problem(value: float) -> tuple[float | None, str]:
    """Return the value and no problem; for one that is not finite None and the problem."""
    return (value, "") if math.isfinite(value) else (None, "the rows do not define the metric")


def backtests_json(found: Backtests) -> str:
    """Return the figures as JSON."""
    figures = [
        {"holdout": each.division.words, "rule": each.division.rule.text, "train_rows": each.train_rows,
         "rows": each.rows, "value": each.value, "problem": each.problem}
        for each in found.figures
    ]  # fmt: skip
    return json.dumps({"metric": found.terms.metric, "note": found.note, "figures": figures}, ensure_ascii=False)


def backtests_markdown(found: Backtests, *, model: str, version: str) -> Markdown:
    """Return the report: the note, the figures by time from the oldest to the version's own, and the one by hash."""
    rows = [
        (
            each.division.words,
            "–" if each.value is None else f"{each.value:.4g}",
            f"{each.train_rows:,}",
            f"{each.rows:,}",
            each.problem or ("this version" if each is found.evaluated else ""),
        )
        for each in found.figures
    ]
    head = ("holdout", found.terms.metric, "rows to train", "rows to measure", "")
    parts = [
        Markdown("# Backtests: {} version {}").format(model, version),
        f"{'⚠️ ' if found.loss else ''}{found.conclusion}",
        markdown_table(head, rows, "lrrrl"),
        "The same program with the same parameters, trained again for each row. Backtests change no verdict.",
    ]
    return Markdown("\n\n").join(parts) + Markdown("\n")


def backtests_plot(found: Backtests) -> bytes:
    """Return a PNG: the metric by cut-off, oldest first; the metric by hash is a line, with the margin beside it."""
    timed = [(each, each.value) for each in found.figures[:-1] if each.value is not None]
    hashed, metric, margin = found.by_hash.value, found.terms.metric, found.terms.margin

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([value for _, value in timed], color=BLUE, marker="o", label="by time")
        own = [(place, value) for place, (each, value) in enumerate(timed) if each is found.evaluated]
        axes.plot(*zip(*own, strict=True), color=RED, marker="o", linestyle="", label="this version") if own else None
        if hashed is not None:
            edge = hashed - margin if higher_is_better(metric) else hashed + margin
            axes.axhline(hashed, color=GREY, linestyle="--", label="by hash")
            axes.axhspan(*sorted((edge, hashed)), color=FAINT, alpha=0.45, linewidth=0, label="margin")
        names = [each.division.words.partition(" to ")[0] for each, _ in timed]
        axes.set_xticks(range(len(timed)), names, rotation=30 if len(timed) > 6 else 0)
        axes.set(title="Backtests", xlabel="Cut-off", ylabel=metric)
        axes.legend(frameon=False, loc="best")

    return drawn_png(draw, (7, 3.9), font_size=9)


def _minute(at: datetime) -> str:
    """Return a time in UTC to the minute; at midnight the day alone."""
    return at.strftime("%Y-%m-%d" if (at.hour, at.minute) == (0, 0) else "%Y-%m-%d %H:%M")
