"""What the snippets of the pages run against: the stand-in for Clerk and the service of `exchequer dev`, and
`exchequer serve` with the features that the pages show, both on free ports and in scratch folders.

The pages say https://auth.example.com, https://clerk.example.com and user_2ab. `here` puts what is really
there in their place before a command runs, and `there` puts them back into what it printed.
"""

import base64
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import jwt

INTEROP = Path(__file__).resolve().parents[1] / "interop"
DIGEST = re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])")
PAGE = "http://localhost:3000"  # the stand-in's `azp`
PATIENCE = 60  # seconds until a start counts as failed

FEATURES = """
[issuers.clerk]
kind = "clerk"
issuer = "%(provider)s"
authorized_parties = ["http://localhost:3000"]

[issuers.other]
kind = "clerk"
issuer = "http://127.0.0.1:1"

[apps.web]
issuers = ["clerk", "other"]
audience = "https://api.example.com"
status_list = true
refresh = {}
[apps.web.scopes]
"read:tasks" = ["task.view"]
"send:mail" = ["mail.send"]
[apps.web.verify]
pass_through = true

[clients.reports]
secret = { env = "REPORTS_CLIENT_SECRET" }
audience = ["https://tasks.internal", "https://mail.internal"]
scopes = ["read:tasks", "send:mail"]
ttl = "5m"

[clients.nightly]
auth_method = "client_secret_as_jwt"
secret = { env = "SECRET" }

[clients.tasks]
secret = { env = "SECRET" }
audience = ["https://mail.internal"]
scopes = ["read:tasks", "send:mail"]
introspect = ["https://tasks.internal"]
apps = ["web"]
"""


class Process:
    """A command of the binary as a process, with the lines that it prints."""

    def __init__(self, command, folder, env):
        self.lines, self.changed = [], threading.Condition()
        self.child = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def find(self, look):
        """What `look` finds in the first line in which it finds anything."""
        end, at = time.monotonic() + PATIENCE, 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: len(self.lines) > at, max(0, end - time.monotonic()))
                seen, at = self.lines[at:], len(self.lines)
            for line in seen:
                if line is not None and (found := look(line)):
                    return found
            if not seen or seen[-1] is None:
                raise RuntimeError(f"{self.child.args} does not start:\n" + "\n".join(filter(None, self.lines)))

    def stop(self):
        self.child.kill()
        self.child.wait()


