"""Keep what a look at a model found where people look for it, and tell it."""

import shutil
import subprocess
import sys
from base64 import b64encode
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run

from blocks.common.errors import PortError
from blocks.environment import Environment, open_environment
from blocks.tracking.base import Tracking
from tasks.monitoring.rules.judgement import EVENTS
from tasks.notification.rules.story import is_open
from tasks.shared.alerts import owner_of, tell
from tasks.shared.records import Watched

REPORT_SECONDS = 120
_ROOT = Path(__file__).resolve().parents[2]
_FORK = _ROOT / "runtime" / "warm_client.py"
_KEPT = ("report.md", "judgement.json", "judgement.png", "report.html", "report.json")


def evidently(folder: Path) -> bool:
    """Run Evidently over the samples in a process of its own, forked warm where that is possible; say if it did.

    It may fail without harm: it is a picture of what was judged, and judges nothing.
    """
    command = [sys.executable, "-I", "-S", str(_FORK), "tasks.monitoring.rules.evidently_report", str(folder)]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, timeout=REPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode:
        (folder / "evidently.log").write_bytes(done.stdout + done.stderr)
    return done.returncode == 0


def keep(tracking: Tracking, seen: Watched) -> str:
    """Log report, plot and effects to the version's run under the time of this look; return the run's page."""
    if not seen.run_id:
        return ""
    kept = seen.folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for name in _KEPT:
        if (seen.folder / name).exists():
            shutil.copyfile(seen.folder / name, kept / name)
    tracking.log_files(seen.run_id, kept, under=f"watch/{flow_run.id or seen.folder.name}")
    tracking.log(seen.run_id, tags={"ratchet.watch.outcome": seen.outcome, "ratchet.watch.sentence": seen.sentence})
    return tracking.run(seen.run_id).url


def tidy(folder: Path) -> None:
    """Remove what is kept with the run: megabytes a night. What stays is the judgement, its report and the plot."""
    shutil.rmtree(folder / "kept", ignore_errors=True)
    for name in ("report.html", "report.json", "reference.parquet", "current.parquet", "scores.json"):
        (folder / name).unlink(missing_ok=True)


def show(seen: Watched, page: str, made: bool) -> None:
    """Make the flow run's artifacts: the report with its plot, and the link to Evidently's page where it was made."""
    markdown = (seen.folder / "report.md").read_text()
    if page:
        markdown += f"\nEvidently's report, the plot and the numbers lie with the version's run: {page}\n"
    create_markdown_artifact(key=f"watch-{seen.model.replace('_', '-')}", markdown=markdown, description=seen.sentence)
    plot = seen.folder / "judgement.png"
    if plot.exists():
        image = "data:image/png;base64," + b64encode(plot.read_bytes()).decode()
        create_image_artifact(key="watch-plot", image_url=image, description=seen.sentence)
    if page and made:
        create_link_artifact(key="watch-evidently", link=page, link_text=f"Evidently's report: {seen.outcome}")


def tell_seen(world: Environment, seen: Watched, page: str, *, key: str, now: datetime | None = None) -> int:
    """Write the signals of a look into the ledger and emit them as events, once under the same key."""
    links = {"version's run": page} if page else {}
    for told in seen.told:
        details = told.model_dump(mode="json", include={"causes", "details"})
        payload = {"version": seen.version, "links": links, "flow_run": key, "owner": owner_of(seen.model), **details}
        tell(world, told.event, model=seen.model, sentence=told.sentence, key=f"{told.event}:{key}",
             severity=told.severity, links=links, payload=payload, now=now)  # fmt: skip
    over = [event for event in seen.cleared if is_open(world.outbox().signals(f"{seen.model}/{world.name}/{event}"))]
    for event in over:
        sentence = f"Version {seen.version}: {seen.sentence}"
        tell(world, event, model=seen.model, sentence=sentence, key=f"{event}:{key}", state="recovered", links=links,
             now=now)  # fmt: skip
    return len(seen.told) + len(over)


def tell_failure(model: str, environment: str, problem: BaseException) -> None:
    """Tell that a look at a model broke off: no news is not good news. Where that fails too, the run's state tells."""
    sentence = f"The check itself failed: {type(problem).__name__}: {str(problem)[:500]}"
    with suppress(PortError):
        world = open_environment(environment)
        tell(world, EVENTS["impossible"], model=model, sentence=sentence, key=f"failure:{flow_run.id}",
             payload={"causes": ["failure:"], "flow_run": str(flow_run.id)})  # fmt: skip
