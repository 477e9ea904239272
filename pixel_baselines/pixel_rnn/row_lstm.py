"""Row LSTM: an LSTM that goes down the rows, all columns of a row at once."""

from __future__ import annotations

from pixel_baselines.pixel_rnn.network import PixelRNN
from pixel_baselines.pixel_rnn.row_lstm_decoder import RowLSTMDecoder
from pixel_baselines.pixel_rnn.row_lstm_layer import RowLSTMConfig, RowLSTMLayer
from pixel_baselines.pixel_rnn.row_lstm_wavefront import RowLSTMWavefrontDecoder
from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.condition import Condition


class RowLSTM(PixelRNN):
    """PixelRNN with Row LSTM layers: sees a triangle that widens upwards, and so not all earlier sites.

    With mask A of side 2q + 1, L layers and kernel k = 2p + 1 a site (r, c) sees of row r the columns c − Lp − q
    to c − 1, and of row r − e those from c − (e + L)p − q to c + (e − 1)p + q (for p <= q + 1, as in the paper).
    The earlier sites right of that are the model's blind spot, thanks to which ``sample`` draws a row before the
    one above it has ended, see ``RowLSTMWavefrontDecoder``.

    Args:
        config: Its architecture and its data.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv 1601.06759),
        section 3.1.

    Example:
        >>> import torch
        >>> from rasterwise import Grid, RowLSTM, RowLSTMConfig
        >>> model = RowLSTM(RowLSTMConfig(grid=Grid(3, 4, 5, 256), depth=2, width=24)).eval()
        >>> symbols = model.sample(2, generator=torch.Generator().manual_seed(0))
        >>> symbols.shape, model.log_prob(symbols).shape
        (torch.Size([2, 3, 4, 5]), torch.Size([2]))
    """

    kind = "row-lstm"
    config_class = RowLSTMConfig
    config: RowLSTMConfig

    def build_layer(self) -> RowLSTMLayer:
        return RowLSTMLayer(self.config)

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return RowLSTMDecoder(self, batch_size, condition)

    def wavefront_decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return RowLSTMWavefrontDecoder(self, batch_size, condition)
