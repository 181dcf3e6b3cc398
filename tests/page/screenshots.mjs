// Makes the pictures of the page in docs/images: `DODOMETER_BIN=… node tests/page/screenshots.mjs`

import { mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { launch, shows, tab } from './browser.mjs';
import { event, startMeter, traffic } from './meter.mjs';

const images = new URL('../../docs/images/', import.meta.url);

const DESK = { viewport: { width: 1280, height: 1060 } };

async function picture(browser, meter, name, { path = '/', ready, ...options }) {
  const { page, context, mishaps } = await tab(browser, meter, { ...DESK, ...options });
  await page.goto(meter.url + path);
  await ready(page);
  const file = fileURLToPath(new URL(`page-${name}.png`, images));
  await page.screenshot({ path: file, animations: 'disabled' });
  await context.close();
  if (mishaps.length) throw new Error(`${name}: ${mishaps}`);
  console.log(`${file}  ${Math.ceil(statSync(file).size / 1024)} kB`);
}

mkdirSync(images, { recursive: true });
const browser = await launch();
const meter = await startMeter();
try {
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
  await picture(browser, meter, 'fifty', { ready });
  await picture(browser, meter, 'dark', { ready, colorScheme: 'dark', viewport: { width: 1280, height: 1560 } });
  await picture(browser, meter, 'customer', {
    path: '/?customer=cus_007',
    ready: (page) => shows(page, '#who-name', 'cus_007'),
  });
} finally {
  await meter.stop();
  await browser.close();
}
