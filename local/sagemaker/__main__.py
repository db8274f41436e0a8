"""`python -m local.sagemaker` starts it; `… list --url URL` says what runs there.

Point a client at it with the variables that it prints. It needs moto: `make setup` installs it.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from local.sagemaker.page import listing
from local.sagemaker.settings import OURS, ROLE, Settings, read_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = _options(arguments)
    try:
        return _list(options.url) if options.command == "list" else _serve(options)
    except (OSError, ValueError, ImportError) as cause:
        print(f"local SageMaker: {cause}", file=sys.stderr)
        return 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.sagemaker", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["start", "list"], default="start")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--images", type=Path, help="TOML file of [[image]] tables: pattern, train, serve, environment")
    parser.add_argument("--state", type=Path, help="folder of the containers' files; a temporary one by default")
    parser.add_argument("--region", default=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    parser.add_argument("--speed", type=float, default=1.0, help="divides bake times, alarm periods and grace periods")
    parser.add_argument("--bucket", action="append", default=[], help="bucket to make at the start; may be repeated")
    parser.add_argument("--url", default=os.environ.get("AWS_ENDPOINT_URL", ""), help="for list: where it runs")
    return parser.parse_args(arguments)


def _list(url: str) -> int:
    if not url.startswith("http://"):
        raise ValueError(f"--url {url!r} is no http:// address; give the one that the local SageMaker printed")
    with urllib.request.urlopen(f"{url}/_local/state", timeout=10) as answer:  # noqa: S310 - http, checked above
        print(listing(json.load(answer)))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from local.sagemaker.server import running

    images = read_images(options.images) if options.images else (OURS,)
    state = options.state or Path(tempfile.mkdtemp(prefix="local-sagemaker-"))
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    with running(Settings(state / "containers", images, options.region, options.speed), options.port) as server:
        for bucket in options.bucket:
            server.operations.aws.s3.create_bucket(Bucket=bucket)
        print(f"local SageMaker on {server.url} (page: {server.url}/_local)")
        print(f"export AWS_ENDPOINT_URL={server.url} AWS_DEFAULT_REGION={options.region}")
        print(f"export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local  # role: {ROLE}", flush=True)
        asked.wait()
    if options.state is None:
        state.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
