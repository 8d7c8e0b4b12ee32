"""Points on a grid, each at a place of its own, near to where it was."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns of the squarest grid that holds so many points; not more rows."""
    columns = math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


def assigned(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows and columns of points, n×2, which makes the sum of squared distances least.

    The points are scaled to the grid's sides first, each axis by itself. Jonker and Volgenant
    1987, doi:10.1007/BF02278710; as Karpathy drew maps of images (2014).

    Args:
        points: n×2: across, then up.
    """
    rows, columns = grid_shape(len(points))
    low, span = points.min(0), np.ptp(points, 0)
    scaled = (points - low) / np.where(span > 0, span, 1.0)
    wanted = np.stack([(1 - scaled[:, 1]) * (rows - 1), scaled[:, 0] * (columns - 1)], 1)
    places = np.indices((rows, columns)).reshape(2, -1).T
    _, chosen = linear_sum_assignment(cdist(wanted, places, "sqeuclidean"))
    found: NDArray[np.int64] = places[chosen].astype(np.int64)
    return found
