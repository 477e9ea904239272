"""Diagonal BiLSTM: two LSTMs that go along the diagonals, one from each upper corner."""

from __future__ import annotations

from pixel_baselines.pixel_rnn.diagonal_bilstm_decoder import DiagonalBiLSTMDecoder
from pixel_baselines.pixel_rnn.diagonal_bilstm_layer import DiagonalBiLSTMConfig, DiagonalBiLSTMLayer
from pixel_baselines.pixel_rnn.network import PixelRNN
from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.condition import Condition


class DiagonalBiLSTM(PixelRNN):
    """PixelRNN with Diagonal BiLSTM layers: every site sees all earlier ones, in every layer.

    Args:
        config: Its architecture and its data.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv 1601.06759),
        section 3.2.

    Example:
        >>> import torch
        >>> from rasterwise import Condition, DiagonalBiLSTM, DiagonalBiLSTMConfig, Grid
        >>> config = DiagonalBiLSTMConfig(grid=Grid(1, 5, 4, 2), classes=("3", "8"), depth=2, width=16)
        >>> model = DiagonalBiLSTM(config).eval()
        >>> symbols = model.sample(2, Condition(torch.tensor([0, 1])))
        >>> symbols.shape, model.log_prob(symbols).shape
        (torch.Size([2, 1, 5, 4]), torch.Size([2]))
    """

    kind = "diagonal-bilstm"
    config_class = DiagonalBiLSTMConfig
    config: DiagonalBiLSTMConfig
    # The paper's map is as wide as the grid, and then one earlier symbol is cut off, against the paper's own
    # claim: mask A puts the last symbol of a row into no site of its row, so that the right-to-left LSTM
    # never reads it, and the sites of the row below that are further left than the first convolution
    # reaches do not see it. One more column, a site after the row's last symbol, closes the gap.
    extra_columns = 1

    def build_layer(self) -> DiagonalBiLSTMLayer:
        return DiagonalBiLSTMLayer(self.config, self.grid.width + self.extra_columns)

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return DiagonalBiLSTMDecoder(self, batch_size, condition)
