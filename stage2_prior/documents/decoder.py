"""Cached decoding of documents, and of images that are a part of them."""

from __future__ import annotations

import torch
from torch import Tensor

from rasterwise.decoding.decoder import CaptureRegion, Decoder
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.grammar import Grammar, constrain
from rasterwise.symbols.grid import Grid
from stage2_prior.conditioning.text import taken
from stage2_prior.documents.network import ChameleonNetwork, image_prefixes
from stage2_prior.transformer.cached_weights import fill, rotations
from stage2_prior.transformer.decoder import BlockDecoder


class PrefixedDecoder(BlockDecoder):
    """Decodes what follows prefixes of documents, of different lengths in one batch, without any grammar.

    The prefixes pass the layers once, in one teacher-forced pass. The positions of the cache are those of the longest
    prefix, and after them those of what is decoded: no query attends to what a shorter prefix leaves empty.

    Args:
        model: In evaluation mode.
        prefixes: int64 ``(B, P)``, padded with PAD.
        lengths: int64 ``(B,)``, 1 at least; None where all are P.
        grid: What is decoded: its size is the number of ids, its levels those of ``symbols``.
        symbols: Which ids can be decoded; the grid's symbols count from the first of them.
        condition: B labels, or None.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: ChameleonNetwork,
        prefixes: Tensor,
        lengths: Tensor | None,
        grid: Grid,
        *,
        symbols: slice = slice(None),
        condition: Condition | None = None,
    ) -> None:
        batch_size, filled = len(prefixes), prefixes.shape[1] - 1
        vectors = model.input_vectors(prefixes, condition)
        last = torch.full((batch_size,), filled, device=prefixes.device) if lengths is None else lengths - 1
        super().__init__(
            model.transformer, grid, taken(vectors, last, 1)[:, 0], symbols=symbols, prefix=filled
        )
        self.grammar, self.rotary = model.grammar(), model.rotary
        states = self.grammar.states(prefixes)
        self.state = taken(states, last + 1, 1)[:, 0]
        if filled:
            positions = self.grammar.positions(states[:, 1 : filled + 1])
            rotary = model.rotary(vectors, positions)
            fill(self.cache.memory, model.transformer.model.blocks, vectors[:, :filled], rotary)
        self.bias = None if lengths is None else self._bias_of_prefixes(last, filled)

    def _bias_of_prefixes(self, last: Tensor, filled: int) -> list[Tensor]:
        place = torch.arange(self.cache.memory.shape[3], device=last.device)
        empty = (place >= last[:, None]) & (place < filled)
        bias = torch.zeros(empty.shape, dtype=self.stream.dtype, device=last.device)
        bias = bias.masked_fill_(empty, -torch.inf).repeat_interleave(self.heads, 0)[:, None]
        return [bias] * len(self.layers)

    def _biases(self) -> list[Tensor] | None:
        return self.bias


class DocumentDecoder(PrefixedDecoder):
    """Decodes whatever may follow: what has been drawn says where the next id is."""

    def _rotation(self) -> Tensor:
        angles = self.rotary.pair_angles(self.grammar.positions(self.state))
        return rotations(angles, self.stream.dtype)

    def _advance(self, symbols: Tensor) -> None:
        super()._advance(symbols)
        self.state.copy_(self.grammar.advance(self.state, symbols[:, 0]))


class ImageDecoder(PrefixedDecoder):
    """Decodes images, each after its text: their positions are known before a code is drawn.

    Args:
        model: In evaluation mode.
        batch_size: How many images are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: ChameleonNetwork, batch_size: int, condition: Condition | None) -> None:
        texts = model.texts(condition, batch_size)
        lengths = None if condition is None or condition.text is None else texts.lengths + 2
        prefixes = image_prefixes(model, texts)
        super().__init__(model, prefixes, lengths, model.grid, symbols=model.code_ids, condition=condition)
        # A code takes the state one place and one code on; of the prefix's positions nobody asks here.
        step = torch.arange(self.cache.memory.shape[3], device=prefixes.device)[:, None, None] - self.prefix
        states = self.state + step * torch.tensor([1, 0, 1], device=prefixes.device)
        angles = self.rotary.pair_angles(self.grammar.positions(states))
        self.rotations = rotations(angles, self.stream.dtype)  # (positions, B, 3 · h / 2)

    def _rotation(self) -> Tensor:
        return self.cache.row_of(self.rotations)


class GrammarDecoder(Decoder):
    """Lets through what a grammar allows. It comes after guidance, which takes differences of logits.

    Args:
        inner: Decodes ids, perhaps guided.
        grammar: What may follow.
        state: int64 ``(B, 3)``, of the prefixes that are continued.
    """

    def __init__(self, inner: Decoder, grammar: Grammar, state: Tensor) -> None:
        super().__init__(inner.grid, inner.batch_size, inner.steps)
        self.inner, self.grammar, self.state = inner, grammar, state.clone()

    def capture_regions(self) -> list[CaptureRegion]:
        return self.inner.capture_regions()

    def skip(self, steps: int) -> None:
        super().skip(steps)
        self.inner.skip(steps)

    def _logits(self) -> Tensor:
        return constrain(self.inner.logits(), self.grammar.allowed(self.state)[:, None])

    def _advance(self, symbols: Tensor) -> None:
        self.inner.advance(symbols)
        self.state.copy_(self.grammar.advance(self.state, symbols[:, 0]))
