"""The plan of the house: what may import what, and that nothing imports in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ORDER: dict[str, tuple[str, ...]] = {
    "rasterwise": (
        "errors",
        "processes progress rooms",
        "configuration",
        "files",
        "images symbols",
        "decoding measure outputs",
        "models data",
        "tokenizers",
        "codes",
        "training",
        "compression",
        "command_line",
        "__init__ __main__",
    ),
    "stage1_vqvae": (
        "autoencoders losses quantizers",
        "reconstruction",
        "tokenizers",
        "imported objective evaluation",
        "options",
        "presets",
        "train",
        "recipes",
        "__init__",
    ),
    "stage2_prior": (
        "transformer conditioning",
        "any_order hierarchical text_to_image documents",
        "models objectives options evaluation",
        "text_task",
        "train",
        "recipes",
        "__init__",
    ),
    "pixel_baselines": (
        "layers",
        "decoding",
        "pixelcnn gated_pixelcnn pixelcnn_pp pixel_rnn image_gpt",
        "models",
        "options",
        "recipes",
        "train",
        "__init__",
    ),
    "pipeline": (
        "models text document_page",
        "image_pipeline",
        "evaluation verification demo",
        "compare/plan",
        "commands compare/measurement",
        "compare/report",
        "compare/commands",
        "cli",
        "__init__ compare/__init__",
    ),
}
"""The parts of each room, from the foundation up: a part imports itself and the lines above it, never its own line."""

FLOORS = {"rasterwise": 0, "pixel_baselines": 1, "stage1_vqvae": 1, "stage2_prior": 1, "pipeline": 2}
"""A room imports itself and the floors below. The front door, ``rasterwise/__init__.py`` and ``__main__.py``, loads the
rest by name when it is used."""

MOST_MODULES = 14
"""In one folder, not counting ``__init__.py``."""


def modules_in(root: Path) -> dict[str, Path]:
    """Every module of the house under a root, by its dotted name."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for room in ORDER
        for path in sorted((root / room).rglob("*.py"))
    }


def imports_of(path: Path, modules: dict[str, Path]) -> set[str]:
    """The house's modules that a file imports, also inside functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else str(node.module) for name in names}
    return found & modules.keys()


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Every circle of imports, as ``a -> b -> a``."""
    found: list[str] = []
    done: set[str] = set()

    def follow(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append(" -> ".join([*trail[trail.index(name) :], name]))
            return
        if name in done:
            return
        for other in sorted(imports[name]):
            follow(other, [*trail, name])
        done.add(name)

    for name in sorted(imports):
        follow(name, [])
    return found


def circles_of_files(root: Path) -> list[str]:
    modules = modules_in(root)
    return circles({name: imports_of(path, modules) for name, path in modules.items()})


def package_of(module: str, modules: dict[str, Path]) -> str:
    """The folder of a module; the re-exports of an ``__init__.py`` and a room's own files stand for themselves."""
    package = module.rpartition(".")[0]
    return module if modules[module].name == "__init__.py" or "." not in package else package


def circles_of_packages(root: Path) -> list[str]:
    """Circles among folders, where every import of a file counts for its folder."""
    modules = modules_in(root)
    imports: dict[str, set[str]] = {}
    for name, path in modules.items():
        own = package_of(name, modules)
        others = {package_of(other, modules) for other in imports_of(path, modules)}
        imports.setdefault(own, set()).update(others - {own})
    for others in imports.values():
        others &= imports.keys()
    return circles(imports)


def part_of(module: str, path: Path) -> tuple[str, int]:
    """The room and the line of ``ORDER`` that a module belongs to."""
    room, *rest = module.split(".")
    if (
        path.name == "__init__.py"
        and len(rest) < 2
        and "/".join([*rest, "__init__"]) in " ".join(ORDER[room])
    ):
        rest = [*rest, "__init__"]
    lines = [line.split() for line in ORDER[room]]
    for depth in (2, 1):
        for number, parts in enumerate(lines):
            if "/".join(rest[:depth]) in parts:
                return room, number
    raise AssertionError(f"{path} is in no line of ORDER: give it a place")


def out_of_order(root: Path) -> list[str]:
    """Imports that go up, or to another part of the same line."""
    modules, found = modules_in(root), []
    for name, path in modules.items():
        room, line = part_of(name, path)
        for other in sorted(imports_of(path, modules)):
            other_room, other_line = part_of(other, modules[other])
            if room != other_room:
                right = FLOORS[other_room] < FLOORS[room]
            else:
                own = [
                    part for part in ORDER[room][line].split() if f"{name}.".startswith(_dotted(room, part))
                ]
                right = other_line < line or any(f"{other}.".startswith(_dotted(room, part)) for part in own)
            if not right:
                found.append(f"{name} imports {other}")
    return found


def _dotted(room: str, part: str) -> str:
    return f"{room}.{part.replace('/', '.')}.".replace(".__init__", "")


def test_imports_point_down() -> None:
    """A part imports itself, the parts before it in its room, and the floors below."""
    assert out_of_order(ROOT) == []


def test_no_import_goes_in_a_circle() -> None:
    """Neither among files nor among folders."""
    assert circles_of_files(ROOT) == []
    assert circles_of_packages(ROOT) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from rasterwise.models.pretrained import Pretrained",
        "def late():\n    import rasterwise.models.pretrained",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rasterwise.models import pretrained",
    ],
    ids=["plain", "in a function", "for types"],
)
def test_a_planted_circle_is_found(tmp_path: Path, planted: str) -> None:
    """The three kinds of imports, in a copy of the house whose files.py imports what imports it."""
    for name, path in modules_in(ROOT).items():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        copy.write_text(f"{text}\n\n{planted}\n" if name == "rasterwise.files" else text, encoding="utf-8")
    assert any("rasterwise.files" in circle for circle in circles_of_files(tmp_path))
    assert circles_of_packages(tmp_path)
    assert "rasterwise.files imports rasterwise.models.pretrained" in out_of_order(tmp_path)


def test_no_folder_is_a_hall() -> None:
    """No folder has more modules than a reader takes in at a glance."""
    for room in ORDER:
        for folder in [ROOT / room, *(path for path in (ROOT / room).rglob("*") if path.is_dir())]:
            modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert len(modules) <= MOST_MODULES, folder


def test_tests_mirror_the_house() -> None:
    """Every folder of tests is a folder of the house."""
    for folder in (path for room in ORDER for path in (ROOT / "tests" / room).rglob("*") if path.is_dir()):
        if folder.name != "__pycache__":
            assert (ROOT / folder.relative_to(ROOT / "tests")).is_dir(), folder


def test_no_module_is_named_for_nothing() -> None:
    """Modules are named by their idea."""
    names = {path.stem for path in modules_in(ROOT).values()}
    assert not names & {"utils", "helpers", "misc", "common"}
