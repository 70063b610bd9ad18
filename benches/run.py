#!/usr/bin/env python3
"""`make bench`: what an exchange costs, beside what it must cost at the least.

Every figure is a comparison made in one run on one machine. The service and its bound take turns
under the same load, each pinned to one core with the load generator on another:

    POST /auth/exchange            against  benches/bare.rs, a handler that only verifies and signs
    POST /oauth/token              against  POST /auth/exchange: the client, its secret and the form
    GET /auth/verify               against  the same, which only answers; and with its cache off
    GET /.well-known/jwks.json     against  nginx with the same bytes in a file
    100 000 revocations held       against  the same service with none
    a session id exchanged         against  the provider asked for the session
    the store in Redis, in a file  against  the store in memory, each with rate limits on
    two cores                      against  one
    three times as many exchanges  against  as many as it can answer: what of that is still answered

Refreshes have no bound beside them: each reads and replaces an entry of the store in a file, which
is on disk before the answer. What they cost is said as refreshes a second of processor time.

Absolute figures belong to the machine; the ratios are what the targets are about. Time to readiness
and memory are measured on the way. Needs cargo, openssl, wrk, nginx and taskset, and Python's
standard library, and redis-server. Linux only: processor time and memory are read from the kernel.

Examples:
    benches/run.py
    benches/run.py --features aws-lc --log off
    benches/run.py --rounds 9 --seconds 4 --check
"""

import argparse
import base64
import contextlib
import http.client
import http.server
import json
import os
import platform
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"wrk": "wrk", "nginx": "nginx", "openssl": "openssl", "taskset": "util-linux",
            "redis-server": "redis-server"}

IDP = "https://bench.clerk.accounts.dev"
ORIGIN = "https://app.example.com"
CONNECTIONS = 32
STARTS = 10
JWKS_PATH = "/.well-known/jwks.json"
VERIFY_PATH = "/auth/verify"
TOKEN_PATH = "/oauth/token"

MAX_CPU_RATIO = 1.15
MAX_VERIFY_CPU_RATIO = 1.15
# A token exchange by a client with client_secret_basic: no slow password hash, for its secret is
# random and long: no guess is worth its while, so its SHA-256 is compared, in constant time.
MAX_TOKEN_CPU_RATIO = 1.30
MIN_CACHE_GAIN = 5.0
MIN_JWKS_RATIO = 0.90
MAX_READY_MS = 100.0
MAX_RSS_MIB = 20.0
REVOCATIONS = 100_000
MAX_REVOCATIONS_MIB = 32.0
# None, but for what two rounds of the same thing differ by.
MAX_REVOCATIONS_P99_RATIO = 1.10
PROVIDER_MS = 20
SESSION_IDS = 200
# As many as share a commit: a disk's sync is waited for, not paid for.
REFRESH_CONNECTIONS = 128
MIN_REFRESHES = 5000.0
MIN_REDIS_RATIO = 0.6
MIN_FILE_RATIO = 0.9
MIN_TWO_CORES_RATIO = 1.8
# Beyond what one subject asks for here, so that each exchange takes from both its buckets.
LIMITS = {"EXCHEQUER_RATE_LIMIT": "1000000/1s"}
# What an exchange adds is no more than the provider's own time.
MAX_ADDED_RATIO = 1.0
# An open load of so many times what it can answer.
OVERLOAD = 3
OVERLOAD_CONNECTIONS = 4000
# Reading a request and refusing it costs a part of what answering it does; what is lost is that.
MIN_GOODPUT = {"ES256": 0.5, "RS256": 0.9}
MAX_OVERLOAD_P99_MS = 200.0
MAX_PROBE_MS = 50.0
IDLE = 10_000
MAX_IDLE_MIB = 150.0


class Failed(Exception):
    """The bench cannot give figures that mean anything."""


# ---------------------------------------------------------------------------------------------------
# Making ready: tools, builds, a token


def require_tools():
    """Installs the missing tools where that is possible, and says what is missing where it is not."""
    if shutil.which("cargo") is None:
        raise Failed("cargo is not installed: see https://rustup.rs")
    # Debian keeps nginx in a folder that is not on every user's path.
    os.environ["PATH"] += os.pathsep + os.pathsep.join(["/usr/sbin", "/sbin"])
    missing = [package for tool, package in PACKAGES.items() if shutil.which(tool) is None]
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Failed(f"not installed: {', '.join(missing)}. Try: sudo {' '.join(install)}")
    print(f"installing {', '.join(missing)}", flush=True)
    # RUNLEVEL=1 keeps the package from starting a web server of its own.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["apt-get", "update", "-qq"], install):
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode != 0:
            raise Failed(f"`{' '.join(command)}` failed")
    if any(shutil.which(tool) is None for tool in PACKAGES):
        raise Failed(f"still not found after installing: {', '.join(missing)}")


