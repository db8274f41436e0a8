"""Parse the payloads of each git host: from event and JSON to a `RefChange`, or to `NoChange` with the reason.

Written from each host's documentation: GitHub and Gitea `push`, `pull_request`, `create`; GitLab push, tag push and
merge request hooks; Bitbucket `repo:push` and `pullrequest:fulfilled`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from runtime.foreign_text import visible
from services.gateway.rules.changes import (
    NoChange,
    RefChange,
    author_name,
    changed_paths,
    ref_name,
    repository_name,
    split_ref,
)
from tasks.shared.rules.git import commit_id
from tasks.shared.rules.refusal import Refusal

Sender = Literal["github", "gitlab", "bitbucket", "gitea"]
SENDERS: Mapping[str, Sender] = {name: name for name in get_args(Sender)}
SENDERS_WITHOUT_LOGINS: frozenset[Sender] = frozenset({"bitbucket"})
"""Hosts whose deliveries name an account by an id alone: nickname and display name are free text."""
PayloadResult = RefChange | NoChange
JsonObject = Mapping[str, Any]

_MAX_FILES_LISTED = 3000
"""GitHub names at most so many files of a commit, and none of a commit that takes it too long."""


def read_payload(sender: Sender, event: str, payload: JsonObject) -> PayloadResult:
    """Return the change that a delivery reports; `event` is the host's name of the event, from the header.

    Raises:
        Refusal: a required part is missing or has the wrong type; the message names its key.
    """
    readers: dict[tuple[Sender, str], Callable[[JsonObject], PayloadResult]] = {
        ("github", "push"): lambda body: _push(body, names_force=True, logins=("name",)),
        ("gitea", "push"): lambda body: _push(body, names_force=False, logins=("login", "username")),
        ("github", "pull_request"): _pull_request,
        ("gitea", "pull_request"): _pull_request,
        ("gitlab", "Push Hook"): lambda body: _gitlab_push(body, "push"),
        ("gitlab", "Tag Push Hook"): lambda body: _gitlab_push(body, "tag"),
        ("gitlab", "Merge Request Hook"): _gitlab_merge,
        ("bitbucket", "repo:push"): _bitbucket_push,
        ("bitbucket", "pullrequest:fulfilled"): _bitbucket_merge,
    }
    reader = readers.get((sender, event))
    if reader is None:
        pings = {"ping", "diagnostics:ping"}
        reason = "a ping: the webhook works" if event in pings else f"the event {event[:60]!r} starts no run"
        return NoChange("ping" if event in pings else "other", reason)
    return reader(payload)


def _push(body: JsonObject, *, names_force: bool, logins: Sequence[str]) -> PayloadResult:
    where = repository_name(_value_at(body, "repository", "full_name"), "repository.full_name")
    kind, ref = split_ref(body.get("ref"), "ref")
    commit, before = commit_id(body.get("after"), "after"), commit_id(body.get("before"), "before")
    if not commit:
        return NoChange("delete", f"the {kind} {visible(ref)} was deleted", where, ref)
    author = author_name(
        [_value_at(body, "pusher", "email")],
        # GitHub's `pusher.name` is the login
        [*(_value_at(body, "pusher", key) for key in logins), _value_at(body, "sender", "login")],
    )
    if kind == "tag":
        head = _value_at(body, "head_commit", "id")  # an annotated tag is an object with its own id
        return RefChange("tag", where, ref, commit_id(head, "head_commit.id") if head else commit, before, author)
    paths, complete = _changed_files(body)
    proven = names_force and body.get("forced") is False and bool(before) and _is_one_commit(body, commit)
    return RefChange("push", where, ref, commit, before, author, paths, complete and proven)


def _pull_request(body: JsonObject) -> PayloadResult:
    where = repository_name(_value_at(body, "repository", "full_name"), "repository.full_name")
    request = _mapping(body.get("pull_request"), "pull_request")
    base = ref_name(_value_at(request, "base", "ref"), "pull_request.base.ref")
    if body.get("action") != "closed" or request.get("merged") is not True:
        return NoChange("pull_request", "a pull request that is not merged", where, base)
    commit = commit_id(request.get("merge_commit_sha"), "pull_request.merge_commit_sha")
    before = commit_id(_value_at(request, "base", "sha"), "pull_request.base.sha")
    author = _account(request, "merged_by", "login", "username")
    merged = _required_commit(commit, "pull_request.merge_commit_sha")
    head = _merged_head(_value_at(request, "head", "sha"), "pull_request.head.sha")
    return RefChange("merge", where, base, merged, before, author, head=head)


def _gitlab_push(body: JsonObject, kind: Literal["push", "tag"]) -> PayloadResult:
    where = repository_name(_value_at(body, "project", "path_with_namespace"), "project.path_with_namespace")
    ref_kind, ref = split_ref(body.get("ref"), "ref")
    if (ref_kind == "tag") != (kind == "tag"):
        raise Refusal("does not match the event", where="ref", value=str(body.get("ref"))[:80])
    after, before = commit_id(body.get("after"), "after"), commit_id(body.get("before"), "before")
    if not after:
        return NoChange("delete", f"the {ref_kind} {visible(ref)} was deleted", where, ref)
    commit = commit_id(body.get("checkout_sha") or body.get("after"), "checkout_sha")
    author = author_name([body.get("user_email")], [body.get("user_username")])
    if kind == "tag":
        return RefChange("tag", where, ref, _required_commit(commit, "checkout_sha"), before, author)
    paths, _ = _changed_files(body)
    return RefChange("push", where, ref, _required_commit(commit, "checkout_sha"), before, author, paths)


def _gitlab_merge(body: JsonObject) -> PayloadResult:
    where = repository_name(_value_at(body, "project", "path_with_namespace"), "project.path_with_namespace")
    request = _mapping(body.get("object_attributes"), "object_attributes")
    target = ref_name(request.get("target_branch"), "object_attributes.target_branch")
    if request.get("action") != "merge":
        return NoChange("merge_request", "a merge request that is not merged", where, target)
    keys = ("merge_commit_sha", "squash_commit_sha")  # neither: a fast-forward has no commit of its own
    key = next((name for name in keys if request.get(name)), "last_commit.id")
    head = _value_at(request, "last_commit", "id")
    commit = commit_id(request.get(key, head), f"object_attributes.{key}")
    author = _account(body, "user", "username")
    return RefChange(
        "merge",
        where,
        target,
        _required_commit(commit, f"object_attributes.{key}"),
        "",
        author,
        head=_merged_head(head, "object_attributes.last_commit.id"),
    )


def _bitbucket_push(body: JsonObject) -> PayloadResult:
    where = repository_name(_value_at(body, "repository", "full_name"), "repository.full_name")
    changes = _value_at(body, "push", "changes")
    if not isinstance(changes, list) or not changes:
        raise Refusal("has no changes", where="push.changes")
    if len(changes) > 1:
        return NoChange("push", "several branches in one push: push them one by one, or use `gateway missed`", where)
    change = _mapping(changes[0], "push.changes[0]")
    if not change.get("new"):
        old = ref_name(_value_at(change, "old", "name"), "push.changes[0].old.name")
        return NoChange("delete", f"{visible(old)} was deleted", where, old)
    ref = ref_name(_value_at(change, "new", "name"), "push.changes[0].new.name")
    kind = _value_at(change, "new", "type")
    if kind not in {"branch", "tag", "annotated_tag"}:
        raise Refusal("is neither branch nor tag", where="push.changes[0].new.type", value=str(kind)[:60])
    commit = commit_id(_value_at(change, "new", "target", "hash"), "push.changes[0].new.target.hash")
    old = _value_at(change, "old", "target", "hash")
    before = commit_id(old, "push.changes[0].old.target.hash") if old is not None else ""
    author = _bitbucket_account(body)
    is_push = kind == "branch"
    return RefChange(
        "push" if is_push else "tag", where, ref, _required_commit(commit, "new.target.hash"), before, author
    )


def _bitbucket_merge(body: JsonObject) -> PayloadResult:
    where = repository_name(_value_at(body, "repository", "full_name"), "repository.full_name")
    target = ref_name(
        _value_at(body, "pullrequest", "destination", "branch", "name"), "pullrequest.destination.branch.name"
    )
    key = "pullrequest.merge_commit.hash"
    commit = _value_at(body, "pullrequest", "merge_commit", "hash")
    author = _bitbucket_account(body)
    if isinstance(commit, str) and len(commit) < 40:
        return NoChange("merge", "Bitbucket sends only a part of the commit id: use rules for push", where, target)
    return RefChange("merge", where, target, _required_commit(commit_id(commit, key), key), "", author)


def _account(body: JsonObject, key: str, *logins: str) -> str:
    return author_name([_value_at(body, key, "email")], [_value_at(body, key, login) for login in logins])


def _bitbucket_account(body: JsonObject) -> str:
    return author_name([], [_value_at(body, "actor", "account_id"), _value_at(body, "actor", "uuid")])


def _changed_files(body: JsonObject) -> tuple[tuple[str, ...], bool]:
    """Return the files that the commits of a push name, and whether the host can have named all files of each."""
    commits = body.get("commits")
    if not isinstance(commits, list) or not all(isinstance(commit, Mapping) for commit in commits):
        return (), False
    lists = [[commit.get(name) for name in ("added", "removed", "modified")] for commit in commits]
    if not all(isinstance(names, list) for each in lists for names in each):
        return (), False
    counted = [sum(len(names) for names in each) for each in lists]
    paths, readable = changed_paths(path for each in lists for names in each for path in names)
    return paths, readable and all(0 < count < _MAX_FILES_LISTED for count in counted)


def _is_one_commit(body: JsonObject, commit: str) -> bool:
    """Whether a push that is not forced consists of one commit, whose files are then those that the push changed.

    Of several, one may undo what another one did, or bring what is on the branch already: git compares the ends.
    """
    commits = body.get("commits")
    return isinstance(commits, list) and [_value_at(each, "id") for each in commits] == [commit]


def _merged_head(value: object, where: str) -> str:
    return "" if value is None else commit_id(value, where)


def _value_at(body: object, *keys: str) -> Any:
    for key in keys:
        body = body.get(key) if isinstance(body, Mapping) else None
    return body


def _mapping(value: object, where: str) -> JsonObject:
    if not isinstance(value, Mapping):
        raise Refusal("is missing, or is not an object", where=where)
    return value


def _required_commit(commit: str, where: str) -> str:
    if not commit:
        raise Refusal("names no commit", where=where)
    return commit
