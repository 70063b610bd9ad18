"""What a page holds: its fenced blocks with the comment before each, its links, and its anchors.

As GitHub reads Markdown, as far as these pages use it. Not a whole parser: no HTML blocks, no setext headings.
"""

import html
import re
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*(.*)$")
COMMENT = re.compile(r"^\s*<!--\s*(test|illustrative)(?::\s*(.*?))?\s*-->\s*$")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
CODE_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^\s()<>]*(?:\([^\s()]*\)[^\s()<>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\s{0,3}\[[^\]^]+\]:\s*<?(\S+?)>?\s*$")
ATTRIBUTE = re.compile(r"<[a-z][^>]*?\s(?:href|src|srcset)=\"([^\"]+)\"")
AUTOLINK = re.compile(r"<(https?://[^>\s]+)>")
NAMED = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")


@dataclass
class Block:
    """A fenced block. `marks` are the words of `<!-- test: … -->` before it; `reason` is that of
    `<!-- illustrative: … -->`, None where there is none."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict = field(default_factory=dict)
    reason: str | None = None

    def place(self, root):
        return f"{self.page.relative_to(root)}:{self.line}"


@dataclass
class Page:
    path: Path
    blocks: list
    links: list  # (line, target)
    anchors: set


def read(path):
    """Raises ValueError where a fence is not closed, or a comment belongs to no block."""
    page = Page(path, [], [], set())
    slugs, fence, comment = {}, None, None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark = FENCE.match(line)
        if fence:
            indent, closing, block, lines = fence
            if mark and mark[2].startswith(closing) and not mark[3]:
                block.text = "\n".join(lines) + "\n" if lines else ""
                page.blocks.append(block)
                fence = None
            else:
                lines.append(line[min(indent, len(line) - len(line.lstrip(" "))) :])
            continue
        if mark:
            block = Block(path, number, (mark[3].split() or [""])[0], "")
            if comment:
                _, kind, words = comment
                if kind == "illustrative":
                    block.reason = words
                else:
                    block.marks = dict((word.split("=", 1) + [""])[:2] for word in words.split())
                comment = None
            fence = (len(mark[1]), mark[2], block, [])
            continue
        if comment and line.strip():
            raise ValueError(f"{path}:{comment[0]}: this comment stands before no block")
        if found := COMMENT.match(line):
            comment = (number, found[1], found[2] or "")
            continue
        if heading := HEADING.match(line):
            slug = slug_of(heading[2])
            count = slugs[slug] = slugs.get(slug, -1) + 1
            page.anchors.add(f"{slug}-{count}" if count else slug)
        page.anchors.update(NAMED.findall(line))
        bare = CODE_SPAN.sub(lambda span: "`" + "x" * len(span[2]) + "`", line)
        for pattern in (LINK, REFERENCE, ATTRIBUTE, AUTOLINK):
            page.links += [(number, html.unescape(found)) for found in pattern.findall(bare)]
    if fence:
        raise ValueError(f"{fence[2].place(path.parent)}: this block is not closed")
    if comment:
        raise ValueError(f"{path}:{comment[0]}: this comment stands before no block")
    return page


def slug_of(heading):
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"<[^>]+>", "", text)
    text = re.sub(r"[*`]", "", text)
    text = re.sub(r"[^\w\- ]", "", text.lower())
    return text.replace(" ", "-")
