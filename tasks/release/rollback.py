"""Roll a model back to an earlier version, without registry, training or preflight."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from blocks.common.errors import TerminalError
from blocks.endpoints.base import Release
from blocks.environment import Environment
from blocks.records.deployments import Deployment
from blocks.tracking.base import CHAMPION_ALIAS
from tasks.approval.rules.history import champion_of, rollback_target
from tasks.release.deployment import recorded_golden, verify_or_restore
from tasks.shared.alerts import emit_alert
from tasks.shared.records import DeploymentResult


def rollback_version(
    env: Environment, model: str, to_version: str, *, requested_by: str, reason: str, key: str
) -> DeploymentResult:
    """Restore `to_version`, or the previously deployed version. A repeat with the same key changes nothing.

    Raises:
        Refusal: there is no earlier version, or `to_version` was never deployed.
        Rejected: the restored version gives other predictions than before. The deployed version stays, and the
            ledger records the failure.
    """
    started, effects = time.monotonic(), env.effects()
    lines = effects.deployments(model, env.name)
    replaced = champion_of([line for line in lines if line.id != key])
    earlier_rollback = next((line for line in lines if line.id == key), None)
    target = earlier_rollback.version if earlier_rollback else rollback_target(lines, to_version)
    target_deployment = next(
        line for line in lines if (line.version, line.action, line.status) == (target, "deploy", "serving")
    )

    def record(status: Literal["serving", "failed"], why: str, deployment_id: str) -> None:
        effects.record_deployment(
            Deployment(deployment_id, model, env.name, target, target_deployment.digest, "rollback", status,
                       requested_by, why, target_deployment.request_id, datetime.now(UTC))
        )  # fmt: skip

    try:
        golden, endpoint = recorded_golden(effects, target_deployment.request_id), env.endpoint()
        serving = endpoint.rollback(model, target)
        verify_or_restore(endpoint, Release(model, target, Path(), target_deployment.digest, golden), replaced)
    except TerminalError as failed:
        record("failed", str(failed), f"{key}:failed")
        raise
    env.tracking().set_alias(model, CHAMPION_ALIAS, target)
    record("serving", reason, key)
    alert_text = f"Version {target} replaces {replaced} again, rolled back by {requested_by}: {reason}"
    emit_alert(env, "release.rolled-back", model=model, alert_record_key=f"release:{key}", sentence=alert_text)
    seconds = time.monotonic() - started
    return DeploymentResult(model=model, version=target, replaced_version=replaced, url=serving.url, seconds=seconds)
