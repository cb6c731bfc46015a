"""What real training code writes has no error, and nothing that carries no code has any finding."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import io
import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest

from safe_triton.audit.finding import Level
from safe_triton.audit.modelfiles import check_file
from safe_triton.audit.rules.model_file import RULES
from tests.unit.audit.modelfiles import build
from tests.unit.audit.modelfiles.test_bad import joblib_bytes

LEVELS = {rule.name: rule.level for rule in RULES}


def levels(path: Path, data: bytes) -> dict[str, Level]:
    """Write a file and return the rules that it breaks, with their levels."""
    path.write_bytes(data)
    found = check_file(path, path.name, size_bytes=len(data))
    return {finding.rule: finding.level or LEVELS[finding.rule] for finding in found}


NOTHING: tuple[tuple[str, bytes], ...] = (
    ("play.txt", b"Enter a servant.\nHe said that I am innocent\nLEPIDUS\nWhat, at this hour?\nOf portfolio\nLUCIO\nNo.\n"),
    ("weights.npy", build.npy(np.arange(1000.0))),
    ("strings.npy", build.npy(np.array(["a", "bc"]))),
    ("record.npy", build.npy(np.zeros(3, [("a", "<f4"), ("b", "<i8", (2,))]))),
    ("dates.npy", build.npy(np.zeros(3, "datetime64[s]"))),
    ("weights.npz", build.npz(a=np.ones(10), b=np.zeros((2, 2), np.int32))),
    ("model.onnx", build.onnx_model()),
    ("microsoft.onnx", build.onnx_model(domain="com.microsoft", operator="FusedConv")),
    ("ml.onnx", build.onnx_model(domain="ai.onnx.ml", operator="TreeEnsembleClassifier")),
    ("function.onnx", build.onnx_model(domain="local", operator="F", functions=build.message((25, build.message((1, "F"), (10, "local")))))),
    ("saved_model.pb", build.saved_model("Placeholder", "MatMul", "SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "StatefulPartitionedCall", "PrintV2")),
    ("model.keras", build.keras_zip(build.keras_model(build.DENSE))),
    ("tfop.keras", build.keras_zip(build.keras_model({"class_name": "TFOpLambda", "config": {"function": "math.add"}}))),
    ("model.h5", build.h5(build.keras_model(build.DENSE))),
    ("model.gguf", build.gguf(general__name="a", tokenizer__chat_template="{% for m in messages %}{{ m['role'] }}{% endfor %}")),
    ("model.safetensors", build.safetensors({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))),
    ("labels.txt", b"cat\ndog\nfrog\ncow\nbird\n"),
    ("c.txt", b"cos\nsin\ntan\n"),
    ("numbers.txt", b"I1\nI2\n."),
    ("vocab.json", json.dumps({"a": 1, "__class__": 2}).encode()),
    ("tokenizer_config.json", json.dumps({"chat_template": "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}{% endif %}{{ '<|im_start|>' + add_generation_prompt | string }}{%- set ns = namespace(found=false) -%}{{ raise_exception('x') }}"}).encode()),
    ("config.json", json.dumps({"architectures": ["BertModel"], "model_type": "bert"}).encode()),
    ("model.txt", b"tree\nversion=v4\nnum_class=1\n"),
    ("model.cbm", b"CBM1" + os.urandom(100)),
    ("model.plan", b"ftrt" + bytes(range(256)) * 100),
    ("model.xml", b"<?xml version='1.0'?><net name='a'></net>"),
    ("zero.bin", bytes(100_000)),
    ("empty.txt", b""),
    ("model.py", b"import pickle\nX = '''cos\nsystem\n(S'id'\ntR.'''\n"),
    ("README.md", b"Use {{ x.__class__ }}\n"),
    ("image.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4),
    ("config.pbtxt", b'name: "a"\nplatform: "ensemble"\n'),
    ("data.csv.gz", build.packed(b"a,b\n1,2\n" * 100, "gzip")),
    ("data.tar", build.tarred({"a/b.txt": b"x", "c": b"y"}, {"d": "c", "a/e": "../c"})),
)  # fmt: skip

PICKLES: tuple[tuple[str, Any], ...] = (
    ("plain", {"a": [1, 2.5, "x", b"y", None, True, (1,), {2}, frozenset({3}), 1 << 100, 1j]}),
    ("collections", [collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.Counter("abc"), collections.deque([1])]),
    ("dates", [dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), dt.timedelta(1), decimal.Decimal("1.5")]),
    ("arrays", {"w": np.ones((3, 3)), "i": np.arange(3), "s": np.float32(1), "o": np.array([None, "a"], object), "u": np.array(["a"])}),
    ("generator", [np.random.default_rng(0), np.random.RandomState(0)]),
    ("ufunc", [np.log1p, np.exp]),
    ("path", [Path("a/b")]),
    ("regular expression", [__import__("re").compile("a+")]),
)  # fmt: skip


class TestNothing:
    """Formats without code."""

    @pytest.mark.parametrize(("name", "data"), NOTHING, ids=[case[0] for case in NOTHING])
    def test_no_finding(self, tmp_path: Path, name: str, data: bytes) -> None:
        """No finding at all."""
        assert levels(tmp_path / name, data) == {}

    def test_external_data_beside_the_model(self, tmp_path: Path) -> None:
        """Tensors in a file of the same folder are ordinary."""
        (tmp_path / "weights.bin").write_bytes(bytes(16))
        assert levels(tmp_path / "m.onnx", build.onnx_model(location="weights.bin")) == {}


class TestPickles:
    """A pickle of values is a warning, never more."""

    @pytest.mark.parametrize("protocol", range(6))
    @pytest.mark.parametrize(("what", "value"), PICKLES, ids=[case[0] for case in PICKLES])
    def test_values(self, tmp_path: Path, what: str, value: Any, protocol: int) -> None:
        """In every protocol."""
        assert levels(tmp_path / "m.pkl", pickle.dumps(value, protocol)) == {"pickle-model-file": Level.WARNING}

    @pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3)])
    def test_joblib(self, tmp_path: Path, compress: Any) -> None:
        """Arrays between the opcodes, packed or not, of every order and type."""
        value = {"a": np.random.default_rng(1).random((300, 20)), "f": np.ones((5, 4), order="F"), "o": np.array(["a", None], object),
                 "b": np.zeros(3, bool), "r": np.zeros(2, [("x", "f4"), ("y", "U3")]), "z": np.array(1.5), "e": np.zeros((0, 3))}  # fmt: skip
        found = levels(tmp_path / "m.joblib", joblib_bytes(value, compress=compress))
        assert found == {"pickle-model-file": Level.WARNING}

    def test_torch(self, tmp_path: Path) -> None:
        """A state dict, as a ZIP archive and in a nested one."""
        assert levels(tmp_path / "pytorch_model.bin", build.torch_zip(build.state_dict())) == {
            "pickle-model-file": Level.WARNING
        }

    def test_torchscript(self, tmp_path: Path) -> None:
        """A TorchScript program is information."""
        pickled = b"\x80\x02c__torch__.Net\nNet\n)\x81}X\x08\x00\x00\x00trainingq\x00\x88sb."
        found = levels(
            tmp_path / "model.pt",
            build.torch_zip(pickled, {"constants.pkl": b"\x80\x02).", "code/__torch__.py": b"class Net: ..."}),
        )
        assert found == {"torchscript-code": Level.INFO}


def estimators() -> list[Any]:
    """Return fitted estimators of every family of scikit-learn."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.cluster import KMeans
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA, TruncatedSVD
    from sklearn.ensemble import (
        AdaBoostClassifier,
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        IsolationForest,
        RandomForestClassifier,
        StackingClassifier,
        VotingClassifier,
    )
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.feature_selection import SelectKBest
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import GridSearchCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.naive_bayes import GaussianNB, MultinomialNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, LabelEncoder, OneHotEncoder, StandardScaler
    from sklearn.svm import SVC, LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    X, y = rng.random((60, 4)), np.arange(60) % 3
    texts = ["red fox", "fox den", "den red"] * 20
    logistic = LogisticRegression()
    table = [
        LogisticRegression(), SGDClassifier(), SVC(probability=False), LinearSVC(), DecisionTreeClassifier(),
        RandomForestClassifier(5), GradientBoostingClassifier(n_estimators=3), HistGradientBoostingClassifier(max_iter=3),
        AdaBoostClassifier(n_estimators=3), KNeighborsClassifier(), GaussianNB(), MultinomialNB(), MLPClassifier((4,), max_iter=5),
        GaussianProcessClassifier(), CalibratedClassifierCV(logistic), OneVsRestClassifier(logistic),
        VotingClassifier([("a", logistic)]), StackingClassifier([("a", logistic)]), GridSearchCV(logistic, {"C": [1, 2]}, cv=2),
        make_pipeline(SimpleImputer(), FunctionTransformer(np.log1p), StandardScaler(), PCA(2), SelectKBest(k=1), logistic),
        make_pipeline(ColumnTransformer([("o", OneHotEncoder(handle_unknown="ignore"), [0]), ("s", StandardScaler(), [1])]), logistic),
    ]  # fmt: skip
    fitted: list[Any] = [estimator.fit(X, y) for estimator in table]
    fitted += [
        KMeans(2, n_init=1).fit(X),
        GaussianMixture(2).fit(X),
        IsolationForest(n_estimators=3).fit(X),
        TruncatedSVD(2).fit(X),
    ]
    fitted += [
        make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, y),
        CountVectorizer().fit(texts),
        LabelEncoder().fit(y),
    ]
    return fitted


def test_scikit_learn(tmp_path: Path) -> None:
    """Fitted estimators, by pickle and by joblib, import nothing but what builds them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator in estimators():
            buffer = io.BytesIO()
            joblib.dump(estimator, buffer)
            for data in (pickle.dumps(estimator), pickle.dumps(estimator, 2), buffer.getvalue()):
                assert levels(tmp_path / "m.pkl", data) == {"pickle-model-file": Level.WARNING}, estimator
