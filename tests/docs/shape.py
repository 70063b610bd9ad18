"""What kinds of pages promise: the README is short and begins with a picture and two commands, each guide ends in
a check that it works, each picture says what it shows, and UPGRADE.md has the formats that the code writes."""

import re

README_LINES = 160
FIRST_SCREEN = 30  # lines
FORMATS = {
    "the key ring": ("src/keys/sealed.rs", r"const FORMAT: u32 = (\d+);"),
    "the store's file": ("src/store/tables.rs", r"const FORMAT: u64 = (\d+);"),
    "the store in Redis": ("src/store/redis/names.rs", r"\{prefix\}:(\d+):"),
    "the audit log": ("src/audit.rs", r"const FORMAT: u8 = (\d+);"),
}


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


def formats(root):
    """One sentence for each format of which UPGRADE.md says another number than the code."""
    page, sentences = (root / "UPGRADE.md").read_text(), []
    for what, (file, pattern) in FORMATS.items():
        written = re.search(pattern, (root / file).read_text())
        said = re.search(rf"^\| {what}[^|]*\| (\d+)", page, re.M)
        if not written or not said or written[1] != said[1]:
            sentences.append(f"UPGRADE.md: the format of {what} is not that of {file}")
    return sentences
