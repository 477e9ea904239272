"""Stage 2: a transformer prior over the codes of a tokenizer."""

from stage2_prior.transformer.model import TransformerPrior
from stage2_prior.transformer.network import TransformerPriorConfig

__all__ = ["TransformerPrior", "TransformerPriorConfig"]
