"""Settings of the gateway: the environment's trust file with its ledger, and the trigger rules."""

from pathlib import Path
from threading import Lock
from typing import Any

from prefect.blocks.core import Block
from pydantic import PrivateAttr

from blocks.database.ledger import Ledger
from blocks.environment import Environment, trusted_environment
from blocks.environment_settings import read_trusted_settings
from blocks.inbox.base import Inbox
from deployments.secret_store import SecretStore, SecretUnavailable
from deployments.state import trust_folder
from services.gateway.rules.payloads import Sender
from services.gateway.rules.rules import Triggers, parse_triggers

ROOT = Path(__file__).resolve().parents[2]
TRIGGERS = ROOT / "deployments" / "triggers.yaml"


class ServedEnvironment(Environment):
    """The environment of a process that serves: its ledger is opened once."""

    _block_type_name = "Ratchet environment of a service"
    _block_type_slug = "ratchet-environment-of-a-service"
    _opened: dict[str, Block] = PrivateAttr(default_factory=dict)

    def _adapter(self, path: str) -> Block:
        if path not in self._opened:
            self._opened[path] = super()._adapter(path)
        return self._opened[path]


class EnvironmentReader:
    """Reads the environment's trust file on each call, so that role changes apply without a restart.

    No server is asked: people can decide while Prefect is unavailable, and no block decides who they are.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self._name, self._folder = name, folder
        self._settings: dict[str, Any] = {}
        self._environment: ServedEnvironment | None = None
        self._lock = Lock()

    def __call__(self) -> Environment:
        """Return the environment; it is built again when the file has changed.

        Raises:
            Rejected, NotFound: the file is missing or not valid; the message names the key.
        """
        settings = read_trusted_settings(self._name, self._folder or trust_folder())
        with self._lock:
            if self._environment is None or settings != self._settings:
                self._environment = ServedEnvironment.from_settings(self._name, settings)
                self._settings = settings
            return self._environment


def open_ledger(environment: str) -> Ledger:
    """Return the ledger that the environment's trust file names, also while Prefect is unavailable.

    Raises:
        Rejected, NotFound: the file or the adapter is missing or not valid; the message names it.
    """
    return trusted_environment(environment, trust_folder()).ledger()


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
