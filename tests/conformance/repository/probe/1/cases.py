# ruff: noqa: PLC3002, PLW0108, SIM300  # what is called is the point, not how
"""Cases of the probe model: each line is a label and an expression, whose value or exception is reported as text.

Calls that end the server or the model's process have groups of their own. Left out: refused metric operations, which end
the server in most runs, and DLPack capsules made by numpy, which wedge the model's process.
"""

from __future__ import annotations

import copy
import gc
import json
import pickle
import re
import traceback
import warnings

import numpy as np
from values import ARRAYS, BASE, Dlpack, Elsewhere


def seen(tensor):
    array = tensor.as_numpy()
    values = array.tolist() if array.size < 9 else None
    flags = (array.flags.c_contiguous, array.flags.writeable)
    return tensor.name(), tensor.shape(), str(array.dtype), array.shape, repr(values), flags, tensor.is_cpu()


def tensor_cases(pb, request):
    for name, make in ARRAYS.items():
        yield name, lambda make=make: seen(pb.Tensor("n", make()))
    yield "same array", lambda: pb.Tensor("n", BASE).as_numpy() is BASE
    yield "same array twice", lambda: (lambda t: t.as_numpy() is t.as_numpy())(pb.Tensor("n", BASE.T))
    yield "no arguments", lambda: pb.Tensor()
    yield "one argument", lambda: pb.Tensor("n")
    yield "three arguments", lambda: pb.Tensor("n", BASE, 1)
    yield "by name", lambda: pb.Tensor(name="x", array=BASE)
    yield "name int", lambda: pb.Tensor(1, BASE)
    yield "name bytes", lambda: pb.Tensor(b"ab", BASE).name()
    yield "name surrogate", lambda: pb.Tensor("\ud800", BASE)
    yield "name empty", lambda: pb.Tensor("", BASE)
    yield "name nul", lambda: pb.Tensor("a\0b", BASE).name()
    yield "name unicode", lambda: pb.Tensor("ü", BASE).name()
    yield "name empty and bad dtype", lambda: pb.Tensor("", np.array([1j]))
    yield "equal", lambda: pb.Tensor("n", BASE) == pb.Tensor("n", BASE)
    yield "hash", lambda: isinstance(hash(pb.Tensor("n", BASE)), int)
    yield "new attribute", lambda: setattr(pb.Tensor("n", BASE), "zz", 1)
    yield "copy", lambda: copy.copy(pb.Tensor("n", BASE))
    yield "pickle", lambda: pickle.dumps(pb.Tensor("n", BASE))
    yield "triton_dtype", lambda: pb.Tensor("n", BASE).triton_dtype()
    yield "subclass", lambda: type("Sub", (pb.Tensor,), {})("x", BASE).name()
    yield "type", lambda: pb.Tensor
    yield "repr", lambda: pb.Tensor("n", BASE)
    yield "changed after", lambda: changed_after(pb)


def changed_after(pb):
    array = np.array([1.0])
    tensor = pb.Tensor("n", array)
    array[0] = 2
    return tensor.as_numpy().tolist()


def dlpack_cases(pb, request):
    yield "capsule type", lambda: type(pb.Tensor("n", BASE).to_dlpack()).__name__
    yield "round trip", lambda: seen(pb.Tensor.from_dlpack("m", pb.Tensor("n", BASE).to_dlpack()))
    yield "shared memory", lambda: shares(pb)
    yield "of a tensor", lambda: seen(pb.Tensor.from_dlpack("m", pb.Tensor("n", BASE)))
    yield "of an object without its device", lambda: pb.Tensor.from_dlpack("m", type("X", (), {"__dlpack__": 1})())
    yield "of another device", lambda: pb.Tensor.from_dlpack("m", Elsewhere(BASE))
    yield "device", lambda: pb.Tensor("n", BASE).__dlpack_device__()
    yield "numpy from tensor", lambda: np.from_dlpack(pb.Tensor("n", BASE)).tolist()
    yield "float16", lambda: seen(pb.Tensor.from_dlpack("m", pb.Tensor("n", np.zeros(2, np.float16)).to_dlpack()))
    yield "bool", lambda: seen(pb.Tensor.from_dlpack("m", pb.Tensor("n", np.array([True])).to_dlpack()))
    yield "empty", lambda: seen(pb.Tensor.from_dlpack("m", pb.Tensor("n", np.zeros((0, 2))).to_dlpack()))
    yield "zero dims", lambda: seen(pb.Tensor.from_dlpack("m", pb.Tensor("n", np.array(1.0)).to_dlpack()))
    yield "through numpy", lambda: np.from_dlpack(Dlpack(BASE)).tolist()
    yield "int64", lambda: seen(pb.Tensor.from_dlpack("m", pb.Tensor("n", np.arange(3)).to_dlpack()))
    yield "bytes tensor", lambda: pb.Tensor("n", np.array([b"a"], dtype=object)).to_dlpack()
    yield "an int", lambda: pb.Tensor.from_dlpack("m", 1)
    yield "none", lambda: pb.Tensor.from_dlpack("m", None)
    yield "no arguments", lambda: pb.Tensor.from_dlpack()
    yield "empty name", lambda: pb.Tensor.from_dlpack("", pb.Tensor("n", BASE).to_dlpack())
    yield "input", lambda: type(request.inputs()[-1].to_dlpack()).__name__
    yield "tensor protocol", lambda: hasattr(pb.Tensor("n", BASE), "__dlpack__")


