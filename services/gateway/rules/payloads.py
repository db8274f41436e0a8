"""Parse the payloads of each git host: from event and JSON to a `RefChange`, or to `NoChange` with the reason.

Written from each host's documentation: GitHub and Gitea `push`, `pull_request`, `create`; GitLab push, tag push and
merge request hooks; Bitbucket `repo:push` and `pullrequest:fulfilled`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

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
PayloadResult = RefChange | NoChange
JsonObject = Mapping[str, Any]

_COMMIT_COUNT_KEYS = {"gitlab": "total_commits_count", "gitea": "total_commits"}
"""The key with a push's number of commits; the host lists only the newest of them. GitHub lists up to 2,048."""


def read_payload(sender: Sender, event: str, payload: JsonObject) -> PayloadResult:
    """Return the change that a delivery reports; `event` is the host's name of the event, from the header.

    Raises:
        Refusal: a required part is missing or has the wrong type; the message names its key.
    """
    readers: dict[tuple[Sender, str], Callable[[JsonObject], PayloadResult]] = {
        ("github", "push"): lambda body: _push("github", body),
        ("gitea", "push"): lambda body: _push("gitea", body),
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


def _push(sender: Sender, body: JsonObject) -> PayloadResult:
    where = repository_name(_value_at(body, "repository", "full_name"), "repository.full_name")
    kind, ref = split_ref(body.get("ref"), "ref")
    commit, before = commit_id(body.get("after"), "after"), commit_id(body.get("before"), "before")
    if not commit:
        return NoChange("delete", f"the {kind} {ref} was deleted", where, ref)
    author = author_name(
        *(_value_at(body, *path) for path in (("pusher", "email"), ("pusher", "name"), ("pusher", "login")))
    )
    if kind == "tag":
        head = _value_at(body, "head_commit", "id")  # an annotated tag is an object with its own id
        return RefChange("tag", where, ref, commit_id(head, "head_commit.id") if head else commit, before, author)
    paths, complete = _changed_files(sender, body, before)
    return RefChange("push", where, ref, commit, before, author, paths, complete)


def _pull_request(body: JsonObject) -> PayloadResult:
    where = repository_name(_value_at(body, "repository", "full_name"), "repository.full_name")
    request = _mapping(body.get("pull_request"), "pull_request")
    base = ref_name(_value_at(request, "base", "ref"), "pull_request.base.ref")
    if body.get("action") != "closed" or request.get("merged") is not True:
        return NoChange("pull_request", "a pull request that is not merged", where, base)
    commit = commit_id(request.get("merge_commit_sha"), "pull_request.merge_commit_sha")
    before = commit_id(_value_at(request, "base", "sha"), "pull_request.base.sha")
    author = author_name(_value_at(request, "merged_by", "email"), _value_at(request, "merged_by", "login"))
    return RefChange("merge", where, base, _required_commit(commit, "pull_request.merge_commit_sha"), before, author)


def _gitlab_push(body: JsonObject, kind: Literal["push", "tag"]) -> PayloadResult:
    where = repository_name(_value_at(body, "project", "path_with_namespace"), "project.path_with_namespace")
    ref_kind, ref = split_ref(body.get("ref"), "ref")
    if (ref_kind == "tag") != (kind == "tag"):
        raise Refusal("does not match the event", where="ref", value=str(body.get("ref"))[:80])
    after, before = commit_id(body.get("after"), "after"), commit_id(body.get("before"), "before")
    if not after:
        return NoChange("delete", f"the {ref_kind} {ref} was deleted", where, ref)
    commit = commit_id(body.get("checkout_sha") or body.get("after"), "checkout_sha")
    author = author_name(body.get("user_email"), body.get("user_username"), body.get("user_name"))
    if kind == "tag":
        return RefChange("tag", where, ref, _required_commit(commit, "checkout_sha"), before, author)
    paths, complete = _changed_files("gitlab", body, before)
    return RefChange("push", where, ref, _required_commit(commit, "checkout_sha"), before, author, paths, complete)


def _gitlab_merge(body: JsonObject) -> PayloadResult:
    where = repository_name(_value_at(body, "project", "path_with_namespace"), "project.path_with_namespace")
    request = _mapping(body.get("object_attributes"), "object_attributes")
    target = ref_name(request.get("target_branch"), "object_attributes.target_branch")
    if request.get("action") != "merge":
        return NoChange("merge_request", "a merge request that is not merged", where, target)
    key = "merge_commit_sha" if request.get("merge_commit_sha") else "last_commit.id"  # fast-forward: no merge commit
    commit = request.get("merge_commit_sha") or _value_at(request, "last_commit", "id")
    author = author_name(_value_at(body, "user", "email"), _value_at(body, "user", "username"))
    return RefChange(
        "merge", where, target, _required_commit(commit_id(commit, f"object_attributes.{key}"), key), "", author
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
        return NoChange("delete", f"{old} was deleted", where, old)
    ref = ref_name(_value_at(change, "new", "name"), "push.changes[0].new.name")
    kind = _value_at(change, "new", "type")
    if kind not in {"branch", "tag", "annotated_tag"}:
        raise Refusal("is neither branch nor tag", where="push.changes[0].new.type", value=str(kind)[:60])
    commit = commit_id(_value_at(change, "new", "target", "hash"), "push.changes[0].new.target.hash")
    old = _value_at(change, "old", "target", "hash")
    before = commit_id(old, "push.changes[0].old.target.hash") if old is not None else ""
    author = author_name(_value_at(body, "actor", "nickname"), _value_at(body, "actor", "display_name"))
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
    author = author_name(_value_at(body, "actor", "nickname"), _value_at(body, "actor", "display_name"))
    if isinstance(commit, str) and len(commit) < 40:
        return NoChange("merge", "Bitbucket sends only a part of the commit id: use rules for push", where, target)
    return RefChange("merge", where, target, _required_commit(commit_id(commit, key), key), "", author)


def _changed_files(sender: Sender, body: JsonObject, before: str) -> tuple[tuple[str, ...], bool]:
    """Return the files that the commits of a push name, and whether the list is complete.

    For a new branch or a forced push the list is not complete: more files may differ than its commits name.
    """
    commits = body.get("commits")
    if not isinstance(commits, list) or not all(isinstance(commit, Mapping) for commit in commits):
        return (), False
    lists = [commit.get(name) for commit in commits for name in ("added", "removed", "modified")]
    if not all(isinstance(names, list) for names in lists):
        return (), False
    paths, complete = changed_paths(path for names in lists for path in names or ())
    listed = (
        len(commits) == body.get(_COMMIT_COUNT_KEYS[sender])
        if sender in _COMMIT_COUNT_KEYS
        else 0 < len(commits) < 2048
    )
    return paths, complete and listed and bool(before) and body.get("forced") is not True


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
