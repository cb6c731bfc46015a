"""A guarded model that calls the others, as WHAT says."""

from __future__ import annotations

import threading

import numpy as np

from safe_triton import BlsError, BlsPolicy, BlsTarget, BlsTensor, Limits, SafeTritonPythonModel

ANY = {"X": BlsTensor(dtype="FP32", dims=(-1,))}
NUMBERS = {"Y": BlsTensor(dtype="FP32", dims=(-1,))}


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=5000)
    bls_policy = BlsPolicy(
        allow={
            "double": BlsTarget(version=1, inputs=ANY, outputs=NUMBERS),
            "read": BlsTarget(version=1, inputs="config", outputs="config"),
            "liar": BlsTarget(
                version=1,
                inputs=ANY,
                outputs={"Y": BlsTensor(dtype="FP32", dims=(1,), finite=True)},
                timeout_ms=1000,
            ),
            "counting": BlsTarget(version=1, inputs=ANY, outputs={"Y": BlsTensor(dtype="FP32", dims=(1,))}),
            "telling": BlsTarget(version=1, inputs=ANY, outputs={"SAID": BlsTensor(dtype="BYTES", dims=(1,))}),
            "absent": BlsTarget(version=1, inputs=ANY, outputs=NUMBERS),
            "caller": BlsTarget(version=1, inputs=ANY, outputs=NUMBERS),
        },
        max_calls=20,
        max_bytes=1 << 20,
        max_responses=100,
        max_parallel=4,
    )

    def load(self, context):
        try:
            context.bls.infer("double", {"X": np.zeros(1, np.float32)})
        except BlsError as error:
            self.early = error.message

    def infer(self, inputs):
        what, x = inputs["WHAT"][0].decode(), inputs["X"]
        self.said = ""
        catches = what.startswith("catch ")
        try:
            y = getattr(self, f"do_{what.removeprefix('catch ')}")(x)
        except BlsError as error:
            if not catches:
                raise
            y, self.said = x, f"{type(error).__name__} {error.message}"
        return {"Y": y, "SAID": np.array([self.said.encode()], object)}

    def do_double(self, x):
        return self.bls.infer("double", {"X": x})["Y"]

    def do_read(self, x):
        return self.bls.infer("read", {"X": x})["Y"]

    def do_liar(self, x):
        return self.bls.infer("liar", {"X": x})["Y"]

    def do_absent(self, x):
        return self.bls.infer("absent", {"X": x})["Y"]

    def do_unlisted(self, x):
        return self.bls.infer("ring_a", {"X": x})["Y"]

    def do_itself(self, x):
        return self.bls.infer("caller", {"X": x})["Y"]

    def do_wide(self, x):
        return self.bls.infer("double", {"X": x.astype(np.float64)})["Y"]

    def do_misnamed(self, x):
        return self.bls.infer("double", {"Q": x})["Y"]

    def do_empty(self, x):
        return self.bls.infer("double", {})["Y"]

    def do_unknown_output(self, x):
        return self.bls.infer("double", {"X": x}, outputs=["Q"])["Y"]

    def do_many(self, x):
        for _ in range(21):
            x = self.bls.infer("double", {"X": x})["Y"]
        return x

    def do_large(self, x):
        return (
            self.bls.infer("double", {"X": np.zeros(1 << 17, np.float32)})["Y"][:1]
            + self.bls.infer("double", {"X": np.zeros(1 << 17, np.float32)})["Y"][:1]
        )

    def do_gather(self, x):
        answers = self.bls.gather([("double", {"X": x + number}) for number in range(10)])
        return np.concatenate([answer["Y"] for answer in answers])

    def do_gather_some(self, x):
        answers = self.bls.gather([("double", {"X": x}), ("double", {"X": x}, ["Y"])])
        self.said = "|".join(" ".join(answer) for answer in answers)
        return x

    def do_gather_unknown_output(self, x):
        self.bls.gather([("double", {"X": x}, ["Q"])])
        return x

    def do_gather_failing(self, x):
        self.bls.gather([("double", {"X": x}), ("liar", {"X": np.array([10], np.float32)}), ("double", {"X": x})])
        return x

    def do_bomb(self, x):
        self.bls.gather([("double", {"X": x})] * 100_000)
        return x

    def do_stream(self, x):
        return np.concatenate([answer["Y"] for answer in self.bls.stream("counting", {"X": x})])

    def do_streams(self, x):
        for _ in range(int(x[0])):
            self.do_stream(x[:1])
            next(self.bls.stream("counting", {"X": x[:1]}))  # and is stopped here
        return x

    def do_loaded(self, x):
        self.said = self.early
        return x

    def do_parameters(self, x):
        return self.bls.infer("double", {"X": x}, parameters={"seed": 7})["Y"]

    def do_threads(self, x):
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(self.bls.infer("double", {"X": x})["Y"])) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(found)

    def do_tensor(self, x):
        import triton_python_backend_utils as pb_utils

        return self.bls.infer("double", {"X": pb_utils.Tensor("X", x)})["Y"]

    def do_misnamed_tensor(self, x):
        import triton_python_backend_utils as pb_utils

        return self.bls.infer("double", {"X": pb_utils.Tensor("Q", x)})["Y"]

    def do_carried(self, x):
        self.said = self.bls.infer("telling", {"X": x}, parameters={"seed": 7})["SAID"][0].decode()
        return x

    def do_wrong_parameters(self, x):
        return self.bls.infer("double", {"X": x}, parameters={"seed": 0.5})["Y"]
