"""Trigger rules (`triggers.yaml`): which changes of which repositories start which runs. Parsed strictly.

The file names secrets and never contains one: `env:NAME` is a variable of the gateway, `block:NAME` a Prefect Secret
block.
"""

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from services.gateway.rules.changes import ChangeKind
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
"""Placeholders in parameters that the change fills in; `{model}` is what the pattern of the path captured."""

_SECRET = re.compile(r"env:[A-Z][A-Z0-9_]{0,99}|block:[a-z0-9][a-z0-9-]{0,99}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def _secret(text: str) -> str:
    if not _SECRET.fullmatch(text):
        raise validation_error(
            "is not the name of a secret",
            "Write env:VARIABLE or block:name-of-a-secret-block; never write the secret itself here.",
        )
    return text


def _pattern(text: str) -> str:
    if text.startswith("/") or "//" in text or ".." in text or "\\" in text:
        raise validation_error("is not a path pattern", "Write it relative to the repository's root: models/churn/**.")
    if (
        text.count("{model}") > 1
        or "{" in text.replace("{model}", "")
        or "**" in re.sub(r"(^|(?<=/))\*\*(/|$)", "", text)
    ):
        raise validation_error(
            "is not a valid pattern", "Write *, ? or {model} within a folder's name, and ** for any folders: a/**/b."
        )
    return text


def _clone(text: str) -> str:
    plain = re.fullmatch(r"(https|ssh|file)://[^\s'\"\\]+|[a-z0-9_-]+@[A-Za-z0-9.-]+:[^\s'\"\\:]+", text)
    if not plain or text.startswith("-") or re.match(r"https://[^/]*@", text):
        raise validation_error(
            "is not a clone URL",
            "Write https://host/owner/name.git or git@host:owner/name.git, without password: `credentials` names one.",
        )
    return text


Secret = Annotated[str, AfterValidator(_secret)]
PathPattern = Annotated[OneLineText, AfterValidator(_pattern)]
CloneUrl = Annotated[str, AfterValidator(_clone)]


class HostRules(StrictRecord):
    """A git host whose deliveries are accepted."""

    secrets: tuple[Secret, ...] = Field(
        min_length=1, max_length=5, description="Names of the webhook's secrets; several while one is replaced"
    )
    api: str = Field(
        default="", pattern=r"^(https?://[^\s?#@]+)?$", description="URL of the host's API; empty: the default URL"
    )
    token: Secret | None = Field(default=None, description="Name of the API's token; without it nothing is reported")
    comments: bool = Field(default=False, description="Also add the report as a comment on the commit")


class Repository(StrictRecord):
    """A repository whose changes may start runs."""

    name: OneLineText = Field(description="owner/name, exactly as the host writes it")
    sender: Sender = Field(description="The git host of the repository")
    clone: CloneUrl = Field(description="URL that workers clone from; never read from a delivery")
    credentials: Secret | None = Field(default=None, description="Name of a token to clone with, over https")
    branches: tuple[PathPattern, ...] = Field(default=("main",), description="Patterns of the branches to consider")
    tags: tuple[PathPattern, ...] = Field(default=(), description="Patterns of the tags to consider")


class TriggerRule(StrictRecord):
    """A rule: which changes start which deployment."""

    name: OneLineText = Field(max_length=80, description="The rule's name, shown where its runs are listed")
    repositories: tuple[OneLineText, ...] = Field(default=(), description="Names of repositories; empty: all")
    events: tuple[ChangeKind, ...] = Field(default=("push",), min_length=1, description="Kinds of change")
    branches: tuple[PathPattern, ...] = Field(default=(), description="Patterns; empty: all branches of the repository")
    tags: tuple[PathPattern, ...] = Field(default=(), description="Patterns; empty: all tags of the repository")
    paths: tuple[PathPattern, ...] = Field(default=(), description="At least one file must match; empty: any file")
    deployment: str = Field(pattern=r"^[a-z][a-z0-9_-]*/[a-z][a-z0-9_-]*$", description="flow/deployment to start")
    parameters: dict[OneLineText, Parameter] = Field(
        default={},
        description="The run's parameters; text may contain {model}, {author}, {branch}, {commit}, {repository}",
    )

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> Self:
        raise_problems(self._problems())
        return self

    def _problems(self) -> ProblemIterator:
        captures_model = bool(self.paths) and all("{model}" in path for path in self.paths)
        for key, value in self.parameters.items():
            for name in _PLACEHOLDER.findall(value) if isinstance(value, str) else ():
                if name not in PLACEHOLDERS:
                    error = validation_error(f"{{{name}}} is not known", did_you_mean(name, PLACEHOLDERS))
                    yield ("parameters", key), error
                elif name == "model" and not captures_model:
                    remedy = "Write {model} in each of `paths`: models/{model}/**."
                    yield ("parameters", key), validation_error("{model} is not captured by the paths", remedy)
        model = self.parameters.get("model")
        if isinstance(model, str) and (problem := _namespace_problem(model)):
            yield ("parameters", "model"), validation_error(problem, "Write it as {model}--{branch}, or {model}--dana.")


def _namespace_problem(model: str) -> str:
    """Return what is wrong with the namespace in a rule, or "". A namespace with a placeholder is converted later."""
    namespace = model.partition(SEPARATOR)[2]
    if SEPARATOR not in model or _PLACEHOLDER.search(namespace):
        return ""
    try:
        check_name(f"m{SEPARATOR}{namespace}")
    except Refusal:
        return "has no valid namespace"
    return ""


class Triggers(StrictRecord):
    """The content of the file."""

    senders: dict[Sender, HostRules] = Field(description="The git hosts whose deliveries are accepted")
    repositories: tuple[Repository, ...] = Field(description="The repositories that may start runs")
    rules: tuple[TriggerRule, ...] = Field(default=(), description="The trigger rules")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        raise_problems(self._problems())
        return self

    def _problems(self) -> ProblemIterator:
        for number, repository in enumerate(self.repositories):
            if repository.sender not in self.senders:
                error = validation_error("is not in `senders`", did_you_mean("", self.senders))
                yield ("repositories", number, "sender"), error
        known = [repository.name for repository in self.repositories]
        for index, (_, name) in _repeated((each.sender, each.name) for each in self.repositories):
            yield ("repositories", index, "name"), validation_error(f"{name} is listed twice", "Keep one of them.")
        for index, name in _repeated(each.name for each in self.rules):
            error = validation_error(f"{name} is listed twice", "The runs of both rules would look the same.")
            yield ("rules", index, "name"), error
        for number, each in enumerate(self.rules):
            for place, name in enumerate(each.repositories):
                if name not in known:
                    path = ("rules", number, "repositories", place)
                    yield path, validation_error("is not in `repositories`", did_you_mean(name, known))

    def repository(self, sender: str, name: str) -> Repository | None:
        """Return the repository with exactly that name on that host; None: its changes are ignored."""
        return next((each for each in self.repositories if (each.sender, each.name) == (sender, name)), None)


def _repeated(values: Iterable[_Key]) -> Iterator[tuple[int, _Key]]:
    seen: set[_Key] = set()
    for number, value in enumerate(values):
        if value in seen:
            yield number, value
        seen.add(value)


def parse_triggers(text: str | bytes, where: str) -> Triggers:
    """Parse the file. Raises Mistakes (a Refusal) with file, line, key, value and remedy of every mistake."""
    return parse_record(Triggers, text, where)
