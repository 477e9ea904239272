"""The colour palette of ImageGPT: every pixel becomes the index of the nearest of K colours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
import tyro
from pydantic import Field
from torch import Tensor

from rasterwise.configuration import ImageChannels, configuration
from rasterwise.data.indexed import tensor_split
from rasterwise.data.splits import Split
from rasterwise.errors import InputError
from rasterwise.files import member, read_json
from rasterwise.models.pretrained import local_folder
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer

MAX_PIXELS = 200_000
"""Pixels that k-means looks at."""
MAX_IMAGES = 4096
"""Images that those pixels come from: many images, a few pixels of each, show more colours than few do."""
PIXELS_AT_ONCE = 8192
"""Pixels whose distances to all colours are held at once: 16 MiB for 512 colours."""
PROCESSOR_NAME = "preprocessor_config.json"


@configuration()
class PaletteConfig:
    """A colour palette.

    Attributes:
        colours: How many there are (K).
        channels: Of the images: 1 or 3; the data decide.
    """

    colours: Annotated[int, Field(ge=2, le=2**16)] = 512
    channels: Annotated[ImageChannels, tyro.conf.Suppress] = 3


class PaletteTokenizer(ImageTokenizer):
    """Pixels as indices into K colours found by k-means on the pixels of a dataset.

    Fitted colours are whole numbers, so a decoded image encodes to the same symbols again.

    Args:
        config: How many colours, of how many channels.

    References:
        Chen et al., Generative Pretraining from Pixels, 2020 (ICML; no arXiv number), section 3.2.

    Example:
        >>> import torch
        >>> from rasterwise import PaletteConfig, PaletteTokenizer
        >>> red_and_white = torch.tensor([[[[255, 255]], [[0, 255]], [[0, 255]]]], dtype=torch.uint8)
        >>> palette = PaletteTokenizer(PaletteConfig(colours=2)).fit(red_and_white)
        >>> symbols = palette.encode(red_and_white // 2 + 60)
        >>> symbols.tolist(), palette.decode(symbols)[0, :, 0].T.tolist()
        ([[[[0, 1]]]], [[255, 0, 0], [255, 255, 255]])
    """

    kind = "palette"
    config_class = PaletteConfig
    symbols = "colours"
    config: PaletteConfig
    palette: Tensor

    def __init__(self, config: PaletteConfig | None = None) -> None:
        super().__init__(config or PaletteConfig())
        # Colours on the scale of uint8 pixels; NaN until they are fitted or loaded.
        shape = (self.config.colours, self.config.channels)
        self.register_buffer("palette", torch.full(shape, math.nan))

    @property
    def fitted(self) -> bool:
        """Whether there are colours."""
        return not bool(self.palette.isnan().any())

    def fit(self, images: Tensor | Split, *, seed: int = 0) -> Self:
        """Find the colours by k-means on a sample of at most 200,000 pixels.

        Args:
            images: uint8 ``(B, C, H, W)``, or the train split of a dataset.
            seed: Of the sample and of k-means; the same seed gives the same palette.

        Returns:
            This tokenizer, fitted.

        Raises:
            InputError: The images have another number of channels than the palette, or fewer distinct
                colours than the palette is to have.
        """
        split = tensor_split(self._checked(images).cpu()) if isinstance(images, Tensor) else images
        if split.length == 0:
            raise InputError("there are no images to find a palette in, expected at least one")
        pixels = self._sample(split, seed)
        distinct, counts = np.unique(pixels, axis=0, return_counts=True)
        if len(distinct) < self.config.colours:
            raise InputError(
                f"a palette of {self.config.colours} colours was asked for, but the {len(pixels)} pixels "
                f"looked at have {len(distinct)} distinct ones; ask for {len(distinct)} or fewer"
            )
        colours = distinct
        if len(distinct) > self.config.colours:
            colours = _whole_colours(_k_means(pixels, self.config.colours, seed), distinct, counts)
        # From dark to bright: neighbouring symbols are alike, and the order depends on the colours alone.
        order = np.lexsort((*colours.T, colours.sum(1, dtype=np.int64)))
        self.palette.copy_(torch.from_numpy(colours[order].astype(np.float32)))
        return self

    @classmethod
    def from_openai(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """The palette that ``openai/imagegpt-*`` was trained with.

        Args:
            source: A folder with the preprocessor_config.json of transformers' format, or a Hub id.
            revision: Branch, tag or commit of a Hub id.

        Raises:
            InputError: The folder is absent, or holds no colours of that format.
        """
        folder = local_folder(source, revision)
        path = folder / PROCESSOR_NAME
        if not path.exists() and not Path(source).expanduser().is_dir():
            path = _download(str(source), revision)
        content = member(read_json(path), "clusters", list, path)
        try:
            clusters = torch.tensor(content, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path} holds clusters that are no numbers ({error}), expected lists of three"
            ) from None
        if clusters.ndim != 2 or clusters.shape[1] != 3:
            raise InputError(f"{path} holds clusters of shape {tuple(clusters.shape)}, expected (colours, 3)")
        tokenizer = cls(PaletteConfig(colours=len(clusters), channels=3))
        # Theirs lie in [-1, 1]. They stay unrounded, so that every pixel gets the symbol that it got there, unless
        # two colours are as near to it as float32 can tell: the scales differ, and so does the rounding.
        tokenizer.palette.copy_((clusters + 1) * 127.5)
        return tokenizer.eval()

    @property
    def channels(self) -> int:
        """Channels of a colour."""
        return self.config.channels

    def grid(self, channels: int, height: int, width: int) -> Grid:
        """One symbol a pixel, whatever its channels."""
        if channels != self.config.channels:
            raise InputError(f"images have {channels} channels, the palette {self.config.channels}")
        return Grid(1, height, width, self.config.colours)

    def image_shape(self, grid: Grid) -> tuple[int, int, int]:
        """One pixel a symbol."""
        return self.config.channels, grid.height, grid.width

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 ``(B, C, H, W)`` to int64 symbols ``(B, 1, H, W)``: the nearest colour, of several the first."""
        self._check_fitted()
        batch, channels, height, width = self._checked(images).shape
        colours = self.palette.float()
        pixels = images.to(colours.device).movedim(1, 3).reshape(-1, channels)
        # |pixel − colour|² less |pixel|², by a matrix product. It is exact in float32 for whole colours, whose sums
        # stay below 2²⁴, but not in the half precision that autocast would take. OpenAI's colours are not whole:
        # rounding may decide between two that are equally near.
        squares, crossed = colours.square().sum(1), -2 * colours.T
        nearest = []
        with torch.autocast(colours.device.type, enabled=False):
            for chunk in pixels.split(PIXELS_AT_ONCE):
                nearest.append(torch.addmm(squares, chunk.float(), crossed).argmin(1))
        return torch.cat(nearest).view(batch, 1, height, width)

    def decode(self, symbols: Tensor) -> Tensor:
        """int64 symbols ``(B, 1, H, W)`` to the colours that they stand for, uint8 ``(B, C, H, W)``."""
        self._check_fitted()
        if symbols.ndim != 4:
            raise InputError(f"symbols have shape {tuple(symbols.shape)}, expected (B, 1, H, W)")
        Grid(1, symbols.shape[2], symbols.shape[3], self.config.colours).check(symbols)
        colours = self.palette.round().clamp(0, 255).to(torch.uint8)
        return colours[symbols[:, 0].to(colours.device)].movedim(3, 1).contiguous()

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise InputError("the palette has no colours yet; fit it on the training images first")

    def _checked(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise InputError(f"images are {images.dtype} {tuple(images.shape)}, expected uint8 (B, C, H, W)")
        if images.shape[1] != self.config.channels:
            raise InputError(f"images have {images.shape[1]} channels, the palette {self.config.channels}")
        return images

    def _sample(self, split: Split, seed: int) -> np.ndarray:
        """Pixels of images drawn at random, the same number from each: uint8 ``(at most 200,000, C)``."""
        generator = torch.Generator().manual_seed(seed)
        image_count = min(split.length or MAX_IMAGES, MAX_IMAGES)
        pixels_an_image, taken, samples = math.ceil(MAX_PIXELS / image_count), 0, []
        for batch in split.shuffled(min(64, image_count), seed=seed):
            pixels = self._checked(batch.values)[: image_count - taken].flatten(2).movedim(1, 2)
            if pixels.shape[1] > pixels_an_image:
                chosen = torch.rand(pixels.shape[:2], generator=generator).topk(pixels_an_image, 1).indices
                pixels = pixels.gather(1, chosen[:, :, None].expand(-1, -1, pixels.shape[2]))
            samples.append(pixels.flatten(0, 1))
            taken += len(pixels)
            if taken >= image_count:
                break
        return torch.cat(samples)[:MAX_PIXELS].numpy()


def _k_means(pixels: np.ndarray, colours: int, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(colours, batch_size=4096, n_init=1, random_state=seed)
    return means.fit(pixels.astype(np.float32)).cluster_centers_


def _whole_colours(centres: np.ndarray, distinct: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Centres as whole colours, all different: where two round to the same, a frequent colour is added."""
    colours = np.unique(centres.round().clip(0, 255).astype(np.uint8), axis=0)
    taken = {tuple(colour) for colour in colours}
    frequent = [distinct[index] for index in np.argsort(-counts, kind="stable")]
    free = [colour for colour in frequent if tuple(colour) not in taken]
    return np.concatenate([colours, *(colour[None] for colour in free[: len(centres) - len(colours)])])


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo_id, PROCESSOR_NAME, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the Hub gave no {PROCESSOR_NAME} of {repo_id!r} ({reason})") from None
