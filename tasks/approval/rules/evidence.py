"""What an approval is about: the facts of one evaluated model version, as canonical text with one digest.

Canonical means: keys sorted, no spaces, floats as Python's shortest repr, UTF-8, no NaN. Equal evidence has
equal text, and text that is not canonical is refused: whoever edits a character changes the digest.
"""

import html
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from runtime import digests
from tasks.shared.rules.refusal import Refusal

_STRICT_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always")
_NonNegativeInt = Annotated[int, Field(ge=0)]
_NonEmptyText = Annotated[str, Field(min_length=1)]

_OPTIONAL_KEYS = {"serving_usd_month", "because", "exhibits"}
"""Keys that are left out of the text when they are None, since older texts do not have them."""
_VERDICT_LABELS = {"pass": "✅ pass", "hold": "⛔ hold", "inconclusive": "❔ inconclusive"}
_HOW_TO_DECIDE = """- **Approvals page**: sign in on the gateway (`make status` says where). Only there is it proved who decides.
- **Prefect UI**: open the flow run that waits, press *Resume*, and fill in the form.
- **Terminal**: `make approve BY=you REASON="why"` or `make reject BY=you REASON="why"`;
  `make requests` lists what waits.

Whoever deploys checks the decision again: by whom, in time, and over exactly this digest.
"""


@dataclass(frozen=True)
class ExpectationCounts:
    """How many expectations the data met and failed."""

    passed: _NonNegativeInt
    failed: _NonNegativeInt

    __pydantic_config__ = _STRICT_CONFIG


@dataclass(frozen=True)
class Evidence:
    """The facts that a person approves.

    Attributes:
        model, environment, version: which registered model version is to serve where.
        model_digest: SHA-256 over the model's files.
        commit, patch_digest: the code; the patch is that of a dirty checkout, "" when it was clean.
        tier, as_of: how much of which snapshot was read.
        data_digest, holdout_digest: SHA-256 of the read, and of the rows that decided.
        parameters, seed: what the training program got; parameters as text.
        expectations: expectations met and failed.
        metrics: of the challenger on the holdout, by name.
        champion_version, champion_metrics: what it was held against; "" and empty for a first model.
        verdict, reasons: the gate's answer, and why.
        cost_usd: what the run cost in US dollars; None when nothing was paid for.
        serving_usd_month: what serving it may cost a month at worst, in US dollars; None when nothing is paid for.
            It is no part of the text then: requests from before it was known stay what they were.
        attachments_digest: SHA-256 over the files that are shown with it; left out of the text like the cost of serving.
        gates, waivers: which gates did not open, and the hashes of the ledger's waivers that open them.
        trigger_reason: what it was trained in answer to ("drift of 2026-11-25: ..."); None when a person just asked for it.
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

    __pydantic_config__ = _STRICT_CONFIG


def canonical_json(evidence: Evidence) -> str:
    """Return the one text of this evidence.

    Raises:
        Refusal: a value is missing, of another type, NaN or infinite, or text that is not Unicode; or a pass
            without metrics, or a champion's metrics without its version.
    """
    checked = _validated_evidence(evidence)
    values = {field.name: _json_value(getattr(checked, field.name)) for field in fields(Evidence)}
    values = {name: value for name, value in values.items() if name not in _OPTIONAL_KEYS or value is not None}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise Refusal("holds text that is not Unicode", where="evidence", value=cause.object) from cause
    return text


def evidence_digest(evidence: Evidence) -> str:
    """Return the SHA-256 of the canonical text, 64 hexadecimal digits. Raises Refusal as `canonical_json`."""
    return text_digest(canonical_json(evidence))


def text_digest(text: str) -> str:
    """Return the SHA-256 of evidence text as a request carries it, 64 hexadecimal digits."""
    return digests.text_digest(text, "surrogatepass")


def parse_evidence(text: str) -> Evidence:
    """Read canonical text back.

    Raises:
        Refusal: it is not JSON, a key is missing, unknown or twice, a value is of another type, or the text
            is not exactly what `canonical_json` writes.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise _unreadable("is not JSON") from cause
    if not isinstance(values, dict):
        raise _unreadable("is not a JSON object")
    if unexpected_keys := ({field.name for field in fields(Evidence)} ^ set(values)) - (_OPTIONAL_KEYS - set(values)):
        raise _unreadable(f"has keys missing or unknown: {', '.join(sorted(unexpected_keys))}")
    try:
        checks = ExpectationCounts(**values["checks"])
        lists = {name: tuple(values[name]) for name in ("reasons", "gates", "waivers")}
    except TypeError as cause:
        raise _unreadable(f"has checks or lists of another form: {cause}") from cause
    evidence = Evidence(**values | {"checks": checks, **lists})
    if canonical_json(evidence) != text:
        raise _unreadable("is not in canonical form, so it was edited")
    return evidence


def _unreadable(problem: str) -> Refusal:
    return Refusal(problem, where="evidence", remedy="Use the text as the ledger holds it.")


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
        raise Refusal("a pass without a metric is none", where="evidence.metrics", remedy="Evaluate again.")
    named, measured = bool(champion), bool(evidence.champion_metrics)
    if (measured and not named) or (passed and named and not measured):
        problem = "a champion's version and its metrics go together"
        raise Refusal(problem, where="evidence.champion_metrics", value=dict(evidence.champion_metrics))
    return evidence


