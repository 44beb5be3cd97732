"""The log keeps the latest entries and lets them be replaced."""

from dataclasses import replace

from octogen_dagster.sandbox.request_log import (
    MAX_LOGGED_REQUESTS,
    HubCall,
    ReceivedRequest,
    RequestLog,
)


def calls(log: RequestLog[HubCall]) -> list[tuple[str, str | None]]:
    return [(call.method, call.outcome) for call in log.entries()]


def test_entries_are_in_order_of_arrival() -> None:
    log = RequestLog[HubCall]()
    ids = [log.add(HubCall("grpc", method, {})) for method in "abc"]
    log.update(ids[1], HubCall("grpc", "b", {}, "OK"))
    assert calls(log) == [("a", None), ("b", "OK"), ("c", None)]


def test_only_the_latest_entries_are_kept() -> None:
    log = RequestLog[HubCall](max_entries=2)
    ids = [log.add(HubCall("grpc", method, {})) for method in "abc"]
    log.update(ids[0], HubCall("grpc", "a", {}, "OK"))
    log.update(ids[2], HubCall("grpc", "c", {}, "OK"))
    assert calls(log) == [("b", None), ("c", "OK")]


def test_the_default_limit_is_20_000_entries() -> None:
    log = RequestLog[HubCall]()
    for number in range(MAX_LOGGED_REQUESTS + 1):
        log.add(HubCall("mcp", str(number), {}))
    assert (len(log.entries()), log.entries()[0].method) == (20_000, "1")


def test_the_returned_list_is_a_copy() -> None:
    log = RequestLog[HubCall]()
    log.add(HubCall("token", "token", {}))
    log.entries().clear()
    assert len(log.entries()) == 1


def test_a_request_to_the_rest_api_is_completed_by_its_status() -> None:
    log = RequestLog[ReceivedRequest]()
    request = ReceivedRequest("GET", "/catalogs", None, "id", has_key=True, page=1, faults=())
    log.update(log.add(request), replace(request, status=200))
    (entry,) = log.entries()
    assert (entry.path, entry.status) == ("/catalogs", 200)
