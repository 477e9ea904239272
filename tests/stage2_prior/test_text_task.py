"""Trainings of text and images by the command: what goes in, what the run holds, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from rasterwise.codes.documents import open_documents
from rasterwise.codes.encode import encode_dataset
from rasterwise.codes.encode_documents import encode_documents
from rasterwise.codes.texts import DocumentSequences, TokenizedCaptions
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.document_sources import DigitDocumentsConfig, make_digit_documents
from rasterwise.data.indexed import tensor_split
from rasterwise.data.sources.digits import digit_captions
from rasterwise.data.splits import Batch
from rasterwise.symbols.documents.document import Document, TextSegment
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from rasterwise.tokenizers.text import TextTokenizer
from stage2_prior.documents.model import Chameleon
from stage2_prior.documents.network import ChameleonConfig
from stage2_prior.models import TEXT_MODELS
from stage2_prior.objectives import DocumentObjective
from stage2_prior.train import main as train

TINY = [
    "--depth=1",
    "--width=16",
    "--heads=2",
    "--steps=4",
    "--batch-size=8",
    "--evaluate-every=2",
    "--device=cpu",
]
LEVELS = PixelTokenizerConfig(levels=2)


def captioned(count: int = 12) -> ImageData:
    """2×2 images of ten classes with five captions each."""
    labels = torch.arange(count) % 10
    images = (torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 255).byte()
    split = tensor_split(images, labels, tuple(map(digit_captions, labels.tolist())))
    classes = tuple(map(str, range(10)))
    return ImageData(split, split, (1, 2, 2), classes, open_images(DataConfig()).columns, captioned=True)


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned") / "codes"
    encode_dataset(PixelTokenizer(LEVELS), captioned(), folder)
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents") / "codes"
    config = DigitDocumentsConfig(train_documents=40, test_documents=6, tasks=("name", "draw", "sum"))
    encode_documents(PixelTokenizer(LEVELS), make_digit_documents(config), folder)
    return folder


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("rasterwise: ")]


def test_a_run_holds_both_tokenizers_and_resumes(
    codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text tokenizer is trained once, on the captions, and named by the model; labels are not used."""
    words = [f"--codes={codes}", f"--output={tmp_path / 'run'}", *TINY]
    bpe = ["--model=chameleon", "--text-tokenizer=bpe", "--text-vocabulary=280"]
    assert train([*words, *bpe, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"nll_nats", "text_bits_per_byte", "caption_bits_per_byte"} <= report["test"].keys()
    model = Chameleon.from_pretrained(tmp_path / "run")
    tokenizer = TextTokenizer.from_pretrained(tmp_path / "run" / "text-tokenizer")
    assert 256 < tokenizer.size == model.config.text_tokens <= 280
    assert model.config.text_tokenizer == tokenizer.fingerprint
    assert model.config.text_length == max(
        len(tokenizer.encode(one)) for n in range(10) for one in digit_captions(n)
    )
    assert model.config.classes == ()
    assert train([f"--resume={tmp_path / 'run'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert train([f"--resume={tmp_path / 'run'}", "--model=transformer"]) == 2
    assert lines(capsys) == [
        f"rasterwise: --model is 'transformer', but the run in {tmp_path / 'run'} has 'chameleon'; leave --model out"
    ]


@pytest.mark.parametrize("name", ["dalle", "parti"])
def test_captioned_images_train_every_model(
    name: str, codes: Path, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the same command; a model of pairs refuses documents."""
    words = [f"--model={name}", f"--output={tmp_path / 'run'}", *TINY, "--json"]
    assert train([*words, f"--codes={codes}"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["test"]["nll_nats"] > 0
    assert ("text_bits_per_byte" in report["test"]) == (name == "dalle")
    model = TEXT_MODELS[name].from_pretrained(tmp_path / "run")
    assert model.kind == name
    assert train([*words, f"--codes={documents}", f"--output={tmp_path / 'other'}"]) == 2
    assert lines(capsys) == [
        f"rasterwise: {documents} holds documents, and a {name} is trained on captioned images; --model chameleon "
        "takes documents"
    ]


def test_documents_train_a_chameleon(
    documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its length is that of the longest document of both splits."""
    words = ["--model=chameleon", f"--codes={documents}", f"--output={tmp_path / 'run'}", *TINY, "--json"]
    assert train(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"nll_nats", "nats_per_code", "text_bits_per_byte"} <= report["test"].keys()
    data, tokenizer = open_documents(documents), TextTokenizer()
    model = Chameleon.from_pretrained(tmp_path / "run")
    longest = max(
        2 + sum(len(part.encode()) if isinstance(part, str) else 66 for part in document)
        for split in (data.train, data.test)
        for document in split
    )
    assert model.config.length == longest
    batch = (
        DocumentSequences(data.train, tokenizer, model.grammar()).fetch(list(range(40)), replace=False).batch
    )
    assert batch is not None
    model.grammar().check(batch.values)
    texts = ["".join(part for part in one if isinstance(part, str)) for one in data.train]
    found = [
        "".join(
            tokenizer.decode(part.tokens)
            for part in Document.of(ids[ids > 0], model.grammar()).segments
            if isinstance(part, TextSegment)
        )
        for ids in batch.values
    ]
    assert found == texts


def test_captions_in_order_take_turns() -> None:
    """Item i has number i mod k of its k captions; shuffled ones have the one that was drawn, in tokens."""
    tokenizer = TextTokenizer()
    split = TokenizedCaptions(captioned().train, tokenizer)
    batch = next(split.ordered(12))
    assert batch.texts is not None and batch.captions is not None  # noqa: PT018
    assert [tokenizer.decode(text) for text in batch.texts.each()] == [
        digit_captions(number % 10)[number % 5] for number in range(12)
    ]
    drawn = next(split.shuffled(12, seed=0))
    assert drawn.texts is not None and drawn.captions is not None  # noqa: PT018
    assert [(tokenizer.decode(text),) for text in drawn.texts.each()] == list(drawn.captions)


def test_refusals(codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Codes without captions, and a model that there is not: one line each."""
    encode_dataset(PixelTokenizer(LEVELS), open_images(DataConfig()), tmp_path / "codes")
    for words, said in (
        (
            ["--model=chameleon", f"--codes={tmp_path / 'codes'}"],
            "the codes have no captions; encode the images again",
        ),
        (
            ["--model=imagen", f"--codes={codes}"],
            "--model is 'imagen', expected one of transformer, hierarchical, any-order, dalle, parti, chameleon",
        ),
        (["--model=chameleon", f"--codes={codes}", "--text-vocabulary=3"], "text"),
    ):
        assert train([*words, f"--output={tmp_path / 'run'}", *TINY]) == 2
        (line,) = lines(capsys)
        assert said in line


def test_text_counts_more_than_codes() -> None:
    """What is minimised is the mean of both kinds' nats, by their weights; what is shown stays as it is."""
    torch.manual_seed(0)
    config = ChameleonConfig(
        grid=PixelTokenizer(LEVELS).grid(1, 2, 2), text_length=3, depth=1, width=16, heads=2
    )
    model = Chameleon(dataclasses.replace(config, z_loss=0.0, dropout=0.0))
    texts = TextTokenizer().encode_batch(["abc", "d"]).batch
    ids = model.document_ids(texts, torch.randint(2, (2, 1, 2, 2)), "text-to-image")
    batch = Batch(ids)
    plain, weighted = (DocumentObjective(model, 0.0, weight)(batch) for weight in (1.0, 5.0))
    assert plain.shown == weighted.shown
    grammar = model.grammar()
    nats = -grammar.log_probs(model.document_logits(ids), ids)
    codes = model.vocabulary.is_code(ids)
    chosen = (grammar.allowed(grammar.states(ids)[:, :-1]).sum(-1) > 1) & ~codes
    expected = (nats[codes].sum() + 5 * nats[chosen].sum()) / (codes.sum() + 5 * chosen.sum())
    torch.testing.assert_close(weighted.total, expected)
