"""Who somebody is by the names they use, and which roles they bear.

Names on the embedded default are what people say they are: this holds against mistakes and aliases, not against
someone who takes another's name. Look-alike letters of other alphabets are other names.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Protocol

_MAILBOX = re.compile(r"^(?P<name>.*?)\s*<(?P<mail>[^<>\s]+@[^<>\s]+)>$")
_TAG = re.compile(r"\+[^@]*(?=@)")


class Person(Protocol):
    """What the configuration says of a person, under the name by which they sign."""

    @property
    def also(self) -> tuple[str, ...]:
        """Other names of the same person: e-mail addresses, spellings."""

    @property
    def roles(self) -> tuple[str, ...]:
        """What the person may do."""

    @property
    def barred(self) -> bool:
        """Whether the person may decide nothing any more."""


def identity(name: str) -> str:
    """Return the name as it is compared: single spaces, no invisible characters, compatibility caseless.

    "Ann Lee", " ann  LEE " and full-width letters are one person. The formula is definition D146 of the Unicode
    Standard, section 3.13: NFKD(toCasefold(NFKD(toCasefold(NFD(name))))).
    """
    text = "".join(c for c in name if c.isspace() or unicodedata.category(c) not in {"Cc", "Cf", "Cs"})
    for form in ("NFD", "NFKD"):
        text = unicodedata.normalize(form, text).casefold()
    return " ".join(unicodedata.normalize("NFKD", text).split())


class People:
    """The people of an environment, by the name under which the configuration has them."""

    def __init__(self, known: Mapping[str, Person] | None = None) -> None:
        self._names = {name: _spellings((name, *person.also)) for name, person in (known or {}).items()}
        self._roles = {name: frozenset(person.roles) for name, person in (known or {}).items()}
        self._barred = {name for name, person in (known or {}).items() if person.barred}

    def names(self, name: str) -> frozenset[str]:
        """Return all names of whoever uses this one. "Ann <a@x.org>" is Ann and a@x.org; a+tag@x.org is a@x.org."""
        own = _spellings((name,))
        return own.union(*(names for names in self._names.values() if names & own))

    def same(self, one: str, other: str) -> bool:
        """Whether the two names are of one person."""
        return bool(self.names(one) & self.names(other))

    def roles(self, name: str) -> frozenset[str]:
        """Return the roles of whoever uses this name; none for a person whom the configuration does not name."""
        own = self.names(name)
        return frozenset().union(*(self._roles[known] for known, names in self._names.items() if names & own))

    def barred(self, name: str) -> bool:
        """Whether the configuration bars whoever uses this name from deciding."""
        own = self.names(name)
        return any(self._names[known] & own for known in self._barred)


def _spellings(names: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for name in names:
        plain = identity(name)
        parts = _MAILBOX.match(plain)
        for part in (plain, *((parts["name"], parts["mail"]) if parts else ())):
            found |= {part, _TAG.sub("", part)}
    return frozenset(found - {""})
