# ruff: noqa: PT027 (the tests run in the model, with unittest alone)
from __future__ import annotations

import io
import unittest

import numpy as np
import triton_python_backend_utils as pb_utils


class Arguments(unittest.TestCase):
    def test_requests(self):
        tensor = pb_utils.Tensor("X", np.zeros(2, np.float32))
        good = {"model_name": "plain", "inputs": [tensor], "requested_output_names": ["Y"]}
        for name in good:
            self.assertRaises(TypeError, pb_utils.InferenceRequest, **{**good, name: None})
        for wrong in ({"request_id": None}, {"model_version": None}, {"flags": None}, {"correleation_id": 1}):
            self.assertRaises(TypeError, pb_utils.InferenceRequest, **good, **wrong)
        self.assertRaises(TypeError, pb_utils.InferenceRequest, **{**good, "requested_output_names": [None]})
        self.assertRaises(pb_utils.TritonModelException, pb_utils.InferenceRequest, **{**good, "inputs": [None]})
        pb_utils.InferenceRequest(model_name="plain", inputs=[], requested_output_names=[])

    def test_responses(self):
        self.assertRaises(pb_utils.TritonModelException, pb_utils.InferenceResponse, output_tensors=[None])
        self.assertRaises(TypeError, pb_utils.InferenceResponse, output_tensors=None)
        assert not pb_utils.InferenceResponse(output_tensors=[]).has_error()
        error = pb_utils.InferenceResponse(error=pb_utils.TritonError("text", pb_utils.TritonError.NOT_FOUND)).error()
        assert (error.message(), error.code()) == ("text", pb_utils.TritonError.NOT_FOUND)

    def test_tensors(self):
        self.assertRaises(TypeError, pb_utils.Tensor, None, np.zeros(1))
        self.assertRaises(TypeError, pb_utils.Tensor, "X", None)
        self.assertRaises(pb_utils.TritonModelException, pb_utils.Tensor.from_dlpack, "X", None)

    def test_log(self):
        self.assertRaises(TypeError, pb_utils.Logger.log, "text", 1)
        self.assertRaises(TypeError, pb_utils.Logger.log_info, None)


class Dlpack(unittest.TestCase):
    def test_types(self):
        for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"):
            array = np.ones(100, name)
            tensor = pb_utils.Tensor.from_dlpack("X", pb_utils.Tensor("Y", array))
            assert np.array_equal(tensor.as_numpy(), array)
            assert tensor.__dlpack_device__() == array.__dlpack_device__()
            assert tensor.is_cpu()

    def test_what_it_cannot_do(self):
        with self.assertRaisesRegex(Exception, "not contiguous"):
            pb_utils.Tensor.from_dlpack("X", np.zeros((20, 30)).T)
        with self.assertRaisesRegex(Exception, "string tensors"):
            pb_utils.Tensor("X", np.array(["text"], object)).to_dlpack()

    def test_bool(self):
        array = np.array([False, True])
        tensor = pb_utils.Tensor.from_dlpack("X", pb_utils.Tensor("X", array))
        assert np.array_equal(tensor.as_numpy(), array)


class Metrics(unittest.TestCase):
    def test_counter(self):
        metric = self.metric("compatible_counter", pb_utils.MetricFamily.COUNTER)
        before = metric.value()
        metric.increment(2023.0)
        assert metric.value() == before + 2023.0

    def test_gauge(self):
        metric = self.metric("compatible_gauge", pb_utils.MetricFamily.GAUGE)
        metric.set(999.9)
        metric.increment(-23.5)
        assert round(metric.value(), 1) == 976.4

    def test_twice_is_the_same(self):
        one, two = (self.metric("compatible_twice", pb_utils.MetricFamily.COUNTER) for _ in range(2))
        one.increment(7.5)
        assert one.value() == two.value()

    def metric(self, name, kind):
        family = pb_utils.MetricFamily(name=name, description="d", kind=kind)
        self.addCleanup(lambda kept: None, family)  # a family has to live longer than its metrics
        return family.Metric(labels={"a": "b"})


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for _ in requests:
            runner = unittest.TextTestRunner(stream=io.StringIO())
            result = unittest.main("model", argv=["model"], testRunner=runner, exit=False).result
            said = [str(result.testsRun), *(text for _, text in result.failures + result.errors)]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array(said, object))]))
        return responses
