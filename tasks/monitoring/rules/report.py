"""A judgement as Markdown for people: the sentence first, then what was found, then every column."""

import math
from collections.abc import Iterator, Mapping

from tasks.monitoring.rules.drift import ColumnDrift
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.judgement import MonitoringReport

_OUTCOME_SYMBOLS = {"Quiet": "🟢", "Drift": "🟠", "Degraded": "🔴", "CouldNotCheck": "⚪"}
_MAX_COLUMNS = 60


def monitoring_markdown(
    judgement: MonitoringReport, rules: MonitoringRules, *, where: str, links: Mapping[str, str]
) -> str:
    """Return the judgement as Markdown.

    Args:
        judgement: what was concluded.
        rules: by which.
        where: the rows that were looked at, in words.
        links: addresses by what they lead to.
    """
    return "\n".join(_lines(judgement, rules, where, links)) + "\n"


def _lines(judgement: MonitoringReport, rules: MonitoringRules, where: str, links: Mapping[str, str]) -> Iterator[str]:
    yield f"# {_OUTCOME_SYMBOLS[judgement.outcome]} {judgement.model} {judgement.version}: {judgement.outcome}"
    yield from ("", f"**{judgement.sentence}**", "", f"Looked at: {where}.")
    if judgement.rows_per_window:
        yield f"Rows by window, newest first: {', '.join(f'{rows:,}' for rows in judgement.rows_per_window)}."
    if links:
        yield from ("", " · ".join(f"[{name}]({address})" for name, address in links.items() if address))
    if judgement.findings:
        yield from ("", "## Found", "", "| what | column | severity | |", "|---|---|---|---|")
        for each in judgement.findings:
            yield f"| {each.cause} | {_cell(each.column or '–')} | {each.severity} | {_cell(each.text)} |"
    if judgement.quality_metrics:
        yield from ("", "## Quality where labels have arrived", "")
        yield from ("| metric | at promotion | now | interval (99 %) | rows | |", "|---|---|---|---|---|---|")
        for measured in judgement.quality_metrics:
            interval = f"{measured.lower:.4f} to {measured.upper:.4f}"
            verdict = "**worse**" if measured.worse else "as it was"
            yield (
                f"| {measured.metric} | {measured.reference_value:.4f} | {measured.current_value:.4f} | {interval} "
                f"| {measured.rows:,} | {verdict} |"
            )
    if judgement.column_drifts:
        yield from ("", f"## Columns of the newest window (an index of {rules.psi_threshold:g} counts)", "")
        yield from ("| column | index | by chance | change | missing | |", "|---|---|---|---|---|---|")
        yield from (_column(each) for each in judgement.column_drifts[:_MAX_COLUMNS])
        if (more := len(judgement.column_drifts) - _MAX_COLUMNS) > 0:
            yield f"| … {more} more | | | | | |"
    if judgement.notes:
        yield from ("", "## Not looked at", "", *(f"- {note}" for note in judgement.notes))


def _column(each: ColumnDrift) -> str:
    effect = "–" if math.isnan(each.psi) else f"{each.psi:.3f}"
    missing = f"{each.reference.missing_share:.1%} → {each.current.missing_share:.1%}"
    mark = "**drift**" if each.drifted else ""
    return f"| {_cell(each.column.display_name)} | {effect} | {each.p_value:.2g} | {_cell(each.change)} | {missing} | {mark} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
