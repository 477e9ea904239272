"""Any image dataset as uint8 batches."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage

from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import IndexedSplit
from rasterwise.data.streaming import StreamedSplit
from rasterwise.errors import InputError
from tests.conftest import Folders

SHARED = Path(__file__).parents[4] / "shared" / "data"


def everything(data: ImageData) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.cat([batch.values for batch in split.ordered(7)]) for split in (data.train, data.test))  # type: ignore[return-value]


def save_parquet(folder: Path, labels: list[int], names: list[str], split: str = "train") -> Path:
    """A parquet dataset of random 6×6 images with labels and captions."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    images = [PILImage.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in labels]
    features = Features({"image": Image(), "kind": ClassLabel(names=names), "caption": Value("string")})
    rows = {"image": images, "kind": labels, "caption": [f"number {n}" for n in range(len(labels))]}
    Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def test_digits() -> None:
    """All 1,797, split alike every time, with ten classes in both parts."""
    data = open_images(DataConfig())
    assert data.shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert (data.train.length, data.test.length) == (1437, 360)
    labels = torch.cat([batch.labels for batch in data.test.ordered(64)])  # type: ignore[misc]
    assert torch.bincount(labels).min() >= 25
    again = open_images(DataConfig())
    assert again.train.fingerprint == data.train.fingerprint
    assert data.train.fingerprint != data.test.fingerprint


def test_folder_of_images(folders: Folders) -> None:
    """Images without classes: their own size and colour, one in ten held out, always the same."""
    folder = folders.images("plain", 40)
    data = open_images(DataConfig(dataset=str(folder)))
    assert data.shape == (3, 16, 20)
    assert data.classes == ()
    assert data.train.length + data.test.length == 40  # type: ignore[operator]
    assert data.test.length == 4
    train, test = everything(data)
    stored = {np.asarray(PILImage.open(path)).tobytes() for path in folder.iterdir()}
    assert {
        image.movedim(0, 2).contiguous().numpy().tobytes() for image in torch.cat([train, test])
    } == stored


def test_folder_with_class_folders(folders: Folders) -> None:
    """The folders' names are the classes; grey images stay grey."""
    data = open_images(DataConfig(dataset=str(folders.classes()), size=8, colour="grey"))
    assert data.classes == ("cat", "dog")
    assert data.shape == (1, 8, 8)
    batch = next(data.train.ordered(100))
    assert batch.labels is not None
    assert set(batch.labels.tolist()) == {0, 1}
    assert next(data.train.shuffled(4, seed=0)).values.dtype == torch.uint8


def test_parquet_columns_are_found_by_their_types(tmp_path: Path) -> None:
    """Columns need no particular names; a test split that is there is used."""
    folder = save_parquet(tmp_path / "set", [0, 1, 1, 0], ["a", "b"])
    save_parquet(folder, [1, 0], ["a", "b"], "test")
    data = open_images(DataConfig(dataset=str(folder)))
    assert (data.columns.image, data.columns.label, data.columns.caption) == ("image", "kind", "caption")
    assert (data.train.length, data.test.length) == (4, 2)
    assert next(data.train.ordered(4)).labels.tolist() == [0, 1, 1, 0]  # type: ignore[union-attr]


