#!/usr/bin/env python3
"""Checks the documents: every link leads somewhere, every command and snippet does what its page says, every
variable and metric that is named is there, and so are the tests that docs/security.md names.

    tests/docs/check.py [PAGE…]     all pages unless some are named

snippets.py says what is done with a block; illustrative.txt how many blocks of each page are not checked.
It needs the built binary (target/debug/exchequer, or EXCHEQUER_BINARY) and what tests/interop/install.sh
installs.
"""

import os
import sys
import time
from pathlib import Path

import links
import markdown
import names as reference
import promises
import shape
import snippets
from world import World

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("EXCHEQUER_BINARY", ROOT / "target/debug/exchequer")).resolve()
BOUND = Path(__file__).parent / "illustrative.txt"
FOLDERS = {"docs", "keys", "k8s", "clients", "examples"}


def documents():
    """Those at the top and of FOLDERS that git keeps: not those of packages that are installed."""
    pages = (name for name in links.kept(ROOT) if name.endswith(".md"))
    return sorted(ROOT / name for name in pages if "/" not in name or name.split("/")[0] in FOLDERS)


def bounds():
    lines = (line.split() for line in BOUND.read_text().splitlines() if line and not line.startswith("#"))
    return {page: int(count) for count, page in lines}


def main(names):
    began, wrong = time.monotonic(), []
    pages = []
    for path in documents():
        try:
            pages.append(markdown.read(path))
        except ValueError as error:
            wrong.append(str(error))
    wrong += links.wrong(ROOT, pages)
    wrong += shape.wrong(ROOT) + shape.formats(ROOT)
    wrong += promises.wrong(ROOT, ROOT / "docs/security.md")
    wrong += reference.wrong(ROOT, pages)
    if not BINARY.exists():
        sys.exit(f"{BINARY} is missing: cargo build")
    chosen = [page for page in pages if not names or str(page.path.relative_to(ROOT)) in names]
    counts = {"checked": 0, "illustrative": 0, "shown": 0}
    world = World(BINARY)
    try:
        for page in chosen:
            illustrative = 0
            for block in page.blocks:
                illustrative += block.reason is not None
                try:
                    kind = "checked" if snippets.check(ROOT, block, world) else "shown"
                except snippets.Wrong as error:
                    wrong.append(f"{block.place(ROOT)}: {error}")
                    continue
                counts["illustrative" if block.reason is not None else kind] += 1
            name = str(page.path.relative_to(ROOT))
            bound = bounds().get(name, 0)
            if illustrative > bound:
                wrong.append(f"{name}: {illustrative} blocks are illustrative; {BOUND.name} allows {bound}")
            elif illustrative < bound:
                print(f"{name}: {illustrative} blocks are illustrative; lower its {bound} in {BOUND.name}")
    finally:
        world.stop()
    links_read = sum(len(page.links) for page in pages)
    took = time.monotonic() - began
    print(
        f"{len(pages)} pages, {links_read} links; {counts['checked']} snippets checked, "
        f"{counts['illustrative']} illustrative, {counts['shown']} pictures and texts; {took:.0f} s"
    )
    for sentence in wrong:
        print(f"WRONG  {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