def build(kind, name, features):
    """Builds one release target and returns the path of its executable."""
    command = ["cargo", "build", "--release", f"--{kind}", name, "--message-format=json"]
    if features:
        command += ["--features", features]
    print(f"building {name}", flush=True)
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    executable = None
    for line in built.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        target = message.get("target", {})
        if message.get("reason") == "compiler-message" and message["message"]["level"] == "error":
            print(message["message"].get("rendered", ""), file=sys.stderr)
        elif target.get("name") == name and kind in target.get("kind", []):
            executable = message.get("executable") or executable
    if built.returncode != 0 or executable is None:
        raise Failed(f"`{' '.join(command)}` failed")
    return Path(executable)


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_token(folder):
    """A session token as Clerk (version 2) signs them, and the path of the public key to it."""
    private, public = folder / "idp.pem", folder / "idp.pub.pem"
    quiet = {"check": True, "stderr": subprocess.DEVNULL}
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], **quiet)
    subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], **quiet)
    now = int(time.time())
    header = {"alg": "RS256", "typ": "JWT", "kid": "ins_bench"}
    claims = {
        "azp": ORIGIN,
        "exp": now + 3600,
        "fea": "o:tasks",
        "fva": [5, -1],
        "iat": now,
        "iss": IDP,
        "jti": "5f0c7d1be2a94836",
        "nbf": now - 10,
        "o": {
            "id": "org_2cdR8kqYwVn3LhZsT0uXbJfGmEa",
            "slg": "bench",
            "rol": "admin",
            "per": "create,read",
            "fpm": "3",
        },
        "pla": "o:team",
        "sid": "sess_2xyW5pQmKj7NcRtVbHgDfLsZaEo",
        "sts": "active",
        "sub": "user_2abT9nUxYrM4KwQvCjPiHdGzSoB",
        "v": 2,
    }
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    signed = ".".join(base64url(part) for part in parts)
    signature = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", private],
        input=signed.encode(), stdout=subprocess.PIPE, check=True,
    ).stdout
    return f"{signed}.{base64url(signature)}", public


# ---------------------------------------------------------------------------------------------------
# Servers


@dataclass
class Cores:
    server: int
    load: int
    available: int

    @classmethod
    def choose(cls):
        available = sorted(os.sched_getaffinity(0))
        if len(available) < 2:
            print("note: one core only; server and load share it, so rates mean little")
        return cls(server=available[0], load=available[-1], available=len(available))


@dataclass
class Server:
    """A running server. `pid` is the process that answers, which for nginx is not the one started."""

    name: str
    process: subprocess.Popen
    log: Path
    pid: int = 0
    address: tuple = ()
    admin: tuple = ()
    ready_ms: float = 0.0

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)

    def fail(self, what):
        with contextlib.suppress(OSError):
            what += "\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
        raise Failed(f"{self.name}: {what}")

    def get(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(*self.address, timeout=5)
        headers = ({"content-type": "application/json"} if body else {}) | (headers or {})
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            self.fail(f"{method} {path}: {error}")
        finally:
            connection.close()
        if answer.status != 200:
            self.fail(f"{method} {path} answered {answer.status}: {content[:600]!r}")
        return answer, content


def spawn(stack, cores, name, command, folder, environment=None):
    """Starts a server on its core. The stack stops it, whatever happens."""
    log = folder / f"{name}.{time.monotonic_ns()}.log"
    with open(log, "ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(cores.server), *map(str, command)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            cwd=folder, env=environment, start_new_session=True,
        )
    server = Server(name, process, log, pid=process.pid)
    stack.callback(server.stop)
    return server


def parse_address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(server, look, what, seconds=15.0):
    """Looks once a millisecond until there is something to see."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        if server.process.poll() is not None:
            server.fail(f"ended with status {server.process.returncode} before it was {what}")
        time.sleep(0.001)
    server.fail(f"was not {what} within {seconds:.0f} s")


def find(value, key):
    """The first string under `key`, however deeply the log nests it."""
    if isinstance(value, dict):
        if isinstance(value.get(key), str):
            return value[key]
        return next((found for inner in value.values() if (found := find(inner, key))), None)
    return None


def listening(log):
    """Both addresses, once the service has logged them."""
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            public, admin = find(entry, "public"), find(entry, "admin")
            if public and admin:
                return parse_address(public), parse_address(admin)
    return None


def is_ready(admin):
    with contextlib.suppress(OSError), socket.create_connection(admin, timeout=1) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
        return connection.recv(64).startswith(b"HTTP/1.1 200")
    return False


def start_service(stack, cores, executable, folder, public_key, log, name="exchequer", store="memory", settings=None):
    """Starts the service and returns once it is ready, with the time that took."""
    # A silent service cannot say where it listens, so it is told.
    ports = (free_port(), free_port()) if log == "off" else (0, 0)
    environment = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("EXCHEQUER_", "CLERK_", "OTEL_"))
    } | {
        "EXCHEQUER_LISTEN": f"127.0.0.1:{ports[0]}",
        "EXCHEQUER_ADMIN_LISTEN": f"127.0.0.1:{ports[1]}",
        "EXCHEQUER_ISSUER": "http://localhost:8080",
        "EXCHEQUER_KEYS_DIR": str(folder / "keys"),
        "EXCHEQUER_STORE": str(store),
        "EXCHEQUER_LOG_FORMAT": "json",
        # One subject asks for everything here.
        "EXCHEQUER_RATE_LIMIT": "off",
        "CLERK_JWT_ISSUER": IDP,
        "CLERK_JWT_KEY_FILE": str(public_key),
    }
    environment |= settings or {}
    if log == "off":
        environment["EXCHEQUER_LOG"] = "off"
    begun = time.monotonic()
    server = spawn(stack, cores, name, [executable, "serve"], folder, environment)
    if log == "off":
        server.address, server.admin = (("127.0.0.1", port) for port in ports)
    else:
        server.address, server.admin = wait_for(server, lambda: listening(server.log), "listening")
    wait_for(server, lambda: is_ready(server.admin), "ready")
    server.ready_ms = (time.monotonic() - begun) * 1000
    return server


def start_bare(stack, cores, executable, folder, public_key, name="bare"):
    server = spawn(stack, cores, name, [executable, "serve", "127.0.0.1:0", public_key], folder)

    def address():
        line = server.log.read_text().partition("\n")
        return line[1] and line[0].startswith("listening ") and line[0].split()[1]

    server.address = parse_address(wait_for(server, address, "listening"))
    return server


def start_nginx(stack, cores, folder, content, headers):
    """nginx with one worker, serving `content` from a file under the same path and headers."""
    site = folder / "nginx"
    document = site / JWKS_PATH.lstrip("/")
    document.parent.mkdir(parents=True)
    document.write_bytes(content)
    port = free_port()
    kept = ("cache-control", "access-control-allow-origin")
    added = "".join(f'add_header {name} "{headers[name]}";\n' for name in kept if headers[name])
    temporary = "".join(
        f"{module}_temp_path {site}/{module};\n"
        for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # The file stays open, which is to nginx's advantage: without that it opens it for each answer.
    (site / "nginx.conf").write_text(f"""
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off;
        worker_processes 1;
        pid {site}/nginx.pid;
        error_log stderr warn;
        events {{ worker_connections 1024; }}
        http {{
            {temporary}
            access_log off;
            sendfile on;
            tcp_nopush on;
            tcp_nodelay on;
            keepalive_timeout 75s;
            keepalive_requests 1000000000;
            server_tokens off;
            open_file_cache max=16 inactive=60s;
            open_file_cache_valid 60s;
            types {{ {(headers["content-type"] or "application/json").partition(";")[0]} json; }}
            server {{
                listen 127.0.0.1:{port};
                root {site};
                {added}
            }}
        }}
    """)
    command = ["nginx", "-p", site, "-e", "stderr", "-c", site / "nginx.conf"]
    server = spawn(stack, cores, "nginx", command, folder)
    server.address = ("127.0.0.1", port)

    def worker():
        with contextlib.suppress(OSError):
            socket.create_connection(server.address, timeout=1).close()
            return next((pid for pid in children(server.process.pid)), None)

    server.pid = wait_for(server, worker, "listening")
    return server


def children(parent):
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            # The name in brackets may hold spaces: what counts follows the last bracket.
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(entry.name)


# ---------------------------------------------------------------------------------------------------
# Load


def cpu_ns(pid):
    """Processor time of all threads of a process, the ended ones too, in nanoseconds."""
    try:
        # What clock_getcpuclockid(3) would return: exact, where /proc counts in ticks of 10 ms.
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def memory_mib(pid, name):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise Failed(f"no {name} for process {pid}")


DONE = """
function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\\nresult {"requests":%d,"micros":%d,"p50":%d,"p99":%d,"status":%d,"broken":%d}\\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      e.status, e.connect + e.read + e.write + e.timeout))
end
"""


def lua(method, body=None, headers=None, content_type="application/json"):
    """What wrk sends, and how it hands its figures back: in microseconds, not in words."""
    lines = [f'wrk.method = "{method}"']
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}"
              for name, value in (headers or {}).items()]
    if body:
        lines += [
            f'wrk.headers["Content-Type"] = {json.dumps(content_type)}',
            f"wrk.body = {json.dumps(body)}",
        ]
    return "\n".join(lines) + DONE


def lua_refresh(tokens):
    """The same for chains of refresh tokens: each answer's token is one to send."""
    return """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
local tokens = {}
function init()
   for token in io.lines(%s) do tokens[#tokens + 1] = token end
end
function request()
   local token = table.remove(tokens)
   return wrk.format(nil, nil, nil, "grant_type=refresh_token&client_id=bench&refresh_token=" .. token)
end
function response(_, _, body)
   tokens[#tokens + 1] = string.match(body, '"refresh_token":"([^"]+)"')
end
""" % json.dumps(str(tokens)) + DONE


