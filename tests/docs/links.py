"""Whether each link of the pages leads somewhere: files of the repository, anchors of pages, well-formed
URLs. Nothing is fetched."""

import re
import subprocess
from urllib.parse import unquote, urlsplit

import markdown


def wrong(root, pages):
    """One sentence for each link that leads nowhere, and for each page that no link leads to."""
    known = kept(root)
    by_path = {page.path: page for page in pages}
    linked, sentences = set(), []
    for page in pages:
        for line, target in page.links:
            place = f"{page.path.relative_to(root)}:{line}"
            if re.match(r"[a-z][a-z0-9+.-]*:", target, re.I):
                if why := misformed(target):
                    sentences.append(f"{place}: {target}: {why}")
                continue
            path, _, anchor = target.partition("#")
            file = (page.path.parent / unquote(path)).resolve() if path else page.path
            if path.startswith("/") or not file.is_relative_to(root):
                sentences.append(f"{place}: {target} leads out of the repository")
                continue
            if file != root and str(file.relative_to(root)) not in known:
                sentences.append(f"{place}: there is no {target}")
                continue
            if file != page.path:
                linked.add(file)
            if anchor and not anchored(file, anchor, by_path):
                sentences.append(f"{place}: {target}: there is no such heading")
    for page in pages:
        under_docs = page.path.is_relative_to(root / "docs")
        if under_docs and page.path not in linked:
            sentences.append(f"{page.path.relative_to(root)}: no other page links to it")
    return sentences


def kept(root):
    """The files that git keeps, or would, and their folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    known = set()
    for name in filter(None, listed.split("\0")):
        if not (root / name).exists():
            continue
        known.add(name)
        parts = name.split("/")
        known.update("/".join(parts[:end]) for end in range(1, len(parts)))
    return known


def anchored(file, anchor, by_path):
    if file.suffix != ".md":
        lines = re.fullmatch(r"L(\d+)(?:-L(\d+))?", anchor)
        return bool(lines) and int(lines[2] or lines[1]) <= len(file.read_text().splitlines())
    page = by_path.get(file) or markdown.read(file)
    return anchor in page.anchors


def misformed(url):
    """Why this is no URL that a reader could open; None where it is one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme == "mailto":
        return None if re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", parts.path) else "no address"
    if parts.scheme == "http" and host in ("localhost", "127.0.0.1"):
        return None
    if parts.scheme != "https":
        return "not https"
    if not re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", host):
        return "no host name"
    if parts.username or parts.password:
        return "it names a user"
    return None
