"""The training step: what it does by hand, its parts, and several optimizers in one step."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixel_baselines import GatedPixelCNN, GatedPixelCNNConfig
from rasterwise.data.splits import Batch
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.models.pretrained import Pretrained
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.objective import Losses, Objective
from rasterwise.training.optimizer import averaged_model, learning_rate_share, parameter_groups
from rasterwise.training.step import TrainingStep, parts
from tests.autoregressive_suite import random_symbols
from tests.processes import vqvae
from tests.rasterwise.training.test_loop import (
    SHORT,
    SMALL_GRID,
    assert_same_end,
    prior_objective,
    run_training,
)

CONFIG = TrainingConfig(steps=20, batch_size=8, warmup_steps=4, device="cpu")


def step_for(objective: Objective, config: TrainingConfig = CONFIG) -> TrainingStep:
    return TrainingStep(objective, config, start_accelerator(config))


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def gated() -> LikelihoodObjective:
    torch.manual_seed(0)
    return LikelihoodObjective(GatedPixelCNN(GatedPixelCNNConfig(grid=SMALL_GRID, width=8, depth=2)))


def test_a_step_by_hand() -> None:
    """The same weights and averages, bit for bit, as torch's own calls one after the other."""
    batches = [Batch(random_symbols(SMALL_GRID, 8, seed=number)) for number in range(3)]
    objective = gated()
    train_step = step_for(objective)
    values = [train_step(batch, step) for step, batch in enumerate(batches)]

    expected = gated().train()
    optimizer = torch.optim.AdamW(parameter_groups(expected, 0.01), betas=(0.9, 0.95), fused=True)
    averaged = averaged_model(expected.model, CONFIG.ema_decay)
    assert averaged is not None
    for step, batch in enumerate(batches):
        losses = expected(batch)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(expected.parameters(), CONFIG.clip_norm)
        rate = CONFIG.learning_rate * learning_rate_share(step, steps=20, warmup_steps=4)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        averaged.update_parameters(expected.model)
        assert values[step] == {
            **{name: value.item() for name, value in losses.shown.items()},
            "gradient_norm": norm.item(),
            "learning_rate": rate,
        }
    assert torch.equal(weights(objective), weights(expected))
    assert torch.equal(weights(train_step.model), weights(averaged))


def test_a_batch_in_parts() -> None:
    """Every item is in one part, and the last part alone says that it is."""
    batch = Batch(torch.arange(6).view(6, 1, 1, 1), torch.arange(6))
    cut = list(parts(batch, 3))
    assert torch.cat([part.values for part in cut]).equal(batch.values)
    assert [part.labels.tolist() for part in cut if part.labels is not None] == [[0, 1], [2, 3], [4, 5]]
    assert [part.last_part for part in cut] == [False, False, True]
    assert cut[0].to("cpu").last_part is False
    assert next(parts(batch, 1)).last_part


def test_a_codebook_learns_once_a_batch() -> None:
    """What an EMA codebook learns from a batch in four parts is what it learns from the whole one."""
    images = torch.randint(256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = []
    for accumulate in (1, 4):
        torch.manual_seed(0)
        objective = vqvae()
        train_step = step_for(objective, dataclasses.replace(CONFIG, accumulate=accumulate))
        before = objective.model.state_dict()["quantizer.codebook._codebook.embed"].clone()
        train_step(Batch(images), 10)
        found.append(objective.model.state_dict())
        assert not torch.equal(found[-1]["quantizer.codebook._codebook.embed"], before)
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], atol=1e-5, rtol=1e-4)


class Player(Objective):
    """One weight that is drawn towards the batch's mean less the other player's weight."""

    criterion = "mse"

    def __init__(self, model: Pretrained, start: float) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.weight = nn.Parameter(torch.full((2,), start))
        self.other: tuple[Player, ...] = ()

    def forward(self, batch: Batch) -> Losses:
        target = batch.values.float().mean() - self.other[0].weight.detach()
        loss = (self.weight * torch.rand(2) - target).square().mean()
        return Losses(loss, {"distance": loss.detach()})


