"""An unmodified tritonclient against a server: a script, since two protos of package inference
clash in one process.

    python triton_client.py GRPC_ADDRESS HTTP_ADDRESS FOLDER

FOLDER has photos, cat.jpg and coffee.jpg, and input.npy: a preprocessed input, 1 × 3 × 96 × 96.
Every case is run over both protocols. Arrays go to FOLDER/PROTOCOL.npz, the rest is printed as
JSON: by protocol and case what was told, or the error as its status and message.
"""

import json
import queue
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

MODEL = "efficientnet_lite0"
FIXED = {"bucket_size": 4}


class Cases:
    """The cases, over one protocol."""

    def __init__(self, module: ModuleType, address: str, folder: Path) -> None:
        self.module = module
        self.client = module.InferenceServerClient(address)
        self.input = np.load(folder / "input.npy")
        self.photos = [(folder / name).read_bytes() for name in ("cat.jpg", "coffee.jpg")]
        self.arrays: dict[str, Any] = {}
        self.told: dict[str, Any] = {}

    def tensor(
        self, name: str, array: Any, datatype: str, shape: Any = None, **options: Any
    ) -> Any:
        made = self.module.InferInput(name, list(array.shape), datatype)
        made.set_data_from_numpy(array, **options)
        return made if shape is None else made.set_shape(shape)

    def files(self, *photos: bytes, shape: Any = None) -> Any:
        return self.tensor("image", np.array(photos or self.photos, object), "BYTES", shape)

    def preprocessed(self, count: int = 1, **options: Any) -> Any:
        return self.tensor("input", np.repeat(self.input, count, 0), "FP32", **options)

    def output(self, name: str, **options: Any) -> Any:
        return self.module.InferRequestedOutput(name, **options)

    def infer(self, inputs: Any, outputs: Any = None, model: str = MODEL, **options: Any) -> Any:
        named = None if outputs is None else [self.output(name) for name in outputs]
        return self.client.infer(model, inputs, outputs=named, **options)

    def tell(self, name: str, case: Callable[[], Any]) -> None:
        try:
            self.told[name] = case()
        except InferenceServerException as error:
            self.told[name] = {"status": error.status(), "message": error.message()}

    def keep(self, name: str, result: Any, *outputs: str) -> None:
        for output in outputs:
            array = result.as_numpy(output)
            # Objects would be pickled; of files the first bytes tell enough.
            kept = np.array([one[:8] for one in array]) if array.dtype == object else array
            self.arrays[f"{name}/{output}"] = kept


def tell_of_the_server(cases: Cases, as_json: dict[str, Any]) -> None:
    client = cases.client
    for name, ask in {
        "live": client.is_server_live,
        "ready": client.is_server_ready,
        "model ready": lambda: client.is_model_ready(MODEL),
        "unknown model ready": lambda: client.is_model_ready("lite1"),
        "failed model ready": lambda: client.is_model_ready("no_such_network"),
        "server": lambda: client.get_server_metadata(**as_json),
        "metadata": lambda: client.get_model_metadata(MODEL, **as_json),
        "config": lambda: client.get_model_config(MODEL, **as_json),
        "statistics": lambda: client.get_inference_statistics(MODEL, **as_json),
        "all statistics": lambda: client.get_inference_statistics(**as_json),
        "index": lambda: client.get_model_repository_index(**as_json),
        "metadata of another version": lambda: client.get_model_metadata(MODEL, "7"),
        "metadata of an unknown model": lambda: client.get_model_metadata("a model/ü"),
        "load": lambda: client.load_model(MODEL),
        "unload": lambda: client.unload_model(MODEL),
        "shared memory": client.get_system_shared_memory_status,
        "logging": lambda: client.get_log_settings(**as_json),
    }.items():
        cases.tell(name, ask)


