"""Settings of the gateway: the environment's ledger, the trigger rules, and the environment file."""

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
    """An environment read from its TOML file instead of its Prefect block.

    So people can decide while Prefect is unavailable, or before the environment is registered.
    """

    _block_type_name = "Ratchet environment from a file"
    _block_type_slug = "ratchet-environment-from-file"
    _blocks: dict[str, Block] = PrivateAttr(default_factory=dict)

    def _adapter(self, path: str) -> Block:
        return self._blocks[path]


class EnvironmentReader:
    """Reads the environment file on each call, so that role changes apply without a restart."""

    def __init__(self, name: str, variables: Mapping[str, str] | None = None) -> None:
        self._name, self._variables = name, os.environ if variables is None else variables
        self._settings: dict[str, Any] = {}
        self._environment: Environment | None = None
        self._lock = Lock()

    def __call__(self) -> Environment:
        """Return the environment; it is built again when the file has changed.

        Raises:
            Rejected, NotFound: the file is not valid; the message names the key.
        """
        settings = read_environment_settings(self._name, self._variables)
        with self._lock:
            if self._environment is None or settings != self._settings:
                environment = cast(FileEnvironment, build_environment(self._name, settings, FileEnvironment))
                environment._blocks = dict([_ledger_adapter(settings)])  # the approvals page needs no other adapter
                self._settings, self._environment = settings, environment
            return self._environment


def _ledger_adapter(settings: Mapping[str, Any]) -> tuple[str, Block]:
    """Return the path of the ledger's class, and the ledger."""
    fields = dict(settings["ledger"])
    path = str(fields.pop("adapter"))
    return path, adapter_class(path)(**fields)


def open_ledger(environment: str) -> Ledger:
    """Return the ledger that `deployments/environments/<name>.toml` names.

    It is not read from its Prefect block, as flows do, because the gateway receives deliveries while Prefect is
    unavailable.

    Raises:
        Rejected, NotFound: the file, a variable or the adapter is missing; the message names it.
    """
    _, ledger = _ledger_adapter(read_environment_settings(environment, os.environ))
    return cast(Ledger, ledger)


def open_inbox(environment: str) -> Inbox:
    """Return the inbox of the ledger. Raises as `open_ledger` does."""
    return open_ledger(environment).inbox()


def read_triggers(path: Path = TRIGGERS) -> Triggers:
    """Return the trigger rules of the file.

    Raises:
        Mistakes: (a Refusal) with line, key, value and remedy of each mistake.
        OSError: the file cannot be read.
    """
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return parse_triggers(path.read_bytes(), name)


def senders_without_secret(triggers: Triggers, secret_store: SecretStore) -> list[Sender]:
    """Return the senders for which no secret has a value; all their deliveries are refused."""
    senders: list[Sender] = []
    for sender, rules in triggers.senders.items():
        try:
            senders += [] if secret_store.values(rules.secrets) else [sender]
        except SecretUnavailable:
            continue
    return senders
