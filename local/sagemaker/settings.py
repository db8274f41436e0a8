"""Settings of the local SageMaker: images, speed, region, state folder."""

import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pydantic

from local.sagemaker.errors import ResourceFailure

CONTAINER = Path(__file__).resolve().parents[2] / "runtime"
ACCOUNT = "123456789012"
"""The account in every ARN; moto uses the same."""
ROLE = f"arn:aws:iam::{ACCOUNT}:role/local-sagemaker"


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(coerce_numbers_to_str=True))
class Image:
    """An image: the commands of `train` and `serve`, and variables, for image URIs that match `pattern`."""

    pattern: str
    train: tuple[str, ...] = ()
    serve: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


PROJECT_IMAGE = Image(
    pattern=r"(^|/)ratchet(:|@|$)",
    train=(sys.executable, str(CONTAINER / "train.py")),
    serve=(sys.executable, str(CONTAINER / "serve.py")),
    environment={
        "RATCHET_BIND_HOST": "127.0.0.1",  # a container has its own network, this process uses the machine's
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
        "LOKY_MAX_CPU_COUNT": "1",
    },
)
"""The project's own image, run from this checkout."""


@dataclass(frozen=True)
class Settings:
    """Settings of one server. `speed` divides pure waiting times: bake times, alarm periods, grace periods."""

    state: Path
    images: tuple[Image, ...] = (PROJECT_IMAGE,)
    region: str = "us-east-1"
    speed: float = 1.0
    namespaces: bool | None = None
    """Whether containers get a mount namespace with /opt/ml; None: if the kernel allows it."""

    def image(self, uri: str) -> Image:
        """Return the image of a URI. Raises ResourceFailure, with AWS's message, when there is none."""
        for image in self.images:
            if re.search(image.pattern, uri):
                return image
        repository = uri.rsplit(":", 1)[0].rsplit("/", 1)[-1]
        known = ", ".join(image.pattern for image in self.images)
        raise ResourceFailure(
            f"ClientError: Cannot find repository: {repository} in registry ID: {ACCOUNT} Please check if your ECR "
            f"repository and image exist and role has proper pull permissions (image {uri}; known here: {known})"
        )


def read_images(path: Path) -> tuple[Image, ...]:
    """Return the images in the `[[image]]` tables of a TOML file, followed by the project's own image.

    Raises:
        ValueError: the file cannot be read or has another form; the message names it.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["image"]
        return (*pydantic.TypeAdapter(list[Image]).validate_python(tables), PROJECT_IMAGE)
    except (OSError, KeyError, ValueError) as cause:
        raise ValueError(
            f"{path}: images cannot be read ({cause!r}); write [[image]] with pattern, train, serve"
        ) from cause
