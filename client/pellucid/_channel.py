"""How the clients reach a server: caps, keepalive and the retries that gRPC itself makes."""

import json

import grpc

MAX_MESSAGE_BYTES = 32 * 2**20

# A server that closes cancels the calls that just reached it; a caller's own cancellation ends
# its call here, and is never retried.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "pellucid.v1.PellucidService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}

OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A request larger than this buffer, 256 KiB by default, would never be retried.
    ("grpc.per_rpc_retry_buffer_size", 2 * MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Servers with gRPC's defaults close connections that ping more often than every 5 minutes.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


def connect(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """A channel to a server, in plain text without credentials."""
    if credentials is None:
        return grpc.insecure_channel(target, OPTIONS)
    return grpc.secure_channel(target, credentials, OPTIONS)


def connect_aio(
    target: str, credentials: grpc.ChannelCredentials | None, *, retries: bool = True
) -> grpc.aio.Channel:
    """A channel for the running loop; without retries, each call is one attempt."""
    options = OPTIONS if retries else (*OPTIONS, ("grpc.enable_retries", 0))
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)
