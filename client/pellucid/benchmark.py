"""Evidence over a folder of photos: which method's maps hold, on average.

Beside the photos there may be a truth.json, which says what to explain and where it is:

    {"model": "planted",
     "cat.png": {"target": 3, "boxes": [[12, 40, 24, 24]]}}

A target is a class by index or label; a box is its left, top, width and height in the upright
photo's pixels. The name of the model, and all else but boxes, may be left out.
"""

import base64
import html
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .charts import ChartCurve, curves_chart
from .compare import Compared, Comparison, target_words
from .errors import BadArgument
from .render import contact_sheet, encode, reduce_channels, upright
from .types import Box, Evidence, ExplainResult, Until

if TYPE_CHECKING:
    from .client import Client

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""By which a folder's photos are known."""

TRUTH = "truth.json"

EVIDENCE = ("curves", "randomization", "stability", "completeness")
"""What is measured by default, of methods that can have it."""

SHUFFLED = "shuffled"
"""The map that is broken on purpose: a method's own, its pixels permuted."""

RESAMPLE_COUNT = 2000
"""Of the bootstrap: the interval's ends then differ by some hundredths of its width by seed."""

SHOWN_PHOTOS = 4
"""In the report's sheet."""


@dataclass(frozen=True)
class Measure:
    """What is measured of a map.

    Attributes:
        title: In a few words, with which end is better.
        definition: What it is.
        source: The paper that it is of, or after.
    """

    title: str
    definition: str
    source: str


MEASURES = {
    "gain": Measure(
        "gain ↑",
        "The insertion area less the deletion area, of the map, less the same of the better of two "
        "yardsticks: pixels in a random order, and from the centre outwards. At most 0: the map "
        "orders pixels no better than these.",
        "After Petsiuk, Das and Saenko 2018, arXiv:1806.07421",
    ),
    "insertion": Measure(
        "insertion ↑",
        "The area under the score as pixels are brought in, highest rank first, over their share.",
        "Petsiuk, Das and Saenko 2018, arXiv:1806.07421",
    ),
    "deletion": Measure(
        "deletion ↓",
        "The area under the score as pixels are taken away, highest rank first, over their share.",
        "Petsiuk, Das and Saenko 2018, arXiv:1806.07421",
    ),
    "randomization": Measure(
        "randomization ↓",
        "The rank correlation of the map's magnitudes with those of the map of a network whose "
        "classifier is permuted. Close to 1: the map does not depend on the class.",
        "After Adebayo and others 2018, arXiv:1810.03292",
    ),
    "stability": Measure(
        "stability ↑",
        "The mean rank correlation of the map with those of slightly noisy images.",
        "After Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049",
    ),
    "completeness_error": Measure(
        "completeness error ↓",
        "By how much the attributions' sum misses what it should be, relative.",
        "Sundararajan, Taly and Yan 2017, arXiv:1703.01365",
    ),
    "row_count": Measure(
        "rows",
        "Images that went through the network for a map, those of evidence not counted.",
        "",
    ),
    "pointing": Measure(
        "pointing ↑",
        "The share of photos in which the map's maximum, as it is drawn, falls inside a box that "
        "is known to hold what the answer comes from; without the paper's tolerance of 15 pixels. "
        "Chance is the share of the network's input that the boxes cover; the shuffled map is a "
        "method's own with its pixels permuted.",
        "Zhang and others 2016, arXiv:1608.00507",
    ),
}


