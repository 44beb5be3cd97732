"""An Analytics Hub of Google's proto classes with the answers of a test; no part of the sandbox."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.cloud import bigquery_analyticshub_v1 as ah
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import any_pb2  # type: ignore[import-untyped]
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

_SERVICES = (
    "google.cloud.bigquery.analyticshub.v1.AnalyticsHubService",
    "google.longrunning.Operations",
)
_OTHER_REQUESTS = {
    "GetOperation": operations_pb2.GetOperationRequest,
    "TestIamPermissions": iam_policy_pb2.TestIamPermissionsRequest,
}


class Refusal(Exception):
    """An answer other than OK, which a method raises.

    Args:
        code: The name of the gRPC status.
        message: Its text.
        details: Messages of `google.rpc.error_details_pb2`, sent as `grpc-status-details-bin`.
    """

    def __init__(self, code: str, message: str = "Refused.", *details: Any) -> None:
        super().__init__(message)
        self.code = grpc.StatusCode[code]
        self.details = details


def refusing(code: str, message: str = "Refused.", *details: Any) -> Callable[[Any], NoReturn]:
    """A method that refuses every request; the arguments are those of `Refusal`."""

    def method(_: Any) -> NoReturn:
        raise Refusal(code, message, *details)

    return method


def error_info(reason: str, **metadata: str) -> Any:
    """The detail in which Google names the reason of a refusal."""
    return error_details_pb2.ErrorInfo(reason=reason, domain="googleapis.com", metadata=metadata)


def granting(*permissions: str) -> Callable[[Any], Any]:
    """A `TestIamPermissions` that knows these permissions as granted."""
    return lambda request: iam_policy_pb2.TestIamPermissionsResponse(
        permissions=[each for each in request.permissions if each in permissions]
    )


@contextlib.contextmanager
def answering(**methods: Callable[[Any], Any]) -> Iterator[str]:
    """Run a server with these methods. Any other method is UNIMPLEMENTED.

    Args:
        methods: Functions from a request to its response, by the method's name. A function that
            raises `Refusal` sends that status.

    Yields:
        The server's `host:port`.
    """
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            lambda request, context, answer=answer: _answered(answer, request, context),
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


def _answered(answer: Callable[[Any], Any], request: Any, context: Any) -> Any:
    try:
        return answer(request)
    except Refusal as refusal:
        abort(context, refusal)


def abort(context: Any, refusal: Refusal) -> None:
    """End a call by a refusal.

    Args:
        context: The context of gRPC.
        refusal: The refusal.
    """
    status = status_pb2.Status(code=refusal.code.value[0], message=str(refusal))
    for detail in refusal.details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


def _deserializer(method: str) -> Any:
    if method in _OTHER_REQUESTS:
        return _OTHER_REQUESTS[method].FromString
    return getattr(ah, f"{method}Request").deserialize


def _serialized(message: Any) -> Any:
    if hasattr(message, "SerializeToString"):
        return message.SerializeToString()
    return type(message).serialize(message)
