"""People: which names belong to one person of an environment, and which roles the person has.

Without authentication a name is only what a person typed: these rules detect mistakes, aliases and disguises, but not
a person who uses another's name. `blocks.records.identity` has the rule for spellings.
"""

from collections.abc import Iterable, Mapping

from blocks.records.identity import exact_names, is_identified, may_be_same_person, normalized_name, similar_names
from blocks.records.people import Person


class People:
    """The people of an environment, by their names in the configuration."""

    def __init__(self, known: Mapping[str, Person] | None = None) -> None:
        self._known = dict(known or {})
        names = {name: (name, *person.aliases) for name, person in self._known.items()}
        self._exact = {name: _union(exact_names(each, declared=True) for each in own) for name, own in names.items()}
        self._plain = {name: frozenset(normalized_name(each) for each in own) for name, own in names.items()}
        self._similar = {name: _union(similar_names(each) for each in own) for name, own in names.items()}

    def is_same_person(self, one: str, other: str) -> bool:
        """Return whether the two names may belong to one person: where it bars, a doubt is enough."""
        return may_be_same_person(one, other) or bool(self._similar_people(one) & self._similar_people(other))

    def is_named(self, name: str, granted: str) -> bool:
        """Return whether `granted`, a name in a list of those who may, means the person with this name."""
        exact = exact_names(name) & exact_names(granted, declared=True)
        return bool(exact or self._exact_people(name) & self._exact_people(granted))

    def is_identified(self, name: str) -> bool:
        """Return whether a name tells who it is, by itself or as an alias: "[REDACTED]" does so only when declared."""
        return is_identified(name) or self.is_declared(name)

    def is_declared(self, name: str) -> bool:
        """Return whether the configuration names the person with this name."""
        return bool(self._exact_people(name))

    def roles_of(self, name: str) -> frozenset[str]:
        """Return the roles of the person with this name; none for a person who is not configured."""
        return _union(frozenset(self._known[known].roles) for known in self._exact_people(name))

    def is_revoked(self, name: str) -> bool:
        """Return whether the configuration revokes the right to decide of a person who may have this name."""
        return any(self._known[known].revoked for known in self._similar_people(name))

    def _exact_people(self, name: str) -> frozenset[str]:
        own, plain = exact_names(name), normalized_name(name)
        return frozenset(each for each in self._known if self._exact[each] & own or plain in self._plain[each] - {""})

    def _similar_people(self, name: str) -> frozenset[str]:
        own = similar_names(name)
        return frozenset(each for each in self._known if self._similar[each] & own) | self._exact_people(name)


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
