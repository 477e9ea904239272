"""Tokenizers of transformers, against the classes themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import Emu3VQVAE, Emu3VQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

from pipeline.models import open_tokenizer
from rasterwise import Emu3TokenizerConfig
from rasterwise.errors import InputError
from stage1_vqvae.imported.opening import open_foreign


def tiny_emu3(**changes: object) -> Emu3VQVAE:
    settings: dict[str, object] = {
        "codebook_size": 16,
        "embed_dim": 4,
        "latent_channels": 4,
        "base_channels": 32,
        "channel_multiplier": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [1],
        "hidden_size": 64,
        "num_attention_heads": 2,
        "temporal_downsample_factor": 2,
    }
    model = Emu3VQVAE(Emu3VQVAEConfig(**(settings | changes)))
    for name, buffer in model.named_buffers():  # as a training leaves them
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval()


def tiny_janus() -> JanusVQVAE:
    """Code vectors of length 1 need no normalization, which transformers' encoding leaves out."""
    model = JanusVQVAE(
        JanusVQVAEConfig(
            embed_dim=4,
            num_embeddings=16,
            latent_channels=5,
            base_channels=32,
            channel_multiplier=[1, 2],
            num_res_blocks=1,
            num_patches=4,
        )
    ).eval()
    vectors = model.quantize.embedding.weight
    vectors.data = F.normalize(torch.randn_like(vectors), dim=-1)
    for name, parameter in model.named_parameters():  # else all latents have the same direction
        if "quantize" not in name:
            parameter.data.normal_(0, 0.1 if "norm" not in name else 1)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)


