"""Registration of environments: files are read strictly, and missing settings are named before anything is saved.

Each test reads the environments of its own checkout, with a copy of the module in it. Saving blocks needs a Prefect
server; the tests of `tests/flows` do that through `make up`.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from blocks.common.errors import NotFound, PortError, Rejected
from blocks.environment import Environment
from blocks.environment_settings import adapter_class
from deployments import register as shipped
from local.stack import Stack
from tests.fixtures.command_line import ratchet
from tests.fixtures.signing_keys import RECORDS, SIGNER

VARIABLES = {
    "RATCHET_STATE": "/state", "RATCHET_MLFLOW_URL": "http://mlflow", "RATCHET_ENDPOINTS_URL": "http://ends",
    "RATCHET_DECISIONS_KEY": SIGNER.public_key_line, "RATCHET_RECORDS_KEY": RECORDS.public_key_line, "RATCHET_MODELS_KEY": "",
}  # fmt: skip
PORTS = ("lake", "engine", "trainer", "endpoint", "tracking", "ledger")


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[ModuleType]:
    """Return the module as it is in a checkout with the environment `local`."""
    folder = tmp_path / "deployments"
    shutil.copytree(shipped.ROOT / "deployments" / "environments", folder / "environments")
    shutil.copy(str(shipped.__file__), folder / "register.py")
    found = spec_from_file_location("register_of_another_checkout", folder / "register.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    yield module
    del sys.modules[found.name]


def environment(checkout: ModuleType, name: str, text: str) -> None:
    (checkout.ROOT / "deployments" / "environments" / f"{name}.toml").write_text(text)


def local_text() -> str:
    return (shipped.ROOT / "deployments" / "environments" / "local.toml").read_text()


def test_keys_rules_and_people_come_from_the_environment_s_file() -> None:
    text = """
