"""Evidence: one canonical text with one digest; any change of it changes the digest."""

import dataclasses
import re
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.approval.rules.evidence import (
    Evidence,
    ExpectationCounts,
    canonical_json,
    evidence_digest,
    parse_evidence,
    text_digest,
)
from tasks.approval.rules.request_page import request_markdown
from tasks.evaluation.rules.spending import SpentLevel
from tasks.shared.rules.refusal import Refusal

GOOD = Evidence(
    model="churn",
    environment="local",
    version="3",
    model_digest="a" * 64,
    commit="c0ffee" * 6,
    patch_digest="",
    tier="full",
    as_of="s2",
    data_digest="d" * 64,
    holdout_digest="e" * 64,
    parameters={"num_leaves": "8", "learning_rate": "0.04"},
    seed=7,
    expectations=ExpectationCounts(12, 0),
    metrics={"auc": 0.85, "brier": 0.12},
    champion_version="2",
    champion_metrics={"auc": 0.84, "brier": 0.11},
    verdict="pass",
    reasons=("auc is better by 0.0100",),
    cost_usd=None,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
GIVEN = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
METRICS = st.dictionaries(GIVEN, st.floats(allow_nan=False, allow_infinity=False), min_size=1)
LEVEL = st.floats(0, 1)
FIELDS = {
    **dict.fromkeys(
        ["model", "environment", "version", "model_digest", "commit", "tier", "as_of", "data_digest"], GIVEN
    ),
    "holdout_digest": GIVEN,
    "champion_version": GIVEN,
    "patch_digest": TEXT,
    "parameters": st.dictionaries(TEXT, TEXT),
    "seed": st.integers(),
    "expectations": st.builds(ExpectationCounts, st.integers(0), st.integers(0)),
    "metrics": METRICS,
    "champion_metrics": METRICS,
    "verdict": st.sampled_from(["pass", "hold", "inconclusive"]),
    "reasons": st.lists(TEXT).map(tuple),
    "failed_gates": st.lists(TEXT).map(tuple),
    "waivers": st.lists(TEXT).map(tuple),
    "cost_usd": st.none() | st.floats(0, 1e12),
    "serving_usd_month": st.none() | st.floats(0, 1e12),
    "trigger_reason": st.none() | GIVEN,
    "attachments_digest": st.none() | GIVEN,
    "spent_level": st.none() | st.builds(SpentLevel, st.integers(), GIVEN, LEVEL, LEVEL, LEVEL, TEXT),
    **dict.fromkeys(["holdout_rule", "cut_off", "trained_until", "compared_since"], st.none() | GIVEN),
}
ANY = st.builds(Evidence, **FIELDS)


def test_the_strategies_cover_every_field():
    assert set(FIELDS) == {field.name for field in dataclasses.fields(Evidence)}


@given(ANY)
def test_what_is_written_is_read_back_the_same(evidence):
    text = canonical_json(evidence)
    assert parse_evidence(text) == evidence
    assert canonical_json(parse_evidence(text)) == text
    assert text_digest(text) == evidence_digest(evidence)


@given(ANY, st.data())
def test_any_single_changed_field_changes_the_digest(evidence, data):
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    changed = dataclasses.replace(evidence, **{name: data.draw(FIELDS[name])})
    assert (evidence_digest(changed) == evidence_digest(evidence)) == (changed == evidence)


@given(st.data())
def test_any_single_changed_character_is_refused_or_changes_the_digest(data):
    text = canonical_json(GOOD)
    at = data.draw(st.integers(0, len(text) - 1))
    edited = text[:at] + data.draw(st.characters(exclude_categories=["Cs"])) + text[at + 1 :]
    try:
        evidence = parse_evidence(edited)
    except Refusal:
        return
    assert (evidence_digest(evidence) == evidence_digest(GOOD)) == (edited == text)


def test_the_digest_is_that_of_sorted_compact_json():
    assert canonical_json(GOOD).startswith('{"as_of":"s2","champion_metrics":{"auc":0.84,"brier":0.11},')
    assert re.fullmatch("[0-9a-f]{64}", evidence_digest(GOOD))
    backwards = dataclasses.replace(GOOD, metrics=dict(reversed(list(GOOD.metrics.items()))))
    assert evidence_digest(backwards) == evidence_digest(GOOD)


@pytest.mark.parametrize(
    "metrics",
    [{"auc": 1, "brier": 0.0}, {"auc": np.float64(1), "brier": -0.0}, MappingProxyType({"auc": 1.0, "brier": 0})],
    ids=["whole numbers", "numpy and minus zero", "another mapping"],
)
def test_equal_numbers_have_equal_digests(metrics):
    plain = dataclasses.replace(GOOD, metrics={"auc": 1.0, "brier": 0.0})
    assert evidence_digest(dataclasses.replace(GOOD, metrics=metrics)) == evidence_digest(plain)


REFUSED = {
    "nan metric": ({"metrics": {"auc": float("nan")}}, "evidence.metrics.auc"),
    "infinite metric": ({"metrics": {"auc": float("inf")}}, "evidence.metrics.auc"),
    "nan of the champion": ({"champion_metrics": {"auc": float("nan")}}, "evidence.champion_metrics.auc"),
    "nan cost": ({"cost_usd": float("nan")}, "evidence.cost_usd"),
    "negative cost": ({"cost_usd": -1.0}, "evidence.cost_usd"),
    "metric as text": ({"metrics": {"auc": "0.8"}}, "evidence.metrics.auc"),
    "metric is true": ({"metrics": {"auc": True}}, "evidence.metrics.auc"),
    "no metric": ({"metrics": {}}, "evidence.metrics"),
    "blank model": ({"model": ""}, "evidence.model"),
    "blank digest": ({"model_digest": ""}, "evidence.model_digest"),
    "blank holdout": ({"holdout_digest": ""}, "evidence.holdout_digest"),
    "unknown verdict": ({"verdict": "maybe"}, "evidence.verdict"),
    "reasons as a list": ({"reasons": ["a"]}, "evidence.reasons"),
    "number as a parameter": ({"parameters": {"a": 1}}, "evidence.parameters.a"),
    "seed as text": ({"seed": "7"}, "evidence.seed"),
    "negative checks": ({"expectations": ExpectationCounts(-1, 0)}, "evidence.expectations.passed"),
    "champion without metrics": ({"champion_metrics": {}}, "evidence.champion_metrics"),
    "metrics of no champion": ({"champion_version": ""}, "evidence.champion_metrics"),
    "half a character": ({"commit": "\ud800"}, "evidence.commit"),
    "half a character in a name": ({"parameters": {"\ud800": ""}}, "evidence"),
}


@pytest.mark.parametrize(("change", "place"), REFUSED.values(), ids=REFUSED)
def test_evidence_that_proves_nothing_has_no_digest(change, place):
    with pytest.raises(Refusal, match=rf"^{re.escape(place)}: "):
        evidence_digest(dataclasses.replace(GOOD, **change))


def test_a_hold_may_have_no_metrics():
    held = dataclasses.replace(GOOD, verdict="hold", metrics={}, champion_metrics={})
    assert parse_evidence(canonical_json(held)) == held


def test_a_first_model_has_no_champion():
    first = dataclasses.replace(GOOD, champion_version="", champion_metrics={})
    assert parse_evidence(canonical_json(first)) == first


TEXTS = {
    "nothing": ("", "is not JSON"),
    "list": ("[]", "not a JSON object"),
    "no keys": ("{}", "missing or unknown keys: as_of"),
    "deep": ("[" * 100_000, "is not JSON"),
    "trailing space": (canonical_json(GOOD) + " ", "edited"),
    "key twice": (canonical_json(GOOD).replace('"seed":7', '"seed":7,"seed":7'), "edited"),
    "other order": ('{"seed":7,' + canonical_json(GOOD)[1:].replace('"seed":7,', ""), "edited"),
    "escaped letter": (canonical_json(GOOD).replace("churn", "chur\\u006e"), "edited"),
    "unknown key": (canonical_json(GOOD).replace('{"as_of"', '{"a":1,"as_of"'), "unknown keys: a"),
    "NaN": (canonical_json(GOOD).replace("0.85", "NaN"), "finite"),
    "null checks": (canonical_json(GOOD).replace('{"failed":0,"passed":12}', "null"), "malformed"),
    "edited level": (canonical_json(GOOD)[:-1] + ',"spent_level":{"level":1}}', "malformed"),
    "unknown check": (canonical_json(GOOD).replace('"failed":0', '"failing":0'), "malformed"),
}


@pytest.mark.parametrize(("text", "says"), TEXTS.values(), ids=TEXTS)
def test_text_that_is_not_canonical_is_refused(text, says):
    with pytest.raises(Refusal, match=says):
        parse_evidence(text)


def shown(evidence=GOOD, requested_by="ann"):
    until = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
    return request_markdown(evidence, requested_by=requested_by, expires_at=until, digest=evidence_digest(evidence))


def test_the_request_shows_what_a_person_needs_to_decide():
    page = shown()
    assert page.startswith("# Approve churn version 3 for local?")
    assert "Requested by **ann**. Expires on 2026-11-28 at 09:30 UTC." in page
    assert "## Verdict: ✅ pass\n\n- auc is better by 0.0100" in page
    assert "| metric | challenger 3 | champion 2 | difference |\n| --- | --: | --: | --: |\n" in page
    assert "| auc | 0.8500 | 0.8400 | +0.0100 better |" in page
    assert "| brier | 0.1200 | 0.1100 | +0.0100 worse |" in page
    assert "| commit | c0ffeec0ffee, clean |" in page
    assert "| expectations | 12 passed, 0 failed |" in page
    assert "| cost | none (no paid work) |" in page
    assert "| learning_rate | 0.04 |" in page
    assert evidence_digest(GOOD) in page
    assert "make approve" in page and "make reject" in page and "*Resume*" in page


def test_the_request_of_a_first_model_from_a_changed_checkout_says_so():
    first = dataclasses.replace(GOOD, champion_version="", champion_metrics={}, patch_digest="f" * 64, cost_usd=3.456)
    page = shown(first)
    assert "| metric | challenger 3 | champion (none yet) | difference |" in page
    assert "| auc | 0.8500 | – | – |" in page
    assert "uncommitted changes (ffffffffffff)" in page
    assert "| cost | 3.46 USD |" in page
    assert "| worst-case cost of serving | none (no paid work) |" in page


DEAR = dataclasses.replace(GOOD, serving_usd_month=83.95)
ASKED = dataclasses.replace(GOOD, trigger_reason="drift of 2026-11-25: plan (new: '<b>', 3.0%).")
SPENT = dataclasses.replace(GOOD, spent_level=SpentLevel(14, "2", 0.0021, 0.031, 0.05))


def test_the_state_of_the_error_budget_is_shown():
    line = "It is comparison 14 with champion 2, at a level of 0.21 %; the levels of 365 days sum to 3.1 %"
    assert f"| comparison | {line}, of an error budget of 5 %. |" in shown(SPENT)


def test_what_serving_may_cost_is_shown():
    assert "| worst-case cost of serving | 83.95 USD a month |" in shown(DEAR)


def test_what_asked_for_it_is_shown():
    by = "Requested by **automation: model.drift.detected**: drift of 2026-11-25: plan (new: '&lt;b&gt;', 3.0%). Expires on"
    assert by in shown(ASKED, requested_by="automation: model.drift.detected")


@pytest.mark.parametrize("more", [DEAR, ASKED, SPENT], ids=["what serving may cost", "what asked for it", "budget"])
def test_what_is_shown_is_part_of_what_is_approved(more):
    assert evidence_digest(more) != evidence_digest(GOOD)


@pytest.mark.parametrize("name", ["serving_usd_month", "trigger_reason", "spent_level"])
def test_the_text_of_evidence_without_it_stays_what_it_was_before_it_was_known(name):
    assert name not in canonical_json(GOOD)


def test_a_cost_of_serving_that_is_null_is_not_the_canonical_form():
    with pytest.raises(Refusal, match="canonical form"):
        parse_evidence(canonical_json(DEAR).replace("83.95", "null"))


def test_a_metric_of_one_side_alone_and_an_unknown_one_are_shown():
    odd = dataclasses.replace(GOOD, metrics={"gain": 2.0}, champion_metrics={"gain": 1.0, "auc": 0.8})
    page = shown(odd)
    assert "| auc | – | 0.8000 | – |" in page
    assert "| gain | 2.0000 | 1.0000 | +1.0000 |" in page


HOSTILE = {
    "html": ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
    "entity": ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
    "cell": ("a|b", "a&#124;b"),
    "escaped cell": (r"a\|b", r"a\\&#124;b"),
    "link": ("[ok](http://x)", r"\[ok\](http&#58;//x)"),
    "bold": ("**pass**", r"\*\*pass\*\*"),
    "heading on a new line": ("x\n\n# pass", r"x \# pass"),
    "code": ("`x`", r"\`x\`"),
    "reversed text": ("a\u202eb", r"a\\u202eb"),
    "emphasis": ("_x_", r"\_x\_"),
    "name with underscores": ("num_leaves", "num_leaves"),
}


@pytest.mark.parametrize(("value", "safe"), HOSTILE.values(), ids=HOSTILE)
def test_values_are_shown_letter_by_letter_and_cannot_forge_the_page(value, safe):
    hostile = dataclasses.replace(GOOD, reasons=(value,), parameters={value: value})
    page = shown(hostile, requested_by=value)
    assert f"Requested by **{safe}**." in page
    assert f"\n- {safe}\n" in page
    assert f"| {safe} | {safe} |" in page


@given(ANY)
def test_every_evidence_has_a_page_with_as_many_cells_as_columns(evidence):
    page = shown(evidence)
    for line in page.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) in {3, 5}
    assert "<" not in page


def test_the_request_shows_the_holdout_rule_and_its_times():
    rule = '{"by": "time", "gap_days": 30.0, "share": 0.2, "time": "sold_at"}'
    times = {"cut_off": "2026-10-01", "trained_until": "2026-09-01", "compared_since": "2026-09-15"}
    page = shown(dataclasses.replace(GOOD, holdout_rule=rule, **times))
    assert "| holdout rule | newest 0.2 of the rows, after a gap of 30 days, by sold_at |" in page
    assert "| cut-off | 2026-10-01 |" in page
    assert "| trained on rows until | 2026-09-01 |" in page
    assert "| compared on | rows newer than 2026-09-15 |" in page
    assert "holdout rule" not in shown(GOOD), "evidence of an earlier release"
