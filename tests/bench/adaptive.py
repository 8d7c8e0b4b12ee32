"""Adaptive integrated gradients against fixed counts: rows to a completeness error of 1%.

Twenty pairs of a photo and a target: scikit-image's photos, and each one's best classes; the
adaptive quadrature with its default tolerance and limit, and Gauss and Legendre's with rising
counts. Printed: the rows that the adaptive one took,
and the smallest count of the other whose 90th percentile of the error is at most 1%.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pellucid
import skimage.data
from rich.console import Console
from rich.progress import track
from rich.table import Table

from examples.local import server, wait_until_ready
from tests.bench.__main__ import processor

PHOTOS = ("cat", "coffee", "rocket", "astronaut")
RANKS = (0, 1, 2, 3, 4)
"""The targets of each photo: its best classes."""
COUNTS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 600, 800, 1000)
"""Tried in turn, until one is enough."""

TOLERANCE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.adaptive", description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    console = Console()
    with server() as (address, _), pellucid.Client(address, timeout_s=300) as client:
        wait_until_ready(client)
        pairs: list[tuple[np.ndarray, int]] = []
        for name in PHOTOS:
            photo = np.ascontiguousarray(getattr(skimage.data, name)())
            best = client.predict(photo, top_k=len(RANKS)).predictions
            pairs += [(photo, best[rank].class_index) for rank in RANKS]

        def measured(what: str, **how: object) -> tuple[np.ndarray, np.ndarray]:
            """Rows and completeness errors of all pairs."""
            found = []
            for photo, target in track(pairs, what, console=console, transient=True):
                made = client.explain(
                    photo,
                    "integrated_gradients",
                    target=target,
                    outputs=["heatmap"],
                    evidence=["completeness"],
                    **how,
                )
                rows = sum(b.own_row_count for b in made.run.batches) - made.evidence.row_count
                found.append((rows, made.evidence.completeness.relative_error))
            rows, errors = np.array(found).T
            return rows, errors

        rows, errors = measured("adaptive", quadrature="adaptive")
        p90: dict[int, float] = {}
        for count in COUNTS:
            p90[count] = float(np.percentile(measured(f"{count} rows", step_count=count)[1], 90))
            if p90[count] <= TOLERANCE:
                break
    enough = [count for count, error in p90.items() if error <= TOLERANCE]
    figures = {
        "hardware": processor(),
        "pairs": len(pairs),
        "adaptive": {
            "rows_median": float(np.median(rows)),
            "rows_p90": float(np.percentile(rows, 90)),
            "error_median": float(np.median(errors)),
            "error_p90": float(np.percentile(errors, 90)),
        },
        "gauss_legendre_error_p90": p90,
        "gauss_legendre_smallest_count": enough[0] if enough else None,
    }
    table = Table("quadrature", "rows", "error, 90th percentile", title=processor())
    median, high = figures["adaptive"]["rows_median"], figures["adaptive"]["rows_p90"]
    table.add_row("adaptive", f"{median:.0f}, p90 {high:.0f}", f"{np.percentile(errors, 90):.2%}")
    for count, found in p90.items():
        table.add_row("gauss_legendre", str(count), f"{found:.2%}")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
