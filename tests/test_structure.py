"""The structure of the code: small task bodies and files, contexts opened once, no name of a higher folder.

The bounds are today's values. They go down as the code gets better, and never up.
"""

import ast
import tomllib

import pytest

from tests.checkout import ROOT
from tests.structure import (
    ROOMS,
    body_lines,
    calls_of,
    decorated_bodies,
    decorated_functions,
    higher_room_names,
    imported_modules,
    line_count,
    one_importer_modules,
    percentile,
    python_files,
)

FILES = python_files()
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}

TASK_BODY_LINES, TASK_BODY_LINES_95 = 17, 16
FLOW_BODY_LINES = 32
FILE_LINES = 320
ONE_IMPORTER_MODULES = 75


def test_a_tasks_body_opens_calls_and_stores() -> None:
    bodies = decorated_bodies("task")
    assert len(bodies) > 20
    assert {name: lines for name, lines in bodies.items() if lines > TASK_BODY_LINES} == {}
    assert percentile(list(bodies.values()), 0.95) <= TASK_BODY_LINES_95


def test_a_flow_reads_as_one_sentence() -> None:
    bodies = decorated_bodies("flow")
    assert len(bodies) > 5
    assert {name: lines for name, lines in bodies.items() if lines > FLOW_BODY_LINES} == {}


def test_tasks_and_flows_are_where_they_belong() -> None:
    there = {
        decorator: {module for module, tree in TREES.items() if any(decorated_functions(tree, decorator))}
        for decorator in ("task", "flow")
    }
    assert all(module.startswith("tasks.") and module.endswith(".tasks") for module in there["task"])
    assert all(module.startswith("flows.") for module in there["flow"])


def test_files_are_short() -> None:
    lines = {module: line_count(path) for module, path in FILES.items()}
    assert {module: size for module, size in lines.items() if size > FILE_LINES} == {}


def test_few_modules_have_one_importer() -> None:
    assert len(one_importer_modules()) <= ONE_IMPORTER_MODULES


def test_an_environment_is_opened_where_work_begins() -> None:
    opening = {module for module, tree in TREES.items() if calls_of(tree, "open_environment")}
    entries = {
        module
        for module in opening
        if module.partition(".")[0] in ("flows", "ratchet", "services", "local")
        or (module.startswith("tasks.") and module.endswith(".tasks"))
    }
    assert opening - entries == set()


@pytest.mark.parametrize("opener", ["open_environment", "load_model"])
def test_a_function_opens_its_context_once(opener: str) -> None:
    twice = {
        f"{module}.{node.name}"
        for module, tree in TREES.items()
        if module.partition(".")[0] in ("tasks", "flows")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and calls_of(node, opener) > 1
    }
    assert twice == set()


def test_no_room_names_a_higher_one_by_path_or_module_name() -> None:
    named = {
        module: found
        for module, path in FILES.items()
        if (found := higher_room_names(path.read_text(), module.partition(".")[0], set(FILES)))
    }
    assert named == {}


MODULES = {"services.gateway", "services.gateway.app", "local.stack", "flows.retrain", "tasks.training.tasks",
           "ratchet.runs", "deployments.register", "blocks.lake.local"}  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        pytest.param('run([sys.executable, "-m", "services.gateway"])', id="argument list"),
        pytest.param('run((python, "-m", "local.stack", "up"))', id="argument tuple"),
        pytest.param('execl(python, python, "-m", "ratchet")', id="arguments of a call"),
        pytest.param('COMMAND = ["-m", "ratchet.runs"]', id="the front door as a program"),
        pytest.param('import_module("services.gateway.app")', id="import by name"),
        pytest.param('importlib.import_module("flows.retrain")', id="import by name of importlib"),
        pytest.param('MODULE = "services.gateway.app"', id="module in a constant"),
        pytest.param('APP = "services.gateway.app:create"', id="attribute of a module"),
        pytest.param('NAME = "flows.retrain.retrain"', id="attribute with a dot"),
        pytest.param('ROOT / "services" / "gateway" / "app.py"', id="path of parts"),
        pytest.param('ROOT / "services/gateway/app.py"', id="path in one part"),
        pytest.param('ROOT / "deployments" / "environments"', id="data folder of another room"),
        pytest.param('ROOT.joinpath("local", "stack.py")', id="joined path"),
        pytest.param('Path(ROOT, "flows")', id="path of arguments"),
        pytest.param('ENTRY = "flows/retrain.py:retrain"', id="entrypoint"),
        pytest.param('print("start it: python -m local.stack up")', id="sentence with a module"),
        pytest.param('f"{python} -m services.gateway --port {port}"', id="command in an f-string"),
    ],
)
def test_a_name_of_a_higher_room_is_found(source: str) -> None:
    assert higher_room_names(source, "tasks", MODULES) != []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        pytest.param("tasks", 'Refusal("it is held", remedy="python -m ratchet approvals waive")', id="sentence"),
        pytest.param("tasks", '"""Started by `services.gateway.app`, see services/gateway/app.py."""', id="docstring"),
        pytest.param("tasks", 'TAGS = {"ratchet.tier": tier, "ratchet.runs": runs}', id="tag"),
        pytest.param("tasks", 'logging.getLogger("ratchet.trust")', id="logger"),
        pytest.param("tasks", 'open_environment("local")', id="name of an environment"),
        pytest.param("tasks", 'run(["-m", "tasks.training.tasks"])', id="own room"),
        pytest.param("tasks", 'ADAPTER = "blocks.lake.local.LocalLake"', id="lower room"),
        pytest.param("tasks", 'folder / "services" / "notes.txt"', id="path that begins elsewhere"),
        pytest.param("tasks", 'TOPIC = "services.unknown.topic"', id="dotted, and no module"),
        pytest.param("tasks", 'run(["git", "commit", "-m", "flow"])', id="a message after -m"),
        pytest.param("deployments", 'ROOT / "deployments" / "environments"', id="data folder of its own room"),
        pytest.param("ratchet", 'run(["-m", "services.gateway"])', id="from the highest room"),
        pytest.param("services", 'ROOT / "flows" / "retrain.py"', id="path to a lower room"),
    ],
)
def test_other_names_are_left_alone(room: str, source: str) -> None:
    assert higher_room_names(source, room, MODULES) == []


def test_lines_of_a_body_are_counted_without_its_docstring() -> None:
    source = (
        '@task(name="x")\ndef run() -> int:\n    """Say it\n    in two lines."""\n    first = 1\n\n    return first\n'
    )
    (function,) = decorated_functions(ast.parse(source), "task")
    assert body_lines(function) == 3


def test_what_a_module_imports_is_known_by_module() -> None:
    tree = ast.parse(
        "import local.stack\nfrom flows import retrain\nfrom services.gateway.app import create\nimport os\n"
    )
    assert imported_modules(tree, MODULES) == {"local.stack", "flows.retrain", "services.gateway.app"}


def test_the_rooms_are_those_of_the_import_linter() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert tuple(reversed(layers)) == ROOMS


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.75, 3), (0.95, 4), (1.0, 4)])
def test_a_percentile_is_one_of_the_values(share: float, value: int) -> None:
    assert percentile([4, 2, 1, 3], share) == value
