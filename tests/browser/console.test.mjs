// The console in a browser: what it shows, with a keyboard and for a screen reader, what it asks for, and what
// it leaves behind.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { launch } from './browser.mjs';
import { listen, startProvider } from './provider.mjs';
import { serve } from './service.mjs';

const TOKEN = '0123456789abcdef0123456789abcdef';
const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let browser;
let provider;
before(async () => {
  [browser, provider] = await Promise.all([launch(), startProvider()]);
});
after(() => Promise.all([browser?.close(), provider?.stop()]));

const exchange = async (service, session_token) => {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(`${service.url}/auth/exchange`, { method: 'POST', headers, body: JSON.stringify({ session_token }) });
  await answer.arrayBuffer();
  return answer.status;
};

/** As many refused exchanges, one behind the other on one connection. */
function refuse(service, many) {
  const body = '{"session_token":"nonsense"}';
  const request = `POST /auth/exchange HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
  const { hostname, port } = new URL(service.url);
  return new Promise((resolve, reject) => {
    let answered = 0;
    let rest = '';
    const socket = connect(port, hostname, () => socket.write(request.repeat(many)));
    socket.on('error', reject).on('close', () => reject(new Error(`closed after ${answered}`))).on('data', (data) => {
      const parts = (rest + data).split('HTTP/1.1 401');
      rest = parts.at(-1).slice(-11);
      answered += parts.length - 1;
      if (answered === many) resolve(socket.destroy());
    });
  });
}

/** A service, and what has happened to it: three exchanges, and these refusals. */
async function busy(t, env = {}) {
  const service = await serve({ env: { CLERK_JWT_ISSUER: provider.url, ...env } });
  t.after(() => service.stop());
  for (let i = 0; i < 3; i += 1) assert.equal(await exchange(service, provider.sessionToken()), 200);
  assert.equal(await exchange(service, provider.sessionToken({ age: 600 })), 401);
  assert.equal(await exchange(service, 'nonsense'), 401);
  assert.equal(await exchange(service, provider.sessionToken({ sts: 'pending' })), 403);
  return service;
}

/** A page of the console; whatever it does that it must not is in `wrong`. */
async function open(t, service, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  const wrong = [];
  page.on('request', (request) => request.url().startsWith(`${service.admin}/`) || wrong.push(`asks ${request.url()}`));
  page.on('pageerror', (error) => wrong.push(`throws ${error}`));
  page.on('console', (message) => message.type() === 'error' && wrong.push(`logs ${message.text()}`));
  page.on('websocket', (socket) => wrong.push(`opens ${socket.url()}`));
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      globalThis.violations.push(`${violatedDirective} ${blockedURI}`);
    });
  });
  await page.goto(`${service.admin}/console`);
  return { page, context, wrong };
}

const shown = (page) => page.waitForSelector('#data:not([hidden]) .alg');
const focused = (page) => page.evaluate(() => {
  const { id, tagName, textContent } = document.activeElement;
  return id || `${tagName} ${textContent.trim()}`;
});

/** What axe finds, each as its rule and the place. */
async function axe(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  }));
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target.join(' ')}`));
}

