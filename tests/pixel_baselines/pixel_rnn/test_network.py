"""What both PixelRNNs share: their decoders' cost and memory, half precision, gradients, configuration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pixel_baselines.pixel_rnn.diagonal_bilstm import DiagonalBiLSTM
from pixel_baselines.pixel_rnn.diagonal_bilstm_layer import DiagonalBiLSTMConfig
from pixel_baselines.pixel_rnn.network import PixelRNN, PixelRNNConfig
from pixel_baselines.pixel_rnn.row_lstm import RowLSTM
from pixel_baselines.pixel_rnn.row_lstm_layer import RowLSTMConfig
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import CLASSES, decoded_logits, random_condition, random_symbols

both = pytest.mark.parametrize(
    ("model_class", "config_class"), [(RowLSTM, RowLSTMConfig), (DiagonalBiLSTM, DiagonalBiLSTMConfig)]
)


@both
@pytest.mark.parametrize("channels", [1, 3])
def test_each_activation_is_computed_once(
    model_class: type[PixelRNN], config_class: type[PixelRNNConfig], channels: int
) -> None:
    """Decoding a whole grid multiplies no more than one teacher-forced pass, and less where masks are zero."""
    grid = Grid(channels, 6, 7, 16)
    model = model_class(config_class(grid=grid, depth=2, width=48)).eval()
    symbols = random_symbols(grid, 2)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        model(symbols)
    decoder = model.decoder(2)
    with torch.no_grad(), FlopCounterMode(display=False) as cached:
        decoded_logits(decoder, symbols)
    share = cached.get_total_flops() / once.get_total_flops()
    assert 0.5 < share < 1.01


@both
def test_decoder_holds_a_row(model_class: type[PixelRNN], config_class: type[PixelRNNConfig]) -> None:
    """A decoder's buffers do not grow with the height of the grid."""

    def held(height: int) -> int:
        model = model_class(config_class(grid=Grid(1, height, 5, 4), depth=2, width=16))
        decoder = model.decoder(3)
        for _ in range(decoder.grid.size):
            decoder.advance(torch.zeros(3, 1, dtype=torch.int64))
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in vars(decoder).values()
            if isinstance(tensor, Tensor)
        }
        return sum(storages.values())

    assert held(3) == held(12)


@both
def test_half_precision_training(model_class: type[PixelRNN], config_class: type[PixelRNNConfig]) -> None:
    """Under bf16 autocast the log-probability is float32 and close, and every parameter gets a gradient."""
    grid = Grid(3, 5, 6, 8)
    model = model_class(config_class(grid=grid, classes=CLASSES, depth=2, width=24))
    symbols, condition = random_symbols(grid, 3), random_condition(3)
    exact = model.log_prob(symbols, condition)
    with torch.autocast("cpu", torch.bfloat16):
        nats = model.log_prob(symbols, condition)
    assert nats.dtype == torch.float32
    assert torch.allclose(nats, exact, rtol=0.01)
    (-nats.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 0}, "depth is 0"),
        ({"width": 2}, "width is 2"),
        ({"output_width": 1}, "output_width is 1"),
        ({"input_kernel": 4}, "input_kernel is 4"),
        ({"embedding": "one-hot"}, "'one-hot'"),
        ({"embedding_width": 0}, "embedding_width is 0"),
    ],
)
def test_refuses_a_wrong_configuration(fields: dict[str, object], message: str) -> None:
    """A configuration that cannot be built is refused by the field's name."""
    with pytest.raises(InputError, match=message):
        DiagonalBiLSTMConfig(grid=Grid(3, 4, 4, 8), **fields)  # type: ignore[arg-type]
