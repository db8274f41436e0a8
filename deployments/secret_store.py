"""Read secrets by name: from environment variables, or from Prefect Secret blocks (cached for 60 s).

While Prefect is unavailable, the value that was read last is used.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import cast

_log = logging.getLogger("ratchet.gateway")

REFRESH_SECONDS = 60.0


class SecretUnavailable(Exception):
    """The value of a secret cannot be read at the moment."""


def load_secret_block(name: str) -> str:
    """Return the value of a Prefect Secret block."""
    from prefect.blocks.system import Secret  # imported only when a block is used: Prefect may be unavailable

    return str(cast(Secret[str], Secret.load(name)).get())


class SecretStore:
    """Reads secrets by name, and caches those of Prefect blocks."""

    def __init__(
        self,
        variables: Mapping[str, str] | None = None,
        block: Callable[[str], str] = load_secret_block,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._variables = os.environ if variables is None else variables
        self._block, self._clock = block, clock
        self._known: dict[str, tuple[str, float]] = {}
        self._lock = Lock()

    def values(self, names: Iterable[str]) -> list[bytes]:
        """Return the values of those secrets that have one.

        Raises:
            SecretUnavailable: no secret has a value, and at least one block could not be read, so it is unknown
                whether a secret exists.
        """
        values: list[bytes] = []
        problem = ""
        for name in names:
            try:
                values += [value.encode()] if (value := self.value(name)) else []
            except SecretUnavailable as cause:
                problem = str(cause)
        if problem and not values:
            raise SecretUnavailable(problem)
        return values

    def value(self, name: str) -> str:
        """Return the value of `env:NAME` or `block:name`, "" when there is none. Raises SecretUnavailable."""
        kind, _, key = name.partition(":")
        if kind == "env":
            return self._variables.get(key, "")
        known, read_at = self._known.get(name, ("", -1e9))
        if self._clock() - read_at < REFRESH_SECONDS:
            return known
        with self._lock:
            try:
                self._known[name] = self._block(key), self._clock()
            except ValueError:  # what Prefect raises for a block that does not exist
                self._known[name] = "", self._clock()
            except Exception as cause:
                _log.warning("the secret block %r cannot be read: %s", key, type(cause).__name__)
                if not known:
                    raise SecretUnavailable(
                        f"the secret block {key!r} cannot be read: {type(cause).__name__}"
                    ) from cause
                self._known[name] = known, self._clock()
            return self._known[name][0]
