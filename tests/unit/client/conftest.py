"""A fake server in this process, and answers made by hand."""

import asyncio
import hashlib
import io
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status
from pellucid import AsyncClient, Client
from pellucid.v1 import (
    data_pb2,
    evidence_pb2,
    inference_pb2,
    model_pb2,
    optimize_pb2,
    service_pb2_grpc,
)
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
CHART = encode(np.full((2, 4, 3), 250, np.uint8), "PNG")
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
    occlusion=inference_pb2.Occlusion(window_px=2, stride_px=1, fill=data_pb2.FILL_MEAN),
    attribution=tensor(ATTRIBUTION),
    heatmap=HEATMAP,
    rendering=data_pb2.EncodedImage(data=RENDERING, format=data_pb2.IMAGE_FORMAT_JPEG),
    input_box=data_pb2.Box(x_px=1, y_px=2, width_px=3.5, height_px=4),
    occlusion_details=inference_pb2.OcclusionDetails(
        falls=tensor(FALLS), largest_fall=data_pb2.Box(width_px=2, height_px=2)
    ),
)


def curve(order: int, deletion_area: float, insertion_area: float) -> evidence_pb2.Curve:
    return evidence_pb2.Curve(
        order=order,
        deletion=[0.75, 0.5, 0.125],
        insertion=[0.125, 0.5, 0.75],
        deletion_area=deletion_area,
        insertion_area=insertion_area,
    )


def measured(
    *,
    insertion_area: float = 0.75,
    deletion_area: float = 0.25,
    randomization: float = 0.125,
    stability: float = 0.875,
) -> evidence_pb2.EvidenceResult:
    """Evidence of a map; the yardsticks' insertion less deletion is 0.125 and 0.25."""
    return evidence_pb2.EvidenceResult(
        completeness=evidence_pb2.CompletenessResult(
            attribution_sum=3, expected_sum=4, relative_error=0.25
        ),
        curves=evidence_pb2.CurvesResult(
            shares=[0, 0.5, 1],
            curves=[
                curve(evidence_pb2.CURVE_ORDER_MAP, deletion_area, insertion_area),
                curve(evidence_pb2.CURVE_ORDER_RANDOM, 0.5, 0.625),
                curve(evidence_pb2.CURVE_ORDER_CENTER, 0.5, 0.75),
            ],
            chart=data_pb2.EncodedImage(data=CHART, format=data_pb2.IMAGE_FORMAT_PNG),
        ),
        stability=evidence_pb2.StabilityResult(
            correlations=[0.75, 1.0], mean=stability, least=0.75
        ),
        randomization=evidence_pb2.RandomizationResult(
            correlation=-0.5, absolute_correlation=randomization
        ),
        row_count=40,
    )


def explained(method: str = "occlusion", **fields: Any) -> inference_pb2.ExplainResponse:
    """EXPLAINED of another method, and with other fields."""
    response = inference_pb2.ExplainResponse()
    response.CopyFrom(EXPLAINED)
    getattr(response, method).SetInParent()
    for name, value in fields.items():
        getattr(response, name).CopyFrom(value)
    return response


def estimates() -> list[inference_pb2.ExplainStreamResponse]:
    """What a stream answers: two estimates and the explanation."""
    stops = [evidence_pb2.STOP_REASON_RUNNING] * 2 + [evidence_pb2.STOP_REASON_TOLERANCE]
    return [
        inference_pb2.ExplainStreamResponse(
            explanation=explained(
                convergence=evidence_pb2.Convergence(
                    stop=stop, row_count=8 * 2**number, error=0.5 / 2**number
                )
            ),
            last=number == 2,
        )
        for number, stop in enumerate(stops)
    ]


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
    methods=[
        model_pb2.MethodSupport(method="predict", supported=True, row_count=1),
        model_pb2.MethodSupport(method="deconvnet", reason="it has no ReLU"),
        model_pb2.MethodSupport(
            method="gradient",
            supported=True,
            row_count=1,
            evidence=["curves", "stability", "randomization", "agreement"],
        ),
        model_pb2.MethodSupport(
            method="rise",
            supported=True,
            row_count=1001,
            anytime=True,
            evidence=["curves", "stability", "randomization", "agreement"],
        ),
        model_pb2.MethodSupport(
            method="attention_rollout", supported=True, row_count=1, evidence=["curves"]
        ),
    ],
    labels=["lynx", "dog", "tabby"],
    costs=[model_pb2.BatchCost(lane=model_pb2.LANE_GRADIENT, bucket_size=4, row_ms=1.5)],
    gate_count=33,
    device="cpu",
    platform=model_pb2.PLATFORM_ONNX,
    onnx=model_pb2.Onnx(
        opset=17,
        provider="CPUExecutionProvider",
        fixed_batch_size=8,
        parity=2e-6,
        notes=["its softmax is cut off"],
    ),
)


