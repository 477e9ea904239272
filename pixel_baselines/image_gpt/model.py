"""ImageGPT."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pixel_baselines.image_gpt.decoder import ImageGPTDecoder
from pixel_baselines.image_gpt.network import ImageGPTNetwork
from pixel_baselines.image_gpt.openai import _openai_config, _openai_weights, _read_openai
from rasterwise.decoding.decoder import Decoder
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.files import read_json
from rasterwise.models.pretrained import CONFIG_NAME, load_weights, local_folder
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid


class ImageGPT(ImageGPTNetwork):
    """Decoder-only transformer over symbols in raster order, with learned positions.

    The sequence that it reads is a start token and then the symbols but for the last; the i-th output gives
    symbol i. The normalisation divides by the root mean square without centring, and the head is not tied to
    the embedding, as in OpenAI's release rather than in GPT-2. The paper models one palette colour a pixel
    (``PaletteTokenizer``); a grid of several channels is read here as one longer sequence of subpixels.
    A class's vector is added to the start token: the paper's model is unconditional.

    Args:
        config: Its architecture and its data.

    References:
        Chen et al., Generative Pretraining from Pixels, 2020 (ICML; no arXiv number). The block: Radford et
        al., Language Models are Unsupervised Multitask Learners (GPT-2), 2019 (no arXiv number).

    Example:
        >>> import torch
        >>> from rasterwise import Condition, Grid, ImageGPT, ImageGPTConfig
        >>> config = ImageGPTConfig(grid=Grid(1, 4, 4, 16), classes=("cat", "dog"), depth=2, width=32)
        >>> model = ImageGPT(config).eval()
        >>> symbols = model.sample(2, Condition(torch.tensor([0, 1])))
        >>> symbols.shape, model.log_prob(symbols).shape, model.layer_features(symbols)[2].shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2]), torch.Size([2, 32]))
    """

    kind = "image-gpt"
    decodes_in_bf16 = True

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return ImageGPTDecoder(self, batch_size, condition)

    def window_decoder(
        self, batch_size: int, condition: Condition | None = None, *, window: int
    ) -> TransformerDecoder:
        return ImageGPTDecoder(self, batch_size, condition, positions=window)

    @classmethod
    def from_openai(
        cls, source: str | Path, *, grid: Grid | None = None, revision: str | None = None
    ) -> Self:
        """Open ``openai/imagegpt-*``, or any ImageGPT in transformers' format, in evaluation mode.

        Args:
            source: A folder with config.json and safetensors, or a Hub id.
            grid: Of its symbols; by default the square grid that has as many sites as the model positions.
            revision: Branch, tag or commit of a Hub id.

        Raises:
            InputError: The folder is absent, holds another model, an option that this one does not have,
                or no safetensors: a pytorch_model.bin is never opened, because opening it can run code.
        """
        folder = local_folder(source, revision)
        content = read_json(folder / CONFIG_NAME)
        model = cls(_openai_config(content, grid, folder / CONFIG_NAME))
        weights = _openai_weights(_read_openai(folder), content)
        load_weights(model, weights, f"what {folder} holds of weights", f"its {CONFIG_NAME}")
        return model.eval()
