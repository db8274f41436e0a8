"""The sixteen items of an evidence pack, each a few files, and the list of them that is signed with the rest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.digests import bytes_digest

FORM = "ratchet.evidence.v1"
LIST = "items.json"
PAGE = "index.html"


@dataclass(frozen=True)
class Item:
    """An item: its key, what it is called, and the files that hold it. `optional` ones may rightly be absent."""

    key: str
    title: str
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()


ITEMS = (
    Item("card", "Model card", ("card.md",)),
    Item("digests", "Digests of the model's files, and their signature", ("model.json", "model.sig")),
    Item("code", "Code: commit, authors, patch", ("code.json",), ("uncommitted.patch",)),
    Item("data", "Data: manifests and the query as of a time", ("data.json",)),
    Item("checks", "Expectations and what they found", ("checks.md", "expectations.yaml")),
    Item("training", "Parameters, seed, environment lock", ("training.json", "model.yaml", "requirements.lock")),
    Item("evaluation", "Metrics with intervals, slices, rules and verdict",
         ("evaluation.json", "evaluation.md", "evaluation.png", "evidence.json")),
    Item("comparison", "Comparison with the champion", ("comparison.json",)),
    Item("preflight", "Preflight in the real server", ("preflight.json",)),
    Item("approvals", "Approvals: request, decisions, waivers", ("approvals.jsonl",)),
    Item("deployment", "Deployment and rollback target", ("deployment.json",)),
    Item("monitoring", "Monitoring plan and drift baseline", ("monitoring.json",)),
    Item("sbom", "Bill of materials (CycloneDX)", ("sbom.json",)),
    Item("provenance", "Provenance (in-toto, SLSA)", ("provenance.json",)),
    Item("limits", "Intended use and limits, by the team", ("limits.md",)),
    Item("retention", "Retention, and the head of the audit chain", ("retention.json",)),
)  # fmt: skip
"""In the order of the page."""


def list_of(files: Mapping[str, bytes]) -> str:
    """Return the list of items as JSON: of each its files with their SHA-256, for those that there are."""
    items = [
        {
            "key": item.key,
            "title": item.title,
            "files": {name: bytes_digest(files[name]) for name in (*item.files, *item.optional) if name in files},
            "expected": list(item.files),
        }
        for item in ITEMS
    ]
    return json.dumps({"form": FORM, "items": items}, indent=2, sort_keys=True)
