"""Look at a model at work: what it is asked and answers now, held against what it was promoted on."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blocks.common.errors import TerminalError
from blocks.environment import Environment
from tasks.monitoring.collection import land_segments
from tasks.monitoring.current import Current, counts_in, lake_rows, log_windows
from tasks.monitoring.quality import labelled_quality
from tasks.monitoring.reference import Reference, freeze
from tasks.monitoring.rules.drift import Compared, compare_window, is_seasonal, lasting, window_findings
from tasks.monitoring.rules.findings import Finding, WatchRules
from tasks.monitoring.rules.judgement import EVENTS, Judgement, Measured, conclude, judgement_json
from tasks.monitoring.rules.plot import judgement_plot
from tasks.monitoring.rules.report import judgement_markdown
from tasks.monitoring.rules.windows import Span, days_before, is_weekly, weeks_before
from tasks.monitoring.samples import write_samples
from tasks.shared.champion import champion_version
from tasks.shared.models import Model
from tasks.shared.records import Told, Watched
from tasks.shared.rules.refusal import Refusal

Draw = Callable[[Judgement, WatchRules], bytes | None]
"""What draws a judgement as a PNG."""


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at: the inference log's windows up to a time, or a data set as of one."""

    until: datetime
    length: timedelta
    dataset: str = ""
    as_of: str = ""


def moment(text: str, now: datetime) -> datetime:
    """Return a time of ISO 8601 with a zone, in UTC; `now` when the text is empty. Raises Refusal for other text."""
    if not text:
        return now
    remedy = "Write a time such as 2026-11-25T06:00:00Z."
    try:
        at = datetime.fromisoformat(text)
    except ValueError as cause:
        raise Refusal("this is no time", where="until", value=text, remedy=remedy) from cause
    if at.tzinfo is None:
        raise Refusal("the time has no zone", where="until", value=text, remedy=remedy)
    return at.astimezone(UTC)


def watch(
    world: Environment, model: Model, rules: WatchRules, wanted: Wanted, folder: Path, draw: Draw = judgement_plot
) -> Watched:
    """Judge, and leave the report, the plot and the samples for Evidently in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    wrong: list[Finding] = []
    version, reference, current = "", None, Current("nothing")
    measured: list[Measured] = []
    with impossible(wrong, "reference"):
        version = serving_version(world, model)
        rules = for_its_age(world, model, version, rules, wanted)
        reference = freeze(world, model, version)
    if not wanted.dataset and model.spec.inference_log.keep:
        with impossible(wrong, "log"):
            land_segments(world.endpoint(), world.lake(), model.spec)
    if reference is not None:
        with impossible(wrong, "rows"):
            current = rows_of(world, model, reference, rules, wanted)
    compared, found, notes = judge_windows(world, reference, current, rules, wanted)
    if reference is not None and current.source and not wanted.dataset:
        with impossible(wrong, "quality"):
            measured, worse, why = labelled_quality(world, model, reference, current, wanted.until, rules)
            found, notes = [*worse, *found], [*notes, *why]
    if reference is not None and compared:
        write_samples(world, reference, current, compared, rules, folder)
    findings = [*found, *wrong]
    if not findings and not compared:
        text = "Nothing was compared: there are no rows."
        findings = [Finding("impossible", "rows", "", text, short="no rows")]
    judgement = conclude(
        model.spec.name, version or "(none)", findings, compared=compared, rows=current.rows, measured=measured,
        notes=notes, needed=rules.needed,
    )  # fmt: skip
    if picture := draw(judgement, rules):
        (folder / "judgement.png").write_bytes(picture)
    return written(judgement, rules, current, reference, folder)


def serving_version(world: Environment, model: Model) -> str:
    """Return the version that serves by the ledger. Raises Refusal when none does."""
    version = champion_version(world, model.spec.name)
    if not version:
        problem = f"{model.spec.name} serves nothing yet, so there is nothing to watch"
        raise Refusal(problem, where=world.name, remedy="Retrain and approve a first version.")
    return version


def for_its_age(world: Environment, model: Model, version: str, rules: WatchRules, wanted: Wanted) -> WatchRules:
    """Return the rules for a version that has not served for all of the windows yet: only those that it has count."""
    lines = world.effects().deployments(model.spec.name, world.name)
    since = max(line.at for line in lines if line.version == version and line.status == "serving")
    lived = max(1, math.ceil((wanted.until - since) / wanted.length))
    return replace(rules, windows=min(rules.windows, lived), needed=min(rules.needed, lived))


def rows_of(world: Environment, model: Model, reference: Reference, rules: WatchRules, wanted: Wanted) -> Current:
    """Count the rows that are to be looked at, by the reference's bins."""
    version, columns = reference.version.version, reference.columns
    if wanted.dataset:
        return lake_rows(world, model.spec, columns, rules, dataset=wanted.dataset, as_of=wanted.as_of)
    if not model.spec.inference_log.keep:
        raise Refusal("the inference log is off", where="inference_log.keep", remedy="Turn it on, or name a data set.")
    return log_windows(world, model.spec, version, columns, rules, until=wanted.until, length=wanted.length)


