from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class CheckpointPrecision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECKPOINT_PRECISION_UNSPECIFIED: _ClassVar[CheckpointPrecision]
    CHECKPOINT_PRECISION_FULL: _ClassVar[CheckpointPrecision]
    CHECKPOINT_PRECISION_HALF: _ClassVar[CheckpointPrecision]
CHECKPOINT_PRECISION_UNSPECIFIED: CheckpointPrecision
CHECKPOINT_PRECISION_FULL: CheckpointPrecision
CHECKPOINT_PRECISION_HALF: CheckpointPrecision
