"""What is done with a fenced block, by its language, and by the marks before it.

  sh, console   run; what `console` shows is compared, with … for whatever stands there
  toml          `exchequer check`, with an issuer and an app added where the block is a part of a file
  json, yaml    parsed;  js, python   parsed too
  text, none    shown, not checked

  <!-- test: dev -->              it runs beside `exchequer dev`, its variables TOKEN, APP_TOKEN and APP_JWT set
  <!-- test: service -->          beside `exchequer serve` with the features of world.py
  <!-- test: configured -->       in a folder with a configuration and a key ring, where nothing runs
  <!-- test: production -->       in a folder where nothing is set; https://auth.example.com is what it starts there
  <!-- test: background -->       it goes on, for the blocks after it
  <!-- test: exit=1 -->           it ends so
  <!-- test: paste=QUERY -->      `pbpaste` gives a session token of the stand-in's, asked for with this query
  <!-- test: file=NAME -->        it is kept under this name, for the blocks after it
  <!-- test: from=PATH -->        these lines stand in that file, which a test runs or reads
  <!-- test: by=PATH -->          each of its commands stands in that file, which runs it
  <!-- illustrative: WHY -->      it is not checked; how many there are is in illustrative.txt

The blocks of a page run in its order, in one folder, and see the variables that earlier ones exported.
"""

import ast
import base64
import json
import re
import secrets
import subprocess

import yaml

import world as worlds

SECONDS = 120  # until a block counts as hanging
WORLDS = ("dev", "service", "configured", "production")
MARKS = {*WORLDS, "background", "exit", "paste", "file", "from", "by"}
COMMANDS = {"sh", "console"}
SHOWN = {"text", ""}

ISSUER = '[issuers.clerk]\nkind = "clerk"\nissuer = "https://clerk.example.com"\nsecret_key = { env = "CLERK_SECRET_KEY" }\nauthorized_parties = ["https://app.example.com"]\n'
TRUST = """issuers = "clerk"\nsubject = 'iss + "|" + sub'\n"""
APP = f"[apps.web]\n{TRUST}"
# What changes the machine, or needs what a test does not have. A page's block is run by itself only without.
FOREIGN = re.compile(r"(?:^|[|;&(]\s*|\bsudo\s+)(kubectl|kustomize|docker|podman|make|cargo|npm|npx|apt-get|git|helm|brew)\b", re.M)


class Wrong(Exception):
    """A sentence, and what was seen."""


def check(root, block, world):
    """Raises Wrong where the block does not do what its page says. True where it was checked."""
    if unknown := set(block.marks) - MARKS:
        raise Wrong(f"unknown marks: {', '.join(sorted(unknown))}")
    if block.language in COMMANDS:
        makes_what_there_is(root, block)
    if block.reason is not None:
        if not block.reason:
            raise Wrong("illustrative without a reason")
        return False
    if source := block.marks.get("from"):
        return contained(root, block, source)
    if source := block.marks.get("by"):
        return performed(root, block, source)
    if block.language in COMMANDS:
        if found := FOREIGN.search("\n".join(command for command, _ in commands(block))):
            raise Wrong(f"{found[1]} is not run here: mark the block with by=PATH or as illustrative")
        return run(block, world)
    if block.language in SHOWN:
        return False
    if block.language not in PARSERS:
        raise Wrong(f"no way to check {block.language!r}: mark it with from=PATH or as illustrative")
    PARSERS[block.language](block.text, world)
    if kept := block.marks.get("file"):
        service, folder = place(block, world)
        (folder / kept).write_text(service.here(block.text) if service else block.text)
    return True


# Blocks that stand elsewhere


def contained(root, block, source):
    """Each paragraph of the block stands in the file, in the block's order."""
    file = root / source
    if not file.is_file():
        raise Wrong(f"there is no {source}")
    lines, at = [line.rstrip() for line in file.read_text().splitlines()], 0
    for paragraph in re.split(r"\n\s*\n", block.text.strip("\n")):
        wanted = [line.rstrip() for line in paragraph.splitlines()]
        found = next((start for start in range(at, len(lines)) if stands_at(lines, start, wanted)), None)
        if found is None:
            raise Wrong(f"this does not stand in {source}:\n{paragraph}")
        at = found + len(wanted)
    return True


def stands_at(lines, start, wanted):
    part = lines[start : start + len(wanted)]
    indent = min((len(line) - len(line.lstrip()) for line in part if line), default=0)
    least = min((len(line) - len(line.lstrip()) for line in wanted if line), default=0)
    return [line[indent:] for line in part] == [line[least:] for line in wanted]


def performed(root, block, source):
    file = root / source
    if not file.is_file():
        raise Wrong(f"there is no {source}")
    text = " ".join(file.read_text().split())
    for command, _ in commands(block):
        words = " ".join(re.sub(r"\s+#\s.*$", "", command, flags=re.M).split())
        if words and words not in text:
            raise Wrong(f"{source} does not run: {words}")
    return True