def failure(code: grpc.StatusCode, message: str, *details: Message) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


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
        self.attached: list[inference_pb2.AttachedExplanation] = []
        self.by_method: dict[str, inference_pb2.ExplainResponse | str] = {}
        self.events: list[inference_pb2.ExplainStreamResponse | str] = [*estimates()]
        self.courses: list[list[optimize_pb2.OptimizeResponse | status_pb2.Status]] = []
        self.ended = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def fail(self, code: grpc.StatusCode, message: str, *details: Message, times: int = 1) -> None:
        self.failures += [failure(code, message, *details)] * times

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = inference_pb2.PredictResponse(explanations=self.attached)
        response.MergeFrom(PREDICTED)
        return self._answer(request, context, response)

    def Explain(self, request: Any, context: grpc.ServicerContext) -> Any:
        answer = self.by_method.get(request.WhichOneof("method"), self.explained)
        self._answer(request, context, None)
        if isinstance(answer, str):
            context.abort(grpc.StatusCode.INTERNAL, answer)
        return answer

    def ExplainStream(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Each of events; after the first one it waits until goes_on."""
        self._answer(request, context, None)
        context.add_callback(self.ended.set)
        for number, event in enumerate(self.events):
            if isinstance(event, str):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, event)
            yield event
            if number == 0:
                self.goes_on.wait(5)

    def Optimize(self, messages: Any, context: grpc.ServicerContext) -> Any:
        """What the next of courses says, to its end."""
        self._answer(list(messages), context, None)
        for event in self.courses.pop(0):
            if isinstance(event, status_pb2.Status):
                context.abort_with_status(rpc_status.to_status(event))
            yield event

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


@contextmanager
def fake_server(fake: FakeServer | None = None) -> Iterator[FakeServer]:
    fake = fake or FakeServer()
    options = [("grpc.max_receive_message_length", 32 * 2**20)]
    running = grpc.server(ThreadPoolExecutor(4), options=options)
    service_pb2_grpc.add_PellucidServiceServicer_to_server(fake, running)
    # By its number: "localhost" is two addresses, and the port may be somebody else's on one.
    fake.address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    running.start()
    try:
        yield fake
    finally:
        running.stop(None).wait()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


Call = Callable[..., Any]


def _blocking(address: str, name: str, /, *args: Any, options: Any, **kwargs: Any) -> Any:
    with Client(address, **options) as client:
        answer = getattr(client, name)(*args, **kwargs)
        return list(answer) if isinstance(answer, Generator) else answer


def _asynchronous(address: str, name: str, /, *args: Any, options: Any, **kwargs: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(address, **options) as client:
            answer = getattr(client, name)(*args, **kwargs)
            if isinstance(answer, AsyncGenerator):
                return [one async for one in answer]
            return await answer

    return asyncio.run(run())


@pytest.fixture(params=[_blocking, _asynchronous], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest, server: FakeServer) -> Call:
    """Calls a method of either client of the fake server: call(name, ..., options={...})."""

    def run(name: str, /, *args: Any, options: Any = None, **kwargs: Any) -> Any:
        return request.param(server.address, name, *args, options=options or {}, **kwargs)

    return run
