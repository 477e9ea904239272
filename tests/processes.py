"""One training of each stage, on however many processes torchrun starts: ``python -m tests.processes FOLDER``.

What it writes can be compared with what one process writes: metrics, the model, and every process's codebook.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pixel_baselines import GatedPixelCNN, GatedPixelCNNConfig
from rasterwise.command_line import leave_process_group
from rasterwise.files import save_tensors
from rasterwise.grid import Grid
from rasterwise.likelihood_training import LikelihoodObjective
from rasterwise.runs import RunFolder
from rasterwise.splits import tensor_split
from rasterwise.training import Objective, TrainingConfig, start_accelerator, train
from stage1_vqvae import VQVAE, VQVAEConfig
from stage1_vqvae.train import VQVAEObjective
from stage2_prior import TransformerPrior, TransformerPriorConfig
from tests.autoregressive_suite import random_symbols

STEPS = 50
GRID = Grid(1, 4, 4, 5)


def vqvae() -> Objective:
    """A VQ-VAE whose codebook is started by hand: k-means draws its first means, from what each process sees."""
    config = VQVAEConfig(
        factor=2,
        codebook_size=8,
        code_width=4,
        width=16,
        blocks=1,
        dead_code_threshold=0,
        likelihood="logistic",
    )
    objective = VQVAEObjective(VQVAE(config))
    codebook = objective.model.quantizer.codebook._codebook
    codebook.embed.data.normal_()
    codebook.embed_avg.copy_(codebook.embed)
    codebook.cluster_size.fill_(1)
    codebook.initted.fill_(True)
    return objective


def prior() -> Objective:
    """A transformer prior."""
    config = TransformerPriorConfig(grid=GRID, depth=2, width=16, heads=2, dropout=0.0)
    return LikelihoodObjective(TransformerPrior(config))


def pixel() -> Objective:
    """A Gated PixelCNN."""
    return LikelihoodObjective(GatedPixelCNN(GatedPixelCNNConfig(grid=GRID, depth=2, width=8)))


def pictures() -> torch.Tensor:
    """Random pictures, smooth enough that something can be learned."""
    noise = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(noise, 8, mode="bilinear") * 255).to(torch.uint8)


STAGES = {"vqvae": vqvae, "prior": prior, "pixel": pixel}


def run(folder: Path, accumulate: int) -> None:
    """Train every stage into a folder of its own."""
    for name, build in STAGES.items():
        config = TrainingConfig(
            steps=STEPS, batch_size=8, accumulate=accumulate, warmup_steps=5, evaluate_every=1, save_every=STEPS,
            device="cpu",
        )  # fmt: skip
        accelerator = start_accelerator(config)
        torch.manual_seed(0)
        objective = build()
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        train(
            objective,
            tensor_split(pictures() if name == "vqvae" else random_symbols(GRID, 40)),
            config,
            RunFolder(path, main=accelerator.is_main_process),
            accelerator,
            evaluate=lambda model, _: {},
        )
        state = {
            key: value for key, value in objective.model.state_dict().items() if value.is_floating_point()
        }
        save_tensors(state, path / f"process-{accelerator.process_index}.safetensors")
        accelerator.wait_for_everyone()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]))
    leave_process_group()
