"""The routes: what is not listed here leads nowhere. All of a policy but TLS and tokens lies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from safe_triton.gateway import access, limits
from safe_triton.gateway.apis import (
    ADMIN_HEADER,
    APIS,
    GRPC_ADMIN_HEADER,
    MODELS,
    SERVICE,
    Api,
    method_path,
    model_path,
    one_of,
)
from safe_triton.gateway.script import SHAPES, compile_script, is_needed_for_http
from safe_triton.gateway.words import (
    CLUSTER,
    GRPC,
    HTTP,
    MODEL,
    OF_ROUTE,
    TAKEN_AWAY,
    Json,
    cluster_name,
    header_is,
    regex,
    seconds,
    server_cluster,
    typed,
)

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy

NAME = "gateway"
LUA, KEYS, BUFFER = "envoy.filters.http.lua", "envoy.filters.http.basic_auth", "envoy.filters.http.buffer"

STREAM_MOST_S = 3_600.0
"""Of one gRPC stream; a client begins another."""

FRAME_BYTES = 5
"""Before a message of gRPC: whether it is compressed, and its length."""

_RETRY = {
    "retry_on": "connect-failure,refused-stream,unavailable,retriable-status-codes",
    "retriable_status_codes": [503],
    "num_retries": 1,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        }
    ],
    # Of two servers as busy as each other either is drawn: four draws would meet the same one once in 16 times.
    "host_selection_retry_max_attempts": 16,
}
"""Another Triton is asked once: where this one was not reached, or says UNAVAILABLE, as for a model that is healed."""

_LUA = "extensions.filters.http.lua.v3.LuaPerRoute"
_HIDDEN = ["server", "x-powered-by"]
_OFF = typed("config.route.v3.FilterConfig", disabled=True)
"""A filter that is not even made for a request."""

_NOT_THERE = "there is no such model, or no such API of it"
_PATH = {
    "name": "path",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": ":path",
    },
}


def compile_routes(
    gateway: GatewayPolicy, models: Iterable[str], keys: Mapping[str, str], admin_secret: str, *, is_retried: bool
) -> Json:
    """Return the route configuration of one policy.

    Args:
        gateway: the policy.
        models: those that are served.
        keys: digest of each identity's key.
        admin_secret: value of Triton's secret header; empty: Triton asks for none.
        is_retried: whether there is another Triton to ask.
    """
    served = sorted(models)
    filters: Json = {
        LUA: typed(_LUA, source_code={"inline_string": compile_script(gateway, served)}),
        limits.FILTER: limits.compile_limits(gateway, served),
    }
    if keys:
        users = "".join(f"{name}:{keys[name]}\n" for name in sorted(keys))
        filters[KEYS] = typed(
            "extensions.filters.http.basic_auth.v3.BasicAuthPerRoute", users={"inline_string": users}, realm="triton"
        )
    host = {
        "name": NAME,
        "domains": ["*"],
        "typed_per_filter_config": filters,
        "request_headers_to_remove": list(TAKEN_AWAY),
        "response_headers_to_remove": _HIDDEN,
        "matcher": _Routes(gateway, admin_secret).tree(served),
    }
    if is_retried:
        host["retry_policy"] = _RETRY
    return typed(
        "config.route.v3.RouteConfiguration", name=NAME, virtual_hosts=[host], max_direct_response_body_size_bytes=64
    )


class _Routes:
    """Builds the routes of one policy: found by the beginning of the path, then compared in turn."""

    def __init__(self, gateway: GatewayPolicy, admin_secret: str) -> None:
        self._gateway = gateway
        self._admin_secret = admin_secret
        held = [role for name, role in gateway.roles.items() if access.holders_of(gateway, name)]
        self._apis = {verb: api for verb, api in APIS.items() if any(verb in role.verbs for role in held)}
        # Who calls is known without the script where there are keys alone, and over HTTP the path says the rest.
        self._http_filters = {} if is_needed_for_http(gateway) else {LUA: _OFF}

    def tree(self, served: Iterable[str]) -> Json:
        """Return where each beginning of a path leads; the longest that fits is taken, and its list is all there is."""
        compressed, nowhere = self._compressed(), self._nowhere(self._http_filters)
        # Of what is of the whole server, administration alone has paths that begin so.
        below = [*self._http_server({"admin"} & self._apis.keys()), nowhere]
        found = {f"{MODELS}{name}": [compressed, *self._http_model(name), *below] for name in served}
        found[SERVICE] = [self._nowhere({})]
        own = [name for name in served if name in self._gateway.models]
        for verb, api in self._apis.items():
            for method in api.model_methods:
                found[method_path(method)] = [self._message(verb, api, method, name) for name in (*own, "")]
            for method in api.methods:
                found[method_path(method)] = [self._method(verb, api, method)]
            for method in (*api.model_methods, *api.methods):
                found[method_path(method)].append(self._nowhere({}))
        leads = {"input": _PATH, "prefix_match_map": {"map": {begin: _listed(rows) for begin, rows in found.items()}}}
        return {"matcher_tree": leads, "on_no_match": _listed([compressed, *self._http_server(self._apis), nowhere])}

    def _http_model(self, name: str) -> Iterator[Json]:
        """What is of one model over HTTP, the most frequent first."""
        for verb, api in self._apis.items():
            rules = access.rules_of_path(self._gateway, verb, name)
            for method, ends in (("POST", api.model_posts), ("GET", api.model_gets)):
                if not ends or rules is None:
                    continue
                most_bytes = self._most_bytes(name)
                route = {
                    "name": f"http {method} {verb} {name}",
                    "match": _match(method, [model_path(name, ends)]),
                    "route": {**self._action(HTTP, self._timeout_s(name)), "cluster": cluster_name(HTTP, name)},
                    **self._secret(HTTP, is_restricted=api.is_restricted),
                    "metadata": {"filter_metadata": {OF_ROUTE: {"model": name}}},
                    "request_body_buffer_limit": most_bytes,
                }
                filters = {access.FILTER: rules, BUFFER: _buffered(most_bytes), **self._http_filters}
                if verb == "infer":
                    filters[SHAPES] = typed(_LUA, name=SHAPES)
                    # Where it is known that a body is within the limit, the script alone waits for it: the filter for
                    # sizes refuses what is larger, and says how long a body in chunks was.
                    match = _match(method, [model_path(name, ends)], _within(most_bytes))
                    yield {**route, "match": match, "typed_per_filter_config": {**filters, BUFFER: _OFF}}
                    route["name"] += " of any size"
                yield {**route, "typed_per_filter_config": filters}

    def _http_server(self, verbs: Iterable[str]) -> Iterator[Json]:
        """What is of the whole server over HTTP."""
        for verb in verbs:
            api = self._apis[verb]
            for method, paths in (("POST", api.posts), ("GET", api.gets)):
                if paths:
                    yield {
                        "name": f"http {method} {verb}",
                        "match": _match(method, paths),
                        **self._of_server(HTTP, verb, api),
                    }

    def _message(self, verb: str, api: Api, method: str, name: str) -> Json:
        """A gRPC method whose message names a model: the named one, or whichever the script found."""
        match: Json = {"path": method_path(method), "headers": [header_is(":method", "POST")]}
        if name:
            match["headers"].insert(0, header_is(MODEL, name))
        action = {
            **self._action(GRPC, self._timeout_s(name)),
            "cluster_header": CLUSTER,
            "cluster_not_found_response_code": "NOT_FOUND",
        }
        return {
            "name": f"grpc {method} {name}".strip(),
            "match": match,
            "route": action,
            **self._secret(GRPC, is_restricted=api.is_restricted),
            "request_body_buffer_limit": self._gateway.max_request_bytes + FRAME_BYTES,
            # The script has waited for a message already, and measured it.
            "typed_per_filter_config": {
                access.FILTER: access.rules_of_message(self._gateway, verb),
                BUFFER: _OFF,
            },
        }

    def _method(self, verb: str, api: Api, method: str) -> Json:
        """A gRPC method of the whole server."""
        match = {"path": method_path(method), "headers": [header_is(":method", "POST")]}
        if verb == "stream":
            return {"name": "grpc stream", "match": match, **self._stream(verb)}
        return {"name": f"grpc {method}", "match": match, **self._of_server(GRPC, verb, api)}

    def _of_server(self, protocol: str, verb: str, api: Api) -> Json:
        most_bytes = self._gateway.max_request_bytes
        return {
            "route": {**self._action(protocol, self._gateway.request_timeout_s), "cluster": server_cluster(protocol)},
            **self._secret(protocol, is_restricted=api.is_restricted),
            "typed_per_filter_config": {
                access.FILTER: access.rules_of_server(self._gateway, verb),
                BUFFER: _buffered(most_bytes),
                **(self._http_filters if protocol == HTTP else {}),
            },
        }

    def _stream(self, verb: str) -> Json:
        action = {
            "cluster": server_cluster(GRPC),
            "timeout": "0s",  # which does not end with a request that does not end: the next two do
            "idle_timeout": seconds(self._gateway.stream_idle_timeout_s),
            "max_stream_duration": {"max_stream_duration": seconds(STREAM_MOST_S)},
            "retry_policy": {},  # what a stream has said is not kept
        }
        rules = access.rules_of_server(self._gateway, verb)
        return {"route": action, "typed_per_filter_config": {access.FILTER: rules, BUFFER: _OFF}}

    def _compressed(self) -> Json:
        """Triton would unpack a body, to whatever it becomes, before any limit of a model."""
        match = {"prefix": "/", "headers": [{"name": "content-encoding", "present_match": True}]}
        return {
            "name": "compressed",
            "match": match,
            "direct_response": {"status": 415, "body": {"inline_string": "no compressed bodies"}},
            "typed_per_filter_config": {
                access.FILTER: access.no_rules(),
                BUFFER: _OFF,
                **self._http_filters,
            },
        }

    def _nowhere(self, filters: Json) -> Json:
        rules = access.rules_of_nowhere(self._gateway)
        return {
            "name": "none",
            "match": {"prefix": "/"},
            "direct_response": {"status": 404, "body": {"inline_string": _NOT_THERE}},
            "typed_per_filter_config": {access.FILTER: rules, BUFFER: _OFF, **filters},
        }

    def _action(self, protocol: str, timeout_s: float) -> Json:
        # A model that thinks for longer than a stream may be idle is not idle.
        action: Json = {"idle_timeout": seconds(max(timeout_s, self._gateway.stream_idle_timeout_s))}
        if protocol == GRPC:
            # A client's own shorter deadline holds; a longer one does not. Beside these two, "timeout" has no effect.
            limits_s = ("max_stream_duration", "grpc_timeout_header_max")
            action["max_stream_duration"] = dict.fromkeys(limits_s, seconds(timeout_s))
        else:
            action["timeout"] = seconds(timeout_s)
        return action

    def _secret(self, protocol: str, *, is_restricted: bool) -> Json:
        if not is_restricted or not self._admin_secret:
            return {}
        name = GRPC_ADMIN_HEADER if protocol == GRPC else ADMIN_HEADER
        header = {"key": name, "value": self._admin_secret.replace("%", "%%")}
        return {"request_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}

    def _timeout_s(self, model: str) -> float:
        own = self._gateway.models.get(model)
        return (own and own.timeout_s) or self._gateway.request_timeout_s

    def _most_bytes(self, model: str) -> int:
        own = self._gateway.models.get(model)
        return (own and own.max_request_bytes) or self._gateway.max_request_bytes


def _listed(routes: Iterable[Json]) -> Json:
    """Where a path leads: the first of several routes that fits it whole."""
    return {"action": {"name": "routes", "typed_config": typed("config.route.v3.RouteList", routes=list(routes))}}


def _match(method: str, paths: Iterable[str], *headers: Json) -> Json:
    return {"safe_regex": regex(one_of(paths)), "headers": [header_is(":method", method), *headers]}


def _within(most_bytes: int) -> Json:
    """A match of the length of a body, which Envoy's codecs compare with what comes."""
    return {"name": "content-length", "range_match": {"start": 0, "end": most_bytes + 1}}


def _buffered(most_bytes: int) -> Json:
    return typed("extensions.filters.http.buffer.v3.BufferPerRoute", buffer={"max_request_bytes": most_bytes})
