"""Payloads of the git hosts, parsed into one form."""

import json
from dataclasses import replace
from typing import Any

import pytest

from runtime.foreign_text import visible
from services.gateway.rules.changes import MAX_PATHS, NoChange, RefChange, author_name, change_from_json
from services.gateway.rules.payloads import Sender, read_payload
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.hooks import (
    C1,
    C2,
    ZEROS,
    bitbucket_push,
    gitlab_push,
    merge_request,
    pull_request,
    push,
)

C3 = "3" * 40
COMMIT = {"id": C2, "added": [], "removed": [], "modified": ["models/churn/train.py"]}
MAIN = RefChange("push", "acme/models", "main", C2, C1, "ada <ada@acme.example>", ("models/churn/train.py",), True)

SAID: dict[str, tuple[Sender, str, Any, RefChange | NoChange]] = {
    "github push": ("github", "push", push(), MAIN),
    "github push of several commits, of which one may undo another": ("github", "push", push(commits=[{**COMMIT, "id": C1}, COMMIT]), replace(MAIN, paths_complete=False)),
    "github push of a commit too large to list its files": ("github", "push", push(commits=[{**COMMIT, "modified": []}]), replace(MAIN, paths=(), paths_complete=False)),
    "github push whose commit is not the one listed": ("github", "push", push(commits=[{**COMMIT, "id": C1}]), replace(MAIN, paths_complete=False)),
    "github push that does not say whether it is forced": ("github", "push", push(forced=None), replace(MAIN, paths_complete=False)),
    "gitea push, which may be forced": ("gitea", "push", push(), replace(MAIN, paths_complete=False)),
    "github push by force": ("github", "push", push(forced=True), replace(MAIN, paths_complete=False)),
    "github new branch": ("github", "push", push(before=ZEROS), replace(MAIN, before="", paths_complete=False)),
    "github push without commits": ("github", "push", push(commits=[]), replace(MAIN, paths=(), paths_complete=False)),
    "github tag": ("github", "push", push(ref="refs/tags/v1", head_commit={"id": C1}), RefChange("tag", "acme/models", "v1", C1, C1, "ada <ada@acme.example>")),
    "github deleted": ("github", "push", push(after=ZEROS), NoChange("delete", "the branch main was deleted", "acme/models", "main")),
    "github merge": ("github", "pull_request", pull_request(), RefChange("merge", "acme/models", "main", C2, C1, "ada")),
    "github closed unmerged": ("github", "pull_request", pull_request(merged=False), NoChange("pull_request", "a pull request that is not merged", "acme/models", "main")),
    "github merged in words": ("github", "pull_request", pull_request(merged="true"), NoChange("pull_request", "a pull request that is not merged", "acme/models", "main")),
    "github ping": ("github", "ping", {"zen": "x"}, NoChange("ping", "a ping: the webhook works")),
    "gitlab push, which may be forced": ("gitlab", "Push Hook", gitlab_push(), replace(MAIN, author="ada@acme.example", paths=("models/churn/x",), paths_complete=False)),
    "gitlab tag": ("gitlab", "Tag Push Hook", gitlab_push(ref="refs/tags/v1", before=ZEROS, after="3" * 40), RefChange("tag", "acme/models", "v1", C2, "", "ada@acme.example")),
    "gitlab deleted tag": ("gitlab", "Tag Push Hook", gitlab_push(ref="refs/tags/v1", after=ZEROS, checkout_sha=None), NoChange("delete", "the tag v1 was deleted", "acme/models", "v1")),
    "github merge of a branch": ("github", "pull_request", pull_request(head={"sha": C3}), RefChange("merge", "acme/models", "main", C2, C1, "ada", head=C3)),
    "gitlab merge": ("gitlab", "Merge Request Hook", merge_request(), RefChange("merge", "acme/models", "main", C2, "", "ada", head=C1)),
    "gitlab merge by fast-forward": ("gitlab", "Merge Request Hook", merge_request(merge_commit_sha=None), RefChange("merge", "acme/models", "main", C1, "", "ada", head=C1)),
    "gitlab squash and fast-forward": ("gitlab", "Merge Request Hook", merge_request(merge_commit_sha=None, squash_commit_sha=C3), RefChange("merge", "acme/models", "main", C3, "", "ada", head=C1)),
    "gitlab opened": ("gitlab", "Merge Request Hook", merge_request(action="open"), NoChange("merge_request", "a merge request that is not merged", "acme/models", "main")),
    "bitbucket push": ("bitbucket", "repo:push", bitbucket_push(), RefChange("push", "acme/models", "main", C2, C1, "ada")),
    "bitbucket new branch": ("bitbucket", "repo:push", bitbucket_push(old=None), RefChange("push", "acme/models", "main", C2, "", "ada")),
    "bitbucket tag": ("bitbucket", "repo:push", bitbucket_push(new={"type": "tag", "name": "v1", "target": {"hash": C2}}, old=None), RefChange("tag", "acme/models", "v1", C2, "", "ada")),
    "bitbucket deleted": ("bitbucket", "repo:push", bitbucket_push(new=None), NoChange("delete", "main was deleted", "acme/models", "main")),
}  # fmt: skip


