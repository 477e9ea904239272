"""One training of each stage, on however many processes torchrun starts: ``python -m tests.processes FOLDER PARTS``.

What it writes can be compared with what one process writes: metrics, the model, and every process's codebook.
Behind the parts may stand the stages, if not all, and ``sharded`` where the processes share out the weights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from pixel_baselines import GatedPixelCNN, GatedPixelCNNConfig
from rasterwise.data.indexed import tensor_split
from rasterwise.files import save_tensors
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.processes import leave_process_group
from rasterwise.symbols.grid import Grid
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.fsdp import whole
from rasterwise.training.likelihood import LikelihoodObjective, evaluate_likelihood
from rasterwise.training.loop import train
from rasterwise.training.objective import Objective, TrainingTask
from rasterwise.training.run.run_folder import RunFolder
from stage1_vqvae import VQVAE, ConvolutionalConfig, FSQConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.losses.adversarial import AdversarialConfig
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage1_vqvae.quantizers.codebook import MovingAverageCodebook
from stage1_vqvae.quantizers.l2 import L2QuantizerConfig
from stage1_vqvae.quantizers.lfq import LFQConfig
from stage1_vqvae.quantizers.residual import ResidualQuantizerConfig
from stage1_vqvae.quantizers.simvq import SimVQConfig
from stage1_vqvae.quantizers.table import AnyQuantizerConfig
from stage2_prior import TransformerPrior, TransformerPriorConfig
from tests.autoregressive_suite import random_symbols

STEPS = 50
GRID = Grid(1, 4, 4, 5)
AVERAGES = VectorQuantizerConfig(codebook_size=8, code_width=4, dead_code_threshold=0)


def vqvae(quantizer: AnyQuantizerConfig = AVERAGES, *, started: bool = True) -> Objective:
    """A VQ-VAE whose codebooks are started by hand: k-means draws its first means, from what each process sees."""
    config = VQVAEConfig(
        factor=2,
        autoencoder=ConvolutionalConfig(width=16, blocks=1),
        likelihood="logistic",
        quantizer=quantizer,
    )
    objective = LearnedTokenizerObjective(VQVAE(config))
    for book in objective.model.modules():
        if isinstance(book, MovingAverageCodebook) and started:
            book.embed.copy_(book.transform_input(torch.randn_like(book.embed)))
            book.embed_avg.copy_(book.embed)
            book.cluster_size.fill_(1)
            book.initted.fill_(True)
    return objective


def prior() -> Objective:
    """A transformer prior."""
    config = TransformerPriorConfig(grid=GRID, depth=2, width=16, heads=2, dropout=0.0)
    return LikelihoodObjective(TransformerPrior(config))


def pixel() -> Objective:
    """A Gated PixelCNN."""
    return LikelihoodObjective(GatedPixelCNN(GatedPixelCNNConfig(grid=GRID, depth=2, width=8)))


def adversarial() -> Objective:
    """A prior, and a Gated PixelCNN with an optimizer of its own in the same step, as a discriminator would be."""
    objective = prior()
    objective.adversaries = (pixel(),)
    return objective


def vqgan() -> Objective:
    """A VQ-VAE with a discriminator that takes part from the eleventh step on."""
    plain = vqvae()
    assert isinstance(plain, LearnedTokenizerObjective)
    config = AdversarialConfig(
        adversarial_weight=0.5, adversarial_start=10, discriminator_width=8, discriminator_layers=1
    )
    return LearnedTokenizerObjective(plain.model, adversarial=config)


def images() -> torch.Tensor:
    """Random images, smooth enough that something can be learned."""
    noise = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(noise, 8, mode="bilinear") * 255).to(torch.uint8)


STAGES: dict[str, Callable[[], Objective]] = {
    "vqvae": vqvae,
    "prior": prior,
    "pixel": pixel,
    "adversarial": adversarial,
}

QUANTIZERS: dict[str, AnyQuantizerConfig] = {
    "l2": L2QuantizerConfig(codebook_size=8, code_width=4, dead_code_threshold=0),
    "fsq": FSQConfig(levels=(3, 4)),
    "lfq": LFQConfig(codebook_size=8, entropy_temperature=1.0),  # a sharper one makes more of rounding
    "simvq": SimVQConfig(codebook_size=8, code_width=4),
    "residual": ResidualQuantizerConfig(codebook_size=8, code_width=4, dead_code_threshold=0, depth=2),
}
"""All but the one of ``vqvae``, and Gumbel-softmax, for which every process draws noise of its own."""

QUANTIZED: dict[str, Callable[[], Objective]] = {
    **{f"vqvae-{name}": partial(vqvae, config) for name, config in QUANTIZERS.items()},
    "vqvae-adversarial": vqgan,
    "vqvae-k-means": partial(vqvae, VectorQuantizerConfig(codebook_size=300, code_width=4), started=False),
}
"""VQ-VAEs with the other quantizers, one with a discriminator, and one that k-means starts with fewer latents than
codes."""


SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "TransformerBlock",
}
"""What ``accelerate launch`` makes of an FSDP configuration."""


def evaluate(model: Any, accelerator: Accelerator) -> dict[str, float]:
    """Every one of 21 grids once, where the model has a likelihood."""
    if not isinstance(model, AutoregressiveModel):
        return {}
    metrics = evaluate_likelihood(model, tensor_split(random_symbols(GRID, 21)), accelerator, batch_size=4)
    assert metrics["items"] == 21
    return {"nll_nats": metrics["nll_nats"]}


def train_stages(folder: Path, accumulate: int, stages: list[str], sharded: bool) -> None:
    """Train stages, each into a folder of its own, or go on with what is there."""
    if sharded:
        os.environ.update(SHARDED)
    for name in stages:
        config = TrainingConfig(
            steps=STEPS, batch_size=8, accumulate=accumulate, warmup_steps=5, log_every=1, evaluate_every=10,
            save_every=STEPS - 1, device="cpu",
        )  # fmt: skip
        accelerator = start_accelerator(config)
        torch.manual_seed(0)
        objective = (STAGES | QUANTIZED)[name]()
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        split = tensor_split(images() if "vqvae" in name else random_symbols(GRID, 40))
        run = RunFolder(path, main=accelerator.is_main_process)
        train(TrainingTask(objective, split, evaluate), config, run, accelerator)
        assert accelerator.is_fsdp2 == sharded, "Accelerate's state forgot it on the way"
        state = {
            key: whole(value)
            for key, value in objective.model.state_dict().items()
            if value.is_floating_point()
        }
        save_tensors(state, path / f"process-{accelerator.process_index}.safetensors")
        accelerator.wait_for_everyone()


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = sys.argv[3:]
    chosen = [stage for stage in STAGES | QUANTIZED if stage in words] or list(STAGES)
    train_stages(Path(sys.argv[1]), int(sys.argv[2]), chosen, "sharded" in words)
    leave_process_group()
