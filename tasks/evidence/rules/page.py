"""The readable files of an evidence pack: its sixteen items, an HTML page that needs no server, and the model card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.digests import bytes_digest
from runtime.foreign_text import Markdown, html_text, markdown_code, markdown_table, stored_markdown
from tasks.approval.rules.evidence import Evidence, holdout_facts
from tasks.shared.rules.figures import png_url
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.model.spec import ModelSpec

PACK_FORMAT = "ratchet.evidence.v1"
ITEMS_FILE = "items.json"
PAGE_FILE = "index.html"


@dataclass(frozen=True)
class EvidenceItem:
    """One item of the pack: its key, title and files. Files in `optional` may be absent."""

    key: str
    title: str
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()


EVIDENCE_ITEMS = (
    EvidenceItem("card", "Model card", ("card.md",)),
    EvidenceItem("digests", "Digests of the model's files, and their signature", ("model.json", "model.sig")),
    EvidenceItem("code", "Code: commit, authors, patch", ("code.json",), ("uncommitted.patch",)),
    EvidenceItem("data", "Data: snapshot manifests and the as-of query", ("data.json",)),
    EvidenceItem("validation", "Expectations and their results", ("validation.md", "expectations.yaml")),
    EvidenceItem("training", "Parameters, seed, environment lock",
         ("training.json", "model.yaml", "requirements.lock")),
    EvidenceItem("evaluation", "Metrics with intervals, slices, rules and verdict",
         ("evaluation.json", "evaluation.md", "evaluation.png", "evidence.json"),
         ("backtests.json", "backtests.md", "backtests.png")),
    EvidenceItem("comparison", "Comparison with the champion", ("comparison.json",)),
    EvidenceItem("preflight", "Preflight in the real server", ("preflight.json",)),
    EvidenceItem("approvals", "Approvals: request, decisions, waivers", ("approvals.jsonl",)),
    EvidenceItem("deployment", "Deployment and rollback target", ("deployment.json",)),
    EvidenceItem("monitoring", "Monitoring plan and drift baseline", ("monitoring.json",)),
    EvidenceItem("sbom", "Bill of materials (CycloneDX)", ("sbom.json",)),
    EvidenceItem("provenance", "Provenance (in-toto, SLSA)", ("provenance.json",)),
    EvidenceItem("intended-use", "Intended use and limits, by the team", ("intended-use.md",)),
    EvidenceItem("retention", "Retention, and the head of the audit chain", ("retention.json",)),
)  # fmt: skip
"""In the order of the page."""


def items_json(files: Mapping[str, bytes]) -> str:
    """Return the list of items as JSON, with the SHA-256 of each file that exists."""
    items = [
        {
            "key": item.key,
            "title": item.title,
            "files": {name: bytes_digest(files[name]) for name in (*item.files, *item.optional) if name in files},
            "expected": list(item.files),
        }
        for item in EVIDENCE_ITEMS
    ]
    return json.dumps({"form": PACK_FORMAT, "items": items}, indent=2, sort_keys=True)


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}th,td{text-align:left;padding:.3rem .6rem;
border-bottom:1px solid #d0d7de;vertical-align:top;overflow-wrap:anywhere}code,pre{font-size:.85em;background:#f6f8fa}
pre{padding:.8rem;overflow:auto;max-height:28rem}h1{margin-bottom:0}img{max-width:100%}summary{cursor:pointer}
.n{text-align:right;font-variant-numeric:tabular-nums}"""