approval = {approvals = 2, roles = ["risk"], models = {churn = {approvals = 3}}}
people = {max = {aliases = ["max@example.com"], roles = ["risk"]}}
"""
    settings = shipped.read_environment_settings("local", VARIABLES) | tomllib.loads(text)
    made = Environment.from_settings("local", settings)
    assert made.signing.trusted_keys("decisions").verifies(SIGNER.key_id, SIGNER.sign(b"it"), b"it")
    assert not made.signing.trusted_keys("models"), "an empty line pins nothing"
    assert (made.required_approval("churn").approvals, made.required_approval("price").approvals) == (3, 2)
    assert made.people["max"].roles == ("risk",)


def test_an_environment_has_namespaces_only_where_its_file_says_so() -> None:
    settings = shipped.read_environment_settings("local", VARIABLES)
    assert Environment.from_settings("local", settings).namespaces
    assert not Environment.from_settings(
        "local", {key: settings[key] for key in settings if key != "namespaces"}
    ).namespaces


WRONG = {
    "namespaces that are neither": ({"namespaces": "perhaps"}, "namespaces"),
    "a key that is none": ({"signing": {"trusted_decision_keys": ["abc"]}}, "'abc' is no public key"),
    "a misspelt rule": ({"approval": {"aprovals": 2}}, "approval.aprovals"),
    "no approvals": ({"approval": {"approvals": 0}}, "approval.approvals"),
    "roles as text": ({"people": {"max": {"roles": "risk"}}}, "people.max.roles"),
    "dashboards nobody can follow a link to": ({"dashboards": {"url": "javascript:alert(1)"}}, "dashboards.url"),
    "a misspelt setting of dashboards": ({"dashboards": {"place": "/srv"}}, "dashboards.place"),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=WRONG)
def test_what_is_not_right_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Rejected, match=f"local.toml: .*{says}"):
        Environment.from_settings("local", shipped.read_environment_settings("local", VARIABLES) | changes)


def test_the_embedded_default_is_read_with_its_variables() -> None:
    settings = shipped.read_environment_settings("local", VARIABLES)
    assert settings["scratch"] == "/state/scratch"
    assert settings["dashboards"] == {"folder": "/state/dashboards", "url": "http://ends/dashboards"}
    assert settings["lake"] == {"adapter": "blocks.lake.local.LocalLake", "root": "/state/lake"}
    assert settings["tracking"]["tracking_uri"] == "http://mlflow"
    assert settings["endpoint"]["url"] == "http://ends"
    assert settings["ledger"]["url"] == "sqlite:////state/ledger.db"


def test_the_stack_sets_every_variable_that_the_embedded_default_needs(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"prefect": 1, "mlflow": 2, "endpoints": 3})
    assert shipped.read_environment_settings("local", stack.environment_variables())["scratch"] == f"{tmp_path}/scratch"


ON_AWS = {name: name.lower() for name in ("RATCHET_AWS_URL", "RATCHET_BUCKET", "RATCHET_JOB_ROLE", "RATCHET_IMAGE",
                                          "RATCHET_LOG_GROUP", "RATCHET_LEDGER_URL", "AWS_DEFAULT_REGION")}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "port"),
    [*((name, port) for name in ("local", "aws") for port in PORTS), ("aws", "batch_inference")],
)
def test_each_adapter_of_a_shipped_environment_exists_and_takes_its_fields(
    environment: str, port: str, tmp_path: Path
) -> None:
    variables = {**VARIABLES, **ON_AWS, "RATCHET_STATE": str(tmp_path)}
    fields = dict(shipped.read_environment_settings(environment, variables)[port])
    kind = adapter_class(fields.pop("adapter"))
    assert set(fields) <= set(kind.model_fields), "a field that the adapter does not know would be ignored"
    kind(**fields)


def test_the_log_group_of_a_shipped_environment_takes_its_fields(tmp_path: Path) -> None:
    settings = shipped.read_environment_settings("aws", {**VARIABLES, **ON_AWS, "RATCHET_STATE": str(tmp_path)})
    logs = Environment.from_settings("aws", settings).logs
    assert logs is not None and logs.group == "ratchet_log_group"
    with pytest.raises(Rejected, match=r"aws\.toml.*logs\.groups"):
        Environment.from_settings("aws", {**settings, "logs": {"groups": "/ratchet"}})


@pytest.mark.parametrize("missing", VARIABLES)
def test_a_variable_that_is_not_set_is_named(missing: str) -> None:
    known = {name: value for name, value in VARIABLES.items() if name != missing}
    with pytest.raises(Rejected, match=rf"local\.toml needs the variable '{missing}'.*make up"):
        shipped.read_environment_settings("local", known)


def test_an_unknown_environment_is_refused_with_those_there_are(checkout: ModuleType) -> None:
    environment(checkout, "staging", local_text())
    with pytest.raises(NotFound, match=r"no environment 'stagging'; there are: aws, local, staging"):
        checkout.read_environment_settings("stagging", VARIABLES)


def test_the_documentation_names_every_variable_of_aws() -> None:
    text = (shipped.ROOT / "deployments" / "environments" / "aws.toml").read_text()
    documented = (shipped.ROOT / "docs" / "sagemaker.md").read_text()
    assert {name for name in re.findall(r"\$\{(\w+)\}", text) if f"| `{name}` |" not in documented} == set()


def test_a_copy_of_the_default_is_another_environment(checkout: ModuleType) -> None:
    environment(checkout, "production", local_text().replace("sqlite:///${RATCHET_STATE}/ledger.db", "postgresql://db"))
    assert checkout.read_environment_settings("production", VARIABLES)["ledger"]["url"] == "postgresql://db"
    assert checkout.read_environment_settings("local", VARIABLES)["ledger"]["url"] != "postgresql://db"


@pytest.mark.parametrize("port", PORTS)
def test_a_port_that_the_file_says_nothing_of_is_named(checkout: ModuleType, port: str) -> None:
    environment(checkout, "local", local_text().replace(f"[{port}]", f"[{port}_of_old]"))
    with pytest.raises(Rejected, match=rf"local\.toml has no table for: {port};"):
        checkout.read_environment_settings("local", VARIABLES)


SMALL = '[small_trainer]\nadapter = "blocks.trainers.fake.FakeTrainer"\nroot = "/state/small"\n'


def test_a_trainer_for_small_work_may_be_named(checkout: ModuleType) -> None:
    environment(checkout, "local", f"{local_text()}\n{SMALL}")
    assert checkout.read_environment_settings("local", VARIABLES)["small_trainer"]["root"] == "/state/small"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (SMALL.replace("adapter", "adaptor"), "has no adapter for: small_trainer"),
        (SMALL.replace("fake.Fake", "local.Local"), r"names blocks\.trainers\.local\.LocalTrainer twice"),
    ],
    ids=["no adapter", "the same block as the other trainer"],
)
def test_a_trainer_for_small_work_that_cannot_be_saved_is_refused(checkout: ModuleType, table: str, told: str) -> None:
    environment(checkout, "local", f"{local_text()}\n{table}")
    with pytest.raises(Rejected, match=told):
        checkout.read_environment_settings("local", VARIABLES)


BROKEN = {
    "no TOML": "[lake\nadapter = 1",
    "a key twice": 'scratch = "a"\nscratch = "b"',
    "a dollar that is no variable": 'scratch = "pa$$ $"',
    "nothing closed": 'scratch = "${RATCHET_STATE',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_named(checkout: ModuleType, text: str) -> None:
    environment(checkout, "local", text)
    with pytest.raises(Rejected, match=r"local\.toml cannot be read: "):
        checkout.read_environment_settings("local", VARIABLES)


def test_a_file_that_is_no_text_is_named(checkout: ModuleType) -> None:
    (checkout.ROOT / "deployments" / "environments" / "local.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Rejected, match=r"local\.toml cannot be read: "):
        checkout.read_environment_settings("local", VARIABLES)


LAKE = 'adapter = "blocks.lake.local.LocalLake"\n'
INCOMPLETE = {
    "no scratch": ('scratch = "${RATCHET_STATE}/scratch"\n', "", "scratch"),
    "no adapter": (LAKE, "", "adapter"),
    "a port that is no table": (f'[lake]\n{LAKE}root = "${{RATCHET_STATE}}/lake"\n', "", "lake"),
}


@pytest.mark.parametrize(("line", "instead", "named"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_what_every_environment_needs_is_named_when_it_is_missing(
    checkout: ModuleType, line: str, instead: str, named: str
) -> None:
    assert line in local_text()
    before = 'lake = "blocks.lake.local.LocalLake"\n' if named == "lake" else ""
    environment(checkout, "local", before + local_text().replace(line, instead))
    with pytest.raises(Rejected, match=named):
        checkout.read_environment_settings("local", VARIABLES)


def test_a_backslash_or_quote_in_a_variable_does_not_become_another_value(checkout: ModuleType) -> None:
    assert (
        checkout.read_environment_settings("local", {**VARIABLES, "RATCHET_STATE": 'a"b'})["scratch"] == 'a"b/scratch'
    )


def test_a_variable_is_taken_as_it_is(checkout: ModuleType) -> None:
    settings = checkout.read_environment_settings("local", {**VARIABLES, "RATCHET_STATE": r"/data\table"})
    assert settings["scratch"] == r"/data\table/scratch"


TRIALS = {
    "an unknown runner": ('task_runner = "celery"', "celery.*known are: thread, dask"),
    "an address that is a number": ("task_runner_address = 8786", "is not text"),
}


@pytest.mark.parametrize(("line", "said"), TRIALS.values(), ids=TRIALS)
def test_a_place_for_trials_that_does_not_exist_is_refused(checkout: ModuleType, line: str, said: str) -> None:
    lines = [each for each in local_text().splitlines() if not each.startswith("task_runner")]
    environment(checkout, "local", "\n".join([line, *lines]))
    with pytest.raises(Rejected, match=said):
        checkout.read_environment_settings("local", VARIABLES)


OUTSIDE = {
    "outside of blocks": "os.path.join",
    "no module": "blocks.lake.tape.TapeLake",
    "no class": "blocks.lake.local.Lak",
}


@pytest.mark.parametrize("path", OUTSIDE.values(), ids=OUTSIDE)
def test_an_adapter_that_does_not_exist_is_refused_by_its_name(path: str) -> None:
    with pytest.raises(NotFound, match=path.replace(".", r"\.")):
        adapter_class(path)


def test_the_command_line_answers_a_mistake_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert issubclass(Rejected, PortError)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    no_server, nowhere = ratchet("register"), ratchet("register", "nowhere")
    assert no_server.exit_code == 1 and "set PREFECT_API_URL to the server" in no_server.stderr
    assert nowhere.exit_code == 1 and "there is no environment 'nowhere'" in nowhere.stderr
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    refused = [ratchet("register", "nowhere"), ratchet("register")]
    assert [each.exit_code for each in refused] == [1, 1]
    lines = "".join(each.stderr for each in refused).splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "error"]
    assert "nowhere" in lines[0]
    assert "RATCHET_STATE" in lines[1]


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.heavy  # `prefect deploy` of everything, twice
def test_flows_are_deployed_again_only_when_something_changed(stack: Stack, team_checkout: Path) -> None:
    def deployed_anew() -> str:
        text = (
            "from local.stack import use_running_stack; from pathlib import Path; stack = use_running_stack()\n"
            "from deployments.register import deploy_if_changed\n"
            "print('anew' if deploy_if_changed('local', stack.state_folder / 'deployed') else 'as it was')"
        )
        done = subprocess.run([sys.executable, "-c", text], cwd=team_checkout, capture_output=True, text=True,
                              env={**os.environ, "RATCHET_STATE": str(stack.state_folder)}, check=False)  # fmt: skip
        return done.stdout.strip() or done.stderr

    assert deployed_anew() == "as it was"
    with get_client(sync_client=True) as client:
        client.delete_deployment(client.read_deployment_by_name("batch_inference/batch-inference").id)
    assert deployed_anew() == "anew"
    assert deployed_anew() == "as it was"
    flow = team_checkout / "flows" / "batch_inference.py"
    before = flow.read_text()
    try:
        flow.write_text(before + "\n# another line\n")
        assert deployed_anew() == "anew"
    finally:
        flow.write_text(before)
