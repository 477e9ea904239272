"""What all tests share."""

from __future__ import annotations

import pytest
import torch

from tests.autoregressive_suite import AutoregressiveSuite


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the shared suite on every grid that a model's test class names."""
    if metafunc.cls is not None and issubclass(metafunc.cls, AutoregressiveSuite):
        for name, grids in (("grid", metafunc.cls.grids), ("tiny_grid", metafunc.cls.tiny_grids)):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, grids, ids=str)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
