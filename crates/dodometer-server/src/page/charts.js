// The charts: drawn by uPlot, read out by their captions, and each a table on demand.

import { axisMoment, axisTime, compact, count, moment, percent, share, time } from './format.js';
import { make, put, Table } from './tables.js';
import uPlot from './vendor/uPlot.js';

const dark = matchMedia('(prefers-color-scheme: dark)');

/** A colour of the page's style. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** What lies between two marks of the axis of values. */
const STEPS_OF_VALUES = Array.from({ length: 16 }, (_, power) =>
  [1, 2, 5].map((step) => step * 10 ** (power - 1)),
).flat();

const DASHES = { dashed: [7, 4], dotted: [2, 3] };

/** Where a line has a value and none beside it, which would not be seen without a point. */
function alone(plot, index, all) {
  if (all) return null;
  const values = plot.data[index];
  const isNone = (at) => (values[at] ?? null) === null;
  return [...values.keys()].filter((at) => !isNone(at) && isNone(at - 1) && isNone(at + 1));
}

/**
 * One chart. `parts` are `{ of, label, line?, bars?, values(series), text(value), whole(view) }`; `rest(view)` is
 * said while the pointer is elsewhere.
 */
class Chart {
  #element;
  #parts;
  #options;
  #plot = null;
  #data;
  #series;
  #view;
  #readings;
  #when = make('li', { className: 'when' });
  #box = make('div', { className: 'plot', 'aria-hidden': 'true' });
  #summary = make('p', { className: 'unseen' });
  #table;
  #details;

