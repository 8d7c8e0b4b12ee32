"""Adaptive integrated gradients against fixed counts: rows to a completeness error of 1%.

Twenty pairs of a photo and a target; the adaptive quadrature with its default tolerance and
limit, and Gauss and Legendre's with rising counts. Printed: the rows that the adaptive one took,
and the smallest count of the other whose 90th percentile of the error is at most 1%.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pellucid
import skimage.data
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from examples.local import server, wait_until_ready
from tests.bench.__main__ import processor

PHOTOS = ("cat", "coffee", "rocket", "astronaut")
RANKS = (0, 1, 2, 3, 4)
"""The targets of each photo: its best classes."""
COUNTS = (10, 20, 30, 50, 75, 100, 150, 200, 300)
TOLERANCE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.adaptive", description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    console = Console()
    adaptive: list[tuple[int, float]] = []
    fixed: dict[int, list[float]] = {count: [] for count in COUNTS}
    with (
        server() as (address, _),
        pellucid.Client(address, timeout_s=300) as client,
        Progress(console=console) as progress,
    ):
        wait_until_ready(client)
        task = progress.add_task("measuring", total=len(PHOTOS) * len(RANKS))
        for name in PHOTOS:
            photo = np.ascontiguousarray(getattr(skimage.data, name)())
            best = client.predict(photo, top_k=len(RANKS)).predictions
            for rank in RANKS:
                target = best[rank].class_index

                def error(target: int = target, photo: np.ndarray = photo, **how: object) -> tuple:
                    made = client.explain(
                        photo,
                        "integrated_gradients",
                        target=target,
                        outputs=["heatmap"],
                        evidence=["completeness"],
                        **how,
                    )
                    rows = sum(b.own_row_count for b in made.run.batches)
                    return rows - made.evidence.row_count, made.evidence.completeness.relative_error

                adaptive.append(error(quadrature="adaptive"))
                for count in COUNTS:
                    fixed[count].append(error(step_count=count)[1])
                progress.advance(task)
    rows, errors = np.array(adaptive).T
    p90 = {count: float(np.percentile(found, 90)) for count, found in fixed.items()}
    enough = [count for count in COUNTS if p90[count] <= TOLERANCE]
    figures = {
        "hardware": processor(),
        "pairs": len(adaptive),
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
