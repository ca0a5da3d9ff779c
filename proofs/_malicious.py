"""Models that do harm, and a trap that tells whether they did. Each case is a source as `falaj import` takes it."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SECRET = "the-secret-of-the-home"  # noqa: S105  # what must not come out


class Trap:
    """Things outside the sandbox that a model may want: a file to write, a secret, listeners, a process to kill."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outside = root / "outside"
        self.home = root / "home"
        self.outside.mkdir(parents=True)
        self.home.mkdir()
        (self.home / "key.pem").write_text(SECRET)
        self._kept = self.outside / "kept.txt"
        self._kept.write_text("as it was")
        self._kept.chmod(0o600)
        self.calls = 0
        self._sockets = [
            self._listener(socket.AF_INET, ("127.0.0.1", 0)),
            self._listener(socket.AF_UNIX, str(root / "s")),
        ]
        self.port = self._sockets[0].getsockname()[1]
        self.victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        self._before = (self._kept.stat().st_mode, self._kept.stat().st_mtime_ns)
        os.environ["FALAJ_TRAP_SECRET"] = SECRET

    def effects(self, told: str) -> list[str]:
        """What happened outside, in words; `told` is all that came out as text."""
        found = [f"{p.name} was made" for p in self.outside.iterdir() if p != self._kept]
        if not self._kept.exists() or self._kept.read_text() != "as it was":
            found.append("a file was changed")
        elif (self._kept.stat().st_mode, self._kept.stat().st_mtime_ns) != self._before:
            found.append("a file's mode or time was changed")
        if SECRET in told:
            found.append("the secret came out")
        if self.calls:
            found.append(f"{self.calls} connections were made")
        if self.victim.poll() is not None:
            found.append("another process was killed")
        return found

    def reset(self) -> None:
        """Forget what happened."""
        for path in self.outside.iterdir():
            if path != self._kept:
                path.unlink()
        self._kept.write_text("as it was")
        self._kept.chmod(0o600)
        self._before = (stat.S_IFREG | 0o600, self._kept.stat().st_mtime_ns)
        self.calls = 0
        if self.victim.poll() is not None:
            self.victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])

    def close(self) -> None:
        """End the listeners and the process."""
        os.environ.pop("FALAJ_TRAP_SECRET", None)
        for listener in self._sockets:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.victim.kill()
        self.victim.wait()

    def _listener(self, family: int, address: Any) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen(16)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.calls += 1
                connection.close()


class Code:
    """Pickles to code that runs when it is loaded."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.source,)


class Case(NamedTuple):
    """A model: what it is, of which kind, and what writes it into a folder. `effect`: without a sandbox the trap would tell."""

    name: str
    kind: str
    write: Callable[[Path, Trap], None]
    effect: bool = False
    source: Callable[[Trap], str] | None = None


MLMODEL = """flavors:
  sklearn:
    pickled_model: {file}
    serialization_format: cloudpickle
mlflow_version: 3.0.0
"""


def mlflow_folder(folder: Path, data: bytes, file: str = "model.pkl", text: str = "") -> None:
    """A folder as MLflow writes it, around bytes that are no model."""
    (folder / "MLmodel").write_text(text or MLMODEL.format(file=file))
    (folder / "model.pkl").write_bytes(data)


def coded(name: str, source: Callable[[Trap], str], *, effect: bool = False) -> Case:
    """A pickle that runs code."""
    return Case(name, "mlflow", lambda f, t: mlflow_folder(f, pickle.dumps(Code(source(t)))), effect, source)


_RAW = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for n in {numbers}:
    if libc.syscall(n, *{arguments}) >= 0: open("/scratch/../outside", "w")
    elif ctypes.get_errno() not in (1, 38): raise RuntimeError(f"{{n}} was not refused but failed: {{ctypes.get_errno()}}")
raise RuntimeError("all were refused")
"""


def _retrying(lines: str) -> str:
    """Each line tried, whatever the one before did."""
    return "\n".join(f"try:\n    {line}\nexcept BaseException as e: print(e)" for line in lines.strip().splitlines())


