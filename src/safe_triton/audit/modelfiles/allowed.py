"""The names that a pickle may import: constructors and rebuilding functions that do nothing else, whatever they get.

An allow-list, since every deny-list has been got round. A name is matched whole; a row with a pattern covers a family
of classes whose constructors only keep what they are given. Modules that hold anything else have no such row: scipy's
distributions, for one, format their state into ``exec``.
"""

from __future__ import annotations

import re
import sys

from safe_triton.audit.modelfiles.opcodes import Global

_NAMES = """
builtins: set frozenset list tuple dict int float complex bool str bytes bytearray slice range object NoneType Ellipsis
builtins: NotImplemented long unicode xrange type(None) reversed enumerate zip Exception ValueError TypeError KeyError
builtins: RuntimeError AssertionError IndexError OSError NotImplementedError StopIteration
_codecs: encode
copyreg: _reconstructor __newobj__ __newobj_ex__
collections: OrderedDict defaultdict deque Counter ChainMap UserDict UserList UserString
types: SimpleNamespace NoneType EllipsisType MappingProxyType
datetime: datetime date time timedelta timezone tzinfo
zoneinfo: ZoneInfo ZoneInfo._unpickle
decimal: Decimal Context
_decimal: Decimal Context
fractions: Fraction
uuid: UUID SafeUUID
ipaddress: IPv4Address IPv6Address IPv4Network IPv6Network
array: array _array_reconstructor
functools: partial
itertools: count chain repeat
_operator: itemgetter
operator: itemgetter
random: Random
string: Template
threading: Lock RLock
re: _compile
pathlib: Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath
pathlib._local: Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath
argparse: Namespace
logging: getLogger
time: struct_time
numpy: ndarray dtype matrix ma recarray record
numpy: bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc uintc intp uintp longlong ulonglong float16
numpy: float32 float64 float128 longdouble complex64 complex128 complex256 clongdouble str_ bytes_ void object_
numpy: datetime64 timedelta64 generic number integer floating
numpy: mean median std var sum max min argmax argmin prod percentile round around clip asarray array transpose
numpy.core.multiarray: _reconstruct scalar array
numpy._core.multiarray: _reconstruct scalar array
numpy.core.numeric: _frombuffer
numpy._core.numeric: _frombuffer
numpy.core.records: recarray record
numpy._core.records: recarray record
numpy.rec: recarray record
numpy.matrixlib.defmatrix: matrix
numpy.ma.core: _mareconstruct MaskedArray MaskedConstant
numpy.ma: MaskedArray
numpy.random: RandomState Generator
numpy.random._pickle: __randomstate_ctor __bit_generator_ctor __generator_ctor
numpy.random.mtrand: RandomState
numpy.random._generator: Generator
numpy.random._mt19937: MT19937
numpy.random._pcg64: PCG64 PCG64DXSM
numpy.random._philox: Philox
numpy.random._sfc64: SFC64
numpy.random.bit_generator: SeedSequence __pyx_unpickle_SeedSequence
numpy.dtypes: Float16DType Float32DType Float64DType Int8DType Int16DType Int32DType Int64DType UInt8DType BoolDType
numpy.dtypes: StrDType BytesDType ObjectDType DateTime64DType TimeDelta64DType StringDType
joblib.numpy_pickle: NumpyArrayWrapper NDArrayWrapper ZNDArrayWrapper
joblib.numpy_pickle_compat: NDArrayWrapper ZNDArrayWrapper
sklearn.externals.joblib.numpy_pickle: NumpyArrayWrapper
pandas._libs.internals: _unpickle_block
pandas._libs.arrays: __pyx_unpickle_NDArrayBacked
pandas._libs.tslibs.timestamps: Timestamp _unpickle_timestamp
pandas._libs.tslibs.timedeltas: Timedelta _timedelta_unpickle
pandas._libs.tslibs.nattype: _nat_unpickle
pandas._libs.tslibs.offsets: Day Hour Minute Second MonthEnd BusinessDay DateOffset
pandas.core.frame: DataFrame
pandas: DataFrame Series Index RangeIndex MultiIndex Categorical Timestamp
pandas.core.series: Series
pandas.core.internals.managers: BlockManager SingleBlockManager
pandas.core.internals.blocks: new_block Block NumericBlock ObjectBlock
pandas.core.indexes.base: Index _new_Index
pandas.core.indexes.numeric: Int64Index Float64Index UInt64Index NumericIndex
pandas.core.indexes.range: RangeIndex
pandas.core.indexes.multi: MultiIndex
pandas.core.indexes.datetimes: DatetimeIndex _new_DatetimeIndex
pandas.core.indexes.timedeltas: TimedeltaIndex
pandas.core.indexes.category: CategoricalIndex
pandas.core.indexes.interval: IntervalIndex
pandas.core.indexes.frozen: FrozenList
pandas.core.dtypes.dtypes: CategoricalDtype DatetimeTZDtype PeriodDtype IntervalDtype
torch._utils: _rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state
torch._utils: _rebuild_qtensor _rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_meta_tensor_no_storage
torch._utils: _rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor _rebuild_xla_tensor
torch._utils: _rebuild_nested_tensor _rebuild_wrapper_subclass _set_obj_state _get_restore_location
torch._tensor: Tensor _rebuild_from_type_v2 _rebuild_from_type
torch: Tensor Size device dtype Generator ScriptObject
torch: float float16 float32 float64 double half bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool short
torch: int long complex32 complex64 complex128 qint8 quint8 qint32 quint4x2 float8_e4m3fn float8_e5m2 float8_e4m3fnuz
torch: float8_e5m2fnuz strided sparse_coo sparse_csr per_tensor_affine per_channel_affine contiguous_format
torch: channels_last preserve_format
torch: relu tanh sigmoid softmax
torch.serialization: _get_layout
torch.storage: _load_from_bytes TypedStorage UntypedStorage _LegacyStorage
torch.nn.parameter: Parameter Buffer UninitializedParameter
torch.nn: Parameter
torch._C._nn: gelu silu
torch._C: _get_tracing_state dtype device Generator
torch._C._functions: UndefinedGrad
torch.nn.functional: relu gelu silu tanh sigmoid softmax leaky_relu elu selu mish hardswish
torch.jit._pickle: build_intlist build_tensorlist build_doublelist build_boollist build_tensor_from_id restore_type_tag
torch.torch_version: TorchVersion
torch.distributions.constraints: _Real
torch.utils._ordered_set: OrderedSet
xgboost.sklearn: XGBModel XGBClassifier XGBRegressor XGBRanker XGBRFClassifier XGBRFRegressor
xgboost.core: Booster DMatrix
xgboost: XGBClassifier XGBRegressor Booster
xgboost.compat: XGBoostLabelEncoder
lightgbm.sklearn: LGBMModel LGBMClassifier LGBMRegressor LGBMRanker
lightgbm.compat: _LGBMLabelEncoder _LGBMModelBase
lightgbm.basic: Booster Dataset
lightgbm: LGBMClassifier LGBMRegressor Booster
catboost.core: CatBoost CatBoostClassifier CatBoostRegressor CatBoostRanker
catboost: CatBoostClassifier CatBoostRegressor
sklearn.preprocessing._function_transformer: _identity
sklearn.feature_selection._univariate_selection: f_classif f_regression f_oneway chi2 r_regression
sklearn.feature_selection._mutual_info: mutual_info_classif mutual_info_regression
sklearn.metrics._classification: accuracy_score balanced_accuracy_score f1_score precision_score recall_score log_loss
sklearn.metrics._ranking: roc_auc_score average_precision_score
sklearn.metrics._regression: r2_score mean_squared_error mean_absolute_error root_mean_squared_error max_error
sklearn.metrics._scorer: _passthrough_scorer
sklearn.metrics.pairwise: rbf_kernel linear_kernel polynomial_kernel euclidean_distances cosine_similarity
sklearn.decomposition._fastica: _logcosh _exp _cube
_loss: CyHalfSquaredError CyAbsoluteError CyPinballLoss CyHuberLoss CyHalfPoissonLoss CyHalfGammaLoss CyHalfTweedieLoss
_loss: CyHalfTweedieLossIdentity CyHalfBinomialLoss CyHalfMultinomialLoss CyExponentialLoss
_loss: __pyx_unpickle_CyHalfMultinomialLoss
scipy.sparse._csr: csr_matrix csr_array
scipy.sparse._csc: csc_matrix csc_array
scipy.sparse._coo: coo_matrix coo_array
scipy.sparse._dok: dok_matrix dok_array
scipy.sparse._lil: lil_matrix lil_array
scipy.sparse._dia: dia_matrix dia_array
scipy.sparse._bsr: bsr_matrix bsr_array
scipy.sparse.csr: csr_matrix
scipy.sparse.csc: csc_matrix
scipy.sparse.coo: coo_matrix
scipy.sparse: csr_matrix csc_matrix coo_matrix csr_array csc_array
scipy.spatial._ckdtree: cKDTree cKDTreeNode
scipy.spatial._kdtree: KDTree
scipy.spatial.ckdtree: cKDTree
scipy.interpolate._interpolate: interp1d PPoly
scipy.interpolate._bsplines: BSpline
scipy.interpolate._cubic: CubicSpline PchipInterpolator Akima1DInterpolator
scipy.special._ufuncs: expit logit
omegaconf.dictconfig: DictConfig
omegaconf.listconfig: ListConfig
omegaconf.nodes: AnyNode StringNode IntegerNode FloatNode BooleanNode
omegaconf.base: ContainerMetadata Metadata
typing: Any
ultralytics.utils: IterableSimpleNamespace
"""

