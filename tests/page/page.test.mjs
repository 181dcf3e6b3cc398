// The live page in a real browser, of a real meter.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, beforeEach, test } from 'node:test';
import { launch, overflows, shows, tab } from './browser.mjs';
import { event, startMeter, traffic } from './meter.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let browser;
let cleanup = [];

before(async () => {
  browser = await launch();
});
after(() => browser?.close());
beforeEach(() => {
  cleanup = [];
});

/** A test with a meter of its own; afterwards nothing may have gone wrong on any of its pages. */
function pageTest(name, run) {
  test(name, async () => {
    const meter = await startMeter();
    cleanup.push(() => meter.stop());
    try {
      await run(meter);
    } finally {
      for (const step of cleanup.reverse()) await step();
    }
  });
}

async function open(meter, path = '/', { allow, ...options } = {}) {
  const { page, context, mishaps } = await tab(browser, meter, options);
  cleanup.push(async () => {
    await context.close();
    assert.deepEqual(
      mishaps.filter((mishap) => !allow?.test(mishap)),
      [],
    );
  });
  await page.goto(meter.url + path);
  return page;
}

const rows = (page, section) => page.locator(`#${section} tbody tr`);
const texts = (page, section) =>
  page.locator(`#${section} tbody th`).evaluateAll((cells) => cells.map((cell) => cell.textContent));

async function accessible(page, what) {
  // Through the debugger, which the content security policy does not bind.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  const found = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' ')}`);
  assert.deepEqual(found, [], what);
}

