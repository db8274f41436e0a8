"""Trigger rules: which change starts which runs."""

from typing import Any

import pytest

from services.gateway.rules.changes import RefChange, change_from_json
from services.gateway.rules.matching import needs_paths, no_match_reason, pattern_matches, ref_refusal, run_requests
from services.gateway.rules.rules import Triggers, parse_triggers
from tasks.shared.rules.model.mistakes import Mistakes
from tasks.shared.rules.model.namespaces import base_name, check_name
from tests.fixtures.hooks import C1, C2

HEAD = """
senders: {github: {secrets: [env:HOOK]}}
repositories:
  - {name: acme/models, sender: github, clone: "https://github.com/acme/models.git", branches: [main, "release/*"], tags: ["v*"]}
"""
RULES = (
    HEAD
    + """
rules:
  - {name: churn, branches: [main], paths: ["models/churn/**"], deployment: retrain/retrain, parameters: {model: churn, tier: staging}}
  - {name: each, branches: [main], paths: ["models/{model}/**"], deployment: retrain/retrain, parameters: {model: "{model}", requested_by: "{author} on {branch}", seed: 7}}
  - {name: released, events: [tag], tags: ["v1.*"], deployment: batch_inference/batch-inference, parameters: {input: "{commit}"}}
  - {name: merged, events: [merge], branches: ["release/*"], deployment: ingest/ingest}
"""
)


def rules(text: str = RULES) -> Triggers:
    return parse_triggers(text, "triggers.yaml")


def change(**changes: Any) -> RefChange:
    given = {"kind": "push", "repository": "acme/models", "ref": "main", "commit": C2, "before": C1, "author": "ada",
             "paths": ("models/churn/train.py",), "paths_complete": True}  # fmt: skip
    return RefChange(**{**given, **changes})


def keys(**changes: Any) -> list[str]:
    return [order.key for order in run_requests(rules(), change(**changes))]


def test_a_changed_file_asks_for_the_runs_of_its_rules_with_their_parameters() -> None:
    first, second = run_requests(rules(), change())
    assert (first.rule, first.deployment, first.key) == ("churn", "retrain/retrain", "churn/")
    assert first.parameters == {"model": "churn", "tier": "staging"}
    assert second.parameters == {"model": "churn", "requested_by": "ada on main", "seed": 7}


def test_a_branch_retrains_in_a_namespace_of_its_own() -> None:
    rule = """
rules:
  - {name: mine, paths: ["models/{model}/**"], deployment: retrain/retrain, parameters: {model: "{model}--{branch}", requested_by: "{author} on {branch}"}}
"""
    branches = ["feature/Price", "feature-price", "Feature/price", "b" * 90, "12", "\u00fc", "main"]
    made = [run_requests(rules(HEAD + rule), change(ref=branch))[0].parameters for branch in branches]
    models = [str(each["model"]) for each in made]
    assert len(set(models)) == len(branches)
    assert {base_name(check_name(model)) for model in models} == {"churn"}, "each of them is a valid name"
    assert (models[1], models[-1]) == ("churn--feature-price", "churn--main")
    assert made[0]["requested_by"] == "ada on feature/Price", "elsewhere a branch is written as it is"


@pytest.mark.parametrize("namespace", ["Dana", "a_b", "", "a--b"])
def test_a_rule_that_names_no_namespace_is_refused_with_its_line(namespace: str) -> None:
    rule = f"""
rules:
  - name: mine
    deployment: retrain/retrain
    parameters: {{model: churn--{namespace}}}
"""
    with pytest.raises(Mistakes, match="has no valid namespace"):
        rules(HEAD + rule)
    assert rules(HEAD + rule.replace(f"--{namespace}", "--dana")).rules[0].parameters == {"model": "churn--dana"}


def test_a_rule_with_a_placeholder_asks_once_for_each_model_that_changed() -> None:
    paths = ("models/b/x", "models/a/x/y", "models/a/z", "models/Not-A-Name/x", "README.md", "models/top.txt")
    assert keys(paths=paths) == ["each/a", "each/b"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"paths": ("README.md",)}, []),
        ({"ref": "release/1"}, []),
        ({"kind": "tag", "ref": "v1.2", "paths": (), "paths_complete": False}, ["released/"]),
        ({"kind": "tag", "ref": "v2.0"}, []),
        ({"kind": "merge", "ref": "release/1"}, ["merged/"]),
        ({"kind": "merge", "ref": "main"}, []),
        ({"paths_complete": False}, []),
    ],
    ids=["other files", "other branch", "tag", "other tag", "merge", "merge elsewhere", "files not known"],
)
def test_events_branches_tags_and_paths_all_have_to_fit(changes: dict[str, Any], expected: list[str]) -> None:
    assert keys(**changes) == expected


