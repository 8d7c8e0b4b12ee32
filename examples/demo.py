"""Predicts and explains three free photos, and writes one sheet of them.

Starts a server of its own, calls it over gRPC and stops it again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pellucid
import skimage.data
from local import server, wait_until_ready
from numpy.typing import NDArray
from pellucid import render
from PIL.Image import Image
from rich.progress import Progress
from rich.table import Table

OUTPUT = Path("demo_output")
METHODS = ("gradient", "deconvnet", "guided_backprop", "occlusion")

Photo = NDArray[np.uint8]


@dataclass(frozen=True)
class Subject:
    """A free photo, and a box drawn by hand around what it shows.

    Attributes:
        name: Its name in scikit-image.
        box: Left, top, right and bottom in the photo's pixels.
        label: The label that a good network gives it first; None where none is right.
        probability: What that label should be given at least.
    """

    name: str
    box: tuple[int, int, int, int]
    label: str | None = None
    probability: float = 0.0


SUBJECTS = (
    Subject("cat", (58, 0, 345, 300), "Egyptian cat", 0.6),
    Subject("coffee", (165, 12, 420, 315), "espresso"),
    Subject("rocket", (300, 115, 345, 405)),
)


def values_of(explanation: pellucid.ExplainResult) -> NDArray[np.float32]:
    """The attribution, one value a pixel, on the scale that its picture is drawn on."""
    assert explanation.attribution is not None
    signed = explanation.color_scale == "signed"
    return render.reduce_channels(explanation.attribution, "signed" if signed else "absolute")


def inside(subject: Subject, shape: tuple[int, ...], photo: Photo) -> NDArray[np.bool_]:
    """Which pixels of a map lie in the subject's box; the map covers the whole photo."""
    left, top, right, bottom = subject.box
    rows, columns = (
        (np.arange(count) + 0.5) * size / count
        for count, size in zip(shape, photo.shape, strict=False)
    )
    return ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))


def show(
    client: pellucid.Client, subject: Subject, progress: Progress, failures: list[str]
) -> tuple[list[Photo | Image], list[str]]:
    """Predicts and explains one photo; returns its row of the sheet and the captions."""
    photo: Photo = np.asarray(getattr(skimage.data, subject.name)())
    prediction = client.predict(photo)
    table = Table("class", "probability", title=subject.name)
    for one in prediction.predictions:
        table.add_row(one.label, f"{one.probability:.3f}")
    progress.console.print(table)
    top = prediction.top
    if subject.label and (top.label != subject.label or top.probability < subject.probability):
        failures.append(f"{subject.name} is {top.label} at {top.probability:.2f}")
    row: list[Photo | Image] = [photo]
    captions = [f"{top.label} {top.probability:.2f}"]
    for method in METHODS:
        explanation = client.explain(photo, method, outputs=("attribution", "rendering"))
        values = values_of(explanation)
        box = inside(subject, values.shape, photo)
        positive = values.clip(min=0)
        share = positive[box].sum() / positive.sum()
        peaks_inside = bool(box.flat[values.argmax()])
        progress.console.print(
            f"{subject.name}, {method}: {share:.0%} of the positive mass is in the box "
            f"({box.mean():.0%} of the photo), the peak {'too' if peaks_inside else 'is not'}"
        )
        if method == "occlusion" and subject.label and not peaks_inside:
            failures.append(f"{subject.name}: occlusion peaks outside of the box")
        row.append(explanation.image)
        captions.append(f"{share:.0%} in the box")
        progress.advance(progress.task_ids[0])
    return row, captions


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    failures: list[str] = []
    with (
        server() as (address, _),
        pellucid.Client(address, timeout_s=120) as client,
        Progress() as progress,
    ):
        task = progress.add_task("starting the server", total=None)
        wait_until_ready(client)
        progress.update(task, description="explaining", total=len(SUBJECTS) * len(METHODS))
        shown = [show(client, subject, progress, failures) for subject in SUBJECTS]
    sheet = render.contact_sheet(
        [row for row, _ in shown],
        row_labels=[subject.name for subject in SUBJECTS],
        column_labels=["photo", *(method.replace("_", " ") for method in METHODS)],
        captions=[captions for _, captions in shown],
    )
    sheet.save(OUTPUT / "sheet.png")
    print(f"wrote {OUTPUT / 'sheet.png'}")
    if failures:
        raise SystemExit("; ".join(failures))


if __name__ == "__main__":
    main()
