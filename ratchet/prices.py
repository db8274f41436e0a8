"""The price table, written anew from the AWS Pricing API.

The table has one date, so it keeps the regions that are named alone. It needs the machine's AWS credentials with
`pricing:GetProducts`. It was never run on a real account: its answers are checked against the documented form, and
whatever has another form is refused.
"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from blocks.common.aws.pricing import fetch_prices
from runtime.files import write_text_atomically
from tasks.shared.cost import PRICE_TABLE_PATH, read_prices
from tasks.shared.rules.cost.prices import PriceTable, RegionPrices, parse_prices, prices_yaml
from tasks.shared.rules.refusal import Refusal

PRICE_SOURCE = "AWS Pricing API, GetProducts of AmazonSageMaker, on demand"
FILE_HEADER = """\
# What an hour of one instance costs on demand. `make prices` writes this file anew from the AWS Pricing API.
# A type that is not listed has no price here, and paid work on it is refused.
"""


def refresh_prices(table: PriceTable, regions: list[str], today: date, client: Any = None) -> PriceTable:
    """Return the table of today with these regions, and no others: older prices would bear today's date.

    Raises:
        PortError: the service does not answer, or not as documented; nothing is taken over.
    """
    prices = {region: RegionPrices(**fetch_prices(region, client)) for region in regions}
    return table.model_copy(update={"date": today.isoformat(), "source": PRICE_SOURCE, "regions": prices})


def write_prices(table: PriceTable, path: Path) -> None:
    """Replace the file by the table, once it is read back as the same table."""
    text = FILE_HEADER + prices_yaml(table)
    if parse_prices(text, path.name) != table:
        raise Refusal("the price table is not read back as it was written", where=str(path))
    write_text_atomically(path, text)


def refresh(regions: list[str], client: Any = None, path: Path = PRICE_TABLE_PATH) -> str:
    """Write the table of today with these regions alone, and return what to tell. Raises as `refreshed` does."""
    table = refresh_prices(read_prices(path), regions, datetime.now(UTC).date(), client)
    write_prices(table, path)
    lines = [
        f"{region}: {len(prices.training)} types for training, {len(prices.hosting)} for hosting"
        for region, prices in table.regions.items()
    ]
    lines.append(f"written to {path.name} with the date {table.date}: look at what changed, and commit it")
    return "\n".join(lines)
