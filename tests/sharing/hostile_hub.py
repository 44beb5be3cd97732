"""Analytics Hub, Octogen's MCP and its login going wrong: proxies before the sandbox's hub."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import grpc
import httpx
from google.cloud import bigquery_analyticshub_v1 as ah
from google.protobuf import json_format  # type: ignore[import-untyped]

from octogen_dagster.sandbox.hub import Hub
from octogen_dagster.sandbox.listings import HubCall, project_number
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, Received, http

ABSENT: Final = object()
"""The value of a field that a `cell` fault removes."""
_PAGE = "<!doctype html><title>Just a moment...</title>"
_OPERATION = "/google.cloud.bigquery.analyticshub.v1.AnalyticsHubService/"
_ADDED = ("latency", "cell", "subscriber", "text_only")
_Answered: TypeAlias = "tuple[HubCall, int, list[bytes], list[HubFault]]"


@dataclass(frozen=True)
class HubFault:
    """Something that goes wrong with the calls it selects.

    | kind | value | hits | what the client sees |
    | --- | --- | --- | --- |
    | `latency` | seconds | all | the response comes that much later |
    | `status` | a gRPC code | gRPC | that error; nothing happened |
    | `denied` | | `SubscribeListing` | no permission, until it is called again |
    | `lost_response` | | all | gRPC UNAVAILABLE or HTTP 502, but the call *was* done |
    | `tool_error` | the error code | tools | a value with `error` and `message` |
    | `rate_limit` | seconds | tools | JSON-RPC -32029 with `retry_after` |
    | `cell`, `subscriber` | fields | tools | the cells or the subscribers with these fields |
    | `text_only` | | tools | the value as JSON text, no `structuredContent` |
    | `unauthorized` | | MCP | HTTP 401, as with an expired token |
    | `html` | | MCP, token | HTTP 200 with a web page |
    | `http_status` | 400 to 599 | MCP, token | that status with a web page |

    The token endpoint is hit only by faults with `method="token"`. `latency`, `cell`, `subscriber`
    and `text_only` are added to other faults; of those, the first one that selects a call hits it.

    Attributes:
        kind: The kind of fault.
        value: The value, as in the table.
        times: The number of calls it hits; None for all.
        method: Hit only this gRPC method, MCP tool, other MCP method (`initialize`), or `token`.
        catalog: Change only the cells of this catalog.
    """

    kind: str
    value: Any = None
    times: int | None = None
    method: str | None = None
    catalog: str | None = None


@dataclass
class Variants:
    """What differs from one Google to the next.

    Attributes:
        listing_project: A subscription names the project of its listing by its `id` or `number`.
        get_listing_project: So does a listing, which may also name it `as_asked`.
        linked_dataset_in: The field of a subscription that names its linked dataset.
        states: Numbers in place of states of a subscription, by the state's name.
    """

    listing_project: str = "id"
    get_listing_project: str = "id"
    linked_dataset_in: str = "both"
    states: dict[str, int] = field(default_factory=dict)


if TYPE_CHECKING:
    _Base = Hub
else:
    _Base = object


class HostileHub(_Base):
    """The hub of a sandbox, with addresses of its own, faults and variants.

    Attributes:
        settings: The variants in force.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.settings = Variants()
        self._active: list[list[Any]] = []
        self._seen: list[HubCall] = []
        self._changes = threading.Lock()
        self._is_denied = False
        self._channel = grpc.insecure_channel(hub.endpoint)
        self._http = RawServer(self._answer_http)
        self._client = httpx.Client(timeout=30, trust_env=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def authorization_server(self) -> str:
        return self._http.origin

    @property
    def mcp_url(self) -> str:
        return self._hub.mcp_url.replace(self._hub.authorization_server, self._http.origin)

    @property
    def token_endpoint(self) -> str:
        return self._hub.token_endpoint.replace(self._hub.authorization_server, self._http.origin)

    @property
    def environment(self) -> dict[str, str]:
        return self._hub.environment | {
            "OCTOGEN_MCP_URL": self.mcp_url,
            "OCTOGEN_MCP_TOKEN_ENDPOINT": self.token_endpoint,
            "ANALYTICS_HUB_EMULATOR_HOST": self.endpoint,
        }

    @property
    def calls(self) -> list[HubCall]:
        """The calls of the proxies, whether they reached the sandbox or not."""
        return [replace(call) for call in self._seen]

    def rotate_refresh_tokens(self, rotates: bool = True) -> None:
        """Replace a refresh token with each use from now on."""
        self._hub.rotates_refresh_tokens = rotates

    def inject(self, fault: HubFault) -> None:
        """Add a fault, after those in force."""
        with self._changes:
            self._active.append([fault, fault.times])

    def clear_faults(self) -> None:
        with self._changes:
            self._active.clear()

    @contextlib.contextmanager
    def running(self) -> Iterator[HostileHub]:
        server = grpc.server(ThreadPoolExecutor(32))
        server.add_generic_rpc_handlers([_Everything(self._answer_grpc)])
        self._port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with self._http, self._channel, self._client:
            yield self
            server.stop(grace=None).wait()

    def _hit(self, method: str, *kinds: str) -> tuple[HubFault | None, list[HubFault]]:
        """The fault that hits a call, and those that are added to it."""
        one, added = None, []
        with self._changes:
            for active in self._active:
                fault, left = active
                if left == 0 or fault.kind not in kinds or fault.method not in (None, method):
                    continue
                if method == "token" and fault.method is None:
                    continue
                if fault.kind in _ADDED:
                    added.append(fault)
                elif one is None:
                    one = fault
                else:
                    continue
                active[1] = left and left - 1
        return one, added

    def _answer_grpc(self, name: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        message = _request(name, request)
        arguments = json_format.MessageToDict(message, preserving_proto_field_name=True)
        call = HubCall("grpc", name, arguments)
        self._seen.append(call)
        kinds = ("latency", "status", "lost_response", "denied")
        fault, added = self._hit(name, *kinds[: 4 if name == "SubscribeListing" else 3])
        code, text, response = "OK", "", b""
        if name == "SubscribeListing":
            self._is_denied = fault is not None and fault.kind == "denied"
        if fault and fault.kind in ("status", "denied"):
            code = fault.value or "PERMISSION_DENIED"
            text = f"{name}: {code} on request"
        elif name != "TestIamPermissions" or not (self._is_denied or self._stays_denied()):
            try:
                response = self._channel.unary_unary(_OPERATION + name)(request, timeout=30)
            except grpc.RpcError as error:
                code, text = error.code().name, error.details()
        if fault and fault.kind == "lost_response":
            code, text = "UNAVAILABLE", "the response was lost on request"
        call.outcome = code
        ended = threading.Event()
        seconds = sum(each.value for each in added)
        if seconds and context.add_callback(ended.set):
            ended.wait(seconds)
        if code != "OK":
            context.abort(grpc.StatusCode[code], text)
        return self._varied(name, message, response)

    def _stays_denied(self) -> bool:
        return any(fault.kind == "denied" and left is None for fault, left in self._active)

    def _varied(self, name: str, request: Any, response: bytes) -> bytes:
        if name in ("SubscribeListing", "ListSubscriptions"):
            kind = getattr(ah, f"{name}Response").pb()
            answer = kind.FromString(response)
            single = name == "SubscribeListing"
            for each in [answer.subscription] if single else answer.subscriptions:
                self._vary_subscription(each)
        elif name in ("GetListing", "ListListings"):
            kind = (ah.Listing if name == "GetListing" else ah.ListListingsResponse).pb()
            answer = kind.FromString(response)
            for each in [answer] if name == "GetListing" else answer.listings:
                asked = (request.name or request.parent) if name == "GetListing" else request.parent
                each.name = _named(each.name, self.settings.get_listing_project, asked)
        else:
            return response
        varied: bytes = answer.SerializeToString()
        return varied

    def _vary_subscription(self, message: Any) -> None:
        (known,) = [each for each in self._hub.subscriptions if each.name == message.name]
        message.listing = _named(known.listing, self.settings.listing_project)
        place = self.settings.linked_dataset_in
        for key in list(message.linked_dataset_map):
            resource = message.linked_dataset_map.pop(key)
            if place in ("both", "linked_dataset_map"):
                message.linked_dataset_map[message.listing].CopyFrom(resource)
        if place not in ("both", "linked_dataset_map"):
            message.ClearField("linked_resources")
        if place not in ("both", "destination_dataset"):
            message.ClearField("destination_dataset")
        message.state = self.settings.states.get(known.state, message.state)

    def _answer_http(self, request: Received) -> Iterable[bytes]:
        path = urlsplit(request.target).path
        calls = {
            urlsplit(self.mcp_url).path: self._answer_mcp,
            urlsplit(self.token_endpoint).path: self._answer_token,
        }
        if request.method != "POST" or path not in calls:
            return self._forwarded(request)[1]
        call, status, parts, added = calls[path](request)
        call.outcome = call.outcome or ("OK" if status in (200, 202) else str(status))
        self._http.closing.wait(sum(each.value for each in added if each.kind == "latency"))
        return parts

    def _answer_token(self, request: Received) -> _Answered:
        form = parse_qs(request.body.decode())
        shown: dict[str, Any] = {
            name: form[name][0] for name in ("grant_type", "client_id") if name in form
        }
        call = HubCall("token", "token", shown)
        self._seen.append(call)
        fault, added = self._hit("token", "latency", "html", "http_status", "lost_response")
        return call, *self._http_fault(fault, request), added

    def _answer_mcp(self, request: Received) -> _Answered:
        message = json.loads(request.body)
        method, arguments = message["method"], message.get("params") or {}
        kinds = ["latency", "unauthorized", "html", "http_status", "lost_response"]
        if method == "tools/call":
            method, arguments = arguments["name"], arguments.get("arguments") or {}
            kinds += ["tool_error", "rate_limit", "cell", "subscriber", "text_only"]
        call = HubCall("mcp", method, arguments)
        self._seen.append(call)
        fault, added = self._hit(method, *kinds)
        if fault and fault.kind == "rate_limit":
            error = {
                "code": -32029,
                "message": "rate_limit_exceeded",
                "data": {"retry_after": fault.value},
            }
            answer = {"jsonrpc": "2.0", "id": message["id"], "error": error}
            call.outcome = "-32029"
            return call, 200, http(200, answer), added
        if fault and fault.kind == "tool_error":
            value = {"error": fault.value, "message": "on request"}
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": _result(value, added)}
            call.outcome = "error"
            return call, 200, http(200, answer), added
        status, parts = self._http_fault(fault, request)
        body = parts[0].partition(b"\r\n\r\n")[2]
        if status == 200 and message["method"] == "tools/call" and body.startswith(b"{"):
            answer = json.loads(body)
            call.outcome = _outcome(answer)
            sent = (answer.get("result", {}).get("structuredContent") or {}).get("result")
            if sent is not None and added:
                answer["result"] = _result(sent, added)
                parts = http(200, answer)
        return call, status, parts, added

    def _http_fault(self, fault: HubFault | None, request: Received) -> tuple[int, list[bytes]]:
        """Forward a request, unless a fault keeps it from the sandbox."""
        kind = fault and fault.kind
        if kind == "unauthorized":
            body = {"error": "invalid_token", "error_description": "Authentication required"}
            challenge = 'Bearer error="invalid_token", error_description="The token expired"'
            return 401, http(401, body, www_authenticate=challenge)
        if fault and kind in ("html", "http_status"):
            status = int(fault.value or 200)
            return status, http(status, _PAGE)
        answer = self._forwarded(request)
        return (502, http(502, _PAGE)) if kind == "lost_response" else answer

    def _forwarded(self, request: Received) -> tuple[int, list[bytes]]:
        """The sandbox's answer, with this server's address in place of the sandbox's."""
        upstream = self._hub.authorization_server
        kept = ("accept", "authorization", "content-type", "mcp-protocol-version")
        response = self._client.request(
            request.method,
            upstream + request.target,
            headers={name: request.headers[name] for name in kept if name in request.headers},
            content=request.body,
        )
        headers: dict[str, Any] = {
            name.replace("-", "_"): response.headers[name].replace(upstream, self._http.origin)
            for name in ("content-type", "location", "www-authenticate", "cache-control")
            if name in response.headers
        }
        body = response.content.replace(upstream.encode(), self._http.origin.encode())
        return response.status_code, http(response.status_code, body, **headers)


class _Everything(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Hands each call to a function, with the name of its method and the bytes of its request."""

    def __init__(self, answer: Callable[[str, bytes, grpc.ServicerContext], bytes]) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = handler_call_details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(functools.partial(self._answer, name))


@contextlib.contextmanager
def hostile_hub(**sandbox: Any) -> Iterator[HostileHub]:
    """Run a sandbox with a hub behind the proxies; the arguments are those of `Sandbox`."""
    with Sandbox(**sandbox, hub=True) as running, HostileHub(running.hub).running() as hub:
        yield hub


def _request(name: str, data: bytes) -> Any:
    from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

    if name == "TestIamPermissions":
        return iam_policy_pb2.TestIamPermissionsRequest.FromString(data)
    return getattr(ah, f"{name}Request").pb().FromString(data)


def _named(resource: str, by: str, asked: str = "") -> str:
    """The name of a listing with its project's id, its number, or as it was asked for."""
    _, project, rest = resource.split("/", 2)
    shown = {"id": project, "number": project_number(project), "as_asked": asked.split("/")[1:2]}[
        by
    ]
    return f"projects/{shown if isinstance(shown, str) else shown[0]}/{rest}"


def _result(value: Any, added: list[HubFault]) -> dict[str, Any]:
    """The result of a tool, with the fields of faults in its cells and subscribers."""
    if isinstance(value, dict):
        cells = value.get("cells", [value] if "status" in value else [])
        subscribers = value.get("subscribers", [value.get("subscriber", {})])
        for fault in added:
            changed = {"cell": cells, "subscriber": subscribers}.get(fault.kind, [])
            for each in changed:
                if fault.catalog in (None, each.get("catalogKey")):
                    each.update(fault.value)
                    for name in [name for name, it in each.items() if it is ABSENT]:
                        del each[name]
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": json.dumps(value)}],
        "isError": False,
    }
    if not any(fault.kind == "text_only" for fault in added):
        result["structuredContent"] = {"result": value}
    return result


def _outcome(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return str(answer["error"]["code"])
    result = answer["result"]
    value = (result.get("structuredContent") or {}).get("result")
    failed = result.get("isError") or (isinstance(value, dict) and "error" in value)
    return "error" if failed else "OK"
