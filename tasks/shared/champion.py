"""The champion: the deployed version according to the ledger, with its approved files."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from blocks.common.errors import NotFound
from blocks.environment import Environment
from blocks.tracking.base import Tracking
from runtime.digests import folder_digest
from runtime.values import FORMS_VERSION
from tasks.approval.rules.evidence import Evidence
from tasks.approval.rules.history import champion_of
from tasks.shared.rules.model.holdout import parse_holdout_rule
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.tiers import newest_sql
from tasks.shared.trust import signed_version_facts


def champion_version(env: Environment, model: str) -> str:
    """Return the deployed version according to the ledger; "" when none was ever deployed."""
    return champion_of(env.effects().deployments(model, env.name))


def approved_digest(env: Environment, model: str, version: str) -> str:
    """Return the digest of the approved files of a version that is or was deployed."""
    deployments = env.effects().deployments(model, env.name)
    return next(line.digest for line in deployments if line.version == version and line.status == "serving")


VALUES_TAG = "ratchet.values"
"""The tag of a model version with the version of the forms of values (`runtime.values`) that it was trained on."""


def knows_forms(tracking: Tracking, model: str, version: str) -> bool:
    """Whether a version knows the present forms of values; one of an earlier release takes texts as they are sent."""
    found = tracking.version(model, version)
    return found is not None and found.tags.get(VALUES_TAG) == FORMS_VERSION


def refuse_changed_forms(env: Environment, model: str, version: str, columns: Collection[str]) -> None:
    """Refuse to predict rows by a version of an earlier release, which knows other forms of these columns' values."""
    if columns and not knows_forms(env.tracking(), model, version):
        raise Refusal(
            "the version was trained by a release with other forms of values, such as true for True",
            where=f"{model} version {version}",
            value=sorted(columns),
            remedy="Retrain it on data that this release has ingested: docs/values.md has the forms.",
        )


def verified_champion_files(env: Environment, model: str, version: str) -> Path:
    """Return the folder of the champion's files, verified against the digest in the ledger before they are loaded."""
    artifact = env.tracking().fetch_model(model, version, env.scratch / "models" / model / version)
    if folder_digest(artifact) != approved_digest(env, model, version):
        raise Refusal(
            "the champion's files are not those that were approved",
            where=f"{model} version {version}",
            remedy="Do not use them: roll back, or retrain.",
        )
    return artifact


def comparable_since(env: Environment, spec: ModelSpec, version: str, challenger_rule: str) -> datetime | None:
    """Return the time that holdout rows must be newer than for the champion not to have trained on them.

    By time that is the champion's newest training row and the longer of the two gaps; the rules may differ. Otherwise
    the rules must be the same, and the result is None: the champion was trained on none of the holdout rows. Evidence
    of earlier releases has no rule: its champion is bounded by the rows of its snapshot.

    Raises:
        Refusal: the champion may have been trained on rows of the holdout.
    """
    if env.tracking().version(spec.name, version) is None:
        raise Refusal("the deployed version is not in the registry", value=version, remedy="Restore it, or roll back.")
    facts, rule = signed_version_facts(env, spec.name, version), parse_holdout_rule(challenger_rule)
    recorded, trained_until = facts.holdout_rule, facts.trained_until
    if not rule.time and recorded == challenger_rule:
        return None
    if not rule.time and recorded is None:
        raise Refusal(
            "the champion's approved evidence has no holdout rule, so it may have been trained on rows of the holdout",
            where=f"version {version}",
            remedy="It is of an earlier release: retrain with a holdout by time, which its snapshot bounds.",
        )
    if not rule.time:
        raise Refusal(
            "the champion was trained with another holdout rule, so it may have been trained on rows of the holdout",
            where=f"version {version}",
            value=recorded,
            remedy=f"Set holdout (now {challenger_rule}) back, or retrain the champion with it first.",
        )
    if not recorded:
        return _newest_row(env, spec, facts, rule.time) + rule.gap
    champion_rule = parse_holdout_rule(recorded)
    until = trained_until if champion_rule.time == rule.time else ""
    newest = datetime.fromisoformat(until) if until else _newest_row(env, spec, facts, rule.time)
    return newest + max(rule.gap, champion_rule.gap)


def _newest_row(env: Environment, spec: ModelSpec, champion: Evidence, time: str) -> datetime:
    """Return the newest time of all rows as of the champion's snapshot: it was trained on none that is newer.

    It bounds versions of earlier releases, and those that were not divided by time.
    """
    lake = env.lake()
    try:
        files = lake.files(lake.as_of(spec.data.dataset, champion.as_of))
        newest: datetime | None = env.engine().query(newest_sql(time), {"rows": files})["newest"][0].as_py()
        if newest is not None:
            return newest
        problem = "its rows have no time"
    except NotFound as cause:
        problem = str(cause)
    raise Refusal(
        "it is unknown until when the champion's training rows go, so it may have been trained on rows of the holdout",
        where=f"version {champion.version}",
        value=problem,
        remedy="Restore the data set that it was trained on, or set holdout back.",
    )
