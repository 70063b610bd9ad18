"""What k8s/ promises, without a cluster: it renders, it is valid, it is hardened, and the service
takes the settings and answers the probes. `make test` runs it."""

import copy
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

import rendered
from rendered import HERE, ROOT

TOOLS = HERE / ".venv/bin"
SCHEMAS = HERE / "schemas"
MOUNT = "/etc/exchequer"
SECRETS = {
    "keys-secret": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "store-url": "redis://exchequer:secret@exchequer-redis:6379",
    "clerk-secret-key": "sk_live_exampleexample",
}

# What checkov finds and we leave so, each with its reason. What it finds no longer leaves the list.
EXPLAINED = {
    ("CKV_K8S_11", "Deployment.exchequer.exchequer"): "a limit of processor time only adds latency",
    ("CKV_K8S_11", "Deployment.exchequer-dev.exchequer"): "the same",
    ("CKV_K8S_11", "StatefulSet.exchequer.exchequer-redis"): "the same",
    ("CKV_K8S_11", "StatefulSet.exchequer-dev.exchequer-redis"): "the same",
    ("CKV_K8S_43", "Deployment.exchequer-dev.exchequer"): "dev runs what was built last",
    ("CKV_K8S_15", "Deployment.exchequer-dev.exchequer"): "dev's image comes from no registry",
    ("CKV_K8S_43", "StatefulSet.exchequer.exchequer-redis"): "whoever takes the component pins it; "
    "a digest here would keep its security fixes out",
    ("CKV_K8S_43", "StatefulSet.exchequer-dev.exchequer-redis"): "the same",
    ("CKV_K8S_15", "StatefulSet.exchequer.exchequer-redis"): "a restart must not wait for a registry",
    ("CKV_K8S_15", "StatefulSet.exchequer-dev.exchequer-redis"): "the same",
}


