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
    def aliases(self) -> tuple[str, ...]:
        """Other names of the same person: e-mail addresses, spellings."""

    @property
    def roles(self) -> tuple[str, ...]:
        """What the person may do."""

    @property
    def revoked(self) -> bool:
        """Whether the person may decide nothing any more."""


def normalized_name(name: str) -> str:
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
        self._names = {name: _name_spellings((name, *person.aliases)) for name, person in (known or {}).items()}
        self._roles = {name: frozenset(person.roles) for name, person in (known or {}).items()}
        self._barred = {name for name, person in (known or {}).items() if person.revoked}

    def aliases_of(self, name: str) -> frozenset[str]:
        """Return all names of whoever uses this one. "Ann <a@x.org>" is Ann and a@x.org; a+tag@x.org is a@x.org."""
        own = _name_spellings((name,))
        return own.union(*(aliases_of for aliases_of in self._names.values() if aliases_of & own))

    def is_same_person(self, one: str, other: str) -> bool:
        """Whether the two names are of one person."""
        return bool(self.aliases_of(one) & self.aliases_of(other))

    def roles_of(self, name: str) -> frozenset[str]:
        """Return the roles of whoever uses this name; none for a person whom the configuration does not name."""
        own = self.aliases_of(name)
        return frozenset().union(*(self._roles[known] for known, names in self._names.items() if names & own))

    def is_barred(self, name: str) -> bool:
        """Whether the configuration bars whoever uses this name from deciding."""
        own = self.aliases_of(name)
        return any(self._names[known] & own for known in self._barred)


def _name_spellings(names: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for name in names:
        plain = normalized_name(name)
        parts = _MAILBOX.match(plain)
        for part in (plain, *((parts["name"], parts["mail"]) if parts else ())):
            found |= {part, _TAG.sub("", part)}
    return frozenset(found - {""})
