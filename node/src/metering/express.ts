/**
 * Route templates of Express 4 and 5.
 *
 * `req.baseUrl` holds what the client asked for, not the template that a router is mounted by. So the routers are
 * walked for the layers that lead to the route, and the template is made of what the developer wrote and of names of
 * parameters alone. What cannot be found exactly becomes `*`, never a part of the path.
 */

import type { IncomingMessage } from 'node:http';
import { knownOf, toldOf } from './told';

type Pattern = string | RegExp;

interface Route {
  path: Pattern | readonly Pattern[];
  methods?: Readonly<Record<string, boolean | undefined>>;
}

/** One entry of a router. Which of these there are depends on the version. */
interface Layer {
  handle: Handle;
  route?: Route | undefined;
  /** Express 4. */
  regexp?: RegExp & { fast_slash?: boolean };
  keys?: readonly { name: string | number }[];
  /** Express 5. */
  slash?: boolean;
  matchers?: readonly ((path: string) => unknown)[];
  params?: Readonly<Record<string, unknown>>;
  path?: string;
  match(path: string): boolean | Match;
}

/** What `Layer.match` gives from router 2.3 on. */
interface Match {
  path: string;
  pattern?: Pattern;
  params: Readonly<Record<string, unknown>>;
}

interface Handle {
  name?: string;
  stack?: readonly Layer[];
}

interface App extends Handle {
  parent?: App;
  /** Express 4. */
  _router?: Handle;
  /** Express 5. In Express 4 it throws. */
  router?: Handle;
}

/** What there was when a route took the request. A router that gives an error on has taken it away in the end. */
interface Taken {
  route: Route;
  baseUrl: string;
  url: string;
  app: App | undefined;
}

/** An Express request, as far as it is looked at. */
export interface ExpressRequest extends IncomingMessage {
  route?: unknown;
  baseUrl?: string;
  app?: unknown;
}

/** The route that took a request. Not in the request: each has a shape of its own, which a property more has to copy. */
interface Taking {
  route: unknown;
  taken: Taken | undefined;
}

function takingOf(request: object): Taking | undefined {
  return knownOf(request)?.kept as Taking | undefined;
}

const ROUTE: PropertyDescriptor & ThisType<ExpressRequest> = {
  configurable: true,
  get() {
    let taking: Taking | undefined;
    // What inherits from a request has its route, too.
    let each: object | null = this;
    while (taking === undefined && each !== null) {
      taking = takingOf(each);
      each = Object.getPrototypeOf(each) as object | null;
    }
    return taking?.route;
  },
  set(route: unknown) {
    const taking: Taking = { route, taken: takenBy(route, this) };
    toldOf(this).kept = taking;
  },
};

function takenBy(route: unknown, request: ExpressRequest): Taken | undefined {
  if (!isRoute(route) || (request.method === 'HEAD' && !takesHead(route))) {
    return undefined;
  }
  const { baseUrl = '', url = '', app } = request;
  return { route, baseUrl, url, app: app as App | undefined };
}

/** Prototypes of requests that notice their routes. */
const NOTICING = new WeakSet<object>();

/** Notices the routes that take a request; gives the template of the last one. */
export function record(request: ExpressRequest): () => string | undefined {
  const { app } = request;
  // One may have it already: the route of this middleware itself, or one that has handed it on.
  const isOwn = Object.hasOwn(request, 'route');
  const route = isOwn ? request.route : undefined;
  if (isOwn) {
    delete request.route;
  }
  const prototype = Object.getPrototypeOf(request) as object;
  if (!NOTICING.has(prototype)) {
    const apps = prototypeOfApp(request);
    Object.defineProperty(apps ?? request, 'route', ROUTE);
    if (apps !== undefined) {
      NOTICING.add(prototype);
    }
  }
  if (isOwn) {
    request.route = route;
  }
  return () => {
    // An app that a function has handed it to, as `vhost` does, has given it a prototype that notices nothing.
    const own: unknown = Object.getOwnPropertyDescriptor(request, 'route')?.value;
    const taken = takenBy(own, request) ?? takingOf(request)?.taken;
    return taken && template(taken, app as App | undefined);
  };
}

/**
 * What the requests of an app and of those that are mounted in it inherit from. An accessor in each request would give
 * each a shape of its own, and everything that reads one would look it up anew.
 */
function prototypeOfApp(request: object): object | undefined {
  let found: object | undefined;
  let each = Object.getPrototypeOf(request) as object | null;
  while (each !== null) {
    if (Object.hasOwn(each, 'app')) {
      found = each;
    }
    each = Object.getPrototypeOf(each) as object | null;
  }
  return found;
}

