"""Reasons of ``safe-triton render``: what is asked for and cannot be deployed like that."""

from __future__ import annotations

TEXT = """
deploy.file
  A file that is to be written along cannot be read.
  operator: correct the path, or the file's permissions.
  requirements.lock cannot be read: No such file or directory

deploy.gateway
  The gateway's configuration was asked for, and the policy has none.
  operator: write [gateway] with its roles and identities.
  the policy has no [gateway]: there is nothing to write

deploy.gpus
  The GPUs of the models, of the policy and of [deploy] do not fit together.
  operator: name as many deploy.gpu_devices as the models need; for a cluster, numbers in gpu_ids, one slice at most.
  deploy.gpu_devices names 1 devices, and the models need 2

deploy.image
  The image is missing, is no reference, or may be another one at the next start.
  operator: name it with its digest; docker inspect shows it.
  triton:latest is whatever is newest at the next start: name a release, and its digest: NAME:TAG@sha256:DIGEST

deploy.invalid
  What is asked to be rendered cannot hold in a deployment.
  operator: see the message.
  what the policy says cannot be deployed

deploy.models
  There is nothing to serve in the repository.
  operator: name the folder whose folders are the models.
  models has no models

deploy.output
  A file in the output folder was written or changed by somebody else, or cannot be written.
  operator: keep the change elsewhere, name another folder, or replace the file with --force.
  out/workload.yaml was changed since it was written; keep it elsewhere, or replace it with --force

deploy.path
  A path cannot stand where it has to.
  operator: use absolute paths without blanks, quotes and other characters that the reader interprets.
  '/srv/my models': a unit needs an absolute path without blanks, quotes, %, $, ; and backslashes

deploy.policy
  A service of the machine needs a policy's file, which it reads at each start.
  operator: give --policy.
  a service needs a policy's file: give --policy

deploy.ports
  A port is 0 or stands twice; between containers and machines each one has to be known.
  operator: write fixed, different ports into [server] and [gateway].
  server.http_port = 0 is any port: a deployment needs a fixed one

deploy.reach
  Nobody could call the deployment, or KServe could not.
  operator: write a [gateway]; behind a mesh, server.public_address or gateway.plaintext with a reason.
  nothing could be reached: write a [gateway], or where something else encrypts and asks who calls: …
"""
