// A headless Chromium, Debian's own, that talks to nobody but the pages that a test opens.
//
//   const browser = await launch();
//   after(() => browser.close());
//   const page = await browser.newPage();
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox', // also as root, as containers run tests
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Starts the browser; the caller closes it. EXCHEQUER_CHROMIUM names another than Debian's. */
export function launch() {
  const executablePath = process.env.EXCHEQUER_CHROMIUM ?? '/usr/bin/chromium';
  return chromium.launch({ executablePath, headless: true, args: FLAGS });
}
