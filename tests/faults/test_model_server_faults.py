"""Broken models, killed hosts, switches under load: the version before goes on answering."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest

from blocks.common.errors import Corrupt, Rejected, Unavailable
from blocks.endpoints.base import Release
from blocks.endpoints.local import LocalEndpoint
from services.model_server.endpoints import ServedEndpoints
from services.model_server.loading import ReleaseRefused
from services.model_server.state import ReleaseRequest, read_state
from tests.fixtures.scoring import REQUEST, ModelServer, churn_model, host, python_code_model, release
from tests.fixtures.signing_keys import MODELS
from tests.processes import children
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

ONES = [0.5, 0.5, 0.5]
BROKEN = {
    "does not load": ({"at_load": "raise RuntimeError('the weights are gone')"}, "the weights are gone"),
    "loads for ever": ({"at_load": "time.sleep(3600)"}, "did not respond to /ping in time"),
    "ends the process": ({"at_load": "os._exit(7)"}, "ended with code 7"),
    "crashes the process": ({"at_load": "os.kill(os.getpid(), 11)"}, "SIGSEGV"),
    "fails on the first request": ({"at_predict": "raise RuntimeError('no such layer')"}, "no such layer"),
    "crashes on the first request": ({"at_predict": "os.kill(os.getpid(), 11)"}, "got no response"),
    "answers for ever": ({"at_predict": "time.sleep(3600)"}, "got no response"),
    "answers otherwise": ({"at_predict": "return [0.5, 0.5, 0.6]"}, r"predictions\[2\] is 0.6, expected 0.5"),
    "answers too little": ({"at_predict": "return [0.5]"}, "1 entries, expected 3"),
    "answers NaN": ({"at_predict": "return [float('nan')] * 3"}, "NaN"),
}


@dataclass
class Scene:
    """A host that serves version 1, and its adapter."""

    host: ModelServer
    endpoint: LocalEndpoint
    one: Release
    two: Release


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return churn_model(folder / "one", 3), churn_model(folder / "two", 5)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, models: tuple[Path, Path]) -> Iterator[Scene]:
    with host(tmp_path_factory.mktemp("host")) as started:
        endpoint = started.endpoint()
        one, two = release(models[0], "1"), release(models[1], "2")
        endpoint.switch(one)
        yield Scene(started, endpoint, one, two)


@pytest.mark.timeout(600)  # of which `refusal` may take half
@pytest.mark.parametrize(("told", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_preflight_survives_a_model_that(scene: Scene, tmp_path: Path, told: dict[str, str], words: str) -> None:
    bad = release(python_code_model(tmp_path / "model", **told), "bad", ONES)
    before = children(psutil.Process())
    assert re.search(f"(?s)bad of churn is refused.*{words}", refusal(scene.endpoint, bad, words))
    assert children(psutil.Process()) == before, "no server is left behind"
    assert not list((scene.host.state / "releases" / "churn").glob("*bad*")), "a refused copy is not kept"
    scene.endpoint.verify(scene.one)


def refusal(endpoint: LocalEndpoint, bad: Release, words: str) -> str:
    """Return why preflight refuses a model; one that hangs gets more time until the machine has got as far as that."""
    for seconds in (8.0, 40.0, 200.0):
        with pytest.raises(Rejected) as refused:
            endpoint.model_copy(update={"load_timeout_seconds": seconds}).preflight(bad)
        if re.search(words, str(refused.value)):
            break
    return str(refused.value)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"at_load": "raise RuntimeError('gone')"}, id="does not load"),
        pytest.param({"at_load": "sys.exit(0)"}, id="exits"),
        pytest.param({"at_predict": "raise RuntimeError('gone')"}, id="fails on the first request"),
        pytest.param({"at_predict": "return [0.5, 0.5, 0.6]"}, id="answers otherwise"),
    ],
)
def test_a_switch_without_preflight_fails_closed_too(scene: Scene, tmp_path: Path, told: dict[str, str]) -> None:
    bad = release(python_code_model(tmp_path / "model", **told), tmp_path.name[-20:], ONES)
    with pytest.raises(Rejected):
        scene.endpoint.switch(bad)
    scene.endpoint.verify(scene.one)


def test_a_host_does_not_wait_for_ever_for_a_model_that_loads_for_ever(tmp_path: Path) -> None:
    waits = f"while not os.path.exists({str(tmp_path / 'end')!r}): time.sleep(0.05)"
    slow = release(python_code_model(tmp_path / "slow", at_load=waits), "2", ONES)
    quick = release(python_code_model(tmp_path / "quick"), "1", ONES)
    fleet = ServedEndpoints(tmp_path, 250, keys=[MODELS.public_key_line])
    fleet.release("churn", order(quick))
    fleet.load_seconds = 1
    with pytest.raises(ReleaseRefused, match="did not load and respond within 1 s"):
        fleet.release("churn", order(slow))
    (tmp_path / "end").touch()  # only now does it end
    assert fleet.endpoints()["churn"].live.released.version == "1"
    assert fleet.release("churn", order(quick)), "the endpoint is not locked by what hangs"


def order(wanted: Release) -> ReleaseRequest:
    """The order by which an adapter asks the host for a release."""
    golden = {
        "request": wanted.golden_example.request,
        "expected_predictions": wanted.golden_example.expected_predictions,
    }
    fields = {"version": wanted.version, "artifact": wanted.artifact, "digest": wanted.digest}
    return ReleaseRequest.model_validate(fields | {"golden": golden})


def test_one_flipped_byte_of_the_artifact_is_found(scene: Scene, models: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(models[1], tmp_path / "model")
    flip(copy / "model.skops")
    for step in (scene.endpoint.preflight, scene.endpoint.switch):
        with pytest.raises(Corrupt, match="changed after it was evaluated"):
            step(replace(scene.two, artifact=copy, version="flipped"))
    scene.endpoint.verify(scene.one)


def test_a_damaged_copy_is_found_by_restore_and_mended_by_a_release(scene: Scene, tmp_path: Path) -> None:
    name = "damaged"
    one, two = replace(scene.one, endpoint=name), replace(scene.two, endpoint=name)
    three = replace(scene.one, endpoint=name, version="3")
    for each in (one, two, three):
        scene.endpoint.switch(each)
    flip(scene.host.state / "releases" / name / "1" / "model" / "model.skops")
    with pytest.raises(Corrupt, match="has the digest"):
        scene.endpoint.rollback(name, "1")
    scene.endpoint.verify(three)
    scene.endpoint.switch(one)
    scene.endpoint.switch(three)
    assert scene.endpoint.rollback(name, "1").version == "1"


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_wrong_token_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("another-token-0123456789")
    endpoint = scene.endpoint.model_copy(update={"token_file": wrong})
    with pytest.raises(Rejected, match="403"):
        endpoint.switch(scene.two)
    with pytest.raises(Rejected, match="cannot be read"):
        scene.endpoint.model_copy(update={"token_file": tmp_path / "none"}).switch(scene.two)
    scene.endpoint.verify(scene.one)


def test_a_store_outside_the_hosts_state_is_refused(scene: Scene, tmp_path: Path) -> None:
    endpoint = scene.endpoint.model_copy(update={"releases_folder": tmp_path})
    with pytest.raises(Rejected, match="not inside the state folder"):
        endpoint.switch(scene.two)
    scene.endpoint.verify(scene.one)


@pytest.mark.parametrize("name", ["../up", "", "a/b", "a" * 64])
def test_names_that_are_no_folders_are_refused(scene: Scene, name: str) -> None:
    for bad in (replace(scene.two, endpoint=name), replace(scene.two, version=name + ".")):
        with pytest.raises(Rejected, match="not made of letters"):
            scene.endpoint.preflight(bad)


def test_a_host_that_is_not_there_is_unavailable(scene: Scene) -> None:
    endpoint = scene.endpoint.model_copy(update={"url": "http://127.0.0.1:9"})
    for call in (
        lambda: endpoint.switch(scene.two),
        lambda: endpoint.live_version("churn"),
        lambda: endpoint.verify(scene.one),
        lambda: endpoint.invoke("churn", b"{}"),
    ):
        with pytest.raises(Unavailable, match="does not respond"):
            call()


def test_a_server_that_is_not_there_is_rejected_by_preflight(scene: Scene) -> None:
    endpoint = scene.endpoint.model_copy(update={"serve_command": ["/no/such/program"]})
    with pytest.raises(Rejected, match="/no/such/program"):
        endpoint.preflight(replace(scene.two, version="unstarted"))


def test_preflights_server_gets_none_of_our_environment(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-4711")
    at_load = "print('|'.join(sorted(os.environ)), *os.environ.values()); raise RuntimeError('end of list')"
    bad = release(python_code_model(tmp_path / "model", at_load=at_load), "nosy", ONES)
    with pytest.raises(Rejected, match="SM_MODEL_DIR") as refused:
        scene.endpoint.preflight(bad)
    assert "canary-4711" not in str(refused.value)
    assert "AWS_SECRET_ACCESS_KEY" not in str(refused.value)


def test_a_host_killed_and_started_again_serves_what_it_served(tmp_path: Path, models: tuple[Path, Path]) -> None:
    one, two = release(models[0], "1"), release(models[1], "2")
    with host(tmp_path / "state") as first:
        first.endpoint().switch(one)
        live = first.endpoint().switch(two)
        first.process.kill()
    with host(tmp_path / "state") as second:
        again = second.endpoint().live_version("churn")
        assert again is not None
        assert again == replace(live, url=again.url)
        second.endpoint().verify(two)
        assert second.endpoint().rollback("churn", "1").version == "1"


def test_a_host_whose_copy_was_damaged_says_so_and_serves_the_rest(tmp_path: Path, models: tuple[Path, Path]) -> None:
    one, two = release(models[0], "1"), release(models[1], "2")
    healthy = replace(one, endpoint="healthy")
    with host(tmp_path / "state") as first:
        for each in (one, two, healthy):
            first.endpoint().switch(each)
    flip(tmp_path / "state" / "releases" / "churn" / "2" / "model" / "model.skops")
    with host(tmp_path / "state") as second:
        second.endpoint().verify(healthy)
        with pytest.raises(Unavailable, match="has the digest"):
            second.endpoint().live_version("churn")
        assert second.endpoint().invoke("churn", REQUEST.encode()).status == 503
        assert second.endpoint().rollback("churn", "1").version == "1"
        second.endpoint().verify(one)


def test_a_model_that_kills_the_host_leaves_the_version_before_it(tmp_path: Path, models: tuple[Path, Path]) -> None:
    one = release(models[0], "1")
    bad = release(python_code_model(tmp_path / "model", at_load="os._exit(7)"), "bad", ONES)
    with host(tmp_path / "state") as first:
        first.endpoint().switch(one)
        with pytest.raises(Unavailable):
            first.endpoint().switch(bad)
        assert first.process.wait(60) == 7
    assert read_state(tmp_path / "state")["churn"].live.version == "1"
    with host(tmp_path / "state") as second:
        second.endpoint().verify(one)


def test_no_request_fails_while_versions_are_switched(scene: Scene) -> None:
    one, two = replace(scene.one, endpoint="busy"), replace(scene.two, endpoint="busy")
    scene.endpoint.switch(one)
    seen: Counter[tuple[int, str]] = Counter()
    stop = threading.Event()
    clients = [threading.Thread(target=_ask, args=(scene.host.url, seen, stop)) for _ in range(4)]
    for client in clients:
        client.start()
    for number in range(10):
        third = replace(one, version=f"new-{number}")  # loaded anew each time, unlike one that stands by
        live = (200, scene.endpoint.switch((two, third)[number % 2]).version)
        before = seen[live]
        wait_for(lambda live=live, before=before: seen[live] > before)  # type: ignore[misc]
    stop.set()
    for client in clients:
        client.join()
    assert {status for status, _ in seen} == {200}, seen
    assert {"2", *(f"new-{number}" for number in (1, 3, 5, 7, 9))} <= {version for _, version in seen}, seen
    print(f"{sum(seen.values())} requests over 10 switches, none failed")


def _ask(url: str, seen: Counter[tuple[int, str]], stop: threading.Event) -> None:
    headers = {"content-type": "application/json"}
    with httpx.Client(trust_env=False, timeout=60) as client:
        while not stop.is_set():
            try:
                answer = client.post(f"{url}/endpoints/busy/invocations", content=REQUEST, headers=headers)
                seen[answer.status_code, answer.headers.get("X-Model-Version", "")] += 1
            except httpx.HTTPError as cause:
                seen[0, type(cause).__name__] += 1


def test_of_two_releases_at_once_one_after_the_other_serves(scene: Scene) -> None:
    one, two = replace(scene.one, endpoint="raced"), replace(scene.two, endpoint="raced")
    failures: list[Exception] = []

    def switch(each: Release) -> None:
        try:
            scene.endpoint.switch(each)
        except Exception as cause:
            failures.append(cause)

    threads = [threading.Thread(target=switch, args=(each,)) for each in (one, two, one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    live = scene.endpoint.live_version("raced")
    assert live is not None
    scene.endpoint.verify(one if live.version == "1" else two)
    other = "2" if live.version == "1" else "1"
    assert scene.endpoint.rollback("raced", other).version == other
