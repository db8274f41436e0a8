"""The status page: jobs, endpoints and models with their states, and the active faults."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runtime.foreign_text import html_text

if TYPE_CHECKING:
    from local.sagemaker.operations import Operations

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:3rem auto;padding:0 1.5rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1rem;margin:2rem 0 .5rem}p{color:#777;margin:.25rem 0 1rem}
table{border-collapse:collapse;width:100%}th{font-size:.8rem;color:#777;text-align:left}
th,td{padding:.5rem .9rem .5rem 0;border-bottom:1px solid #8883;vertical-align:top}
"""
_COLUMNS = {
    "TrainingJobs": ("TrainingJobName", "TrainingJobStatus", "SecondaryStatus", "CreationTime", "FailureReason"),
    "TransformJobs": ("TransformJobName", "TransformJobStatus", "CreationTime", "FailureReason"),
    "Endpoints": ("EndpointName", "EndpointStatus", "EndpointConfigName", "LastModifiedTime", "FailureReason"),
    "Models": ("ModelName", "CreationTime"),
    "EndpointConfigs": ("EndpointConfigName", "CreationTime"),
}


def server_state(operations: "Operations") -> dict[str, Any]:
    """Return all records, newest first, with a few members of each."""
    state = {
        f"{store.kind}s": [
            {column: record.get(column) for column in _COLUMNS[f"{store.kind}s"]} for record in store.list_all()
        ]
        for store in operations.stores
    }
    for endpoint in state["Endpoints"]:
        fleets = operations.endpoints.traffic.fleets(endpoint["EndpointName"])
        endpoint["Traffic"] = {fleet.config: round(fleet.traffic_share, 4) for fleet in fleets}
    isolation = "mount namespace" if operations.containers.namespaces else "SAGEMAKER_BASE_DIR"
    return {**state, "Faults": operations.faults.as_dicts(), "Containers": isolation,
            "Region": operations.settings.region}  # fmt: skip


def state_text(state: Mapping[str, Any]) -> str:
    """Return the state as text for a terminal."""
    lines = []
    for kind, columns in _COLUMNS.items():
        for each in state[kind]:
            values = [str(each[column])[:60] for column in columns if each.get(column)]
            lines.append(f"{kind.removesuffix('s'):<15} {'  '.join(values)}")
    return "\n".join(lines) or "nothing yet"


def render_page(operations: "Operations") -> str:
    """Return the page as HTML."""
    state = server_state(operations)
    tables = "".join(_table(kind, columns, state[kind]) for kind, columns in _COLUMNS.items())
    faults = "".join(f"<li>{html_text(str(fault))}" for fault in state["Faults"]) or "<li>none"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Local SageMaker</title>'
        f'<meta http-equiv="refresh" content="5"><style>{_STYLE}</style><h1>Local SageMaker</h1>'
        f"<p>{html_text(state['Region'])} · containers by {state['Containers']}</p>{tables}"
        f"<h2>Faults</h2><ul>{faults}</ul></html>"
    )


def _table(kind: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{column}" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html_text(str(row.get(c) or '')[:300])}" for c in columns) for row in rows)
    return f"<h2>{kind}</h2><table><tr>{head}</tr>{body}</table>"