def shares(pb):
    array = np.array([1.0])
    tensor = pb.Tensor.from_dlpack("m", pb.Tensor("n", array).to_dlpack())
    array[0] = 2
    return tensor.as_numpy().tolist()


def error_cases(pb, request):
    error = pb.TritonError
    yield "default code", lambda: error("m").code()
    for name in error.INTERNAL.__members__:
        yield f"code {name}", lambda name=name: (error("m", getattr(error, name)).code(), int(getattr(error, name)))
    yield "message", lambda: error("mä\n").message()
    yield "message bytes", lambda: error(b"ab").message()
    yield "by name", lambda: error(message="a", code=error.CANCELLED).code()
    yield "code int", lambda: error("m", 3)
    yield "code text", lambda: error("m", "NOT_FOUND")
    yield "no arguments", lambda: error()
    yield "message none", lambda: error(None)
    yield "message exception", lambda: error(ValueError("x"))
    yield "message surrogate", lambda: error("\ud800")
    yield "str", lambda: str(error("m"))
    yield "is exception", lambda: issubclass(error, BaseException)
    yield "raise", lambda: raise_(error("m"))
    yield "equal to int", lambda: (error.NOT_FOUND == 2, error.NOT_FOUND == 3, error.NOT_FOUND != 2)
    yield "equal to text", lambda: error.NOT_FOUND == "NOT_FOUND"
    yield "equal to code", lambda: error.NOT_FOUND == error("a", error.NOT_FOUND).code()
    yield "names", lambda: (error.NOT_FOUND.name, error.NOT_FOUND.value, str(error.NOT_FOUND), hash(error.NOT_FOUND))
    yield "type", lambda: (type(error.NOT_FOUND).__name__, type(error.NOT_FOUND).__qualname__, error)
    yield "constructed", lambda: type(error.NOT_FOUND)(2)
    yield "constructed unknown", lambda: type(error.NOT_FOUND)(99)
    yield "index", lambda: "abc"[error.NOT_FOUND]
    yield "is int", lambda: isinstance(error.NOT_FOUND, int)
    yield "less", lambda: error.NOT_FOUND < error.INTERNAL
    yield "members", lambda: list(error.NOT_FOUND.__members__)
    yield "exception", lambda: (pb.TritonModelException("m"), pb.TritonModelException.__mro__)
    yield "exception raise", lambda: raise_(pb.TritonModelException("a", 1))


def raise_(error):
    raise error


