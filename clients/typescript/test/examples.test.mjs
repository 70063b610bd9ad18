// The examples and the README's snippets compile against the real packages' types, and would not if they used
// them wrongly.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';

const folder = new URL('../examples/', import.meta.url).pathname;

/** What the compiler says. */
function compile(...flags) {
  try {
    return execFileSync('../node_modules/.bin/tsc', ['-p', '.', ...flags], { cwd: folder, encoding: 'utf8', stdio: 'pipe' });
  } catch ({ stdout }) {
    return stdout;
  }
}

/** What the snippets take for granted. */
const AROUND = `
type Client = typeof import("@exchequer/client");
type Options = import("@exchequer/client").AppSessionOptions;
declare const createAppSession: Client["createAppSession"];
declare const session: ReturnType<Client["createAppSession"]>;
declare const getSubjectToken: Options["getSubjectToken"];
declare const clerk: ReturnType<typeof import("@clerk/react").useClerk>;
declare const sessionId: string | null;
declare function signIn(): void;
declare function report(...what: unknown[]): void;
declare function showRemainingTasks(): void;
`;

test('the snippets of the README are right by the same types', (t) => {
  const page = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const snippets = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => `${code}\nexport {};\n`);
  assert.equal(snippets.length, 4);
  const files = [AROUND, ...snippets].map((text, index) => [`${folder}snippet-${index}-${process.pid}.ts`, text]);
  t.after(() => files.forEach(([file]) => rmSync(file, { force: true })));
  files.forEach(([file, text]) => writeFileSync(file, text));
  assert.equal(compile('--noUnusedLocals', 'false'), '');
});

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
