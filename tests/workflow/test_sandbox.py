"""What a stranger's model can do in the sandbox: answer, and nothing else. The whole corpus is in proofs/malicious.py."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from falaj.kernel.errors import Denied, FalajError, Invalid
from falaj.lifecycle.training.steps.foreign import inside
from falaj.workflow.confine import Limits, supported
from falaj.workflow.sandbox import Sandbox
from tests.scripts import loaded

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(memory_mb=1200, seconds=10, patience=20)
CASES = (
    "writes a file outside", "leaves a daemon behind", "prints a secret", "opens a connection", "kills a process",
    "forks without libc",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus() -> Iterator[ModuleType]:
    with loaded(ROOT / "proofs" / "_malicious.py") as module:
        yield module


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """Where none can be had, importing a pickle is refused, which other tests see to."""
    if supported():
        pytest.skip(supported())
    place = tmp_path_factory.mktemp("probe")
    (place / "source").mkdir()
    made = Sandbox((place / "home",), LIMITS, 1 << 20)
    try:
        made.run("foreign", {"do": "convert", "kind": "mlflow"}, place)
    except FalajError as e:
        if e.code == "no_sandbox":
            pytest.skip(e.message)
    return made


@pytest.mark.parametrize("name", CASES)
def test_nothing_happens_outside(name: str, sandbox: Sandbox, corpus: ModuleType, tmp_path: Path) -> None:
    case = next(c for c in corpus.CASES if c.name == name)
    trap = corpus.Trap(tmp_path / "trap")
    try:
        source = tmp_path / "given" / "source"
        source.mkdir(parents=True)
        case.write(source, trap)
        with pytest.raises(FalajError) as refused:
            sandbox.run("foreign", {"do": "convert", "kind": "mlflow"}, tmp_path / "given")
        assert refused.value.code in ("foreign_unreadable", "sandbox_died"), refused.value.message
        assert trap.effects(f"{refused.value.message} {refused.value.details}") == []
    finally:
        trap.close()


def test_the_trap_sees_what_happens_without_a_sandbox(corpus: ModuleType, tmp_path: Path) -> None:
    trap = corpus.Trap(tmp_path / "trap")
    try:
        case = next(c for c in corpus.CASES if c.name == "writes a file outside")
        assert corpus.free_effects(case, trap) == ["made was made"]
    finally:
        trap.close()


def test_a_pickle_is_never_loaded_in_a_process_that_is_free(corpus: ModuleType, tmp_path: Path) -> None:
    made = tmp_path / "made"
    source = tmp_path / "source"
    source.mkdir()
    corpus.mlflow_folder(source, corpus.pickle.dumps(corpus.Code(f"open({str(made)!r}, 'w')")))
    with pytest.raises(Denied) as refused:
        inside.work({"do": "convert", "kind": "mlflow"}, tmp_path, False)
    assert (refused.value.code, made.exists()) == ("no_sandbox", False)


def test_what_is_hidden_is_never_readable(sandbox: Sandbox, tmp_path: Path) -> None:
    library = Path(sysconfig.get_path("stdlib")).resolve()
    hidden = Sandbox((library / "below",), LIMITS, 1 << 20)
    (tmp_path / "source").mkdir()
    with pytest.raises(Denied) as refused:
        hidden.run("foreign", {"do": "convert", "kind": "mlflow"}, tmp_path)
    assert refused.value.code == "no_sandbox"
    with pytest.raises(Invalid):  # the same is read where nothing is hidden below a library
        sandbox.run("foreign", {"do": "convert", "kind": "mlflow"}, tmp_path)


def test_where_the_kernel_gives_no_sandbox_nothing_is_loaded() -> None:
    code = (
        "import sys; from pathlib import Path; from falaj.workflow import confine\n"
        "confine._NAMESPACES = 1 << 62\n"
        "try: confine.enter({}, Path('/'), confine.Limits())\n"
        "except confine.CannotConfine as e: print('refused'); sys.exit(0)\n"
        "print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "refused", done.stderr
