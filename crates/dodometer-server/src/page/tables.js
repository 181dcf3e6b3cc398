// Tables that are kept up to date in place. Text goes in as text, never as markup.

/** Makes an element with properties and children; a string child is text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-') || name === 'role' || name === 'scope') element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Sets an element's text, if it is another. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A table in a section of its own.
 *
 * `columns` are `{ label, text(line), sort?(line), number?, style?(line), link?(line), title?(line) }`; the first
 * one names the line. `key(line)` tells lines apart. While the pointer or the focus is in the table, its
 * order stands still.
 */
export class Table {
  #columns;
  #key;
  #body = make('tbody');
  #rows = new Map();
  #lines = [];
  #sorted;
  #heads;
  #frame;

  constructor(parent, { title, titleId, columns, key, sorted = null, level = 'h2' }) {
    this.#columns = columns;
    this.#key = key;
    this.#sorted = sorted && { column: sorted, ascending: false };
    this.title = make(level, { id: titleId }, title);
    this.note = make('p', { className: 'note', hidden: true });
    this.#heads = columns.map((column, index) => this.#head(column, index));
    const table = make(
      'table',
      { 'aria-labelledby': titleId },
      make('thead', {}, make('tr', {}, ...this.#heads)),
      this.#body,
    );
    this.#frame = make('div', { className: 'scroll', tabIndex: 0, role: 'region', 'aria-labelledby': titleId }, table);
    parent.append(this.title, this.note, this.#frame);
    this.#mark();
  }

  #head(column, index) {
    const head = make('th', { scope: 'col', className: column.number ? 'number' : '' });
    if (!column.sort) {
      head.append(column.label);
      return head;
    }
    const button = make('button', { type: 'button' }, column.label);
    button.addEventListener('click', () => {
      const again = this.#sorted?.column === index;
      this.#sorted = { column: index, ascending: again ? !this.#sorted.ascending : !column.number };
      this.#mark();
      this.#arrange(this.#order(this.#lines));
    });
    head.append(button);
    return head;
  }

  #mark() {
    this.#heads.forEach((head, index) => {
      if (this.#sorted?.column === index) {
        head.setAttribute('aria-sort', this.#sorted.ascending ? 'ascending' : 'descending');
      } else {
        head.removeAttribute('aria-sort');
      }
    });
  }

  #order(lines) {
    if (!this.#sorted) return lines;
    const { column, ascending } = this.#sorted;
    const of = this.#columns[column].sort;
    const compare = (a, b) => {
      const [x, y] = [of(a), of(b)];
      if (x === y) return 0;
      // What is missing comes last, whichever way.
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return (x < y ? -1 : 1) * (ascending ? 1 : -1);
    };
    return [...lines].sort(compare);
  }

  show(lines, { note = '' } = {}) {
    put(this.note, note);
    this.note.hidden = !note;
    this.#frame.hidden = lines.length === 0;
    this.#lines = lines;
    let ordered = this.#order(lines);
    if (this.#body.matches(':hover, :focus-within')) {
      const before = new Map([...this.#rows.keys()].map((key, index) => [key, index]));
      const place = (line) => before.get(this.#key(line)) ?? Number.MAX_SAFE_INTEGER;
      ordered = [...ordered].sort((a, b) => place(a) - place(b));
    }
    this.#arrange(ordered);
  }

  #arrange(lines) {
    const rows = new Map();
    for (const line of lines) {
      const key = this.#key(line);
      const row = this.#rows.get(key) ?? this.#row();
      this.#fill(row, line);
      rows.set(key, row);
    }
    for (const [key, row] of this.#rows) if (!rows.has(key)) row.remove();
    let place = this.#body.firstChild;
    for (const row of rows.values()) {
      if (row === place) place = place.nextSibling;
      else this.#body.insertBefore(row, place);
    }
    this.#rows = rows;
  }

  #row() {
    const row = make('tr');
    this.#columns.forEach((_, index) => {
      row.append(index === 0 ? make('th', { scope: 'row' }) : make('td'));
    });
    return row;
  }

  #fill(row, line) {
    this.#columns.forEach((column, index) => {
      const cell = row.cells[index];
      const style = [column.number ? 'number' : (column.shape ?? ''), column.style?.(line) ?? ''].join(' ').trim();
      if (cell.className !== style) cell.className = style;
      const text = column.text(line);
      const title = column.title?.(line) ?? '';
      if (cell.title !== title) cell.title = title;
      const href = column.link?.(line);
      let holder = cell.firstElementChild;
      if (href && holder?.localName !== 'a') {
        holder = make('a', { 'data-in-page': '' });
        cell.replaceChildren(holder);
      } else if (!href && holder?.localName !== 'bdi') {
        // Whatever its direction, a text stays within its cell.
        holder = make('bdi');
        cell.replaceChildren(holder);
      }
      if (href && holder.getAttribute('href') !== href) holder.setAttribute('href', href);
      put(holder, text);
    });
  }
}
