// What the page shows beside the charts: totals, tables, meters, events and requests.

import { clock, count, money, NONE, name, PERIODS, plural, rate, share, time, units } from './format.js';
import { address } from './link.js';
import { make, put, Table } from './tables.js';

const at = (id) => document.getElementById(id);

const columns = {
  calls: { label: 'Calls', number: true, sort: (line) => line.calls, text: (line) => count(line.calls) },
  billed: { label: 'Billed', number: true, sort: (line) => line.billed, text: (line) => count(line.billed) },
  errors: {
    label: '5xx',
    number: true,
    sort: (line) => (line.answered ? line.errors / line.answered : null),
    text: (line) => share(line.errors, line.answered),
    style: (line) => (line.errors ? 'bad' : ''),
  },
  clientErrors: {
    label: '4xx',
    number: true,
    sort: (line) => (line.answered ? line.client_errors / line.answered : null),
    text: (line) => share(line.client_errors, line.answered),
    style: (line) => (line.client_errors ? 'warn' : ''),
  },
  ...Object.fromEntries(
    ['p50', 'p95', 'p99'].map((of) => [
      of,
      { label: of, number: true, sort: (line) => line[`${of}_ms`], text: (line) => time(line[`${of}_ms`]) },
    ]),
  ),
};

/** The column that names a line, perhaps with a link to the view of it alone. */
const naming = (label, none, link) => ({
  label,
  shape: 'text',
  sort: (line) => name(line, none),
  text: (line) => name(line, none),
  title: (line) => line.name ?? '',
  style: (line) => (line.name === null ? 'soft' : ''),
  link: link && ((line) => (line.name === null ? null : address({ [link]: line.name }))),
});

const lineKey = (line) => (line.other ? 'other' : line.name === null ? 'none' : `name ${line.name}`);

const AMONG_OTHERS = 'There were too many endpoints to tell this one apart: its calls are among the “others”.';

const MOST_SHOWN = 'lines are shown, those with the most calls';

function breakdown(id, title, columns) {
  const table = new Table(at(id), { title, titleId: `${id}-title`, key: lineKey, sorted: 1, columns });
  return ({ rows, more }) => {
    const note = more ? `${count(rows.length)} of ${count(rows.length + more)} ${MOST_SHOWN}.` : '';
    table.show(rows, { note });
  };
}

