"""Evidence packs of an environment: which there are, and whether one is as it was signed."""

from pathlib import Path

from ratchet.audit import settings_of
from tasks.evidence.verification import check_pack, report


def verified(pack: Path, keys: list[str], environment: str) -> tuple[str, bool]:
    """Return the report on a pack, and whether it is sound: by `keys`, else by those that the environment trusts."""
    pinned = keys or list(settings_of(environment).get("signing", {}).get("models_trusted", []))
    found = check_pack(pack, pinned)
    return report(pack, found), found.sound


def packs(environment: str) -> list[Path]:
    """Return the folders of the environment's packs, sorted."""
    settings = settings_of(environment)
    return sorted(Path(settings.get("evidence") or Path(settings["scratch"]) / "evidence").glob("*/*/pack"))
