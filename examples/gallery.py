"""One photo under every method, and what covering the other object does: the docs' pictures.

Starts a server of its own, calls it over gRPC and stops it again.
"""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pellucid
import skimage.data
import timm
import torch
import yaml
from local import server, wait_until_ready
from numpy.typing import NDArray
from pellucid import render
from PIL import Image
from rich.progress import Progress
from safetensors.torch import save_file

DOCS = Path("docs")
COLUMNS = 7
TRANSFORMER = "vit_tiny_with_random_weights"
SIDE_PX = 300
CAT, COFFEE = (60, 0, 360, 300), (150, 0, 450, 330)  # left, top, right, bottom


def two_objects() -> NDArray[np.uint8]:
    """A cat on the left, a cup of coffee on the right."""
    composite = Image.new("RGB", (2 * SIDE_PX, SIDE_PX))
    for place, (name, box) in enumerate((("cat", CAT), ("coffee", COFFEE))):
        half = Image.fromarray(getattr(skimage.data, name)()).crop(box)
        composite.paste(half.resize((SIDE_PX, SIDE_PX)), (place * SIDE_PX, 0))
    return np.asarray(composite)


def write_transformer(folder: Path) -> None:
    """A model folder of a small transformer. Its weights are random: none come with the install."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    torch.nn.init.normal_(network.head.weight, std=0.1)  # all logits are 0 otherwise
    folder.mkdir()
    weights = folder / "model.safetensors"
    save_file(network.state_dict(), weights)
    steps = {"resize_shorter_side_px": 256, "height_px": 224, "width_px": 224}
    settings = {
        "architecture": "timm/vit_tiny_patch16_224",
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "preprocessing": {
            **steps,
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(settings))


def gallery(client: pellucid.Client, progress: Progress) -> Image.Image:
    """The cat under every method: on the default model, or else on the transformer."""
    photo = skimage.data.cat()
    supports = [support for support in client.get_model().methods if support.method != "predict"]
    task = progress.add_task("gallery", total=len(supports))
    tiles, labels = [photo], ["the photo"]
    for support in supports:
        progress.update(task, description=support.method)
        model = "" if support.supported else TRANSFORMER
        made = client.explain(photo, support.method, model=model, longest_side_px=448)
        tiles.append(made.image)
        labels.append(support.method + (", ViT with random weights" if model else ""))
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
    with tempfile.TemporaryDirectory() as models:
        write_transformer(Path(models) / TRANSFORMER)
        with (
            server("--models", models) as (address, _),
            pellucid.Client(address, timeout_s=300) as client,
        ):
            with Progress() as progress:
                progress.add_task("starting the server", total=None)
                wait_until_ready(client)
                gallery(client, progress).convert("RGB").save(DOCS / "gallery.jpg", quality=88)
            covered(client).convert("RGB").save(DOCS / "covered.jpg", quality=90)
    print(f"wrote {DOCS / 'gallery.jpg'} and {DOCS / 'covered.jpg'}")


if __name__ == "__main__":
    main()
