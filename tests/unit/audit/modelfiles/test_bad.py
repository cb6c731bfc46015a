"""Hostile and broken model files: each has its findings, however it is wrapped, renamed or written."""

from __future__ import annotations

import builtins
import functools
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest

from safe_triton.audit.finding import Level
from safe_triton.audit.modelfiles import check_file
from tests.unit.audit.modelfiles import build
from tests.unit.audit.modelfiles.build import SYSTEM_0, SYSTEM_2, SYSTEM_4


def words(text: str) -> list[str]:
    """Return the words of a table."""
    return text.split()


def rules(path: Path, data: bytes) -> set[str]:
    """Write a file and return the rules that it breaks."""
    path.write_bytes(data)
    return {finding.rule for finding in check_file(path, path.name, size_bytes=len(data))}


def joblib_bytes(value: Any, **options: Any) -> bytes:
    """Return what joblib writes."""
    buffer = io.BytesIO()
    joblib.dump(value, buffer, **options)
    return buffer.getvalue()


def nested(data: bytes, levels: int) -> bytes:
    """Wrap in ZIP archives."""
    return functools.reduce(
        lambda inner, level: build.zipped({f"{level}.zip" if level else "m.pkl": inner}), range(levels), data
    )


def flipped_flags(data: bytes, local: int, central: int) -> bytes:
    """Set the encryption flag in both headers of a one-member archive."""
    changed = bytearray(data)
    changed[local + 6] |= 1
    at = data.find(b"PK\x01\x02")
    changed[at + 8] |= central
    return bytes(changed)


def bad_crc(data: bytes) -> bytes:
    """Spoil the checksums of the first member."""
    changed = bytearray(data)
    changed[14:18] = b"\0\0\0\0"
    at = data.find(b"PK\x01\x02")
    changed[at + 16 : at + 20] = b"\0\0\0\0"
    return bytes(changed)


