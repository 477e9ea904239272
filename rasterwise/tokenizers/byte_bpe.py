"""Byte-level byte-pair encoding: merges of frequent pairs of bytes, learned from texts."""

from __future__ import annotations

import json

from rasterwise.errors import InputError


class ByteBPE:
    """Byte-level BPE that is opened from the content of a tokenizer.json.

    Its vocabulary and merges are taken and nothing else: added tokens and normalizers that the file may name
    could turn typed text into special tokens, or change it.

    Args:
        content: Of a tokenizer.json, as ``train`` gives it.

    Attributes:
        content: As given.
        bytes_of: The bytes that each token stands for; all 256 single bytes are among them.

    Raises:
        InputError: It is no byte-level BPE.

    References:
        Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016 (arXiv 1508.07909).
        Radford et al., Language Models are Unsupervised Multitask Learners, 2019, for BPE over bytes.

    Example:
        >>> bpe = ByteBPE(ByteBPE.train(["a three", "the digit three"], 300))
        >>> [bpe.bytes_of[token] for token in bpe.tokens("a three")]
        [b'a', b' three']
    """

    def __init__(self, content: str) -> None:
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import ByteLevel

        byte_of = {letter: value for value, letter in enumerate(_letters())}
        try:
            model = json.loads(content)["model"]
            vocabulary: dict[str, int] = model["vocab"]
            self._tokenizer = Tokenizer(BPE(vocabulary, [(left, right) for left, right in model["merges"]]))
            ordered = sorted(vocabulary, key=vocabulary.__getitem__)
            self.bytes_of = [bytes(byte_of[letter] for letter in token) for token in ordered]
        except Exception as error:  # the library raises bare exceptions
            raise InputError(f"no byte-level BPE ({type(error).__name__}: {error})") from None
        if (
            sorted(vocabulary.values()) != list(range(len(ordered)))
            or not byte_of.keys() <= vocabulary.keys()
        ):
            raise InputError("no byte-level BPE (its tokens are not numbered from 0, or a byte has none)")
        self._tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        self.content = content

    @staticmethod
    def train(texts: list[str], size: int) -> str:
        """Learn merges.

        Args:
            texts: To learn from. Their order may decide ties: sort them for the same result in any order.
            size: The most tokens; a pair that occurs once is not merged.

        Returns:
            The content of a tokenizer.json.
        """
        from tokenizers import ByteLevelBPETokenizer

        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(texts, vocab_size=size, special_tokens=[], show_progress=False)
        return str(bpe.to_str())

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text."""
        return list(self._tokenizer.encode(text).ids)


def _letters() -> list[str]:
    """The printable letter that byte-level BPE writes for each byte, as GPT-2 defined it."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(value) if value in printable else chr(next(others)) for value in range(256)]
