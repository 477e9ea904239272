"""Text as tokens and back: UTF-8 bytes, or byte-level BPE trained on a dataset's captions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from rasterwise.configuration import Count, configuration
from rasterwise.errors import InputError
from rasterwise.files import (
    from_json,
    member,
    new_folder,
    read_json,
    recover,
    verify_manifest,
    write_json,
    write_manifest,
)
from rasterwise.models.pretrained import BPE_NAME, CARD_NAME, CONFIG_NAME, MEND, model_folder
from rasterwise.symbols.text import TextBatch
from rasterwise.tokenizers.byte_bpe import ByteBPE

BYTES_BELOW = 4000
"""Fewer different captions than this are too few to learn a vocabulary from: "auto" takes bytes."""


@configuration()
class TextTokenizerConfig:
    """How text becomes tokens.

    Attributes:
        method: "bytes" takes UTF-8 bytes and needs no training; "bpe" is byte-level BPE trained on captions;
            "auto" is "bpe" where there are some thousand different captions, else "bytes".
        vocabulary_size: The most tokens that BPE may have; few captions give fewer. Bytes are always 256.
        lower_case: Turn text into lower case first.
        length_limit: The most tokens a text may have; none by default.
        truncate: Cut a longer text at the limit, after a whole character, instead of refusing it.
    """

    method: Literal["auto", "bytes", "bpe"] = "auto"
    vocabulary_size: Annotated[int, Field(ge=256, le=2**24)] = 4096
    lower_case: bool = False
    length_limit: Count | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        if self.truncate and self.length_limit is None:
            raise InputError("truncate is on without a length_limit to cut at; set one")


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as tokens, and what was done to them.

    Attributes:
        batch: The tokens.
        byte_counts: int64 ``(B,)``, UTF-8 bytes that each text's tokens stand for: what bits a byte divide by.
        lowered: bool ``(B,)``, whose letters were changed to lower case.
        truncated: bool ``(B,)``, which were cut at the length limit.
    """

    batch: TextBatch
    byte_counts: Tensor
    lowered: Tensor
    truncated: Tensor


