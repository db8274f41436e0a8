"""Measures of the code's structure, by its syntax alone: `python -m tests.structure` prints them.

`tests/test_structure.py` has the bounds.
"""

import ast
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.checkout import ROOT

ROOMS = ("runtime", "blocks", "tasks", "flows", "deployments", "services", "local", "ratchet")
"""The top-level folders, lowest first: none imports or names one that comes after it."""


def python_files(root: Path = ROOT) -> dict[str, Path]:
    """Return the Python files of these folders, without the tests, by their dotted module names."""
    found: dict[str, Path] = {}
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def line_count(path: Path) -> int:
    """Return how many lines a file has."""
    return len(path.read_text().splitlines())


def percentile(values: Sequence[int], share: float) -> int:
    """Return the smallest value that is not exceeded by at least this share of the values."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def decorated_functions(tree: ast.AST, decorator: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions with `@decorator` or `@decorator(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            used = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
            if any(isinstance(each, ast.Name) and each.id == decorator for each in used):
                yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines a function's body has without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def decorated_bodies(decorator: str, root: Path = ROOT) -> dict[str, int]:
    """Return the lines of the body of each function with this decorator, by module and name."""
    return {
        f"{module}.{function.name}": body_lines(function)
        for module, path in python_files(root).items()
        for function in decorated_functions(ast.parse(path.read_text()), decorator)
    }


def calls_of(tree: ast.AST, name: str) -> int:
    """Return how often `name(...)` is called, by that name or as an attribute."""
    return sum(
        isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == name)
            or (isinstance(node.func, ast.Attribute) and node.func.attr == name)
        )
        for node in ast.walk(tree)
    )


def imported_modules(tree: ast.AST, known: set[str]) -> set[str]:
    """Return which of the known modules a syntax tree imports."""
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= inside & known if inside & known else {node.module}
    return named & known


def one_importer_modules(root: Path = ROOT) -> dict[str, str]:
    """Return the modules that exactly one other module imports, and that module; tests do not count.

    Packages and `__main__` modules are excluded.
    """
    files = python_files(root)
    importers: dict[str, set[str]] = {module: set() for module in files}
    for module, path in files.items():
        for other in imported_modules(ast.parse(path.read_text()), set(files)) - {module}:
            importers[other].add(module)
    return {
        module: next(iter(by))
        for module, by in importers.items()
        if len(by) == 1 and files[module].name not in ("__init__.py", "__main__.py")
    }


def higher_room_names(source: str, room: str, modules: set[str]) -> list[str]:
    """Return what in the source names a higher folder and is hidden from the import linter, as "line: text".

    That is a dotted module, its name after `-m`, or a path to it. Docstrings and comments are ignored, and so is a
    sentence for people that names the command `python -m ratchet`.

    Args:
        source: the text of a module.
        room: the folder that it is in.
        modules: the dotted names of all modules that exist: `ratchet.tier` is a tag and no module.
    """
    higher = ROOMS[ROOMS.index(room) + 1 :]
    if not higher:
        return []
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = {
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
        and _names_module(node.value, higher, modules)
    }
    found |= {(node.lineno, name) for node in ast.walk(tree) for name in _run_names(node) if _in_room(name, higher)}
    found |= {(node.lineno, name) for node in ast.walk(tree) for name in _path_parts(node) if name in higher}
    return [f"{line}: {text}" for line, text in sorted(found)]


def _in_room(name: str, rooms: Sequence[str]) -> bool:
    return name.partition(".")[0] in rooms


def _names_module(text: str, higher: Sequence[str], modules: set[str]) -> bool:
    """Return whether a string names a module of a higher folder or an attribute of it, `-m module`, or its path."""
    rooms = "|".join(higher)
    if re.search(rf"-m (?!ratchet\b)(?:{rooms})\b", text):
        return True
    paths = re.findall(rf"(?<![\w./-])((?:{rooms})(?:/\w+)+)(?:\.py\b|(?![\w./-]))", text)
    if any(path.replace("/", ".") in modules for path in paths):
        return True
    if not re.fullmatch(rf"(?:{rooms})(?:\.\w+)+(?::\w+)?", text):
        return False
    name = text.partition(":")[0]
    parent = name.rpartition(".")[0]
    if text.startswith("ratchet."):  # tags and loggers have the project's name, and are no modules
        return False
    return name in modules or ("." in parent and parent in modules)


def _run_names(node: ast.AST) -> Iterator[str]:
    """Yield the module names in argument lists after "-m", and those passed to `import_module`."""
    if isinstance(node, ast.List | ast.Tuple):
        texts = [each.value if isinstance(each, ast.Constant) else None for each in node.elts]
    elif isinstance(node, ast.Call):
        texts = [each.value if isinstance(each, ast.Constant) else None for each in node.args]
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "run_module", "find_spec") and texts and isinstance(texts[0], str):
            yield texts[0]
    else:
        return
    for before, after in itertools.pairwise(texts):
        if before == "-m" and isinstance(after, str):
            yield after


def _path_parts(node: ast.AST) -> Iterator[str]:
    """Yield the first folder of `ROOT / "folder"`, of `ROOT.joinpath("folder")` and of `Path(ROOT, "folder")`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not isinstance(node.left, ast.BinOp):
        base, parts = node.left, [node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "joinpath":
        base, parts = node.func.value, node.args[:1]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Path":
        base, parts = next(iter(node.args), None), node.args[1:2]
    else:
        return
    if base is not None and "root" in ast.unparse(base).lower():
        for part in parts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value.partition("/")[0]


def print_figures() -> None:
    """Print the measures."""
    files = python_files()
    lines = {module: line_count(path) for module, path in files.items()}
    tasks, flows = decorated_bodies("task"), decorated_bodies("flow")
    print(f"lines of Python without tests  {sum(lines.values())}")
    print(f"modules                        {len(files)}")
    print(f"modules with one importer      {len(one_importer_modules())}")
    for kind, bodies in (("task", tasks), ("flow", flows)):
        sizes = list(bodies.values())
        middle, high = percentile(sizes, 0.5), percentile(sizes, 0.95)
        print(f"lines of a {kind}'s body          median {middle}, 95th percentile {high}, longest {max(sizes)}")
    print("longest bodies of tasks and flows")
    for name, size in sorted((tasks | flows).items(), key=lambda each: -each[1])[:10]:
        print(f"  {size:4} {name}")
    print("longest files")
    for module, size in sorted(lines.items(), key=lambda each: -each[1])[:10]:
        print(f"  {size:4} {module}")


if __name__ == "__main__":
    print_figures()
