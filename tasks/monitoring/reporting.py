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
from tasks.monitoring.rules.judgement import FINDING_EVENTS
from tasks.notification.rules.story import is_alert_open
from tasks.shared.alerts import emit_alert, model_owner
from tasks.shared.records import MonitoringResult

EVIDENTLY_TIMEOUT_SECONDS = 120
_ROOT = Path(__file__).resolve().parents[2]
_FORK = _ROOT / "runtime" / "warm_client.py"
_RUN_FILES = ("report.md", "judgement.json", "judgement.png", "report.html", "report.json")


def run_evidently(folder: Path) -> bool:
    """Run Evidently over the samples in a process of its own, forked warm where that is possible; say if it did.

    It may fail without harm: it is a picture of what was judged, and judges nothing.
    """
    command = [sys.executable, "-I", "-S", str(_FORK), "tasks.monitoring.rules.evidently_report", str(folder)]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, timeout=EVIDENTLY_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode:
        (folder / "evidently.log").write_bytes(done.stdout + done.stderr)
    return done.returncode == 0


def log_monitoring_files(tracking: Tracking, result: MonitoringResult) -> str:
    """Log report, plot and effects to the version's run under the time of this look; return the run's page."""
    if not result.run_id:
        return ""
    kept = result.folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for name in _RUN_FILES:
        if (result.folder / name).exists():
            shutil.copyfile(result.folder / name, kept / name)
    tracking.log_files(result.run_id, kept, artifact_folder=f"watch/{flow_run.id or result.folder.name}")
    tracking.log(
        result.run_id, tags={"ratchet.watch.outcome": result.outcome, "ratchet.watch.sentence": result.summary}
    )
    return tracking.run(result.run_id).url


def remove_logged_files(folder: Path) -> None:
    """Remove what is kept with the run: megabytes a night. What stays is the judgement, its report and the plot."""
    shutil.rmtree(folder / "kept", ignore_errors=True)
    for name in ("report.html", "report.json", "reference.parquet", "current.parquet", "scores.json"):
        (folder / name).unlink(missing_ok=True)


def create_monitoring_artifacts(result: MonitoringResult, page: str, made: bool) -> None:
    """Make the flow run's artifacts: the report with its plot, and the link to Evidently's page where it was made."""
    markdown = (result.folder / "report.md").read_text()
    if page:
        markdown += f"\nEvidently's report, the plot and the numbers lie with the version's run: {page}\n"
    create_markdown_artifact(
        key=f"watch-{result.model.replace('_', '-')}", markdown=markdown, description=result.summary
    )
    plot = result.folder / "judgement.png"
    if plot.exists():
        image = "data:image/png;base64," + b64encode(plot.read_bytes()).decode()
        create_image_artifact(key="watch-plot", image_url=image, description=result.summary)
    if page and made:
        create_link_artifact(key="watch-evidently", link=page, link_text=f"Evidently's report: {result.outcome}")


def emit_monitoring_alerts(
    env: Environment, result: MonitoringResult, run_url: str, *, key: str, now: datetime | None = None
) -> int:
    """Write the signals of a look into the ledger and emit them as events, once under the same key."""
    links = {"version's run": run_url} if run_url else {}
    for alert_event in result.alert_events:
        details = alert_event.model_dump(mode="json", include={"causes", "details"})
        payload = {
            "version": result.version,
            "links": links,
            "flow_run": key,
            "owner": model_owner(result.model),
            **details,
        }
        emit_alert(env, alert_event.event, model=result.model, sentence=alert_event.sentence, alert_record_key=f"{alert_event.event}:{key}",
             severity=alert_event.severity, links=links, payload=payload, now=now)  # fmt: skip
    cleared_events = [
        event
        for event in result.cleared_events
        if is_alert_open(env.outbox().signals(f"{result.model}/{env.name}/{event}"))
    ]
    for event in cleared_events:
        sentence = f"Version {result.version}: {result.summary}"
        emit_alert(env, event, model=result.model, sentence=sentence, alert_record_key=f"{event}:{key}", state="recovered", links=links,
             now=now)  # fmt: skip
    return len(result.alert_events) + len(cleared_events)


def alert_monitoring_failure(model: str, environment: str, error: BaseException) -> None:
    """Tell that a look at a model broke off: no news is not good news. Where that fails too, the run's state tells."""
    sentence = f"The check itself failed: {type(error).__name__}: {str(error)[:500]}"
    with suppress(PortError):
        env = open_environment(environment)
        emit_alert(env, FINDING_EVENTS["impossible"], model=model, sentence=sentence, alert_record_key=f"failure:{flow_run.id}",
             payload={"causes": ["failure:"], "flow_run": str(flow_run.id)})  # fmt: skip
