"""The environment variables that a confined program may see: an allow-list, since secrets live in the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ALLOWED: frozenset[str] = frozenset(
    """
    PATH LANG LANGUAGE LC_ALL LC_CTYPE LC_COLLATE LC_MESSAGES LC_MONETARY LC_NUMERIC LC_TIME TZ TERM
    LD_LIBRARY_PATH VIRTUAL_ENV SSL_CERT_FILE SSL_CERT_DIR
    OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS NUMEXPR_NUM_THREADS
    CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES
    """.split()  # noqa: SIM905 - a table of words
)


def clean_environment(environment: Mapping[str, str], extra: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that are allowed by default or named in ``extra``; pure.

    Does not cover:
        Secrets in the values of allowed variables.
    """
    names = ALLOWED | frozenset(extra)
    return {name: value for name, value in environment.items() if name in names}
