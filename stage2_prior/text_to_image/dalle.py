"""DALL-E 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.likelihoods import categorical_log_prob
from rasterwise.symbols.text import TextBatch
from rasterwise.training.objective import Losses
from stage2_prior.conditioning.text import without_texts
from stage2_prior.text_to_image.dalle_network import DALLENetwork
from stage2_prior.transformer.cached_weights import fill
from stage2_prior.transformer.decoder import BlockDecoder

IMAGE_WEIGHT = 7
"""Of the image's loss against the text's, as in the paper."""


class DALLE(DALLENetwork):
    """One decoder of a text and then an image: p(text) p(image | text).

    A text always has L positions: those after its end have a padding token each, of its own. A code has its row's
    and its column's vector added, as in the paper; the blocks are those of the transformer prior (gated MLP, no
    biases) without rotary positions. Sparse attention is a mask here: it changes what is computed, not how fast.

    Args:
        config: Its architecture and its data.

    References:
        Ramesh et al., Zero-Shot Text-to-Image Generation, 2021 (arXiv 2102.12092).

    Example:
        >>> import torch
        >>> from rasterwise import DALLE, Condition, DALLEConfig, Grid, TextBatch
        >>> config = DALLEConfig(grid=Grid(1, 2, 2, 16), text_length=5, depth=2, width=16, heads=2, attention="sparse")
        >>> model = DALLE(config).eval()
        >>> texts = TextBatch.of([torch.tensor([97, 98]), torch.tensor([99])])
        >>> images = model.sample(2, Condition(text=texts))
        >>> (model.text_log_prob(texts) + model.log_prob(images, Condition(text=texts))).shape
        torch.Size([2])
    """

    kind = "dalle"
    decodes_in_bf16 = True

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return DALLEDecoder(self, batch_size, condition)

    def text_log_prob(self, texts: TextBatch) -> Tensor:
        """Log-probability of texts, their end included: ``(B,)`` nats.

        With that of the image given the text, it is that of both.
        """
        text_ids = self.text_ids(self.texts(Condition(text=texts), len(texts)))
        prefix = self.prefix(text_ids, None)
        sequence = F.pad(prefix, (0, 0, 0, self.grid.size - 1))
        return self.text_log_probs(self.features(sequence), text_ids).sum(1)

    def captioned_losses(self, symbols: Tensor, condition: Condition, dropout: float) -> Losses:
        """(text + 7 · image) / 8, each a mean over its positions; a text that is left out is not learned."""
        self.grid.check(symbols)
        kept = without_texts(condition, dropout)
        texts = self.texts(kept, len(symbols))
        text_ids = self.text_ids(texts)
        features = self._features_of(text_ids, self.embed(symbols), kept)
        image_nats = -categorical_log_prob(self.code_logits(features), self.grid.flatten(symbols))
        learned = (texts.lengths > 0)[:, None]
        text_nats = -self.text_log_probs(features, text_ids) * learned
        count = learned.sum().clamp(min=1)
        text = text_nats.sum() / (count * self.config.text_length)
        image = image_nats.mean()
        shown = {
            "nll_nats": image_nats.sum(1).mean(),
            "nats_per_code": image,
            "text_nll_nats": text_nats.sum() / count,
        }
        total = (text + IMAGE_WEIGHT * image) / (1 + IMAGE_WEIGHT)
        return Losses(total, {name: value.detach() for name, value in shown.items()})


class DALLEDecoder(BlockDecoder):
    """Decodes images with a DALL-E; the texts pass the layers once, when it is made.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: DALLENetwork, batch_size: int, condition: Condition | None) -> None:
        length = model.config.text_length
        prefix = model.prefix(model.text_ids(model.texts(condition, batch_size)), condition)
        super().__init__(
            model.transformer,
            model.grid,
            prefix[:, -1].clone(),
            symbols=slice(model.first_code, None),
            prefix=length,
        )
        self.position_vectors = model.position_vectors()
        before = prefix[:, :-1] + self.position_vectors[:length]
        fill(self.cache.memory, model.transformer.model.blocks, before, None)
        self.tables = [self._table(mask) for mask in model.masks() or []]

    def _table(self, mask: Tensor | None) -> Tensor:
        assert mask is not None
        return torch.zeros_like(mask, dtype=self.stream.dtype).masked_fill_(~mask, -torch.inf)

    def _rotation(self) -> None:
        return None

    def _biases(self) -> list[Tensor] | None:
        return [self.cache.row_of(table) for table in self.tables] or None

    def _pass_layers(self, stream: Tensor) -> Tensor:
        return super()._pass_layers(stream + self.cache.row_of(self.position_vectors))
