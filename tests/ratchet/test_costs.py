"""The command `costs`: the cost of each model in each month."""

from ratchet.commands.models import costs_table
from tasks.shared.rules.cost.spent import MonthlyCost


def test_each_month_has_its_models_and_their_sum() -> None:
    costs = {
        "churn": (MonthlyCost("2026-11", 12.5, 4, 1), MonthlyCost("2026-10", 3.0, 2, 0)),
        "price": (MonthlyCost("2026-11", 0.25, 1, 0),),
    }
    lines = [line.split() for line in costs_table(costs, {"churn": 120.0, "price": 0.0}).splitlines()]
    assert lines == [
        ["month", "model", "USD", "runs", "open", "budget"],
        ["2026-11", "churn", "12.50", "4", "1", "120.00"],
        ["2026-11", "price", "0.25", "1", "0", "0.00"],
        ["2026-11", "all", "models", "12.75"],
        ["2026-10", "churn", "3.00", "2", "0", "120.00"],
        ["2026-10", "all", "models", "3.00"],
    ]


def test_models_that_logged_nothing_are_told() -> None:
    assert costs_table({"churn": ()}, {"churn": 120.0}) == "no run has logged its cost"