  constructor(id, { title, parts, drawn = parts, unit, rest, summary }) {
    this.#element = document.getElementById(id);
    this.#parts = parts;
    this.#options = { drawn, unit, rest, summary };
    const titleId = `${id}-title`;
    this.#readings = parts.map((part) => {
      const value = make('b');
      const item = make('li', { 'data-of': part.of }, `${part.label} `, value);
      if (part.line) item.dataset.line = part.line;
      return { value, item };
    });
    const legend = make('ul', { className: 'legend' }, ...this.#readings.map(({ item }) => item), this.#when);
    const caption = make('figcaption', {}, make('h2', { id: titleId }, title), legend);
    this.#details = make('details', {}, make('summary', {}, `${title} as a table`));
    this.#table = new Table(this.#details, {
      title: `${title}, by time`,
      titleId: `${id}-table`,
      level: 'h3',
      key: (line) => line.start,
      columns: [
        { label: 'From', text: (line) => moment(line.start, this.#series.width) },
        ...parts.map((part, index) => ({
          label: part.label,
          number: true,
          text: (line) => part.text(line.values[index]),
        })),
      ],
    });
    this.#table.title.className = 'unseen';
    this.#details.addEventListener('toggle', () => this.#fillTable());
    this.#element.append(caption, this.#summary, this.#box, this.#details);
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(this.#box);
    dark.addEventListener('change', () => this.#build());
  }

  show(view) {
    this.#view = view;
    this.#series = view.series;
    const data = [view.series.starts, ...this.#options.drawn.map((part) => part.values(view.series))];
    const wide = this.#data?.[0][1] - this.#data?.[0][0] !== data[0][1] - data[0][0];
    this.#data = data;
    if (!this.#plot || wide) this.#build();
    else this.#plot.setData(data);
    this.#read(this.#plot?.cursor.idx ?? null);
    put(this.#summary, this.#options.summary(view));
    this.#fillTable();
  }

  #size() {
    return { width: Math.max(this.#box.clientWidth, 50), height: this.#box.clientHeight };
  }

  /** Shows the values at an index of the series, or those of the whole period. */
  #read(index) {
    this.#parts.forEach((part, which) => {
      const value = index === null ? part.whole(this.#view) : part.text(part.values(this.#series)[index]);
      put(this.#readings[which].value, value);
    });
    const { starts, width } = this.#series;
    put(this.#when, index === null ? (this.#options.rest?.(this.#view) ?? '') : moment(starts[index], width));
  }

  #fillTable() {
    if (!this.#details.open) return;
    const values = this.#parts.map((part) => part.values(this.#series));
    const lines = this.#series.starts.map((start, index) => ({ start, values: values.map((of) => of[index]) }));
    this.#table.show(lines.reverse());
  }

  #build() {
    if (!this.#data) return;
    this.#plot?.destroy();
    const axis = {
      stroke: colour('soft'),
      font: '12px system-ui, sans-serif',
      grid: { stroke: colour('line'), width: 1 },
      ticks: { show: false },
    };
    const { width } = this.#series;
    this.#plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
        scales: {
          x: { range: (_, from, to) => [from - width * 0.5, to + width * 0.5] },
          y: { range: (_, __, most) => [0, Math.max((most ?? 0) * 1.08, this.#options.unit.least)] },
        },
        axes: [
          {
            ...axis,
            grid: { show: false },
            space: 70,
            size: 30,
            gap: 8,
            values: (_, splits, __, ___, step) => splits.map((at) => axisMoment(at, step)),
          },
          { ...axis, size: 52, incrs: STEPS_OF_VALUES, values: (_, splits) => splits.map(this.#options.unit.text) },
        ],
        series: [{}, ...this.#options.drawn.map((part) => this.#drawn(part))],
        hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx ?? null)] },
      },
      this.#data,
      this.#box,
    );
  }

  #drawn(part) {
    const stroke = colour(part.of);
    if (part.bars) {
      return { stroke, fill: stroke, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.82, 40] }) };
    }
    return { stroke, width: 1.75, dash: DASHES[part.line], points: { size: 5, fill: stroke, filter: alone } };
  }
}

const calls = [
  {
    of: 'billed',
    label: 'Billed',
    bars: true,
    values: (series) => series.billed,
    text: count,
    whole: ({ totals }) => count(totals.billed),
  },
  {
    of: 'not-billed',
    label: 'Not billed',
    bars: true,
    values: (series) => series.not_billed,
    text: count,
    whole: ({ totals }) => count(totals.calls - totals.billed),
  },
];

/** The bars stand on one another: the sum is drawn first, and what is billed in front of it. */
const stacked = [
  { ...calls[1], values: (series) => series.billed.map((billed, at) => billed + series.not_billed[at]) },
  calls[0],
];

const percentile = (name, line) => ({
  of: name,
  label: name,
  line,
  values: (series) => series[`${name}_ms`],
  text: time,
  whole: ({ totals }) => time(totals[`${name}_ms`]),
});

const errorShare = (of, label, line, what) => ({
  of,
  label,
  line,
  values: (series) => series[what].map((n, at) => (series.answered[at] ? (100 * n) / series.answered[at] : null)),
  text: percent,
  whole: ({ totals }) => share(totals[what], totals.answered),
});

/** What lies in one entry of a series, in words. */
const STEPS = { 5: '5 seconds', 60: 'a minute', 1800: '30 minutes', 43200: '12 hours', 2592000: '30 days' };

export function charts() {
  const step = (view) => STEPS[view.series.width];
  const callsTitle = 'Calls';
  const all = [
    new Chart('calls-chart', {
      title: callsTitle,
      parts: calls,
      drawn: stacked,
      unit: { text: compact, least: 5 },
      rest: (view) => `each bar ${step(view)}`,
      summary: (view) => {
        const sums = stacked[0].values(view.series);
        const most = Math.max(...sums);
        const when = moment(view.series.starts[sums.indexOf(most)], view.series.width);
        return `${count(view.totals.calls)} calls, at most ${count(most)} in ${step(view)}, at ${when}.`;
      },
    }),
    new Chart('times-chart', {
      title: 'Response time',
      parts: [percentile('p50', 'solid'), percentile('p95', 'dashed'), percentile('p99', 'dotted')],
      unit: { text: axisTime, least: 1 },
      summary: ({ totals }) =>
        `Half of the calls took at most ${time(totals.p50_ms)}, 95 of 100 at most ${time(totals.p95_ms)}, ` +
        `99 of 100 at most ${time(totals.p99_ms)}.`,
    }),
    new Chart('errors-chart', {
      title: 'Error rate',
      parts: [errorShare('bad', '5xx', 'solid', 'errors'), errorShare('warn', '4xx', 'dashed', 'client_errors')],
      unit: { text: (value) => `${compact(value)}%`, least: 1 },
      summary: ({ totals }) =>
        `${share(totals.errors, totals.answered)} of the answers had a status of 500 or more, ` +
        `${share(totals.client_errors, totals.answered)} one from 400 to 499.`,
    }),
  ];
  return (view) => {
    for (const chart of all) chart.show(view);
  };
}
