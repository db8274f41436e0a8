"""The report of a validation: the verdict first; nothing in the data can change its format."""

from typing import Any

import pytest

from tasks.validation.rules.report import ExpectationResult, ValidationReport, validation_markdown


def result(**changes: Any) -> ExpectationResult:
    given = {"expectation": "expect_x", "column": "tenure", "kwargs": "min_value=0", "passed": True}
    return ExpectationResult(**{**given, **changes})


def report(*results: ExpectationResult, rows: int = 7043, expected: int | None = None) -> ValidationReport:
    return ValidationReport("churn", rows, 50, len(results) if expected is None else expected, results)


def test_a_passed_check_says_so_first_with_its_numbers() -> None:
    lines = validation_markdown(report(result(), result(column="contract"))).splitlines()
    assert lines[0] == "# Checks `churn`: ✅ passed"
    assert lines[2] == "7,043 rows (at least 50 needed), 2 of 2 expectations hold."
    assert "refused" not in "\n".join(lines)


def test_a_refused_check_gives_its_reasons_and_lists_failures_first() -> None:
    failed = result(
        passed=False, reason="2 of 9 values are unexpected", observed="9 values", unexpected_count=2,
        unexpected_percent=22.2222, examples=(("C17", "-5"), ("C18", "-6")), column="charges",
    )  # fmt: skip
    lines = validation_markdown(report(result(), failed)).splitlines()
    assert lines[0] == "# Checks `churn`: ❌ refused"
    assert "- expect_x(charges): 2 of 9 values are unexpected" in lines
    rows = [line for line in lines if line.startswith("| ✅") or line.startswith("| ❌")]
    assert rows[0] == "| ❌ | expect_x | charges | min_value=0 | 9 values | 2 (22.2 %) | C17: -5; C18: -6 |"
    assert rows[1].startswith("| ✅ | expect_x | tenure")


@pytest.mark.parametrize(
    "nasty",
    ["a|b", "<script>alert(1)</script>", "two\nlines", "`code`", "[link](x)", "http://x", "@team", "![i](x)", "\\|", "# head", "x" * 9_000],
    ids=["pipe", "html", "newline", "code", "link", "address", "mention", "image", "escaped pipe", "heading", "long"],
)  # fmt: skip
def test_whatever_is_in_the_data_stays_in_its_cell(nasty: str) -> None:
    failed = result(passed=False, reason=nasty, observed=nasty, kwargs=nasty, column=nasty, examples=((nasty, nasty),))
    rows = [line for line in validation_markdown(report(failed)).splitlines() if line.startswith("| ❌")]
    assert len(rows) == 1
    assert rows[0].count("|") == 8
    for raw in ("<script", " [link", "http://", " !", " @team"):
        assert raw not in rows[0]
    assert len(rows[0]) < 2_500


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (report(rows=100), "holds no expectation"),
        (report(result(), rows=0), "0 rows"),
        (report(result(), rows=49), "49 rows, at least 50"),
        (report(result(), expected=2), "1 of 2 expectations have a result"),
        (report(result(passed=False)), "expect_x(tenure)"),
        (report(result(reason="it says why and yet passes")), "yet passes"),
        (report(result(passed=None)), "expect_x(tenure)"),
    ],
    ids=["nothing expected", "no rows", "few rows", "a result missing", "failed", "contradictory", "no verdict"],
)
def test_what_is_not_wholly_good_is_refused(broken: ValidationReport, words: str) -> None:
    assert not broken.passed and broken.reasons
    shown = validation_markdown(broken)
    assert "refused" in shown and words in shown
