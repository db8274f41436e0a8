"""The evidence of an approval: the facts of one evaluated model version, as canonical JSON with one digest.

Canonical means: sorted keys, no spaces, floats as Python's shortest repr, UTF-8, no NaN. Equal evidence has
equal text. Text that is not canonical is refused, so any edited character changes the digest.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from runtime import digests
from tasks.evaluation.rules.spending import SpentLevel
from tasks.shared.rules.model.holdout import parse_holdout_rule
from tasks.shared.rules.refusal import Refusal

_STRICT_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always")
_NonNegativeInt = Annotated[int, Field(ge=0)]
_NonEmptyText = Annotated[str, Field(min_length=1)]

ATTACHED_REPORTS = (
    "validation.md",
    *(f"{report}.{kind}" for report in ("evaluation", "backtests") for kind in ("json", "md", "png")),
)
"""Files of the review attachments that the evidence pack takes over, where the run has made them."""
_OPTIONAL_KEYS = {"serving_usd_month", "trigger_reason", "attachments_digest", "spent_level"} | {
    "holdout_rule", "cut_off", "trained_until", "compared_since"
}  # fmt: skip
"""Keys that the canonical text leaves out when their value is None."""


@dataclass(frozen=True)
class ExpectationCounts:
    """The numbers of expectations that passed and failed."""

    passed: _NonNegativeInt
    failed: _NonNegativeInt

    __pydantic_config__ = _STRICT_CONFIG


@dataclass(frozen=True)
class Evidence:
    """The facts that a person approves.

    Attributes:
        environment: the environment that the version is to be deployed to.
        version: the registered version.
        model_digest: SHA-256 of the model's files.
        commit: the commit of the code.
        patch_digest: SHA-256 of the uncommitted changes; "" for a clean checkout.
        as_of: the snapshot that was read.
        data_digest: SHA-256 of the read.
        holdout_digest: SHA-256 of the holdout rows.
        parameters: the hyperparameters of the training program, as text.
        seed: the seed of the training program.
        expectations: how many expectations passed and failed.
        metrics: the challenger's metrics on the holdout, by name.
        champion_version: the version that the challenger was compared with; "" for a first model.
        champion_metrics: the champion's metrics on the same rows; empty for a first model.
        cost_usd: the cost of the run in US dollars; None when nothing was paid.
        serving_usd_month: the worst-case cost of serving in US dollars a month; None when serving is not paid.
        attachments_digest: SHA-256 of the review attachments; None without attachments.
        waivers: the hashes of the ledger's waivers that open the failed gates.
        holdout_rule: the canonical text of the holdout rule; None in evidence of earlier releases.
        cut_off: by time, from when on rows are in the holdout; None otherwise.
        trained_until: the newest time of the training rows; None when rows have no time.
        compared_since: challenger and champion were compared on holdout rows newer than this; None on all.
        trigger_reason: why the run was started ("drift of 2026-11-25: ..."); None when a person simply requested it.
        spent_level: the level of the comparison, from the error budget; None without a comparison.
    """

    model: _NonEmptyText
    environment: _NonEmptyText
    version: _NonEmptyText
    model_digest: _NonEmptyText
    commit: _NonEmptyText
    patch_digest: str
    tier: _NonEmptyText
    as_of: _NonEmptyText
    data_digest: _NonEmptyText
    holdout_digest: _NonEmptyText
    parameters: Mapping[str, str]
    seed: int
    expectations: ExpectationCounts
    metrics: Mapping[str, float]
    champion_version: str
    champion_metrics: Mapping[str, float]
    verdict: Literal["pass", "hold", "inconclusive"]
    reasons: tuple[str, ...]
    cost_usd: Annotated[float, Field(ge=0)] | None
    serving_usd_month: Annotated[float, Field(ge=0)] | None = None
    attachments_digest: _NonEmptyText | None = None
    failed_gates: tuple[str, ...] = ()
    waivers: tuple[str, ...] = ()
    trigger_reason: _NonEmptyText | None = None
    spent_level: SpentLevel | None = None
    holdout_rule: _NonEmptyText | None = None
    cut_off: _NonEmptyText | None = None
    trained_until: _NonEmptyText | None = None
    compared_since: _NonEmptyText | None = None

    __pydantic_config__ = _STRICT_CONFIG


def canonical_json(evidence: Evidence) -> str:
    """Return the canonical text of the evidence.

    Raises:
        Refusal: a value is missing, has the wrong type, is NaN or infinite, or is text that is not Unicode; a pass
            has no metrics; or the champion's metrics are given without its version.
    """
    checked = _validated_evidence(evidence)
    values = {field.name: _json_value(getattr(checked, field.name)) for field in fields(Evidence)}
    values = {name: value for name, value in values.items() if name not in _OPTIONAL_KEYS or value is not None}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise Refusal("contains text that is not Unicode", where="evidence", value=cause.object) from cause
    return text


def evidence_digest(evidence: Evidence) -> str:
    """Return the SHA-256 of the canonical text, 64 hexadecimal digits. Raises Refusal as `canonical_json`."""
    return text_digest(canonical_json(evidence))


def text_digest(text: str) -> str:
    """Return the SHA-256 of evidence text, 64 hexadecimal digits."""
    return digests.text_digest(text, "surrogatepass")


def parse_evidence(text: str) -> Evidence:
    """Parse canonical text.

    Raises:
        Refusal: it is not JSON, a key is missing, unknown or repeated, a value has the wrong type, or the text
            is not exactly what `canonical_json` writes.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise _unreadable("is not JSON") from cause
    if not isinstance(values, dict):
        raise _unreadable("is not a JSON object")
    if unexpected_keys := ({field.name for field in fields(Evidence)} ^ set(values)) - (_OPTIONAL_KEYS - set(values)):
        raise _unreadable(f"has missing or unknown keys: {', '.join(sorted(unexpected_keys))}")
    try:
        counts = ExpectationCounts(**values["expectations"])
        spent = {"spent_level": SpentLevel(**values["spent_level"])} if "spent_level" in values else {}
        lists = {name: tuple(values[name]) for name in ("reasons", "failed_gates", "waivers")}
    except TypeError as cause:
        raise _unreadable(f"has malformed expectation counts, level or lists: {cause}") from cause
    evidence = Evidence(**values | {"expectations": counts, **lists, **spent})
    if canonical_json(evidence) != text:
        raise _unreadable("is not in canonical form, so it was edited")
    return evidence


