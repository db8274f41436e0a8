"""Namespaces of one model: they share data, code and budget, and none of their runs, versions and approvals."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.common.collectable import ArtifactOwner
from blocks.common.errors import Rejected
from blocks.common.jobs import NAME_PATTERN
from blocks.common.trust import ApprovalSettings, RequiredApproval
from blocks.endpoints.base import GoldenExample, Release
from blocks.endpoints.release_store import check_names
from blocks.endpoints.sagemaker_release_store import StoredRelease
from blocks.endpoints.sagemaker_requests import endpoint_name, release_name
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.schemas import check_dataset
from blocks.records.approvals import ApprovalRequest
from ratchet.frames import ingest_frame
from runtime.digests import folder_digest
from tasks.approval.rules.evidence import canonical_json
from tasks.batch.tasks import append_predictions
from tasks.cleanup.garbage import artifact_owners, plan_removals, remove_planned
from tasks.cleanup.maintenance import model_datasets
from tasks.cleanup.rules.maintenance import model_dataset_names
from tasks.evidence.reproduction import versions_to_reproduce
from tasks.ingestion.datasets import ingest_schema
from tasks.monitoring.rules.requests import inference_dataset
from tasks.release.deployment import switch_and_record, verify_approval
from tasks.sampling.tasks import reason_not_published
from tasks.shared.cost import worst_case_costs
from tasks.shared.models import TeamModel, check_namespace_allowed, known_models, load_model, model_with_namespaces
from tasks.shared.records import CodeProvenance, TierData
from tasks.shared.rules.cost.spent import COST_METRIC
from tasks.shared.rules.model.namespaces import check_name
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import materialise
from tasks.shared.trust import environment_policy
from tasks.training.jobs import open_training_run, training_job_name, version_tags
from tests.fakes.environment import NOW, SPEC, World
from tests.fixtures import batch_scoring as scoring
from tests.fixtures.approval_requests import evidence
from tests.fixtures.approved_releases import approved
from tests.fixtures.batch_scoring import DATA, HOUSES, as_csv, folder_of
from tests.fixtures.costs import PRICES, paid_trainer
from tests.fixtures.sagemaker_endpoints import HOSTING
from tests.fixtures.sampled_rows import append
from tests.fixtures.sources import input_from_source

GOLDEN = GoldenExample('{"instances": [1]}', "[0.75]")
MADE_BY = CodeProvenance(commit="c" * 40, patch_digest="")
DANA, MAX = "price--dana", "price--max"


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a checkout that holds the model `price`."""
    (tmp_path / "checkout" / "models" / "price").mkdir(parents=True)
    (tmp_path / "checkout" / "models" / "price" / "model.yaml").write_text("name: price\n")
    return tmp_path / "checkout"


def brought(name: str) -> TeamModel:
    return TeamModel(Path("models/price"), SPEC.model_copy(update={"name": name}))


def train_and_deploy(env: World, name: str, data: TierData, weight: float) -> str:
    """Train, register, request approval and deploy under this name, as `retrain` does; return the version."""
    tracking = env.tracking()
    run = open_training_run(tracking, brought(name), data, MADE_BY, {"seed": "7"}, key="flow:train")
    tracking.log_model(run.id, {"rooms": weight})
    tracking.close_run(run.id, "FINISHED")
    made = tracking.register(name, run.id, key="flow:train", tags=version_tags(data, MADE_BY))
    artifact = tracking.fetch_model(name, made.version, env.scratch / "models" / name / made.version)
    request = env.approvals().add_request(request_of(name, made.version))
    release = Release(name, made.version, artifact, folder_digest(artifact), GOLDEN)
    switch_and_record(env, request, release, "")
    return made.version


def request_of(name: str, version: str) -> ApprovalRequest:
    return ApprovalRequest(
        f"{name}-{version}", name, "local", version, "d" * 64,
        canonical_json(replace(evidence(), model=name, version=version)),
        "dana@example.com", NOW, NOW + timedelta(days=1), "",
    )  # fmt: skip


@pytest.fixture
def both(env: World) -> World:
    """Return an environment in which both namespaces have trained and deployed, with the same data and keys."""
    reads = append(env.lake(), 0, 300)
    for name, weight in ((DANA, 1.0), (MAX, 2.0)):
        data = materialise(env.lake(), DuckDBEngine(), reads, brought(name).spec, "full", env.scratch)
        train_and_deploy(env, name, data, weight)
    return env


