#!/usr/bin/env python3
"""Builds the container image without a registry and without an engine: `make image`.

What it is: a static binary, the certificate authorities of this machine and nothing else, as an OCI
image layout in one file, target/image/exchequer.oci.tar, with a list of what is in the binary
(CycloneDX) beside it. The same commit and binary give the same digest.
What it is not: a build for other machines than this one's processor.
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CYCLONEDX = "0.5.9"
USER = 65532
HOME = "var/lib/exchequer"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64"}
OCI = "application/vnd.oci.image"
CARGO = os.environ.get("CARGO", "cargo")


class Made(typing.NamedTuple):
    """What was made, for release/build.py."""

    image: Path
    bill: Path
    binary: Path
    triple: str
    epoch: int  # of the commit, seconds


def fail(sentence):
    sys.exit(f"image/build.py: {sentence}")


def run(*command, env=None, check=True):
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | (env or {}), stdout=subprocess.PIPE, text=True
    )
    if check and done.returncode:
        fail(f"failed: {' '.join(map(str, command))}")
    return done.stdout.strip() if done.returncode == 0 else None


def debian(package, command):
    """Installs what is missing, as root on Debian."""
    if shutil.which(command):
        return
    if not shutil.which("apt-get") or os.geteuid():
        fail(f"missing: {command}. Install it (Debian: {package}) and run this again.")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-qq", "-y", "--no-install-recommends", package, env=quiet)


def target_folder():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


def compiled(processor):
    """The static binary, and the folder that cargo keeps it in."""
    triple = f"{processor}-unknown-linux-musl"
    if shutil.which("rustup"):
        run("rustup", "target", "add", triple)
    debian("musl-tools", "musl-gcc")
    target = target_folder()
    cargo_home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")).resolve()
    # Where it was built is nobody's business, and would make two machines' binaries differ.
    paths = {cargo_home: "/cargo", ROOT: "/exchequer", target: "/target"}
    under = triple.replace("-", "_")
    remap = [f"--remap-path-prefix={path}={name}" for path, name in paths.items()]
    flags = [f"-ffile-prefix-map={path}={name}" for path, name in paths.items()]
    run(
        CARGO, "build", "--locked", "--release", "--target", triple,
        env={
            f"CARGO_TARGET_{under.upper()}_RUSTFLAGS": " ".join(remap),
            f"CFLAGS_{under}": " ".join(flags),
            f"CC_{under}": "musl-gcc",
        },
    )  # fmt: skip
    return target / triple / "release/exchequer", triple


def bill_of_materials(triple, to, epoch):
    """What the binary is made of, by cargo-cyclonedx."""
    tools = ROOT / ".tools"
    tool = tools / "bin/cargo-cyclonedx"
    if not tool.exists():
        run(CARGO, "install", "--locked", "--root", str(tools), f"cargo-cyclonedx@{CYCLONEDX}")
    written = ROOT / "exchequer.cdx.json"
    run(
        str(tool), "cyclonedx", "--format", "json", "--spec-version", "1.5", "--target", triple,
        "--no-build-deps", "--override-filename", "exchequer.cdx",
        env={"SOURCE_DATE_EPOCH": str(epoch)},
    )  # fmt: skip
    bill = json.loads(written.read_text().replace(f"file://{ROOT}", "file:///exchequer"))
    written.unlink()
    # A serial number and the hour of the build would differ each time.
    bill.pop("serialNumber", None)
    to.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")


def layer(binary, epoch):
    """The file system, as a tar whose bytes depend on its content alone."""
    files = {
        "etc/passwd": f"exchequer:x:{USER}:{USER}::/{HOME}:/sbin/nologin\n".encode(),
        "etc/group": f"exchequer:x:{USER}:\n".encode(),
        CERTIFICATES: Path("/", CERTIFICATES).read_bytes(),
        "exchequer": binary.read_bytes(),
    }
    for licence in ("LICENSE-APACHE", "LICENSE-MIT"):
        files[f"licenses/{licence}"] = (ROOT / licence).read_bytes()
    folders = {str(each) for name in [*files, f"{HOME}/_"] for each in Path(name).parents} - {"."}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(folders | set(files)):
            entry = tarfile.TarInfo(name)
            entry.mtime = epoch
            if name in files:
                entry.size = len(files[name])
                entry.mode = 0o755 if name == "exchequer" else 0o644
                tar.addfile(entry, io.BytesIO(files[name]))
            else:
                entry.type = tarfile.DIRTYPE
                entry.mode = 0o755
                if name == HOME:
                    entry.mode, entry.uid, entry.gid = 0o700, USER, USER
                tar.addfile(entry)
    return packed.getvalue()


class Layout:
    """An OCI image layout: everything under the hash of its content."""

    def __init__(self):
        self.files = {"oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode()}

    def add(self, content, media_type, **more):
        """Keeps the bytes, or the JSON, and gives the descriptor of them."""
        if not isinstance(content, bytes):
            content = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = content
        return {
            "mediaType": media_type,
            "digest": f"sha256:{digest}",
            "size": len(content),
        } | more

    def write(self, path, epoch):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in sorted(self.files.items()):
                entry = tarfile.TarInfo(name)
                entry.mtime, entry.mode, entry.size = epoch, 0o644, len(content)
                tar.addfile(entry, io.BytesIO(content))


def make():
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    processor = platform.machine()
    if processor not in PROCESSORS:
        fail(f"no image is built on {processor}")
    debian("ca-certificates", "update-ca-certificates")
    revision = run("git", "rev-parse", "HEAD", check=False) or "unknown"
    stated = os.environ.get("SOURCE_DATE_EPOCH")
    epoch = int(stated or run("git", "log", "-1", "--format=%ct", check=False) or 0)
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    out = ROOT / "target/image"
    out.mkdir(parents=True, exist_ok=True)

    binary, triple = compiled(processor)
    bill = out / "exchequer.cdx.json"
    bill_of_materials(triple, bill, epoch)
    files = layer(binary, epoch)

    created = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    names = {
        "created": created,
        "title": package["name"],
        "description": package["description"],
        "version": package["version"],
        "revision": revision,
        "licenses": package["license"],
    }
    labels = {f"org.opencontainers.image.{name}": value for name, value in names.items()}
    layout = Layout()
    config = layout.add(
        {
            "architecture": PROCESSORS[processor],
            "os": "linux",
            "created": created,
            "config": {
                "User": f"{USER}:{USER}",
                "WorkingDir": f"/{HOME}",
                "Entrypoint": ["/exchequer"],
                "Cmd": ["serve"],
                "Env": ["EXCHEQUER_LISTEN=0.0.0.0:8080", f"SSL_CERT_FILE=/{CERTIFICATES}"],
                "ExposedPorts": {"8080/tcp": {}},
                "Volumes": {f"/{HOME}": {}},
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(files).hexdigest()}"]},
            "history": [{"created": created, "created_by": "image/build.py"}],
        },
        f"{OCI}.config.v1+json",
    )
    manifest = layout.add(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": config,
            "layers": [
                layout.add(gzip.compress(files, 9, mtime=0), f"{OCI}.layer.v1.tar+gzip"),
            ],
            "annotations": labels,
        },
        f"{OCI}.manifest.v1+json",
        platform={"architecture": PROCESSORS[processor], "os": "linux"},
        annotations={
            "org.opencontainers.image.ref.name": package["version"],
            "io.containerd.image.name": f"exchequer:{package['version']}",
        },
    )
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [manifest]}
    layout.files["index.json"] = json.dumps(index, sort_keys=True).encode()
    image = out / "exchequer.oci.tar"
    layout.write(image, epoch)
    print(f"{image.relative_to(ROOT)}  {image.stat().st_size / 1e6:.1f} MB  {manifest['digest']}")
    return Made(image, bill, binary, triple, epoch)


if __name__ == "__main__":
    make()
