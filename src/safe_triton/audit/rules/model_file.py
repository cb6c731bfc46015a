"""Rules for model files, found in their bytes."""

from __future__ import annotations

import json
from functools import partial

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule, numbered_rule

PICKLE_PAGE = "https://docs.python.org/3/library/pickle.html"
TORCH_PAGE = "https://pytorch.org/docs/stable/notes/serialization.html"
NUMPY_PAGE = "https://numpy.org/doc/stable/reference/generated/numpy.load.html"
ONNX_PAGE = "https://onnx.ai/onnx/repo-docs/ExternalData.html"
KERAS_PAGE = "https://keras.io/api/models/model_saving_apis/model_saving_and_loading/"
TENSORFLOW_PAGE = "https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md"
BACKEND_PAGE = "https://github.com/triton-inference-server/backend"
ZIP_PAGE = "https://docs.python.org/3/library/zipfile.html#decompression-pitfalls"

_CONFIG = 'backend: "python"\nmax_batch_size: 8\n'
_CODE = "from safe_triton import SafeTritonPythonModel as TritonPythonModel  # noqa: F401\n"

# What the libraries write, or would for a hostile author; all of it harmless as long as nobody loads it.
_SYSTEM = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."
_DICT = b"\x80\x04\x95\n\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."
_ONNX = (
    b'\x08\x08\x12\x07pytorch:6\n\x0c\n\x01x\x12\x01y"\x04R'
    b"elu\x12\x01g*\x19\x08\x04\x10\x01B\x01wJ\x10\x00\x00\x00\x00\x00\x00\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00Z\x03\n\x01xb\x03\n\x01yB\x04\n\x00\x10"
    b"\x11"
)
_ONNX_ESCAPE = (
    b'\x08\x08\x12\x07pytorch:L\n\x0c\n\x01x\x12\x01y"\x04R'
    b"elu\x12\x01g*/\x08\x04\x10\x01B\x01wj\x17\n\x08locat"
    b"ion\x12\x0b/etc/passwdj\x0b\n\x06offs"
    b"et\x12\x010p\x01Z\x03\n\x01xb\x03\n\x01yB\x04\n\x00\x10\x11"
)
_ONNX_CUSTOM = (
    b'\x08\x08\x12\x07pytorch:<\n\x12\n\x01x\x12\x01y"\x04F'
    b"use:\x04acme\x12\x01g*\x19\x08\x04\x10\x01B\x01wJ\x10\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00Z\x03\n\x01xb\x03\n\x01"
    b"yB\x04\n\x00\x10\x11"
)
_SAVED_READ = b'\x08\x01\x12\x1b\n\x07"\x05serve\x12\x10\n\x0e\n\x02n0\x12\x08ReadFile'
_SAVED_MATMUL = b'\x08\x01\x12\x19\n\x07"\x05serve\x12\x0e\n\x0c\n\x02n0\x12\x06MatMul'
_BOMB = (
    b"BZh91AY&SY\xb5\xd2\x84\xc6\x00HH@@\xc0\x00\x00\x04\x00"
    b'\x08 \x000\xcc\x05)\xa6\x08\x826!\x10G\x8b\xb9"\x9c(HZ\xe9Bc'
    b"\x00"
)
_SMALL = b"BZh91AY&SYtSpI\x00\x00\x01X\x00\x00\x10\x00\x040\x00 \x00!\x9ah3M\x17<]\xc9\x14\xe1BA\xd1M\xc1$"
_ZIP_UP = (
    b"PK\x03\x04\x14\x00\x00\x00\x08\x00@\x1fw]Pg9\xbf\x04\x00\x00\x00\x02\x00"
    b"\x00\x00\t\x00\x00\x00../run.sh\xcbL\x01\x00PK\x01\x02\x14"
    b"\x03\x14\x00\x00\x00\x08\x00@\x1fw]Pg9\xbf\x04\x00\x00\x00\x02\x00\x00\x00\t"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x01\x00\x00\x00\x00../run."
    b"shPK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x007\x00\x00\x00+\x00\x00\x00\x00\x00"
)
_ZIP_PLAIN = (
    b"PK\x03\x04\x14\x00\x00\x00\x08\x00@\x1fw]Pg9\xbf\x04\x00\x00\x00\x02\x00"
    b"\x00\x00\x07\x00\x00\x00run.txt\xcbL\x01\x00PK\x01\x02\x14\x03\x14"
    b"\x00\x00\x00\x08\x00@\x1fw]Pg9\xbf\x04\x00\x00\x00\x02\x00\x00\x00\x07\x00\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x01\x00\x00\x00\x00run.txtPK"
    b"\x05\x06\x00\x00\x00\x00\x01\x00\x01\x005\x00\x00\x00)\x00\x00\x00\x00\x00"
)
_NPY_OBJECTS = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '|O'"
    b", 'fortran_order': False"
    b", 'shape': (1,), }      "
    b"                        "
    b"                        "
    b"       \n\x80\x03cnumpy.core.mu"
    b"ltiarray\n_reconstruct\nq\x00"
    b"cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01"
    b"bq\x03\x87q\x04Rq\x05(K\x01K\x01\x85q\x06cnumpy\n"
    b"dtype\nq\x07X\x02\x00\x00\x00O8q\x08\x89\x88\x87q\tRq"
    b"\n(K\x03X\x01\x00\x00\x00|q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff"
    b"\xffK?tq\x0cb\x89]q\rNatq\x0eb."
)
_NPY_FLOATS = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f4"
    b"', 'fortran_order': Fals"
    b"e, 'shape': (1,), }     "
    b"                        "
    b"                        "
    b"       \n\x00\x00\x00\x00"
)
_TORCHSCRIPT = (
    b"PK\x03\x04\x14\x00\x00\x00\x08\x00@\x1fw]\xf2\x91\x02\xc5\x08\x00\x00\x00\x06\x00"
    b"\x00\x00\n\x00\x00\x00m/data.pklk`\xaa-d\xd0\x03\x00"
    b"PK\x03\x04\x14\x00\x00\x00\x08\x00@\x1fw]\x85T\xab*\x07\x00\x00\x00\x05\x00"
    b"\x00\x00\x13\x00\x00\x00m/code/__torch__.p"
    b"yKT\xb0U0\x04\x00PK\x01\x02\x14\x03\x14\x00\x00\x00\x08\x00@\x1fw]"
    b"\xf2\x91\x02\xc5\x08\x00\x00\x00\x06\x00\x00\x00\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x80\x01\x00\x00\x00\x00m/data.pklPK\x01\x02\x14\x03\x14\x00"
    b"\x00\x00\x08\x00@\x1fw]\x85T\xab*\x07\x00\x00\x00\x05\x00\x00\x00\x13\x00\x00\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x80\x010\x00\x00\x00m/code/__t"
    b"orch__.pyPK\x05\x06\x00\x00\x00\x00\x02\x00\x02\x00y\x00\x00"
    b"\x00h\x00\x00\x00\x00\x00"
)
_ELF = b"\x7fELF\x02\x01\x01" + bytes(57)


