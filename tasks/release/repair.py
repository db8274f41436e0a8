"""Repair: make ledger and registry agree with the version that an endpoint serves, after a crash or an outage.

The ledger decides which version is deployed. It lacks a line only when a process died between a switch and its record;
the intent that it wrote before then says what was switched, and why. Nothing here switches an endpoint.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from blocks.common.errors import NotFound, PortError
from blocks.effects.base import Effect
from blocks.endpoints.base import GoldenExample, LiveVersion, Release
from blocks.environment import Environment
from blocks.records.deployments import Deployment
from blocks.tracking.base import CHAMPION_ALIAS, EVIDENCE_TAG, PROMOTED_TAG
from tasks.approval.rules.evidence import parse_evidence
from tasks.approval.rules.history import champion_of
from tasks.release.deployment import golden_from_json, record_deployment, recorded_golden, verify_approval
from tasks.release.registry import tell_registry
from tasks.release.rollback import rollback_from_json
from tasks.shared.rules.refusal import Refusal


@dataclass
class Repair:
    """What the three say, what is done (or would be), and what needs a person; each a sentence."""

    state: str = ""
    done: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Begun:
    """An effect that was intended and not finished, and the line that the ledger has, or lacks."""

    effect: Effect
    line: Deployment


def repair_release(env: Environment, model: str, now: datetime, *, dry_run: bool = False) -> Repair:
    """Compare endpoint, ledger and registry, and repair what is safe to repair; a repeat changes nothing.

    - The ledger lacks the line of a switch that was intended: the approval and the endpoint's answers are verified
      again, and the line is added.
    - An effect that the ledger has the line of was not finished: it is.
    - The ledger says that the switch failed, and the endpoint serves it: left open, as nobody has proven it.
    - The registry's alias or tag is another than the ledger's: it follows the ledger.

    Anything else is left open, with its remedy. With `dry_run` nothing is written.
    """
    repair, lines = Repair(), env.effects().deployments(model, env.name)
    deployed = champion_of(lines)
    try:
        live = env.endpoint().live_version(model)
        served = _version_text(live.version if live else "")
        deployed = _repair_ledger(env, model, live, now, repair, dry_run=dry_run)
        if (live.version if live else "") != deployed:
            repair.open.append(
                f"the endpoint serves {served} and the ledger says {_version_text(deployed)}, and no interrupted "
                f"deployment or rollback explains it: roll back with to_version={deployed or 'a deployed version'}, "
                "or deploy a new version"
            )
    except PortError as cause:
        served = "not reached"
        repair.open.append(f"the endpoint cannot be asked: {cause}. Try again later")
    registered = _repair_registry(env, model, deployed, repair, dry_run=dry_run)
    ledger = _version_text(champion_of(lines))
    repair.state = f"{model} in {env.name}: endpoint {served}, ledger {ledger}, registry {registered}"
    return repair


def _repair_ledger(
    env: Environment, model: str, live: LiveVersion | None, now: datetime, repair: Repair, *, dry_run: bool
) -> str:
    """Record what was switched and not recorded, finish what was recorded; return the deployed version."""
    effects, deployed, all_begun = env.effects(), "", list(_begun(env, model))
    newest = _newest_of_live(all_begun, live, effects.deployments(model, env.name))
    for begun in all_begun:
        lines = effects.deployments(model, env.name)
        lines_by_id = {line.id: line for line in lines}
        what = f"{begun.line.action} of version {begun.line.version}"
        if begun.line.id in lines_by_id:
            repair.done.append(f"the ledger: the {what} is finished ({begun.effect.key})")
        elif begun is newest and champion_of(lines) != begun.line.version:
            if failed := lines_by_id.get(f"{begun.effect.key}:failed"):
                repair.open.append(
                    f"the {what} failed, and the endpoint serves it: the version before was not restored "
                    f"({failed.id}: {failed.reason})"
                )
                continue
            try:
                _verify(env, begun, champion_of(lines), now)
            except (Refusal, PortError) as problem:
                repair.open.append(f"the {what} is not in the ledger, and cannot be recorded: {problem}")
                continue
            repair.done.append(f"the ledger: the {what} is recorded; it was interrupted after the switch")
            deployed = begun.line.version
            if not dry_run:
                _record(env, begun, now)
        else:
            continue  # it was interrupted before its switch, or another one followed: nothing to record
        if not dry_run:
            effects.finish(begun.effect.key, f"version {begun.line.version} served; recorded by repair", now)
    return deployed or champion_of(effects.deployments(model, env.name))


def _newest_of_live(all_begun: list[_Begun], live: LiveVersion | None, lines: Sequence[Deployment]) -> _Begun | None:
    """Return the newest effect that may have switched to the live version; an older intent of it is stale.

    It is stale, too, when another request or rollback of that version was recorded since.
    """
    matching = [
        begun for begun in all_begun
        if live and (live.version, live.digest) == (begun.line.version, begun.line.digest) and not any(
            line.version == live.version and line.at > begun.effect.at
            and line.id not in {begun.line.id, f"{begun.effect.key}:failed"}
            for line in lines
        )
    ]  # fmt: skip
    return max(matching, key=lambda begun: begun.effect.at, default=None)


def _begun(env: Environment, model: str) -> Iterator[_Begun]:
    """Yield the unfinished deployments and rollbacks of a model in this environment."""
    effects, approvals = env.effects(), env.approvals()
    for effect in effects.unfinished("deploy:"):
        try:
            request = approvals.get_request(effect.key.removeprefix("deploy:"))
        except NotFound:
            continue
        if (request.model, request.environment) == (model, env.name):
            digest = parse_evidence(request.evidence).model_digest
            yield _Begun(effect, Deployment(f"{effect.key}:serving", model, env.name, request.version, digest, "deploy",
                                            "serving", "", "", request.id, effect.at))  # fmt: skip
    for effect in effects.unfinished("rollback:"):
        line = rollback_from_json(effect.detail)
        if (line.model, line.environment) == (model, env.name):
            yield _Begun(effect, line)


def _verify(env: Environment, begun: _Begun, deployed: str, now: datetime) -> None:
    """Verify that the endpoint answers as it should, and that the approval of a deployment stands."""
    effects, line = env.effects(), begun.line
    if line.action == "deploy":
        request = env.approvals().get_request(line.request_id)
        verify_approval(env, request, deployed, interrupted_effect=begun.effect, now=now)
        golden: GoldenExample = golden_from_json(begun.effect.detail)
    else:
        golden = recorded_golden(effects, line.request_id)
    env.endpoint().verify(Release(line.model, line.version, Path(), line.digest, golden))


def _record(env: Environment, begun: _Begun, now: datetime) -> None:
    if begun.line.action == "deploy":
        request = env.approvals().get_request(begun.line.request_id)
        record_deployment(env.approvals(), env.effects(), request, "serving", "")
    else:
        env.effects().record_deployment(replace(begun.line, at=now))


def _repair_registry(env: Environment, model: str, deployed: str, repair: Repair, *, dry_run: bool) -> str:
    """Make the registry name the deployed version as champion, and return which one it named."""
    try:
        tracking = env.tracking()
        named = tracking.version(model, f"@{CHAMPION_ALIAS}")
        found = tracking.version(model, deployed) if deployed else None
        if deployed and found is None:
            repair.open.append(
                f"the registry has no version {deployed}: its entry was removed. The endpoint serves its own copy, but "
                "no challenger can be compared with it: restore the entry, or roll back to a version that has one"
            )
        elif found is not None:
            if named is None or named.version != deployed or PROMOTED_TAG not in found.tags:
                repair.done.append(f"the registry: {CHAMPION_ALIAS} is version {deployed}")
                if not dry_run:
                    tell_registry(env, model, deployed)
            if EVIDENCE_TAG not in found.tags:
                repair.open.append(
                    f"version {deployed} has no evidence pack. When its retrain run has ended, retry that run: prefect "
                    "flow-run retry RUN_ID. It repeats nothing that is done, and stores the pack. If the run's results "
                    "are gone, retrain"
                )
        return _version_text(named.version if named else "")
    except PortError as cause:
        repair.open.append(f"the registry cannot be asked: {cause}. Try again later")
        return "not reached"


def _version_text(version: str) -> str:
    return f"version {version}" if version else "no version"
