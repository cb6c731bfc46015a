"""The listener: one port for HTTP/1.1, HTTP/2 and gRPC, what a connection may do, and the filters in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safe_triton.gateway import access, limits, routes
from safe_triton.gateway.apis import ADMIN_HEADER, GRPC_ADMIN_HEADER
from safe_triton.gateway.clusters import CONNECT_S, jwks_cluster
from safe_triton.gateway.log import access_log
from safe_triton.gateway.script import SHAPES, is_needed_for_http, shapes_script
from safe_triton.gateway.words import (
    IDENTITY,
    LONG_HEADERS,
    PREFIX,
    TRITON_HEADER_BYTES,
    Json,
    extension,
    jwt_header,
    seconds,
    typed,
)

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy
    from safe_triton.policyfile.gateway_tables import JwtIssuer

NAME = "gateway"
CERTIFICATE, CLIENTS = "certificate", "clients"
"""Names of the secrets: the server's certificate, and who issues clients'."""

STREAMS = 100
"""Requests at once on one HTTP/2 connection."""

_HTTP = "extensions.filters.http"
_TLS = "extensions.transport_sockets.tls.v3"
_JWT_BYTES = 8 << 10


def compile_listener(gateway: GatewayPolicy, folder: str) -> Json:
    """Return the listener of one policy.

    Args:
        gateway: the policy.
        folder: where the routes and the secrets lie.
    """
    chain: Json = {
        "filters": [_manager(gateway, folder)],
        "transport_socket_connect_timeout": seconds(gateway.header_timeout_s),
    }
    if not gateway.plaintext:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": _tls(gateway, folder)}
    return typed(
        "config.listener.v3.Listener",
        name=NAME,
        address={"socket_address": {"address": gateway.address, "port_value": gateway.port}},
        per_connection_buffer_limit_bytes=1 << 20,
        filter_chains=[chain],
    )


def from_file(folder: str, name: str) -> Json:
    """Return the source of a configuration that Envoy reads again when the file is replaced."""
    path = {"path": f"{folder}/{name}", "watched_directory": {"path": folder}}
    return {"path_config_source": path, "resource_api_version": "V3"}


def _tls(gateway: GatewayPolicy, folder: str) -> Json:
    context: Json = {
        "tls_params": {"tls_minimum_protocol_version": f"TLSv{gateway.tls_minimum.replace('.', '_')}"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [
            {"name": CERTIFICATE, "sds_config": from_file(folder, f"sds-{CERTIFICATE}.json")}
        ],
    }
    if gateway.client_ca:
        context["validation_context_sds_secret_config"] = {
            "name": CLIENTS,
            "sds_config": from_file(folder, f"sds-{CLIENTS}.json"),
        }
    return typed(
        f"{_TLS}.DownstreamTlsContext",
        common_tls_context=context,
        require_client_certificate=gateway.require_client_certificate,
        # A resumed session would outlive the certificates that it was opened with.
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
    )


def _manager(gateway: GatewayPolicy, folder: str) -> Json:
    # Envoy's own headers too: with one, a client of a private network would set its own timeout.
    strips: list[Json] = [{"remove_on_match": {"key_matcher": {"prefix": name}}} for name in (PREFIX, "x-envoy-")]
    strips += [{"remove": name} for name in (ADMIN_HEADER, GRPC_ADMIN_HEADER)]
    # Triton reads none of gRPC's binary metadata, and resets a call whose is not base64 as if it were ill.
    strips.append({"remove_on_match": {"key_matcher": {"suffix": "-bin"}}})
    strip = extension(
        "envoy.http.early_header_mutation.header_mutation",
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=strips,
    )
    return extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=NAME,
        codec_type="AUTO",
        rds={"route_config_name": routes.NAME, "config_source": from_file(folder, "rds.json")},
        http_filters=_filters(gateway),
        early_header_mutation_extensions=[strip],
        # Paths are compared with what is allowed as they are: nothing is decoded on the way to Triton.
        normalize_path=True,
        merge_slashes=False,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        use_remote_address=True,
        skip_xff_append=True,
        forward_client_cert_details="SANITIZE",
        server_header_transformation="PASS_THROUGH",
        always_set_request_id_in_response=True,
        max_request_headers_kb=_header_kib(gateway),
        request_headers_timeout=seconds(gateway.header_timeout_s),
        request_timeout=seconds(gateway.body_timeout_s),
        stream_idle_timeout=seconds(gateway.stream_idle_timeout_s),
        drain_timeout=seconds(min(gateway.drain_s, 5.0)),
        common_http_protocol_options={
            "idle_timeout": seconds(gateway.idle_timeout_s),
            "max_headers_count": gateway.max_headers,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        http_protocol_options={"allow_chunked_length": False},
        http2_protocol_options={
            "max_concurrent_streams": STREAMS,
            "initial_stream_window_size": 1 << 20,
            "initial_connection_window_size": 4 << 20,
        },
        access_log=access_log(gateway.access_log),
        local_reply_config=_replies(gateway),
    )


def _filters(gateway: GatewayPolicy) -> list[Json]:
    """The filters in the order of a request. Those that a policy fills are filled beside its routes."""
    found: list[Json] = []
    if any(identity.api_key_file for identity in gateway.identities.values()):
        found.append(
            extension(
                routes.KEYS,
                f"{_HTTP}.basic_auth.v3.BasicAuth",
                users={"inline_string": "nobody:{SHA}AAAAAAAAAAAAAAAAAAAAAAAAAAA="},
                allow_missing=is_needed_for_http(gateway),
                forward_username_header=IDENTITY,
                realm="triton",
            )
        )
    if gateway.jwt:
        found.append(_tokens(gateway))
    shapes = {"inline_string": shapes_script()}
    return [
        *found,
        extension(routes.LUA, f"{_HTTP}.lua.v3.Lua"),
        {"name": access.FILTER, "typed_config": access.deny_all()},
        extension(limits.FILTER, f"{_HTTP}.local_ratelimit.v3.LocalRateLimit", stat_prefix="gateway"),
        extension(routes.BUFFER, f"{_HTTP}.buffer.v3.Buffer", max_request_bytes=1),
        # Routes of requests in JSON name its script.
        {**extension(SHAPES, f"{_HTTP}.lua.v3.Lua", source_codes={SHAPES: shapes}), "disabled": True},
        # Counts by cluster and status that nobody asks for cost as much as a rule.
        extension(
            "envoy.filters.http.router", f"{_HTTP}.router.v3.Router", suppress_envoy_headers=True, dynamic_stats=False
        ),
    ]


def _tokens(gateway: GatewayPolicy) -> Json:
    """Tokens that are there must be valid; what has none goes on to the other credentials."""
    requirements: list[Json] = [{"provider_name": name} for name in sorted(gateway.jwt)]
    return extension(
        "envoy.filters.http.jwt_authn",
        f"{_HTTP}.jwt_authn.v3.JwtAuthentication",
        providers={name: _provider(name, issuer) for name, issuer in gateway.jwt.items()},
        rules=[
            {
                "match": {"prefix": "/"},
                "requires": {"requires_any": {"requirements": [*requirements, {"allow_missing": {}}]}},
            }
        ],
        strip_failure_response=True,
    )


def _provider(name: str, issuer: JwtIssuer) -> Json:
    provider: Json = {
        "issuer": issuer.issuer,
        "audiences": list(issuer.audiences),
        "require_expiration": True,
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "claim_to_headers": [{"header_name": jwt_header(name), "claim_name": issuer.subject_claim}],
        "jwt_cache_config": {"jwt_cache_size": 1000, "jwt_max_token_size": _JWT_BYTES},
    }
    if issuer.jwks_file:
        folder = issuer.jwks_file.rpartition("/")[0] or "/"
        provider["local_jwks"] = {"filename": issuer.jwks_file, "watched_directory": {"path": folder}}
    else:
        provider["remote_jwks"] = {
            "http_uri": {"uri": issuer.jwks_url, "cluster": jwks_cluster(name), "timeout": seconds(CONNECT_S)},
            "cache_duration": f"{issuer.jwks_refresh_s}s",
            "async_fetch": {"fast_listener": True},
        }
    return provider


def _header_kib(gateway: GatewayPolicy) -> int:
    return -(-gateway.max_header_bytes // 1024)


def _replies(gateway: GatewayPolicy) -> Json:
    """What the gateway itself answers, as Triton says it, without the names and addresses of what is behind it."""
    full = {"header": {"key": "grpc-status", "value": "8"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    broken = _flags("UC", "UR", "UPE")
    # Triton closes the connection at a header, or a path, that it does not take.
    long = _both(_flags("UC"), _where(f"request.total_size - request.size >= {TRITON_HEADER_BYTES}"))
    most = f"{_header_kib(gateway) << 10} bytes of headers and {gateway.max_headers} headers"
    # Envoy itself refused it, for its path or its framing, and no script with words of its own.
    unread = _both(_status("EQ", 400), _where("!(response.code_details in ['lua_response', 'direct_response'])"))
    token = _where("response.code_details.startsWith('jwt_authn_access_denied')")
    return {
        "mappers": [
            {"filter": _both(_status("EQ", 413), _is_grpc()), "headers_to_add": [full], **_TEXT},
            *_said(token, "this token is not valid here"),
            {"filter": long, "status_code": 431, **_ERROR, **_body(f"{LONG_HEADERS}: {_NO_LONG}")},
            # It may have been worked on, or have ended the server: unlike what was never sent, not to be sent again.
            *_said(broken, "the connection to the model broke", status_code=502),
            *_said(_flags("UF", "UH", "LH", "URX"), "the model cannot be reached now"),
            *_said(_flags("UO"), "gateway.concurrency: this model has as many requests in progress as it may"),
            {"filter": _both(_status("GE", 400), _is_grpc()), **_TEXT},
            {"filter": unread, **_ERROR, **_body("no request that the gateway reads")},
            {"filter": _status("EQ", 431), **_ERROR, **_body(f"{LONG_HEADERS}: a request has at most {most}")},
            {"filter": _status("GE", 400), **_ERROR},
        ]
    }


_NO_LONG = f"no path and no header has {TRITON_HEADER_BYTES} bytes or more"
_TEXT: Json = {"body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}}}
_ERROR: Json = {"body_format_override": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}


def _said(what: Json, words: str, **others: Any) -> list[Json]:
    """The same words over gRPC and HTTP."""
    over_grpc = {"filter": _both(what, _is_grpc()), **_body(words), **others, **_TEXT}
    return [over_grpc, {"filter": what, **_body(words), **others, **_ERROR}]


def _body(words: str) -> Json:
    return {"body": {"inline_string": words}}


def _flags(*names: str) -> Json:
    return {"response_flag_filter": {"flags": list(names)}}


def _where(expression: str) -> Json:
    """What an expression says of a request and its answer."""
    kind = "extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": extension("envoy.access_loggers.extension_filters.cel", kind, expression=expression)}


def _both(one: Json, other: Json) -> Json:
    return {"and_filter": {"filters": [one, other]}}


def _is_grpc() -> Json:
    return {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}


def _status(how: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": "gateway.unused"}
    return {"status_code_filter": {"comparison": {"op": how, "value": value}}}
