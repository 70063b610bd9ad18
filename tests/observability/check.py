"""What the rules, the dashboard and the runbooks promise, without a server: `make test` runs it.

check.py --write makes the PrometheusRule of k8s/components/alerts of the rules' file."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RULES = ROOT / "dashboards/exchequer.rules.yaml"
TESTS = HERE / "rules.test.yaml"
DASHBOARD = ROOT / "dashboards/exchequer.json"
RUNBOOKS = ROOT / "docs/runbooks.md"
COMPONENT = ROOT / "k8s/components/alerts/prometheusrule.yaml"
HEAD = """\
# Made of dashboards/exchequer.rules.yaml by tests/observability/check.py --write.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: exchequer
  labels: { app.kubernetes.io/name: exchequer }
spec:
"""
# What a section of a runbook says, in this order.
PARTS = ["Means", "Hurt", "First look", "Do", "Harmless"]
SEVERITIES = {"critical", "warning", "info"}


def promtool(*arguments):
    ours = HERE / "bin/promtool"
    command = shutil.which("promtool") or ours
    return subprocess.run([command, *arguments], capture_output=True, text=True)


def component():
    """The PrometheusRule, as text: the rules without the comments before them."""
    lines = RULES.read_text().splitlines(keepends=True)
    begin = lines.index("groups:\n")
    return HEAD + "".join("  " + line for line in lines[begin:])


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


class Rules(unittest.TestCase):
    maxDiff = None

    def test_promtool_takes_them(self):
        done = promtool("check", "rules", str(RULES))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(f"SUCCESS: {len(rules())} rules found", done.stdout)

    def test_each_fires_when_it_should_and_is_quiet_when_it_should_be(self):
        done = promtool("test", "rules", str(TESTS))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_rule_that_never_fires_would_be_noticed(self):
        with tempfile.TemporaryDirectory() as folder:
            mute = RULES.read_text().replace("exchequer_audit_lost_total[10m]) > 0", "exchequer_audit_lost_total[10m]) > 9e9")
            self.assertNotEqual(mute, RULES.read_text())
            Path(folder, "rules.yaml").write_text(mute)
            tests = yaml.safe_load(TESTS.read_text())
            tests["rule_files"] = ["rules.yaml"]
            tests["tests"] = [each for each in tests["tests"] if "audit" in each["name"]]
            self.assertEqual(len(tests["tests"]), 1)
            file = Path(folder, "tests.yaml")
            file.write_text(yaml.safe_dump(tests))
            self.assertNotEqual(promtool("test", "rules", str(file)).returncode, 0)

    def test_each_is_tested_to_fire_and_to_be_quiet(self):
        fires, quiet = set(), set()
        names = {alert["alert"] for alert in alerts()}
        for test in yaml.safe_load(TESTS.read_text())["tests"]:
            for look in test["promql_expr_test"]:
                samples = look.get("exp_samples", [])
                now = {re.search(r'"(\w+)"', each["labels"])[1] for each in samples}
                fires |= now
                quiet |= names - now
        self.assertEqual(fires, names)
        self.assertEqual(quiet, names)

    def test_each_alert_says_how_bad_it_is_what_it_is_and_where_it_is_told_of(self):
        for alert in alerts():
            name = alert["alert"]
            self.assertRegex(name, "^Exchequer[A-Z]")
            self.assertIn(alert["labels"]["severity"], SEVERITIES, name)
            self.assertEqual(set(alert["annotations"]), {"summary", "description", "runbook_url"})
            self.assertTrue(alert["annotations"]["runbook_url"].endswith(f"docs/runbooks.md#{name.lower()}"))

    def test_the_component_is_made_of_them(self):
        self.assertEqual(COMPONENT.read_text(), component(), "run check.py --write")
        spec = yaml.safe_load(COMPONENT.read_text())["spec"]
        self.assertEqual(spec, yaml.safe_load(RULES.read_text()))


class Runbooks(unittest.TestCase):
    def setUp(self):
        parts = re.split(r"^## (\w+)$", RUNBOOKS.read_text(), flags=re.M)
        self.sections = list(zip(parts[1::2], parts[2::2], strict=True))

    def test_each_alert_has_a_section_and_each_section_an_alert(self):
        named = [name for name, _ in self.sections]
        self.assertEqual(sorted(named), sorted(alert["alert"] for alert in alerts()))

    def test_they_stand_in_the_order_of_the_rules(self):
        self.assertEqual([name for name, _ in self.sections], [each["alert"] for each in alerts()])

    def test_each_says_the_same_five_things(self):
        for name, text in self.sections:
            self.assertEqual(re.findall(r"^- \*\*([\w ]+):\*\*", text, re.M), PARTS, name)

    def test_each_alert_that_one_names_is_there(self):
        names = {alert["alert"] for alert in alerts()}
        for name, text in self.sections:
            self.assertLessEqual(set(re.findall(r"\bExchequer[A-Z]\w+", text)), names, name)


class Dashboard(unittest.TestCase):
    def expressions(self):
        for panel in panels():
            for target in panel.get("targets", []):
                yield panel["title"], target["expr"]

    def test_each_panel_is_described_and_lies_on_no_other(self):
        taken, ids, titles = set(), set(), set()
        for panel in panels():
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertNotIn((x, y), taken, panel["title"])
                    taken.add((x, y))
            self.assertNotIn(panel["id"], ids)
            self.assertNotIn(panel["title"], titles)
            ids.add(panel["id"])
            titles.add(panel["title"])
            if panel["type"] != "row":
                self.assertRegex(panel["description"], r"\.$", panel["title"])
                self.assertTrue(panel["targets"], panel["title"])

    def test_whose_data_it_shows_is_chosen_by_variables(self):
        dashboard = json.loads(DASHBOARD.read_text())
        variables = [each["name"] for each in dashboard["templating"]["list"]]
        self.assertEqual(variables, ["datasource", "namespace", "job", "instance"])
        self.assertEqual(set(re.findall(r'"uid": "(.*?)"', DASHBOARD.read_text())), {"${datasource}", "exchequer"})
        for title, expression in self.expressions():
            for selector in re.findall(r"(\w+)\{(.*?)\}", expression):
                self.assertIn('namespace=~"$namespace", job=~"$job"', selector[1], title)

    def test_every_expression_is_promql(self):
        recorded = []
        for number, (_, expression) in enumerate(self.expressions()):
            expression = expression.replace("$__rate_interval", "5m")
            for name in ("namespace", "job", "instance"):
                expression = expression.replace(f"${name}", "a")
            self.assertNotIn("$", expression)
            recorded.append({"record": f"panel:{number}", "expr": expression})
        self.assertGreater(len(recorded), 40)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}, file)
            file.flush()
            done = promtool("check", "rules", file.name)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_it_shows_of_the_rules_is_recorded(self):
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        shown = {
            name
            for _, expression in self.expressions()
            for name in re.findall(r"\bjob:\w+:\w+", expression)
        }
        self.assertTrue(shown)
        self.assertLessEqual(shown, recorded)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        COMPONENT.write_text(component())
    else:
        unittest.main()