PICKLES = (
    coded("writes a file outside", lambda t: f"open({str(t.outside / 'made')!r}, 'w').write('x')", effect=True),
    coded("runs a shell command", lambda t: f"import os; os.system('touch {t.outside}/made')", effect=True),
    coded(
        "starts a program",
        lambda t: f"import subprocess; subprocess.Popen(['touch', {str(t.outside / 'made')!r}]).wait()",
        effect=True,
    ),
    coded(
        "leaves a daemon behind",
        lambda t: (
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(0.5)\n"
            f"        open({str(t.outside / 'made')!r}, 'w').write('x')\n    os._exit(0)"
        ),
        effect=True,
    ),
    coded("prints a secret", lambda t: f"raise ValueError(open({str(t.home / 'key.pem')!r}).read())", effect=True),
    coded(
        "tells a secret of the environment", lambda _: "import os; raise ValueError(str(dict(os.environ)))", effect=True
    ),
    coded(
        "reads the environment of others",
        lambda _: (
            "import glob; raise ValueError(str([open(p,'rb').read() for p in glob.glob('/proc/[0-9]*/environ')]))"
        ),
    ),
    coded(
        "opens a connection",
        lambda t: f"import socket; socket.create_connection(('127.0.0.1', {t.port}), 2)",
        effect=True,
    ),
    coded(
        "opens a local socket",
        lambda t: f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(t.root / 's')!r})",
        effect=True,
    ),
    coded("sends a datagram", lambda t: f"import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {t.port}))"),
    coded("kills a process", lambda t: f"import os; os.kill({t.victim.pid}, 9)", effect=True),
    coded("kills its parent", lambda _: "import os; os.kill(os.getppid(), 9)"),
    coded("kills everybody", lambda _: "import os; os.kill(-1, 9)"),
    coded("kills its group", lambda _: "import os; os.killpg(0, 9)"),
    coded("changes a mode", lambda t: f"import os; os.chmod({str(t.outside / 'kept.txt')!r}, 0o777)", effect=True),
    coded("changes a time", lambda t: f"import os; os.utime({str(t.outside / 'kept.txt')!r}, (1, 1))", effect=True),
    coded("removes a file", lambda t: f"import os; os.unlink({str(t.outside / 'kept.txt')!r})", effect=True),
    coded(
        "writes over the model and the libraries",
        lambda _: _retrying(
            "import os, sys\nopen('/input/source/MLmodel', 'w')\nos.chmod('/input/source/MLmodel', 0o777)\n"
            "open(os.__file__, 'a').write('x')\nos.mkdir('/made')\nraise SystemExit(3)"
        ),
    ),
    coded("fills the memory", lambda _: "x = []\nwhile True: x.append(bytearray(1 << 26))"),
    coded(
        "fills the disk",
        lambda t: (
            f"for p in ('/scratch/x', '/tmp/x', {str(t.outside / 'made')!r}):\n  try:\n    with open(p, 'wb') as f:\n"
            "      while True: f.write(bytes(1 << 20))\n  except OSError as e: print(e)\nraise SystemExit(3)"
        ),
    ),
    coded(
        "fills the memory by a file in memory",
        lambda _: "import os; f = os.memfd_create('x')\nwhile True: os.write(f, bytes(1 << 20))",
    ),
    coded("never ends", lambda _: "while True: pass"),
    coded("waits for ever", lambda _: "import time; time.sleep(100000)"),
    coded("multiplies", lambda _: "import os\nwhile True: os.fork()"),
    coded(
        "makes threads without end",
        lambda _: "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    ),
    coded(
        "talks without end", lambda _: "import os\nwhile True: os.write(0, bytes(1 << 20)); os.write(2, bytes(1 << 20))"
    ),
    coded(
        "makes namespaces and mounts",
        lambda _: _RAW.format(numbers=[272, 165, 155, 161, 308, 428, 442], arguments=(0x10000000, 0, 0, 0, 0)),
    ),
    coded(
        "looks into others and asks for keys",
        lambda _: _RAW.format(numbers=[101, 310, 311, 250, 248, 321, 298, 323, 425], arguments=(16, 1, 0, 0, 0)),
    ),
    coded("forks without libc", lambda _: _RAW.format(numbers=[57, 58, 435], arguments=(0, 0, 0, 0, 0))),
    coded("forges an answer", lambda _: _forged(_external())),
    coded("forges an answer with control characters", lambda _: _forged(_plain(), names='["a\\u001b[2J", "b"]')),
    coded(
        "answers with its own error",
        lambda _: (
            'import os; b = b\'{"error": {"error": "\\\\u001b[31mok", "code": "../../x", "kind": "none"}}\'\nos.write(0, len(b).to_bytes(8, \'big\') + b); os._exit(0)'
        ),
    ),
)


def _forged(body: bytes, names: str = '["a", "b"]') -> str:
    """Answer in the place of the converter, with a graph of its own, and end."""
    header = f'{{"format":"onnx","library":"onnx","task":"regression","width":2,"names":{names}}}'
    return (
        f"import os\nh = {header!r}.encode()\nb = {body!r}\nd = len(h).to_bytes(8, 'big') + h + b\n"
        "while d: d = d[os.write(0, d):]\nos._exit(0)"
    )


# graphs


def graph(nodes: list[onnx.NodeProto], initial: list[onnx.TensorProto] | None = None, **more: Any) -> bytes:
    """A model that reads float32 [rows, 2] as `x` and answers `y`."""
    wanted = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    inner = helper.make_graph(nodes, "g", [wanted], [answer], initial or [])
    model = helper.make_model(inner, opset_imports=more.pop("opsets", [helper.make_opsetid("", 18)]), **more)
    model.ir_version = 10
    data: bytes = model.SerializeToString()
    return data


def _weights() -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones((2, 1), np.float32), "w")


def _plain() -> bytes:
    return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [_weights()])


def _external(location: str = "../../../../etc/passwd", tensor: str = "initializer") -> bytes:
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 1], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    if tensor == "initializer":
        return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights])
    return graph(
        [helper.make_node("Constant", [], ["w"], value=weights), helper.make_node("MatMul", ["x", "w"], ["y"])]
    )


