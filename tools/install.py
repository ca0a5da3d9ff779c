"""Make .venv from locks/dev.txt and this package. Returns at once when neither changed.

Runs on any Python 3 far enough to say what is wrong, so it uses old syntax only.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
STAMP = VENV / ".falaj-installed"
INPUTS = ("locks/bootstrap.txt", "locks/dev.txt", "pyproject.toml")


def main() -> None:
    wanted = state()
    if STAMP.is_file() and STAMP.read_text() == wanted and (BIN / "falaj").exists() and works():
        return
    use_a_new_enough_python()
    os.umask(0o022)  # the environment is readable for whoever runs it, however it was made
    os.chdir(str(ROOT))
    if not usable():
        make_environment()
    if STAMP.exists():
        STAMP.unlink()
    say("installing the locked dependencies")
    run(str(BIN / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", "locks/bootstrap.txt")
    uv = [str(BIN / "uv"), "pip"]
    target = ["--quiet", "--python", str(BIN / "python")]
    run(*uv, "sync", *target, "--require-hashes", "--compile-bytecode", "locks/dev.txt")
    run(*uv, "install", *target, "--no-deps", "--no-build-isolation", "--editable", ".")
    STAMP.write_text(wanted)
    say("ready: .venv/bin/falaj")


def state() -> str:
    """What the environment is made of, and where: a moved one has to be made again."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in INPUTS:
        digest.update(hashlib.sha256((ROOT / name).read_bytes()).digest())
    return digest.hexdigest() + "\n"


def use_a_new_enough_python() -> None:
    """Carry on with a Python that is new enough, or say what is needed."""
    if tuple(sys.version_info) >= (3, 11):
        return
    for name in ("python3.13", "python3.12", "python3.11"):
        found = shutil.which(name)
        if found and answers(found):
            os.execv(found, [found, *sys.argv])
    sys.exit(
        "Falaj needs Python 3.11 or newer; {} is {}.{}.\nInstall one and say: make install PYTHON=python3.12".format(
            sys.executable, *sys.version_info[:2]
        )
    )


def answers(python: str) -> bool:
    """Whether this Python runs and is new enough; a version manager's shim may exist and do neither."""
    test = "import sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.call([python, "-c", test], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def works() -> bool:
    """Whether the environment's Python is still there; a link to a removed one is not."""
    return (BIN / "python").exists()


def usable() -> bool:
    """Whether .venv can be brought up to date rather than made anew."""
    activate = BIN / "activate"
    return works() and activate.is_file() and str(VENV) in activate.read_text() and answers(str(BIN / "python"))


def make_environment() -> None:
    say("making .venv with Python {}.{}".format(*sys.version_info[:2]))
    try:
        run(sys.executable, "-m", "venv", "--clear", str(VENV))
    except subprocess.CalledProcessError:
        sys.exit("Python could not make .venv. On Debian and Ubuntu its package python3-venv is needed.")


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def say(text: str) -> None:
    print("falaj: " + text, flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        sys.exit("falaj: '{}' failed with {}; see above".format(" ".join(failed.cmd[:4]), failed.returncode))
