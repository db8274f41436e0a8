"""The local SageMaker's process, which prints the variables that point a client at it. It needs moto."""

import signal
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import typer


def serve(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    images: Annotated[
        Path | None, typer.Option(help="TOML file of [[image]] tables: pattern, train, serve, environment.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of the containers' files; a temporary one when left out.")
    ] = None,
    region: Annotated[str, typer.Option(envvar="AWS_DEFAULT_REGION", help="The region that it plays.")] = "us-east-1",
    speed: Annotated[float, typer.Option(help="Divides bake times, alarm periods and grace periods.")] = 1.0,
    bucket: Annotated[list[str] | None, typer.Option(help="A bucket to make at the start; may be given again.")] = None,
) -> None:
    """Play SageMaker on this machine until told to stop: jobs and endpoints are processes (docs/local-sagemaker.md)."""
    from local.sagemaker.server import running_server
    from local.sagemaker.settings import PROJECT_IMAGE, ROLE, Settings, read_images

    known = read_images(images) if images else (PROJECT_IMAGE,)
    folder = state or Path(tempfile.mkdtemp(prefix="local-sagemaker-"))
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    with running_server(Settings(folder / "containers", known, region, speed), port) as server:
        for name in bucket or []:
            server.operations.aws.s3.create_bucket(Bucket=name)
        print(f"local SageMaker on {server.url} (page: {server.url}/_local)")
        print(f"export AWS_ENDPOINT_URL={server.url} AWS_DEFAULT_REGION={region}")
        print(f"export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local  # role: {ROLE}", flush=True)
        asked.wait()
    if state is None:
        folder.rmdir()


if __name__ == "__main__":
    typer.run(serve)
