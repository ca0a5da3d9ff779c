"""What a Linux process gives up before it touches what a stranger made. Kernel calls only, by ctypes.

`enter` puts the calling process into namespaces of its own (user, mount, pid, network, IPC, host name, cgroup) and goes on in
a child there, the first process of its pid namespace: when that ends, everything in it ends. The child sees a file system of its own,
made of read-only binds of the paths that it is told and of one small tmpfs; it holds no capability and can gain none; it can
start no process, open no socket, and reach no memory beyond its limits. Three layers that fail apart: mounts (mount_namespaces(7)),
Landlock (landlock(7)) and seccomp (seccomp(2)). If one of them cannot be had, `enter` raises and nothing was loaded.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

SCRATCH, INPUT = Path("/scratch"), Path("/input")
"""Where the confined process may write, and where it finds what it was given."""

_BASE = Path("/tmp")  # noqa: S108  # any folder that is there: what is mounted over it is seen by this process alone
_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
"""CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP."""
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 442, 444, 445, 446
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 24, 38, 22
_PR_SET_DUMPABLE, _SECCOMP_FILTER, _LAST_CAPABILITY = 4, 2, 63
_LEAST_LANDLOCK = 3  # truncation is governed from there on
_DEVICES = ("null", "zero", "random", "urandom")
_CLONE_THREAD = 0x10000


class Limits(msgspec.Struct, frozen=True):
    """What a confined process may take: address space and scratch files in MB, seconds of processor time, and how many seconds
    more by the clock on the wall."""

    memory_mb: int = 4096
    scratch_mb: int = 64
    seconds: int = 120
    patience: int = 30
    threads: int = 2


class CannotConfine(Exception):
    """The kernel, or who set it up, does not let this process be confined; the text says which part."""


def supported() -> str:
    """Why no process can be confined on this platform, as far as one can tell without trying; empty when one may."""
    if sys.platform != "linux":
        return f"{sys.platform} has no namespaces"
    if platform.machine() not in _SYSCALLS:
        return f"the system calls of {platform.machine()} are not known here"
    version = _libc().syscall(_LANDLOCK_CREATE, None, 0, 1)
    return "" if version >= _LEAST_LANDLOCK else "the kernel has no Landlock of version 3 (Linux 6.2)"


def enter(readable: Mapping[Path, Path], given: Path, limits: Limits) -> None:
    """Confine this process. Returns in the child; the caller's process waits for it and ends with its status.

    `readable` are files and folders, read-only: under which name → where they lie, with every link resolved; `given` is a folder
    that becomes `INPUT`. Standard input, output and error are the only descriptors that live on. Must be called before any
    thread is started. Raises `CannotConfine`.
    """
    why = supported()
    if why:
        raise CannotConfine(why)
    os.closerange(3, 1 << 16)
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0, what="parent death signal")
    _unshare()
    child = os.fork()
    if child:
        os._exit(_status(os.waitpid(child, 0)[1]))
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0, what="parent death signal")
    _build_root(readable, given, limits)
    limit(limits)
    _drop_capabilities()
    _landlock()
    _seccomp()
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0, what="parent death signal")
    os.environ.clear()
    os.environ.update({"HOME": str(SCRATCH), "TMPDIR": str(SCRATCH), "OMP_NUM_THREADS": str(limits.threads)})


def _status(raw: int) -> int:
    """A wait status as an exit status: 128 + the signal that ended the process, as in a shell."""
    code = os.waitstatus_to_exitcode(raw)
    return 128 - code if code < 0 else code


def _unshare() -> None:
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _NAMESPACES, what="namespaces (unprivileged user namespaces may be switched off)")
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError as e:
        raise CannotConfine(f"user namespace: {e}") from e


def _build_root(readable: Mapping[Path, Path], given: Path, limits: Limits) -> None:
    """A root of its own: binds of what may be read, one writable tmpfs, nothing else.

    The new root is mounted over /tmp and swapped with the old one, which uncovers the old /tmp again: what is bound may lie there.
    """
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    _mount("none", str(_BASE), "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    (_BASE / ".old").mkdir()
    if _libc().syscall(_SYSCALLS[platform.machine()]["pivot_root"], bytes(_BASE), bytes(_BASE / ".old")):
        raise _failed("pivot_root")
    os.chdir("/")
    for name, path in sorted(readable.items()):
        _bind(path, name)
    _bind(given, INPUT)
    for device in _DEVICES:
        _bind(Path("/dev", device), Path("/dev", device), device=True)
    SCRATCH.mkdir()
    options = f"size={limits.scratch_mb}m,nr_inodes=10000,mode=700"
    _mount("none", str(SCRATCH), "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    if _libc().umount2(b"/.old", _MNT_DETACH):
        raise _failed("umount of the old root")
    Path("/.old").rmdir()
    _mount(None, "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV, None)
    os.chdir(SCRATCH)


def _bind(path: Path, where: Path, *, device: bool = False) -> None:
    """Show one file or folder of the old root, read-only."""
    source = Path("/.old", *path.parts[1:])
    if source.is_symlink() or not source.exists():
        raise CannotConfine(f"{path} is not there to be bound, or is a link")
    if source.is_dir():
        where.mkdir(parents=True, exist_ok=True)
    else:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.touch()
    _mount(str(source), str(where), None, _MS_BIND | _MS_REC, None)
    flags = _ATTR_RDONLY | _ATTR_NOSUID | (_ATTR_NOEXEC if device else _ATTR_NODEV)
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    if _libc().syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(where), _AT_RECURSIVE, attributes, len(attributes)):
        raise _failed(f"read-only bind of {path}")


def limit(limits: Limits) -> None:
    """Bound what this process may take of memory, processor time and files."""
    memory, scratch = limits.memory_mb << 20, limits.scratch_mb << 20
    for what, value in (
        (resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, limits.seconds), (resource.RLIMIT_FSIZE, scratch),
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 256), (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):  # fmt: skip
        resource.setrlimit(what, (value, value))


def _drop_capabilities() -> None:
    libc = _libc()
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL beyond the last that the kernel knows
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _call("capset", header, none, what="capabilities")
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, what="no_new_privs")
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0, what="dumpable")


# Landlock


_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL_FILES = {3: (1 << 15) - 1, 4: (1 << 15) - 1}
_FILES_NOW = (1 << 16) - 1  # from version 5 on: with ioctl on devices
_SCRATCH_FILES = ((1 << 15) - 1) & ~(
    _EXECUTE | (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11)
)  # no devices, sockets, fifos


def _landlock() -> None:
    """Reading anywhere in the own root, writing in the scratch folder; no TCP, and no signal or socket to anybody outside."""
    libc = _libc()
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    handled = struct.pack("Q", _ALL_FILES.get(version, _FILES_NOW))
    if version >= 4:
        handled += struct.pack("Q", 3)
    if version >= 6:
        handled += struct.pack("Q", 3)
    rules = libc.syscall(_LANDLOCK_CREATE, handled, len(handled), 0)
    if rules < 0:
        raise _failed("Landlock")
    allowed = ((Path("/"), _READ_FILE | _READ_DIR), (SCRATCH, _SCRATCH_FILES), (Path("/dev/null"), _WRITE_FILE))
    for path, access in allowed:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("<Qi", access, place)
        if libc.syscall(_LANDLOCK_ADD, rules, 1, rule, 0):
            raise _failed(f"Landlock rule for {path}")
        os.close(place)
    if libc.syscall(_LANDLOCK_RESTRICT, rules, 0):
        raise _failed("Landlock")
    os.close(rules)


# seccomp


_NEWER = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "pidfd_getfd": 438,
    "process_madvise": 440, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip
_SYSCALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "socket": 41, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "kcmp": 312, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272,
        "setns": 308, "keyctl": 250, "add_key": 248, "request_key": 249, "bpf": 321, "perf_event_open": 298,
        "userfaultfd": 323, "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246,
        "kexec_file_load": 320, "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163, "quotactl": 179,
        "open_by_handle_at": 304, "name_to_handle_at": 303, "personality": 135, "memfd_create": 319, "shmget": 29,
        "shmat": 30, "mq_open": 240, "msgget": 68, "semget": 64, "fanotify_init": 300, "clone": 56, **_NEWER,
    },
    "aarch64": {
        "execve": 221, "execveat": 281, "socket": 198, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271,
        "kcmp": 272, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "keyctl": 219,
        "add_key": 217, "request_key": 218, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "init_module": 105,
        "finit_module": 273, "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294, "reboot": 142, "swapon": 224,
        "swapoff": 225, "acct": 89, "quotactl": 60, "open_by_handle_at": 265, "name_to_handle_at": 264, "personality": 92,
        "memfd_create": 279, "shmget": 194, "shmat": 196, "mq_open": 180, "msgget": 186, "semget": 190, "fanotify_init": 262,
        "clone": 220, **_NEWER,
    },
}  # fmt: skip
_CLONE3 = 435
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def _seccomp() -> None:
    """No new process, no program, no socket, no key, no memory that the limits do not see. Threads are allowed.

    clone3 hides its flags from a filter: it is answered with ENOSYS, and libc then takes clone.
    """
    machine = platform.machine()
    calls = _SYSCALLS[machine]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]  # the x32 numbers
    for name, number in calls.items():
        if name != "clone":
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    program += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    program += [(_EQUAL, 0, 3, calls["clone"]), (_LOAD, 0, 0, 16), (_ANY_BIT, 1, 0, _CLONE_THREAD)]
    program += [(_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_FILTER, header, 0, 0, what="seccomp")


# calling the kernel


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(function: str, *arguments: int | bytes, what: str) -> None:
    if getattr(_libc(), function)(*arguments):
        raise _failed(what)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    encoded = [None if t is None else os.fsencode(t) for t in (source, target, kind)]
    if _libc().mount(*encoded, ctypes.c_ulong(flags), None if options is None else options.encode()):
        raise _failed(f"mount of {target}")


def _failed(what: str) -> CannotConfine:
    return CannotConfine(f"{what}: {os.strerror(ctypes.get_errno())}")