@torch.no_grad()
def test_emu3(tmp_path: Path, images: Tensor) -> None:
    """Codes and images of the class in float64, from a folder that it saved; the same once more from one of ours."""
    theirs = tiny_emu3()
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer = open_foreign(tmp_path / "theirs").tokenizer
    saved = open_tokenizer(tokenizer.save_pretrained(tmp_path / "ours"))
    assert saved.fingerprint == tokenizer.fingerprint
    theirs.double()
    sizes = torch.tensor([[8, 8]] * 3)
    expected = torch.stack(theirs.encode(images.double() / 127.5 - 1, sizes).image_tokens)
    assert len(expected.unique()) > 2
    drawn = torch.randint(16, (3, 1, 4, 4))
    decoded = ((theirs.decode(drawn[:, 0]) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    for ours in (tokenizer.double(), saved.double()):
        codes = ours.encode(images)
        assert codes.dtype == torch.int64
        assert torch.equal(codes, expected[:, None])
        assert torch.equal(ours.decode(drawn), decoded)
        assert torch.equal(ours.encode(images[1:2]), codes[1:2])


@torch.no_grad()
def test_emu3_in_a_whole_model_with_another_range(tmp_path: Path, images: Tensor) -> None:
    """Under its prefix, in the shard that holds it, in bfloat16; with a mean and a deviation a channel."""
    theirs = tiny_emu3(temporal_downsample_factor=4).bfloat16()
    weights = {f"model.vqmodel.{name}": value for name, value in theirs.state_dict().items()}
    (tmp_path / "other.safetensors").write_bytes(b"never read, since it holds nothing of the tokenizer")
    save_file(weights, tmp_path / "vq.safetensors")
    index = {name: "vq.safetensors" for name in weights} | {"lm_head.weight": "other.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    config = {"model_type": "emu3", "vq_config": theirs.config.to_diff_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    mean, deviation = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": mean, "image_std": deviation})
    )
    tokenizer = open_foreign(tmp_path).tokenizer.double()
    theirs.double()
    shift, scale = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, deviation))
    expected = theirs.encode((images.double() / 255 - shift) / scale, torch.tensor([[8, 8]] * 3)).image_tokens
    assert torch.equal(tokenizer.encode(images)[:, 0], torch.stack(expected))
    drawn = torch.randint(16, (3, 1, 4, 4))
    decoded = (theirs.decode(drawn[:, 0]) * scale + shift).mul(255).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(tokenizer.decode(drawn), decoded)


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True])
def test_janus(whole: bool, tmp_path: Path, images: Tensor) -> None:
    """Codes and images of the class in float64, from a folder that it saved, or under the prefix of the whole model."""
    theirs = tiny_janus()
    if whole:
        weights = {f"model.vqmodel.{name}": value for name, value in theirs.state_dict().items()}
        weights["model.generation_embeddings.weight"] = torch.ones(2)
        save_file(weights, tmp_path / "model.safetensors")
    else:
        theirs.save_pretrained(tmp_path)
    imported = open_foreign(tmp_path)
    tokenizer = imported.tokenizer.double()
    assert imported.family == "transformers' JanusVQVAE"
    theirs.double()
    expected = theirs.encode(images.double() / 127.5 - 1).image_tokens.view(3, 1, 4, 4)
    assert len(expected.unique()) > 2
    assert torch.equal(tokenizer.encode(images), expected)
    drawn = torch.randint(16, (3, 1, 4, 4))
    decoded = ((theirs.decode(drawn.flatten(1)) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(tokenizer.decode(drawn), decoded)
    assert tokenizer.grid(3, 16, 8).shape == (1, 8, 4)  # the class decodes its own size alone


@torch.no_grad()
def test_janus_codes_whose_vectors_have_other_lengths(tmp_path: Path, images: Tensor) -> None:
    """Are those of the nearest direction, as DeepSeek and LlamaGen trained it; images are those of the class."""
    theirs = tiny_janus()
    lengths = torch.rand(16, 1) + 0.5
    alike = open_foreign(theirs_saved(theirs, tmp_path / "alike")).tokenizer.double()
    theirs.quantize.embedding.weight.data *= lengths
    tokenizer = open_foreign(theirs_saved(theirs, tmp_path / "longer")).tokenizer.double()
    assert torch.equal(tokenizer.encode(images), alike.encode(images))
    drawn = torch.randint(16, (3, 1, 4, 4))
    theirs.double()
    decoded = ((theirs.decode(drawn.flatten(1)) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(tokenizer.decode(drawn), decoded)


def theirs_saved(model: JanusVQVAE, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def test_emu3_that_is_refused(tmp_path: Path, images: Tensor) -> None:
    """Each in one line."""
    folder = tmp_path / "theirs"
    tiny_emu3().save_pretrained(folder)
    tokenizer = open_foreign(folder).tokenizer
    with pytest.raises(InputError, match="images are 8×7, which factor 2 does not divide; resize them"):
        tokenizer.encode(images[..., :7])
    with pytest.raises(InputError, match="images have 1 channels, this emu3 was built for 3"):
        tokenizer.encode(images[:, :1])
    with pytest.raises(InputError, match="16"):
        tokenizer.decode(torch.full((1, 1, 4, 4), 16))
    content = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"codebook_size": 15}, "does not fit .*config.json: size mismatch for quantize.embedding.weight"),
        ({"num_res_blocks": 2}, "does not fit .*config.json: Missing key"),
        ({"codebook_size": "many"}, "config.json does not fit Emu3TokenizerConfig: codebook_size is 'many'"),
        ({"double_latent": True}, "change their channels"),
        ({"hidden_size": 32}, "hidden_size is 32, expected 64"),
    ):
        (folder / "config.json").write_text(json.dumps(content | change))
        with pytest.raises(InputError, match=message) as error:
            open_foreign(folder)
        assert "\n" not in str(error.value)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="unit is not for Emu3"):
        open_foreign(folder, pixel_range="unit")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="json is in its folder"):
        open_foreign(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_mean": (0.5, 0.5)}, "pixel_mean has 2 numbers, expected 1 or 3"),
        ({"channel_multiplier": ()}, "channel_multiplier is empty"),
        ({"temporal_downsample_factor": 3}, "temporal_downsample_factor is 3, expected a power of two"),
        ({"hidden_size": 32}, "hidden_size is 32, expected 1024"),
        ({"latent_channels": 8}, "latent_channels is 8, expected embed_dim, 4"),
    ],
)
def test_configurations_that_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Emu3TokenizerConfig(**options)  # type: ignore[arg-type]
