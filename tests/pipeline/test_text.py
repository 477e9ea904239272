"""Text in a pipeline: prompts, captions and documents, saved and opened, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.cli import main as rasterwise
from pipeline.image_pipeline import ImagePipeline
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from rasterwise.tokenizers.text import TextTokenizer, TextTokenizerConfig
from stage2_prior.documents.model import Chameleon
from stage2_prior.documents.network import ChameleonConfig
from stage2_prior.transformer.model import TransformerPrior
from stage2_prior.transformer.network import TransformerPriorConfig

PIXELS = PixelTokenizer(PixelTokenizerConfig(levels=2))
GRID = PIXELS.grid(1, 2, 2)
TEXT = TextTokenizer()


@pytest.fixture(scope="module")
def pipeline() -> ImagePipeline:
    """Of a small untrained Chameleon."""
    torch.manual_seed(0)
    config = ChameleonConfig(
        grid=GRID, text_length=9, length=40, depth=1, width=16, heads=2, text_tokenizer=TEXT.fingerprint
    )
    return ImagePipeline(PIXELS, Chameleon(config).eval(), TEXT)


@pytest.fixture(scope="module")
def folder(pipeline: ImagePipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline.save_pretrained(tmp_path_factory.mktemp("text") / "pipeline")


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    capsys.readouterr()
    assert rasterwise(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rasterwise: ")]
    return line


def test_prompts_are_the_model_s_condition(pipeline: ImagePipeline) -> None:
    """One for all images or one each; their likelihoods are the model's."""
    prompts = ["a three", "猫"]
    texts = TEXT.encode_batch(prompts).batch
    drawn = pipeline.sample_symbols(2, prompts=prompts, seed=3).symbols
    expected = pipeline.model.sample(2, Condition(text=texts), generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, expected)
    assert len(pipeline.sample(prompts=prompts, seed=0)) == 2
    assert len(pipeline.sample(3, prompts="a three", seed=0, sampling=Sampling(guidance=2.0))) == 3
    images = pipeline.decode(drawn, "tensor")
    log_prob = pipeline.log_prob(images, texts=prompts)
    assert torch.equal(log_prob, pipeline.model.log_prob(drawn, Condition(text=texts)).detach())
    assert not torch.equal(log_prob, pipeline.log_prob(images))


def test_best_of_keeps_what_the_text_fits(pipeline: ImagePipeline) -> None:
    """Of the same drawings, the one with the largest log p(text | image) by hand."""
    prompts = ["a", "two"]
    several = [prompt for prompt in prompts for _ in range(5)]
    drawn = pipeline.sample_symbols(10, prompts=several, seed=1).symbols
    model = pipeline.model
    assert isinstance(model, Chameleon)
    fit = model.caption_log_prob(TEXT.encode_batch(several).batch, drawn).view(2, 5)
    best = pipeline.sample_symbols(2, prompts=prompts, best_of=5, seed=1).symbols
    assert torch.equal(best, drawn[fit.argmax(1) + torch.tensor([0, 5])])
    with pytest.raises(InputError, match="best_of is 2, which takes prompts"):
        pipeline.sample(2, best_of=2)


def test_captions_and_documents(pipeline: ImagePipeline) -> None:
    """The same seed gives the same; what is given is not repeated; documents of several lengths in one batch."""
    images = torch.randint(0, 2, (3, 1, 2, 2), dtype=torch.uint8) * 255
    captions = pipeline.caption(images, seed=1)
    assert len(captions) == 3
    assert captions == pipeline.caption(images, seed=1)
    documents = [["ab", images[0], "c"], [], [images[1], images[2]]]
    continued = pipeline.generate_many(documents, seed=2)
    assert continued == pipeline.generate_many(documents, seed=2)
    for parts in continued:
        assert all(isinstance(part, str) or part.size == (2, 2) for part in parts)
    assert isinstance(pipeline.generate(["a"], seed=0), list)


