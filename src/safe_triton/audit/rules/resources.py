"""Rules on what a model may take of the server."""

from __future__ import annotations

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule
from safe_triton.audit.rules.parse import CONFIG, GUIDE, repository

GROUP = "instance_group [ { kind: KIND_CPU count: 1 } ]"
BATCHING = """dynamic_batching {
  max_queue_delay_microseconds: 1000
  default_queue_policy { max_queue_size: 64 }
}
"""
SEQUENCE = """sequence_batching {
  max_sequence_idle_microseconds: 5000000
  control_input [
    {
      name: "START"
      control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ]
    }
  ]
}
"""
STATE = """state [
    {
      input_name: "SUM_IN"
      output_name: "SUM_OUT"
      data_type: TYPE_INT32
      dims: [ 1 ]
    }
  ]
"""
PLAIN = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if x.nbytes > 1_000_000:
                error = pb_utils.TritonError("X is too large", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
        return responses
"""


def _unguarded(config: str) -> Example:
    """A model that is not under safe_triton's limits."""
    return Example(files={"m/config.pbtxt": config, "m/1/model.py": PLAIN})


RULES: tuple[Rule, ...] = (
    Rule(
        name="instance-count-excessive",
        code="ST211",
        level=Level.WARNING,
        what="More than 16 instances of one model over all groups, or more than 8 on one GPU.",
        why="Each instance of a Python model is a process: 100 of them take 3.6 GB and 30 s before they do anything.",
        fix="instance_group [ { kind: KIND_CPU count: 2 } ]",
        cwe="CWE-400",
        owasp="LLM04",
        reference=GUIDE,
        bad=repository(
            CONFIG.replace(GROUP, "instance_group [ { kind: KIND_CPU count: 12 }, { kind: KIND_CPU count: 12 } ]")
        ),
        good=repository(CONFIG.replace("count: 1", "count: 4")),
    ),
    Rule(
        name="instance-count-invalid",
        code="ST212",
        level=Level.WARNING,
        what="An instance count of 0 or below.",
        why="The server takes it for 1 without a word: it does not switch the model off.",
        fix="count: 1",
        reference=GUIDE,
        bad=repository(CONFIG.replace("count: 1", "count: 0")),
        good=repository(),
    ),
    Rule(
        name="gpu-not-pinned",
        code="ST213",
        level=Level.WARNING,
        what="Instances on a GPU without saying on which.",
        why="The server makes the instances on every GPU of the host, beside other models and tenants.",
        fix="instance_group [ { kind: KIND_GPU count: 1 gpus: [ 0 ] } ]",
        cwe="CWE-770",
        reference=GUIDE,
        bad=repository(CONFIG.replace("KIND_CPU", "KIND_GPU")),
        good=repository(CONFIG.replace("KIND_CPU", "KIND_GPU gpus: [ 0 ]")),
    ),
    Rule(
        name="unbounded-batch",
        code="ST214",
        level=Level.WARNING,
        what="A max_batch_size above 1,024.",
        why="One request may then fill memory: the server accepts up to 2,147,483,647.",
        fix="max_batch_size: 64",
        cwe="CWE-770",
        reference=GUIDE,
        bad=repository(CONFIG.replace("max_batch_size: 8", "max_batch_size: 100000")),
        good=repository(CONFIG.replace("max_batch_size: 8", "max_batch_size: 128")),
    ),
    Rule(
        name="unbounded-dims",
        code="ST215",
        level=Level.WARNING,
        what="Inputs whose every dim is variable, or whose fixed dims hold more than 2^31 elements.",
        why="A request chooses how much memory it takes. Before 25.05 a shape whose size overflows kills a Python "
        "model's process before its code sees the request: an error where the deployment names such a release.",
        fix="Fix the dims, or derive the model from SafeTritonPythonModel with a max_sequence_length.",
        cwe="CWE-770",
        reference=GUIDE,
        bad=_unguarded(CONFIG.replace("dims: [ 4 ]", "dims: [ -1, -1 ]")),
        good=_unguarded(CONFIG),
    ),
    Rule(
        name="unbounded-queue",
        code="ST216",
        level=Level.INFO,
        what="Dynamic batching without max_queue_size.",
        why="Requests pile up in memory while the model is slow; every caller waits, none is refused.",
        fix="dynamic_batching { default_queue_policy { max_queue_size: 64 } }",
        cwe="CWE-770",
        reference=GUIDE,
        bad=repository(CONFIG + "dynamic_batching { }\n"),
        good=repository(CONFIG + BATCHING),
    ),
    Rule(
        name="queue-delay-excessive",
        code="ST217",
        level=Level.INFO,
        what="A queue delay of 100 ms or more.",
        why="Each request of a quiet model waits that long for company. It is no rate limit.",
        fix="max_queue_delay_microseconds: 1000",
        reference=GUIDE,
        bad=repository(CONFIG + BATCHING.replace("1000", "100000")),
        good=repository(CONFIG + BATCHING),
    ),
    Rule(
        name="rate-limiter-ineffective",
        code="ST218",
        level=Level.INFO,
        what="A rate_limiter in an instance group.",
        why="It does nothing unless the server runs with --rate-limit=execution_count, and it never limits clients.",
        fix="Remove it, or start the server with --rate-limit=execution_count.",
        reference=GUIDE,
        bad=repository(CONFIG.replace("count: 1", 'count: 1 rate_limiter { resources [ { name: "R" count: 1 } ] }')),
        good=repository(),
    ),
    Rule(
        name="sequence-unbounded",
        code="ST219",
        level=Level.INFO,
        what="Sequence batching without a bound on idle sequences or on how many there are.",
        why="A client that opens sequences and leaves them holds the slots of others.",
        fix="sequence_batching { max_sequence_idle_microseconds: 5000000 … }",
        cwe="CWE-770",
        reference=GUIDE,
        bad=repository(CONFIG + SEQUENCE.replace("  max_sequence_idle_microseconds: 5000000\n", "")),
        good=repository(CONFIG + SEQUENCE),
    ),
    Rule(
        name="decoupled-unbounded",
        code="ST220",
        level=Level.INFO,
        what="A decoupled model that is not under safe_triton's limits.",
        why="One request may have any number of responses; a client that stops reading does not stop the model.",
        fix="Derive from SafeTritonPythonModel (`stream`), which bounds responses and time.",
        cwe="CWE-770",
        reference=GUIDE,
        bad=_unguarded(CONFIG + "model_transaction_policy { decoupled: true }\n"),
        good=repository(CONFIG + "model_transaction_policy { decoupled: true }\n"),
    ),
    Rule(
        name="response-cache-shared",
        code="ST221",
        level=Level.INFO,
        what="The response cache is on.",
        why="It is shared by all callers: how fast an answer comes tells whether somebody asked the same before.",
        fix="response_cache { enable: false }",
        cwe="CWE-524",
        reference=GUIDE,
        bad=repository(CONFIG + "response_cache { enable: true }\n"),
        good=repository(),
    ),
    Rule(
        name="implicit-state-ineffective",
        code="ST225",
        level=Level.WARNING,
        what="A sequence's state in config.pbtxt of a Python model.",
        why="The Python backend does not keep it: every request of a sequence gets the initial state, without a word.",
        fix="Keep the state in the model, by correlation id, and remove state from sequence_batching.",
        reference=GUIDE,
        bad=repository(CONFIG + SEQUENCE.replace("control_input", STATE + "  control_input")),
        good=repository(CONFIG + SEQUENCE),
    ),
)