pageTest('an empty meter says how to begin, and the first event appears without a reload', async (meter) => {
  const page = await open(meter);
  await shows(page, '#link', 'live');
  await page.locator('#empty').waitFor();
  assert.equal(await page.locator('#filled').isVisible(), false);
  const curl = await page.locator('#curl').textContent();
  assert.match(curl, new RegExp(`curl ${meter.url}/events/ingest`));
  assert.match(await page.locator('#environment').textContent(), /DODO_PAYMENTS_BASE_URL=http/);
  assert.match(await page.locator('#empty').textContent(), /one of the meter's own keys, if it was given any/);

  // What the page says to send is taken.
  const body = /-d '(.*)'$/s.exec(curl)[1];
  await page.evaluate(() => {
    window.notReloaded = true;
  });
  assert.equal((await meter.send('POST', '/events/ingest', body)).status, 200);
  await shows(page, '#calls', '1');
  await shows(page, '#p95', '12.5\u00a0ms');
  assert.deepEqual(await texts(page, 'by-customer'), ['cus_1']);
  assert.equal(await page.locator('#empty').isVisible(), false);
  assert.equal(await page.evaluate(() => window.notReloaded), true);
  assert.ok((await page.locator('canvas').count()) === 3);
});

pageTest('units that came as text keep their sign and their digits', async (meter) => {
  const page = await open(meter);
  const shown = await page.evaluate(async () => {
    const { units } = await import('/_dev/page/format.js');
    return ['0', '-0.5', '-1.5', '-1234', '12345678901234567890.125'].map(units);
  });
  assert.deepEqual(shown, ['0', '-0.5', '-1.5', '-1,234', '12,345,678,901,234,567,890.125']);
});

pageTest('fifty customers: totals, tables, invoice, and filters that are links', async (meter) => {
  await meter.priceCalls();
  const events = traffic({ count: 3000, customers: 50 });
  await meter.ingest(events);
  const page = await open(meter);
  await shows(page, '#calls', '3,000');
  const failed = events.filter(({ event_name }) => event_name === 'api_error').length;
  await shows(page, '#calls-sub', `${(3000 - failed).toLocaleString('en-US')} billed · ${failed} not`);
  await shows(page, '#errors-sub', new RegExp(`^${failed} of 3,000`));
  assert.equal(await rows(page, 'by-customer').count(), 50);
  assert.equal(await rows(page, 'by-endpoint').count(), 7);
  assert.deepEqual((await texts(page, 'by-status')).sort(), ['200', '404', '503']);
  assert.equal(await rows(page, 'meters').count(), 2);
  assert.equal(await rows(page, 'newest').count(), 25);

  // What is owed is what the bill says.
  const bill = (await meter.send('GET', '/_dev/bill')).body;
  const dollars = (cents) => (cents / 100).toLocaleString('en-US', { style: 'currency', currency: 'USD' });
  await shows(page, '#amount', dollars(bill.totals.amount));

  // A link to a customer is their page; a step back leads out again.
  const top = async () => {
    await page.waitForFunction(() => document.activeElement.id === 'main' && scrollY === 0);
  };
  const of = (customer) => events.filter(({ customer_id }) => customer_id === customer);
  await page.getByRole('link', { name: 'cus_001', exact: true }).first().click();
  await shows(page, '#who-name', 'cus_001');
  await top();
  assert.match(page.url(), /\?customer=cus_001$/);
  await shows(page, '#calls', of('cus_001').length.toLocaleString('en-US'));
  const owed = bill.customers.find(({ customer_id }) => customer_id === 'cus_001').amount;
  await shows(page, '#amount', dollars(owed));
  assert.equal(await page.locator('#by-customer').isVisible(), false);
  await page.locator('#by-endpoint a', { hasText: '/v1/search' }).click();
  const both = of('cus_001').filter(({ metadata }) => metadata.endpoint === '/v1/search');
  await shows(page, '#calls', both.length.toLocaleString('en-US'));
  await page.goBack();
  await shows(page, '#calls', of('cus_001').length.toLocaleString('en-US'));
  await page.goBack();
  await shows(page, '#calls', '3,000');
  assert.equal(await page.locator('#who').isVisible(), false);

  // The address alone brings a view back.
  const again = await open(meter, '/?customer=cus_001&endpoint=%2Fv1%2Fsearch&period=all');
  await shows(again, '#calls', both.length.toLocaleString('en-US'));
  assert.equal(await again.locator('[name=customer]').inputValue(), 'cus_001');
  assert.equal(await again.locator('[name=period]:checked').inputValue(), 'all');
  await again.getByRole('button', { name: 'Clear filters' }).click();
  await shows(again, '#calls', '3,000');

  // A customer of whom nothing is known.
  await again.locator('[name=customer]').fill('cus_nobody');
  await again.locator('[name=customer]').press('Enter');
  await shows(again, '#calls', '0');
  await again.locator('#nothing').waitFor();
});

pageTest('a period leaves out what is older', async (meter) => {
  const ago = (minutes) => new Date(Date.now() - minutes * 60_000);
  await meter.ingest([event({ at: ago(0) }), event({ at: ago(30) }), event({ at: ago(50), status_code: '500' })]);
  const page = await open(meter, '/?period=5m');
  await shows(page, '#calls', '1');
  await page.getByLabel('1 h', { exact: true }).check();
  await shows(page, '#calls', '3');
  await shows(page, '#errors-sub', /^1 of 3/);
  assert.match(page.url(), /\/$/);
});

pageTest('what others wrote is shown as text and runs nothing', async (meter) => {
  const script = '<img src=x onerror="document.title=\'owned\'"><script>alert(1)</script>';
  const long = 'x'.repeat(500);
  const turned = '\u202egnp.exe\u2066';
  await meter.price(
    { name: script, event_name: script, measurement_unit: script, aggregation: { type: 'sum', key: script } },
    { price_per_unit: '1' },
  );
  await meter.ingest([
    event({ customer: script, name: script, endpoint: script, method: script, status_code: script }),
    event({ customer: long, name: long, endpoint: long, method: long, status_code: long, response_time_ms: long }),
    event({ customer: turned, endpoint: turned }),
    event({
      customer: '__proto__',
      endpoint: '__proto__',
      method: 'constructor',
      name: 'toString',
      ['__proto__']: 'x',
    }),
  ]);
  const bad = await meter.send('POST', '/events/ingest', {
    events: [
      { ...event(), timestamp: script },
      { ...event(), [script]: 1 },
    ],
  });
  assert.notEqual(bad.status, 200);
  await meter.send('POST', '/events/ingest', `{"events":[{"event_id":${JSON.stringify(script)},"customer_id":3}]}`);
  for (const viewport of [
    { width: 1280, height: 900 },
    { width: 360, height: 740 },
  ]) {
    const page = await open(meter, '/', { viewport });
    await shows(page, '#calls', '4');
    for (const text of [script, long, turned, '__proto__']) {
      assert.ok((await texts(page, 'by-customer')).includes(text), text.slice(0, 30));
      assert.equal(await page.locator('#by-customer a', { hasText: text }).first().count(), 1);
    }
    assert.equal(await page.locator('main img, main script').count(), 0);
    assert.equal(await page.title(), 'Local meter');
    assert.equal(await overflows(page), false, 'a long text stays in its cell');
    const widths = await page.locator('#newest td').evaluateAll((cells) => cells.map((cell) => cell.offsetWidth));
    assert.ok(Math.max(...widths) < 200, 'a long status leaves the columns behind it in view');
    // Each of them has a page.
    await page.locator('#by-customer a', { hasText: script }).first().click();
    await shows(page, '#who-name', script);
    await shows(page, '#calls', '1');
    assert.equal(await overflows(page), false, 'a long text stays in the heading');
  }
});

pageTest('another period keeps a name that a field of text cannot hold', async (meter) => {
  await meter.ingest([event({ customer: 'two\nlines' }), event({ customer: 'other' })]);
  const page = await open(meter);
  await page.locator('#by-customer a', { hasText: 'two' }).click();
  await shows(page, '#who-name', 'two\nlines');
  await page.getByRole('radio', { name: '24 h' }).check();
  await page.waitForURL('**period=24h**');
  await shows(page, '#who-name', 'two\nlines');
  assert.equal(new URL(page.url()).searchParams.get('customer'), 'two\nlines');
});

pageTest('a large invoice and a long time stay in their places', async (meter) => {
  await meter.price(
    { name: 'Sum', event_name: 'api_call', measurement_unit: 'unit', aggregation: { type: 'sum', key: 'x' } },
    { price_per_unit: '1' },
  );
  await meter.ingest([event({ x: 1e18, response_time_ms: 1e14 })]);
  for (const width of [1280, 1024, 768, 360]) {
    const page = await open(meter, '/', { viewport: { width, height: 800 } });
    await shows(page, '#calls', '1');
    const beyond = await page
      .locator('.totals > div')
      .evaluateAll((cells) =>
        cells.filter((cell) => cell.scrollWidth > cell.clientWidth).map((cell) => cell.textContent),
      );
    assert.deepEqual(beyond, [], `at ${width}`);
    assert.equal(await overflows(page), false, `at ${width}`);
  }
});

pageTest('refusals and duplicates are shown, and the requests of the last minute', async (meter) => {
  const first = event();
  await meter.ingest([first]);
  await meter.ingest([first, event()]);
  const late = event({ at: new Date(Date.now() - 2 * 3_600_000) });
  assert.equal((await meter.send('POST', '/events/ingest', { events: [event(), late] })).status, 400);
  assert.equal((await meter.send('POST', '/events/ingest', '{')).status, 422);
  const page = await open(meter);
  await shows(page, '#refused', '2');
  await shows(page, '#duplicates', '1');
  await shows(page, '#budget-text', '4 of 100');
  const lines = await rows(page, 'refusals').allTextContents();
  assert.equal(lines.length, 2);
  assert.match(lines[0], /422INVALID_REQUEST_BODY.*unknown$/);
  assert.match(lines[1], /400INVALID_REQUEST_PARAMETERS.*more than 1 hour old2$/);
});

pageTest('a server that goes away is said to be away, and is found again', async (meter) => {
  await meter.ingest([event()]);
  const page = await open(meter, '/', { allow: /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|net::ERR/ });
  await shows(page, '#calls', '1');
  await meter.stop();
  await shows(page, '#link', 'server away, trying again');
  const second = await startMeter({ port: new URL(meter.url).port });
  cleanup.push(() => second.stop());
  await shows(page, '#link', 'live');
  await second.ingest([event(), event(), event()]);
  await shows(page, '#calls', '3');
});

pageTest('a server that stands still is not said to be live', async (meter) => {
  await meter.ingest([event()]);
  const page = await open(meter);
  await shows(page, '#link', 'live');
  meter.freeze();
  // A process that stands still hears of nothing else.
  cleanup.push(() => meter.goOn());
  await shows(page, '#link', 'server silent, waiting');
  meter.goOn();
  await shows(page, '#link', 'live');
});

pageTest('tabs that are not seen leave the connections to those that are', async (meter) => {
  await meter.ingest([event()]);
  const { page: first, context } = await tab(browser, meter);
  cleanup.push(() => context.close());
  const see = (page, hidden) =>
    page.evaluate((hidden) => {
      // A browser without a window shows every tab.
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
  const pages = [first, ...(await Promise.all(Array.from({ length: 7 }, () => context.newPage())))];
  for (const page of pages) {
    await page.goto(meter.url);
    await shows(page, '#calls', '1');
    await see(page, true);
    await shows(page, '#link', 'paused');
  }
  await meter.ingest([event()]);
  await see(first, false);
  await shows(first, '#calls', '2');
  await shows(first, '#link', 'live');
});

pageTest('the line under the focus stays the same event while others arrive', async (meter) => {
  await meter.ingest([event({ customer: 'cus_A' })]);
  await meter.send('POST', '/events/ingest', '{');
  const page = await open(meter);
  const link = page.locator('#newest a', { hasText: 'cus_A' });
  await link.focus();
  await page.evaluate(() => {
    window.refusal = document.querySelector('#refusals tbody tr');
  });
  await meter.ingest([event({ customer: 'cus_B' })]);
  await meter.send('POST', '/events/ingest', { events: [] });
  await page.locator('#newest a', { hasText: 'cus_B' }).waitFor();
  await shows(page, '#refused', '2');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'cus_A');
  assert.match(await page.evaluate(() => window.refusal.textContent), /422INVALID_REQUEST_BODY/);
  await page.keyboard.press('Enter');
  await shows(page, '#who-name', 'cus_A');
});

pageTest('an endpoint that is not told apart is said to be none', async (meter) => {
  const named = Array.from({ length: 205 }, (_, index) => event({ endpoint: `/${index}` }));
  await meter.ingest(named);
  const page = await open(meter, '/?endpoint=/204');
  await shows(page, '#nothing', /too many endpoints/);
  await shows(page, '#calls', '–');
  await page.locator('[name=endpoint]').fill('/3');
  await page.locator('[name=endpoint]').press('Enter');
  await shows(page, '#calls', '1');
  assert.equal(await page.locator('#nothing').isVisible(), false);
});

pageTest('no rule of accessibility is broken, light or dark, on a desk or a phone', async (meter) => {
  for (const state of ['empty', 'full']) {
    if (state === 'full') {
      await meter.priceCalls();
      await meter.ingest(traffic({ count: 400, customers: 8 }));
      await meter.send('POST', '/events/ingest', '{');
    }
    for (const colorScheme of ['light', 'dark']) {
      for (const viewport of [
        { width: 1280, height: 900 },
        { width: 360, height: 740 },
      ]) {
        const page = await open(meter, '/', { colorScheme, viewport });
        await page.locator(state === 'empty' ? '#empty' : '#filled').waitFor();
        if (state === 'full') {
          await shows(page, '#calls', '400');
          for (const summary of await page.locator('summary').all()) await summary.click();
        }
        const what = `${state}, ${colorScheme}, ${viewport.width} wide`;
        await accessible(page, what);
        assert.equal(await overflows(page), false, what);
      }
    }
  }
  const page = await open(meter, '/?customer=cus_001');
  await shows(page, '#who-name', 'cus_001');
  await accessible(page, 'a customer');
});

pageTest('the keyboard alone reaches filters, tables and charts as tables', async (meter) => {
  await meter.ingest(traffic({ count: 200, customers: 5 }));
  const page = await open(meter);
  await shows(page, '#calls', '200');
  const focused = () =>
    page.evaluate(() => {
      const { activeElement: element } = document;
      return element.getAttribute('name') ?? element.id ?? '';
    });
  const seen = new Set();
  const walk = async (until) => {
    for (let step = 0; step < 80; step += 1) {
      await page.keyboard.press('Tab');
      const at = await page.evaluate(() => document.activeElement.closest('[id]')?.id ?? '');
      seen.add(at).add(await focused());
      if (await until()) return;
    }
    assert.fail(`never came there, only to ${[...seen]}`);
  };
  await walk(async () => (await focused()) === 'customer');
  await page.keyboard.type('cus_001');
  await page.keyboard.press('Enter');
  await shows(page, '#who-name', 'cus_001');
  await walk(async () => (await focused()) === 'period');
  await page.keyboard.press('ArrowRight');
  await shows(page, '#who-name', 'cus_001');
  assert.match(page.url(), /customer=cus_001&period=24h/);
  await walk(() => page.evaluate(() => document.activeElement.localName === 'summary'));
  await page.keyboard.press('Enter');
  await page.locator('#calls-chart tbody tr').first().waitFor();
  assert.equal(await rows(page, 'calls-chart').count(), 48);
  await walk(() => page.evaluate(() => document.activeElement.textContent === 'p95'));
  await page.keyboard.press('Enter');
  await page.locator('#by-endpoint th[aria-sort=descending]', { hasText: 'p95' }).waitFor();
  const ms = await page
    .locator('#by-endpoint tbody tr')
    .evaluateAll((lines) => lines.map((line) => parseFloat(line.cells[5].textContent)));
  assert.deepEqual(
    ms,
    [...ms].sort((a, b) => b - a),
  );
  await walk(() => page.evaluate(() => document.activeElement.matches('#by-endpoint tbody a')));
  await page.keyboard.press('Enter');
  await page.waitForURL(/endpoint=/);
});

pageTest('a legend keeps its colours where a system forces its own', async (meter) => {
  await meter.ingest([event()]);
  const page = await open(meter, '/', { forcedColors: 'active' });
  await shows(page, '#calls', '1');
  const drawn = await page
    .locator('.legend li:not(.when)')
    .evaluateAll((keys) => keys.map((key) => getComputedStyle(key, '::before').forcedColorAdjust));
  assert.deepEqual(drawn, Array(7).fill('none'));
});

pageTest('two hundred thousand events are shown as soon as they are there', async (meter) => {
  await meter.priceCalls();
  const now = Date.now();
  for (let seed = 1; seed <= 20; seed += 1) {
    await meter.ingest(traffic({ count: 10_000, customers: 50, seed, now }));
  }
  const page = await open(meter);
  await shows(page, '#calls', '200,000');
  assert.equal(await rows(page, 'by-customer').count(), 50);
  await page.locator('#by-customer a').first().click();
  await shows(page, '#who-name', /cus_/);
  for (const period of ['5m', '24h', '30d', 'all']) {
    await page.locator(`[name=period][value="${period}"]`).check();
    // A period moves on.
    await shows(page, '#calls', async () => {
      const { body } = await meter.send('GET', `/_dev/view?customer=cus_001&period=${period}`);
      return body.totals.calls.toLocaleString('en-US');
    });
  }
});
