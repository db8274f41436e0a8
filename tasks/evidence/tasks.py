"""Prefect tasks of evidence: keep the signed pack of a promoted model, and train it again from that."""

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task

from blocks.environment import open_environment
from runtime.digests import file_digest, folder_digest
from runtime.signatures import sign_folder
from tasks.evidence.pack import evidence_pack_files, write_pack
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


@task(name="keep evidence", **TASK_OPTIONS)
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
    """Write the evidence pack of a version that has just been deployed, sign it, and keep it with its run."""
    env = open_environment(environment)
    request = env.approvals().approval_request(request_id)
    team_model = load_model(request.model)
    pack = env.evidence_folder / request.model / request.version / "pack"
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
    write_pack(pack, files)
    signature = sign_folder(pack, env.signing.signer("models"), {"model": request.model, "version": request.version})
    env.tracking().log_files(training_result.run_id, pack.parent, artifact_folder="evidence")
    env.tracking().tag_version(request.model, request.version, {"ratchet.evidence": file_digest(signature)})
    get_run_logger().info("the evidence of version %s lies in %s", request.version, pack)
    return EvidencePack(model=request.model, version=request.version, folder=pack, digest=folder_digest(pack))


@task(name="reproduce", **TASK_OPTIONS)
def reproduce_version(
    model: str, version: str, environment: str, fresh_environment: bool = False
) -> ReproductionResult:
    """Train a promoted version again from its evidence pack, and compare."""
    env = open_environment(environment)
    done = reproduce_from_pack(env, model, version, fresh_venv=fresh_environment, log=get_run_logger().info)
    get_run_logger().info("version %s of %s: %s. %s", version, model, done.verdict, " ".join(done.differing_inputs))
    return done
