"""The stack on this machine, and environments: `up`, `down`, `status`, `deploy`, `demo`, `register`, `environment`."""

import os
import sys
from typing import Annotated, Literal

import typer

from blocks.common.errors import Rejected
from ratchet.commands.group import Group, judged

top = Group("From raw data to an approved, served and watched model: the commands of Ratchet.")
environment = Group("The files of environments.")


@top.command()
def up() -> str:
    """Start the stack (Prefect, MLflow, worker, endpoints, gateway) where it does not run, and deploy what changed."""
    from local import stack

    stack.up()
    running = stack.use_running_stack()
    from deployments.register import deploy_if_changed

    deploy_if_changed("local", running.state_folder / "deployed")
    return judged(stack.described(running), running.running)


@top.command()
def down() -> str:
    """Stop the stack; what it stored stays."""
    from local import stack

    return "stopped; the state stays in the state folder" if stack.down() else "no stack to stop"


@top.command()
def status() -> str:
    """Say what runs, and where; exit code 1 when not all of it does."""
    from local import stack

    found = stack.find_stack()
    return judged(stack.described(found), found is not None and found.running)


@top.command()
def deploy_flows() -> str:
    """Register the blocks and deploy every flow to the running stack."""
    from local import stack

    running = stack.use_running_stack()
    from deployments.register import deploy_flows

    deploy_flows("local")
    return judged(stack.described(running), running.running)


@top.command()
def demo(
    approve: Annotated[
        Literal["auto", "ask"], typer.Option(help="auto: a second, named person approves; ask: you do.")
    ] = "auto",
) -> None:
    """Tell the whole story on real churn data, and leave the stack running."""
    from local import demo

    raise typer.Exit(demo.run(ask=approve == "ask"))


@top.command()
def register(
    environment: Annotated[str, typer.Argument(help="A file of deployments/environments, without .toml.")] = "local",
) -> None:
    """Save an environment's blocks and deploy the flows, on the Prefect server of PREFECT_API_URL."""
    if not os.environ.get("PREFECT_API_URL"):
        raise Rejected("PREFECT_API_URL is not set: say which Prefect server to register with")
    from deployments.register import deploy_flows

    deploy_flows(environment)


@environment.command()
def write_environment(
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> str:
    """Write an environment's file from what `terraform output -json` prints, on standard input."""
    from deployments.aws.settings import FOLDER, read_outputs, write_environment

    path = write_environment(read_outputs(sys.stdin.read()), FOLDER, force=force)
    return f"wrote {path.name}: look at the instance types, set the variables, then register it"


@environment.callback()
def _words() -> None:
    """Keep `write` a word of the command line while it is the only one."""
