"""Training jobs: the job and the tracked run of one training, its hyperparameters, tags and signature."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from threading import Thread

from prefect.runtime import flow_run

from blocks.environment import Environment
from blocks.records.tracking import TrackingRun
from blocks.tracking.base import Tracking
from blocks.trainers.base import Trainer, TrainingJob, TrainingJobState
from runtime.digests import folder_digest
from runtime.signatures import sign_folder
from runtime.values import FORMS_VERSION
from tasks.shared.champion import VALUES_TAG
from tasks.shared.code import code_provenance
from tasks.shared.cost import log_worst_case, max_seconds, try_log_job_cost
from tasks.shared.inventory import current_inputs
from tasks.shared.models import TeamModel
from tasks.shared.records import CodeProvenance, CostEstimate, TierData, TrainingResult
from tasks.shared.reports import only_reports
from tasks.shared.rules.refusal import Refusal
from tasks.training.rules.run_history import ORDER_TAG, REQUESTER_TAG

ParameterValue = int | float | str | bool


def train_and_register(
    env: Environment,
    model: TeamModel,
    data: TierData,
    cost_estimate: CostEstimate,
    parameters: Mapping[str, ParameterValue],
    *,
    key: str,
    log: Callable[[str], None],
) -> TrainingResult:
    """Train on the tier's training rows, register the model as a signed version, and return it.

    `cost_estimate` says who trains. `parameters` replace hyperparameters of `model.yaml`, `seed` among them. `key`
    names run and version: a second call with the same key finds both. `log` takes the lines of the training program.
    """
    tracking, name, code = env.tracking(), model.spec.name, code_provenance(model=model.spec.name)
    env.signing.signer("models")  # before the work is paid for: a model that nobody signs is never loaded
    chosen = resolve_hyperparameters(model, parameters)
    run = open_training_run(tracking, model, data, code, chosen, key=key)
    job = job_of_run(tracking, run, model, data, code, chosen)
    warming = Thread(target=warm_up_evaluation, args=(tracking,), daemon=True)
    warming.start()
    trainer = env.trainer_for(small=cost_estimate.use_local_trainer)
    job_state, cost = run_training_job(trainer, tracking, run, job, cost_estimate, log=log)
    warming.join()
    tracking.close_run(run.id, "FINISHED")
    version = tracking.register(name, run.id, key=key, tags=version_tags(data, code))
    artifact = tracking.fetch_model(name, version.version, env.scratch / "models" / name / version.version)
    kinds = dict(model.spec.data.features) if data.values == FORMS_VERSION else {}
    sign_model(env, model, run.id, version.version, artifact, kinds)
    return TrainingResult(
        version=version.version,
        run_id=run.id,
        run_url=run.url,
        version_url=version.url,
        model_path=artifact,
        model_digest=folder_digest(artifact),
        parameters={each: value for each, value in chosen.items() if each != "seed"},
        seed=int(chosen["seed"]),
        commit=code.commit,
        patch_digest=code.patch_digest,
        seconds=job_state.seconds,
        cost_usd=cost,
        serving_usd_month=cost_estimate.serving_usd_month,
    )


def run_training_job(
    trainer: Trainer,
    tracking: Tracking,
    run: TrackingRun,
    job: TrainingJob,
    cost_estimate: CostEstimate,
    log: Callable[[str], None],
) -> tuple[TrainingJobState, float]:
    """Run the job. Return its final state and the cost of the run so far in US dollars (the worst case if unknown).

    The worst case is logged to the run before the job starts, and the cost when it has ended, also after a failure.
    """
    log_worst_case(tracking, run, cost_estimate)
    try:
        job_state = trainer.run(job, on_log_line=log)
    except BaseException:
        with only_reports("the end of the tracked run"):
            try_log_job_cost(tracking, run.id, trainer, job)
            tracking.close_run(run.id, "FAILED")
        raise
    cost = try_log_job_cost(tracking, run.id, trainer, job)
    return job_state, cost_estimate.worst_case_usd if cost is None else cost


def train_unregistered(
    env: Environment,
    model: TeamModel,
    divided: TierData,
    cost_estimate: CostEstimate,
    training_result: TrainingResult,
    work: Path,
    *,
    key: str,
    words: str,
    log: Callable[[str], None],
) -> Path:
    """Train in a child run of the version's run, and return the folder of the signed model. It becomes no version."""
    tracking, code = env.tracking(), code_provenance(model=model.spec.name)
    chosen = {**training_result.parameters, "seed": str(training_result.seed)}
    run = open_training_run(tracking, model, divided, code, chosen, key=key, parent=training_result.run_id)
    tracking.log(run.id, tags={"ratchet.backtest": words})
    job = job_of_run(tracking, run, model, divided, code, chosen)
    trainer = env.trainer_for(small=cost_estimate.use_local_trainer)
    done, _ = run_training_job(trainer, tracking, run, job, cost_estimate, log=log)
    tracking.close_run(run.id, "FINISHED")
    if done.mlflow_folder is None:
        raise Refusal("the training produced no model", where=model.spec.name, value=job.name)
    folder = Path(shutil.copytree(done.mlflow_folder, work / "model", symlinks=True))  # signing refuses links
    sign_folder(
        folder, env.signing.signer("models"), {"run": run.id, "allow": model.spec.serving.model_dump(mode="json")}
    )
    return folder


