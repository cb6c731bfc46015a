"""What tokens and keys look like, by who hands them out: one table for configurations, files and deployments."""

from __future__ import annotations

TOKENS: tuple[tuple[str, str], ...] = (
    ("a private key", r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"),
    ("an AWS access key", r"\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}\b"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{20,}"),
    ("an NVIDIA API key", r"\bnvapi-[A-Za-z0-9_-]{20,}"),
    ("an OpenAI or Anthropic key", r"\bsk-(?:ant|proj|svcacct)-[A-Za-z0-9_-]{20,}"),
    (
        "an API key",
        r"\bsk-(?:ant-|proj-|live-|test-)?[A-Za-z0-9_-]{20,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",
    ),
    ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{10,999}\.eyJ[A-Za-z0-9_-]{10,999}\.[A-Za-z0-9_-]{5}"),
    ("a storage account key", r"AccountKey=[A-Za-z0-9+/=]{40,}"),
    ("an npm or PyPI token", r"\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{30,}"),
)
"""What each is called in a finding, and the regular expression of its text."""
