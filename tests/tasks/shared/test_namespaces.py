"""Two namespaces of one model share the data, its code and its budget, and nothing that either of them makes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.approvals.base import ApprovalRequest
from blocks.common.collectable import Keeper
from blocks.common.errors import Rejected
from blocks.common.trust import ApprovalRule, ApprovalRules
from blocks.endpoints.base import Golden, Release
from blocks.endpoints.sagemaker_requests import endpoint_name, release_name
from blocks.endpoints.sagemaker_store import Kept
from blocks.endpoints.store import check_names
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.schemas import check_dataset
from blocks.trainers.jobs import NAME
from runtime.digests import folder_digest
from tasks.approval.rules.evidence import canonical_json
from tasks.batch.input import of_source
from tasks.batch.scoring import add_predictions
from tasks.cleanup.garbage import keepers, make_plan, remove
from tasks.cleanup.maintenance import data_sets
from tasks.cleanup.rules.maintenance.maintenance import datasets_of
from tasks.evidence.reproduction import promoted
from tasks.ingestion.landing import land_frame, landing_of
from tasks.monitoring.rules.requests import dataset_of
from tasks.release.deployment import put_into_service, still_approved
from tasks.sampling.publishing import kept_back
from tasks.shared.cost import make_bill
from tasks.shared.models import Model
from tasks.shared.namespaces import check_allowed, family, known_models
from tasks.shared.records import Provenance, TierData
from tasks.shared.rules.cost.spent import COST
from tasks.shared.rules.model.namespaces import check_name
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import materialise
from tasks.shared.trust import environment_policy
from tasks.training.jobs import job_name, open_run, version_tags
from tests.blocks.test_sagemaker_endpoints import HOSTING
from tests.tasks.approval.test_requests import evidence
from tests.tasks.batch import scoring
from tests.tasks.batch.scoring import DATA, HOUSES, as_csv, folder_of
from tests.tasks.release.test_deployment import approved
from tests.tasks.sampling.test_sampling import append
from tests.tasks.shared.test_champion import NOW, SPEC, World
from tests.tasks.shared.test_cost import PRICES, paid_trainer

GOLDEN = Golden('{"instances": [1]}', "[0.75]")
MADE_BY = Provenance(commit="c" * 40, patch_digest="")
DANA, MAX = "price--dana", "price--max"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a checkout that holds the model `price`."""
    (tmp_path / "checkout" / "models" / "price").mkdir(parents=True)
    (tmp_path / "checkout" / "models" / "price" / "model.yaml").write_text("name: price\n")
    return tmp_path / "checkout"


def brought(name: str) -> Model:
    return Model(Path("models/price"), SPEC.model_copy(update={"name": name}))


def train_and_deploy(world: World, name: str, data: TierData, weight: float) -> str:
    """Train, register, ask for approval and deploy under this name, as `retrain` does; return the version."""
    tracking = world.tracking()
    run = open_run(tracking, brought(name), data, MADE_BY, {"seed": "7"}, key="flow:train")
    tracking.log_model(run.id, {"rooms": weight})
    tracking.close_run(run.id, "FINISHED")
    made = tracking.register(name, run.id, key="flow:train", tags=version_tags(brought(name), data, MADE_BY))
    artifact = tracking.fetch(name, made.version, world.scratch / "models" / name / made.version)
    request = world.approvals().request_approval(request_of(name, made.version))
    release = Release(name, made.version, artifact, folder_digest(artifact), GOLDEN)
    put_into_service(world, request, release, "")
    return made.version


def request_of(name: str, version: str) -> ApprovalRequest:
    return ApprovalRequest(
        f"{name}-{version}", name, "local", version, "d" * 64,
        canonical_json(replace(evidence(), model=name, version=version)),
        "dana@example.com", NOW, NOW + timedelta(days=1), "",
    )  # fmt: skip


@pytest.fixture
def both(world: World) -> World:
    """Return a world in which both namespaces have trained on the same data, under the same keys, and serve."""
    reads = append(world.lake(), 0, 300)
    for name, weight in ((DANA, 1.0), (MAX, 2.0)):
        data = materialise(world.lake(), DuckDBEngine(), reads, brought(name).spec, "production", world.scratch)
        train_and_deploy(world, name, data, weight)
    return world


