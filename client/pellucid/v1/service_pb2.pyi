from pellucid.v1 import codes_pb2 as _codes_pb2
from pellucid.v1 import index_pb2 as _index_pb2
from pellucid.v1 import inference_pb2 as _inference_pb2
from pellucid.v1 import inspect_pb2 as _inspect_pb2
from pellucid.v1 import model_pb2 as _model_pb2
from pellucid.v1 import optimize_pb2 as _optimize_pb2
from pellucid.v1 import stylize_pb2 as _stylize_pb2
from pellucid.v1 import video_pb2 as _video_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
