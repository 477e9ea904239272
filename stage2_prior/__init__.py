"""Stage 2: a transformer prior over the codes of a tokenizer."""

from stage2_prior.models import *
