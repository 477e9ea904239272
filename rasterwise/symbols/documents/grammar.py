"""Which ids may follow in a document: one grammar for training, scoring and sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.symbols.documents.vocabulary import BOI, EOI, EOS, Vocabulary
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.likelihoods import categorical_log_prob

Form = Literal["interleaved", "text-to-image", "image-to-text", "image"]


class _Stage(NamedTuple):
    """What may follow outside an image: a token of text, an image, the end."""

    text: bool
    image: bool
    end: bool


_STAGES: dict[str, tuple[_Stage, ...]] = {
    "interleaved": (_Stage(text=True, image=True, end=True),),
    "text-to-image": (_Stage(text=True, image=True, end=False), _Stage(text=False, image=False, end=True)),
    "image-to-text": (_Stage(text=False, image=True, end=False), _Stage(text=True, image=False, end=True)),
    "image": (_Stage(text=False, image=True, end=False), _Stage(text=False, image=False, end=True)),
}
"""By how many images are complete; the last stage stays."""
_ENDED = -1
"""The stage after EOS."""


class Positions(NamedTuple):
    """Where ids are; each an int64 tensor.

    Attributes:
        sequence: In the sequence, from 0.
        row: In the image's grid, -1 where the id is no code.
        column: The same.
        channel: The same.
    """

    sequence: Tensor
    row: Tensor
    column: Tensor
    channel: Tensor


@dataclass(frozen=True)
class Grammar:
    """All legal documents of at most ``length`` ids, and for each legal prefix the ids that may follow.

    A document is BOS, segments, EOS, and then PAD for as long as its batch needs. A segment is text, or an image:
    BOI, exactly N codes in raster order, EOI. An id is allowed only if the document can still end within the
    length. A model that is masked by the grammar (``log_probs``, ``constrain``) is therefore a distribution over
    legal documents: their probabilities sum to 1, whatever its logits are. Ids that are the only ones allowed
    (BOS, EOI, PAD, an EOS that must come) cost 0 nats, so that padding changes nothing and an image alone is as
    likely as its grid.

    The state of a prefix is int64 ``(..., 3)``: how many ids it has; how many images are complete, up to the
    last stage of the form, or -1 after EOS; how many codes the open image has, -1 outside an image. ``states``
    gives it for all prefixes of whole sequences, ``start`` and ``advance`` one id after the other. All operations
    are on the tensors' device and none waits for it, but for those of ``check``: they can be captured.

    Attributes:
        text: Tokens of the text tokenizer.
        grid: Of every image's codes; N is its size.
        length: The most ids from BOS to EOS.
        form: "interleaved" is any mix of text and images (Chameleon); "text-to-image" a text, which may be empty,
            and then one image (DALL-E 1, Parti); "image-to-text" the other way round; "image" one image alone.

    Raises:
        InputError: No document fits the length.

    References:
        Ramesh et al., Zero-Shot Text-to-Image Generation, 2021 (arXiv 2102.12092).
        Chameleon Team, Chameleon: Mixed-Modal Early-Fusion Foundation Models, 2024 (arXiv 2405.09818).

    Example:
        >>> import torch
        >>> from rasterwise import Grammar, Grid
        >>> grammar = Grammar(text=1, grid=Grid(1, 1, 2, 2), length=7)
        >>> state = grammar.start(batch_size=1)
        >>> for number in (1, 3, 6, 7):  # BOS, BOI and two codes
        ...     state = grammar.advance(state, torch.tensor([number]))
        >>> grammar.allowed(state)[0].nonzero().flatten().tolist()  # EOI alone
        [4]
    """

    text: int
    grid: Grid
    length: int
    form: Form = "interleaved"

    def __post_init__(self) -> None:
        shortest = 1 + self._least(0)
        if self.length < shortest:
            raise InputError(
                f"length is {self.length}, but a document {self.form} with {self.grid.size} codes an image has at "
                f"least {shortest} ids"
            )

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids."""
        return Vocabulary(self.text, self.grid.levels)

    def start(self, batch_size: int, device: torch.device | str = "cpu") -> Tensor:
        """The state of empty prefixes, int64 ``(B, 3)``."""
        state = torch.zeros(batch_size, 3, dtype=torch.int64, device=device)
        state[:, 2] = -1
        return state

    def advance(self, state: Tensor, ids: Tensor) -> Tensor:
        """The state after one more id.

        Args:
            state: int64 ``(..., 3)``.
            ids: int64 ``(...)``, of those allowed.

        Returns:
            int64 ``(..., 3)``, a new tensor.
        """
        position, stage, codes = state.unbind(-1)
        last = len(self._stages) - 1
        stage = torch.where(ids == EOI, (stage + 1).clamp(max=last), stage).masked_fill(ids == EOS, _ENDED)
        codes = (codes + (codes >= 0)).masked_fill(ids == EOI, -1).masked_fill(ids == BOI, 0)
        return torch.stack([position + 1, stage, codes], -1)

    def states(self, ids: Tensor) -> Tensor:
        """The states of all prefixes of sequences at once.

        Args:
            ids: int64 ``(B, T)``, legal ones. From the first illegal id on, the states mean nothing.

        Returns:
            int64 ``(B, T + 1, 3)``: at t, the state after ``ids[:, :t]``.
        """
        position = torch.arange(ids.shape[1] + 1, device=ids.device).expand(len(ids), -1)
        begun, complete, ended = (_count_before(ids == number) for number in (BOI, EOI, EOS))
        latest = position[:, :-1].masked_fill(ids != BOI, -1)  # where the image before each id began
        latest = F.pad(latest, (1, 0), value=-1).cummax(1).values
        stage = complete.clamp(max=len(self._stages) - 1).masked_fill(ended > 0, _ENDED)
        codes = (position - 1 - latest).masked_fill(begun <= complete, -1)
        return torch.stack([position, stage, codes], -1)

    def allowed(self, state: Tensor) -> Tensor:
        """Which ids may follow.

        Args:
            state: int64 ``(..., 3)``.

        Returns:
            bool ``(..., V)``. Never is a row empty: where nothing else may follow, after EOS and after a prefix
            that is not legal, PAD may.
        """
        position, stage, codes = state.unbind(-1)
        room = self.length - position - 1  # ids that can follow the next one
        outside = (codes < 0) & (position > 0)
        text = begin = end = torch.zeros_like(outside)
        for number, at in enumerate(self._stages):
            here = outside & (stage == number)
            if at.text:
                text = text | (here & (room >= self._least(number)))
            if at.image:
                begin = begin | (here & (room >= self.grid.size + 1 + self._least(number + 1)))
            if at.end:
                end = end | (here & (room >= 0))
        size = self.grid.size
        code, close = (codes >= 0) & (codes < size), codes == size
        first = position == 0
        nothing = ~(first | end | begin | close | text | code)
        specials = torch.stack([nothing, first, end, begin, close], -1)  # PAD, BOS, EOS, BOI, EOI
        tokens = text[..., None].expand(*text.shape, self.text)
        return torch.cat([specials, tokens, code[..., None].expand(*code.shape, self.grid.levels)], -1)

    def positions(self, state: Tensor) -> Positions:
        """Where the ids that follow prefixes are.

        Args:
            state: int64 ``(..., 3)``, of the prefix before each id: ``states(ids)[:, :-1]`` for all ids of a
                sequence.

        Returns:
            Tensors ``(...)``.
        """
        position, _, codes = state.unbind(-1)
        inside = (codes >= 0) & (codes < self.grid.size)
        site, channel = codes // self.grid.channels, codes % self.grid.channels
        row, column = site // self.grid.width, site % self.grid.width
        row, column, channel = (axis.masked_fill(~inside, -1) for axis in (row, column, channel))
        return Positions(position, row, column, channel)

    def log_probs(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities of the ids of documents, each given those before it.

        Args:
            logits: ``(B, T, V)`` of a model: at t from ``ids[:, :t]`` alone.
            ids: int64 ``(B, T)`` in ``[0, V)``, from BOS on.

        Returns:
            ``(B, T)`` nats; their sum is a whole document's. -inf at the first id that is not allowed.
        """
        return categorical_log_prob(constrain(logits, self.allowed(self.states(ids)[:, :-1])), ids)

    def check(self, ids: Tensor, *, whole: bool = True) -> None:
        """Raise InputError unless sequences are legal.

        Args:
            ids: int64 ``(B, T)``.
            whole: They must have ended; else they may be prefixes.
        """
        size, vocabulary = self.vocabulary.size, self.vocabulary
        if ids.dtype != torch.int64 or ids.ndim != 2 or ids.shape[1] == 0:
            raise InputError(f"ids are {ids.dtype} {tuple(ids.shape)}, expected int64 (B, T)")
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= size):
            low, high = int(ids.min()), int(ids.max())
            raise InputError(f"ids lie in [{low}, {high}], expected [0, {size - 1}]")
        states = self.states(ids)
        allowed = self.allowed(states[:, :-1])
        wrong = ~allowed.gather(2, ids[..., None])[..., 0]
        if wrong.any():
            row, index = wrong.nonzero()[0].tolist()
            expected = allowed[row, index].nonzero().flatten().tolist()
            names = list(dict.fromkeys(vocabulary.name(number).rstrip("0123456789 ") for number in expected))
            raise InputError(
                f"document {row} breaks the grammar {self.form!r} of at most {self.length} ids: id {index} is "
                f"{vocabulary.name(int(ids[row, index]))}, expected {' or '.join(names)}"
            )
        unfinished = states[:, -1, 1] != _ENDED
        if whole and unfinished.any():
            raise InputError(f"document {int(unfinished.nonzero()[0])} does not end with EOS")

    @property
    def _stages(self) -> tuple[_Stage, ...]:
        return _STAGES[self.form]

    def _least(self, stage: int) -> int:
        """Ids that a document needs at least from a stage on, EOS among them."""
        at = self._stages[min(stage, len(self._stages) - 1)]
        return 1 if at.end else self.grid.size + 2 + self._least(stage + 1)


def constrain(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logits with -inf where an id is not allowed.

    It comes after guidance has been mixed, since -inf minus -inf is no number, and before temperature, top-k and
    top-p, which then choose among allowed ids alone.

    Args:
        logits: ``(..., V)``, finite.
        allowed: bool ``(..., V)``, at least one True in each row.

    Returns:
        ``(..., V)``.
    """
    return logits.masked_fill(~allowed, -torch.inf)


def _count_before(found: Tensor) -> Tensor:
    """How many of the entries before each position are True: bool ``(B, T)`` to int64 ``(B, T + 1)``."""
    return F.pad(found.cumsum(1), (1, 0))
