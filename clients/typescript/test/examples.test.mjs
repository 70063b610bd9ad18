// The examples compile against the real packages' types, and would not if they used them wrongly. The README's
// snippets are in one of them: tests/docs/check.py compares.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';

const folder = new URL('../examples/', import.meta.url).pathname;

/** What the compiler says. */
function compile() {
  try {
    return execFileSync('../node_modules/.bin/tsc', ['-p', '.'], { cwd: folder, encoding: 'utf8', stdio: 'pipe' });
  } catch ({ stdout }) {
    return stdout;
  }
}

test('the examples are right by the types of Clerk, Apollo and TanStack Query', (t) => {
  assert.equal(compile(), '');

  const wrong = `${folder}wrong-${process.pid}.ts`;
  t.after(() => rmSync(wrong, { force: true }));
  writeFileSync(wrong, `
    import { useAuth } from "@clerk/react"; import { useAuth as useExpoAuth } from "@clerk/expo";
    import { HttpLink } from "@apollo/client"; import { useQuery } from "@tanstack/react-query";
    useAuth().getToken({ skipCache: 5 });
    useExpoAuth().getToken({ skipCache: 5 });
    new HttpLink({ fetch: 5 });
    useQuery({ queryKey: ["me"], queryFn: 5 });
  `);
  const lines = [...compile().matchAll(/wrong-\d+\.ts\((\d+),\d+\): error/g)].map(([, line]) => Number(line));
  assert.deepEqual([...new Set(lines)].sort(), [4, 5, 6, 7]);
});
