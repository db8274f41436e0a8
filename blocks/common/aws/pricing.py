"""On-demand prices of SageMaker instances in a region, from the AWS Pricing API.

Written from the service's API model and from public code that reads it. It was never run on a real account.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blocks.common.aws.clients import aws_client, port_errors
from blocks.common.errors import NotFound, Rejected

PRICING_REGION = "us-east-1"
"""The Pricing API exists in a few regions only; this one returns the prices of all regions."""
COMPONENTS = {
    "Training": "training", "Hosting": "hosting", "Batch Transform": "transform", "BatchTransform": "transform",
}  # fmt: skip
"""Use (as in our price table) by the component's name in the price list. "BatchTransform" is a guess."""
REQUIRED_USES = ("training", "hosting")
"""Uses that must have prices. Without a price for batch transform, batch transform is not used."""
HOUR_UNITS = {"Hrs", "hrs", "Hours", "Hour"}


def fetch_prices(region: str, client: Any = None) -> dict[str, dict[str, float]]:
    """Return US dollars per hour by use ("training", "hosting", "transform") and instance type.

    If the list has several prices for one type, the highest counts, since the worst case is computed from it.

    Args:
        region: region code such as "eu-central-1".
        client: boto3's `pricing` client; None: one with the machine's credentials.

    Raises:
        NotFound: the service has no price of an instance in this region.
        Rejected: the response has another form than documented, or the service refused the request.
        Unavailable: the service did not respond.
    """
    prices_by_use: dict[str, dict[str, float]] = {use: {} for use in REQUIRED_USES}
    client = client or aws_client("pricing", PRICING_REGION, None)
    for use, instance_type, usd in _prices(_products(region, client)):
        prices = prices_by_use.setdefault(use, {})
        prices[instance_type] = max(usd, prices.get(instance_type, 0.0))
    if empty := [use for use in REQUIRED_USES if not prices_by_use[use]]:
        problem = f"the Pricing API has no price for {' and '.join(empty)} of AmazonSageMaker in {region!r}"
        raise NotFound(f"{problem}; is that a region's code, such as eu-central-1?")
    return prices_by_use


def _products(region: str, client: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every product of the region's ML instances, all pages."""
    filters = {"regionCode": region, "productFamily": "ML Instance"}
    query = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()]
    pages = client.get_paginator("get_products")
    with port_errors(f"reading the prices of {region} from the Pricing API"):
        for page in pages.paginate(ServiceCode="AmazonSageMaker", Filters=query, FormatVersion="aws_v1"):
            for text in page["PriceList"]:
                try:
                    yield dict(json.loads(text))
                except (ValueError, TypeError) as cause:
                    raise Rejected(f"the Pricing API returned something that is not a product: {cause}") from cause


def _prices(products: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """Yield use, instance type and price of each on-demand term."""
    for product in products:
        try:
            attributes = product["product"]["attributes"]
            use, instance_type = COMPONENTS.get(attributes.get("component", "")), attributes.get("instanceName", "")
            if use is None or not instance_type.startswith("ml."):
                continue
            for term in product["terms"].get("OnDemand", {}).values():
                for rate in term["priceDimensions"].values():
                    if (usd := _hourly(rate, instance_type)) > 0:
                        yield use, instance_type, usd
        except (KeyError, AttributeError) as cause:
            raise Rejected(f"the Pricing API's product has no {cause}: {json.dumps(product)[:300]}") from cause


def _hourly(rate: Mapping[str, Any], instance_type: str) -> float:
    """Return the rate in US dollars per hour; 0 is not a price, and the caller skips it.

    Raises:
        Rejected: the rate has another unit or currency, or is not a number, and cannot be compared with budgets.
    """
    unit, money = rate["unit"], rate["pricePerUnit"]
    if unit not in HOUR_UNITS or "USD" not in money:
        raise Rejected(
            f"the Pricing API has {instance_type} in {unit} and {sorted(money)}, not in hours and US dollars"
        )
    try:
        usd = float(money["USD"])
    except ValueError:
        usd = math.nan
    if not (math.isfinite(usd) and usd >= 0):
        raise Rejected(f"the Pricing API has {instance_type} at {money['USD']!r} an hour, which is not a price")
    return usd
