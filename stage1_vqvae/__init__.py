"""Stage 1: learned image tokenizers, which turn images into a small grid of discrete codes and back."""

from stage1_vqvae.autoencoders.table import *
from stage1_vqvae.imported.table import *
from stage1_vqvae.quantizers.table import *
from stage1_vqvae.tokenizers.table import *
