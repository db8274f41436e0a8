"""The sixteen items of an evidence pack, and the list of their files that is signed with the pack."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.digests import bytes_digest

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
         ("evaluation.json", "evaluation.md", "evaluation.png", "evidence.json")),
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
