"""The one table of what is benchmarked, each model at its stated size and at a tiny one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from pixel_baselines import (
    DiagonalBiLSTM,
    DiagonalBiLSTMConfig,
    GatedPixelCNN,
    GatedPixelCNNConfig,
    ImageGPT,
    ImageGPTConfig,
    PixelCNN,
    PixelCNNConfig,
    PixelCNNPP,
    PixelCNNPPConfig,
    RowLSTM,
    RowLSTMConfig,
)
from rasterwise.data.splits import Batch
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import Pretrained
from rasterwise.symbols.grid import Grid
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.objective import Objective
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage1_vqvae.tokenizers.learned import LearnedTokenizer
from stage2_prior import AnyOrderPrior, AnyOrderPriorConfig, TransformerPrior, TransformerPriorConfig

SampledName = Literal[
    "gated-pixelcnn",
    "pixelcnn",
    "pixelcnn-rgb",
    "pixelcnn-pp-rgb",
    "pixelcnn-pp-rgb-small",
    "row-lstm",
    "diagonal-bilstm",
    "image-gpt",
    "transformer-prior",
    "any-order-prior",
]
"""Models that have a sampler."""

ModelName = Literal[SampledName, "vqvae"]

Size = Literal["stated", "tiny"]

SAMPLED: tuple[SampledName, ...] = (
    "gated-pixelcnn",
    "pixelcnn",
    "pixelcnn-rgb",
    "pixelcnn-pp-rgb",
    "row-lstm",
    "diagonal-bilstm",
    "image-gpt",
    "transformer-prior",
)

# The paper's PixelCNN++ at batch 64 keeps more activations than a machine with 24 GB can hold, and takes
# minutes a step on two cores; training measures the small one unless the large one is asked for.
TRAINED: tuple[ModelName, ...] = (
    *("pixelcnn-pp-rgb-small" if name == "pixelcnn-pp-rgb" else name for name in SAMPLED),
    "vqvae",
)


@dataclass(frozen=True)
class Benchmarked:
    """A model that is benchmarked.

    Attributes:
        name: What a table calls it.
        dimensions: The stated configuration's, in words.
        model_class: Built from its configuration alone.
        stated: The configuration that figures are reported for.
        tiny: One that runs in moments, to see that a benchmark works.
        image_shape: Of the images (C, H, W) that a tokenizer reads; None for a model of symbols.
    """

    name: str
    dimensions: str
    model_class: type[Pretrained]
    stated: Any
    tiny: Any
    image_shape: tuple[int, int, int] | None = None

    def label(self, size: Size) -> str:
        """Name and dimensions; a tiny model is called tiny."""
        return f"{self.name}, {self.dimensions if size == 'stated' else 'tiny'}"

    def config(self, size: Size) -> Any:
        """The configuration of a size."""
        return self.stated if size == "stated" else self.tiny

    def build(self, size: Size, device: torch.device) -> Pretrained:
        """The model with random weights: what it costs does not depend on what it has learned."""
        torch.manual_seed(0)
        return self.model_class(self.config(size)).to(device)

    def objective(self, model: Pretrained) -> Objective:
        """What its training minimises."""
        if isinstance(model, LearnedTokenizer):
            return LearnedTokenizerObjective(model)
        assert isinstance(model, AutoregressiveModel)
        return LikelihoodObjective(model)

    def batch(self, size: Size, batch_size: int, device: torch.device) -> Batch:
        """A training batch of noise."""
        generator = torch.Generator().manual_seed(0)
        if self.image_shape is not None:
            shape = (batch_size, *self.image_shape)
            return Batch(torch.randint(256, shape, dtype=torch.uint8, generator=generator)).to(device)
        grid = self.config(size).grid
        return Batch(torch.randint(grid.levels, (batch_size, *grid.shape), generator=generator)).to(device)


GREY = Grid(1, 28, 28, 256)
RGB = Grid(3, 32, 32, 256)
PALETTE = Grid(1, 32, 32, 512)
CODES = Grid(1, 16, 16, 512)
TINY_GREY = Grid(1, 4, 4, 256)
TINY_RGB = Grid(3, 4, 4, 256)
TINY_CODES = Grid(1, 4, 4, 16)

# Where no size was stated, the papers' own: the RGB PixelCNN and PixelCNN++ are those of CIFAR-10. The PixelRNNs
# are of the MNIST model's depth, with as many features as the other models. The 128 of PixelCNN and the PixelRNNs
# is the paper's h; their map, which is what `width` says, has 2h.
MODELS: dict[ModelName, Benchmarked] = {
    "gated-pixelcnn": Benchmarked(
        "Gated PixelCNN",
        "10 layers × 128, 28×28 grey",
        GatedPixelCNN,
        GatedPixelCNNConfig(grid=GREY, depth=10, width=128),
        GatedPixelCNNConfig(grid=TINY_GREY, depth=2, width=8, output_width=8),
    ),
    "pixelcnn": Benchmarked(
        "PixelCNN",
        "15 blocks × 128, 28×28 grey",
        PixelCNN,
        PixelCNNConfig(grid=GREY, blocks=15, width=256),
        PixelCNNConfig(grid=TINY_GREY, blocks=2, width=8, output_width=8),
    ),
    "pixelcnn-rgb": Benchmarked(
        "PixelCNN",
        "15 blocks × 128, 32×32 RGB",
        PixelCNN,
        PixelCNNConfig(grid=RGB, blocks=15, width=256, output_width=1024),
        PixelCNNConfig(grid=TINY_RGB, blocks=2, width=12, output_width=12),
    ),
    "pixelcnn-pp-rgb": Benchmarked(
        "PixelCNN++",
        "3 resolutions of 5 blocks × 160, 32×32 RGB",
        PixelCNNPP,
        PixelCNNPPConfig(grid=RGB, blocks=5, width=160, dropout=0.5),
        PixelCNNPPConfig(grid=TINY_RGB, blocks=1, width=8, resolutions=2, components=2),
    ),
    "pixelcnn-pp-rgb-small": Benchmarked(
        "PixelCNN++",
        "3 resolutions of 2 blocks × 64, 32×32 RGB",
        PixelCNNPP,
        PixelCNNPPConfig(grid=RGB, blocks=2, width=64),
        PixelCNNPPConfig(grid=TINY_RGB, blocks=1, width=8, resolutions=2, components=2),
    ),
    "row-lstm": Benchmarked(
        "Row LSTM",
        "7 layers × 128, 28×28 grey",
        RowLSTM,
        RowLSTMConfig(grid=GREY, depth=7, width=256),
        RowLSTMConfig(grid=TINY_GREY, depth=2, width=8, output_width=8),
    ),
    "diagonal-bilstm": Benchmarked(
        "Diagonal BiLSTM",
        "7 layers × 128, 28×28 grey",
        DiagonalBiLSTM,
        DiagonalBiLSTMConfig(grid=GREY, depth=7, width=256),
        DiagonalBiLSTMConfig(grid=TINY_GREY, depth=2, width=8, output_width=8),
    ),
    "image-gpt": Benchmarked(
        "ImageGPT",
        "8 layers × 256, 32×32 of 512 colours",
        ImageGPT,
        ImageGPTConfig(grid=PALETTE, depth=8, width=256, heads=8),
        ImageGPTConfig(grid=TINY_CODES, depth=2, width=16, heads=2),
    ),
    "transformer-prior": Benchmarked(
        "Transformer prior",
        "8 layers × 384, 16×16 of 512 codes",
        TransformerPrior,
        TransformerPriorConfig(grid=CODES, depth=8, width=384, heads=6),
        TransformerPriorConfig(grid=TINY_CODES, depth=2, width=32, heads=2),
    ),
    "any-order-prior": Benchmarked(
        "Any-order prior",
        "8 layers × 384, 16×16 of 512 codes",
        AnyOrderPrior,
        AnyOrderPriorConfig(grid=CODES, depth=8, width=384, heads=6),
        AnyOrderPriorConfig(grid=TINY_CODES, depth=2, width=32, heads=2),
    ),
    "vqvae": Benchmarked(
        "VQ-VAE",
        "factor 4, 128 features, 512 codes, 28×28 grey",
        VQVAE,
        VQVAEConfig(factor=4),
        VQVAEConfig(
            factor=4,
            quantizer=VectorQuantizerConfig(codebook_size=16, code_width=8),
            autoencoder=ConvolutionalConfig(width=16, blocks=1),
        ),
        image_shape=(1, 28, 28),
    ),
}
