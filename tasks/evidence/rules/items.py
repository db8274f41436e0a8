"""The sixteen items of an evidence pack, each a few files, and the list of them that is signed with the rest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.digests import bytes_digest

PACK_FORMAT = "ratchet.evidence.v1"
ITEMS_FILE = "items.json"
PAGE_FILE = "index.html"


@dataclass(frozen=True)
class EvidenceItem:
    """An item: its key, what it is called, and the files that hold it. `optional` ones may rightly be absent."""

    key: str
    title: str
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()


EVIDENCE_ITEMS = (
    EvidenceItem("card", "Model card", ("card.md",)),
    EvidenceItem("digests", "Digests of the model's files, and their signature", ("model.json", "model.sig")),
    EvidenceItem("code", "Code: commit, authors, patch", ("code.json",), ("uncommitted.patch",)),
    EvidenceItem("data", "Data: manifests and the query as of a time", ("data.json",)),
    EvidenceItem("checks", "Expectations and what they found", ("checks.md", "expectations.yaml")),
    EvidenceItem("training", "Parameters, seed, environment lock", ("training.json", "model.yaml", "requirements.lock")),
    EvidenceItem("evaluation", "Metrics with intervals, slices, rules and verdict",
         ("evaluation.json", "evaluation.md", "evaluation.png", "evidence.json")),
    EvidenceItem("comparison", "Comparison with the champion", ("comparison.json",)),
    EvidenceItem("preflight", "Preflight in the real server", ("preflight.json",)),
    EvidenceItem("approvals", "Approvals: request, decisions, waivers", ("approvals.jsonl",)),
    EvidenceItem("deployment", "Deployment and rollback target", ("deployment.json",)),
    EvidenceItem("monitoring", "Monitoring plan and drift baseline", ("monitoring.json",)),
    EvidenceItem("sbom", "Bill of materials (CycloneDX)", ("sbom.json",)),
    EvidenceItem("provenance", "Provenance (in-toto, SLSA)", ("provenance.json",)),
    EvidenceItem("limits", "Intended use and limits, by the team", ("limits.md",)),
    EvidenceItem("retention", "Retention, and the head of the audit chain", ("retention.json",)),
)  # fmt: skip
"""In the order of the page."""


def items_json(files: Mapping[str, bytes]) -> str:
    """Return the list of items as JSON: of each its files with their SHA-256, for those that there are."""
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