export function sections() {
  let show = money(null);
  const { calls, billed, errors, clientErrors, p50, p95, p99 } = columns;
  const owed = {
    label: 'Invoice',
    number: true,
    sort: (line) => line.amount,
    text: (line) => (line.amount === undefined ? NONE : show(line.amount)),
  };
  const customers = breakdown('by-customer', 'By customer', [
    naming('Customer', 'none', 'customer'),
    calls,
    errors,
    p50,
    p95,
    owed,
  ]);
  const endpoints = breakdown('by-endpoint', 'By endpoint', [
    naming('Endpoint', 'none given', 'endpoint'),
    calls,
    errors,
    clientErrors,
    p50,
    p95,
    p99,
  ]);
  const events = breakdown('by-event', 'By event', [naming('Event name', 'none'), calls, billed]);
  const methods = breakdown('by-method', 'By method', [naming('Method', 'none given'), calls, errors, p95]);
  const statuses = breakdown('by-status', 'By status', [naming('Status', 'none given'), calls, p50, p95]);

  const meters = new Table(at('meters'), {
    title: 'Meters and projected invoice',
    titleId: 'meters-title',
    key: (meter) => meter.id,
    columns: [
      {
        label: 'Meter',
        shape: 'text',
        text: (meter) => meter.name + (meter.archived ? ' (archived)' : ''),
        title: (meter) => meter.id,
      },
      { label: 'Counts', shape: 'text', text: counts, title: counts },
      {
        label: 'Usage',
        number: true,
        text: (meter) => `${units(meter.consumed_units)}`,
        title: (meter) => meter.measurement_unit,
      },
      { label: 'Unit', shape: 'text', text: (meter) => meter.measurement_unit },
      {
        label: 'Free, each customer',
        number: true,
        text: (meter) => (meter.price_per_unit ? count(meter.free_threshold) : NONE),
      },
      { label: 'Chargeable', number: true, text: (meter) => units(meter.chargeable_units) },
      {
        label: 'Price a unit',
        number: true,
        text: (meter) => (meter.price_per_unit ? unitPrice(meter.price_per_unit, meter.currency) : 'no price'),
      },
      {
        label: 'Invoice',
        number: true,
        text: (meter) => (meter.price_per_unit && !meter.archived ? show(meter.amount) : NONE),
      },
    ],
  });

  const newest = new Table(at('newest'), {
    title: 'Newest events',
    titleId: 'newest-title',
    key: (event) => event.cursor,
    columns: [
      { label: 'Time', text: (event) => clock(event.timestamp), title: (event) => event.timestamp },
      {
        label: 'Customer',
        shape: 'text',
        text: (event) => event.customer_id,
        title: (event) => event.customer_id,
        link: (event) => address({ customer: event.customer_id }),
      },
      { label: 'Event', shape: 'text', text: (event) => event.event_name, title: (event) => event.event_name },
      { label: 'Method', shape: 'text', text: (event) => event.method ?? NONE, title: (event) => event.method ?? '' },
      {
        label: 'Endpoint',
        shape: 'text',
        text: (event) => event.endpoint ?? NONE,
        title: (event) => event.endpoint ?? '',
      },
      {
        label: 'Status',
        shape: 'text',
        text: (event) => event.status_code ?? NONE,
        title: (event) => event.status_code ?? '',
        style: statusStyle,
      },
      { label: 'Time taken', number: true, text: (event) => time(event.response_time_ms) },
      {
        label: 'Billed',
        text: (event) => (event.billed ? 'yes' : 'no'),
        style: (event) => (event.billed ? '' : 'soft'),
      },
    ],
  });

  const refusals = new Table(at('refusals'), {
    title: 'Refused, and why',
    titleId: 'refusals-title',
    level: 'h3',
    key: (refusal) => refusal.number,
    columns: [
      { label: 'Time', text: (refusal) => clock(refusal.timestamp), title: (refusal) => refusal.timestamp },
      { label: 'Status', number: true, text: (refusal) => String(refusal.status), style: () => 'bad' },
      { label: 'Code', text: (refusal) => refusal.code },
      { label: 'Why', shape: 'wrap', text: (refusal) => refusal.message },
      {
        label: 'Events',
        number: true,
        text: (refusal) => (refusal.events === null ? 'unknown' : count(refusal.events)),
      },
    ],
  });

  return (view) => {
    const { totals, filter, requests } = view;
    const one = filter.customer !== null;
    show = money(view.currency);
    at('empty').hidden = view.stored > 0;
    at('filled').hidden = view.stored === 0;
    at('ingest').hidden = view.stored === 0 && requests.accepted + requests.refused === 0;
    at('who').hidden = !one;
    put(at('who-name'), filter.customer ?? '');
    at('who-name').title = filter.customer ?? '';
    at('everybody').setAttribute('href', address({ customer: '' }));
    at('by-customer').hidden = one;
    at('by-customer').parentElement.classList.toggle('one-customer', one);
    at('nothing').hidden = totals.calls > 0;
    put(at('nothing'), view.among_others ? AMONG_OTHERS : 'No call matches the filter in this period.');
    const ofCalls = (text) => (view.among_others ? NONE : text);

    const priced = view.meters.filter((meter) => meter.price_per_unit && !meter.archived);
    put(at('amount'), show(totals.amount));
    put(
      at('amount-sub'),
      priced.length ? `all time, ${plural(priced.length, 'meter')} with a price` : 'no meter has a price',
    );
    put(at('calls'), ofCalls(count(totals.calls)));
    put(at('calls-sub'), ofCalls(`${count(totals.billed)} billed · ${count(totals.calls - totals.billed)} not`));
    put(at('rate'), ofCalls(rate(totals.calls_per_second)));
    put(at('errors'), share(totals.errors, totals.answered));
    put(
      at('errors-sub'),
      `${count(totals.errors)} of ${count(totals.answered)} · 4xx ${share(totals.client_errors, totals.answered)}`,
    );
    put(at('p95'), time(totals.p95_ms));
    put(at('times-sub'), `p50 ${time(totals.p50_ms)} · p99 ${time(totals.p99_ms)}`);

    customers(view.customers);
    endpoints(view.endpoints);
    events(view.events);
    methods(view.methods);
    statuses(view.statuses);
    const whose = one ? 'of this customer' : 'of all customers';
    meters.show(view.meters, {
      note: view.meters.length
        ? `Usage ${whose} since the data begins, whatever the period and endpoint: an invoice is for all of it.`
        : 'No meter yet: POST /meters makes one, PUT /_dev/meters/{id}/price gives it a price.',
    });
    newest.show(view.newest, {
      note: filter.endpoint !== null && view.newest.length < 25 ? 'Of the last 1,000 events.' : '',
    });
    put(at('budget-text'), `${count(requests.last_minute)} of ${count(requests.budget)}`);
    Object.assign(at('budget'), { max: requests.budget, value: requests.last_minute });
    put(at('accepted'), count(requests.accepted));
    put(at('per-request'), rate(view.stored / Math.max(requests.accepted, 1)));
    put(at('refused'), count(requests.refused));
    at('refused').className = requests.refused ? 'bad' : '';
    put(at('duplicates'), count(requests.duplicates));
    at('refusals').hidden = requests.refusals.length === 0;
    // They are the last ones, the newest first.
    const numbered = requests.refusals.map((refusal, index) => ({ ...refusal, number: requests.refused - index }));
    refusals.show(numbered, { note: 'The last 50 since the meter started.' });
  };
}

