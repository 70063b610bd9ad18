#!/usr/bin/env python3
"""Runs the verifiers of examples/verify, and some more, against a live service: good tokens and bad ones,
across a planned rotation, a revoked token and revoked keys. docs/verifying.md has the table of it.

What it is: each verifier is a process of its own for each algorithm, a backend with the one route /reports,
and stays alive with its own caching rules. The service's clock is moved, theirs is not. Whoever needs Go or
Java is left out, and said to be, where these are not installed.
What it is not: a measure of what takes minutes. How long caches are kept is in docs/keys.md.

  run.py [NAME...]   fails if a promise does not hold, or the page's tables or snippets differ; with parts
                     of names, only these verifiers run
  run.py --write     writes the tables and the snippets into the page
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import page
from rows import envoy_config, missing, rows
from world import ALGS, AT_JWT, AUDIENCE, BACK_DATED, DAY, OTHER_AUDIENCE, OTHER_ISSUER
from world import SERVICE_ALG, TTL, World, eventually, forged, free_port, kid, request

# Seconds that a token is out of date, to find what each verifier tolerates.
AGES = (5, 50, 70, 280, 320)
TOLERANCES = {(0, 5): "none", (50, 70): "1 min", (280, 320): "5 min"}
COOLDOWN = 31  # seconds: longer than any verifier's cool-down that is shorter than minutes


def counted(fetches):
    return "1 fetch" if fetches == 1 else f"{fetches} fetches"


class Verifier:
    """A running verifier of one algorithm."""

    def __init__(self, row, alg, world, folder, audience=AUDIENCE):
        self.row, self.alg, self.world = row, alg, world
        self.port = free_port()
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "NO_PROXY": "*",
            "ISSUER": world.front.url, "ALG": alg, "PORT": str(self.port),
        }  # fmt: skip
        if audience:
            self.environment["AUDIENCE"] = audience
        config = folder / f"envoy-{alg}.yaml"
        if "CONFIG" in row.command:
            config.write_text(envoy_config(world.front.url, self.port))
        words = {"CONFIG": str(config), "PORT": str(self.port)}
        self.command = [words.get(word, word) for word in row.command]
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{row.name}-{alg}-{audience}")
        self.log = folder / f"{name}.log"
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.row.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def restart(self):
        """A new process: what it had cached is forgotten."""
        self.stop()
        self.start()
        assert self.wait(), f"{self}: {self.said()}"

    def __str__(self):
        return f"{self.row.name}, {self.alg}"

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait(self):
        """Until it listens, or has ended; whether it listens."""
        eventually(f"{self} listens", lambda: self.listens() or self.process.poll() is not None, 120)
        return self.process.poll() is None

    def status(self, token, user="user_1"):
        """The status that a request with the token gets, and how often the key set was fetched for it."""
        before = self.world.front.fetches
        # Who it is says the token alone, whatever a client claims.
        headers = {"x-user-id": "mallory"} | ({"authorization": f"Bearer {token}"} if token else {})
        status, body = request(f"http://127.0.0.1:{self.port}/reports", headers)
        assert status in (200, 401, 403), f"{self}: {status}: {self.said()}"
        assert status != 200 or user.encode() in body and b"mallory" not in body, f"{self}: {body}"
        return status, self.world.front.fetches - before

    def accepts(self, token):
        return self.status(token)[0] == 200

    def verdict(self, token):
        """The same in words."""
        status, fetches = self.status(token)
        return f"{'accepted' if status == 200 else '**refused**'}, {counted(fetches)}"

    def said(self):
        return self.log.read_text()[-2000:]

    def stop(self):
        self.process.kill()
        self.process.wait()


class Walk:
    """The run: the verifiers are taken through it together, and what they do is written into `cells`."""

    def __init__(self, world, verifiers):
        self.world, self.verifiers = world, verifiers
        self.cells = {}

    def note(self, verifier, column, value):
        """Writes a cell; all algorithms that a verifier takes must come to the same."""
        cells = self.cells.setdefault(verifier.row.name, {})
        assert cells.setdefault(column, value) == value, f"{verifier}: {column}: {cells[column]}, and {value}"

    def accepting(self):
        return [verifier for verifier in self.verifiers if verifier.takes]

    def good_tokens(self):
        self.first = {alg: self.world.mint(alg) for alg in ALGS}
        for verifier in self.verifiers:
            verifier.takes = verifier.runs and verifier.accepts(self.first[verifier.alg])
            no = "**no**" if verifier.runs else "**no**: does not start"
            self.note(verifier, verifier.alg, "yes" if verifier.takes else no)
            # Whether it is warm: a second look must fetch nothing.
            if verifier.takes:
                assert verifier.status(self.first[verifier.alg]) == (200, 0), verifier
        self.warm_since = time.monotonic()
        for alg in ALGS:
            token = self.world.mint(alg, suffix=AT_JWT)
            for verifier in self.accepting():
                if verifier.alg == alg:
                    self.note(verifier, "at+jwt", "yes" if verifier.accepts(token) else "**no**")

    def bad_tokens(self, of_another_issuer):
        world = self.world
        for alg in ALGS:
            bad = dict(forged(world, self.first[alg]))
            bad["of another issuer"] = of_another_issuer[alg]
            bad["for another audience"] = world.mint(alg, audience=OTHER_AUDIENCE)
            bad["expired"] = world.mint_at(-TTL - 600, alg)
            bad["not valid yet"] = world.mint_at(600, alg)
            bad["a status list"] = request(f"{world.url}/.well-known/status-lists/1")[1].decode()
            unscoped = world.mint(alg, scope="write:reports")
            for verifier in (each for each in self.verifiers if each.alg == alg and each.runs):
                for what, token in bad.items():
                    status, _ = verifier.status(token)
                    assert status != 200, f"{verifier} accepts what is {what}"
                if verifier.takes and verifier.row.checks_scope:
                    assert verifier.status(unscoped)[0] == 403, f"{verifier}: without the scope"
                assert not verifier.takes or verifier.accepts(self.first[alg]), f"{verifier} no longer accepts"

    def service_tokens(self):
        """What a client gets for itself is verified as a user's token is."""
        good, other = self.world.service_token(AUDIENCE), self.world.service_token(OTHER_AUDIENCE)
        for verifier in self.accepting():
            if verifier.alg == SERVICE_ALG:
                assert verifier.status(good, "backend")[0] == 200, f"{verifier}: a service token"
                assert not verifier.accepts(other), f"{verifier}: a service token for another audience"

    def clock_skew(self):
        """How long after `exp`, and before `nbf`, a token passes."""
        for column, shift in (
            ("late", lambda age: -TTL - age),
            ("early", lambda age: age + BACK_DATED),
        ):
            passed = {id(verifier): 0 for verifier in self.accepting()}
            beyond = {}
            for age in AGES:
                tokens = {alg: self.world.mint_at(shift(age), alg) for alg in ALGS}
                for verifier in self.accepting():
                    if verifier.accepts(tokens[verifier.alg]):
                        assert id(verifier) not in beyond, f"{verifier}: {column} by {age} s, and not by less"
                        passed[id(verifier)] = age
                    else:
                        beyond.setdefault(id(verifier), age)
            for verifier in self.accepting():
                between = (passed[id(verifier)], beyond[id(verifier)])
                self.note(verifier, column, TOLERANCES[between])

    def revoked_tokens(self):
        """A backend that verifies with the key set alone never learns that a token was revoked."""
        tokens = {alg: self.world.mint(alg) for alg in ALGS}
        for alg, token in tokens.items():
            assert self.world.introspected(token)["active"] is True
            self.world.revoke_token(token, alg)
            assert self.world.introspected(token) == {"active": False}
        for token in tokens.values():
            eventually("the status list has it", lambda token=token: self.world.listed(token))
        for verifier in self.accepting():
            assert verifier.accepts(tokens[verifier.alg]), verifier

    def planned_rotation(self):
        """Published, active, retired, gone: nobody refuses a good token, and nobody has to fetch."""
        world = self.world
        said = world.command("keys", "rotate")
        assert "only lately" not in said, said
        self.second = {alg: world.signs_with_another(alg, self.first[alg]) for alg in ALGS}
        for verifier in self.accepting():
            assert verifier.status(self.first[verifier.alg]) == (200, 0), f"{verifier}: an old token"
            status, fetches = verifier.status(self.second[verifier.alg])
            assert status == 200, f"{verifier}: a new token"
            self.note(verifier, "rotation", f"accepted, {counted(fetches)}")
        old = {kid(token) for token in self.first.values()}
        world.shift(DAY + 3600)
        eventually("the retired keys are gone", lambda: not world.published() & old)
        world.shift(0)
        for verifier in self.accepting():
            token = world.mint(verifier.alg)
            assert kid(token) == kid(self.second[verifier.alg])
            assert verifier.status(token) == (200, 0), f"{verifier} after a planned rotation"

    def revoked_keys(self):
        """The key that signs is revoked, and one signs that no verifier has seen; then once more, at once."""
        world = self.world
        time.sleep(max(0, world.front.last_fetch + COOLDOWN - time.monotonic()))
        revoked = dict(self.second)
        world.revoke_keys([kid(token) for token in revoked.values()])
        fresh = {alg: world.signs_with_another(alg, revoked[alg]) for alg in ALGS}
        asked = {}
        for verifier in self.accepting():
            old, new = revoked[verifier.alg], fresh[verifier.alg]
            # Nothing tells it.
            assert verifier.status(old) == (200, 0), f"{verifier}: a revoked key that it has cached"
            asked[id(verifier)] = time.monotonic()
            self.note(verifier, "unknown", verifier.verdict(new))
        # The standby goes too, so that what signs next was published to nobody.
        world.revoke_keys([world.standby(alg) for alg in ALGS])
        world.revoke_keys([kid(token) for token in fresh.values()])
        newest = {alg: world.signs_with_another(alg, fresh[alg]) for alg in ALGS}
        for verifier in self.accepting():
            self.note(verifier, "again", verifier.verdict(newest[verifier.alg]))
            if time.monotonic() - asked[id(verifier)] > COOLDOWN - 3:
                raise AssertionError("this machine is too slow now to measure what happens within 30 s")
            status, fetches = verifier.status(revoked[verifier.alg])
            said = "**accepted**" if status == 200 else "refused"
            self.note(verifier, "revoked", f"{said}, {counted(fetches)}")
            if status == 200:
                verifier.restart()
                assert verifier.accepts(newest[verifier.alg]), f"{verifier}, anew"
                assert not verifier.accepts(revoked[verifier.alg]), f"{verifier}, anew: a revoked key"

    def run(self, of_another_issuer):
        for step, arguments in (
            (self.good_tokens, ()), (self.bad_tokens, (of_another_issuer,)),
            (self.service_tokens, ()), (self.clock_skew, ()),
            (self.planned_rotation, ()), (self.revoked_tokens, ()), (self.revoked_keys, ()),
        ):  # fmt: skip
            began = time.monotonic()
            step(*arguments)
            print(f"  {step.__name__.replace('_', ' ')}: {time.monotonic() - began:.0f} s", flush=True)
        # Else what was measured as a fetch for a `kid` might have been one of an old cache.
        assert time.monotonic() - self.warm_since < 280, "too slow: caches of five minutes ran out"
        return self.cells


