"""A local Analytics Hub whose responses a test writes, for what the sandbox cannot do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud import bigquery_analyticshub_v1 as ah
from google.longrunning import operations_pb2  # type: ignore[import-untyped]

_SERVICES = (
    "google.cloud.bigquery.analyticshub.v1.AnalyticsHubService",
    "google.longrunning.Operations",
)


@contextlib.contextmanager
def answering(**methods: Callable[[Any], Any]) -> Iterator[str]:
    """Run a server with these methods.

    Args:
        methods: Functions from a request to its response, by the method's name.

    Yields:
        The server's `host:port`.
    """
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            lambda request, _, answer=answer: answer(request),
            request_deserializer=_deserializer(name),
            response_serializer=_serialized,
        )
        for name, answer in methods.items()
    }
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(each, handlers) for each in _SERVICES)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()


def _deserializer(method: str) -> Any:
    if method == "GetOperation":
        return operations_pb2.GetOperationRequest.FromString
    return getattr(ah, f"{method}Request").deserialize


def _serialized(message: Any) -> Any:
    if isinstance(message, operations_pb2.Operation):
        return message.SerializeToString()
    return type(message).serialize(message)
