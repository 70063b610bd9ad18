// The package: what is in it, how large it is, and that its list of codes is the service's.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const here = new URL('..', import.meta.url).pathname;
const read = (path) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
const bundle = (contents, format = 'esm') =>
  build({ stdin: { contents, resolveDir: here }, bundle: true, minify: true, format, write: false, logLevel: 'error' });

test('the bundle has at most 3 kB gzipped, and needs nothing', async (t) => {
  const { outputFiles: [{ contents, text }] } = await bundle('export { createAppSession, ExchangeError } from "./dist/index.js"');
  const size = gzipSync(contents, { level: 9 }).length;
  t.diagnostic(`${size} bytes`);
  assert.ok(size <= 3_000, `${size} bytes`);
  assert.ok(!/\b(import|require)\b/.test(text));
  assert.ok(!/console|localStorage|sessionStorage|indexedDB|document\b/.test(text));
});

test('who does not use DPoP has none of it, and who imports nothing has nothing', async () => {
  const { outputFiles: [main] } = await bundle('export * from "./dist/index.js"');
  assert.ok(!/crypto|dpop/.test(main.text));
  const { outputFiles: [nothing] } = await bundle('import "@exchequer/client"; import "@exchequer/client/dpop"');
  assert.equal(nothing.text.trim(), '');
});

test('the codes are those that the service says an exchange answers', () => {
  const printed = execFileSync(process.execPath, ['scripts/codes.mjs'], { cwd: here, encoding: 'utf8' });
  assert.deepEqual(read('src/codes.ts').split('\n'), printed.split('\n'), 'npm run codes prints it anew');
  assert.ok(printed.includes('"subject_token_expired"') && !printed.includes('"webhook_'));
});

test('a code is checked where it is compared, and one of a newer service compiles', () => {
  const compile = (source) => {
    const file = join(here, 'test', `compiled-${process.pid}.ts`);
    writeFileSync(file, source);
    try {
      execFileSync(join(here, 'node_modules/.bin/tsc'), ['--ignoreConfig', '--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2020', '--lib', 'es2020,dom', '--types', '', file], { encoding: 'utf8', stdio: 'pipe' });
      return '';
    } catch ({ stdout }) {
      return stdout;
    } finally {
      rmSync(file);
    }
  };
  const use = 'import { ExchangeError, createAppSession, type ExchangeErrorCode, type ServiceCode } from "@exchequer/client";';
  assert.equal(compile(`${use}
    declare const error: ExchangeError;
    if (error.code === "session_revoked" || error.code === "of_a_newer_service") throw error;
    const known: ExchangeErrorCode = "subject_token_expired"; const own: ExchangeErrorCode = "network_error";
    const session = createAppSession({ url: "", getSubjectToken: () => ({ sessionId: "sess_1" }) });
    session.on("error", ({ action }) => action satisfies "retry" | "refresh_subject_token" | "sign_in" | "fix_request" | "fix_config");
    session.on("session", ({ user }) => user.id); export { known, own };`), '');
  assert.match(compile(`${use} export const code: ServiceCode = "subject_token_expird";`), /TS2820/);
  assert.match(compile(`${use} createAppSession({ url: "", getSubjectToken: () => 5 });`), /TS2322|TS2769/);
});

test('what npm packs can be installed and imported', () => {
  const folder = mkdtempSync(join(tmpdir(), 'exchequer-'));
  const npm = (...args) => execFileSync('npm', args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    const file = npm('pack', '--silent', '--ignore-scripts', here).trim();
    writeFileSync(join(folder, 'package.json'), '{"private":true,"type":"module"}');
    npm('install', '--offline', '--no-audit', '--no-fund', `./${file}`);
    writeFileSync(join(folder, 'app.js'), `
      import { createAppSession, ExchangeError } from '@exchequer/client'; import { createDpopFetch } from '@exchequer/client/dpop';
      const session = createAppSession({ url: 'https://auth.example.com', getSubjectToken: () => null, fetch: createDpopFetch() });
      session.getToken().catch((error) => console.log(error instanceof ExchangeError, error.code));
    `);
    assert.equal(execFileSync(process.execPath, ['app.js'], { cwd: folder, encoding: 'utf8' }).trim(), 'true signed_out');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('npm packs the built files, the licences and the README, and nothing else', () => {
  const [{ files, name, version }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: here, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
  const modules = ['codes', 'dpop', 'error', 'exchange', 'index', 'request', 'session'];
  const expected = ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'package.json', ...modules.flatMap((each) => [`dist/${each}.d.ts`, `dist/${each}.js`])];
  assert.deepEqual(files.map(({ path }) => path).sort(), expected.sort());
  assert.deepEqual({ name, version }, { name: '@exchequer/client', version: JSON.parse(read('package.json')).version });
  for (const licence of ['LICENSE-MIT', 'LICENSE-APACHE']) assert.equal(read(licence), read(`../../${licence}`));
  assert.equal(JSON.parse(read('package.json')).dependencies, undefined);
});
