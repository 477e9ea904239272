"""The VQ-VAE: images to a small grid of discrete codes and back."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from pydantic import Field

from rasterwise.configuration import Depth, configuration
from stage1_vqvae.autoencoders.convolutional import Decoder, Encoder
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig
from stage1_vqvae.tokenizers.learned import FACTORS, LearnedTokenizer, LearnedTokenizerConfig

FLAT = (
    "channels",
    "factor",
    "codebook_size",
    "code_width",
    "width",
    "blocks",
    "commitment_weight",
    "codebook_decay",
    "dead_code_threshold",
    "likelihood",
)
"""The configuration of a VQ-VAE as it was saved before quantizers had configurations of their own."""


@configuration()
class VQVAEConfig(LearnedTokenizerConfig):
    """A VQ-VAE.

    Attributes:
        width: Channels of the convolutions at the code grid; half as many at full resolution.
        blocks: Residual blocks in the encoder, and in the decoder.
    """

    width: Annotated[int, Field(multiple_of=16, ge=16, le=2**16)] = 128
    blocks: Depth = 2


class VQVAE(LearnedTokenizer):
    """A convolutional VQ-VAE, and the tokenizer that it is once trained.

    Args:
        config: Its architecture.

    References:
        van den Oord et al., Neural Discrete Representation Learning, 2017 (arXiv 1711.00937).

    Example:
        >>> import torch
        >>> from rasterwise import VQVAE, VectorQuantizerConfig, VQVAEConfig
        >>> quantizer = VectorQuantizerConfig(codebook_size=16, code_width=8)
        >>> vqvae = VQVAE(VQVAEConfig(factor=4, width=16, quantizer=quantizer))
        >>> images = torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8)
        >>> _ = vqvae(images)  # a training batch starts the codebook
        >>> symbols = vqvae.eval().encode(images)
        >>> symbols.shape, vqvae.decode(symbols).shape
        (torch.Size([2, 1, 7, 7]), torch.Size([2, 1, 28, 28]))
    """

    kind = "vqvae"
    config_class = VQVAEConfig
    config: VQVAEConfig

    def __init__(self, config: VQVAEConfig) -> None:
        halvings = FACTORS.index(config.factor) + 1
        widths = [config.width // 2] + [config.width] * halvings
        quantizer = config.quantizer.build()
        encoder = Encoder(config.channels, widths, config.blocks, quantizer.latent_width)
        decoder = Decoder(config.outputs, widths, config.blocks, quantizer.code_width)
        super().__init__(config, encoder, quantizer, decoder)

    @classmethod
    def config_from_json(cls, content: dict[str, Any], where: object) -> Any:
        """The configuration in config.json, today's or the flat one of before."""
        if "quantizer" not in content:
            moved = {field.name for field in dataclasses.fields(VectorQuantizerConfig)} & content.keys()
            quantizer = {name: content[name] for name in moved}
            content = {name: value for name, value in content.items() if name not in moved}
            content["quantizer"] = {**quantizer, "kind": "ema"}
        return super().config_from_json(content, where)

    def identity(self) -> dict[str, Any]:
        """What the fingerprint hashes: for a codebook of moving averages the flat form, as it always did."""
        content = super().identity()
        if self.config.quantizer.kind != "ema":
            return content
        content |= content.pop("quantizer")
        del content["kind"]
        return {name: content.pop(name) for name in FLAT} | content
