"""All that shows what a unit is after, on one sheet.

After the Deep Visualization Toolbox: Yosinski and others 2015, arXiv:1506.06579.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .compare import CONCURRENCY
from .errors import BadArgument, StatusError
from .types import Box, Model, Neuron, Preprocessing, format_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from .client import Client
    from .looking import Patch, TopPatches
    from .optimizing import OptimizedImage

METHODS = ("guided_backprop", "deconvnet")
"""What shows which pixels of a patch excite the unit: the first that the model supports."""

PATCH_COUNT = 9
"""As many as the toolbox shows."""

_Made = TypeVar("_Made")


@dataclass(frozen=True, eq=False)
class Dossier:
    """What shows what a unit is after.

    Attributes:
        model: The model's name.
        layer: The unit's layer.
        channel: Its channel.
        found: The patches that excite it most; None where there is no index of them.
        method: What the explanations are by; empty where there are none.
        explanations: For each patch how its pixels excite the unit there, cut to the patch,
            float32, 3 × height × width; None where that failed, or the patch is empty.
        optimized: An image made for it; None where that failed.
        score: Of that image.
        missing: What is not there, and why.
    """

    model: str
    layer: str
    channel: int
    found: "TopPatches | None" = field(repr=False)
    method: str
    explanations: tuple[NDArray[np.float32] | None, ...] = field(repr=False)
    optimized: "Image | None" = field(repr=False)
    score: float
    missing: tuple[str, ...]

    def sheet(self, *, cell_px: int = 160) -> "Image":
        """The image made for the unit and its histogram; below them patches, explained."""
        from .render import blank, contact_sheet

        rows: list[list[Image]] = [[]]
        captions: list[list[str]] = [[]]
        labels = ["made for it"]
        if self.optimized is not None:
            rows[0].append(self.optimized)
            captions[0].append(f"optimized: {self.score:.4g}")
        if self.found is not None:
            rows[0].append(histogram(self.found.edges, self.found.counts, cell_px))
            captions[0].append("photos by their largest activation")
            labels += ["patches that excite it", self.method.replace("_", " ")]
            patches = self.found.patches
            rows.append([patch.image or blank(cell_px) for patch in patches])
            captions.append([f"{patch.activation:.4g}: {patch.photo}" for patch in patches])
            pictures = [None if one is None else _pictured(one) for one in self.explanations]
            rows.append([picture or blank(cell_px) for picture in pictures])
            captions.append([""] * len(rows[-1]))
        kept = [place for place, row in enumerate(rows) if row]
        made = contact_sheet(
            [rows[place] for place in kept],
            row_labels=[labels[place] for place in kept],
            captions=[captions[place] for place in kept],
            cell_px=cell_px,
        )
        title = f"{self.model}: {self.layer}, channel {self.channel}"
        return _titled(made, title, [f"missing: {why}" for why in self.missing])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the sheet to a .png or .jpg file.

        Raises:
            BadArgument: The name of the file ends otherwise.
            OSError: The file cannot be written.
        """
        self.sheet().save(path, format_of(path), quality=95)


def unit(
    client: "Client",
    layer: str,
    channel: int,
    *,
    patch_count: int = PATCH_COUNT,
    step_count: int | None = None,
    model: str = "",
    timeout_s: float = 600.0,
) -> Dossier:
    """All that a server has to say of a unit; what fails is said to be missing.

    Args:
        client: Of the server.
        layer: The unit's layer.
        channel: Its channel, from 0.
        patch_count: How many patches at most: 1 to what the server's index keeps.
        step_count: Of the optimization; its preset's when None.
        model: Its name; the server's default model when empty.
        timeout_s: The deadline of each call in seconds.

    Raises:
        BadArgument: The model has no such layer or channel.
        StatusError: Nothing could be made; the first of the reasons.
    """
    known = client.get_model(model, timeout_s=timeout_s)
    has_places = _check(known, layer, channel)
    failures: dict[str, StatusError] = {}

    def tried(name: str, make: Callable[[], _Made]) -> _Made | None:
        try:
            return make()
        except StatusError as error:
            failures.setdefault(name, error)
            return None

    def optimized() -> "OptimizedImage":
        steps: dict[str, Any] = {} if step_count is None else {"step_count": step_count}
        whole = Neuron(layer, channel)
        making = client.optimize(whole, model=model, preset="olah", timeout_s=timeout_s, **steps)
        return making.result().best

    image = tried("optimized image", optimized)

    def patches_of_index() -> "TopPatches":
        return client.top_patches(
            layer,
            channel,
            top_k=patch_count,
            include_photos=True,
            model=model,
            timeout_s=timeout_s,
        )

    found = tried("patches", patches_of_index)
    if image is None and found is None:
        raise next(iter(failures.values()))
    refusals = {one.method: one.reason for one in known.methods if not one.supported}
    method = next((name for name in METHODS if name not in refusals), "")

    def explained(patch: "Patch") -> NDArray[np.float32] | None:
        if patch.input is None or patch.image is None or not method:
            return None
        where = (patch.y, patch.x) if has_places else (None, None)
        photo = _prepared(patch.input, known.preprocessing)
        result = tried(
            method,
            lambda: client.explain(
                photo,
                method,
                target=Neuron(layer, channel, *where),
                outputs=("attribution",),
                model=model,
                timeout_s=timeout_s,
            ),
        )
        if result is None or result.attribution is None:
            return None
        return _cut(result.attribution, patch.box)

    patches: Sequence[Patch] = [] if found is None else found.patches
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        explanations = tuple(pool.map(explained, patches))
    missing = [f"{name}: {error.message}" for name, error in failures.items()]
    if found is not None and not method:
        missing.append(f"{METHODS[0]}: {refusals[METHODS[0]]}")
    return Dossier(
        known.name,
        layer,
        channel,
        found,
        method,
        explanations,
        None if image is None else image.image,
        0.0 if image is None else image.score,
        tuple(missing),
    )


