"""Labels, features and functions from which nothing can be learnt: each run ends with its reason, and leaves no process."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.badinput.home import Home, running
from tests.entrypoints.cli.shell import Ended, Shell, processes_of

PERSON = "Salma Al-Harthy"
AT_ONCE = 3  # trainings
MEMORY_MB = 1200
CODE = """
import os, signal, subprocess, sys, threading, time
import polars as pl
import falaj as fj

def tidy(rows):
    at = pl.col("at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    return rows.with_columns(at, pl.col("x").cast(pl.Float64), pl.col("y").cast(pl.Int64), one=pl.lit(1), none=pl.lit(None, pl.Float64),
        nothing=pl.lit(None, pl.Int64), late=(pl.int_range(pl.len()) > 280).cast(pl.Int64), three=pl.when(pl.int_range(pl.len()) > 280).then(2).otherwise("y"))

TIMES = dict(event_time="at", known_at="at", prepare=tidy, purposes=("trial",))
rows = fj.Source.csv("rows", "data/rows*.csv", **TIMES)
single = fj.Source.csv("single", "data/single*.csv", **TIMES)
thing = fj.Entity("thing", key="k")
X = fj.request_features(x="float")

def model(name, train, label="y", features=(X,), spine=rows, task="binary"):
    globals()["m_" + name] = fj.model(name=name, task=task, label=label, positive="1", spine=spine, at="at", purpose="trial", features=list(features))(train)

def view(name, function):
    return fj.feature_view(name=name, entity=thing, source=rows, ttl="9999d", features={"seen": "float"})(function)

def good(data, params):
    from sklearn.linear_model import LogisticRegression
    return LogisticRegression().fit(data.numpy().features, data.numpy().label)

def raises(data, params):
    return deeper(data)
def deeper(data):
    raise ValueError("PERSON owes 12")
def leaves(data, params):
    sys.exit(3)
def returns_nothing(data, params):
    pass
def returns_a_class(data, params):
    from sklearn.linear_model import LogisticRegression
    return LogisticRegression
def unfitted(data, params):
    from sklearn.linear_model import LogisticRegression
    return LogisticRegression()
def killed(data, params):
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
def exits(data, params):
    os._exit(0)
def crashes(data, params):
    import ctypes
    ctypes.string_at(0)
def hungry(data, params):  # the memory is a child's
    grow = "held = []\\nwhile True: held.append(bytearray(b'x') * (16 << 20))"
    subprocess.run([sys.executable, "-c", grow])
def junk(data, params):
    for fd in range(3, 20):
        try:
            os.write(fd, b"\\xff\\x00 junk\\n")
        except OSError:
            pass
    return good(data, params)
def daemon(data, params):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "HOME"])
        os._exit(0)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "HOME"])
    deadline = time.monotonic() + 20
    while os.popen("pgrep -c -f 'sleep.600.*HOME'").read().strip() < "2" and time.monotonic() < deadline:
        time.sleep(0.02)
    raise RuntimeError("two are running" if time.monotonic() < deadline else "they did not start")
def noisy(data, params):
    largest = 0
    for n in range(30_000):  # until somebody has cut the log
        print("x" * 10_000, flush=True)
        os.write(1, bytes(range(256)))
        size = os.fstat(1).st_size
        if size < largest:
            raise RuntimeError("it was cut")
        largest = size
    raise RuntimeError("it holds all")
def twofold(data, params):
    os.fork()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.chdir("/")
    sys.stdin.close(), sys.stdout.close()
    os.close(1), os.close(2)
    threading.Thread(target=time.sleep, args=(600,)).start()
    return good(data, params)

ONE = fj.request_features(one="integer")  # the same in every row
for function in (good, raises, leaves, returns_nothing, returns_a_class, unfitted, killed, exits, crashes, hungry, junk, daemon, noisy, twofold):
    model(function.__name__, function, features=[X, ONE] if function is twofold else [X])
