"""A measured landscape in words, as JSON, and as a chart."""

from typing import Any

import numpy as np
from pellucid import scatter
from PIL import Image

from .measure import Landscape, Part, Settings, Spread
from .spread import Interval

_CLAIM = "the published claim (Choromanska and others 2014, arXiv:1412.0233)"
_ANSWERS = {"falls": "agrees with", "rises": "contradicts", "cannot be told": "does not settle"}
_CARRIED = {"falls": "holds here", "rises": "fails here", "cannot be told": "is not settled here"}


def sentences(found: Landscape) -> tuple[str, str]:
    """What each plot shows, against the published claim: of weights, and of images."""
    by = found.settings.by
    weights, images = found.weights, found.images
    size = "width" if by == "width" else "depth"
    of_weights = _trend("Weight training: the variance of the test loss", size, weights, "variance")
    of_images = _trend(
        "Image optimization: the relative variance of the score", by, images, "relative"
    )
    if by == "width":
        answer = _ANSWERS[weights.variance.trend]
        of_weights += f" That {answer} {_CLAIM}, by which it falls."
        carried = _CARRIED[images.relative.trend]
        of_images += f" The claim is of weights; carried over to images, it {carried}."
    else:
        of_weights += " The claim is of width: of depth this says what happens here, no more."
        of_images += " Of the layers of one network the claim says nothing."
    of_weights += _other("relative to the mean loss", weights.variance, weights.relative)
    of_images += _other("not divided by the mean score", images.relative, images.variance)
    return of_weights, of_images


def _trend(what: str, by: str, part: Part, measure: str) -> str:
    spread: Spread = getattr(part, measure)
    first, last = spread.estimates[0].value, spread.estimates[-1].value
    ends = f"{first:.2g} at {part.sizes[0]}, {last:.2g} at {part.sizes[-1]}"
    if spread.slope is None:
        return f"{what}: whether it goes with {by} cannot be told ({ends})."
    verb = {"cannot be told": f": whether it falls with {by} cannot be told"}.get(
        spread.trend, f" {spread.trend} with {by}"
    )
    return f"{what}{verb}: as {by} to the power {_interval(spread.slope)}; {ends}."


def _other(what: str, spread: Spread, other: Spread) -> str:
    """Whether another measure of the spread says the same."""
    if other.slope is None:
        return ""
    same = "too" if other.trend == spread.trend else "unlike that"
    verb = "it cannot be told" if other.trend == "cannot be told" else f"it {other.trend}"
    return f" Taken {what}, {verb}, {same}: the power is {_interval(other.slope)}."


def _interval(found: Interval) -> str:
    return f"{found.value:.2f} (95%: {found.low:.2f} to {found.high:.2f})"


def as_json(found: Landscape) -> dict[str, Any]:
    """All numbers."""
    settings, (of_weights, of_images) = found.settings, sentences(found)
    return {
        "by": settings.by,
        "widths": list(settings.widths),
        "layers": settings.layer_count if settings.by == "layer" else 1,
        "seeds": settings.seed_count,
        "epochs": settings.epoch_count,
        "seed": settings.seed,
        "weights": {"sentence": of_weights, **_part(found.weights)},
        "images": {"sentence": of_images, **_part(found.images)},
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "sizes": list(part.sizes),
        "ends": [ends.tolist() for ends in part.ends],
        "variance": _spread(part.variance),
        "relative_variance": _spread(part.relative),
        **part.more,
    }


def _spread(spread: Spread) -> dict[str, Any]:
    return {
        "estimates": [vars(one) for one in spread.estimates],
        "slope": None if spread.slope is None else vars(spread.slope),
        "trend": spread.trend,
    }


def table(found: Landscape) -> list[tuple[str, ...]]:
    """Lines for people, the first of them the heads."""
    lines: list[tuple[str, ...]] = [
        (
            *("what", found.settings.by, "ends", "mean", "least", "largest"),
            *("variance", "95%", "relative variance", "95%"),
        )
    ]
    for what, part in (("test loss", found.weights), ("image score", found.images)):
        measures = zip(part.variance.estimates, part.relative.estimates, strict=True)
        for size, ends, spreads in zip(part.sizes, part.ends, measures, strict=True):
            cells = [f"{one:.4g}" for one in (ends.mean(), ends.min(), ends.max())]
            for one in spreads:
                cells += [f"{one.value:.3g}", f"{one.low:.2g} to {one.high:.2g}"]
            lines.append((what, str(size), str(ends.size), *cells))
    return lines


def chart(found: Landscape) -> Image.Image:
    """Two plots: all ends, and below them their variances with intervals, over size."""
    settings = found.settings
    of_weights, of_images = _x_words(settings)
    weights, images = found.weights, found.images
    variance, relative = "variance", "relative variance"
    return scatter.scatter_chart(
        [
            scatter.Plot(
                _title("weight training", weights.variance),
                "test loss",
                (variance, relative),
                of_weights,
                _columns(weights, weights.variance, weights.relative),
                logarithmic=True,
            ),
            scatter.Plot(
                _title("image optimization", images.relative),
                "score / mean of its network",
                (relative, variance),
                of_images,
                _columns(images, images.relative, images.variance),
                logarithmic=False,
            ),
        ]
    )


def _x_words(settings: Settings) -> tuple[str, str]:
    if settings.by == "width":
        return ("hidden units",) * 2
    return "hidden layers", f"layer, of {settings.layer_count + 1}"


def _title(what: str, measured: Spread) -> str:
    told = measured.trend != "cannot be told"
    return f"{what}: the spread {measured.trend}" if told else f"{what}: cannot be told"


def _columns(part: Part, *measured: Spread) -> list[scatter.Column]:
    strong, weak = ([scatter.Bar(**vars(one)) for one in each.estimates] for each in measured)
    return [
        scatter.Column(str(size), shown.tolist(), float(np.mean(shown)), bars)
        for size, shown, bars in zip(
            part.sizes, part.shown, zip(strong, weak, strict=True), strict=True
        )
    ]
