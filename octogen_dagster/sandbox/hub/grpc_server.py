"""A gRPC server whose calls are logged and can be hit by faults."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any, NamedTuple

import grpc
from google.protobuf import json_format  # type: ignore[import-untyped]

from octogen_dagster.sandbox.fault_model import ActiveFaults
from octogen_dagster.sandbox.hub.faults import GRPC_KINDS, HubFault
from octogen_dagster.sandbox.hub.names import Refusal
from octogen_dagster.sandbox.request_log import HubCall, RequestLog

_HOST = "127.0.0.1"
_MAX_THREADS = 32


class Method(NamedTuple):
    """A unary method.

    Attributes:
        deserialize: Returns the request message in the bytes of a call.
        perform: Does a call and returns the response message. May raise Refusal.
    """

    deserialize: Callable[[bytes], Any]
    perform: Callable[[Any], Any]


Services = Mapping[str, Mapping[str, Method]]
"""Service name to method name to method."""


class _Result(NamedTuple):
    code: str
    message: str
    response: Any


class GrpcServer:
    """A gRPC server on loopback, which can be started and stopped any number of times.

    Args:
        services: The services to serve.
        faults: The faults in force.
        log: The log.
    """

    def __init__(
        self, services: Services, faults: ActiveFaults[HubFault], log: RequestLog[HubCall]
    ) -> None:
        self._services = services
        self._faults = faults
        self._log = log
        self._server: grpc.Server | None = None

    def start(self, port: int) -> int:
        """Listen on 127.0.0.1 and return the port.

        Args:
            port: The port; 0 for a free one.

        Raises:
            OSError: The port is taken.
        """
        pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="octogen-sandbox-hub")
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    service, {name: self._handler(name, method) for name, method in methods.items()}
                )
                for service, methods in self._services.items()
            ]
        )
        try:
            bound: int = server.add_insecure_port(f"{_HOST}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {_HOST}:{port}: {error}") from error
        server.start()
        self._server = server
        return bound

    def stop(self) -> None:
        """End every call at once and release the port."""
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def _handler(self, name: str, method: Method) -> grpc.RpcMethodHandler:
        def respond(request: Any, context: grpc.ServicerContext) -> Any:
            call = HubCall("grpc", name, _arguments(request))
            call_id = self._log.add(call)
            hits = self._faults.hit(lambda fault: fault.selects(name, GRPC_KINDS))
            result = _result(name, method, request, hits.exclusive)
            self._log.update(call_id, replace(call, outcome=result.code))
            _delay(context, hits.latency_seconds)
            if result.code != "OK":
                context.abort(grpc.StatusCode[result.code], result.message)
            return result.response

        return grpc.unary_unary_rpc_method_handler(
            respond, request_deserializer=method.deserialize, response_serializer=_serialize
        )


def _result(name: str, method: Method, request: Any, fault: HubFault | None) -> _Result:
    kind = None if fault is None else fault.kind
    try:
        if fault is not None and kind == "status":
            raise Refusal(str(fault.value), f"{name}: {fault.value} on request")
        result = _Result("OK", "", method.perform(request))
    except Refusal as refusal:
        result = _Result(refusal.code, refusal.message, None)
    if kind == "lost_response":
        return _Result("UNAVAILABLE", f"{name}: the response was lost on request", None)
    return result


def _delay(context: grpc.ServicerContext, seconds: float) -> None:
    """Wait, but only until the client or the server ends the call."""
    ended = Event()
    if seconds and context.add_callback(ended.set):
        ended.wait(seconds)


def _protobuf(message: Any) -> Any:
    """Return the message of the protobuf runtime that a proto-plus message wraps, or `message`."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message


def _serialize(message: Any) -> bytes:
    serialized: bytes = _protobuf(message).SerializeToString()
    return serialized


def _arguments(request: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = json_format.MessageToDict(
        _protobuf(request), preserving_proto_field_name=True
    )
    return arguments