def _beside(name: str, data: bytes | str) -> Example:
    """A model with this file in its version folder."""
    return Example(files={"m/config.pbtxt": _CONFIG, "m/1/model.py": _CODE, f"m/1/{name}": data})


def _keras(*layers: str) -> str:
    """A Keras model's configuration with these layers."""
    listed = [{"module": "keras.layers", "class_name": layer, "config": {"name": "a"}} for layer in layers]
    return json.dumps({"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": listed}})


_rule = partial(numbered_rule, 6, cwe="CWE-502", owasp="A08:2021", reference=PICKLE_PAGE)


_SAFE_FORMAT = "Store weights as safetensors, ONNX or .npz without objects, and load them with allow_pickle=False."

RULES: tuple[Rule, ...] = (
    _rule(
        1,
        "pickle-dangerous",
        Level.ERROR,
        "A pickle imports a name that is not on the list of harmless constructors.",
        "Loading it calls that name: os.system is one import away, whatever the file is called.",
        f"Do not load the file. {_SAFE_FORMAT}",
        bad=_beside("weights.pkl", _SYSTEM),
        good=_beside("weights.pkl", _DICT),
    ),
    _rule(
        2,
        "pickle-disguised",
        Level.ERROR,
        "A pickle has a suffix that promises another format; a warning where the suffix promises nothing.",
        "Checks by suffix pass it, and a loader that sniffs the content runs it.",
        f"Find out who put it there. {_SAFE_FORMAT}",
        bad=_beside("labels.json", _DICT),
        good=_beside("labels.json", '{"a": 1}'),
        cwe="CWE-434",
    ),
    _rule(
        3,
        "pickle-malformed",
        Level.ERROR,
        "A pickle breaks off or holds what no interpreter accepts.",
        "Everything before the fault runs when it is loaded, and scanners stop at the fault.",
        "Restore the file from where it came from and compare digests.",
        bad=_beside("weights.pkl", _DICT[:-4]),
        good=_beside("weights.pkl", _DICT),
    ),
    _rule(
        4,
        "numpy-object-array",
        Level.ERROR,
        "An .npy or .npz file holds Python objects.",
        "Such arrays are a pickle: loading them with allow_pickle=True runs code.",
        "Save plain dtypes: np.save(path, array, allow_pickle=False).",
        bad=_beside("table.npy", _NPY_OBJECTS),
        good=_beside("table.npy", _NPY_FLOATS),
        reference=NUMPY_PAGE,
    ),
    _rule(
        5,
        "pickle-model-file",
        Level.WARNING,
        "A model file is a pickle, though it imports nothing that is known to harm.",
        "Whoever can replace the file runs code in the server; no pickle of unknown origin is safe to load.",
        f"{_SAFE_FORMAT} For torch: torch.load(path, weights_only=True).",
        bad=_beside("weights.pkl", _DICT),
        good=_beside("weights.npy", _NPY_FLOATS),
        reference=TORCH_PAGE,
    ),
    _rule(
        6,
        "torchscript-code",
        Level.INFO,
        "A TorchScript archive brings its own program; a warning where it reads or writes files.",
        "libtorch runs the program as it is: no Python, but memory, time and some file operators.",
        "Know where it comes from: lock the repository with `safe-triton lock` and verify the digest.",
        bad=_beside("model.pt", _TORCHSCRIPT),
        good=_beside("model.onnx", _ONNX),
        cwe="CWE-829",
        reference=TORCH_PAGE,
    ),
    _rule(
        7,
        "onnx-external-data-escape",
        Level.ERROR,
        "An ONNX model reads tensors from a file outside its own folder.",
        "The runtime opens the path with the server's rights: secrets become weights, which requests can read out.",
        "Keep the tensors beside it: onnx.save(model, path, save_as_external_data=True, location='weights.bin').",
        bad=_beside("model.onnx", _ONNX_ESCAPE),
        good=_beside("model.onnx", _ONNX),
        cwe="CWE-22",
        owasp="A01:2021",
        reference=ONNX_PAGE,
    ),
    _rule(
        8,
        "onnx-custom-op",
        Level.WARNING,
        "An ONNX model uses an operator that the runtime does not bring.",
        "It needs a shared library that is loaded into the server.",
        "Export with standard operators, or review the library and install it with the image.",
        bad=_beside("model.onnx", _ONNX_CUSTOM),
        good=_beside("model.onnx", _ONNX),
        cwe="CWE-829",
        reference="https://onnxruntime.ai/docs/reference/operators/add-custom-op.html",
    ),
    _rule(
        9,
        "keras-lambda",
        Level.ERROR,
        "A Keras model carries Python code, or its configuration names something to import that is not Keras.",
        "A Lambda layer holds marshalled bytecode, which loading the model makes a function of.",
        "Replace the layer by a registered class of your own or by built-in layers, and load with safe_mode=True.",
        bad=_beside("model.json", _keras("Dense", "Lambda")),
        good=_beside("model.json", _keras("Dense", "Flatten")),
        reference=KERAS_PAGE,
    ),
    _rule(
        10,
        "savedmodel-unsafe-op",
        Level.ERROR,
        "A TensorFlow graph holds an operator that reads or writes files or runs Python.",
        "The graph is a program: ReadFile and WriteFile work with the server's rights on any path.",
        "Export the graph again without file and Python operators.",
        bad=_beside("saved_model.pb", _SAVED_READ),
        good=_beside("saved_model.pb", _SAVED_MATMUL),
        cwe="CWE-829",
        reference=TENSORFLOW_PAGE,
    ),
    _rule(
        11,
        "archive-bomb",
        Level.WARNING,
        "An archive unpacks to far more than its size, or holds archives inside archives without end.",
        "Whatever unpacks it fills the memory or the disk.",
        "Replace the file by what it should contain.",
        bad=_beside("table.csv.bz2", _BOMB),
        good=_beside("table.csv.bz2", _SMALL),
        cwe="CWE-409",
        owasp="A05:2021",
        reference=ZIP_PAGE,
    ),
    _rule(
        12,
        "archive-unsafe-path",
        Level.ERROR,
        "An archive has a member or a link that unpacking puts outside the folder.",
        "Unpacking it overwrites files of the server or of other models.",
        "Make the archive again with relative names and without links out of it.",
        bad=_beside("assets.zip", _ZIP_UP),
        good=_beside("assets.zip", _ZIP_PLAIN),
        cwe="CWE-22",
        owasp="A01:2021",
        reference=ZIP_PAGE,
    ),
    _rule(
        13,
        "native-library-in-repo",
        Level.ERROR,
        "A repository holds machine code; a warning where it lies inside an archive.",
        "Triton loads libtriton_<backend>.so from a model's folder before the installed backend.",
        "Install libraries with the image, and keep the repository to data and Python.",
        bad=_beside("notes.txt", _ELF),
        good=_beside("notes.txt", "no code\n"),
        cwe="CWE-829",
        reference=BACKEND_PAGE,
    ),
    _rule(
        14,
        "python-stub-in-repo",
        Level.ERROR,
        "A file in a model's folder is called triton_python_backend_stub.",
        "Triton runs it in place of its own stub, and makes it executable if it is not.",
        "Remove it; another Python comes in by EXECUTION_ENV_PATH or by the image.",
        bad=_beside("triton_python_backend_stub", "#!/bin/sh\n"),
        good=_beside("stub_notes.txt", "#!/bin/sh\n"),
        cwe="CWE-829",
        reference=BACKEND_PAGE,
    ),
    _rule(
        15,
        "template-injection",
        Level.WARNING,
        "A chat template reaches for Python's internals.",
        "A renderer without a sandbox runs whatever the template's author wrote, on every request.",
        "Take the template of the model's original publisher, and render with jinja2.sandbox.",
        bad=_beside("chat_template.jinja", "{{ messages.__class__.__base__.__subclasses__() }}"),
        good=_beside("chat_template.jinja", "{% for message in messages %}{{ message['content'] }}{% endfor %}"),
        cwe="CWE-1336",
        owasp="A03:2021",
        reference="https://jinja.palletsprojects.com/en/stable/sandbox/",
    ),
    _rule(
        16,
        "model-file-malformed",
        Level.WARNING,
        "A model file's content is not what its name or its own header says.",
        "Loaders disagree on such files: what one checks, another does not read.",
        "Restore the file from where it came from and compare digests.",
        bad=_beside("model.onnx", "not a model\n"),
        good=_beside("model.onnx", _ONNX),
        cwe="CWE-20",
        owasp="A04:2021",
        reference=ONNX_PAGE,
    ),
    _rule(
        17,
        "model-file-unexamined",
        Level.WARNING,
        "A model file could not be looked at, or not to its end.",
        "What was not looked at is not known to be harmless: 7z and RAR archives are a way past scanners.",
        "Unpack the file, or make it readable for whoever runs the check.",
        bad=_beside("weights.7z", b"7z\xbc\xaf\x27\x1c" + bytes(26)),
        good=_beside("weights.npy", _NPY_FLOATS),
        cwe="CWE-434",
        reference=ZIP_PAGE,
    ),
    _rule(
        18,
        "compiled-python-in-repo",
        Level.WARNING,
        "Compiled Python has no source beside it, or runs without being compared with its source.",
        "Nobody can read what it does, and Python prefers it to a source that looks harmless.",
        "Remove the .pyc file and keep the source; Python compiles it again.",
        bad=_beside("helper.pyc", b"\xa7\r\r\n" + bytes(12)),
        good=_beside("helper.py", "X = 1\n"),
        cwe="CWE-506",
        reference="https://peps.python.org/pep-0552/",
    ),
    _rule(
        19,
        "data-file-object",
        Level.WARNING,
        "A YAML or JSON file names Python objects that loaders import and call; an error where the name runs code.",
        "yaml.load with an unsafe loader, jsonpickle and Hydra do what such a file says.",
        "Write plain values, and read them with yaml.safe_load or json.",
        bad=_beside("settings.yaml", "device: !!python/object/apply:os.system [id]\n"),
        good=_beside("settings.yaml", "device: cpu\n"),
        cwe="CWE-502",
        reference="https://pyyaml.org/wiki/PyYAMLDocumentation",
    ),
)