def _inside_if() -> bytes:
    then = helper.make_graph(
        [helper.make_node("Evil", ["x"], ["z"], domain="evil")], "t", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "e", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    yes = numpy_helper.from_array(np.array(True), "c")
    return graph([helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)], [yes])


def _function() -> bytes:
    own = helper.make_function(
        "own", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return graph([helper.make_node("F", ["x"], ["y"], domain="own")], opsets=opsets, functions=[own])


def _loop() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "b",
        [helper.make_tensor_value_info("n", 7, []), helper.make_tensor_value_info("go", 9, [])],
        [helper.make_tensor_value_info("on", 9, [])],
    )
    yes = numpy_helper.from_array(np.array(True), "c")
    nodes = [helper.make_node("Loop", ["", "c"], [], body=body), helper.make_node("MatMul", ["x", "w"], ["y"])]
    return graph(nodes, [yes, _weights()])


def _bomb() -> bytes:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "s")
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["huge"]), helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "sum"], ["y"]),
    ]  # fmt: skip
    return graph(nodes, [shape, _weights()])


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("../../model.onnx", _plain())
        z.writestr("data.pkl", pickle.dumps(Code("open('/tmp/made', 'w')")))
    return out.getvalue()


def onnx_file(name: str, data: Callable[[], bytes]) -> Case:
    """An ONNX file, or what calls itself one."""

    def write(folder: Path, _: Trap) -> None:
        (folder / "model.onnx").write_bytes(data())

    return Case(name, "onnx", write)


GRAPHS = (
    onnx_file("weights in another file", _external),
    onnx_file("weights at an absolute path", lambda: _external("/etc/passwd")),
    onnx_file("a constant in another file", lambda: _external(tensor="constant")),
    onnx_file(
        "an operator of its own domain",
        lambda: graph(
            [helper.make_node("Evil", ["x"], ["y"], domain="evil")],
            opsets=[helper.make_opsetid("", 18), helper.make_opsetid("evil", 1)],
        ),
    ),
    onnx_file("an operator that nobody defined", lambda: graph([helper.make_node("Evil", ["x"], ["y"])])),
    onnx_file("an operator hidden in a branch", _inside_if),
    onnx_file("functions of its own", _function),
    onnx_file("a loop without an end", _loop),
    onnx_file("a tensor of a terabyte", _bomb),
    onnx_file(
        "an opset of the future",
        lambda: graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])], [_weights()], opsets=[helper.make_opsetid("", 99)]
        ),
    ),
    onnx_file("a zip with a path that climbs", _zip),
    onnx_file("a pickle by another name", lambda: pickle.dumps(Code("open('/tmp/made', 'w')"))),
    onnx_file("half a graph", lambda: _plain()[: len(_plain()) // 2]),
    onnx_file("a gzip", lambda: gzip.compress(_plain())),
    onnx_file("nothing", lambda: b""),
)


# folders


def folder_case(name: str, text: str, data: bytes = b"x") -> Case:
    """An MLflow folder whose MLmodel says something strange."""
    return Case(
        name,
        "mlflow",
        lambda f, t: mlflow_folder(f, data, text=text.replace("TRAP", str(t.outside)).replace("HOME", str(t.home))),
    )


FOLDERS = (
    folder_case("names a file above it", "flavors:\n  sklearn:\n    pickled_model: ../../../etc/passwd\n"),
    folder_case("names a file of the home", "flavors:\n  onnx:\n    data: HOME/key.pem\n"),
    folder_case("calls a function from its YAML", "flavors: !!python/object/apply:os.system ['touch TRAP/made']\n"),
    folder_case(
        "grows when its YAML is read",
        "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nflavors: [*c,*c,*c]\n",
    ),
    folder_case("brings code along", "flavors:\n  python_function:\n    loader_module: evil\n    code: code\n"),
    folder_case("a zip in the place of the pickle", MLMODEL.format(file="model.pkl"), _zip()),
    folder_case(
        "LightGBM's name on a pickle",
        "flavors:\n  lightgbm:\n    data: model.pkl\n",
        pickle.dumps(Code("raise SystemExit(3)")),
    ),
    folder_case(
        "LightGBM's text with nonsense in it",
        "flavors:\n  lightgbm:\n    data: model.pkl\n",
        b"tree\nversion=v4\nnum_class=-1\n",
    ),
    folder_case("ONNX with an operator of its own", "flavors:\n  onnx:\n    data: model.pkl\n", _inside_if()),
)

CASES = (*PICKLES, *GRAPHS, *FOLDERS)


def free_effects(case: Case, trap: Trap) -> list[str]:
    """What a pickle does where no sandbox is: loaded by Python itself, in a process of its own."""
    if case.source is None:
        return []
    data = pickle.dumps(Code(case.source(trap)))
    load = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    done = subprocess.run([sys.executable, "-c", load], input=data, capture_output=True, timeout=60, check=False)
    time.sleep(1.0 if "daemon" in case.name else 0.05)
    return trap.effects(done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace"))
