"""What a gateway works with: the ledger of an environment, the reviewed triggers, the state folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from blocks.environment import adapter_class
from blocks.ledger.base import Ledger
from deployments.register import read_environment
from tasks.logic.trigger.rules import Triggers, parse_triggers

ROOT = Path(__file__).resolve().parents[2]
TRIGGERS = ROOT / "deployments" / "triggers.yaml"


def open_ledger(environment: str, variables: Mapping[str, str] | None = None) -> Ledger:
    """Return the ledger that `deployments/environments/<name>.toml` names.

    Not by its Prefect block, as flows do: the gateway takes deliveries in while Prefect is away.

    Raises:
        Rejected, NotFound: the file, a variable or the adapter is missing; the message names it.
    """
    table = dict(read_environment(environment, os.environ if variables is None else variables)["ledger"])
    return cast(Ledger, adapter_class(str(table.pop("adapter")))(**table))


def read_triggers(path: Path = TRIGGERS) -> Triggers:
    """Return the rules of the file.

    Raises:
        Mistakes: (a Refusal) with line, key, value and remedy of each mistake.
        OSError: it cannot be read.
    """
    shown = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return parse_triggers(path.read_bytes(), shown)
