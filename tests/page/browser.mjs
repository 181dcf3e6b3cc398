// The system's Chromium, and what must never happen on the page.

import assert from 'node:assert/strict';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';

/** The page may take this long to show something: the machine may be busy. */
const PATIENCE = 60_000;

function executable() {
  if (process.env.CHROMIUM_BIN) return process.env.CHROMIUM_BIN;
  for (const directory of process.env.PATH.split(delimiter)) {
    const program = join(directory, 'chromium');
    try {
      accessSync(program, constants.X_OK);
      return program;
    } catch {
      // Perhaps in the next one.
    }
  }
  throw new Error('no Chromium in the PATH, and CHROMIUM_BIN names none');
}

export async function launch() {
  // Chromium's sandbox does not run as root, which containers do; the page is our own.
  return chromium.launch({
    executablePath: executable(),
    args: ['--no-sandbox', '--disable-gpu', '--force-color-profile=srgb', '--disable-lcd-text'],
  });
}

/**
 * A tab. `mishaps` gathers what must not happen: errors, dialogs, breaches of the content security policy, requests
 * that leave the meter.
 */
export async function tab(browser, meter, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 },
    locale: 'en-US',
    timezoneId: 'UTC',
    colorScheme: 'light',
    reducedMotion: 'reduce',
    ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.setDefaultNavigationTimeout(PATIENCE);
  const mishaps = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') mishaps.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => mishaps.push(`error: ${error.stack}`));
  page.on('dialog', (dialog) => {
    mishaps.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(`${meter.url}/`) && !url.startsWith('data:')) mishaps.push(`request: ${url}`);
  });
  await page.exposeFunction('reportBreach', (breach) => mishaps.push(`policy: ${breach}`));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      window.reportBreach(`${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  return { page, context, mishaps };
}

/** Waits until the text of an element is the one wanted, or matches it. What changes by itself is a function's. */
export async function shows(page, selector, wanted) {
  const fits = (text, now) => (now instanceof RegExp ? now.test(text) : text === String(now));
  let found = [];
  let now;
  for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(50)) {
    now = typeof wanted === 'function' ? await wanted() : wanted;
    found = (await page.locator(selector).allTextContents()).map((text) => text.trim());
    if (found.some((text) => fits(text, now))) return;
  }
  assert.fail(`${selector} never showed ${now}, but ${JSON.stringify(found.slice(0, 5))}`);
}

/** Whether the page is wider than its window. */
export const overflows = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
