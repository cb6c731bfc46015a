"""Functions by what calling them does. Names are whole dotted origins; ``x().y`` is a method of what ``x`` returns."""

from __future__ import annotations

import re
from functools import lru_cache

SHELL, CODE, LOAD, NETWORK, IMPORT, NATIVE = (
    "py-shell-exec",
    "py-dynamic-code",
    "py-unsafe-deserialize",
    "py-network-access",
    "py-dynamic-import",
    "py-native-code",
)


def _words(text: str) -> list[str]:
    """Return the words of a table."""
    return text.split()


# The same function under another name.
RENAMED: tuple[tuple[str, str], ...] = (
    ("posix.", "os."),
    ("nt.", "os."),
    ("posixpath.", "os.path."),
    ("ntpath.", "os.path."),
    ("_pickle.", "pickle."),
    ("cPickle.", "pickle."),
    ("pickle5.", "pickle."),
    ("six.moves.cPickle.", "pickle."),
    ("__builtin__.", "builtins."),
    ("six.moves.builtins.", "builtins."),
    ("six.moves.urllib.", "urllib."),
    ("importlib.__import__", "builtins.__import__"),
    ("importlib._bootstrap.", "importlib."),
    ("importlib._bootstrap_external.", "importlib.machinery."),
    ("torch.serialization.load", "torch.load"),
    ("numpy.lib.npyio.", "numpy."),
    ("numpy.lib._npyio_impl.", "numpy."),
    ("joblib.numpy_pickle.", "joblib."),
    ("sklearn.externals.joblib.", "joblib."),
    ("cloudpickle.cloudpickle.", "cloudpickle."),
    ("dill._dill.", "dill."),
    ("pandas.io.pickle.", "pandas."),
    ("pandas.io.api.", "pandas."),
    ("pathlib.PosixPath", "pathlib.Path"),
    ("pathlib.PurePath", "pathlib.Path"),
    ("pathlib._local.", "pathlib."),
    ("io.open", "builtins.open"),
    ("io.FileIO", "builtins.open"),
    ("_io.FileIO", "builtins.open"),
    ("_io.open", "builtins.open"),
    ("codecs.open", "builtins.open"),
    ("_operator.", "operator."),
    ("tensorflow.keras.", "keras."),
    ("tensorflow.python.keras.", "keras."),
    ("tensorflow.compat.v1.", "tensorflow."),
    ("tensorflow.compat.v2.", "tensorflow."),
    ("tf_keras.", "keras."),
    ("keras.saving.", "keras.models."),
    ("keras.src.saving.", "keras.models."),
    ("keras.src.", "keras."),
    ("_socket.", "socket."),
    ("_ctypes.", "ctypes."),
    ("concurrent.futures.thread.", "concurrent.futures."),
)

