"""Reasons that a model's author meets: declarations, configuration, load and files."""

from __future__ import annotations

TEXT = """
condition.environment
  An environment variable does not have the value that LoadConditions.environment declares.
  operator: set it for the server, or let the author correct the declaration.
  condition.environment: the environment variable STAGE has not the declared value

condition.gpu
  The instance was put on a GPU that LoadConditions.gpu_ids does not name.
  operator: correct the gpus of instance_group in config.pbtxt, or let the author declare that GPU.
  condition.gpu: GPU 1, declared 0

condition.instance_kind
  The instance is of a kind that LoadConditions.instance_kinds does not name.
  operator: correct the kind of instance_group in config.pbtxt, or let the author declare that kind.
  condition.instance_kind: instance kind GPU, declared CPU

condition.model_root
  The model was loaded from outside the folder that LoadConditions.model_root declares.
  operator: serve it from that folder.
  condition.model_root: the model's folder is not beneath the declared model_root

condition.unmet
  A declared load condition does not hold.
  operator: see which in the message.
  condition.unmet: …

config.batch_size
  max_batch_size of config.pbtxt is below 0.
  author: set 0 (no batching) or more.
  config.batch_size: max_batch_size is -1, below 0

config.dims
  The dims of a tensor in config.pbtxt hold something else than sizes and -1, or too many axes.
  author: correct dims in config.pbtxt.
  config.dims: input[0].dims holds -2

config.dtype
  A data type of config.pbtxt is unknown, or one that numpy cannot hold (BF16).
  author: use another data type, or protect, which checks the shapes of BF16 tensors.
  config.dtype: input 'X' is BF16, which numpy cannot hold

config.duplicate
  config.pbtxt declares an input or output twice.
  author: remove one.
  config.duplicate: input 'X' is declared twice

config.gpu_inputs
  config.pbtxt asks for inputs on the GPU, which arrive as something else than numpy arrays.
  author: remove the parameter FORCE_CPU_ONLY_INPUT_TENSORS, or use protect, which checks the shapes of such inputs.
  config.gpu_inputs: FORCE_CPU_ONLY_INPUT_TENSORS is "no"; inputs arrive as numpy arrays, on the CPU

config.implicit_state
  config.pbtxt asks Triton to keep a sequence's state, which its Python backend does not do.
  author: keep the state in the model, by correlation id, and remove state from sequence_batching.
  config.implicit_state: config.pbtxt has sequence_batching { state }, which Triton's Python backend does not keep: …

config.invalid
  A model configuration that cannot be served.
  author: correct config.pbtxt as the message says.
  config.invalid: …

config.json
  What Triton passed as the model's configuration is not JSON.
  operator: check that nothing stands between Triton and the model; tests pass a dict or a config.pbtxt.
  model_config is not JSON

config.missing
  The model's configuration lacks something that every model needs: its name, an input, an output.
  author: add it to config.pbtxt; outputs are not completed automatically.
  config.missing: config.pbtxt declares no outputs

config.type
  A field of the model's configuration has another type than Triton's definition.
  author: correct it in config.pbtxt.
  config.type: config.max_batch_size is no int

environment.missing
  A package or Triton release that a declaration needs is not here.
  operator: install it in the environment of the models' Python; safe-triton locate shows which that is.
  environment.missing: …

environment.pb_utils
  A model was initialized outside Triton.
  author: in tests use safe_triton.testing.load_model.
  environment.pb_utils: no Triton Python backend in this process; tests use safe_triton.testing.load_model

environment.pydantic
  InputLimits.schema needs the package pydantic.
  operator: install pydantic in the environment of the models' Python.
  environment.pydantic: a schema needs the package pydantic

expression.failed
  A formula could not be evaluated.
  author: see the message in the server's log under the error id.
  expression.failed: …

expression.invalid
  A formula that is no formula, or that must not be.
  author: correct it as the message says.
  expression.invalid: …

expression.refused
  A formula uses syntax, a name, a function or an attribute that formulas do not have.
  author: write it with those of docs/how-to/expressions.md.
  expression.refused: line 1, column 1: attribute '__class__' is not for formulas

expression.size
  A formula has too many characters or parts.
  author: shorten it, or compute in the model's code.
  expression.size: 801 > 500 parts

expression.syntax
  A formula is no Python expression.
  author: correct it at the line and column of the message.
  expression.syntax: line 1, column 4: invalid syntax

expression.time
  The evaluation of a formula took longer than max_time_ms of its SafeExpression.
  author: give it less to do, or a larger bound.
  expression.time: line 1, column 1: longer than max_time_ms

expression.value
  A formula met a value that it cannot work with: type, shape, size, or a number without a result.
  author: correct the formula, or check the inputs by Limits first.
  expression.value: line 1, column 5: ZeroDivisionError: division by zero

expression.work
  The evaluation of a formula would compute more elements and take more steps than max_work of its SafeExpression.
  author: bound the inputs by Limits, or give a larger bound.
  expression.work: line 1, column 1: more elements and steps than max_work allows

guard.ctypes
  The model's code loaded a library, or reached memory, through ctypes.
  author: load it in load(), from the Python environment, or declare what the message names.
  guard.ctypes: refused ctypes.dlopen of /tmp/x.so; grant it in safe-triton.toml: [models.digits.sandbox] …

guard.file
  The model's code opened or listed something that its policy does not let it read.
  operator: add the path to read under [models.NAME.sandbox], if the model needs it; its class may narrow it again.
  guard.file: refused open of /data/words.txt; grant it in safe-triton.toml: [models.digits.sandbox] read = […]

guard.guard
  The model's code tried to change the guard itself. No correct model does; the kernel's confinement holds anyway.
  operator: find out where this model comes from; nothing grants it.
  guard.guard: refused object.__setattr__ of __code__; nothing grants it

guard.import
  The model's code imported a module from a folder that it can write to or may not read.
  author: install the module in the Python environment, or put it into the model's folder.
  guard.import: refused import of extra from /tmp/extra.py; …

guard.network
  The model's code made a socket, resolved a name or connected.
  operator: grant it, if the model needs it: network = { reason = "…", to = [443] } under [models.NAME.sandbox].
  guard.network: refused socket.connect; …

guard.pickle
  The model's code unpickled something that names more than plain data, such as a function to call.
  author: unpickle in load(); better, store weights as safetensors, npy or ONNX: a pickle runs code when it is read.
  guard.pickle: refused pickle.find_class of os.system; no grant allows it: unpickle in load(), before the seal

guard.process
  The model's code started a process.
  operator: grant it, if the model needs it: processes = { reason = "…" } under [models.NAME.sandbox].
  guard.process: refused subprocess.Popen; …

guard.write
  The model's code wrote, made, renamed or removed something that its policy does not let it write.
  operator: add the path to write under [models.NAME.sandbox], if the model needs it; its class may narrow it again.
  guard.write: refused open of /tmp/cache.json; grant it in safe-triton.toml: [models.digits.sandbox] …

load.deadline
  load() did not return in time.
  author: load less, or set Limits.load_deadline_ms.
  load.deadline: load() did not return within 600000 ms

load.failed
  load() or initialize raised; the id leads to the traceback in the server's log.
  author: search the log for the id.
  load.failed: load() raised (id 7f3a2c9104d5e6b8); the server's log has the details

path.absolute
  A file was asked for by an absolute path; names are relative to the root.
  author: name it relative to the model's folder.
  an absolute path was given; names are relative to the root

path.closed
  A file was asked for after its root had been closed.
  author: open files in load(), before unload().
  the root was closed

path.directory
  A folder was opened as a file, or the root is no folder.
  author: name a file; names() lists a folder.
  a folder, not a file: weights

path.invalid
  A name that no file can have: empty, too long, or with a NUL byte.
  author: correct the name.
  not a usable name: ''

path.link
  A symbolic link stands in the way; links are not followed.
  author: put the file itself into the model's folder.
  links are not followed: weights.npy

path.missing
  There is no such file or folder.
  author: check the name; it is relative to the version's folder (files) or the model's folder (model_files).
  no such file: table.npy

path.mode
  Files are opened for reading only.
  author: use mode "rb" or "r"; an encoding is for "r".
  mode 'w': files are opened for reading only, 'rb' or 'r'

path.not_a_directory
  A part of the path is a file, not a folder.
  author: correct the path.
  not a folder, or beneath a file: table.npy/x

path.parent
  A path holds '..', which could leave the root.
  author: name the file without it.
  '..' is refused: ../other/model.py

path.refused
  A name that would leave its root, or is no plain file.
  author: name a plain file inside the model's folder.
  path.refused: …

path.special
  The name leads to a device, pipe or socket.
  author: use a regular file.
  not a regular file: fifo

path.too_large
  A file is larger than max_bytes of the call.
  author: read it in parts, or pass a larger max_bytes.
  more than 67108864 bytes in weights.bin

path.unreadable
  The file is there and cannot be read.
  operator: give the server's user the right to read it.
  cannot be read (Permission denied): table.npy

policy.argument
  A declaration was built from values without names, or could not be built.
  author: write each field by its name.
  policy.argument: Limits takes keyword arguments only: deadline_ms, inputs, …

policy.conflict
  Two declarations, or a declaration and config.pbtxt, cannot both hold.
  author: change the one that is wrong; the message has both values.
  policy.conflict: max_batch_size 16 is above config.pbtxt's max_batch_size 8

policy.final
  The class overrides a method that belongs to the base class.
  author: override load, infer (or another form) and unload; protect wraps a class that has its own execute.
  policy.final: execute must not be overridden; use load, infer and unload

policy.form
  The class does not override exactly one form, or one that does not fit config.pbtxt.
  author: override one of infer, infer_batch and stream; stream is for decoupled models.
  policy.form: override exactly one of infer, infer_batch, stream; this class overrides none of them

policy.gpu
  A model's instances are on a GPU that the policy does not grant, or the policy names one that is not here.
  operator: let gpus of instance_group in config.pbtxt and gpu_ids in safe-triton.toml name the same.
  policy.gpu: instances on GPU 1, and the policy grants 0 (model 'digits')

policy.invalid
  A declaration that is wrong in itself, or in conflict with the model's configuration.
  author: correct it as the message says.
  policy.invalid: …

policy.path
  A path of a policy is relative, or holds '..'.
  operator: write absolute paths, or begin them with a placeholder such as {model}.
  policy.path: SandboxPolicy.read must hold absolute paths, not 'data'

policy.placeholder
  A path of a policy begins with an unknown placeholder, or one that has no place here.
  operator: use a known one; outside a model's start only absolute paths have a meaning.
  policy.placeholder: SandboxPolicy.read: unknown placeholder {modle}; known: {model}, {version}, …

policy.range
  A declared number is below the least useful one, or a word is not one of those known.
  author: write a value in the range of the message.
  policy.range: Limits.deadline_ms must be at least 1, not 0

policy.token
  A danger token without a reason, or with values that it cannot have.
  author: write why: unsafe.Unlimited(reason="…"); ports are whole numbers from 1 to 65535.
  policy.token: unsafe.Unlimited needs a reason

policy.type
  A declaration has a value of another type; None is never unlimited, True is no number.
  author: write the type that the message names.
  policy.type: Limits.max_inputs is None: write a number or unsafe.Unlimited(reason=…)

policy.unenforced
  A declared limit that nothing checks: an error of this package.
  author: report it with the declaration.
  policy.unenforced: nothing enforces max_tokens

policy.unknown_field
  A declaration has no field of that name.
  author: correct the name; the message has the nearest one.
  policy.unknown_field: Limits has no field 'max_batchsize'; did you mean 'max_batch_size'?

policy.unknown_tensor
  A declaration, or a table of safe-triton.toml, names an input or output that config.pbtxt does not have.
  author: correct the name.
  policy.unknown_tensor: Limits.inputs names 'TOKEN'; config.pbtxt has TOKENS

policy.unused
  A limit is declared and no input has the axis that it counts.
  author: remove it, or name the axis with InputLimits(sequence_axis=…).
  policy.unused: max_sequence_length is declared and no input has the axis it counts; …
"""
