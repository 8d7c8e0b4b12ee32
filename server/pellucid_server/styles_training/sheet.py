"""What a training looks like: the painting, photos, and below them what is made of them."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from .training import to_rows

PHOTO_COUNT = 3
_GAP_PX = 4


def sheet(
    painting: NDArray[np.uint8],
    photos: NDArray[np.uint8],
    network: nn.Module,
    device: torch.device,
) -> Image.Image:
    """Two rows of squares: the photos over their stylized versions, the painting to the left.

    Args:
        painting: H × W × 3.
        photos: n × size × size × 3, each stylized by itself.
        network: As it is now.
        device: Where it is.
    """
    side = photos.shape[1]
    step = side + _GAP_PX
    made = Image.new("RGB", ((len(photos) + 1) * step - _GAP_PX, 2 * step - _GAP_PX), "white")
    shown = Image.fromarray(painting)
    shown.thumbnail((side, side))
    made.paste(shown)
    for place, photo in enumerate(photos, 1):
        with torch.no_grad():
            painted = network(to_rows(photo[None], device))[0]
        pixels = (painted.clip(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        made.paste(Image.fromarray(photo), (place * step, 0))
        made.paste(Image.fromarray(pixels), (place * step, step))
    return made
