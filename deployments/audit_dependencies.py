"""Look the locked packages up in a database of known faults: `make audit-dependencies`.

Exit codes: 0 no known fault, 1 at least one, 3 the database cannot be reached, so nothing is known. A lock file that is
older than `MAX_LOCK_AGE` is a warning and no failure.
"""

import argparse
import json
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from blocks.common.errors import Rejected, Unavailable
from blocks.common.git import git
from runtime.foreign_text import print_text

LOCK = Path("requirements/requirements.lock")
DATABASE = "https://api.osv.dev/v1/query"
MAX_LOCK_AGE = timedelta(days=90)
NO_FAULT, FAULTS, UNKNOWN = 0, 1, 3


def audit(lock: Path, database: str) -> tuple[int, str]:
    """Return the exit code, and what is known of the packages of a lock file, as text."""
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "-r", str(lock), "--no-deps", "--disable-pip", "-s", "osv",
         "--osv-url", database, "-f", "json", "--progress-spinner", "off"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        return UNKNOWN, f"nothing was audited: {database} cannot be used ({reason})"
    if skipped := [each["name"] for each in packages if "skip_reason" in each]:
        return UNKNOWN, f"not audited: {', '.join(skipped)}"
    lines = [
        f"{each['name']} {each['version']}: {fault['id']}; fixed in {', '.join(fault['fix_versions']) or 'no release'}"
        for each in packages
        for fault in each["vulns"]
    ]
    return (FAULTS, "\n".join(lines)) if lines else (NO_FAULT, f"{len(packages)} packages, no known fault")


def age_warning(lock: Path, now: datetime) -> str:
    """Return a warning if the lock file was last changed too long ago, by git or else by its file; "" otherwise."""
    changed = datetime.fromtimestamp(lock.stat().st_mtime, UTC)
    with suppress(Rejected, Unavailable):  # it is in no repository
        logged = git("log", "-1", "--format=%cI", paths=[lock.name], folder=lock.resolve().parent).decode().strip()
        changed = datetime.fromisoformat(logged) if logged else changed
    if (age := now - changed) <= MAX_LOCK_AGE:
        return ""
    return (
        f"warning: {lock} is {age.days} days old, more than {MAX_LOCK_AGE.days}: resolve it anew (make lock) and test"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m deployments.audit_dependencies", description=__doc__)
    parser.add_argument("--lock", type=Path, default=LOCK)
    parser.add_argument("--database", default=DATABASE, help="the address of an OSV database")
    said = parser.parse_args(arguments)
    if warning := age_warning(said.lock, datetime.now(UTC)):
        print_text(warning)
    code, text = audit(said.lock, said.database)
    print_text(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