EXACT: dict[str, str] = {
    **dict.fromkeys(
        _words(
            """os.system os.popen os.popen2 os.popen3 os.popen4 os.startfile os.posix_spawn os.posix_spawnp pty.spawn
            commands.getoutput commands.getstatusoutput popen2.popen2 popen2.popen3 popen2.popen4 platform.popen
            popen2.Popen3 popen2.Popen4
            _posixsubprocess.fork_exec asyncio.create_subprocess_shell asyncio.create_subprocess_exec
            asyncio.subprocess.create_subprocess_shell asyncio.subprocess.create_subprocess_exec pexpect.spawn
            pexpect.run pexpect.spawnu pexpect.popen_spawn.PopenSpawn distutils.spawn.spawn
            setuptools._distutils.spawn.spawn numpy.distutils.exec_command.exec_command invoke.run
            invoke.Context().run fabric.Connection().run fabric.Connection().local
            fabric.Connection().sudo fabric.api.local fabric.api.run sh.Command plumbum.local
            paramiko.SSHClient().exec_command IPython.get_ipython().system IPython.utils.process.system
            IPython.utils.process.getoutput delegator.run envoy.run asyncio.get_event_loop().subprocess_shell
            asyncio.get_event_loop().subprocess_exec asyncio.get_running_loop().subprocess_shell
            asyncio.get_running_loop().subprocess_exec asyncio.new_event_loop().subprocess_shell
            asyncio.new_event_loop().subprocess_exec multiprocessing.util.spawnv_passfds webbrowser.open os.fork
            os.forkpty pty.fork psutil.Popen trio.run_process trio.open_process anyio.run_process anyio.open_process
            gevent.subprocess.Popen gevent.subprocess.run gevent.os.fork twisted.internet.reactor.spawnProcess
            ffmpeg.run sarge.run subprocess32.Popen subprocess32.call subprocess32.check_output"""
        ),
        SHELL,
    ),
    **dict.fromkeys(
        _words(
            """builtins.eval builtins.exec builtins.compile builtins.execfile runpy.run_path runpy.run_module
            runpy._run_code runpy._run_module_code code.interact code.InteractiveInterpreter code.InteractiveConsole
            code.InteractiveInterpreter().runcode code.InteractiveInterpreter().runsource
            code.InteractiveConsole().push codeop.compile_command codeop.CommandCompiler timeit.timeit timeit.repeat
            timeit.Timer timeit.main cProfile.run cProfile.runctx profile.run profile.runctx bdb.Bdb().run
            bdb.Bdb().runeval pdb.run pdb.runeval pdb.runcall pdb.set_trace builtins.breakpoint trace.Trace().run
            trace.Trace().runctx types.FunctionType types.CodeType types.LambdaType logging.config.listen
            sympy.sympify sympy.S sympy.parsing.sympy_parser.parse_expr sympy.parse_expr sympy.core.sympify.sympify
            numexpr.evaluate numexpr.re_evaluate pandas.eval pandas.DataFrame().eval pandas.DataFrame().query
            asteval.Interpreter asteval.Interpreter()
            asteval.Interpreter().eval simpleeval.simple_eval numpy.f2py.compile numpy.testing.rundocs numpy.safe_eval
            numpy.lib.utils.safe_eval doctest.debug_src doctest.DocTestRunner().run pydoc.pipepager
            torch.jit.CompilationUnit IPython.get_ipython().run_cell IPython.embed js2py.eval_js
            py_mini_racer.MiniRacer().eval execjs.eval RestrictedPython.compile_restricted idlelib.run.Executive
            test.support.run_code dis.dis lib2to3.pgen2.driver.load_grammar _testcapi.run_in_subinterp
            _xxsubinterpreters.run_string _interpreters.exec interpreters.Interpreter().exec
            builtins.__build_class__ jinja2.Template jinja2.Environment().from_string jinja2.environment.Template
            mako.template.Template tornado.template.Template bokeh.core.templates Cheetah.Template.Template
            inspect.currentframe doctest.run_docstring_examples doctest.testmod"""
        ),
        CODE,
    ),
    **dict.fromkeys(
        _words(
            """pickle.load pickle.loads pickle.Unpickler pickle._load pickle._loads pickle._Unpickler dill.load
            dill.loads dill.load_session dill.load_module dill.Unpickler dill.source.importable cloudpickle.load
            cloudpickle.loads joblib.load torch.load torch.legacy.load torch.package.PackageImporter
            torch.multiprocessing.reductions.rebuild_tensor numpy.load numpy.lib.format.read_array
            numpy.NpzFile marshal.load marshal.loads shelve.open shelve.Shelf shelve.DbfilenameShelf
            jsonpickle.decode jsonpickle.loads jsonpickle.unpickler.decode jsonpickle.Unpickler
            jsonpickle.unpickler.Unpickler yaml.load yaml.load_all yaml.unsafe_load yaml.unsafe_load_all
            yaml.full_load yaml.full_load_all yaml.UnsafeLoader yaml.Loader yaml.FullLoader yaml.CLoader
            ruamel.yaml.load ruamel.yaml.YAML pandas.read_pickle pandas.read_hdf pandas.HDFStore
            keras.models.load_model keras.models.model_from_json keras.models.model_from_config
            keras.models.model_from_yaml keras.layers.deserialize keras.models.deserialize_keras_object
            keras.utils.deserialize_keras_object keras.config.enable_unsafe_deserialization
            keras.models.enable_unsafe_deserialization skops.io.load skops.io.loads mlflow.pyfunc.load_model
            mlflow.sklearn.load_model mlflow.pytorch.load_model fastai.learner.load_learner
            fastai.basics.load_learner fastai.vision.all.load_learner fastai.text.all.load_learner
            fastai.tabular.all.load_learner srsly.pickle_loads srsly.read_pickle compress_pickle.load
            compress_pickle.loads hickle.load multiprocessing.reduction.ForkingPickler.loads
            multiprocessing.reduction.loads multiprocessing.connection.Client ray.cloudpickle.load
            ray.cloudpickle.loads pyarrow.deserialize pyarrow.deserialize_pandas paddle.load mxnet.nd.load
            chainer.serializers.load_npz statsmodels.iolib.smpickle.load_pickle statsmodels.api.load
            pycaret.classification.load_model pycaret.regression.load_model nltk.data.load
            bentoml.picklable_model.load_model bentoml.sklearn.load_model stable_baselines3.PPO.load
            stable_baselines3.SAC.load gensim.models.Word2Vec.load gensim.models.Doc2Vec.load
            gensim.models.KeyedVectors.load gensim.utils.unpickle gensim.models.FastText.load
            gensim.models.LdaModel.load gensim.utils.SaveLoad.load sparse.load_npz sklearn.datasets._base.load_files
            xmlrpc.client.loads lightning.pytorch.LightningModule.load_from_checkpoint
            pytorch_lightning.LightningModule.load_from_checkpoint flair.models.SequenceTagger.load
            ultralytics.nn.tasks.torch_safe_load ultralytics.nn.tasks.attempt_load_weights dill.loads
            klepto.archives.file_archive sqlitedict.SqliteDict diskcache.Cache pickleshare.PickleShareDB
            anycache.AnyCache numpy.DataSource zodbpickle.loads zodbpickle.pickle.loads kombu.serialization.loads
            copyreg.__newobj__ billiard.reduction.loads twisted.persisted.aot.unjellyFromSource
            spacy.util.load_model_from_path quickle.loads spacy.load torch.jit.load"""
        ),
        LOAD,
    ),
    **dict.fromkeys(
        _words(
            """builtins.__import__ importlib.import_module importlib.reload importlib.util.spec_from_file_location
            importlib.util.module_from_spec importlib.machinery.SourceFileLoader
            importlib.machinery.SourcelessFileLoader importlib.util.find_spec imp.load_source imp.load_module
            imp.load_compiled imp.find_module pydoc.locate pydoc.importfile pkgutil.get_loader pkgutil.find_loader
            zipimport.zipimporter site.addsitedir hydra.utils.instantiate hydra.utils.get_class
            hydra.utils.get_method pkg_resources.load_entry_point importlib.metadata.entry_points
            pkgutil.resolve_name django.utils.module_loading.import_string werkzeug.utils.import_string
            mmengine.utils.import_modules_from_strings mmcv.Config.fromfile mmengine.Config.fromfile
            torch.hub._import_module zope.dottedname.resolve.resolve stevedore.driver.DriverManager"""
        ),
        IMPORT,
    ),
    **dict.fromkeys(
        _words(
            """importlib.machinery.ExtensionFileLoader imp.load_dynamic _imp.create_dynamic torch.ops.load_library
            torch.classes.load_library torch.utils.cpp_extension.load torch.utils.cpp_extension.load_inline
            torch.utils.cpp_extension._import_module_from_library tensorflow.load_op_library tensorflow.load_library
            tensorflow.load_file_system_library numpy.ctypeslib.load_library numpy.ctypeslib.as_array cupy.RawKernel
            cupy.RawModule pycuda.compiler.SourceModule onnxruntime.SessionOptions().register_custom_ops_library
            tvm.runtime.load_module onnxruntime.SessionOptions().register_custom_ops
            tensorrt.get_plugin_registry().load_library cffi.FFI cffi.FFI().dlopen cffi.FFI().verify weave.inline
            cppyy.cppdef cppyy.load_library cppyy.include llvmlite.binding.load_library_permanently
            pyximport.install Cython.inline cython.inline dl.open paddle.utils.cpp_extension.load sys.setdlopenflags
            scipy.LowLevelCallable posix_ipc.SharedMemory xgboost.core._load_lib torch._C._jit_to_backend
            jpype.startJVM jnius.autoclass"""
        ),
        NATIVE,
    ),
    **dict.fromkeys(
        _words(
            """urllib.request.urlopen urllib.request.urlretrieve urllib.request.Request urllib.request.build_opener
            urllib.urlopen urllib2.urlopen urllib.urlretrieve urllib.request.URLopener urllib.request.FancyURLopener
            socket.socket socket.create_connection socket.create_server socket.socketpair socket.getaddrinfo
            socket.gethostbyname socket.fromfd socketserver.TCPServer http.client.HTTPConnection
            http.client.HTTPSConnection httplib.HTTPConnection httplib.HTTPSConnection http.server.HTTPServer
            http.server.ThreadingHTTPServer ftplib.FTP ftplib.FTP_TLS smtplib.SMTP smtplib.SMTP_SSL smtplib.LMTP
            telnetlib.Telnet imaplib.IMAP4 imaplib.IMAP4_SSL poplib.POP3 poplib.POP3_SSL nntplib.NNTP
            xmlrpc.client.ServerProxy xmlrpc.server.SimpleXMLRPCServer asyncio.open_connection asyncio.start_server
            asyncio.open_unix_connection asyncio.start_unix_server paramiko.SSHClient paramiko.Transport
            pysftp.Connection grpc.insecure_channel grpc.secure_channel grpc.aio.insecure_channel
            grpc.aio.secure_channel grpc.server websocket.create_connection websocket.WebSocketApp
            websockets.connect websockets.sync.client.connect redis.Redis redis.StrictRedis redis.from_url
            redis.ConnectionPool pymongo.MongoClient psycopg2.connect psycopg.connect pymysql.connect
            MySQLdb.connect mysql.connector.connect sqlalchemy.create_engine asyncpg.connect asyncpg.create_pool
            pika.BlockingConnection kafka.KafkaProducer kafka.KafkaConsumer confluent_kafka.Producer
            elasticsearch.Elasticsearch cassandra.cluster.Cluster zmq.Context nats.connect paho.mqtt.client.Client
            boto3.client boto3.resource boto3.Session botocore.session.get_session google.cloud.storage.Client
            azure.storage.blob.BlobServiceClient minio.Minio smart_open.open fsspec.open fsspec.filesystem
            s3fs.S3FileSystem gcsfs.GCSFileSystem openai.OpenAI openai.AsyncOpenAI openai.AzureOpenAI
            anthropic.Anthropic cohere.Client huggingface_hub.snapshot_download huggingface_hub.hf_hub_download
            huggingface_hub.InferenceClient huggingface_hub.login huggingface_hub.HfApi torch.hub.load
            torch.hub.load_state_dict_from_url torch.hub.download_url_to_file torch.utils.model_zoo.load_url
            torchvision.datasets.utils.download_url keras.utils.get_file nltk.download wget.download gdown.download
            gdown.download_folder dns.resolver.resolve ldap3.Connection websockets.serve aiohttp.ClientSession
            aiohttp.request mlflow.set_tracking_uri wandb.init wandb.login sentry_sdk.init pycurl.Curl uvicorn.run
            flask.Flask().run fastapi.FastAPI rpyc.connect Pyro4.Proxy torch.distributed.rpc.init_rpc
            tritonclient.http.InferenceServerClient tritonclient.grpc.InferenceServerClient
            tritonclient.grpc.aio.InferenceServerClient tritonclient.http.aio.InferenceServerClient
            logging.handlers.HTTPHandler logging.handlers.SysLogHandler logging.handlers.SocketHandler
            logging.handlers.DatagramHandler logging.handlers.SMTPHandler prometheus_client.start_http_server
            prometheus_client.push_to_gateway clickhouse_driver.Client clickhouse_connect.get_client
            influxdb.InfluxDBClient influxdb_client.InfluxDBClient aiomysql.connect aioredis.from_url pyodbc.connect
            cx_Oracle.connect oracledb.connect snowflake.connector.connect consul.Consul etcd3.client hvac.Client
            docker.from_env docker.DockerClient kubernetes.config.load_incluster_config slack_sdk.WebClient
            aiokafka.AIOKafkaProducer aio_pika.connect weaviate.Client qdrant_client.QdrantClient
            pymilvus.connections.connect pymilvus.MilvusClient pinecone.Pinecone pinecone.init opensearchpy.OpenSearch
            neo4j.GraphDatabase.driver motor.motor_asyncio.AsyncIOMotorClient memcache.Client
            pymemcache.client.base.Client
            google.cloud.bigquery.Client google.cloud.pubsub_v1.PublisherClient azure.identity.DefaultAzureCredential"""
        ),
        NETWORK,
    ),
}

