"""``safe-triton render image``: a Dockerfile of NVIDIA's server with this package, for every other form."""

from __future__ import annotations

from safe_triton import __version__
from safe_triton.deploy.containers import ENVIRONMENT, MODELS
from safe_triton.deploy.deployment import Deployment, check_image
from safe_triton.deploy.pages import image_page
from safe_triton.deploy.text import header

FORM = "image"
REQUIREMENTS = "requirements.lock"
EXTRAS = "audit,cli,gateway"
"""What the containers run: the server, the gateway, and the audit before a start."""

VENV = "/opt/safe-triton"


def render_image(deployment: Deployment, base: str, requirements: str) -> dict[str, str]:
    """Return a Dockerfile and what it copies, by name; pure.

    Args:
        deployment: for the user, and whether the models are in the image.
        base: pinned reference of an image with tritonserver, Python and bash.
        requirements: text of a lock file with hashes, this package in it; empty to install it by its version.

    Raises:
        DeployError: ``deploy.image``.
    """
    check_image(base)
    user = deployment.settings.user_id
    pip = f"python3 -m pip --python {VENV}/bin/python3 install --no-cache-dir --only-binary :all:"
    if requirements:
        copy = f"COPY {REQUIREMENTS} /tmp/{REQUIREMENTS}\n"
        install = f"{pip} --require-hashes --requirement /tmp/{REQUIREMENTS} \\\n    && rm /tmp/{REQUIREMENTS}"
    else:
        copy = ""
        signing = "" if deployment.policy.audit.signature is None else ",signing"
        install = f"{pip} 'safe-triton[{EXTRAS}{signing}]=={__version__}'"
    models = ""
    if deployment.settings.models == "image":
        models = f"\n# Read by everybody, written by nobody.\nCOPY --chown=0:0 --chmod=0555 models {MODELS}\n"
    variables = " \\\n    ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    dockerfile = (
        header(FORM, "docker build --tag NAME:TAG .")
        + f"""
FROM {base}

# An environment of the server's own Python: the models' processes see its packages.
{copy}RUN python3 -m venv --without-pip {VENV} \\
    && {install}

# One user, without a name, a shell or a home, who owns none of the files.
ENV PATH={VENV}/bin:${{PATH}} \\
    {variables}
{models}
USER {user}:{user}
ENTRYPOINT []
CMD ["safe-triton", "serve", "{MODELS}"]
"""
    )
    files = {"Dockerfile": dockerfile, "README.md": image_page(deployment)}
    if requirements:
        files[REQUIREMENTS] = requirements
    return files
