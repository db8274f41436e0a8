"""Prefect tasks of evidence: store the signed pack of a promoted version, and reproduce a version from its pack."""

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.evidence.pack import evidence_pack_files, store_signed_pack
from tasks.evidence.reproduction import reproduce_from_pack
from tasks.shared.models import load_model
from tasks.shared.records import (
    DeploymentResult,
    EvaluationResult,
    EvidencePack,
    ReproductionResult,
    TierData,
    TrainingResult,
    ValidationResult,
)
from tasks.shared.retries import TASK_OPTIONS


@task(name="store evidence pack", **TASK_OPTIONS)
def store_evidence_pack(
    request_id: str,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    deployment_result: DeploymentResult,
    parameters: Mapping[str, Any],
    environment: str,
) -> EvidencePack:
    """Write and sign the evidence pack of a version that was just deployed, and log it to the tracked run."""
    env = open_environment(environment)
    request = env.approvals().get_request(request_id)
    team_model = load_model(request.model)
    files = evidence_pack_files(
        env,
        request,
        team_model,
        data,
        validation_result,
        training_result,
        evaluation_result,
        deployment_result,
        parameters,
    )
    pack = store_signed_pack(env, request.model, request.version, training_result.run_id, files)
    get_run_logger().info("the evidence of version %s lies in %s", pack.version, pack.folder)
    return pack


@task(name="reproduce", **TASK_OPTIONS)
def reproduce_version(model: str, version: str, environment: str, fresh_venv: bool = False) -> ReproductionResult:
    """Retrain a promoted version from its evidence pack, and compare the result."""
    env = open_environment(environment)
    done = reproduce_from_pack(env, model, version, fresh_venv=fresh_venv, log=get_run_logger().info)
    get_run_logger().info("version %s of %s: %s. %s", version, model, done.verdict, " ".join(done.differing_inputs))
    return done