def response_cases(pb, request):
    make, error = pb.InferenceResponse, pb.TritonError("e")
    tensor = pb.Tensor("a", BASE)
    yield "empty", lambda: (make().output_tensors(), make().has_error(), make().error())
    yield "list", lambda: [each.name() for each in make([tensor]).output_tensors()]
    yield "tuple", lambda: [each.name() for each in make((tensor,)).output_tensors()]
    yield "by name", lambda: make(output_tensors=[tensor]).has_error()
    yield "error", lambda: (make(error=error).has_error(), make(error=error).error().message())
    yield "both", lambda: (len(make([tensor], error).output_tensors()), make([tensor], error).has_error())
    yield "error by position", lambda: make([], error).has_error()
    yield "error none", lambda: make([], None).has_error()
    yield "twice the same", lambda: len(make([tensor, tensor]).output_tensors())
    yield "same tensor", lambda: make([tensor]).output_tensors()[0] is tensor
    yield "same list", lambda: (lambda r: r.output_tensors() is r.output_tensors())(make([tensor]))
    yield "same error", lambda: make(error=error).error() is error
    yield "none", lambda: make(None)
    yield "list of none", lambda: make([None])
    yield "list of int", lambda: make([1])
    yield "generator", lambda: make(each for each in [tensor])
    yield "dict", lambda: make({"a": 1})
    yield "set", lambda: make({tensor})
    yield "array", lambda: make(BASE)
    yield "error text", lambda: make(error="x")
    yield "error exception", lambda: make(error=pb.TritonModelException("x"))
    yield "parameters", lambda: make([], parameters={})
    yield "three arguments", lambda: make([], error, {})
    yield "new attribute", lambda: setattr(make(), "zz", 1)
    yield "list changed", lambda: list_changed(pb, tensor)
    yield "get_output_tensor_by_name", lambda: pb.get_output_tensor_by_name(make([tensor]), "a").name()
    yield "get_output_tensor_by_name missing", lambda: pb.get_output_tensor_by_name(make([tensor]), "b")


def list_changed(pb, tensor):
    tensors = [tensor]
    response = pb.InferenceResponse(tensors)
    tensors.append(tensor)
    response.output_tensors().clear()
    return len(response.output_tensors())


def request_cases(pb, request):
    for name in ("request_id", "correlation_id", "flags", "timeout", "is_cancelled", "trace"):
        yield name, getattr(request, name)
    yield "parameters", lambda: sorted(json.loads(request.parameters()).items())  # the client sends them in any order
    yield "requested_output_names", lambda: sorted(request.requested_output_names())
    yield "inputs", lambda: sorted(seen(each) for each in request.inputs() if each.name() != "CASE")
    yield "bytes input", lambda: bytes_input(pb, request)
    yield "same tensor", lambda: request.inputs()[0] is request.inputs()[0]
    yield "same list", lambda: request.inputs() is request.inputs()
    yield "same array", lambda: (lambda t: t.as_numpy() is t.as_numpy())(request.inputs()[0])
    yield "input type", lambda: (type(request.inputs()).__name__, type(request.inputs()[0]))
    yield "input triton_dtype", lambda: request.inputs()[0].triton_dtype()
    yield "trace context", lambda: request.trace().get_context()
    yield "sender", lambda: (type(request.get_response_sender()), request.get_response_sender().is_cancelled())
    yield "same sender", lambda: request.get_response_sender() is request.get_response_sender()
    yield "sender constructed", lambda: type(request.get_response_sender())()
    yield "trace constructed", lambda: type(request.trace())()
    for name in ("model_name", "preferred_memory", "priority"):
        yield f"attribute {name}", lambda name=name: getattr(request, name)
    yield "new attribute", lambda: setattr(request, "zz", 1)
    yield "get_input_tensor_by_name missing", lambda: pb.get_input_tensor_by_name(request, "nope")
    yield "set_flags", lambda: (request.set_flags(3), request.flags(), request.set_flags(0))
    yield "set_flags negative", lambda: request.set_flags(-1)
    yield "set_flags text", lambda: request.set_flags("1")
    yield "set_release_flags", lambda: (request.set_release_flags(2), request.set_release_flags(1))
    yield "set_release_flags unknown", lambda: (request.set_release_flags(5), request.set_release_flags(1))
    yield "set_release_flags negative", lambda: request.set_release_flags(-1)


def bytes_input(pb, request):
    tensor = pb.get_input_tensor_by_name(request, "CASE")
    array = tensor.as_numpy()
    return tensor.shape(), str(array.dtype), type(array[0]).__name__, array.flags.writeable, array.flags.c_contiguous


