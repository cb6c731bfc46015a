"""Turn passages of text into vectors by hashing their character trigrams (no training, no vocabulary)."""

from __future__ import annotations

import zlib

import numpy as np

from safe_triton import InputLimits, Limits, OutputLimits, SafeTritonPythonModel

VECTOR_SIZE = 256  # as in config.pbtxt


class TritonPythonModel(SafeTritonPythonModel):
    """Similar spelling gives similar vectors; meaning is not looked at."""

    limits = Limits(
        max_sequence_length=16,  # passages of one document: axis 1 of PASSAGES
        max_request_bytes=64 << 10,  # all passages together
        deadline_ms=1_000,
        inputs={"PASSAGES": InputLimits(max_string_bytes=4096, utf8=True)},
        outputs={"VECTORS": OutputLimits(finite=True)},
        parameters={},
    )

    def infer(self, inputs):
        """Return one vector for each passage; the passages are known to be short and valid UTF-8."""
        passages = inputs["PASSAGES"]
        vectors = np.zeros((*passages.shape, VECTOR_SIZE), np.float32)
        for place, passage in np.ndenumerate(passages):
            self.count_trigrams(passage.decode(), vectors[place])
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        return {"VECTORS": vectors / np.maximum(lengths, 1.0)}

    @staticmethod
    def count_trigrams(text, counts):
        """Add the trigrams of `text` to `counts`; crc32 is the same in every process, `hash()` is not."""
        text = f" {' '.join(text.casefold().split())} "
        for start in range(len(text) - 2):
            counts[zlib.crc32(text[start : start + 3].encode()) % VECTOR_SIZE] += 1.0
