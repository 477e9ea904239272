"""What ``from rasterwise import …`` offers, and the command ``python -m rasterwise``."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import rasterwise
from pipeline.models import model_classes, tokenizer_classes
from rasterwise import rooms

STUB = Path(rasterwise.__file__).with_suffix(".pyi")
COMMAND = [sys.executable, "-m", "rasterwise"]


def python(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


def test_everything_that_is_listed_is_there() -> None:
    """Each name once, and loaded from where it is defined or listed."""
    listed = rasterwise.__all__
    assert listed == sorted(set(listed))
    assert set(listed) <= set(dir(rasterwise))
    for name in listed:
        assert getattr(rasterwise, name).__name__ == name


def test_models_and_tokenizers_are_offered_with_their_configurations() -> None:
    """All that the tables know: a new line there is all that it takes."""
    for offered in (*model_classes().values(), *tokenizer_classes().values()):
        for part in (offered, offered.config_class):  # type: ignore[attr-defined]
            assert getattr(rasterwise, part.__name__) is part


def test_type_checkers_see_the_same_names() -> None:
    """The stub names each of them, or takes the ``__all__`` of a table whole."""
    names: set[str] = set()
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            for alias in node.names:
                assert alias.asname in (alias.name, None)
                module = importlib.import_module(node.module)
                names |= set(module.__all__ if alias.name == "*" else [alias.name])
                assert alias.name == "*" or getattr(rasterwise, alias.name) is getattr(module, alias.name)
    assert names == set(rasterwise.__all__)


def test_importing_is_quick() -> None:
    """Neither torch nor a room above is loaded before a name, or a command, needs it."""
    heavy = {"torch", "numpy", "accelerate", "transformers", *rooms.ROOMS}
    done = python(f"import sys, rasterwise; print({heavy!r} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr
    done = python(f"import sys; from rasterwise import InputError; print({heavy!r} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr
    code = "import sys, pipeline.commands.plot; print({'torch', 'accelerate', 'transformers'} & set(sys.modules))"
    done = python(code)  # a command that needs no model, and the running of commands
    assert done.stdout == "set()\n", done.stderr


def test_a_name_that_is_not_there() -> None:
    """The message says which one was perhaps meant."""
    with pytest.raises(AttributeError, match="offers no 'GatedPixelCnn'; did you mean 'GatedPixelCNN'"):
        rasterwise.GatedPixelCnn  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute '__path_of__'"):
        rasterwise.__path_of__  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        from rasterwise import nothing_of_the_kind  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize(
    "name", ["pipeline.py", "pipeline/__init__.py", "pixel_baselines.py", "stage2_prior.py"]
)
def test_a_file_of_the_user_that_has_the_name_of_a_room(name: str, tmp_path: Path) -> None:
    """The command says in one line which file is in the way, and so does Python; neither runs it."""
    own = tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("raise SystemExit('a program of the user')\n")
    done = subprocess.run([*COMMAND, "sample", "--help"], capture_output=True, text=True, cwd=tmp_path)
    room = name.partition("/")[0].removesuffix(".py")
    said = f"{own} would be imported in place of Rasterwise's own package {room!r}; rename it"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"rasterwise: {said}")
    assert done.stderr.count("\n") == 1
    wanted = {"pipeline": "ImagePipeline", "stage2_prior": "TransformerPrior"}.get(room, "PixelCNN")
    done = python(f"from rasterwise import {wanted}", tmp_path)
    assert said in done.stderr.splitlines()[-1]


def test_a_folder_of_the_user_that_is_no_package(tmp_path: Path) -> None:
    """Is not in the way: Python takes a whole package before it."""
    (tmp_path / "pipeline").mkdir()
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"rasterwise {rasterwise.__version__}\n")


def test_a_room_that_is_missing() -> None:
    """An installation that was cut short."""
    assert "'no_such_room' of Rasterwise is missing" in rooms.not_ours("no_such_room")
