"""Reasons that safe_triton.client gives by itself, beside those that it hands on from a server."""

from __future__ import annotations

TEXT = """
client.access
  A credential is missing, unknown, or has no role for this call; or a certificate was not accepted.
  client: check api_key, bearer_token or the client certificate, and ask the operator for the role.
  client.access: RBAC: access denied

client.answer
  The server's answer breaks the protocol, the model's own metadata, or a limit of the client.
  author: correct the model's outputs or its configuration; for "more than … bytes", raise max_message_bytes.
  client.answer: digits: FP64, expected FP32 at outputs['SCORES']

client.batch
  Some of many requests failed; the error holds the answers of all others and every failure by its index.
  client: correct the request that the message names; the rest need not be sent again.
  client.batch: request 3: input.shape: 2, expected 64 at inputs['PIXELS'].shape[1] (1 of 7 requests failed)

client.certificate
  The files given hold no certificate, no authority, or a key that is not the certificate's.
  client: give PEM files: ca_file of the authority, certificate_file and private_key_file of the client.
  client.certificate: ca_file: /etc/me/ca.crt holds no certificates in PEM form

client.connection_lost
  The connection broke after the request had left; the server may have worked on it.
  client: send it again if doing it twice does no harm; the client itself does not.
  client.connection_lost: the connection broke: Remote end closed connection without response

client.credential
  An API key or token holds characters that no header may have, such as a line break.
  client: give the key alone, in printable ASCII.
  client.credential: api_key_file holds characters that no header may have: printable ASCII without spaces

client.error
  A call brought no answer.
  client: do what the message says.
  client.error: …

client.failed
  The server or the model failed with this request.
  author: look at the server's log; the client may have sent what the model cannot bear.
  client.failed: Stub process 'digits_0_0' is not healthy.

client.file
  A file of the client's cannot be read, or others may read the secret in it.
  client: correct the path; chmod 600 for a secret, defaultMode 0400 or 0440 for one that Kubernetes mounts.
  client.file: api_key_file: /etc/me/api.key has mode 0644, so that others can use the secret: chmod 600

client.model
  The client was built for other models.
  client: add the name to models=[…], if this program is meant to call it.
  client.model: 'ranker' is not among the models of this client: digits

client.not_found
  The server has no such model or version.
  client: correct the name or the version; the model's metadata lists its versions.
  client.not_found: Request for unknown model: 'digit' is not found

client.plaintext
  A credential would leave this machine over a connection that is not encrypted.
  client: use grpcs:// or https://, or write plaintext=unsafe.AllowPlaintext(reason=…) where the network is trusted.
  client.plaintext: a credential would leave this machine unencrypted, to triton.example: use TLS

client.rate
  More requests than this identity or model may have.
  client: wait for retry_after_s, send less at a time, or ask the operator for a higher limit.
  client.rate: local_rate_limited (after 5 attempts)

client.refused
  The server refused the request and gave no reason slug.
  client: change the request as the text says.
  client.refused: expected 1 inputs but got 2 inputs for model 'digits'

client.stream
  A stream over HTTP cannot carry this: its tensors are JSON.
  client: use a grpc:// or grpcs:// address, or send less.
  client.stream: over HTTP, a request_id cannot be given; use grpc

client.timeout
  No answer within the deadline. The server may still work on the request.
  client: give more time with timeout_s, or ask for less; the operator looks at why the model is slow.
  client.timeout: no answer within the deadline

client.tls
  The server's certificate is not that of a known authority, not of this name, or no longer valid; or there is no TLS.
  client: give ca_file of the authority that signed it, and the name that the certificate has.
  client.tls: certificate verify failed: unable to get local issuer certificate

client.unavailable
  The server, or the model in it, is not there now; what was tried again is over too.
  operator: start it, or look at why the model is not ready; safe-triton serve heals by itself.
  client.unavailable: no connection: [Errno 111] Connection refused (after 5 attempts)

client.url
  What was given as the server's address is none.
  client: write grpc://, grpcs://, http:// or https://, a host and a port.
  client.url: 'triton:8001' must begin with one of grpc://, grpcs://, http://, https:// (with an s: TLS)

client.usage
  An argument, environment variable or call of the client is wrong; nothing was sent.
  client: correct what the message names.
  client.usage: models is missing: the names of the models that this client may call, as in models=['digits'], or 'any'
"""
