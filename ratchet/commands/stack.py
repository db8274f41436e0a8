"""Commands of the local stack and of environments: `up`, `down`, `status`, `deploy`, `demo`, `register`, …"""

import os
import sys
from typing import Annotated, Literal

import typer

from blocks.common.errors import Rejected
from local import stack, supervisor
from ratchet.commands.group import Group, text_or_exit

top = Group("Ratchet: from raw data to an approved, deployed and monitored model.")
environment = Group("The files of environments.")


@top.command()
def up() -> str:
    """Start the stack (Prefect, MLflow, worker, endpoints, gateway) if it does not run, and deploy what changed."""
    supervisor.up()
    running = stack.use_running_stack()
    from deployments.register import deploy_if_changed

    deploy_if_changed("local", running.state_folder / "deployed")
    return text_or_exit(stack.stack_text(running), running.running)


@top.command()
def down() -> str:
    """Stop the stack; its stored data is kept."""
    return "stopped; the state folder is kept" if supervisor.down() else "no stack to stop"


@top.command()
def status() -> str:
    """Show the processes of the stack and their addresses; exit code 1 when one does not run."""
    saved = stack.find_stack()
    return text_or_exit(stack.stack_text(saved), saved is not None and saved.running)


@top.command("deploy")
def deploy_flows() -> str:
    """Register the blocks and deploy every flow to the running stack."""
    running = stack.use_running_stack()
    from deployments.register import deploy_flows

    deploy_flows("local")
    return text_or_exit(stack.stack_text(running), running.running)


@top.command()
def demo(
    approve: Annotated[
        Literal["auto", "ask"], typer.Option(help="auto: a second, named person approves; ask: you do.")
    ] = "auto",
) -> None:
    """Run the whole demo on real churn data, and leave the stack running."""
    from local import demo

    raise typer.Exit(demo.run(ask=approve == "ask"))


@top.command()
def register(
    environment: Annotated[str, typer.Argument(help="A file of deployments/environments, without .toml.")] = "local",
) -> None:
    """Save an environment's blocks and deploy the flows, on the Prefect server at PREFECT_API_URL."""
    if not os.environ.get("PREFECT_API_URL"):
        address = "such as http://127.0.0.1:4200/api"
        raise Rejected(f"set PREFECT_API_URL to the server's address with /api, {address} (`make status` prints it)")
    from deployments.register import deploy_flows

    deploy_flows(environment)


@environment.command("write")
def write_environment(
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> str:
    """Write an environment's file from the output of `terraform output -json` on standard input."""
    from deployments.aws.settings import FOLDER, read_outputs, write_environment

    path = write_environment(read_outputs(sys.stdin.read()), FOLDER, force=force)
    return f"wrote {path.name}: check the instance types, set the variables, then register it"


@environment.callback()
def _keep_subcommand() -> None:
    """Keep `write` a command of its own, although it is the only one."""
