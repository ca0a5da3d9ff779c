"""Nothing that is sent through the stores of a home can be read on its disk, neither afterwards nor while it is under way.

    python proofs/markers.py [--markers 1000] [--sample]

Random markers are the entity keys and texts of a project's rows. They are loaded, some into quarantine, materialised, joined
and trained on, asked for, scored as a table, recorded, labelled, shipped and backed up, before and after the key-encryption
key was rotated. All the while, and at the end, every file below the home, the backups and the folder for temporary files is
read raw: for each marker in plain, in UTF-16, in base64, and in what Parquet, gzip, zlib and Zstandard files decompress to.

Exits 1 when one is found, when a store held none of them to begin with, or when a control stays green: a marker that lies
there in each of these forms, and stores that write without their encryption, must be found.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

import polars as pl  # noqa: E402  # the path comes first
from polars.exceptions import PolarsError  # noqa: E402

from falaj.entrypoints.cli.client import running_control_plane  # noqa: E402
from falaj.entrypoints.cli.commands.home import stop  # noqa: E402
from falaj.kernel.clock import SystemClock  # noqa: E402
from falaj.kernel.settings import Settings  # noqa: E402
from falaj.lifecycle.serving.plane import ciphers  # noqa: E402
from falaj.lifecycle.serving.plane.journal import Journal, Prediction  # noqa: E402
from falaj.storage import keychain  # noqa: E402
from falaj.storage.lake import delta  # noqa: E402
from falaj.storage.online import fillings  # noqa: E402
from falaj.storage.online.lmdb_store import OnlineWriter, ViewMeta  # noqa: E402

MODEL = "back"
CODE = '''
"""Will a customer come back? Their names are the markers."""

import pandera.polars as pa
import polars as pl

import falaj as fj


class Sale(pa.DataFrameModel):
    sold_at: str
    paid_at: str
    shop: str
    note: str
    price: float = pa.Field(ge=0)
    visits: int
    back: int

    class Config:
        coerce = True


def tidy(rows: pl.LazyFrame) -> pl.LazyFrame:
    times = [pl.col(c).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC") for c in ("sold_at", "paid_at")]
    return rows.with_columns(*times, back=pl.col("back") == 1, asked_at=pl.col("paid_at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"))


sales = fj.Source.csv("sales", "data/sales*.csv", event_time="sold_at", known_at="paid_at", contract=Sale, max_bad=0.5, prepare=tidy, purposes=("shop",))
shop = fj.Entity("shop", key="shop")


@fj.feature_view(entity=shop, source=sales, ttl="9999d", features={"last_price": "float", "last_note": "category"})
def shop_price(sales: pl.LazyFrame) -> pl.LazyFrame:
    return sales.select("shop", "sold_at", "paid_at", last_price=pl.col("price"), last_note=pl.col("note"))


features = [shop_price, fj.request_features(price="float", visits="integer")]
gates = [fj.gate.metric("roc_auc", at_least=0.5), fj.gate.approval("risk-officer")]


@fj.model(name="back", task="binary", label="back", spine=sales, at="asked_at", features=features, purpose="shop", gates=gates)
def back(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = data.numpy()
    return make_pipeline(SimpleImputer(), LogisticRegression()).fit(rows.features, rows.label)
'''
TOML = '[falaj]\nproject = "."\n\n[project]\nname = "made"\nmodule = "made"\n'


class Markers:
    """Random texts that begin alike, so that one search finds any of them."""

    def __init__(self, count: int) -> None:
        self._mark = "".join(secrets.choice("bcdfghjkmnpqrstvwxz") for _ in range(14))
        self.all = [f"{self._mark}{secrets.token_hex(8)}" for _ in range(count)]
        plain = self._mark.encode()
        self._needles = {"plain": plain, "UTF-16": self._mark.encode("utf-16-le")}
        for shift in range(3):  # as it stands in base64, at each of its places in a group of three bytes
            coded = base64.b64encode(bytes(shift) + plain)
            self._needles[f"base64+{shift}"] = coded[4 if shift else 0 : -4]
        self._upside = self._mark.encode("utf-16-be")

    def forms(self, data: bytes) -> list[str]:
        """The forms in which a marker stands in some bytes."""
        found = [name for name, needle in self._needles.items() if needle in data]
        return found + ["UTF-16"] * (self._upside in data)

    def found(self, path: Path) -> list[str]:
        """The forms in which one stands in a file, also after decompressing it."""
        try:
            data = path.read_bytes()
        except OSError:
            return []  # it is gone already
        told = self.forms(data)
        for name, plain in unpacked(data):
            told += [f"{form} in {name}" for form in self.forms(plain)]
        return told


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What compressed bytes hold; Parquet's values, whichever codec its pages have."""
    if data[:2] == b"\x1f\x8b":
        with suppress(OSError, EOFError, zlib.error):
            yield "gzip", gzip.decompress(data)
    if data[:1] == b"\x78":
        with suppress(zlib.error):
            yield "zlib", zlib.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        with suppress(PolarsError):
            yield "Zstandard", pl.read_csv(io.BytesIO(data), has_header=False, separator="\x01").write_csv().encode()
    if data[:4] == b"PAR1":
        with suppress(PolarsError):
            yield "Parquet", pl.read_parquet(io.BytesIO(data)).write_ndjson().encode()