_UFUNCS = frozenset(
    [
        "absolute",
        "add",
        "arccos",
        "arccosh",
        "arcsin",
        "arcsinh",
        "arctan",
        "arctan2",
        "arctanh",
        "cbrt",
        "ceil",
        "conjugate",
        "copysign",
        "cos",
        "cosh",
        "deg2rad",
        "degrees",
        "divide",
        "equal",
        "exp",
        "exp2",
        "expm1",
        "fabs",
        "floor",
        "floor_divide",
        "fmax",
        "fmin",
        "fmod",
        "greater",
        "greater_equal",
        "hypot",
        "isfinite",
        "isinf",
        "isnan",
        "less",
        "less_equal",
        "log",
        "log10",
        "log1p",
        "log2",
        "logaddexp",
        "logical_and",
        "logical_not",
        "logical_or",
        "maximum",
        "minimum",
        "mod",
        "multiply",
        "negative",
        "not_equal",
        "positive",
        "power",
        "rad2deg",
        "radians",
        "reciprocal",
        "remainder",
        "rint",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "subtract",
        "tan",
        "tanh",
        "true_divide",
        "trunc",
    ]
)
_UFUNC_MODULES = frozenset(
    {"numpy", "numpy.core._multiarray_umath", "numpy._core._multiarray_umath", "numpy.core.umath", "numpy.core"}
)

