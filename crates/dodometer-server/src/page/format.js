// Numbers, money, times and names as the page writes them.

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 });
const fixed = [0, 1, 2, 3].map(
  (digits) => new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const upToOne = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
/** Between a number and its unit, where no line may end. */
const GAP = '\u00a0';

export const NONE = '–';

export const count = (n) => whole.format(n);
export const compact = (n) => (n < 10_000 ? upToOne.format(n) : short.format(n));
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Milliseconds at three significant digits, in seconds from ten thousand on. */
export function time(ms) {
  if (ms === null || ms === undefined) return NONE;
  if (ms >= 10_000) return `${fixed[1].format(ms / 1000)}${GAP}s`;
  const decimals = ms >= 100 ? 0 : ms >= 10 ? 1 : 2;
  return `${fixed[decimals].format(ms)}${GAP}ms`;
}

/** The same for an axis, on which times are round. */
export const axisTime = (ms) => (ms >= 1000 ? `${compact(ms / 1000)}${GAP}s` : `${compact(ms)}${GAP}ms`);

export const rate = (n) => fixed[n >= 100 ? 0 : 1].format(n);

/** A share as a percentage; none of nothing. */
export function share(part, all) {
  return all ? percent((100 * part) / all) : NONE;
}

export function percent(value) {
  if (value === null || value === undefined) return NONE;
  return `${fixed[value > 0 && value < 0.1 ? 2 : 1].format(value)}%`;
}

/** A decimal that came as text, which may have more digits than a number holds. */
export function units(text) {
  const [integer, fraction] = text.split('.');
  // A BigInt has no negative zero, and -0.5 is not 0.5.
  const grouped = whole.format(fraction && integer === '-0' ? -0 : BigInt(integer));
  return fraction ? `${grouped}.${fraction}` : grouped;
}

/** Makes what shows amounts of a currency; they come in its smallest unit. */
export function money(currency) {
  if (!currency) return () => NONE;
  try {
    const format = new Intl.NumberFormat(undefined, { style: 'currency', currency });
    const unit = 10 ** format.resolvedOptions().maximumFractionDigits;
    return (amount) => format.format(amount / unit);
  } catch {
    return (amount) => `${whole.format(amount)} ${currency}`;
  }
}

const clocks = {
  second: { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' },
  minute: { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' },
  hour: { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' },
  day: { day: 'numeric', month: 'short' },
};
for (const [name, shape] of Object.entries(clocks)) {
  clocks[name] = new Intl.DateTimeFormat(undefined, shape);
}

/** A moment, as exactly as a step of so many seconds asks for. */
export function moment(seconds, step) {
  const clock = step < 60 ? 'second' : step < 900 ? 'minute' : step < 86_400 ? 'hour' : 'day';
  return clocks[clock].format(seconds * 1000);
}

export const axisMoment = (seconds, step) =>
  clocks[step < 60 ? 'second' : step < 86_400 ? 'minute' : 'day'].format(seconds * 1000);

export const clock = (timestamp) => clocks.second.format(new Date(timestamp));

/** What a line of a table is called. */
export function name(line, none) {
  if (line.other) return 'others';
  return line.name ?? none;
}

export const PERIODS = {
  '5m': 'the last 5 minutes',
  '1h': 'the last hour',
  '24h': 'the last 24 hours',
  '30d': 'the last 30 days',
  all: 'all time',
};
