"""The commands of quarantine: rows are exported on a terminal; an error is one line and exit code 1."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.common.errors import NotFound
from blocks.lake.fake import FakeLake
from ratchet.commands.models import run_quarantine_command
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.command_line import ratchet

HOUSES = DataSpec(dataset="houses", entity="house", target="price", features={"street": "category"})


@pytest.fixture
def lake() -> FakeLake:
    lake, at = FakeLake(), datetime(2026, 11, 21, tzinfo=UTC)
    for number in (1, 2):
        row = {"position": ["line 3"], "reason": ["null target"], "key": ["h1"], "row": ["{}"]}
        notes = {"reasons": f"{number} null target"}
        lake.append("houses-quarantine", pa.table(row), source="a.csv", key=str(number), at=at, notes=notes)
    return lake


def test_what_was_set_aside_is_listed_with_its_reasons_newest_first(lake: FakeLake) -> None:
    newest, oldest = run_quarantine_command(lake, HOUSES, "", None).splitlines()
    assert newest.startswith("00000002-")
    assert oldest.endswith("1 rows of a.csv: 1 null target")
    assert run_quarantine_command(FakeLake(), HOUSES, "", None) == "houses-quarantine: no rows are in quarantine"


def test_a_snapshot_is_written_with_what_to_do_next(lake: FakeLake, tmp_path: Path) -> None:
    snapshot, file = lake.as_of("houses-quarantine").id, tmp_path / "corrected.csv"
    assert f"ingest it with redrive={snapshot}" in run_quarantine_command(lake, HOUSES, snapshot, file)
    assert len(file.read_text().splitlines()) == 2
    with pytest.raises(Refusal, match="exists already"):
        run_quarantine_command(lake, HOUSES, snapshot, file)
    with pytest.raises(Refusal, match="Name one: corrected.csv"):
        run_quarantine_command(lake, HOUSES, snapshot, None)
    with pytest.raises(NotFound):
        run_quarantine_command(lake, HOUSES, "00000009-00000000", tmp_path / "x.csv")


def test_the_command_says_what_is_wrong_and_ends_with_1() -> None:
    unknown, no_table = ratchet("quarantine", "chrun"), ratchet("quarantine", "churn", "--table", "weather")
    assert unknown.exit_code == no_table.exit_code == 1
    assert "Did you mean 'churn'?" in unknown.stderr
    assert "the model has no such table" in no_table.stderr
    assert unknown.stdout + no_table.stdout == ""
