"""What kinds of pages promise: the README is short and begins with a picture and two commands, each guide ends in
a check that it works, each picture says what it shows."""

import re

README_LINES = 160
FIRST_SCREEN = 30  # lines


def wrong(root):
    sentences = []
    lines = (root / "README.md").read_text().splitlines()
    if len(lines) > README_LINES:
        sentences.append(f"README.md has {len(lines)} lines; reference belongs into docs/")
    first = "\n".join(lines[:FIRST_SCREEN])
    for wanted in ("![", "make run", "make test"):
        if wanted not in first:
            sentences.append(f"README.md: its first screen has no {wanted}")
    for guide in sorted((root / "docs/guides").glob("*.md")):
        last = re.findall(r"^## (.*)$", guide.read_text(), re.M)[-1:]
        if last != ["It works"]:
            sentences.append(f"{guide.relative_to(root)}: its last section is not a check that it works")
    for picture in sorted((root / "docs/images").glob("*.svg")):
        text = picture.read_text()
        if not re.search(r"<title[^>]*>[^<]+</title>", text) or 'role="img"' not in text:
            sentences.append(f"{picture.relative_to(root)}: it has no title, or is no img to a screen reader")
    return sentences
