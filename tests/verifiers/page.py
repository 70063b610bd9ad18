"""The parts of docs/verifying.md that are not written by hand: the measured table, and the examples' code."""

import difflib
import re

from world import ROOT

PAGE = ROOT / "docs/verifying.md"
LANGUAGES = {".mjs": "js", ".py": "python", ".go": "go", ".java": "java", ".rs": "rust", ".yaml": "yaml"}
# The two tables: their name on the page, and their columns.
TABLES = {
    "what they take": {
        "ES256": "ES256", "RS256": "RS256", "EdDSA": "EdDSA", "at+jwt": "`at+jwt`",
        "late": "late by", "early": "early by",
    },
    "when keys change": {
        "rotation": "planned rotation", "unknown": "a key it never saw", "again": "another, within 30 s",
        "revoked": "a revoked key, after that",
    },
}  # fmt: skip
TABLE = re.compile(r"(<!-- measured: ([a-z ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SNIPPET = re.compile(r"(<!-- test: from=(examples/verify/\S+) -->\n)(```.*?\n```\n)", re.DOTALL)


def line(cells):
    return f"| {' | '.join(cells)} |"


def table(columns, names, cells, known):
    """The table as it was measured; a row that could not be measured here stays as it was."""
    lines = [line(["verifier", *columns.values()]), line(["---"] * (len(columns) + 1))]
    for name in names:
        if name in cells:
            lines.append(line([name, *(cells[name].get(column, "") for column in columns)]))
        elif name in known:
            lines.append(known[name])
    return "\n".join(lines)


def generated(text, names, cells):
    """The page with the tables as they were measured, and the snippets as the files have them."""

    def measured(found):
        rows = found[3].strip().splitlines()[2:]
        known = {row.split("|")[1].strip(): row for row in rows}
        return f"{found[1]}\n{table(TABLES[found[2]], names, cells, known)}\n\n{found[4]}"

    text = TABLE.sub(measured, text)
    return SNIPPET.sub(lambda found: found[1] + fenced(found[2]), text)


def differences(names, cells, write):
    """The lines that differ between the page and what was measured; after writing, none."""
    text = PAGE.read_text()
    new = generated(text, names, cells)
    if write:
        PAGE.write_text(new)
        return []
    names = ("docs/verifying.md", "measured")
    return list(difflib.unified_diff(text.splitlines(), new.splitlines(), *names, lineterm="", n=0))


def fenced(path):
    file = ROOT / path
    return f"```{LANGUAGES[file.suffix]}\n{file.read_text().rstrip()}\n```\n"
