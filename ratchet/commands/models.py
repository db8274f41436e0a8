"""Commands about models: `runs`, `costs`, `prices`, `dashboard`, `quarantine`, `reproduce`, `suite`."""

from pathlib import Path
from typing import Annotated

import typer

from ratchet.commands.group import Environment, Group, text_or_exit
from ratchet.commands.stack import top

runs = Group("The training runs of models, in all namespaces.")

Run = Annotated[str, typer.Argument(help="A run's id, or the beginning of it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print all fields as JSON.")]


@runs.command("list")
def list_runs(
    model: Annotated[str, typer.Argument(help="A folder of models/; default: all models.")] = "",
    json: AsJson = False,
    environment: Environment = "local",
) -> str:
    """List every run of a model, newest first."""
    from local.stack import running_environment
    from ratchet.runs import listed

    return listed(running_environment(environment), model, as_json=json)


@runs.command("compare")
def compare_runs(run: Run, other: Run, json: AsJson = False, environment: Environment = "local") -> str:
    """Show the differences between two runs, and which metric is better in which run."""
    from local.stack import running_environment
    from ratchet.runs import compared

    return compared(running_environment(environment), run, other, as_json=json)


@runs.command("repeat")
def repeat_run(
    run: Run,
    namespace: Annotated[str, typer.Option("--as", help='Your namespace; "" is the shared model.')],
    by: Annotated[str, typer.Option(help="The name of the requester; default: the namespace.")] = "",
    same_code: Annotated[bool, typer.Option("--same-code", help="Use exactly the commit of the run.")] = False,
    environment: Environment = "local",
) -> str:
    """Repeat the training of a run in your own namespace."""
    from local.stack import running_environment
    from ratchet.runs import repeated

    return repeated(running_environment(environment), run, namespace, by, same_code=same_code)


@top.command()
def costs(environment: Environment = "local") -> str:
    """Show the costs of models by month."""
    from ratchet.costs import monthly_costs_text

    return monthly_costs_text(environment)


@top.command()
def prices(
    regions: Annotated[list[str], typer.Argument(help="All regions of the price table, such as eu-central-1.")],
) -> str:
    """Write the price table from the AWS Pricing API; it will contain only these regions."""
    from ratchet.costs import refresh

    return refresh(regions)


@top.command()
def dashboard(
    models: Annotated[list[str] | None, typer.Argument(help="Folders of models/; default: all models.")] = None,
    environment: Environment = "local",
) -> None:
    """Render the dashboard of a model now."""
    from ratchet.models import render_dashboards

    for page in render_dashboards(models or [], environment):
        print(page)


@top.command()
def quarantine(
    model: Annotated[str, typer.Argument(help="A folder of models/.")],
    snapshot: Annotated[str, typer.Argument(help="A snapshot of the quarantine; default: list the snapshots.")] = "",
    file: Annotated[Path | None, typer.Argument(help="The .csv or .parquet file to write.")] = None,
    table: Annotated[str, typer.Option(help="An additional table of the model; default: its main table.")] = "",
    environment: Environment = "local",
) -> str:
    """Export quarantined rows to a file, to correct their column `row` and ingest them with `redrive`."""
    from ratchet.models import export_quarantined_rows

    return export_quarantined_rows(model, table, snapshot, file, environment)


@top.command(refused=2)
def reproduce(
    model: Annotated[str, typer.Argument(help="A folder of models/; default: all deployed models.")] = "",
    version: Annotated[str, typer.Argument(help="A promoted version; default: the deployed version.")] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Install the pack's lock file into a new environment.")
    ] = False,
    environment: Environment = "local",
) -> str:
    """Train a promoted version again from its evidence pack; exit code 1 when the model differs."""
    from ratchet.reproduce import reproduced

    return text_or_exit(*reproduced(model, version, environment, fresh=fresh))


@top.command()
def suite(
    model: Annotated[str, typer.Argument(help="A folder of models/.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing suite.")] = False,
    environment: Environment = "local",
) -> str:
    """Write a first expectations.yaml from the newest data in the lake, for people to edit."""
    from ratchet.models import write_proposed_suite

    return write_proposed_suite(model, environment, force=force)
