"""What is found in one config.pbtxt: every spelling that the server takes the same way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.unit.audit.cases import CONFIG, DIMS, GROUP, MODEL, POLICY, found, look

PLAIN = "import triton_python_backend_utils\n\n\nclass TritonPythonModel:\n    pass\n"


def group(text: str) -> str:
    return CONFIG.replace(GROUP, f"instance_group {text}")


def policy(text: str) -> str:
    return CONFIG.replace(POLICY, text)


def parameter(key: str, value: str) -> str:
    return CONFIG + f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def warmup(file: str) -> str:
    data = f'data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "{file}"'
    return CONFIG + f'model_warmup {{ name: "w" batch_size: 1 inputs {{ key: "X" value {{ {data} }} }} }}\n'


BAD = [
    # parse
    ("config-parse-error", "error", CONFIG + "input {"),
    ("config-parse-error", "error", CONFIG + "max_batch_size: 4\n"),
    ("config-parse-error", "error", CONFIG.replace("max_batch_size: 8", "max_batch_size: eight")),
    ("config-parse-error", "error", CONFIG.replace("max_batch_size: 8", "max_batch_size: 8.5")),
    ("config-parse-error", "error", CONFIG.replace("max_batch_size: 8", 'max_batch_size: "8"')),
    ("config-parse-error", "error", CONFIG.replace("max_batch_size: 8", "max_batch_size: 99999999999")),
    ("config-parse-error", "error", CONFIG.replace("TYPE_FP32", "FP32")),
    ("config-parse-error", "error", CONFIG.replace("TYPE_FP32", "TYPE_FLOAT")),
    ("config-parse-error", "error", CONFIG.replace('name: "m"', "name: m")),
    ("config-parse-error", "error", CONFIG.replace('name: "m"', 'name: "m')),
    ("config-parse-error", "error", CONFIG.replace('name: "m"', "name: “m”")),
    ("config-parse-error", "error", CONFIG.replace(DIMS, "dims: [ 4, ]")),
    ("config-parse-error", "error", CONFIG.replace(DIMS, "dims: ( 4 )")),
    ("config-parse-error", "error", CONFIG + "// a comment\n"),
    ("config-parse-error", "error", CONFIG + "}\n"),
    ("config-parse-error", "error", CONFIG + "version_policy { latest { } }\n"),
    ("config-parse-error", "error", policy("version_policy { all { } latest { num_versions: 1 } }")),
    ("config-parse-error", "error", policy("version_policy: { all }")),
    ("config-parse-error", "error", '{ "name": "m", "backend": "python" }\n'),
    ("config-parse-error", "error", b"\xef\xbb\xbf" + CONFIG.encode()),
    ("config-parse-error", "error", CONFIG.encode("utf-16")),
    ("config-parse-error", "error", CONFIG.encode("utf-16-le")),
    ("config-parse-error", "error", CONFIG.encode() + b"# \0\n"),
    ("config-parse-error", "error", CONFIG + "input {" * 5000),
    ("config-parse-error", "error", "<!DOCTYPE html><html><body>404: Not Found</body></html>"),
    ("config-missing", "info", "# nothing yet\n"),
    ("path-traversal", "error", CONFIG.replace("output [ {", 'output [ { label_filename: "../../labels.txt"')),
    ("version-missing", "warning", CONFIG + 'default_model_filename: "other.py"\n'),
    ("py-trust-remote-code", "warning", parameter("trust_remote_code", "true")),
    ("config-unknown-field", "error", CONFIG.replace("max_batch_size", "max_batchsize")),
    ("config-unknown-field", "error", CONFIG.replace("data_type", "datatype")),
    ("config-unknown-field", "error", CONFIG.replace("max_batch_size", "MAX_BATCH_SIZE")),
    ("config-unknown-field", "error", CONFIG + "rate_limit { requests: 10 }\n"),
    ("config-unknown-field", "error", CONFIG + "dynamic_batching { max_queue_delay_ms: 1 }\n"),
    ("config-not-utf8", "warning", CONFIG.encode() + b"# caf\xe9\n"),
    ("config-not-utf8", "warning", parameter("label", "caf\xe9").encode("latin-1")),
    ("config-not-utf8", "warning", parameter("label", "\\377\\376")),
    ("config-name-mismatch", "error", CONFIG.replace('"m"', '"M"')),
    ("config-name-mismatch", "error", CONFIG.replace('"m"', '"m "')),
    ("config-missing", "info", ""),
    ("config-missing", "info", "\n\n"),
    ("config-oversized", "warning", CONFIG + "#" * (300 << 10)),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": ${max_batch_size}")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": $MAX_BATCH")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": {{ max_batch_size }}")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": {{ .Values.maxBatchSize }}")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": {max_batch_size}")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": <max_batch_size>")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": <max batch size>")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": %(max_batch_size)s")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": @MAX_BATCH@")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": %d")),
    ("config-placeholder", "info", CONFIG.replace(": 8", ": __MAX_BATCH__")),
    ("config-placeholder", "info", CONFIG.replace("TYPE_FP32", "TYPE_${dtype}")),
    ("config-placeholder", "info", CONFIG.replace(DIMS, "dims: [ ${dim}, 4 ]")),
    ("config-placeholder", "info", CONFIG + "${dynamic_batching}\n"),
    ("config-placeholder", "info", CONFIG + "{% if gpu %}\nresponse_cache { enable: true }\n{% endif %}\n"),
    ("config-placeholder", "info", CONFIG.replace('"m"', '"${name}"')),
    ("config-placeholder", "info", CONFIG.replace('"m"', '"{{ name }}"')),
    ("config-invalid", "error", CONFIG.replace("max_batch_size: 8", "max_batch_size: -1")),
    ("config-invalid", "error", CONFIG.replace(DIMS, "dims: [ 0 ]")),
    ("config-invalid", "error", CONFIG.replace(DIMS, "dims: [ -2 ]")),
    ("config-invalid", "error", CONFIG + "dynamic_batching { preferred_batch_size: [ 4, 16 ] }\n"),
    ("config-invalid", "error", CONFIG.replace(DIMS, "")),
    ("config-invalid", "error", CONFIG.replace("data_type: TYPE_FP32 ", "")),
    ("config-invalid", "error", CONFIG.replace(DIMS, "dims: [ 4 ] reshape { shape: [ 5 ] }", 1)),
    ("config-invalid", "error", CONFIG + "dynamic_batching { priority_levels: 2 }\n"),
    ("config-invalid", "error", CONFIG + "dynamic_batching { preferred_batch_size: 0 }\n"),
    ("config-invalid", "error", CONFIG + 'ensemble_scheduling { step { model_name: "x" } }\n'),
    ("config-invalid", "error", group("[ { kind: KIND_CPU gpus: [ 0 ] } ]")),
    ("config-invalid", "error", CONFIG.replace("max_batch_size: 8", "max_batch_size:\u00a08")),
    # version
    ("all-versions-loaded", "warning", policy("version_policy { all { } }")),
    ("all-versions-loaded", "warning", policy("version_policy: { all: {} }")),
    ("all-versions-loaded", "warning", policy("version_policy: < all: < > >")),
    ("all-versions-loaded", "warning", policy("version_policy {\n  all {\n  }\n}")),
    ("all-versions-loaded", "warning", policy("version_policy { latest { num_versions: 99 } }")),
    ("version-policy-default", "info", policy("")),
    ("all-versions-loaded", "warning", policy("version_policy { }")),
    ("version-missing", "warning", policy("version_policy { specific { } }")),
    ("version-missing", "warning", policy("version_policy { latest { } }")),
    ("version-missing", "warning", policy("version_policy { specific { versions: [ 1, 2 ] } }")),
    ("version-missing", "warning", policy("version_policy { specific { versions: 1 versions: 7 } }")),
    # resources
    ("instance-count-excessive", "warning", group("{ kind: KIND_CPU count: 100 }")),
    ("instance-count-excessive", "warning", group("[ { kind: KIND_CPU count: 9 }, { kind: KIND_CPU count: 9 } ]")),
    ("instance-count-excessive", "warning", group("{ kind: KIND_GPU count: 8 gpus: [ 0, 1, 2, 3 ] }")),
    ("instance-count-excessive", "warning", group("{ kind: KIND_GPU count: 10 gpus: [ 0 ] }")),
    ("instance-count-excessive", "warning", group("{ kind: KIND_GPU count: 0x64 gpus: [ 0 ] }")),
    ("instance-count-invalid", "warning", group("{ kind: KIND_CPU count: 0 }")),
    ("instance-count-invalid", "warning", group("{ kind: KIND_CPU count: -5 }")),
    ("gpu-not-pinned", "warning", group("{ kind: KIND_GPU }")),
    ("gpu-not-pinned", "warning", group("{ kind: KIND_GPU gpus: [ ] }")),
    ("gpu-not-pinned", "warning", group("{ kind: 1 }")),
    ("gpu-not-pinned", "warning", group("{ kind: KIND_AUTO }")),
    ("gpu-not-pinned", "warning", group("{ count: 2 }")),
    ("gpu-not-pinned", "info", CONFIG.replace(GROUP, "")),
    ("gpu-not-pinned", "warning", CONFIG.replace(GROUP, "").replace('backend: "python"', 'platform: "tensorrt_plan"')),
    ("unbounded-batch", "warning", CONFIG.replace("max_batch_size: 8", "max_batch_size: 100000")),
    ("unbounded-batch", "warning", CONFIG.replace("max_batch_size: 8", "max_batch_size: 2147483647")),
    ("unbounded-queue", "info", CONFIG + "dynamic_batching { }\n"),
    ("unbounded-queue", "info", CONFIG + "dynamic_batching { default_queue_policy { max_queue_size: 0 } }\n"),
    (
        "unbounded-queue",
        "info",
        CONFIG + "dynamic_batching { default_queue_policy { max_queue_size: 9 } "
        "priority_levels: 2 default_priority_level: 1 "
        "priority_queue_policy { key: 1 value { timeout_action: REJECT } } }\n",
    ),
    ("queue-delay-excessive", "info", CONFIG + "dynamic_batching { max_queue_delay_microseconds: 100000 }\n"),
    (
        "queue-delay-excessive",
        "info",
        CONFIG + "sequence_batching { oldest { max_queue_delay_microseconds: 900000 } }\n",
    ),
    ("rate-limiter-ineffective", "info", group("{ kind: KIND_CPU rate_limiter { priority: 2 } }")),
    ("sequence-unbounded", "info", CONFIG + "sequence_batching { }\n"),
    ("sequence-unbounded", "info", CONFIG + "sequence_batching { max_sequence_idle_microseconds: 99999999999 }\n"),
    (
        "sequence-unbounded",
        "info",
        CONFIG + "sequence_batching { max_sequence_idle_microseconds: 5000000 oldest { } }\n",
    ),
    ("response-cache-shared", "info", CONFIG + "response_cache { enable: true }\n"),
    ("response-cache-shared", "info", CONFIG + "response_cache: { enable: 1 }\n"),
    # filesystem
    ("path-traversal", "error", CONFIG + 'default_model_filename: "../x.py"\n'),
    ("path-traversal", "error", CONFIG + 'default_model_filename: "a/../../x.py"\n'),
    ("path-traversal", "error", CONFIG + 'default_model_filename: "/etc/x.py"\n'),
    ("path-traversal", "error", CONFIG + 'default_model_filename: "\\x2e\\x2e/x.py"\n'),
    ("path-traversal", "error", CONFIG + 'cc_model_filenames { key: "7.5" value: "../../m.plan" }\n'),
    ("path-traversal", "error", warmup("../../../../etc/passwd")),
    ("path-traversal", "error", warmup("/etc/passwd")),
    ("path-traversal", "error", CONFIG.replace('"python"', '"../evil"')),
    ("path-traversal", "error", CONFIG + 'runtime: "../libtriton_evil.so"\n'),
    ("path-traversal", "error", CONFIG + 'model_repository_agents { agents { name: "../evil" } }\n'),
    ("path-traversal", "error", CONFIG + 'model_operations { op_library_filename: "../../ops.so" }\n'),
    ("path-traversal", "error", parameter("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/../../env.tar.gz")),
    ("path-traversal", "error", parameter("EXECUTION_ENV_PATH", "../../env")),
    ("path-traversal", "error", parameter("tokenizer", "../../../etc/shadow")),
    ("path-traversal", "error", parameter("key_file", "/etc/ssl/private/key.pem")),
    ("path-traversal", "warning", parameter("tokenizer", "../tokenizer")),
    (
        "path-traversal",
        "error",
        CONFIG + 'sequence_batching { state { input_name: "A" output_name: "B" data_type: TYPE_FP32 dims: 1 '
        'initial_state { name: "s" data_type: TYPE_FP32 dims: 1 data_file: "../../secret" } } }\n',
    ),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "$(id)model.py"\n'),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "`id`model.py"\n'),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "model.py;id"\n'),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "model.py && id"\n'),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "model.py\\nid"\n'),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "\\x24(id)model.py"\n'),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "${IFS}model.py"\n'),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "a|b"\n'),
    ("shell-metacharacters", "error", CONFIG + 'default_model_filename: "my model.py"\n'),
    ("shell-metacharacters", "error", parameter("EXECUTION_ENV_PATH", "/opt/env; id")),
    ("shell-metacharacters", "error", parameter("EXECUTION_ENV_PATH", "/opt/$(id)/env.tar.gz")),
    ("shell-metacharacters", "error", CONFIG.replace('"python"', '"python;id"')),
    ("exec-env-writable", "warning", parameter("EXECUTION_ENV_PATH", "/tmp/env.tar.gz")),
    ("exec-env-writable", "warning", parameter("EXECUTION_ENV_PATH", "/dev/shm/env")),
    ("exec-env-writable", "warning", parameter("EXECUTION_ENV_PATH", "env.tar.gz")),
    ("secrets-in-config", "warning", parameter("db_password", "hunter2")),
    ("secrets-in-config", "warning", parameter("DB_PASSWORD", "hunter2!")),
    ("secrets-in-config", "warning", parameter("apiKey", "abcd1234efgh")),
    ("secrets-in-config", "warning", parameter("api-key", "abcd1234efgh")),
    ("secrets-in-config", "warning", parameter("aws_secret_access_key", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")),
    ("secrets-in-config", "warning", parameter("hf_token", "hf_abcdefghijklmnopqrstuvwxyz")),
    ("secrets-in-config", "warning", parameter("model_id", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123")),
    ("secrets-in-config", "warning", parameter("endpoint", "https://user:s3cr3t@db.internal/x")),
    ("secrets-in-config", "warning", parameter("x", "AKIAIOSFODNN7EXAMPLE")),
    ("secrets-in-config", "warning", parameter("cert", "-----BEGIN RSA PRIVATE KEY-----")),
    ("secrets-in-config", "warning", parameter("header", "Authorization: Bearer abcdefghijklmnop1234")),
    ("secrets-in-config", "warning", parameter("aws_key", "ghp_abcdefghijklmnopqrstuvwxyz0123456789")),
    ("secrets-in-config", "warning", CONFIG + "# password: hunter2-and-more\n"),
    ("secrets-in-config", "warning", CONFIG + "# token = ghp_abcdefghijklmnopqrstuvwxyz0123456789\n"),
    (
        "secrets-in-config",
        "warning",
        CONFIG
        + 'model_repository_agents { agents { name: "checksum" parameters { key: "secret" value: "abc123def" } } }\n',
    ),
]

GOOD = [
    CONFIG,
    "# only a comment\n" + CONFIG,
    CONFIG.replace("\n", "\r\n"),
    CONFIG.replace('"', "'"),
    CONFIG.replace("\n", " ; ").replace("[ 4 ] } ] ; ", "[ 4 ] } ], "),
    CONFIG.replace("TYPE_FP32", "11"),
    CONFIG.replace('name: "m"\n', ""),
    CONFIG.replace(DIMS, "dims: [ - 1 ]"),
    CONFIG.replace(DIMS, "dims: [ 4 ] reshape { shape: [ 2, 2 ] }", 1),
    CONFIG.replace('"m"', '"m" ""'),
    CONFIG.replace("max_batch_size: 8", "max_batch_size: 0x8"),
    CONFIG + "optimization { cuda { graphs: true } }\n",
    CONFIG + "# ${HOME} and {{ braces }} in a comment\n",
    CONFIG + 'metric_tags { key: "team" value: "search" }\n',
    group("[ { kind: KIND_GPU count: 2 gpus: [ 0 ] } ]"),
    group("[ { kind: KIND_GPU count: 2 gpus: 0 gpus: 1 } ]"),
    policy("version_policy { latest { num_versions: 1 } }"),
    policy("version_policy: { specific: { versions: 1 } }"),
    parameter("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/env.tar.gz"),
    parameter("EXECUTION_ENV_PATH", "/opt/envs/m.tar.gz"),
    parameter("max_tokens", "256"),
    parameter("eos_token", "</s>"),
    parameter("tokenizer_dir", "tokenizer"),
    parameter("token_limit", "4096"),
    parameter("password_file", "/run/secrets/db"),
    parameter("api_key_env", "OPENAI_API_KEY"),
    parameter("tokenizer_type", "llama"),
    parameter("decoupled_mode", "false"),
    parameter("url", "https://example.org/model"),
    parameter("version", "1..2"),
    parameter("label", "日本語 ü"),
    warmup("x.bin"),
    CONFIG + 'default_model_filename: "model_v2.py"\n',
    CONFIG + 'default_model_filename: "my-model.v2.py"\n',
]


@pytest.mark.parametrize(("rule", "level", "config"), BAD)
def test_bad(tmp_path: Path, rule: str, level: str, config: str | bytes) -> None:
    """The rule is found at its level, and no check failed."""
    report = look(tmp_path, {"m/config.pbtxt": config, "m/1/model.py": MODEL})
    assert found(report).get(rule) == level, report.findings
    assert "audit-crash" not in found(report)


def test_a_template_in_a_list(tmp_path: Path) -> None:
    """What stands before a place that cannot be read is not judged: its placeholders are no values."""
    config = (
        'name: "{{ n }}"\nbackend: "{{ b }}"\ninput [\n{% for i in inputs %}\n  { name: "{{ i }}" }\n{% endfor %}\n]\n'
    )
    levels = found(look(tmp_path, {"m/config.pbtxt": config, "m/1/model.py": MODEL}))
    assert set(levels.values()) == {"info"}


@pytest.mark.parametrize("config", GOOD)
def test_good(tmp_path: Path, config: str) -> None:
    """No error, no warning, and nothing that only templates have."""
    files = {"m/config.pbtxt": config, **{f"m/1/{name}.py": MODEL for name in ("model", "model_v2", "my-model.v2")}}
    levels = found(look(tmp_path, {**files, "m/env.tar.gz": b""}))
    assert {rule: level for rule, level in levels.items() if level != "info"} == {}
    assert "config-placeholder" not in levels


@pytest.mark.parametrize(
    ("dims", "level"),
    [
        ("[ -1 ]", "warning"),
        ("[ -1, -1 ]", "warning"),
        ("[ 3, -1, -1 ]", "warning"),
        ("[ -1, 768 ]", "info"),
        ("[ 4611686018427387904 ]", "warning"),
        ("[ 65536, 65536 ]", "warning"),
        ("[ 4 ]", None),
        ("[ 3, 224, 224 ]", None),
    ],
)
def test_unbounded_dims(tmp_path: Path, dims: str, level: str | None) -> None:
    """Variable dims of a model that nothing else bounds, and fixed ones that no memory holds."""
    report = look(tmp_path, {"m/config.pbtxt": CONFIG.replace(DIMS, f"dims: {dims}", 1), "m/1/model.py": PLAIN})
    assert found(report).get("unbounded-dims") == level


def test_dims_under_limits(tmp_path: Path) -> None:
    """A model class with safe_triton's limits bounds what a request may hold, so that -1 is fine."""
    report = look(tmp_path, {"m/config.pbtxt": CONFIG.replace(DIMS, "dims: [ -1 ]"), "m/1/model.py": MODEL})
    assert "unbounded-dims" not in found(report)


