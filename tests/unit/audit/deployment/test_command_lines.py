"""Command lines of tritonserver: read as the server reads them, and each rule on both sides."""

from __future__ import annotations

import shlex

import pytest

from safe_triton.audit.deployment import check_command_line
from safe_triton.audit.deployment.flags import FLAGS
from safe_triton.audit.deployment.server_command import parse_server_command
from safe_triton.audit.deployment.server_rules import NOWHERE, CommandContext
from safe_triton.audit.deployment.words import Word
from safe_triton.audit.finding import Level

LOCAL = "--http-address=127.0.0.1 --grpc-address=127.0.0.1"
CERTS = "--grpc-server-cert=/c/tls.crt --grpc-server-key=/c/tls.key"
MUTUAL = f"--grpc-use-ssl-mutual=true --grpc-root-cert=/c/ca.crt {CERTS}"
BOTH = '"--http-restricted-api=model-repository:k=$S" "--grpc-restricted-protocol=model-repository:k=$S"'


def rules_of(flags: str, context: CommandContext = NOWHERE) -> set[str]:
    """Return the names of the rules that a command line breaks."""
    words = ["tritonserver", "--model-repository=/models", *shlex.split(flags)]
    return {found.rule for found in check_command_line(words, "cmd", context=context)}


class TestFlags:
    @pytest.mark.parametrize(
        ("flags", "rule"),
        [
            ("", "no-tls"),
            ("--grpc-address=0.0.0.0", "no-tls"),
            ("--grpc-address 10.0.0.3", "no-tls"),
            ("--grpc-use-ssl=false", "no-tls"),
            (f"--grpc-use-ssl=true {CERTS} --grpc-use-ssl=false", "no-tls"),
            (f"--grpc-use-ssl=off {CERTS}", "no-tls"),
            ("--grpc-root-cert=/c/ca.crt", "tls-ineffective"),
            (CERTS, "tls-ineffective"),
            ("--grpc-use-ssl=true", "tls-ineffective"),
            ("--grpc-use-ssl=true --grpc-server-cert=/c/tls.crt", "tls-ineffective"),
            ("--grpc-use-ssl-mutual=true", "tls-ineffective"),
            (f"--grpc-use-ssl-mutual=true {CERTS}", "tls-ineffective"),
            (f"--grpc-use-ssl {CERTS}", "tls-ineffective"),
            (f"--grpc-use-ssl=true {CERTS} --grpc-root-cert=/c/ca.crt", "tls-ineffective"),
            (f"{MUTUAL} --allow-grpc=false", "tls-ineffective"),
            ("--http-use-ssl=true", "tls-ineffective"),
            ("'--http-restricted-api=model_repository:k=$S'", "invalid-flag-value"),
            ("--http-server-cert=/c/x", "tls-ineffective"),
            (f"--grpc-use-ssl=yes {CERTS}", "tls-ineffective"),
            (f"--grpc-use-ssl=1 {CERTS}", "tls-no-client-auth"),
            ("", "http-plaintext-exposed"),
            (MUTUAL, "http-plaintext-exposed"),
            ("--http-address=::", "http-plaintext-exposed"),
            ("--grpc-address=127.0.0.1", "metrics-exposed"),
            ("--http-address=127.0.0.1 --metrics-address=0.0.0.0", "metrics-exposed"),
            ("--http-address=127.0.0.1 --allow-http=false", "metrics-exposed"),
            ("--allow-metrics=true --metrics-port=9002", "metrics-exposed"),
            ("--model-control-mode=explicit", "restricted-api-missing"),
            ("--model-control-mode explicit", "restricted-api-missing"),
            ("--model-control=explicit", "restricted-api-missing"),
            ("--model-control-mode=none --model-control-mode=explicit", "restricted-api-missing"),
            ("--model-control-mode=EXPLICIT", "restricted-api-missing"),
            ('--model-control-mode=explicit "--http-restricted-api=logging:k=$S"', "restricted-api-missing"),
            ('--model-control-mode=explicit "--http-restricted-api=model-repository:k=$S"', "restricted-api-partial"),
            ('"--grpc-restricted-protocol=model-repository:k=$S"', "restricted-api-partial"),
            (f'{BOTH} "--http-restricted-api=logging:l=$S"', "restricted-api-partial"),
            ("--model-control-mode=explicit", "model-control-open"),
            ("--model-control-mode=poll", "model-control-open"),
            ('--model-control-mode=explicit "--http-restricted-api=model-repository:k=$S"', "model-control-open"),
            ("--strict-readiness=false", "strict-readiness-off"),
            ("--strict-readiness 0", "strict-readiness-off"),
            ("--strict-read=off", "strict-readiness-off"),
            ("--exit-on-error=false", "exit-on-error-off"),
            ("--exit-on-error=true --exit-on-error=FALSE", "exit-on-error-off"),
            ("--log-file=/models/triton.log", "log-file-in-repo"),
            ("--log-file=/models/a/../b/triton.log", "log-file-in-repo"),
            ("--model-store=/other --log-file=/other/x.log", "log-file-in-repo"),
            ("--trace-config=triton,file=/models/trace.json", "log-file-in-repo"),
            ("--trace-file=/models/trace.json", "log-file-in-repo"),
            ("--http_port=8000", "unknown-flag"),
            ("-http-port 8000", "unknown-flag"),
            ("-m x", "unknown-flag"),
            ("--allow=true", "unknown-flag"),
            ("--model-respository=/x", "unknown-flag"),
            ("--allow-poll-model-repository=true", "unknown-flag"),
            ("stray", "unknown-flag"),
            ("--rate-limit=execution_count:10", "invalid-flag-value"),
            ("--http-port=eight", "invalid-flag-value"),
            ("--http-port=99999", "invalid-flag-value"),
            ("--http-port=", "invalid-flag-value"),
            ("--allow-http=yes", "invalid-flag-value"),
            ("--log-info=no", "invalid-flag-value"),
            ("--log-format=json", "invalid-flag-value"),
            ("--model-control-mode=manual", "invalid-flag-value"),
            ("--disable-auto-complete-config=true", "invalid-flag-value"),
            ("--load-model=m", "invalid-flag-value"),
            ("--http-restricted-api=model_repository:k=v", "invalid-flag-value"),
            ("--http-restricted-api=model-repository", "invalid-flag-value"),
            ("--http-restricted-api=trace:k=v --http-restricted-api=trace:k=w", "invalid-flag-value"),
            ("--backend-config=python", "invalid-flag-value"),
            ("--cache-config=local", "invalid-flag-value"),
            ("--trace-config=foo", "invalid-flag-value"),
            ("--cuda-memory-pool-byte-size=1000", "invalid-flag-value"),
            ("--rate-limit-resource=R", "invalid-flag-value"),
            ("--trace-level=all", "invalid-flag-value"),
            ("--grpc-infer-response-compression-level=max", "invalid-flag-value"),
            ("--http-port", "invalid-flag-value"),
            ("--strict-model-config=false", "deprecated-flag"),
            ("--strict-model=false", "deprecated-flag"),
            ("--response-cache-byte-size=1", "deprecated-flag"),
            ("--trace-rate=1", "deprecated-flag"),
            ("--backend-directory=/tmp/b", "backend-dir-writable"),
            ("--backend-directory=backends", "backend-dir-writable"),
            ("--backend-directory=/models/backends", "backend-dir-writable"),
            ("--repoagent-directory=/home/x/agents", "backend-dir-writable"),
            ("--cache-directory=/var/tmp", "backend-dir-writable"),
            ("--cache-config=redis,host=redis --cache-config=redis,port=6379", "cache-plaintext"),
            ("--cache-config redis,host=10.1.1.1,port=1", "cache-plaintext"),
            ("--cache-config=redis,password=hunter2", "secrets-on-command-line"),
            ("--http-restricted-api=trace:k=hunter2", "secrets-on-command-line"),
            ("--grpc-restricted-protocol=trace:k=hunter2", "secrets-on-command-line"),
            ("--trace-config=opentelemetry,url=http://u:pw1@h/v1", "secrets-on-command-line"),
            ("--backend-config=python,shm-default-byte-size=1073741824", "shm-excessive"),
            ("--backend-config=python,shm-growth-byte-size=1073741824", "shm-excessive"),
            ("--pinned-memory-pool-byte-size=68719476736", "shm-excessive"),
            ("--allow-sagemaker=true", "allow-sagemaker"),
            ("--allow-vertex-ai=1", "allow-sagemaker"),
        ],
    )
    def test_is_found(self, flags: str, rule: str) -> None:
        """A command line that breaks a rule is named by it."""
        assert rule in rules_of(flags)

    @pytest.mark.parametrize(
        ("flags", "rule"),
        [
            (LOCAL, "no-tls"),
            (f"--grpc-use-ssl=true {CERTS}", "no-tls"),
            ("--allow-grpc=false", "no-tls"),
            ("--grpc-address=localhost", "no-tls"),
            ('"--grpc-use-ssl=$TLS"', "no-tls"),
            (MUTUAL, "tls-ineffective"),
            (f"--grpc-use-ssl=true {CERTS}", "tls-ineffective"),
            (MUTUAL, "tls-no-client-auth"),
            (LOCAL, "http-plaintext-exposed"),
            ("--allow-http=0", "http-plaintext-exposed"),
            (LOCAL, "metrics-exposed"),
            ("--allow-metrics=off", "metrics-exposed"),
            ("--allow-http=false --metrics-address=127.0.0.1", "metrics-exposed"),
            (f"--model-control-mode=explicit {BOTH}", "restricted-api-missing"),
            (f"--model-control-mode=explicit {BOTH}", "restricted-api-partial"),
            (f"--model-control-mode=explicit {BOTH}", "model-control-open"),
            ('"--http-restricted-api=trace:k=$S" --allow-grpc=false', "restricted-api-partial"),
            ("--model-control-mode=explicit --model-control-mode=none", "model-control-open"),
            (
                "--model-control-mode=explicit '--http-restricted-api=$A' '--grpc-restricted-protocol=$B'",
                "restricted-api-missing",
            ),
            ("'--http-restricted-api=$A' '--grpc-restricted-protocol=trace:k=$B'", "restricted-api-partial"),
            ("--model-control-mode=$MODE --load-model=m", "invalid-flag-value"),
            ("--strict-readiness=true", "strict-readiness-off"),
            ("--exit-on-error=false --exit-on-error=on", "exit-on-error-off"),
            ("--log-file=/models-logs/triton.log", "log-file-in-repo"),
            ("--model-control=none", "unknown-flag"),
            ("--http-port 8000", "unknown-flag"),
            ('$ARGS "${MORE[@]}"', "unknown-flag"),
            ("--model-control-mode=explicit --load-model=*", "invalid-flag-value"),
            ("--allow-http=True --log-format=ISO8601 --rate-limit=OFF", "invalid-flag-value"),
            ("--trace-config=level=TIMESTAMPS --trace-config=rate=1", "invalid-flag-value"),
            ("--cuda-memory-pool-byte-size=0:1048576 --model-load-gpu-limit=0:0.5", "invalid-flag-value"),
            ('--http-port="$PORT"', "invalid-flag-value"),
            ("--log-verbose=1", "invalid-flag-value"),
            ("--disable-auto-complete-config", "deprecated-flag"),
            ("--backend-directory=/opt/tritonserver/backends", "backend-dir-writable"),
            ("--cache-config=redis,host=127.0.0.1", "cache-plaintext"),
            ("--cache-config=redis,host=r --cache-config=redis,tls_enabled=true", "cache-plaintext"),
            ("--cache-config=local,size=1048576", "cache-plaintext"),
            ('"--cache-config=redis,password=$PW"', "secrets-on-command-line"),
            ('"--http-restricted-api=trace:k=$(cat /run/secrets/k)"', "secrets-on-command-line"),
            ("--backend-config=python,shm-default-byte-size=16777216", "shm-excessive"),
            ("--allow-sagemaker=false", "allow-sagemaker"),
            ("--help", "no-tls"),
        ],
    )
    def test_is_clean(self, flags: str, rule: str) -> None:
        """The same rule says nothing about what is right, or cannot be known."""
        assert rule not in rules_of(flags)

    @pytest.mark.parametrize(
        ("flags", "release", "is_found"),
        [
            ("--http-max-input-size=1000", "24.10", True),
            ("--http-max-input-size=1000", "25.06", False),
            ("--http-max-input-size=1000", "", False),
            ("--allow-client-shm=false", "26.03", True),
            ("--allow-client-shm=false", "26.04", False),
        ],
    )
    def test_release_decides_what_is_known(self, flags: str, release: str, is_found: bool) -> None:
        """An option that the image's release does not have yet is unknown there."""
        assert ("unknown-flag" in rules_of(flags, CommandContext(release=release))) is is_found

    def test_explicit_mode_on_loopback_is_a_warning(self) -> None:
        """Who can reach only loopback is less than everyone."""
        words = ["tritonserver", "--model-control-mode=explicit", *LOCAL.split()]
        found = [one for one in check_command_line(words, "c") if one.rule == "restricted-api-missing"]
        assert [one.level for one in found] == [Level.WARNING]

    def test_explicit_mode_with_more_arguments_is_a_warning(self) -> None:
        """What comes with "$@" may restrict the load API."""
        words = ["tritonserver", "--model-control-mode=explicit", "$@"]
        found = [one for one in check_command_line(words, "c") if one.rule == "restricted-api-missing"]
        assert [one.level for one in found] == [Level.WARNING]

    def test_a_writable_mount_makes_a_backend_folder_writable(self) -> None:
        """What a container mounts writable is no place for libraries."""
        context = CommandContext(writable=("/opt/backends",))
        assert "backend-dir-writable" in rules_of("--backend-directory=/opt/backends/x", context)


class TestParsing:
    def test_the_last_one_wins_and_lists_add(self) -> None:
        """A repeated option's last value counts; repositories add up."""
        words = [
            Word(text, 1)
            for text in ("--http-port", "1", "--http-port=2", "--model-repository", "a", "--model-store=b")
        ]
        command = parse_server_command(words, 1)
        assert (command.text("http-port"), command.repositories) == ("2", ("a", "b"))

    def test_every_unambiguous_beginning_is_the_option(self) -> None:
        """Every name may be cut while only one option begins so."""
        for name in FLAGS:
            for end in range(1, len(name)):
                near = [other for other in FLAGS if other.startswith(name[:end])]
                problems = parse_server_command([Word(f"--{name[:end]}=1", 1)], 1).problems
                is_unknown = any(row.rule == "unknown-flag" and "may mean" in row.message for row in problems)
                assert is_unknown == (len(near) > 1 and name[:end] not in FLAGS), name[:end]
