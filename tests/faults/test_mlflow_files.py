"""Attacks on MLflow's port: whoever reaches it names a folder of this machine as the place of artifacts."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from local.stack import Stack

pytestmark = pytest.mark.stack
SECRET, OWN = "the key of the stack's user", "an artifact of the run"
APIS = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow")


@pytest.fixture
def mlflow(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url("mlflow"), timeout=60) as client:
        yield client


def sent(client: httpx.Client, call: str, version: str = "2.0", **fields: object) -> dict[str, dict[str, str]]:
    answer = client.post(f"/api/{version}/mlflow/{call}", json=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("api", APIS)
def test_no_experiment_has_its_artifacts_elsewhere(
    mlflow: httpx.Client, stack: Stack, tmp_path: Path, api: str
) -> None:
    state = stack.state_folder
    for location in (
        str(tmp_path), f"file://{tmp_path}", f"file:{tmp_path}", f"FILE://{tmp_path}", f"file://localhost{tmp_path}",
        "keys", ".", "file:", f"{state}/keys", f"{state}/artifacts/../keys", f"file://{state}/artifacts/%2e%2e/keys",
        "mlflow-artifacts:/../keys", "mlflow-artifacts:/a/%2e%2e/%2e%2e/keys", "mlflow-artifacts://127.0.0.1:9/a",
        "s3://bucket/a", "gs://bucket/a", "dbfs:/a", "http://127.0.0.1:9/a", "ftp://127.0.0.1/a", "models:/churn/1",
        "sqlite:////tmp/a.db",
    ):  # fmt: skip
        answer = mlflow.post(f"{api}/experiments/create", json={"name": uuid4().hex, "artifact_location": location})
        assert answer.status_code == 400, (location, answer.text)


class Attack:
    """A run with a file, a logged model, a registered model and a trace, all of which name folders of MLflow's rows."""

    def __init__(self, client: httpx.Client, database: Path) -> None:
        self.client, self.database, self.name = client, database, f"attack-{uuid4().hex}"
        self.experiment = str(sent(client, "experiments/create", name=self.name)["experiment_id"])
        self.run = sent(client, "runs/create", experiment_id=self.experiment)["run"]["info"]["run_id"]  # type: ignore[index]
        made = sent(client, "logged-models", experiment_id=self.experiment, name="model")
        self.model = made["model"]["info"]["model_id"]  # type: ignore[index]
        self.trace = f"tr-{uuid4().hex}"
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self.experiment}}
        info = {"trace_id": self.trace, "trace_location": place, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
        sent(client, "traces", "3.0", trace={"trace_info": info})
        sent(client, "registered-models/create", name=self.name)
        source = f"mlflow-artifacts:/{self.experiment}/{self.run}/artifacts"
        sent(client, "model-versions/create", name=self.name, source=source, run_id=self.run)

    def move(self, folder: str) -> None:
        """Write a folder into the rows, as an experiment of a server without this guard has it."""
        with closing(sqlite3.connect(self.database, timeout=60)) as connection, connection:
            for statement, key in (
                ("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", self.run),
                ("UPDATE logged_models SET artifact_location = ? WHERE model_id = ?", self.model),
                ("UPDATE model_versions SET source = ?1, storage_location = ?1 WHERE name = ?2", self.name),
                (
                    "UPDATE trace_tags SET value = ? WHERE key = 'mlflow.artifactLocation' AND request_id = ?",
                    self.trace,
                ),
            ):
                assert connection.execute(statement, (folder, key)).rowcount == 1, statement

    def answers(self) -> dict[str, httpx.Response]:
        """Return what each route says that reads or writes a file."""
        run, model, get, asked = {"run_id": self.run}, f"logged-models/{self.model}/artifacts", self.client.get, {}
        asked["upload"] = self.client.post(
            "/ajax-api/2.0/mlflow/upload-artifact", params={"run_uuid": self.run, "path": "written.txt"}, content=OWN
        )
        asked["run"] = get("/get-artifact", params={"run_uuid": self.run, "path": "file.txt"})
        asked["version"] = get(
            "/model-versions/get-artifact", params={"name": self.name, "version": "1", "path": "file.txt"}
        )
        asked["model"] = get(f"/ajax-api/2.0/mlflow/{model}/files", params={"artifact_file_path": "file.txt"})
        asked["trace"] = get("/ajax-api/3.0/mlflow/get-trace-artifact", params={"request_id": self.trace})
        for api in APIS:
            asked[f"{api} list"] = get(f"{api}/artifacts/list", params=run)
            asked[f"{api} directories"] = get(f"{api}/{model}/directories")
        query = f'{{mlflowListArtifacts(input: {{runId: "{self.run}"}}) {{files {{path}} apiError {{message}}}}}}'
        asked["graphql"] = self.client.post("/graphql", json={"query": query})
        return asked


def test_no_route_opens_a_folder_that_a_row_names(mlflow: httpx.Client, stack: Stack, tmp_path: Path) -> None:
    secret = tmp_path / "keys"
    secret.mkdir()
    for name in ("file.txt", "traces.json"):
        (secret / name).write_text(f'{{"spans": ["{SECRET}"]}}')
    (tmp_path / "job").symlink_to(secret)
    attack = Attack(mlflow, stack.state_folder / "mlflow.db")
    own = stack.state_folder / "artifacts" / attack.run
    own.mkdir(parents=True)
    for name in ("file.txt", "traces.json"):
        (own / name).write_text(f'{{"spans": ["{OWN}"]}}')

    attack.move(f"mlflow-artifacts:/{attack.run}")
    for route, answer in attack.answers().items():
        assert answer.status_code == 200, (route, answer.text)
        assert OWN in answer.text or "file.txt" in answer.text or route == "upload", (route, answer.text)
    (own / "link").symlink_to(secret)  # as a program does that may write there
    escape = "../" * len(own.parents)
    for folder in (
        str(secret), f"file://{secret}", f"{tmp_path}/job", f"file:{tmp_path}/job", f"{own}/link", f"{own}/{escape}{secret}",
        f"mlflow-artifacts:/{attack.run}/link", f"mlflow-artifacts:/{escape}{secret}", f"mlflow-artifacts:/{escape.replace('..', '%2e%2e')}{secret}",
        f"runs:/{attack.run}/x", f"models:/{attack.name}/1",
    ):  # fmt: skip
        attack.move(folder)
        for route, answer in attack.answers().items():
            assert SECRET not in answer.text and "file.txt" not in answer.text, (folder, route, answer.text)
        assert sorted(each.name for each in secret.iterdir()) == ["file.txt", "traces.json"], folder
    sent(mlflow, "experiments/delete", experiment_id=attack.experiment)


def test_parts_of_mlflow_that_call_other_servers_or_read_their_keys_from_files_are_off(mlflow: httpx.Client) -> None:
    hook = {"name": "x", "url": "https://evil.example", "events": [{"entity": "RUN", "action": "CREATED"}]}
    for api in APIS:
        assert mlflow.post(f"{api}/webhooks", json=hook).status_code == 404
    secret = {"secret_name": "x", "secret_value": {"api_key": "/etc/hostname"}, "provider": "vertex_ai"}
    for api in ("/api/3.0/mlflow", "/ajax-api/3.0/mlflow"):
        assert "disabled" in mlflow.post(f"{api}/gateway/secrets/create", json=secret).text
    assert "disabled" in mlflow.post("/gateway/x/mlflow/invocations", json={}).text
