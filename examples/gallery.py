"""One photo under every method, and what covering the other object does: the docs' pictures.

Starts a server of its own, calls it over gRPC and stops it again.
"""

from pathlib import Path

import numpy as np
import pellucid
import skimage.data
from local import server, wait_until_ready
from numpy.typing import NDArray
from pellucid import render
from PIL import Image
from rich.progress import Progress

DOCS = Path("docs")
COLUMNS = 5
SIDE_PX = 300
CAT, COFFEE = (60, 0, 360, 300), (150, 0, 450, 330)  # left, top, right, bottom


def two_objects() -> NDArray[np.uint8]:
    """A cat on the left, a cup of coffee on the right."""
    composite = Image.new("RGB", (2 * SIDE_PX, SIDE_PX))
    for place, (name, box) in enumerate((("cat", CAT), ("coffee", COFFEE))):
        half = Image.fromarray(getattr(skimage.data, name)()).crop(box)
        composite.paste(half.resize((SIDE_PX, SIDE_PX)), (place * SIDE_PX, 0))
    return np.asarray(composite)


def gallery(client: pellucid.Client, progress: Progress) -> Image.Image:
    """The cat under every method that applies to the default model."""
    photo = skimage.data.cat()
    methods = [support.method for support in client.get_model().methods if support.supported]
    methods.remove("predict")
    task = progress.add_task("gallery", total=len(methods))
    tiles, labels = [photo], ["the photo"]
    for method in methods:
        progress.update(task, description=method)
        made = client.explain(photo, method, longest_side_px=448)
        tiles.append(made.image)
        labels.append(method)
        progress.advance(task)
    rows = range(0, len(tiles), COLUMNS)
    return render.contact_sheet(
        [tiles[start : start + COLUMNS] for start in rows],
        captions=[labels[start : start + COLUMNS] for start in rows],
    )


def covered(client: pellucid.Client) -> Image.Image:
    """Each label's probability, and where covering raises it (blue)."""
    photo = two_objects()
    tiles: list[NDArray[np.uint8] | Image.Image] = [photo]
    captions = ["the photo"]
    for label in ("Egyptian cat", "espresso"):
        made = client.explain(
            photo, "occlusion", target=label, score="probability", window_px=64, stride_px=16
        )
        details = made.occlusion_details
        assert details is not None
        highest = made.target.score - float(details.falls.min())
        tiles.append(made.image)
        captions.append(f"{label}: {made.target.score:.2f}, covered at best {highest:.2f}")
        print(captions[-1], details.largest_rise)
    return render.contact_sheet([tiles], captions=[captions])


def main() -> None:
    with server() as (address, _), pellucid.Client(address, timeout_s=300) as client:
        with Progress() as progress:
            progress.add_task("starting the server", total=None)
            wait_until_ready(client)
            gallery(client, progress).convert("RGB").save(DOCS / "gallery.jpg", quality=88)
        covered(client).convert("RGB").save(DOCS / "covered.jpg", quality=90)
    print(f"wrote {DOCS / 'gallery.jpg'} and {DOCS / 'covered.jpg'}")


if __name__ == "__main__":
    main()