@pytest.mark.parametrize(("sender", "event", "body", "expected"), SAID.values(), ids=SAID)
def test_a_delivery_says(sender: Sender, event: str, body: Any, expected: RefChange | NoChange) -> None:
    assert read_payload(sender, event, body) == expected


ODD: dict[str, tuple[Sender, str, Any, str]] = {
    "github no repository": ("github", "push", push(repository={}), "repository.full_name"),
    "github a short commit": ("github", "push", push(after="abc"), "after"),
    "github no ref": ("github", "push", push(ref=None), "ref"),
    "github a pull request in words": ("github", "pull_request", {"repository": {"full_name": "a/b"}, "pull_request": "x"}, "pull_request"),
    "github merged to no commit": ("github", "pull_request", pull_request(merge_commit_sha=ZEROS), "merge_commit_sha"),
    "gitlab a tag by the push hook": ("gitlab", "Push Hook", gitlab_push(ref="refs/tags/v1"), "ref"),
    "bitbucket no changes": ("bitbucket", "repo:push", {"repository": {"full_name": "a/b"}, "push": {"changes": []}}, "push.changes"),
    "bitbucket neither branch nor tag": ("bitbucket", "repo:push", bitbucket_push(new={"type": "bookmark", "name": "x"}), "push.changes[0].new.type"),
}  # fmt: skip


@pytest.mark.parametrize(("sender", "event", "body", "key"), ODD.values(), ids=ODD)
def test_a_part_that_is_needed_and_wrong_is_named(sender: Sender, event: str, body: Any, key: str) -> None:
    with pytest.raises(Refusal) as told:
        read_payload(sender, event, body)
    assert key in told.value.where


def test_more_files_than_are_kept_are_left_to_git() -> None:
    commits = [{"id": C2, "added": [f"f{n}" for n in range(MAX_PATHS + 1)], "removed": [], "modified": []}]
    said = read_payload("github", "push", push(commits=commits))
    assert isinstance(said, RefChange)
    assert (said.paths, said.paths_complete) == ((), False)


@pytest.mark.parametrize(
    "commits",
    [None, "x", [1], [{"added": "x", "removed": [], "modified": []}], [{"added": [1], "removed": [], "modified": []}]],
)
def test_files_that_cannot_be_read_are_not_taken_for_all(commits: Any) -> None:
    said = read_payload("github", "push", push(commits=commits))
    assert isinstance(said, RefChange)
    assert not said.paths_complete


def test_a_person_s_name_stays_on_its_line_and_hides_nothing() -> None:
    assert author_name([None, 3, ""], ["x", "ada\n\u202e", "ada"]) == "ada"
    assert author_name(["a" * 500 + "@x.org"], ["a" * 500]) == "unknown"
    assert author_name([], []) == "unknown"


