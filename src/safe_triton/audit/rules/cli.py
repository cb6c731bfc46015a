"""Rules for command lines of tritonserver."""

from __future__ import annotations

from functools import partial

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule, numbered_rule

FLAGS_PAGE = (
    "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_management.html"
)
SECURE_PAGE = (
    "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/customization_guide/deploy.html"
)
PROTOCOLS_PAGE = "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/customization_guide/inference_protocols.html"

_LOCAL = "--http-address=127.0.0.1 --grpc-address=127.0.0.1"
_CERTS = "--grpc-server-cert=/certs/tls.crt --grpc-server-key=/certs/tls.key"
_ROOT = "--grpc-use-ssl-mutual=true --grpc-root-cert=/certs/ca.crt"


def _sh(*flags: str) -> Example:
    """A script that starts a server with these options."""
    return Example(files={"run.sh": f"#!/bin/sh\nexec tritonserver --model-repository=/models {' '.join(flags)}\n"})


_rule = partial(numbered_rule, 7, owasp="A05:2021", reference=SECURE_PAGE)


RULES: tuple[Rule, ...] = (
    _rule(
        1,
        "no-tls",
        Level.WARNING,
        "gRPC listens on an address that other machines reach, without TLS.",
        "Requests, responses and the secrets of restricted APIs can be read and changed on the way.",
        f"--grpc-use-ssl=true {_CERTS}, or --grpc-address=127.0.0.1 behind a proxy that has TLS",
        cwe="CWE-319",
        owasp="A02:2021",
        reference=PROTOCOLS_PAGE,
        bad=_sh("--http-address=127.0.0.1"),
        good=_sh(_LOCAL),
    ),
    _rule(
        2,
        "tls-ineffective",
        Level.WARNING,
        "An option of TLS that encrypts or checks nothing.",
        "Certificates are ignored without --grpc-use-ssl=true, clients without mutual TLS; HTTP has no TLS at all.",
        f"--grpc-use-ssl=true {_CERTS}; with clients' certificates: {_ROOT} {_CERTS}",
        cwe="CWE-319",
        owasp="A02:2021",
        reference=PROTOCOLS_PAGE,
        bad=_sh("--grpc-root-cert=/certs/ca.crt"),
        good=_sh(_ROOT, _CERTS),
    ),
    _rule(
        3,
        "tls-no-client-auth",
        Level.INFO,
        "gRPC is encrypted, and accepts every client.",
        "Whoever reaches the port may use every model.",
        f"{_ROOT} {_CERTS}",
        cwe="CWE-306",
        owasp="A07:2021",
        reference=PROTOCOLS_PAGE,
        bad=_sh("--grpc-use-ssl=true", _CERTS),
        good=_sh(_ROOT, _CERTS),
    ),
    _rule(
        4,
        "http-plaintext-exposed",
        Level.WARNING,
        "HTTP listens on an address that other machines reach.",
        "Triton's HTTP has no TLS: what passes can be read and changed on the way.",
        "--http-address=127.0.0.1 behind a proxy that has TLS, or --allow-http=false",
        cwe="CWE-319",
        owasp="A02:2021",
        reference=PROTOCOLS_PAGE,
        bad=_sh("--grpc-address=127.0.0.1"),
        good=_sh("--allow-http=false", "--metrics-address=127.0.0.1"),
    ),
    _rule(
        5,
        "metrics-exposed",
        Level.INFO,
        "The metrics can be read by other machines.",
        "They name every model and version, and show how much each is used.",
        "--metrics-address=127.0.0.1, or --allow-metrics=false",
        cwe="CWE-200",
        owasp="A01:2021",
        bad=_sh("--allow-metrics=true", "--metrics-port=8002"),
        good=_sh("--allow-metrics=false"),
    ),
    _rule(
        6,
        "restricted-api-missing",
        Level.ERROR,
        "No API is restricted: an error in explicit mode, where the load API is open to everyone.",
        "A load request may bring files along, and they are run: the load API is remote code execution by design.",
        "--http-restricted-api=model-repository:key=$KEY --grpc-restricted-protocol=model-repository:key=$KEY",
        cwe="CWE-306",
        owasp="A01:2021",
        reference=PROTOCOLS_PAGE,
        bad=_sh("--model-control-mode=explicit"),
        good=_sh(
            "--model-control-mode=explicit",
            '"--http-restricted-api=model-repository:admin-key=$ADMIN_SECRET"',
            '"--grpc-restricted-protocol=model-repository:admin-key=$ADMIN_SECRET"',
        ),
    ),
    _rule(
        7,
        "restricted-api-partial",
        Level.WARNING,
        "An API is restricted for HTTP or for gRPC only.",
        "The other protocol serves the same API without the secret, and Triton does not say so.",
        "the same list in --http-restricted-api and --grpc-restricted-protocol, or --allow-grpc=false",
        cwe="CWE-306",
        owasp="A01:2021",
        reference=PROTOCOLS_PAGE,
        bad=_sh('"--http-restricted-api=model-repository,logging:admin-key=$ADMIN_SECRET"'),
        good=_sh('"--http-restricted-api=logging:admin-key=$ADMIN_SECRET"', "--allow-grpc=false"),
    ),
    _rule(
        8,
        "model-control-open",
        Level.WARNING,
        "Models can be loaded or replaced while the server runs, without a secret.",
        "In explicit mode whoever reaches the load API runs code; in poll mode whoever writes to the repository does.",
        "--model-control-mode=none, or restrict model-repository for HTTP and gRPC",
        cwe="CWE-284",
        owasp="A01:2021",
        reference=FLAGS_PAGE,
        bad=_sh("--model-control-mode=poll", "--repository-poll-secs=5"),
        good=_sh("--model-control-mode=none"),
    ),
    _rule(
        9,
        "strict-readiness-off",
        Level.WARNING,
        "The server says that it is ready although models are unavailable.",
        "Clients are sent to a server that cannot answer them.",
        "--strict-readiness=true",
        cwe="CWE-754",
        bad=_sh("--strict-readiness=false"),
        good=_sh("--strict-readiness=true"),
    ),
    _rule(
        10,
        "exit-on-error-off",
        Level.INFO,
        "The server starts although models did not load.",
        "A broken deployment looks like a working one.",
        "--exit-on-error=true",
        cwe="CWE-754",
        bad=_sh("--exit-on-error=false"),
        good=_sh("--exit-on-error=true"),
    ),
    _rule(
        11,
        "log-file-in-repo",
        Level.WARNING,
        "A log or trace file is written into the model repository.",
        "The repository must be writable for it, and in poll mode every line may reload a model.",
        "--log-file=/var/log/triton/triton.log",
        cwe="CWE-532",
        owasp="A09:2021",
        bad=_sh("--log-file=/models/logs/triton.log"),
        good=_sh("--log-file=/var/log/triton/triton.log"),
    ),
    _rule(
        12,
        "unknown-flag",
        Level.WARNING,
        "An option that tritonserver, or the release of the image, does not have.",
        "The server refuses to start; a misspelt protection protects nothing.",
        "write the option as tritonserver --help does: two dashes, words joined by dashes",
        bad=_sh("--http_port=8000"),
        good=_sh("--http-port=8000"),
    ),
    _rule(
        13,
        "invalid-flag-value",
        Level.WARNING,
        "An option whose value tritonserver refuses, or that has none.",
        "The server refuses to start, or takes the next option for the value.",
        "true, false, on, off, 1 or 0 for booleans; execution_count or off for --rate-limit",
        bad=_sh("--rate-limit=execution_count:10"),
        good=_sh("--rate-limit=execution_count"),
    ),
    _rule(
        14,
        "deprecated-flag",
        Level.INFO,
        "An option that will go away.",
        "A later release refuses to start with it.",
        "write what the message names",
        bad=_sh("--strict-model-config=true"),
        good=_sh("--disable-auto-complete-config"),
    ),
    _rule(
        15,
        "backend-dir-writable",
        Level.WARNING,
        "Backends, repository agents or caches are loaded from a folder that others may write to.",
        "A library put there runs in the server at its next start.",
        "--backend-directory=/opt/tritonserver/backends, owned by root",
        cwe="CWE-427",
        owasp="A08:2021",
        bad=_sh("--backend-directory=/tmp/backends"),
        good=_sh("--backend-directory=/opt/tritonserver/backends"),
    ),
    _rule(
        16,
        "cache-plaintext",
        Level.WARNING,
        "The response cache is a redis that is reached in plain text.",
        "Who listens reads the responses; who writes there chooses them.",
        "--cache-config=redis,tls_enabled=true with its certificate, or --cache-config=local,size=BYTES",
        cwe="CWE-319",
        owasp="A02:2021",
        bad=_sh("--cache-config=redis,host=cache.example --cache-config=redis,port=6379"),
        good=_sh("--cache-config=local,size=104857600"),
    ),
    _rule(
        17,
        "secrets-on-command-line",
        Level.WARNING,
        "A secret stands on the command line.",
        "Every process of the host can read command lines, and the file that holds this one is copied around.",
        "a variable that comes from a secret store, such as $ADMIN_SECRET",
        cwe="CWE-214",
        owasp="A07:2021",
        bad=_sh("--cache-config=redis,password=hunter2", "--cache-config=redis,tls_enabled=true"),
        good=_sh('"--cache-config=redis,password=$REDIS_PASSWORD"', "--cache-config=redis,tls_enabled=true"),
    ),
    _rule(
        18,
        "shm-excessive",
        Level.INFO,
        "Much shared or pinned memory is taken, for every instance or for the container.",
        "A few instances fill /dev/shm, and then every model fails.",
        "--backend-config=python,shm-default-byte-size=1048576",
        cwe="CWE-770",
        bad=_sh("--backend-config=python,shm-default-byte-size=10737418240"),
        good=_sh("--backend-config=python,shm-default-byte-size=1048576"),
    ),
    _rule(
        19,
        "broken-continuation",
        Level.WARNING,
        "A command line that ends before its options do.",
        "A comment, a blank line, or a blank behind the backslash ends it: the options below never reach the server.",
        "move comments above the command, and end every line but the last with a backslash",
        cwe="CWE-1164",
        bad=Example(
            files={
                "run.sh": "#!/bin/sh\ntritonserver --model-repository=/models \\\n"
                "  # encrypted\n  --grpc-use-ssl=true \\\n  --grpc-server-cert=/certs/tls.crt\n"
            }
        ),
        good=Example(
            files={
                "run.sh": "#!/bin/sh\n# encrypted\ntritonserver --model-repository=/models \\\n"
                "  --grpc-use-ssl=true \\\n  --grpc-server-cert=/certs/tls.crt\n"
            }
        ),
    ),
    _rule(
        20,
        "allow-sagemaker",
        Level.INFO,
        "The endpoint of SageMaker or Vertex AI is on.",
        "It is one more HTTP port, and restrictions of APIs do not cover it.",
        "--allow-sagemaker=false, unless it runs there",
        cwe="CWE-668",
        owasp="A01:2021",
        bad=_sh("--allow-sagemaker=true"),
        good=_sh("--allow-sagemaker=false"),
    ),
)
"""The family, in the order of the codes."""
