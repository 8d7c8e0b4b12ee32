"""A photo in three styles by each way to stylize: docs/styles.jpg.

Starts a server of its own, calls it over gRPC and stops it again. Needs the networks of fast style:
`pellucid models pull styles`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pellucid
import skimage.data
from local import server, wait_until_ready
from paintings import PAINTINGS
from pellucid import render
from PIL import Image
from rich.progress import track

SHEET = Path("docs/styles.jpg")
SIDE_PX = 256
PAINTED = ("strokes", "dabs", "grid")
NAMED = ("1", "7", "19")
KEPT = {"original_colors": "luminance"}


def main() -> None:
    """Writes the sheet."""
    photo = skimage.data.cat()
    paintings = [Image.fromarray(PAINTINGS[name]()) for name in PAINTED]
    size: dict[str, Any] = {"side_px": SIDE_PX, "timeout_s": 3600.0}
    ways: dict[str, tuple[Sequence[Any], dict[str, Any]]] = {
        "optimized": (paintings, size),
        "one pass": (NAMED, size | {"method": "fast"}),
        "one pass, any picture": (paintings, size | {"method": "fast"}),
    }
    calls = [
        (style, options | kept)
        for styles, options in ways.values()
        for style, kept in ((styles[0], KEPT), *((style, {}) for style in styles))
    ]
    with server() as (address, _), pellucid.Client(address, timeout_s=3600) as client:
        wait_until_ready(client)

        def stylized(call: tuple[Any, dict[str, Any]]) -> Image.Image:
            style, options = call
            made: Image.Image = client.stylize(photo, style, **options).result().image
            return made

        with ThreadPoolExecutor(len(calls)) as callers:  # optimizations share batches
            made = list(track(callers.map(stylized, calls), "stylizing", total=len(calls)))
    rows = [[Image.fromarray(photo), *paintings], *(made[k : k + 4] for k in (0, 4, 8))]
    captions = [["the photo", *PAINTED]]
    for way, (styles, _) in ways.items():
        names = PAINTED if styles is paintings else NAMED
        captions.append([f"{way}: {names[0]}, own colours", *(f"{way}: {n}" for n in names)])
    sheet = render.contact_sheet(rows, captions=captions, cell_px=SIDE_PX)
    sheet.save(SHEET, quality=88, optimize=True)
    print(f"wrote {SHEET}")


if __name__ == "__main__":
    main()
