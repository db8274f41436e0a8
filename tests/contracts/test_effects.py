"""The contract of effects, over every adapter: each key once, the first outcome stays, no effect lost."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from blocks.common.errors import NotFound, Rejected, Unavailable
from blocks.database.ledger import Ledger
from blocks.effects.base import Effects
from blocks.effects.fake import FakeEffects
from tests.fixtures.deployments import COMPARISON, DEPLOYMENT, NOW
from tests.fixtures.ledgers import again, ledger, postgres
from tests.fixtures.signing_keys import TRUST

__all__ = ["ledger", "postgres"]  # fixtures


@pytest.fixture
def effects(ledger: Ledger) -> Effects:
    return ledger.effects(TRUST)


def test_an_effect_is_intended_then_done_and_found_by_another_process(ledger: Ledger, effects: Effects) -> None:
    assert effects.effect("train:abc") is None
    intent = effects.intend("train:abc", "submit job abc", NOW)
    assert (intent.state, intent.detail, intent.outcome, intent.at) == ("intent", "submit job abc", "", NOW)
    done = effects.finish("train:abc", "job abc completed", NOW + timedelta(minutes=3))
    assert (done.state, done.detail, done.outcome) == ("done", "submit job abc", "job abc completed")
    assert done.at == NOW + timedelta(minutes=3)
    assert again(ledger).effects(TRUST).effect("train:abc") == done


def test_a_repeated_intent_returns_what_is_there_with_its_state(effects: Effects) -> None:
    first = effects.intend("k", "first", NOW)
    assert effects.intend("k", "second", NOW + timedelta(hours=1)) == first
    done = effects.finish("k", "ok", NOW)
    assert effects.intend("k", "third", NOW) == done


def test_the_first_outcome_of_an_effect_stays(effects: Effects) -> None:
    effects.intend("k", "d", NOW)
    first = effects.finish("k", "ok", NOW)
    assert effects.finish("k", "failed", NOW + timedelta(hours=1)) == first


def test_what_was_never_intended_cannot_be_finished(effects: Effects) -> None:
    with pytest.raises(NotFound, match="nothing was intended under the key 'ghost'"):
        effects.finish("ghost", "ok", NOW)


def test_what_was_intended_and_not_finished_is_listed_by_the_beginning_of_its_key(
    ledger: Ledger, effects: Effects
) -> None:
    for key in ("deploy:b", "deploy:a", "deploy:done", "deploy_x", "rollback:1", "%"):
        effects.intend(key, f"detail of {key}", NOW)
    effects.finish("deploy:done", "ok", NOW)
    unfinished = again(ledger).effects(TRUST).unfinished("deploy:")
    assert [(each.key, each.state, each.detail) for each in unfinished] == [
        ("deploy:b", "intent", "detail of deploy:b"),
        ("deploy:a", "intent", "detail of deploy:a"),
    ]
    assert [each.key for each in effects.unfinished("%")] == ["%"], "a prefix is no pattern"
    effects.finish("deploy:b", "ok", NOW)
    assert [each.key for each in effects.unfinished("deploy:")] == ["deploy:a"]


def test_deployments_are_kept_by_model_and_environment_newest_first(ledger: Ledger, effects: Effects) -> None:
    earlier_clock = replace(DEPLOYMENT, id="dep-2", version="6", action="rollback", at=NOW - timedelta(hours=1))
    for each in (DEPLOYMENT, earlier_clock, replace(DEPLOYMENT, id="x", environment="local")):
        assert effects.record_deployment(each) == each
    assert again(ledger).effects(TRUST).deployments("churn", "production") == (earlier_clock, DEPLOYMENT)
    assert effects.deployments("price", "production") == ()


def test_a_deployment_is_recorded_once(effects: Effects) -> None:
    effects.record_deployment(DEPLOYMENT)
    assert effects.record_deployment(replace(DEPLOYMENT, status="failed")) == DEPLOYMENT
    assert len(effects.deployments("churn", "production")) == 1


def test_of_threads_that_record_at_once_each_row_is_there_and_sealed(ledger: Ledger) -> None:
    def record(number: int) -> str:
        return ledger.effects(TRUST).record_deployment(replace(DEPLOYMENT, id=f"dep-{number % 12}")).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(record, range(24)))) == 12
    assert len(again(ledger).effects(TRUST).deployments("churn", "production")) == 12


def test_times_come_back_in_utc_whatever_zone_they_were_given_in(effects: Effects) -> None:
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    assert effects.intend("k", "d", tokyo).at.utcoffset() == timedelta(0)
    assert effects.intend("k", "d", tokyo).at == NOW


def test_the_fake_fails_as_often_as_it_is_told() -> None:
    effects = FakeEffects(fail_writes=1)
    with pytest.raises(Unavailable):
        effects.intend("k", "d", NOW)
    assert effects.intend("k", "d", NOW).state == "intent"


def test_models_are_those_with_a_deployment(ledger: Ledger, effects: Effects) -> None:
    assert effects.model_names("production") == ()
    for model, where in [("price", "production"), ("churn--dana", "production"), ("other", "local")]:
        effects.record_deployment(replace(DEPLOYMENT, id=f"{model}-1", model=model, environment=where))
    assert again(ledger).effects(TRUST).model_names("production") == ("churn--dana", "price")
    assert effects.model_names("nowhere") == ()


def test_comparisons_are_kept_by_model_and_environment_in_the_order_of_their_numbers(
    ledger: Ledger, effects: Effects
) -> None:
    second = replace(COMPARISON, number=2, level=1e-9, at=NOW - timedelta(hours=1))
    for each in (COMPARISON, second, replace(COMPARISON, environment="local"), replace(COMPARISON, model="price")):
        assert effects.record_comparison(each) == each
    assert again(ledger).effects(TRUST).comparisons("churn", "production") == (COMPARISON, second)
    assert effects.comparisons("churn", "nowhere") == ()


def test_the_first_comparison_with_a_number_stays(effects: Effects) -> None:
    assert effects.record_comparison(COMPARISON) == COMPARISON
    assert effects.record_comparison(replace(COMPARISON, version="9", level=0.025)) == COMPARISON
    assert effects.comparisons("churn", "production") == (COMPARISON,)


def test_a_time_without_a_zone_is_refused(effects: Effects) -> None:
    naive = NOW.replace(tzinfo=None)
    for call in (
        lambda: effects.intend("k", "d", naive),
        lambda: effects.record_deployment(replace(DEPLOYMENT, at=naive)),
        lambda: effects.record_comparison(replace(COMPARISON, at=naive)),
    ):
        with pytest.raises(Rejected, match="has no zone"):
            call()
    assert effects.effect("k") is None
    assert effects.deployments("churn", "production") == ()
