"""Take rows out of quarantine, to be mended and ingested again: `python -m ratchet.quarantine MODEL SNAPSHOT FILE`.

FILE ends in .csv or .parquet. Mend the JSON in its column `row`, then ingest it with `redrive` set to the snapshot.
Without SNAPSHOT and FILE the quarantine's snapshots are listed, newest first, with their reasons.
"""

import argparse
import sys
from pathlib import Path

from blocks.common.errors import PortError
from blocks.environment import open_environment
from blocks.lake.base import Lake
from local.stack import use
from tasks.ingestion.landing import history, quarantine_of
from tasks.ingestion.quarantine import write_out
from tasks.shared.models import load_model
from tasks.shared.rules.model.data import DataSpec, Landing
from tasks.shared.rules.refusal import Refusal


def main(arguments: list[str] | None = None) -> int:
    """Run the command line against the running stack."""
    options = _parser().parse_args(arguments)
    try:
        data = load_model(options.model).spec.data.landing(options.table)
        use()
        print(told(open_environment(options.environment).lake(), data, options.snapshot, options.file))
    except (PortError, Refusal) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def told(lake: Lake, data: DataSpec | Landing, snapshot: str, file: Path | None) -> str:
    """Write one snapshot's rows into a file, or list the snapshots, and return what to tell.

    Raises:
        NotFound: there is no such snapshot.
        Refusal: a snapshot without a file, or a file that is there already or of another format.
    """
    if not snapshot:
        lines = [
            f"{one.id}  {one.rows:,} rows of {one.source}: {one.notes.get('reasons', '')}"
            for one in reversed(history(lake, quarantine_of(data)))
        ]
        return "\n".join(lines) or f"{quarantine_of(data)}: nothing was set aside"
    if file is None:
        raise Refusal("there is no file to write to", value=snapshot, remedy="Name one: mended.csv or mended.parquet.")
    count = write_out(lake, data, snapshot, file)
    return f"wrote {count:,} rows to {file}: mend the column `row`, then ingest it with redrive={snapshot}"


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.quarantine", description=__doc__, formatter_class=raw)
    parser.add_argument("model", help="the model: a folder below models/")
    parser.add_argument("snapshot", nargs="?", default="", help="the quarantine's snapshot; empty lists them")
    parser.add_argument("file", nargs="?", type=Path, help="the .csv or .parquet file to write")
    parser.add_argument("--table", default="", help="a further table of the model; empty is the main one")
    parser.add_argument("--environment", default="local", help="the environment whose lake to use")
    return parser


if __name__ == "__main__":
    sys.exit(main())
