"""Cloud prices: only responses of the documented form are accepted, and a price table is written only when complete.

The responses have the form of the Pricing API's documentation and of public code; none was recorded from a real
account. botocore's own model checks the request, its stub the response.
"""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from blocks.common.aws.pricing import fetch_prices
from blocks.common.errors import NotFound, PortError, Rejected
from ratchet.commands.models import refresh
from tasks.shared.cost import PRICE_TABLE_PATH, read_prices

FILTERS = [
    {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-central-1"},
    {"Type": "TERM_MATCH", "Field": "productFamily", "Value": "ML Instance"},
]
ASKED = {"ServiceCode": "AmazonSageMaker", "Filters": FILTERS, "FormatVersion": "aws_v1"}


def product(component: str, kind: str, usd: str, unit: str = "Hrs", currency: str = "USD") -> str:
    attributes = {"component": component, "instanceName": kind, "regionCode": "eu-central-1", "vCpu": "2"}
    rate = {"unit": unit, "pricePerUnit": {currency: usd}, "description": f"${usd} per hour", "appliesTo": []}
    term = {"priceDimensions": {"SKU.OFFER.RATE": rate}, "sku": "SKU", "effectiveDate": "2026-11-01T00:00:00Z"}
    return json.dumps({
        "product": {"productFamily": "ML Instance", "attributes": attributes, "sku": "SKU"},
        "serviceCode": "AmazonSageMaker",
        "terms": {"OnDemand": {"SKU.OFFER": term}},
    })  # fmt: skip


GOOD = [product("Training", "ml.m5.large", "0.1380000000"), product("Hosting", "ml.m5.large", "0.1380000000")]


def answering(*pages: list[str]) -> Any:
    """Return a boto3 client that returns these pages."""
    client = boto3.client("pricing", "us-east-1", aws_access_key_id="test", aws_secret_access_key="test")  # noqa: S106 - no secret
    stub = Stubber(client)
    for number, page in enumerate(pages):
        more = {"NextToken": str(number + 1)} if number + 1 < len(pages) else {}
        token = {"NextToken": str(number)} if number else {}
        stub.add_response("get_products", {"FormatVersion": "aws_v1", "PriceList": page, **more}, {**ASKED, **token})
    stub.activate()
    return client


def test_prices_are_collected_over_all_pages_by_use() -> None:
    second = [product("Training", "ml.m5.xlarge", "0.276"), product("Notebook", "ml.t3.medium", "0.058")]
    found = fetch_prices("eu-central-1", answering(GOOD, second))
    assert found == {"training": {"ml.m5.large": 0.138, "ml.m5.xlarge": 0.276}, "hosting": {"ml.m5.large": 0.138}}


def test_of_several_prices_of_a_type_the_highest_counts_and_nought_is_none() -> None:
    more = [product("Training", "ml.m5.large", usd) for usd in ("0.0000000000", "0.2", "0.1")]
    assert fetch_prices("eu-central-1", answering([*GOOD, *more]))["training"] == {"ml.m5.large": 0.2}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (product("Training", "ml.m5.large", "0.1", unit="GB-Mo"), Rejected),
        (product("Training", "ml.m5.large", "0.1", currency="CNY"), Rejected),
        (product("Training", "ml.m5.large", "cheap"), Rejected),
        (product("Training", "ml.m5.large", "NaN"), Rejected),
        ('{"product": {}}', Rejected),
        ("not json", Rejected),
        ("[]", Rejected),
    ],
    ids=["another unit", "another currency", "no number", "nan", "no attributes", "no json", "no object"],
)
def test_an_answer_of_another_form_is_refused_whole(wrong: str, error: type[PortError]) -> None:
    with pytest.raises(error):
        fetch_prices("eu-central-1", answering([*GOOD, wrong]))


def test_a_region_without_prices_is_told() -> None:
    with pytest.raises(NotFound, match="training and hosting.*'eu-central-1'"):
        fetch_prices("eu-central-1", answering([]))
    with pytest.raises(NotFound, match="no price for hosting"):
        fetch_prices("eu-central-1", answering(GOOD[:1]))


def test_the_service_refusing_is_told() -> None:
    client = boto3.client("pricing", "us-east-1", aws_access_key_id="test", aws_secret_access_key="test")  # noqa: S106 - no secret
    stub = Stubber(client)
    stub.add_client_error("get_products", "AccessDeniedException", "not authorized to perform: pricing:GetProducts")
    stub.activate()
    with pytest.raises(Rejected, match="not authorized to perform: pricing:GetProducts"):
        fetch_prices("eu-central-1", client)


def test_the_command_writes_a_table_of_today_that_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICE_TABLE_PATH.read_text())
    said = refresh(["eu-central-1"], answering(GOOD), path)
    table = read_prices(path)
    assert list(table.regions) == ["eu-central-1"] and table.source.startswith("AWS Pricing API")
    assert "eu-central-1: 1 types for training, 1 for hosting" in said


def test_a_refusal_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICE_TABLE_PATH.read_text())
    with pytest.raises(NotFound, match="no price"):
        refresh(["eu-central-1"], answering([]), path)
    assert path.read_text() == PRICE_TABLE_PATH.read_text()
