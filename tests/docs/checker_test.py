#!/usr/bin/env python3
"""That the checker of the documents notices what it is there for: each test gives it something wrong."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import links
import markdown
import names
import promises
import shape
import snippets

ROOT = Path(__file__).resolve().parents[2]


def page(text, name="README.md"):
    folder = Path(tempfile.mkdtemp()).resolve()
    (folder / name).write_text(text)
    return folder, markdown.read(folder / name)


def wrong_links(text, known=("README.md",)):
    root, read = page(text)
    with mock.patch.object(links, "kept", lambda _: set(known)):
        return links.wrong(root, [read])


def block(text):
    return page(text)[1].blocks[0]


class Links(unittest.TestCase):
    def test_a_file_that_is_not_there_is_told(self):
        self.assertIn("there is no docs/no.md", wrong_links("[x](docs/no.md)")[0])

    def test_a_file_that_git_ignores_is_not_there(self):
        self.assertEqual(len(wrong_links("[x](README.md)", known=())), 1)

    def test_an_anchor_that_no_heading_has_is_told(self):
        self.assertEqual(wrong_links("# The `first` one\n\n[x](#the-first-one)"), [])
        self.assertIn("no such heading", wrong_links("# First\n\n[x](#second)")[0])

    def test_two_headings_of_one_name_have_two_anchors(self):
        self.assertEqual(wrong_links("# A\n# A\n[x](#a) [y](#a-1)"), [])

    def test_a_link_leads_nowhere_out_of_the_repository(self):
        self.assertIn("out of the repository", wrong_links("[x](../../etc/passwd)")[0])
        self.assertIn("out of the repository", wrong_links("[x](/docs/keys.md)")[0])

    def test_a_url_that_nobody_can_open_is_told(self):
        for url in ("http://example.com/", "https://example", "https://a:b@example.com/", "htps://example.com"):
            self.assertEqual(len(wrong_links(f"[x]({url})")), 1, url)
        self.assertEqual(wrong_links("[x](https://example.com/a_(b)?c=d#e) <https://example.com>"), [])

    def test_links_in_code_are_none(self):
        self.assertEqual(wrong_links("`[x](no.md)`\n\n```text\n[x](no.md)\n```"), [])

    def test_pictures_and_html_are_links_too(self):
        text = '![x](no.svg)\n<img alt="" src="no.svg">\n<a href="no.md">x</a>'
        self.assertEqual(len(wrong_links(text)), 3)


class Blocks(unittest.TestCase):
    def check(self, text, root=ROOT):
        return snippets.check(root, block(text), None)

    def refused(self, text, words):
        with self.assertRaises(snippets.Wrong) as caught:
            self.check(text)
        self.assertIn(words, str(caught.exception))

    def test_what_does_not_parse_is_told(self):
        self.refused('```json\n{"a": }\n```', "no JSON")
        self.refused("```yaml\na: [\n```", "no YAML")
        self.refused("```python\ndef :\n```", "no Python")

    def test_a_language_that_nothing_checks_needs_a_mark(self):
        self.refused("```go\nfunc main() {}\n```", "mark it")

    def test_an_illustration_says_why(self):
        self.refused("<!-- illustrative: -->\n```sh\nfalse\n```", "without a reason")
        self.assertFalse(self.check("<!-- illustrative: needs a cluster -->\n```sh\nfalse\n```"))

    def test_a_mark_that_nobody_knows_is_told(self):
        self.refused("<!-- test: servce -->\n```sh\ntrue\n```", "unknown marks")

    def test_a_comment_before_no_block_is_told(self):
        with self.assertRaises(ValueError):
            page("<!-- test: dev -->\n\nSome words.\n")

    def test_a_block_that_is_not_closed_is_told(self):
        with self.assertRaises(ValueError):
            page("```sh\ntrue\n")

    def test_tools_that_change_the_machine_are_never_run_unasked(self):
        self.refused("```sh\necho x | kubectl apply -f -\n```", "kubectl is not run here")

    def test_a_target_that_make_does_not_have_is_told_even_where_it_is_not_run(self):
        self.refused("<!-- illustrative: long -->\n```sh\nmake nonsense\n```", "there is no make nonsense")

    def test_what_stands_elsewhere_is_compared_with_it(self):
        self.refused("<!-- test: from=Makefile -->\n```sh\nno such line\n```", "does not stand in Makefile")
        self.refused("<!-- test: by=Makefile -->\n```sh\nno such command\n```", "does not run")
        self.assertTrue(self.check("<!-- test: from=Makefile -->\n```sh\nCARGO ?= cargo\n```"))


class Promises(unittest.TestCase):
    def told(self, row):
        root, read = page(f"| threat | proved by |\n| --- | --- |\n{row}\n", "security.md")
        (root / "tests/suite").mkdir(parents=True)
        (root / "tests/suite/forged.rs").write_text("fn nothing_passes() {}")
        return promises.wrong(root, read.path)

    def test_a_test_that_is_not_there_is_told(self):
        self.assertEqual(self.told("| x | `forged::nothing_passes` |"), [])
        self.assertIn("there is no test", self.told("| x | `forged::nothing` |")[0])
        self.assertIn("there is no test", self.told("| x | `misused::nothing_passes` |")[0])

    def test_a_threat_that_no_test_names_is_told(self):
        self.assertIn("no test proves this", self.told("| x | |")[0])


class Names(unittest.TestCase):
    def told(self, line):
        root, read = page(line)
        (root / "docs/reference").mkdir(parents=True)
        (root / "docs/reference/variables.md").write_text("`EXCHEQUER_STORE` `CLERK_JWT_ISSUER`")
        (root / "docs/reference/metrics.md").write_text("`exchequer_redis_up` `exchequer_wait_seconds`")
        return names.wrong(root, [read])

    def test_a_variable_or_a_metric_that_is_not_there_is_told(self):
        for line in ("EXCHEQUER_STOR", "EXCHEQUER_STORE_DOWN", "CLERK_ISSUER", "OTEL_X", "`exchequer_redis`"):
            self.assertEqual(len(self.told(line)), 1, line)

    def test_what_is_there_passes_by_each_of_its_names(self):
        for line in (
            "`EXCHEQUER_STORE` EXCHEQUER_STORE_FILE CLERK_JWT_ISSUER_MOBILE",
            "exchequer_redis_up == 0, rate(exchequer_wait_seconds_bucket[5m]), and those of `exchequer_redis_`",
        ):
            self.assertEqual(self.told(line), [], line)


class Shape(unittest.TestCase):
    def test_a_long_readme_a_guide_without_a_check_and_a_mute_picture_are_told(self):
        root, _ = page("# Title\n\n![x](x.svg)\n\nmake run, make test\n")
        self.assertEqual(shape.wrong(root), [])
        (root / "README.md").write_text("words\n" * 500)
        (root / "docs/guides").mkdir(parents=True)
        (root / "docs/guides/a.md").write_text("## It works\n\n## And more\n")
        (root / "docs/images").mkdir()
        (root / "docs/images/a.svg").write_text("<svg><title></title></svg>")
        self.assertEqual(len(shape.wrong(root)), 6)


    def test_a_format_that_the_code_does_not_write_is_told(self):
        root, _ = page("| the key ring | 2 |\n", "UPGRADE.md")
        for file, _ in shape.FORMATS.values():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text("const FORMAT: u32 = 1;")
        self.assertEqual(len(shape.formats(root)), 4)


class Output(unittest.TestCase):
    def same(self, expected, printed):
        return snippets.same(expected.splitlines(), printed.splitlines())

    def test_another_line_a_missing_one_and_one_too_many_are_told(self):
        self.assertTrue(self.same("a\nb", "a\nb"))
        self.assertFalse(self.same("a\nb", "a\nc"))
        self.assertFalse(self.same("a\nb", "a"))
        self.assertFalse(self.same("a", "a\nb"))

    def test_dots_stand_for_a_part_of_a_line_or_for_lines(self):
        self.assertTrue(self.same("a … c\n…\nend", "a b c\nx\ny\nend"))
        self.assertTrue(self.same("a\n…", "a"))
        self.assertFalse(self.same("a …", "a\nb"))
        self.assertFalse(self.same("…\nend", "x\ny"))

    def test_of_what_always_differs_only_the_kind_counts(self):
        kid, other = "4dp9RQrwWb8py0jZc6FuxtFRNQ0bKCSJJ1TRka4Hc_s", "xZ6-isMvbLDzWvEBessJKxl5f9pO4lJRTS3qmjxbbD8"
        self.assertTrue(self.same(f"revoked {kid}", f"revoked {other}"))
        self.assertFalse(self.same(f"revoked {kid}", "revoked"))
        self.assertTrue(self.same("… bytes, … s ago", "35 bytes, 2 s ago"))

    def test_a_console_block_gives_each_command_its_output(self):
        text = "```console\n$ one \\\n    two\nout\n$ three\n```"
        self.assertEqual(snippets.commands(block(text)), [("one \\\n    two", ["out"]), ("three", [])])


if __name__ == "__main__":
    unittest.main()