def _check(model: Model, layer: str, channel: int) -> bool:
    """Whether the unit has places.

    Raises:
        BadArgument: The model has no such unit.
    """
    known = next((one for one in model.layers if one.name == layer and one.targetable), None)
    if known is None:
        raise BadArgument(f"layer: {layer!r} is not a layer of {model.name} that can be a target")
    last_axis = known.layout in ("maps_channels_last", "tokens")
    count = known.shape[-1 if last_axis else 0]
    if not 0 <= channel < count:
        raise BadArgument(f"channel: is {channel}; must be 0 to {count - 1}")
    return bool(known.grid)


def _prepared(seen: "Image", made: Preprocessing) -> NDArray[np.float32]:
    """What the network saw of a photo, as it sees it."""
    unit = np.asarray(seen.convert("RGB"), np.float64) / 255
    normalized = (unit - np.array(made.mean)) / np.array(made.std)
    return np.ascontiguousarray(normalized.transpose(2, 0, 1), np.float32)


def _cut(attribution: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    """The part of it that the patch is."""
    top, left = round(box.y_px), round(box.x_px)
    bottom, right = round(box.y_px + box.height_px), round(box.x_px + box.width_px)
    return attribution[:, top:bottom, left:right]


def _pictured(attribution: NDArray[np.float32]) -> "Image":
    """In its own colours, nothing being grey."""
    from .tiles import draw

    longer_px = max(attribution.shape[1:])
    return draw(attribution[None], tile_px=longer_px, signed=True, shared=False).picture


_BAR: tuple[int, int, int] = (70, 110, 160)
_INK: tuple[int, int, int] = (45, 50, 58)


def histogram(edges: NDArray[np.float64], counts: NDArray[np.int64], side_px: int) -> "Image":
    """Bars on white, as high as wide; the first and the last edge below them.

    Args:
        edges: Of bins, one more than counts.
        counts: In each bin.
        side_px: Of the picture.
    """
    from PIL import Image, ImageDraw

    from .render import _font, _height, _number

    font = _font(max(9, side_px // 16))
    picture = Image.new("RGB", (side_px, side_px), "white")
    pen = ImageDraw.Draw(picture)
    margin, base = side_px // 16, side_px - _height(font) - 2
    room = side_px - 2 * margin
    most = max(int(counts.max()), 1)
    for place, count in enumerate(counts.tolist()):
        left = margin + place * room // len(counts)
        right = max(left, margin + (place + 1) * room // len(counts) - 2)
        if count:
            top = base - max(1, round((base - margin) * count / most))
            pen.rectangle((left, top, right, base - 1), _BAR)
    pen.line((margin, base, side_px - margin, base), _INK)
    pen.text((margin, base + 2), _number(float(edges[0])), _INK, font)
    pen.text((side_px - margin, base + 2), _number(float(edges[-1])), _INK, font, anchor="ra")
    return picture


def _titled(sheet: "Image", title: str, notes: Sequence[str]) -> "Image":
    """A sheet with a line above it, and lines below."""
    from PIL import Image, ImageDraw

    from .render import _font, _height, _wrap

    font, small = _font(18), _font(13)
    margin = 8
    above = _height(font) + margin
    room = sheet.width - 2 * margin
    lines = [line for note in notes for line in _wrap(note, small, room)]
    below = _height(small) * len(lines) + (margin if lines else 0)
    made = Image.new("RGB", (sheet.width, above + sheet.height + below), "white")
    made.paste(sheet, (0, above))
    pen = ImageDraw.Draw(made)
    pen.text((margin, margin), "".join(_wrap(title, font, room)[:1]), _INK, font)
    for number, line in enumerate(lines):
        top = above + sheet.height + number * _height(small)
        pen.text((margin, top), line, (150, 40, 40), small)
    return made
