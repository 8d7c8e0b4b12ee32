"""Optimized style on a CUDA device, beside plain PyTorch. Skipped where there is none."""

import pytest
import torch

from tests.bench import style_vgg

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_it_ends_where_plain_torch_ends() -> None:
    options = ["--device", "cuda", "--side", "256", "--steps", "50", "--precision", "float32"]
    figures = style_vgg.main([*options, "--turns", "1", "--jobs", "2"])
    assert figures["served"]["loss"] == pytest.approx(figures["plain"]["loss"], rel=0.05)
    assert figures["served"]["peak_bytes"] > 0
