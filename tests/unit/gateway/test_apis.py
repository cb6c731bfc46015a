"""The table of APIs against what Triton's own definitions say."""

from __future__ import annotations

import re

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import service_pb2

from safe_triton.gateway.apis import ADMIN_HEADER, APIS, GRPC_ADMIN_HEADER, method_path, model_path, one_of
from safe_triton.policyfile.gateway_tables import VERBS
from safe_triton.server.hardening import GRPC_HEADER_PREFIX, SECRET_HEADER

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
MODEL_METHODS = [name for api in APIS.values() for name in api.model_methods]


def test_every_verb() -> None:
    """Each word of a role is a row."""
    assert tuple(APIS) == ("infer", "metadata", "health", "statistics", "stream", "admin")
    assert set(APIS) == set(VERBS)


def test_every_method_once() -> None:
    """A method of Triton's service belongs to one verb; a new one has no route until it does."""
    listed = [name for api in APIS.values() for name in (*api.model_methods, *api.methods)]
    assert sorted(listed) == sorted(method.name for method in SERVICE.methods)


@pytest.mark.parametrize("name", MODEL_METHODS)
def test_messages_that_name_a_model(name: str) -> None:
    """What the script relies on: one message, 1 is the name, 2 the version, every field has a length and one byte."""
    method = SERVICE.methods_by_name[name]
    assert not method.client_streaming
    fields = method.input_type.fields_by_number
    assert {number: fields[number].name for number in (1, 2)} in (
        {1: "name", 2: "version"},
        {1: "model_name", 2: "model_version"},
    )
    with_length = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
    for number, field in fields.items():
        assert field.type in with_length, field.name
        assert number < 16, field.name


def test_streams_are_one_verb() -> None:
    """No other method has more than one message."""
    streams = [method.name for method in SERVICE.methods if method.client_streaming or method.server_streaming]
    assert streams == list(APIS["stream"].methods)


def test_the_secret_header() -> None:
    """The one that the hardened server asks for."""
    assert (ADMIN_HEADER, GRPC_ADMIN_HEADER) == (SECRET_HEADER, GRPC_HEADER_PREFIX + SECRET_HEADER)


@pytest.mark.parametrize(
    ("verb", "path", "is_allowed"),
    [
        ("infer", "/v2/models/a/infer", True),
        ("infer", "/v2/models/a-b.c_1/versions/12/infer", True),
        ("infer", "/v2/models/a/generate_stream", True),
        ("infer", "/inference.GRPCInferenceService/ModelInfer", True),
        ("infer", "/inference.GRPCInferenceService/ModelInferX", False),
        ("infer", "/v2/models/A/infer", False),
        ("infer", "/v2/models/a-bXc_1/infer", False),
        ("infer", "/v2/models/a/infer/", False),
        ("infer", "/v2/models/a/versions/x/infer", False),
        ("infer", "/v2/models/a/versions//infer", False),
        ("infer", "/v2/models//infer", False),
        ("infer", "/v2/models/../infer", False),
        ("infer", "/v2/models/a b/infer", False),
        ("infer", "/v2/models/a%62/infer", False),
        ("infer", "/v2/models/a;b/infer", False),
        ("infer", "/v2/models/a/b/infer", False),
        ("infer", "/v2/models/a\n/infer", False),
        ("metadata", "/v2", True),
        ("metadata", "/v2/", False),
        ("metadata", "/v2/models/a", True),
        ("metadata", "/v2/models/a/config", False),
        ("health", "/v2/health/ready", True),
        ("health", "/v2/models/a/ready", True),
        ("health", "/v2/models/a/infer", False),
        ("admin", "/v2/repository/models/a/load", True),
        ("admin", "/v2/systemsharedmemory/region/x/register", True),
        ("admin", "/v2/cudasharedmemory/status", True),
        ("admin", "/v2/models/a/trace/setting", True),
        ("statistics", "/v2/models/a/stats", True),
    ],
)
def test_paths(verb: str, path: str, is_allowed: bool) -> None:
    """Whole paths, as they are written, of the models a and a-b.c_1."""
    api = APIS[verb]
    exact = [*api.posts, *api.gets, *map(method_path, (*api.model_methods, *api.methods))]
    ends = (*api.model_posts, *api.model_gets)
    of_models = [model_path(name, ends) for name in ("a", "a-b.c_1") if ends]
    assert bool(re.fullmatch(one_of([*exact, *of_models]), path)) is is_allowed