@functools.cache
def exchequer():
    """The debug binary, as the suite runs it: built for the suite, so that nothing is built twice."""
    command = ["cargo", "test", "--quiet", "--locked", "--features", "settable-clock"]
    command += ["--test", "suite", "--no-run"]
    subprocess.run(command, cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/exchequer"


def validate(objects, version):
    """kubernetes-validate --strict: its exit code and what it says."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(objects, file)
        file.flush()
        done = subprocess.run(
            [TOOLS / "kubernetes-validate", "--strict", "--quiet", "-k", version, file.name],
            capture_output=True,
            text=True,
        )
    return done.returncode, done.stdout + done.stderr


def closed(schema):
    """A CRD's schema that knows no members but its own, as an API server prunes all others."""
    schema = copy.deepcopy(schema)

    def close(part):
        if isinstance(part, dict):
            open_ended = part.get("x-kubernetes-preserve-unknown-fields")
            if isinstance(part.get("properties"), dict) and not open_ended:
                part.setdefault("additionalProperties", False)
            if isinstance(part.get("pattern"), str):
                # Go takes this flag anywhere, Python at the beginning alone.
                part["pattern"] = part["pattern"].replace("^(?i)", "(?i)^")
            for each in part.values():
                close(each)
        elif isinstance(part, list):
            for each in part:
                close(each)

    close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def foreign_schemas():
    """kind → (API version, schema) of what Kubernetes does not know by itself."""
    schemas = {}
    for file in SCHEMAS.glob("*.yaml"):
        for crd in yaml.safe_load_all(file.read_text()):
            spec = crd["spec"]
            for version in spec["versions"]:
                name = f"{spec['group']}/{version['name']}"
                schema = closed(version["schema"]["openAPIV3Schema"])
                schemas[name, spec["names"]["kind"]] = schema
    return schemas


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def eventually(what, look):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if look():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within a minute: {what}")


class World:
    """A container's file system and environment, as far as the service sees them."""

    def __init__(self, test, overlay):
        self.objects = rendered.objects(overlay)
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.mount = Path(folder.name)
        for each in self.objects:
            for name, content in each.get("data", {}).items():
                if name == "exchequer.toml":
                    Path(self.mount, name).write_text(self.moved(content))
        for name, value in SECRETS.items():
            Path(self.mount, name).write_text(value + "\n")
        configured = rendered.one(self.objects, "ConfigMap")["data"]
        self.environment = {name: self.moved(value) for name, value in configured.items()}
        self.environment["EXCHEQUER_KEYS_DIR"] = str(self.mount / "keys")

    def moved(self, text):
        return text.replace(MOUNT, str(self.mount))

    def run(self, *arguments, **more):
        return subprocess.run(
            [exchequer(), *arguments],
            env=self.environment | more,
            cwd=self.mount,
            capture_output=True,
            text=True,
        )


@unittest.skipUnless(rendered.kustomize(), "SKIPPED: no kustomize (tests/k8s/install.sh says why)")
class Manifests(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.all = {
            combination: rendered.objects(*combination) for combination in rendered.combinations()
        }
        distinct = {}
        for objects in cls.all.values():
            for each in objects:
                distinct[json.dumps(each, sort_keys=True)] = each
        cls.distinct = list(distinct.values())
        cls.prod = rendered.objects("prod")

    def test_every_combination_is_valid_in_the_three_newest_versions_of_kubernetes(self):
        self.assertEqual(len(self.all), len(rendered.OVERLAYS) * 2 ** len(rendered.COMPONENTS))
        for version in kubernetes_validate.utils.all_versions()[-3:]:
            code, said = validate(self.distinct, version)
            unknown = r"schema for kind (HTTPRoute|ServiceMonitor|PrometheusRule) with"
            wrong = [line for line in said.splitlines() if not re.search(unknown, line)]
            self.assertEqual((code, wrong), (0, []), version)

    def test_a_misspelt_field_is_not_valid(self):
        deployment = copy.deepcopy(rendered.one(self.prod, "Deployment"))
        context = deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        context["readonlyRootFilesystem"] = context.pop("readOnlyRootFilesystem")
        code, said = validate([deployment], kubernetes_validate.latest_version())
        self.assertEqual(code, 1)
        self.assertIn("readonlyRootFilesystem", said)

    @unittest.skipUnless(SCHEMAS.exists(), "SKIPPED: the schemas could not be fetched")
    def test_routes_and_monitors_fit_the_schemas_of_their_projects(self):
        schemas = foreign_schemas()
        checked = set()
        for each in self.distinct:
            kind = each["apiVersion"], each["kind"]
            if kind in schemas:
                jsonschema.validate(each, schemas[kind])
                checked.add(each["kind"])
                misspelt = copy.deepcopy(each)
                misspelt["spec"]["hostname"] = ["auth.example.com"]
                with self.assertRaises(jsonschema.ValidationError):
                    jsonschema.validate(misspelt, schemas[kind])
        self.assertEqual(checked, {"HTTPRoute", "ServiceMonitor", "PrometheusRule"})

    def test_what_checkov_finds_is_explained_and_what_is_explained_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            for overlay in rendered.OVERLAYS:
                everything = self.all[overlay, tuple(rendered.COMPONENTS)]
                Path(folder, f"{overlay}.yaml").write_text(yaml.safe_dump_all(everything))
            done = subprocess.run(
                [TOOLS / "checkov", "-d", folder, "--framework", "kubernetes", "--skip-download"]
                + ["--compact", "--output", "json"],
                capture_output=True,
                text=True,
            )
        told = json.loads(done.stdout)
        self.assertEqual(told["summary"]["parsing_errors"], 0)
        self.assertGreater(told["summary"]["passed"], 300)
        found = {(each["check_id"], each["resource"]) for each in told["results"]["failed_checks"]}
        self.assertEqual(found, set(EXPLAINED))

    def test_each_rule_of_the_network_is_about_pods_and_ports_that_are_there(self):
        for combination, objects in self.all.items():
            pods = {
                name: (pod["metadata"]["labels"], pod["spec"]["containers"][0].get("ports", []))
                for name, pod in rendered.templates(objects)
            }

            def chosen(labels):
                return [
                    {port[by] for port in ports for by in ("name", "containerPort")}
                    for has, ports in pods.values()
                    if labels.items() <= has.items()
                ]

            for policy in (each for each in objects if each["kind"] == "NetworkPolicy"):
                spec = policy["spec"]
                own = chosen(spec["podSelector"].get("matchLabels", {}))
                self.assertTrue(own, combination)
                for rule in spec.get("ingress", []):
                    for port in rule["ports"]:
                        self.assertTrue(all(port["port"] in ports for ports in own), policy)
                for rule in spec.get("egress", []):
                    for peer in rule["to"]:
                        labels = peer.get("podSelector", {}).get("matchLabels")
                        if labels:
                            there = chosen(labels)
                            self.assertTrue(there, policy)
                            names = {port["port"] for port in rule["ports"]}
                            self.assertTrue(all(names <= ports for ports in there), policy)

    def test_no_secret_is_in_a_manifest_or_in_the_environment(self):
        for objects in self.all.values():
            self.assertNotIn("Secret", {each["kind"] for each in objects})
            for name, pod in rendered.templates(objects):
                for container in pod["spec"]["containers"]:
                    self.assertNotIn("env", container, name)
                    sources = container.get("envFrom", [])
                    self.assertTrue(all("secretRef" not in source for source in sources), name)

    def test_the_service_takes_the_settings_of_each_overlay(self):
        for overlay in rendered.OVERLAYS:
            done = World(self, overlay).run("check")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_variables_that_kubernetes_makes_of_the_service_would_stop_the_start(self):
        done = World(self, "dev").run("check", EXCHEQUER_PORT="tcp://10.0.0.1:80")
        self.assertNotEqual(done.returncode, 0)
        for objects in self.all.values():
            for name, pod in rendered.templates(objects):
                self.assertIs(pod["spec"]["enableServiceLinks"], False, name)

    def test_the_probes_and_the_route_ask_for_what_the_service_has(self):
        world = World(self, "dev")
        container = rendered.one(world.objects, "Deployment")["spec"]["template"]["spec"]
        container = container["containers"][0]
        named = {port["name"]: port["containerPort"] for port in container["ports"]}
        ports = {name: free_port() for name in named}
        for variable, name in (("EXCHEQUER_LISTEN", "http"), ("EXCHEQUER_ADMIN_LISTEN", "admin")):
            self.assertEqual(world.environment[variable], f"0.0.0.0:{named[name]}")
            world.environment[variable] = f"127.0.0.1:{ports[name]}"
        # Nobody is asked: the issuer's keys are at a closed port of this machine.
        world.environment["CLERK_JWT_ISSUER"] = "http://127.0.0.1:9"
        with subprocess.Popen(
            [exchequer(), *container["args"]],
            env=world.environment,
            cwd=world.mount,
            stdout=subprocess.DEVNULL,
        ) as service:
            try:
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    path = container[probe]["httpGet"]["path"]
                    port = ports[container[probe]["httpGet"]["port"]]
                    eventually(path, lambda: status(f"http://127.0.0.1:{port}{path}") == 200)
                    self.assertEqual(status(f"http://127.0.0.1:{ports['http']}{path}"), 404)
                monitor = rendered.one(self.prod, "ServiceMonitor")["spec"]["endpoints"][0]
                self.assertEqual(
                    status(f"http://127.0.0.1:{ports[monitor['port']]}{monitor['path']}"), 200
                )
                route = rendered.one(self.prod, "HTTPRoute")["spec"]["rules"][0]["matches"]
                prefixes = [match["path"]["value"] for match in route]
                public = {
                    "/.well-known/jwks.json": 200,
                    "/auth/exchange": 405,
                    "/oauth/token": 405,
                    "/webhooks/clerk/default": 405,
                }
                for path, expected in public.items():
                    self.assertEqual(status(f"http://127.0.0.1:{ports['http']}{path}"), expected)
                self.assertEqual(
                    sorted(prefixes), sorted("/" + path.split("/")[1] for path in public)
                )
            finally:
                service.terminate()
        self.assertEqual(service.returncode, 0)

    def test_the_routes_host_is_that_of_the_issuer(self):
        everything = self.all["prod", tuple(rendered.COMPONENTS)]
        host = rendered.one(everything, "ConfigMap")["data"]["EXCHEQUER_ISSUER"].split("/")[2]
        self.assertEqual(rendered.one(everything, "HTTPRoute")["spec"]["hostnames"], [host])
        ingress = rendered.one(everything, "Ingress")["spec"]
        self.assertEqual([rule["host"] for rule in ingress["rules"]], [host])
        self.assertEqual([tls["hosts"] for tls in ingress["tls"]], [[host]])

    def test_a_changed_setting_changes_the_template_and_so_rolls_out(self):
        pod = rendered.one(self.prod, "Deployment")["spec"]["template"]["spec"]
        settings = [volume for volume in pod["volumes"] if volume["name"] == "settings"][0]
        used = [
            pod["containers"][0]["envFrom"][0]["configMapRef"]["name"],
            settings["projected"]["sources"][0]["configMap"]["name"],
        ]
        generated = [each["metadata"]["name"] for each in self.prod if each["kind"] == "ConfigMap"]
        for name in used:
            self.assertIn(name, generated)
            self.assertRegex(name, r"-[0-9a-z]{10}$")

    def test_the_grace_holds_the_whole_stop(self):
        def seconds(file, name):
            text = (ROOT / "src" / file).read_text()
            return int(re.search(rf"const {name}: Duration = Duration::from_secs\((\d+)\)", text)[1])

        drain = seconds("http/server.rs", "DRAIN")
        # At the same time.
        told = max(seconds("service.rs", "LAST_EVENTS"), seconds("telemetry/traces/export.rs", "FLUSH"))
        admin = seconds("http/server.rs", "ADMIN_DRAIN")
        # For a place in its queue, and for its end.
        audit_log = 2 * seconds("audit.rs", "PATIENCE")
        variables = (ROOT / "k8s/base/exchequer.env").read_text()
        delay = int(re.search(r"^EXCHEQUER_SHUTDOWN_DELAY=(\d+)s$", variables, re.MULTILINE)[1])
        for overlay in rendered.OVERLAYS:
            pod = rendered.one(rendered.objects(overlay), "Deployment")["spec"]["template"]["spec"]
            pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            whole = pause + delay + drain + told + admin + audit_log
            self.assertGreater(pod["terminationGracePeriodSeconds"], whole)

    def test_who_is_scaled_has_no_replicas_of_its_own_and_prod_runs_by_digest(self):
        deployment = rendered.one(self.prod, "Deployment")["spec"]
        self.assertNotIn("replicas", deployment)
        self.assertEqual(rendered.one(self.prod, "HorizontalPodAutoscaler")["spec"]["minReplicas"], 3)
        image = deployment["template"]["spec"]["containers"][0]["image"]
        self.assertRegex(image, r"@sha256:[0-9a-f]{64}$")


@unittest.skipUnless(
    shutil.which("redis-server") and rendered.kustomize(), "SKIPPED: no redis-server"
)
class RedisComponent(unittest.TestCase):
    """The component's settings and the users of the page, in a real server."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        page = (ROOT / "docs/kubernetes.md").read_text()
        users = re.findall(r"^ *user .*$", page, re.M)
        self.assertEqual(len(users), 2)
        # One list of rights, on two pages.
        operating = (ROOT / "docs/operating.md").read_text()
        rights = re.search(r"ACL SETUSER exchequer on >PASSWORD (.*)", operating)[1]
        self.assertTrue(users[1].endswith(rights))
        hashed = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
        Path(folder.name, "users.acl").write_text(
            "".join(re.sub(r"#\$\(.*\)", f"#{hashed}", user.strip()) + "\n" for user in users)
        )
        objects = rendered.objects("prod", ["redis"])
        conf = rendered.one(objects, "ConfigMap", "exchequer-redis")["data"]["redis.conf"]
        conf = conf.replace("/etc/redis/", f"{folder.name}/").replace("/data", folder.name)
        Path(folder.name, "redis.conf").write_text(conf)
        self.socket = f"{folder.name}/redis.sock"
        server = subprocess.Popen(
            ["redis-server", f"{folder.name}/redis.conf", "--port", "0"]
            + ["--unixsocket", self.socket],
            stdout=subprocess.DEVNULL,
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        probe = rendered.one(objects, "StatefulSet", "exchequer-redis")["spec"]["template"]["spec"]
        self.probe = probe["containers"][0]["readinessProbe"]["exec"]["command"][1:]
        eventually("PONG", lambda: self.ask(*self.probe) == (0, "PONG"))

    def ask(self, *arguments, user=()):
        done = subprocess.run(
            ["redis-cli", "-s", self.socket, *user, *arguments], capture_output=True, text=True
        )
        return done.returncode, (done.stdout + done.stderr).strip().split("\n")[0]

    def test_the_probe_may_ping_and_nothing_else(self):
        self.assertEqual(self.ask(*self.probe), (0, "PONG"))
        self.assertIn("NOPERM", self.ask("GET", "exchequer")[1])

    def test_the_services_user_reaches_its_own_keys_and_no_administration(self):
        user = ("--user", "exchequer", "--pass", "secret", "--no-auth-warning")
        self.assertEqual(self.ask("SET", "exchequer:a", "1", user=user), (0, "OK"))
        self.assertIn("NOPERM", self.ask("SET", "other", "1", user=user)[1])
        for command in (["CONFIG", "GET", "*"], ["FLUSHALL"], ["ACL", "LIST"], ["SHUTDOWN"]):
            self.assertIn("NOPERM", self.ask(*command, user=user)[1], command)

    def test_the_service_asks_for_nothing_that_its_user_may_not(self):
        ports = free_port(), free_port()
        with tempfile.TemporaryDirectory() as folder:
            environment = {
                "EXCHEQUER_LISTEN": f"127.0.0.1:{ports[0]}",
                "EXCHEQUER_ADMIN_LISTEN": f"127.0.0.1:{ports[1]}",
                "EXCHEQUER_KEYS_DIR": f"{folder}/keys",
                "EXCHEQUER_KEYS_SECRET": SECRETS["keys-secret"],
                "EXCHEQUER_STORE": f"unix://exchequer:secret@{self.socket}",
                "CLERK_JWT_ISSUER": "http://127.0.0.1:9",
            }
            with subprocess.Popen(
                [exchequer(), "serve"], env=environment, cwd=folder, stdout=subprocess.DEVNULL
            ) as service:
                try:
                    ready = f"http://127.0.0.1:{ports[1]}/readyz"
                    eventually(ready, lambda: status(ready) == 200)
                finally:
                    service.terminate()
            self.assertEqual(service.returncode, 0)
        counted = subprocess.run(
            ["redis-cli", "-s", self.socket, "--user", "exchequer", "--pass", "secret"]
            + ["--no-auth-warning", "INFO", "commandstats"],
            capture_output=True,
            text=True,
        ).stdout
        self.assertIn("cmdstat_role", counted)
        self.assertFalse(re.findall(r"^.*rejected_calls=[1-9].*$", counted, re.M))

    def test_what_was_answered_is_synced_and_nothing_is_thrown_away(self):
        page = Path(self.socket).parent / "redis.conf"
        conf = dict(line.split(" ", 1) for line in page.read_text().splitlines() if line[0] != "#")
        self.assertEqual(conf["appendfsync"], "always")
        self.assertEqual(conf["maxmemory-policy"], "noeviction")


class Compose(unittest.TestCase):
    """compose.yaml, without an engine."""

    def setUp(self):
        text = (ROOT / "compose.yaml").read_text().replace("$$", "$")
        self.file = yaml.safe_load(text)

    @unittest.skipUnless(SCHEMAS.exists(), "SKIPPED: the schemas could not be fetched")
    def test_it_fits_the_schema_of_compose(self):
        schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
        jsonschema.validate(self.file, schema)
        with self.assertRaises(jsonschema.ValidationError):
            self.file["services"]["exchequer"]["read-only"] = True
            jsonschema.validate(self.file, schema)

    def test_all_that_it_names_is_there(self):
        version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertEqual(self.file["services"]["exchequer"]["image"], f"exchequer:{version}")
        page = (ROOT / "docs/kubernetes.md").read_text()
        for secret in self.file["secrets"].values():
            self.assertIn(secret["file"].rsplit("/", 1)[1], page)
        self.assertTrue((ROOT / self.file["configs"]["redis"]["file"]).exists())
        for kind in ("secrets", "configs"):
            used = [
                each if isinstance(each, str) else each["source"]
                for service in self.file["services"].values()
                for each in service.get(kind, [])
            ]
            self.assertEqual(sorted(used), sorted(self.file[kind]))

    def test_the_service_takes_its_settings(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, value in SECRETS.items():
                Path(folder, name).write_text(value)
            environment = {
                name: value.replace("/run/secrets", folder)
                for name, value in self.file["services"]["exchequer"]["environment"].items()
            }
            environment["CLERK_JWT_ISSUER"] = "https://clerk.example.com"
            environment["CLERK_AUTHORIZED_PARTIES"] = "http://localhost:3000"
            done = subprocess.run(
                [exchequer(), "check"], env=environment, cwd=folder, capture_output=True, text=True
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_nginx_takes_the_settings_of_the_proxy(self):
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if not nginx:
            self.skipTest("SKIPPED: no nginx")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "nginx.conf").write_text(
                f"pid {folder}/pid; error_log stderr; events {{}}\n"
                f"http {{ access_log off;\n{self.file['configs']['proxy']['content']}}}"
            )
            command = [nginx, "-t", "-q", "-p", folder, "-c", f"{folder}/nginx.conf"]
            done = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
