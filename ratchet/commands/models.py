"""Commands about models: `costs`, `prices`, `dashboard`, `repair`, `quarantine`, `erase`, `reproduce`, `suite`.

Costs are the billed amounts that runs logged to MLflow, or their worst-case estimates until those are known.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from local.stack import running_environment
from ratchet.commands.group import By, Environment, text_or_exit
from ratchet.commands.runs import start_ordered
from ratchet.commands.stack import top
from runtime.foreign_text import print_text
from tasks.shared.rules.refusal import Refusal

if TYPE_CHECKING:
    from blocks.engines.base import Engine
    from blocks.lake.base import Lake
    from tasks.shared.models import TeamModel
    from tasks.shared.rules.cost.spent import MonthlyCost
    from tasks.shared.rules.model.data import DataSpec, IngestSchema
    from tasks.shared.rules.model.spec import ModelSpec

app = top
"""The commands without a group: those of the stack, and those of this module."""
PRICE_SOURCE = "AWS Pricing API, GetProducts of AmazonSageMaker, on demand"
PRICE_FILE_HEADER = """\
# On-demand prices per instance and hour. `make prices` writes this file from the AWS Pricing API.
# Paid work on a type that is not listed is refused, because it has no known price.
"""


@top.command()
def costs(environment: Environment = "local") -> str:
    """Show the costs of models by month."""
    from tasks.shared.models import known_models, load_model
    from tasks.shared.rules.cost.spent import monthly_costs

    env = running_environment(environment)
    tracking, names = env.tracking(), known_models(env)
    spent = {name: monthly_costs(tracking.runs(name)) for name in names}
    return costs_table(spent, {name: load_model(name).spec.budget.per_month_usd for name in names})


def costs_table(costs: "Mapping[str, Iterable[MonthlyCost]]", budgets: Mapping[str, float]) -> str:
    """Return a line for each model and month, newest first, and the sum of each month."""
    lines = [f"{'month':<9}{'model':<28}{'USD':>12}{'runs':>7}{'open':>7}{'budget':>12}"]
    months: dict[str, list[tuple[float, str]]] = {}
    for model, sums in costs.items():
        for each in sums:
            figures = f"{each.usd:>12,.2f}{each.runs:>7}{each.pending_runs:>7}{budgets[model]:>12,.2f}"
            row = f"{each.month:<9}{model:<28}{figures}"
            months.setdefault(each.month, []).append((each.usd, row))
    for month, rows in sorted(months.items(), reverse=True):
        lines += [row for _, row in rows]
        lines.append(f"{month:<9}{'all models':<28}{sum(usd for usd, _ in rows):>12,.2f}")
    return "\n".join(lines) if months else "no run has logged its cost"


@top.command()
def prices(
    regions: Annotated[list[str], typer.Argument(help="All regions of the price table, such as eu-central-1.")],
) -> str:
    """Write the price table from the AWS Pricing API; it will contain only these regions."""
    from tasks.shared.cost import PRICE_TABLE_PATH

    return refresh(regions, None, PRICE_TABLE_PATH)


def refresh(regions: list[str], client: Any, path: Path) -> str:
    """Write today's price table with only these regions, because the table has a single date; return a message.

    It needs AWS credentials with `pricing:GetProducts`. It was never run on a real account: responses are checked
    against the documented form, and any other form is refused.

    Raises:
        PortError: the service does not respond, or not in the documented form.
    """
    from blocks.common.aws.pricing import fetch_prices
    from runtime.files import write_text_atomically
    from tasks.shared.cost import read_prices
    from tasks.shared.rules.cost.prices import RegionPrices, parse_prices, prices_yaml

    by_region = {region: RegionPrices(**fetch_prices(region, client)) for region in regions}
    content = {"date": datetime.now(UTC).date().isoformat(), "source": PRICE_SOURCE, "regions": by_region}
    table = read_prices(path).model_copy(update=content)
    text = PRICE_FILE_HEADER + prices_yaml(table)
    if parse_prices(text, path.name) != table:
        raise Refusal("the text of the price table is not parsed as the same table", where=str(path))
    write_text_atomically(path, text)
    lines = [
        f"{region}: {len(each.training)} types for training, {len(each.hosting)} for hosting"
        for region, each in by_region.items()
    ]
    lines.append(f"written to {path.name} with the date {table.date}: review the changes, and commit them")
    return "\n".join(lines)


@top.command()
def dashboard(
    models: Annotated[list[str] | None, typer.Argument(help="Folders of models/; default: all models.")] = None,
    environment: Environment = "local",
) -> None:
    """Render the dashboard of a model now."""
    from tasks.dashboard.drawing import write_dashboard
    from tasks.shared.models import known_models

    env = running_environment(environment)
    for model in models or known_models(env):
        page = write_dashboard(env, model, datetime.now(UTC))
        print_text(f"{page.headline}\n  {page.url or 'not served in this environment'}\n  {page.path}")


@top.command()
def repair(
    model: Annotated[str, typer.Argument(help="A folder of models/.")],
    environment: Environment = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
) -> str:
    """Make ledger and registry agree with the deployed version; exit code 1 when something is left to do."""
    from tasks.release.repair import repair_release

    repaired = repair_release(running_environment(environment), model, datetime.now(UTC), dry_run=dry_run)
    lines = [f"{'would be done' if dry_run else 'done'}: {each}" for each in repaired.done]
    lines += [f"left to a person: {each}" for each in repaired.open]
    agreed = not repaired.open and not (dry_run and repaired.done)
    return text_or_exit("\n".join([repaired.state, *(lines or ["they agree: nothing to do"])]), agreed)


@top.command()
def quarantine(
    model: Annotated[str, typer.Argument(help="A folder of models/.")],
    snapshot: Annotated[str, typer.Argument(help="A snapshot of the quarantine; default: list the snapshots.")] = "",
    file: Annotated[Path | None, typer.Argument(help="The .csv or .parquet file to write.")] = None,
    table: Annotated[str, typer.Option(help="An additional table of the model; default: its main table.")] = "",
    environment: Environment = "local",
) -> str:
    """Export quarantined rows to a file, to correct their column `row` and ingest them with `redrive`."""
    from tasks.shared.models import load_model

    data = load_model(model).spec.data.ingest_schema(table)
    return run_quarantine_command(running_environment(environment).lake(), data, snapshot, file)


def run_quarantine_command(lake: "Lake", data: "DataSpec | IngestSchema", snapshot: str, target: Path | None) -> str:
    """Export the rows of one snapshot to a file, or list the snapshots; return a message.

    Raises:
        NotFound: there is no such snapshot.
        Refusal: a snapshot without a file, or a file that exists already or has another format.
    """
    from tasks.ingestion.datasets import dataset_snapshots, export_quarantine, quarantine_dataset

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


@top.command()
def erase(
    model: Annotated[str, typer.Argument(help="A folder of models/.")],
    by: By,
    reason: Annotated[str, typer.Option(help="Why, such as the number of the request; without the key.")],
    key: Annotated[
        str, typer.Option(prompt="Key of the entity", help="The entity's key; asked for when it is not given.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the rows.")] = False,
    order: Annotated[str, typer.Option(help="The order that you got signed in (docs/actions.md).")] = "",
    environment: Environment = "local",
) -> str:
    """Erase the rows of one entity for good, from all data sets of the model and of the models that share them."""
    from tasks.approval.rules.actions import Actor
    from tasks.cleanup.erasure import authorize_erasure, erase_entity, models_of_same_entities
    from tasks.cleanup.garbage import artifact_owners
    from tasks.cleanup.rules.erasure import erasure_text
    from tasks.monitoring.current import ingest_log_segments

    env, now = running_environment(environment), datetime.now(UTC)
    specs, owners = models_of_same_entities(env, model), artifact_owners(env)

    def ingest_log(spec: "ModelSpec") -> object:
        return ingest_log_segments(env.endpoint(), env.lake(), env.tracking(), spec)

    actor = Actor(by) if dry_run else authorize_erasure(env, specs, key, order, by, reason, now)
    done = erase_entity(env, specs, key, owners, ingest_log, actor=actor, reason=reason, now=now, dry_run=dry_run)
    return erasure_text(done.changes, done.copies, done.left, dry_run=dry_run)


@top.command(refused=2)
def reproduce(
    model: Annotated[str, typer.Argument(help="A folder of models/; default: all deployed models.")] = "",
    version: Annotated[str, typer.Argument(help="A promoted version; default: the deployed version.")] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Install the pack's lock file into a new environment.")
    ] = False,
    by: By = "somebody",
    environment: Environment = "local",
) -> str:
    """Train a promoted version again from its evidence pack; exit code 1 when the model differs."""
    parameters = {"model": model, "version": version, "environment": environment, "fresh_venv": fresh}
    env = running_environment(environment)
    return _run_to_end(start_ordered(env, "reproduce/reproduce", parameters, by, "reproduce"), seconds=3600)


@top.command()
def rollback(
    model: Annotated[str, typer.Argument(help="A folder of models/.")],
    by: By,
    reason: Annotated[str, typer.Option(help="The reason; it is recorded in the ledger.")],
    to_version: Annotated[
        str, typer.Option(help="A version that was deployed before; default: the previous one.")
    ] = "",
    environment: Environment = "local",
) -> str:
    """Restore the previous version, or a named one; exit code 1 when that fails. The name is marked as not proved."""
    env = running_environment(environment)
    parameters = {"model": model, "to_version": to_version}
    return _run_to_end(start_ordered(env, "rollback/rollback", parameters, by, reason), seconds=600)


def _run_to_end(run_id: str, seconds: float) -> str:
    """Wait for a run, and return how it ended; end with exit code 1 when it was not completed."""
    from deployments.flow_runs import end_of_run, is_ended, wait_for_run

    run = wait_for_run(UUID(run_id), until=is_ended, seconds=seconds)
    return text_or_exit(end_of_run(run), run.state is not None and run.state.is_completed())


@top.command()
def suite(
    model: Annotated[str, typer.Argument(help="A folder of models/.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing suite.")] = False,
    environment: Environment = "local",
) -> str:
    """Write a first expectations.yaml from the newest data in the lake, for people to edit."""
    from tasks.shared.models import load_model

    team_model = load_model(model)
    _refuse_to_overwrite(team_model, force=force)  # check first: connecting to the stack takes a second
    env = running_environment(environment)
    path = propose_suite(team_model, env.lake(), env.engine(), force=force)
    return f"wrote {path}: review it, edit it to your requirements on the data, then commit it"


def propose_suite(model: "TeamModel", lake: "Lake", engine: "Engine", *, force: bool = False) -> Path:
    """Write the suite that the newest data proposes for the model, and return the file.

    Raises:
        Refusal: the model has a suite and `force` is not given; there is no data, or a column is missing; or the data
            itself does not meet the proposed suite, with the reasons.
    """
    from runtime.files import write_text_atomically
    from tasks.shared.rules.model.data import column_kinds
    from tasks.shared.rules.model.namespaces import base_name
    from tasks.validation.rules.expectations import parse_suite, validate_table
    from tasks.validation.rules.profile import propose_suite_yaml
    from tasks.validation.tasks import parquet_rows

    _refuse_to_overwrite(model, force=force)
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
        smallest_tier=spec.tiers.development,
    )
    path = model.folder / "expectations.yaml"
    report = validate_table(rows, parse_suite(text, path.name, column_kinds(spec.data)), key=spec.data.entity)
    if not report.passed:
        problem = "the data does not meet the suite that it proposes: " + "; ".join(report.reasons)
        raise Refusal(problem, where=str(path), remedy="Correct the data first, or write the suite by hand.")
    write_text_atomically(path, text)
    return path


def _refuse_to_overwrite(model: "TeamModel", *, force: bool) -> None:
    path = model.folder / "expectations.yaml"
    if path.exists() and not force:
        remedy = "Edit it, or replace it with --force (make suite MODEL=… FORCE=1)."
        raise Refusal("there is a suite already, which people may have edited", where=str(path), remedy=remedy)
