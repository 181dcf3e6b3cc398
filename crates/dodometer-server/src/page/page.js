// The live page: takes snapshots from the stream and shows them. Text that comes from events is
// only ever put in with textContent.

const at = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat();
const oneDigit = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

const SPOKEN_EVERY_MS = 10_000;
const RETRY_MS = 1_000;

function put(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

let money = { currency: null, show: () => "–" };

/** Amounts arrive in the currency's smallest unit; how many digits that is, the browser knows. */
function moneyIn(currency) {
  if (money.currency !== currency) {
    let show = () => "–";
    if (currency) {
      try {
        const format = new Intl.NumberFormat(undefined, { style: "currency", currency });
        const unit = 10 ** format.resolvedOptions().maximumFractionDigits;
        show = (amount) => format.format(amount / unit);
      } catch {
        show = (amount) => `${whole.format(amount)} ${currency}`;
      }
    }
    money = { currency, show };
  }
  return money.show;
}

const time = (ms) => (ms === null ? "–" : oneDigit.format(ms));

/** Makes the body's rows those of `lines`, touching only cells whose text differs. */
function fill(body, lines) {
  while (body.rows.length > lines.length) body.deleteRow(-1);
  lines.forEach((cells, index) => {
    let row = body.rows[index];
    if (!row) {
      row = body.insertRow();
      for (const { head } of cells) {
        const cell = document.createElement(head ? "th" : "td");
        if (head) cell.scope = "row";
        row.append(cell);
      }
    }
    cells.forEach(({ text, style = "", title = "" }, column) => {
      const cell = row.cells[column];
      if (cell.textContent !== text) cell.textContent = text;
      if (cell.className !== style) cell.className = style;
      if (cell.title !== title) cell.title = title;
    });
  });
}

function customerLine(customer, amount) {
  return [
    { head: true, text: customer.customer_id, title: customer.customer_id },
    { text: whole.format(customer.calls), style: "number" },
    { text: time(customer.p50_ms), style: "number" },
    { text: time(customer.p95_ms), style: "number" },
    { text: amount(customer.amount), style: "number" },
  ];
}

function eventLine(event) {
  const status = event.status_code ?? "–";
  const endpoint = event.endpoint ?? event.event_name;
  return [
    { text: clock.format(new Date(event.timestamp)), title: event.timestamp },
    { head: true, text: event.customer_id, title: event.customer_id },
    { text: endpoint, style: "long", title: endpoint },
    { text: event.method ?? "–" },
    { text: status, style: /^[45]\d\d$/.test(status) ? "number failed" : "number" },
    { text: time(event.response_time_ms), style: "number" },
  ];
}

function notes(totals) {
  const said = [];
  if (totals.duplicates_ignored > 0) {
    said.push(`${whole.format(totals.duplicates_ignored)} duplicates ignored`);
  }
  if (totals.requests_refused > 0) {
    said.push(`${whole.format(totals.requests_refused)} requests refused`);
  }
  return said.join(" · ");
}

let lastSpoken = 0;

function show({ currency, customers, totals, recent }) {
  const amount = moneyIn(currency);
  put("amount", amount(totals.amount));
  put("calls", whole.format(totals.calls));
  put("customers-total", whole.format(totals.customers));
  put("times", `${time(totals.p50_ms)} / ${time(totals.p95_ms)}`);
  put("requests", whole.format(totals.requests));
  put("per-request", oneDigit.format(totals.calls_per_request));
  put("notes", notes(totals));

  at("empty").hidden = totals.calls > 0;
  at("filled").hidden = totals.calls === 0;
  fill(at("customers"), customers.map((customer) => customerLine(customer, amount)));
  fill(at("recent"), recent.map(eventLine));
  const hidden = totals.customers - customers.length;
  put("more", hidden > 0 ? `and ${whole.format(hidden)} more` : "");

  // The figures change four times a second; a voice that reads them out must not.
  const now = Date.now();
  if (now - lastSpoken > SPOKEN_EVERY_MS) {
    lastSpoken = now;
    const billed = currency ? `, ${amount(totals.amount)} billed` : "";
    put("spoken", `${whole.format(totals.calls)} calls in ${whole.format(totals.requests)} requests${billed}`);
  }
}

function link(state, text) {
  at("link").dataset.state = state;
  put("link", text);
}

function connect() {
  const stream = new EventSource("/_dev/stream");
  stream.addEventListener("open", () => link("live", "live"));
  stream.addEventListener("snapshot", (message) => show(JSON.parse(message.data)));
  stream.addEventListener("error", () => {
    // The browser's own retry can take many seconds, and gives up on some answers.
    stream.close();
    link("lost", "server away, retrying");
    setTimeout(connect, RETRY_MS);
  });
}

const base = location.origin;
const first = '{"events":[{"event_id":"first","customer_id":"cus_1","event_name":"api_call"}]}';
put("curl", `curl ${base}/events/ingest -H 'Authorization: Bearer test' \\\n  -H 'Content-Type: application/json' \\\n  -d '${first}'`);
put("environment", `DODO_PAYMENTS_BASE_URL=${base}`);
connect();
