"""Every connector against the authors' code; what was run is told in benchmarks/fusion/parity.py."""

import pytest
import torch

from benchmarks.fusion.parity import CASES, RECORDED, digest, ours

CLOSE = 1e-5


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_the_authors(name):
    far = (torch.tensor(digest(ours(CASES[name]))) - torch.tensor(RECORDED[name])).abs().max()
    assert far < CLOSE
