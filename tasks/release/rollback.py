"""Roll a model back to an earlier version, without registry, training or preflight."""

import json
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from blocks.common.errors import TerminalError
from blocks.endpoints.base import Release
from blocks.environment import Environment
from blocks.records.deployments import Deployment
from tasks.approval.rules.history import champion_of, rollback_target
from tasks.release.deployment import recorded_golden, verify_or_restore
from tasks.release.registry import update_registry
from tasks.shared.alerts import emit_alert
from tasks.shared.records import DeploymentResult
from tasks.shared.reports import only_reports


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

    line = Deployment(key, model, env.name, target, target_deployment.digest, "rollback", "serving", requested_by,
                      reason, target_deployment.request_id, datetime.now(UTC))  # fmt: skip
    effects.intend(key, rollback_json(line), datetime.now(UTC))
    try:
        golden, endpoint = recorded_golden(effects, target_deployment.request_id), env.endpoint()
        serving = endpoint.rollback(model, target)
        verify_or_restore(endpoint, Release(model, target, Path(), target_deployment.digest, golden), replaced)
    except TerminalError as failed:
        effects.record_deployment(
            replace(line, id=f"{key}:failed", status="failed", reason=str(failed), at=datetime.now(UTC))
        )
        effects.finish(key, f"failed: {failed}", datetime.now(UTC))
        raise
    effects.record_deployment(replace(line, at=datetime.now(UTC)))
    effects.finish(key, f"version {target} serves at {serving.url}", datetime.now(UTC))
    problem = update_registry(env, model)
    alert_text = f"Version {target} replaces {replaced} again, rolled back by {requested_by}: {reason}"
    with only_reports("the alert of the rollback"):
        emit_alert(env, "release.rolled-back", model=model, alert_record_key=f"release:{key}", sentence=alert_text)
    seconds = time.monotonic() - started
    return DeploymentResult(
        model=model, version=target, replaced_version=replaced, url=serving.url, seconds=seconds,
        registry_problem=problem,
    )  # fmt: skip


def rollback_json(line: Deployment) -> str:
    """Return the line of a rollback as JSON. The ledger stores it as the intent, so that `repair` can record it."""
    return json.dumps({**asdict(line), "at": line.at.isoformat()})


def rollback_from_json(text: str) -> Deployment:
    """Return the line that `rollback_json` wrote."""
    fields = json.loads(text)
    return Deployment(**{**fields, "at": datetime.fromisoformat(fields["at"])})
