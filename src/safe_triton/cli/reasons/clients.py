"""Reasons that clients read in answers, and those of the log that stand behind an answer."""

from __future__ import annotations

TEXT = """
content.invalid
  The bytes of a tensor break a declared rule.
  client: send a payload that keeps to what the model's author declared.
  content.invalid: …

content.json
  An element of a BYTES tensor is not JSON, or not of the declared schema.
  client: correct the field that the message names; the author's InputLimits.schema is the definition.
  content.json: user.age: Input should be a valid integer at inputs['QUERY'][0]

content.not_finite
  A floating-point tensor holds NaN or an infinity.
  client: replace such values before sending.
  content.not_finite: NaN or infinity at inputs['X']

content.range
  A value lies outside the declared range.
  client: send values inside it; the author sets it with InputLimits(minimum=…, maximum=…).
  content.range: a value outside [0, 50000] at inputs['TOKENS']

content.utf8
  An element of a BYTES tensor is not UTF-8.
  client: encode texts as UTF-8; the author asks for it with InputLimits(utf8=True).
  content.utf8: no UTF-8 at inputs['TEXT'][3]

deadline.exceeded
  The model's code did not answer within its deadline and was interrupted.
  client: retry later or ask for less; the author sets Limits.deadline_ms.
  deadline.exceeded: the model did not answer within 200 ms

deadline.hard
  The model's code did not come back after its deadline and the grace; its process was ended. Only the log has it.
  author: look for a loop or a call that blocks; Limits.hard_deadline_grace_ms is the time between the two deadlines.
  hard deadline: the model's code did not come back; this process ends

input.batch
  Inputs have different numbers of rows, or none.
  client: give all inputs of a request the same first axis, of at least one row.
  input.batch: 3 rows, other inputs have 2 at inputs['Y'].shape[0]

input.dtype
  A tensor arrives as another data type than the model's configuration says.
  client: send the data type that the model's metadata shows.
  input.dtype: FP64, expected FP32 at inputs['X']

input.duplicate
  One input came twice in a request.
  client: name each input once.
  input.duplicate: 'X' came twice

input.missing
  A required input is not in the request.
  client: send it; the model's metadata lists the inputs.
  input.missing: 'X' is required

input.rank
  A tensor has another number of axes than the model's configuration says.
  client: reshape it; a model that batches has the batch as its first axis.
  input.rank: 1 axes, expected 2 at inputs['X'].shape

input.shape
  An axis that the model's configuration fixes has another size.
  client: send that size.
  input.shape: 65, expected 64 at inputs['PIXELS'].shape[1]

input.signature
  Names, data types or shapes of a request break the model's configuration.
  client: compare the request with the model's metadata.
  input.signature: …

input.unknown
  A request names an input that the model does not have.
  client: send only the inputs that the model's metadata lists.
  input.unknown: 'PIXEL' is no input of this model

limit.batch_size
  More rows in one request than the model accepts.
  client: send fewer rows at a time; the author sets Limits.max_batch_size.
  limit.batch_size: 9 > 8 at inputs['X'].shape[0]

limit.elements
  A tensor has more elements than the model accepts.
  client: send less; the author sets Limits.max_elements or InputLimits.max_elements.
  limit.elements: 4194304 > 1048576 at inputs['X']

limit.exceeded
  A request is above a declared limit.
  client: send less.
  limit.exceeded: …

limit.id_length
  A request's id or correlation id is too long.
  client: use a shorter one; the author sets Limits.max_id_length.
  limit.id_length: 300 > 256 at request id

limit.input_bytes
  One input holds more bytes than the model accepts.
  client: send less; the author sets Limits.max_input_bytes or InputLimits.max_bytes.
  limit.input_bytes: 4096 > 1024 at inputs['X']

limit.inputs
  A request has more inputs than the model accepts.
  client: send only the inputs that the model's metadata lists; the author sets Limits.max_inputs.
  limit.inputs: 65 > 64 at inputs

limit.parameter_bytes
  The parameters of a request are longer than the model accepts, one of them or all together.
  client: send shorter parameters; the author sets Limits.max_parameter_bytes.
  limit.parameter_bytes: 5000 > 4096 at parameters['prompt']

limit.parameter_length
  A parameter's text is longer than declared for it.
  client: shorten it; the author sets ParameterLimits.max_length.
  limit.parameter_length: 70 > 64 at parameters['language']

limit.parameters
  A request has more parameters than the model accepts.
  client: send fewer; the author sets Limits.max_parameters.
  limit.parameters: 65 > 64 at parameters

limit.request_bytes
  All inputs of one request together hold more bytes than the model accepts.
  client: split the request; the author sets Limits.max_request_bytes.
  limit.request_bytes: 3145728 > 1048576 at inputs

limit.sequence_length
  The sequence axis is longer than the model accepts.
  client: shorten or split the sequence; the author sets max_sequence_length, and sequence_axis if it is another axis.
  limit.sequence_length: 600 > 512 at inputs['TOKEN_IDS'].shape[1]

limit.string_bytes
  One element of a BYTES tensor is longer than the model accepts.
  client: shorten it; the author sets Limits.max_string_bytes or InputLimits.max_string_bytes.
  limit.string_bytes: 20000 > 16384 at inputs['TEXT'][0]

limit.strings
  A BYTES tensor has more elements than the model accepts.
  client: send fewer; the author sets Limits.max_strings or InputLimits.max_strings.
  limit.strings: 2000 > 1000 at inputs['TEXT']

model.error
  The model's author answered with ModelError: the text and the code are the author's own.
  client: do what the text says.
  no entry for this language

model.failed
  The model's code raised; the id leads to the traceback in the server's log.
  author: search the log for the id; raise ModelError for what a client should read.
  model failed (id 7f3a2c9104d5e6b8)

output.batch
  The model's code returned another number of rows than it was given. The client reads 'model failed' and an id.
  author: return one row for each row of the inputs.
  output.batch: 1 rows, expected 4 at outputs['Y']

output.bytes
  The model's code returned more bytes than declared.
  author: return less, or set Limits.max_output_bytes or OutputLimits.max_bytes.
  output.bytes: 536870912 > 268435456 bytes of all outputs

output.count
  A wrapped model's execute returned another number of responses than it was given requests.
  author: return one response for each request, in their order.
  output.count: execute returned 1 responses for 2 requests

output.dtype
  The model's code returned another data type than config.pbtxt says.
  author: convert the array, such as scores.astype(numpy.float32), or correct config.pbtxt.
  output.dtype: FP64, expected FP32 at outputs['Y']

output.invalid
  What the model's code returned breaks config.pbtxt or a declared limit.
  author: correct the outputs; the log has the details under the client's id.
  output.invalid: …

output.missing
  The model's code did not return an output of config.pbtxt, or execute gave a request no response.
  author: return every output by its name.
  output.missing: 'Y' was not returned

output.not_finite
  An output that is declared finite holds NaN or an infinity.
  author: find out where it comes from; OutputLimits(finite=True) asks for the check.
  output.not_finite: NaN or infinity at outputs['Y']

output.shape
  An output has another shape than config.pbtxt says.
  author: reshape it, or correct config.pbtxt.
  output.shape: 3 on axis 1, expected 2 at outputs['Y']

output.twice
  A wrapped model's request was answered by its response sender, and execute returned a response for it too.
  author: return None for a request whose sender has answered; the client got the first answer.
  output.twice: a request was answered by its sender, and again

output.type
  The model's code returned something else than arrays by output name, or an array of something else.
  author: return {"NAME": numpy array}; a stream yields such dicts, texts are bytes or str.
  output.type: list, expected a dict of arrays by output name

output.unknown
  The model's code returned an output that config.pbtxt does not have.
  author: correct the name, or add the output to config.pbtxt.
  output.unknown: 'SCORE' is no output of this model

parameter.choice
  A parameter has a value that is not among those declared.
  client: send one of them; the author sets ParameterLimits.choices.
  parameter.choice: not one of the values allowed at parameters['language']

parameter.duplicate
  A request has two parameters of one name.
  client: send each once.
  parameter.duplicate: a name came twice at parameters

parameter.invalid
  A request parameter breaks its declaration.
  client: correct it.
  parameter.invalid: …

parameter.missing
  A required parameter is not in the request.
  client: send it.
  parameter.missing: required at parameters['temperature']

parameter.range
  A parameter lies outside its declared range.
  client: send a value inside it; the author sets ParameterLimits(minimum=…, maximum=…).
  parameter.range: outside [0.0, 2.0] at parameters['temperature']

parameter.type
  A parameter has another type than declared.
  client: send that type; 1 is no float only where JSON cannot tell, and true is no number.
  parameter.type: str, expected float at parameters['temperature']

parameter.unknown
  A request has a parameter that the model does not declare.
  client: leave it out; the author declares it in Limits.parameters.
  parameter.unknown: not declared by this model at parameters['foo']

request.invalid
  A request that the model does not accept.
  client: change the request as the message says.
  request.invalid: …

request.utf8
  A request's id, or a name or text among its parameters, is not UTF-8.
  client: encode ids and parameters as UTF-8.
  request.utf8: no UTF-8 in an id or a parameter
"""
