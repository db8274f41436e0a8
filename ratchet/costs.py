"""Costs of models by month, and the price table.

Costs are the billed amounts that runs logged to MLflow, or their worst-case estimates until those are known.

`refresh` writes the price table from the AWS Pricing API. The table has one date, so it contains only the regions that
are named. It needs AWS credentials with `pricing:GetProducts`. It was never run on a real account: responses are
checked against the documented form, and any other form is refused.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from blocks.common.aws.pricing import fetch_prices
from local.stack import running_environment
from runtime.files import write_text_atomically
from tasks.shared.cost import PRICE_TABLE_PATH, read_prices
from tasks.shared.models import known_models, load_model
from tasks.shared.rules.cost.prices import PriceTable, RegionPrices, parse_prices, prices_yaml
from tasks.shared.rules.cost.spent import MonthlyCost, monthly_costs
from tasks.shared.rules.refusal import Refusal


def monthly_costs_text(environment: str) -> str:
    """Return the costs of all models of an environment as a table."""
    env = running_environment(environment)
    tracking, names = env.tracking(), known_models(env)
    costs = {name: monthly_costs(tracking.runs(name)) for name in names}
    return costs_table(costs, {name: load_model(name).spec.budget.per_month_usd for name in names})


def costs_table(costs: Mapping[str, Iterable[MonthlyCost]], budgets: Mapping[str, float]) -> str:
    """Return a line for each model and month, newest first, and the sum of each month."""
    lines = [f"{'month':<9}{'model':<28}{'USD':>12}{'runs':>7}{'open':>7}{'budget':>12}"]
    months: dict[str, list[tuple[float, str]]] = {}
    for model, sums in costs.items():
        for each in sums:
            figures = f"{each.usd:>12,.2f}{each.runs:>7}{each.pending_runs:>7}{budgets[model]:>12,.2f}"
            row = f"{each.month:<9}{model:<28}{figures}"
            months.setdefault(each.month, []).append((each.usd, row))
    for month, rows in sorted(months.items(), reverse=True):
        lines += [row for _, row in rows]
        lines.append(f"{month:<9}{'all models':<28}{sum(usd for usd, _ in rows):>12,.2f}")
    return "\n".join(lines) if months else "no run has logged its cost"


PRICE_SOURCE = "AWS Pricing API, GetProducts of AmazonSageMaker, on demand"


FILE_HEADER = """\
# On-demand prices per instance and hour. `make prices` writes this file from the AWS Pricing API.
# Paid work on a type that is not listed is refused, because it has no known price.
"""


def refresh_prices(table: PriceTable, regions: list[str], today: date, client: Any = None) -> PriceTable:
    """Return today's price table with only these regions, because the table has a single date.

    Raises:
        PortError: the service does not respond, or not in the documented form.
    """
    prices = {region: RegionPrices(**fetch_prices(region, client)) for region in regions}
    return table.model_copy(update={"date": today.isoformat(), "source": PRICE_SOURCE, "regions": prices})


def write_prices(table: PriceTable, path: Path) -> None:
    """Write the table to the file, after checking that its text is parsed as the same table."""
    text = FILE_HEADER + prices_yaml(table)
    if parse_prices(text, path.name) != table:
        raise Refusal("the text of the price table is not parsed as the same table", where=str(path))
    write_text_atomically(path, text)


def refresh(regions: list[str], client: Any = None, path: Path = PRICE_TABLE_PATH) -> str:
    """Write today's price table with only these regions, and return a message. Raises as `refresh_prices` does."""
    table = refresh_prices(read_prices(path), regions, datetime.now(UTC).date(), client)
    write_prices(table, path)
    lines = [
        f"{region}: {len(prices.training)} types for training, {len(prices.hosting)} for hosting"
        for region, prices in table.regions.items()
    ]
    lines.append(f"written to {path.name} with the date {table.date}: review the changes, and commit them")
    return "\n".join(lines)
