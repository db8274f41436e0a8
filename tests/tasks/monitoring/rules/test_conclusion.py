"""The conclusion of a monitoring run: one outcome and one sentence; a failed check never counts as no drift."""

import json
import math
from dataclasses import replace

import pytest

from tasks.evaluation.rules.evaluation import record_json
from tasks.monitoring.rules.columns import BinCounts, MonitoredColumn
from tasks.monitoring.rules.conclusion import conclude_monitoring
from tasks.monitoring.rules.drift import column_drifts, persistent_findings, window_findings
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.report import monitoring_markdown, monitoring_plot

COLUMN = MonitoredColumn("a|b", "category", values=("x", "y"))
THEN, NOW = {"a|b": BinCounts((500, 500, 0))}, {"a|b": BinCounts((100, 900, 0))}
RULES = MonitoringRules()
DRIFT = Finding("drift", "distribution", "rooms", "rooms differs.", 0.3, "critical", "rooms (PSI 0.30)")
BLIND = Finding("impossible", "schema", "street", "street is missing.", summary="street missing")
LABELS = Finding("drift", "labels", "price", "labels differ.", 0.2, "warning", "labels of price (PSI 0.20)")
WORSE = Finding("quality", "quality", "auc", "auc fell.", 0.1, "critical", "auc")


@pytest.mark.parametrize(
    ("findings", "outcome"),
    [
        ([BLIND], "not_checked"),
        ([BLIND, DRIFT], "drift"),
        ([DRIFT, WORSE, BLIND], "degraded"),
    ],
)
def test_the_worst_of_the_findings_names_the_outcome_and_none_is_lost(findings, outcome):
    said = conclude_monitoring("price", "1", findings)
    assert said.outcome == outcome
    assert set(said.findings) == set(findings)
    assert sum(len(said.findings_of(kind)) for kind in ("drift", "quality", "impossible")) == len(findings)


def test_nothing_compared_and_nothing_found_is_no_silence():
    with pytest.raises(ValueError, match="nothing was compared"):
        conclude_monitoring("price", "1", [])


def found_in(window):
    return window_findings(column_drifts([COLUMN], THEN, window, RULES), RULES)


def test_a_window_that_differs_is_found_and_one_too_small_is_not_judged():
    (found,) = found_in(NOW)
    assert (found.cause, found.column) == ("distribution", "a|b")
    assert "x 50% → 10%" in found.summary
    small = {"a|b": BinCounts((10, 90, 0))}
    assert found_in(small) == []


def test_what_is_found_in_one_window_of_three_does_not_last():
    assert persistent_findings([[DRIFT], [], []], RULES) == []
    assert [found.key for found in persistent_findings([[], [DRIFT], [DRIFT]], RULES)] == [DRIFT.key]
    assert persistent_findings([[DRIFT], [WORSE], []], RULES) == [], "two different findings are not one that lasts"


def test_the_sentence_counts_windows_for_those_findings_that_are_sought_in_each():
    (lasting,) = persistent_findings([[DRIFT], [DRIFT], []], RULES)
    said = conclude_monitoring("price", "1", [LABELS, lasting], rows=(500, 500, 500))
    assert said.sentence == (
        "Drift from the reference data of version 1: labels of price (PSI 0.20); rooms (PSI 0.30, in 2 of 3 windows)."
    )
    once = MonitoringRules(windows=1, min_breached_windows=1)
    assert persistent_findings([[DRIFT]], once) == [DRIFT], "one window is not counted"


def test_no_value_of_a_request_becomes_markup_of_the_report():
    bad = "<script>alert(1)</script> [x](http://y) ![z](http://y)"
    finding = replace(DRIFT, text=bad, summary=bad)
    report = monitoring_markdown(conclude_monitoring("price", "1", [finding]), RULES, where=bad, links={})
    assert "<script" not in report and "](http" not in report.replace("\\]", "")


def test_report_plot_and_json_hold_names_and_numbers_of_any_kind():
    compared = column_drifts([COLUMN], THEN, NOW, RULES)
    said = conclude_monitoring("price", "1", [DRIFT, BLIND], compared=compared, rows=(1000, 1000))
    report = monitoring_markdown(said, RULES, where="two windows", links={"run": "http://run"})
    assert said.sentence in report and "a&#124;b" in report and "[run](<http://run>)" in report
    picture = monitoring_plot(said, RULES)
    assert picture is not None and picture.startswith(b"\x89PNG")
    blind = conclude_monitoring("price", "1", [BLIND])
    assert monitoring_plot(blind, RULES) is None
    assert json.loads(record_json(blind))["findings"][0]["effect_size"] is None
    assert math.isnan(BLIND.effect_size)