def test_two_namespaces_share_no_run_version_endpoint_line_request_or_tier(both: World) -> None:
    tracking, effects, endpoint = both.tracking(), both.effects(), both.endpoint()
    assert tracking.experiments() == (DANA, MAX)
    runs = {name: tracking.runs(name)[0] for name in (DANA, MAX)}
    assert len({run.id for run in runs.values()}) == 2, "although their key is the same"
    for name in (DANA, MAX):
        assert [(each.version, each.run_id, each.aliases) for each in tracking.versions(name)] == [
            ("1", runs[name].id, ("champion",))
        ]
        serving = endpoint.serving(name)
        assert serving is not None and serving.version == "1"
        assert [(line.model, line.version) for line in effects.deployments(name, "local")] == [(name, "1")]
        assert [each.id for each in both.approvals().open_requests(name)] == [f"{name}-1"]
    digests = {name: folder_digest(both.scratch / "models" / name / "1" / "model") for name in (DANA, MAX)}
    assert len(set(digests.values())) == 2, "each serves its own"
    tiers = {name: {path.name for path in (both.scratch / "tiers" / name).iterdir()} for name in (DANA, MAX)}
    assert tiers[DANA] == tiers[MAX] and len(tiers[DANA]) == 1, "the same rows, each with files of its own"
    assert effects.deployments("price", "local") == () and endpoint.serving("price") is None
    assert tracking.runs("price") == () and tracking.versions("price") == ()
    assert both.lake().datasets() == ("houses",), "the data is there once"


def test_loops_over_all_models_know_those_in_namespaces(both: World, root: Path) -> None:
    both.tracking().open_run("notes--of-mine", key="k", name="not ours")
    assert known_models(both, root) == ["price", DANA, MAX]
    assert family(both, DANA) == family(both, "price") == ["price", DANA, MAX]
    assert family(both, "price--new") == ["price", DANA, MAX, "price--new"]


def test_a_namespace_whose_experiment_is_gone_is_known_by_what_it_serves(both: World, root: Path) -> None:
    for run in both.tracking().runs(DANA):
        both.tracking().discard(f"run:{run.id}")
    assert DANA not in both.tracking().experiments()
    assert DANA in known_models(both, root)


def test_a_sweep_goes_over_namespaces_and_keeps_what_they_serve(both: World, root: Path) -> None:
    tracking, later = both.tracking(), datetime(2100, 1, 1, tzinfo=UTC)
    forgotten = open_run(tracking, brought("price--gone"), data_of(both), MADE_BY, {"seed": "7"}, key="other:train")
    tracking.close_run(forgotten.id, "FINISHED")
    (both.scratch / "tiers" / "price--gone" / "0123").mkdir(parents=True)
    planned = make_plan(both, keepers(both, Keeper()), known_models(both, root), timedelta(days=30), later)
    keys = {each.key for each in planned.remove}
    assert {f"run:{forgotten.id}", "tier:price--gone/0123"} <= keys
    assert not {key for key in keys if key.startswith((f"version:{DANA}", f"release:{DANA}", f"run:{run_of(both)}"))}
    remove(planned, planned, keepers(both, Keeper()))
    serving = both.endpoint().serving(DANA)
    assert serving is not None and tracking.version(DANA, "@champion") is not None


def data_of(world: World) -> TierData:
    reads = append(world.lake(), 0, 300)
    return materialise(world.lake(), DuckDBEngine(), reads, SPEC, "production", world.scratch)


def run_of(world: World) -> str:
    return str(world.tracking().runs(DANA)[0].id)


def test_what_serves_in_a_namespace_is_reproduced_as_all_else(both: World) -> None:
    assert promoted(both, DANA) == [(DANA, "1")]


def test_a_namespace_writes_into_data_sets_of_its_own() -> None:
    own, shared = brought(DANA).spec, SPEC
    assert (shared.own_dataset("predictions"), dataset_of(shared)) == ("houses-predictions", "houses-inference")
    assert (own.own_dataset("predictions"), dataset_of(own)) == ("price--dana-predictions", "price--dana-inference")
    there = ["houses", "houses-predictions", "price--dana-predictions", "price--max-predictions"]
    assert "price--dana-predictions" in data_sets(own, there) and "price--max-predictions" not in data_sets(own, there)
    assert data_sets(shared, there) == datasets_of(shared.data, there) == ["houses", "houses-predictions"]