@dataclass
class Round:
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    busy: float
    rss_mib: float


def load(server, cores, script, path, seconds, connections=CONNECTIONS):
    """One turn of load. Any answer but a good one ends the bench."""
    host, port = server.address
    command = [
        "taskset", "-c", cores.load, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s",
        "--latency", "-s", script, f"http://{host}:{port}{path}",
    ]
    rss = 0.0
    before, begun = cpu_ns(server.pid), time.monotonic()
    wrk = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )
    try:
        while wrk.poll() is None:
            if server.process.poll() is not None:
                server.fail(f"ended with status {server.process.returncode} under load")
            if time.monotonic() > begun + seconds + 15:
                raise Failed(f"wrk did not end in time on {server.name}")
            rss = max(rss, memory_mib(server.pid, "VmRSS"))
            with contextlib.suppress(subprocess.TimeoutExpired):
                wrk.wait(0.25)
        after, elapsed = cpu_ns(server.pid), time.monotonic() - begun
        output = wrk.stdout.read()
    finally:
        if wrk.poll() is None:
            wrk.kill()
            wrk.wait(5)
        wrk.stdout.close()
    results = [line[7:] for line in output.splitlines() if line.startswith("result ")]
    if wrk.returncode != 0 or not results:
        raise Failed(f"wrk failed on {server.name}:\n{output}")
    result = json.loads(results[0])
    if result["status"] or result["broken"] or not result["requests"]:
        server.fail(
            f"{path}: of {result['requests']} answers {result['status']} were errors,"
            f" and {result['broken']} connections broke or timed out"
        )
    return Round(
        rate=result["requests"] * 1e6 / result["micros"],
        p50_ms=result["p50"] / 1000,
        p99_ms=result["p99"] / 1000,
        cpu_us=(after - before) / 1000 / result["requests"],
        busy=(after - before) / 1e9 / elapsed,
        rss_mib=rss,
    )


