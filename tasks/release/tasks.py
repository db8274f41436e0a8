"""Prefect tasks of release: deploy an approved version, and roll back."""

import json
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime

from prefect import get_run_logger, task

from blocks.endpoints.base import GoldenExample
from blocks.environment import open_environment
from tasks.approval.rules.history import champion_of
from tasks.release.deployment import approved_release, golden_json, inference_log_rules, switch_and_record
from tasks.release.rollback import rollback_version
from tasks.shared.models import load_model
from tasks.shared.records import DeploymentResult, EvaluationResult
from tasks.shared.retries import TASK_OPTIONS


@task(name="deploy", **TASK_OPTIONS)
def deploy(request_id: str, evaluation_result: EvaluationResult, environment: str) -> DeploymentResult:
    """Prove the approved version in the real server, switch to it, verify, and write it down.

    Raises:
        Refusal: the approval does not stand (none, expired, another digest, another champion by now).
        Rejected, Corrupt: the version does not serve as it should; the one before it serves on.
    """
    started, env = time.monotonic(), open_environment(environment)
    effects, key = env.effects(), f"deploy:{request_id}"
    request = env.approvals().approval_request(request_id)
    previous_version = champion_of(effects.deployments(request.model, environment))
    golden = GoldenExample(evaluation_result.golden_request, evaluation_result.golden_predictions)
    approved = approved_release(
        env, request, previous_version, golden, begun=effects.effect(key), now=datetime.now(UTC)
    )
    release = replace(approved, log_policy=inference_log_rules(load_model(request.model).spec))
    effects.intend(key, golden_json(golden), datetime.now(UTC))
    url, probe = switch_and_record(env, request, release, previous_version)
    effects.finish(key, f"version {request.version} serves at {url}", datetime.now(UTC))
    get_run_logger().info("version %s serves at %s", request.version, url)
    return DeploymentResult(
        model=request.model,
        version=request.version,
        replaced_version=previous_version if previous_version != request.version else "",
        url=url,
        seconds=time.monotonic() - started,
        preflight_json=json.dumps(asdict(probe)),
    )


@task(name="roll back", **TASK_OPTIONS)
def rollback_deployment(
    model: str, to_version: str, requested_by: str, reason: str, environment: str, key: str
) -> DeploymentResult:
    """Restore an earlier version that served, from the endpoint's own copy, verify it, and write it down."""
    done = rollback_version(
        open_environment(environment), model, to_version, requested_by=requested_by, reason=reason, key=key
    )
    get_run_logger().info("version %s serves again, after %.1f s", done.version, done.seconds)
    return done
