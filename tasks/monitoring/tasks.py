"""Prefect tasks of monitoring: collect the inference log, look at it, report, and emit alerts."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from blocks.environment import open_environment
from tasks.monitoring.collection import land_segments
from tasks.monitoring.reporting import evidently, keep, show, tell_seen, tidy
from tasks.monitoring.rules.findings import WatchRules
from tasks.monitoring.runs import Wanted, moment, watch
from tasks.shared.models import load_model
from tasks.shared.monitoring_history import keep_look
from tasks.shared.records import Collected, Watched
from tasks.shared.retries import STAGE


@task(name="collect", **STAGE)
def collect(model: str, environment: str) -> Collected:
    """Land the segments of the model's inference log that wait, and have the endpoint forget them."""
    world, spec = open_environment(environment), load_model(model).spec
    done = land_segments(world.endpoint(), world.lake(), spec)
    get_run_logger().info("%d rows of %d segments landed in %s", done.rows, done.segments, done.dataset)
    return done


@task(name="report", **STAGE)
def report(seen: Watched, environment: str) -> str:
    """Have Evidently draw its report, and keep everything as artifacts and with the version's run; return its page."""
    wanted = (seen.folder / "scores.json").exists()
    made = wanted and evidently(seen.folder)
    if wanted and not made:
        get_run_logger().warning("Evidently made no report; the judgement does not need it")
    world = open_environment(environment)
    keep_look(world, seen, datetime.now(UTC))
    page = keep(world.tracking(), seen)
    show(seen, page, made)
    tidy(seen.folder)
    return page


@task(name="tell findings", **STAGE)
def tell_findings(seen: Watched, page: str, environment: str) -> int:
    """Tell each kind of finding, and that one is over which was open; return how many signals that were."""
    return tell_seen(open_environment(environment), seen, page, key=str(flow_run.id))


@task(name="look", **STAGE)
def look(
    model: str, dataset: str, as_of: str, until: str, window_minutes: float, windows: int, needed: int, environment: str
) -> Watched:
    """Collect, count and judge; whatever makes that impossible is a finding as well. See `flows.watch_drift`."""
    world, brought = open_environment(environment), load_model(model)
    rules = WatchRules(windows=1 if dataset else windows, needed=1 if dataset else needed)
    wanted = Wanted(moment(until, datetime.now(UTC)), timedelta(minutes=window_minutes), dataset, as_of)
    folder = world.scratch / "watch" / model / "runs" / str(flow_run.id)
    seen = watch(world, brought, rules, wanted, folder)
    get_run_logger().info("%s: %s", seen.outcome, seen.sentence)
    return seen