function statusStyle({ status_code: status }) {
  if (/^5\d\d$/.test(status)) return 'bad';
  return /^4\d\d$/.test(status) ? 'warn' : '';
}

/** A price of a unit, which may be far less than the smallest coin: written out, never rounded. */
function unitPrice(price, currency) {
  return `${price} ${currency === 'USD' || currency === 'EUR' ? '¢' : 'smallest units'}`;
}

/** What a meter counts, in words. */
function counts({ event_name, aggregation, filter }) {
  const what = aggregation.type === 'count' ? 'count' : `${aggregation.type} of ${aggregation.key}`;
  return `${what} in ${event_name}${filter ? ', filtered' : ''}`;
}

/** What a voice says of a view. */
export function spoken({ totals, filter, currency, requests, among_others }) {
  if (among_others) return AMONG_OTHERS;
  const whose = filter.customer === null ? '' : ` of customer ${filter.customer}`;
  const where = filter.endpoint === null ? '' : ` at ${filter.endpoint}`;
  const invoice = currency ? `, invoice ${money(currency)(totals.amount)}` : '';
  const refused = requests.refused ? `, ${plural(requests.refused, 'request')} refused` : '';
  return `${plural(totals.calls, 'call')}${whose}${where} in ${PERIODS[filter.period]}${invoice}${refused}.`;
}

/** Fills the lists that the filter's fields suggest. */
export function choices({ customers, endpoints }) {
  for (const [id, texts] of [
    ['customer-choices', customers],
    ['endpoint-choices', endpoints],
  ]) {
    const list = at(id);
    const known = [...list.children].map((option) => option.value);
    if (known.join('\n') !== texts.join('\n')) {
      list.replaceChildren(...texts.map((text) => make('option', { value: text })));
    }
  }
}
