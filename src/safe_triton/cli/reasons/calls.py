"""Reasons of calls from one model to another: what the called model's words never say, said here."""

from __future__ import annotations

TEXT = """
bls.cycle
  A call would lead back to a model that waits for its answer; without the guard it would never return.
  author: take one of the calls on the path away; the message names all of its models.
  bls.cycle: router:1 > ranker:1 > router:1

bls.deadline
  A model that this one calls did not answer within the time that the request had left, or its own timeout_ms.
  client: try again later; the model's author looks at why the target is slow or busy.
  bls.deadline: a model that this one calls did not answer in time

bls.failed
  A model that this one calls failed; what it said stands beside this line, as "answered".
  author: look at the called model's own lines in the log.
  bls.failed: 'tokenizer' failed

bls.limit
  The calls of one request came to a bound of BlsPolicy: number, bytes, depth, responses, or threads that wait.
  author: call less often, or raise the bound that the message names.
  bls.limit: more than 64 calls of one request (max_calls)

bls.output
  A called model answered with other names, dtypes, shapes or more bytes than its BlsTarget declares.
  author: correct the called model, or the declaration.
  bls.output: FP64, expected FP32 at outputs['SCORES'] of 'ranker'

bls.refused
  A called model, or the server in front of it, refused what it was sent.
  author: check what is sent; the reason in the message is the called model's own.
  bls.refused: 'tokenizer' refused the request (limit.string_bytes)

bls.unavailable
  A model that this one calls is not loaded in that version, or its process has died.
  operator: load it; safe-triton serve brings a dead one back by itself.
  bls.unavailable: a model that this one calls is not available

bls.usage
  The model's code called what its bls_policy does not allow, sent other tensors, or called while no request ran.
  author: correct the call, or declare the target and its tensors in BlsPolicy.allow.
  bls.usage: 'tokeniser' is not in BlsPolicy.allow

config.ensemble
  A test loads an ensemble whose configuration the server would refuse.
  author: correct its steps; safe-triton check reports the same.
  config.ensemble: tensor 'features' is read, but neither an input nor written

config.target
  A BlsTarget takes its tensors from the target's config.pbtxt, which this model cannot read.
  author: declare the inputs and outputs, or let the operator grant reading that file.
  config.target: config.pbtxt of 'tokenizer' cannot be read by this model; …

parameter.bls
  The request parameter safe_triton.bls holds something else than a guarded model writes there.
  client: leave that parameter out.
  parameter.bls: no path of callers at parameters['safe_triton.bls']

policy.not_granted
  A class declares a call to a model that the operator's policy does not let it call, in that version.
  operator: add the line of the message to safe-triton.toml if the call is wanted; else the author takes it away.
  policy.not_granted: it declares calls to ranker:1; add to safe-triton.toml: [models.router.bls] allow = ["ranker"]

policy.pipeline
  The steps of a Pipeline do not fit together, or do not fit the model's config.pbtxt.
  author: correct the tensor that the message names.
  policy.pipeline: tensor 'features' is FP32 [rows, 4] of 'preprocess', and FP32 [rows, 8] of 'classify'

policy.bls
  The model's code used self.bls or context.bls, and its class declares no bls_policy.
  author: declare bls_policy = BlsPolicy(allow={…}).
  policy.bls: this class declares no bls_policy: it calls no model
"""