def _json_value(value: Any) -> Any:
    """Return the value as JSON takes it, with -0.0 as 0.0, so that equal evidence has equal text."""
    if isinstance(value, ExpectationCounts):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _json_value(inner) for key, inner in value.items()}
    return value + 0.0 if isinstance(value, float) else value


def request_markdown(evidence: Evidence, *, requested_by: str, expires_at: datetime, digest: str) -> str:
    """Return the approval request as GitHub Markdown, which the Prefect UI shows as it is.

    Args:
        evidence: what is to be decided.
        requested_by: who asked.
        expires_at: when the request lapses, with a time zone.
        digest: the digest of the evidence, which the decision will name.
    """
    title = f"# Approve {_markdown_text(evidence.model)} version {_markdown_text(evidence.version)} for {_markdown_text(evidence.environment)}?"
    why = f": {_markdown_text(evidence.trigger_reason).rstrip('.')}" if evidence.trigger_reason else ""
    asked = f"Asked by **{_markdown_text(requested_by)}**{why}. Lapses on {expires_at:%Y-%m-%d at %H:%M %Z}."
    verdict = f"## Verdict: {_VERDICT_LABELS[evidence.verdict]}"
    reasons = "\n".join(f"- {_markdown_text(reason)}" for reason in evidence.reasons) or "- no reason was given"
    parts = [title, asked, verdict, reasons, "## Metrics on the holdout", _table(_metric_rows(evidence))]
    parts += ["## What it was made of", _table(_fact_rows(evidence))]
    if evidence.parameters:
        parameters = [
            (_markdown_text(name), _markdown_text(value)) for name, value in sorted(evidence.parameters.items())
        ]
        parts += ["## Parameters", _table([("parameter", "value"), *parameters])]
    parts += [
        f"## What is decided\n\nThe digest over all of the above:\n\n```\n{_markdown_text(digest)}\n```",
        _HOW_TO_DECIDE,
    ]
    return "\n\n".join(parts)


def _metric_rows(evidence: Evidence) -> Iterator[tuple[str, ...]]:
    champion = (
        f"champion {_markdown_text(evidence.champion_version)}" if evidence.champion_version else "champion (none yet)"
    )
    yield "metric", f"challenger {_markdown_text(evidence.version)}", champion, "difference"
    for name in sorted(evidence.metrics.keys() | evidence.champion_metrics.keys()):
        ours, theirs = evidence.metrics.get(name), evidence.champion_metrics.get(name)
        yield _markdown_text(name), _number_text(ours), _number_text(theirs), _difference(name, ours, theirs)


def _fact_rows(evidence: Evidence) -> Iterator[tuple[str, ...]]:
    patch = (
        f", with uncommitted changes ({_short_digest(evidence.patch_digest)})" if evidence.patch_digest else ", clean"
    )
    serving = evidence.serving_usd_month or 0.0
    yield "fact", "value"
    yield "tier", _markdown_text(evidence.tier)
    yield "snapshot", _markdown_text(evidence.as_of)
    yield "data", _short_digest(evidence.data_digest)
    yield "holdout", _short_digest(evidence.holdout_digest)
    yield "checks", f"{evidence.expectations.passed} passed, {evidence.expectations.failed} failed"
    yield "model", _short_digest(evidence.model_digest)
    yield "commit", _short_digest(evidence.commit) + patch
    yield "seed", str(evidence.seed)
    yield "cost", _dollars(evidence.cost_usd)
    yield "cost of serving, at worst", _dollars(serving) + (" a month" if serving else "")
    if evidence.attachments_digest:
        yield "shown with it", _short_digest(evidence.attachments_digest)
    if evidence.failed_gates:
        yield "gates that did not open", _markdown_text(", ".join(evidence.failed_gates))
        yield "waived by", _markdown_text(", ".join(each[:12] for each in evidence.waivers)) or "nobody"


def _dollars(usd: float | None) -> str:
    return "none (no paid work)" if not usd else f"{usd:,.2f} USD"


def _table(rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    head, *body = rows
    rule = "|".join(["---", *["---:" if len(head) > 2 else "---"] * (len(head) - 1)])
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in body)])


def _number_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def _difference(metric: str, ours: float | None, theirs: float | None) -> str:
    from tasks.evaluation.rules.metrics import METRICS, higher_is_better  # brings pandas, 0.4 s, for one table of names

    if ours is None or theirs is None:
        return "–"
    difference = ours - theirs
    if difference == 0 or not any(metric in known for known in METRICS.values()):
        return f"{difference:+.4f}"
    return f"{difference:+.4f} {'better' if (difference > 0) == higher_is_better(metric) else 'worse'}"


def _short_digest(digest: str) -> str:
    return _markdown_text(digest[:12])


def _markdown_text(value: str) -> str:
    """Return the value so that Markdown shows it letter by letter: no markup, no table cell, no invisible sign."""
    line = " ".join(value.split())
    plain = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in {"Cc", "Cf", "Cs"} else c for c in line)
    marked = re.sub(r"([\\`*\[\]|~#!])|((?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\g<0>", plain)
    return html.escape(marked, quote=False)
