"""How trustworthy maps are, beside scikit-learn's t-SNE: python -m tests.bench.maps

On all 1,797 digits of scikit-learn, and on what Lite0 makes of 500 crops of scikit-image's photos.
Both start from principal components and have a perplexity of 30.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pellucid_server.methods.inspect.embed import Embed, default_layer
from pellucid_server.models.registry import load_model
from pellucid_server.projection.plan import Plan, TSne
from pellucid_server.projection.solve import project
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE, trustworthiness

from tests.bench.crops import crops
from tests.harness import CPU, running

NEIGHBORS = 10
CROPS = 500
RESULT = Path(__file__).parent / "results" / "maps.json"


def sets() -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield "digits", load_digits().data.astype(np.float32)
    yield "crops", crop_codes()


def crop_codes() -> NDArray[np.float32]:
    """What the classifier of Lite0 gets, 500 × 1280."""
    lite = load_model("efficientnet_lite0", device=CPU, side_px=224)
    method = Embed(default_layer(lite.network))
    codes = []
    with running() as runner:
        for _, crop in crops(CROPS):
            image = torch.from_numpy(lite.preprocessing.apply(crop))
            codes.append(runner.run(lite, method, image).result.code.numpy())
    return np.stack(codes)


def main() -> None:
    torch.set_num_threads(1)
    rows = {}
    for name, codes in sets():
        started_s = time.perf_counter()
        plan = Plan(TSne()).filled(*codes.shape)
        made = project(codes, np.arange(len(codes)), plan, None, lambda _: None)
        own_s, started_s = time.perf_counter() - started_s, time.perf_counter()
        theirs = TSNE(random_state=0, init="pca", perplexity=30).fit_transform(codes)
        their_s = time.perf_counter() - started_s
        own, other = (
            float(trustworthiness(codes, points, n_neighbors=NEIGHBORS))
            for points in (made.points, theirs)
        )
        rows[name] = {
            "points": len(codes),
            "trustworthiness": round(own, 4),
            "scikit_learn": round(other, 4),
            "seconds_ratio": round(own_s / their_s, 3),
        }
        print(name, rows[name], flush=True)
    RESULT.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
