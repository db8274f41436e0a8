"""What a push or merge changed, and which commit runs, is asked of git: real repositories, each host's deliveries."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import NotFound, Rejected
from blocks.inbox.base import IncomingDelivery
from blocks.inbox.fake import FakeInbox
from deployments.git import Merge, RepositoryCache, fetch_commit
from deployments.secret_store import SecretStore
from services.gateway.dispatch import MIRROR_LAG, Dispatcher
from services.gateway.fake import FakeRunStarter
from services.gateway.ingest import read_delivery
from services.gateway.rules.payloads import Sender
from services.gateway.signatures import VerifiedDelivery
from tasks.shared.rules.model.namespaces import check_name
from tests.fakes.git_hosts import Remote, git
from tests.fixtures.hooks import ZEROS, bitbucket_push, gitlab_push, hook, merge_request, pull_request, push, triggers

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
MODELS = ("churn", "price", "fraud")


@dataclass
class Host:
    """A repository of three models on every kind of host, and a gateway with a rule for each way a branch moves."""

    remote: Remote
    folder: Path
    branches: str = "main"
    now: datetime = NOW
    inbox: FakeInbox = field(default_factory=FakeInbox)
    starter: FakeRunStarter = field(default_factory=FakeRunStarter)
    delivered: int = 0

    def git(self, *arguments: str) -> str:
        return git(*arguments, folder=self.remote.work)

    def commit(self, name: str, branch: str | None = None, content: str = "") -> str:
        """Change one file, in a model's folder or elsewhere, and return the commit; with `branch` push it."""
        path = self.remote.work / (f"models/{name}/train.py" if name in MODELS else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content or f"{path.read_text() if path.exists() else ''}changed\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", f"change {name}")
        if branch:
            self.push(branch)
        return self.git("rev-parse", "HEAD")

    def push(self, branch: str) -> None:
        self.git("push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")

    def dispatcher(self) -> Dispatcher:
        text = "senders:\n" + "".join(f"  {each}: {{secrets: [env:HOOK]}}\n" for each in PUSHES)
        text += "repositories:\n" + "".join(
            f'  - {{name: acme/models, sender: {each}, clone: "{self.remote.url}", branches: ["{self.branches}"], tags: ["v*"]}}\n'
            for each in PUSHES
        )
        text += """
rules:
  - {name: pushed, events: [push, tag], paths: ["models/{model}/**"], deployment: retrain/retrain, parameters: {model: "{model}--{branch}"}}
  - {name: merged, events: [merge], paths: ["models/{model}/**"], deployment: retrain/retrain, parameters: {model: "{model}"}}
"""
        cache = RepositoryCache(self.folder / "cache")
        return Dispatcher(
            self.inbox, triggers(text), self.starter, cache, SecretStore({}), lambda: self.now, holder="the gateway"
        )

    def receive(self, sender: Sender, event: str, body: Any) -> str:
        self.delivered += 1
        given = hook(sender, event, {**body, "number": self.delivered}, id=f"d-{self.delivered}")
        rules = self.dispatcher().triggers
        read = read_delivery(rules, sender, given.raw, given.body, VerifiedDelivery(), self.now)
        assert isinstance(read, IncomingDelivery)
        self.inbox.receive_all([read])
        return read.delivery.id

    def run(self, sender: Sender, event: str, body: Any) -> set[str]:
        """Deliver, dispatch, and return the models that run; the code is that of the commit in the runs' variables."""
        name, before = self.receive(sender, event, body), set(self.starter.specs)
        self.dispatcher().run_once()
        outcome = self.inbox.delivery_status(name).outcome
        assert outcome is not None, self.inbox.notes()
        self.state, self.reason = outcome.state, outcome.reason
        new = [spec for key, spec in self.starter.specs.items() if key not in before]
        self.commits = {spec.environment_variables["RATCHET_COMMIT"] for spec in new}
        return {str(spec.parameters["model"]).partition("--")[0] for spec in new}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(Remote.make(tmp_path), tmp_path)
    for name in MODELS:
        made.commit(name, "main", content="\n".join(f"{name} {line}" for line in range(9)) + "\n")
    return made


def listed(*names: str, id: str = "") -> dict[str, Any]:
    return {"id": id, "added": [], "removed": [], "modified": [f"models/{name}/train.py" for name in names]}