@pytest.mark.parametrize(
    ("release", "level"), [("24.10", "error"), ("23.04", "error"), ("25.05", None), ("26.07", None)]
)
def test_dims_on_a_declared_release(tmp_path: Path, release: str, level: str | None) -> None:
    """A release that loses the process to an overflowing shape makes variable dims an error, limits or not."""
    compose = f"services:\n  triton:\n    image: nvcr.io/nvidia/tritonserver:{release}-py3\n"
    report = look(
        tmp_path,
        {
            "models/m/config.pbtxt": CONFIG.replace(DIMS, "dims: [ -1 ]"),
            "models/m/1/model.py": MODEL,
            "docker-compose.yml": compose,
        },
    )
    assert found(report).get("unbounded-dims") == level


def test_lines(tmp_path: Path) -> None:
    """A finding names the line and column of the field that it is about."""
    report = look(tmp_path, {"m/config.pbtxt": CONFIG.replace("count: 1", "count: 0"), "m/1/model.py": MODEL})
    (finding,) = [each for each in report.findings if each.rule == "instance-count-invalid"]
    line = CONFIG.splitlines().index(GROUP) + 1
    assert (finding.line, finding.column) == (line, GROUP.index("count") + 1)


def test_another_configuration(tmp_path: Path) -> None:
    """A file of ``configs/``, which --model-config-name chooses, is a configuration too, its version policy included."""
    text = CONFIG.replace(POLICY, "version_policy { all { } }")
    report = look(tmp_path, {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL, "m/configs/gpu.pbtxt": text})
    assert found(report) == {"all-versions-loaded": "warning"}


def test_another_text_format_file(tmp_path: Path) -> None:
    """A data set's schema or a graph has the suffix of a configuration, and is none."""
    text = 'feature {\n  name: "user"\n  type: INT\n  int_domain {\n    name: "user"\n    max: 9\n  }\n}\n'
    report = look(tmp_path, {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL, "schema.pbtxt": text})
    assert found(report) == {}


def test_many_parameters_take_no_time(tmp_path: Path) -> None:
    """Each parameter is looked up once: 4,000 of them are no 16 million steps."""
    text = CONFIG + "".join(f'parameters {{ key: "k{n}" value {{ string_value: "v" }} }}\n' for n in range(4000))
    start = time.process_time()
    look(tmp_path, {"m/config.pbtxt": text, "m/1/model.py": MODEL})
    assert time.process_time() - start < 60
