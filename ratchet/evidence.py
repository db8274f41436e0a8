"""Evidence packs of an environment: which there are, and whether one is as it was signed."""

from pathlib import Path

from ratchet.audit import environment_settings
from tasks.evidence.verification import report, verify_pack


def verified(pack: Path, keys: list[str], environment: str) -> tuple[str, bool]:
    """Return the report on a pack, and whether it is sound: by `keys`, else by those that the environment trusts."""
    pinned = keys or list(environment_settings(environment).get("signing", {}).get("trusted_model_keys", []))
    found = verify_pack(pack, pinned)
    return report(pack, found), found.valid


def packs(environment: str) -> list[Path]:
    """Return the folders of the environment's packs, sorted."""
    settings = environment_settings(environment)
    return sorted(Path(settings.get("evidence") or Path(settings["scratch"]) / "evidence").glob("*/*/pack"))
