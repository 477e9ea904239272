"""``rasterwise compress`` and ``decompress``: folders of pictures to one file and back, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.cli import main as rasterwise
from pipeline.commands.compress import image_files
from pipeline.commands.decompress import place_of
from rasterwise import Grid, ImagePipeline, InputError, PixelCNN, PixelCNNConfig, PixelTokenizer
from tests.conftest import Folders


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    config = PixelCNNConfig(grid=Grid(3, 4, 4, 256), width=6, output_width=6, blocks=1)
    return ImagePipeline(PixelTokenizer(), PixelCNN(config).eval()).save_pretrained(tmp_path / "pipeline")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_comes_back(
    pipeline: Path, folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Decompressed by another process; names are kept, and a damaged picture is named with status 1."""
    images = folders.images("mine", count=3, size=(5, 4))
    Image.new("RGBA", (3, 3), "red").save(images / "clear.png")
    (images / "note.txt").write_text("no image")
    file, restored = tmp_path / "mine.rw", tmp_path / "restored"
    words = [
        "compress",
        "--pipeline",
        str(pipeline),
        "--images",
        str(images),
        "--output",
        str(file),
        "--json",
    ]
    assert rasterwise(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["lossless"]
    assert report["images"] == 4
    assert report["stored_as_png"] | {"bytes": 0} == {"images": 1, "bytes": 0, "transparency": 1}
    assert report["bytes"] == file.stat().st_size
    assert rasterwise(words) == 2
    assert "is there already" in capsys.readouterr().err
    words = ["decompress", "--pipeline", str(pipeline), "--input", str(file)]
    command = [sys.executable, "-m", "rasterwise", *words, "--output", str(restored)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = ["000.png", "001.png", "002.png", "clear.png"]
    assert sorted(path.name for path in restored.iterdir()) == names
    assert all(np.array_equal(pixels(restored / name), pixels(images / name)) for name in names)

    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert rasterwise([*words, "--output", str(tmp_path / "rest"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damaged"] == {"clear": "its checksum differs"}
    assert sorted(path.name for path in (tmp_path / "rest").iterdir()) == names[:3]
    file.write_bytes(content[:30])
    assert rasterwise([*words, "--output", str(tmp_path / "none")]) == 2
    assert f"{file} cannot be decompressed: its header or index is damaged" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_names(tmp_path: Path) -> None:
    """Those of folders keep their subfolders, and their endings where two would be one; none leads out."""
    for name in ("a/x.png", "a/x.jpg", "y.PNG", "z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(image_files([tmp_path])) == ["a/x.jpg", "a/x.png", "y"]
    with pytest.raises(InputError, match="does not exist"):
        image_files([tmp_path / "gone"])
    with pytest.raises(InputError, match="the same name"):
        image_files([tmp_path / "y.PNG", tmp_path])
    assert place_of("a/x") == Path("a/x")
    for name in ("/etc/x", "../x", "a/../../x", "", "a\\b"):
        with pytest.raises(InputError, match="no name in a folder"):
            place_of(name)


def test_python(tmp_path: Path) -> None:
    """From bytes or a path, as PIL images."""
    config = PixelCNNConfig(grid=Grid(1, 4, 4, 256), width=4, output_width=4, blocks=1)
    pipeline = ImagePipeline(PixelTokenizer(), PixelCNN(config).eval())
    images = torch.randint(256, (2, 1, 6, 3), dtype=torch.uint8)
    found = pipeline.compress(images)
    (tmp_path / "x.rw").write_bytes(found.content)
    for again in (pipeline.decompress(found.content), pipeline.decompress(tmp_path / "x.rw")):
        assert np.array_equal(np.stack(again), images[:, 0].numpy())
    with pytest.raises(InputError, match="cannot be read"):
        pipeline.decompress(tmp_path / "gone.rw")
    assert found.bits_per_subpixel == 8 * len(found.content) / images.numel()
