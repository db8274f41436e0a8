"""Take a model back to a version that served before: no registry, no training, no preflight."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger, task

from blocks.endpoints.base import Golden, Release
from blocks.environment import open_environment
from blocks.ledger.base import Deployment, Ledger
from blocks.tracking.base import CHAMPION
from tasks.logic.history import champion, rollback_target
from tasks.logic.refusal import Refusal
from tasks.records import Deployed
from tasks.retries import STAGE


@task(name="roll back", **STAGE)
def take_back(model: str, to_version: str, by: str, reason: str, environment: str, key: str) -> Deployed:
    """Restore an earlier version that served, from the endpoint's own copy, and write it down."""
    started = time.monotonic()
    world = open_environment(environment)
    ledger, endpoint = world.ledger(), world.endpoint()
    lines = ledger.deployments(model, environment)
    done = next((line for line in lines if line.id == key), None)
    target = done.version if done else rollback_target(lines, to_version)
    line = next(line for line in lines if line.version == target and line.action == "deploy")
    serving = endpoint.restore(model, target)
    golden = _golden(ledger, line.request_id)
    endpoint.verify(Release(model, target, Path(), line.digest, golden))
    world.tracking().set_alias(model, CHAMPION, target)
    ledger.record_deployment(
        Deployment(key, model, environment, target, line.digest, "rollback", "serving", by, reason,
                   line.request_id, datetime.now(UTC))
    )  # fmt: skip
    seconds = time.monotonic() - started
    get_run_logger().info("version %s serves again, after %.1f s", target, seconds)
    return Deployed(model=model, version=target, replaced=champion(lines), url=serving.url, seconds=seconds)


def _golden(ledger: Ledger, request_id: str) -> Golden:
    effect = ledger.effect(f"deploy:{request_id}")
    if effect is None:
        raise Refusal("the ledger does not know how that version was released", value=request_id,
                      remedy="Name a version that was deployed by Ratchet.")  # fmt: skip
    return Golden(**json.loads(effect.detail))