PUSHES: dict[Sender, Callable[..., tuple[str, Any]]] = {
    "github": lambda before, after, commits, forced=False: (
        "push", push(before=before, after=after, commits=commits, forced=forced)),
    "gitea": lambda before, after, commits, forced=False: (
        "push", push(before=before, after=after, commits=commits, total_commits=len(commits))),
    "gitlab": lambda before, after, commits, forced=False: (
        "Push Hook", gitlab_push(before=before, after=after, checkout_sha=after, commits=commits, total_commits_count=len(commits))),
    "bitbucket": lambda before, after, commits, forced=False: (
        "repo:push", bitbucket_push(new={"type": "branch", "name": "main", "target": {"hash": after}},
                                    old={"type": "branch", "name": "main", "target": {"hash": before}})),
}  # fmt: skip
each_host = pytest.mark.parametrize("sender", PUSHES)


@each_host
def test_c04_a_branch_that_is_reset_runs_the_models_that_differ(host: Host, sender: Sender) -> None:
    good = host.git("rev-parse", "HEAD")
    bad = host.commit("churn", "main")
    host.git("reset", "--quiet", "--hard", good)
    host.push("main")
    assert host.run(sender, *PUSHES[sender](bad, good, [], forced=True)) == {"churn"}
    assert host.commits == {good}


@each_host
def test_c04_a_branch_that_is_rewritten_runs_the_models_that_differ(host: Host, sender: Sender) -> None:
    good = host.git("rev-parse", "HEAD")
    bad = host.commit("churn", "main")
    host.git("reset", "--quiet", "--hard", good)
    new = host.commit("notes/x.txt", "main")
    commits = [{"id": new, "added": ["notes/x.txt"], "removed": [], "modified": []}]
    assert host.run(sender, *PUSHES[sender](bad, new, commits, forced=True)) == {"churn"}


@each_host
def test_a_fast_forward_runs_what_all_its_commits_changed_whatever_the_host_lists(host: Host, sender: Sender) -> None:
    before = host.git("rev-parse", "HEAD")
    first, last = host.commit("churn"), host.commit("price", "main")
    everything = [listed("churn", id=first), listed("price", id=last)]
    assert host.run(sender, *PUSHES[sender](before, last, everything)) == {"churn", "price"}
    assert host.run(sender, *PUSHES[sender](before, last, everything[1:], forced=True)) == {"churn", "price"}


@each_host
def test_a_change_that_the_same_push_takes_back_runs_nothing(host: Host, sender: Sender) -> None:
    before = host.git("rev-parse", "HEAD")
    old = (host.remote.work / "models/churn/train.py").read_text()
    first, last = host.commit("churn"), host.commit("churn", "main", content=old)
    assert (
        host.run(sender, *PUSHES[sender](before, last, [listed("churn", id=first), listed("churn", id=last)])) == set()
    )
    assert host.state == "ignored"


@each_host
def test_a_file_that_moves_counts_for_both_models(host: Host, sender: Sender) -> None:
    before = host.git("rev-parse", "HEAD")
    host.git("mv", "models/churn/train.py", "models/price/also.py")
    host.git("commit", "--quiet", "-m", "move")
    host.push("main")
    after = host.git("rev-parse", "HEAD")
    moved = [{"id": after, "added": ["models/price/also.py"], "removed": ["models/churn/train.py"], "modified": []}]
    assert host.run(sender, *PUSHES[sender](before, after, moved)) == {"churn", "price"}


@each_host
def test_in_a_new_branch_every_file_counts_and_a_deleted_one_runs_nothing(host: Host, sender: Sender) -> None:
    new = host.commit("churn", "main")
    event, body = PUSHES[sender](ZEROS, new, [listed("churn", id=new)])
    assert host.run(sender, event, body) == set(MODELS)
    gone = bitbucket_push(new=None) if sender == "bitbucket" else {**body, "before": new, "after": ZEROS}
    assert host.run(sender, event, {**gone, "checkout_sha": None}) == set()
    assert (host.state, "was deleted" in host.reason) == ("ignored", True)


@each_host
def test_a_tag_runs_the_commit_that_it_names(host: Host, sender: Sender) -> None:
    commit = host.commit("churn", "main")
    host.git("tag", "-a", "v1", "-m", "one")
    host.git("push", "--quiet", "origin", "v1")
    tag = host.git("rev-parse", "v1")
    assert tag != commit
    own = {
        "bitbucket": ("repo:push", bitbucket_push(new={"type": "annotated_tag", "name": "v1", "target": {"hash": commit}}, old=None)),
        "gitlab": ("Tag Push Hook", gitlab_push(ref="refs/tags/v1", before=ZEROS, after=tag, checkout_sha=commit)),
    }.get(sender, ("push", push(ref="refs/tags/v1", before=ZEROS, after=tag, head_commit={"id": commit})))  # fmt: skip
    assert host.run(sender, *own) == set(MODELS)
    assert host.commits == {commit}