PUSHERS: dict[str, tuple[Sender, str, Any, str]] = {
    "github, a private address": ("github", "push", push(pusher={"name": "ada", "email": "7+ada@users.noreply.github.com"}), "ada <7+ada@users.noreply.github.com>"),
    "github, no address": ("github", "push", push(pusher={"name": "ada", "email": None}), "ada"),
    "github, a deploy key": ("github", "push", push(pusher={"name": "", "email": None}, sender={"login": "ada"}), "ada"),
    "gitea": ("gitea", "push", push(pusher={"login": "ada", "email": "ada@noreply.git.acme.example"}), "ada <ada@noreply.git.acme.example>"),
    "gitlab, a hidden address": ("gitlab", "Push Hook", gitlab_push(user_email="[REDACTED]", user_username="ada"), "ada"),
    "gitlab, a hidden address and no login": ("gitlab", "Push Hook", gitlab_push(user_email="[REDACTED]"), "unknown"),
    "gitlab, an empty address": ("gitlab", "Push Hook", gitlab_push(user_email="", user_username="ada"), "ada"),
    "gitlab, a merge": ("gitlab", "Merge Request Hook", merge_request() | {"user": {"email": "[REDACTED]", "username": "ada"}}, "ada"),
    "gitlab, a name that is another's address": ("gitlab", "Push Hook", gitlab_push(user_email="[REDACTED]", user_username="eve", user_name="max@example.com"), "eve"),
    "gitea, a login that is an address": ("gitea", "push", push(pusher={"login": "max@example.com", "email": ""}), "unknown"),
    "gitea, a name": ("gitea", "push", push(pusher={"login": "eve", "name": "max", "email": ""}), "eve"),
    "bitbucket": ("bitbucket", "repo:push", bitbucket_push() | {"actor": {"account_id": "557058:c0b7", "uuid": "{1}", "nickname": "max@example.com"}}, "557058:c0b7"),
    "bitbucket, a nickname alone": ("bitbucket", "repo:push", bitbucket_push() | {"actor": {"nickname": "ada", "display_name": "max@example.com"}}, "unknown"),
}  # fmt: skip


@pytest.mark.parametrize(("sender", "event", "body", "expected"), PUSHERS.values(), ids=PUSHERS)
def test_who_pushed_is_an_account_and_never_a_placeholder(sender: Sender, event: str, body: Any, expected: str) -> None:
    said = read_payload(sender, event, body)
    assert isinstance(said, RefChange)
    assert said.author == expected


NAMES = ["main", "feature/preisgröße", "日本/語", "a,b", "fix#12", "it's", 'say"x"', "a&b;c|d", "-f", "--upload-pack=x", "(x)", "é",
         "e\u0301", "100%", "a@b", "{x}", "$HOME", "`id`", "<script>", "!", "😀", "x" * 250, "\u202emain", "a\u00a0b", "\u0085"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_branch_may_have_any_name_that_git_allows(name: str) -> None:
    said = read_payload("github", "push", push(ref=f"refs/heads/{name}"))
    assert isinstance(said, RefChange)
    assert said.ref == name
    assert visible(said.ref).isprintable()
    assert change_from_json(said.text()) == said


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a..b", "a\n", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a//b", ".a", "a/.b", "a.", "a.lock",
     "a.lock/b", "@", "a@{1}", "\x7f", "\x00", "\ud800", "x" * 1025],
)  # fmt: skip
def test_a_name_that_git_forbids_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="no name of a branch or tag that git allows"):
        read_payload("github", "push", push(ref=f"refs/heads/{name}"))


def test_what_an_earlier_release_stored_of_a_change_is_still_read() -> None:
    stored = json.loads(MAIN.text())
    del stored["head"]
    assert change_from_json(json.dumps(stored)) == MAIN
