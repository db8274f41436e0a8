"""Commands of the local stack and of environments: `up`, `down`, `status`, `deploy`, `demo`, `register`, …"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blocks.common.errors import Rejected
from blocks.environment_settings import trust_file
from deployments.state import trust_folder
from local import stack, supervisor
from ratchet.commands.group import Group, text_or_exit
from runtime.digests import file_digest

if TYPE_CHECKING:
    from blocks.environment import Environment

top = Group("Ratchet: from raw data to an approved, deployed and monitored model.")
environment = Group("The files of environments.")
trust = Group("The trust files of this machine: the settings that count, whatever Prefect's blocks say.")

Name = Annotated[str, typer.Argument(help="The environment: a file of deployments/environments, without .toml.")]
TrustedName = Annotated[str, typer.Argument(help="The environment: a trust file, without .toml.")]


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
    environment: Name = "local",
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


@trust.command("write")
def write_trust(
    environment: Name,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; default: the trust file that this machine reads.")
    ] = None,
) -> str:
    """Write a trust file from deployments/environments, with each variable as it is set here. Review it first."""
    from deployments.register import read_environment_settings, write_trust_file

    path = output or trust_folder() / f"{environment}.toml"
    write_trust_file(path, read_environment_settings(environment, os.environ))
    return f"wrote {path} (SHA-256 {file_digest(path)})"


@trust.command("show")
def show_trust(name: TrustedName) -> str:
    """Show the trust file that this machine reads, its digest and its settings, without passwords."""
    from blocks.environment import trusted_environment

    path, trusted = trust_file(name, trust_folder()), trusted_environment(name, trust_folder())
    return "\n".join([f"{path} (SHA-256 {file_digest(path)})", *_setting_lines(trusted)])


@trust.command("check")
def check_trust(name: TrustedName) -> str:
    """Compare the trust file with the blocks on the Prefect server; exit code 1 when a run would be refused."""
    from blocks.environment import check_registered, trusted_environment

    if not os.environ.get("PREFECT_API_URL"):
        stack.use_running_stack()
    check_registered(trusted_environment(name, trust_folder()))
    return f"the blocks of {name} are those of {trust_file(name, trust_folder())}"


def _setting_lines(trusted: "Environment") -> Iterator[str]:
    """Yield a line for each setting. A value that the adapter declares a secret is shown as asterisks."""
    for block in (trusted, *trusted.adapters()):
        for name in type(block).model_fields:
            yield f"{type(block).__name__}.{name} = {getattr(block, name)}"