def judge_windows(
    world: Environment, reference: Reference | None, current: Current, rules: WatchRules, wanted: Wanted
) -> tuple[list[Compared], list[Finding], list[str]]:
    """Return the columns of the newest judged window, all findings, and notes."""
    notes = list(current.notes)
    judged = [window for window, n in zip(current.windows, current.rows, strict=True) if n >= rules.minimum_rows]
    if reference is None or not judged:
        return [], list(current.findings), notes
    columns = [column for column in current.columns if column.name in judged[0]]
    found = [window_findings(columns, reference.counts, window, rules) for window in judged]
    kept = lasting(found, rules)
    if not wanted.dataset and is_weekly(wanted.length):
        excused = [each for each in kept if seasonal(world, reference, current, rules, wanted, each)]
        kept = [each for each in kept if each not in excused]
        notes += [f"{each.column} differs as it does on this weekday: {each.short}." for each in excused]
    compared = compare_window(columns, reference.counts, judged[0], rules)
    return list(compared.values()), [*kept, *current.findings], notes


def seasonal(
    world: Environment, reference: Reference, current: Current, rules: WatchRules, wanted: Wanted, found: Finding
) -> bool:
    """Tell whether a column differs only as its weekday does, in every window in which it was found."""
    if found.cause != "distribution":
        return False
    column = next(each for each in current.columns if each.name == found.column)
    newest = Span(wanted.until - wanted.length, wanted.until)
    same, others = weeks_before(newest), days_before(newest, wanted.length, rules.windows)
    version = reference.version.version
    counts = counts_in(world.engine(), current.files, version, column, [*same, *others])
    then = [counts[place] for place in range(len(same)) if place in counts]
    usual = [each for place, each in counts.items() if place >= len(same)]
    now = current.windows[0].get(column.name)
    return now is not None and is_seasonal(column, now, then, usual, reference.counts[column.name], rules)


def written(
    judgement: Judgement, rules: WatchRules, current: Current, reference: Reference | None, folder: Path
) -> Watched:
    """Write the judgement for people and programs, and return what the next task has to know."""
    links = {"the version": reference.version.url} if reference else {}
    report = judgement_markdown(judgement, rules, where=current.where, links=links)
    (folder / "judgement.json").write_text(judgement_json(judgement))
    (folder / "report.md").write_text(report)
    return Watched(
        model=judgement.model,
        version=judgement.version,
        run_id=reference.version.run_id if reference else "",
        outcome=judgement.outcome,
        sentence=judgement.sentence,
        rows=judgement.rows,
        told=tuple(_told(judgement, kind, event) for kind, event in EVENTS.items() if judgement.of(kind)),
        cleared=tuple(EVENTS[kind] for kind in judgement.cleared()),
        effects={each.column.name: each.effect for each in judgement.compared},
        folder=folder,
    )


def _told(judgement: Judgement, kind: str, event: str) -> Told:
    findings = judgement.of(kind)
    return Told(
        event=event,
        causes=tuple(dict.fromkeys(each.key for each in findings)),
        severity=judgement.severity(kind),
        sentence=judgement.sentence if judgement.sentence_is_of(kind) else findings[0].text,
        details=tuple(each.text for each in findings[:20]),
    )


@contextmanager
def impossible(found: list[Finding], cause: str) -> Iterator[None]:
    """Turn what cannot be done into a finding; what may succeed in a moment is raised, and tried again."""
    try:
        yield
    except (Refusal, TerminalError, json.JSONDecodeError) as refused:
        text = f"It could not be checked: {str(refused).rstrip('.')}."
        found.append(Finding("impossible", cause, "", text, severity="critical", short=f"{cause}: {refused}"))
