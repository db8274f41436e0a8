"""Review attachments on the page (plot, intervals, slices, checks, data difference): those of the request, or none."""

import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from blocks.records.approvals import ApprovalRequest
from tasks.approval.requests import build_evidence
from tasks.approval.review_attachments import attachments_folder, store_review_attachments
from tasks.evaluation.rules.evaluation import record_json
from tasks.evaluation.rules.report import evaluation_plot
from tasks.shared.evaluation import evaluate_on_holdout
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.tiers import materialise
from tasks.validation.rules.parquet_rows import to_frame
from tests.fakes.environment import register
from tests.fixtures.approval_requests import request_over
from tests.fixtures.office import Office
from tests.fixtures.promoted import promoted
from tests.fixtures.sampled_rows import SPEC, append

pytestmark = pytest.mark.slow  # draws plots

HOSTILE = "# Checks\n\n| rule | found |\n|---|---|\n| <script>alert(1)</script> | [x](javascript:alert(1)) |\n"


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Office, ApprovalRequest, Path]:
    made = promoted(tmp_path)
    checked = made.checked.model_copy(update={"report_markdown": HOSTILE})
    digest = store_review_attachments(made.env, made.brought, made.data, checked, made.trained, made.judged)
    shown = build_evidence("price", "local", made.data, checked, made.trained, made.judged, attachments_digest=digest)
    office = Office.at(tmp_path / "desk", made.env)
    request = office.env.approvals().add_request(request_over(shown, id="shown"))
    return office, request, attachments_folder(made.env, "price", "1", digest)


def test_the_page_shows_plot_slices_checks_and_data(asked: tuple[Office, ApprovalRequest, Path]) -> None:
    office, request, _ = asked
    browser = office.signed_in()
    page = browser.get(f"/approvals/{request.id}").text
    assert "Data since the champion" in page
    assert "300 rows of" in page
    assert f'src="/approvals/{request.id}/plot.png"' in page
    picture = browser.get(f"/approvals/{request.id}/plot.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert office.client.get(f"/approvals/{request.id}/plot.png").status_code == 401
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert 'href="javascript' not in page
    assert 'name="verdict"' in page


def test_the_page_shows_the_note_of_the_backtests(tmp_path: Path) -> None:
    made, stored = promoted(tmp_path), tmp_path / "stored"
    stored.mkdir()
    (stored / "backtests.json").write_text('{"note": "auc 0.718 by entity and 0.608 by time <b>"}')
    made.env.tracking().log_files(made.trained.run_id, stored, artifact_folder="evaluation")
    digest = store_review_attachments(made.env, made.brought, made.data, made.checked, made.trained, made.judged)
    shown = build_evidence(
        "price", "local", made.data, made.checked, made.trained, made.judged, attachments_digest=digest
    )
    office = Office.at(tmp_path / "desk", made.env)
    request = office.env.approvals().add_request(request_over(shown, id="noted"))
    page = office.signed_in().get(f"/approvals/{request.id}").text
    assert "auc 0.718 by entity and 0.608 by time &lt;b&gt;" in page


def test_files_that_are_not_those_that_were_asked_about_are_not_shown(
    asked: tuple[Office, ApprovalRequest, Path],
) -> None:
    office, request, folder = asked
    (folder / "evaluation.json").write_text('{"slices": [], "comparison": null}')
    browser = office.signed_in()
    page = browser.get(f"/approvals/{request.id}").text
    assert "were changed after the request" in page
    assert "plot.png" not in page
    assert 'name="verdict"' not in page
    assert browser.get(f"/approvals/{request.id}/plot.png").status_code == 404


def test_where_the_files_are_not_at_hand_the_page_says_so(asked: tuple[Office, ApprovalRequest, Path]) -> None:
    office, request, folder = asked
    folder.rename(folder.with_name("elsewhere"))
    page = office.signed_in().get(f"/approvals/{request.id}").text
    assert "are not on this machine" in page
    assert 'name="verdict"' in page


def test_a_second_version_is_shown_against_the_champion_with_interval_and_what_is_new(tmp_path: Path) -> None:
    """Version 1 is deployed; 400 more houses were appended, and version 2, trained on all, is compared with it."""
    made = promoted(tmp_path)
    env, lake = made.env, made.env.lake()
    (env.evidence_folder / "price" / "1").mkdir(parents=True, exist_ok=True)
    made.pack.rename(env.evidence_folder / "price" / "1" / "pack")
    data = materialise(lake, DuckDBEngine(), append(lake, 300, 400), SPEC, "full", env.scratch)
    rows = to_frame(pq.read_table(data.holdout))
    said = rows["price"].to_numpy() + 1.0
    before = rows["price"].to_numpy() + np.linspace(-30, 30, len(rows))
    evaluation = evaluate_on_holdout(made.brought, data, rows, said, before, "1", seed=7)
    run = register(env, {"rooms": 2.0})
    with_plot = {"evaluation.json": record_json(evaluation).encode(), "evaluation.png": evaluation_plot(evaluation)}
    for name, content in with_plot.items():
        (tmp_path / "second").mkdir(exist_ok=True)
        (tmp_path / "second" / name).write_bytes(content)
    env.tracking().log_files(run.run_id, tmp_path / "second", artifact_folder="evaluation")
    trained = made.trained.model_copy(update={"version": "2", "run_id": run.run_id})
    judged = made.judged.model_copy(
        update={"champion_version": "1", "metrics": dict(evaluation.metrics),
                "champion_metrics": dict(evaluation.champion_metrics or {})}
    )  # fmt: skip
    digest = store_review_attachments(env, made.brought, data, made.checked, trained, judged)
    shown = build_evidence(
        "price",
        "local",
        data,
        made.checked,
        trained,
        judged,
        trigger_reason="drift of today",
        attachments_digest=digest,
    )
    rule = HoldoutRule("time", 0.2, gap_days=30.0, time="sold_at").text
    until, cut_off = "2026-09-01T00:00:00+00:00", "2026-10-01T00:00:00+00:00"
    shown = replace(shown, holdout_rule=rule, cut_off=cut_off, trained_until=until, compared_since=until)
    office = Office.at(tmp_path / "desk", env)
    request = env.approvals().add_request(request_over(shown, id="second"))
    page = " ".join(html.unescape(office.signed_in().get(f"/approvals/{request.id}").text).split())
    found = evaluation.comparison
    assert found is not None
    assert f"Against the champion: {found.outcome}" in page
    assert f"% interval {found.lower:+.4f} to {found.upper:+.4f}; margin {found.margin}" in page
    assert "holdout rule: newest 0.2 of the rows, after a gap of 30 days, by sold_at" in page
    assert f"cut-off: {cut_off}" in page
    assert f"trained on rows until: {until}" in page
    assert f"compared on: rows newer than {until}" in page
    assert "New snapshots since version 1:" in page
    assert '<td class="n">400</td>' in page
    assert "Change of 3 features" in page
    assert "mean 3.0" in page
    assert "triggered by drift of today" in page
