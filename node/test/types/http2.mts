import { createServer as createHttp1Server, IncomingMessage } from 'node:http';
import { createSecureServer, createServer, type Http2ServerRequest } from 'node:http2';
import { type HttpRequest, type MeterOptions, meter, setCustomer } from 'dodo-ingestion/http';
import { meter as proxied } from 'dodo-ingestion/http-proxy';
import { ingestion } from './ingestion.mjs';

const routeOf = (req: IncomingMessage) => (req.url === '/' ? '/' : undefined);
const metered = meter(ingestion, {
  endpoint: (req) => routeOf(req),
  customer: (req) => req.headers.authorization,
});
const server = createSecureServer({ allowHTTP1: true }, (req, res) => {
  metered(req, res);
  setCustomer(req, 'cus_1');
  res.end();
});
server.on('upgrade', metered.upgrade);
createServer(metered);
createServer().on('request', proxied(ingestion));

// The callbacks get what the server gives, where that is known.
createServer(meter(ingestion, { skip: (req) => req.stream.pushAllowed }));
const streams = meter<Http2ServerRequest>(ingestion, { skip: (req) => req.stream.pushAllowed });
createServer((req, res) => streams(req, res));
const annotated = meter(ingestion, { skip: (req: Http2ServerRequest) => req.stream.pushAllowed });
createServer((req, res) => annotated(req, res));

// One meter for servers of both.
const options: MeterOptions<HttpRequest> = {
  endpoint: (req) => (req instanceof IncomingMessage ? routeOf(req) : req.authority),
};
const both = meter(ingestion, options);
createServer((req, res) => both(req, res));
createHttp1Server((req, res) => both(req, res));

interface Authenticated extends IncomingMessage {
  user: string;
}
const authenticated = meter(ingestion, { customer: (req: Authenticated) => req.user });
createHttp1Server((req, res) => authenticated(Object.assign(req, { user: 'cus_1' }), res));
// @ts-expect-error: the callbacks ask for what not every request has
createServer((req, res) => authenticated(req, res));
// @ts-expect-error: they ask for what HTTP/1 has not
createHttp1Server((req, res) => streams(req, res));
