"""The house's floors: imports point down only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {"rasterwise": 0, "pixel_baselines": 1, "stage1_vqvae": 1, "stage2_prior": 1, "pipeline": 2}


def imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} & FLOORS.keys()


@pytest.mark.parametrize("room", FLOORS)
def test_imports_point_down(room: str) -> None:
    """A room imports itself and the floors below; rooms of one floor never import one another."""
    modules = list((ROOT / room).rglob("*.py"))
    assert modules
    for path in modules:
        for other in imported_rooms(path) - {room}:
            assert FLOORS[other] < FLOORS[room], f"{path.relative_to(ROOT)} imports {other}"


def test_no_module_is_named_for_nothing() -> None:
    """Modules are named by their idea."""
    names = {path.stem for room in FLOORS for path in (ROOT / room).rglob("*.py")}
    assert not names & {"utils", "helpers", "misc", "common"}
