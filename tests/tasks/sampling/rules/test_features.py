"""Published rows: one name has one meaning; exactly the changes of meaning need another name."""

import pytest

from tasks.sampling.rules.features import feature_rules_digest
from tasks.shared.rules.model.data import DataSpec

SPEC = {
    "dataset": "late",
    "entity": "flight",
    "time": "asked_at",
    "target": "late_by",
    "features": {"distance": "number", "wind": "number", "gusts": "number"},
    "tables": {
        "weather": {
            "dataset": "weather",
            "keys": {"airport": "place"},
            "time": "since",
            "columns": {"wind": "wind_ms", "gusts": "gusts_ms"},
        }
    },
}


def changed(**parts):
    return DataSpec.model_validate(SPEC | parts)


def weather(**parts):
    return {"tables": {"weather": SPEC["tables"]["weather"] | parts}}


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "later"},
        {"entity": "tail"},
        {"target": "early_by"},
        {"features": SPEC["features"] | {"seats": "number"}},
        weather(dataset="weather-2"),
        weather(keys={"airport": "town"}),
        weather(time="until"),
        weather(columns={"wind": "gusts_ms", "gusts": "wind_ms"}),
        weather(columns={"gusts": "gusts_ms", "wind": "wind_ms"}),  # of equal rows another one counts
    ],
    ids=str,
)
def test_another_meaning_is_another_digest(change):
    assert feature_rules_digest(changed(**change)) != feature_rules_digest(changed())


def test_the_order_of_the_features_and_the_name_of_the_set_mean_nothing():
    turned = dict(reversed(SPEC["features"].items()))
    assert feature_rules_digest(changed(features=turned, publish="late-features")) == feature_rules_digest(changed())


def test_the_digest_is_of_the_description_and_stays_as_it_is():
    """Published data sets keep their names in later versions of Ratchet: only `RULES` may change the digest."""
    assert feature_rules_digest(changed()).startswith("d48fa35257d21bfb")
