#!/usr/bin/env python3
"""Measures what docs/scale.md computes with, and writes it into benches/scale.json.

Bytes on the wire, bytes of a log line, memory of an idle connection, and what an exchange costs a
Redis: processor time is read from the server, so the figures hold on a machine that is busy. What
`make bench` measures (the processor time of an exchange) stands in the file with its own command.
Needs redis-server and what benches/run.py needs. `make sim` then writes the tables anew.

Examples:
    benches/scale.py
    benches/scale.py --service target/release/exchequer
"""

import argparse
import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import run

FIGURES = run.ROOT / "benches" / "scale.json"
BUCKET = run.ROOT / "src" / "store" / "redis" / "bucket.lua"
EXCHANGES = 500
IDLE = 10_000
IDLE_FRAMED = 1_000
KEYS = 20_000
# Session, user, organisation and membership; a subject's bucket and an address's.
STANDINGS = 4
# A bucket's window: none is full again while it is measured.
HOUR_NS = 3_600_000_000_000


# ---------------------------------------------------------------------------------------------------
# The service


def talk(connection, request):
    """Sends a request; the bytes of its answer, head and body, as they came."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def talk_framed(connection, path, body):
    """Posts over HTTP/2, the connection's first request; gives the answer's body.

    By hand, as no client in the standard library can: RFC 9113 §3.4 and §4.1, RFC 7541 §6.2.2."""
    head = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "auth.example.com",
            "content-type": "application/json", "content-length": str(len(body))}
    texts = (text.encode() for field in head.items() for text in field)
    # Each pair a literal that is not indexed, none as long as 127 bytes.
    packed = b"".join(b"\0" * (number % 2 == 0) + bytes([len(text)]) + text
                      for number, text in enumerate(texts))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
                       + frame(1, 4, 1, packed) + frame(0, 1, 1, body))
    came, answer, kind, flags = connection.makefile("rb"), b"", None, 0
    while kind not in (0, 1) or not flags & 1:  # until DATA or HEADERS ends the stream
        start = came.read(9)
        kind, flags = start[3], start[4]
        payload = came.read(int.from_bytes(start[:3], "big"))
        if kind == 4 and not flags & 1:
            connection.sendall(frame(4, 1, 0, b""))
        answer += payload if kind == 0 else b""
    return answer


def lines_of(path, mark):
    return [line for line in path.read_bytes().splitlines(keepends=True) if mark in line]


def measure_service(stack, folder, executable):
    cores = run.Cores.choose()
    token, public_key = run.make_token(folder)
    audit = folder / "audit.jsonl"
    server = run.start_service(
        stack, cores, executable, folder, public_key, "default",
        settings={"EXCHEQUER_AUDIT": f"file:{audit}"},
    )
    connection = stack.enter_context(socket.create_connection(server.address, timeout=10))
    head = "host: auth.example.com\r\nuser-agent: scale\r\naccept: */*\r\n"
    get = f"GET {run.JWKS_PATH} HTTP/1.1\r\n{head}"
    full = talk(connection, f"{get}\r\n".encode())
    etag = re.search(rb'etag: (".*?")', full, re.IGNORECASE)[1].decode()
    unchanged = talk(connection, f"{get}if-none-match: {etag}\r\n\r\n".encode())
    if not unchanged.startswith(b"HTTP/1.1 304"):
        server.fail("the key set was sent again to somebody who has it")
    yield "jwks_bytes", len(full)
    yield "jwks_304_bytes", len(unchanged)

    before = run.cpu_ns(server.pid)
    for _ in range(EXCHANGES):
        talk(connection, f"{get}if-none-match: {etag}\r\n\r\n".encode())
    yield "jwks_us", (run.cpu_ns(server.pid) - before) / 1000 / EXCHANGES

    body = json.dumps({"session_token": token})
    post = (f"POST /auth/exchange HTTP/1.1\r\n{head}content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}").encode()
    for _ in range(EXCHANGES):
        answer = talk(connection, post)
    if not answer.startswith(b"HTTP/1.1 200"):
        server.fail(f"an exchange was refused: {answer[:300]!r}")
    yield "exchange_in_bytes", len(post)
    yield "exchange_out_bytes", len(answer)
    run.wait_for(server, lambda: len(lines_of(audit, b'"exchange"')) >= EXCHANGES, "audited")
    yield "audit_bytes", mean(lines_of(audit, b'"exchange"'))
    yield "log_bytes", mean(lines_of(server.log, b"exchange"))

    before = run.memory_mib(server.pid, "VmRSS")
    for _ in range(IDLE):
        # Used once, as a proxy's are; one after the other, so that those before are asleep.
        talk(stack.enter_context(socket.create_connection(server.address, timeout=10)), post)
    yield "connection_kib", (run.memory_mib(server.pid, "VmRSS") - before) * 1024 / IDLE


def measure_framed(stack, folder, executable):
    """A service of its own: what the connections before left free would be taken first."""
    token, public_key = run.make_token(folder)
    server = run.start_service(
        stack, run.Cores.choose(), executable, folder, public_key, "default", "framed")
    body = json.dumps({"session_token": token}).encode()

    def ask(connections):
        connection = connections.enter_context(socket.create_connection(server.address, timeout=10))
        answer = talk_framed(connection, "/auth/exchange", body)
        if b'"token"' not in answer:
            server.fail(f"an exchange over HTTP/2 was refused: {answer[:300]!r}")

    for _ in range(EXCHANGES):
        with contextlib.ExitStack() as alone:
            ask(alone)
    before = run.memory_mib(server.pid, "VmRSS")
    for _ in range(IDLE_FRAMED):
        ask(stack)
    yield "connection_framed_kib", (run.memory_mib(server.pid, "VmRSS") - before) * 1024 / IDLE_FRAMED


def mean(lines):
    return sum(map(len, lines)) / len(lines)


# ---------------------------------------------------------------------------------------------------
# Redis


class Redis:
    """A redis-server that keeps nothing, at a Unix socket, and one connection to it."""

    def __init__(self, stack, folder):
        path = folder / "redis.sock"
        process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        stack.callback(process.wait, 10)
        stack.callback(process.terminate)
        self.socket = stack.enter_context(socket.socket(socket.AF_UNIX))
        deadline = time.monotonic() + 10
        while self.socket.connect_ex(str(path)) != 0:
            if time.monotonic() > deadline:
                raise run.Failed("redis-server did not start")
            time.sleep(0.01)
        self.file = self.socket.makefile("rb")

    def read(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise run.Failed(f"redis: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest

    def ask(self, *commands):
        self.socket.sendall(b"".join(map(encode, commands)))
        return [self.read() for _ in commands]

    def info(self, section, name):
        text = self.ask(["INFO", section])[0].decode()
        return float(re.search(rf"^{name}:([\d.]+)", text, re.MULTILINE)[1])

    def cpu_us(self):
        return sum(self.info("cpu", f"used_cpu_{kind}") for kind in ("user", "sys")) * 1e6

    def growth(self, commands):
        """Bytes of memory that each of these writes takes."""
        before, count = self.info("memory", "used_memory"), 0
        for group in commands:
            self.ask(*group)
            count += 1
        return (self.info("memory", "used_memory") - before) / count


def encode(command):
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def name(kind, number):
    return f"exchequer:1:{{exchequer}}:{kind}:{number:032x}"


def bucket_name(number):
    return f"exchequer:1:{{{number:032x}}}:b"


def measure_redis(stack, folder):
    redis = Redis(stack, folder)
    sha = redis.ask(["SCRIPT", "LOAD", BUCKET.read_bytes()])[0]
    now, day, mark = int(time.time()), 86_400_000, bytes(16)
    yield "redis_revocation_bytes", redis.growth(
        [
            ["SET", name("r", number), mark, "PX", day],
            ["ZADD", name("log", 0), number, number.to_bytes(16) + mark],
            ["ZADD", name("log-ends", 0), now, number.to_bytes(16) + mark],
        ]
        for number in range(KEYS)
    )
    yield "redis_place_bytes", redis.growth(
        [["HSET", name("statuses", 0), number, mark], ["ZADD", name("statuses-ends", 0), now, number]]
        for number in range(KEYS)
    )

    def take(number):
        return ["EVALSHA", sha, 1, bucket_name(number), now, HOUR_NS, HOUR_NS // 1000, 10_000]

    yield "redis_bucket_bytes", redis.growth([take(number)] for number in range(KEYS))

    def revoked(number):
        return ["MGET", *(name("r", KEYS + STANDINGS * number + each) for each in range(STANDINGS))]

    def exchange(number):
        return [revoked(number), take(number % KEYS), take(7 * number % KEYS)]

    def cost(commands, at_once):
        before = redis.cpu_us()
        for first in range(0, KEYS, at_once):
            redis.ask(*(command for each in range(at_once) for command in commands(first + each)))
        return (redis.cpu_us() - before) / KEYS

    yield "redis_us", cost(exchange, 1)
    yield "redis_batched_us", cost(exchange, 32)
    yield "redis_mget_us", cost(lambda number: [revoked(number)], 1)
    before = redis.info("stats", "total_net_input_bytes"), redis.info("stats", "total_net_output_bytes")
    for number in range(1000):
        redis.ask(*exchange(number))
    yield "redis_in_bytes", (redis.info("stats", "total_net_input_bytes") - before[0]) / 1000
    yield "redis_out_bytes", (redis.info("stats", "total_net_output_bytes") - before[1]) / 1000


# ---------------------------------------------------------------------------------------------------


def rounded(value):
    return round(value, 1 if value < 100 else None)


def machine():
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    return f"{os.cpu_count()} × {model[1] if model else 'unknown'}, Redis {version.split('v=')[1].split()[0]}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", type=Path, metavar="PATH", help="measure this executable; build none")
    arguments = parser.parse_args()
    run.require_tools()
    executable = arguments.service or run.build("bin", "exchequer", "")
    file = json.loads(FIGURES.read_text())
    figures = {figure["name"]: figure for figure in file["figures"]}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)
        executable = executable.resolve()
        for measure in (
            measure_service(stack, folder, executable), measure_framed(stack, folder, executable),
            measure_redis(stack, folder),
        ):
            for figure, value in measure:
                print(f"{figure:24} {rounded(value)}", flush=True)
                figures[figure]["value"] = rounded(value)
    file["machine"] = machine()
    FIGURES.write_text(json.dumps(file, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    try:
        main()
    except run.Failed as failed:
        sys.exit(f"scale: {failed}")
