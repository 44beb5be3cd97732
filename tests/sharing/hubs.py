"""An Analytics Hub of a few lines, for what the sandbox cannot do: it answers as it is told to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud import bigquery_analyticshub_v1 as ah
from google.longrunning import operations_pb2

_SERVICES = (
    "google.cloud.bigquery.analyticshub.v1.AnalyticsHubService",
    "google.longrunning.Operations",
)


@contextlib.contextmanager
def answering(**methods: Callable[[Any], Any]) -> Iterator[str]:
    """A server of these methods; `host:port` of it.

    Args:
        methods: From the name of a method to what answers its requests.
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


def _deserializer(method: str) -> Callable[[bytes], Any]:
    if method == "GetOperation":
        return operations_pb2.GetOperationRequest.FromString
    return getattr(ah, f"{method}Request").deserialize


def _serialized(message: Any) -> bytes:
    if isinstance(message, operations_pb2.Operation):
        return message.SerializeToString()
    return type(message).serialize(message)
