"""The values behind the names of secrets: a variable of this process, or a Prefect Secret block read by the minute.

A block cannot be read while Prefect is away: the value that was read last is used until then.
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
    """A secret has a name, and its value cannot be read just now."""


def load_secret_block(name: str) -> str:
    """Return the value of a Prefect Secret block."""
    from prefect.blocks.system import Secret  # Prefect's server may be away: only when one is needed

    return str(cast(Secret[str], Secret.load(name)).get())


class SecretStore:
    """Looks secrets up by name, and remembers them."""

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
        """Return the values of those that have one.

        Raises:
            Unreadable: none has, and that of a block could not be read: nobody can say that there is none.
        """
        found: list[bytes] = []
        failed = ""
        for name in names:
            try:
                found += [value.encode()] if (value := self.value(name)) else []
            except SecretUnavailable as cause:
                failed = str(cause)
        if failed and not found:
            raise SecretUnavailable(failed)
        return found

    def value(self, name: str) -> str:
        """Return the value of `env:NAME` or `block:name`, "" when there is none. Raises Unreadable."""
        kind, _, key = name.partition(":")
        if kind == "env":
            return self._variables.get(key, "")
        known, read_at = self._known.get(name, ("", -1e9))
        if self._clock() - read_at < REFRESH_SECONDS:
            return known
        with self._lock:
            try:
                self._known[name] = self._block(key), self._clock()
            except ValueError:  # Prefect's word for a block that is not there
                self._known[name] = "", self._clock()
            except Exception as cause:
                _log.warning("the secret block %r cannot be read: %s", key, type(cause).__name__)
                if not known:
                    raise SecretUnavailable(
                        f"the secret block {key!r} cannot be read: {type(cause).__name__}"
                    ) from cause
                self._known[name] = known, self._clock()
            return self._known[name][0]