class TextTokenizer:
    """Text to tokens in ``[0, size)`` and back.

    Every Unicode string comes back as it was, unless the configuration lowers or cuts it. The tokenizer has no
    special tokens: whatever a user types is bytes, so that it can become neither a special id nor an image code
    (``Vocabulary`` adds those below and above).

    Many token sequences decode to one text, and ``encode`` gives one of them: with BPE, a model's probability of
    a text's tokens is at most its probability of the text.

    Args:
        config: How; "auto" stands for bytes here. BPE comes from ``train`` or ``from_pretrained``.
        bpe: The byte-pair encoding, for "bpe" alone.

    Raises:
        InputError: The configuration asks for BPE and there is none, or the other way round.

    Example:
        >>> tokenizer = TextTokenizer()
        >>> tokenizer.encode("né").tolist()
        [110, 195, 169]
        >>> tokenizer.decode([110, 195, 169])
        'né'
        >>> captions = ["a three", "the digit three", "a handwritten three"]
        >>> bpe = TextTokenizer.train(captions, TextTokenizerConfig(method="bpe"))
        >>> len(bpe.encode("a three")), bpe.decode(bpe.encode("a three"))
        (2, 'a three')
    """

    kind: ClassVar[str] = "text"

    def __init__(self, config: TextTokenizerConfig | None = None, bpe: ByteBPE | None = None) -> None:
        config = config or TextTokenizerConfig()
        if (config.method == "bpe") != (bpe is not None):
            found = "a trained BPE" if bpe else "no trained BPE"
            raise InputError(f"method is {config.method!r} with {found}; TextTokenizer.train makes both fit")
        self.config = dataclasses.replace(config, method="bpe" if bpe else "bytes")
        self._bpe = bpe
        self._bytes_of = bpe.bytes_of if bpe else [bytes([value]) for value in range(256)]

    @property
    def size(self) -> int:
        """How many tokens there are (K)."""
        return len(self._bytes_of)

    @property
    def bytes_per_token(self) -> Tensor:
        """How many bytes each token stands for, int64 ``(K,)``."""
        return torch.tensor([len(some) for some in self._bytes_of])

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex): equal only for tokenizers that give the same tokens."""
        bpe = self._bpe.content if self._bpe else ""
        content = json.dumps([self.kind, dataclasses.asdict(self.config), bpe])
        return hashlib.sha256(content.encode()).hexdigest()

    @classmethod
    def train(cls, captions: Iterable[str], config: TextTokenizerConfig | None = None) -> Self:
        """A tokenizer for a dataset's captions: the same captions in any order give the same, bit for bit.

        Args:
            captions: All captions to learn from; those of the train split.
            config: How; "auto" is decided by the number of different captions.

        Raises:
            InputError: There are no captions, or one is no text.
        """
        config = config or TextTokenizerConfig()
        texts = sorted(_text(caption, config) for caption in captions)
        if config.method == "auto":
            method: Literal["bytes", "bpe"] = "bytes" if len(set(texts)) < BYTES_BELOW else "bpe"
            config = dataclasses.replace(config, method=method)
        if config.method == "bytes":
            return cls(config)
        if not texts:
            raise InputError(
                "there are no captions to train a BPE tokenizer on; expected some, or method bytes"
            )
        return cls(config, ByteBPE(ByteBPE.train(texts, config.vocabulary_size)))

    def encode(self, text: str) -> Tensor:
        """Tokens of a text, int64 ``(n,)``. Raises as ``encode_batch``."""
        return self.encode_batch([text]).batch.tokens[0]

    def encode_batch(self, texts: Sequence[str]) -> EncodedTexts:
        """Tokens of texts, and what was done to each.

        Raises:
            InputError: One is no text, or too long where texts are not cut.
        """
        lowered = [_text(text, self.config) for text in texts]
        whole = [self._tokens(text) for text in lowered]
        kept = [self._within_limit(tokens) for tokens in whole]
        return EncodedTexts(
            TextBatch.of([torch.tensor(tokens, dtype=torch.int64) for tokens in kept]),
            torch.tensor([len(self._joined(tokens)) for tokens in kept], dtype=torch.int64),
            torch.tensor([text != low for text, low in zip(texts, lowered, strict=True)], dtype=torch.bool),
            torch.tensor(
                [len(some) < len(all_) for some, all_ in zip(kept, whole, strict=True)], dtype=torch.bool
            ),
        )

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """The text of tokens ``(n,)``; bytes that are no UTF-8, which a model may draw, become U+FFFD.

        Raises:
            InputError: A token is outside ``[0, size)``.
        """
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        if any(not 0 <= number < self.size for number in numbers):
            raise InputError(f"tokens lie in [{min(numbers)}, {max(numbers)}], expected [0, {self.size - 1}]")
        return self._joined(numbers).decode("utf-8", errors="replace")

    def save_pretrained(self, folder: str | Path) -> Path:
        """Save to a folder, replacing a tokenizer that is there; it appears whole or not at all."""
        folder = Path(folder)
        recover(folder)
        if folder.exists() and not (folder / CONFIG_NAME).exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no tokenizer; save to a new folder")
        with new_folder(folder) as pending:
            content = {"library": "rasterwise", "kind": self.kind, "config": dataclasses.asdict(self.config)}
            write_json(pending / CONFIG_NAME, {**content, "fingerprint": self.fingerprint})
            if self._bpe:
                (pending / BPE_NAME).write_text(self._bpe.content, encoding="utf-8")
            (pending / CARD_NAME).write_text(self._card(), encoding="utf-8")
            write_manifest(pending, [CONFIG_NAME, BPE_NAME] if self._bpe else [CONFIG_NAME])
        return folder

    def _card(self) -> str:
        return (
            f"---\nlibrary_name: rasterwise\ntags:\n- rasterwise\n- {self.kind}\n---\n\n# {self.kind}\n\n"
            f"{self.config.method}, {self.size:,} tokens. Open it with "
            "`from rasterwise import TextTokenizer` and `TextTokenizer.from_pretrained(FOLDER)`.\n"
        )

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """Open a tokenizer. Nothing is unpickled.

        Args:
            source: A tokenizer's folder, or a Hub id.
            revision: Branch, tag or commit of a Hub id.

        Raises:
            InputError: The folder is absent, lacks a file, is damaged, or holds another kind of model.
        """
        folder = model_folder(source, revision)
        verify_manifest(folder, [CONFIG_NAME], MEND)
        path = folder / CONFIG_NAME
        content = read_json(path)
        kind = member(content, "kind", str, path)
        if kind != cls.kind:
            raise InputError(f"{folder} holds a {kind!r}, expected a {cls.kind!r}")
        config: TextTokenizerConfig = from_json(
            TextTokenizerConfig, member(content, "config", dict, path), path
        )
        if config.method != "bpe":
            return cls(config)
        if not (folder / BPE_NAME).is_file():
            raise InputError(f"{folder} holds no {BPE_NAME}")
        try:
            return cls(config, ByteBPE((folder / BPE_NAME).read_text(encoding="utf-8")))
        except (InputError, UnicodeDecodeError) as error:
            raise InputError(f"{folder / BPE_NAME} is damaged: {error}; restore it") from None

    def _tokens(self, text: str) -> list[int]:
        return self._bpe.tokens(text) if self._bpe else list(text.encode())

    def _joined(self, tokens: list[int]) -> bytes:
        return b"".join(self._bytes_of[token] for token in tokens)

    def _within_limit(self, tokens: list[int]) -> list[int]:
        limit = self.config.length_limit
        if limit is None or len(tokens) <= limit:
            return tokens
        if not self.config.truncate:
            start = self._joined(tokens)[:40].decode("utf-8", errors="ignore")
            raise InputError(
                f"the text {start!r}… has {len(tokens)} tokens, the limit is {limit}; shorten it, or have it "
                "cut with truncate"
            )
        tokens = tokens[:limit]
        while not _is_utf8(self._joined(tokens)):  # the limit fell into a character
            tokens = tokens[:-1]
        return tokens


def _text(text: object, config: TextTokenizerConfig) -> str:
    """A text in the case that the configuration asks for; InputError where it is none."""
    if not isinstance(text, str):
        raise InputError(f"a text is a {type(text).__name__}, expected a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text {text[:40]!r} is no Unicode text ({error.reason})") from None
    return text.lower() if config.lower_case else text


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
