"""The layout of the packages: no import circle, no long module, a folder of tests for each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import ktrdr

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ktrdr"
LONGEST = 350
LONGER = {
    "operations/service.py",
    "operations/types.py",
    "operations/transitions.py",
    "store/sql.py",
}
"""Modules that hold one class or one table each, which would not read better in two."""
LONGEST_OF_ALL = 600

OTHER_TESTS = {"acceptance", "golden", "ray", "simulation", "support"}
"""Folders of tests that belong to no single package."""


def test_no_module_imports_itself_through_others() -> None:
    """Imports inside functions and those for type checkers count as well."""
    graph = import_graph()
    assert graph["ktrdr.cli.main"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " <- ".join(error.args[1])
        raise AssertionError(f"modules import each other: {circle}") from None


def test_modules_are_short() -> None:
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name for name, n in lengths.items() if n > LONGEST} == LONGER
    assert max(lengths.values()) <= LONGEST_OF_ALL


def test_every_folder_of_tests_is_named_as_a_package() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
    assert folders - packages <= OTHER_TESTS


def test_the_package_shows_what_it_offers() -> None:
    assert set(ktrdr.__all__) <= set(dir(ktrdr))
    assert all(hasattr(ktrdr, name) for name in ktrdr.__all__)


def import_graph() -> dict[str, set[str]]:
    """The modules that each module of the package names in an import."""
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    return {
        name: {module for module in imported(path) if module in paths} - {name}
        for name, path in paths.items()
    }


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Every name that could be a module; of `from package import name` the longer one if it is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                yield longer if is_module(longer) else node.module or ""


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
