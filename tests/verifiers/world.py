"""What the verifiers are run against: the service with its clock in our hand, a provider whose tokens it
takes, and a front that stands at the issuer's address and counts who fetches the key set."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import random
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ROOT = Path(__file__).resolve().parents[2]
ALGS = ("ES256", "RS256", "EdDSA")
SERVICE_ALG = "ES256"  # the default: no app says otherwise for service tokens
AUDIENCE, OTHER_AUDIENCE = "https://api.example.com", "https://other.example.com"
PROVIDER, OTHER_ISSUER = "https://provider.example.com", "https://elsewhere.example.com"
SECRET = "c3Bvb25zLWFuZC1mb3Jrcy1hbmQta25pdmVzLTEyMw"
KEY_SET = "/.well-known/jwks.json"
AT_JWT = "-at"  # what the names of the apps end with whose tokens are at+jwt
TTL, BACK_DATED = 600, 10  # seconds; as docs/verifying.md and the service have them
DAY = 24 * 3600

# Nothing here leaves this machine.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
given = set()  # ports


def free_port():
    """A port that nobody listens on, from below those that outgoing connections take."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) and port not in given:
                given.add(port)
                return port


def request(url, headers=None, data=None, timeout=30):
    """Status and body of an answer."""
    asked = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with direct.open(asked, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def eventually(what, condition, seconds=60):
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"never came: {what}")


