"""Backtests within `retrain`: they run when model.yaml asks for them, for what may go on, and are in the estimate."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flows.retrain import retrain
from tasks.approval.rules.actions import Actor
from tasks.shared.models import TeamModel
from tests.fixtures.divided_rows import TIMED, spec_of

STAGES = ["sample", "validate", "publish", "estimate_cost", "train", "evaluate"]


@pytest.mark.parametrize(
    ("backtests", "tier", "passed", "expected", "trainings"),
    [
        (2, "development", False, [*STAGES, "backtest"], 4),
        (0, "development", True, STAGES, 1),
        (2, "full", True, [*STAGES, "backtest", "request_approval"], 4),
        (2, "full", False, STAGES, 4),
    ],
    ids=["sample", "none", "passed", "held"],
)
def test_backtests_run_when_the_model_asks_for_them_and_never_for_a_challenger_that_is_held(
    monkeypatch: pytest.MonkeyPatch, backtests: int, tier: Any, passed: bool, expected: list[str], trainings: int
) -> None:
    calls: dict[str, tuple[Any, ...]] = {}
    spec = spec_of(TIMED.replace("evaluation:", f"evaluation:\n  backtests: {backtests}"))
    monkeypatch.setattr("flows.retrain.authorize_run", lambda *_: Actor("dana@example.com"))
    monkeypatch.setattr("flows.retrain.one_at_a_time", lambda _: nullcontext())
    monkeypatch.setattr("flows.retrain.load_model", lambda _: TeamModel(Path("models/price"), spec))
    monkeypatch.setattr("flows.retrain.passed_or_waived", lambda *_: passed)
    for last in ("end_sample_tier", "end_not_promoted", "end_not_approved"):
        monkeypatch.setattr(f"flows.retrain.{last}", lambda *_: "ended")
    for unasked in ("await_decision", "notify_decision"):
        monkeypatch.setattr(f"flows.retrain.{unasked}", lambda *_: None)

    def stage(name: str) -> Any:
        return lambda *given, **_: calls.setdefault(name, given)

    for name in (*STAGES, "backtest", "request_approval"):
        monkeypatch.setattr(f"flows.retrain.{name}", stage(name))
    assert retrain.fn("price", "dana@example.com", tier=tier) == "ended"
    assert list(calls) == expected
    assert calls["estimate_cost"][3] == trainings
