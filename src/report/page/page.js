"use strict";
// Draws an image, or the difference of two, from the JSON beside it. All names are others' words: they are
// only ever set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const isDiff = data.kind === "diff";
  const ROWS = 100;
  const byId = (id) => document.getElementById(id);

  // Signs that are not seen, or turn the direction of writing, are shown by their number.
  const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
  const plain = (text) => String(text).replace(HIDDEN, (c) => "\\u{" + c.codePointAt(0).toString(16) + "}");

  const make = (tag, text, more) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = plain(text);
    return Object.assign(element, more);
  };

  // As the program prints sizes.
  const size = (bytes) => {
    if (bytes < 1000) return bytes + " B";
    let value = bytes / 1000, unit = 0;
    while (value >= 999.5 && unit < 4) { value /= 1000; unit += 1; }
    const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    return value.toFixed(digits) + " " + ["kB", "MB", "GB", "TB", "PB"][unit];
  };
  const percent = (part, whole) => (100 * part / Math.max(whole, 1)).toFixed(1) + " %";

  const CHANGES = {
    updated: "new version", added: "new", changed: "other content, no new version", time: "other time only",
    along: "unchanged, but its layer changed", kept: "kept", gone: "gone",
  };
  const CHANCES = [[0.02, "hardly ever"], [0.1, "seldom"], [0.3, "sometimes"], [0.7, "often"], [2, "almost always"]];
  const bucket = (chance) => CHANCES.findIndex(([below]) => chance < below);
  const colour = (c) => isDiff ? "var(--" + c.change + ")" : "var(--c" + bucket(c.chance) + ")";
  const state = (c) => isDiff ? CHANGES[c.change] : c.chance.toFixed(3);

  const components = data.components;
  components.forEach((c, at) => { c.at = at; c.files = []; });
  data.files.forEach(([path, bytes, at]) => components[at].files.push([path, bytes]));
  const versions = (c) => !c.from && !c.to ? "" : c.from === c.to ? c.to
    : c.from && c.to ? c.from + " \u2192 " + c.to : c.from || c.to;

  // --- the words at the top ---

  const number = (name, value, note) => {
    const box = make("div");
    const shown = make("dd", value);
    shown.append(make("small", note));
    box.append(make("dt", name), shown);
    byId("numbers").append(box);
  };
  byId("title").textContent = plain(data.title);
  document.title = plain(data.title);
  byId("sentence").textContent = plain(data.sentence);
  data.numbers.forEach((n) => number(n.name, n.bytes === undefined ? n.text : size(n.bytes), n.note));
  if (data.costs && data.costs.length > 0) {
    byId("why").hidden = false;
    data.costs.forEach((cost) => {
      const line = make("li");
      line.append(make("b", size(cost.bytes)), " " + plain(cost.name) + ": " + plain(cost.why));
      byId("costs").append(line);
    });
  }
  data.about.forEach(([name, value]) => byId("about").append(make("dt", name), make("dd", value)));
  const legend = isDiff ? Object.entries(CHANGES).map(([name, text]) => ["var(--" + name + ")", text, name])
    : CHANCES.map(([, text], at) => ["var(--c" + at + ")", text + " changed by an update", ""]);
  legend.forEach(([fill, text, name]) => {
    const item = make("li"), sign = make("i", null, { className: name });
    sign.style.backgroundColor = fill;
    item.append(sign, text);
    byId("legend").append(item);
  });

  // --- the picture: squarified treemaps (Bruls, Huizing, van Wijk 2000), layers around components around files ---

  const layout = (items, x, y, width, height) => {
    const sorted = items.filter((i) => i.value > 0).sort((a, b) => b.value - a.value);
    let left = sorted.reduce((sum, i) => sum + i.value, 0);
    const placed = [];
    for (let from = 0; from < sorted.length;) {
      const across = width < height, side = Math.max(across ? width : height, 1e-9);
      const scale = width * height / left;
      let row = 0, worst = Infinity, end = from;
      while (end < sorted.length) {
        const next = row + sorted[end].value, area = next * scale;
        const most = sorted[from].value * scale, least = sorted[end].value * scale;
        const ratio = Math.max(side * side * most / (area * area), area * area / (side * side * least));
        if (ratio > worst) break;
        worst = ratio; row = next; end += 1;
      }
      const depth = row * scale / side;
      let along = 0;
      for (; from < end; from += 1) {
        const length = side * sorted[from].value / row;
        placed.push(across ? [sorted[from], x + along, y, length, depth] : [sorted[from], x, y + along, depth, length]);
        along += length;
      }
      if (across) { y += depth; height -= depth; } else { x += depth; width -= depth; }
      left -= row;
    }
    return placed;
  };

  const map = byId("map");
  let cells = [];
  let chosen = -1;
  const weight = (c) => c.size;
  const place = (element, x, y, width, height) => {
    Object.assign(element.style, { left: x + "px", top: y + "px", width: width + "px", height: height + "px" });
  };
  const describe = (c) => plain(c.name) + ", layer " + c.layer + ", " + size(c.size) + ", "
    + (isDiff ? state(c) + (c.fetched ? ", costs " + size(c.fetched) : "") : "chance to change " + state(c))
    + (isDiff && versions(c) ? ", " + plain(versions(c)) : "");
  const draw = () => {
    const { clientWidth: width, clientHeight: height } = map;
    const groups = new Map();
    components.forEach((c) => {
      const key = c.change === "gone" ? "gone" : c.layer;
      if (!groups.has(key)) groups.set(key, { value: 0, members: [] });
      const group = groups.get(key);
      group.value += weight(c);
      group.members.push({ value: weight(c), component: c });
    });
    const all = document.createDocumentFragment();
    cells = [];
    // What is gone costs nothing: it stands at the edge.
    const gone = groups.get("gone");
    groups.delete("gone");
    const there = [...groups.values()], total = there.reduce((sum, g) => sum + g.value, 0);
    const edge = gone ? width * gone.value / Math.max(gone.value + total, 1) : 0;
    const placed = layout(there, 0, 0, width - edge, height);
    if (gone) placed.push([gone, width - edge, 0, edge, height]);
    placed.forEach(([group, gx, gy, gw, gh]) => {
      const rim = gw > 12 && gh > 12 ? 1 : 0;
      layout(group.members, gx + rim, gy + rim, gw - 2 * rim, gh - 2 * rim).forEach(([{ component: c }, x, y, w, h]) => {
        if (w < 1.5 || h < 1.5) return;
        const cell = make("button", null, { type: "button", className: isDiff ? c.change : "", tabIndex: -1 });
        place(cell, x, y, w, h);
        cell.style.backgroundColor = colour(c);
        cell.setAttribute("aria-label", describe(c));
        cell.setAttribute("aria-pressed", String(c.at === chosen));
        if (w > 34 && h > 14) cell.append(make("span", c.name));
        if (w > 90 && h > 50) {
          const rest = c.size - c.files.reduce((sum, f) => sum + f[1], 0);
          const parts = c.files.map(([path, bytes]) => ({ value: bytes, path }));
          if (rest > 0) parts.push({ value: rest });
          layout(parts, 2, 16, w - 4, h - 18).forEach(([part, px, py, pw, ph]) => {
            if (!part.path || pw < 14 || ph < 11) return;
            const file = make("small", part.path.slice(part.path.lastIndexOf("/") + 1));
            place(file, px, py, pw, ph);
            cell.append(file);
          });
        }
        cell.component = c;
        cells.push(cell);
        all.append(cell);
      });
    });
    map.replaceChildren(all);
    if (cells.length > 0) (cells.find((cell) => cell.component.at === chosen) || cells[0]).tabIndex = 0;
    fade();
  };
  const tell = (c) => { byId("told").textContent = describe(c) + (c.packages.length ? "; packages: " + plain(c.packages.slice(0, 12).join(", ")) + (c.packages.length > 12 ? " and " + (c.packages.length - 12) + " more" : "") : ""); };
  const choose = (at) => {
    chosen = at;
    cells.forEach((cell) => cell.setAttribute("aria-pressed", String(cell.component.at === at)));
    document.querySelectorAll("#components tbody tr").forEach((row) => row.classList.toggle("chosen", row.component === components[at]));
    tell(components[at]);
  };
  const cellOf = (event) => event.target.closest("#map button");
  map.addEventListener("click", (event) => { const cell = cellOf(event); if (cell) choose(cell.component.at); });
  map.addEventListener("mouseover", (event) => { const cell = cellOf(event); if (cell) tell(cell.component); });
  map.addEventListener("focusin", (event) => { const cell = cellOf(event); if (cell) tell(cell.component); });
  map.addEventListener("keydown", (event) => {
    const at = cells.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = event.key === "Home" ? 0 : event.key === "End" ? cells.length - 1 : step && at >= 0 ? at + step : -1;
    if (next < 0 || next >= cells.length) return;
    event.preventDefault();
    cells.forEach((cell) => { cell.tabIndex = -1; });
    cells[next].tabIndex = 0;
    cells[next].focus();
  });

  // --- the tables ---

  const COLUMNS = [
    { name: "Component", of: (c) => c.name, text: true },
    { name: "Layer", of: (c) => c.layer, low: true },
    { name: "Size", of: (c) => c.size, show: (c) => size(c.size) },
    isDiff ? { name: "To fetch", of: (c) => c.fetched, show: (c) => c.fetched ? size(c.fetched) : "" }
      : { name: "Share", of: (c) => c.size, show: (c) => percent(c.size, data.size), low: true },
    isDiff ? { name: "What became of it", of: (c) => Object.keys(CHANGES).indexOf(c.change), state: true, text: true }
      : { name: "Chance to change", of: (c) => c.chance, state: true },
  ];
  let sorting = isDiff ? 3 : 2, downwards = true, showAll = false, words = [];
  const matches = (text) => words.every((word) => text.includes(word));
  const key = (c) => ("/" + c.name + " " + c.packages.join(" ")).toLowerCase();
  components.forEach((c) => { c.key = key(c); });
  const files = data.files.map((file) => ({ path: file[0], size: file[1], component: components[file[2]], key: ("/" + file[0]).toLowerCase() }));
  let hits = new Set();
  const fade = () => cells.forEach((cell) => cell.classList.toggle("faint", words.length > 0 && !hits.has(cell.component.at)));

  const head = (table, columns, sortable) => {
    const row = make("tr");
    columns.forEach((column, at) => {
      const cell = make("th", sortable ? null : column.name, { scope: "col", className: column.low ? "low" : "" });
      if (!column.text) cell.dataset.number = "";
      if (sortable) {
        const button = make("button", column.name, { type: "button" });
        button.addEventListener("click", () => { downwards = sorting === at ? !downwards : !column.text; sorting = at; rows(); });
        cell.append(button);
      }
      row.append(cell);
    });
    table.tHead.replaceChildren(row);
  };
  const rows = () => {
    const table = byId("components"), column = COLUMNS[sorting], sign = downwards ? -1 : 1;
    const order = (a, b) => column.text && !column.state ? a.name.localeCompare(b.name) : column.of(a) - column.of(b);
    const shown = components.filter((c) => words.length === 0 || hits.has(c.at)).sort((a, b) => sign * order(a, b) || b.size - a.size);
    [...table.tHead.rows[0].cells].forEach((cell, at) => {
      if (at === sorting) cell.setAttribute("aria-sort", downwards ? "descending" : "ascending"); else cell.removeAttribute("aria-sort");
    });
    const body = shown.slice(0, showAll ? shown.length : ROWS).map((c) => {
      const row = make("tr", null, { component: c, className: c.at === chosen ? "chosen" : "" });
      COLUMNS.forEach((column, at) => {
        const cell = make("td", null, { className: (at === 0 ? "name" : column.text ? "" : "number") + (column.low ? " low" : "") });
        if (at === 0) {
          const button = make("button", c.name, { type: "button" });
          button.addEventListener("click", () => choose(c.at));
          cell.append(button);
          const note = isDiff ? versions(c) : c.packages.slice(0, 6).join(", ") + (c.packages.length > 6 ? " and " + (c.packages.length - 6) + " more" : "");
          if (note && note !== c.name) cell.append(make("small", note));
        } else if (column.state) {
          const sign = make("i");
          sign.style.backgroundColor = colour(c);
          cell.append(sign, state(c));
        } else {
          cell.textContent = column.show ? column.show(c) : column.of(c);
        }
        row.append(cell);
      });
      return row;
    });
    table.tBodies[0].replaceChildren(...body);
    byId("more").hidden = showAll || shown.length <= ROWS;
    byId("more").textContent = "Show all " + shown.length;
  };
  const fileRows = () => {
    const shown = words.length === 0 ? files : files.filter((file) => matches(file.key) || (hits.has(file.component.at) && matches(file.component.key)));
    byId("files-title").textContent = words.length === 0 ? "Largest files" : "Files found";
    byId("files").tBodies[0].replaceChildren(...shown.slice(0, 60).map((file) => {
      const row = make("tr");
      row.append(make("td", "/" + file.path, { className: "name" }), make("td", size(file.size), { className: "number" }),
        make("td", file.component.name, { className: "name low" }), make("td", file.component.layer, { className: "number low" }));
      return row;
    }));
    byId("listed").textContent = (shown.length > 60 ? "60 of " + shown.length + " files shown. " : "") + data.listed;
    return shown;
  };
  const search = () => {
    words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    hits = new Set(words.length === 0 ? [] : components.filter((c) => matches(c.key)).map((c) => c.at));
    if (words.length > 0) files.forEach((file) => { if (matches(file.key)) hits.add(file.component.at); });
    fade();
    rows();
    const shown = fileRows();
    byId("found").textContent = words.length === 0 ? "" : hits.size + " components, " + shown.length + " files";
  };
  byId("find").addEventListener("submit", (event) => event.preventDefault());
  byId("search").addEventListener("input", search);
  byId("more").addEventListener("click", () => { showAll = true; rows(); });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== byId("search")) { event.preventDefault(); byId("search").focus(); }
    if (event.key === "Escape" && document.activeElement === byId("search")) { byId("search").value = ""; search(); }
  });
  new ResizeObserver(draw).observe(map);
  head(byId("components"), COLUMNS, true);
  head(byId("files"), [{ name: "File", text: true }, { name: "Size" }, { name: "Component", text: true, low: true }, { name: "Layer", low: true }], false);
  rows();
  fileRows();
})();
