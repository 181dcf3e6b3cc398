// The filter, which lives in the address, and the stream of views for it.

import { PERIODS } from './format.js';

const RETRY_MS = 1000;
/** A view comes at least every 5 seconds. */
const SILENCE_MS = 15_000;
const DEFAULT_PERIOD = '1h';

/** The filter that the address says. */
export function filter() {
  const query = new URLSearchParams(location.search);
  const period = query.get('period');
  return {
    customer: query.get('customer') ?? '',
    endpoint: query.get('endpoint') ?? '',
    period: Object.hasOwn(PERIODS, period) ? period : DEFAULT_PERIOD,
  };
}

function query({ customer, endpoint, period }) {
  const query = new URLSearchParams();
  if (customer) query.set('customer', customer);
  if (endpoint) query.set('endpoint', endpoint);
  if (period !== DEFAULT_PERIOD) query.set('period', period);
  return query.size ? `?${query}` : '';
}

/** The address of the page for the present filter with some of it changed. */
export const address = (change) => `/${query({ ...filter(), ...change })}`;

/** Goes to another filter: a step back leads to this one. */
export function go(url) {
  if (url !== location.pathname + location.search) {
    history.pushState(null, '', url);
    dispatchEvent(new Event('filter'));
  }
}

addEventListener('popstate', () => dispatchEvent(new Event('filter')));

// Links within the page change the filter without loading it anew; they are links all the same.
document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[data-in-page]');
  const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button);
  if (link && plain) {
    event.preventDefault();
    go(link.getAttribute('href'));
  }
});

/**
 * Listens to the views of the present filter, and says how the connection is: `show(view)`,
 * `state(name, text)`. A connection that is lost is made anew, for as long as it takes. A page that nobody
 * sees has none: a browser keeps few to a server, for all of its tabs.
 */
export function listen(show, state) {
  let stream;
  let retry;
  let silence;
  const expect = () => {
    clearTimeout(silence);
    silence = setTimeout(() => state('lost', 'server silent, waiting'), SILENCE_MS);
  };
  const connect = () => {
    clearTimeout(retry);
    clearTimeout(silence);
    stream?.close();
    if (document.hidden) {
      state('waiting', 'paused');
      return;
    }
    expect();
    const { customer, endpoint, period } = filter();
    const mine = new EventSource(`/_dev/stream?${new URLSearchParams({ customer, endpoint, period })}`);
    stream = mine;
    mine.addEventListener('view', (message) => {
      if (mine !== stream) return;
      expect();
      state('live', 'live');
      show(JSON.parse(message.data));
    });
    mine.addEventListener('error', () => {
      // The browser's own retry can take many seconds, and gives up on some answers.
      mine.close();
      if (mine !== stream) return;
      clearTimeout(silence);
      state('lost', 'server away, trying again');
      retry = setTimeout(connect, RETRY_MS);
    });
  };
  addEventListener('filter', connect);
  document.addEventListener('visibilitychange', connect);
  connect();
}
