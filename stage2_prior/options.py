"""The options of ``rasterwise train prior``."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from rasterwise.command_line.options import TrainingOptions, in_order
from rasterwise.configuration import CountOrZero, Share, Weight, configuration
from rasterwise.errors import InputError
from rasterwise.training.config import TrainingConfig
from stage2_prior.any_order.network import AnyOrderPriorConfig
from stage2_prior.hierarchical.network import HierarchicalPriorConfig
from stage2_prior.transformer.network import TransformerPriorConfig

COMMAND = "train prior"
"""The name of a transformer prior's runs in run.json; other models' have ``--model`` and the model's word behind it."""

Model = TypeVar("Model")


@in_order
@configuration(kw_only=True)
class TrainPrior(TrainingOptions):
    """Train a transformer prior on a dataset of codes.

    Attributes:
        codes: The codes' folder, from `rasterwise encode`.
        output: The run's folder; with the tokenizer in it, it is a whole pipeline.
        model: The transformer.
        training: How it is trained.
        label_dropout: Share of labels hidden in training, so that guidance has an unconditional model.
    """

    codes: Path = Path("runs/codes")
    output: Path = Path("runs/prior")
    model: TransformerPriorConfig = field(default_factory=TransformerPriorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    label_dropout: Share = 0.1


@configuration(kw_only=True)
class TrainHierarchicalPrior(TrainPrior):
    """Train a hierarchical prior on codes of two grids: of the top grid, and of the bottom grid given the top one.

    Attributes:
        model: The prior.
    """

    model: HierarchicalPriorConfig = field(default_factory=HierarchicalPriorConfig)


@configuration(kw_only=True)
class TrainAnyOrderPrior(TrainPrior):
    """Train a prior on codes in random orders that give way to raster order, to draw one or several codes a step.

    Attributes:
        model: The transformer.
        anneal_from: Share of the training after which random orders become rarer.
        anneal_to: Share of the training after which they are as rare as --final-random-share says.
    """

    model: AnyOrderPriorConfig = field(default_factory=AnyOrderPriorConfig)
    anneal_from: Share = 0.5
    anneal_to: Share = 0.75

    def __post_init__(self) -> None:
        if self.anneal_from > self.anneal_to:
            raise InputError(
                f"anneal_from is {self.anneal_from}, expected at most anneal_to, {self.anneal_to}"
            )


@in_order
@configuration(kw_only=True)
class TrainTextPrior(TrainingOptions, Generic[Model]):
    """Train a model of text and images on captioned images, or (Chameleon) on interleaved documents.

    Labels are not used.

    Attributes:
        codes: The codes' folder, from `rasterwise encode --captions` or `rasterwise encode --documents`.
        output: The run's folder; with the tokenizers in it, it is a whole pipeline.
        model: The model, which --model NAME chooses.
        text_tokenizer: Text as UTF-8 bytes, as byte-level BPE trained on the training split's texts, or "auto": BPE
            where there are some thousand different texts.
        text_vocabulary: The most tokens of BPE.
        lower_case: Turn texts into lower case.
        text_limit: Cut texts after so many tokens; 0: the longest text of the data decides what the model takes.
        training: How it is trained.
        text_dropout: Share of texts (of documents, of first segments) left out in training, so that guidance has an
            unconditional model.
        text_weight: In training on documents, how much more an id of text counts than an image code; what is reported
            is not weighted.
    """

    codes: Path = Path("runs/codes")
    output: Path = Path("runs/prior")
    model: Model
    text_tokenizer: Literal["bytes", "bpe", "auto"] = "bytes"
    text_vocabulary: Annotated[int, Field(ge=256, le=2**24)] = 1024
    lower_case: bool = False
    text_limit: CountOrZero = 0
    training: TrainingConfig = field(default_factory=TrainingConfig)
    text_dropout: Share = 0.1
    text_weight: Weight = 1.0
