"""The command that proposes a first suite of expectations from the lake: it never overwrites an edited one."""

from pathlib import Path

import pyarrow as pa
import pytest

from blocks.common.errors import NotFound
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from ratchet.commands.models import propose_suite
from tasks.shared.models import TeamModel
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import parse_suite
from tests.fixtures.command_line import ratchet
from tests.fixtures.sampled_rows import NOW, SPEC, append

ENGINE = DuckDBEngine.model_validate({})


@pytest.fixture
def model(tmp_path: Path) -> TeamModel:
    return TeamModel(tmp_path, SPEC)


@pytest.fixture
def lake() -> FakeLake:
    lake = FakeLake()
    append(lake, 0, 500)
    return lake


def test_a_model_without_a_suite_gets_one_from_the_newest_data(model: TeamModel, lake: FakeLake) -> None:
    append(lake, 500, 500)
    path = propose_suite(model, lake, ENGINE)
    suite = parse_suite(path.read_text(), path.name)
    assert path == model.folder / "expectations.yaml"
    assert suite.name == SPEC.name
    assert {"house_id", "price", "rooms", "street", "garden"} == set(suite.columns)
    assert f"1,000 rows ({SPEC.data.dataset} as of {lake.as_of(SPEC.data.dataset).id})" in path.read_text()


def test_an_edited_suite_stays_unless_it_is_forced(model: TeamModel, lake: FakeLake) -> None:
    path = propose_suite(model, lake, ENGINE)
    path.write_text("# edited by people\n")
    with pytest.raises(Refusal, match=r"expectations.yaml.*a suite already.*--force"):
        propose_suite(model, lake, ENGINE)
    assert path.read_text() == "# edited by people\n"
    propose_suite(model, lake, ENGINE, force=True)
    assert "minimum_rows" in path.read_text()


def test_without_data_or_with_a_column_missing_nothing_is_written(model: TeamModel) -> None:
    with pytest.raises(NotFound):
        propose_suite(model, FakeLake(), ENGINE)
    lake = FakeLake()
    lake.append(SPEC.data.dataset, pa.table({"house_id": ["h1"]}), source="test", key="k", at=NOW)
    with pytest.raises(Refusal, match=r"no such column.*'price'"):
        propose_suite(model, lake, ENGINE)
    assert list(model.folder.iterdir()) == []


def test_the_command_says_what_is_wrong_and_ends_with_1() -> None:
    refused, unknown = ratchet("suite", "churn"), ratchet("suite", "chrun")
    assert refused.exit_code == 1 and "a suite already" in refused.stderr
    assert unknown.exit_code == 1 and "Did you mean 'churn'?" in unknown.stderr
