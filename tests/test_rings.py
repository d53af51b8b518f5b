"""The rings of docs/architecture.md, read from the imports: arrows point upwards only."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import export_objects as made
import pytest

PACKAGE = "airflow_provider_chatexport"
ROOT = Path(__file__).parents[1] / PACKAGE

# Ring -> the rings that it may import. A module at the top of the package is a ring of its own.
MAY_IMPORT = {
    "__init__": set(),
    "errors": set(),
    "core": {"errors"},
    "api": {"__init__", "errors", "core"},
    "lake": {"__init__", "errors", "core"},
    "sandbox": {"errors", "core"},
    "pipeline": {"errors", "core", "api", "lake"},
    "provider_info": {"__init__"},
    "hooks": {"provider_info", "errors", "core", "api"},
    "triggers": {"errors", "core", "api", "hooks"},
    "sensors": {"errors", "core", "api", "hooks", "triggers"},
    "operators": {"errors", "core", "api", "hooks", "triggers", "pipeline"},
    "task_groups": {"errors", "core", "hooks", "operators"},
    "cli": {"__init__", "errors", "core", "api", "lake", "pipeline", "sandbox"},
}
AIRFLOW_RINGS = {"hooks", "triggers", "operators", "sensors", "task_groups"}
# Nothing from outside of the standard library, and of that no file system and no clock.
PURE = {"errors", "core"}
IMPURE_MODULES = {"io", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "threading", "time", "urllib"}
HEAVY = {"duckdb", "pyarrow", "pandas", "numpy"}

Import = tuple[str, int, bool]  # module, line, inside a function


def ring_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def imports(path: Path) -> Iterator[Import]:
    def visit(node: ast.AST, *, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, child.lineno, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: a relative import hides which ring it reaches into"
                yield child.module or "", child.lineno, inside
                if child.module == PACKAGE:
                    yield from ((f"{PACKAGE}.{alias.name}", child.lineno, inside) for alias in child.names)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, inside=inside or function)

    yield from visit(ast.parse(path.read_text()), inside=False)


def rings_imported(path: Path) -> Iterator[tuple[str, int, bool]]:
    for module, line, inside in imports(path):
        if module.startswith(f"{PACKAGE}."):
            name = module.split(".")[1]
            known = (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()
            yield name if known else "__init__", line, inside


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_upwards_only(path: Path) -> None:
    """A lake that knows the service, or a core that knows the lake, can no longer be tested or replaced alone."""
    allowed = MAY_IMPORT[ring_of(path)] | {ring_of(path)}
    wrong = [f"line {line}: {ring}" for ring, line, _ in rings_imported(path) if ring not in allowed]
    assert [] == wrong


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_airflow_folders_import_airflow(path: Path) -> None:
    """The command line and the lake work on machines without a configured Airflow."""
    wrong = [
        f"line {line}: {module}"
        for module, line, _ in imports(path)
        if module.split(".")[0] == "airflow" and ring_of(path) not in AIRFLOW_RINGS
    ]
    assert [] == wrong


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_hides_in_a_function(path: Path) -> None:
    """Hidden imports hide arrows. Wanted are four: operators load the pipeline late, and lineage where there is
    OpenLineage; the command line loads its pictures, and the pipeline while it hashes files."""
    wanted = {"operators": {"pipeline", "operators"}, "cli": {"cli", "pipeline"}}.get(ring_of(path), set())
    outside = HEAVY if ring_of(path) == "operators" else set()
    ours = {line: ring for ring, line, _ in rings_imported(path)}
    wrong = [
        f"line {line}: {module}"
        for module, line, inside in imports(path)
        if inside and ours.get(line) not in wanted and module.split(".")[0] not in outside
    ]
    assert [] == wrong


@pytest.mark.parametrize(
    "path", [path for path in modules() if ring_of(path) in PURE], ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_core_knows_nothing_from_outside(path: Path) -> None:
    """What decides has no file, clock or network: that is why its tests need none."""
    foreign = [
        f"line {line}: {module}"
        for module, line, _ in imports(path)
        if not module.startswith(PACKAGE)
        and (module.split(".")[0] not in sys.stdlib_module_names or module.split(".")[0] in IMPURE_MODULES)
    ]
    assert [] == foreign


def test_every_module_belongs_to_a_ring() -> None:
    """A new folder needs a place in the architecture before it has code."""
    assert {ring_of(path) for path in modules()} <= MAY_IMPORT.keys()


def test_the_command_line_loads_no_web_server_and_no_airflow() -> None:
    """``chatexport load`` is run every hour by cron jobs; its start must not pay for what it does not use."""
    code = (
        f"import sys; from {PACKAGE}.cli import cli; cli(['load', '--help'], standalone_mode=False); "
        f"print(sorted({{'airflow', 'uvicorn', 'starlette', 'pandas'}} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("[]\n"), ran.stdout


def test_a_load_imports_no_pandas(tmp_path: Path) -> None:
    """Where it is installed, pyarrow would import it for the first list that it is given: half a second an hour."""
    assert importlib.util.find_spec("pandas") is not None
    lines = [made.line("channel", made.channel()), made.line("message", made.message())]
    path = made.write_lines(tmp_path / "export", lines)
    code = (
        f"import sys; from {PACKAGE}.cli import cli; cli(sys.argv[1:], standalone_mode=False); "
        "print('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "load", str(path), "--lake", str(tmp_path / "lake")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("False\n"), ran.stdout