def made_request_cases(pb, request):
    tensor = pb.Tensor("a", BASE)

    def make(**changes):
        return pb.InferenceRequest(**{"model_name": "m", "inputs": [], "requested_output_names": []} | changes)

    made = make(inputs=[tensor], requested_output_names=["Y", "Y", "Z"])
    for name in ("request_id", "correlation_id", "flags", "timeout", "parameters", "trace"):
        yield name, getattr(made, name)
    yield "requested_output_names", lambda: sorted(made.requested_output_names())
    yield "inputs", lambda: made.inputs()[0] is tensor
    yield "sender", made.get_response_sender
    yield "send", lambda: made.get_response_sender().send(pb.InferenceResponse([]))
    yield "send final", lambda: made.get_response_sender().send(flags=1)
    yield "by position", lambda: pb.InferenceRequest("id", 1, [], ["a"], "m").request_id()
    yield (
        "everything",
        lambda: everything(
            make(
                request_id="r",
                correlation_id=7,
                model_version=3,
                flags=1,
                timeout=9,
                parameters={"a": 1},
                preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0),
                trace=request.trace(),
            )
        ),
    )
    yield "parameters all", lambda: make(parameters={"a": 1, "b": "x", "c": True, "é": "ü"}).parameters()
    yield "parameters empty", lambda: make(parameters={}).parameters()
    yield "parameters large", lambda: make(parameters={"a": 2**70}).parameters()
    for name, value in {
        "float": {"a": 1.5},
        "list": {"a": [1]},
        "key": {1: 1},
        "text": "x",
        "none": {"a": None},
    }.items():
        yield f"parameters {name}", lambda value=value: make(parameters=value).parameters()
    for name, value in {"text": "abc", "negative": -1, "float": 1.5, "large": 2**64, "none": None}.items():
        yield f"correlation_id {name}", lambda value=value: make(correlation_id=value).correlation_id()
    yield "input none", lambda: make(inputs=[None])
    yield "input none with id", lambda: make(inputs=[None], request_id="r")
    yield "inputs tuple", lambda: len(make(inputs=(tensor,)).inputs())
    yield "inputs array", lambda: make(inputs=BASE)
    yield "no model", lambda: pb.InferenceRequest(inputs=[], requested_output_names=[])
    yield "outputs set", lambda: make(requested_output_names={"a"})
    yield "outputs text", lambda: make(requested_output_names="a")
    yield "flags negative", lambda: make(flags=-1)
    yield "version text", lambda: make(model_version="1")
    yield "unknown argument", lambda: make(zz=1)
    yield "preferred memory", lambda: [n for n in dir(pb.PreferredMemory(pb.TRITONSERVER_MEMORY_GPU)) if n[0] != "_"]
    yield "preferred memory int", lambda: pb.PreferredMemory(0)
    yield "memory", lambda: (pb.TRITONSERVER_MEMORY_CPU, int(pb.TRITONSERVER_MEMORY_GPU))
    yield "exec of no model", lambda: failed(make(model_name="none", request_id="r").exec())
    yield "exec decoupled of no model", lambda: [failed(each) for each in make(model_name="none").exec(decoupled=True)]
    yield "async_exec outside a loop", lambda: make(model_name="none").async_exec()


def everything(request):
    return (
        request.request_id(), request.correlation_id(), request.flags(), request.timeout(), request.parameters()
    )  # fmt: skip


def failed(response):
    return response.has_error(), response.error().message(), response.error().code(), response.output_tensors()