def test_version_1_of_a_namespace_never_answers_for_version_1_of_another(world: World, tmp_path: Path) -> None:
    rows = of_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    shared, dana = scoring.made(tmp_path / "shared"), scoring.made(tmp_path / "dana")
    kept = scoring.score(world.lake(), shared, rows, tmp_path / "work")
    own = brought(DANA).spec.own_dataset("predictions")
    work = folder_of(tmp_path, "again")
    hers = add_predictions(world.lake(), rows, dana, scoring.right, work, dataset=own)
    assert (kept.dataset, hers.dataset) == ("houses-predictions", "price--dana-predictions")
    assert hers.rows == len(HOUSES), "they were predicted, and not found under the same rows and version"
    assert len(world.lake().as_of("houses-predictions").snapshots) == 1


def test_a_namespace_lands_no_rows_and_publishes_none() -> None:
    with pytest.raises(Refusal, match=r"which is shared.*churn--dana.*model=churn"):
        landing_of("churn--dana", "")
    with pytest.raises(Refusal, match="only reads the data"):
        land_frame("churn--dana", None, environment="nowhere")  # type: ignore[arg-type]
    published = SPEC.model_copy(update={"data": SPEC.data.model_copy(update={"publish": "features"})})
    assert kept_back(published) == ""
    assert "features is published by price alone" in kept_back(published.model_copy(update={"name": DANA}))


def test_another_namespace_is_no_other_budget(world: World) -> None:
    for name, usd in (("price", 1.0), (DANA, 2.0), (MAX, 4.0), ("other--dana", 8.0)):
        run = world.tracking().open_run(name, key="k", name="train")
        world.tracking().log(run.id, metrics={COST: usd})
        world.tracking().close_run(run.id, "FINISHED")
    for name in ("price", DANA, "price--new"):
        assert make_bill(world, brought(name), paid_trainer(world), PRICES, NOW).month_to_date_usd == 7.0


def test_a_namespace_is_no_way_around_the_rules_for_approvals(world: World) -> None:
    rules = ApprovalRules(approvals=1, models={"price": ApprovalRule(approvals=3), MAX: ApprovalRule(approvals=4)})
    world.approval = rules
    asked = {name: environment_policy(world, name).approvals for name in ("price", DANA, MAX, "other--dana")}
    assert asked == {"price": 3, DANA: 3, MAX: 4, "other--dana": 1}


def test_an_environment_has_no_namespaces_unless_its_file_says_so(world: World) -> None:
    check_allowed(world, "price")
    with pytest.raises(Refusal, match=r"(?s)local has no namespaces.*price--dana.*namespaces = true"):
        check_allowed(world, DANA)
    shown = replace(evidence(), model=DANA)
    request = approved(world, shown, id=f"{DANA}-2")
    with pytest.raises(Refusal, match="has no namespaces"):
        still_approved(world, request, "1", begun=None, now=NOW)
    world.namespaces = True
    check_allowed(world, DANA)
    assert still_approved(world, request, "1", begun=None, now=NOW) == shown


@pytest.mark.parametrize(
    "name",
    [DANA, "m" * 25 + "--" + "n" * 24, "m" * 48 + "--n", "my_model--fix-12"],
    ids=["short", "both", "model", "_"],
)
def test_a_model_in_a_namespace_has_a_name_that_fits_everywhere(name: str) -> None:
    check_name(name)
    check_names(name, "1")
    for external in (job_name(name, "0123456789abcdef"), endpoint_name(name)):
        assert NAME.fullmatch(external) and len(external) <= 63, "SageMaker takes it"
    assert NAME.fullmatch(release_name(Kept(name, "12", "d" * 64, GOLDEN, "s3://b/k"), HOSTING))
    for kind in ("predictions", "inference", "watch"):
        check_dataset(brought(name).spec.own_dataset(kind))


def test_a_name_that_no_endpoint_can_have_is_refused() -> None:
    for name in ("a---b", "-a", "a" * 64, "a/b", "a--"):
        with pytest.raises(Rejected, match="endpoint name"):
            check_names(name, "1")
