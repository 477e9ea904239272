"""TensorBoard events, written where they come up."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image as image_summary
from torch.utils.tensorboard.summary import scalar as scalar_summary

_count = itertools.count()


class Events:
    """A file of events in a run's folder.

    tensorboard's own writer has a thread, which a full disk or a folder that is removed ends behind the training's
    back. This one writes at once, so that a fault is an exception where it happens.

    Args:
        folder: The run's.
        purge_step: Hide what an earlier session of the run wrote from this step on; None for nothing.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        self._file = (folder / f"events.out.tfevents.{name}").open("wb")
        self._records = RecordWriter(self._file)
        self._add(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Add metrics of a split."""
        for name, value in metrics.items():
            self._summary(step, scalar_summary(f"{split}/{name}", value))

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """Add an image."""
        self._summary(step, image_summary(name, np.array(image.convert("RGB")), dataformats="HWC"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _summary(self, step: int, summary: Summary) -> None:
        self._add(Event(step=step, summary=summary))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._file.flush()
