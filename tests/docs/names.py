"""Whether the variables and the metrics that a page names are those of the reference, which is written from the
code."""

import re

VARIABLE = re.compile(r"\b((?:EXCHEQUER|CLERK|OTEL)_[A-Z0-9_]*[A-Z0-9])\b")
METRIC = re.compile(r"\b(exchequer_[a-z_]*[a-z])\b")
OTHERS = {
    "EXCHEQUER_LISEN",  # the mistake that configuration.md shows
    "EXCHEQUER_PORT",  # Kubernetes'
    "EXCHEQUER_URL",  # the quickstart's app
    "EXCHEQUER_CLOCK_SHIFT_FILE",  # a build for tests
    "exchequer_key_ring",  # a member of ring.json
}


def wrong(root, pages):
    """One sentence for each name that the reference does not have."""
    variables = set(VARIABLE.findall((root / "docs/reference/variables.md").read_text()))
    metrics = set(METRIC.findall((root / "docs/reference/metrics.md").read_text()))
    sentences = []
    for page in pages:
        for number, line in enumerate(page.path.read_text().splitlines(), 1):
            place = f"{page.path.relative_to(root)}:{number}"
            for name in VARIABLE.findall(line):
                # A suffix makes a variable of Clerk's another app's.
                known = any(name.startswith(f"{each}_") for each in variables if each.startswith("CLERK_"))
                if not known and name.removesuffix("_FILE") not in variables | OTHERS and name not in OTHERS:
                    sentences.append(f"{place}: there is no variable {name}")
            for name in METRIC.findall(line):
                series = re.sub(r"_(bucket|count|sum)$", "", name)
                family = f"{name}_" in line  # "those that begin with"
                if series not in metrics | OTHERS and not family:
                    sentences.append(f"{place}: there is no metric {name}")
    return sentences