PREFIXES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"subprocess(?:32)?\.(?:run|call|Popen|check_call|check_output|getoutput|getstatusoutput)$"), SHELL),
    (re.compile(r"os\.(?:exec[lv]p?e?|spawn[lv]p?e?)$"), SHELL),
    (re.compile(r"sh\.[a-z_]\w*$"), SHELL),
    (re.compile(r"plumbum\.(?:cmd|local)\.\w+$"), SHELL),
    (
        re.compile(
            r"(?:requests|httpx)\.(?:get|post|put|delete|patch|head|options|request|stream|Session|session|Client"
            r"|AsyncClient)$"
        ),
        NETWORK,
    ),
    (re.compile(r"urllib3\.(?:PoolManager|HTTPConnectionPool|HTTPSConnectionPool|ProxyManager|request)$"), NETWORK),
    (
        re.compile(
            r"ctypes\.(?:CDLL|PyDLL|WinDLL|OleDLL|cdll|windll|pydll|pythonapi|memmove|memset|string_at|wstring_at|cast"
            r"|CFUNCTYPE|PYFUNCTYPE|util\.find_library|from_address|c_\w+\.from_address|LibraryLoader|dlopen|POINTER"
            r"|addressof|py_object)\b"
        ),
        NATIVE,
    ),
    (re.compile(r"gensim\.models\.(?:\w+\.)*[A-Z]\w+\.load$"), LOAD),
    (re.compile(r"stable_baselines3\.(?:\w+\.)*[A-Z]\w+\.load$"), LOAD),
    (re.compile(r"(?:dill|cloudpickle|joblib|jsonpickle)\.\w*(?:load|decode|unpickl)\w*$", re.IGNORECASE), LOAD),
    (re.compile(r"mlflow\.\w+\.load_model$"), LOAD),
    (re.compile(r"nemo\.(?:\w+\.)*restore_from$"), LOAD),
    (re.compile(r"fastai\.(?:\w+\.)*load_learner$"), LOAD),
    (re.compile(r"(?:.*\.)?load_from_checkpoint$"), LOAD),
)  # fmt: skip

