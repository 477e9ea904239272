# What `__init__.py` offers, for type checkers and editors; tests/rasterwise/test_front_door.py compares the two.
from pipeline.image_pipeline import ImagePipeline as ImagePipeline
from pipeline.verification.verify import Verification as Verification
from pipeline.verification.verify import verify as verify
from pixel_baselines.models import *
from rasterwise.decoding.decoder import Decoder as Decoder
from rasterwise.decoding.sampling import Sampling as Sampling
from rasterwise.errors import InputError as InputError
from rasterwise.errors import NonFiniteError as NonFiniteError
from rasterwise.models.autoregressive import AutoregressiveConfig as AutoregressiveConfig
from rasterwise.models.autoregressive import AutoregressiveModel as AutoregressiveModel
from rasterwise.symbols.condition import Condition as Condition
from rasterwise.symbols.documents.document import Document as Document
from rasterwise.symbols.documents.document import ImageSegment as ImageSegment
from rasterwise.symbols.documents.document import TextSegment as TextSegment
from rasterwise.symbols.documents.grammar import Grammar as Grammar
from rasterwise.symbols.grid import Grid as Grid
from rasterwise.symbols.text import TextBatch as TextBatch
from rasterwise.tokenizers.image import ImageTokenizer as ImageTokenizer
from rasterwise.tokenizers.pixels import PixelTokenizer as PixelTokenizer
from rasterwise.tokenizers.pixels import PixelTokenizerConfig as PixelTokenizerConfig
from rasterwise.tokenizers.text import TextTokenizer as TextTokenizer
from rasterwise.tokenizers.text import TextTokenizerConfig as TextTokenizerConfig
from stage1_vqvae.autoencoders.table import *
from stage1_vqvae.imported.table import *
from stage1_vqvae.quantizers.table import *
from stage1_vqvae.tokenizers.table import *
from stage2_prior.models import *

__version__: str
