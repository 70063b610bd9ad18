// Starts the app: the backend on PORT (3000), and `exchequer dev` beside it, unless EXCHEQUER_URL names a service
// that runs already.
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { backend } from './backend.mjs';

const BINARY = process.env.BINARY ?? fileURLToPath(new URL('../../target/debug/exchequer', import.meta.url));

let answer;
const server = createServer((request, response) =>
  answer(request, response).catch((error) => response.writeHead(500).end(error.message)),
);
server.listen(Number(process.env.PORT ?? 3000), 'localhost', async () => {
  const origin = `http://localhost:${server.address().port}`;
  const audience = process.env.AUDIENCE ?? origin;
  const url = process.env.EXCHEQUER_URL;
  answer = backend(url ? { issuer: url, audience } : await withStandIn(origin, audience));
  console.log(`The app is at ${origin}`);
});

/** Runs `exchequer dev` for as long as this process, for pages of this origin. */
async function withStandIn(origin, audience) {
  const variables = { EXCHEQUER_ALLOWED_ORIGINS: origin, EXCHEQUER_AUDIENCE: audience };
  const child = spawn(BINARY, ['dev'], { env: { ...process.env, ...variables }, stdio: ['ignore', 'pipe', 'inherit'] });
  child.on('error', (error) => stop(`${BINARY} does not start: ${error.message}`));
  child.on('exit', () => stop('exchequer dev ended'));
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
  process.on('exit', () => child.kill());
  const found = {};
  for await (const line of createInterface({ input: child.stdout })) {
    const [, name, url] = /^(The identity provider|Exchequer) .*(http:\/\/\S+)$/.exec(line) ?? [];
    if (name) found[name] = url;
    if (line.startsWith('Do it yourself')) break;
  }
  if (!found.Exchequer) return stop('exchequer dev says no address');
  child.stdout.resume();
  const issuer = (await (await fetch(`${found.Exchequer}/.well-known/openid-configuration`)).json()).issuer;
  return { issuer, audience, standIn: found['The identity provider'] };
}

function stop(why) {
  console.error(why);
  process.exit(1);
}
