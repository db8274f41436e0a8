"""What people ask of models: `runs`, `costs`, `prices`, `dashboard`, `quarantine`, `reproduce`, `suite`."""

from pathlib import Path
from typing import Annotated

import typer

from ratchet.commands.group import Environment, Group, judged
from ratchet.commands.stack import top

runs = Group("The runs that trained a model, in all namespaces: your own and those of colleagues.")

Run = Annotated[str, typer.Argument(help="A run's id, or how it begins.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, in full.")]


@runs.command("list")
def list_runs(
    model: Annotated[str, typer.Argument(help="A folder below models/; all of them when left out.")] = "",
    json: AsJson = False,
    environment: Environment = "local",
) -> str:
    """List every run of a model, newest first."""
    from ratchet.running import running
    from ratchet.runs import listed

    return listed(running(environment), model, as_json=json)


@runs.command("compare")
def compare_runs(run: Run, other: Run, json: AsJson = False, environment: Environment = "local") -> str:
    """Say by what two runs differ, and which metric is better in which."""
    from ratchet.running import running
    from ratchet.runs import compared

    return compared(running(environment), run, other, as_json=json)


@runs.command("repeat")
def repeat_run(
    run: Run,
    namespace: Annotated[str, typer.Option("--as", help='Your namespace; "" is the shared model.')],
    by: Annotated[str, typer.Option(help="Who asks for it; the namespace when left out.")] = "",
    same_code: Annotated[bool, typer.Option("--same-code", help="Run exactly the commit that made the run.")] = False,
    environment: Environment = "local",
) -> str:
    """Train once more as a run did, in a namespace of your own."""
    from ratchet.running import running
    from ratchet.runs import repeated

    return repeated(running(environment), run, namespace, by, same_code=same_code)


@top.command()
def costs(environment: Environment = "local") -> str:
    """Show what the models cost, by month."""
    from ratchet.costs import spent

    return spent(environment)


@top.command()
def prices(
    regions: Annotated[list[str], typer.Argument(help="All regions whose prices to keep, such as eu-central-1.")],
) -> str:
    """Write the price table anew from the AWS Pricing API; it keeps these regions alone."""
    from ratchet.prices import refresh

    return refresh(regions)


@top.command()
def dashboard(
    models: Annotated[list[str] | None, typer.Argument(help="Folders below models/; all when left out.")] = None,
    environment: Environment = "local",
) -> None:
    """Draw the page about a model now."""
    from ratchet.dashboard import pages

    for page in pages(models or [], environment):
        print(page)


@top.command()
def quarantine(
    model: Annotated[str, typer.Argument(help="A folder below models/.")],
    snapshot: Annotated[str, typer.Argument(help="The quarantine's snapshot; they are listed when left out.")] = "",
    file: Annotated[Path | None, typer.Argument(help="The .csv or .parquet file to write.")] = None,
    table: Annotated[str, typer.Option(help="A further table of the model; the main one when left out.")] = "",
    environment: Environment = "local",
) -> str:
    """Take rows out of quarantine into a file, to mend their column `row` and ingest them with `redrive`."""
    from ratchet.quarantine import taken_out

    return taken_out(model, table, snapshot, file, environment)


@top.command(refused=2)
def reproduce(
    model: Annotated[str, typer.Argument(help="A folder below models/; all that serve when left out.")] = "",
    version: Annotated[str, typer.Argument(help="A promoted version; the one that serves when left out.")] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Install the pack's lock file into a new environment.")
    ] = False,
    environment: Environment = "local",
) -> str:
    """Train a promoted version again from its evidence pack; exit code 1 when another model came of it."""
    from ratchet.reproduce import reproduced

    return judged(*reproduced(model, version, environment, fresh=fresh))


@top.command()
def suite(
    model: Annotated[str, typer.Argument(help="A folder below models/.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a suite that is there.")] = False,
    environment: Environment = "local",
) -> str:
    """Propose a first expectations.yaml from the newest data in the lake, for people to edit."""
    from ratchet.suite import proposed

    return proposed(model, environment, force=force)
