"""Microseconds that the guard adds inside a model's process, measured there on real requests."""
