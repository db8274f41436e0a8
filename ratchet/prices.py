"""The price table, written anew from the AWS Pricing API.

The table has one date, so it keeps the regions that are named alone. It needs the machine's AWS credentials with
`pricing:GetProducts`. It was never run on a real account: its answers are checked against the documented form, and
whatever has another form is refused.
"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from blocks.cloud.pricing import fetch_prices
from runtime.files import replace_text
from tasks.shared.cost import PRICES, read_prices
from tasks.shared.rules.cost.prices import PriceTable, RegionPrices, parse_prices, prices_text
from tasks.shared.rules.refusal import Refusal

SOURCE = "AWS Pricing API, GetProducts of AmazonSageMaker, on demand"
NOTE = """\
# What an hour of one instance costs on demand. `make prices` writes this file anew from the AWS Pricing API.
# A type that is not listed has no price here, and paid work on it is refused.
"""


def refreshed(table: PriceTable, regions: list[str], today: date, client: Any = None) -> PriceTable:
    """Return the table of today with these regions, and no others: older prices would bear today's date.

    Raises:
        PortError: the service does not answer, or not as documented; nothing is taken over.
    """
    prices = {region: RegionPrices(**fetch_prices(region, client)) for region in regions}
    return table.model_copy(update={"date": today.isoformat(), "source": SOURCE, "regions": prices})


def write(table: PriceTable, path: Path) -> None:
    """Replace the file by the table, once it is read back as the same table."""
    text = NOTE + prices_text(table)
    if parse_prices(text, path.name) != table:
        raise Refusal("the price table is not read back as it was written", where=str(path))
    replace_text(path, text)


def refresh(regions: list[str], client: Any = None, path: Path = PRICES) -> str:
    """Write the table of today with these regions alone, and return what to tell. Raises as `refreshed` does."""
    table = refreshed(read_prices(path), regions, datetime.now(UTC).date(), client)
    write(table, path)
    lines = [
        f"{region}: {len(prices.training)} types for training, {len(prices.hosting)} for hosting"
        for region, prices in table.regions.items()
    ]
    lines.append(f"written to {path.name} with the date {table.date}: look at what changed, and commit it")
    return "\n".join(lines)
