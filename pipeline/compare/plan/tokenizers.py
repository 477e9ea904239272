"""Which tokenizers are compared, all at the same bits an image, and what their trainings share."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.compare.plan.budget import Budget
from pipeline.compare.plan.settings import Size
from rasterwise.configuration import BatchSize, Count, Positive, Seed, configuration
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DataConfig
from rasterwise.errors import InputError
from stage1_vqvae import FSQConfig, ResidualQuantizerConfig, VQVAEConfig
from stage1_vqvae.autoencoders.table import AUTOENCODERS
from stage1_vqvae.losses.adversarial import AdversarialConfig
from stage1_vqvae.losses.likelihood import LIKELIHOODS
from stage1_vqvae.losses.perceptual import PerceptualConfig
from stage1_vqvae.quantizers.table import QUANTIZERS

LOSSES: dict[str, tuple[PerceptualConfig, AdversarialConfig]] = {
    **dict.fromkeys(LIKELIHOODS, (PerceptualConfig(), AdversarialConfig())),
    "perceptual": (PerceptualConfig(perceptual_weight=0.2), AdversarialConfig()),
    "vqgan": (
        PerceptualConfig(perceptual_weight=0.2),
        AdversarialConfig(adversarial_weight=0.5, discriminator_width=32, discriminator_layers=2),
    ),
}
"""Every likelihood alone, and the squared error with a perceptual loss, or with that and a discriminator."""

RESIDUAL_DEPTH = 2


@configuration()
class TokenizerCell:
    """One tokenizer.

    Attributes:
        quantizer: Its name in ``QUANTIZERS``.
        autoencoder: Its name in ``AUTOENCODERS``.
        loss: Its name in ``LOSSES``.
    """

    quantizer: str
    autoencoder: str
    loss: str

    def __post_init__(self) -> None:
        tables: dict[str, dict[str, Any]] = {
            "quantizer": QUANTIZERS,
            "autoencoder": AUTOENCODERS,
            "loss": LOSSES,
        }
        for name, table in tables.items():
            if getattr(self, name) not in table:
                raise InputError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(table)}")

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.quantizer}-{self.autoencoder}-{self.loss}"

    @classmethod
    def named(cls, name: str) -> TokenizerCell:
        """The cell whose folder has a name."""
        return cls(*name.split("-", 2))

    def config(self, settings: TokenizerSettings, channels: int) -> VQVAEConfig:
        """The tokenizer's configuration."""
        return VQVAEConfig(
            channels=channels,
            factor=settings.factor,
            quantizer=quantizer_of_bits(self.quantizer, settings.code_bits),
            likelihood=self.loss if self.loss in LIKELIHOODS else "mse",  # type: ignore[arg-type]
            autoencoder=AUTOENCODERS[self.autoencoder](),
        )


@configuration()
class TokenizerSettings:
    """What all cells share.

    Attributes:
        data: The images, all of one size.
        augmentation: How training images of stage 1 are changed at random.
        factor: How many times smaller the code grid is than the image, each way.
        code_bits: Bits a site of the code grid; with residual codes, of both codes of a site together.
        prior: WIDTHxDEPTH of the transformer that is trained on the codes, the same in all cells.
        budget: Of each cell's training, half of it for each stage: 90s, 10m, 1h, 500steps or 2e15flops. A time becomes
            the number of steps that fit into it, by a timing at the start of each stage.
        batch_size: Images a step, in both stages.
        learning_rate: AdamW's highest, in both stages.
        samples: Images that each prior draws.
        seed: Of weights, data order and noise.
        threads: CPU threads of a cell (0: torch's own choice).
        device: auto takes a GPU where there is one.
    """

    data: DataConfig = field(default_factory=lambda: DataConfig(resample="box"))
    augmentation: Augmentation = field(default_factory=Augmentation)
    factor: Literal[2, 4, 8, 16] = 4
    code_bits: Annotated[int, Field(ge=2, le=18)] = 10
    prior: str = "128x4"
    budget: str = "20m"
    batch_size: BatchSize = 32
    learning_rate: Positive = 1e-3
    samples: Count = 200
    seed: Seed = 0
    threads: Annotated[int, Field(ge=0, le=4096)] = 0
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        Size.parse(self.prior)


def quantizer_of_bits(name: str, bits: int) -> Any:
    """The configuration of a quantizer with 2^bits codes a site.

    FSQ has channels of 4 levels, and of 8 where the bits are odd. Residual codes are two of half the bits.

    Example:
        >>> quantizer_of_bits("fsq", 9).levels, quantizer_of_bits("residual", 10).codebook_size
        ((8, 4, 4, 4), 32)

    Raises:
        InputError: The quantizer cannot have as many.
    """
    if name == "fsq":
        if bits == 3:
            return FSQConfig(levels=(8,))
        levels = (8,) * (bits % 2) + (4,) * ((bits - 3 * (bits % 2)) // 2)
        assert math.prod(levels) == 2**bits
        return FSQConfig(levels=levels)
    if name == "residual":
        if bits % RESIDUAL_DEPTH:
            raise InputError(
                f"code_bits is {bits}, expected a multiple of {RESIDUAL_DEPTH} for residual codes"
            )
        return ResidualQuantizerConfig(codebook_size=2 ** (bits // RESIDUAL_DEPTH), depth=RESIDUAL_DEPTH)
    return dataclasses.replace(QUANTIZERS[name](), codebook_size=2**bits)
