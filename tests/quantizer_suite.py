"""What must hold for every quantizer: inherit ``QuantizerSuite`` and give its configuration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from rasterwise.errors import NonFiniteError
from stage1_vqvae import VQVAE, ConvolutionalConfig, VQVAEConfig
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage1_vqvae.quantizers.quantizer import Quantizer
from stage1_vqvae.quantizers.table import QUANTIZERS, AnyQuantizerConfig
from tests.stage1_vqvae.images import random_images


def random_latents(quantizer: Quantizer, seed: int = 0, count: int = 4) -> Tensor:
    """float32 ``(count, latent_width, 4, 6)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, quantizer.latent_width, 4, 6, generator=generator)


class QuantizerSuite:
    """A subclass, named ``Test…``, gives a small configuration, of fewer codes than ``random_latents`` has latents.

    Attributes:
        config: What is tested.
    """

    config: ClassVar[AnyQuantizerConfig]

    def latents_of(self, quantizer: Quantizer, codes: Tensor) -> Tensor:
        """Latents float64 ``(B, latent_width, H, W)`` whose codes these are, int64 ``(B, depth, H, W)``."""
        return quantizer.lookup(codes)

    def started(self) -> Quantizer:
        """A quantizer that has seen a training batch, in evaluation mode."""
        quantizer = self.config.build()
        quantizer(random_latents(quantizer))
        return quantizer.eval()

    def vqvae(self) -> VQVAE:
        """A VQ-VAE with the quantizer, that has seen a training batch, in training mode."""
        model = VQVAE(
            VQVAEConfig(factor=2, autoencoder=ConvolutionalConfig(width=16, blocks=1), quantizer=self.config)
        )
        model(random_images())
        return model

    def test_it_is_in_the_table(self) -> None:
        """By the name that its configuration says."""
        assert QUANTIZERS[self.config.kind] is type(self.config)

    def test_shapes(self) -> None:
        """Codes are int64 in [0, K), one map a channel of the code grid; latents are as wide as the decoder expects."""
        quantizer = self.started()
        quantized = quantizer(random_latents(quantizer))
        assert quantized.codes.dtype == torch.int64
        assert quantized.codes.shape == (4, quantizer.depth, 4, 6)
        assert quantized.latents.shape == (4, quantizer.code_width, 4, 6)
        assert quantized.auxiliary_loss.shape == ()
        assert int(quantized.codes.min()) >= 0
        assert int(quantized.codes.max()) < quantizer.codebook_size

    def test_every_code_is_decoded_and_found_again(self) -> None:
        """Latents that belong to a code are given that code, and are replaced by its vector, for all K of them."""
        quantizer = self.started().double()
        codes = torch.arange(quantizer.codebook_size).view(1, 1, 1, -1).expand(1, quantizer.depth, 1, -1)
        vectors = quantizer.lookup(codes)
        assert len(vectors[0, :, 0].T.unique(dim=0)) == quantizer.codebook_size
        quantized = quantizer(self.latents_of(quantizer, codes))
        assert torch.equal(quantized.codes, codes)
        assert torch.equal(quantized.latents, vectors)

    def test_looking_codes_up_is_quantizing(self) -> None:
        """In evaluation, the latents of the codes are the latents that quantizing gave, bit for bit."""
        quantizer = self.started()
        quantized = quantizer(random_latents(quantizer, seed=1))
        assert torch.equal(quantizer.lookup(quantized.codes), quantized.latents)

    def test_training_quantizes_alike(self) -> None:
        """The decoder is trained on the latents of the same codes, up to the rounding of the straight-through sum."""
        quantizer = self.started()
        latents = random_latents(quantizer, seed=1)
        evaluated, trained = quantizer(latents), quantizer.train()(latents)
        assert torch.equal(trained.codes, evaluated.codes)
        torch.testing.assert_close(trained.latents, evaluated.latents)

    def test_codes_do_not_depend_on_the_batch(self) -> None:
        """Together or one by one."""
        quantizer = self.started()
        latents = random_latents(quantizer, seed=1, count=8)
        apart = torch.cat([quantizer(one).codes for one in latents.split(1)])
        assert torch.equal(quantizer(latents).codes, apart)

    def test_evaluation_teaches_nothing(self) -> None:
        """No buffer changes."""
        quantizer = self.started()
        before = {name: value.clone() for name, value in quantizer.state_dict().items()}
        quantizer(random_latents(quantizer, seed=1))
        for name, value in quantizer.state_dict().items():
            assert torch.equal(value, before[name]), name

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_changes_nothing(self, dtype: torch.dtype) -> None:
        """Latents in half precision are quantized, and learned from, in float32 inside autocast, bit for bit."""
        states = []
        for enabled in (False, True):
            torch.manual_seed(0)
            quantizer = self.config.build()
            for seed in range(4):
                latents = random_latents(quantizer, seed).to(dtype)
                with torch.autocast("cpu", dtype=dtype, enabled=enabled):
                    result = quantizer(latents)
            assert result.latents.dtype == result.auxiliary_loss.dtype == torch.float32
            states.append({**quantizer.state_dict(), "codes": result.codes, "latents": result.latents})
        for name, value in states[0].items():
            assert value.dtype != dtype
            assert torch.equal(value, states[1][name]), name

    def test_float64_stays(self) -> None:
        """A float64 quantizer gives float64 latents."""
        quantizer = self.started().double()
        assert quantizer(random_latents(quantizer).double()).latents.dtype == torch.float64

    def test_what_is_not_finite_is_refused(self) -> None:
        """In training, before anything is learned from it."""
        quantizer = self.started().train()
        before = {name: value.clone() for name, value in quantizer.state_dict().items()}
        latents = random_latents(quantizer)
        latents[1, 0, 2, 3] = math.nan
        with pytest.raises(NonFiniteError, match="latents"):
            quantizer(latents)
        for name, value in quantizer.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_every_weight_of_the_tokenizer_is_trained(self) -> None:
        """Gradients of the objective reach all parameters, the encoder's through the quantizer."""
        from rasterwise.data.splits import Batch

        objective = LearnedTokenizerObjective(self.vqvae())
        objective(Batch(random_images())).total.backward()
        for name, parameter in objective.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_a_tokenizer_is_saved_and_opened(self, tmp_path: Path) -> None:
        """The same configuration, fingerprint, codes and images; decoding codes is reconstructing."""
        model = self.vqvae().eval()
        model.save_pretrained(tmp_path)
        again = VQVAE.from_pretrained(tmp_path)
        assert again.config == model.config
        assert again.fingerprint == model.fingerprint
        codes = model.encode(random_images())
        model.grid(1, 16, 32).check(codes)
        assert torch.equal(again.encode(random_images()), codes)
        assert torch.equal(again.decode(codes), model.reconstruct(random_images()).images)