model("one-class", good, label="one")
model("no-label", good, label="nothing")
model("no-such-label", good, label="nowhere")
model("one-row", good, spine=single)
model("late-class", good, label="late")
model("third-class-later", good, label="three", task="multiclass")
model("null-feature", good, features=[fj.request_features(none="float")])
model("missing-feature", good, features=[fj.request_features(nowhere="float")])
model("text-feature", good, features=[fj.request_features(k="float")])

def view_raises(rows): raise KeyError("PERSON")
def view_columns(rows): return rows.select("k", "at", other=pl.col("x"))
def view_drops(rows): return rows.filter(False).select("k", "at", seen=pl.col("x"))
def view_values(rows): return rows.select("k", "at", seen=pl.col("k").cast(pl.Float64))
for function in (view_raises, view_columns, view_drops, view_values):
    model(function.__name__.replace("_", "-"), good, features=[X, view(function.__name__, function)])
"""


@dataclass(frozen=True)
class Case:
    """How a training ends that comes to nothing."""

    code: str
    says: str
    hints: str = ""
    shown: str = ""  # beside the message, for whoever trains only
    exit: int = 1


CASES = {
    "raises": Case("training_failed", "raised ValueError in made.py, line", "mend it in made.py", f"ValueError: {PERSON} owes 12"),
    "leaves": Case("training_failed", "raised SystemExit in made.py"),
    "returns_nothing": Case("not_an_estimator", "returned nothing", "return model"),
    "returns_a_class": Case("not_an_estimator", "returned the class LogisticRegression", "fitted"),
    "unfitted": Case("not_an_estimator", "returned LogisticRegression unfitted", "fit("),
    "killed": Case("step_died", "signal 9 (Killed)", "memory", "last words", exit=3),
    "exits": Case("step_died", "exit status 0 before it had answered", "os._exit", exit=3),
    "crashes": Case("step_died", "signal 11 (Segmentation fault)", "library", exit=3),
    "hungry": Case("step_limit", f"more than {MEMORY_MB} MB", "FALAJ_STEP_MEMORY_MB"),
    "junk": Case("step_died", "broke its channel", "descriptors", exit=3),
    "daemon": Case("training_failed", "raised RuntimeError", shown="RuntimeError: two are running"),
    "noisy": Case("training_failed", "raised RuntimeError", shown="RuntimeError: it was cut"),
    "one-class": Case("one_class", "every row of the training part has the label '1'", "how one is computed"),
    "no-label": Case("no_labelled_rows", "no row of the training set has a label (nothing)", "outcomes"),
    "no-such-label": Case("missing_column", "no column nowhere", "it has at, k, x, y"),
    "one-row": Case("one_class", "nothing to tell apart"),
    "late-class": Case("one_class", "has the label '0'"),
    "third-class-later": Case("unseen_class", "the class 2 is seen only after", "longer time"),
    "null-feature": Case("feature_all_null", "the feature none is null in every row", "column none of the spine"),
    "missing-feature": Case("missing_column", "no column nowhere"),
    "text-feature": Case("wrong_feature_type", "k is declared as float but the data has String"),
    "view-raises": Case("view_failed", "view view_raises failed: KeyError in made.py", "mend", f"KeyError: '{PERSON}'"),
    "view-columns": Case("view_schema", "returns other (float), but declares seen (float)", "features="),
    "view-drops": Case("feature_all_null", "the feature seen is null", "view view_drops"),
    "view-values": Case("view_failed", "failed on its rows: InvalidOperationError", shown='"k0"'),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("trials") / "p"
    write_data(folder / "data")
    code = CODE.replace("HOME", str(folder)).replace("PERSON", PERSON)
    with running(folder, code, FALAJ_STEP_MEMORY_MB=str(MEMORY_MB)) as home:
        for source in ("rows", "single"):
            home.done("ingest", source)
        assert home.done("train", "good")["version"] == "good@1"
        yield home


@pytest.fixture(scope="module")
def ends(home: Home) -> dict[str, Ended]:
    """How each training ended: a few at a time, each by a command line of its own."""
    shell = Shell(home.folder)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = ["twofold", *CASES]
        return dict(zip(names, pool.map(lambda name: shell("train", name, "--json"), names), strict=True))


def write_data(folder: Path) -> None:
    chance, folder_lines = random.Random(1), ["at,k,x,y"]
    folder.mkdir(parents=True)
    for n in range(300):
        x = chance.gauss(0, 1)
        at = f"2024-01-{1 + n // 24:02d}T{n % 24:02d}:00:00Z"
        folder_lines.append(f"{at},k{n % 3},{x:.3f},{int(x + chance.gauss(0, 1) > 0)}")
    (folder / "rows.csv").write_text("\n".join(folder_lines) + "\n")
    (folder / "single.csv").write_text("\n".join(folder_lines[:2]) + "\n")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", CASES)
def test_a_training_that_comes_to_nothing_says_why(home: Home, ends: dict[str, Ended], name: str) -> None:
    case, ended = CASES[name], ends[name]
    assert ended.code == case.exit, ended
    error = ended.json
    assert error["code"] == case.code, error
    assert case.says in error["error"] and case.hints in error["hint"], error
    assert case.shown in "\n".join(error["details"].get("shown", [])), error
    (run,) = home.done("runs", "list", name)
    assert run["state"] == "failed" and run["finished_at"] and case.says in run["reason"]
    assert home.done("versions", name) == []


@pytest.mark.timeout(240)
def test_what_is_odd_and_does_no_harm_becomes_a_version(ends: dict[str, Ended]) -> None:
    """A function that forks and returns twice, closes its streams, changes the folder, leaves a thread; a constant feature."""
    assert ends["twofold"].code == 0, ends["twofold"]
    assert (ends["twofold"].json["version"], ends["twofold"].json["state"]) == ("twofold@1", "awaiting approval")


def test_the_version_that_was_there_is_untouched_and_can_be_made_again(home: Home, ends: dict[str, Ended]) -> None:
    (version,) = home.done("versions", "good")
    assert version["state"] == "awaiting approval"
    assert home.done("data", "log", "rows")[0]["rows"] == 300 == home.rows("rows", 0)
    assert home.done("evidence", "show", "good@1")
    assert home("audit", "verify").code == 0


def test_no_process_of_a_run_outlives_it(home: Home, ends: dict[str, Ended]) -> None:
    """Neither a child nor a daemon in a session of its own; and nothing of a run lies in the home's temporary folder."""
    sleeping = [p for p in processes_of(home.folder) if b"sleep" in Path(f"/proc/{p}/cmdline").read_bytes()]
    assert sleeping == []
    assert not list((home.home / "tmp").glob("bld_*")) and (home.home / "tmp").is_dir()


def test_a_person_sees_the_trace_and_the_log_does_not(home: Home, ends: dict[str, Ended]) -> None:
    entries = str(home.done("audit", "log", "--limit", "500"))
    assert "training_failed" in entries and PERSON not in entries and '"k0"' not in entries
    assert PERSON not in home.log.read_text()
    assert PERSON in home.done("runs", "list", "raises")[0]["reason"]


@pytest.mark.timeout(240)
def test_a_run_that_never_ends_is_ended(tmp_path: Path) -> None:
    """The limit is so short that no run is within it; so however busy the machine is, it ends this way."""
    write_data(tmp_path / "p" / "data")
    with running(tmp_path / "p", CODE) as home:
        home.done("ingest", "rows")
    never = (
        CODE
        + "\ndef never(data, params):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    while True: pass\nmodel('never', never)\n"
    )
    with running(tmp_path / "p", never) as home:
        pass
    with running(tmp_path / "p", never, FALAJ_STEP_SECONDS="4") as home:
        error = home.refused("train", "never")
    assert (
        error["code"] == "step_limit" and "longer than 4 s" in error["error"] and "FALAJ_STEP_SECONDS" in error["hint"]
    )
    deadline = time.monotonic() + 20
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(tmp_path) == [] and os.getpid()
