"""The VQ-VAE: images to a small grid of discrete codes and back."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field

from rasterwise.configuration import LATER, Depth, configuration
from rasterwise.errors import InputError
from stage1_vqvae.autoencoders.convolutional import ConvolutionalConfig
from stage1_vqvae.autoencoders.table import AnyAutoencoderConfig
from stage1_vqvae.quantizers.quantizer import Bottleneck
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig
from stage1_vqvae.tokenizers.learned import LearnedTokenizer, LearnedTokenizerConfig
from stage1_vqvae.tokenizers.two_grids import TwoGridBottleneck

TOP_WIDTH, TOP_BLOCKS = 128, 2
"""Of the networks between two grids."""

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
"""The configuration of a VQ-VAE as it was saved before quantizers and autoencoders had configurations of their own."""


@configuration()
class VQVAEConfig(LearnedTokenizerConfig):
    """A VQ-VAE.

    Attributes:
        grids: Code grids: 1, or 2 as a VQ-VAE-2 has, the top one at half the resolution of the bottom one.
        top_width: With two grids, channels of the networks between them.
        top_blocks: With two grids, residual blocks in the top encoder, and in the top decoder.
        autoencoder: The encoder and the decoder; --autoencoder NAME chooses which.
    """

    grids: Literal[1, 2] = field(default=1, metadata=LATER)
    top_width: Annotated[int, Field(multiple_of=8, ge=8, le=2**16)] = field(default=TOP_WIDTH, metadata=LATER)
    top_blocks: Depth = field(default=TOP_BLOCKS, metadata=LATER)
    autoencoder: Annotated[tyro.conf.AvoidSubcommands[AnyAutoencoderConfig], Field(discriminator="kind")] = (
        field(default_factory=ConvolutionalConfig)
    )

    def __post_init__(self) -> None:
        between = {"top_width": TOP_WIDTH, "top_blocks": TOP_BLOCKS}
        for name, default in between.items():
            if self.grids == 1 and getattr(self, name) != default:
                flag = "--" + name.replace("_", "-")
                raise InputError(
                    f"{flag} is {getattr(self, name)}, which two grids alone have; add --grids 2, or leave {flag} out"
                )

    def build_bottleneck(self) -> Bottleneck:
        """What stands between encoder and decoder."""
        if self.grids == 1:
            return self.quantizer.build()
        return TwoGridBottleneck(self.quantizer, self.top_width, self.top_blocks)


class VQVAE(LearnedTokenizer):
    """Any autoencoder around any quantizer: a VQ-VAE, VQ-VAE-2, VQGAN, ViT-VQGAN or discrete VAE, by its parts.

    Args:
        config: Its architecture.

    References:
        van den Oord et al., Neural Discrete Representation Learning, 2017 (arXiv 1711.00937). Razavi et al., Generating
        Diverse High-Fidelity Images with VQ-VAE-2, 2019 (arXiv 1906.00446). Esser et al., Taming
        Transformers for High-Resolution Image Synthesis, 2020 (arXiv 2012.09841). Yu et al., Vector-quantized Image
        Modeling with Improved VQGAN, 2021 (arXiv 2110.04627). Ramesh et al., Zero-Shot Text-to-Image Generation, 2021
        (arXiv 2102.12092).

    Example:
        >>> import torch
        >>> from rasterwise import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
        >>> quantizer = VectorQuantizerConfig(codebook_size=16, code_width=8)
        >>> autoencoder = ConvolutionalConfig(width=16)
        >>> vqvae = VQVAE(VQVAEConfig(factor=4, quantizer=quantizer, autoencoder=autoencoder))
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
        quantizer, networks = config.build_bottleneck(), config.autoencoder
        encoder = networks.build_encoder(config.channels, config.factor, quantizer.latent_width)
        decoder = networks.build_decoder(config.outputs, config.factor, quantizer.code_width)
        super().__init__(config, encoder, quantizer, decoder)

    @classmethod
    def config_from_json(cls, content: dict[str, Any], where: object) -> Any:
        """The configuration in config.json, today's or a flat one of before."""
        if "quantizer" not in content:
            content = _nested(content, "quantizer", VectorQuantizerConfig)
        if "autoencoder" not in content:
            content = _nested(content, "autoencoder", ConvolutionalConfig)
        return super().config_from_json(content, where)

    def identity(self) -> dict[str, Any]:
        """What the fingerprint hashes: what there was at first in its flat form, as it always did."""
        content = super().identity()
        if self.config.autoencoder.kind == "convolutional":
            content |= content.pop("autoencoder")
            del content["kind"]
        if self.config.quantizer.kind == "gumbel":
            del content["quantizer"]["kl_warmup"]  # it came later, and says only how the codes were learned
        if self.config.quantizer.kind != "ema":
            return content
        content |= content.pop("quantizer")
        del content["kind"]
        return {name: content.pop(name) for name in FLAT if name in content} | content


def _nested(content: dict[str, Any], name: str, owner: type[Any]) -> dict[str, Any]:
    """A flat configuration with the fields of one of its parts moved into that."""
    moved = {one.name for one in dataclasses.fields(owner)} & content.keys()
    part = {**{one: content[one] for one in moved}, "kind": owner.kind}
    return {one: value for one, value in content.items() if one not in moved} | {name: part}
