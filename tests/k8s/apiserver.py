"""k8s/ in a real Kubernetes API server, with a real etcd and nothing else: no pod runs here.
`make test-k8s` builds the server from its Go module and runs this.

What it holds: the server takes every combination as it stands, its Pod Security admission lets our
pods in and weakened ones not, and what it adds by itself changes nothing that was meant.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import yaml

import rendered
from manifests import SCHEMAS, free_port
from rendered import HERE

BIN = HERE / "bin"
TOKEN = "a-token-of-this-test"

# What each of these would allow a pod; the service needs none of it.
WEAKENED = {
    "root": lambda pod, box: pod["securityContext"].update(runAsUser=0),
    "perhaps root": lambda pod, box: pod["securityContext"].pop("runAsNonRoot"),
    "any system call": lambda pod, box: pod["securityContext"].pop("seccompProfile"),
    "privileged": lambda pod, box: box["securityContext"].update(
        privileged=True, allowPrivilegeEscalation=True
    ),
    "escalation": lambda pod, box: box["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities": lambda pod, box: box["securityContext"].pop("capabilities"),
    "the node's network": lambda pod, box: pod.update(hostNetwork=True),
    "the node's processes": lambda pod, box: pod.update(hostPID=True),
    "the node's disk": lambda pod, box: pod["volumes"].append(
        {"name": "node", "hostPath": {"path": "/"}}
    ),
}


def pod_of(template, namespace, name):
    """The pod that a controller would make of the template."""
    template = copy.deepcopy(template)
    template["metadata"] |= {"name": name, "namespace": namespace}
    # Volumes of a StatefulSet's claims are its controller's to add.
    there = {volume["name"] for volume in template["spec"]["volumes"]}
    for container in template["spec"]["containers"]:
        for mount in container["volumeMounts"]:
            if mount["name"] not in there:
                template["spec"]["volumes"].append({"name": mount["name"], "emptyDir": {}})
    return {"apiVersion": "v1", "kind": "Pod"} | template


class ApiServer(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        client, peer, cls.port = free_port(), free_port(), free_port()
        etcd = f"http://127.0.0.1:{client}"
        cls.start(
            "etcd", f"--data-dir={cls.folder}/etcd", "--log-level=error",
            f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )  # fmt: skip
        account_key = cls.folder / "account.key"
        subprocess.run(
            ["openssl", "genrsa", "-out", account_key, "2048"], check=True, capture_output=True
        )
        (cls.folder / "tokens.csv").write_text(f"{TOKEN},tests,tests,system:masters\n")
        cls.start(
            BIN / "kube-apiserver", f"--etcd-servers={etcd}", f"--secure-port={cls.port}",
            "--bind-address=127.0.0.1", f"--cert-dir={cls.folder}/certificates",
            f"--token-auth-file={cls.folder}/tokens.csv", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={account_key}",
            f"--service-account-signing-key-file={account_key}",
            "--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged",
        )  # fmt: skip
        cls.wait_until_ready()
        for file in sorted(SCHEMAS.glob("*.yaml")):
            cls.kubectl("apply", "--server-side", "-f", file)
        cls.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    @classmethod
    def start(cls, *command):
        name = Path(command[0]).name
        log = open(cls.folder / f"{name}.log", "w")
        cls.addClassCleanup(log.close)
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=cls.folder)
        cls.addClassCleanup(process.wait)
        cls.addClassCleanup(process.kill)

    @classmethod
    def wait_until_ready(cls):
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            code, said, _ = cls.ask("get", "--raw", "/readyz")
            if (code, said) == (0, "ok"):
                return
            time.sleep(0.3)
        raise AssertionError((cls.folder / "kube-apiserver.log").read_text()[-3000:])

    @classmethod
    def ask(cls, *arguments, objects=None):
        """Exit code, output and errors of kubectl."""
        done = subprocess.run(
            [BIN / "kubectl", f"--server=https://127.0.0.1:{cls.port}", f"--token={TOKEN}",
             f"--certificate-authority={cls.folder}/certificates/apiserver.crt", *arguments],
            input=None if objects is None else yaml.safe_dump_all(objects),
            capture_output=True, text=True,
            env={"HOME": str(cls.folder), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    @classmethod
    def kubectl(cls, *arguments, objects=None):
        code, said, wrong = cls.ask(*arguments, objects=objects)
        # A warning is what Pod Security says of a Deployment that it lets in all the same.
        if code or "Warning" in wrong:
            raise AssertionError(f"{arguments}: {wrong}")
        return said

    def apply(self, objects, *more):
        return self.kubectl(
            "apply", "--server-side", "--validate=strict", *more, "-f", "-", objects=objects
        )

    def stored(self, kind, name="exchequer"):
        return json.loads(self.kubectl("-n", "exchequer", "get", kind, name, "-o", "json"))

    def namespace(self, objects):
        namespaces = [each for each in objects if each["kind"] == "Namespace"]
        self.apply(namespaces)
        return namespaces[0]["metadata"]["name"]

    def test_every_combination_would_be_taken(self):
        for combination in rendered.combinations():
            with self.subTest(combination):
                objects = rendered.objects(*combination)
                self.namespace(objects)
                said = self.apply(objects, "--dry-run=server")
                self.assertEqual(said.count("(server dry run)"), len(objects))

    def test_a_misspelt_field_would_not_be_taken(self):
        prod = rendered.objects("prod")
        self.namespace(prod)
        for kind in ("Deployment", "HTTPRoute", "ServiceMonitor"):
            misspelt = copy.deepcopy(rendered.one(prod, kind))
            misspelt["spec"]["misspelt"] = True
            code, _, wrong = self.ask(
                "apply", "--validate=strict", "--dry-run=server", "-f", "-", objects=[misspelt]
            )
            self.assertEqual(code, 1, kind)
            self.assertIn('unknown field "spec.misspelt"', wrong)

    def test_our_pods_are_let_in_and_weakened_ones_are_not(self):
        for overlay in rendered.OVERLAYS:
            objects = rendered.objects(overlay, rendered.COMPONENTS)
            namespace = self.namespace(objects)
            self.apply(objects)
            for name, template in rendered.templates(objects):
                pod = pod_of(template, namespace, f"{name}-0")
                self.kubectl("create", "-f", "-", objects=[pod])
                for how, weaken in WEAKENED.items():
                    weak = pod_of(template, namespace, f"{name}-weak")
                    weaken(weak["spec"], weak["spec"]["containers"][0])
                    code, _, wrong = self.ask("create", "-f", "-", objects=[weak])
                    self.assertEqual(code, 1, f"{name} with {how}")
                    self.assertIn('violates PodSecurity "restricted:latest"', wrong)

    def test_the_server_adds_no_token_and_no_tolerance_that_was_not_meant(self):
        objects = rendered.objects("prod")
        self.apply(objects)
        template = rendered.one(objects, "Deployment")["spec"]["template"]
        self.kubectl("create", "-f", "-", objects=[pod_of(template, "exchequer", "as-stored")])
        pod = self.stored("pod", "as-stored")["spec"]
        self.assertEqual({each["name"] for each in pod["volumes"]}, {"state", "settings"})
        self.assertEqual(len(pod["containers"][0]["volumeMounts"]), 2)
        self.assertEqual(pod["serviceAccountName"], "exchequer")
        self.assertEqual(pod["terminationGracePeriodSeconds"], 60)
        self.assertEqual(pod["containers"][0]["lifecycle"], {"preStop": {"sleep": {"seconds": 5}}})
        self.assertEqual(pod["containers"][0]["startupProbe"]["httpGet"]["scheme"], "HTTP")
        budget = self.stored("poddisruptionbudget")["spec"]
        self.assertEqual(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow")
        for policy in ("exchequer", "exchequer-redis", "exchequer-to-redis", "exchequer-metrics"):
            rules = self.stored("networkpolicy", policy)["spec"]
            self.assertTrue(rules["policyTypes"], policy)
        self.assertEqual(
            sorted(self.stored("networkpolicy", "default-deny")["spec"]["policyTypes"]),
            ["Egress", "Ingress"],
        )

    def test_applying_again_changes_nothing_and_leaves_the_autoscalers_replicas(self):
        objects = rendered.objects("prod")
        self.apply(objects)
        self.assertEqual(self.stored("deployment")["spec"]["replicas"], 1)
        self.kubectl("-n", "exchequer", "scale", "deployment/exchequer", "--replicas=5")
        self.apply(objects)
        self.assertEqual(self.stored("deployment")["spec"]["replicas"], 5)
        code, said, wrong = self.ask("diff", "--server-side", "-f", "-", objects=objects)
        self.assertEqual((code, said), (0, ""), wrong)


if __name__ == "__main__":
    if not (BIN / "kube-apiserver").exists():
        print("SKIPPED: no API server, as no Go of 1.26 or newer is here to build it with")
        sys.exit()
    unittest.main(verbosity=2)
