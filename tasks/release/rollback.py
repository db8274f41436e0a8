"""Roll a model back to an earlier version, without registry, training or preflight."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from blocks.approvals.base import final_decision
from blocks.common.errors import TerminalError
from blocks.endpoints.base import LiveVersion, Release
from blocks.environment import Environment
from blocks.records.deployments import Deployment
from tasks.approval.rules.actions import Actor, check_approved, check_previous
from tasks.approval.rules.history import champion_of, rollback_target
from tasks.release.deployment import live_as_recorded, recorded_golden, verify_or_restore
from tasks.release.registry import repair_command, update_registry
from tasks.shared.alerts import emit_alert
from tasks.shared.records import DeploymentResult
from tasks.shared.reports import only_reports
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import environment_policy, verified_chain, verified_decisions


def rollback_version(
    env: Environment, model: str, to_version: str, *, actor: Actor, reason: str, key: str
) -> DeploymentResult:
    """Restore `to_version`, or the previously deployed version. A repeat with the same key changes nothing.

    A version that the ledger calls deployed can be named when the endpoint serves another one.

    Raises:
        Refusal: there is no earlier version, or `to_version` was never deployed, or the environment's policy does not
            allow that version; or the rollback is done, and another deployment or rollback followed it.
        Rejected: the restored version gives other predictions than before. The deployed version stays, and the
            ledger records the failure.
    """
    started, effects = time.monotonic(), env.effects()
    lines = effects.deployments(model, env.name)
    earlier_rollback = next((line for line in lines if line.id == key), None)
    if earlier_rollback and lines[0] != earlier_rollback:
        raise followed_refusal(env, earlier_rollback, lines[0])
    live, deployed = env.endpoint().live_version(model), champion_of(lines)
    replaced = champion_of([line for line in lines if line.id != key])
    if earlier_rollback:
        target = earlier_rollback.version
    elif to_version and to_version == deployed and (live is None or live.version != deployed or effects.effect(key)):
        target, replaced = deployed, live.version if live else ""
    else:
        target = rollback_target(lines, to_version)
    target_deployment = next(
        line for line in lines if (line.version, line.action, line.status) == (target, "deploy", "serving")
    )

    if not earlier_rollback:
        check_rollback_target(env, lines, target_deployment)

    line = Deployment(key, model, env.name, target, target_deployment.digest, "rollback", "serving", actor.shown,
                      reason, target_deployment.request_id, datetime.now(UTC), actor.order_id)  # fmt: skip
    serving = live_as_recorded(env, earlier_rollback, lines) if earlier_rollback else None
    if serving is None:
        before = replaced if target != deployed else live.version if live else ""
        serving = switch_back(env, line, before)
    effects.finish(key, f"version {target} serves at {serving.url}", datetime.now(UTC))
    problem = update_registry(env, model)
    alert_text = f"Version {target} replaces {replaced} again, rolled back by {actor.shown}: {reason}"
    with only_reports("the alert of the rollback"):
        emit_alert(env, "release.rolled-back", model=model, alert_record_key=f"release:{key}", sentence=alert_text)
    seconds = time.monotonic() - started
    return DeploymentResult(
        model=model, version=target, replaced_version=replaced, url=serving.url, seconds=seconds,
        registry_problem=problem,
    )  # fmt: skip


def check_rollback_target(env: Environment, lines: Sequence[Deployment], target: Deployment) -> None:
    """Refuse a version to which the environment's policy allows no rollback (`actions.rollback.to`).

    Raises:
        Refusal: it is not the previous version, or has no verified approval; or the record of decisions is damaged.
    """
    strict = environment_policy(env, target.model).require_authentication
    allowed = env.actions.rollback.to or ("approved" if strict else "any")
    if allowed == "previous":
        check_previous(lines, target.version, champion_of(lines))
    elif allowed == "approved":
        request = env.approvals().get_request(target.request_id)
        decisions = verified_decisions(verified_chain(env), request)
        check_approved(target, request, final_decision(decisions, request.approvals))


def switch_back(env: Environment, line: Deployment, before: str) -> LiveVersion:
    """Switch to the version of the line, verify it, and record the line; when that fails, `before` is restored."""
    effects, endpoint, key = env.effects(), env.endpoint(), line.id
    effects.intend(key, rollback_json(line), datetime.now(UTC))
    try:
        golden = recorded_golden(effects, line.request_id)
        serving = endpoint.rollback(line.model, line.version)
        verify_or_restore(endpoint, Release(line.model, line.version, Path(), line.digest, golden), before)
    except TerminalError as failed:
        effects.record_deployment(
            replace(line, id=f"{key}:failed", status="failed", reason=str(failed), at=datetime.now(UTC))
        )
        effects.finish(key, f"failed: {failed}", datetime.now(UTC))
        raise
    effects.record_deployment(replace(line, at=datetime.now(UTC)))
    return serving


def followed_refusal(env: Environment, done: Deployment, later: Deployment) -> Refusal:
    """Return the refusal to repeat a rollback that is done, and that another line of the ledger follows."""
    return Refusal(
        "this rollback is done, and another deployment or rollback followed it",
        where=done.id,
        value=f"{later.action} of version {later.version}, {later.status}",
        remedy="Nothing was changed. To make the registry follow the ledger, run: "
        f"{repair_command(done.model, env.name)}. To roll back again, start a new run.",
    )


def rollback_json(line: Deployment) -> str:
    """Return the line of a rollback as JSON. The ledger stores it as the intent, so that `repair` can record it."""
    return json.dumps({**asdict(line), "at": line.at.isoformat()})


def rollback_from_json(text: str) -> Deployment:
    """Return the line that `rollback_json` wrote."""
    fields = json.loads(text)
    return Deployment(**{**fields, "at": datetime.fromisoformat(fields["at"])})