@dataclass
class Turns:
    """Two servers under the same load in turn; the first is judged against the second."""

    ours: Server
    bound: Server
    rounds: dict = field(default_factory=dict)

    def run(self, cores, script, path, rounds, seconds, warmup, bound=None):
        """Where the bound is asked for something else, `bound` says with which script and where."""
        asked = ((self.ours, script, path), (self.bound, *(bound or (script, path))))
        for server in (self.ours, self.bound):
            self.rounds[server.name] = []
        for server, script, path in asked:
            load(server, cores, script, path, warmup)
        for number in range(1, rounds + 1):
            # Short turns in changing order: what slows the machine for seconds weighs on both.
            asked = asked[::-1]
            for server, script, path in asked:
                result = load(server, cores, script, path, seconds)
                self.rounds[server.name].append(result)
                # A log is written as it would be, but need not fill the disk.
                os.truncate(server.log, 0)
                print(
                    f"  {number}/{rounds} {server.name:<10}{result.rate:>9,.0f}/s"
                    f"{result.cpu_us:>8.2f} µs CPU{result.p99_ms:>8.2f} ms p99",
                    flush=True,
                )

    def ratio(self, figure):
        """Round by round, so that a slow moment of the machine weighs on both."""
        pairs = zip(self.rounds[self.ours.name], self.rounds[self.bound.name])
        return [getattr(ours, figure) / getattr(bound, figure) for ours, bound in pairs]

    def median(self, figure):
        return statistics.median(getattr(one, figure) for one in self.rounds[self.ours.name])

    def growth(self, figure):
        """Of what stays where it is: the difference of the medians."""
        bound = statistics.median(getattr(one, figure) for one in self.rounds[self.bound.name])
        return self.median(figure) - bound


# ---------------------------------------------------------------------------------------------------
# Exchanges by session id


def start_clerk_api(stack, public_key):
    """As much of Clerk's Backend API as an exchange by session id asks for, each answer after a
    fixed delay. It knows every session."""
    text = subprocess.run(
        ["openssl", "rsa", "-pubin", "-in", public_key, "-noout", "-modulus"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
    ).stdout.decode()
    modulus = base64url(bytes.fromhex(text.strip().partition("=")[2]))
    key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "ins_bench", "n": modulus, "e": "AQAB"}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            # Head and body are two writes: the second must not wait for the first's receipt.
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def do_GET(self):
            now = time.time_ns() // 1_000_000
            session = {
                "object": "session", "id": self.path.rpartition("/")[2], "client_id": "client_bench",
                "user_id": "user_2abT9nUxYrM4KwQvCjPiHdGzSoB", "status": "active",
                "last_active_organization_id": None, "actor": None, "last_active_at": now,
                "expire_at": now + 86_400_000, "abandon_at": now + 86_400_000, "created_at": now,
                "updated_at": now,
            }
            answer = {"keys": [key]} if self.path.endswith("/jwks") else session
            content = json.dumps(answer).encode()
            time.sleep(PROVIDER_MS / 1000)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.daemon_threads = True
    threading.Thread(target=api.serve_forever, daemon=True).start()
    stack.callback(api.shutdown)
    return api.server_address


