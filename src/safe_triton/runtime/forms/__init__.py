"""The four forms of a model. Each is compiled at ``initialize`` into one ``execute`` that never raises."""

from __future__ import annotations

from safe_triton.runtime.forms.select import compile_execute

__all__ = ["compile_execute"]
