"""People: which names belong to one person, and which roles the person has.

Without authentication a name is only what a person typed: these rules detect mistakes and aliases, but not a person
who uses another's name. Look-alike letters of other alphabets make different names.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from blocks.records.people import Person

_MAILBOX = re.compile(r"^(?P<name>.*?)\s*<(?P<mail>[^<>\s]+@[^<>\s]+)>$")
_TAG = re.compile(r"\+[^@]*(?=@)")


def normalized_name(name: str) -> str:
    """Return the name in the form that is compared: single spaces, no invisible characters, no case.

    "Ann Lee", " ann  LEE " and the same in full-width letters are equal. The formula is definition D146 of the Unicode
    Standard, section 3.13: NFKD(toCasefold(NFKD(toCasefold(NFD(name))))).
    """
    text = "".join(c for c in name if c.isspace() or unicodedata.category(c) not in {"Cc", "Cf", "Cs"})
    for form in ("NFD", "NFKD"):
        text = unicodedata.normalize(form, text).casefold()
    return " ".join(unicodedata.normalize("NFKD", text).split())


class People:
    """The people of an environment, by their names in the configuration."""

    def __init__(self, known: Mapping[str, Person] | None = None) -> None:
        self._names = {name: _name_spellings((name, *person.aliases)) for name, person in (known or {}).items()}
        self._roles = {name: frozenset(person.roles) for name, person in (known or {}).items()}
        self._revoked = {name for name, person in (known or {}).items() if person.revoked}

    def aliases_of(self, name: str) -> frozenset[str]:
        """Return all names of the person with this name. "Ann <a@x.org>" is Ann and a@x.org; a+tag@x.org is a@x.org."""
        own = _name_spellings((name,))
        return own.union(*(aliases_of for aliases_of in self._names.values() if aliases_of & own))

    def is_same_person(self, one: str, other: str) -> bool:
        """Return whether the two names belong to one person."""
        return bool(self.aliases_of(one) & self.aliases_of(other))

    def roles_of(self, name: str) -> frozenset[str]:
        """Return the roles of the person with this name; none for a person who is not configured."""
        own = self.aliases_of(name)
        return frozenset().union(*(self._roles[known] for known, names in self._names.items() if names & own))

    def is_revoked(self, name: str) -> bool:
        """Return whether the configuration revokes the right to decide of the person with this name."""
        own = self.aliases_of(name)
        return any(self._names[known] & own for known in self._revoked)


def _name_spellings(names: Iterable[str]) -> frozenset[str]:
    spellings: set[str] = set()
    for name in names:
        plain = normalized_name(name)
        parts = _MAILBOX.match(plain)
        for part in (plain, *((parts["name"], parts["mail"]) if parts else ())):
            spellings |= {part, _TAG.sub("", part)}
    return frozenset(spellings - {""})
