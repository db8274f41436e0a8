"""Train a challenger: one tracked run around one job of the environment's trainer."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from prefect.runtime import flow_run

from blocks.environment import Environment
from blocks.tracking.base import Tracking, TrackingRun
from blocks.trainers.base import Trainer, TrainingJob, TrainingJobState
from runtime.signatures import sign_folder
from tasks.shared.cost import log_worst_case, max_seconds, try_log_job_cost
from tasks.shared.inventory import current_inputs
from tasks.shared.models import TeamModel
from tasks.shared.records import CodeProvenance, CostEstimate, TierData
from tasks.shared.rules.refusal import Refusal

ParameterValue = int | float | str | bool


def run_training_job(
    trainer: Trainer,
    tracking: Tracking,
    run: TrackingRun,
    job: TrainingJob,
    cost_estimate: CostEstimate,
    log: Callable[[str], None],
) -> tuple[TrainingJobState, float]:
    """Run the job; return how it ended and what the run has cost so far in US dollars, its worst case if unknown.

    Before it starts its worst case is written to the run, after it its cost, failed or not.
    """
    log_worst_case(tracking, run, cost_estimate)
    try:
        done = trainer.run(job, on_log_line=log)
    except BaseException:
        try_log_job_cost(tracking, run.id, trainer, job)
        tracking.close_run(run.id, "FAILED")
        raise
    cost = try_log_job_cost(tracking, run.id, trainer, job)
    return done, cost_estimate.worst_case_usd if cost is None else cost


def sign_model(env: Environment, model: TeamModel, run_id: str, version: str, artifact: Path) -> None:
    """Sign the model's files, with what model.yaml allows it, and keep the signature with its run.

    Raises:
        Rejected: no key on this machine signs models.
    """
    spec = model.spec
    about = {"model": spec.name, "version": version, "run": run_id, "allow": spec.serving.model_dump(mode="json")}
    signature = sign_folder(artifact, env.signing.signer("models"), about)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(signature, folder)
        env.tracking().log_files(run_id, Path(folder), artifact_folder="signature")


def warm_up_evaluation(tracking: Tracking) -> None:
    """Load what the evaluation needs while the training job has the other core: 3 s that nobody waits for."""
    tracking.warm_up()
    for library in ("sklearn.metrics", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        import_module(library)


def resolve_hyperparameters(model: TeamModel, parameters: Mapping[str, ParameterValue]) -> dict[str, str]:
    """Return the hyperparameters as text: those of `model.yaml`, replaced by `parameters`, and the seed.

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
                remedy=f"It knows: {', '.join(sorted(defaults))}.",
            )
    return {name: str(value) for name, value in {**defaults, **parameters}.items()}


def check_parameter_type(name: str, value: ParameterValue, default: ParameterValue, where: str) -> None:
    """Refuse a value of another kind than the one in `model.yaml`; a whole number will do for a decimal one.

    Raises:
        Refusal: text for a number, a decimal for a whole number, NaN, a seed below 0; names parameter and value.
    """
    kinds = (int, float) if type(default) is float else (type(default),)
    wrong = type(value) not in kinds or (isinstance(value, float) and not math.isfinite(value))
    if wrong or (name == "seed" and int(value) < 0):
        like = f"model.yaml has {default!r}"
        raise Refusal(f"{name} cannot take this value", where=where, value=value, remedy=f"Write one like it: {like}.")


def training_job_name(model: str, run_id: str) -> str:
    """Return the name of a training job, within what SageMaker accepts: letters, digits and -, at most 63."""
    return f"{model.replace('_', '-')[:50]}-{run_id[:12]}"


def training_job(
    model: TeamModel, data: TierData, chosen: Mapping[str, str], environment: Mapping[str, str], name: str
) -> TrainingJob:
    """Return the job: the model's program, the training rows alone, and the limits of `model.yaml`."""
    limits = model.spec.training
    return TrainingJob(
        name=name,
        program_folder=model.folder,
        channels={"train": data.train},
        hyperparameters=dict(chosen),
        environment=dict(environment),
        max_seconds=max_seconds(model),
        max_memory_mb=limits.max_memory_mb,
    )


def open_training_run(
    tracking: Tracking,
    model: TeamModel,
    data: TierData,
    code: CodeProvenance,
    chosen: Mapping[str, str],
    *,
    key: str,
    parent: str | None = None,
) -> TrackingRun:
    """Open the tracked run of a training, with the data it will see and the code that makes it."""
    tags = {**version_tags(model, data, code), **trigger_tags(), "ratchet.flow_run": str(flow_run.id)}
    name = f"{model.spec.name} on {data.tier}"
    run = tracking.open_run(model.spec.name, key=key, name=name, tags=tags, parent=parent)
    tracking.log_dataset(
        run.id, name=model.spec.data.dataset, digest=data.digest, source=f"lake as of {data.as_of}",
        rows=data.train_rows, context="training",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hyperparameters.json").write_text(json.dumps(dict(chosen), indent=2))
        (Path(folder) / "environment.json").write_text(json.dumps(current_inputs(""), indent=2))
        if code.patch:
            (Path(folder) / "uncommitted.patch").write_bytes(code.patch.encode(errors="surrogateescape"))
        tracking.log_files(run.id, Path(folder), artifact_folder="made-by")
    return run


def trigger_tags() -> dict[str, str]:
    """Return who asked for this flow run, and which delivery of a git host started it, by the tag of the gateway."""
    found = [str(tag) for tag in flow_run.tags or () if str(tag).startswith("delivery:")]
    delivery = {"ratchet.delivery": found[0].removeprefix("delivery:")} if found else {}
    by = str((flow_run.parameters or {}).get("requested_by") or "")
    return {**delivery, **({"ratchet.requested_by": by} if by else {})}


def lineage_variables(data: TierData, code: CodeProvenance) -> dict[str, str]:
    """Return what a job is told of where it comes from: a trainer may show it with the job (tags on SageMaker)."""
    return {"RATCHET_COMMIT": code.commit, "RATCHET_DATA_DIGEST": data.data_digest}


def version_tags(model: TeamModel, data: TierData, code: CodeProvenance) -> dict[str, str]:
    """Return what is stamped on run and version: tier, snapshot, digests of the data, holdout rule, commit."""
    return {
        "ratchet.tier": data.tier,
        "ratchet.snapshot": data.as_of,
        "ratchet.data_digest": data.data_digest,
        "ratchet.tier_digest": data.digest,
        **({"ratchet.read_at": data.reread_time} if data.reread_time else {}),
        "ratchet.holdout": str(model.spec.holdout),
        "ratchet.commit": code.commit,
        "ratchet.dirty": "yes" if code.patch_digest else "no",
    }