def infer_well(cases: Cases) -> None:
    def by(name: str, inputs: Any, outputs: Any = None, **options: Any) -> None:
        def case() -> Any:
            result = cases.infer([inputs], outputs, **options)
            cases.keep(name, result, *(outputs or ["logits"]))
            response = result.get_response()
            get = response.get if isinstance(response, dict) else lambda key: getattr(response, key)
            return [get("model_name"), get("model_version"), get("id")]

        cases.tell(name, case)

    everything = ["explanation", "logits", "probabilities", "heatmap", "rendering"]
    by("default", cases.preprocessed(), parameters=FIXED, request_id="seven")
    by("photo", cases.tensor("photo", np.full((1, 60, 80, 3), 99, np.uint8), "UINT8"))
    by("files", cases.files(), ["logits"], parameters=FIXED)
    by("column of files", cases.tensor("image", np.array([[cases.photos[0]]], object), "BYTES"))
    by("explained", cases.files(), ["explanation"], parameters=FIXED)
    by(
        "occlusion",
        cases.preprocessed(),
        ["explanation"],
        parameters={**FIXED, "method": "occlusion", "window_px": 48, "stride_px": 48, "target": 7},
    )
    by(
        "of a label",
        cases.preprocessed(),
        ["explanation"],
        parameters={**FIXED, "method": "guided_backprop", "target": "espresso"},
    )
    by("everything", cases.files(), everything, parameters={**FIXED, "format": "png"})
    by("waiting", cases.preprocessed(), timeout=20_000_000, priority=1)

    def classes() -> Any:
        outputs = [
            cases.output("probabilities", class_count=2),
            cases.output("logits", class_count=5000),
        ]
        result = cases.client.infer(MODEL, [cases.files()], outputs=outputs)
        cases.arrays["classes/logits"] = result.as_numpy("logits").astype("S")[:, :2]
        return [[word.decode() for word in row] for row in result.as_numpy("probabilities")]

    cases.tell("classes", classes)


def infer_badly(cases: Cases) -> None:
    good = cases.preprocessed()
    zeros = np.zeros((1, 3, 96, 96), np.float32)
    tensor = cases.tensor

    def bad(name: str, inputs: Any, outputs: Any = None, **options: Any) -> None:
        def case() -> str:
            cases.infer(inputs, outputs, **options)
            return "was answered"

        cases.tell(name, case)

    bad("an unknown model", [good], model="lite1")
    bad("a model that could not be loaded", [good], model="no_such_network")
    bad("another version", [good], model_version="7")
    bad("no input", [])
    bad("an unknown input", [tensor("pixels", zeros, "FP32")])
    bad("two inputs", [good, cases.files(cases.photos[0])])
    bad("an input twice", [good, good])
    bad("an unknown output", [good], ["softmax"])
    bad("an output twice", [good], ["logits", "logits"])
    bad("half precision", [tensor("input", zeros.astype(np.float16), "FP16")])
    bad("double precision", [tensor("input", zeros.astype(np.float64), "FP64")])
    bad("integers", [tensor("image", np.zeros((1,), np.int64), "INT64")])
    bad("another rank", [tensor("input", zeros[0], "FP32")])
    bad("one channel", [tensor("input", zeros[:, :1], "FP32")])
    bad("another size", [tensor("input", zeros[:, :, :95], "FP32")])
    bad("a shape that lies", [tensor("input", zeros, "FP32", [2, 3, 96, 96])])
    bad("a negative axis", [tensor("input", zeros, "FP32", [-1, 3, 96, 96])])
    bad("an empty batch", [tensor("input", zeros[:0], "FP32")])
    bad("too many images", [tensor("photo", np.zeros((65, 1, 1, 3), np.uint8), "UINT8")])
    bad("not finite", [tensor("input", zeros + np.float32("nan"), "FP32")])
    bad("more lengths than files", [cases.files(*cases.photos, shape=[3])])
    bad("fewer lengths than files", [cases.files(*cases.photos, shape=[1])])
    bad("not a photo", [cases.files(cases.photos[0], b"a text")])
    bad("an unknown parameter", [good], ["explanation"], parameters={"sharpness": 3})
    bad("a parameter of no one", [good], ["logits"], parameters={"method": "occlusion"})
    bad("an unknown method", [good], ["explanation"], parameters={"method": "magic"})
    bad("an unknown label", [good], ["explanation"], parameters={"target": "unicorn"})
    bad("a target that is not there", [good], ["explanation"], parameters={"target": 5000})
    bad("a wrong number", [good], parameters={"bucket_size": "many"})
    bad("another's parameter", [good], ["explanation"], parameters={"window_px": 8})
    bad("a timeout that lies", [good], timeout=-1)
    bad("too little time", [good], timeout=1)
    bad("a sequence", [good], sequence_id=3, sequence_start=True)

    def in_shared_memory() -> Any:
        shared = cases.module.InferInput("input", [1, 3, 96, 96], "FP32")
        shared.set_shared_memory("region", zeros.nbytes)
        return str(cases.client.infer(MODEL, [shared]))

    def classes_of_a_map() -> Any:
        outputs = [cases.output("explanation", class_count=2)]
        return str(cases.client.infer(MODEL, [good], outputs=outputs))

    cases.tell("in shared memory", in_shared_memory)
    cases.tell("classes of a map", classes_of_a_map)


