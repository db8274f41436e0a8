"""The price table: dated, in one currency, read strictly. Work without a price in it is refused."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field

from tasks.shared.rules.model.strict_record import StrictRecord, did_you_mean, parse_record, validation_error
from tasks.shared.rules.model.types import OneLineText
from tasks.shared.rules.refusal import Refusal

InstanceUse = Literal["training", "hosting", "transform"]
"""The use of an instance: SageMaker has a price for each."""

REFRESH_REMEDY = "Refresh the table: make prices REGION={region}."


def _iso_date(text: str) -> str:
    try:
        written = date.fromisoformat(text).isoformat()
    except ValueError:
        written = ""
    if written != text:
        raise validation_error("is not a date", 'Write one as "2026-11-25".')
    return text


HourlyPrice = Annotated[float, Field(gt=0, le=1000)]


class RegionPrices(StrictRecord):
    """What an hour of one instance costs in a region, by instance type."""

    training: dict[OneLineText, HourlyPrice] = Field(
        default={}, description="Of a training job, such as ml.m5.xlarge: 0.23"
    )
    hosting: dict[OneLineText, HourlyPrice] = Field(default={}, description="Of an endpoint")
    transform: dict[OneLineText, HourlyPrice] = Field(default={}, description="Of a batch transform job")


class PriceTable(StrictRecord):
    """The prices of a day."""

    currency: Literal["USD"] = Field(description="The currency of every price and budget")
    date: Annotated[str, AfterValidator(_iso_date)] = Field(description="The day on which the prices were read")
    valid_days: int = Field(ge=1, le=366, description="Days for which they are valid")
    source: OneLineText = Field(description="Where they are from")
    regions: dict[OneLineText, RegionPrices] = Field(min_length=1, description="Prices by region")


def parse_prices(text: str | bytes, where: str) -> PriceTable:
    """Read a price table. Raises Mistakes (a Refusal) with every mistake: line, key, value, remedy."""
    return parse_record(PriceTable, text, where)


def hourly_price(price_table: PriceTable, use: InstanceUse, region: str, instance_type: str, today: date) -> float:
    """Return what an hour of one instance costs, in US dollars.

    Raises:
        Refusal: the table is too old or dated in the future, or it has no such region or type: an unknown price is
            not zero.
    """
    _refuse_stale_prices(price_table, region, today)
    remedy = REFRESH_REMEDY.format(region=region or "…")
    if region not in price_table.regions:
        known = ", ".join(sorted(price_table.regions))
        raise Refusal(
            "there are no prices for this region", where="price table", value=region, remedy=f"{remedy} Known: {known}."
        )
    known_types: Mapping[str, float] = getattr(price_table.regions[region], use)
    if instance_type not in known_types:
        problem = f"there is no price for this instance type for {use} in {region}, so the work is not started"
        raise Refusal(problem, where="price table", value=instance_type,
                      remedy=f"{did_you_mean(instance_type, known_types)} {remedy}".strip())  # fmt: skip
    return known_types[instance_type]


def _refuse_stale_prices(price_table: PriceTable, region: str, today: date) -> None:
    age = (today - date.fromisoformat(price_table.date)).days
    if not -1 <= age <= price_table.valid_days:  # one day in the future: another time zone
        problem = f"the prices are {age} days old, and valid for {price_table.valid_days}"
        raise Refusal(
            problem, where="price table", value=price_table.date, remedy=REFRESH_REMEDY.format(region=region or "…")
        )


def prices_yaml(price_table: PriceTable) -> str:
    """Return the table as YAML, types in order. `parse_prices` reads it back as the same table."""
    plain = price_table.model_dump()
    plain["regions"] = {
        region: {use: dict(sorted(prices.items())) for use, prices in parts.items() if prices}
        for region, parts in sorted(plain["regions"].items())
    }
    return yaml.safe_dump(plain, sort_keys=False, width=120, allow_unicode=True)
