"""The price table: dated and parsed strictly; an unknown item is refused, not free."""

from datetime import timedelta

import pytest

from tasks.shared.cost import PRICE_TABLE_PATH, read_prices
from tasks.shared.rules.cost.prices import hourly_price, parse_prices, prices_yaml
from tasks.shared.rules.refusal import Refusal
from tests.checkout import ROOT
from tests.fixtures.price_table import TABLE, TODAY

TEXT = prices_yaml(TABLE)


def test_the_table_of_the_checkout_is_read() -> None:
    table = read_prices()
    assert table.regions and all(prices.training for prices in table.regions.values())
    assert parse_prices(prices_yaml(table), "prices.yaml") == table


def test_a_price_is_found_by_use_region_and_type() -> None:
    assert hourly_price(TABLE, "training", "eu-central-1", "ml.m5.large", TODAY) == 0.138
    assert hourly_price(TABLE, "hosting", "eu-central-1", "ml.m5.large", TODAY) == 0.1


@pytest.mark.parametrize(
    ("use", "region", "kind", "told"),
    [
        ("training", "eu-central-1", "ml.m5.larg", r"'ml\.m5\.larg'.*Did you mean `ml\.m5\.large`.*make prices"),
        ("hosting", "eu-central-1", "ml.m5.xlarge", r"for hosting in eu-central-1"),
        ("training", "us-east-1", "ml.m5.large", r"'us-east-1'.*make prices REGION=us-east-1.*eu-central-1"),
        ("training", "", "ml.m5.large", r"no prices for this region"),
    ],
    ids=["unknown type", "price of another use", "unknown region", "no region"],
)
def test_what_has_no_price_is_refused_with_the_remedy(use: str, region: str, kind: str, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        hourly_price(TABLE, use, region, kind, TODAY)


@pytest.mark.parametrize(("days", "believed"), [(-2, False), (0, True), (90, True), (91, False)])
def test_prices_are_believed_for_a_time(days: int, believed: bool) -> None:
    today = TODAY + timedelta(days=days)
    if believed:
        assert hourly_price(TABLE, "training", "eu-central-1", "ml.m5.large", today)
        return
    with pytest.raises(Refusal, match=rf"{days} days old.*'2026-11-25'.*make prices"):
        hourly_price(TABLE, "training", "eu-central-1", "ml.m5.large", today)


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ("currency: USD", "currency: EUR", "currency"),
        ("0.138", "0.0", "greater than 0"),
        ("0.138", ".nan", "finite"),
        ("0.138", '"0.138"', "quotes"),
        ("'2026-11-25'", "'25.11.2026'", "is not a date"),
        ("'2026-11-25'", "'20261125'", "is not a date"),
        ("ml.m5.xlarge: ", "ml.m5.large: ", "first in line"),
        ("source: a test", "sauce: a test", "Did you mean `source`"),
    ],
)
def test_a_table_is_read_strictly(written: str, instead: str, told: str) -> None:
    assert written in TEXT
    with pytest.raises(Refusal, match=told):
        parse_prices(TEXT.replace(written, instead, 1), "prices.yaml")


def test_the_table_lies_beside_its_reader() -> None:
    assert PRICE_TABLE_PATH.parent == ROOT / "tasks" / "shared" / "rules" / "cost"
