"""File access: which argument is the path, and whether the place is the model's own."""

from __future__ import annotations

import re

from safe_triton.audit.pycode.value import Value

READ, WRITE, MODE = "reads", "writes", "opens"

# Function -> (what it does, position of the path, its keyword).
FUNCTIONS: dict[str, tuple[str, int, str]] = {
    "builtins.open": (MODE, 0, "file"),
    "os.open": (WRITE, 0, "path"),
    "os.fdopen": (READ, 0, "fd"),
    **{
        f"os.{name}": (READ, 0, "path")
        for name in ("listdir", "scandir", "walk", "stat", "readlink", "chdir", "access")
    },
    **{
        f"os.{name}": (WRITE, 0, "path")
        for name in (
            "remove", "unlink", "rmdir", "removedirs", "mkdir", "makedirs", "chmod", "chown", "truncate", "mkfifo",
            "mknod", "rename", "renames", "replace", "link", "symlink", "utime", "chroot", "setxattr",
        )
    },
    **{f"shutil.{name}": (WRITE, 1, "dst") for name in ("copy", "copy2", "copyfile", "copytree", "move", "copymode")},
    "shutil.rmtree": (WRITE, 0, "path"),
    "shutil.make_archive": (WRITE, 0, "base_name"),
    "shutil.unpack_archive": (WRITE, 1, "extract_dir"),
    "glob.glob": (READ, 0, "pathname"),
    "glob.iglob": (READ, 0, "pathname"),
    "linecache.getline": (READ, 0, "filename"),
    "linecache.getlines": (READ, 0, "filename"),
    "fileinput.input": (READ, 0, "files"),
    "mmap.mmap": (READ, 0, "fileno"),
    "sqlite3.connect": (WRITE, 0, "database"),
    "dbm.open": (READ, 0, "file"),
    "zipfile.ZipFile": (MODE, 0, "file"),
    "tarfile.open": (MODE, 0, "name"),
    "gzip.open": (MODE, 0, "filename"),
    "bz2.open": (MODE, 0, "filename"),
    "lzma.open": (MODE, 0, "filename"),
    "h5py.File": (MODE, 0, "name"),
    **{
        f"numpy.{name}": (READ, 0, "fname")
        for name in ("load", "loadtxt", "genfromtxt", "fromfile", "memmap", "recfromcsv")
    },
    **{f"numpy.{name}": (WRITE, 0, "file") for name in ("save", "savez", "savez_compressed", "savetxt")},
    **{
        f"pandas.read_{name}": (READ, 0, "filepath_or_buffer")
        for name in ("csv", "json", "parquet", "excel", "pickle", "table", "xml", "html", "hdf")
    },
    "torch.load": (READ, 0, "f"),
    "torch.save": (WRITE, 1, "f"),
    "torch.jit.load": (READ, 0, "f"),
    "torch.jit.save": (WRITE, 1, "f"),
    "joblib.load": (READ, 0, "filename"),
    "joblib.dump": (WRITE, 1, "filename"),
    "cv2.imread": (READ, 0, "filename"),
    "cv2.imwrite": (WRITE, 0, "filename"),
    "cv2.VideoCapture": (READ, 0, "filename"),
    "cv2.VideoWriter": (WRITE, 0, "filename"),
    "PIL.Image.open": (READ, 0, "fp"),
    "imageio.imread": (READ, 0, "uri"),
    "imageio.v2.imread": (READ, 0, "uri"),
    "imageio.v3.imread": (READ, 0, "uri"),
    "skimage.io.imread": (READ, 0, "fname"),
    "soundfile.read": (READ, 0, "file"),
    "soundfile.write": (WRITE, 0, "file"),
    "librosa.load": (READ, 0, "path"),
    "torchaudio.load": (READ, 0, "uri"),
    "torchaudio.save": (WRITE, 0, "uri"),
    "torchvision.io.read_image": (READ, 0, "path"),
    "torchvision.io.read_file": (READ, 0, "path"),
    "wave.open": (MODE, 0, "f"),
    "onnxruntime.InferenceSession": (READ, 0, "path_or_bytes"),
    "logging.basicConfig": (WRITE, -1, "filename"),
    "logging.FileHandler": (WRITE, 0, "filename"),
    "logging.handlers.RotatingFileHandler": (WRITE, 0, "filename"),
    "aiofiles.open": (MODE, 0, "file"),
    "anyio.open_file": (MODE, 0, "file"),
}  # fmt: skip

# Methods of a path, which is the receiver.
METHODS: dict[str, str] = {
    **dict.fromkeys(("read_text", "read_bytes", "iterdir", "glob", "rglob", "stat"), READ),
    **dict.fromkeys(
        ("write_text", "write_bytes", "unlink", "rmdir", "mkdir", "touch", "rename", "replace", "chmod", "symlink_to",
         "hardlink_to", "link_to"),
        WRITE,
    ),
    "open": MODE,
}  # fmt: skip

# Methods of anything that write to the path they are given first.
WRITERS = frozenset(
    {"tofile", "save", "savefig", "to_csv", "to_pickle", "to_parquet", "to_excel", "to_hdf", "to_feather"}
    | {"save_pretrained", "write_image", "savez"}
)

PATH_RESULTS = ("pathlib.Path()", "pathlib.Path.home()", "pathlib.Path.cwd()")
# What is no path, though it stands where one may.
_BUFFERS = re.compile(r"(?:io\.|_io\.)?(?:BytesIO|StringIO)\(\)|.*(?:urlopen|get)\(\)|sys\.std\w+")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_HARMLESS = frozenset({"/dev/null", "/dev/urandom", "/dev/random", ":memory:"})


def is_absolute(text: str) -> bool:
    """Tell a path that starts at the root, at a home folder, or is an address."""
    return text.startswith(("/", "~", "\\\\")) or bool(_DRIVE.match(text))


def leaves(text: str, *, is_own: bool = False) -> bool:
    """Tell a relative path that goes up; from a model's version folder one step leads to the model's own folder."""
    return text.replace("\\", "/").split("/").count("..") > is_own


def is_write_mode(mode: Value | None) -> bool:
    """Tell a mode that writes; an unknown one may."""
    if mode is None:
        return False
    return any(letter in text for text in mode.texts() for letter in "wax+")


def judge(path: Value, *, writes: bool) -> str:
    """Return what is wrong with an access to a path, nothing when it is the model's own affair."""
    is_scratch = path.is_scratch and (not path.is_request or bool(path.names & {"<scratch>", "<scratch>.name"}))
    if is_scratch or any(_BUFFERS.fullmatch(name) for name in path.names):
        return ""
    verb = "writes" if writes else "reads"
    if path.is_request:
        return f"{verb} a path that request data decide"
    for text in [*path.texts(), path.prefix]:
        if is_absolute(text) and text not in _HARMLESS:
            return f"{verb} {text[:80]!r}, outside the model's folder"
        if leaves(text, is_own=path.is_own):
            return f"{verb} {text[:80]!r}, which leaves the folder"
    if set(path.texts()) & _HARMLESS:
        return ""
    if writes and not all(isinstance(item, int) for item in path.constants or ("",)):
        return "writes a file; a model may write to its scratch folder only"
    return ""
