"""Prefect tasks of evidence: keep the signed pack of a promoted model, and train it again from that."""

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task

from blocks.environment import open_environment
from runtime.digests import file_digest, folder_digest
from runtime.signatures import sign_folder
from tasks.evidence.pack import gather_files, write_pack
from tasks.evidence.reproduction import reproduced
from tasks.shared.models import load_model
from tasks.shared.records import Checked, Deployed, Judged, Packed, Reproduced, TierData, Trained
from tasks.shared.retries import STAGE


@task(name="keep evidence", **STAGE)
def keep_evidence(
    request_id: str,
    data: TierData,
    checked: Checked,
    trained: Trained,
    judged: Judged,
    deployed: Deployed,
    parameters: Mapping[str, Any],
    environment: str,
) -> Packed:
    """Write the evidence pack of a version that has just been deployed, sign it, and keep it with its run."""
    world = open_environment(environment)
    request = world.approvals().approval_request(request_id)
    brought = load_model(request.model)
    pack = world.evidence_folder / request.model / request.version / "pack"
    files = gather_files(world, request, brought, data, checked, trained, judged, deployed, parameters)
    write_pack(pack, files)
    signature = sign_folder(pack, world.signing.signer("models"), {"model": request.model, "version": request.version})
    world.tracking().log_files(trained.run_id, pack.parent, under="evidence")
    world.tracking().tag_version(request.model, request.version, {"ratchet.evidence": file_digest(signature)})
    get_run_logger().info("the evidence of version %s lies in %s", request.version, pack)
    return Packed(model=request.model, version=request.version, folder=pack, digest=folder_digest(pack))


@task(name="reproduce", **STAGE)
def reproduce_version(model: str, version: str, environment: str, fresh_environment: bool = False) -> Reproduced:
    """Train a promoted version again from its evidence pack, and compare."""
    world = open_environment(environment)
    done = reproduced(world, model, version, fresh=fresh_environment, log=get_run_logger().info)
    get_run_logger().info("version %s of %s: %s. %s", version, model, done.verdict, " ".join(done.differs))
    return done