class Scanner(threading.Thread):
    """Reads every file below some folders again and again, whenever it has changed."""

    def __init__(self, markers: Markers, folders: list[Path]) -> None:
        super().__init__(daemon=True)
        self._markers = markers
        self._folders = folders
        self._seen: dict[Path, tuple[int, int]] = {}
        self._stopping = threading.Event()
        self.found: dict[str, list[str]] = {}
        self.reads = self.rounds = self.bytes = 0

    def run(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(0.05)

    def end(self) -> None:
        """A last look at everything, as it is now."""
        self._stopping.set()
        self.join()
        self._seen.clear()
        self.look()

    def look(self) -> None:
        self.rounds += 1
        for folder in self._folders:
            for base, _, names in os.walk(folder):  # links are not followed: what is in memory is not on the disk
                for name in names:
                    self._read(Path(base) / name)

    def _read(self, path: Path) -> None:
        try:
            stat = path.lstat()
        except OSError:
            return
        seen = (stat.st_mtime_ns, stat.st_size)
        if not path.is_file() or path.is_symlink() or self._seen.get(path) == seen:
            return
        self._seen[path] = seen
        self.reads, self.bytes = self.reads + 1, self.bytes + stat.st_size
        for form in self._markers.found(path):
            self.found.setdefault(str(path), [])
            if form not in self.found[str(path)]:
                self.found[str(path)].append(form)


class World:
    """A home whose rows are the markers, and everything that is done with them."""

    def __init__(self, folder: Path, markers: list[str]) -> None:
        self.project = folder / "project"
        (self.project / "data").mkdir(parents=True)
        (self.project / "made.py").write_text(CODE)
        (self.project / "falaj.toml").write_text(TOML)
        self.markers = markers
        self.settings = Settings(home=self.project / ".falaj", project=self.project)
        self.environ = {**os.environ, "TMPDIR": str(folder / "tmp")}
        self.backups, self.out = folder / "backups", folder / "theirs"
        self.out.mkdir()

    def cli(self, *words: str, given: str = "") -> Any:
        """What a command says, as JSON."""
        command = [str(Path(sys.executable).parent / "falaj"), *words, "--json"]
        done = subprocess.run(command, cwd=self.project, env=self.environ, capture_output=True, text=True, input=given, check=False)  # fmt: skip
        if done.returncode:
            raise SystemExit(f"markers: falaj {' '.join(words)}: {done.stdout[-800:]}{done.stderr[-800:]}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def sales(self, name: str, markers: list[str], *, bad: bool = False) -> None:
        """A file with two rows for each marker; with `bad`, the price of a third of them is none."""
        lines = ["sold_at,paid_at,shop,note,price,visits,back"]
        for n, marker in enumerate(markers * 2):
            price = "dear" if bad and n % 3 == 0 else f"{(n * 37) % 100}.5"
            back = int((n * 37) % 100 + (n % 5) * 3 > 55)
            at = f"2024-01-{1 + n // 1440 % 28:02}T{n // 60 % 24:02}:{n % 60:02}"
            lines.append(f"{at}:00Z,{at}:30Z,{marker},note {marker},{price},{n % 10},{back}")
        (self.project / "data" / name).write_text("\n".join(lines) + "\n")

    def live(self) -> None:
        """Everything, before and after a rotation of the key-encryption key."""
        some = len(self.markers) // 10
        self.sales("sales-1.csv", self.markers[: 7 * some])
        self.cli("apply")
        self.cli("up")
        for name, role in (("engineer", "ml-engineer"), ("risk", "risk-officer"), ("till", "service")):
            self.cli("token", "create", name, "--role", role, "--keep", *["--service"] * (role == "service"))
        self.cli("ingest", "sales")
        self.sales("sales-2.csv", self.markers[7 * some : 8 * some], bad=True)
        self.cli("ingest", "sales")
        self.cli("features", "materialize")
        done = self.cli("train", MODEL)
        self.cli("approve", done["version"], "--reason", "it is a proof", "--as", "risk")
        self.ask(self.markers[:some] + self.markers[8 * some : 9 * some])
        self.score(self.markers[9 * some :])
        self.cli("journal", "seal")
        self.cli("backup", str(self.backups))
        self.cli("keys", "rotate", "kek", "--reason", "it is a proof")
        self.cli("features", "materialize")
        self.ask(self.markers[some : 2 * some])
        self.cli("backup", str(self.backups))
        self.cli("down")

    def ask(self, markers: list[str]) -> None:
        """Ask for answers, most of them for shops that nobody knows, and push what became true."""
        rows = [{"shop": m, "price": 40.0, "visits": 3} for m in markers]
        request = self.out / "request.json"
        request.write_text(json.dumps(rows))
        told = self.cli("predict", MODEL, "--data", str(request), "--as", "till")
        prediction = told["parameters"]["prediction_id"]
        labels = [{"prediction": f"{prediction}/{n}", "value": n % 2} for n in range(len(rows))]
        self.cli("labels", "push", MODEL, "--data", "-", given=json.dumps(labels))

    def score(self, markers: list[str]) -> None:
        """Score a table, and record its answers."""
        lines = ["shop,price,visits,asked_at,kept"]
        lines += [f"{m},30.5,2,2024-02-01T00:00:00Z,{m}" for m in markers]
        (self.out / "table.csv").write_text("\n".join(lines) + "\n")
        where = ["--data", str(self.out / "table.csv"), "--out", str(self.out / "scores.parquet")]
        self.cli("score", MODEL, *where, "--keep", "kept", "--record")


def stores(folder: Path, text: str) -> None:
    """Something with a marker in the lake, the journal and the online store."""
    keychain.hold(folder, keychain.fresh())
    delta.append(folder / "lake", pl.DataFrame({"note": [f"{text} {n}" for n in range(100)]}), "op")
    journal = Journal(folder / "journal", SystemClock())
    digest = "sha256:" + "0" * 64
    journal.append(Prediction(journal.next_id, 1, "m", "m@1", digest, "p", 1, "1", 1, {"note": [text]}, {"y": [0.5]}))
    journal.close()
    writer = OnlineWriter(folder / "online", map_bytes=1 << 20)
    writer.replace(ViewMeta(digest, "2024-01-01T00:00:00.000Z", ("note",), 0, "op"), [("k", (1, (text,)))])
    writer.close()


def controls(markers: Markers, folder: Path) -> list[str]:
    """What the search does not find although it lies there."""
    text, missed = markers.all[0], []
    forms: dict[str, Callable[[], bytes]] = {
        "plain": lambda: b"xx" + text.encode(),
        "UTF-16 LE": lambda: text.encode("utf-16-le"),
        "UTF-16 BE": lambda: b"x" + text.encode("utf-16-be"),
        "base64": lambda: base64.b64encode(b"x" + text.encode()),
        "gzip": lambda: gzip.compress(text.encode()),
        "zlib": lambda: zlib.compress(text.encode()),
    }
    for codec in ("snappy", "zstd", "gzip", "lz4", "uncompressed"):
        forms[f"Parquet {codec}"] = lambda codec=codec: _parquet(text, codec)  # type: ignore[misc]
    for name, made in forms.items():
        path = folder / "form"
        path.write_bytes(made())
        if not markers.found(path):
            missed.append(name)
        path.unlink()
    for name, module, attribute, off in (
        ("the lake", delta, "seal", lambda plain, *_: plain),
        ("the journal", ciphers.Sealer, "seal", lambda _self, plain, _offset: plain),
        ("the online store", fillings.Filling, "seal", lambda _s, _n, key, value: (key, value)),
    ):
        place = folder / name.rpartition(" ")[2]
        place.mkdir()
        whole = getattr(module, attribute)
        try:
            setattr(module, attribute, off)
            stores(place, text)
        finally:
            setattr(module, attribute, whole)
        scanner = Scanner(markers, [place])
        scanner.look()
        if not scanner.found:
            missed.append(f"{name} without its encryption")
    place = folder / "sealed"
    place.mkdir()
    stores(place, text)
    scanner = Scanner(markers, [place])
    scanner.look()
    return missed + [f"{name}, sealed" for name in scanner.found]


def _parquet(text: str, codec: Any) -> bytes:
    out = io.BytesIO()
    pl.DataFrame({"a": [f"{n} {text}" for n in range(1000)]}).write_parquet(out, compression=codec)
    return out.getvalue()


def prove(folder: Path, count: int) -> int:
    markers = Markers(count)
    (folder / "controls").mkdir()
    (folder / "tmp").mkdir()
    missed = controls(markers, folder / "controls")
    world = World(folder, markers.all)
    scanner = Scanner(markers, [world.settings.home, world.backups, folder / "tmp"])
    scanner.start()
    began = time.monotonic()
    try:
        world.live()
    finally:
        if running_control_plane(world.settings.home):
            stop(world.settings)
        scanner.end()
    for path, forms in sorted(scanner.found.items()):
        print(f"{path}: {', '.join(forms)}", file=sys.stderr)
    for name in missed:
        print(f"control: {name}", file=sys.stderr)
    wrong = len(scanner.found) + len(missed)
    print(
        f"markers: {count:,} sent through every store in {time.monotonic() - began:.0f} s; {scanner.reads:,} reads of files"
        f" ({scanner.bytes / 1e6:,.0f} MB) in {scanner.rounds} rounds, {len(scanner.found)} files with one; controls"
        f" {'all turned red' if not missed else f'that stayed green: {len(missed)}'}"
    )
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--markers", type=int, default=1000)
    parser.add_argument("--sample", action="store_true", help="100 markers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="falaj-markers-") as folder:
        return prove(Path(folder), 100 if options.sample else options.markers)


if __name__ == "__main__":
    sys.exit(main())