def game() -> Player:
    """A player with an adversary, as a generator has a discriminator."""
    player, adversary = Player(prior_objective().model, 1.0), Player(prior_objective().model, -2.0)
    player.other, adversary.other, player.adversaries = (adversary,), (player,), (adversary,)
    return player


def test_an_adversary_has_an_optimizer_of_its_own() -> None:
    """Both gradients are of the weights before the step; what the two show keeps apart."""
    player = game()
    (adversary,) = player.adversaries
    train_step = step_for(player)
    assert train_step.optimizers.keys() == {"optimizer", "adversary_1_optimizer"}
    assert train_step.modules.keys() == {"objective", "adversary_1_objective", "averaged"}
    assert len([p for p in player.parameters() if p.requires_grad]) == 1
    before = weights(player), weights(adversary)
    torch.manual_seed(0)
    values = train_step(Batch(torch.full((4, 1, 1, 1), 3)), 0)
    assert list(values) == [
        "distance", "adversary_1_distance", "gradient_norm", "adversary_1_gradient_norm", "learning_rate"
    ]  # fmt: skip
    torch.manual_seed(0)
    noise = torch.rand(2), torch.rand(2)
    assert values["distance"] == pytest.approx(((noise[0] - 5) ** 2).mean().item())
    assert values["adversary_1_distance"] == pytest.approx(((-2 * noise[1] - 2) ** 2).mean().item())
    assert not torch.equal(weights(player), before[0])
    assert not torch.equal(weights(adversary), before[1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_adversary_goes_on_exactly(precision: Any, tmp_path: Path) -> None:
    """A run that is stopped ends with both models' weights and optimizers as one that is not; also in parts."""
    config = dataclasses.replace(SHORT, precision=precision, accumulate=2)
    run_training(game(), tmp_path / "whole", config)
    run_training(game(), tmp_path / "parts", config, stop_after=9)
    torch.manual_seed(99)
    run_training(game(), tmp_path / "parts", config)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_checkpoint_has_the_adversary_or_is_refused(tmp_path: Path) -> None:
    """A run does not go on without the one that it had, nor with one that it had not."""
    config = dataclasses.replace(SHORT, steps=4)
    run_training(game(), tmp_path / "with", config)
    alone = game()
    alone.adversaries = ()
    with pytest.raises(InputError, match=r"does not fit the run's model: .*adversary_1_objective"):
        run_training(alone, tmp_path / "with", SHORT)
    alone = game()
    alone.adversaries = ()
    run_training(alone, tmp_path / "without", config)
    with pytest.raises(InputError, match="does not fit the run's model"):
        run_training(game(), tmp_path / "without", SHORT)


def test_an_adversary_in_fp16_is_refused() -> None:
    with pytest.raises(InputError, match="use bf16"):
        step_for(game(), dataclasses.replace(CONFIG, precision="fp16"))


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a C++ compiler that works, in one line."""

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", failing)
    step = step_for(gated(), dataclasses.replace(CONFIG, compile=True))
    with pytest.raises(InputError, match=r"torch.compile fails.*no compiler.*train without --compile"):
        step(Batch(random_symbols(SMALL_GRID, 8)), 0)


def test_what_is_not_finite_changes_no_weight() -> None:
    """An infinite weight of the adversary leaves the player's as they are, too."""
    player = game()
    (adversary,) = player.adversaries
    assert isinstance(adversary, Player)
    with torch.no_grad():
        adversary.weight[0] = math.inf
    train_step, before = step_for(player), weights(player)
    with pytest.raises(NonFiniteError, match="distance is inf at step 8"):
        train_step(Batch(torch.ones(4, 1, 1, 1)), 7)
    assert torch.equal(weights(player), before)