def metric_cases(pb, request):
    kinds = pb.MetricFamily
    counter = kinds(name="conformance_counter", description="d", kind=kinds.COUNTER)
    gauge = kinds("conformance_gauge", "d", kinds.GAUGE)
    histogram = kinds("conformance_histogram", "d", kinds.HISTOGRAM)
    count = counter.Metric(labels={"a": "b"})
    level = gauge.Metric({"x": "1"})
    yield "family", lambda: ([name for name in dir(counter) if name[0] != "_"], type(counter))
    yield "metric", lambda: ([name for name in dir(count) if name[0] != "_"], type(count))
    yield "kinds", lambda: (kinds.COUNTER, kinds.GAUGE, kinds.HISTOGRAM, int(kinds.GAUGE))
    yield "start", count.value
    yield "increment", lambda: (count.increment(2), count.increment(1.5), count.increment(0), count.value())
    yield "increment numpy", lambda: (count.increment(np.float32(1)), count.increment(np.array([1.0])), count.value())
    yield "increment bool", lambda: (count.increment(True), count.value())
    yield "same labels", lambda: counter.Metric(labels={"a": "b"}).value()
    yield "other labels", lambda: counter.Metric(labels={"a": "c"}).value()
    yield "no labels", lambda: counter.Metric().value()
    yield "set", lambda: (level.set(-3), level.value(), level.increment(-1), level.value())
    yield "observe", lambda: histogram.Metric(labels={"a": "c"}, buckets=[0.1, 1.0]).observe(0.5)
    yield "observe int buckets", lambda: histogram.Metric(labels={"a": "d"}, buckets=[1, 2]).observe(1)
    yield "increment text", lambda: count.increment("a")
    yield "increment none", lambda: count.increment(None)
    yield "increment nothing", lambda: count.increment()
    yield "increment by name", lambda: count.increment(value=1)
    yield "labels list", lambda: counter.Metric(labels=[1])
    yield "labels unknown argument", lambda: counter.Metric(lab={})
    yield "buckets on a counter", lambda: counter.Metric(labels={"q": "b"}, buckets=[1.0])
    yield "no buckets", lambda: histogram.Metric(labels={"a": "b"})
    yield "buckets text", lambda: histogram.Metric(labels={"a": "b"}, buckets=["a"])
    yield "buckets no list", lambda: histogram.Metric(labels={"a": "b"}, buckets=1.0)
    yield "family nothing", lambda: kinds()
    yield "family kind int", lambda: kinds("n", "d", 0)
    yield "family again", lambda: type(kinds(name="conformance_counter", description="d", kind=kinds.COUNTER))
    yield "metric constructed", lambda: type(count)()
    for call, *arguments in (("increment", 1), ("increment", -1), ("set", 1), ("observe", 1), ("value",)):
        yield f"{call} of a family that is gone", lambda call=call, arguments=arguments: gone(pb, call, arguments)


def gone(pb, call, arguments):
    metric = pb.MetricFamily(name="conformance_gone", description="d", kind=pb.MetricFamily.COUNTER).Metric()
    gc.collect()
    return getattr(metric, call)(*arguments)


def logger_cases(pb, request):
    log = pb.Logger
    yield "names", lambda: [name for name in dir(log) if name[0] != "_"]
    yield "log", lambda: log.log("conformance")
    yield "log level", lambda: (log.log("conformance", log.INFO), log.log(message="conformance", level=log.WARNING))
    for name in ("log_info", "log_warn", "log_error", "log_verbose"):
        yield name, lambda name=name: getattr(log, name)("conformance ü")
    yield "log level int", lambda: log.log("a", 1)
    yield "log int", lambda: log.log_info(1)
    yield "log format", lambda: log.log_info("a %s", 1)
    yield "log nothing", lambda: log.log()
    yield "constructed", lambda: log()
    yield "levels", lambda: (log.INFO, log.WARNING, log.ERROR, log.VERBOSE, log.LogLevel)


def utility_cases(pb, request):
    for name in sorted(pb.TRITON_STRING_TO_NUMPY):
        yield name, lambda name=name: pb.triton_string_to_numpy(name)
    yield "unknown type", lambda: pb.triton_string_to_numpy("TYPE_BF16")
    yield "numbers", lambda: [pb.triton_to_numpy_type(number) for number in range(16)]
    for kind in (
        "bool",
        "u1",
        "u2",
        "u4",
        "u8",
        "i1",
        "i2",
        "i4",
        "i8",
        "f2",
        "f4",
        "f8",
        "O",
        "S3",
        "U1",
        "c8",
        ">f4",
    ):
        yield f"number of {kind}", lambda kind=kind: pb.numpy_to_triton_type(np.dtype(kind))
    yield "number of class", lambda: (pb.numpy_to_triton_type(np.float32), pb.numpy_to_triton_type(bool))
    for name in ("object", "object_nested", "object_empty", "object_refuses", "bytes", "unicode", "float32"):
        yield f"serialize {name}", lambda name=name: pb.serialize_byte_tensor(ARRAYS[name]())
    yield "deserialize", lambda: pb.deserialize_bytes_tensor(b"\1\0\0\0a\0\0\0\0").tolist()
    yield "deserialize broken", lambda: pb.deserialize_bytes_tensor(b"\5\0\0\0a")
    config = {"input": [{"name": "a"}], "output": [{"name": "b"}], "name": "m", "max_batch_size": 2}
    yield "input config", lambda: (pb.get_input_config_by_name(config, "a"), pb.get_input_config_by_name(config, "b"))
    yield "output config", lambda: (pb.get_output_config_by_name(config, "b"), pb.get_output_config_by_name({}, "b"))
    yield (
        "decoupled",
        lambda: [
            pb.using_decoupled_model_transaction_policy(each)
            for each in ({}, {"model_transaction_policy": {"decoupled": True}})
        ],
    )
    yield "constants", lambda: {name: getattr(pb, name) for name in dir(pb) if name.startswith("TRITONSERVER_RE")}
    yield (
        "is_model_ready",
        lambda: (pb.is_model_ready("probe"), pb.is_model_ready("none"), pb.is_model_ready("probe", "1")),
    )
    for step in CONFIG_STEPS:
        yield f"config {step}", lambda step=step: config_after(pb, step)


