"""Benchmarks at their smallest."""

import pytest

from benchmarks import device


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's rate is taken from products that are done at once; the largest take seconds."""
    monkeypatch.setattr(device, "_SIDES", device._SIDES[:2])