# Modules hold the modules that they import: subprocess.os is os.
_THROUGH = re.compile(
    r"[a-z_]\w*(?:\.[a-z_]\w*)*?\.((?:os|sys|subprocess|builtins|pickle|socket|importlib|ctypes|shutil)(?:\..+)?)$"
)

# Names that are only worth a word when request data reach them.
ONLY_WITH_REQUEST_DATA = frozenset(
    _words(
        """dis.dis jinja2.Template jinja2.Environment().from_string jinja2.environment.Template
            mako.template.Template tornado.template.Template sympy.sympify sympy.S
            sympy.parsing.sympy_parser.parse_expr sympy.parse_expr sympy.core.sympify.sympify numexpr.evaluate
            pandas.eval pandas.DataFrame().eval pandas.DataFrame().query asteval.Interpreter asteval.Interpreter()
            asteval.Interpreter().eval simpleeval.simple_eval
            socket.getaddrinfo socket.gethostbyname importlib.util.find_spec pkgutil.get_loader pkgutil.find_loader
            inspect.currentframe copyreg.__newobj__ RestrictedPython.compile_restricted keras.layers.deserialize
            urllib.request.Request numpy.ctypeslib.as_array spacy.load torch.jit.load
            sklearn.datasets._base.load_files chainer.serializers.load_npz sparse.load_npz xmlrpc.client.loads"""
    )
)


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """Return a dotted name under its usual spelling."""
    for old, new in RENAMED:
        if name.startswith(old) and (old.endswith(".") or name == old or name[len(old)] in ".("):
            name = new + name[len(old) :]
            break
    through = _THROUGH.match(name)
    return through.group(1) if through and rule_of(name) is None else name


@lru_cache(maxsize=4096)
def rule_of(name: str) -> str | None:
    """Return the rule that a call of a name touches."""
    known = EXACT.get(name)
    if known is not None:
        return known
    for pattern, rule in PREFIXES:
        if pattern.match(name):
            return rule
    return None
