#!/usr/bin/env python3
"""What the image promises: an OCI layout whose hashes hold, small and labelled, and a binary that
runs in it as 65532 with nothing but what is in it. `make test-image` runs it, after `make image`.

It needs root on Linux, for namespaces and chroot; no container engine.
"""

import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
import unittest
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "target/image"
IMAGE = OUT / "exchequer.oci.tar"
MOST = 15_000_000


def build():
    done = subprocess.run([ROOT / "image/build.py"], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url):
    """Status and body; None where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None, ""


def eventually(what, look):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within a minute: {what}")


class Unpacked:
    """The layout read back, every hash compared on the way."""

    def __init__(self, path):
        with tarfile.open(path) as tar:
            self.files = {each.name: tar.extractfile(each).read() for each in tar}
        self.index = json.loads(self.files["index.json"])
        self.manifest = json.loads(self.blob(self.index["manifests"][0]))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.layers = [gzip.decompress(self.blob(each)) for each in self.manifest["layers"]]

    def blob(self, descriptor):
        algorithm, digest = descriptor["digest"].split(":")
        content = self.files[f"blobs/{algorithm}/{digest}"]
        assert hashlib.sha256(content).hexdigest() == digest, "another content than its hash"
        assert len(content) == descriptor["size"]
        return content


class Image(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.image = Unpacked(IMAGE)

    def entries(self):
        return {each.name: each for each in tarfile.open(fileobj=io.BytesIO(self.image.layers[0]))}

    def test_every_hash_from_the_index_to_the_layer_holds(self):
        image = self.image
        self.assertEqual(json.loads(image.files["oci-layout"]), {"imageLayoutVersion": "1.0.0"})
        hashes = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in image.layers]
        self.assertEqual(image.config["rootfs"], {"type": "layers", "diff_ids": hashes})
        # The layout has these and no more: manifest, configuration, layer.
        self.assertEqual(len([name for name in image.files if name.startswith("blobs/")]), 3)

    def test_packing_again_gives_the_same_bytes(self):
        before = IMAGE.read_bytes(), (OUT / "exchequer.cdx.json").read_bytes()
        digest = build()
        self.assertEqual((IMAGE.read_bytes(), (OUT / "exchequer.cdx.json").read_bytes()), before)
        self.assertEqual(digest, self.image.index["manifests"][0]["digest"])

    def test_it_is_small(self):
        self.assertLessEqual(IMAGE.stat().st_size, MOST)

    def test_it_says_what_it_is(self):
        package = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
        labels = self.image.config["config"]["Labels"]
        self.assertEqual(self.image.manifest["annotations"], labels)
        prefix = "org.opencontainers.image."
        self.assertEqual(labels[prefix + "version"], package["version"])
        self.assertEqual(labels[prefix + "licenses"], package["license"])
        self.assertRegex(labels[prefix + "revision"], "^([0-9a-f]{40}|unknown)$")
        self.assertRegex(labels[prefix + "created"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

    def test_nothing_is_in_it_but_what_is_needed(self):
        entries = self.entries()
        files = {name for name, entry in entries.items() if entry.isfile()}
        self.assertEqual(
            files,
            {
                "exchequer",
                "etc/passwd",
                "etc/group",
                "etc/ssl/certs/ca-certificates.crt",
                "licenses/LICENSE-APACHE",
                "licenses/LICENSE-MIT",
            },
        )
        writable = [name for name, entry in entries.items() if entry.uid == 65532]
        self.assertEqual(writable, ["var/lib/exchequer"])
        self.assertEqual(entries["var/lib/exchequer"].mode, 0o700)
        self.assertFalse([name for name, entry in entries.items() if entry.mode & 0o7022])

    def test_it_tells_nothing_of_the_machine_that_built_it(self):
        binary = tarfile.open(fileobj=io.BytesIO(self.image.layers[0])).extractfile("exchequer").read()
        bill = (OUT / "exchequer.cdx.json").read_bytes()
        cargo = os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))
        for path in (str(ROOT), cargo):
            self.assertNotIn(path.encode(), binary, path)
            self.assertNotIn(path.encode(), bill, path)

    def test_the_bill_of_materials_lists_what_cargo_resolved(self):
        bill = json.loads((OUT / "exchequer.cdx.json").read_text())
        self.assertEqual(bill["bomFormat"], "CycloneDX")
        lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
        locked = {(each["name"], each["version"]) for each in lock}
        listed = {(each["name"], each["version"]) for each in bill["components"]}
        self.assertLessEqual(listed, locked)
        names = {name for name, _ in listed}
        self.assertLessEqual({"ring", "rustls", "warp", "redb", "mimalloc"}, names)
        # What only the tests or the build need is not in the binary.
        self.assertFalse({"proptest", "cc"} & names)

    def test_buildah_takes_it(self):
        if not shutil.which("buildah"):
            self.skipTest("SKIPPED: no buildah")
        with tempfile.TemporaryDirectory() as folder:
            buildah = ["buildah", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
            buildah += ["--storage-driver", "vfs"]
            policy = Path(folder, "policy.json")
            policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
            pulled = subprocess.run(
                [*buildah, "pull", "-q", "--signature-policy", policy, f"oci-archive:{IMAGE}"],
                capture_output=True,
                text=True,
            )
            self.assertEqual(pulled.returncode, 0, pulled.stderr)
            told = subprocess.run(
                [*buildah, "inspect", "--type", "image", pulled.stdout.strip()],
                capture_output=True,
                text=True,
                check=True,
            )
        self.assertEqual(json.loads(told.stdout)["OCIv1"]["config"]["User"], "65532:65532")


@unittest.skipUnless(os.geteuid() == 0, "SKIPPED: running the image needs root")
class Running(unittest.TestCase):
    """The binary in the image: as its user, with a root that is read-only and nothing beside it."""

    def setUp(self):
        self.image = Unpacked(IMAGE)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name, "root")
        self.state = Path(folder.name, "state")
        with tarfile.open(fileobj=io.BytesIO(self.image.layers[0])) as tar:
            tar.extractall(self.root, filter="fully_trusted")
        # As an engine does: a place for /proc, and for the volume.
        Path(self.root, "proc").mkdir()
        self.state.mkdir(mode=0o700)
        os.chown(self.state, 65532, 65532)

    def command(self, *arguments, network):
        config = self.image.config["config"]
        inside = (
            'set -e; mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; '
            'mount -t proc proc "$0/proc"; mount --bind "$1" "$0/var/lib/exchequer"; '
            '[ "$2" = shared ] || ip link set lo up; '
            'root=$0; shift 2; exec setpriv --no-new-privs '
            'chroot --userspec=65532:65532 --groups=65532 "$root" "$@"'
        )
        own = [] if network == "shared" else ["--net"]
        return [
            "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", *own,
            "sh", "-c", inside, self.root, self.state, network,
            *config["Entrypoint"], *(arguments or config["Cmd"]),
        ]  # fmt: skip

    def environment(self, **more):
        config = self.image.config["config"]
        told = dict(each.split("=", 1) for each in config["Env"])
        # chroot itself is found by the path; the service has no use for it.
        return {"PATH": os.environ["PATH"]} | told | more

    def serve(self, **more):
        ports = free_port(), free_port()
        process = subprocess.Popen(
            self.command(network="shared"),
            env=self.environment(
                EXCHEQUER_LISTEN=f"127.0.0.1:{ports[0]}",
                EXCHEQUER_ADMIN_LISTEN=f"127.0.0.1:{ports[1]}",
                EXCHEQUER_KEYS_DIR="/var/lib/exchequer/keys",
                EXCHEQUER_STORE="/var/lib/exchequer/store.redb",
                CLERK_AUTHORIZED_PARTIES="http://localhost:3000",
                **more,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        admin = f"http://127.0.0.1:{ports[1]}"
        eventually("started", lambda: get(f"{admin}/startupz")[0] == 200 or process.poll())
        return process, f"http://127.0.0.1:{ports[0]}", admin

    def stop(self, process):
        """Ends the service, which is process 1 of its namespace, as an engine does."""
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        os.kill(int(Path(children).read_text().split()[0]), 15)
        said = process.communicate(timeout=60)[0]
        return process.returncode, said

    def test_a_real_exchange_works_in_it(self):
        done = subprocess.run(
            self.command("dev", "--once", network="none"),
            env=self.environment(EXCHEQUER_LISTEN=""),
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("signature good", done.stdout)

    def test_it_serves_stops_when_it_is_told_and_writes_nowhere_but_into_its_volume(self):
        process, public, admin = self.serve(CLERK_JWT_ISSUER="http://127.0.0.1:9")
        self.assertEqual(get(f"{admin}/readyz")[0], 200)
        status, keys = get(f"{public}/.well-known/jwks.json")
        self.assertEqual(status, 200)
        code, said = self.stop(process)
        self.assertEqual(code, 0, said)
        self.assertEqual(
            {each.name for each in self.state.iterdir()} & {"keys", "store.redb"},
            {"keys", "store.redb"},
        )
        self.assertEqual(os.stat(self.state / "keys/ring.json").st_uid, 65532)
        # The keys are in the volume: another container goes on with them.
        process, public, admin = self.serve(CLERK_JWT_ISSUER="http://127.0.0.1:9")
        self.assertEqual(get(f"{public}/.well-known/jwks.json"), (200, keys))
        # And its own root is read-only.
        code, said = self.stop(process)
        self.assertEqual(code, 0, said)
        refused = subprocess.run(
            self.command("keys", "list", network="none"),
            env=self.environment(
                EXCHEQUER_KEYS_DIR="/keys", CLERK_JWT_ISSUER="http://127.0.0.1:9"
            ),
            capture_output=True,
            text=True,
        )
        self.assertNotEqual(refused.returncode, 0)

    def test_https_is_verified_with_the_authorities_that_the_image_names(self):
        issuer = self.https_issuer()
        name = issuer.removeprefix("https://").replace(":", "-")
        failed = f'exchequer_jwks_fetch_total{{issuer="{name}",result="error"}}'
        fetched = f'exchequer_jwks_fetch_total{{issuer="{name}",result="ok"}}'
        process, _, admin = self.serve(CLERK_JWT_ISSUER=issuer)
        self.assertIn(failed, get(f"{admin}/metrics")[1])
        code, said = self.stop(process)
        self.assertNotIn("no CA certificates", said)
        process, _, admin = self.serve(
            CLERK_JWT_ISSUER=issuer, SSL_CERT_FILE="/var/lib/exchequer/ca.pem"
        )
        metrics = get(f"{admin}/metrics")[1]
        self.assertIn(fetched, metrics)
        self.assertNotIn(failed, metrics)
        self.stop(process)

    def https_issuer(self):
        """A key set at https://127.0.0.1, by an authority of this test alone."""
        folder = self.root.parent

        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"]
        openssl("req", "-x509", *new, "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")
        openssl("req", *new, "/CN=issuer", "-keyout", "issuer.key", "-out", "issuer.csr")
        Path(folder, "issuer.ext").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(
            "x509", "-req", "-in", "issuer.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-extfile", "issuer.ext", "-out", "issuer.pem",
        )  # fmt: skip
        shutil.copy(folder / "ca.pem", self.state / "ca.pem")
        (self.state / "ca.pem").chmod(0o644)

        modulus = base64.urlsafe_b64encode(b"\xc1" + os.urandom(254) + b"\x01").rstrip(b"=")
        key = {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "e": "AQAB"}
        body = json.dumps({"keys": [key | {"n": modulus.decode()}]}).encode()

        class Issuer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "issuer.pem", folder / "issuer.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"https://127.0.0.1:{server.server_port}"


if __name__ == "__main__":
    if not IMAGE.exists():
        sys.exit("there is no image: make image")
    unittest.main(verbosity=2)