def branch_off(host: Host, *names: str) -> tuple[str, list[str]]:
    """Make the branch feature/x with a commit for each name; return where it left main, and the commits."""
    base = host.git("rev-parse", "HEAD")
    host.git("checkout", "--quiet", "-b", "feature/x")
    commits = [host.commit(name, "feature/x") for name in names]
    return base, commits


def on_main(host: Host, *merge: str) -> str:
    host.git("checkout", "--quiet", "main")
    host.git(*merge)
    host.push("main")
    return host.git("rev-parse", "HEAD")


def known_push(host: Host, commit: str) -> None:
    host.run("gitlab", *PUSHES["gitlab"](ZEROS, commit, []))


@pytest.mark.parametrize("known", ["the push before", "the push itself"])
def test_c05_a_fast_forward_of_several_commits_runs_what_all_of_them_changed(host: Host, known: str) -> None:
    base, commits = branch_off(host, "churn", "price", "notes/x.txt")
    merged = on_main(host, "merge", "--quiet", "--ff-only", "feature/x")
    assert merged == commits[-1]
    if known == "the push before":
        known_push(host, base)
    else:
        host.run("gitlab", *PUSHES["gitlab"](base, merged, []))
    request = merge_request(merge_commit_sha=None, last_commit={"id": merged})
    assert host.run("gitlab", "Merge Request Hook", request) == {"churn", "price"}
    assert host.commits == {merged}


def test_c05_a_fast_forward_from_nobody_knows_where_runs_everything(host: Host) -> None:
    _, commits = branch_off(host, "churn", "price")
    on_main(host, "merge", "--quiet", "--ff-only", "feature/x")
    request = merge_request(merge_commit_sha=None, last_commit={"id": commits[-1]})
    assert host.run("gitlab", "Merge Request Hook", request) == set(MODELS)


def test_c05_a_squash_runs_the_commit_that_is_on_the_branch(host: Host) -> None:
    _, commits = branch_off(host, "churn", "price")
    host.git("checkout", "--quiet", "main")
    host.commit("fraud", "main")
    host.git("merge", "--quiet", "--squash", "feature/x")
    squashed = on_main(host, "commit", "--quiet", "-m", "squashed")
    request = merge_request(
        merge_commit_sha=None, squash=True, squash_commit_sha=squashed, last_commit={"id": commits[-1]}
    )
    assert host.run("gitlab", "Merge Request Hook", request) == {"churn", "price"}
    assert host.commits == {squashed}


@pytest.mark.parametrize("sender", ["github", "gitea"])
@pytest.mark.parametrize("way", ["merge", "squash", "rebase"])
def test_c06_a_merge_with_a_stale_base_runs_only_what_it_changed(host: Host, sender: Sender, way: str) -> None:
    stale, commits = branch_off(host, "churn", "price")
    host.git("checkout", "--quiet", "main")
    host.commit("fraud", "main")
    if way == "merge":
        merged = on_main(host, "merge", "--quiet", "--no-ff", "-m", "merge", "feature/x")
    elif way == "squash":
        host.git("merge", "--quiet", "--squash", "feature/x")
        merged = on_main(host, "commit", "--quiet", "-m", "squashed")
    else:
        merged = on_main(host, "cherry-pick", *commits)
    request = pull_request(merge_commit_sha=merged, base={"ref": "main", "sha": stale}, head={"sha": commits[-1]})
    assert host.run(sender, "pull_request", request) == {"churn", "price"}
    assert host.commits == {merged}


def test_c06_what_the_branch_took_from_main_meanwhile_is_no_change_of_the_merge(host: Host) -> None:
    stale, _ = branch_off(host, "churn")
    host.git("checkout", "--quiet", "main")
    host.commit("fraud", "main")
    host.git("checkout", "--quiet", "feature/x")
    host.git("merge", "--quiet", "--no-ff", "-m", "catch up", "main")
    host.push("feature/x")
    head = host.git("rev-parse", "HEAD")
    host.git("checkout", "--quiet", "main")
    host.git("merge", "--quiet", "--squash", "feature/x")
    merged = on_main(host, "commit", "--quiet", "-m", "squashed")
    request = pull_request(merge_commit_sha=merged, base={"ref": "main", "sha": stale}, head={"sha": head})
    assert host.run("github", "pull_request", request) == {"churn"}


