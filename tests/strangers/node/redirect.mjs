/**
 * A preload that sends what is meant for the billing API's hosts to a meter.
 *
 * The existing package names its hosts itself, and refuses to be told another one. It calls
 * `globalThis.fetch`, by way of the official SDK. A host that nobody has redirected is an error:
 * these tests talk to nobody but the meter.
 */
const meters = new Map();
const fetch = globalThis.fetch;

/** From now on, what is sent to this host of the billing API goes to a meter. */
export function redirect(host, url) {
  meters.set(host, url);
}

globalThis.fetch = (input, init) => {
  const { protocol, host, hostname, pathname, search } = new URL(input.url ?? input);
  if (hostname === '127.0.0.1') {
    return fetch(input, init);
  }
  const meter = protocol === 'https:' && meters.get(host);
  if (!meter) {
    return Promise.reject(new Error(`nobody redirects ${host}`));
  }
  return fetch(new URL(pathname + search, meter), init);
};
