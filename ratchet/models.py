"""Commands about one model: propose its expectations, render its dashboard, export its quarantined rows."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from blocks.engines.base import Engine
from blocks.lake.base import Lake
from local.stack import running_environment
from runtime.files import write_text_atomically
from tasks.dashboard.drawing import write_dashboard
from tasks.ingestion.datasets import dataset_snapshots, export_quarantine, quarantine_dataset
from tasks.shared.models import TeamModel, known_models, load_model
from tasks.shared.rules.model.data import DataSpec, IngestSchema
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.profile import propose_suite_yaml
from tasks.validation.tasks import parquet_rows


def write_proposed_suite(name: str, environment: str, *, force: bool) -> str:
    """Write a first expectations.yaml from the newest data in the lake, for people to edit; return a message.

    Raises as `propose_suite` does.
    """
    model = load_model(name)
    refuse_to_overwrite(model, force=force)  # check first: connecting to the stack takes a second
    env = running_environment(environment)
    path = propose_suite(model, env.lake(), env.engine(), force=force)
    return f"wrote {path}: review it, edit it to your requirements on the data, then commit it"


def propose_suite(model: TeamModel, lake: Lake, engine: Engine, *, force: bool = False) -> Path:
    """Write the suite that the newest data proposes for the model, and return the file.

    Raises:
        Refusal: the model has a suite and `force` is not given; there is no data, or a column is missing; or the data
            itself does not meet the proposed suite, with the reasons.
    """
    from tasks.validation.rules.expectations import parse_suite, validate_table  # imports Great Expectations: 4 s

    refuse_to_overwrite(model, force=force)
    spec = model.spec
    read = lake.as_of(spec.data.dataset, None)
    rows = parquet_rows(lake.files(read), engine)
    target = "number" if spec.task == "regression" else "category"
    text = propose_suite_yaml(
        rows,
        name=base_name(spec.name),
        source=f"{spec.data.dataset} as of {read.id}",
        entity=spec.data.entity,
        target=spec.data.target,
        kinds={spec.data.target: target, **{c: k for c, k in spec.data.features.items() if c in rows.kinds}},
    )
    path = model.folder / "expectations.yaml"
    report = validate_table(rows, parse_suite(text, path.name), key=spec.data.entity)
    if not report.passed:
        problem = "the data does not meet the suite that it proposes: " + "; ".join(report.reasons)
        raise Refusal(problem, where=str(path), remedy="Correct the data first, or write the suite by hand.")
    write_text_atomically(path, text)
    return path


def refuse_to_overwrite(model: TeamModel, *, force: bool) -> None:
    """Raise Refusal when the model has a suite and `force` is not given."""
    path = model.folder / "expectations.yaml"
    if path.exists() and not force:
        remedy = "Edit it, or replace it with --force (make suite MODEL=… FORCE=1)."
        raise Refusal("there is a suite already, which people may have edited", where=str(path), remedy=remedy)


def render_dashboards(models: Sequence[str], environment: str) -> Iterator[str]:
    """Render the dashboard of each model, or of all models, and yield its headline and addresses."""
    env = running_environment(environment)
    for model in models or known_models(env):
        page = write_dashboard(env, model, datetime.now(UTC))
        yield f"{page.headline}\n  {page.url or 'not served in this environment'}\n  {page.path}"


def export_quarantined_rows(model: str, table: str, snapshot: str, file: Path | None, environment: str) -> str:
    """Run `run_quarantine_command` for a table of a model ("" is the main one) in the running stack."""
    data = load_model(model).spec.data.ingest_schema(table)
    return run_quarantine_command(running_environment(environment).lake(), data, snapshot, file)


def run_quarantine_command(lake: Lake, data: DataSpec | IngestSchema, snapshot: str, target: Path | None) -> str:
    """Export the rows of one snapshot to a file, or list the snapshots; return a message.

    Raises:
        NotFound: there is no such snapshot.
        Refusal: a snapshot without a file, or a file that exists already or has another format.
    """
    if not snapshot:
        lines = [
            f"{one.id}  {one.rows:,} rows of {one.source}: {one.notes.get('reasons', '')}"
            for one in reversed(dataset_snapshots(lake, quarantine_dataset(data)))
        ]
        return "\n".join(lines) or f"{quarantine_dataset(data)}: no rows are in quarantine"
    if target is None:
        remedy = "Name one: corrected.csv or corrected.parquet."
        raise Refusal("there is no file to write to", value=snapshot, remedy=remedy)
    count = export_quarantine(lake, data, snapshot, target)
    return f"wrote {count:,} rows to {target}: correct the column `row`, then ingest it with redrive={snapshot}"
