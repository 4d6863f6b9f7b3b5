"""The source files of the packages and what they import, read with ast and never executed."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SOURCE_ROOTS = {
    "edgedet": ROOT,
    "edgedet_calibration": ROOT / "calibration",
    "edgedet_export": ROOT / "export",
    "edgedet_runtimes": ROOT / "runtimes",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module: its full name, and whether importing the importer leaves it alone.

    It does where the import waits until a function runs, or is for type checkers only.
    """

    importer: str
    name: str
    lazy: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.importer} imports {self.name}{' inside a function' if self.lazy else ''}"


@cache
def modules() -> dict[str, Path]:
    """Source files of the four packages, by module name."""
    found = {}
    for package, root in SOURCE_ROOTS.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import of every module; `from a import b` counts as a.b where that is a module, else as a."""
    return tuple(
        found
        for name, path in modules().items()
        for node, lazy in _nodes(ast.parse(path.read_text("utf-8")))
        for found in _imports_of(name, path, node, lazy)
    )


def _nodes(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for node in ast.iter_child_nodes(tree):
        inside = (
            lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_type_checkers(node)
        )
        yield node, lazy
        yield from _nodes(node, inside)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports_of(importer: str, path: Path, node: ast.AST, lazy: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(importer, alias.name, lazy)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
        base = node.module or ""
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield Import(importer, full if full in modules() else base, lazy)


def tracked_files() -> list[Path]:
    """Files under version control."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout: tracked files cannot be listed")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
