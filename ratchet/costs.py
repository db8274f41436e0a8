"""What the models cost, by month: `python -m ratchet.costs [--environment production]`.

The figures are those that each run logged to MLflow: what it was billed, or its worst case while it has not said.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping

from blocks.common.errors import PortError
from blocks.environment import open_environment
from local.stack import use
from tasks.shared.models import load_model
from tasks.shared.namespaces import known_models
from tasks.shared.rules.cost.spent import MonthSum, by_month
from tasks.shared.rules.refusal import Refusal


def table(costs: Mapping[str, Iterable[MonthSum]], budgets: Mapping[str, float]) -> str:
    """Return a line for each model and month, newest first, and the sum of each month."""
    lines = [f"{'month':<9}{'model':<28}{'USD':>12}{'runs':>7}{'open':>7}{'budget':>12}"]
    months: dict[str, list[tuple[float, str]]] = {}
    for model, sums in costs.items():
        for each in sums:
            row = f"{each.month:<9}{model:<28}{each.usd:>12,.2f}{each.runs:>7}{each.open:>7}{budgets[model]:>12,.2f}"
            months.setdefault(each.month, []).append((each.usd, row))
    for month, rows in sorted(months.items(), reverse=True):
        lines += [row for _, row in rows]
        lines.append(f"{month:<9}{'all models':<28}{sum(usd for usd, _ in rows):>12,.2f}")
    return "\n".join(lines) if months else "no run has logged what it cost"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line against the running stack."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.costs", description=__doc__, formatter_class=raw)
    parser.add_argument("--environment", default="local", help="the environment whose tracking server to ask")
    options = parser.parse_args(arguments)
    try:
        use()
        world = open_environment(options.environment)
        tracking, names = world.tracking(), known_models(world)
        costs = {name: by_month(tracking.runs(name)) for name in names}
        print(table(costs, {name: load_model(name).spec.budget.per_month_usd for name in names}))
    except (PortError, Refusal) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
