"""A client of any Triton server that checks what it sends and what it gets.

Usage::

    from safe_triton.client import SafeTritonClient

    with SafeTritonClient("grpcs://triton.example:8443", models=["digits"], api_key_file="/etc/me/api.key") as client:
        scores = client.infer("digits", {"PIXELS": pixels})["SCORES"]

Needs the extra ``client``. Importing ``safe_triton`` does not import this module.
"""

from __future__ import annotations

from safe_triton.client.answer import Answer
from safe_triton.client.asynchronous import AsyncSafeTritonClient
from safe_triton.client.fake import AsyncFakeTransport, FakeModel, FakeTransport
from safe_triton.client.request import InferRequest, SequenceStep
from safe_triton.client.retries import Retries
from safe_triton.client.settings import ClientSettings
from safe_triton.client.signature import Signature
from safe_triton.client.sync import SafeTritonClient
from safe_triton.client.transport import AsyncTransport, Call, Failure, Reply, Transport

__all__ = [
    "Answer",
    "AsyncFakeTransport",
    "AsyncSafeTritonClient",
    "AsyncTransport",
    "Call",
    "ClientSettings",
    "Failure",
    "FakeModel",
    "FakeTransport",
    "InferRequest",
    "Reply",
    "Retries",
    "SafeTritonClient",
    "SequenceStep",
    "Signature",
    "Transport",
]