def only_over_http(cases: Cases) -> None:
    def as_json(name: str, inputs: Any, outputs: Any) -> None:
        def case() -> Any:
            made = [cases.output(one, binary_data=False) for one in outputs]
            result = cases.client.infer(MODEL, [inputs], outputs=made, parameters=FIXED)
            cases.keep(name, result, *outputs)
            return [sorted(one) for one in result.get_response()["outputs"]]

        cases.tell(name, case)

    as_json("in JSON", cases.preprocessed(binary_data=False), ["logits", "probabilities"])
    as_json("files in JSON", cases.files(), ["rendering"])
    cases.tell(
        "compressed",
        lambda: str(cases.infer([cases.preprocessed()], request_compression_algorithm="gzip")),
    )


def only_over_grpc(cases: Cases) -> None:
    client, answers = cases.client, queue.Queue[Any]()

    def stream() -> Any:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for index in range(40):
            wrong = index % 8 == 5
            client.async_stream_infer(
                MODEL,
                [cases.files(b"a text") if wrong else cases.preprocessed()],
                outputs=[cases.output("explanation" if index % 2 else "logits")],
                request_id=str(index),
                parameters=FIXED,
                enable_empty_final_response=index == 0,
            )
        client.stop_stream()  # waits for every answer
        told = []
        for index in range(answers.qsize()):
            result, error = answers.get_nowait()
            if error is None:
                response = result.get_response()
                final = response.parameters["triton_final_response"].bool_param
                told.append([response.id, final])
                if index < 2:
                    cases.keep(f"stream {index}", result, response.outputs[0].name)
            else:
                told.append(error.message())
        return told

    def callback() -> Any:
        done = queue.Queue[Any]()
        client.async_infer(
            MODEL, [cases.preprocessed()], callback=lambda result, error: done.put((result, error))
        )
        result, error = done.get(timeout=60)
        return [list(result.as_numpy("logits").shape), error]

    cases.tell("stream", stream)
    cases.tell("callback", callback)
    cases.tell("a deadline", lambda: str(cases.infer([cases.preprocessed()], client_timeout=0.001)))


def main() -> None:
    grpc_address, http_address, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    told = {}
    for protocol, module, address, options, only in (
        ("grpc", over_grpc, grpc_address, {"as_json": True}, only_over_grpc),
        ("http", over_http, http_address, {}, only_over_http),
    ):
        cases = Cases(module, address, folder)
        infer_well(cases)
        infer_badly(cases)
        only(cases)
        tell_of_the_server(cases, options)
        cases.client.close()
        np.savez(folder / f"{protocol}.npz", **cases.arrays)
        told[protocol] = cases.told
    print(json.dumps(told))


if __name__ == "__main__":
    main()
