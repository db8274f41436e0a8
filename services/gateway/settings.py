"""What a gateway works with: the ledger of an environment, the reviewed triggers, the state folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, cast

from prefect.blocks.core import Block
from pydantic import PrivateAttr

from blocks.database.ledger import Ledger
from blocks.environment import Environment, adapter_class
from blocks.inbox.base import Inbox
from deployments.register import build_environment, read_environment_settings
from deployments.secret_store import SecretStore, SecretUnavailable
from services.gateway.rules.payloads import Sender
from services.gateway.rules.rules import Triggers, parse_triggers

ROOT = Path(__file__).resolve().parents[2]
TRIGGERS = ROOT / "deployments" / "triggers.yaml"


class FileEnvironment(Environment):
    """An environment by its file alone: people decide also while Prefect is away, or knows nothing of it yet."""

    _block_type_name = "Ratchet environment by its file"
    _block_type_slug = "ratchet-environment-by-its-file"
    _blocks: dict[str, Block] = PrivateAttr(default_factory=dict)

    def _adapter(self, path: str) -> Block:
        return self._blocks[path]


class EnvironmentReader:
    """Returns the environment by its file as it is now: who has lost a role has lost it without a restart."""

    def __init__(self, name: str, variables: Mapping[str, str] | None = None) -> None:
        self._name, self._variables = name, os.environ if variables is None else variables
        self._settings: dict[str, Any] = {}
        self._made: Environment | None = None
        self._lock = Lock()

    def __call__(self) -> Environment:
        """Return it; made anew when the file has changed.

        Raises:
            Rejected, NotFound: what the file says is not right; the message names it.
        """
        settings = read_environment_settings(self._name, self._variables)
        with self._lock:
            if self._made is None or settings != self._settings:
                made = cast(FileEnvironment, build_environment(self._name, settings, FileEnvironment))
                made._blocks = _adapters_from_settings(settings)
                self._settings, self._made = settings, made
            return self._made


def _adapters_from_settings(settings: Mapping[str, Any]) -> dict[str, Block]:
    """Return the adapters that the desk needs, by their paths: of the others nothing is loaded."""
    return {
        settings[port]["adapter"]: adapter_class(settings[port]["adapter"])(
            **{key: value for key, value in settings[port].items() if key != "adapter"}
        )
        for port in ("ledger",)
    }


def open_inbox(environment: str, variables: Mapping[str, str] | None = None) -> Inbox:
    """Return the inbox of the ledger that `deployments/environments/<name>.toml` names.

    Not by its Prefect block, as flows do: the gateway takes deliveries in while Prefect is away.

    Raises:
        Rejected, NotFound: the file, a variable or the adapter is missing; the message names it.
    """
    table = dict(read_environment_settings(environment, os.environ if variables is None else variables)["ledger"])
    return cast(Ledger, adapter_class(str(table.pop("adapter")))(**table)).inbox()


def read_triggers(path: Path = TRIGGERS) -> Triggers:
    """Return the rules of the file.

    Raises:
        Mistakes: (a Refusal) with line, key, value and remedy of each mistake.
        OSError: it cannot be read.
    """
    shown = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return parse_triggers(path.read_bytes(), shown)


def senders_without_secret(triggers: Triggers, vault: SecretStore) -> list[Sender]:
    """Return the senders none of whose secrets has a value: all their deliveries are refused."""
    found: list[Sender] = []
    for sender, rules in triggers.senders.items():
        try:
            found += [] if vault.values(rules.secrets) else [sender]
        except SecretUnavailable:
            continue
    return found
