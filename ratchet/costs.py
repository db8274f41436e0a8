"""What the models cost, by month: the figures that each run logged, or its worst case while it has logged none."""

from collections.abc import Iterable, Mapping

from ratchet.running import running
from tasks.shared.models import load_model
from tasks.shared.namespaces import known_models
from tasks.shared.rules.cost.spent import MonthlyCost, monthly_costs


def spent(environment: str) -> str:
    """Return the table of every model that an environment knows."""
    env = running(environment)
    tracking, names = env.tracking(), known_models(env)
    costs = {name: monthly_costs(tracking.runs(name)) for name in names}
    return costs_table(costs, {name: load_model(name).spec.budget.per_month_usd for name in names})


def costs_table(costs: Mapping[str, Iterable[MonthlyCost]], budgets: Mapping[str, float]) -> str:
    """Return a line for each model and month, newest first, and the sum of each month."""
    lines = [f"{'month':<9}{'model':<28}{'USD':>12}{'runs':>7}{'open':>7}{'budget':>12}"]
    months: dict[str, list[tuple[float, str]]] = {}
    for model, sums in costs.items():
        for each in sums:
            row = f"{each.month:<9}{model:<28}{each.usd:>12,.2f}{each.runs:>7}{each.pending_runs:>7}{budgets[model]:>12,.2f}"
            months.setdefault(each.month, []).append((each.usd, row))
    for month, rows in sorted(months.items(), reverse=True):
        lines += [row for _, row in rows]
        lines.append(f"{month:<9}{'all models':<28}{sum(usd for usd, _ in rows):>12,.2f}")
    return "\n".join(lines) if months else "no run has logged what it cost"