def makes_what_there_is(root, block):
    """Each target of make that a block names is one of the Makefile's, whatever else becomes of the block."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (root / "Makefile").read_text(), re.M))
    for target in re.findall(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*make ([a-z0-9-]+)", block.text, re.M):
        if target not in targets:
            raise Wrong(f"there is no make {target}")


# Blocks that are parsed


def parse_toml(text, world):
    tables = re.findall(r"^\[+([\w.\"-]+)", text, re.M)
    names = {".".join(table.split(".")[:2]) for table in tables}
    if not any(table.startswith("issuers") for table in tables):
        text = ISSUER + text
    apps = {name for name in names if name.startswith("apps.")}
    for name in apps - set(tables):
        text = f"[{name}]\n{TRUST}" + text
    for name in apps & set(tables):
        part = re.split(r"^\[", text.split(f"[{name}]\n", 1)[1], maxsplit=1, flags=re.M)[0]
        if not re.search(r"^issuers\b", part, re.M):
            text = text.replace(f"[{name}]\n", f"[{name}]\n{TRUST}", 1)
    if not apps:
        text += APP
    folder = world.folder("toml")
    (folder / "exchequer.toml").write_text(text)
    env = world.environment(folder)
    for name in re.findall(r"\benv = \"(\w+)\"", text):
        env[name] = pretended(name)
    found = subprocess.run(
        ["exchequer", "check"], cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS
    )
    if found.returncode:
        raise Wrong(f"exchequer check refuses it:\n{found.stdout}{found.stderr}\nin full:\n{text}")


def pretended(name):
    """A value that a secret of this name could have."""
    if name.startswith("CLERK_SECRET_KEY"):
        return "sk_test_" + secrets.token_hex(20)
    if re.search(r"EVENTS|IDENTITY|WEBHOOK", name):
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_hex(32)


def parse_json(text, _):
    try:
        json.loads(text)
    except ValueError:
        try:
            for line in text.splitlines():
                json.loads(line)
        except ValueError as error:
            raise Wrong(f"no JSON: {error}") from None


def parse_yaml(text, _):
    try:
        list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise Wrong(f"no YAML: {error}") from None


def parse_js(text, world):
    file = world.folder("js") / "block.mjs"
    file.write_text(text)
    found = subprocess.run(["node", "--check", file], capture_output=True, text=True, timeout=SECONDS)
    if found.returncode:
        raise Wrong(f"no JavaScript:\n{found.stderr}")


def parse_python(text, _):
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise Wrong(f"no Python: {error}") from None


PARSERS = {
    "toml": parse_toml,
    "json": parse_json,
    "yaml": parse_yaml,
    "js": parse_js,
    "python": parse_python,
}


# Blocks that are run


def commands(block):
    """Each command with what it is to print; None where the block does not say."""
    if block.language == "sh":
        return [(block.text, None)]
    found = []
    open_command = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
            open_command = unfinished(found[-1][0])
        elif open_command:
            command, expected = found[-1]
            found[-1] = (f"{command}\n{line}", expected)
            open_command = unfinished(found[-1][0])
        elif found:
            found[-1][1].append(line)
        else:
            raise Wrong("a console block begins with a command: $ …")
    return found


def unfinished(command):
    """Whether the shell would wait for another line."""
    return command.endswith("\\") or command.count("'") % 2 == 1


def run(block, world):
    service, folder = place(block, world)
    name = service and folder.name
    kept = world.folder("kept") / re.sub(r"\W+", "-", f"{block.page}-{name}")
    env = world.environment(folder) | (service.env if service else {})
    if service:
        service.begin()
    if name in ("dev", "service"):
        env |= service.tokens()
    if "paste" in block.marks:
        pasted = worlds.get(f"{world.service('dev').provider}/session-token?{block.marks['paste']}")
        (folder / "clipboard").write_text(pasted)
    steps = commands(block)
    for number, (command, expected) in enumerate(steps, 1):
        script = service.here(command) if service else command
        whole = f"set -e\n[ ! -e {kept} ] || . {kept}\n{script}\nexport -p | grep -v ' TOKEN=\\| APP_' > {kept}\n"
        if "background" in block.marks:
            whole = f"[ ! -e {kept} ] || . {kept}\nexec {script}"
            world.start(["bash", "-c", whole], folder, env).find(lambda line: "listening" in line)
            continue
        try:
            ended = subprocess.run(
                ["bash", "-c", whole],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise Wrong(f"it does not end:\n{command}") from None
        printed = service.there(ended.stdout) if service else ended.stdout
        wanted = int(block.marks.get("exit", 0)) if number == len(steps) else 0
        if ended.returncode != wanted:
            raise Wrong(f"it ended with {ended.returncode}, not {wanted}:\n{command}\n{printed}")
        if expected is not None and not same(expected, printed.splitlines()):
            shown = "\n".join(expected)
            raise Wrong(f"{command}\n  the page shows:\n{shown}\n  it printed:\n{printed}")
    return True


def place(block, world):
    """The service that the block is run beside, where there is one, and the folder."""
    name = next((name for name in WORLDS if name in block.marks), None)
    if not name:
        return None, world.folder(str(block.page))
    return world.service(name), world.service(name).folder


# Of what is another at each run, only the kind is compared.
KINDS = [
    (r"eyJ[\w-]+(\.[\w-]+|…)+", "<token>"),
    (worlds.DIGEST.pattern, "<digest>"),
    (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "<date>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"\b1[78]\d{8}\b", "<seconds>"),
    (r"(\b\d+|…) bytes", "<size>"),
    (r"(\b\d+|…) (s|days) ago", "<age>"),
    (r"\"request_id\":\"[\w-]+\"", "<request>"),
    (r"\bins_\w+", "<instance>"),
    (r"\r", ""),
]


def general(line):
    for pattern, kind in KINDS:
        line = re.sub(pattern, kind, line)
    return line.rstrip()


def same(expected, printed):
    """Whether what was printed is what the page shows. A line of … alone stands for any lines."""
    pattern = ""
    for line in map(general, expected):
        if line.strip() == "…":  # whole lines
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split("…")) + r"\n"
    text = "".join(general(line) + "\n" for line in printed)
    return re.fullmatch(pattern, text) is not None