def sign_model(
    env: Environment, model: TeamModel, run_id: str, version: str, artifact: Path, kinds: Mapping[str, str]
) -> None:
    """Sign the model's files, row key and kinds of columns, and `serving` of model.yaml; store the signature.

    `kinds` are empty if the model was trained on values in the forms of an earlier release.

    Raises:
        Rejected: no key on this machine signs models.
    """
    spec = model.spec
    subject = {
        "model": spec.name,
        "version": version,
        "run": run_id,
        "allow": spec.serving.model_dump(mode="json"),
        "row_key": {"entity": spec.data.entity, "time": spec.data.time or ""},
        "kinds": dict(kinds),
    }
    signature = sign_folder(artifact, env.signing.signer("models"), subject)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(signature, folder)
        env.tracking().log_files(run_id, Path(folder), artifact_folder="signature")


def warm_up_evaluation(tracking: Tracking) -> None:
    """Import the libraries of the evaluation while the training job runs, which saves about 3 s afterwards."""
    tracking.warm_up()
    for library in ("sklearn.metrics", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        import_module(library)


def resolve_hyperparameters(model: TeamModel, parameters: Mapping[str, ParameterValue]) -> dict[str, str]:
    """Return the hyperparameters and the seed as text: those of `model.yaml`, overridden by `parameters`.

    Raises:
        Refusal: a parameter that `model.yaml` does not know.
    """
    defaults: dict[str, ParameterValue] = {**model.spec.training.parameters, "seed": model.spec.training.seed}
    for name, value in parameters.items():
        if name in defaults:
            check_parameter_type(name, value, defaults[name], where=f"parameters of {model.spec.name}")
        else:
            raise Refusal(
                "the model has no such parameter",
                where=f"parameters of {model.spec.name}",
                value=name,
                remedy=f"Its parameters are: {', '.join(sorted(defaults))}.",
            )
    return {name: str(value) for name, value in {**defaults, **parameters}.items()}


def check_parameter_type(name: str, value: ParameterValue, default: ParameterValue, where: str) -> None:
    """Refuse a value of another type than the one in `model.yaml`. A whole number may stand for a decimal one.

    Raises:
        Refusal: text for a number, a decimal for a whole number, NaN, a seed below 0; names parameter and value.
    """
    types = (int, float) if type(default) is float else (type(default),)
    wrong = type(value) not in types or (isinstance(value, float) and not math.isfinite(value))
    if wrong or (name == "seed" and int(value) < 0):
        remedy = f"Give a value like that of model.yaml: {default!r}."
        raise Refusal(f"{name} cannot take this value", where=where, value=value, remedy=remedy)


def training_job_name(model: str, run_id: str) -> str:
    """Return the name of a training job. SageMaker accepts letters, digits and hyphens, at most 63."""
    return f"{model.replace('_', '-')[:50]}-{run_id[:12]}"


def job_of_run(
    tracking: Tracking,
    run: TrackingRun,
    model: TeamModel,
    data: TierData,
    code: CodeProvenance,
    chosen: Mapping[str, str],
) -> TrainingJob:
    """Return the job of an open run: it bears the run's name, and is told of the run, its data and its code."""
    lineage = {"RATCHET_COMMIT": code.commit, "RATCHET_DATA_DIGEST": data.data_digest}  # SageMaker's tags of the job
    variables = {**tracking.job_environment(run.id), **lineage}
    return training_job(model, data, chosen, variables, name=training_job_name(model.spec.name, run.id))


def training_job(
    model: TeamModel, data: TierData, hyperparameters: Mapping[str, str], environment: Mapping[str, str], name: str
) -> TrainingJob:
    """Return the job: the model's program, the training rows (never the holdout), and the limits of `model.yaml`."""
    limits = model.spec.training
    return TrainingJob(
        name=name,
        program_folder=model.folder,
        channels=data.training_parts,
        hyperparameters=dict(hyperparameters),
        environment=dict(environment),
        max_seconds=max_seconds(model),
        max_memory_mb=limits.max_memory_mb,
    )


def open_training_run(
    tracking: Tracking,
    model: TeamModel,
    data: TierData,
    code: CodeProvenance,
    hyperparameters: Mapping[str, str],
    *,
    key: str,
    parent: str | None = None,
) -> TrackingRun:
    """Open the tracked run of a training, and log its data, code, hyperparameters and installed packages."""
    tags = {**version_tags(data, code), **trigger_tags(), "ratchet.flow_run": str(flow_run.id)}
    name = f"{model.spec.name} on {data.tier}"
    run = tracking.open_run(model.spec.name, key=key, name=name, tags=tags, parent=parent)
    tracking.log_dataset(
        run.id, name=model.spec.data.dataset, digest=data.digest, source=f"lake as of {data.as_of}",
        rows=data.train_rows, context="training",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hyperparameters.json").write_text(json.dumps(dict(hyperparameters), indent=2))
        (Path(folder) / "runtime.json").write_text(json.dumps(current_inputs(""), indent=2))
        if code.patch:
            (Path(folder) / "uncommitted.patch").write_bytes(code.patch.encode(errors="surrogateescape"))
        tracking.log_files(run.id, Path(folder), artifact_folder="provenance")
    return run


def trigger_tags() -> dict[str, str]:
    """Return tags: who requested this flow run and by which order, and which delivery of a git host started it."""
    deliveries = [str(tag) for tag in flow_run.tags or () if str(tag).startswith("delivery:")]
    delivery = {"ratchet.webhook_delivery": deliveries[0].removeprefix("delivery:")} if deliveries else {}
    parameters = flow_run.parameters or {}
    given = {REQUESTER_TAG: parameters.get("requested_by"), ORDER_TAG: parameters.get("order")}
    return {**delivery, **{name: str(value) for name, value in given.items() if value}}


def version_tags(data: TierData, code: CodeProvenance) -> dict[str, str]:
    """Return the tags of run and version: tier, snapshot, digests of the data, holdout rule, commit."""
    return {
        "ratchet.tier": data.tier,
        "ratchet.snapshot": data.as_of,
        "ratchet.data_digest": data.data_digest,
        "ratchet.tier_digest": data.digest,
        "ratchet.reread_as_of": data.reread_as_of,
        "ratchet.holdout": data.holdout_rule,
        **({"ratchet.cut_off": data.cut_off} if data.cut_off else {}),
        **({"ratchet.trained_until": data.trained_until} if data.trained_until else {}),
        "ratchet.commit": code.commit,
        **({VALUES_TAG: data.values} if data.values else {}),
        "ratchet.uncommitted_changes": "yes" if code.patch_digest else "no",
    }
