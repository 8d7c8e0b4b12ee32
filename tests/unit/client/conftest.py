"""A fake server in this process, and answers made by hand."""

import asyncio
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status
from pellucid import AsyncClient, Client
from pellucid.v1 import data_pb2, inference_pb2, model_pb2, service_pb2_grpc
from PIL import Image

PREPROCESSING = model_pb2.Preprocessing(
    resize_shorter_side_px=8,
    height_px=2,
    width_px=3,
    interpolation=model_pb2.INTERPOLATION_BICUBIC,
    mean=[0.5, 0.25, 0.125],
    std=[1, 2, 4],
)
RUN = inference_pb2.Run(
    model="lite",
    model_version="0123456789ab",
    preprocessing=PREPROCESSING,
    precision=model_pb2.PRECISION_FLOAT32,
    device="cpu",
    decode_ms=1,
    queue_ms=2,
    run_ms=3,
    render_ms=4,
    batches=[inference_pb2.Batch(bucket_size=4, row_count=3, own_row_count=1)],
)
LOGITS = np.array([0.5, -1.5, 2.25], np.float32)
ATTRIBUTION = np.arange(6, dtype=np.float32).reshape(1, 2, 3) - 2.5
GREY = np.array([[0, 1, 64], [128, 129, 255]], np.uint8)
FALLS = np.array([[1.5, -0.5]], np.float32)


def tensor(array: np.ndarray[Any, Any]) -> data_pb2.Tensor:
    assert array.dtype == np.float32
    data = array.astype("<f4").tobytes()
    return data_pb2.Tensor(data_type=data_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=data)


def encode(pixels: np.ndarray[Any, Any], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


HEATMAP = inference_pb2.Heatmap(
    image=data_pb2.EncodedImage(data=encode(GREY, "PNG"), format=data_pb2.IMAGE_FORMAT_PNG),
    color_scale=inference_pb2.COLOR_SCALE_SIGNED,
    limit=2.0,
    percentile=99.5,
)
RENDERING = encode(np.full((4, 5, 3), 200, np.uint8), "JPEG")

PREDICTED = inference_pb2.PredictResponse(
    run=RUN,
    predictions=[
        inference_pb2.Prediction(class_index=2, label="tabby [cat]", probability=0.75, logit=2.25),
        inference_pb2.Prediction(class_index=0, label="lynx", probability=0.25, logit=0.5),
    ],
    logits=tensor(LOGITS),
    receipt=inference_pb2.Receipt(
        result_sha256=hashlib.sha256(LOGITS.tobytes()).hexdigest(), sketch=tensor(LOGITS)
    ),
)
EXPLAINED = inference_pb2.ExplainResponse(
    run=RUN,
    target=inference_pb2.ResolvedTarget(
        class_index=0, label="tabby [cat]", score=2.25, top_prediction=True
    ),
    occlusion=inference_pb2.Occlusion(window_px=2, stride_px=1, fill=inference_pb2.FILL_MEAN),
    attribution=tensor(ATTRIBUTION),
    heatmap=HEATMAP,
    rendering=data_pb2.EncodedImage(data=RENDERING, format=data_pb2.IMAGE_FORMAT_JPEG),
    input_box=data_pb2.Box(x_px=1, y_px=2, width_px=3.5, height_px=4),
    occlusion_details=inference_pb2.OcclusionDetails(
        falls=tensor(FALLS), largest_fall=data_pb2.Box(width_px=2, height_px=2)
    ),
)
LISTED = model_pb2.ListModelsResponse(
    models=[
        model_pb2.ModelSummary(name="lite", ready=True, version="0123456789ab"),
        model_pb2.ModelSummary(name="vit", reason="warming up"),
    ]
)
MODEL = model_pb2.GetModelResponse(
    name="lite",
    ready=True,
    version="0123456789ab",
    architecture="efficientnet_lite0",
    preprocessing=PREPROCESSING,
    precision=model_pb2.PRECISION_FLOAT64,
    layers=[
        model_pb2.Layer(
            name="conv_stem",
            type="Conv2d",
            shape=[32, 112, 112],
            targetable=True,
            note="folded",
            layout=model_pb2.LAYOUT_MAPS,
            grid=[112, 112],
        )
    ],
    methods=[model_pb2.MethodSupport(method="deconvnet", reason="it has no ReLU")],
    labels=["lynx", "dog", "tabby"],
    costs=[model_pb2.BatchCost(lane=model_pb2.LANE_GRADIENT, bucket_size=4, row_ms=1.5)],
    gate_count=33,
    device="cpu",
)


class FakeServer(service_pb2_grpc.PellucidServiceServicer):
    """Answers by hand, after the failures that a test sets; keeps what it was asked."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[Any] = []
        self.remaining_s: list[float] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.failures: list[status_pb2.Status] = []
        self.delay_s = 0.0
        self.explained = EXPLAINED

    def fail(self, code: grpc.StatusCode, message: str, *details: Message, times: int = 1) -> None:
        packed = []
        for detail in details:
            packed.append(AnyMessage())
            packed[-1].Pack(detail)
        status = status_pb2.Status(code=code.value[0], message=message, details=packed)
        self.failures += [status] * times

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(request, context, PREDICTED)

    def Explain(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(request, context, self.explained)

    def ListModels(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(request, context, LISTED)

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(request, context, MODEL)

    def _answer(self, request: Any, context: grpc.ServicerContext, response: Any) -> Any:
        self.requests.append(request)
        self.remaining_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        time.sleep(self.delay_s)
        if self.failures:
            context.abort_with_status(rpc_status.to_status(self.failures.pop(0)))
        return response


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    options = [("grpc.max_receive_message_length", 32 * 2**20)]
    running = grpc.server(ThreadPoolExecutor(4), options=options)
    service_pb2_grpc.add_PellucidServiceServicer_to_server(fake, running)
    fake.address = f"localhost:{running.add_insecure_port('localhost:0')}"
    running.start()
    yield fake
    running.stop(None).wait()


Call = Callable[..., Any]


def _blocking(address: str, name: str, /, *args: Any, options: Any, **kwargs: Any) -> Any:
    with Client(address, **options) as client:
        return getattr(client, name)(*args, **kwargs)


def _asynchronous(address: str, name: str, /, *args: Any, options: Any, **kwargs: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(address, **options) as client:
            return await getattr(client, name)(*args, **kwargs)

    return asyncio.run(run())


@pytest.fixture(params=[_blocking, _asynchronous], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest, server: FakeServer) -> Call:
    """Calls a method of either client of the fake server: call(name, ..., options={...})."""

    def run(name: str, /, *args: Any, options: Any = None, **kwargs: Any) -> Any:
        return request.param(server.address, name, *args, options=options or {}, **kwargs)

    return run
