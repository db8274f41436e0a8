"""Statements about a model in standard formats: SLSA provenance, and its entry in a CycloneDX bill of materials."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://ratchet.example/retrain/v1"


def slsa_provenance(
    files: Mapping[str, str],
    *,
    external: Mapping[str, Any],
    internal: Mapping[str, Any],
    dependencies: Sequence[Mapping[str, Any]],
    builder: str,
    run: str,
    finished: datetime,
) -> dict[str, Any]:
    """Return SLSA provenance 1.0 for the model's files.

    Args:
        files: SHA-256 of each file of the model.
        external: the parameters that the requester chose.
        internal: the parameters that the platform chose.
        dependencies: commit, data and lock file, each with `uri` and `digest`.
        builder: the id of the builder.
        run: the id of the run.
        finished: the time at which the model was finished.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(external),
                "internalParameters": dict(internal),
                "resolvedDependencies": [dict(each) for each in dependencies],
            },
            "runDetails": {
                "builder": {"id": builder},
                "metadata": {"invocationId": run, "finishedOn": finished.isoformat(timespec="seconds")},
            },
        },
    }


def add_model_to_bom(
    bom: Mapping[str, Any],
    *,
    name: str,
    version: str,
    description: str,
    task: str,
    digest: str,
    dataset: str,
    data_digest: str,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """Return a CycloneDX bill of materials with the model as its component, and the model card."""
    reference = f"{name}@{version}"
    model = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "description": description,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "modelCard": {
            "modelParameters": {
                "task": task,
                "datasets": [
                    {"type": "dataset", "name": dataset, "contents": {"properties": [
                        {"name": "ratchet:as-of-digest", "value": data_digest}]}}
                ],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [{"type": key, "value": repr(value)} for key, value in sorted(metrics.items())]
            },
        },
    }  # fmt: skip
    components = list(bom.get("components", []))
    needs = {"ref": reference, "dependsOn": sorted({str(each["bom-ref"]) for each in components if "bom-ref" in each})}
    metadata = {**bom.get("metadata", {}), "component": model}
    return {**bom, "metadata": metadata, "dependencies": [*bom.get("dependencies", []), needs]}
