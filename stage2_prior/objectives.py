"""What is minimised to train models of text and images."""

from __future__ import annotations

from rasterwise.data.splits import Batch
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.vocabulary import PAD
from rasterwise.training.likelihood import hidden_labels
from rasterwise.training.objective import Losses, Objective
from stage2_prior.conditioning.text import TextImageModel
from stage2_prior.documents.losses import document_losses
from stage2_prior.documents.model import Chameleon


class CaptionedImageObjective(Objective):
    """Trains any model of text and images on captioned images, as its paper does.

    A batch has codes, int64 ``(B, C, H, W)``, and their ``texts``.

    Args:
        model: What is trained.
        text_dropout: Share of texts left out, so that guidance has an unconditional model. Chameleon leaves out what
            comes first, be it the text or the image.
        label_dropout: Share of labels hidden, where the model has classes.
    """

    model: TextImageModel
    criterion = "nll_nats"

    def __init__(self, model: TextImageModel, text_dropout: float = 0.1, label_dropout: float = 0.1) -> None:
        super().__init__()
        self.model, self.text_dropout, self.label_dropout = model, text_dropout, label_dropout

    def forward(self, batch: Batch) -> Losses:
        if batch.texts is None:
            raise InputError("the images have no texts to train a model of text and images on")
        labels = hidden_labels(batch, self.label_dropout) if self.model.config.classes else None
        return self.model.captioned_losses(
            batch.values, Condition(labels, text=batch.texts), self.text_dropout
        )


class DocumentObjective(Objective):
    """Trains a Chameleon on documents: negative log-likelihood of their ids, and the z-loss.

    A batch has ids, int64 ``(B, T)``, padded with PAD.

    Args:
        model: What is trained.
        context_dropout: Share of documents whose first segment is left out, for guidance.
        text_weight: How much more an id that is no code counts than a code.
    """

    model: Chameleon
    criterion = "nll_nats"

    def __init__(self, model: Chameleon, context_dropout: float = 0.1, text_weight: float = 1.0) -> None:
        super().__init__()
        self.model, self.context_dropout, self.text_weight = model, context_dropout, text_weight

    def forward(self, batch: Batch) -> Losses:
        longest = int((batch.values != PAD).sum(1).max())
        return document_losses(
            self.model, batch.values[:, :longest], self.context_dropout, text_weight=self.text_weight
        )