def test_a_commit_that_is_not_on_the_branch_is_refused_after_a_mirror_had_its_time(host: Host) -> None:
    _, commits = branch_off(host, "churn")
    request = merge_request(merge_commit_sha=None, last_commit={"id": commits[-1]})
    name = host.receive("gitlab", "Merge Request Hook", request)
    host.dispatcher().run_once()
    assert host.inbox.delivery_status(name).outcome is None
    assert "not on the branch 'main'" in host.inbox.notes()[0].text
    host.now += MIRROR_LAG
    host.dispatcher().run_once()
    outcome = host.inbox.delivery_status(name).outcome
    assert outcome is not None
    assert (outcome.state, host.starter.calls) == ("refused", 0)


def test_a_mirror_that_lags_behind_is_waited_for(host: Host) -> None:
    before = host.git("rev-parse", "HEAD")
    host.commit("churn")
    after = host.commit("price")
    name = host.receive("gitlab", *PUSHES["gitlab"](before, after, []))
    host.dispatcher().run_once()
    assert host.inbox.delivery_status(name).outcome is None
    assert "a mirror may receive it later" in host.inbox.notes()[0].text
    host.push("main")
    host.dispatcher().run_once()
    assert {spec.parameters["model"] for spec in host.starter.specs.values()} == {"churn--main", "price--main"}


def test_a_host_that_has_a_shallow_clone_is_asked_for_what_it_has(host: Host, tmp_path: Path) -> None:
    branch_off(host, "churn", "price")
    host.git("checkout", "--quiet", "main")
    host.commit("fraud", "main")
    merged = on_main(host, "merge", "--quiet", "--no-ff", "-m", "merge", "feature/x")
    for depth, expected in ((2, {"models/churn/train.py", "models/price/train.py"}),
                            (1, {f"models/{name}/train.py" for name in MODELS})):  # fmt: skip
        shallow = tmp_path / f"shallow-{depth}.git"
        git("clone", "--quiet", "--bare", f"--depth={depth}", host.remote.url, str(shallow), folder=tmp_path)
        cache = RepositoryCache(tmp_path / f"cache-{depth}")
        assert set(cache.merged_files(shallow.as_uri(), Merge("main", merged))) == expected
        assert cache.changed_files(shallow.as_uri(), "", merged) == sorted(f"models/{name}/train.py" for name in MODELS)


UNUSUAL = [
    "feature/preisgröße",
    "feature/it's",
    "feature/a&b;c",
    "feature/$HOME",
    "feature/日本",
    "feature/-x",
    "feature/100%",
]


@pytest.mark.parametrize("name", UNUSUAL)
def test_c16_an_unusual_branch_is_ignored_where_it_is_not_listed_and_else_has_a_namespace(
    host: Host, name: str
) -> None:
    after = host.commit("churn", name)
    body = push(ref=f"refs/heads/{name}", before=ZEROS, after=after)
    assert host.run("github", "push", body) == set()
    assert (host.state, "is not configured in triggers.yaml" in host.reason) == ("ignored", True)
    host.branches = "feature/*"
    assert host.run("github", "push", body) == set(MODELS)
    models = {str(spec.parameters["model"]) for spec in host.starter.specs.values()}
    assert {check_name(model) for model in models} == models
    request = pull_request(merge_commit_sha=after, base={"ref": name, "sha": after})
    assert host.run("github", "pull_request", request) == set(MODELS), "git takes the name, too"


def test_what_comes_from_outside_is_never_an_option_of_git(host: Host, tmp_path: Path) -> None:
    cache, place = RepositoryCache(tmp_path / "c"), tmp_path / "c"
    place.mkdir()
    head = host.git("rev-parse", "HEAD")
    for clone, commit in (
        (f"--upload-pack=touch {tmp_path}/pwned", head),
        (host.remote.url, f"--output={tmp_path}/pwned"),
    ):
        with pytest.raises(Rejected):
            fetch_commit(place, clone, commit)
        with pytest.raises(Rejected):
            cache.changed_files(clone, commit, commit)
        with pytest.raises(Rejected):
            cache.merged_files(clone, Merge("main", commit))
    with pytest.raises(NotFound, match="does not have the branch"):
        cache.merged_files(host.remote.url, Merge("--upload-pack=x", head))
    assert not (tmp_path / "pwned").exists()
