"""Read evidence packs without a server: `python -m ratchet.evidence verify PATH | list`.

`verify` takes a pack's folder (or the folder that holds `pack` and `pack.sig`) and says of each of the sixteen items
whether it is present, absent or changed, and whether a pinned key has signed the whole. Exit code 1 when it is not as
it was signed, or an item is absent. `list` names the packs of an environment.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from blocks.common.errors import PortError
from runtime.digests import file_digest
from runtime.signatures import Unsigned, check_form, signature_file, verify
from tasks.evidence.rules.items import FORM, ITEMS, LIST, PAGE

State = Literal["present", "absent", "changed"]


@dataclass(frozen=True)
class Found:
    """What verification found: the state of each item by its key, and what is wrong with the whole, or ""."""

    items: dict[str, State]
    problem: str

    @property
    def sound(self) -> bool:
        """Whether every item is there, and as it was signed."""
        return not self.problem and set(self.items.values()) == {"present"}


def check_pack(place: Path, keys: list[str]) -> Found:
    """Verify a pack against the pinned keys: its files against the signature, each item against the list."""
    pack = place / "pack" if (place / "pack").is_dir() else place
    problem = _problem(pack, keys)
    return Found({item.key: _state(pack, item.key) for item in ITEMS}, problem)


def _problem(pack: Path, keys: list[str]) -> str:
    try:
        check_form(signature_file(pack).read_text(encoding="utf-8"))
        verify(pack, keys)
        listed = json.loads((pack / LIST).read_text(encoding="utf-8"))
        return "" if listed["form"] == FORM and (pack / PAGE).is_file() else f"{LIST} is of another form, or no page"
    except Unsigned as no:
        return str(no)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        return f"the pack cannot be read: {cause}"


def _state(pack: Path, key: str) -> State:
    try:
        listed = json.loads((pack / LIST).read_text(encoding="utf-8"))["items"]
        entry: dict[str, Any] = next(each for each in listed if each["key"] == key)
        files, expected = dict(entry["files"]), set(entry["expected"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return "absent"
    if any((pack / name).is_file() and file_digest(pack / name) != digest for name, digest in files.items()):
        return "changed"
    there = {name for name in files if (pack / name).is_file()}
    return "present" if files and set(files) | expected == there else "absent"


def report(place: Path, found: Found) -> str:
    """Return a line for each item, and one for the whole."""
    lines = [f"{number:>2}. {item.title:<55} {found.items[item.key]}" for number, item in enumerate(ITEMS, 1)]
    whole = "sound: signed by a pinned key, every item present" if found.sound else "WRONG"
    return "\n".join([*lines, f"{place}: {whole}{': ' + found.problem if found.problem else ''}"])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "list":
            print("\n".join(map(str, sorted(_folder(options).glob("*/*/pack")))) or "there is no evidence pack")
            return 0
        if options.path is None:
            raise ValueError("name the pack: python -m ratchet.evidence verify PATH")
        keys = options.key or list(_settings(options).get("signing", {}).get("models_trusted", []))
        found = check_pack(options.path, keys)
    except (PortError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(options.path, found))
    return 0 if found.sound else 1


def _folder(options: argparse.Namespace) -> Path:
    settings = _settings(options)
    return Path(settings.get("evidence") or Path(settings["scratch"]) / "evidence")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    from ratchet.audit import settings_of  # imports Prefect, which a pack and a key do not need

    return settings_of(options.environment)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.evidence", description=__doc__, formatter_class=raw)
    parser.add_argument("command", choices=["verify", "list"])
    parser.add_argument("path", nargs="?", type=Path, help="the pack's folder")
    parser.add_argument("--key", action="append", default=[], help="a public key that is trusted: base64 of its DER")
    parser.add_argument("--environment", default="local", help="whose keys: deployments/environments/*.toml")
    return parser


if __name__ == "__main__":
    sys.exit(main())
