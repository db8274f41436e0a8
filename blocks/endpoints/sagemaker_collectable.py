"""What the SageMaker endpoint keeps of releases: their files in S3, and what SageMaker knows by their names."""

from collections.abc import Callable, Sequence
from typing import Any

from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.collectable import Collectable
from blocks.common.errors import Rejected
from blocks.endpoints import sagemaker_requests as requests

LIVE_REASON = "it is live"
COMPLETION_MARKERS = ("served.json", "release.json")
"""By these a release is taken for one that can be restored, or need not be copied again."""


class ReleaseArtifacts:
    """Releases as `sweep` sees them. `live` returns the version that an endpoint serves, "" for none."""

    def __init__(self, prefixes: S3Artifacts, sagemaker: Any, live: Callable[[str], str]) -> None:
        self._prefixes, self._sagemaker, self._live = prefixes, sagemaker, live

    def collectables(self, endpoints: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the releases of these endpoints, the live one held."""
        found: list[Collectable] = []
        for endpoint in endpoints:
            held = {f"{endpoint}/{version}": LIVE_REASON} if (version := self._live(endpoint)) else {}
            found += self._prefixes.collectables(f"{endpoint}/", held)
        return tuple(found)

    def delete_collectables(self, key: str) -> None:
        """Remove a release: its files first, then SageMaker's names for it, which cost nothing.

        Raises:
            Rejected: it is live, or the key is no release's.
        """
        self._prefixes.prefix_of(key)  # or it is none of ours
        endpoint, _, version = key.partition(":")[2].partition("/")
        if self._live(endpoint) == version:
            raise Rejected(f"{key} is live; it was not removed")
        self._prefixes.delete_collectables(key, COMPLETION_MARKERS)
        for config in self._configs(endpoint, version):
            model = self._model_of(config)
            if self._is_of(model, endpoint, version):
                self._sagemaker.delete_endpoint_config(EndpointConfigName=config)
                self._sagemaker.delete_model(ModelName=model)

    def _configs(self, endpoint: str, version: str) -> list[str]:
        pages = self._sagemaker.get_paginator("list_endpoint_configs").paginate(
            NameContains=requests.release_name_prefix(endpoint, version)
        )
        return [str(each["EndpointConfigName"]) for page in pages for each in page["EndpointConfigs"]]

    def _model_of(self, config: str) -> str:
        described = self._sagemaker.describe_endpoint_config(EndpointConfigName=config)
        return str(described["ProductionVariants"][0]["ModelName"])

    def _is_of(self, model: str, endpoint: str, version: str) -> bool:
        said = self._sagemaker.describe_model(ModelName=model).get("PrimaryContainer", {}).get("Environment", {})
        return (said.get("RATCHET_ENDPOINT"), said.get("RATCHET_MODEL_VERSION")) == (endpoint, version)
