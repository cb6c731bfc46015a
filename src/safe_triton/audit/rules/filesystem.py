"""Rules on files, links and modes of a repository, and on what a configuration names outside it."""

from __future__ import annotations

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule
from safe_triton.audit.rules.parse import CONFIG, MODEL, repository

ENVIRONMENT = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "%s" } }\n'
BACKEND = "https://github.com/triton-inference-server/python_backend"

RULES: tuple[Rule, ...] = (
    Rule(
        name="symlink-escape",
        code="ST301",
        level=Level.WARNING,
        what="A link out of the repository, to nowhere or in a circle; an error when its target can be read.",
        why="The server follows it: what is served depends on files that nobody checked, and models may read them.",
        fix="Copy the target into the repository.",
        cwe="CWE-59",
        bad=Example(files={"m/config.pbtxt": CONFIG}, links={"m/1/model.py": "../../../../../../etc/hostname.py"}),
        good=Example(files={"m/config.pbtxt": CONFIG, "m/1/real.py": MODEL}, links={"m/1/model.py": "real.py"}),
    ),
    Rule(
        name="path-traversal",
        code="ST302",
        level=Level.ERROR,
        what="A file or library name in config.pbtxt that leaves the model's folder.",
        why="Warm-up data is read from there and handed to the model; libraries and code are loaded from there.",
        fix="Name a file below the model's own folder.",
        cwe="CWE-22",
        owasp="A01:2021",
        bad=repository(
            CONFIG
            + 'model_warmup [ { name: "w" batch_size: 1 inputs { key: "X" value { data_type: TYPE_FP32 dims: [ 4 ] '
            'input_data_file: "../../../etc/passwd" } } } ]\n'
        ),
        good=repository(
            CONFIG
            + 'model_warmup [ { name: "w" batch_size: 1 inputs { key: "X" value { data_type: TYPE_FP32 dims: [ 4 ] '
            'input_data_file: "x.bin" } } } ]\n'
        ),
    ),
    Rule(
        name="shell-metacharacters",
        code="ST303",
        level=Level.ERROR,
        what="A file, model or folder name that a shell would interpret.",
        why="Before 25.08 a Python model's names reach `bash -c` unquoted at load: `$(cmd)model.py` runs cmd.",
        fix="Use letters, digits, '_', '-' and '.' only.",
        cwe="CWE-78",
        owasp="A03:2021",
        reference=BACKEND,
        bad=repository(CONFIG + 'default_model_filename: "$(id)model.py"\n'),
        good=repository(CONFIG + 'default_model_filename: "model.py"\n'),
    ),
    Rule(
        name="world-writable",
        code="ST304",
        level=Level.WARNING,
        what="A file or folder that anyone may write, or a command of a script or Dockerfile that makes it so.",
        why="Whoever gets a foot on the host replaces a model's code and runs as the server.",
        fix="chmod o-w PATH",
        cwe="CWE-732",
        bad=Example(files={"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL}, modes={"m/1/model.py": 0o666}),
        good=Example(files={"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL}, modes={"m/1/model.py": 0o644}),
    ),
    Rule(
        name="exec-env-writable",
        code="ST305",
        level=Level.WARNING,
        what="An EXECUTION_ENV_PATH where others may write.",
        why="The environment's bin/activate is run by bash at load, and its Python in the model's process.",
        fix='string_value: "$$TRITON_MODEL_DIRECTORY/environment.tar.gz"',
        cwe="CWE-732",
        reference=BACKEND,
        bad=repository(CONFIG + ENVIRONMENT % "/tmp/environment.tar.gz"),  # noqa: S108  # looked for
        good=repository(CONFIG + ENVIRONMENT % "/opt/environments/m.tar.gz"),
    ),
    Rule(
        name="secrets-in-config",
        code="ST306",
        level=Level.WARNING,
        what="A password, key or token in config.pbtxt.",
        why="GET /v2/models/MODEL/config gives the configuration to anyone who reaches the server.",
        fix="Pass the secret through a file or the environment of the process that needs it.",
        cwe="CWE-312",
        owasp="A02:2021",
        bad=repository(CONFIG + 'parameters { key: "db_password" value { string_value: "hunter2!" } }\n'),
        good=repository(CONFIG + 'parameters { key: "max_tokens" value { string_value: "256" } }\n'),
    ),
    Rule(
        name="secret-file-in-repo",
        code="ST307",
        level=Level.WARNING,
        what="A file of a repository that holds a key, a token or a password.",
        why="Every model of the server, and every copy of the repository, has it.",
        fix="Remove the file and replace the secret; give it to the process that needs it.",
        cwe="CWE-312",
        owasp="A02:2021",
        bad=repository(**{"m/1/.env": "DATABASE_PASSWORD=correct-horse-battery\n"}),
        good=repository(**{"m/1/labels.txt": "cat\ndog\n"}),
    ),
    Rule(
        name="hidden-model-directory",
        code="ST308",
        level=Level.WARNING,
        what="A model in a folder whose name begins with a dot.",
        why="ls does not show it, and the server serves it like every other model.",
        fix="Rename or remove the folder.",
        bad=Example(files={".m/config.pbtxt": CONFIG.replace('"m"', '".m"'), ".m/1/model.py": MODEL}),
        good=repository(),
    ),
    Rule(
        name="special-file",
        code="ST309",
        level=Level.WARNING,
        what="A named pipe, socket or device in a repository.",
        why="Whatever reads it waits for ever, or reads what another process writes.",
        fix="Remove it.",
        bad=Example(files={"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL}, fifos=("m/1/weights.bin",)),
        good=repository(),
    ),
)
