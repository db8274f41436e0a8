"""`triggers.yaml`: which repositories may start what. Strict, reviewed in git, every key described.

It names secrets and never holds one: `env:NAME` is a variable of the gateway, `block:NAME` a Prefect Secret block.
"""

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from services.gateway.rules.payloads import Sender
from tasks.shared.rules.model.namespaces import SEPARATOR, check_name
from tasks.shared.rules.model.strict_record import (
    StrictRecord,
    did_you_mean,
    parse_record,
    raise_problems,
    validation_error,
)
from tasks.shared.rules.model.types import OneLineText, Parameter, ProblemIterator
from tasks.shared.rules.refusal import Refusal

_Key = TypeVar("_Key", bound=Hashable)

PLACEHOLDERS = ("model", "author", "branch", "commit", "repository")
"""What a parameter may take from the change, written `{model}`; `{model}` is what the path's pattern caught."""

_SECRET = re.compile(r"env:[A-Z][A-Z0-9_]{0,99}|block:[a-z0-9][a-z0-9-]{0,99}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def _secret(text: str) -> str:
    if not _SECRET.fullmatch(text):
        raise validation_error(
            "names no secret", "Write env:VARIABLE or block:name-of-a-secret-block; the secret never goes here."
        )
    return text


def _pattern(text: str) -> str:
    if text.startswith("/") or "//" in text or ".." in text or "\\" in text:
        raise validation_error("is no pattern of a path", "Write it from the repository's root: models/churn/**.")
    if (
        text.count("{model}") > 1
        or "{" in text.replace("{model}", "")
        or "**" in re.sub(r"(^|(?<=/))\*\*(/|$)", "", text)
    ):
        raise validation_error(
            "is no pattern", "Write *, ? or {model} within a folder's name, and ** for any folders: a/**/b."
        )
    return text


def _clone(text: str) -> str:
    plain = re.fullmatch(r"(https|ssh|file)://[^\s'\"\\]+|[a-z0-9_-]+@[A-Za-z0-9.-]+:[^\s'\"\\:]+", text)
    if not plain or text.startswith("-") or re.match(r"https://[^/]*@", text):
        raise validation_error("is no address to clone from", "Write https://host/owner/name.git or git@host:owner/name.git, "
                   "and no password: `credentials` names one.")  # fmt: skip
    return text


Secret = Annotated[str, AfterValidator(_secret)]
PathPattern = Annotated[OneLineText, AfterValidator(_pattern)]
CloneUrl = Annotated[str, AfterValidator(_clone)]
ChangeKind = Literal["push", "merge", "tag"]


class HostRules(StrictRecord):
    """A git host that may deliver."""

    secrets: tuple[Secret, ...] = Field(
        min_length=1, max_length=5, description="Names of the webhook's secrets; several while one is being replaced"
    )
    api: str = Field(
        default="", pattern=r"^(https?://[^\s?#@]+)?$", description="The host's API, to report back; empty: its own"
    )
    token: Secret | None = Field(default=None, description="Name of the API's token; without it nothing is reported")
    comments: bool = Field(default=False, description="Put the report under the commit as a comment, too")


class Repository(StrictRecord):
    """A repository whose changes may start something."""

    name: OneLineText = Field(description="owner/name, letter by letter as the host writes it")
    sender: Sender = Field(description="The host that it lies on")
    clone: CloneUrl = Field(description="Where workers get its commits from; never taken from a delivery")
    credentials: Secret | None = Field(default=None, description="Name of a token to clone with, over https")
    branches: tuple[PathPattern, ...] = Field(default=("main",), description="Branches that count; patterns")
    tags: tuple[PathPattern, ...] = Field(default=(), description="Tags that count; patterns")


class TriggerRule(StrictRecord):
    """Which change starts what."""

    name: OneLineText = Field(max_length=80, description="What it is called where its runs are listed")
    repositories: tuple[OneLineText, ...] = Field(default=(), description="Their names; empty: all")
    events: tuple[ChangeKind, ...] = Field(default=("push",), min_length=1, description="Kinds of change")
    branches: tuple[PathPattern, ...] = Field(default=(), description="Of those that count; empty: all of them")
    tags: tuple[PathPattern, ...] = Field(default=(), description="Of those that count; empty: all of them")
    paths: tuple[PathPattern, ...] = Field(default=(), description="One of them must have changed; empty: any")
    deployment: str = Field(pattern=r"^[a-z][a-z0-9_-]*/[a-z][a-z0-9_-]*$", description="flow/deployment to start")
    parameters: dict[OneLineText, Parameter] = Field(
        default={},
        description="The run's parameters; text may hold {model}, {author}, {branch}, {commit}, {repository}",
    )

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> Self:
        raise_problems(self._problems())
        return self

    def _problems(self) -> ProblemIterator:
        catches = bool(self.paths) and all("{model}" in path for path in self.paths)
        for key, value in self.parameters.items():
            for used in _PLACEHOLDER.findall(value) if isinstance(value, str) else ():
                if used not in PLACEHOLDERS:
                    yield (
                        ("parameters", key),
                        validation_error(f"{{{used}}} is not known", did_you_mean(used, PLACEHOLDERS)),
                    )
                elif used == "model" and not catches:
                    problem = "{model} is caught by no path"
                    yield (
                        ("parameters", key),
                        validation_error(problem, "Write {model} in each of `paths`: models/{model}/**."),
                    )
        named = self.parameters.get("model")
        if isinstance(named, str) and (problem := _namespace_problem(named)):
            yield ("parameters", "model"), validation_error(problem, "Write it as {model}--{branch}, or {model}--dana.")


def _namespace_problem(named: str) -> str:
    """Return what is wrong with the namespace that a rule names; one that the change fills in comes out right."""
    namespace = named.partition(SEPARATOR)[2]
    if SEPARATOR not in named or _PLACEHOLDER.search(namespace):
        return ""
    try:
        check_name(f"m{SEPARATOR}{namespace}")
    except Refusal:
        return "names no namespace"
    return ""


class Triggers(StrictRecord):
    """The whole file."""

    senders: dict[Sender, HostRules] = Field(description="The git hosts that may deliver")
    repositories: tuple[Repository, ...] = Field(description="What they may speak of")
    rules: tuple[TriggerRule, ...] = Field(default=(), description="Which change starts what")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        raise_problems(self._problems())
        return self

    def _problems(self) -> ProblemIterator:
        for number, repository in enumerate(self.repositories):
            if repository.sender not in self.senders:
                yield (
                    ("repositories", number, "sender"),
                    validation_error("is not among `senders`", did_you_mean("", self.senders)),
                )
        known = [repository.name for repository in self.repositories]
        for index, (_, twice) in _repeated((each.sender, each.name) for each in self.repositories):
            yield ("repositories", index, "name"), validation_error(f"{twice} is there twice", "Keep one of them.")
        for index, name in _repeated(each.name for each in self.rules):
            yield (
                ("rules", index, "name"),
                validation_error(f"{name} is there twice", "Its runs could not be told apart."),
            )
        for number, each in enumerate(self.rules):
            for place, wanted in enumerate(each.repositories):
                if wanted not in known:
                    path = ("rules", number, "repositories", place)
                    yield path, validation_error("is not among `repositories`", did_you_mean(wanted, known))

    def repository(self, sender: str, name: str) -> Repository | None:
        """Return the repository of that name on that host, letter by letter, or None: then nothing of it counts."""
        return next((each for each in self.repositories if (each.sender, each.name) == (sender, name)), None)


def _repeated(values: Iterable[_Key]) -> Iterator[tuple[int, _Key]]:
    seen: set[_Key] = set()
    for number, value in enumerate(values):
        if value in seen:
            yield number, value
        seen.add(value)


def parse_triggers(text: str | bytes, where: str) -> Triggers:
    """Read the file. Raises Mistakes (a Refusal) with file, line, key, value and remedy of every mistake."""
    return parse_record(Triggers, text, where)