def binary():
    """The debug binary, as the suite runs it: built for the suite, so that nothing is built twice."""
    command = ["cargo", "test", "--quiet", "--locked", "--features", "settable-clock"]
    subprocess.run([*command, "--test", "suite", "--no-run"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/exchequer"


class Front:
    """Answers at the issuer's address: the service's documents, and for Envoy the backend behind it."""

    def __init__(self, service_port):
        self.fetches, self.last_fetch = 0, time.monotonic()
        front = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path == "/reports":
                    status, body = 200, json.dumps({"user": self.headers["x-user-id"]}).encode()
                else:
                    status, body = request(f"http://127.0.0.1:{service_port}{self.path}")
                if self.path == KEY_SET:
                    front.fetches += 1
                    front.last_fetch = time.monotonic()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                # As the service sends it; a verifier may go by it.
                self.send_header("cache-control", "public, max-age=300")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class World:
    """The service and its provider. `shift` moves the service's clock; nobody else's moves."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.exchequer = binary()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.front = Front(self.port)
        self.provider_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self.provider_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.path / "provider.pem").write_bytes(public)
        apps = "".join(
            f'[apps.{alg.lower()}{suffix}]\nissuers = "provider"\nalg = "{alg}"\ntyp = "{typ}"\n'
            f'audience = ["{AUDIENCE}", "{OTHER_AUDIENCE}"]\nstatus_list = true\n'
            'scopes = { "read:reports" = ["report.view"], "write:reports" = ["report.edit"] }\n'
            for alg in ALGS
            for suffix, typ in (("", "JWT"), (AT_JWT, "at+jwt"))
        )
        (self.path / "exchequer.toml").write_text(
            f'[issuers.provider]\nissuer = "{PROVIDER}"\njwt_key = {{ file = "provider.pem" }}\n'
            f'{apps}[clients.backend]\nsecret = {{ env = "BACKEND_SECRET" }}\n'
            f'introspect = ["{AUDIENCE}"]\naudience = ["{AUDIENCE}", "{OTHER_AUDIENCE}"]\n'
            'scopes = ["read:reports"]\n'
        )
        self.process = None

    def environment(self, issuer):
        return {
            "PATH": os.environ["PATH"],
            "BACKEND_SECRET": SECRET,
            "EXCHEQUER_ISSUER": issuer,
            "EXCHEQUER_LISTEN": f"127.0.0.1:{self.port}",
            "EXCHEQUER_ADMIN_LISTEN": "127.0.0.1:0",
            "EXCHEQUER_CLOCK_SHIFT_FILE": str(self.path / "clock"),
            "EXCHEQUER_STORE": "memory",
            "EXCHEQUER_RATE_LIMIT": "off",
            "EXCHEQUER_SHUTDOWN_DELAY": "0s",
        }

    def start(self, issuer=None):
        """Starts the service on the same keys, the first time a day and an hour ago."""
        if not (self.path / "keys").exists():
            self.shift(-25 * 3600)
        self.settings = self.environment(issuer or self.front.url)
        with open(self.path / "log", "a") as log:
            self.process = subprocess.Popen(
                [self.exchequer, "serve"], cwd=self.path, env=self.settings, stdout=log, stderr=log
            )
        try:
            eventually("the service listens", lambda: self.process.poll() is not None or self.listens())
            assert self.process.poll() is None
            eventually("each algorithm has a standby", lambda: len(self.ring()) >= 2 * len(ALGS))
        except AssertionError:
            raise AssertionError((self.path / "log").read_text()[-3000:]) from None
        self.shift(0)

    def listens(self):
        try:
            return request(self.url + KEY_SET)[0] == 200
        except OSError:
            return False

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def shift(self, wall, monotonic=0):
        """Moves the service's clocks to so many seconds from the real ones."""
        self.shifted = wall
        new = self.path / "clock.new"
        new.write_text(f"{wall} {monotonic}")
        new.rename(self.path / "clock")

    def mint(self, alg, audience=AUDIENCE, scope="read:reports write:reports", suffix=""):
        """An app token, by an exchange."""
        now = int(time.time()) + self.shifted
        claims = {"iss": PROVIDER, "sub": "user_1", "iat": now, "exp": now + 60}
        given = {
            "subject_token": jwt.encode(claims, self.provider_key, "RS256"),
            "app": alg.lower() + suffix, "audience": audience, "scope": scope,
        }  # fmt: skip
        status, body = request(
            f"{self.url}/auth/exchange", {"content-type": "application/json"}, json.dumps(given).encode()
        )
        assert status == 200, body
        token = json.loads(body)["token"]
        assert jwt.get_unverified_header(token)["alg"] == alg
        return token

    def mint_at(self, wall, alg, **options):
        """The same by a clock that is so many seconds off."""
        self.shift(wall)
        try:
            return self.mint(alg, **options)
        finally:
            self.shift(0)

    def command(self, *words):
        done = subprocess.run(
            [self.exchequer, *words], cwd=self.path, env=self.settings, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def ring(self):
        return json.loads(self.command("keys", "list", "--json"))

    def published(self):
        return {key["kid"] for key in json.loads(request(self.url + KEY_SET)[1])["keys"]}

    def key(self, kid):
        return next(key for key in json.loads(request(self.url + KEY_SET)[1])["keys"] if key["kid"] == kid)

    def signs_with_another(self, alg, before):
        """The first token of the algorithm that is signed with another key than this one."""

        def another():
            token = self.mint(alg)
            return token if kid(token) != kid(before) else None

        return eventually(f"another {alg} key signs", another)

    def revoke_keys(self, kids):
        for each in kids:
            self.command("keys", "revoke", each)
        eventually("the revoked keys are gone", lambda: not self.published() & set(kids))

    def standby(self, alg):
        return next(key["kid"] for key in self.ring() if (key["alg"], key["state"]) == (alg, "next"))

    def revoke_token(self, token, alg):
        form = urllib.parse.urlencode({"client_id": alg.lower(), "token": token}).encode()
        assert request(f"{self.url}/oauth/revoke", data=form)[0] == 200

    def as_backend(self, path, **form):
        """What the client `backend` gets for this form."""
        basic = base64.b64encode(f"backend:{SECRET}".encode()).decode()
        status, body = request(
            self.url + path, {"authorization": f"Basic {basic}"}, urllib.parse.urlencode(form).encode()
        )
        assert status == 200, body
        return json.loads(body)

    def introspected(self, token):
        return self.as_backend("/oauth/introspect", token=token)

    def service_token(self, audience):
        """The client's own token."""
        return self.as_backend("/oauth/token", grant_type="client_credentials", audience=audience)["access_token"]

    def listed(self, token):
        """Whether the status list says that the token was revoked, as tests/interop/status_list.py reads it."""
        folder = ROOT / "tests/interop"
        done = subprocess.run(
            [folder / ".venv/bin/python", folder / "status_list.py"],
            input=json.dumps({"token": token, "base": self.url}), capture_output=True, text=True,
        )  # fmt: skip
        return json.loads(done.stdout)["status"] == 1


def kid(token):
    return jwt.get_unverified_header(token)["kid"]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def forged(world, token):
    """What nobody may accept, made of a good token: (what it is, token)."""
    header, payload, signature = token.split(".")
    said = json.loads(unb64(header))

    def with_header(**changes):
        return b64(json.dumps(said | changes).encode())

    changed = b64(json.dumps(json.loads(unb64(payload)) | {"sub": "admin"}).encode())
    bits = bytearray(unb64(signature))
    bits[10] ^= 1
    yield "alg none", f"{with_header(alg='none')}.{payload}."
    yield "changed claims", f"{header}.{changed}.{signature}"
    yield "a changed signature", f"{header}.{payload}.{b64(bytes(bits))}"
    yield "no signature", f"{header}.{payload}."
    yield "no token", ""
    # Signed with the public key as if it were an HMAC secret (CVE-2015-9235).
    public = jwt.PyJWK(world.key(said["kid"])).key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{with_header(alg='HS256')}.{payload}"
    yield "HS256 of the public key", f"{signed}.{b64(hmac.digest(public, signed.encode(), hashlib.sha256))}"
    # Another's key, under our `kid`, or in the header itself (CVE-2018-0114).
    own = ec.generate_private_key(ec.SECP256R1())
    claims = json.loads(unb64(payload))
    yield "another's key", jwt.encode(claims, own, "ES256", {"kid": said["kid"]})
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(own.public_key()))
    yield "a key in its header", jwt.encode(claims, own, "ES256", {"kid": said["kid"], "jwk": jwk})
