"""Long-running operations: started, then done at the first poll."""

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from octogen_dagster.sandbox.hub.long_running import LongRunningOperations
from octogen_dagster.sandbox.hub.names import Refusal

TARGET = "projects/p/locations/us/subscriptions/s"


def test_an_operation_is_done_when_it_is_polled() -> None:
    operations = LongRunningOperations()
    started = operations.start(TARGET, "delete", 7, empty_pb2.Empty())
    assert started.name == "projects/p/locations/us/operations/7"
    assert not started.done
    done = operations.get(operations_pb2.GetOperationRequest(name=started.name))
    assert done.done
    assert done.response.Is(empty_pb2.Empty.DESCRIPTOR)
    metadata = ah.OperationMetadata.deserialize(done.metadata.value)
    assert (metadata.target, metadata.verb) == (TARGET, "delete")


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(Refusal, match="Operation not found: x") as caught:
        LongRunningOperations().get(operations_pb2.GetOperationRequest(name="x"))
    assert caught.value.code == "NOT_FOUND"