@dataclass(frozen=True)
class Truth:
    """What is known of one photo.

    Attributes:
        target: The class to explain, by index or label; the top prediction when None.
        boxes: Where what makes it that class is, in the upright photo's pixels.
    """

    target: int | str | None
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Interval:
    """A mean over photos, and how sure it is.

    Attributes:
        mean: Over count photos.
        low: The lower end of the 95% interval; None of fewer than two photos.
        high: The upper end.
        count: Photos that it is over.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3g}"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(values: Sequence[float]) -> Interval | None:
    """The mean, and its 95% bootstrap percentile interval over 2,000 resamples of a fixed seed.

    Values that are not finite are left out; None where none is left.
    """
    finite = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not len(finite):
        return None
    mean = float(finite.mean())
    if len(finite) == 1:
        return Interval(mean, None, None, 1)
    draws = np.random.default_rng(0).integers(0, len(finite), (RESAMPLE_COUNT, len(finite)))
    low, high = np.percentile(finite[draws].mean(axis=1), [2.5, 97.5])
    return Interval(mean, float(low), float(high), len(finite))


def pointing(importance: NDArray[Any], seen: Box, boxes: Sequence[Box]) -> tuple[bool, float]:
    """Whether the importance's maximum falls inside a box, and how likely any pixel does.

    Args:
        importance: One value a pixel of the network's input, height × width. Of equal maxima,
            the first counts, row by row.
        seen: The part of the photo that the input is of.
        boxes: In the photo's pixels. A pixel of the input is inside by its centre.
    """
    height, width = importance.shape
    y = seen.y_px + (np.arange(height) + 0.5) * seen.height_px / height
    x = seen.x_px + (np.arange(width) + 0.5) * seen.width_px / width
    inside = np.zeros((height, width), bool)
    for box in boxes:
        rows = (box.y_px <= y) & (y < box.y_px + box.height_px)
        columns = (box.x_px <= x) & (x < box.x_px + box.width_px)
        inside |= rows[:, None] & columns
    return bool(inside.flat[int(np.argmax(importance))]), float(inside.mean())


def read_truth(folder: Path, photos: Mapping[str, bytes]) -> tuple[str, dict[str, Truth]]:
    """What a folder's truth.json says: the model, if any, and what is known of each photo.

    Args:
        folder: Without such a file, nothing is known.
        photos: The files that it may name, by name.

    Raises:
        BadArgument: It is not JSON, is of another shape, names a file that is not there, or a box
            that is not inside its photo.
    """
    path = folder / TRUTH
    if not path.exists():
        return "", {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadArgument(f"{path}: is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise BadArgument(f"{path}: must be an object with an entry for each photo")
    model = entries.pop("model", "")
    if not isinstance(model, str):
        raise BadArgument(f"{path}: model: is {model!r}; must be a name")
    truth = {}
    for name, entry in entries.items():
        if name not in photos:
            raise BadArgument(f"{path}: names {name!r}; there is no such photo in the folder")
        truth[name] = _truth(f"{path}: {name}", entry, photos[name])
    return model, truth


def _truth(where: str, entry: Any, photo: bytes) -> Truth:
    if not isinstance(entry, dict) or not {"boxes"} <= entry.keys() <= {"target", "boxes"}:
        raise BadArgument(f"{where}: is {entry!r}; must have boxes, and may have a target")
    target = entry.get("target")
    if isinstance(target, bool) or not isinstance(target, int | str | None):
        raise BadArgument(f"{where}: target: is {target!r}; must be a class index or a label")
    boxes = entry["boxes"]
    if not isinstance(boxes, list) or not boxes:
        raise BadArgument(f"{where}: boxes: is {boxes!r}; must be at least one box in a list")
    size = _opened(where, photo).size
    return Truth(target, tuple(_box(f"{where}: boxes", box, size) for box in boxes))


def _box(where: str, box: Any, size: tuple[int, int]) -> Box:
    numbers = isinstance(box, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in box
    )
    if not numbers or len(box) != 4:
        raise BadArgument(f"{where}: is {box!r}; must be [x, y, width, height] in pixels")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise BadArgument(f"{where}: is {box!r}; width and height must be more than 0")
    if x < 0 or y < 0 or x + width > size[0] or y + height > size[1]:
        raise BadArgument(
            f"{where}: is {box!r}; must be inside the photo of {size[0]} × {size[1]} pixels"
        )
    return Box(x, y, width, height)


def _opened(where: str, photo: bytes) -> Image.Image:
    try:
        return upright(photo)
    except OSError as error:
        raise BadArgument(f"{where}: cannot be read as a photo: {error}") from None


@dataclass(frozen=True, eq=False)
class Report:
    """Evidence over a folder of photos.

    Attributes:
        folder: Its name.
        model: The name of the model that was asked.
        model_version: Of its weights.
        table: The mean of each measure, by method and by the name of the measure; what was not
            measured is left out. Methods by mean gain, the largest first; where truth.json is
            there, "shuffled" and "chance" follow, for pointing alone.
        photos: What was measured of each photo, by its name: the numbers of each method, or the
            error that it failed with.
        charts: The mean deletion and insertion curves of each method, PNGs.
        sheet: The first photos with the renderings of all methods, a JPEG.
    """

    folder: str
    model: str
    model_version: str
    table: Mapping[str, Mapping[str, Interval]]
    photos: Mapping[str, Mapping[str, Any]] = field(repr=False)
    charts: Mapping[str, bytes] = field(repr=False)
    sheet: bytes = field(repr=False)

    @property
    def measures(self) -> dict[str, Measure]:
        """Those of which there is a mean, in order."""
        there = {name for line in self.table.values() for name in line}
        return {name: measure for name, measure in MEASURES.items() if name in there}

    def lines(self) -> list[tuple[str, ...]]:
        """The table for printing: a heading, then a line a method; "-" for what is not there."""
        heading = ("method", *(measure.title for measure in self.measures.values()))
        return [heading] + [
            (method, *(str(line.get(name, "-")) for name in self.measures))
            for method, line in self.table.items()
        ]

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Writes report.html, one page that needs no other file, and results.json.

        Raises:
            OSError: They cannot be written.
        """
        page, results = Path(folder) / "report.html", Path(folder) / "results.json"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(self.page(), encoding="utf-8")
        results.write_text(json.dumps(self.fields(), indent=2) + "\n", encoding="utf-8")
        return page, results

    def fields(self) -> dict[str, Any]:
        """All numbers as JSON has them."""
        return {
            "folder": self.folder,
            "model": self.model,
            "modelVersion": self.model_version,
            "photoCount": len(self.photos),
            "interval": f"95% bootstrap percentile, {RESAMPLE_COUNT} resamples of photos, seed 0",
            "measures": {name: asdict(measure) for name, measure in self.measures.items()},
            "methods": {
                method: {name: asdict(mean) for name, mean in line.items()}
                for method, line in self.table.items()
            },
            "photos": self.photos,
        }

    def page(self) -> str:
        """The report as HTML: styles and pictures are in it; no scripts, nothing is loaded."""
        heading, *lines = self.lines()
        table = [_tags("tr", _tags("th", *heading))]
        table += [_tags("tr", _tags("th", line[0]) + _tags("td", *line[1:])) for line in lines]
        charts = "".join(
            f"<figure><figcaption>{html.escape(method)}</figcaption>"
            f"{_picture(png, 'png', f'Mean curves of {method}')}</figure>"
            for method, png in self.charts.items()
        )
        definitions = "".join(
            _tags("dt", measure.title)
            + _tags("dd", f"{measure.definition} {measure.source and measure.source + '.'}")
            for measure in self.measures.values()
        )
        words = "The first photos, and the maps of all methods"
        sheet = _picture(self.sheet, "jpeg", words) if self.sheet else ""
        return _PAGE.format(
            folder=html.escape(self.folder),
            about=html.escape(
                f"{len(self.photos)} photos · {self.model} {self.model_version} · mean over "
                f"photos [95% bootstrap percentile interval, {RESAMPLE_COUNT:,} resamples]; ends "
                "that are equal only say that all photos gave the same"
            ),
            table="\n".join(table),
            charts=charts and f'<h2>Mean curves</h2><div class="charts">{charts}</div>',
            sheet=sheet and f'<h2>The first photos</h2><div class="wide">{sheet}</div>',
            definitions=definitions,
            failures=self._failures(),
        )

    def _failures(self) -> str:
        failures = [
            f"{photo}, {method}: {numbers['error']}"
            for photo, known in self.photos.items()
            for method, numbers in known["methods"].items()
            if "error" in numbers
        ]
        return f"<h2>What failed</h2><ul>{_tags('li', *failures)}</ul>" if failures else ""


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Evidence: {folder}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #23262c; max-width: 76rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ margin-bottom: 0; }} h2 {{ margin-top: 2.5rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .9rem .35rem 0; text-align: left; white-space: nowrap; }}
tr {{ border-bottom: 1px solid #e2e4e8; }} td {{ color: #444a54; }}
.charts {{ display: flex; flex-wrap: wrap; gap: 1rem; }} figure {{ margin: 0; }}
dt {{ font-weight: 600; margin-top: .6rem; }} dd {{ margin: 0; }}
</style>
<h1>Evidence: {folder}</h1>
<p>{about}</p>
<div class="wide"><table>
{table}
</table></div>
{charts}
{sheet}
<h2>What is measured</h2>
<dl>{definitions}</dl>
{failures}
</html>
"""


def _tags(tag: str, *contents: str) -> str:
    """Each content in a tag; it is escaped unless the tag is of a row."""
    texts = contents if tag == "tr" else map(html.escape, contents)
    return "".join(f"<{tag}>{text}</{tag}>" for text in texts)


def _picture(data: bytes, kind: str, words: str) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<img alt="{html.escape(words)}" src="{source}">'


def measure(
    client: "Client",
    folder: str | os.PathLike[str],
    methods: Sequence[str] | None = None,
    *,
    model: str = "",
    evidence: Evidence = EVIDENCE,
    until: Until | None = None,
    timeout_s: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Explains every photo of a folder by every method, and measures each map.

    Args:
        client: Of the server that is asked.
        folder: Of JPEG, PNG or WebP files, and truth.json, if there is one.
        methods: Their names; all that the model supports when None.
        model: Its name; the one that truth.json names, or the server's default, when empty.
        evidence: What is measured of each map.
        until: When methods that can end early are good enough.
        timeout_s: The deadline of each call in seconds; the client's by default.
        on_progress: Called with the explanations that are done, and all of them.

    Raises:
        BadArgument: There is no photo, or truth.json is wrong; nothing was sent.
        StatusError: The model cannot be asked.
    """
    folder = Path(folder)
    photos = _photos(folder)
    named, truth = read_truth(folder, photos)
    model = model or named
    collected = _Collected()
    for number, (name, photo) in enumerate(photos.items()):
        known = truth.get(name, Truth(None, ()))
        comparison = client.compare(
            photo,
            methods,
            target=known.target,
            model=model,
            outputs=("attribution", "rendering" if number < SHOWN_PHOTOS else "heatmap"),
            longest_side_px=480,
            legend=False,
            until=until,
            evidence=evidence,
            timeout_s=timeout_s,
            on_progress=_of_all(on_progress, number, len(photos)),
        )
        collected.add(name, comparison, known.boxes, shown=number < SHOWN_PHOTOS)
    return collected.report(folder.resolve().name)


def _of_all(
    on_progress: Callable[[int, int], None] | None, number: int, photo_count: int
) -> Callable[[int, int], None] | None:
    """What is called after each method of one photo."""
    if on_progress is None:
        return None
    return lambda done, methods: on_progress(number * methods + done, photo_count * methods)


def photos_in(folder: Path) -> list[Path]:
    """The photos of a folder, in the order of their names.

    Raises:
        BadArgument: It is no folder, or there is none in it.
    """
    if not folder.is_dir():
        raise BadArgument(f"folder: {os.fspath(folder)!r} is not a folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise BadArgument(
            f"folder: there is no photo in {os.fspath(folder)!r}; they end with "
            f"{', '.join(SUFFIXES)}"
        )
    return paths


def _photos(folder: Path) -> dict[str, bytes]:
    """Those photos by name."""
    return {path.name: path.read_bytes() for path in photos_in(folder)}


class _Collected:
    """What is known after some of the photos."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = {}
        self._curves: dict[str, list[Any]] = {}
        self._chance: dict[str, list[float]] = {SHUFFLED: [], "chance": []}
        self._photos: dict[str, dict[str, Any]] = {}
        self._shown: list[Comparison] = []
        self._run = ("", "")

    def add(self, name: str, comparison: Comparison, boxes: Sequence[Box], *, shown: bool) -> None:
        known: dict[str, Any] = {"target": None, "methods": {}}
        for row in comparison.rows:
            numbers = known["methods"][row.method] = self._row(row, boxes)
            values = self._values.setdefault(row.method, {})
            for measured in MEASURES:
                if numbers.get(measured) is not None:
                    values.setdefault(measured, []).append(float(numbers[measured]))
            if row.evidence and row.evidence.curves:
                self._curves.setdefault(row.method, []).append(row.evidence.curves)
        first = next((row.result for row in comparison.rows if row.result is not None), None)
        if first is not None:
            known["target"] = target_words(first)
            self._run = (first.run.model, first.run.model_version)
            if boxes:
                importance = _importance(first)
                draws = np.random.default_rng([0, len(self._photos)])
                shuffled = draws.permutation(importance.ravel()).reshape(importance.shape)
                hit, chance = pointing(shuffled, first.input_box, boxes)
                self._chance[SHUFFLED].append(float(hit))
                self._chance["chance"].append(chance)
                known |= {"shuffledPointing": hit, "chance": chance}
        self._photos[name] = known
        if shown and first is not None:
            self._shown.append(comparison)

    def _row(self, row: Compared, boxes: Sequence[Box]) -> dict[str, Any]:
        if row.result is None:
            return {"error": str(row.error)}
        numbers: dict[str, Any] = row.numbers()
        if boxes:
            hit, _ = pointing(_importance(row.result), row.result.input_box, boxes)
            numbers["pointing"] = hit
        return numbers

    def report(self, folder: str) -> Report:
        table = {method: dict(_means(values)) for method, values in self._values.items()}
        ordered = dict(sorted(table.items(), key=_by_gain))
        for name, values in self._chance.items():
            if values:
                ordered[name] = dict(_means({"pointing": values}))
        charts = {name: self._chart(name) for name in ordered if name in self._curves}
        return Report(
            folder,
            *self._run,
            ordered,
            self._photos,
            {name: chart for name, chart in charts.items() if chart is not None},
            self._sheet([name for name in ordered if name in self._values]),
        )

    def _chart(self, method: str) -> bytes | None:
        """The mean curves; None where photos were not measured at the same shares."""
        measured = self._curves[method]
        if any(not np.array_equal(one.shares, measured[0].shares) for one in measured):
            return None
        curves = []
        for several in zip(*(one.curves for one in measured), strict=True):
            arrays = (
                np.mean([getattr(curve, name) for curve in several], axis=0)
                for name in ("deletion", "insertion", "deletion_area", "insertion_area")
            )
            curves.append(ChartCurve(several[0].order, *arrays))
        return encode(curves_chart(measured[0].shares, curves), "png")

    def _sheet(self, methods: Sequence[str]) -> bytes:
        if not self._shown:
            return b""
        blank = Image.new("RGB", (16, 16), "white")
        rows = []
        for comparison in self._shown:
            made = {row.method: row.result.image for row in comparison.rows if row.result}
            assert isinstance(comparison.photo, bytes)
            photo = upright(comparison.photo)
            rows.append([photo, *(made.get(method, blank) for method in methods)])
        labels = ["photo", *methods]
        return encode(contact_sheet(rows, column_labels=labels, cell_px=200), "jpeg")


def _importance(result: ExplainResult) -> NDArray[np.float32]:
    """One value a pixel of the input, as it is drawn."""
    assert result.attribution is not None
    signed = result.color_scale == "signed"
    return reduce_channels(result.attribution, "signed" if signed else "absolute")


def _means(values: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, Interval]]:
    for name, several in values.items():
        mean = interval(several)
        if mean is not None:
            yield name, mean


def _by_gain(line: tuple[str, Mapping[str, Interval]]) -> float:
    gain = line[1].get("gain")
    return math.inf if gain is None else -gain.mean
