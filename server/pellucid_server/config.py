"""Every setting of the server, in one object: from flags, PELLUCID_… variables, defaults."""

from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pellucid import pem
from pydantic import (
    DirectoryPath,
    Field,
    FilePath,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from .locks import read_tokens
from .signing import read_key


class Settings(BaseSettings):
    """The server's settings."""

    model_config = SettingsConfigDict(env_prefix="PELLUCID_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every one.")
    http_port: int = Field(8000, ge=0, le=65535, description="Port of REST; 0 picks one.")
    grpc_port: int = Field(8001, ge=0, le=65535, description="Port of gRPC; 0 picks one.")
    metrics_port: int = Field(8002, ge=0, le=65535, description="Port of metrics; 0 picks one.")

    tls_certificate: FilePath | None = Field(
        None, description="PEM file of the server's certificate: gRPC and REST over TLS alone."
    )
    tls_key: FilePath | None = Field(None, description="PEM file of its key, unencrypted.")
    tls_client_ca: FilePath | None = Field(
        None, description="PEM file of who signs clients' certificates, which are required then."
    )
    token_file: FilePath | None = Field(
        None,
        description="File of bearer tokens, TOKEN or NAME TOKEN a line: calls without are refused.",
    )

    models: tuple[str, ...] = Field(
        ("efficientnet_lite0",),
        description="Embedded models to load; the first of all models is the default.",
    )
    model_folders: DirectoryPath | None = Field(
        None, description="Folder of model folders, which are loaded after the embedded models."
    )
    styles: DirectoryPath | None = Field(
        default_factory=lambda: Path("styles") if Path("styles").is_dir() else None,
        description="Folder of fast style's networks, as `pellucid models pull styles` makes it; "
        "./styles, where there is one, if unset.",
    )
    indices: tuple[DirectoryPath, ...] = Field(
        (), description="Folders of indices, as `pellucid index` makes them: one a model."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where networks run.")
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = Field(
        "float32", description="Arithmetic of embedded models."
    )
    input_px: int = Field(
        224, ge=32, le=1024, description="Side of the embedded models' input, pixels."
    )

    buckets: tuple[int, ...] = Field(
        (1, 2, 4, 8, 16), min_length=1, description="Batch sizes that rows are padded to."
    )
    iteration_budget_ms: float = Field(
        250.0, gt=0, description="Longer batches are not chosen, so that no caller waits long."
    )
    queue_budget_ms: float = Field(
        30_000.0, gt=0, description="Predicted device time that may wait before calls are refused."
    )
    queue_bytes: int = Field(
        1 << 30, gt=0, description="Bytes of requests under way, their decoded images included."
    )
    optimize_budget_ms: float = Field(
        3_600_000.0, gt=0, description="The same of optimizations, which hold up nobody else."
    )
    max_requests: int = Field(256, ge=1, description="Requests of both protocols at once.")
    worker_count: int = Field(
        2, ge=1, description="Threads that decode and render, beside one for predictions alone."
    )
    process_count: int = Field(
        1, ge=1, le=64, description="Processes that make maps, each on one core; begun when needed."
    )
    process_bytes: int = Field(
        4 << 30,
        ge=1 << 29,
        description="Memory of each of them, on Linux; a map that needs more is refused.",
    )

    max_message_bytes: int = Field(
        32 << 20, ge=1 << 10, description="Cap of a message or body, both ways."
    )
    max_photo_set_bytes: int = Field(
        256 << 20,
        ge=1 << 10,
        description="Cap of all photos of a set, and of a form that may bring one.",
    )
    max_checkpoint_bytes: int = Field(
        256 << 20,
        ge=1 << 10,
        description="Cap of a checkpoint that a job makes or goes on from, and of its form.",
    )
    max_photo_pixels: int = Field(40_000_000, ge=1, description="Cap of a photo, pixels.")
    optimize_bucket: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Images of up to 512 × 512 px that are optimized in a batch, larger ones go "
        "alone; 4 on a CPU and 16 on CUDA if unset. Replicas that share jobs must agree in it.",
    )
    checkpoint_key_file: FilePath | None = Field(
        None,
        description="File of the key that checkpoints are signed with, which replicas share; "
        "without it none is taken up by another server.",
    )
    max_optimize_pixels: int = Field(
        1 << 20, ge=1 << 8, description="Cap of an optimized image, pixels."
    )
    default_timeout_ms: float = Field(
        60_000.0, gt=0, description="Deadline of a request that brings none."
    )
    max_timeout_ms: float = Field(600_000.0, gt=0, description="Longer deadlines are cut to this.")
    max_video_streams: int = Field(
        16, ge=0, description="Streams of video at once, each of which is a request."
    )
    video_idle_timeout_s: float = Field(
        30.0,
        gt=0,
        description="A stream of video ends when it brings no frame, or takes none, for so long.",
    )
    web_origins: tuple[str, ...] = Field(
        (),
        description="Origins, https://example.org, whose pages may open WebSockets here, besides "
        "this server's own.",
    )
    drain_timeout_s: float = Field(
        30.0, gt=0, description="How long a stopping server finishes what it admitted."
    )

    @property
    def max_form_bytes(self) -> int:
        """Of a form that may bring a set of photos, or a checkpoint."""
        return max(self.max_message_bytes, self.max_photo_set_bytes, self.max_checkpoint_bytes)

    @field_validator("tls_certificate")
    @classmethod
    def _certifies(cls, certificate: Path | None) -> Path | None:
        if certificate is not None:
            pem.read_certificates(certificate)
        return certificate

    @field_validator("tls_key")
    @classmethod
    def _fits(cls, key: Path | None, others: ValidationInfo) -> Path | None:
        certificate = others.data.get("tls_certificate", key)  # missing: it is of no use itself
        if (key is None) != (certificate is None):
            raise ValueError("tls_certificate and tls_key need each other")
        if key is not None and "tls_certificate" in others.data:
            pem.read_key(key, others.data["tls_certificate"])
        return key

    @field_validator("tls_client_ca")
    @classmethod
    def _signs(cls, client_ca: Path | None, others: ValidationInfo) -> Path | None:
        if client_ca is not None:
            if others.data.get("tls_certificate", client_ca) is None:
                raise ValueError("needs tls_certificate: without TLS nobody shows a certificate")
            pem.read_certificates(client_ca)
        return client_ca

    @field_validator("token_file")
    @classmethod
    def _admits(cls, token_file: Path | None) -> Path | None:
        if token_file is not None:
            read_tokens(token_file)
        return token_file

    @field_validator("checkpoint_key_file")
    @classmethod
    def _signs_checkpoints(cls, key_file: Path | None) -> Path | None:
        if key_file is not None:
            read_key(key_file)
        return key_file

    @field_validator("buckets")
    @classmethod
    def _ascend(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if buckets[0] < 1 or any(a >= b for a, b in pairwise(buckets)):
            raise ValueError("must ascend, from 1 or more")
        return buckets

    @model_validator(mode="after")
    def _has_models(self) -> Self:
        if not self.models and self.model_folders is None:
            raise ValueError("there is nothing to serve: neither models nor model_folders are set")
        return self
