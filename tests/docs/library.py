"""Pages that were followed, and the worlds that they kept for others."""

from __future__ import annotations

from pathlib import Path

from tests.docs.blocks import pages, steps
from tests.docs.quick import Quick
from tests.docs.world import Reader, take


class Library:
    """Pages that were followed and the worlds that they kept."""

    def __init__(self, folder: Path, worlds: Path | None = None) -> None:
        self._folder = folder
        self._worlds = worlds or folder / "worlds"
        self._worlds.mkdir(parents=True, exist_ok=True)
        self._quick = Quick(folder)
        self._followed: dict[Path, Reader] = {}
        self._shared: dict[str, Reader] = {}

    def follow(self, page: Path) -> Reader:
        """Follow a page, after the pages whose worlds it needs; each page is followed once."""
        if page not in self._followed:
            kind, world = needs(page)
            if world:
                self._make(world)
            place = self._share(world) if kind == "share" else self._folder / str(len(self._followed)) / page.stem
            place.mkdir(parents=True, exist_ok=True)
            reader = self._followed[page] = Reader(page, place, self._worlds, self._folder, self._quick.bin)
            reader.follow()
            if kind != "share":
                reader.end()
        return self._followed[page]

    def close(self) -> None:
        """Stop what still runs."""
        for reader in self._shared.values():
            reader.end()
        self._quick.close()

    def _make(self, world: str) -> None:
        if (self._worlds / world).exists():
            return
        maker = next((p for p in pages() if f"<!-- test: keep as {world} -->" in p.read_text("utf-8")), None)
        assert maker is not None, f"no page keeps the world {world}"
        made = self.follow(maker)
        assert (self._worlds / world).exists(), f"{maker.name} did not come to keep {world}: {made.wrong[:1]}"

    def _share(self, world: str) -> Path:
        """The one copy of a world that several pages look at, with both planes running."""
        if world not in self._shared:
            place = self._folder / "shared" / world
            take(self._worlds / world, place)
            reader = self._shared[world] = Reader(
                Path(f"shared/{world}"), place, self._worlds, self._folder, self._quick.bin
            )
            reader.enter()
            reader.must(0, "falaj up")
            assert not reader.wrong, reader.wrong
        return self._shared[world].folder


def needs(page: Path) -> tuple[str, str]:
    """How a page begins: `start` or `share`, and the world; nothing for an empty folder."""
    for step in steps(page):
        match step.direction.split():
            case ["start", "from", world]:
                return "start", world
            case ["share", world]:
                return "share", world
    return "", ""
