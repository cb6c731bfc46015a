"""Attempts on files: reading the secret, changing what is granted for reading only, leaving traps behind."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import ctypes
import importlib.util
import linecache
import logging
import mmap
import os
import shutil
import socket
import sqlite3
import struct
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np

from tests.attacks.confined.table import LIBC, attempt, call
from tests.attacks.confined.world import World

AT_FDCWD = -100


def _read(descriptor: int) -> bytes:
    return os.read(descriptor, 100)


# --- reading


@attempt()
def builtin_open(world: World) -> object:
    return open(world.secret, "rb").read()


@attempt()
def os_open(world: World) -> object:
    return _read(os.open(world.secret, os.O_RDONLY))


@attempt()
def pathlib_read(world: World) -> object:
    return Path(world.secret).read_bytes()


@attempt()
def open_code(world: World) -> object:
    import io

    return io.open_code(world.secret).read()


@attempt()
def numpy_fromfile(world: World) -> object:
    return np.fromfile(world.secret, dtype=np.uint8).tobytes()


@attempt()
def numpy_memmap(world: World) -> object:
    return bytes(np.memmap(world.secret, dtype=np.uint8, mode="r"))


@attempt()
def mapped_file(world: World) -> object:
    with open(world.secret, "rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:]


@attempt()
def libc_open(world: World) -> object:
    return _read(LIBC.open(world.secret.encode(), os.O_RDONLY))


@attempt()
def libc_fopen(world: World) -> object:
    LIBC.fopen.restype = ctypes.c_void_p
    file = LIBC.fopen(world.secret.encode(), b"r")
    buffer = ctypes.create_string_buffer(100)
    if file:
        LIBC.fread(buffer, 1, 99, ctypes.c_void_p(file))
    return buffer.raw


@attempt()
def raw_openat(world: World) -> object:
    return _read(call("openat", AT_FDCWD, world.secret.encode(), os.O_RDONLY, 0))


@attempt()
def raw_openat2(world: World) -> object:
    how = struct.pack("=QQQ", os.O_RDONLY, 0, 0)
    return _read(call("openat2", AT_FDCWD, world.secret.encode(), how, len(how)))


@attempt()
def reopened_path_descriptor(world: World) -> object:
    handle = os.open(world.secret, os.O_PATH)
    return _read(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY))


@attempt()
def path_descriptor_of_folder(world: World) -> object:
    return _read(os.open("secret", os.O_RDONLY, dir_fd=os.open(world.outside, os.O_PATH)))


@attempt()
def change_folder(world: World) -> object:
    os.chdir(world.outside)
    return Path("secret").read_bytes()


@attempt()
def dots_from_granted(world: World) -> object:
    return Path(world.data, os.path.relpath(world.secret, world.data)).read_bytes()


@attempt()
def proc_root(world: World) -> object:
    return Path(f"/proc/self/root{world.secret}").read_bytes()


@attempt()
def victims_root(world: World) -> object:
    return Path(f"/proc/{world.victim}/root{world.secret}").read_bytes()


@attempt()
def link_in_scratch(world: World) -> object:
    os.symlink(world.secret, f"{world.scratch}/link")
    return Path(f"{world.scratch}/link").read_bytes()


@attempt()
def hard_link_in_scratch(world: World) -> object:
    os.link(world.secret, f"{world.scratch}/hard")
    return Path(f"{world.scratch}/hard").read_bytes()


@attempt()
def moved_into_scratch(world: World) -> object:
    os.rename(world.secret, f"{world.scratch}/moved")
    return Path(f"{world.scratch}/moved").read_bytes()


@attempt()
def copied_by_kernel(world: World) -> object:
    with open(world.secret, "rb") as source, open(f"{world.scratch}/copy", "wb") as target:
        os.copy_file_range(source.fileno(), target.fileno(), 100)
    return Path(f"{world.scratch}/copy").read_bytes()


@attempt()
def sent_by_kernel(world: World) -> object:
    reader, writer = os.pipe()
    os.sendfile(writer, os.open(world.secret, os.O_RDONLY), 0, 100)
    return _read(reader)


@attempt()
def shutil_copy(world: World) -> object:
    return Path(shutil.copyfile(world.secret, f"{world.scratch}/copy")).read_bytes()


@attempt()
def inherited_file(world: World) -> object:
    return os.pread(world.file_descriptor, 100, 0)


@attempt()
def inherited_file_by_proc(world: World) -> object:
    return Path(f"/proc/self/fd/{world.file_descriptor}").read_bytes()


@attempt()
def inherited_folder(world: World) -> object:
    return _read(os.open("secret", os.O_RDONLY, dir_fd=world.folder_descriptor))


@attempt("true")
def inherited_folder_listing(world: World) -> object:
    return "secret" in os.listdir(world.folder_descriptor)


@attempt()
def import_from_outside(world: World) -> object:
    spec = importlib.util.spec_from_file_location("script", f"{world.outside}/script.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SECRET


@attempt()
def source_lines(world: World) -> object:
    return "".join(linecache.getlines(world.secret)).encode()


@attempt("true")
def list_folder(world: World) -> object:
    return "secret" in os.listdir(world.outside)


@attempt("true")
def scan_folder(world: World) -> object:
    return [entry.name for entry in os.scandir(world.outside)]


@attempt("true")
def libc_list(world: World) -> object:
    LIBC.opendir.restype = ctypes.c_void_p
    return LIBC.opendir(world.outside.encode())


@attempt()
def shared_memory_file(world: World) -> object:
    return Path(world.shared).read_bytes()


@attempt("true")
def shared_memory_listing(world: World) -> object:
    return os.path.basename(world.shared) in os.listdir("/dev/shm")


@attempt("true")
def database(world: World) -> object:
    return (
        sqlite3.connect(f"file:{world.outside}/base.sqlite?mode=ro", uri=True).execute("pragma user_version").fetchone()
    )


@attempt("true", needs="root")
def file_handle(world: World) -> object:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    call("name_to_handle_at", AT_FDCWD, world.secret.encode(), handle, ctypes.byref(mount), 0)
    return True


# --- changing


@attempt("changed")
def create_outside(world: World) -> object:
    return Path(f"{world.outside}/new").write_bytes(b"x")


@attempt("changed")
def create_in_data(world: World) -> object:
    return Path(f"{world.data}/new").write_bytes(b"x")


@attempt("changed")
def overwrite_data(world: World) -> object:
    return Path(f"{world.data}/weights").write_bytes(b"x")


@attempt("changed")
def append_to_data(world: World) -> object:
    with open(f"{world.data}/weights", "ab") as file:
        return file.write(b"x")


@attempt("changed")
def open_truncating(world: World) -> object:
    return os.open(f"{world.data}/weights", os.O_RDONLY | os.O_TRUNC)


@attempt("changed")
def truncate_by_path(world: World) -> object:
    return os.truncate(f"{world.data}/weights", 1)


@attempt("changed")
def write_mapped(world: World) -> object:
    with open(f"{world.data}/weights", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = 0
    return True


@attempt("changed")
def numpy_memmap_write(world: World) -> object:
    np.memmap(f"{world.data}/weights", dtype=np.uint8, mode="r+")[0] = 0
    return True


@attempt("changed")
def numpy_save(world: World) -> object:
    return np.save(f"{world.outside}/array.npy", np.zeros(1))


@attempt("changed")
def make_folder(world: World) -> object:
    return os.mkdir(f"{world.outside}/folder")


@attempt("changed")
def remove_folder(world: World) -> object:
    return os.rmdir(f"{world.outside}/empty")


@attempt("changed")
def remove_file(world: World) -> object:
    return os.unlink(f"{world.data}/weights")


@attempt("changed")
def rename_inside(world: World) -> object:
    return os.rename(f"{world.data}/weights", f"{world.data}/other")


@attempt("changed")
def rename_out(world: World) -> object:
    return os.rename(f"{world.data}/weights", f"{world.scratch}/weights")


@attempt("changed")
def rename_in(world: World) -> object:
    Path(f"{world.scratch}/mine").write_bytes(b"x")
    return os.rename(f"{world.scratch}/mine", f"{world.data}/weights")


@attempt("changed")
def exchange(world: World) -> object:
    Path(f"{world.scratch}/mine").write_bytes(b"x")
    paths = (f"{world.scratch}/mine".encode(), f"{world.data}/weights".encode())
    return call("renameat2", AT_FDCWD, paths[0], AT_FDCWD, paths[1], 2)


@attempt("changed")
def hard_link_data(world: World) -> object:
    os.link(f"{world.data}/weights", f"{world.scratch}/hard")
    return Path(f"{world.scratch}/hard").write_bytes(b"x")


@attempt("changed")
def link_outside(world: World) -> object:
    return os.symlink("/", f"{world.outside}/link")


@attempt("changed")
def trap_link(world: World) -> object:
    return os.symlink("/etc", f"{world.scratch}/trap")


@attempt("changed")
def trap_pipe(world: World) -> object:
    return os.mkfifo(f"{world.scratch}/pipe")


@attempt("changed")
def trap_socket(world: World) -> object:
    os.chdir(world.scratch)
    return socket.socket(socket.AF_UNIX).bind("trap")


@attempt("changed")
def trap_socket_node(world: World) -> object:
    return call("mknodat", AT_FDCWD, f"{world.scratch}/node".encode(), 0o140600, 0)


@attempt("changed", needs="root")
def device_node(world: World) -> object:
    return os.mknod(f"{world.scratch}/device", 0o020600, os.makedev(1, 3))  # /dev/null: the control really makes it


@attempt("changed")
def set_id_program(world: World) -> object:
    return os.open(f"{world.scratch}/program", os.O_CREAT | os.O_WRONLY, 0o6755)


@attempt("changed")
def set_id_program_by_chmod(world: World) -> object:
    Path(f"{world.scratch}/program").write_bytes(b"x")
    return os.chmod(f"{world.scratch}/program", 0o4755)


@attempt("changed")
def chmod(world: World) -> object:
    return os.chmod(f"{world.data}/weights", 0o777)


@attempt("changed")
def chmod_new_call(world: World) -> object:
    return call("fchmodat2", AT_FDCWD, f"{world.data}/weights".encode(), 0o777, 0)


@attempt("changed")
def chmod_open_file(world: World) -> object:
    return os.fchmod(os.open(f"{world.data}/weights", os.O_RDONLY), 0o777)


@attempt("changed")
def chmod_folder(world: World) -> object:
    return os.chmod(world.outside, 0o777)


@attempt("changed", needs="root")
def chown(world: World) -> object:
    return os.chown(f"{world.data}/weights", 1, 1)


@attempt("changed")
def change_times(world: World) -> object:
    return os.utime(f"{world.data}/weights", (0, 0))


@attempt("changed")
def change_times_of_open_file(world: World) -> object:
    return os.utime(os.open(f"{world.data}/weights", os.O_RDONLY), (0, 0))


@attempt("changed")
def extended_attribute(world: World) -> object:
    return os.setxattr(f"{world.data}/weights", "user.mark", b"x")


@attempt("changed")
def unnamed_file_linked(world: World) -> object:
    descriptor = os.open(world.outside, os.O_TMPFILE | os.O_RDWR)
    return LIBC.linkat(
        AT_FDCWD, f"/proc/self/fd/{descriptor}".encode(), AT_FDCWD, f"{world.outside}/linked".encode(), 0x400
    )


@attempt("changed")
def write_through_folder_descriptor(world: World) -> object:
    return os.open("new", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=world.folder_descriptor)


@attempt("changed")
def database_write(world: World) -> object:
    base = sqlite3.connect(":memory:")
    base.execute("attach ? as outside", (f"{world.outside}/base.sqlite",))
    base.execute("create table outside.t (x)")
    return base.commit()


@attempt("changed")
def history_file(world: World) -> object:
    import readline

    readline.add_history("x")
    return readline.write_history_file(f"{world.outside}/history")


@attempt("changed")
def log_file(world: World) -> object:
    handler = logging.FileHandler(f"{world.outside}/log")
    return handler.emit(logging.makeLogRecord({"msg": "x"}))


@attempt("true")
def new_shared_memory(world: World) -> object:
    from multiprocessing import resource_tracker

    resource_tracker.register = lambda *_: None  # it would start a process
    made = shared_memory.SharedMemory(create=True, size=1)
    Path(f"/dev/shm/{made._name.lstrip('/')}").unlink()  # type: ignore[attr-defined]
    return True


@attempt("true")
def overwrite_shared_memory(world: World) -> object:
    with open(world.shared, "r+b") as file:
        return file.write(b"x")
