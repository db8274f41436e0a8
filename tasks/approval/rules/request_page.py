"""An approval request as Markdown, for the Prefect UI."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from runtime.foreign_text import Markdown, markdown_block, markdown_table
from tasks.approval.rules.evidence import Evidence, holdout_facts

_VERDICT_LABELS = {"pass": "✅ pass", "hold": "⛔ hold", "inconclusive": "❔ inconclusive"}

_HOW_TO_DECIDE = Markdown(
    """- **Approvals page**: sign in on the gateway (see `make status`). Only this page authenticates you.
- **Prefect UI**: open the suspended flow run, press *Resume*, and fill in the form.
- **Terminal**: `make approve BY=you REASON="why"` or `make reject BY=you REASON="why"`;
  `make requests` lists the open requests.

The deployment verifies the decision again: who decided, when, and on which digest.
"""
)


def request_markdown(evidence: Evidence, *, requested_by: str, expires_at: datetime, digest: str) -> Markdown:
    """Return the approval request as GitHub Markdown. `expires_at` has a time zone."""
    title = Markdown("# Approve {} version {} for {}?").format(evidence.model, evidence.version, evidence.environment)
    reason = f": {evidence.trigger_reason.rstrip('.')}" if evidence.trigger_reason else ""
    requested = Markdown("Requested by **{}**{}. Expires on {:%Y-%m-%d at %H:%M %Z}.")
    verdict = Markdown("## Verdict: {}").format(_VERDICT_LABELS[evidence.verdict])
    reasons = Markdown("\n").join(Markdown("- {}").format(each) for each in evidence.reasons or ["no reasons given"])
    parts = [title, requested.format(requested_by, reason, expires_at), verdict, reasons]
    parts += [Markdown("## Metrics on the holdout"), _table(_metric_rows(evidence))]
    parts += [Markdown("## Code, data and cost"), _table(_fact_rows(evidence))]
    if evidence.parameters:
        parts += [Markdown("## Parameters"), _table([("parameter", "value"), *sorted(evidence.parameters.items())])]
    about = Markdown("## Digest\n\nThe decision is about this digest of all facts above:\n\n{}")
    parts += [about.format(markdown_block(digest)), _HOW_TO_DECIDE]
    return Markdown("\n\n").join(parts)


def _metric_rows(evidence: Evidence) -> Iterator[tuple[str, ...]]:
    champion = f"champion {evidence.champion_version}" if evidence.champion_version else "champion (none yet)"
    yield "metric", f"challenger {evidence.version}", champion, "difference"
    for name in sorted(evidence.metrics.keys() | evidence.champion_metrics.keys()):
        ours, theirs = evidence.metrics.get(name), evidence.champion_metrics.get(name)
        yield name, _number_text(ours), _number_text(theirs), _difference(name, ours, theirs)


def _fact_rows(evidence: Evidence) -> Iterator[tuple[str, ...]]:
    patch = (
        f", with uncommitted changes ({_short_digest(evidence.patch_digest)})" if evidence.patch_digest else ", clean"
    )
    serving = evidence.serving_usd_month or 0.0
    yield "fact", "value"
    yield "tier", evidence.tier
    yield "snapshot", evidence.as_of
    yield "data", _short_digest(evidence.data_digest)
    yield "holdout", _short_digest(evidence.holdout_digest)
    if evidence.spent_level:
        yield "comparison", evidence.spent_level.sentence
    yield from ((name, value) for name, value in holdout_facts(evidence).items())
    yield "expectations", f"{evidence.expectations.passed} passed, {evidence.expectations.failed} failed"
    yield "model", _short_digest(evidence.model_digest)
    yield "commit", _short_digest(evidence.commit) + patch
    yield "seed", str(evidence.seed)
    yield "cost", _dollars(evidence.cost_usd)
    yield "worst-case cost of serving", _dollars(serving) + (" a month" if serving else "")
    if evidence.attachments_digest:
        yield "review attachments", _short_digest(evidence.attachments_digest)
    if evidence.failed_gates:
        yield "failed gates", ", ".join(evidence.failed_gates)
        yield "waived by", ", ".join(each[:12] for each in evidence.waivers) or "nobody"


def _dollars(usd: float | None) -> str:
    return "none (no paid work)" if not usd else f"{usd:,.2f} USD"


def _table(rows: Iterable[tuple[str, ...]]) -> Markdown:
    head, *body = rows
    return markdown_table(head, body, "l" + ("r" if len(head) > 2 else "l") * (len(head) - 1))


def _number_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def _difference(metric: str, ours: float | None, theirs: float | None) -> str:
    from tasks.evaluation.rules.metrics import METRICS, higher_is_better  # imports pandas: 0.4 s

    if ours is None or theirs is None:
        return "–"
    difference = ours - theirs
    if difference == 0 or not any(metric in known for known in METRICS.values()):
        return f"{difference:+.4f}"
    return f"{difference:+.4f} {'better' if (difference > 0) == higher_is_better(metric) else 'worse'}"


def _short_digest(digest: str) -> str:
    return digest[:12]
