"""Take a model back to a version that served before: no registry, no training, no preflight."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from blocks.common.errors import PortError, TerminalError
from blocks.effects.base import Deployment, Effects
from blocks.endpoints.base import GoldenExample, LiveVersion, Release
from blocks.environment import Environment
from blocks.tracking.base import CHAMPION_ALIAS
from tasks.approval.rules.history import champion_of, rollback_target
from tasks.shared.alerts import emit_alert
from tasks.shared.records import DeploymentResult
from tasks.shared.rules.refusal import Refusal


def rollback_version(
    env: Environment, model: str, to_version: str, *, requested_by: str, reason: str, key: str
) -> DeploymentResult:
    """Restore `to_version`, or the version that served before; the same key a second time finds it done.

    Raises:
        Refusal: there is nothing to go back to, or `to_version` never served.
        Rejected: the restored version does not answer as it did; what served goes on, and the ledger says so.
    """
    started, effects = time.monotonic(), env.effects()
    lines = effects.deployments(model, env.name)
    earlier = [deployment_id for deployment_id in lines if deployment_id.id != key]
    replaced = champion_of(earlier)
    earlier_rollback = next((deployment_id for deployment_id in lines if deployment_id.id == key), None)
    target = earlier_rollback.version if earlier_rollback else rollback_target(lines, to_version)
    target_deployment = next(
        deployment_id
        for deployment_id in lines
        if (deployment_id.version, deployment_id.action, deployment_id.status) == (target, "deploy", "serving")
    )

    def write_down(status: Literal["serving", "failed"], why: str, deployment_id: str) -> None:
        effects.record_deployment(
            Deployment(deployment_id, model, env.name, target, target_deployment.digest, "rollback", status, requested_by, why,
                       target_deployment.request_id, datetime.now(UTC))
        )  # fmt: skip

    try:
        serving = _restore_and_verify(
            env, model, target_deployment, recorded_golden(effects, target_deployment.request_id), replaced
        )
    except TerminalError as failed:
        write_down("failed", str(failed), f"{key}:failed")
        raise
    env.tracking().set_alias(model, CHAMPION_ALIAS, target)
    write_down("serving", reason, key)
    alert_text = f"Version {target} serves again in place of {replaced}, taken back by {requested_by}: {reason}"
    emit_alert(env, "release.rolled-back", model=model, alert_record_key=f"told:{key}", sentence=alert_text)
    seconds = time.monotonic() - started
    return DeploymentResult(model=model, version=target, replaced_version=replaced, url=serving.url, seconds=seconds)


def _restore_and_verify(
    env: Environment, model: str, released: Deployment, golden: GoldenExample, replaced: str
) -> LiveVersion:
    """Switch back and verify; when the old version does not answer as it did, what served is put back."""
    endpoint = env.endpoint()
    serving = endpoint.rollback(model, released.version)
    try:
        endpoint.verify(Release(model, released.version, Path(), released.digest, golden))
    except Exception as wrong:
        try:
            endpoint.rollback(model, replaced)
        except PortError as worse:
            wrong.add_note(f"and version {replaced} could not be restored: {worse}")
        raise
    return serving


def recorded_golden(effects: Effects, request_id: str) -> GoldenExample:
    """Return the golden request that a version was released with, as the ledger has it."""
    effect = effects.effect(f"deploy:{request_id}")
    if effect is None:
        raise Refusal(
            "the ledger does not know how that version was released",
            value=request_id,
            remedy="Name a version that was deployed by Ratchet.",
        )
    return GoldenExample(**json.loads(effect.detail))
