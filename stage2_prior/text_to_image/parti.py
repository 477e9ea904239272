"""Parti."""

from __future__ import annotations

import torch
from torch import Tensor

from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.condition import Condition
from stage2_prior.text_to_image.parti_network import PartiNetwork
from stage2_prior.transformer.cached_weights import rotations
from stage2_prior.transformer.decoder import BlockDecoder


class Parti(PartiNetwork):
    """A bidirectional text encoder, and a causal image decoder that attends to what it gives.

    The encoder computes once for a sample, and so do its keys and values for the decoder. Guidance leads away from
    the empty text, which training puts in place of a tenth of the texts. The blocks are those of the transformer
    prior, with rotary positions, where the paper's are as in the first transformers; its encoder is trained on text
    before, and its largest models draw images of 1,024 codes with 20 billion parameters.

    Args:
        config: Its architecture and its data.

    References:
        Yu et al., Scaling Autoregressive Models for Content-Rich Text-to-Image Generation, 2022 (arXiv 2206.10789).

    Example:
        >>> import torch
        >>> from rasterwise import Condition, Grid, Parti, PartiConfig, Sampling, TextBatch
        >>> config = PartiConfig(grid=Grid(1, 2, 2, 16), text_length=5, depth=1, encoder_depth=1, width=16, heads=2)
        >>> model = Parti(config).eval()
        >>> texts = Condition(text=TextBatch.of([torch.tensor([97, 98]), torch.tensor([99])]))
        >>> images = model.sample(2, texts, sampling=Sampling(guidance=2.0))
        >>> images.shape, model.log_prob(images, texts).shape
        (torch.Size([2, 1, 2, 2]), torch.Size([2]))
    """

    kind = "parti"
    decodes_in_bf16 = True

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return PartiDecoder(self, batch_size, condition)


class PartiDecoder(BlockDecoder):
    """Decodes images with a Parti; the texts are encoded when it is made.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: PartiNetwork, batch_size: int, condition: Condition | None) -> None:
        context, mask = model.encode(model.texts(condition, batch_size))
        stream = model.start(model.class_index(condition, batch_size))
        super().__init__(model.transformer, model.grid, stream, context=context, context_mask=mask)
        self.rotations = rotations(model.rotary.pair_angles, stream.dtype).to(model.device)

    def _rotation(self) -> Tensor:
        return self.cache.row_of(self.rotations)