function isRoute(value: unknown): value is Route {
  return typeof value === 'object' && value !== null && 'path' in value;
}

/** Express has a HEAD enter each route of its path, also one that has no answer to it. */
function takesHead({ methods }: Route): boolean {
  return methods === undefined || Boolean(methods._all || methods.head || methods.get);
}

function template(taken: Taken, middlewareApp: App | undefined): string {
  const { route, baseUrl } = taken;
  // Most routes are one text in a router that is mounted nowhere.
  const isPlain = baseUrl === '' && typeof route.path === 'string';
  const chain = isPlain ? undefined : chainOf(taken, middlewareApp);
  const front = chain?.front ?? (baseUrl === '' ? '' : '/*');
  const own = typeof route.path === 'string' ? route.path : which(route, chain?.layer, taken.url);
  return own === '/' && front !== '' ? front : front + own;
}

interface Chain {
  front: string;
  /** The layer of the route itself; absent where it is out of sight. */
  layer: Layer | undefined;
}

interface Way {
  baseUrl: string;
  app: App | undefined;
  middlewareApp: App | undefined;
  chain: Chain | undefined;
}

/** The last way to each route: for most routes there is one, whatever the client asks for. */
const LAST = new WeakMap<Route, Way>();

function chainOf(taken: Taken, middlewareApp: App | undefined): Chain | undefined {
  const { route, baseUrl, app } = taken;
  const last = LAST.get(route);
  if (last?.baseUrl === baseUrl && last.app === app && last.middlewareApp === middlewareApp) {
    return last.chain;
  }
  const chain = find(taken, middlewareApp);
  LAST.set(route, { baseUrl, app, middlewareApp, chain });
  return chain;
}

/** The layers that lead to the route. */
function find({ route, baseUrl, app }: Taken, middlewareApp: App | undefined): Chain | undefined {
  let opaque: Chain | undefined;
  const walk = (
    apps: readonly App[],
    depth: number,
    stack: readonly Layer[],
    rest: string,
  ): Chain | undefined => {
    const next = apps[depth + 1];
    for (const layer of stack) {
      if (layer.route !== undefined) {
        if (layer.route === route && rest === '') {
          return { front: '', layer };
        }
        continue;
      }
      const { handle } = layer;
      const enters = next !== undefined && (handle === next || handle.name === 'mounted_app');
      const inner = stackOf(enters ? next : handle);
      if (inner === undefined && rest === '') {
        continue;
      }
      const part = mount(layer, rest);
      if (part === undefined) {
        continue;
      }
      if (inner !== undefined) {
        const chain = walk(apps, depth + (enters ? 1 : 0), inner, rest.slice(part.length));
        if (chain !== undefined) {
          return { front: part.template + chain.front, layer: chain.layer };
        }
      } else if (part.length === rest.length && rest === baseUrl) {
        // A function of the user's may hand on to a router.
        opaque ??= { front: part.template, layer: undefined };
      }
    }
    return undefined;
  };
  const through = (apps: readonly App[]) =>
    apps[0] && walk(apps, 0, stackOf(apps[0]) ?? [], baseUrl);
  const own = withParents(app);
  const outer = withParents(middlewareApp);
  // An app that a router mounts has no parent: the way to it leads through the middleware's.
  const isApart = own[0] !== undefined && !outer.includes(own[0]);
  return (isApart ? through([...outer, ...own]) : undefined) ?? through(own) ?? opaque;
}

function withParents(app: App | undefined): readonly App[] {
  const apps: App[] = [];
  for (let each = app; each !== undefined; each = each.parent) {
    apps.unshift(each);
  }
  return apps;
}

function stackOf(handle: Handle): readonly Layer[] | undefined {
  if (Array.isArray(handle.stack)) {
    return handle.stack;
  }
  const app = handle as App;
  if (app._router !== undefined) {
    return app._router.stack;
  }
  // An app of Express 4 without a router would throw.
  return Object.hasOwn(app, 'router') && 'mountpath' in app ? routerOf(app)?.stack : undefined;
}

function routerOf(app: App): Handle | undefined {
  try {
    return app.router;
  } catch {
    return undefined;
  }
}