def test_files_are_asked_for_only_when_they_decide_and_are_not_known() -> None:
    assert needs_paths(rules(), change(paths_complete=False))
    assert not needs_paths(rules(), change())
    assert not needs_paths(rules(), change(kind="tag", ref="v1.0", paths_complete=False))
    assert not needs_paths(rules(), change(ref="release/1", paths_complete=False))


def test_a_change_that_asks_for_nothing_is_told_why() -> None:
    assert "no rule matches a push on release/1" in no_match_reason(rules(), change(ref="release/1"))
    assert "none of the 1 changed files matches the paths of: churn, each" in no_match_reason(
        rules(), change(paths=("README.md",))
    )


@pytest.mark.parametrize(
    ("ref", "tag", "allowed"),
    [("main", False, True), ("release/1", False, True), ("release/1/2", False, False), ("main", True, False),
     ("v1", True, True), ("v1", False, False), ("Main", False, False)],
)  # fmt: skip
def test_only_listed_branches_and_tags_count(ref: str, tag: bool, allowed: bool) -> None:
    repository = rules().repository("github", "acme/models")
    assert (ref_refusal("acme/models", ref, tag=tag, repository=repository) == "") is allowed


def test_only_listed_repositories_count_letter_by_letter_and_by_host() -> None:
    assert rules().repository("github", "Acme/models") is None
    assert rules().repository("gitlab", "acme/models") is None
    assert "is not in triggers.yaml" in ref_refusal("x/y", "main", tag=False, repository=None)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("models/**", "models/a/b", True),
        ("models/**", "models", False),
        ("models/**", "models2/a", False),
        ("**/train.py", "train.py", True),
        ("**/train.py", "a/b/train.py", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/xb", False),
        ("*.py", "x/a.py", False),
        ("v?.0", "v1.0", True),
        ("v?.0", "v/.0", False),
        ("main", "main\n", False),
        ("a.b", "axb", False),
        ("**", "x\ny", True),
    ],
)
def test_patterns_stay_within_folders_unless_told_otherwise(pattern: str, text: str, expected: bool) -> None:
    assert pattern_matches(pattern, text) is expected


def test_a_change_survives_its_text() -> None:
    assert change_from_json(change().text()) == change()


MISTAKES = {
    "a secret in clear": ("senders: {github: {secrets: [hunter2]}}\nrepositories: []", "is not the name of a secret"),
    "no secret": ("senders: {github: {secrets: []}}\nrepositories: []", "senders.github.secrets"),
    "an unknown host": ("senders: {githib: {secrets: [env:HOOK]}}\nrepositories: []", "githib"),
    "a password in an address": (HEAD.replace("https://github", "https://me:pw@github"), "repositories[0].clone: is not a clone URL"),
    "an address that is an option": (HEAD.replace("https://github.com/acme/models.git", "--upload-pack=x"), "is not a clone URL"),
    "another program as transport": (HEAD.replace("https://github.com", "ext::sh -c x"), "is not a clone URL"),
    "a host that is not a sender": (HEAD.replace("sender: github", "sender: gitlab"), "is not in `senders`"),
    "a repository twice": (HEAD + HEAD.splitlines()[3], "acme/models is listed twice"),
    "an unknown key": (RULES.replace("branches: [main], paths", "branch: [main], paths"), "Did you mean `branches`?"),
    "an unknown repository": (RULES.replace("name: churn,", "name: churn, repositories: [acme/model],"), "Did you mean `acme/models`?"),
    "an unknown event": (RULES.replace("events: [tag]", "events: [tags]"), "rules[2].events[0]"),
    "an unknown placeholder": (RULES.replace("{author} on", "{auther} on"), "Did you mean `author`?"),
    "a model that no path catches": (RULES.replace('"{commit}"', '"{model}"'), "{model} is not captured by the paths"),
    "a path from the root": (RULES.replace("models/churn/**", "/models/churn/**"), "is not a path pattern"),
    "a path out of the repository": (RULES.replace("models/churn/**", "models/../x"), "is not a path pattern"),
    "three stars": (RULES.replace("models/churn/**", "models/***"), "is not a valid pattern"),
    "a rule twice": (RULES.replace("name: each", "name: churn"), "churn is listed twice"),
    "no deployment's name": (RULES.replace("batch_inference/batch-inference", "score"), "rules[2].deployment"),
    "a key twice": (RULES.replace("name: churn,", "name: churn, name: churn,"), "twice"),
    "a token in the API's address": (HEAD.replace("[env:HOOK]", "[env:HOOK], api: 'https://t@h/api'"), "senders.github.api"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_is_told_with_its_place(text: str, words: str) -> None:
    with pytest.raises(Mistakes) as told:
        rules(text)
    assert words in str(told.value)
    assert "triggers.yaml" in str(told.value)
    assert "line " in str(told.value)
