#!/usr/bin/env python3
"""Makes everything that a release hands out, in dist/: `make release`.

What it is: the static binary with its man pages and completions, the image, the list of what is in
them, the client package, the source package, and the checksums of all. The version is Cargo.toml's;
the same commit gives the same archive.
What it is not: a way to publish. Nothing leaves this machine.
"""

import argparse
import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "image"))
# A file that the import left would be a change that is not committed.
sys.dont_write_bytecode = True

import build as image  # noqa: E402

DIST = ROOT / "dist"
CLIENT = ROOT / "clients/typescript"
# Where a shell looks for them, by the names it looks for.
COMPLETIONS = {"bash": "exchequer.bash", "zsh": "_exchequer", "fish": "exchequer.fish"}
TEXTS = ("LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md")


def fail(sentence):
    sys.exit(f"release/build.py: {sentence}")


def run(*command, cwd=ROOT):
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE)
    if done.returncode:
        fail(f"failed: {' '.join(map(str, command))}")
    return done.stdout


def obstacles(version):
    """Why this commit is not yet a release, one sentence each."""
    if changed := run("git", "status", "--porcelain").decode().splitlines():
        yield f"the tree has {len(changed)} changes that are not committed"
    if not re.search(rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text(), re.M):
        yield f"CHANGELOG.md has no heading [{version}]"


def manual():
    """The man pages, by their names."""
    folder = ROOT / "target/man"
    shutil.rmtree(folder, ignore_errors=True)
    run(image.CARGO, "run", "--quiet", "--locked", "--example", "reference", "--", "man", str(folder))
    return {page.name: page.read_bytes() for page in sorted(folder.iterdir())}


def archive(path, files, epoch):
    """A tar.gz whose bytes depend on its content alone; everything in one folder of its name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            entry.mtime, entry.size = epoch, len(content)
            entry.mode = 0o755 if name == "exchequer" else 0o644
            tar.addfile(entry, io.BytesIO(content))
    path.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))


def client():
    """The package of clients/typescript, as npm would publish it."""
    run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=CLIENT)
    run("npm", "pack", "--loglevel=error", f"--pack-destination={DIST}", cwd=CLIENT)


def source(version, *more):
    """The crate, as cargo would publish it, compiled from what is in it."""
    run(image.CARGO, "package", "--quiet", "--locked", *more)
    crate = f"exchequer-{version}.crate"
    shutil.copyfile(image.target_folder() / "package" / crate, DIST / crate)


def main():
    arguments = argparse.ArgumentParser(description="Makes everything that a release hands out.")
    arguments.add_argument(
        "--trial", action="store_true", help="also from changes that are not committed, or not in the changelog"
    )
    trial = arguments.parse_args().trial
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    for sentence in obstacles(version):
        if not trial:
            fail(f"{sentence}; --trial builds all the same")
        print(f"TRIAL: {sentence}")

    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    made = image.make()
    name = f"exchequer-{version}-{made.triple}"
    files = {text: (ROOT / text).read_bytes() for text in TEXTS}
    files["exchequer"] = made.binary.read_bytes()
    for page, content in manual().items():
        files[f"man/man1/{page}"] = content
    for shell, completion in COMPLETIONS.items():
        files[f"completions/{completion}"] = run(made.binary, "completions", shell)
    archive(DIST / f"{name}.tar.gz", files, made.epoch)
    shutil.copyfile(made.bill, DIST / f"{name}.cdx.json")
    shutil.copyfile(made.image, DIST / f"{name}.oci.tar")
    client()
    source(version, *(["--allow-dirty"] if trial else []))

    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(DIST.iterdir())}
    (DIST / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    for file in sorted(DIST.iterdir()):
        print(f"dist/{file.name}  {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