/** How much of the path a layer takes away, and by which template. */
function mount(layer: Layer, path: string): { length: number; template: string } | undefined {
  if (layer.slash || layer.regexp?.fast_slash) {
    return { length: 0, template: '' };
  }
  if (layer.regexp !== undefined) {
    return byRegExp(layer.regexp, layer.keys ?? [], path);
  }
  const matched = layer.match(path);
  if (matched === false) {
    return undefined;
  }
  const found: Partial<Match> = matched === true ? (layer as Partial<Match>) : matched;
  const { path: taken = '', params = {}, pattern } = found;
  return {
    length: trimmed(taken).length,
    template: pattern === undefined ? byParams(taken, params, layer) : trimmed(String(pattern)),
  };
}

/** Express 4: where the groups lie in the path is known, and the rest is looked up in the regular expression. */
function byRegExp(
  regexp: RegExp,
  keys: readonly { name: string | number }[],
  path: string,
): { length: number; template: string } | undefined {
  const found = withIndices(regexp).exec(path);
  if (found?.indices === undefined) {
    return undefined;
  }
  const written = regexp.source.replaceAll('\\', '');
  const length = trimmed(found[0]).length;
  let template = '';
  let at = found.index;
  found.indices.slice(1).forEach((range, group) => {
    // A group within one that was taken is taken.
    if (range !== undefined && range[0] >= at) {
      template += spelled(path.slice(at, range[0]), written) + named(keys[group]?.name ?? group);
      at = range[1];
    }
  });
  return { length, template: template + spelled(path.slice(at, Math.max(at, length)), written) };
}

const INDICES = new WeakMap<RegExp, RegExp>();

function withIndices(regexp: RegExp): RegExp {
  let indexed = INDICES.get(regexp);
  if (indexed === undefined) {
    indexed = new RegExp(regexp.source, `${regexp.flags.replaceAll(/[dgy]/g, '')}d`);
    INDICES.set(regexp, indexed);
  }
  return indexed;
}

/** A part of the path as the developer wrote it: the case is the client's. */
function spelled(part: string, written: string): string {
  // The slash before a parameter is written within its group.
  const slash = part.endsWith('/') ? '/' : '';
  const text = trimmed(part);
  const at = written.toLowerCase().indexOf(text.toLowerCase());
  return (at < 0 ? '*' : written.slice(at, at + text.length)) + slash;
}

function named(name: string | number): string {
  return typeof name === 'number' || /^\d/.test(name) ? '*' : `:${name}`;
}

/**
 * Express before router 2.3 keeps no template: segments that are the value of a parameter give way to its name, and
 * what holds a value otherwise to `*`. The case of the others is the client's, where the router does not mind it.
 */
function byParams(taken: string, params: Readonly<Record<string, unknown>>, layer: Layer): string {
  const segments = trimmed(taken).split('/').map(decoded);
  const template: (string | undefined)[] = segments.map(() => undefined);
  for (const [name, value] of Object.entries(params)) {
    const parts = Array.isArray(value) ? value.map(String) : [String(value ?? '')];
    const text = parts.join('/');
    if (text === '') {
      continue;
    }
    const whole = segments.flatMap((_, at) =>
      segments.slice(at, at + parts.length).join('/') === text ? [at] : [],
    );
    for (const at of whole) {
      template.fill('', at, at + parts.length);
      template[at] = Array.isArray(value) ? `*${name}` : named(name);
    }
    if (whole.length === 0) {
      segments.forEach((segment, at) => {
        if (parts.some((part) => segment.includes(part))) {
          template[at] ??= '*';
        }
      });
    }
  }
  const folds = layer.match(taken.toUpperCase()) !== false;
  const spelt = segments.map(
    (segment, at) => template[at] ?? (folds ? segment.toLowerCase() : segment),
  );
  return spelt.filter((segment, at) => at === 0 || segment !== '').join('/');
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** Which of a route's patterns it was, as text. */
function which(route: Route, layer: Layer | undefined, url: string): string {
  const patterns = (Array.isArray(route.path) ? route.path.flat(9) : [route.path]) as Pattern[];
  const [first] = patterns;
  if (patterns.length === 1 && first !== undefined) {
    return String(first);
  }
  const end = url.indexOf('?');
  const path = end < 0 ? url : url.slice(0, end);
  const sources = layer?.regexp?.source.split(/\|(?=\^)/);
  const tests =
    layer?.matchers ??
    sources?.map((source) => (of: string) => new RegExp(source, layer?.regexp?.flags).test(of));
  if (tests?.length === patterns.length) {
    const pattern = patterns[tests.findIndex((matches) => matches(path))];
    if (pattern !== undefined) {
      return String(pattern);
    }
  }
  return patterns.join('|');
}

function trimmed(path: string): string {
  return path.endsWith('/') ? path.slice(0, -1) : path;
}
