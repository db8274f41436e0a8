"""Marks of garbage collection, for any graph: nothing that a root needs is removed; dependents are removed first."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.records.collectable import Collectable
from tasks.cleanup.rules.garbage import KEEP_TAG, PROMOTED_TAG, plan_removal, protected_model_keys
from tasks.shared.rules.refusal import Refusal

NOW = datetime(2026, 11, 25, tzinfo=UTC)
GRACE = timedelta(days=30)
NAMES = [f"run:{number}" for number in range(12)]


def thing(key: str, *needs: str, days: float = 100.0, held: str = "") -> Collectable:
    return Collectable(key, key, NOW - timedelta(days=days), needs, held)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Collectable], dict[str, str]]:
    """Random artifacts that need each other in any way, with cycles and missing ones, and random roots."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    needs = st.lists(st.sampled_from([*NAMES, "run:gone"]), max_size=4).map(tuple)
    things = [
        thing(name, *draw(needs), days=draw(st.sampled_from([0.0, 29.9, 30.0, 400.0])), held=draw(st.sampled_from(["", "", "it runs"])))
        for name in names
    ]  # fmt: skip
    roots = draw(st.dictionaries(st.sampled_from([*NAMES, "run:gone"]), st.just("promoted"), max_size=4))
    return things, roots


def needed_by(things: dict[str, Collectable], key: str) -> set[str]:
    """Return all that `key` needs, by another algorithm than the rule: grow the set until it does not change."""
    found = {key}
    while more := {needed for each in found if each in things for needed in things[each].depends_on} - found:
        found |= more
    return found


@settings(max_examples=100)
@given(graphs())
def test_nothing_that_a_root_needs_is_ever_removed(graph: tuple[list[Collectable], dict[str, str]]) -> None:
    things, roots = graph
    by_key = {each.key: each for each in things}
    removed = set(plan_removal(things, roots, GRACE, NOW).remove)
    staying = {each.key for each in things if each.keep_reason or each.key in roots or NOW - each.last_used < GRACE}
    for key in staying:
        assert not removed & needed_by(by_key, key)
    garbage = set(by_key) - {needed for key in staying for needed in needed_by(by_key, key)}
    assert removed == garbage


@settings(max_examples=60)
@given(graphs(), st.integers(0, 12))
def test_a_sweep_that_is_cut_short_leaves_nothing_without_what_it_needs(
    graph: tuple[list[Collectable], dict[str, str]], done: int
) -> None:
    things, roots = graph
    order = plan_removal(things, roots, GRACE, NOW).remove
    gone, by_key = set(order[:done]), {each.key: each for each in things}
    for key in set(by_key) - gone:
        broken = set(by_key[key].depends_on) & gone
        assert all(key in needed_by(by_key, lost) for lost in broken)  # only within a cycle of garbage


@settings(max_examples=50)
@given(graphs())
def test_every_thing_is_either_removed_or_kept_for_a_reason(graph: tuple[list[Collectable], dict[str, str]]) -> None:
    made = plan_removal(*graph, GRACE, NOW)
    assert len(made.remove) == len(set(made.remove))
    assert len(made.remove) + sum(made.kept_counts.values()) == len(graph[0])


def test_what_a_young_thing_needs_stays() -> None:
    assert plan_removal([thing("run:trial", "run:parent", days=1), thing("run:parent")], {}, GRACE, NOW).remove == ()


def test_dependents_go_first() -> None:
    things = [thing("run:1"), thing("model:1", "run:1"), thing("version:a/1", "model:1", "run:1")]
    assert plan_removal(things, {}, GRACE, NOW).remove == ("version:a/1", "model:1", "run:1")


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(hours=23), timedelta(days=-1)], ids=str)
def test_a_grace_period_of_less_than_a_day_is_refused(grace: timedelta) -> None:
    with pytest.raises(Refusal, match="at least 1 day"):
        plan_removal([thing("run:1")], {}, grace, NOW)


def test_one_key_for_two_things_is_refused() -> None:
    with pytest.raises(Refusal, match="run:1"):
        plan_removal([thing("run:1"), thing("run:2"), thing("run:1")], {}, GRACE, NOW)


class Registered:
    """A registered version, made by Ratchet unless given otherwise."""

    def __init__(self, version: str, aliases: tuple[str, ...] = (), **tags: str) -> None:
        self.version, self.aliases, self.status = version, aliases, "serving"
        self.tags = {name.replace("__", "."): value for name, value in {"ratchet__key": "k", **tags}.items() if value}


ROOTS = {
    "an alias": (Registered("1", ("champion",)), True),
    "served once": (Registered("1", **{PROMOTED_TAG.replace(".", "__"): "production"}), True),
    "kept by a person": (Registered("1", **{KEEP_TAG.replace(".", "__"): "yes"}), True),
    "not made by Ratchet": (Registered("1", ratchet__key=""), True),
    "passed": (Registered("1", ratchet__tier="full", ratchet__verdict="pass"), True),
    "passed on a sample": (Registered("1", ratchet__tier="staging", ratchet__verdict="pass"), False),
    "held": (Registered("1", ratchet__tier="full", ratchet__verdict="hold"), False),
    "never judged": (Registered("1", ratchet__tier="full"), False),
}


@pytest.mark.parametrize(("version", "stays"), ROOTS.values(), ids=ROOTS)
def test_a_version_stays_for(version: Registered, stays: bool) -> None:
    assert ("version:churn/1" in protected_model_keys("churn", [], [], [version])) is stays


def test_what_served_or_is_asked_for_stays_with_its_release() -> None:
    failed = Registered("7")
    failed.status = "failed"
    roots = protected_model_keys("churn", [Registered("3"), failed], [Registered("5")], [])
    assert set(roots) == {"version:churn/3", "release:churn/3", "version:churn/5", "release:churn/5"}
