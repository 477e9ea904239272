"""Tokenizers as their papers name them: the parts and losses of each, which flags then change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rasterwise.errors import InputError
from rasterwise.training.config import TrainingConfig
from stage1_vqvae.autoencoders.attention import AttentionConfig
from stage1_vqvae.autoencoders.table import AUTOENCODERS
from stage1_vqvae.autoencoders.vit import ViTConfig
from stage1_vqvae.losses.adversarial import AdversarialConfig
from stage1_vqvae.losses.perceptual import PerceptualConfig
from stage1_vqvae.options import TrainVQVAE
from stage1_vqvae.quantizers.gumbel import GumbelQuantizerConfig
from stage1_vqvae.quantizers.l2 import L2QuantizerConfig
from stage1_vqvae.quantizers.table import QUANTIZERS
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig
from stage1_vqvae.tokenizers.vqvae import VQVAEConfig


@dataclass(frozen=True)
class Constraint:
    """What makes a tokenizer the one of its name.

    Attributes:
        flag: That would break it.
        value: The flag's value in some options.
        holds: Whether a value keeps it.
        expected: Such values, in words.
    """

    flag: str
    value: Callable[[TrainVQVAE], Any]
    holds: Callable[[Any], bool]
    expected: str


@dataclass(frozen=True)
class Preset:
    """A tokenizer by its paper's name.

    Attributes:
        options: What holds for flags that are not given.
        constraints: What no flag may change.
    """

    options: TrainVQVAE
    constraints: tuple[Constraint, ...] = ()


def _one_of(flag: str, value: Callable[[TrainVQVAE], Any], *names: str) -> Constraint:
    return Constraint(flag, value, lambda found: found in names, " or ".join(names))


def _weight(name: str, *, wanted: bool) -> Constraint:
    def value(options: TrainVQVAE) -> float:
        part = getattr(options, name.partition("_")[0])
        return float(getattr(part, name))

    flag = "--" + name.replace("_", "-")
    return Constraint(flag, value, lambda found: bool(found) == wanted, "more than 0" if wanted else "0")


def _quantizer(options: TrainVQVAE) -> str:
    return options.model.quantizer.kind


def _autoencoder(options: TrainVQVAE) -> str:
    return options.model.autoencoder.kind


def _likelihood(options: TrainVQVAE) -> str:
    return options.model.likelihood


def _grids(number: int) -> Constraint:
    return Constraint(
        "--grids", lambda options: options.model.grids, lambda found: found == number, str(number)
    )


_NO_NETWORKS = (_weight("perceptual_weight", wanted=False), _weight("adversarial_weight", wanted=False))
_TRAINING = TrainingConfig(steps=10_000, batch_size=32, learning_rate=4e-4, ema_decay=0.999)

PRESETS: dict[str, Preset] = {
    "vqvae": Preset(TrainVQVAE(), (_grids(1), *_NO_NETWORKS)),
    "vqvae-2": Preset(
        TrainVQVAE(model=VQVAEConfig(grids=2)),
        (_grids(2), *_NO_NETWORKS),
    ),
    "vqgan": Preset(
        TrainVQVAE(
            model=VQVAEConfig(
                quantizer=VectorQuantizerConfig(codebook_size=1024), autoencoder=AttentionConfig()
            ),
            # With the paper's absolute error and weight 1, short trainings lost rare colours (docs/experiments.md).
            perceptual=PerceptualConfig(perceptual_weight=0.2),
            adversarial=AdversarialConfig(adversarial_weight=0.5),
            training=_TRAINING,
        ),
        (_weight("adversarial_weight", wanted=True),),
    ),
    "vit-vqgan": Preset(
        TrainVQVAE(
            model=VQVAEConfig(factor=8, quantizer=L2QuantizerConfig(), autoencoder=ViTConfig()),
            perceptual=PerceptualConfig(perceptual_weight=0.1),
            adversarial=AdversarialConfig(adversarial_weight=0.1, adversarial_loss="logistic"),
            training=_TRAINING,
        ),
        (_one_of("--autoencoder", _autoencoder, "vit"), _weight("adversarial_weight", wanted=True)),
    ),
    "dvae": Preset(
        TrainVQVAE(
            model=VQVAEConfig(
                factor=8,
                # The paper's weight is 6.6 times that of the ELBO, which for this factor and RGB is 1 / 192.
                quantizer=GumbelQuantizerConfig(relaxed=True, kl_weight=6.6 / 192, kl_warmup=0.1),
                likelihood="logit-laplace",
                autoencoder=AttentionConfig(attention="middle"),
            ),
        ),
        (
            _one_of("--quantizer", _quantizer, "gumbel"),
            _one_of("--likelihood", _likelihood, "logit-laplace"),
            *_NO_NETWORKS,
        ),
    ),
}
"""Every preset by the name that ``--tokenizer`` takes."""


def preset_options(tokenizer: str | None, quantizer: str | None, autoencoder: str | None) -> TrainVQVAE:
    """What holds for flags that are not given.

    Args:
        tokenizer: Name of a preset; None: the defaults.
        quantizer: Name of another quantizer than the preset's; None for that one.
        autoencoder: Of another autoencoder.

    Raises:
        InputError: There is nothing of that name.
    """
    tables: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
        ("--tokenizer", tokenizer, PRESETS),
        ("--quantizer", quantizer, QUANTIZERS),
        ("--autoencoder", autoencoder, AUTOENCODERS),
    )
    for flag, name, table in tables:
        if name is not None and name not in table:
            raise InputError(f"{flag} is {name!r}, expected one of {', '.join(table)}")
    options = PRESETS[tokenizer].options if tokenizer else TrainVQVAE()
    model = options.model
    if quantizer not in (None, model.quantizer.kind):
        model = dataclasses.replace(model, quantizer=QUANTIZERS[quantizer]())
    if autoencoder not in (None, model.autoencoder.kind):
        model = dataclasses.replace(model, autoencoder=AUTOENCODERS[autoencoder]())
    return dataclasses.replace(options, model=model)


def check_preset(name: str, options: TrainVQVAE) -> None:
    """Raise InputError where options are not those of a tokenizer of that name."""
    for one in PRESETS[name].constraints:
        value = one.value(options)
        if not one.holds(value):
            raise InputError(
                f"{one.flag} is {value}, but --tokenizer {name} takes {one.expected} there; leave one of them out"
            )
