"""The text tokenizer: reversible, reproducible, and what it declares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rasterwise.errors import InputError
from rasterwise.symbols.text import TextBatch
from rasterwise.tokenizers.text import BYTES_BELOW, TextTokenizer, TextTokenizerConfig

CAPTIONS = [
    f"{colour} {thing} no {n}" for colour in ("red", "grün") for thing in ("surfer", "猫") for n in range(9)
]
BYTES = TextTokenizer()
BPE = TextTokenizer.train(CAPTIONS, TextTokenizerConfig(method="bpe", vocabulary_size=320))
BOTH = pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])


@BOTH
@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_every_unicode_string_comes_back(tokenizer: TextTokenizer, text: str) -> None:
    """decode undoes encode, tokens lie in [0, size), and the byte count is that of UTF-8."""
    encoded = tokenizer.encode_batch([text])
    tokens = encoded.batch.tokens[0]
    assert tokenizer.decode(tokens) == text
    assert all(0 <= token < tokenizer.size for token in tokens.tolist())
    assert encoded.byte_counts.tolist() == [len(text.encode())]
    assert not encoded.truncated.any()


@BOTH
@given(tokens=st.lists(st.integers(0, 255)))
@settings(max_examples=100, deadline=None)
def test_any_tokens_decode(tokenizer: TextTokenizer, tokens: list[int]) -> None:
    """A model may draw bytes that are no UTF-8: decoding still gives text."""
    tokenizer.decode(tokens).encode()


@given(text=st.text(min_size=1), limit=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_truncation_keeps_whole_characters_and_is_counted(text: str, limit: int) -> None:
    """What is kept is a prefix of the text within the limit; the flag says whether anything is lost."""
    for method, bpe in (("bytes", None), ("bpe", BPE._bpe)):
        config = TextTokenizerConfig(method=method, length_limit=limit, truncate=True)
        tokenizer = TextTokenizer(config, bpe)
        encoded = tokenizer.encode_batch([text])
        kept = tokenizer.decode(encoded.batch.tokens[0])
        assert text.startswith(kept)
        assert encoded.batch.lengths[0] <= limit
        assert bool(encoded.truncated[0]) == (kept != text)
        assert int(encoded.byte_counts[0]) == len(kept.encode())


def test_bpe_learns_words() -> None:
    """A frequent word is one token, and a text takes fewer tokens than bytes."""
    assert len(BPE.encode("surfer")) < len("surfer") // 2
    assert 256 < BPE.size <= 320


def test_the_same_captions_give_the_same_file(tmp_path: Path) -> None:
    """Bit for bit, in any order and in another process with another hash seed."""
    first = BPE.save_pretrained(tmp_path / "first")
    other = TextTokenizer.train(CAPTIONS[::-1], BPE.config).save_pretrained(tmp_path / "other")
    for file in first.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes()
    program = (
        "import sys; from rasterwise.tokenizers.byte_bpe import ByteBPE\n"
        "sys.stdout.buffer.write(ByteBPE.train(sys.argv[1:], 320).encode())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, *sorted(CAPTIONS)], check=True, capture_output=True
    )
    assert found.stdout == (first / "tokenizer.json").read_bytes()


@BOTH
def test_saved_and_opened_it_is_the_same(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    """Fingerprint, configuration and tokens, also after a second round."""
    folder = tokenizer.save_pretrained(tmp_path / "text")
    opened = TextTokenizer.from_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["fingerprint"] == tokenizer.fingerprint
    assert (opened.fingerprint, opened.config) == (tokenizer.fingerprint, tokenizer.config)
    assert torch.equal(opened.encode("red 猫, new"), tokenizer.encode("red 猫, new"))


def test_fingerprints_tell_tokenizers_apart() -> None:
    """Another method, case, limit or training is another tokenizer."""
    configs = [{}, {"lower_case": True}, {"length_limit": 9}, {"length_limit": 9, "truncate": True}]
    tokenizers = [TextTokenizer(TextTokenizerConfig(**config)) for config in configs]
    tokenizers += [BPE, TextTokenizer.train(CAPTIONS[:9], BPE.config)]
    assert len({tokenizer.fingerprint for tokenizer in tokenizers}) == len(tokenizers)
    assert TextTokenizer().fingerprint == TextTokenizer(TextTokenizerConfig(method="bytes")).fingerprint


def test_auto_takes_bytes_for_few_different_captions() -> None:
    """Repeated captions teach no vocabulary; some thousand different ones do."""
    assert TextTokenizer.train(["a three", "a four"] * BYTES_BELOW).config.method == "bytes"
    assert TextTokenizer.train(f"caption {n}" for n in range(BYTES_BELOW)).config.method == "bpe"


def test_lower_case_is_counted() -> None:
    """Only texts that changed count, and what comes back is lower case."""
    tokenizer = TextTokenizer(TextTokenizerConfig(lower_case=True))
    encoded = tokenizer.encode_batch(["A Cat", "a cat", "3"])
    assert encoded.lowered.tolist() == [True, False, False]
    assert [tokenizer.decode(row[:5]) for row in encoded.batch.tokens[:2]] == ["a cat", "a cat"]


def test_a_tokenizer_json_cannot_turn_text_into_specials(tmp_path: Path) -> None:
    """Added tokens and a normalizer in the file change nothing."""
    folder = BPE.save_pretrained(tmp_path / "text")
    content = json.loads((folder / "tokenizer.json").read_text())
    special = {"id": 0, "content": "<boi>", "single_word": False, "lstrip": True, "rstrip": True}
    content["added_tokens"] = [special | {"normalized": False, "special": True}]
    content["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "manifest.json").unlink()
    opened = TextTokenizer.from_pretrained(folder)
    for text in ("A <boi> B", " <boi>"):
        assert torch.equal(opened.encode(text), BPE.encode(text))
        assert opened.decode(opened.encode(text)) == text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", "is damaged: no byte-level BPE"),
        ('{"model": {"vocab": {"a": 0}, "merges": []}}', "a byte has none"),
        ('{"model": {"vocab": {"é€": 0}, "merges": []}}', "no byte-level BPE"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: str, message: str) -> None:
    """A cut or foreign tokenizer.json, a missing one, and another kind of model."""
    folder = BPE.save_pretrained(tmp_path / "text")
    (folder / "tokenizer.json").write_text(damage)
    with pytest.raises(InputError, match=r"tokenizer\.json is damaged"):
        TextTokenizer.from_pretrained(folder)
    (folder / "manifest.json").unlink()  # as a folder that was put together by hand
    with pytest.raises(InputError, match=message):
        TextTokenizer.from_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="holds no tokenizer"):
        TextTokenizer.from_pretrained(folder)
    (folder / "config.json").write_text('{"kind": "pixels", "config": {}}')
    with pytest.raises(InputError, match="holds a 'pixels'"):
        TextTokenizer.from_pretrained(folder)


def test_refusals() -> None:
    """What is no text, too long, or contradictory, in one line."""
    with pytest.raises(InputError, match="a text is a float"):
        BYTES.encode(3.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no Unicode text"):
        BYTES.encode("\ud800")
    with pytest.raises(InputError, match="has 6 tokens, the limit is 5"):
        TextTokenizer(TextTokenizerConfig(length_limit=5)).encode("surfer")
    with pytest.raises(InputError, match=r"expected \[0, 255\]"):
        BYTES.decode([256])
    with pytest.raises(InputError, match="without a length_limit"):
        TextTokenizerConfig(truncate=True)
    with pytest.raises(InputError, match="no captions"):
        TextTokenizer.train([], TextTokenizerConfig(method="bpe"))
    with pytest.raises(InputError, match="no trained BPE"):
        TextTokenizer(TextTokenizerConfig(method="bpe"))


def test_text_batches_pad_and_mask() -> None:
    """Rows keep their lengths; the unconditional rows are empty texts."""
    batch = BYTES.encode_batch(["abc", "", "é"]).batch
    assert batch.mask.sum(1).tolist() == batch.lengths.tolist() == [3, 0, 2]
    assert not batch.tokens[~batch.mask].any()
    both = batch.with_unconditioned()
    assert torch.equal(both[:3].tokens, batch.tokens)
    assert not both[slice(3, None)].mask.any()
    with pytest.raises(InputError, match="expected"):
        TextBatch(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
