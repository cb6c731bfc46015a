"""Rules for the Python of models, found in its syntax tree."""

from __future__ import annotations

from functools import partial

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule, numbered_rule

BANDIT = "https://bandit.readthedocs.io/en/latest/plugins/index.html"
BACKEND = "https://github.com/triton-inference-server/python_backend"

_CONFIG = 'backend: "python"\nmax_batch_size: 8\n'


def _file(source: str) -> Example:
    """A model whose file is this."""
    return Example(files={"m/config.pbtxt": _CONFIG, "m/1/model.py": source})


def _model(line: str, imports: str = "import os") -> Example:
    """A model that executes one line for each request, whose data are ``text``."""
    return _file(
        "import triton_python_backend_utils as pb_utils\n"
        f"{imports}\n\n\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        responses = []\n"
        "        for request in requests:\n"
        '            text = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()[0]\n'
        "            if len(text) > 1000:\n"
        '                raise pb_utils.TritonModelException("TEXT is longer than 1000 bytes")\n'
        f"            {line}\n"
        "            responses.append(pb_utils.InferenceResponse([]))\n"
        "        return responses\n"
    )


_rule = partial(numbered_rule, 5, owasp="A08:2021", reference=BANDIT)


RULES: tuple[Rule, ...] = (
    _rule(
        1,
        "py-shell-exec",
        Level.WARNING,
        "A model starts a program; an error where request data are part of the command.",
        "Whoever may send a request chooses what runs, with the server's privileges.",
        "Call a library instead of a program; if there is none, grant processes to this model in safe-triton.toml and "
        "pass a fixed list of words.",
        bad=_model("os.system(text)"),
        good=_model("os.getpid()"),
        cwe="CWE-78",
        owasp="A03:2021",
    ),
    _rule(
        2,
        "py-dynamic-code",
        Level.WARNING,
        "A model runs text as code; an error where request data are part of the text.",
        "eval, exec and their relatives give the sender of a request the whole process.",
        "Parse data with json.loads or ast.literal_eval; choose functions from a fixed dictionary.",
        bad=_model("eval(text)"),
        good=_model("ast.literal_eval(text.decode())", "import ast"),
        cwe="CWE-95",
        owasp="A03:2021",
    ),
    _rule(
        3,
        "py-unsafe-deserialize",
        Level.WARNING,
        "A model loads data in a format that runs code while it loads; an error where request data are loaded.",
        "A pickle is a program: loading it runs what its author wrote.",
        "Use safetensors, np.load(..., allow_pickle=False), torch.load(..., weights_only=True), yaml.safe_load, JSON.",
        bad=_model("pickle.loads(text)", "import pickle"),
        good=_model("json.loads(text)", "import json"),
        cwe="CWE-502",
    ),
    _rule(
        4,
        "py-trust-remote-code",
        Level.WARNING,
        "A model lets files that come with a downloaded model bring Python that runs here.",
        "Whoever can change the model on the hub runs code in the server.",
        "Leave trust_remote_code out; vendor the class into the repository and pin the revision.",
        bad=_file(
            "from transformers import AutoModel\n\n"
            'MODEL = AutoModel.from_pretrained("/opt/model", trust_remote_code=True)\n'
        ),
        good=_file('from transformers import AutoModel\n\nMODEL = AutoModel.from_pretrained("/opt/model")\n'),
        cwe="CWE-829",
    ),
    _rule(
        5,
        "py-file-access",
        Level.WARNING,
        "A model reads outside its own folder, writes a file, or lets request data choose a path.",
        "Other models' weights, secrets and code lie beside the model; a write changes what runs next.",
        "Put what the model needs into its version folder; write to the scratch folder that safe-triton.toml grants.",
        bad=_model("open(text)"),
        good=_model('open(os.path.join(os.path.dirname(__file__), "labels.txt"))'),
        cwe="CWE-22",
        owasp="A01:2021",
    ),
    _rule(
        6,
        "py-network-access",
        Level.WARNING,
        "A model reaches the network.",
        "Request data can leave, and whatever answers decides what the model does.",
        "Fetch what is needed before deployment; else grant the network with a reason in safe-triton.toml.",
        bad=_model('urllib.request.urlopen("http://example.com/" + text.decode())', "import urllib.request"),
        good=_model("urllib.parse.quote(text.decode())", "import urllib.parse"),
        cwe="CWE-918",
        owasp="A10:2021",
    ),
    _rule(
        7,
        "py-dynamic-import",
        Level.WARNING,
        "A model imports a module by a name that only the running code knows, or from outside its folder.",
        "What is imported runs; a look at the source cannot say what that will be.",
        "Write import statements; choose between imported modules with a dictionary.",
        bad=_model("importlib.import_module(text.decode())", "import importlib"),
        good=_model("{b'os': os}.get(text)"),
        cwe="CWE-829",
    ),
    _rule(
        8,
        "py-native-code",
        Level.WARNING,
        "A model loads or calls native code by itself.",
        "Native code passes every check that Python makes, and a fault ends the process.",
        "Use a package that wraps the library, built and scanned with the image.",
        bad=_file('import ctypes\n\nLIBRARY = ctypes.CDLL("libfast.so")\n'),
        good=_file("import numpy as np\n\nTABLE = np.zeros(4)\n"),
        cwe="CWE-829",
    ),
    _rule(
        9,
        "py-pip-install",
        Level.WARNING,
        "A model installs packages while it runs.",
        "What is served depends on what a package index holds at that minute, and its installers run code.",
        "Install from a lock file with hashes when the image is built.",
        bad=_file('import subprocess\n\nsubprocess.check_call(["pip", "install", "regex"])\n'),
        good=_file("import regex\n"),
        cwe="CWE-494",
    ),
    _rule(
        10,
        "py-no-input-validation",
        Level.INFO,
        "A model's execute compares no size, shape or value of a request with a bound.",
        "config.pbtxt fixes neither the lengths of BYTES nor the values; one large or strange request takes the memory "
        "or fails its whole batch.",
        "Derive the class from safe_triton.SafeTritonPythonModel, or end the file with "
        "TritonPythonModel = protect(TritonPythonModel, limits=Limits(...)).",
        bad=_file(
            "import triton_python_backend_utils as pb_utils\n\n\n"
            "class TritonPythonModel:\n"
            "    def execute(self, requests):\n"
            "        return [pb_utils.InferenceResponse([]) for request in requests]\n"
        ),
        good=_file(
            "from safe_triton import SafeTritonPythonModel\n\n\n"
            "class TritonPythonModel(SafeTritonPythonModel):\n"
            "    def infer(self, inputs):\n"
            "        return {}\n"
        ),
        cwe="CWE-20",
        owasp="A04:2021",
        reference=BACKEND,
    ),
    _rule(
        11,
        "py-error-leak",
        Level.INFO,
        "A model sends the text of an exception to the client, or raises it again in one of its own.",
        "Exceptions name paths, versions and data of other requests.",
        'Log the exception, answer pb_utils.TritonError("request failed"); the SDK does so under an id.',
        bad=_file(
            "import triton_python_backend_utils as pb_utils\n\n\n"
            "def answer(request):\n"
            "    try:\n"
            "        return work(request)\n"
            "    except Exception as error:\n"
            "        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))\n"
        ),
        good=_file(
            "import triton_python_backend_utils as pb_utils\n\n\n"
            "def answer(request):\n"
            "    try:\n"
            "        return work(request)\n"
            "    except Exception:\n"
            '        return pb_utils.InferenceResponse(error=pb_utils.TritonError("request failed"))\n'
        ),
        cwe="CWE-209",
        owasp="A04:2021",
        reference=BACKEND,
    ),
    _rule(
        12,
        "py-syntax-error",
        Level.ERROR,
        "A model's Python cannot be parsed.",
        "The stub fails to import it, so the model does not load; and nothing in it could be checked.",
        "Fix the line; `python -m py_compile model.py` says the same.",
        bad=_file("print 'hello'\n"),
        good=_file("print('hello')\n"),
        owasp="",
        reference="https://docs.python.org/3/library/py_compile.html",
    ),
    _rule(
        13,
        "py-unexamined",
        Level.WARNING,
        "A model's Python is too large or too deep to be looked at, or cannot be read.",
        "What was not looked at is not known to be harmless.",
        "Split the file, or make it readable for whoever runs the check.",
        bad=_file("x = a" + "[0]" * 1000 + "\n"),
        good=_file("x = a.b(c)\n"),
        owasp="",
        reference="",
    ),
)
