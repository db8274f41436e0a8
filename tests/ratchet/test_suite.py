"""A first suite comes from the lake, never over one that people edited."""

from pathlib import Path

import pyarrow as pa
import pytest

from blocks.common.errors import NotFound
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from ratchet.suite import propose
from tasks.shared.models import Model
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import parse_suite
from tests.front_door import ratchet
from tests.tasks.sampling.test_sampling import NOW, SPEC, append

ENGINE = DuckDBEngine.model_validate({})


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path, SPEC)


@pytest.fixture
def lake() -> FakeLake:
    lake = FakeLake()
    append(lake, 0, 500)
    return lake


def test_a_model_without_a_suite_gets_one_from_the_newest_data(model: Model, lake: FakeLake) -> None:
    append(lake, 500, 500)
    path = propose(model, lake, ENGINE)
    suite = parse_suite(path.read_text(), path.name)
    assert path == model.rules()
    assert suite.name == SPEC.name
    assert {"house_id", "price", "rooms", "street", "garden"} == set(suite.columns)
    assert f"1,000 rows ({SPEC.data.dataset} as of {lake.as_of(SPEC.data.dataset).id})" in path.read_text()


def test_an_edited_suite_stays_unless_it_is_forced(model: Model, lake: FakeLake) -> None:
    path = propose(model, lake, ENGINE)
    path.write_text("# edited by people\n")
    with pytest.raises(Refusal, match=r"expectations.yaml.*a suite already.*--force"):
        propose(model, lake, ENGINE)
    assert path.read_text() == "# edited by people\n"
    propose(model, lake, ENGINE, force=True)
    assert "minimum_rows" in path.read_text()


def test_without_data_or_with_a_column_missing_nothing_is_written(model: Model) -> None:
    with pytest.raises(NotFound):
        propose(model, FakeLake(), ENGINE)
    lake = FakeLake()
    lake.append(SPEC.data.dataset, pa.table({"house_id": ["h1"]}), source="test", key="k", at=NOW)
    with pytest.raises(Refusal, match=r"no such column.*'price'"):
        propose(model, lake, ENGINE)
    assert list(model.folder.iterdir()) == []


def test_the_command_says_what_is_wrong_and_ends_with_1() -> None:
    refused, unknown = ratchet("suite", "churn"), ratchet("suite", "chrun")
    assert refused.exit_code == 1 and "a suite already" in refused.stderr
    assert unknown.exit_code == 1 and "Did you mean 'churn'?" in unknown.stderr