def start(here, world, folder):
    """All verifiers, listening, or ended where they do not know the algorithm."""
    running = [Verifier(row, alg, world, folder) for row in here for alg in ALGS]
    # An example that is told no audience does not start, or refuses everything.
    told_nothing = [
        Verifier(row, "ES256", world, folder, audience=None)
        for row in here
        if row.example and "CONFIG" not in row.command
    ]
    try:
        for verifier in running:
            verifier.runs = verifier.wait()
            if not verifier.runs and verifier.alg in verifier.row.starts_with:
                raise AssertionError(f"{verifier}: {verifier.said()}")
        token = world.mint("ES256")
        for verifier in told_nothing:
            assert not verifier.wait() or not verifier.accepts(token), f"{verifier} without an audience"
    except BaseException:
        for verifier in running:
            verifier.stop()
        raise
    finally:
        for verifier in told_nothing:
            verifier.stop()
    return running


def main():
    write = "--write" in sys.argv[1:]
    wanted = [word for word in sys.argv[1:] if word != "--write"]
    every = rows()
    here = []
    for row in every:
        if wanted and not any(word in row.name for word in wanted):
            continue
        lacking = missing(row.needs)
        if lacking:
            print(f"SKIPPED: {row.name}: {lacking} is not here", flush=True)
        else:
            here.append(row)
    world = World()
    began = time.monotonic()
    running = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            world.start(OTHER_ISSUER)
            of_another_issuer = {alg: world.mint(alg) for alg in ALGS}
            world.stop()
            world.start()
            running = start(here, world, Path(folder))
            print(f"  {len(running)} verifiers run after {time.monotonic() - began:.0f} s", flush=True)
            cells = Walk(world, running).run(of_another_issuer)
        finally:
            for verifier in running:
                verifier.stop()
            world.stop()
    differing = page.differences([row.name for row in every], cells, write)
    print(f"{len(here)} verifiers, {len(running)} processes, {time.monotonic() - began:.0f} s")
    if differing:
        sys.exit("\n".join([*differing, "`make test-interop ARGS=--write` writes what was measured"]))


if __name__ == "__main__":
    main()