# Families: every class (a name with a capital, private or not) of the modules that match.
_CLASS_MODULES = re.compile(
    r"""sklearn\.(?:
          (?:base|calibration|cluster|compose|covariance|cross_decomposition|decomposition|discriminant_analysis|dummy
            |ensemble|feature_extraction|feature_selection|gaussian_process|impute|isotonic|kernel_approximation
            |kernel_ridge|linear_model|manifold|metrics|mixture|model_selection|multiclass|multioutput|naive_bayes
            |neighbors|neural_network|pipeline|preprocessing|random_projection|semi_supervised|svm|tree|_loss
            |frozen)(?:\.\w+)*
          |utils\._bunch|utils\.deprecation|utils\.metadata_routing|utils\._metadata_requests|utils\._set_output
          |utils\._random|utils)$
      |torch\.nn\.modules\.\w+$|torch\.nn\.(?:quantized|intrinsic|qat)(?:\.\w+)*$|torch\.ao\.nn(?:\.\w+)*$
      |torch\.optim\.\w+$|torch\.optim$
      |torchvision\.models(?:\.\w+)*$|torchvision\.ops\.\w+$|torchvision\.transforms\.(?:transforms|functional)$
      |timm\.(?:models|layers)(?:\.\w+)*$
      |transformers\.models\.\w+\.(?:modeling|configuration|tokenization|image_processing)_\w+$
      |transformers\.(?:activations|configuration_utils|generation\.configuration_utils|tokenization_utils_base
          |trainer_utils|training_args)$
      |ultralytics\.nn\.(?:tasks|modules)(?:\.\w+)*$|models\.(?:yolo|common)$
      |tokenizers(?:\.models)?$|accelerate\.(?:state|utils\.dataclasses)$
    """,
    re.VERBOSE,
)
_CLASS_NAME = re.compile(r"_?_?[A-Z][A-Za-z0-9_]*\Z")
_REBUILDERS = re.compile(r"(?:__pyx_unpickle_\w+|newObj)\Z")
_STORAGE = re.compile(r"[A-Z][A-Za-z0-9]*Storage\Z")
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections", "UserList": "collections"}


