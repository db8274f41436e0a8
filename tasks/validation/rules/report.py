"""The report of a validation, and its Markdown."""

from dataclasses import dataclass, field

from runtime.foreign_text import Markdown, markdown_code, markdown_table, one_line

MAX_CELL_LENGTH = 300
"""The most characters of one cell that are shown."""


@dataclass(frozen=True)
class ExpectationResult:
    """The result of one expectation.

    `expectation` is Great Expectations' type, `column` the column or columns it names, `kwargs` its other
    arguments as text. `unexpected_percent` (0 to 100) is a share of the values evaluated. `examples` holds up
    to five (entity key, value) of rows that violate it; the key is "" when a value does not belong to one row.
    """

    expectation: str
    column: str
    kwargs: str
    passed: bool
    observed: str = ""
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    examples: tuple[tuple[str, str], ...] = ()
    reason: str = ""

    @property
    def name(self) -> str:
        """The expectation with its column, for a message."""
        return f"{self.expectation}({self.column})"


@dataclass(frozen=True)
class ValidationReport:
    """The result of a suite. `passed` and `reasons` are computed from the other fields and cannot be set.

    `expected` is how many expectations the suite holds, `rows` how many rows the table had, `left_out` a sentence
    about expectations that say nothing about so few rows.
    """

    suite: str
    rows: int
    minimum_rows: int
    expected: int
    results: tuple[ExpectationResult, ...]
    left_out: str = ""
    reasons: tuple[str, ...] = field(init=False)
    passed: bool = field(init=False)

    def __post_init__(self) -> None:
        reasons = [*self._table_reasons(), *(f"{r.name}: {r.reason}" for r in self.results if not _passed(r))]
        object.__setattr__(self, "reasons", tuple(reasons))
        object.__setattr__(self, "passed", not reasons)

    def _table_reasons(self) -> list[str]:
        reasons = []
        if self.rows < max(self.minimum_rows, 1):
            reasons.append(f"the table has {self.rows:,} rows, at least {max(self.minimum_rows, 1):,} are needed")
        if self.expected < 1:
            reasons.append("the suite holds no expectation, so nothing was checked")
        if len(self.results) != self.expected:
            reasons.append(f"{len(self.results)} of {self.expected} expectations have a result")
        return reasons


def _passed(result: ExpectationResult) -> bool:
    return result.passed is True and not result.reason


def validation_markdown(report: ValidationReport) -> Markdown:
    """Return the report as GitHub Markdown: verdict, reasons, then a line for each expectation."""
    failed = sum(not _passed(result) for result in report.results)
    verdict = "✅ passed" if report.passed else "❌ refused"
    lines = [
        Markdown("# Checks {}: {}").format(markdown_code(report.suite), verdict),
        "",
        f"{report.rows:,} rows (at least {report.minimum_rows:,} needed), "
        f"{report.expected - failed} of {report.expected} expectations hold.",
        *(["", report.left_out] if report.left_out else []),
        "",
    ]
    if report.reasons:
        reasons = (Markdown("- {}").format(one_line(reason, MAX_CELL_LENGTH)) for reason in report.reasons)
        lines += [Markdown("**Why it is refused**"), "", *reasons, ""]
    if report.results:
        head = ("", "expectation", "column", "expected", "observed", "unexpected", "examples (key: value)")
        lines += [markdown_table(head, map(_row, sorted(report.results, key=_passed))), ""]
    return Markdown("\n").join(lines)


def _row(result: ExpectationResult) -> list[str]:
    unexpected = "" if result.unexpected_count is None else f"{result.unexpected_count:,}"
    if result.unexpected_count and result.unexpected_percent is not None:
        unexpected += f" ({result.unexpected_percent:.3g} %)"
    examples = "; ".join(f"{key}: {value}" if key else value for key, value in result.examples)
    cells = (result.expectation, result.column, result.kwargs, result.observed, unexpected, examples)
    return ["✅" if _passed(result) else "❌", *(one_line(cell, MAX_CELL_LENGTH) for cell in cells)]