def holdout_facts(evidence: Evidence) -> dict[str, str]:
    """Return what people see of the holdout: its rule, and the times of the cut-off, training and comparison."""
    rule = evidence.holdout_rule
    with suppress(Refusal):  # a text that is no rule is shown as it is
        rule = parse_holdout_rule(rule).sentence if rule else None
    compared = f"rows newer than {evidence.compared_since}" if evidence.compared_since else None
    facts = {
        "holdout rule": rule,
        "cut-off": evidence.cut_off,
        "trained on rows until": evidence.trained_until,
        "compared on": compared,
    }
    return {name: value for name, value in facts.items() if value}


def _unreadable(problem: str) -> Refusal:
    return Refusal(problem, where="evidence", remedy="Use the text that the ledger holds.")


@cache
def _evidence_adapter() -> TypeAdapter[Evidence]:
    return TypeAdapter(Evidence)


def _validated_evidence(evidence: Evidence) -> Evidence:
    try:
        evidence = _evidence_adapter().validate_python(evidence)
    except ValidationError as cause:
        first = cause.errors()[0]
        place = ".".join(["evidence", *map(str, first["loc"])])
        raise Refusal(first["msg"], where=place, value=first["input"]) from cause
    passed, champion = evidence.verdict == "pass", evidence.champion_version
    if passed and not evidence.metrics:
        raise Refusal(
            "the verdict is pass, but there are no metrics", where="evidence.metrics", remedy="Evaluate again."
        )
    named, measured = bool(champion), bool(evidence.champion_metrics)
    if (measured and not named) or (passed and named and not measured):
        problem = "the champion's version and its metrics must be given together"
        raise Refusal(problem, where="evidence.champion_metrics", value=dict(evidence.champion_metrics))
    return evidence


def _json_value(value: Any) -> Any:
    """Return the value for JSON. -0.0 becomes 0.0, so that equal evidence has equal text."""
    if isinstance(value, ExpectationCounts | SpentLevel):
        return _json_value(asdict(value))
    if isinstance(value, Mapping):
        return {key: _json_value(inner) for key, inner in value.items()}
    return value + 0.0 if isinstance(value, float) else value


def attachments_name(digest: str) -> str:
    """Return the name of the folder of the review attachments with this digest, beside the pack of their version."""
    return f"request-{digest[:16]}"