def _table() -> dict[str, frozenset[str]]:
    """Parse the rows above, once."""
    rows: dict[str, set[str]] = {}
    for line in _NAMES.strip().splitlines():
        module, _, names = line.partition(":")
        rows.setdefault(module, set()).update(names.split())
    return {module: frozenset(names) for module, names in rows.items()}


ALLOWED = _table()

# Where a name of these is imported, the message can say more than "not on the list".
RUNS_CODE = frozenset(
    [
        "builtins",
        "os",
        "posix",
        "nt",
        "subprocess",
        "sys",
        "runpy",
        "pty",
        "socket",
        "shutil",
        "importlib",
        "commands",
        "code",
        "codeop",
        "timeit",
        "pdb",
        "bdb",
        "trace",
        "profile",
        "cProfile",
        "webbrowser",
        "platform",
        "asyncio",
        "multiprocessing",
        "threading",
        "ctypes",
        "_ctypes",
        "cffi",
        "pickle",
        "_pickle",
        "dill",
        "cloudpickle",
        "marshal",
        "types",
        "pydoc",
        "operator",
        "_operator",
        "functools",
        "inspect",
        "tempfile",
        "pip",
        "ensurepip",
        "venv",
        "distutils",
        "numpy.testing",
        "numpy.f2py",
        "torch.hub",
        "torch.jit",
        "torch.utils",
        "requests",
        "httplib",
        "urllib",
        "http",
        "ftplib",
        "smtplib",
        "telnetlib",
        "imaplib",
        "poplib",
        "ssl",
        "aiohttp",
        "httpx",
        "_posixsubprocess",
        "_io",
        "io",
        "signal",
        "linecache",
        "zipimport",
        "pkgutil",
        "idlelib",
        "lib2to3",
        "test",
        "doctest",
        "unittest",
        "logging",
        "sqlite3",
        "xmlrpc",
        "wsgiref",
    ]
)


def is_allowed(name: Global, *, is_torchscript: bool = False) -> bool:
    """Tell whether importing and calling a name from a pickle does nothing but make a value.

    Args:
        name: what the pickle imports.
        is_torchscript: the pickle lies in a TorchScript archive, whose own classes no Python imports.
    """
    module = _RENAMED.get(name.module, name.module)
    if is_torchscript and (module == "__torch__" or module.startswith("__torch__.")):
        return True
    if name.name in ALLOWED.get(module, frozenset()):
        return True
    if module in _UFUNC_MODULES and name.name in _UFUNCS:
        return True
    if module in {"torch", "torch.cuda", "torch.storage"} and _STORAGE.match(name.name):
        return True
    # Functions of these modules stay refused: they re-export attrgetter and the like.
    return bool(_CLASS_MODULES.match(module) and (_CLASS_NAME.match(name.name) or _REBUILDERS.match(name.name)))


def is_installed_everywhere(module: str) -> bool:
    """Tell whether a module belongs to Python itself, so that naming it is no accident of random bytes."""
    root = module.partition(".")[0]
    return root in sys.stdlib_module_names or root in _RENAMED or root in {"commands", "httplib", "nt"}


def runs_code(name: Global) -> bool:
    """Tell whether a name belongs to a module that is known for running code, files or the network."""
    module = _RENAMED.get(name.module, name.module)
    return module in RUNS_CODE or module.partition(".")[0] in RUNS_CODE
