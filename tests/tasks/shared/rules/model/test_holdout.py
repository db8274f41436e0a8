"""The key `holdout` of model.yaml: its defaults, what does not go together, and the canonical text of a rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.shared.rules.model.holdout import HoldoutRule, parse_holdout_rule
from tasks.shared.rules.model.mistakes import Mistakes
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.divided_rows import BOTH, GROUPED, TIMED, spec_of
from tests.fixtures.spec_cases import BINARY

SINCE = "2026-10-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("base", "holdout", "rule"),
    [
        pytest.param(BINARY, "0.3", HoldoutRule("entity", 0.3), id="a share, of entities"),
        pytest.param(TIMED, "0.3", HoldoutRule("time", 0.3, time="sold_at"), id="a share with a time"),
        pytest.param(GROUPED, "0.3", HoldoutRule("group", 0.3, group="owner"), id="a share with a group"),
        pytest.param(BOTH, "0.3", HoldoutRule("group_and_time", 0.3, time="sold_at", group="owner"), id="both"),
        pytest.param(TIMED, "{gap_days: 30}", HoldoutRule("time", 0.2, gap_days=30.0, time="sold_at"), id="a gap"),
        pytest.param(TIMED, '{since: "2026-10-01T02:00:00+02:00"}', HoldoutRule("time", None, SINCE, time="sold_at"),
                     id="since, in UTC"),
        pytest.param(BOTH, '{since: "2026-10-01T00:00:00Z"}',
                     HoldoutRule("group_and_time", 0.2, SINCE, time="sold_at", group="owner"), id="since, of groups"),
        pytest.param(BOTH, '{by: time, reason: "known owners sell again"}', HoldoutRule("time", 0.2, time="sold_at"),
                     id="by time beside a group, with a reason"),
        pytest.param(TIMED, '{by: entity, share: 0.1, reason: "only new houses"}', HoldoutRule("entity", 0.1),
                     id="by entity beside a time, with a reason"),
    ],
)  # fmt: skip
def test_what_is_declared_becomes_a_rule_that_its_text_gives_back(base: str, holdout: str, rule: HoldoutRule) -> None:
    found = spec_of(base, holdout).holdout_rule
    assert found == rule
    assert parse_holdout_rule(found.text) == found


def test_without_the_key_a_fifth_decides_by_what_is_declared() -> None:
    kinds = [parse_spec(base, "m.yaml").holdout_rule.by for base in (BINARY, TIMED, GROUPED, BOTH)]
    assert kinds == ["entity", "time", "group", "group_and_time"]


def test_by_entity_the_text_is_that_of_earlier_releases() -> None:
    assert spec_of(BINARY, "0.20").holdout_rule.text == "0.2"


@pytest.mark.parametrize(
    ("base", "holdout", "key", "says"),
    [
        pytest.param(BINARY, "{by: time}", "holdout.by", "needs data.time. Declare data.time", id="no time"),
        pytest.param(BINARY, "{by: group}", "holdout.by", "needs data.group. Declare data.group", id="no group"),
        pytest.param(TIMED, "{by: entity}", "holdout.by", "data.time, sold_at, and gives no reason. Write `by: time`",
                     id="by entity beside a time"),
        pytest.param(BOTH, "{by: time}", "holdout.by", "data.group, owner, and gives no reason. Write `by: group_and_time`",
                     id="by time beside a group"),
        pytest.param(BINARY, "{gap_days: 3}", "holdout.gap_days", "does not go with by: entity", id="a gap of entities"),
        pytest.param(BINARY, '{since: "2026-10-01T00:00:00Z"}', "holdout.since", "does not go with by: entity", id="since of entities"),
        pytest.param(TIMED, '{share: 0.2, since: "2026-10-01T00:00:00Z"}', "holdout.since", "Keep one", id="two beginnings"),
        pytest.param(TIMED, '{since: "2026-10-01T00:00:00"}', "holdout.since", "has no time zone", id="no zone"),
        pytest.param(TIMED, "{since: last week}", "holdout.since", "is not a time", id="no time at all"),
        pytest.param(TIMED, "{since: 2026-10-01T00:00:00Z}", "holdout.since", "Quote it", id="not quoted"),
        pytest.param(TIMED, "{gap_days: -1}", "holdout.gap_days", "at least 0", id="a negative gap"),
        pytest.param(TIMED, "{share: 0.6}", "holdout.share", "at most 0.5", id="more than half"),
        pytest.param(TIMED, "{shar: 0.2}", "holdout.shar", "Did you mean `share`?", id="a typo"),
        pytest.param(TIMED, "{by: tme}", "holdout.by", "Did you mean `time`?", id="a typo in the kind"),
        pytest.param(TIMED, "all", "holdout", "must be a number", id="text"),
        pytest.param(TIMED, "0.9", "holdout", "at most 0.5", id="a share of more than half"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_with_line_and_remedy(
    base: str, holdout: str, key: str, says: str
) -> None:
    with pytest.raises(Mistakes) as refused:
        spec_of(base, holdout)
    mistake = next(each for each in refused.value.mistakes if each.key == key)
    assert mistake.line == len(base.splitlines()) + 1
    assert says in f"{mistake.problem}. {mistake.remedy}"


@pytest.mark.parametrize(
    ("group", "says"),
    [("house_id", "is the entity"), ("price", "is the entity, the target"), ("rooms", "is a number"), ("garden", "is a flag")],
)  # fmt: skip
def test_a_column_that_is_no_group_is_refused(group: str, says: str) -> None:
    with pytest.raises(Mistakes, match=rf"line 9, data\.group: {says}"):
        parse_spec(BINARY.replace("  classes:", f"  group: {group}\n  classes:"), "m.yaml")


def test_a_group_may_be_a_feature_and_is_read_either_way() -> None:
    for group, columns in (
        ("street", ["house_id", "street", "rooms", "garden", "price"]),
        ("owner", ["house_id", "owner", "rooms", "street", "garden", "price"]),
    ):
        data = parse_spec(BINARY.replace("  classes:", f"  group: {group}\n  classes:"), "m.yaml").data
        assert sorted(data.row_columns) == sorted(columns)
        assert (data.ingest_schema().group, data.unique) == (group, ("house_id",))


def test_strata_do_not_go_with_groups() -> None:
    with pytest.raises(Mistakes, match=r"tiers\.stratify_by: does not go with data\.group"):
        spec_of(GROUPED, more="tiers: {stratify_by: street}\n")


@given(st.text(max_size=30))
def test_what_is_no_rule_is_refused(text: str) -> None:
    try:
        assert parse_holdout_rule(text).text == text
    except Refusal as refused:
        assert "is not a holdout rule" in str(refused)
