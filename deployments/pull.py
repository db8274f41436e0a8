"""The pull step of every deployment: it selects the code of a run, a given commit or the worker's own checkout.

A run that the gateway starts has `RATCHET_COMMIT` and `RATCHET_REPOSITORY` among its job variables. Prefect's own
`git_clone` can also fetch a commit, but into one folder for all runs, so a run could change files that another run
imports. Standard library only: a module imported here from the worker's checkout would shadow the commit's own.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check_out_code() -> dict[str, str]:
    """Return `directory`, the folder of the run's code; Prefect loads the flow from there.

    Raises:
        RuntimeError: the commit cannot be checked out. The run fails then.
    """
    if not os.environ.get("RATCHET_COMMIT"):
        return {"directory": str(ROOT)}
    command = [sys.executable, "-m", "deployments.checkout"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the run's commit cannot be checked out: {done.stderr.strip()[-1000:]}")
    folder = done.stdout.strip().splitlines()[-1]
    sys.path[:] = [folder if entry and Path(entry).resolve() == ROOT else entry for entry in sys.path]
    for name in [name for name in sys.modules if name.partition(".")[0] == "deployments"]:
        del sys.modules[name]
    return {"directory": folder}
