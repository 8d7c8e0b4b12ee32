"""A cat that a network takes for a toaster: what was added, what it was predicted to do.

Starts a server of its own, calls it over gRPC and stops it again.
"""

from pathlib import Path

import pellucid
from local import server, wait_until_ready
from pellucid.adversarial import sheet

PHOTO, SHEET = Path("examples/cat.jpg"), Path("docs/attack.jpg")
GOAL = "toaster"
LAYERS = (
    *("conv_stem", "blocks.1.1", "blocks.2.1", "blocks.3.2", "blocks.4.2", "blocks.5.3"),
    *("global_pool", "classifier"),
)


def main() -> None:
    with server() as (address, _), pellucid.Client(address, timeout_s=600) as client:
        wait_until_ready(client)
        attack = client.attack(PHOTO, "pgd", goal=GOAL, linear_layers=LAYERS)
        result = attack.result()
    sheet(result).save(SHEET, quality=90)
    how = result.best.adversarial
    assert how is not None
    for view in how.linear:
        print(f"{view.label}: its logit changed by {view.happened:+.2f}; predicted were")
        for effect in view.effects:
            where = effect.layer or "the image"
            size = f"a change of {effect.relative_change:.1%}"
            print(f"  {effect.predicted:+9.2f} from {where} on, {size}")


if __name__ == "__main__":
    main()
