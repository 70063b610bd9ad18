"""k8s/ as kustomize renders it, with any choice of components."""

import itertools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMPONENTS = sorted(path.name for path in (ROOT / "k8s/components").iterdir())
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())


def kustomize():
    """The command that renders a folder; None where there is none."""
    if shutil.which("kubectl"):
        told = subprocess.run(
            ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True
        ).stdout
        if json.loads(told or "{}").get("kustomizeVersion", "").startswith("v5"):
            return ["kubectl", "kustomize"]
    ours = HERE / "bin/kustomize"
    return [str(ours), "build"] if ours.exists() else None


def text(overlay, components=None):
    """The overlay with these components in the place of its own, as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "k8s", folder, dirs_exist_ok=True)
        path = Path(folder, "overlays", overlay)
        if components is not None:
            file = path / "kustomization.yaml"
            settings = yaml.safe_load(file.read_text())
            settings["components"] = [f"../../components/{name}" for name in components]
            changed = yaml.safe_dump(settings)
            if {"gateway", "ingress"} & set(components):
                # A route has a host and no port: whoever adds one says what it is.
                changed = changed.replace("http://localhost:8080", "https://auth.dev.example.com")
            file.write_text(changed)
        done = subprocess.run([*kustomize(), path], capture_output=True, text=True)
    if done.returncode or "Warning" in done.stderr:
        raise AssertionError(f"{overlay} with {components}: {done.stderr}")
    return done.stdout


def objects(overlay, components=None):
    """The same as a list of objects."""
    return list(yaml.safe_load_all(text(overlay, components)))


def combinations():
    """Every overlay with every choice of components."""
    for overlay in OVERLAYS:
        for count in range(len(COMPONENTS) + 1):
            for chosen in itertools.combinations(COMPONENTS, count):
                yield overlay, chosen


def one(among, kind, name="exchequer"):
    """The object of this kind and name; a ConfigMap's name ends with the hash of its content."""
    found = [
        each
        for each in among
        if each["kind"] == kind
        and (each["metadata"]["name"] == name or each["metadata"]["name"][:-11] == name)
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def templates(among):
    """The pods that the objects would make: (name, template)."""
    for each in among:
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]