def evidence_html(evidence: Evidence, files: Mapping[str, bytes], approvals: list[Mapping[str, Any]]) -> str:
    """Return the page: the promoted version, its approvals, and every item with its files."""
    title = f"{evidence.model} version {evidence.version} in {evidence.environment}"
    facts = {
        "verdict": evidence.verdict,
        "reasons": " ".join(evidence.reasons),
        "tier": evidence.tier,
        "data as of": evidence.as_of,
        "commit": evidence.commit + (" with uncommitted changes" if evidence.patch_digest else ""),
        "model digest": evidence.model_digest,
        "data digest": evidence.data_digest,
        **holdout_facts(evidence),
        "seed": str(evidence.seed),
    }
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Evidence: {html_text(title)}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        f"<h1>{html_text(title)}</h1><p>The evidence of a promoted model. This page needs no server. "
        "<code>python -m ratchet evidence verify</code> shows whether a file was changed.</p>",
        _table(["fact", ""], [[name, value] for name, value in facts.items()]),
        "<h2>Metrics on the holdout</h2>",
        _table(["metric", "this version", f"champion {evidence.champion_version or '(none)'}"], _metrics(evidence)),
        *_plot(files),
        "<h2>Decisions</h2>",
        _table(["person", "decision", "time", "reason", "channel"], [_decision(each) for each in approvals]),
        "<h2>The sixteen items</h2>",
        *(
            _item(number, item.title, (*item.files, *item.optional), files)
            for number, item in enumerate(EVIDENCE_ITEMS, 1)
        ),
    ]
    return "\n".join(parts) + "\n"


def model_card_markdown(
    evidence: Evidence, spec: ModelSpec, train_rows: int, holdout_rows: int, limits_text: str
) -> Markdown:
    """Return the model card: first the facts of the run, then the text of the team."""
    parameters = [
        Markdown("{} {}").format(markdown_code(name), value) for name, value in sorted(evidence.parameters.items())
    ]
    missing = Markdown("The team has written nothing about intended use and limits: {} is missing.")
    return _CARD.format(
        evidence=evidence,
        spec=spec,
        as_of=markdown_code(evidence.as_of),
        commit=markdown_code(evidence.commit),
        train_rows=train_rows,
        holdout_rows=holdout_rows,
        parameters=Markdown(", ").join(parameters) or "none",
        reasons=" ".join(evidence.reasons),
        metrics=markdown_table(
            ("metric on the holdout", "value"), [(n, f"{value:.6g}") for n, value in sorted(evidence.metrics.items())]
        ),
        limits=stored_markdown(limits_text) or missing.format(f"models/{base_name(evidence.model)}/CARD.md"),
    )


_CARD = Markdown(
    """# {evidence.model}, version {evidence.version}

{spec.description}

- **Task**: {spec.task}. **Owner**: {spec.owner}.
- **Trained** on {train_rows:,} rows of the {evidence.tier} tier, data as of {as_of}, commit {commit}, seed {evidence.seed}.
- **Parameters**: {parameters}.
- **Evaluated** on {holdout_rows:,} holdout rows: {evidence.verdict}. {reasons}

{metrics}

The text above was generated from the run. The text below was written and reviewed by the team.

{limits}
"""  # noqa: E501  (a list's entry is one line)
)


def _metrics(evidence: Evidence) -> list[list[str]]:
    names = sorted({*evidence.metrics, *evidence.champion_metrics})
    return [[name, _number(evidence.metrics.get(name)), _number(evidence.champion_metrics.get(name))] for name in names]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def _decision(decision: Mapping[str, Any]) -> list[str]:
    how = f"{decision['channel']}, {'authenticated' if decision['authenticated'] else 'name not verified'}"
    word = "approved" if decision["approved"] else "rejected"
    return [str(decision["by"]), word, str(decision["at"]), str(decision["reason"]), how]


def _plot(files: Mapping[str, bytes]) -> list[str]:
    image = files.get("evaluation.png")
    return [f"<img alt='evaluation' src='{png_url(image)}'>"] if image else []


def _item(number: int, title: str, names: tuple[str, ...], files: Mapping[str, bytes]) -> str:
    content = "".join(_file(name, files[name]) for name in names if name in files) or "<p>absent</p>"
    return f"<details><summary><b>{number}. {html_text(title)}</b></summary>{content}</details>"


def _file(name: str, content: bytes) -> str:
    link = f"<p><a href='{html_text(name)}'>{html_text(name)}</a>, {len(content):,} bytes</p>"
    if name.endswith(".png") or len(content) > 60_000:
        return link
    text = content.decode(errors="replace")
    if name.endswith(".json"):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return f"{link}<pre>{html_text(text)}</pre>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{html_text(cell)}" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html_text(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{top}{body}</table>"