def test_saved_and_opened(pipeline: ImagePipeline, folder: Path, tmp_path: Path) -> None:
    """With the text tokenizer; another one, or none, is refused."""
    opened = ImagePipeline.from_pretrained(folder)
    images = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    assert torch.equal(opened.log_prob(images, texts="a"), pipeline.log_prob(images, texts="a"))
    with pytest.raises(InputError, match="a chameleon needs its text tokenizer"):
        ImagePipeline(PIXELS, pipeline.model)
    with pytest.raises(InputError, match="not of this one"):
        ImagePipeline(PIXELS, pipeline.model, TextTokenizer(TextTokenizerConfig(lower_case=True)))


def test_what_prompts_cannot_be(pipeline: ImagePipeline) -> None:
    """Too long, empty, no text, as many as do not fit, for a model without text: one line each."""
    for prompts, said in (
        ("a very long prompt", "the prompt 'a very long prompt' has 18 tokens, the model takes 9 at most"),
        ("", "prompt 0 is empty"),
        (["a", 3], "prompt 1 is a int, expected a string"),
        (["a", "b", "c"], "3 prompts for 2 images"),
    ):
        with pytest.raises(InputError, match=said):
            pipeline.sample(2, prompts=prompts)  # type: ignore[arg-type]
    plain = ImagePipeline(
        PIXELS, TransformerPrior(TransformerPriorConfig(grid=GRID, depth=1, width=16, heads=2))
    )
    for use in (
        lambda: plain.sample(prompts="a"),
        lambda: plain.caption(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)),
        lambda: plain.generate(["a"]),
    ):
        with pytest.raises(InputError, match="a transformer-prior takes no text"):
            use()
    with pytest.raises(InputError, match=r"document 0: a document with 0 images has 51 ids, the limit is 40"):
        pipeline.generate(["a" * 50])
    with pytest.raises(InputError, match="not a string"):
        pipeline.generate_many(["a"])


def test_the_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images from prompts, captions of images, a document continued: files and reports."""
    image = tmp_path / "mine.png"
    Image.new("L", (4, 2), 255).save(image)
    words = ["sample", "--pipeline", str(folder), "--prompt", "a three", "an eight", "--n=4", "--best-of=2"]
    assert rasterwise([*words, "--output", str(tmp_path / "samples.png")]) == 0
    capsys.readouterr()
    assert rasterwise(["caption", "--pipeline", str(folder), "--images", str(image), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["captions"]) == [str(image)]
    document = tmp_path / "prompt.json"
    content = [{"type": "text", "text": "<b>"}, {"type": "image", "image": "mine.png"}]
    document.write_text(json.dumps({"content": content}))
    output = tmp_path / "documents"
    words = ["generate", "--pipeline", str(folder), "--document", str(document), "--n=3", "--seed=1"]
    assert rasterwise([*words, "--output", str(output)]) == 0
    rows = json.loads((output / "documents.json").read_text())["documents"]
    assert [row["content"][0] for row in rows] == [content[0]] * 3
    named = [
        part["image"] for row in rows for parts in row.values() for part in parts if part["type"] == "image"
    ]
    assert sorted(named) == sorted(path.name for path in output.glob("*.png"))
    page = (output / "index.html").read_text()
    assert page.count('class="document"') == 3
    assert "&lt;b&gt;" in page
    assert "is not empty" in refused(capsys, [*words, "--output", str(output)])


def test_documents_that_cannot_be_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of another kind, no content, a missing image: one line each, and nothing is written."""
    for name, text, said in (
        ("a.txt", "", "is no .json, .jsonl or .parquet file"),
        ("b.json", '{"text": "x"}', "has no 'content'; it has text"),
        ("c.json", '{"content": [{"type": "image", "image": "z.png"}]}', "image 'z.png' does not exist"),
        ("d.jsonl", '\n{"content": [{"type": "video"}]}', "d.jsonl:2: content[0] has type 'video'"),
        ("e.json", "", "is not whole JSON"),
    ):
        path = tmp_path / name
        path.write_text(text)
        words = [
            "generate",
            "--pipeline",
            str(folder),
            "--document",
            str(path),
            "--output",
            str(tmp_path / "out"),
        ]
        assert said in refused(capsys, words)
        assert not (tmp_path / "out").exists()
