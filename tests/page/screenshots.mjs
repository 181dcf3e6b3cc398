// Makes the pictures of the page in docs/images: `DODOMETER_BIN=… node tests/page/screenshots.mjs`. With a data file
// of a million events, as the server's example `million` makes one, also one of that: `… screenshots.mjs million.db`

import { mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { launch, shows, tab } from './browser.mjs';
import { event, startMeter, traffic } from './meter.mjs';

const images = new URL('../../docs/images/', import.meta.url);

const DESK = { viewport: { width: 1280, height: 1060 } };
const PHONE = { viewport: { width: 360, height: 780 }, deviceScaleFactor: 2, isMobile: true };

async function picture(browser, meter, name, { path = '/', ready, full = false, ...options }) {
  const { page, context, mishaps } = await tab(browser, meter, { ...DESK, ...options });
  await page.goto(meter.url + path);
  await ready(page);
  const file = fileURLToPath(new URL(`page-${name}.png`, images));
  await page.screenshot({ path: file, fullPage: full, animations: 'disabled' });
  await context.close();
  if (mishaps.length) throw new Error(`${name}: ${mishaps}`);
  console.log(`${file}  ${Math.ceil(statSync(file).size / 1024)} kB`);
}

async function withMeter(run, options) {
  const meter = await startMeter(options);
  try {
    await run(meter);
  } finally {
    await meter.stop();
  }
}

mkdirSync(images, { recursive: true });
const browser = await launch();
try {
  await withMeter(async (meter) => {
    await picture(browser, meter, 'empty', {
      viewport: { width: 1280, height: 640 },
      ready: (page) => shows(page, '#link', 'live'),
    });
    await meter.priceCalls();
    await meter.ingest([event({ response_bytes: 812 })]);
    await picture(browser, meter, 'one', { ready: (page) => shows(page, '#calls', '1'), full: true });
  });
  await withMeter(async (meter) => {
    await meter.priceCalls();
    await meter.ingest(traffic({ count: 40_000, customers: 50 }));
    await meter.ingest(traffic({ count: 300, customers: 50, minutes: 1, seed: 2 }));
    const late = event({ at: new Date(Date.now() - 2 * 3_600_000) });
    await meter.send('POST', '/events/ingest', { events: [event(), late] });
    await meter.send('POST', '/events/ingest', { events: [{ ...event(), customer_id: 7 }] });
    const again = event();
    await meter.ingest([again]);
    await meter.ingest([again]);
    const ready = (page) => shows(page, '#calls', '40,301');
    const phone = { ...PHONE, viewport: { width: 360, height: 1180 } };
    await picture(browser, meter, 'fifty', { ready });
    await picture(browser, meter, 'dark', { ready, colorScheme: 'dark', viewport: { width: 1280, height: 1560 } });
    await picture(browser, meter, 'phone', { ready, ...phone });
    await picture(browser, meter, 'customer', {
      path: '/?customer=cus_007',
      ready: (page) => shows(page, '#who-name', 'cus_007'),
    });
  });
  const [data] = process.argv.slice(2);
  if (data) {
    await withMeter(
      (meter) =>
        picture(browser, meter, 'million', {
          path: '/?period=all',
          ready: (page) => shows(page, '#calls', '1,000,000'),
        }),
      { data },
    );
  }
} finally {
  await browser.close();
}