CONFIG_STEPS = [
    [("set_max_batch_size", 4)],
    [("set_max_batch_size", 1)],
    [("set_dynamic_batching",), ("set_dynamic_batching",)],
    [("add_input", {"name": "X", "data_type": "TYPE_FP32", "dims": [2]})],
    [("add_input", {"name": "X", "data_type": "TYPE_FP64", "dims": [1]})],
    [("add_input", {"name": "X", "data_type": "TYPE_FP32", "dims": [1], "optional": True})],
    [("add_input", {"name": "N", "data_type": "TYPE_FP32", "dims": [1], "optional": True})],
    [("add_input", {"name": "N", "data_type": "TYPE_FP32"})],
    [("add_input", {"name": "N", "dims": [1]})],
    [("add_input", {"data_type": "TYPE_FP32", "dims": [1]})],
    [("add_input", {"name": "N", "zz": 1})],
    [("add_output", {"name": "Y", "data_type": "TYPE_FP32", "dims": [1]})],
    [("add_output", {"name": "Y", "data_type": "TYPE_FP64", "dims": [2]})],
    [("add_output", {"name": "Y", "data_type": "TYPE_FP32", "dims": [1], "optional": True})],
    [("set_model_transaction_policy", {"decoupled": True}), ("set_model_transaction_policy", {"decoupled": False})],
    [("set_model_transaction_policy", {"zz": True})],
    [("set_model_transaction_policy", {})],
]


def config_after(pb, steps):
    config = pb.ModelConfig(json.dumps({
        "name": "m",
        "max_batch_size": 2,
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [1], "optional": False}],
        "output": [{"name": "Y", "data_type": "TYPE_INVALID", "dims": []}],
    }))  # fmt: skip
    for name, *arguments in steps:
        getattr(config, name)(*arguments)
    return config.as_dict()


def ends_the_server_cases(pb, request):
    made = pb.InferenceRequest(model_name="m", inputs=[], requested_output_names=[])
    yield "is_cancelled", made.is_cancelled


def ends_the_stub_cases(pb, request):
    made = pb.InferenceRequest(model_name="m", inputs=[], requested_output_names=[])
    yield "set_release_flags", lambda: made.set_release_flags(2)


CASES = {
    "ends_the_server": ends_the_server_cases,
    "ends_the_stub": ends_the_stub_cases,
    "tensor": tensor_cases,
    "dlpack": dlpack_cases,
    "error": error_cases,
    "response": response_cases,
    "request": request_cases,
    "made_request": made_request_cases,
    "metric": metric_cases,
    "logger": logger_cases,
    "utility": utility_cases,
}


def run(case, pb, request):
    """Label -> text of the value or of the exception, without addresses; ``case:label`` runs that one only."""
    report = {}
    case, _, only = case.partition(":")
    for label, call in CASES[case](pb, request):
        if only and label != only:
            continue
        try:
            with warnings.catch_warnings():  # pytest makes errors of them, the stub does not
                warnings.simplefilter("ignore")
                value = repr(call())
        except Exception as error:
            kinds = [each.__name__ for each in type(error).__mro__]
            value = f"{'<'.join(kinds)}: {error} args={error.args!r}"
            value += " " + str(len(traceback.extract_tb(error.__traceback__)) > 0)
        report[label] = re.sub(r"0x[0-9a-f]+", "0x", value)
    return report
