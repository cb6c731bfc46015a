"""Reasons that an operator meets: confinement, finding and running the server."""

from __future__ import annotations

TEXT = """
confinement.children
  load() left child processes, which a later confinement does not reach.
  author: end them before load() returns, or do not start any.
  confinement.children: load() left child processes, which are not confined; end them

confinement.executable_memory
  A program cannot start under executable_memory=False, which forbids loading any library.
  operator: leave it True for what is started; the seal turns it off in a model that has loaded.
  confinement.executable_memory: executable_memory=False does not let a program start; it is for a process …

confinement.failed
  The kernel refused a step, or something forbidden was not refused when it was tried. Nothing is served like that.
  operator: run safe-triton doctor in the same container and as the same user; it tries each mechanism alone.
  confinement.failed: landlock.files: not refused when tried: opening /etc/passwd; see the guarantees page …

confinement.grant
  What the launcher passed to the model's process about its grant cannot be read.
  operator: start models through safe-triton serve only; set no variable that begins with SAFE_TRITON_.
  confinement.grant: SAFE_TRITON_GRANT cannot be read: JSONDecodeError

confinement.landlock
  The kernel cannot restrict files: no Landlock, or another filter refuses it.
  operator: Linux 5.13 or later with landlock in lsm=; in a container, a seccomp profile with the landlock_ calls.
  confinement.landlock: the kernel is built without Landlock; use Linux 5.13 or later with landlock in the lsm= list

confinement.landlock_ports
  A policy grants the network by port, and this kernel's Landlock cannot compare ports.
  operator: use Linux 6.7 or later, or grant no network.
  confinement.landlock_ports: Landlock ABI 3 cannot compare TCP ports; use Linux 6.7 or later

confinement.late
  Code of the model ran before anything confined it, since the server was started without the launcher.
  operator: start the server with safe-triton serve.
  confinement.late: module level and load() ran unconfined, with the server's environment and open files; …

confinement.launch
  The launcher was called otherwise than Triton does, or its table cannot be read.
  operator: start models through safe-triton serve only, and leave its temporary folder alone.
  confinement.launch: 3 arguments, expected at least 9

confinement.launcher
  A model that requires confinement was started without the launcher.
  operator: start the server with safe-triton serve, or let the author declare enforcement="best-effort".
  confinement.launcher: this process was not started by the launcher; …

confinement.machine
  The processor's system calls are not in this package's tables.
  operator: serve on x86_64 or aarch64.
  confinement.machine: no confinement for riscv64; use one of x86_64, aarch64

confinement.memory
  More address space is in use already than memory_bytes allows.
  operator: raise ResourceLimits.memory_bytes.
  confinement.memory: 2147483648 bytes are mapped already, 1073741824 are allowed; raise memory_bytes

confinement.not_granted
  The model's class asks for more than the operator granted.
  operator: add the line in the message to the policy, or let the author ask for less.
  confinement.not_granted: it asks for read /data; add to safe-triton.toml: [models.digits.sandbox] read = ["/data"]

confinement.path
  A path that the policy grants does not exist.
  operator: create it, or remove the grant.
  confinement.path: landlock.files: /srv/labels, which the policy names, does not exist; see the guarantees …

confinement.proc
  There is no /proc, so nothing could be verified.
  operator: mount /proc in the container.
  confinement.proc: no /proc here, so nothing could be verified

confinement.program
  The command to confine does not exist, or is no 64-bit program or script of one.
  operator: correct the command or the PATH that is passed on.
  confinement.program: no program 'pyhton' to execute

confinement.record
  safe-triton learn cannot record: the kernel or another filter refuses to report system calls.
  operator: Linux 5.13 or later; in a container, a seccomp profile that allows the call seccomp.
  confinement.record: Operation not permitted

confinement.scratch
  The kernel does not hold the size of a model's scratch folder; or, on a plain tritonserver, there is no such folder.
  operator: let safe-triton serve mount it (CAP_SYS_ADMIN and the umount program), or accept that it is measured.
  confinement.scratch: the scratch folder's 268435456 bytes are measured by the server command, which ends the …

confinement.seccomp
  The kernel cannot filter system calls, or another filter refuses it.
  operator: use a kernel with CONFIG_SECCOMP_FILTER, and a container profile that allows seccomp().
  confinement.seccomp: the kernel is built without seccomp; use a kernel with CONFIG_SECCOMP_FILTER, …

confinement.unavailable
  A confinement that is required cannot be enforced here.
  operator: run safe-triton doctor.
  confinement.unavailable: …

confinement.unlisted
  Triton wants to start a model, version or file that was not in the repository when the server started.
  operator: start the server again when models are added; files that come with a load request are never run.
  confinement.unlisted: resnet_0 is not in the policy that this server was started with

confinement.unverified
  The launcher says that the process is confined, and it is not.
  operator: start the server with safe-triton serve; do not set its variables by hand.
  confinement.unverified: the launcher's confinement does not hold: seccomp; start it with safe-triton serve

confinement.user_threads
  The number of threads is not bounded: the kernel exempts root. Reported, not refused.
  operator: run as another user, or set a pids limit on the container.
  confinement.user_threads: the kernel exempts root from the number of threads; run as another user, …

gpu.memory
  What libraries allocate on the instance's GPU is not bounded.
  author: import PyTorch, CuPy, JAX or TensorFlow in model.py; give ONNX Runtime's provider context.gpu_memory_bytes.
  gpu.memory: load() imported no library whose use of the GPU's memory could be bounded: PyTorch, CuPy, JAX, …

gpu.started
  CUDA was used while model.py was imported, before the other GPUs could be hidden from it.
  author: use CUDA in load() and later.
  gpu.started: CUDA was initialised before initialize(), so that it goes on showing every GPU of the model's …

learn.backend
  Only a model of the Python backend has processes of its own whose calls can be recorded.
  operator: name a Python model; the others run inside tritonserver.
  learn.backend: 'chain' is no model of the Python backend; only those have processes of their own

learn.client
  A decoupled model answers over gRPC only, and tritonclient is not installed.
  operator: install safe-triton[client].
  learn.client: a decoupled model answers over gRPC only; install safe-triton[client]

learn.requests
  The file of requests cannot be read, or holds something else than requests in KServe's JSON form.
  operator: one JSON object with inputs per line, or a JSON list of them.
  learn.requests: requests.jsonl:3: no JSON

lock.invalid
  The lock file is missing or damaged, or of another form.
  operator: write it anew with safe-triton lock, after looking at what the repository holds.
  safe-triton.lock: 'm/1/model.py': neither file, link nor folder

lock.signature
  The lock file's signature is missing, of somebody else, or of another lock file.
  operator: do not serve the repository; ask whoever signs it.
  safe-triton.lock.sig does not fit safe-triton.lock: Signature mismatch

lock.signing
  A lock file cannot be signed, or its signature cannot be checked here.
  operator: install safe-triton[signing]; give a key, or a certificate and its key, in PEM files.
  signatures need another package: pip install 'safe-triton[signing]' (model_signing)

lock.unreadable
  Something in the repository cannot be locked: a pipe, socket or device, or a file that cannot be read.
  operator: remove it or make it readable, and lock again while nothing writes there.
  m/1/data: neither file, folder nor link; remove it

server.backend
  A model's backend is itself written in Python, and Triton is shown the repository without a view of it.
  operator: use safe-triton serve, or copy the backend's model.py into the model's version folders, backend "python".
  server.backend: /models/m: its backend is written in Python, which can only be confined in a view of the …

server.binary
  tritonserver does not run on this machine.
  operator: read the last line of its output in the message; another architecture or a missing library is usual.
  /opt/tritonserver/bin/tritonserver does not run here: cannot execute binary file

server.confinement
  The repository or this environment cannot be served confined.
  operator: do what the message says, such as removing a stub that a repository brings along.
  /models/x/triton_python_backend_stub would run in the launcher's place, unconfined; remove it

server.cves
  The table of vulnerabilities, the package's or one from a file, is damaged or of another form.
  operator: install safe-triton anew, or give a table of the same form as the package's triton-cves.json.
  triton-cves.json: cves.3.cvss: Input should be less than or equal to 10

server.error
  A server that cannot be found, started or told something.
  operator: do what the message says.
  server.error: …

server.incompatible
  A tritonserver that cannot work with this Python environment.
  operator: do what the message says.
  server.incompatible: …

server.libpython
  The shared library of this Python is missing; the server's model process is linked with it.
  operator: install it: apt-get install libpython3.X, or a Python built with --enable-shared.
  /usr/bin/python3 (Python 3.12) has no shared library libpython3.12.so, which the server's model process needs …

server.load
  The server refused to load or unload a model.
  operator: read the server's text in the message, and its log.
  load of 'resnet': failed to load 'resnet', …

server.load_timeout
  The server did not load or unload a model in time.
  operator: look for a load() that waits; a larger timeout_s waits longer.
  unload of 'resnet': not gone after 60 s

server.model
  A model failed to load, or its process ended while it loaded.
  operator: read the reason in the message; --allow-failed serves the others.
  model 'digits' failed to load: load.failed: load() raised (id 7f3a2c9104d5e6b8); the server's log has the details

server.not_found
  There is no tritonserver: not by TRITONSERVER, not in /opt/tritonserver, not as the wheel.
  operator: python -m pip install 'safe-triton[server]', or work in NVIDIA's container.
  no tritonserver: there is no /opt/tritonserver, TRITONSERVER is not set, and /venv/bin/python3 has …

server.numpy
  The models' environment has no numpy, or one that this release does not work with.
  operator: install numpy<2 for releases before 2.52 (the wheel's), any numpy for later ones.
  numpy 2.0.0 in /venv/bin/python does not work with tritonserver 2.51.0: …

server.lock
  A file of the repository is not what its lock file says; nothing is started.
  operator: run safe-triton verify; if every change is meant, write a new lock file with safe-triton lock.
  /srv/models/safe-triton.lock: m/1/model.py changed

server.port
  A port that was free was taken before the server listened on it.
  operator: start it again.
  tritonserver ended with status 1 while it started: failed to bind the address

server.audit
  The repository has an error that safe-triton check finds; nothing is started.
  operator: run safe-triton check on it, mend it, or accept the finding with a reason and a date in [[audit.suppress]].
  /srv/models/m/1/model.py: py-syntax-error: invalid syntax

server.flag
  A flag of tritonserver after -- is unknown to the release, or would undo a protection.
  operator: leave it out; the message says what it would undo and which key of the policy does what you want.
  flags after --: --model-control-mode: explicit control lets one model replace another's code

server.ports
  One of the ports that were asked for is in use or not allowed.
  operator: choose another one, or 0 for any that is free.
  one of the ports 8000, 8001, 8002: Address already in use

server.python
  The server has no model process for this Python, or its folder has another python3.
  operator: use one of the versions in the message, from a virtual environment.
  this tritonserver runs models on Python 3.10, 3.11, 3.12, not on 3.9 (/usr/bin/python3.9); use one of these

server.repository
  The model repository is no folder, cannot be read, or has a name that tritonserver would pass to a shell.
  operator: correct the path or rename the model.
  the model repository /models is not a folder

server.running
  The server was started already.
  operator: start it once; stop() before starting again.
  the server was started already

server.start
  tritonserver ended while it started.
  operator: read the reason from its log in the message.
  tritonserver ended with status 1 while it started: …

server.stopped
  The server is not running.
  operator: start() it first.
  the server is not running

server.stub
  The server's model process does not start in its temporary folder.
  operator: set TMPDIR to a file system that is not mounted noexec.
  the model process cannot be run from /tmp/safe-triton-x: Permission denied; …

server.timeout
  The server did not become ready in time.
  operator: look in the message for the model that still loads; a larger ready timeout waits longer.
  tritonserver was not ready after 60 s; still loading: resnet

server.workspace
  The temporary folder has a character that tritonserver would pass to a shell.
  operator: set TMPDIR to a folder without blanks and shell characters.
  the temporary folder '/tmp/my files' has a character that tritonserver passes to a shell; set TMPDIR …
"""
