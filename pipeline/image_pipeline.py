"""A tokenizer and an autoregressive model as one object: images to symbols, their likelihood, and images again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.models import open_model, open_tokenizer
from pipeline.text import TEXT_FOLDER, Prompts, TextModel, open_text_tokenizer, text_model
from rasterwise.compression.codec import Codec, Compressed
from rasterwise.compression.container import read_compressed
from rasterwise.decoding.plan import SampledSymbols, SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.files import new_folder
from rasterwise.images import Colour, Images, listed, open_image, resized, to_pil, to_uint8
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import CARD_NAME, evaluating, local_folder, upload_folder
from rasterwise.symbols.condition import Condition
from rasterwise.tokenizers.image import ImageTokenizer
from rasterwise.tokenizers.text import TextTokenizer

if TYPE_CHECKING:
    from accelerate import Accelerator

Output = Literal["pil", "tensor", "numpy"]
Labels: TypeAlias = int | str | np.integer | Sequence[int | str | np.integer] | np.ndarray | Tensor | None


class ImagePipeline:
    """A tokenizer and a model of its symbols: any model works with any tokenizer, in the same way.

    Args:
        tokenizer: Turns images into symbols and back.
        model: The distribution of the symbols, trained on those of this very tokenizer.
        text_tokenizer: Of the texts of a model of text and images; such a model needs it.

    Raises:
        InputError: The model was trained on another tokenizer's symbols, or on the tokens of another text tokenizer.

    Example:
        >>> from rasterwise import Grid, ImagePipeline, PixelTokenizer, PixelTokenizerConfig
        >>> from rasterwise import TransformerPrior, TransformerPriorConfig
        >>> config = TransformerPriorConfig(grid=Grid(1, 4, 4, 2), width=16, heads=2, depth=1)
        >>> pipeline = ImagePipeline(PixelTokenizer(PixelTokenizerConfig(levels=2)), TransformerPrior(config).eval())
        >>> pipeline.sample(2, seed=0)[0].size
        (4, 4)
    """

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        model: AutoregressiveModel,
        text_tokenizer: TextTokenizer | None = None,
    ) -> None:
        wanted = model.config.tokenizer
        if wanted and wanted != tokenizer.fingerprint:
            raise InputError(
                f"the model was trained on the symbols of tokenizer {wanted[:12]}…, not of this one "
                f"({tokenizer.fingerprint[:12]}…); use the tokenizer that its codes came from"
            )
        self.tokenizer = tokenizer
        self.model = model
        self.text_tokenizer = text_tokenizer
        self._text = text_model(model, text_tokenizer)
        self.image_shape = tokenizer.image_shape(model.grid)
        expected = tokenizer.grid(*self.image_shape)
        if expected != model.grid:
            raise InputError(f"the tokenizer gives grids of {expected}, the model was built for {model.grid}")

    # ------------------------------------------------------------------------------------------ images

    def encode(self, images: Images) -> Tensor:
        """Images to symbols, int64 ``(B, C, H, W)``.

        Args:
            images: One or several: PIL images or paths of image files, which are fitted to the model's size, or
                uint8 tensors or arrays of that very size.

        Raises:
            InputError: Something else, another size, or a file that is no image.
        """
        batch = self._batch(images).to(self.model.device)
        with torch.no_grad(), evaluating(self.tokenizer):
            return self.tokenizer.encode(batch)

    def decode(self, symbols: Tensor, output: Output = "pil", *, batch_size: int = 64) -> Any:
        """Symbols to images: a list of PIL images, a uint8 tensor ``(B, C, H, W)`` or array ``(B, H, W, C)``."""
        _check_output(output)
        self.model.grid.check(symbols)
        with torch.no_grad(), evaluating(self.tokenizer):
            parts = [
                self.tokenizer.decode(part.to(self.model.device)).cpu() for part in symbols.split(batch_size)
            ]
        return _as_output(torch.cat(parts), output)

    def reconstruct(self, images: Images, output: Output = "pil") -> Any:
        """Encode and decode images: what the tokenizer keeps of them."""
        _check_output(output)
        return self.decode(self.encode(images), output)

    # -------------------------------------------------------------------------------------- likelihood

    def log_prob(self, images: Images, labels: Labels = None, texts: Prompts | None = None) -> Tensor:
        """Log-probability of the images' symbols in nats, ``(B,)``, given labels or texts where they are given.

        It is the image's own log-probability only where the tokenizer loses nothing. Over VQ codes it is that of
        the code grid. A model in training mode is evaluated without its dropout.
        """
        symbols = self.encode(images)
        with torch.no_grad(), evaluating(self.model):
            return self.model.log_prob(symbols, self._condition(labels, len(symbols), texts))

    # ---------------------------------------------------------------------------------------- sampling

    def sample(
        self,
        n: int | None = None,
        labels: Labels = None,
        *,
        prompts: Prompts | None = None,
        best_of: int = 1,
        sampling: Sampling | None = None,
        seed: int | None = None,
        batch_size: int = 64,
        parallel: bool = False,
        window: int | None = None,
        steps: int | None = None,
        accelerator: Accelerator | None = None,
        output: Output = "pil",
        progress: Callable[[float, int], None] | None = None,
    ) -> Any:
        """Draw new images.

        Args:
            n: How many; by default one, or one for each of several prompts.
            labels: A class for all of them, or n classes, by index or by name. None for unconditional images.
            prompts: A text for all of them, or n texts, for a model of text and images.
            best_of: Draw so many for each prompt, and keep the one that the prompt fits best, by the model's own
                likelihood of the text given the image.
            sampling: Temperature, top-k, top-p and guidance.
            seed: Of the noise: the same seed gives the same images. None for a random one.
            batch_size: How many are drawn at once, in each process.
            parallel: Evaluate the model on all symbols of an image at once until they agree, instead of one after
                another. The images are the same; the evaluations are fewer, and each costs more.
            window: With ``parallel``, for a transformer: evaluate the next so many symbols at most, over a KV cache.
                Images are drawn one by one.
            steps: Draw an image in so many steps, several codes at once in each, by an any-order prior that was trained
                for it. The distribution is that of ``model.in_steps(steps)``. None: one symbol after the other.
            accelerator: Its processes share the work. All of them call this and get all images.
            output: "pil", "tensor" or "numpy".
            progress: Called with (images drawn so far, counted by their symbols; images in all).

        Raises:
            InputError: A label, a prompt, an output or a number that does not fit, or guidance without a condition.
        """
        _check_output(output)
        if n is None:
            n = 1 if prompts is None or isinstance(prompts, str) else len(prompts)
        drawn = self.sample_symbols(
            n,
            labels,
            prompts=prompts,
            best_of=best_of,
            sampling=sampling,
            seed=seed,
            batch_size=batch_size,
            parallel=parallel,
            window=window,
            steps=steps,
            accelerator=accelerator,
            progress=progress,
        )
        return self.decode(drawn.symbols, output, batch_size=batch_size)

    def sample_symbols(
        self,
        n: int = 1,
        labels: Labels = None,
        *,
        prompts: Prompts | None = None,
        best_of: int = 1,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
        batch_size: int = 64,
        parallel: bool = False,
        window: int | None = None,
        steps: int | None = None,
        accelerator: Accelerator | None = None,
        progress: Callable[[float, int], None] | None = None,
    ) -> SampledSymbols:
        """As ``sample``, but returns symbols, and some of them may be known.

        Arguments as for ``sample``; ``known`` and ``mask`` as for ``AutoregressiveModel.sample``.
        """
        if best_of != 1:
            if prompts is None or labels is not None or known is not None or best_of < 1:
                raise InputError(
                    f"best_of is {best_of}, which takes prompts alone, and 1 drawing or more of each"
                )
            given = [prompts] * n if isinstance(prompts, str) else prompts
            several = [prompt for prompt in given for _ in range(best_of)]
            drawn = self.sample_symbols(
                len(several),
                prompts=several,
                sampling=sampling,
                seed=seed,
                batch_size=batch_size,
                parallel=parallel,
                window=window,
                steps=steps,
                accelerator=accelerator,
                progress=progress,
            )
            fit = self.text.match(self.text.texts(several, len(several)), drawn.symbols, batch_size)
            best = fit.view(-1, best_of).argmax(1) + best_of * torch.arange(len(given))
            return SampledSymbols(drawn.symbols[best])
        model = self.model if steps is None else self.model.in_steps(steps)
        rows = None
        if accelerator is not None and accelerator.num_processes > 1:
            if seed is None:
                raise InputError("processes that draw images together need one seed; give it")
            rows = _share(n, accelerator)
        plan = SamplingPlan.of(
            self.model.grid,
            n,
            self._condition(labels, n, prompts),
            sampling=sampling,
            known=known,
            mask=mask,
            generator=_generator(seed),
            rows=rows,
            batch_size=batch_size,
            device=self.model.device,
        )
        drawn = model.draw(
            plan,
            method="fixed-point" if parallel else "sequential",
            window=window,
            progress=(lambda done, total: progress(done * n / total, n)) if progress else None,
        )
        if accelerator is None or rows is None:
            return drawn
        gathered = [
            None if part is None else accelerator.gather(part)[:n]
            for part in (drawn.evaluations, drawn.positions)
        ]
        return SampledSymbols(accelerator.gather(drawn.symbols)[:n], *gathered)

    # -------------------------------------------------------------------------------------------- text

    @property
    def text(self) -> TextModel:
        """The model with its text tokenizer; InputError where it knows no text."""
        if self._text is None:
            raise InputError(
                f"a {self.model.kind} takes no text; `rasterwise train prior --model chameleon` trains one that does"
            )
        return self._text

    def caption(
        self,
        images: Images,
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> list[str]:
        """Draw a text for each image.

        Args:
            images: As for ``encode``.
            sampling: As for ``sample``; a temperature of 0 takes the likeliest token each time.
            seed: As for ``sample``.
            batch_size: As for ``sample``.

        Raises:
            InputError: The model draws no texts, or as for ``encode``.
        """
        return self.text.caption(
            self.encode(images), sampling=sampling, generator=_generator(seed), batch_size=batch_size
        )

    def generate(
        self,
        document: Sequence[str | Any],
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> list[str | Image.Image]:
        """Continue a document of texts and images up to its end.

        Args:
            document: Texts and images (PIL images, paths, tensors, arrays; see ``encode``) in reading order; a string
                is a text. It may be empty.
            sampling: As for ``sample``.
            seed: As for ``sample``.

        Returns:
            What follows the document: texts and PIL images.

        Raises:
            InputError: The model does not continue documents; the document is too long; or as for ``encode``.
        """
        return self.generate_many([document], sampling=sampling, seed=seed)[0]

    def generate_many(
        self,
        documents: Sequence[Sequence[str | Any]],
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> list[list[str | Image.Image]]:
        """As ``generate``, of several documents at once."""
        if isinstance(documents, str) or any(isinstance(one, str) for one in documents):
            raise InputError("a document is a list of texts and images, not a string")
        encoded = [
            [part if isinstance(part, str) else self.encode(part)[0] for part in document]
            for document in documents
        ]
        drawn = self.text.continued(
            encoded, sampling=sampling, generator=_generator(seed), batch_size=batch_size
        )
        return [
            [part if isinstance(part, str) else self.decode(part[None])[0] for part in document]
            for document in drawn
        ]

    def complete(
        self,
        images: Images,
        keep: Tensor | np.ndarray,
        labels: Labels = None,
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
        batch_size: int = 64,
        parallel: bool = False,
        window: int | None = None,
        accelerator: Accelerator | None = None,
        paste: bool = True,
        output: Output = "pil",
        progress: Callable[[float, int], None] | None = None,
    ) -> Any:
        """Keep a region of images and draw the rest.

        A symbol is kept if all of its pixels are. Symbols are drawn in raster order: they fit what is kept above
        and to the left of them, and do not know what is kept below.

        Args:
            images: As for ``encode``.
            keep: bool ``(H, W)`` or ``(B, H, W)``, true where pixels are kept.
            labels: As for ``sample``.
            sampling: As for ``sample``.
            seed: As for ``sample``.
            batch_size: As for ``sample``.
            paste: Put the original pixels of the kept region back into the decoded image.
            output: As for ``sample``.
            progress: As for ``sample``.

        Raises:
            InputError: As for ``encode`` and ``sample``; or ``keep`` is no mask of the images.
        """
        _check_output(output)
        originals = self._batch(images)
        mask = torch.as_tensor(keep)
        if (
            mask.dtype != torch.bool
            or tuple(mask.shape[-2:]) != self.image_shape[1:]
            or mask.ndim not in (2, 3)
        ):
            height, width = self.image_shape[1:]
            raise InputError(f"keep is {mask.dtype} {tuple(mask.shape)}, expected bool ({height}, {width})")
        mask = mask.expand(len(originals), *self.image_shape[1:])[:, None]
        kept_symbols = self.tokenizer.known_sites(mask)
        symbols = self.sample_symbols(
            len(originals),
            labels,
            known=self.encode(originals),
            mask=kept_symbols.expand(-1, self.model.grid.channels, -1, -1),
            sampling=sampling,
            seed=seed,
            batch_size=batch_size,
            parallel=parallel,
            window=window,
            accelerator=accelerator,
            progress=progress,
        ).symbols
        drawn = self.decode(symbols, "tensor", batch_size=batch_size)
        return _as_output(torch.where(mask, originals, drawn) if paste else drawn, output)

    # ------------------------------------------------------------------------------------- compression

    @property
    def codec(self) -> Codec:
        """What compresses pictures with this model's probabilities."""
        return Codec(self.tokenizer, self.model)

    def compress(
        self,
        images: Images,
        *,
        names: Sequence[str] = (),
        batch_size: int = 64,
        check: bool = True,
        progress: Callable[[float, int], None] | None = None,
    ) -> Compressed:
        """Compress images by the model's probabilities, which costs about their −log2 p bits.

        They come back pixel for pixel if the tokenizer loses nothing; ``lossless`` says so. Images that the model has
        no pixels for are stored as PNG files, and counted: those of another size, unless the model takes any size
        (PixelCNN, Gated PixelCNN, PixelCNN++), with transparency, of more than 8 bits, or with colours if it is grey.

        Args:
            images: As for ``encode``, of any sizes, and nothing is fitted.
            names: Of each; kept in the file.
            batch_size: Images of one size that are coded at once; decompression takes as many at once.
            check: Decode each batch at once, and store as PNG what does not come back.
            progress: Called with (images done, images in all).

        Returns:
            The file's bytes as ``content``, and what they consist of.

        Raises:
            InputError: No images, or one that neither the model nor PNG holds without loss.
        """
        return self.codec.compress(images, names=names, batch_size=batch_size, check=check, progress=progress)

    def decompress(self, content: bytes | str | Path) -> list[Image.Image]:
        """The images that ``compress`` made a file of, in their order.

        Args:
            content: The file's bytes or its path. ``codec.decompress`` also gives the images of a damaged file that are
                not damaged.

        Raises:
            InputError: It is not there, no such file, of another model, tokenizer or version, or damaged.
        """
        found = self.codec.decompress(
            content if isinstance(content, bytes) else read_compressed(Path(content))
        )
        if found.damaged:
            place, reason = next(iter(found.damaged.items()))
            raise InputError(
                f"{len(found.damaged)} of {len(found.images)} images are damaged, the first of them image {place}: "
                f"{reason}; codec.decompress gives the others"
            )
        return [image for image in found.images if image is not None]

    # ------------------------------------------------------------------------------------------- files

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """Open a folder that holds both stages (``tokenizer/`` and ``model/``), a prior's run, or a Hub id."""
        folder = local_folder(source, revision)
        for part in ("tokenizer", "model"):
            if not (folder / part).is_dir():
                raise InputError(f"{folder} holds no {part}/, expected a pipeline's folder or a prior's run")
        return cls(
            open_tokenizer(folder / "tokenizer"), open_model(folder / "model"), open_text_tokenizer(folder)
        )

    def save_pretrained(self, folder: str | Path, *, card: str = "") -> Path:
        """Save both stages to one folder, which appears whole or not at all."""
        folder = Path(folder)
        if folder.exists() and not (folder / "tokenizer").is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no pipeline; save to a new folder")
        with new_folder(folder) as pending:
            self.tokenizer.save_pretrained(pending / "tokenizer")
            self.model.save_pretrained(pending / "model")
            if self.text_tokenizer:
                self.text_tokenizer.save_pretrained(pending / TEXT_FOLDER)
            (pending / CARD_NAME).write_text(
                f"---\nlibrary_name: rasterwise\ntags:\n- rasterwise\n---\n\n# {self.model.kind} on "
                f"{self.tokenizer.kind}\n\nOpen it with `from rasterwise import ImagePipeline` and "
                f"`ImagePipeline.from_pretrained(FOLDER)`.\n\n{card}\n",
                encoding="utf-8",
            )
        return folder

    def push_to_hub(self, repo_id: str, *, private: bool = False, card: str = "") -> str:
        """Upload to the Hugging Face Hub; returns the address."""
        import tempfile

        with tempfile.TemporaryDirectory() as temporary:
            return upload_folder(
                self.save_pretrained(Path(temporary) / "pipeline", card=card), repo_id, private
            )

    def to(self, device: torch.device | str) -> Self:
        """Move both stages to a device."""
        self.model.to(device)
        self.tokenizer.to(device)
        return self

    # ------------------------------------------------------------------------------------------ inside

    def _batch(self, images: Images) -> Tensor:
        channels, height, width = self.image_shape
        colour: Colour = "grey" if channels == 1 else "rgb"
        opened = [open_image(Path(one)) if isinstance(one, str | Path) else one for one in listed(images)]
        fitted = [resized(one, height, width) if isinstance(one, Image.Image) else one for one in opened]
        batch = to_uint8(fitted, colour)
        if tuple(batch.shape[1:]) != self.image_shape:
            found = "×".join(map(str, batch.shape[2:]))
            raise InputError(f"images are {found}, this model's are {height}×{width}; resize them")
        return batch

    def _condition(self, labels: Labels, n: int, texts: Prompts | None = None) -> Condition | None:
        tokens = None if texts is None else self.text.texts(texts, n)
        if labels is None:
            return None if tokens is None else Condition(text=tokens)
        if isinstance(labels, Tensor | np.ndarray):
            labels = labels.tolist()
        if isinstance(labels, str) or not isinstance(labels, Sequence):
            labels = [labels] * n
        if len(labels) != n:
            raise InputError(f"{len(labels)} labels for {n} images; give one for all, or one each")
        indices = [class_index(label, self.model.config.classes) for label in labels]
        return Condition(torch.tensor(indices), text=tokens)


def class_index(label: int | str | np.integer, classes: Sequence[str]) -> int:
    """The index of a class that is given by its index or by its name; names come first."""
    if not classes:
        raise InputError("the model was trained without classes; leave the label out")
    if isinstance(label, np.integer):
        label = int(label)
    if label in classes:
        return list(classes).index(str(label))
    if str(label).isdecimal() and int(label) < len(classes):
        return int(label)
    names = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
    raise InputError(f"label {label!r} is out of range, expected 0 to {len(classes) - 1}, or a name: {names}")


def _share(n: int, accelerator: Accelerator) -> Tensor:
    """The indices of the images that this process draws: as many in each, so that they can be gathered."""
    share = -(-n // accelerator.num_processes)
    return (torch.arange(share) + share * accelerator.process_index) % n  # past the last, the first again


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _check_output(output: str) -> None:
    if output not in get_args(Output):
        raise InputError(f"output is {output!r}, expected one of {', '.join(get_args(Output))}")


def _as_output(images: Tensor, output: Output) -> Any:
    if output == "tensor":
        return images
    return images.movedim(1, 3).numpy() if output == "numpy" else [to_pil(image) for image in images]
