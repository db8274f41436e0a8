"""Promotion: which models may be deployed."""

import pytest

from tasks.shared.rules.promotion import PROMOTABLE_TIER, is_promotable_tier, may_be_promoted
from tasks.shared.rules.rows.tiers import TIERS


def test_only_the_tier_of_all_data_may_be_promoted() -> None:
    assert [tier for tier in TIERS if is_promotable_tier(tier)] == [PROMOTABLE_TIER] == ["full"]


@pytest.mark.parametrize(
    ("tier", "verdict", "waived", "allowed"),
    [
        pytest.param("full", "pass", False, True, id="passed on all data"),
        pytest.param("full", "hold", False, False, id="held"),
        pytest.param("full", "inconclusive", False, False, id="inconclusive"),
        pytest.param("full", "", False, False, id="never evaluated"),
        pytest.param("full", "hold", True, True, id="held, and every failed gate is waived"),
        pytest.param("full", "inconclusive", True, True, id="inconclusive, and every failed gate is waived"),
        pytest.param("staging", "pass", False, False, id="passed on a sample"),
        pytest.param("development", "pass", False, False, id="passed on the smallest sample"),
        pytest.param("staging", "hold", True, False, id="no waiver opens a sample"),
        pytest.param("", "pass", False, False, id="of an unknown tier"),
        pytest.param("production", "pass", False, False, id="of a tier that there is not"),
    ],
)
def test_a_model_is_promoted_by_its_data_and_its_verdict(tier: str, verdict: str, waived: bool, allowed: bool) -> None:
    assert may_be_promoted(tier, verdict, waived=waived) is allowed
