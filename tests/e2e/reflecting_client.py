"""A client that knows a server by reflection alone: a script, in a process without any stubs.

    python reflecting_client.py GRPC_ADDRESS

Prints what it found, and what a call through it answered, as JSON.
"""

import json
import sys
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


def main() -> None:
    with grpc.insecure_channel(sys.argv[1]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        services = {
            name: [method.name for method in pool.FindServiceByName(name).methods]
            for name in database.get_services()
            if not name.startswith("grpc.")
        }

        def call(service: str, method: str, **request: Any) -> Any:
            found = pool.FindServiceByName(service).FindMethodByName(method)
            asked, answered = map(GetMessageClass, (found.input_type, found.output_type))
            invoke = channel.unary_unary(
                f"/{service}/{method}", asked.SerializeToString, answered.FromString
            )
            return MessageToDict(invoke(asked(**request)))

        contents = {"bytes_contents": [sys.stdin.buffer.read()]}
        image = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": contents}
        wanted = {"name": "logits", "parameters": {"classification": {"int64_param": 1}}}
        told = {
            "services": services,
            "ready": call("inference.GRPCInferenceService", "ServerReady"),
            "models": call("pellucid.v1.PellucidService", "ListModels"),
            "inferred": call(
                "inference.GRPCInferenceService",
                "ModelInfer",
                model_name="efficientnet_lite0",
                inputs=[image],
                outputs=[wanted],
            ),
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
