"""Reasons that the operator's file leads to: reading it, and what a model's configuration says beside it."""

from __future__ import annotations

TEXT = """
policy.file
  The operator's policy cannot be read: no file, no permission, too large, not UTF-8.
  operator: correct the path or the file; without --policy every value has its default.
  policy.file: safe-triton.toml cannot be read: No such file or directory

policy.limits
  What the server passed to the model's process about the operator's limits cannot be read.
  operator: start models through safe-triton serve only; set no variable that begins with SAFE_TRITON_.
  policy.limits: SAFE_TRITON_LIMITS cannot be read: JSONDecodeError

policy.missing
  A table of the operator's policy lacks a key that it must have.
  operator: add the key at the place of the message.
  policy.missing: safe-triton.toml:9: audit.suppress[0].expires: is missing

policy.toml
  The operator's policy, or a parameter safe_triton.… of a config.pbtxt, is no TOML.
  operator: correct the line; a text has quotes, a table's name has brackets.
  policy.toml: safe-triton.toml:4: no TOML: Invalid value

policy.unknown_model
  The operator's policy has a table for a model that is in no repository; what was meant would have the defaults.
  operator: correct the name, or remove the table.
  policy.unknown_model: safe-triton.toml:12: models.digts: no model of that name; did you mean 'digits'?

policy.widens
  A model's config.pbtxt says something about its policy that is not tighter; only the operator's file may widen.
  operator: write it under [models.NAME] in safe-triton.toml if it is wanted; else remove the parameter.
  policy.widens: digits/config.pbtxt: parameters['safe_triton.limits.max_inputs'] is wider than 64 (default); …
"""