def test_in_memory_on_demand_and_streamed_give_the_same_images(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where images are kept changes nothing but speed; rows are held out alike."""
    parquet = save_parquet(tmp_path / "set", [n % 2 for n in range(60)], ["a", "b"])
    available = psutil.virtual_memory
    for folder, kind in ((folders.classes(count=30), IndexedSplit), (parquet, StreamedSplit)):
        config = DataConfig(dataset=str(folder), size=8)
        monkeypatch.setattr(psutil, "virtual_memory", available)
        kept, streamed = open_images(config), open_images(replace(config, streaming=True))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 0}))
        demanded = open_images(config)
        assert isinstance(streamed.train, kind)
        assert kept.train.length == demanded.train.length == streamed.train.length == 54
        for other in (streamed, demanded):
            for expected, found in zip(everything(kept), everything(other), strict=True):
                assert torch.equal(expected, found)
        epoch = next(streamed.train.shuffled(54, seed=0)).values
        assert sorted(map(bytes, epoch.flatten(1).numpy())) == sorted(
            map(bytes, everything(kept)[0].flatten(1).numpy())
        )


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    """With the mend, instead of being downloaded or held after all."""
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.jsonl").write_text('{"x": 1}\n' * 20)
    assert "holds train.jsonl alone" in refused(DataConfig(dataset=str(tmp_path / "lines"), streaming=True))
    folder = save_parquet(tmp_path / "set", [0, 1] * 10, ["a", "b"])
    (folder / "train.parquet").write_bytes((folder / "train.parquet").read_bytes()[:-30])
    assert "train.parquet cannot be read as parquet" in refused(
        DataConfig(dataset=str(folder), streaming=True)
    )


def test_a_changed_file_changes_the_fingerprint(folders: Folders, tmp_path: Path) -> None:
    """In memory by content, otherwise by the files' state."""
    folder = folders.images("plain", 12)
    configs = [DataConfig(dataset=str(folder), streaming=streaming) for streaming in (False, True)]
    before = [open_images(config).train.fingerprint for config in configs]
    assert before == [open_images(config).train.fingerprint for config in configs]
    PILImage.new("RGB", (20, 16), "red").save(folder / "001.png")
    after = [open_images(config).train.fingerprint for config in configs]
    assert before[0] != after[0]
    assert before[1] != after[1]
    config = DataConfig(dataset=str(save_parquet(tmp_path / "set", [0, 1] * 10, ["a", "b"])), streaming=True)
    first = open_images(config).train.fingerprint
    assert first == open_images(config).train.fingerprint
    save_parquet(tmp_path / "set", [1, 0] * 10, ["a", "b"])
    assert first != open_images(config).train.fingerprint


def test_preparation_changes_the_fingerprint(folders: Folders) -> None:
    """The same images at another size are other data."""
    folder = str(folders.images("plain", 12))
    sizes = {open_images(DataConfig(dataset=folder, size=size)).train.fingerprint for size in (4, 8)}
    assert len(sizes) == 2


# ------------------------------------------------------------------------------------------ bad input


def refused(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        open_images(config)
    return str(caught.value)


def test_no_such_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is absent or empty; a Hub id that cannot be had."""
    assert "does not exist" in refused(DataConfig(dataset=str(tmp_path / "absent")))
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(DataConfig(dataset=str(tmp_path / "empty")))
    (tmp_path / "empty" / "notes.xyz").write_text("no image")
    assert "holds notes.xyz alone" in refused(DataConfig(dataset=str(tmp_path / "empty")))
    (tmp_path / "file.png").write_text("no folder")
    assert "is a file" in refused(DataConfig(dataset=str(tmp_path / "file.png")))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert "expected 'digits', a folder" in refused(DataConfig(dataset="nobody/nothing"))


def test_no_such_split(folders: Folders) -> None:
    """The message lists the splits that there are."""
    folder = str(folders.images("plain"))
    assert "has no split 'night', it has train" in refused(DataConfig(dataset=folder, train_split="night"))
    assert "has no split 'night'" in refused(DataConfig(dataset=folder, test_split="night"))


def test_no_such_column(tmp_path: Path) -> None:
    """No image column at all, a name that is not there, and a column of another type."""
    (tmp_path / "numbers").mkdir()
    Dataset.from_dict({"x": list(range(20))}).to_parquet(tmp_path / "numbers" / "train.parquet")
    assert "has no image column; its columns are x" in refused(DataConfig(dataset=str(tmp_path / "numbers")))
    folder = str(save_parquet(tmp_path / "set", [0, 1] * 10, ["a", "b"]))
    assert "'photo': the columns are" in refused(DataConfig(dataset=folder, image_column="photo"))
    assert "expected images" in refused(DataConfig(dataset=folder, image_column="caption"))
    assert "expected class labels" in refused(DataConfig(dataset=folder, label_column="image"))
    assert "expected text" in refused(DataConfig(dataset=folder, caption_column="image"))


def test_empty_dataset(tmp_path: Path) -> None:
    """A parquet file without rows."""
    folder = save_parquet(tmp_path / "set", [], ["a", "b"])
    assert "is empty" in refused(DataConfig(dataset=str(folder)))


def test_images_of_different_sizes(folders: Folders) -> None:
    """Named with the mend; --size makes them alike."""
    folder = folders.images("plain", 12)
    PILImage.new("RGB", (5, 5)).save(folder / "odd.png")
    assert "choose one with --size" in refused(DataConfig(dataset=str(folder)))
    assert open_images(DataConfig(dataset=str(folder), size=8)).shape == (3, 8, 8)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_broken_image_is_named(folders: Folders, streaming: bool) -> None:
    """Its number and its file."""
    folder = folders.images("plain", 80)
    broken = folder / "070.png"
    broken.write_bytes(broken.read_bytes()[:60])
    config = DataConfig(dataset=str(folder), streaming=streaming)
    with pytest.raises(InputError, match=r"image \d+ of split .*070\.png.* does not decode"):
        everything(open_images(config))


def test_a_label_out_of_range_is_named(tmp_path: Path) -> None:
    """By its image."""
    folder = save_parquet(tmp_path / "set", [0, 1, 0, -1], ["a", "b"])
    save_parquet(folder, [0, 1], ["a", "b"], "test")
    assert re.search(r"image 3 of split 'train' \(.*\) has label -1", refused(DataConfig(str(folder))))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared image datasets are not on this machine")
@pytest.mark.parametrize(("name", "shape"), [("emoji-32", (3, 32, 32)), ("photos-256", (3, 64, 64))])
def test_real_datasets(name: str, shape: tuple[int, int, int]) -> None:
    """Real parquet folders open as they are."""
    size = None if name == "emoji-32" else 64
    data = open_images(DataConfig(dataset=str(SHARED / name), size=size, resample="box"))
    assert data.shape == shape
    assert data.columns.caption == "caption"


def test_opening_never_writes_to_the_folder(tmp_path: Path) -> None:
    """What the library stores, it stores elsewhere."""
    folder = save_parquet(tmp_path / "set", [0, 1] * 6, ["a", "b"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    open_images(DataConfig(dataset=str(folder)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_too_few_images_to_hold_some_out(folders: Folders) -> None:
    """Said so, instead of an empty test split."""
    assert "too few" in refused(DataConfig(dataset=str(folders.images("plain", 2))))
