"""Tells what it received of images, sounds, texts and token ids."""

from __future__ import annotations

import numpy as np

from safe_triton import AudioInput, ImageInput, InputLimits, Limits, SafeTritonPythonModel, TextInput, TokenInput


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(
        inputs={
            "PHOTO": InputLimits(
                content=ImageInput(formats=("PNG", "JPEG"), max_pixels=10_000, max_decoded_bytes=90_000)
            ),
            "SOUND": InputLimits(content=AudioInput(max_duration_ms=1_000, max_channels=1, sample_rates_hz=(8_000,))),
            "TEXT": InputLimits(content=TextInput(max_characters=10)),
            "TOKENS": InputLimits(content=TokenInput(vocabulary=100)),
        }
    )

    def infer(self, inputs):
        rows = len(next(iter(inputs.values())))
        return {
            "SEEN": np.array(
                [[self.seen({name: array[row, 0] for name, array in inputs.items()})] for row in range(rows)], object
            )
        }

    def seen(self, values):
        if "PHOTO" in values:
            photo = values["PHOTO"]
            return f"{photo.dtype} {photo.shape} {photo[0, 0].tolist()}".encode()
        if "SOUND" in values:
            samples, rate_hz = values["SOUND"]
            return f"{samples.dtype} {samples.shape} {rate_hz} {samples.max():.2f}".encode()
        return repr(next(iter(values.values()))).encode()
