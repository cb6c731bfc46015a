"""Which of NVIDIA's Python models has its form here: one row for each, by the name of its folder.

``python -m tests.triton.compatibility.forms`` writes the table of docs/explanation/compatibility.md. The models here are
the project's own: they make the same calls, and answer something simpler.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "explanation" / "compatibility.md"
BEGIN, END = "<!-- forms: begin -->\n", "<!-- forms: end -->\n"

QA: Mapping[str, tuple[str, ...]] = {
    "add_sub": ("sum_difference",),
    "add_sub_ground_truth": ("sum_difference",),
    "add_sub_logging": ("sum_difference",),
    "async_execute_decouple": ("async_stream",),
    "async_execute_decouple_bls": ("async_stream", "calls_edges"),
    "auto_complete": ("completed",),
    "auto_complete_error": ("completed_badly",),
    "bls": ("calls", "calls_edges", "tests_inside"),
    "bls_async": ("calls_edges",),
    "bls_finalize_error": ("sum_difference",),
    "bls_init_error": ("calls_early",),
    "bls_memory": ("calls_edges",),
    "bls_memory_async": ("calls_edges",),
    "bls_parameters": ("calls_edges",),
    "bls_request_rescheduling": ("calls_edges", "rescheduled"),
    "bls_simple": ("calls", "other_name"),
    "bls_undefined": ("outcomes",),
    "busy_op": ("outcomes",),
    "custom_metrics": ("metrics", "tests_inside"),
    "custom_metrics_reload": ("metrics",),
    "decoupled_execute_error": ("senders_stream",),
    "decoupled_grpc_error": ("generates", "senders_stream"),
    "decoupled_return_response_error": ("senders_stream",),
    "decoupled_send_after_close_error": ("senders_stream", "threads"),
    "delayed_model": ("outcomes",),
    "dlpack_add_sub": ("types",),
    "dlpack_add_sub_logging": ("sum_difference", "types"),
    "dlpack_empty_output": ("types",),
    "dlpack_identity": ("dlpack",),
    "dlpack_io_identity": ("types",),
    "dlpack_io_identity_decoupled": ("calls_edges", "senders_stream", "types"),
    "dlpack_square": ("threads", "types"),
    "dlpack_sub_add": ("types",),
    "dlpack_test": ("tests_inside",),
    "ensemble": ("ensemble",),
    "ensemble_io": ("ensemble",),
    "error_code": ("outcomes",),
    "execute_cancel": ("outcomes",),
    "execute_delayed_model": ("outcomes",),
    "execute_error": ("outcomes", "plain"),
    "execute_grpc_error": ("outcomes",),
    "execute_return_error": ("silent",),
    "fan_add_sub": ("ensemble",),
    "faulty_model": ("completed_badly",),
    "fini_error": ("metrics",),
    "generate_models/mock_llm": ("generates",),
    "generate_models/mock_llm_ensemble": ("ensemble",),
    "generate_sequence": ("iterative",),
    "generative_sequence": ("iterative",),
    "ground_truth": ("outcomes",),
    "identity_bf16": ("bfloat",),
    "identity_fp32": ("dlpack", "types"),
    "identity_fp32_logging": ("sum_difference",),
    "identity_fp32_timeout": ("outcomes",),
    "identity_int32": ("types",),
    "init_args": ("files",),
    "init_error": ("load_raises",),
    "init_exit": ("load_ends",),
    "instance_init_del": ("files",),
    "iterative_sequence": ("iterative",),
    "join_add_sub": ("sum_difference",),
    "model_init_del": ("files",),
    "multi_file": ("files",),
    "non_contiguous": ("outputs",),
    "optional": ("types",),
    "ragged_io": ("ragged",),
    "repeat_thread": ("worker",),
    "request_rescheduling": ("iterative",),
    "request_rescheduling_addsub": ("rescheduled",),
    "request_rescheduling_cases": ("iterative",),
    "request_rescheduling_error": ("rescheduled",),
    "response_parameters": ("outcomes",),
    "response_parameters_bls": ("calls", "outcomes"),
    "response_parameters_bls_decoupled": ("calls_stream", "outcomes"),
    "response_parameters_decoupled": ("outcomes", "senders_stream"),
    "response_sender": ("senders", "senders_stream"),
    "response_sender_complete_final": ("senders",),
    "response_sender_error": ("senders",),
    "response_sender_until_cancelled": ("outcomes", "senders_stream"),
    "sequence_int32": ("sequence", "sequence_oldest"),
    "sequence_py": ("sequence", "sequence_oldest"),
    "string": ("types",),
    "string_fixed": ("outputs",),
    "string_identity": ("types",),
    "sub_add": ("sum_difference",),
    "wrong_model": ("load_raises",),
    "wrong_return_type": ("rescheduled",),
}
"""Folders of ``qa/python_models`` in triton-inference-server/server."""

QA_BACKEND: Mapping[str, tuple[str, ...]] = {
    "argument_validation": ("tests_inside",),
    "decoupled_bls": ("calls_edges", "calls_stream"),
    "decoupled_bls_stream": ("calls_stream",),
    "decoupled_execute_error": ("senders_stream",),
    "decoupled_raise_exception": ("senders_stream",),
    "decoupled_return_response_error": ("senders_stream",),
    "decoupled_send_after_close_error": ("threads",),
    "identity_model": ("types",),
    "requested_output_model": ("sum_difference",),
}
"""Folders beneath ``qa/L0_backend_python`` there."""

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "add_sub": ("sum_difference",),
    "auto_complete": ("completed",),
    "bls": ("calls", "calls_edges"),
    "bls_decoupled": ("calls_edges", "calls_stream"),
    "custom_metrics": ("metrics",),
    "decoupled/repeat": ("senders_stream", "worker"),
    "decoupled/square": ("threads",),
}
"""Folders of ``examples`` in triton-inference-server/python_backend."""

ELSEWHERE: Mapping[str, str] = {
    "bls_model_loading": "loads models itself: `tests/attacks/model/test_load_model.py`; `safe-triton serve` refuses it",
    "bls_onnx_warmup, torchvision, pytorch_fp32_fp32, variable_gpu_output, cuda_memory_consumer, add_sub_gpu, "
    "ensemble_gpu": "needs PyTorch, CuPy, ONNX Runtime or a GPU: `tests/gpu`",
    "decoupled_bls_cancel, decoupled_bls_async_cancel, decoupled_bls_cancel_after_complete": "needs a release after "
    "25.03",
    "is_model_ready_fn_…": "needs a release that asks a model for its readiness: `tests/unit/runtime`",
    "model_env, python_version": "an interpreter of the model's own (`EXECUTION_ENV_PATH`)",
    "python_based_backends": "`tests/triton/test_in_stub.py`",
    "restart": "a process that ends is the supervisor's: `tests/triton/test_supervision.py`",
    "huggingface, instance_kind, jax, preprocessing, pytorch, pytorch_platform_handler, resnet50_trt, transformer": (
        "needs a library or weights that are not here; their interface is that of `sum_difference` and `dlpack`"
    ),
}
"""NVIDIA's models whose form is not run here, and why."""

NAMED = (("`qa/python_models`", QA), ("`qa/L0_backend_python`", QA_BACKEND), ("`python_backend/examples`", EXAMPLES))


def table() -> str:
    """Return what the page holds between its two marks."""
    count = sum(len(rows) for _, rows in NAMED)
    forms = {form for _, rows in NAMED for names in rows.values() for form in names}
    lines = [
        f"{count} of NVIDIA's models, {len(forms)} forms here.",
        "",
        "| NVIDIA's model | in | form here |",
        "|---|---|---|",
    ]
    for where, rows in NAMED:
        lines += [f"| {name} | {where} | {', '.join(f'`{form}`' for form in forms)} |" for name, forms in rows.items()]
    lines += ["", "| not run here | why, or where |", "|---|---|"]
    lines += [f"| {name} | {why} |" for name, why in ELSEWHERE.items()]
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """Return the page with the table of today."""
    head, _, rest = page.partition(BEGIN)
    return head + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
