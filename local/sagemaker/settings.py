"""What a local SageMaker is started with: its images, its pace, where it works."""

import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.sagemaker.errors import ResourceFailure

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = ROOT / "runtime"
ACCOUNT = "123456789012"
"""The account of every ARN: moto's."""
ROLE = f"arn:aws:iam::{ACCOUNT}:role/local-sagemaker"


@dataclass(frozen=True)
class Image:
    """What runs for image URIs that `pattern` is found in: the commands of `train` and `serve`, and its variables."""

    pattern: str
    train: tuple[str, ...] = ()
    serve: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


PROJECT_IMAGE = Image(
    pattern=r"(^|/)ratchet(:|@|$)",
    train=(sys.executable, str(CONTAINER / "train.py")),
    serve=(sys.executable, str(CONTAINER / "serve.py")),
    environment={
        "RATCHET_BIND_HOST": "127.0.0.1",  # a container has a network of its own, a process has this machine's
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
        "LOKY_MAX_CPU_COUNT": "1",
    },
)
"""The project's own image, as this checkout has it."""


@dataclass(frozen=True)
class Settings:
    """`speed` divides every wait in which nobody works: bake times, alarm periods, the grace between signals."""

    state: Path
    images: tuple[Image, ...] = (PROJECT_IMAGE,)
    region: str = "us-east-1"
    speed: float = 1.0
    namespaces: bool | None = None
    """Whether containers get a mount namespace, so that they see /opt/ml; None: where the kernel allows it."""

    def image(self, uri: str) -> Image:
        """Return the image of that URI. Raises Failure, as AWS says it, when there is none."""
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
    """Return the images of a TOML file of `[[image]]` tables, before our own.

    Raises:
        ValueError: the file is no such TOML; the message names it.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["image"]
        return (*(_image(table) for table in tables), PROJECT_IMAGE)
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as cause:
        raise ValueError(
            f"{path}: images cannot be read ({cause!r}); write [[image]] with pattern, train, serve"
        ) from cause


def _image(table: dict[str, object]) -> Image:
    commands = {name: _command(table.get(name, ())) for name in ("train", "serve")}
    variables = table.get("environment", {})
    if not isinstance(variables, dict):
        raise TypeError("environment is no table")
    return Image(str(table["pattern"]), **commands, environment={str(k): str(v) for k, v in variables.items()})


def _command(given: object) -> tuple[str, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise TypeError("train and serve are lists of a program and its arguments")
    return tuple(str(part) for part in given)