def test_two_namespaces_share_no_run_version_endpoint_line_request_or_tier(both: World) -> None:
    tracking, effects, endpoint = both.tracking(), both.effects(), both.endpoint()
    assert tracking.experiments() == (DANA, MAX)
    runs = {name: tracking.runs(name)[0] for name in (DANA, MAX)}
    assert len({run.id for run in runs.values()}) == 2, "although their key is the same"
    for name in (DANA, MAX):
        assert [(each.version, each.run_id, each.aliases) for each in tracking.versions(name)] == [
            ("1", runs[name].id, ("champion",))
        ]
        serving = endpoint.live_version(name)
        assert serving is not None and serving.version == "1"
        assert [(line.model, line.version) for line in effects.deployments(name, "local")] == [(name, "1")]
        assert [each.id for each in both.approvals().open_requests(name)] == [f"{name}-1"]
    digests = {name: folder_digest(both.scratch / "models" / name / "1" / "model") for name in (DANA, MAX)}
    assert len(set(digests.values())) == 2, "each serves its own"
    tiers = {name: {path.name for path in (both.scratch / "tiers" / name).iterdir()} for name in (DANA, MAX)}
    assert tiers[DANA] == tiers[MAX] and len(tiers[DANA]) == 1, "the same rows, each with files of its own"
    assert effects.deployments("price", "local") == () and endpoint.live_version("price") is None
    assert tracking.runs("price") == () and tracking.versions("price") == ()
    assert both.lake().datasets() == ("houses",), "the data is there once"


def test_loops_over_all_models_know_those_in_namespaces(both: World, root: Path) -> None:
    both.tracking().open_run("notes--of-mine", key="k", name="not ours")
    assert known_models(both, root) == ["price", DANA, MAX]
    assert model_with_namespaces(both, DANA) == model_with_namespaces(both, "price") == ["price", DANA, MAX]
    assert model_with_namespaces(both, "price--new") == ["price", DANA, MAX, "price--new"]


def test_a_namespace_whose_experiment_is_gone_is_known_by_what_it_serves(both: World, root: Path) -> None:
    for run in both.tracking().runs(DANA):
        both.tracking().delete_collectables(f"run:{run.id}")
    assert DANA not in both.tracking().experiments()
    assert DANA in known_models(both, root)


def test_a_sweep_goes_over_namespaces_and_keeps_what_they_serve(both: World, root: Path) -> None:
    tracking, later = both.tracking(), datetime(2100, 1, 1, tzinfo=UTC)
    forgotten = open_training_run(
        tracking, brought("price--gone"), data_of(both), MADE_BY, {"seed": "7"}, key="other:train"
    )
    tracking.close_run(forgotten.id, "FINISHED")
    (both.scratch / "tiers" / "price--gone" / "0123").mkdir(parents=True)
    planned = plan_removals(
        both, artifact_owners(both, ArtifactOwner()), known_models(both, root), timedelta(days=30), later
    )
    keys = {each.key for each in planned.remove}
    assert {f"run:{forgotten.id}", "tier:price--gone/0123"} <= keys
    assert not {key for key in keys if key.startswith((f"version:{DANA}", f"release:{DANA}", f"run:{run_of(both)}"))}
    remove_planned(planned, planned, artifact_owners(both, ArtifactOwner()))
    serving = both.endpoint().live_version(DANA)
    assert serving is not None and tracking.version(DANA, "@champion") is not None


def data_of(env: World) -> TierData:
    reads = append(env.lake(), 0, 300)
    return materialise(env.lake(), DuckDBEngine(), reads, SPEC, "full", env.scratch)


def run_of(env: World) -> str:
    return str(env.tracking().runs(DANA)[0].id)


def test_what_serves_in_a_namespace_is_reproduced_as_all_else(both: World) -> None:
    assert versions_to_reproduce(both, DANA) == [(DANA, "1")]


def test_a_namespace_writes_into_data_sets_of_its_own() -> None:
    own, shared = brought(DANA).spec, SPEC
    assert (shared.own_dataset("predictions"), inference_dataset(shared)) == ("houses-predictions", "houses-inference")
    assert (own.own_dataset("predictions"), inference_dataset(own)) == (
        "price--dana-predictions",
        "price--dana-inference",
    )
    there = ["houses", "houses-predictions", "price--dana-predictions", "price--max-predictions"]
    assert "price--dana-predictions" in model_datasets(own, there) and "price--max-predictions" not in model_datasets(
        own, there
    )
    assert model_datasets(shared, there) == model_dataset_names(shared.data, there) == ["houses", "houses-predictions"]


