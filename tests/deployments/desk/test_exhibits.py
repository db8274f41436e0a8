"""Plot, intervals, slices, checks and data difference on the page: those that were asked about, or none."""

from pathlib import Path

import pytest

from blocks.ledger.base import ApprovalRequest
from tasks.approve import gather
from tasks.exhibits import exhibits_folder, keep_exhibits
from tasks.logic.approve.evidence import canonical_json, evidence_digest
from tests.deployments.desk.office import Office
from tests.promoted import promoted
from tests.tasks.test_approve import request_over

HOSTILE = "# Checks\n\n| rule | found |\n|---|---|\n| <script>alert(1)</script> | [x](javascript:alert(1)) |\n"


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Office, ApprovalRequest, Path]:
    made = promoted(tmp_path)
    checked = made.checked.model_copy(update={"report": HOSTILE})
    digest = keep_exhibits(made.world, made.brought, made.data, checked, made.trained, made.judged)
    shown = gather("price", "local", made.data, checked, made.trained, made.judged, exhibits=digest)
    office = Office.at(tmp_path / "desk", made.world)
    request = office.world.ledger().request_approval(
        request_over(shown, id="shown", digest=evidence_digest(shown), evidence=canonical_json(shown))
    )
    return office, request, exhibits_folder(made.world, "price", "1", digest)


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


def test_files_that_are_not_those_that_were_asked_about_are_not_shown(
    asked: tuple[Office, ApprovalRequest, Path],
) -> None:
    office, request, folder = asked
    (folder / "evaluation.json").write_text('{"slices": [], "comparison": null}')
    browser = office.signed_in()
    page = browser.get(f"/approvals/{request.id}").text
    assert "are not those that were asked about" in page
    assert "plot.png" not in page
    assert 'name="verdict"' not in page
    assert browser.get(f"/approvals/{request.id}/plot.png").status_code == 404


def test_where_the_files_are_not_at_hand_the_page_says_so(asked: tuple[Office, ApprovalRequest, Path]) -> None:
    office, request, folder = asked
    folder.rename(folder.with_name("elsewhere"))
    page = office.signed_in().get(f"/approvals/{request.id}").text
    assert "are not on this machine" in page
    assert 'name="verdict"' in page
