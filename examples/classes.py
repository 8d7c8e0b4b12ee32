"""Images that the network is after: classes, a photo made again from each depth, a dream.

Starts a server of its own, calls it over gRPC and stops it again; takes minutes on a CPU. Every
class is looked at once more in 16 shifted views.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pellucid
from local import server, wait_until_ready
from numpy.typing import NDArray
from PIL import Image, ImageDraw

DOCS, PHOTO = Path("docs"), Path("examples/cat.jpg")
CLASSES = {1: "goldfish", 285: "Egyptian cat", 968: "cup", 130: "flamingo", 980: "volcano"}
LAYERS = ("conv_stem", "blocks.1.1", "blocks.2.1", "blocks.3.2", "blocks.4.2", "blocks.5.3")
STEPS = 400
GAP_PX, LABEL_PX = 6, 18
VIEWS, SHIFT_PX = 16, 16


def sheet(pictures: list[Image.Image], labels: list[str], path: Path) -> None:
    """Pictures side by side, each with its label below."""
    width, height = pictures[0].size
    made = Image.new("RGB", (len(pictures) * (width + GAP_PX), height + LABEL_PX), "white")
    draw = ImageDraw.Draw(made)
    for place, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        made.paste(picture, (place * (width + GAP_PX), 0))
        draw.text((place * (width + GAP_PX) + 2, height + 3), label, "black")
    made.save(path, quality=88)


def least_probability(client: pellucid.Client, image: NDArray[np.uint8], index: int) -> float:
    """Of a class, over views that are shifted at random in a circle."""
    generator = np.random.default_rng(0)
    shifts = generator.integers(-SHIFT_PX, SHIFT_PX + 1, (VIEWS, 2))
    views = [np.roll(image, tuple(shift), (0, 1)) for shift in shifts]
    results = client.predict_batch(views, include_logits=True)
    probabilities = []
    for result in results:
        assert isinstance(result, pellucid.PredictResult)
        assert result.logits is not None
        exponentials = np.exp(result.logits - result.logits.max())
        probabilities.append(float(exponentials[index] / exponentials.sum()))
    return min(probabilities)


def classes(client: pellucid.Client) -> None:
    def make(index: int) -> pellucid.OptimizeResult:
        return client.optimize(
            index,
            preset="olah",
            step_count=STEPS,
            learning_rate=0.03,
            tv_penalty=10.0,
            jitter_px=24,
            scaling=0.2,
        ).result()

    with ThreadPoolExecutor(len(CLASSES)) as pool:  # one batch for all of them
        results = list(pool.map(make, CLASSES))
    for (index, name), result in zip(CLASSES.items(), results, strict=True):
        least = least_probability(client, np.asarray(result.best.image), index)
        print(f"{name}: logit {result.best.score:.1f}, {least:.4f} at least in {VIEWS} views")
    pictures = [result.best.image for result in results]
    sheet(pictures, list(CLASSES.values()), DOCS / "classes.jpg")


def inversions(client: pellucid.Client) -> None:
    def make(layer: str) -> pellucid.OptimizeResult:
        return client.optimize(pellucid.Code(layer), photo=PHOTO, step_count=STEPS).result()

    with ThreadPoolExecutor(len(LAYERS)) as pool:
        results = list(pool.map(make, LAYERS))
    labels = []
    for layer, result in zip(LAYERS, results, strict=True):
        error = -result.best.progress.terms[0]
        print(f"{layer}: normalized error {error:.4f}")
        labels.append(f"{layer}: {error:.3f}")
    sheet([result.best.image for result in results], labels, DOCS / "inversion.jpg")


def dream(client: pellucid.Client) -> None:
    with Image.open(PHOTO) as photo:
        width, height = photo.size
    result = client.optimize(
        pellucid.Energy("blocks.4.1"), photo=PHOTO, width_px=width, height_px=height
    ).result()
    result.best.image.save(DOCS / "dream.jpg", quality=88)


def main() -> None:
    with server() as (address, _), pellucid.Client(address, timeout_s=300) as client:
        wait_until_ready(client)
        classes(client)
        inversions(client)
        dream(client)


if __name__ == "__main__":
    main()
