"""The one table of priors; what ``__all__`` names here, ``rasterwise`` offers."""

from __future__ import annotations

from rasterwise.models.autoregressive import AutoregressiveModel
from stage2_prior.documents.model import Chameleon
from stage2_prior.documents.network import ChameleonConfig
from stage2_prior.transformer.model import TransformerPrior
from stage2_prior.transformer.network import TransformerPriorConfig

__all__ = ["Chameleon", "ChameleonConfig", "TransformerPrior", "TransformerPriorConfig"]

MODELS: dict[str, type[AutoregressiveModel]] = {"transformer-prior": TransformerPrior, "chameleon": Chameleon}
"""Every prior by its kind."""
