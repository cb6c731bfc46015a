"""From the policy to files for compose, Kubernetes, KServe, Envoy, systemd and an image. Writes and starts nothing."""

from __future__ import annotations

from safe_triton.deploy.compose import render_compose
from safe_triton.deploy.deployment import DeployedModel, Deployment
from safe_triton.deploy.envoy import render_envoy
from safe_triton.deploy.image import render_image
from safe_triton.deploy.kserve import render_kserve
from safe_triton.deploy.kubernetes import render_kubernetes
from safe_triton.deploy.systemd import render_systemd

__all__ = [
    "DeployedModel",
    "Deployment",
    "render_compose",
    "render_envoy",
    "render_image",
    "render_kserve",
    "render_kubernetes",
    "render_systemd",
]
