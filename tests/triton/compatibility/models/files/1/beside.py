from __future__ import annotations


def scaled(x, scale):
    return x * scale
