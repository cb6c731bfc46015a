"""The routes: what is not listed here leads nowhere. All of a policy but TLS and tokens lies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from safe_triton.gateway import access, limits
from safe_triton.gateway.apis import ADMIN_HEADER, APIS, GRPC_ADMIN_HEADER, Api, methods_of, one_of
from safe_triton.gateway.apis import MODEL as MODEL_PATH
from safe_triton.gateway.script import compile_script, shapes_script
from safe_triton.gateway.words import (
    CLUSTER,
    GRPC,
    HTTP,
    MODEL,
    Json,
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
SHAPES = "shapes"
"""A second filter of scripts, for the body of a request that was let through."""

STREAM_MOST_S = 3_600.0
"""Of one gRPC stream; a client begins another."""

FRAME_BYTES = 5
"""Before a message of gRPC: whether it is compressed, and its length."""

RETRY_ON = "connect-failure,refused-stream,unavailable,retriable-status-codes"
"""Another Triton is asked once: where this one was not reached, or says UNAVAILABLE, as for a model that is healed."""

_TAKEN_AWAY = ["authorization", "cookie", "proxy-authorization", "x-forwarded-client-cert"]
_HIDDEN = ["server", "x-powered-by"]
_NOT_BUFFERED = typed("extensions.filters.http.buffer.v3.BufferPerRoute", disabled=True)


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
        LUA: _scripted(compile_script(gateway, served)),
        access.FILTER: access.compile_rules(gateway),
        limits.FILTER: limits.compile_limits(gateway, served),
    }
    if keys:
        users = "".join(f"{name}:{keys[name]}\n" for name in sorted(keys))
        filters[KEYS] = typed(
            "extensions.filters.http.basic_auth.v3.BasicAuthPerRoute", users={"inline_string": users}, realm="triton"
        )
    own = [name for name in served if name in gateway.models]
    host = {
        "name": NAME,
        "domains": ["*"],
        "typed_per_filter_config": filters,
        "request_headers_to_remove": _TAKEN_AWAY,
        "response_headers_to_remove": _HIDDEN,
        "routes": [*_Routes(gateway, admin_secret, is_retried=is_retried).all(own)],
    }
    return typed(
        "config.route.v3.RouteConfiguration", name=NAME, virtual_hosts=[host], max_direct_response_body_size_bytes=64
    )


class _Routes:
    """Builds the routes of one policy, first match first."""

    def __init__(self, gateway: GatewayPolicy, admin_secret: str, *, is_retried: bool) -> None:
        self._gateway = gateway
        self._admin_secret = admin_secret
        self._is_retried = is_retried
        held = [role for name, role in gateway.roles.items() if access.holders_of(gateway, name)]
        self._apis = {verb: api for verb, api in APIS.items() if any(verb in role.verbs for role in held)}

    def all(self, own: Iterable[str]) -> Iterator[Json]:
        """Yield the most frequent first, since they are compared in turn; the end leads nowhere."""
        for verb, api in self._apis.items():
            for name in (*own, ""):
                yield from self._model(verb, api, name)
        for verb, api in self._apis.items():
            if verb == "stream":
                yield self._stream(api.methods)
                continue
            if api.methods:
                yield self._server(GRPC, "POST", methods_of(api.methods), api.is_restricted)
            if api.posts:
                yield self._server(HTTP, "POST", api.posts, api.is_restricted)
            if api.gets:
                yield self._server(HTTP, "GET", api.gets, api.is_restricted)
        yield {"name": "none", "match": {"prefix": "/"}, "direct_response": {"status": 404}}

    def _model(self, verb: str, api: Api, name: str) -> Iterator[Json]:
        """What is of one model: the named one, or whichever the script found."""
        for protocol, method, paths in (
            (GRPC, "POST", tuple(methods_of(api.model_methods))),
            (HTTP, "POST", tuple(f"{MODEL_PATH}{end}" for end in api.model_posts)),
            (HTTP, "GET", tuple(f"{MODEL_PATH}{end}" for end in api.model_gets)),
        ):
            if not paths:
                continue
            match = _match(method, paths)
            if name:
                match["headers"].insert(0, header_is(MODEL, name))
            action = {
                **self._action(protocol, self._timeout_s(name)),
                "cluster_header": CLUSTER,
                "cluster_not_found_response_code": "NOT_FOUND",
            }
            # The script has waited for a message already, and measured it.
            filters = {BUFFER: _NOT_BUFFERED if protocol == GRPC else _buffered(self._most_bytes(name))}
            if protocol == HTTP and verb == "infer":
                filters[SHAPES] = _scripted(shapes_script())
            yield {
                "name": f"{protocol} {method} {verb} {name}".strip(),
                "match": match,
                "route": action,
                **self._secret(protocol, is_restricted=api.is_restricted),
                "request_body_buffer_limit": self._gateway.max_request_bytes + FRAME_BYTES,
                "typed_per_filter_config": filters,
            }

    def _server(self, protocol: str, method: str, paths: Iterable[str], is_restricted: bool) -> Json:
        return {
            "name": f"{protocol} {method} server{' restricted' * is_restricted}",
            "match": _match(method, paths),
            "route": {**self._action(protocol, self._gateway.request_timeout_s), "cluster": server_cluster(protocol)},
            **self._secret(protocol, is_restricted=is_restricted),
            "typed_per_filter_config": {BUFFER: _buffered(self._gateway.max_request_bytes)},
        }

    def _stream(self, methods: Iterable[str]) -> Json:
        action = {
            "cluster": server_cluster(GRPC),
            "timeout": "0s",  # which does not end with a request that does not end: the next two do
            "idle_timeout": seconds(self._gateway.stream_idle_timeout_s),
            "max_stream_duration": {"max_stream_duration": seconds(STREAM_MOST_S)},
        }
        return {
            "name": "grpc stream",
            "match": _match("POST", methods_of(methods)),
            "route": action,
            "typed_per_filter_config": {BUFFER: _NOT_BUFFERED},
        }

    def _action(self, protocol: str, timeout_s: float) -> Json:
        # A model that thinks for longer than a stream may be idle is not idle.
        action: dict[str, Any] = {"idle_timeout": seconds(max(timeout_s, self._gateway.stream_idle_timeout_s))}
        if protocol == GRPC:
            # A client's own shorter deadline holds; a longer one does not. Beside these two, "timeout" has no effect.
            limits_s = ("max_stream_duration", "grpc_timeout_header_max")
            action["max_stream_duration"] = dict.fromkeys(limits_s, seconds(timeout_s))
        else:
            action["timeout"] = seconds(timeout_s)
        if self._is_retried:
            predicate = {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
            }
            action["retry_policy"] = {
                "retry_on": RETRY_ON,
                "retriable_status_codes": [503],
                "num_retries": 1,
                "retry_host_predicate": [predicate],
                # Either of two equally busy servers is drawn: four draws would meet the same one once in 16 times.
                "host_selection_retry_max_attempts": 16,
            }
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


def _match(method: str, paths: Iterable[str]) -> Json:
    return {"safe_regex": regex(one_of(paths)), "headers": [header_is(":method", method)]}


def _scripted(source: str) -> Json:
    return typed("extensions.filters.http.lua.v3.LuaPerRoute", source_code={"inline_string": source})


def _buffered(most_bytes: int) -> Json:
    return typed("extensions.filters.http.buffer.v3.BufferPerRoute", buffer={"max_request_bytes": most_bytes})
