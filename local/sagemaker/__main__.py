"""The process of the local SageMaker. It prints the environment variables that a client needs. It requires moto."""

import signal
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import typer

from runtime.foreign_text import print_text


def serve(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 chooses a free one.")] = 0,
    images: Annotated[
        Path | None, typer.Option(help="TOML file of [[image]] tables: pattern, train, serve, environment.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of the containers' files; default: a temporary folder.")
    ] = None,
    region: Annotated[str, typer.Option(envvar="AWS_DEFAULT_REGION", help="The emulated region.")] = "us-east-1",
    speed: Annotated[float, typer.Option(help="Divides bake times, alarm periods and grace periods.")] = 1.0,
    bucket: Annotated[list[str] | None, typer.Option(help="A bucket to create at the start; may be repeated.")] = None,
) -> None:
    """Emulate SageMaker on this machine until stopped: jobs and endpoints are processes (docs/local-sagemaker.md)."""
    from local.sagemaker.server import running_server
    from local.sagemaker.settings import PROJECT_IMAGE, ROLE, Settings, read_images

    known = read_images(images) if images else (PROJECT_IMAGE,)
    folder = state or Path(tempfile.mkdtemp(prefix="local-sagemaker-"))
    stop_requested = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop_requested.set())
    with running_server(Settings(folder / "containers", known, region, speed), port) as server:
        for name in bucket or []:
            server.operations.aws.s3.create_bucket(Bucket=name)
        print_text(f"local SageMaker on {server.url} (page: {server.url}/_local)")
        print_text(f"export AWS_ENDPOINT_URL={server.url} AWS_DEFAULT_REGION={region}")
        print_text(f"export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local  # role: {ROLE}", flush=True)
        stop_requested.wait()
    if state is None:
        folder.rmdir()


if __name__ == "__main__":
    typer.run(serve)
