"""Backtests within `retrain`: they run when model.yaml asks for them, after the evaluation, and are in the estimate."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flows.retrain import retrain
from tasks.shared.models import TeamModel
from tests.fixtures.divided_rows import TIMED, spec_of

STAGES = ["sample", "validate", "publish", "estimate_cost", "train", "evaluate"]


@pytest.mark.parametrize(
    ("backtests", "expected", "trainings"), [(2, [*STAGES, "backtest"], 4), (0, STAGES, 1)], ids=["two", "none"]
)
def test_backtests_run_when_the_model_asks_for_them(
    monkeypatch: pytest.MonkeyPatch, backtests: int, expected: list[str], trainings: int
) -> None:
    calls: dict[str, tuple[Any, ...]] = {}
    spec = spec_of(TIMED.replace("evaluation:", f"evaluation:\n  backtests: {backtests}"))
    monkeypatch.setattr("flows.retrain.one_at_a_time", lambda _: nullcontext())
    monkeypatch.setattr("flows.retrain.load_model", lambda _: TeamModel(Path("models/price"), spec))
    monkeypatch.setattr("flows.retrain.end_sample_tier", lambda *_: "ended")

    def stage(name: str) -> Any:
        return lambda *given, **_: calls.setdefault(name, given)

    for name in (*STAGES, "backtest"):
        monkeypatch.setattr(f"flows.retrain.{name}", stage(name))
    assert retrain.fn("price", "dana@example.com", tier="development") == "ended"
    assert list(calls) == expected
    assert calls["estimate_cost"][3] == trainings
