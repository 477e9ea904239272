"""Stage 2: a transformer prior over the codes of a tokenizer."""

from stage2_prior.transformer import TransformerPrior, TransformerPriorConfig

__all__ = ["TransformerPrior", "TransformerPriorConfig"]
