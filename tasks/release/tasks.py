"""Prefect tasks of release: deploy an approved version, and roll back."""

import json
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime

from prefect import get_run_logger, task

from blocks.endpoints.base import Golden
from blocks.environment import open_environment
from tasks.approval.rules.history import champion
from tasks.release.deployment import approved_release, golden_json, log_rules, put_into_service
from tasks.release.rollback import restore_version
from tasks.shared.models import load_model
from tasks.shared.records import Deployed, Judged
from tasks.shared.retries import STAGE


@task(name="deploy", **STAGE)
def deploy(request_id: str, judged: Judged, environment: str) -> Deployed:
    """Prove the approved version in the real server, switch to it, verify, and write it down.

    Raises:
        Refusal: the approval does not stand (none, expired, another digest, another champion by now).
        Rejected, Corrupt: the version does not serve as it should; the one before it serves on.
    """
    started, world = time.monotonic(), open_environment(environment)
    effects, key = world.effects(), f"deploy:{request_id}"
    request = world.approvals().approval_request(request_id)
    before = champion(effects.deployments(request.model, environment))
    golden = Golden(judged.golden_request, judged.golden_predictions)
    approved = approved_release(world, request, before, golden, begun=effects.effect(key), now=datetime.now(UTC))
    release = replace(approved, log=log_rules(load_model(request.model).spec))
    effects.intend(key, golden_json(golden), datetime.now(UTC))
    url, probe = put_into_service(world, request, release, before)
    effects.finish(key, f"version {request.version} serves at {url}", datetime.now(UTC))
    get_run_logger().info("version %s serves at %s", request.version, url)
    return Deployed(
        model=request.model,
        version=request.version,
        replaced=before if before != request.version else "",
        url=url,
        seconds=time.monotonic() - started,
        preflight=json.dumps(asdict(probe)),
    )


@task(name="roll back", **STAGE)
def take_back(model: str, to_version: str, by: str, reason: str, environment: str, key: str) -> Deployed:
    """Restore an earlier version that served, from the endpoint's own copy, verify it, and write it down."""
    done = restore_version(open_environment(environment), model, to_version, by=by, reason=reason, key=key)
    get_run_logger().info("version %s serves again, after %.1f s", done.version, done.seconds)
    return done
