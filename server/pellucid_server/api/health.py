"""grpc.health.v1: whether the server answers, for the whole of it and for its services."""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from pellucid.v1 import service_pb2

from .inference import grpc_service_pb2

SERVICE = service_pb2.DESCRIPTOR.services_by_name["PellucidService"].full_name
INFERENCE = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
SERVICES = (SERVICE, INFERENCE)
HEALTH = health.SERVICE_NAME
LIVENESS = "liveness"
"""What to ask for before a server is killed: one that loads or drains does not serve, but lives."""


class Health:
    """Says NOT_SERVING until it is told otherwise, and that it lives while it can say so."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._servicer = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set(self, serving: bool) -> None:
        response = health_pb2.HealthCheckResponse
        await self._servicer.set(LIVENESS, response.SERVING)
        status = response.SERVING if serving else response.NOT_SERVING
        for name in ("", *SERVICES):
            await self._servicer.set(name, status)
