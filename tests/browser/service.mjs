// The built binary as a process on free ports, in a folder of its own: `serve` with a configuration and a
// provider of the test's, or `dev` with the built-in stand-in for Clerk. EXCHEQUER_BINARY names another than
// target/debug/exchequer.
//
//   const provider = await startProvider();
//   const service = await serve({ env: { CLERK_JWT_ISSUER: provider.url }, config: '[apps.web]…' });
//   after(() => Promise.all([service.stop(), provider.stop()]));
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const BINARY =
  process.env.EXCHEQUER_BINARY ?? fileURLToPath(new URL('../../target/debug/exchequer', import.meta.url));

const PATIENCE = 30_000; // milliseconds until a start counts as failed
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/**
 * Starts `exchequer serve`. `config` is the text of exchequer.toml; `clock: true` lets the test move the
 * service's clocks, and needs a binary with the feature `settable-clock`.
 *
 * Gives `url` and `admin` (base URLs), `dir`, `log()` (lines), `logged(words)` (the first line with these,
 * waited for), `shiftClocks(wall, monotonic)` in seconds, and `stop()`.
 */
export async function serve({ env = {}, config, clock = false } = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'exchequer-'));
  const shifts = join(dir, 'clock');
  if (config !== undefined) await writeFile(join(dir, 'exchequer.toml'), config);
  const variables = {
    EXCHEQUER_RATE_LIMIT: 'off',
    EXCHEQUER_SHUTDOWN_DELAY: '0s',
    ...(clock && { EXCHEQUER_CLOCK_SHIFT_FILE: shifts }),
    ...env,
  };
  const started = await start(['serve'], variables, dir, (lines) => {
    const line = lines.map(parsed).find(({ message }) => message === 'listening');
    return line && { url: `http://${line.public}`, admin: `http://${line.admin}` };
  });
  return { ...started, shiftClocks: (wall, monotonic) => writeFile(shifts, `${wall} ${monotonic}`) };
}

/**
 * Starts `exchequer dev`. Gives what `serve` gives but `shiftClocks`, and the stand-in provider as
 * `provider`: `{ url, sessionToken(query), sessionId(), oauthToken() }`; the query may have `age` (seconds),
 * `status` and `session`.
 */
export async function dev({ env = {} } = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'exchequer-'));
  const started = await start(['dev'], env, dir, (lines) => {
    const after = (words) => lines.find((line) => line.trim().startsWith(words))?.match(/http:\/\/\S+/)?.[0];
    const found = { provider: after('The identity provider'), url: after('Exchequer'), admin: after('health and metrics') };
    return lines.some((line) => line.startsWith('Do it yourself')) && found;
  });
  const ask = async (path) => (await fetch(`${started.provider}${path}`)).text();
  const provider = {
    url: started.provider,
    sessionToken: (query = {}) => ask(`/session-token?${new URLSearchParams(query)}`),
    sessionId: () => ask('/session-id'),
    oauthToken: () => ask('/oauth-token'),
  };
  return { ...started, provider };
}

async function start(args, env, dir, found) {
  if (!existsSync(BINARY)) {
    throw new Error(`${BINARY} is missing: cargo build --features settable-clock`);
  }
  const child = spawn(BINARY, args, {
    cwd: dir,
    env: { EXCHEQUER_LISTEN: '127.0.0.1:0', EXCHEQUER_ADMIN_LISTEN: '127.0.0.1:0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const lines = [];
  const ended = new Promise((resolve) => child.once('close', resolve)).finally(() => running.delete(child));
  const addresses = await new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`exchequer ${args[0]} ${why}:\n${lines.join('\n')}`));
    const timer = setTimeout(() => (child.kill('SIGKILL'), fail('does not listen')), PATIENCE);
    child.once('error', reject);
    ended.then((code) => (clearTimeout(timer), fail(`ended with ${code}`)));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line);
        const addresses = found(lines);
        if (addresses) resolve((clearTimeout(timer), addresses));
      });
    }
  });
  return {
    ...addresses,
    dir,
    log: () => [...lines],
    async logged(words) {
      for (const until = Date.now() + PATIENCE; Date.now() < until; ) {
        const line = lines.find((line) => line.includes(words));
        if (line) return line;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      throw new Error(`never logged: ${words}`);
    },
    async stop() {
      child.kill('SIGKILL');
      await ended;
      await rm(dir, { recursive: true, force: true });
    },
  };
}

function parsed(line) {
  try {
    return JSON.parse(line) ?? {};
  } catch {
    return {};
  }
}