/** Pairs of the page's colours with less contrast than WCAG 2.2 asks for: 4.5 for text, 3 for what is drawn. */
const tooFaint = (page) => page.evaluate(() => {
  const context = document.createElement('canvas').getContext('2d');
  const light = (name) => {
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
    const [r, g, b] = context.fillStyle.match(/[0-9a-f]{2}/g).map((hex) => {
      const part = parseInt(hex, 16) / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = ['--ground', '--panel', '--field', '--soft-ok', '--soft-failed', '--soft-wait'];
  const wanted = [
    ...['--ink', '--accent'].flatMap((ink) => grounds.map((ground) => [ink, ground, 4.5])),
    ...['--muted', '--failed'].flatMap((ink) => ['--ground', '--panel', '--soft-failed'].map((ground) => [ink, ground, 4.5])),
    ...['--ok', '--refused', '--failed', '--shed', '--edge'].map((ink) => [ink, '--panel', 3]),
    ['--on-accent', '--accent', 4.5],
    ['--panel', '--ink', 4.5],
  ];
  return wanted.filter(([ink, ground, least]) => {
    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05) < least;
  }).map(String);
});

describe('the console', () => {
  test('shows keys, issuers, requests and refusals, asks nobody else, and violates no policy', async (t) => {
    const service = await busy(t);
    const { page, context, wrong } = await open(t, service);
    await shown(page);
    assert.equal(await page.title(), 'Exchequer console');
    assert.equal(await page.textContent('#state'), 'Ready');
    assert.match(await page.getAttribute('#chart svg', 'aria-label'), /3 ok, 3 refused, 0 failed/);
    assert.equal(await page.textContent('#refusals-count'), '3 since the start');
    assert.deepEqual(await page.locator('#codes tbody th').allTextContents().then((all) => all.sort()),
      ['session_pending', 'subject_token_expired', 'subject_token_opaque']);
    assert.equal(await page.locator('#recent > li').count(), 3);
    assert.deepEqual(await page.locator('.alg h3').allTextContents(), ['ES256']);
    assert.equal(await page.locator('.events li').count(), 3);
    await page.locator('.alg summary').click();
    assert.deepEqual(await page.locator('.alg tbody td:nth-child(2)').allTextContents(), ['signing', 'standing by']);
    assert.match(await page.locator('#issuers-body tbody tr').textContent(), /Clerk.*default.*1.*ago.*none/);
    await page.locator('#chart-table summary').click();
    assert.match(await page.locator('#chart-table tbody tr').first().textContent(), /UTC\d/);

    // New ones come by themselves, what is open stays open, and they are announced.
    await page.locator('#recent summary').first().click();
    await exchange(service, 'nonsense');
    await page.waitForFunction(() => document.querySelectorAll('#recent > li').length === 4);
    assert.equal(await page.locator('#recent details[open]').count(), 1);
    assert.equal(await page.locator('#recent > li').nth(1).locator('details[open]').count(), 1);
    assert.equal(await page.textContent('#news'), '1 new refusal.');
    assert.match(await page.locator('#recent [data-how=failed]').textContent(), /failedsessionsts pendingexpected active/);

    assert.deepEqual(await page.evaluate(() => globalThis.violations), []);
    assert.deepEqual(wrong, []);
    assert.deepEqual(await context.cookies(), []);
  });

  test('says that nothing has happened yet', async (t) => {
    const service = await serve({ env: { CLERK_JWT_ISSUER: provider.url } });
    t.after(() => service.stop());
    const { page, wrong } = await open(t, service);
    await shown(page);
    assert.match(await page.textContent('#chart'), /No request in this time/);
    assert.match(await page.textContent('#codes'), /Nobody was refused yet/);
    assert.equal(await page.textContent('#refusals-count'), '0 since the start');
    assert.deepEqual(wrong, []);
  });

  test('is as small after ten thousand refusals', async (t) => {
    const service = await busy(t, { EXCHEQUER_MAX_QUEUE_DELAY: 'off', EXCHEQUER_LOG: 'info,exchequer::http=warn' });
    await refuse(service, 10_000);
    const { page, wrong } = await open(t, service);
    await shown(page);
    assert.match(await page.textContent('#refusals-count'), /^10,003 since the start, the last 200 of them below$/);
    assert.equal(await page.locator('#recent > li').count(), 12);
    for (let i = 0; i < 4; i += 1) await page.click('#more');
    assert.equal(await page.locator('#recent > li').count(), 200);
    assert.ok(await page.locator('#more').isHidden());
    assert.ok((await page.evaluate(() => document.querySelectorAll('*').length)) < 3000);
    assert.deepEqual(wrong, []);
  });

  test('is used by keyboard alone', async (t) => {
    const service = await busy(t);
    const { page } = await open(t, service);
    await shown(page);
    const tab = async (until) => {
      for (let i = 0; i < 60; i += 1) {
        await page.keyboard.press('Tab');
        if (await page.evaluate((selector) => document.activeElement.matches(selector), until)) return;
      }
      assert.fail(`no way to ${until}; at ${await focused(page)}`);
    };
    await tab('.skip');
    await page.keyboard.press('Enter');
    assert.equal(await focused(page), 'main');
    await tab('#route');
    await tab('input[name=span]');
    await page.keyboard.press('ArrowLeft');
    assert.ok(await page.isChecked('input[value="60"]'));
    assert.match(await page.getAttribute('#chart svg', 'aria-label'), /in the last hour/);
    await tab('#codes a');
    const link = await focused(page);
    await page.keyboard.press('Enter');
    await page.waitForSelector('dialog[open]');
    assert.match(await page.textContent('#entry-body'), /Cause.*Confirm.*Mend/);
    assert.ok(await page.evaluate(() => document.querySelector('dialog').contains(document.activeElement)));
    await page.keyboard.press('Escape');
    assert.ok(await page.locator('dialog').isHidden());
    assert.equal(await focused(page), link);
    await tab('#recent summary');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#recent details[open] .ladder');
    await tab('#explain-text');
    await page.keyboard.insertText(provider.sessionToken());
    await page.keyboard.press('Control+Enter');
    await page.waitForSelector('.verdict');
    assert.equal(await focused(page), 'H3 Accepted: the exchange would give an app token');
  });

  test('explains what is pasted, and nothing of it is left', async (t) => {
    const service = await busy(t);
    const { page, context, wrong } = await open(t, service);
    await shown(page);
    const token = provider.sessionToken({ age: 600 });
    for (const [name, value] of [['autocomplete', 'off'], ['spellcheck', 'false'], ['autocapitalize', 'off'], ['autocorrect', 'off']]) {
      assert.equal(await page.getAttribute('#explain-text', name), value);
    }
    const sent = page.waitForRequest((request) => request.method() === 'POST');
    await page.fill('#explain-text', token);
    await page.click('#explain-form button.main');
    assert.equal((await sent).url(), `${service.admin}/console/explain`);
    await page.waitForSelector('.verdict');
    assert.equal(await page.textContent('.verdict'), 'Refused as subject_token_expired');
    assert.match(await page.textContent('#explained [data-how=failed]'), /failedexpiryexp \d+/);
    // What to do is told as on the command line, most likely first, and for a screen reader as a list with a name.
    const next = page.getByRole('list', { name: 'What to do' }).getByRole('listitem');
    assert.match(await next.first().textContent(), /^It lived 60 s, and ended \d+ s ago: ask the SDK for a token right before each exchange/);
    assert.equal(await next.count(), 2);
    const issues = page.getByRole('list', { name: 'Known issues' });
    assert.match(await issues.textContent(), /@clerk\/expo: getToken\(\{ skipCache: true \}\) failed/);
    const issue = issues.getByRole('link').first();
    assert.match(await issue.getAttribute('href'), /^https:\/\/github\.com\//);
    assert.equal(await issue.getAttribute('rel'), 'noreferrer noopener');
    assert.ok(!(await page.innerHTML('#explained')).includes(token.slice(-40)));
    // It is on no record: neither among the refusals nor in the log.
    assert.equal(await page.textContent('#refusals-count'), '3 since the start');
    assert.ok(service.log().every((line) => !line.includes(token.slice(-40))));

    // Whoever leaves and comes back finds it empty.
    await page.goto('about:blank');
    await page.goBack();
    await shown(page);
    assert.equal(await page.inputValue('#explain-text'), '');
    assert.equal(await page.textContent('#explained'), '');
    await page.fill('#explain-text', token);
    await page.click('#explain-clear');
    assert.equal(await page.inputValue('#explain-text'), '');
    await page.fill('#explain-text', token);
    await page.reload();
    await shown(page);
    assert.equal(await page.inputValue('#explain-text'), '');
    const kept = await page.evaluate(async () => [
      localStorage.length, sessionStorage.length, document.cookie, (await indexedDB.databases()).length, location.href,
    ]);
    assert.deepEqual(kept, [0, 0, '', 0, `${service.admin}/console`]);
    assert.deepEqual(await context.cookies(), []);
    assert.deepEqual(wrong.filter((each) => !each.includes('about:blank')), []);
  });

  test('says when the service is gone, tries again, and begins anew with another process', async (t) => {
    const service = await busy(t);
    const { page } = await open(t, service);
    await shown(page);
    await service.stop();
    await page.waitForFunction(() => /^No answer · trying again in \d+ s$/.test(document.getElementById('state').textContent));
    assert.equal(await page.textContent('#news'), 'The service does not answer. This page tries again.');
    assert.ok(await page.isVisible('#data'), 'what was known is still to be seen');
    const address = new URL(service.admin).host;
    const next = await serve({ env: { CLERK_JWT_ISSUER: provider.url, EXCHEQUER_ADMIN_LISTEN: address } });
    t.after(() => next.stop());
    await page.waitForFunction(() => document.getElementById('state').textContent === 'Ready', null, { timeout: 60_000 });
    await page.waitForFunction(() => document.getElementById('refusals-count').textContent === '0 since the start');
    assert.equal(await page.locator('#recent > li').count(), 0);
  });

  test('stops asking while it is paused', async (t) => {
    const service = await busy(t);
    const { page } = await open(t, service);
    await shown(page);
    await page.click('#pause');
    assert.equal(await page.getAttribute('#pause', 'aria-pressed'), 'true');
    let asked = 0;
    page.on('request', () => (asked += 1));
    await page.waitForTimeout(6000); // longer than it waits between two questions
    assert.equal(asked, 0);
    await page.click('#pause');
    await page.waitForResponse(/\/console\/data/);
  });

  test('asks for a token where it has one, keeps it in memory, and asks again', async (t) => {
    const service = await busy(t, { EXCHEQUER_CONSOLE_TOKEN: TOKEN });
    const { page, context } = await open(t, service);
    await page.waitForSelector('#gate:not([hidden])');
    assert.ok(await page.locator('#data').isHidden());
    assert.deepEqual(await axe(page), []);
    assert.equal(await focused(page), 'gate-token');
    await page.keyboard.insertText('wrong');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.getElementById('gate-error').textContent !== '');
    await page.fill('#gate-token', TOKEN);
    await page.keyboard.press('Enter');
    await shown(page);
    assert.ok(await page.locator('#gate').isHidden());
    await page.fill('#explain-text', provider.sessionToken());
    await page.click('#explain-form button.main');
    await page.waitForSelector('.verdict[data-how=yes]');
    assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]), [0, 0, '']);
    assert.deepEqual(await context.cookies(), []);
    await page.reload();
    await page.waitForSelector('#gate:not([hidden])');
    assert.ok(service.log().every((line) => !line.includes(TOKEN)));
  });

  test('shows nothing to a page of another origin', async (t) => {
    const service = await busy(t);
    const other = await listen((_, answer) => answer.setHeader('content-type', 'text/html').end('<!doctype html>'));
    t.after(() => other.stop());
    const page = await browser.newPage();
    t.after(() => page.close());
    await page.goto(other.url);
    const got = await page.evaluate(async (admin) => {
      const tried = async (...args) => fetch(...args).then(({ type }) => type, () => 'nothing');
      const json = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"text":"x"}' };
      const frame = document.createElement('iframe');
      frame.src = `${admin}/console`;
      document.body.append(frame);
      await new Promise((resolve) => (frame.onload = resolve));
      return [
        await tried(`${admin}/console/data`),
        await tried(`${admin}/console/data`, { mode: 'no-cors' }),
        await tried(`${admin}/console/main.js`, { mode: 'no-cors' }),
        await tried(`${admin}/console/explain`, json),
        frame.contentDocument === null,
      ];
    }, service.admin);
    assert.deepEqual(got, ['nothing', 'nothing', 'nothing', 'nothing', true]);
    const [, frame] = page.frames();
    assert.ok(!frame.url().startsWith(service.admin), `framed: ${frame.url()}`);
  });

  for (const colorScheme of ['light', 'dark']) {
    for (const [kind, viewport] of [['wide', { width: 1280, height: 900 }], ['narrow', { width: 360, height: 800 }]]) {
      test(`has nothing that axe finds: ${colorScheme}, ${kind}`, async (t) => {
        const service = await busy(t);
        const { page } = await open(t, service, { colorScheme, viewport, reducedMotion: 'reduce', bypassCSP: true });
        await shown(page);
        assert.deepEqual(await axe(page), []);
        for (const summary of await page.locator('#recent summary, .alg summary, #chart-table summary').all()) await summary.click();
        await page.fill('#explain-text', provider.sessionToken({ sts: 'pending' }));
        await page.click('#explain-form button.main');
        await page.waitForSelector('.verdict');
        assert.deepEqual(await axe(page), []);
        assert.deepEqual(await tooFaint(page), []);
        // Nothing is cut off or sticks out.
        const [wide, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(wide <= inner, `${wide} of ${inner} pixels`);
        assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).scrollBehavior), 'auto');
        await page.locator('#codes a').first().click();
        await page.waitForSelector('dialog[open]');
        assert.deepEqual(await axe(page), []);
      });
    }
  }
});
