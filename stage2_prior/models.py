"""The one table of priors; what ``__all__`` names here, ``rasterwise`` offers."""

from __future__ import annotations

from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel
from stage2_prior.any_order.model import AnyOrderPrior
from stage2_prior.any_order.network import AnyOrderPriorConfig
from stage2_prior.conditioning.text import TextImageConfig, TextImageModel
from stage2_prior.documents.model import Chameleon
from stage2_prior.documents.network import ChameleonConfig
from stage2_prior.hierarchical.model import HierarchicalPrior
from stage2_prior.hierarchical.network import HierarchicalPriorConfig
from stage2_prior.text_to_image.dalle import DALLE
from stage2_prior.text_to_image.dalle_network import DALLEConfig
from stage2_prior.text_to_image.parti import Parti
from stage2_prior.text_to_image.parti_network import PartiConfig
from stage2_prior.transformer.model import TransformerPrior
from stage2_prior.transformer.network import TransformerPriorConfig

__all__ = [
    "DALLE",
    "AnyOrderPrior",
    "AnyOrderPriorConfig",
    "Chameleon",
    "ChameleonConfig",
    "DALLEConfig",
    "HierarchicalPrior",
    "HierarchicalPriorConfig",
    "Parti",
    "PartiConfig",
    "TransformerPrior",
    "TransformerPriorConfig",
]

TEXT_MODELS: dict[str, type[TextImageModel]] = {"dalle": DALLE, "parti": Parti, "chameleon": Chameleon}
"""Every model of text and images by its kind."""

CODE_MODELS: dict[str, type[AutoregressiveModel]] = {
    "transformer-prior": TransformerPrior,
    "any-order-prior": AnyOrderPrior,
    "hierarchical-prior": HierarchicalPrior,
}
"""Every prior of codes alone by its kind."""

MODELS: dict[str, type[AutoregressiveModel]] = {**CODE_MODELS, **TEXT_MODELS}
"""Every prior by its kind."""


def code_model_of(config: AutoregressiveConfig) -> type[AutoregressiveModel]:
    """The prior of codes alone that a configuration is of."""
    return next(model for model in CODE_MODELS.values() if model.config_class is type(config))


def text_model_of(config: TextImageConfig) -> TextImageModel:
    """The model of text and images that a configuration describes."""
    return next(model for model in TEXT_MODELS.values() if model.config_class is type(config))(config)
