"""The long-running operations of Analytics Hub, each of which is done as soon as it is polled."""

from typing import Any

from google.cloud import bigquery_analyticshub_v1 as ah
from google.longrunning import operations_pb2  # type: ignore[import-untyped]

from octogen_dagster.sandbox.hub.names import Refusal


class LongRunningOperations:
    """The operations that were started."""

    def __init__(self) -> None:
        self._done: dict[str, operations_pb2.Operation] = {}

    def start(self, target: str, verb: str, serial: int, response: Any) -> operations_pb2.Operation:
        """Return an operation that is under way. When it is polled, it is done.

        Args:
            target: The name of the subscription that it works on.
            verb: The name of the work, such as `refresh`.
            serial: A number that no other operation has.
            response: The protobuf message that is its result.
        """
        parent = target.partition("/subscriptions/")[0]
        started = operations_pb2.Operation(name=f"{parent}/operations/{serial}")
        metadata = ah.OperationMetadata(target=target, verb=verb)
        started.metadata.Pack(ah.OperationMetadata.pb(metadata))
        done = operations_pb2.Operation()
        done.CopyFrom(started)
        done.done = True
        done.response.Pack(response)
        self._done[done.name] = done
        return started

    def get(self, request: operations_pb2.GetOperationRequest) -> operations_pb2.Operation:
        """Return an operation, done.

        Raises:
            Refusal: There is no such operation.
        """
        if request.name not in self._done:
            raise Refusal("NOT_FOUND", f"Operation not found: {request.name}.")
        return self._done[request.name]
