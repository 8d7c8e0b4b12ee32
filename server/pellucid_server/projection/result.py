"""What comes of codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Map:
    """What came of it.

    Attributes:
        points: n×2, float32.
        places: n×2: of each the row and the column on the grid; None where none was asked for.
        grid_shape: Rows and columns; (0, 0) where none was asked for.
        kept_variance: See reduce.Reduced.
        divergence: Of t-SNE, at its end.
        fit: Of points placed on a map of principal components: how well that is one, R².
    """

    points: NDArray[np.float32]
    places: NDArray[np.int64] | None
    grid_shape: tuple[int, int]
    kept_variance: float
    divergence: float
    fit: float
