"""Reasons of images, sounds, texts, sequences and streams."""

from __future__ import annotations

TEXT = """
content.audio
  An element is no sound in one of the declared formats, or has another sample rate.
  client: send such a file whole; the author declares them with AudioInput(formats=…, sample_rates_hz=…).
  content.audio: 16000 samples per second, expected 8000 at inputs['SOUND'][0][0]

content.image
  An element is no image in one of the declared formats, or its file is damaged.
  client: send such a file whole; the author declares the formats with ImageInput(formats=…).
  content.image: no image in PNG or JPEG at inputs['PHOTO'][0][0]

content.text
  An element is no text in the declared encoding, or holds characters that a reader cannot see.
  client: encode as declared and leave out control characters; the author may declare TextInput(controls="remove").
  content.text: the control character U+202E at inputs['TEXT'][0][0]

environment.decoder
  An input is declared as an image or a sound, and the package that decodes it is not installed.
  operator: install it where the model runs: pip install 'safe-triton[inputs]'.
  environment.decoder: an ImageInput needs the package Pillow: pip install 'safe-triton[inputs]'

limit.channels
  A sound has more channels than declared.
  client: mix it down; the author sets AudioInput.max_channels.
  limit.channels: 2 > 1 at inputs['SOUND'][0][0]

limit.characters
  A text has more characters than declared.
  client: send a shorter one; the author sets TextInput.max_characters.
  limit.characters: 300 > 256 at inputs['TEXT'][0][0]

limit.decoded_bytes
  The images or sounds of one request would take more memory than declared, once decoded.
  client: send fewer or smaller ones at a time; the author sets max_decoded_bytes.
  limit.decoded_bytes: 32400 > 25200 at inputs['PHOTO'][2][0]

limit.duration
  A sound is longer than declared, in milliseconds.
  client: cut it; the author sets AudioInput.max_duration_ms.
  limit.duration: 61000 > 60000 at inputs['SOUND'][0][0]

limit.frames
  An image has more frames than declared.
  client: send a single image; the author sets ImageInput.max_frames.
  limit.frames: 2 > 1 at inputs['PHOTO'][0][0]

limit.image_side
  An image is wider or higher than declared.
  client: scale it down; the author sets ImageInput.max_side.
  limit.image_side: 20000 > 16384 at inputs['PHOTO'][0][0]

limit.pixels
  An image has more pixels than declared; its header says so, and nothing was decoded.
  client: scale it down; the author sets ImageInput.max_pixels.
  limit.pixels: 30000000 > 25000000 at inputs['PHOTO'][0][0]

limit.sample_rate
  A sound has more samples per second than declared.
  client: resample it; the author sets AudioInput.max_sample_rate_hz.
  limit.sample_rate: 384000 > 192000 at inputs['SOUND'][0][0]

limit.sequence_steps
  A sequence has more requests than declared; it is forgotten.
  client: start a new sequence; the author sets SequenceLimits.max_steps.
  limit.sequence_steps: 101 > 100 at sequence

output.responses
  The model's stream had more responses to one request than declared. Only the log has it.
  author: end the stream earlier, or set Limits.max_responses.
  output.responses: more than 10000 to one request (max_responses)

output.state
  The model's code put something into a sequence's state that cannot be kept, or too much. Only the log has it.
  author: keep arrays, numbers, texts and bytes there; SequenceLimits.max_state_bytes bounds them.
  output.state: list under 'history'; arrays, numbers, texts and bytes are kept

output.stream_bytes
  The model's stream had more bytes to one request than declared. Only the log has it.
  author: end the stream earlier, or set Limits.max_stream_bytes.
  output.stream_bytes: more than 268435456 to one request (max_stream_bytes)

sequence.full
  As many sequences are open as the model keeps.
  client: retry later, and send the end flag of a sequence that is over; the author sets SequenceLimits.max_sequences.
  sequence.full: 1024 sequences are open

sequence.id
  A request of a model with sequences has no correlation id: one with which Triton fills a batch. It is not counted.
  client: nothing; a client's own request without a sequence id is refused by Triton.
  sequence.id: the request belongs to no sequence

sequence.unknown
  A request belongs to a sequence that was not started, has ended, was idle for too long, or whose process ended.
  client: start the sequence anew; the author sets SequenceLimits.max_idle_ms.
  sequence.unknown: not started here, ended, or idle for too long
"""
