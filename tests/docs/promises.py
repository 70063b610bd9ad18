"""Whether the tests that docs/security.md names are there. A test is named `module::name`: the file's name
without its folder and ending, and the function."""

import re

NAMED = re.compile(r"`([a-z0-9_]+)::([a-z0-9_]+)`")
FOLDERS = ("tests/suite", "tests/faults", "src")


def wrong(root, page):
    """One sentence for each test that is named and not there, and for each threat without one."""
    sources = {}
    for folder in FOLDERS:
        for file in (root / folder).rglob("*.rs"):
            module = file.parent.name if file.name == "mod.rs" else file.stem
            sources[module] = sources.get(module, "") + file.read_text()
    sentences, named = [], 0
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        place = f"{page.relative_to(root)}:{number}"
        found = NAMED.findall(line)
        named += len(found)
        for module, name in found:
            if not re.search(rf"\bfn {name}\(", sources.get(module, "")):
                sentences.append(f"{place}: there is no test {module}::{name}")
        of_a_table = line.startswith("| ") and not re.match(r"\| (---|threat) ", line)
        if of_a_table and not found:
            sentences.append(f"{place}: no test proves this")
    if not named:
        sentences.append(f"{page.relative_to(root)}: it names no tests")
    return sentences
