"""Chameleon."""

from __future__ import annotations

import torch
from torch import Tensor

from rasterwise.decoding.decoder import Decoder
from rasterwise.decoding.sampling import Sampling
from rasterwise.models.pretrained import evaluating
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.grammar import Form
from rasterwise.symbols.text import TextBatch
from rasterwise.training.objective import Losses
from stage2_prior.documents.decoder import ImageDecoder
from stage2_prior.documents.generation import continued
from stage2_prior.documents.losses import document_losses
from stage2_prior.documents.network import ChameleonNetwork, captioned, image_prefixes


class Chameleon(ChameleonNetwork):
    """One stream of text and images: a decoder-only transformer over documents in one vocabulary.

    The same weights give p(image | text), which makes it a model of grids like any other; p(text | image); and the
    probability of any document of the grammar. A code has its row, column and channel among its rotary positions
    beside its place in the sequence, which is all that the paper's has. The paper's 7B normalises as Llama does
    (``norm="pre"``) and needs dropout; its 34B, and the default here, as Swin does.

    Args:
        config: Its architecture and its data.

    References:
        Chameleon Team, Chameleon: Mixed-Modal Early-Fusion Foundation Models, 2024 (arXiv 2405.09818). QK-norm:
        Dehghani et al., Scaling Vision Transformers to 22 Billion Parameters, 2023 (arXiv 2302.05442).

    Example:
        >>> import torch
        >>> from rasterwise import Chameleon, ChameleonConfig, Condition, Grid, TextBatch
        >>> config = ChameleonConfig(grid=Grid(1, 2, 2, 16), text_length=5, depth=1, width=16, heads=2)
        >>> model = Chameleon(config).eval()
        >>> texts = TextBatch.of([torch.tensor([97, 98]), torch.tensor([99])])
        >>> images = model.sample(2, Condition(text=texts))
        >>> images.shape, model.log_prob(images, Condition(text=texts)).shape
        (torch.Size([2, 1, 2, 2]), torch.Size([2]))
        >>> captions = model.caption(images)
        >>> len(captions), model.caption_log_prob(captions, images).shape
        (2, torch.Size([2]))
    """

    kind = "chameleon"

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return ImageDecoder(self, batch_size, condition)

    # ------------------------------------------------------------------------------------------ likelihoods

    def document_log_probs(self, ids: Tensor, form: Form = "interleaved") -> Tensor:
        """Log-probability of every id of documents, each given those before it.

        Args:
            ids: int64 ``(B, T)``, padded with PAD; ``document_batch`` and ``document_ids`` make them.
            form: Of the documents.

        Returns:
            ``(B, T)`` nats, whose sums are the documents'; 0 where an id is the only one that may follow, -inf where
            one may not.
        """
        return self.grammar(form).log_probs(self.document_logits(ids), ids)

    def document_ids(self, texts: TextBatch, symbols: Tensor, form: Form) -> Tensor:
        """Captioned images as documents, int64 ``(B, T)``, padded with PAD.

        Args:
            texts: B texts.
            symbols: int64 ``(B, C, H, W)``.
            form: "text-to-image" or "image-to-text": which comes first.

        Raises:
            InputError: The texts or the symbols do not fit the model.
        """
        self.grid.check(symbols)
        texts = self.texts(Condition(text=texts), len(symbols))
        return captioned(self, texts, symbols.to(self.device), form)

    def text_log_prob(self, texts: TextBatch) -> Tensor:
        """Log-probability of texts before an image, their end (BOI) included: ``(B,)`` nats.

        With that of the image given the text, it is that of the document of both.
        """
        texts = self.texts(Condition(text=texts), len(texts))
        ids = image_prefixes(self, texts)
        nats = self.document_log_probs(ids, "text-to-image")
        known = torch.arange(ids.shape[1], device=ids.device) < texts.lengths[:, None] + 2
        return nats.where(known, 0).sum(1)

    def caption_log_prob(self, texts: TextBatch, symbols: Tensor) -> Tensor:
        """Log-probability of texts after an image, their end (EOS) included, given the image: ``(B,)`` nats."""
        ids = self.document_ids(texts, symbols, "image-to-text")
        return self.document_log_probs(ids, "image-to-text")[:, self.grid.size + 3 :].sum(1)

    def captioned_losses(self, symbols: Tensor, condition: Condition, dropout: float) -> Losses:
        """As of documents of both, in an order that is drawn for each; what comes first is left out of some."""
        texts = self.texts(condition, len(symbols))
        text_first, image_first = (
            captioned(self, texts, symbols, form) for form in ("text-to-image", "image-to-text")
        )
        order = torch.rand(len(symbols), 1, device=symbols.device) < 0.5
        return document_losses(self, torch.where(order, text_first, image_first), dropout, condition)

    # ------------------------------------------------------------------------------------------ sampling

    def generate(
        self,
        prefixes: Tensor,
        form: Form = "interleaved",
        *,
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 64,
        capture: bool = True,
    ) -> Tensor:
        """Continue documents up to their end. Whatever the logits and the sampling, documents are legal.

        Args:
            prefixes: int64 ``(B, P)`` from BOS on, padded with PAD; they may be of different lengths, ended, or stop
                within an image.
            form: Of the documents.
            sampling: Temperature, top-k, top-p, and guidance: away from what the model gives to a document that has
                BOS alone, and what there is of an open image.
            generator: Source of the noise, on the CPU.
            batch_size: How many are drawn at once; bounds the memory.
            capture: As for ``draw``.

        Returns:
            int64 ``(B, length)`` on the model's device, PAD after EOS.

        Raises:
            InputError: A prefix breaks the grammar.
            NonFiniteError: The logits of an id are no distribution.
        """
        with evaluating(self):
            return continued(
                self,
                prefixes,
                form,
                sampling=sampling or Sampling(),
                generator=generator,
                batch_size=batch_size,
                capture=capture,
            )

    def caption(
        self,
        symbols: Tensor,
        *,
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 64,
        capture: bool = True,
    ) -> TextBatch:
        """Draw a text for each image.

        Args:
            symbols: int64 ``(B, C, H, W)``.
            sampling: As for ``generate``; guidance leads away from the texts of no image in particular.
            generator: As for ``generate``.
            batch_size: As for ``generate``.
            capture: As for ``draw``.
        """
        none = torch.zeros(len(symbols), 0, dtype=torch.int64)
        nothing = TextBatch(none, torch.zeros(len(symbols), dtype=torch.int64))
        prefixes = self.document_ids(nothing, symbols, "image-to-text")[:, :-1]  # all but EOS
        ids = self.generate(
            prefixes,
            "image-to-text",
            sampling=sampling,
            generator=generator,
            batch_size=batch_size,
            capture=capture,
        )
        ids = ids[:, prefixes.shape[1] :]
        is_text = self.vocabulary.is_text(ids)
        lengths = is_text.sum(1)
        tokens = (ids - self.vocabulary.first_text).masked_fill(~is_text, 0)
        return TextBatch(tokens[:, : int(lengths.max())], lengths)