LOAD_FROM_BYTES = (
    b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(SYSTEM_2)) + SYSTEM_2 + b"\x85R."
)
WRAPPER_DATA = (
    b"\x80\x04\x8c\x13joblib.numpy_pickle\x8c\x11NumpyArrayWrapper\x93)\x81}(\x8c\x05shape\x4b\x20\x85\x8c\x05dtype"
    b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02u1\x89\x88\x87Rub" + b"cos\nsystem\n(S'id'\ntR.".ljust(32, b"N") + b"."
)

DANGEROUS: tuple[tuple[str, str, bytes], ...] = (
    ("a stream of lines in a text", "notes.txt", b"some notes\n(S'id'\nios\nsystem\n."),
    ("a call of lines in a text", "notes.txt", b"some notes\ncos\nsystem\n(S'id'\ntR."),
    ("protocol 0", "m.pkl", SYSTEM_0),
    ("protocol 2", "m.pkl", SYSTEM_2),
    ("protocol 4", "m.pkl", SYSTEM_4),
    *((f"library protocol {number}", "m.pkl", build.call(os.system, "id", protocol=number)) for number in range(6)),
    ("INST", "m.pkl", b"(S'id'\nios\nsystem\n."),
    ("OBJ", "m.pkl", b"(cos\nsystem\nS'id'\no."),
    ("NEWOBJ", "m.pkl", b"\x80\x02csubprocess\nPopen\nX\x02\x00\x00\x00id\x85\x81."),
    ("NEWOBJ_EX", "m.pkl", b"\x80\x04csubprocess\nPopen\n\x8c\x02id\x85}\x92."),
    ("memoised module", "m.pkl", b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93\x8c\x02id\x85R."),
    ("PUT and GET", "m.pkl", b"\x80\x04\x8c\x06system\x94p7\n0\x8c\x02osg7\n\x93\x8c\x02id\x85R."),
    ("memo overwritten", "m.pkl", b"\x80\x04\x8c\x0bcollectionsq\x00\x8c\x02osq\x000h\x00\x8c\x06system\x93\x8c\x02id\x85R."),
    ("computed name", "m.pkl", b"\x80\x04\x8c\x02osNN\x86\x93."),
    ("name from a result", "m.pkl", b"\x80\x04cbuiltins\nstr\n\x8c\x02os\x85R\x8c\x06system\x93\x8c\x02id\x85R."),
    ("escaped STRING", "m.pkl", b"\x80\x04S'\\x6fs'\nS'sys\\x74em'\n\x93\x8c\x02id\x85R."),
    ("escaped UNICODE", "m.pkl", b"\x80\x04V\\u006fs\nV\\u0073ystem\n\x93\x8c\x02id\x85R."),
    ("extension", "m.pkl", b"\x80\x02\x82\x01)R."),
    ("extension 4", "m.pkl", b"\x80\x02\x84\x01\x00\x00\x00)R."),
    ("dotted name", "m.pkl", b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93\x8c\x02id\x85R."),
    ("BUILD on a class", "m.pkl", b"\x80\x04ccollections\nOrderedDict\n}\x8c\x01aK\x01sb."),
    ("SETITEM on a class", "m.pkl", b"\x80\x04ccollections\nOrderedDict\n\x8c\x01aK\x01s."),
    ("no STOP", "m.pkl", SYSTEM_4[:-1]),
    ("garbage behind", "m.pkl", SYSTEM_4[:-1] + b"\xff\xff"),
    ("fault before", "m.pkl", b"\x80\x04R" + SYSTEM_4[2:]),
    ("POP of the result", "m.pkl", SYSTEM_4[:-1] + b"0}."),
    ("second stream", "m.pkl", pickle.dumps({"a": 1}) + SYSTEM_4),
    ("third stream", "m.pkl", pickle.dumps(1) + pickle.dumps([2]) + SYSTEM_2),
    ("text behind binary", "m.pkl", pickle.dumps({"a": 1}) + SYSTEM_0),
    ("behind zeros", "m.pkl", bytes(100) + SYSTEM_4),
    ("behind text", "m.bin", b"weights v1\n" + SYSTEM_4),
    ("at an offset", "m.bin", bytes(range(256)) * 9000 + SYSTEM_2 + bytes(1000)),
    ("text at an offset", "m.bin", bytes(range(256)) * 9000 + SYSTEM_0 + bytes(1000)),
    ("behind an image", "m.jpg", b"\xff\xd8\xff\xe0" + bytes(range(256)) * 10 + SYSTEM_4),
    ("in front of a ZIP", "m.pt", SYSTEM_4 + build.torch_zip(build.state_dict())),
    ("behind a ZIP", "m.pkl", build.zipped({"a": b"b"}) + SYSTEM_4),
    ("gzip", "m.pkl.gz", build.packed(SYSTEM_4, "gzip")),
    ("bzip2", "m.pkl.bz2", build.packed(SYSTEM_4, "bz2")),
    ("xz", "m.pkl.xz", build.packed(SYSTEM_4, "xz")),
    ("lzma", "m.pkl.lzma", build.packed(SYSTEM_4, "lzma")),
    ("zlib", "m.joblib", build.packed(SYSTEM_4, "zlib")),
    ("second gzip stream", "m.gz", build.packed(b"hello", "gzip") + build.packed(SYSTEM_4, "gzip")),
    ("gzip in gzip", "m.gz", build.packed(build.packed(SYSTEM_4, "gzip"), "gzip")),
    ("zip", "m.zip", build.zipped({"a/m.pkl": SYSTEM_4})),
    ("zip in zip", "m.zip", nested(SYSTEM_4, 3)),
    ("bzip2 member", "m.zip", build.zipped({"m.pkl": SYSTEM_4}, zipfile.ZIP_BZIP2)),
    ("lzma member", "m.zip", build.zipped({"m.pkl": SYSTEM_4}, zipfile.ZIP_LZMA)),
    ("zip with a prefix", "m.zip", b"#!/bin/sh\n" + build.zipped({"m.pkl": SYSTEM_4})),
    ("zip with a wrong checksum", "m.pt", bad_crc(build.torch_zip(SYSTEM_4))),
    ("zip said to be encrypted", "m.pt", flipped_flags(build.torch_zip(SYSTEM_4), 0, 1)),
    ("zip without a directory", "m.pt", build.torch_zip(SYSTEM_4).split(b"PK\x01\x02")[0]),
    ("zip without an end", "m.pt", build.torch_zip(SYSTEM_4).split(b"PK\x05\x06")[0]),
    ("tar", "m.tar", build.tarred({"m.pkl": SYSTEM_4})),
    ("tar.gz", "m.tar.gz", build.packed(build.tarred({"m.pkl": SYSTEM_4}), "gzip")),
    ("tar with a long name", "m.tar", build.tarred({"a" * 150 + "/m.pkl": SYSTEM_4})),
    ("torch", "m.pt", build.torch_zip(SYSTEM_2)),
    ("torch renamed", "m.onnx", build.torch_zip(SYSTEM_2)),
    ("torch other member", "m.pt", build.torch_zip(build.state_dict(), {"extra.bin": SYSTEM_4})),
    ("torch in a tensor", "m.pt", build.torch_zip(build.state_dict(), {"data/1": SYSTEM_4})),
    ("torch bytes", "m.pkl", LOAD_FROM_BYTES),
    ("torchscript", "m.pt", build.torch_zip(SYSTEM_2, {"constants.pkl": b"\x80\x02).", "code/__torch__.py": b""})),
    ("npy", "m.npy", build.npy(np.array([build.Call(os.system, "id")], object))),
    ("npz", "m.npz", build.npz(a=np.zeros(3), b=np.array([build.Call(os.system, "id")], object))),
    ("pickle called npy", "m.npy", SYSTEM_4),
    ("pickle called npz member", "m.npz", build.zipped({"a.npy": SYSTEM_4})),
    ("joblib", "m.joblib", joblib_bytes({"a": np.zeros(100), "b": build.Call(os.system, "id")})),
    ("joblib behind an array", "m.joblib", joblib_bytes([np.arange(1000), build.Call(os.system, "id")])),
    ("joblib object array", "m.joblib", joblib_bytes(np.array([build.Call(os.system, "id"), None], object))),
    ("joblib packed", "m.joblib", joblib_bytes([np.zeros(50), build.Call(os.system, "id")], compress=3)),
    ("joblib gzip", "m.joblib.gz", joblib_bytes([build.Call(os.system, "id")], compress=("gzip", 3))),
    ("opcodes as an array", "m.joblib", WRAPPER_DATA),
    ("cloudpickle", "m.pkl", build.import_2("cloudpickle.cloudpickle", "_make_function")),
    ("python 2 names", "m.pkl", b"c__builtin__\neval\n(S'1'\ntR."),
    ("module of nobody", "m.pkl", build.import_2("nobody_knows", "run")),
    ("the repository's own module", "m.pkl", build.import_2("model", "start")),
    ("hidden in a frame", "m.pkl", b"\x80\x04\x95\x16\x00\x00\x00\x00\x00\x00\x00" + SYSTEM_4[2:]),
    ("frame of a wrong length", "m.pkl", b"\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00" + SYSTEM_4[2:]),
)  # fmt: skip

NAMES = words(
    """
os.system posix.system nt.system os.popen os.execv os.spawnl os.putenv os.remove os.posix_spawn subprocess.run
subprocess.Popen subprocess.check_output subprocess.getoutput builtins.eval builtins.exec builtins.compile builtins.open
builtins.getattr builtins.setattr builtins.__import__ builtins.input builtins.breakpoint builtins.map builtins.globals
__builtin__.eval __builtin__.apply __builtin__.execfile __builtin__.file runpy.run_path runpy._run_code pty.spawn
socket.socket shutil.rmtree shutil.copyfile importlib.import_module imp.load_source code.interact
code.InteractiveInterpreter timeit.timeit timeit.main cProfile.run cProfile.runctx profile.Profile.run pdb.run bdb.Bdb
trace.Trace commands.getoutput webbrowser.open platform.popen asyncio.create_subprocess_shell
asyncio.unix_events._UnixSubprocessTransport._start multiprocessing.util.spawnv_passfds ctypes.CDLL
pickle.loads _pickle.loads dill.loads cloudpickle.loads joblib.load marshal.loads types.FunctionType types.CodeType
operator.attrgetter operator.methodcaller _operator.attrgetter functools.reduce pip.main pip._internal.main
ensurepip._run_pip venv.create distutils.file_util.write_file setuptools.sandbox.run_setup numpy.testing.rundocs
numpy.testing._private.utils.runstring numpy.f2py.compile numpy.load numpy.fromfile numpy.memmap numpy.DataSource
numpy.core._internal._ufunc_reconstruct numpy.lib.npyio.load torch.load torch.hub.load torch.jit.load
torch.utils.cpp_extension.load torch._dynamo.guards.GuardBuilder.get torch.utils.data.datapipes.utils.decoder.basichandlers
torch.utils._config_module.load_config torch.utils.bottleneck.__main__.run_cprofile torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression
sklearn.utils._testing.check_skip_network sklearn.datasets.fetch_openml sklearn.feature_selection._base.attrgetter
scipy.stats._distn_infrastructure.rv_continuous pandas.read_pickle pandas.core.computation.eval.eval pandas.eval
urllib.request.urlopen urllib.request.urlretrieve requests.get requests.api.get http.client.HTTPConnection
ftplib.FTP smtplib.SMTP telnetlib.Telnet ssl.get_server_certificate xmlrpc.client.ServerProxy
linecache.getline logging.config.listen logging.FileHandler tempfile.mkstemp pathlib.Path.write_text pathlib.Path.unlink
io.open io.FileIO _io.open codecs.open sqlite3.connect zipimport.zipimporter pkgutil.resolve_name pydoc.locate
pydoc.pipepager inspect.currentframe sys.exit sys.settrace sys.modules signal.alarm threading.Thread
idlelib.run.Executive.runcode idlelib.pyshell.ModifiedInterpreter.runcode lib2to3.pgen2.grammar.Grammar.loads
lib2to3.pgen2.pgen.ParserGenerator doctest.debug_script test.support.script_helper.assert_python_ok
unittest.mock._importer uuid._get_command_stdout getpass.getuser mailcap.findmatch aifc.open
site.addsitedir gc.get_objects copyreg.add_extension collections.namedtuple collections.abc.Callable
encodings.search_function ntpath.expanduser django.utils.module_loading.import_string ultralytics.utils.downloads.safe_run
transformers.utils.import_utils.requires transformers.pipelines.pipeline tensorflow.io.read_file keras.models.load_model
yaml.load jsonpickle.decode nltk.data.load tensorflow.python.ops.io_ops.read_file jax.tools.jax_to_ir.main
"""
)

OTHERS: tuple[tuple[str, str, bytes, str], ...] = (
    ("json", "m.json", pickle.dumps({"a": 1}), "pickle-disguised"),
    ("onnx", "m.onnx", pickle.dumps({"a": 1}), "pickle-disguised"),
    ("text protocol 0", "m.txt", pickle.dumps({"a": [1, "x"]}, 0), "pickle-disguised"),
    ("plan", "model.plan", pickle.dumps([1, 2, {"a": None}], 1), "pickle-disguised"),
    ("jpg", "m.jpg", pickle.dumps(np.zeros(4)), "pickle-disguised"),
    ("safetensors", "m.safetensors", build.torch_zip(build.state_dict()), "pickle-disguised"),
    ("no suffix", "weights", pickle.dumps({"a": 1}), "pickle-disguised"),
    ("vague", "weights.bin", pickle.dumps({"a": 1}), "pickle-disguised"),
    ("csv.gz", "a.csv.gz", build.packed(pickle.dumps({"a": 1}), "gzip"), "pickle-disguised"),
    ("member", "a.zip", build.zipped({"labels.txt": pickle.dumps({"a": 1})}), "pickle-disguised"),
    ("cut", "m.pkl", pickle.dumps({"a": list(range(99))})[:60], "pickle-malformed"),
    ("cut at once", "m.pkl", b"\x80", "pickle-malformed"),
    ("cut in a text", "m.pkl", b"\x80\x04\x8c\xffabc", "pickle-malformed"),
    ("cut protocol 0", "m.pkl", b"cnumpy\nndarray\n(I0\ntR(dp0\nS'a", "pickle-malformed"),
    ("wrong opcode", "m.pkl", b"\x80\x04}\x94\xff.", "pickle-malformed"),
    ("empty stack", "m.pkl", b"\x80\x04.", "pickle-malformed"),
    ("no mark", "m.pkl", b"\x80\x04}u.", "pickle-malformed"),
    ("protocol 9", "m.pkl", b"\x80\x09}.", "pickle-malformed"),
    ("in torch", "m.pt", build.torch_zip(build.state_dict()[:-9]), "pickle-malformed"),
    ("benign", "m.pkl", pickle.dumps({"a": 1}), "pickle-model-file"),
    ("benign torch", "m.pt", build.torch_zip(build.state_dict()), "pickle-model-file"),
    ("objects", "m.npy", build.npy(np.array([{}], object)), "numpy-object-array"),
    ("objects in a record", "m.npy", build.npy(np.zeros(2, [("a", "f4"), ("b", object)])), "numpy-object-array"),
    ("objects in npz", "m.npz", build.npz(a=np.array(["x", None], object)), "numpy-object-array"),
    ("renamed npy", "m.bin", build.npy(np.array([{}], object)), "numpy-object-array"),
    ("npy cut", "m.npy", build.npy(np.zeros(100))[:200], "model-file-malformed"),
    ("npy header", "m.npy", b"\x93NUMPY\x01\x00v\x00" + b"x" * 118, "model-file-malformed"),
    ("script", "m.pt", build.torch_zip(b"\x80\x02}.", {"code/__torch__.py": b"", "constants.pkl": b"\x80\x02)."}), "torchscript-code"),
    ("absolute", "m.onnx", build.onnx_model(location="/etc/shadow"), "onnx-external-data-escape"),
    ("up", "m.onnx", build.onnx_model(location="../../other/1/w.bin"), "onnx-external-data-escape"),
    ("inside up", "m.onnx", build.onnx_model(location="a/../../w.bin"), "onnx-external-data-escape"),
    ("windows", "m.onnx", build.onnx_model(location="..\\w.bin"), "onnx-external-data-escape"),
    ("drive", "m.onnx", build.onnx_model(location="C:\\w.bin"), "onnx-external-data-escape"),
    ("address", "m.onnx", build.onnx_model(location="file:///etc/passwd"), "onnx-external-data-escape"),
    ("constant attribute", "m.onnx", build.onnx_model(attribute=build.message((1, "value"), (5, build.message((13, build.message((1, "location"), (2, "/a")))), ))), "onnx-external-data-escape"),
    ("inner graph", "m.onnx", build.onnx_model(attribute=build.message((1, "then_branch"), (6, build.message((5, build.message((13, build.message((1, "location"), (2, "/a")))), ))))), "onnx-external-data-escape"),
    ("renamed onnx", "m.bin", build.onnx_model(location="/etc/shadow"), "onnx-external-data-escape"),
    ("custom", "m.onnx", build.onnx_model(domain="com.acme", operator="X"), "onnx-custom-op"),
    ("contrib", "m.onnx", build.onnx_model(domain="ai.onnx.contrib", operator="PyOp"), "onnx-custom-op"),
    ("onnx cut", "m.onnx", build.onnx_model()[:-20], "model-file-malformed"),
    ("onnx text", "m.onnx", b"hello", "model-file-malformed"),
    ("lambda", "m.keras", build.keras_zip(build.keras_model(build.DENSE, build.LAMBDA)), "keras-lambda"),
    ("lambda renamed", "m.bin", build.keras_zip(build.keras_model(build.LAMBDA)), "keras-lambda"),
    ("lambda inside", "m.keras", build.keras_zip(build.keras_model({"class_name": "TimeDistributed", "config": {"layer": build.LAMBDA}})), "keras-lambda"),
    ("module", "m.keras", build.keras_zip(build.keras_model({"module": "os", "class_name": "system", "config": "id"})), "keras-lambda"),
    ("builtins", "m.keras", build.keras_zip(build.keras_model({"module": "builtins", "class_name": "eval", "config": "1"})), "keras-lambda"),
    ("get_file", "m.keras", build.keras_zip(build.keras_model({"module": "keras.utils", "class_name": "function", "config": "get_file"})), "keras-lambda"),
    ("vocabulary", "m.keras", build.keras_zip(build.keras_model({"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}})), "keras-lambda"),
    ("h5", "m.h5", build.h5(build.keras_model(build.LAMBDA)), "keras-lambda"),
    ("h5 renamed", "m.dat", build.h5(build.keras_model(build.LAMBDA)), "keras-lambda"),
    ("keras 2 h5", "m.h5", build.h5({"class_name": "Functional", "config": {"layers": [{"class_name": "Lambda", "config": {"function": ["4wEA", None, None]}}]}}), "keras-lambda"),
    ("json", "model.json", b'{"class_name": "Model", "config": {"layers": [{"class_name": "Lambda", "config": {}}]}}', "keras-lambda"),
    ("ReadFile", "saved_model.pb", build.saved_model("MatMul", "ReadFile"), "savedmodel-unsafe-op"),
    ("WriteFile", "saved_model.pb", build.saved_model("WriteFile", in_function=True), "savedmodel-unsafe-op"),
    ("PyFunc", "saved_model.pb", build.saved_model("PyFunc"), "savedmodel-unsafe-op"),
    ("EagerPyFunc", "renamed.bin", build.saved_model("Const", "EagerPyFunc"), "savedmodel-unsafe-op"),
    ("frozen", "graph.pb", build.message((1, build.message((1, "a"), (2, "ReadFile")))), "savedmodel-unsafe-op"),
    ("text", "saved_model.pbtxt", b'meta_graphs { graph_def { node { name: "a" op: "ReadFile" } } }', "savedmodel-unsafe-op"),
    ("zipped", "m.zip", build.zipped({"m/saved_model.pb": build.saved_model("WriteFile")}), "savedmodel-unsafe-op"),
    ("zip bomb", "m.zip", build.zipped({"a": bytes(30 << 20)}), "archive-bomb"),
    ("gzip bomb", "m.gz", build.packed(bytes(30 << 20), "gzip"), "archive-bomb"),
    ("bzip2 bomb", "m.bz2", build.packed(bytes(30 << 20), "bz2"), "archive-bomb"),
    ("xz bomb", "m.xz", build.packed(bytes(30 << 20), "xz"), "archive-bomb"),
    ("many levels", "m.zip", nested(b"x", 12), "archive-bomb"),
    ("many gzips", "m.gz", functools.reduce(lambda data, _: build.packed(data, "gzip"), range(12), b"x"), "archive-bomb"),
    ("npz bomb", "m.npz", build.zipped({"a.npy": build.npy(np.zeros(4_000_000))}), "archive-bomb"),
    ("slip", "m.zip", build.zipped({"../../etc/cron.d/x": b"x"}), "archive-unsafe-path"),
    ("absolute member", "m.zip", build.zipped({"/etc/x": b"x"}), "archive-unsafe-path"),
    ("backslash", "m.zip", build.zipped({"..\\x": b"x"}), "archive-unsafe-path"),
    ("tar slip", "m.tar", build.tarred({"../x": b"x"}), "archive-unsafe-path"),
    ("tar link", "m.tar", build.tarred({}, {"a": "/etc/passwd"}), "archive-unsafe-path"),
    ("tar link up", "m.tar.gz", build.tarred({}, {"a/b": "../../c"}, "w:gz"), "archive-unsafe-path"),
    ("elf", "weights.bin", build.elf(), "native-library-in-repo"),
    ("elf in zip", "m.whl", build.zipped({"a/b.so": build.elf()}), "native-library-in-repo"),
    ("windows", "a.dll", b"MZ" + bytes(58) + b"\x40\0\0\0" + b"PE\0\0" + bytes(20), "native-library-in-repo"),
    ("mach-o", "a.dylib", b"\xcf\xfa\xed\xfe" + bytes(60), "native-library-in-repo"),
    ("static", "a.a", b"!<arch>\n" + bytes(60), "native-library-in-repo"),
    ("stub", "triton_python_backend_stub", b"#!/bin/sh\n", "python-stub-in-repo"),
    ("stub empty", "triton_python_backend_stub", b"", "python-stub-in-repo"),
    ("jinja", "chat_template.jinja", b"{{ ''.__class__.__mro__ }}", "template-injection"),
    ("tokenizer", "tokenizer_config.json", b'{"chat_template": "{{ lipsum.__globals__[\'os\'].popen(\'id\').read() }}"}', "template-injection"),
    ("tokenizer list", "tokenizer_config.json", b'{"chat_template": [{"name": "a", "template": "{{ cycler.__init__ }}"}]}', "template-injection"),
    ("attr filter", "t.jinja", b"{{ x|attr('\\x5f\\x5fclass\\x5f\\x5f') }}", "template-injection"),
    ("glued", "t.j2", b"{{ x['__' ~ 'class' ~ '__'] }}", "template-injection"),
    ("statement", "t.txt", b"{% set a = self.__init__.__globals__ %}", "template-injection"),
    ("gguf", "m.gguf", build.gguf(general__name="a", tokenizer__chat_template="{{ x.__class__ }}"), "template-injection"),
    ("gguf cut", "m.gguf", build.gguf(a="b")[:-3], "model-file-malformed"),
    ("safetensors range", "m.safetensors", build.safetensors({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, b"\0" * 4), "model-file-malformed"),
    ("safetensors rest", "m.safetensors", build.safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 99), "model-file-malformed"),
    ("safetensors length", "m.safetensors", struct.pack("<Q", 1 << 20) + b"{}", "model-file-malformed"),
    ("empty pickle", "m.pkl", b"", "model-file-malformed"),
    ("no pickle", "m.pkl", b"hello", "model-file-malformed"),
    ("7z", "m.7z", b"7z\xbc\xaf\x27\x1c" + bytes(40), "model-file-unexamined"),
    ("encrypted", "m.zip", flipped_flags(build.zipped({"a": b"b"}), 0, 1), "model-file-unexamined"),
    ("rar", "m.pt", b"Rar!\x1a\x07\x00" + bytes(40), "model-file-unexamined"),
    ("bytecode", "helper.pyc", b"\xa7\r\r\n" + bytes(20), "compiled-python-in-repo"),
    ("unchecked bytecode", "helper.pyc", b"\xa7\r\r\n\x01\0\0\0" + bytes(20), "compiled-python-in-repo"),
    (
        "behind the tensors",
        "m.safetensors",
        struct.pack("<Q", 2) + b"{}" + SYSTEM_4,
        "pickle-dangerous",
    ),
    ("builtins function", "m.keras", build.zipped({"config.json": b'{"class_name": "Sequential", "config": {"layers": [{"module": "builtins", "class_name": "function", "config": "exec"}]}}', "metadata.json": b"{}"}), "keras-lambda"),
    ("metadata of a SavedModel", "keras_metadata.pb", b'\n\x40\x12\x04root*7{"class_name": "Lambda", "config": {"function": ["4wEA"]}}', "keras-lambda"),
    ("a page instead of weights", "m.pt", b"<html>404</html>", "model-file-malformed"),
    ("cabinet", "m.bin", b"MSCF\0\0\0\0" + bytes(60), "model-file-unexamined"),
    ("WebAssembly", "m.bin", b"\0asm\1\0\0\0" + bytes(60), "model-file-unexamined"),
)  # fmt: skip


class TestDangerous:
    """What would run code is an error."""

    @pytest.mark.parametrize(("what", "name", "data"), DANGEROUS, ids=[case[0] for case in DANGEROUS])
    def test_wrapped(self, tmp_path: Path, what: str, name: str, data: bytes) -> None:
        """However it is written and wherever it lies."""
        assert "pickle-dangerous" in rules(tmp_path / name, data)

    @pytest.mark.parametrize("name", NAMES)
    def test_names(self, tmp_path: Path, name: str) -> None:
        """Every name that does more than make a value, in every way to import it."""
        module, _, function = name.rpartition(".")
        if module.count(".") and function[:1].islower() and module.rpartition(".")[2][:1].isupper():
            module, _, owner = module.rpartition(".")
            function = f"{owner}.{function}"
        texts = [len(text).to_bytes(1, "little") + text.encode() for text in (module, function)]
        stacked = b"\x80\x04\x8c" + texts[0] + b"\x8c" + texts[1] + b"\x93\x8c\x02id\x85R."
        assert "pickle-dangerous" in rules(tmp_path / "a.pkl", stacked)
        assert "pickle-dangerous" in rules(tmp_path / "b.pkl", build.import_2(module, function))


class TestOthers:
    """Every other rule of the family."""

    @pytest.mark.parametrize(("what", "name", "data", "rule"), OTHERS, ids=[f"{case[3]}-{case[0]}" for case in OTHERS])
    def test_found(self, tmp_path: Path, what: str, name: str, data: bytes, rule: str) -> None:
        """By content."""
        assert rule in rules(tmp_path / name, data)

    def test_link_out_of_the_folder(self, tmp_path: Path) -> None:
        """An ONNX tensor file may be a link."""
        (tmp_path / "secret").write_bytes(b"x")
        folder = tmp_path / "m"
        folder.mkdir()
        (folder / "w.bin").symlink_to(tmp_path / "secret")
        assert "onnx-external-data-escape" in rules(folder / "m.onnx", build.onnx_model(location="w.bin"))

    def test_link_in_a_zip(self, tmp_path: Path) -> None:
        """A ZIP archive's link is a mode and a text."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            entry = zipfile.ZipInfo("a")
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "../../etc/passwd")
        assert "archive-unsafe-path" in rules(tmp_path / "m.zip", buffer.getvalue())


@pytest.mark.parametrize(
    "what", ["escaped STRING", "escaped UNICODE", "PUT and GET", "memoised module", "memo overwritten"]
)
def test_names_are_assembled(tmp_path: Path, what: str) -> None:
    """The finding names the function that the stream puts together."""
    path = tmp_path / "m.pkl"
    path.write_bytes(next(data for name, _, data in DANGEROUS if name == what))
    assert any("imports os.system" in found.message for found in check_file(path, "m.pkl", size_bytes=9))


def test_builtins_are_allowed_by_name(tmp_path: Path) -> None:
    """Of builtins only constructors of plain values are harmless."""
    harmless = {
        name for name in dir(builtins)
        if "pickle-dangerous" not in rules(tmp_path / "m.pkl", build.import_2("builtins", name))
    }  # fmt: skip
    assert not harmless & {
        "eval",
        "exec",
        "getattr",
        "open",
        "__import__",
        "compile",
        "setattr",
        "vars",
        "print",
        "map",
    }


def test_a_pickle_among_the_values_of_another(tmp_path: Path) -> None:
    """Bytes that somebody may hand to pickle next: a warning, since this stream does not do it."""
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps({"a": SYSTEM_4, "b": [1, 2]}))
    found = {one.rule: one.level for one in check_file(path, "m.pkl", size_bytes=path.stat().st_size)}
    assert found["pickle-dangerous"] is Level.WARNING
