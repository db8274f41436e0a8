"""Decide which runs a change starts: plain functions of the change and the trigger rules."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from runtime.foreign_text import visible
from services.gateway.rules.changes import RefChange
from services.gateway.rules.rules import Repository, TriggerRule, Triggers
from tasks.shared.rules.model.namespaces import SEPARATOR, to_namespace

ParameterValue = int | float | str | bool
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class RunRequest:
    """A run that a rule starts. `key` distinguishes it from the other runs of the same delivery."""

    rule: str
    deployment: str
    key: str
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


def ref_refusal(change_repository: str, ref: str, *, tag: bool, repository: Repository | None) -> str:
    """Return why changes of this branch or tag are ignored, or ""."""
    if repository is None:
        return f"the repository {change_repository} is not in triggers.yaml"
    patterns = repository.tags if tag else repository.branches
    if any(pattern_matches(pattern, ref) for pattern in patterns):
        return ""
    return f"the {'tag' if tag else 'branch'} {visible(ref)} of {change_repository} is not configured in triggers.yaml"


def matching_rules(triggers: Triggers, change: RefChange) -> list[TriggerRule]:
    """Return the rules that match a change, without regard to its paths."""
    return [rule for rule in triggers.rules if _rule_applies(rule, change)]


def needs_paths(triggers: Triggers, change: RefChange) -> bool:
    """Whether git has to be asked: a matching rule has paths, and the changed files are not all known.

    Of a merge git is always asked, because its commit has to be one that is on the branch.
    """
    rules = matching_rules(triggers, change)
    return not change.paths_complete and any(rule.paths or change.kind == "merge" for rule in rules)


def run_requests(triggers: Triggers, change: RefChange) -> list[RunRequest]:
    """Return the runs that a change starts, in the order of the rules: one per rule, or one for each `{model}`.

    A rule with paths starts nothing while the changed files are not all known; see `needs_paths`.
    """
    runs: list[RunRequest] = []
    for rule in matching_rules(triggers, change):
        if not rule.paths:
            runs.append(_run_request(rule, change, ""))
        elif change.paths_complete:
            runs += [_run_request(rule, change, model) for model in sorted(_captured_models(rule.paths, change.paths))]
    return runs


def no_match_reason(triggers: Triggers, change: RefChange) -> str:
    """Return why a change starts no run."""
    if rules := matching_rules(triggers, change):
        names = ", ".join(rule.name for rule in rules)
        return f"none of the {len(change.paths)} changed files matches the paths of: {names}"
    return f"no rule matches a {change.kind} on {visible(change.ref)} of {change.repository}"


def pattern_matches(pattern: str, text: str) -> bool:
    """Whether a branch, tag or path matches: `*` and `?` match within one path segment, `**` matches any folders."""
    return _compiled(pattern).fullmatch(text) is not None


def _rule_applies(rule: TriggerRule, change: RefChange) -> bool:
    patterns = rule.tags if change.kind == "tag" else rule.branches
    return (
        change.kind in rule.events
        and (not rule.repositories or change.repository in rule.repositories)
        and (not patterns or any(pattern_matches(pattern, change.ref) for pattern in patterns))
    )


def _captured_models(patterns: Iterable[str], paths: Iterable[str]) -> set[str]:
    """Return the models that the patterns capture; {""} when they match without a `{model}`."""
    compiled = [_compiled(pattern) for pattern in patterns]
    matches = (pattern.fullmatch(path) for path in paths for pattern in compiled)
    return {match.groupdict().get("model", "") for match in matches if match is not None}


def _fill_placeholders(text: str, known: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda name: known[name[1]], text)


def _run_request(rule: TriggerRule, change: RefChange, model: str) -> RunRequest:
    """Return the run. In the parameter `model`, the filled-in text after `--` is converted to a valid namespace."""
    known = {
        "model": model,
        "author": change.author,
        "branch": change.ref,
        "commit": change.commit,
        "repository": change.repository,
    }

    def filled(name: str, value: ParameterValue) -> ParameterValue:
        if not isinstance(value, str):
            return value
        text, separator, namespace = value.partition(SEPARATOR) if name == "model" else (value, "", "")
        text = _fill_placeholders(text, known)
        if not separator or not _PLACEHOLDER.search(namespace):
            return f"{text}{separator}{namespace}"
        return f"{text}{separator}{to_namespace(_fill_placeholders(namespace, known), text)}"

    parameters = {name: filled(name, value) for name, value in rule.parameters.items()}
    return RunRequest(rule.name, rule.deployment, f"{rule.name}/{model}", parameters)


_PATTERN_REGEX = {
    "**/": "(?:[^/]+/)*",
    "**": ".*",
    "*": "[^/]*",
    "?": "[^/]",
    "{model}": "(?P<model>[a-z][a-z0-9_-]{0,62})",
}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\{model\})", pattern)
    return re.compile("".join(_PATTERN_REGEX.get(part) or re.escape(part) for part in parts), re.DOTALL)