def test_version_1_of_a_namespace_never_answers_for_version_1_of_another(env: World, tmp_path: Path) -> None:
    rows = input_from_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    shared, dana = scoring.made(tmp_path / "shared"), scoring.made(tmp_path / "dana")
    kept = scoring.score(env.lake(), shared, rows, tmp_path / "work")
    own = brought(DANA).spec.own_dataset("predictions")
    work = folder_of(tmp_path, "again")
    hers = append_predictions(env.lake(), rows, dana, scoring.right, work, dataset=own)
    assert (kept.dataset, hers.dataset) == ("houses-predictions", "price--dana-predictions")
    assert hers.rows == len(HOUSES), "they were predicted, and not found under the same rows and version"
    assert len(env.lake().as_of("houses-predictions").snapshots) == 1


def test_a_namespace_lands_no_rows_and_publishes_none() -> None:
    with pytest.raises(Refusal, match=r"which is shared.*churn--dana.*model=churn"):
        ingest_schema(load_model("churn--dana"), "")
    with pytest.raises(Refusal, match="only reads the data"):
        ingest_frame("churn--dana", None, environment="nowhere")  # type: ignore[arg-type]
    published = SPEC.model_copy(update={"data": SPEC.data.model_copy(update={"publish": "features"})})
    assert reason_not_published(published) == ""
    assert "features is published by price alone" in reason_not_published(published.model_copy(update={"name": DANA}))


def test_another_namespace_is_no_other_budget(env: World) -> None:
    for name, usd in (("price", 1.0), (DANA, 2.0), (MAX, 4.0), ("other--dana", 8.0)):
        run = env.tracking().open_run(name, key="k", name="train")
        env.tracking().log(run.id, metrics={COST_METRIC: usd})
        env.tracking().close_run(run.id, "FINISHED")
    for name in ("price", DANA, "price--new"):
        assert worst_case_costs(env, brought(name), paid_trainer(env), PRICES, NOW).month_to_date_usd == 7.0


def test_a_namespace_is_no_way_around_the_rules_for_approvals(env: World) -> None:
    rules = ApprovalSettings(
        approvals=1, models={"price": RequiredApproval(approvals=3), MAX: RequiredApproval(approvals=4)}
    )
    env.approval = rules
    asked = {name: environment_policy(env, name).approvals for name in ("price", DANA, MAX, "other--dana")}
    assert asked == {"price": 3, DANA: 3, MAX: 4, "other--dana": 1}


def test_an_environment_has_no_namespaces_unless_its_file_says_so(env: World) -> None:
    check_namespace_allowed(env, "price")
    with pytest.raises(Refusal, match=r"(?s)local has no namespaces.*price--dana.*namespaces = true"):
        check_namespace_allowed(env, DANA)
    shown = replace(evidence(), model=DANA)
    request = approved(env, shown, id=f"{DANA}-2")
    with pytest.raises(Refusal, match="has no namespaces"):
        verify_approval(env, request, "1", interrupted_effect=None, now=NOW)
    env.namespaces = True
    check_namespace_allowed(env, DANA)
    assert verify_approval(env, request, "1", interrupted_effect=None, now=NOW) == shown


@pytest.mark.parametrize(
    "name",
    [DANA, "m" * 25 + "--" + "n" * 24, "m" * 48 + "--n", "my_model--fix-12"],
    ids=["short", "both", "model", "_"],
)
def test_a_model_in_a_namespace_has_a_name_that_fits_everywhere(name: str) -> None:
    check_name(name)
    check_names(name, "1")
    for external in (training_job_name(name, "0123456789abcdef"), endpoint_name(name)):
        assert NAME_PATTERN.fullmatch(external) and len(external) <= 63, "SageMaker takes it"
    assert NAME_PATTERN.fullmatch(release_name(StoredRelease(name, "12", "d" * 64, GOLDEN, "s3://b/k"), HOSTING))
    for kind in ("predictions", "inference", "monitoring"):
        check_dataset(brought(name).spec.own_dataset(kind))


def test_a_name_that_no_endpoint_can_have_is_refused() -> None:
    for name in ("a---b", "-a", "a" * 64, "a/b", "a--"):
        with pytest.raises(Rejected, match="endpoint name"):
            check_names(name, "1")
