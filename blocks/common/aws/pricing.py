"""The AWS Pricing API: what an hour of each SageMaker instance costs on demand in a region.

Written from the service's own model and from public code that reads it. It was never run on a real account.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blocks.common.errors import NotFound, Rejected, Unavailable

PRICING_REGION = "us-east-1"
"""The Pricing API answers in a few regions only; this one knows the prices of all."""
COMPONENTS = {
    "Training": "training", "Hosting": "hosting", "Batch Transform": "transform", "BatchTransform": "transform",
}  # fmt: skip
"""What the price list calls a component (or may, for the last: no source here is certain), and what the table does."""
REQUIRED_USES = ("training", "hosting")
"""Uses without which a table is none; where batch transform has no price, it is not used."""
HOUR_UNITS = {"Hrs", "hrs", "Hours", "Hour"}


def fetch_prices(region: str, client: Any = None) -> dict[str, dict[str, float]]:
    """Return US dollars an hour by use ("training", "hosting", "transform") and instance type.

    Where the list has several prices for one type, the highest is taken: it is for a worst case.

    Args:
        region: such as "eu-central-1".
        client: boto3's `pricing` client; one is made from the machine's credentials when there is none.

    Raises:
        NotFound: the service knows no price of an instance there.
        Rejected: its answer has another form than documented, or it refused the request.
        Unavailable: it did not answer.
    """
    found: dict[str, dict[str, float]] = {use: {} for use in REQUIRED_USES}
    for use, kind, usd in _prices(_products(region, client or _client())):
        prices = found.setdefault(use, {})
        prices[kind] = max(usd, prices.get(kind, 0.0))
    if empty := [use for use in REQUIRED_USES if not found[use]]:
        problem = f"the Pricing API has no price for {' and '.join(empty)} of AmazonSageMaker in {region!r}"
        raise NotFound(f"{problem}; is that a region's code, such as eu-central-1?")
    return found


def _client() -> Any:
    import boto3

    return boto3.client("pricing", region_name=PRICING_REGION)


def _products(region: str, client: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every product of the region's ML instances, all pages."""
    from botocore.exceptions import BotoCoreError, ClientError

    filters = {"regionCode": region, "productFamily": "ML Instance"}
    query = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()]
    pages = client.get_paginator("get_products")
    try:
        for page in pages.paginate(ServiceCode="AmazonSageMaker", Filters=query, FormatVersion="aws_v1"):
            for text in page["PriceList"]:
                yield dict(json.loads(text))
    except ClientError as cause:
        raise Rejected(f"the Pricing API refused GetProducts for {region}: {cause}") from cause
    except BotoCoreError as cause:
        raise Unavailable(f"the Pricing API did not answer GetProducts for {region}: {cause}") from cause
    except (ValueError, TypeError) as cause:
        raise Rejected(f"the Pricing API answered with what is no product: {cause}") from cause


def _prices(products: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """Yield use, instance type and price of each on-demand term."""
    for product in products:
        try:
            attributes = product["product"]["attributes"]
            use, kind = COMPONENTS.get(attributes.get("component", "")), attributes.get("instanceName", "")
            if use is None or not kind.startswith("ml."):
                continue
            for term in product["terms"].get("OnDemand", {}).values():
                for rate in term["priceDimensions"].values():
                    if (usd := _hourly(rate, kind)) > 0:
                        yield use, kind, usd
        except (KeyError, AttributeError) as cause:
            raise Rejected(f"the Pricing API's product has no {cause}: {json.dumps(product)[:300]}") from cause


def _hourly(rate: Mapping[str, Any], kind: str) -> float:
    """Return the rate in US dollars an hour; 0 is not a price, and is passed over.

    Raises:
        Rejected: it is in another unit or currency, or no number: it would be compared with budgets in dollars.
    """
    unit, money = rate["unit"], rate["pricePerUnit"]
    if unit not in HOUR_UNITS or "USD" not in money:
        raise Rejected(f"the Pricing API has {kind} in {unit} and {sorted(money)}, not in hours and US dollars")
    try:
        usd = float(money["USD"])
    except ValueError:
        usd = math.nan
    if not (math.isfinite(usd) and usd >= 0):
        raise Rejected(f"the Pricing API has {kind} at {money['USD']!r} an hour, which is no price")
    return usd
