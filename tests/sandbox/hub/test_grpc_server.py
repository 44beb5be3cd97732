"""The gRPC server: faults, the log and the lifetime, as Google's client sees them."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sandbox.fault_model import ActiveFaults
from octogen_dagster.sandbox.hub.analytics_hub import AnalyticsHub
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.grpc_server import GrpcServer
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sandbox.hub.settings import HubSettings
from octogen_dagster.sandbox.hub.store import HubStore
from octogen_dagster.sandbox.request_log import RequestLog
from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.hub.calls import (
    SECONDS,
    connect,
    listing_names,
    outcomes,
    subscribe,
    subscriptions,
    wait_until,
)


class TestFaults:
    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("UNAVAILABLE", exceptions.ServiceUnavailable),
            ("PERMISSION_DENIED", exceptions.PermissionDenied),
            ("INTERNAL", exceptions.InternalServerError),
        ],
    )
    def test_a_call_hit_by_a_status_is_not_done(
        self,
        hub: Hub,
        google: ah.AnalyticsHubServiceClient,
        code: str,
        error: type[Exception],
    ) -> None:
        resource = hub.share("kumo")
        hub.inject(HubFault("status", code, method="SubscribeListing", times=2))
        assert listing_names(google, hub.exchange) == [resource]
        for _ in range(2):
            with pytest.raises(error, match="SubscribeListing"):
                subscribe(google, resource)
        assert hub.subscriptions == []
        subscribe(google, resource)
        assert outcomes(hub, "SubscribeListing") == [code, code, "OK"]

    def test_a_call_with_a_lost_response_was_done(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        resource = hub.share("kumo")
        hub.inject(HubFault("lost_response", times=1))
        with pytest.raises(exceptions.ServiceUnavailable, match="the response was lost"):
            subscribe(google, resource)
        assert len(hub.subscriptions) == 1
        with pytest.raises(exceptions.AlreadyExists):
            subscribe(google, resource)
        hub.inject(HubFault("lost_response", times=1))
        with pytest.raises(exceptions.ServiceUnavailable, match="the response was lost"):
            subscribe(google, resource)

    def test_a_call_with_a_late_response_was_done(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        resource = hub.share("kumo")
        hub.inject(HubFault("latency", 3600, method="SubscribeListing", times=1))
        with pytest.raises(exceptions.DeadlineExceeded):
            subscribe(google, resource, timeout=0.2)
        assert len(hub.subscriptions) == 1
        hub.inject(HubFault("latency", 0.01))
        assert len(subscriptions(google)) == 1

    def test_it_stops_while_a_client_waits(self) -> None:
        with Sandbox(catalogs=0, hub=True) as sandbox:
            google, resource = connect(sandbox.hub), sandbox.hub.share("kumo")
            sandbox.hub.inject(HubFault("latency", 3600))
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(subscribe, google, resource)
                wait_until(lambda: bool(sandbox.hub.subscriptions))
                sandbox.__exit__(None, None, None)
                with pytest.raises(exceptions.GoogleAPICallError):
                    waiting.result(timeout=SECONDS)


class TestLifetime:
    def test_it_listens_on_loopback_only(self, hub: Hub) -> None:
        host, _, port = hub.endpoint.partition(":")
        assert host == "127.0.0.1"
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe,
            pytest.raises(ConnectionRefusedError),
        ):
            probe.connect(("127.0.0.2", int(port)))

    def test_its_port_is_the_one_after_a_chosen_port(self) -> None:
        port = _port_with_a_free_one_after()
        with Sandbox(catalogs=0, hub=True, port=port) as sandbox:
            assert sandbox.hub.endpoint == f"127.0.0.1:{port + 1}"
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port + 1))
            taken.listen()
            with (
                pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port + 1}"),
                Sandbox(catalogs=0, hub=True, port=port),
            ):
                pass
        with Sandbox(catalogs=0, hub=True, port=port) as sandbox:
            assert sandbox.base_url == f"http://127.0.0.1:{port}/v1"
        with pytest.raises(ValueError, match="port must be 0 to 65534, not 65535"):
            Sandbox(hub=True, port=65535, generation="seed")

    def test_its_port_cannot_be_shared(self) -> None:
        first, second = (
            GrpcServer(
                AnalyticsHub(HubStore(), HubSettings()).services, ActiveFaults(), RequestLog()
            )
            for _ in range(2)
        )
        port = first.start(0)
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            second.start(port)
        first.stop()
        assert second.start(port) == port
        second.stop()

    def test_its_state_outlives_a_restart(self) -> None:
        sandbox = Sandbox(catalogs=0, hub=True)
        with sandbox:
            subscribe(connect(sandbox.hub), sandbox.hub.share("kumo"))
            old = sandbox.hub.endpoint
        with pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(grpc.insecure_channel(old)).result(timeout=0.2)
        with sandbox:
            assert len(subscriptions(connect(sandbox.hub))) == 1


def _port_with_a_free_one_after() -> int:
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
    raise AssertionError("no two ports in a row are free")
