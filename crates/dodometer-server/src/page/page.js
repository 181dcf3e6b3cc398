// The live page: takes views from the stream and shows them.

import { charts } from './charts.js';
import { address, filter, go, listen } from './link.js';
import { choices, sections, spoken } from './sections.js';
import { put } from './tables.js';

const SPOKEN_EVERY_MS = 30_000;

const at = (id) => document.getElementById(id);
const form = at('filters');
const showSections = sections();
const showCharts = charts();
let lastSpoken = 0;
let lastCustomer = filter().customer;

function show(view) {
  const { customer, endpoint, period } = filter();
  // A view of the filter before this one may still be on its way.
  if (
    (view.filter.customer ?? '') !== customer ||
    (view.filter.endpoint ?? '') !== endpoint ||
    view.filter.period !== period
  ) {
    return;
  }
  showSections(view);
  showCharts(view);
  choices(view.choices);
  if (customer !== lastCustomer) {
    lastCustomer = customer;
    arrive();
  }
  // The figures change four times a second; a voice that reads them out must not.
  const now = Date.now();
  if (now - lastSpoken > SPOKEN_EVERY_MS) {
    lastSpoken = now;
    put(at('spoken'), spoken(view));
  }
}

/** Another customer's page begins at its top, for the eye and, where the link to it is gone, for the keyboard. */
function arrive() {
  scrollTo(0, 0);
  requestAnimationFrame(() => {
    const { activeElement } = document;
    const isGone = activeElement === document.body || !activeElement.checkVisibility();
    if (isGone) at('main').focus({ preventScroll: true });
  });
}

/** Sets the fields to what the address says. */
function showFilter() {
  const { customer, endpoint, period } = filter();
  form.customer.value = customer;
  form.endpoint.value = endpoint;
  form.period.value = period;
  at('clear').hidden = !customer && !endpoint;
  document.title = customer ? `${customer} · Local meter` : 'Local meter';
  lastSpoken = 0;
}

// Of the field alone that was changed: a field of text cannot hold every name, such as one with a line break.
form.addEventListener('change', ({ target }) => go(address({ [target.name]: target.value })));
form.addEventListener('submit', (event) => event.preventDefault());
at('clear').addEventListener('click', () => {
  go(address({ customer: '', endpoint: '' }));
  form.customer.focus();
});
addEventListener('filter', showFilter);

const base = location.origin;
const first = {
  event_id: 'first',
  customer_id: 'cus_1',
  event_name: 'api_call',
  metadata: { endpoint: '/v1/users/{id}', method: 'GET', status_code: 200, response_time_ms: 12.5 },
};
put(
  at('curl'),
  `curl ${base}/events/ingest -H 'Authorization: Bearer test' \\\n` +
    `  -H 'Content-Type: application/json' \\\n` +
    `  -d '${JSON.stringify({ events: [first] }).replace('"metadata"', '\n    "metadata"')}'`,
);
put(
  at('environment'),
  `export DODO_PAYMENTS_BASE_URL=${base}\nexport DODO_PAYMENTS_API_KEY=test\nexport DODO_INGESTION_EVENT_NAME=api_call`,
);

showFilter();
listen(show, (state, text) => {
  at('link').dataset.state = state;
  put(at('link'), text);
});
