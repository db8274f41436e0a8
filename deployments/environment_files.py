"""The files of environments, found by name without importing Prefect."""

from pathlib import Path

from blocks.common.errors import NotFound
from deployments.state import ROOT


def environment_file(name: str, root: Path = ROOT) -> Path:
    """Return `deployments/environments/<name>.toml`. Raises NotFound, with the names that exist."""
    folder = root / "deployments" / "environments"
    known = {file.stem: file for file in sorted(folder.glob("*.toml"))}
    if name not in known:
        raise NotFound(f"there is no environment {name!r}; there are: {', '.join(known)}")
    return known[name]