def timed(connection, method, path, body=None):
    begun = time.monotonic()
    connection.request(method, path, body, {"content-type": "application/json"} if body else {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise Failed(f"{method} {path} answered {answer.status}: {content[:600]!r}")
    return (time.monotonic() - begun) * 1000


def exchange_session_ids(stack, cores, folder, service_path, public_key, options):
    """Milliseconds that the provider takes, and that exchanges of session ids take, in turn."""
    address = start_clerk_api(stack, public_key)
    service = start_service(
        stack, cores, service_path, folder, public_key, options.log, "session-ids",
        folder / "session-ids.redb",
        {"CLERK_SECRET_KEY": "sk_test_bench", "CLERK_API_URL": f"http://{address[0]}:{address[1]}"},
    )
    provider = http.client.HTTPConnection(*address, timeout=5)
    exchequer = http.client.HTTPConnection(*service.address, timeout=5)
    pairs = []
    for number in range(SESSION_IDS + 5):
        name = f"sess_{time.time_ns():x}{number}"
        pairs.append((
            timed(provider, "GET", f"/v1/sessions/{name}"),
            timed(exchequer, "POST", "/auth/exchange", json.dumps({"session_id": name})),
        ))
    service.stop()
    # The first ones open connections and look at the instance's keys.
    return [list(column) for column in zip(*pairs[5:])]


# ---------------------------------------------------------------------------------------------------
# Refreshes


def refresh(stack, cores, folder, service_path, token, public_key, options):
    """Rounds of refreshes on a store in a file, each with families of its own: what is under way
    when a round ends is lost."""
    config, tokens, script = (folder / name for name in ("refresh.toml", "refresh.txt", "refresh.lua"))
    config.write_text(
        f'[issuers.bench]\nissuer = "{IDP}"\nkind = "clerk"\njwt_key = {{ file = "{public_key}" }}\n'
        '[apps.bench]\nissuers = ["bench"]\nrefresh = {}\n'
    )
    script.write_text(lua_refresh(tokens))
    service = start_service(
        stack, cores, service_path, folder, public_key, options.log, "refreshes",
        folder / "refreshes.redb", {"EXCHEQUER_CONFIG": str(config)},
    )
    body = json.dumps({"session_token": token, "app": "bench", "scope": "offline_access"})

    def turn(seconds):
        # A few more than connections: wrk tries its script before it begins.
        answers = [service.get("POST", "/auth/exchange", body)[1] for _ in range(REFRESH_CONNECTIONS + 8)]
        tokens.write_text("".join(json.loads(answer)["refresh_token"] + "\n" for answer in answers))
        return load(service, cores, script, "/oauth/token", seconds, REFRESH_CONNECTIONS)

    rounds = []
    for number in range(1, options.rounds + 1):
        turn(1)
        rounds.append(turn(options.seconds))
        os.truncate(service.log, 0)
        print(
            f"  {number}/{options.rounds} {service.name:<10}{rounds[-1].rate:>9,.0f}/s"
            f"{rounds[-1].cpu_us:>8.2f} µs CPU{rounds[-1].p99_ms:>8.2f} ms p99",
            flush=True,
        )
    service.stop()
    return rounds


# ---------------------------------------------------------------------------------------------------
# Too much of everything


@dataclass
class Overload:
    """What came of an open load: shares are of what the service can answer."""

    capacity: float
    offered: float
    goodput: float
    result: dict
    probe_ms: list


def probe(admin, stop, took):
    """Asks /livez on a connection of its own, fifty times a second."""
    connection = http.client.HTTPConnection(*admin, timeout=5)
    while not stop.is_set():
        took.append(timed(connection, "GET", "/livez"))
        time.sleep(0.02)


def overload(stack, cores, folder, service_path, overload_path, token, public_key, algorithm, options):
    """Three times as many requests as the service can answer, whether it answers or not."""
    service = start_service(
        stack, cores, service_path, folder, public_key, options.log, f"overload-{algorithm}",
        settings={"EXCHEQUER_KEY_ALG": algorithm, "EXCHEQUER_KEYS_DIR": str(folder / f"keys-{algorithm}")},
    )
    body = json.dumps({"session_token": token}, separators=(",", ":"))
    script, request = folder / "overload.lua", folder / "overload.http"
    script.write_text(lua("POST", body))
    request.write_text(
        "POST /auth/exchange HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    )
    load(service, cores, script, "/auth/exchange", 1)
    capacity = load(service, cores, script, "/auth/exchange", options.seconds).rate
    os.truncate(service.log, 0)
    stop, took = threading.Event(), []
    prober = threading.Thread(target=probe, args=(service.admin, stop, took), daemon=True)
    prober.start()
    asked = subprocess.run(
        list(map(str, [
            "taskset", "-c", cores.load, overload_path, "ask", "{}:{}".format(*service.address), request,
            OVERLOAD * capacity, 2 * options.seconds, OVERLOAD_CONNECTIONS,
        ])),
        stdout=subprocess.PIPE, text=True,
    )
    stop.set()
    prober.join()
    if asked.returncode != 0:
        service.fail("the open load ended badly")
    result = json.loads(asked.stdout)
    if result["other"] or result["broken"]:
        service.fail(f"under an open load: {result}")
    # It comes back at once.
    service.get("POST", "/auth/exchange", body)
    service.stop()
    answers = result["well"] + result["shed"]
    return Overload(
        capacity, answers / result["seconds"] / capacity,
        result["well"] / result["seconds"] / capacity, result, sorted(took),
    )


def hold_idle(stack, cores, folder, service_path, public_key, options):
    """Resident memory with many idle connections, in MiB; each has been used once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 1000:
        raise Failed(f"the limit of open files is {hard}; {IDLE} connections need {IDLE + 1000}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 1000), hard))
    service = start_service(stack, cores, service_path, folder, public_key, options.log, "idle")
    request = f"GET {JWKS_PATH} HTTP/1.1\r\nhost: bench\r\n\r\n".encode()
    with contextlib.ExitStack() as connections:
        for _ in range(IDLE):
            connection = connections.enter_context(socket.create_connection(service.address, timeout=5))
            connection.sendall(request)
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                service.fail("does not answer while it holds idle connections")
        held = memory_mib(service.pid, "VmRSS")
    service.stop()
    return held


# ---------------------------------------------------------------------------------------------------
# The report


def spread(values, digits):
    shape = f",.{digits}f"
    return f"{statistics.median(values):{shape}} ({min(values):{shape}}–{max(values):{shape}})"


def table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("─" * width for width in widths))


def report_turns(title, turns, figures):
    print(f"\n{title}: median (least–most) of {len(turns.rounds[turns.ours.name])} rounds\n")
    rows = [("", turns.ours.name, turns.bound.name, "ratio")]
    for label, figure, digits in figures:
        cells = [
            spread([getattr(one, figure) for one in turns.rounds[server.name]], digits)
            for server in (turns.ours, turns.bound)
        ]
        rows.append((label, *cells, spread(turns.ratio(figure), 3)))
    table(rows)
    for server in (turns.ours, turns.bound):
        busy = statistics.median(one.busy for one in turns.rounds[server.name])
        if busy < 0.85:
            print(
                f"note: {server.name} had only {busy:.0%} of its core to do; its rate is that of"
                " the load generator or of a busy machine, its processor time is still its own"
            )


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def judge(name, figure, target, shown, most=True):
    reached = figure <= target if most else figure >= target
    sign = "≤" if most else "≥"
    return reached, (name, shown(figure), f"{sign} {shown(target)}", "reached" if reached else "missed")


# ---------------------------------------------------------------------------------------------------


def exchange_as_client(stack, cores, folder, service_path, public_key, token, exchange, options):
    """RFC 8693 at the token endpoint, against the same token at /auth/exchange."""
    secret = base64url(os.urandom(32))
    config = folder / "clients.toml"
    config.write_text('[clients.bench]\nsecret = { env = "BENCH_SECRET" }\napps = "default"\n')
    settings = {"EXCHEQUER_CONFIG": str(config), "BENCH_SECRET": secret}
    ours, bound = (
        start_service(stack, cores, service_path, folder, public_key, options.log, name, settings=settings)
        for name in ("client", "app")
    )
    basic = base64.b64encode(f"bench:{secret}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    form = urllib.parse.urlencode({
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    })
    content_type = "application/x-www-form-urlencoded"
    _, content = ours.get("POST", TOKEN_PATH, form, headers | {"content-type": content_type})
    if json.loads(content).get("access_token", "").count(".") != 2:
        ours.fail(f"no token in {content[:600]!r}")
    script = folder / "token.lua"
    script.write_text(lua("POST", form, headers, content_type))
    turns = Turns(ours, bound)
    turns.run(cores, script, TOKEN_PATH, options.rounds, options.seconds, 1, (exchange, "/auth/exchange"))
    ours.stop()
    bound.stop()
    return turns


def start_redis(stack, cores, folder):
    """Redis beside the load generator, so that the service has its core to itself."""
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", folder]
    server = spawn(stack, Cores(cores.load, cores.load, cores.available), "redis", command, folder)
    server.address = ("127.0.0.1", port)

    def answers():
        with contextlib.suppress(OSError), socket.create_connection(server.address, timeout=1) as asked:
            asked.sendall(b"PING\r\n")
            return asked.recv(16).startswith(b"+PONG")

    wait_for(server, answers, "answering")
    return server


def keep_elsewhere(stack, cores, folder, service_path, public_key, exchange, options):
    """Exchanges with the store in Redis and in a file, each against memory."""
    redis = start_redis(stack, cores, folder)
    host, port = redis.address
    # A ring that Redis has is sealed; the others' is not.
    shared = {
        "EXCHEQUER_KEYS_SECRET": base64.b64encode(bytes(32)).decode(),
        "EXCHEQUER_KEYS_DIR": str(folder / "keys-redis"),
    }
    stores = {"redis": (f"redis://{host}:{port}", LIMITS | shared), "file": (folder / "limits.redb", LIMITS)}
    pairs = {}
    for name, (store, settings) in stores.items():
        ours = start_service(stack, cores, service_path, folder, public_key, options.log, name, store, settings)
        bound = start_service(stack, cores, service_path, folder, public_key, options.log, "memory", settings=LIMITS)
        pairs[name] = Turns(ours, bound)
        pairs[name].run(cores, exchange, "/auth/exchange", options.rounds, options.seconds, 1)
        ours.stop()
        bound.stop()
    return pairs["redis"], pairs["file"]


def spread_over_cores(stack, cores, folder, service_path, bare_path, public_key, exchange, options):
    """Exchanges on two cores, against one, of the service and of the bare cryptography. Where there
    are no more, the load generator takes a part of the second; then processor time tells what two
    would do, and what the bare cryptography loses, which shares nothing, is the machine's."""
    two = Cores(f"{cores.server},{cores.load if cores.available < 3 else cores.server + 1}", cores.load, cores.available)
    turns, gains = [], []
    for of, start in (
        ("", lambda on, name: start_service(stack, on, service_path, folder, public_key, options.log, name)),
        ("bare, ", lambda on, name: start_bare(stack, on, bare_path, folder, public_key, name)),
    ):
        pair = Turns(start(two, f"{of}two cores"), start(cores, f"{of}one core"))
        pair.run(cores, exchange, "/auth/exchange", options.rounds, options.seconds, 1)
        for server in (pair.ours, pair.bound):
            server.stop()
        by_time = [2 / ratio for ratio in pair.ratio("cpu_us")]
        turns.append(pair)
        gains.append(statistics.median(pair.ratio("rate") if cores.available > 2 else by_time))
    return turns, gains


def hold_revocations(stack, cores, folder, service_path, revoked_path, public_key, options):
    """Two services with a store in a file: one with many revocations, one with none."""
    stores = {"revoked": folder / "revoked.redb", "none": folder / "none.redb"}
    filled = subprocess.run([revoked_path, stores["revoked"], str(REVOCATIONS)], cwd=folder)
    if filled.returncode != 0:
        raise Failed(f"{revoked_path} failed")
    services = [
        start_service(stack, cores, service_path, folder, public_key, options.log, name, store)
        for name, store in stores.items()
    ]
    return Turns(*services)


def report_overload(algorithm, one):
    result, probes = one.result, one.probe_ms
    print(
        f"\nan open load of {one.offered:.1f} × the capacity of {one.capacity:,.0f}/s ({algorithm}):"
        f" {one.goodput:.0%} of it answered well, p50 {result['well_p50']:.1f} ms,"
        f" p99 {result['well_p99']:.1f} ms; {result['shed']:,} shed,"
        f" p50 {result['shed_p50']:.1f} ms, p99 {result['shed_p99']:.1f} ms;"
        f" /livez p50 {probes[len(probes) // 2]:.1f} ms, at most {probes[-1]:.1f} ms"
    )
    if one.offered < OVERLOAD * 0.9:
        print("note: the load generator could not offer more")


def judge_overload(algorithm, one):
    return [
        judge(f"goodput under overload / capacity, {algorithm}", one.goodput,
              MIN_GOODPUT[algorithm], "{:.2f}".format, most=False),
        judge(f"p99 of what is answered then, {algorithm}", one.result["well_p99"],
              MAX_OVERLOAD_P99_MS, "{:.1f} ms".format),
        judge(f"/livez then, {algorithm}", one.probe_ms[-1], MAX_PROBE_MS, "{:.1f} ms".format),
    ]


def measure_overload(options, stack, cores, folder, service_path, overload_path, token, public_key):
    """The part about too much of everything; gives what it judges."""
    print(f"bringing {OVERLOAD} times as many exchanges as can be answered", flush=True)
    loads = {
        algorithm: overload(stack, cores, folder, service_path, overload_path, token, public_key,
                            algorithm, options)
        for algorithm in MIN_GOODPUT
    }
    print(f"holding {IDLE:,} idle connections", flush=True)
    held = hold_idle(stack, cores, folder, service_path, public_key, options)
    for algorithm, one in loads.items():
        report_overload(algorithm, one)
    print(f"\nRSS with {IDLE:,} idle connections {held:.1f} MiB\n")
    verdicts = [verdict for algorithm, one in loads.items() for verdict in judge_overload(algorithm, one)]
    return [*verdicts, judge(f"RSS with {IDLE:,} idle connections", held, MAX_IDLE_MIB, "{:.1f} MiB".format)]


COMMON = [
    ("requests/s", "rate", 0),
    ("p50, ms", "p50_ms", 2),
    ("p99, ms", "p99_ms", 2),
    ("CPU, µs each", "cpu_us", 2),
    ("share of the core", "busy", 2),
    ("RSS, MiB", "rss_mib", 1),
]


def measure_stores(options, stack, cores, folder, service_path, bare_path, public_key, exchange):
    """The part about where things are remembered, and on how many cores; gives what it judges."""
    print("exchanging with the store in Redis, in a file and in memory", flush=True)
    in_redis, in_file = keep_elsewhere(stack, cores, folder, service_path, public_key, exchange, options)
    print("exchanging on two cores and on one", flush=True)
    (spread_out, bare_spread_out), (two_cores, bare_two_cores) = spread_over_cores(
        stack, cores, folder, service_path, bare_path, public_key, exchange, options
    )
    report_turns("POST /auth/exchange, the store in Redis and in memory", in_redis, COMMON)
    report_turns("POST /auth/exchange, the store in a file and in memory", in_file, COMMON)
    report_turns("POST /auth/exchange on two cores and on one", spread_out, COMMON)
    report_turns("the bare cryptography on two cores and on one", bare_spread_out, COMMON)
    return [
        judge("exchanges/s, Redis / memory", statistics.median(in_redis.ratio("rate")),
              MIN_REDIS_RATIO, "{:.3f}".format, most=False),
        judge("exchanges/s, file / memory", statistics.median(in_file.ratio("rate")),
              MIN_FILE_RATIO, "{:.3f}".format, most=False),
        judge(
            "exchanges/s, two cores / one"
            + ("" if cores.available > 2 else ", by processor time")
            + f"; the bare {bare_two_cores:.3f}",
            two_cores, MIN_TWO_CORES_RATIO, "{:.3f}".format, most=False,
        ),
    ]


def measure(options, stack, cores, folder, service_path, bare_path, revoked_path, overload_path):
    token, public_key = make_token(folder)
    body = json.dumps({"session_token": token}, separators=(",", ":"))
    exchange = folder / "exchange.lua"
    exchange.write_text(lua("POST", body))
    if options.only:
        if options.only == "overload":
            verdicts = measure_overload(
                options, stack, cores, folder, service_path, overload_path, token, public_key
            )
        else:
            verdicts = measure_stores(
                options, stack, cores, folder, service_path, bare_path, public_key, exchange
            )
        table([("", "measured", "target", ""), *(row for _, row in verdicts)])
        return all(reached for reached, _ in verdicts)

    print(f"starting {STARTS + 1} times", flush=True)
    starts = []
    for _ in range(STARTS + 1):
        with contextlib.ExitStack() as once:
            starts.append(
                start_service(once, cores, service_path, folder, public_key, options.log).ready_ms
            )
    first, starts = starts[0], starts[1:]

    service = start_service(stack, cores, service_path, folder, public_key, options.log)
    idle = memory_mib(service.pid, "VmRSS")
    bare = start_bare(stack, cores, bare_path, folder, public_key)

    for server in (service, bare):
        _, content = server.get("POST", "/auth/exchange", body)
        if json.loads(content).get("token", "").count(".") != 2:
            server.fail(f"no token in {content[:600]!r}")
    print(f"exchanging a token of {len(token)} bytes over {CONNECTIONS} connections", flush=True)
    exchanges = Turns(service, bare)
    exchanges.run(cores, exchange, "/auth/exchange", options.rounds, options.seconds, 2)
    peak = memory_mib(service.pid, "VmHWM")

    # Both share the key ring, so a token of one is good at the other.
    uncached = start_service(
        stack, cores, service_path, folder, public_key, options.log, "uncached",
        settings={"EXCHEQUER_VERIFY_CACHE": "off"},
    )
    _, content = service.get("POST", "/auth/exchange", body)
    bearer = {"Authorization": "Bearer " + json.loads(content)["token"]}
    answers = [
        {name.lower(): value for name, value in server.get("GET", VERIFY_PATH, None, bearer)[0].getheaders()
         if name.lower() not in ("date", "x-request-id")}
        for server in (service, uncached, bare)
    ]
    if any(answer != answers[0] for answer in answers):
        bare.fail(f"does not answer {VERIFY_PATH} as the service does: {answers}")
    verify = folder / "verify.lua"
    verify.write_text(lua("GET", None, bearer))
    print(f"verifying a bearer of {len(bearer['Authorization'])} bytes", flush=True)
    verifications, gains = Turns(service, bare), Turns(service, uncached)
    verifications.run(cores, verify, VERIFY_PATH, options.rounds, options.seconds, 1)
    gains.run(cores, verify, VERIFY_PATH, options.rounds, options.seconds, 1)
    uncached.stop()
    bare.stop()

    print("exchanging tokens as a client", flush=True)
    tokens = exchange_as_client(stack, cores, folder, service_path, public_key, token, exchange, options)

    answer, content = service.get("GET", JWKS_PATH)
    nginx = start_nginx(stack, cores, folder, content, answer.headers)
    _, served = nginx.get("GET", JWKS_PATH)
    if served != content:
        nginx.fail("does not serve the bytes it was given")
    keys = folder / "jwks.lua"
    keys.write_text(lua("GET"))
    print(f"fetching a key set of {len(content)} bytes", flush=True)
    fetches = Turns(service, nginx)
    fetches.run(cores, keys, JWKS_PATH, options.rounds, options.seconds, 1)
    nginx.stop()

    print(f"exchanging with {REVOCATIONS:,} revocations held, and with none", flush=True)
    held = hold_revocations(stack, cores, folder, service_path, revoked_path, public_key, options)
    held.run(cores, exchange, "/auth/exchange", options.rounds, options.seconds, 1)

    stores = measure_stores(
        options, stack, cores, folder, service_path, bare_path, public_key, exchange
    )

    print(f"exchanging session ids, the provider answering in {PROVIDER_MS} ms", flush=True)
    asked, exchanged = exchange_session_ids(stack, cores, folder, service_path, public_key, options)
    added = [total - own for own, total in zip(asked, exchanged)]

    print(f"refreshing over {REFRESH_CONNECTIONS} connections, the store in a file", flush=True)
    refreshed = refresh(stack, cores, folder, service_path, token, public_key, options)
    refreshes = [1e6 / one.cpu_us for one in refreshed]

    overloaded = measure_overload(
        options, stack, cores, folder, service_path, overload_path, token, public_key
    )

    print(
        f"\n{processor()}, {cores.available} cores,"
        f" {platform.system()} {platform.release()};"
        f" {'aws-lc-rs' if 'aws-lc' in options.features else 'ring'}, log {options.log};"
        f" server on core {cores.server}, wrk on core {cores.load}"
    )
    report_turns("POST /auth/exchange", exchanges, COMMON)
    report_turns(f"POST {TOKEN_PATH}, and /auth/exchange", tokens, COMMON)
    report_turns(f"GET {VERIFY_PATH}", verifications, COMMON)
    report_turns(f"GET {VERIFY_PATH}, its cache on and off", gains, COMMON)
    report_turns(f"GET {JWKS_PATH}", fetches, COMMON)
    report_turns(f"POST /auth/exchange with {REVOCATIONS:,} revocations, and with none", held, COMMON)
    print(
        f"\nexchange of a session id {spread(exchanged, 2)} ms, the provider alone"
        f" {spread(asked, 2)} ms, added {spread(added, 2)} ms"
    )
    print(
        f"\nrefreshes {spread([one.rate for one in refreshed], 0)} a second,"
        f" {spread(refreshes, 0)} a second of processor time,"
        f" p99 {spread([one.p99_ms for one in refreshed], 1)} ms"
    )
    print(
        f"\nready after {spread(starts, 1)} ms, {STARTS} starts;"
        f" the very first, which makes its keys: {first:.1f} ms"
        f"\nRSS at rest {idle:.1f} MiB, most ever {peak:.1f} MiB\n"
    )

    verdicts = [
        judge("CPU of an exchange / bare handler", statistics.median(exchanges.ratio("cpu_us")),
              MAX_CPU_RATIO, "{:.3f}".format),
        judge("CPU of /oauth/token / /auth/exchange", statistics.median(tokens.ratio("cpu_us")),
              MAX_TOKEN_CPU_RATIO, "{:.3f}".format),
        judge("CPU of /auth/verify / bare handler", statistics.median(verifications.ratio("cpu_us")),
              MAX_VERIFY_CPU_RATIO, "{:.3f}".format),
        judge("/auth/verify requests/s, cache on / off", statistics.median(gains.ratio("rate")),
              MIN_CACHE_GAIN, "{:.2f}".format, most=False),
        judge("added to a session id's exchange / the provider's own time",
              statistics.median(added) / statistics.median(asked), MAX_ADDED_RATIO, "{:.3f}".format),
        judge("refreshes a second of processor time", statistics.median(refreshes),
              MIN_REFRESHES, "{:,.0f}".format, most=False),
        judge("key set requests/s / nginx", statistics.median(fetches.ratio("rate")),
              MIN_JWKS_RATIO, "{:.3f}".format, most=False),
        *stores,
        judge("ready", statistics.median(starts), MAX_READY_MS, "{:.1f} ms".format),
        judge("RSS under load", exchanges.median("rss_mib"), MAX_RSS_MIB, "{:.1f} MiB".format),
        judge(f"RSS of {REVOCATIONS:,} revocations", held.growth("rss_mib"),
              MAX_REVOCATIONS_MIB, "{:.1f} MiB".format),
        judge("p99 with them / without", statistics.median(held.ratio("p99_ms")),
              MAX_REVOCATIONS_P99_RATIO, "{:.3f}".format),
        *overloaded,
    ]
    table([("", "measured", "target", ""), *(row for _, row in verdicts)])
    return all(reached for reached, _ in verdicts)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=__doc__[__doc__.index("Examples:"):],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--features", default="", help="cargo features for both, such as aws-lc")
    parser.add_argument("--rounds", type=int, default=12, help="turns for each server (12)")
    parser.add_argument("--seconds", type=int, default=1, help="length of a turn, seconds (1)")
    parser.add_argument("--log", choices=("default", "off"), default="default",
                        help="what the service logs: its default, or nothing")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--service", type=Path, metavar="PATH", help="measure this executable; build none")
    parser.add_argument("--bare", type=Path, metavar="PATH", help="the same for the bare handler")
    parser.add_argument("--revoked", type=Path, metavar="PATH", help="the same for what fills a store")
    parser.add_argument("--overload", type=Path, metavar="PATH", help="the same for the open load")
    parser.add_argument("--only", choices=("stores", "overload"), help="measure this part alone")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")

    for path in (options.service, options.bare, options.revoked, options.overload):
        if path and not os.access(path, os.X_OK):
            parser.error(f"{path} is not an executable file")

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        require_tools()
        service_path = options.service or build("bin", "exchequer", options.features)
        overload_path = options.overload or build("bench", "overload", options.features)
        # What the part that is asked for does not need is not built.
        bare_path = revoked_path = service_path
        if options.only != "overload":
            bare_path = options.bare or build("bench", "bare", options.features)
        if not options.only:
            revoked_path = options.revoked or build("bench", "revoked", options.features)

        def too_long(*_):
            raise Failed("took far longer than it should; ended")

        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(360 + 22 * options.rounds * (options.seconds + 3))
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exchequer-bench-")))
            cores = Cores.choose()
            # This script is no load on the server either.
            os.sched_setaffinity(0, {cores.load})
            reached = measure(
                options, stack, cores, folder,
                *(path.resolve() for path in (service_path, bare_path, revoked_path, overload_path)),
            )
    except Failed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 1 if options.check and not reached else 0


if __name__ == "__main__":
    sys.exit(main())
