"""Take a model back to a version that served before: no registry, no training, no preflight."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from blocks.common.errors import PortError, TerminalError
from blocks.effects.base import Deployment, Effects
from blocks.endpoints.base import Golden, Release, Serving
from blocks.environment import Environment
from blocks.tracking.base import CHAMPION
from tasks.approval.rules.history import champion, rollback_target
from tasks.shared.alerts import tell
from tasks.shared.records import Deployed
from tasks.shared.rules.refusal import Refusal


def restore_version(world: Environment, model: str, to_version: str, *, by: str, reason: str, key: str) -> Deployed:
    """Restore `to_version`, or the version that served before; the same key a second time finds it done.

    Raises:
        Refusal: there is nothing to go back to, or `to_version` never served.
        Rejected: the restored version does not answer as it did; what served goes on, and the ledger says so.
    """
    started, effects = time.monotonic(), world.effects()
    lines = effects.deployments(model, world.name)
    earlier = [line for line in lines if line.id != key]
    replaced = champion(earlier)
    done = next((line for line in lines if line.id == key), None)
    target = done.version if done else rollback_target(lines, to_version)
    released = next(line for line in lines if (line.version, line.action, line.status) == (target, "deploy", "serving"))

    def write_down(status: Literal["serving", "failed"], why: str, line: str) -> None:
        effects.record_deployment(
            Deployment(line, model, world.name, target, released.digest, "rollback", status, by, why,
                       released.request_id, datetime.now(UTC))
        )  # fmt: skip

    try:
        serving = _restore(world, model, released, golden_of(effects, released.request_id), replaced)
    except TerminalError as failed:
        write_down("failed", str(failed), f"{key}:failed")
        raise
    world.tracking().set_alias(model, CHAMPION, target)
    write_down("serving", reason, key)
    taken = f"Version {target} serves again in place of {replaced}, taken back by {by}: {reason}"
    tell(world, "release.rolled-back", model=model, key=f"told:{key}", sentence=taken)
    seconds = time.monotonic() - started
    return Deployed(model=model, version=target, replaced=replaced, url=serving.url, seconds=seconds)


def _restore(world: Environment, model: str, released: Deployment, golden: Golden, replaced: str) -> Serving:
    """Switch back and verify; when the old version does not answer as it did, what served is put back."""
    endpoint = world.endpoint()
    serving = endpoint.restore(model, released.version)
    try:
        endpoint.verify(Release(model, released.version, Path(), released.digest, golden))
    except Exception as wrong:
        try:
            endpoint.restore(model, replaced)
        except PortError as worse:
            wrong.add_note(f"and version {replaced} could not be restored: {worse}")
        raise
    return serving


def golden_of(effects: Effects, request_id: str) -> Golden:
    """Return the golden request that a version was released with, as the ledger has it."""
    effect = effects.effect(f"deploy:{request_id}")
    if effect is None:
        raise Refusal(
            "the ledger does not know how that version was released",
            value=request_id,
            remedy="Name a version that was deployed by Ratchet.",
        )
    return Golden(**json.loads(effect.detail))