class World:
    """Started on the first use of each part; ended by `stop`."""

    def __init__(self, binary):
        self.binary = binary
        self.scratch = tempfile.TemporaryDirectory(prefix="exchequer-docs-")
        self.processes = []
        self.services = {}
        self.secrets = {name: secrets.token_hex(32) for name in ("REPORTS_CLIENT_SECRET", "SECRET")}

    def stop(self):
        for process in self.processes:
            process.stop()
        self.scratch.cleanup()

    def folder(self, name):
        folder = Path(self.scratch.name) / re.sub(r"\W+", "-", name)
        folder.mkdir(exist_ok=True)
        return folder

    def environment(self, folder):
        """Of every command: the binary, `pbpaste`, and nothing of whoever runs this but the path."""
        tools = self.folder("tools")
        (tools / "exchequer").unlink(missing_ok=True)
        (tools / "exchequer").symlink_to(self.binary)
        paste = tools / "pbpaste"
        paste.write_text('#!/bin/sh\nexec cat "$CLIPBOARD"\n')
        paste.chmod(0o755)
        if not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(INTEROP / "node_modules")
        (folder / ".curlrc").write_text("fail-with-body\n")  # a refusal is a failure, unless the page says so
        return {
            "PATH": f"{tools}:{INTEROP}/.venv/bin:{os.environ['PATH']}",
            "HOME": str(folder),
            "CLIPBOARD": str(folder / "clipboard"),
            "NO_PROXY": "*",
            "EXCHEQUER_LISTEN": "127.0.0.1:0",
            "EXCHEQUER_ADMIN_LISTEN": "127.0.0.1:0",
            "EXCHEQUER_SHUTDOWN_DELAY": "0s",
        }

    def start(self, command, folder, env):
        process = Process(command, folder, env)
        self.processes.append(process)
        return process

    def service(self, name):
        """`dev`; `service`: `serve` with FEATURES, whose provider is dev's; `production`: a place for a
        service that the page starts; `configured`: nothing that runs."""
        if name not in self.services:
            make = {
                "dev": self._dev,
                "service": self._serve,
                "configured": self._configured,
                "production": self._production,
            }
            self.services[name] = make[name]()
        return self.services[name]

    def _production(self):
        provider = self.service("dev").provider
        folder = self.folder("production")
        port = free_port()
        env = self.environment(folder) | {"EXCHEQUER_LISTEN": f"127.0.0.1:{port}"}
        return Service(folder, env, f"http://127.0.0.1:{port}", None, provider)

    def _configured(self):
        folder = self.folder("configured")
        env = self.environment(folder) | {"CLERK_JWT_ISSUER": "https://clerk.example.com"}
        (folder / "exchequer.toml").write_text('[clients.nightly]\nsecret = { env = "SECRET" }\n')
        env |= self.secrets
        rings = subprocess.run([self.binary, "keys", "rotate"], cwd=folder, env=env, capture_output=True, text=True)
        if rings.returncode:
            raise RuntimeError(rings.stdout + rings.stderr)
        shutil.copytree(folder / "keys", folder / "backup")
        return Configured(folder, env, self.binary)

    def _dev(self):
        folder = self.folder("dev")
        env = self.environment(folder)
        process = self.start([str(self.binary), "dev"], folder, env)
        provider = process.find(after("The identity provider"))
        return Service(folder, env, process.find(after("Exchequer ")), process.find(after("  health")), provider)

    def _serve(self):
        provider = self.service("dev").provider
        folder = self.folder("service")
        (folder / "exchequer.toml").write_text(FEATURES % {"provider": provider})
        expired = jwt.encode({"client_id": "nightly", "exp": 1763700000}, self.secrets["SECRET"])
        (folder / "assertion.jwt").write_text(expired)
        port = free_port()
        env = self.environment(folder) | self.secrets
        env |= {
            "EXCHEQUER_ISSUER": f"http://127.0.0.1:{port}",
            "EXCHEQUER_LISTEN": f"127.0.0.1:{port}",
            "EXCHEQUER_ALLOWED_ORIGINS": PAGE,
            "EXCHEQUER_KEYS_SECRET": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        process = self.start([str(self.binary), "serve"], folder, env)
        line = json.loads(process.find(lambda line: '"message":"listening"' in line and line))
        return Service(folder, env, f"http://{line['public']}", f"http://{line['admin']}", provider)


class Service:
    """A running service: base URLs of its listeners and its provider, and how pages call them."""

    def __init__(self, folder, env, url, admin, provider):
        self.folder, self.env, self.url, self.admin, self.provider = folder, env, url, admin, provider
        self.session = None

    def begin(self):
        """Before a block: it has a session of its own."""
        self.session = get(f"{self.provider}/session-id")

    def tokens(self):
        """Fresh ones, as variables of a command."""
        token = get(f"{self.provider}/session-token")
        return {"TOKEN": token, "APP_TOKEN": self.exchanged(token), "APP_JWT": self.exchanged(token, "read:tasks")}

    def exchanged(self, token, scope=None):
        body = json.dumps({"session_token": token} | ({"scope": scope} if scope else {})).encode()
        asked = urllib.request.Request(f"{self.url}/auth/exchange", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked) as answer:
            return json.load(answer)["token"]

    def here(self, text):
        if "sess_2ef" in text:
            text = text.replace("sess_2ef", self.session)
        for page, real in self.names():
            text = text.replace(page, real)
        return text

    def there(self, text):
        for page, real in self.names():
            text = text.replace(real, page)
        return text

    def names(self):
        return [
            ("https://auth.example.com", self.url),
            ("https://clerk.example.com", self.provider),
            ("clerk.example.com", self.provider.split("//")[1].replace(":", "-")),
            ("https://app.example.com", PAGE),
            ("user_2ab", "user_2standin"),
            ("org_2cd", "org_2standin"),
            ("sess_2ef", "sess_2standin"),
            ("/etc/exchequer", f"{self.folder}/etc"),
            ("/var/lib/exchequer", f"{self.folder}/var"),
        ]


class Configured:
    """A folder with a configuration and a key ring, where nothing runs."""

    def __init__(self, folder, env, binary):
        self.folder, self.env, self.binary = folder, env, binary

    def begin(self):
        pass

    def here(self, text):
        """A `kid` of the page's stands for that of the ring's first key."""
        if not DIGEST.search(text):
            return text
        listed = subprocess.run(
            [self.binary, "keys", "list"], cwd=self.folder, env=self.env, capture_output=True, text=True, check=True
        )
        return DIGEST.sub(DIGEST.search(listed.stdout)[0], text)

    def there(self, text):
        return text


def after(words):
    """The URL of a line that begins with these words."""

    def look(line):
        return line.startswith(words) and (found := re.search(r"http://\S+", line)) and found[0]

    return look


def get(url):
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
