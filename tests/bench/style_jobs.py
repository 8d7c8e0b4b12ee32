"""What benches of stylized images have in common: pictures, requests, and jobs of them."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pellucid.v1 import data_pb2, stylize_pb2
from pellucid_server import wire
from pellucid_server.engine.engine import Engine
from pellucid_server.engine.job import Done, Job
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.optimize.stepper import Progress
from pellucid_server.methods.stylize.stylize import Stylized
from pellucid_server.models.registry import Model, Registry

from examples.paintings import PAINTINGS
from tests.harness import cached, photo

BUCKETS = (1, 2, 4, 8)
_MOST_PIXELS = 2048**2
DAY_S = 86_400.0


@cached
def picture(name: str) -> NDArray[np.uint8]:
    """One of the program's paintings, or a photo of scikit-image's."""
    return PAINTINGS[name]() if name in PAINTINGS else np.ascontiguousarray(photo(name)[..., :3])


def image(pixels: NDArray[np.uint8]) -> data_pb2.Image:
    return data_pb2.Image(
        tensor=data_pb2.Tensor(
            data_type=data_pb2.DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes()
        )
    )


@dataclass
class Run:
    """A job of optimized style, and what it has shown.

    Attributes:
        shown: CPU seconds of this process since it was asked for, and its progress.
        cpu_s: Those until its result was waited for and there.
    """

    started_s: float = field(default_factory=time.process_time)
    job: Job | None = None
    shown: list[tuple[float, Progress]] = field(default_factory=list)
    cpu_s: float = 0.0

    def note(self, done: Done) -> None:
        if isinstance(done.result, Progress):
            self.shown.append((time.process_time() - self.started_s, done.result))

    def result(self) -> Stylized:
        assert self.job is not None
        made: Stylized = self.job.future.result().result
        self.cpu_s = time.process_time() - self.started_s
        return made


def optimized(
    engine: Engine, model: Model, content: str, style: str, bucket_size: int, **neural: Any
) -> Run:
    """A job by the request's defaults, but for what is given."""
    request = stylize_pb2.StylizeSpec(
        content=image(picture(content)),
        styles=[stylize_pb2.StylePicture(image=image(picture(style)))],
        neural=stylize_pb2.Neural(**neural),
    )
    limits = wire.Limits(1 << 30, BUCKETS, _MOST_PIXELS, Buckets(bucket_size), b"a key of 16 bytes")
    call = wire.Call("", time.monotonic() + DAY_S)
    spec = wire.read_stylize(request, call, Registry([model]), limits).spec
    run = Run()
    run.job = engine.submit(spec, outlet=run.note)
    return run
