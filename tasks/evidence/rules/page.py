"""The readable files of an evidence pack: an HTML page that needs no server, and the model card."""

import html
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from tasks.approval.rules.evidence import Evidence
from tasks.evidence.rules.items import EVIDENCE_ITEMS
from tasks.shared.rules.model.namespaces import base_name

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
        "seed": str(evidence.seed),
    }
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Evidence: {_text(title)}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        f"<h1>{_text(title)}</h1><p>The evidence of a promoted model. This page needs no server. "
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
    evidence: Evidence, *, description: str, owner: str, task: str, rows: Mapping[str, int], limits_text: str
) -> str:
    """Return the model card: first the facts of the run, then the text of the team."""
    measured = "\n".join(f"| {name} | {value:.6g} |" for name, value in sorted(evidence.metrics.items()))
    parameters_text = ", ".join(f"`{name}` {value}" for name, value in sorted(evidence.parameters.items())) or "none"
    return f"""# {evidence.model}, version {evidence.version}

{description}

- **Task**: {task}. **Owner**: {owner}.
- **Trained** on {rows["train"]:,} rows of the {evidence.tier} tier, data as of `{evidence.as_of}`, commit `{evidence.commit}`, seed {evidence.seed}.
- **Parameters**: {parameters_text}.
- **Evaluated** on {rows["holdout"]:,} holdout rows: {evidence.verdict}. {" ".join(evidence.reasons)}

| metric on the holdout | value |
|---|---|
{measured}

The text above was generated from the run. The text below was written and reviewed by the team.

{limits_text or "The team has written nothing about intended use and limits: models/" + base_name(evidence.model) + "/CARD.md is missing."}
"""  # noqa: E501  (a list's entry is one line)


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
    return [f"<img alt='evaluation' src='data:image/png;base64,{b64encode(image).decode()}'>"] if image else []


def _item(number: int, title: str, names: tuple[str, ...], files: Mapping[str, bytes]) -> str:
    content = "".join(_file(name, files[name]) for name in names if name in files) or "<p>absent</p>"
    return f"<details><summary><b>{number}. {_text(title)}</b></summary>{content}</details>"


def _file(name: str, content: bytes) -> str:
    link = f"<p><a href='{_text(name)}'>{_text(name)}</a>, {len(content):,} bytes</p>"
    if name.endswith(".png") or len(content) > 60_000:
        return link
    text = content.decode(errors="replace")
    if name.endswith(".json"):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return f"{link}<pre>{_text(text)}</pre>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{top}{body}</table>"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
