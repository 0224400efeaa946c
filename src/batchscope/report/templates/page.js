"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const said = document.getElementById("said");
  let clock = 0;

  function say(text) {
    said.textContent = text;
    clearTimeout(clock);
    clock = setTimeout(() => { said.textContent = ""; }, 4000);
  }

  // Charts. As many panels side by side as fit, none much wider than it was designed.

  function layout(chart, room) {
    const free = room - chart.frame;
    const columns = Math.max(1, Math.min(chart.columns, Math.floor(free / (0.62 * chart.width + chart.margin))));
    const width = Math.floor(free / columns) - chart.margin;
    return { columns, width: Math.max(120, Math.min(width, Math.round(1.15 * chart.width))) };
  }

  function fit(spec, { columns, width }) {
    const copy = { ...spec };
    if ("columns" in copy) copy.columns = columns;
    if (typeof copy.width === "number") copy.width = width;
    if (copy.spec) copy.spec = fit(copy.spec, { columns, width });
    if (copy.concat) copy.concat = copy.concat.map((panel) => fit(panel, { columns, width }));
    return copy;
  }

  function embed(target, spec, config, renderer) {
    // Expressions are interpreted (ast), so that the page needs no right to evaluate text as code.
    return vegaEmbed(target, spec, {
      mode: "vega-lite", config, renderer, ast: true, actions: false, defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
    });
  }

  function screen(room) {
    const columns = Math.max(2, Math.floor((room - 60) / 64));
    return { ...charts.screen, legend: { ...charts.screen.legend, columns } };
  }

  async function draw(chart) {
    const target = document.querySelector(`#figure-${chart.key} .chart`);
    const room = target.clientWidth;
    const wanted = layout(chart, room);
    if (chart.drawn && chart.drawn.columns === wanted.columns && chart.drawn.width === wanted.width) return;
    chart.drawn = wanted;
    if (chart.view) chart.view.finalize();
    chart.view = await embed(target, fit(chart.spec, wanted), screen(room), "svg");
    target.classList.add("drawn");
  }

  async function drawAll() {
    for (const chart of charts.figures) await draw(chart);
    document.body.dataset.charts = "drawn";
  }

  // Saving a figure: its data as they are drawn, or the picture on white with its title.

  function csv(spec) {
    const rows = spec.datasets[spec.data.name];
    const names = Object.keys(rows[0]);
    const cell = (value) => {
      const text = value === null ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [names, ...rows.map((row) => names.map((name) => row[name]))]
      .map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  async function picture(chart, kind) {
    const stage = document.createElement("div");
    const result = await embed(stage, { ...chart.spec, title: chart.title }, charts.picture, "none");
    try {
      return await result.view.toImageURL(kind, 2);
    } finally {
      result.finalize();
    }
  }

  function save(url, name) {
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
  }

  async function saveFigure(event, link, chart) {
    const kind = link.dataset.save;
    if (kind === "csv") return;
    event.preventDefault();
    save(await picture(chart, kind), `${chart.key}.${kind}`);
  }

  for (const chart of charts.figures) {
    for (const link of document.querySelectorAll(`#figure-${chart.key} [data-save]`)) {
      if (link.dataset.save === "csv") {
        link.href = URL.createObjectURL(new Blob([csv(chart.spec)], { type: "text/csv" }));
      }
      link.addEventListener("click", (event) => saveFigure(event, link, chart));
    }
  }

  // Tables: sorted by a click on a column's head, numbers as numbers, nothing last.

  function key(row, column) {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  }

  function compare(one, other) {
    if (typeof one === typeof other) {
      return typeof one === "number" ? one - other : one.localeCompare(other, undefined, { numeric: true });
    }
    return 0;
  }

  function sortBy(table, heads, column) {
    const up = heads[column].getAttribute("aria-sort") !== "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: key(row, column) }));
    const numbers = rows.some((item) => typeof item.key === "number");
    const missing = (item) => numbers && typeof item.key !== "number";
    rows.sort((one, other) => (missing(one) - missing(other)) || (up ? 1 : -1) * compare(one.key, other.key));
    table.tBodies[0].append(...rows.map((item) => item.row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => sortBy(table, heads, column)));
  }

  // Copying: tables as tab-separated text, everything else as it stands.

  function plain(cell) {
    const detail = cell.querySelector("small");
    const text = detail ? `${cell.firstChild.textContent} (${detail.textContent})` : cell.textContent;
    return text.trim().replace(/\s+/g, " ");
  }

  function textOf(element) {
    if (element.tagName !== "TABLE") return element.textContent;
    return [...element.rows].map((row) => [...row.cells].map(plain).join("\t")).join("\n");
  }

  function copyByHand(text) {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyByHand(text);
    }
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const copied = await copy(textOf(document.getElementById(button.dataset.copy)));
      say(copied ? "Copied." : "The browser does not let this page copy; select the text instead.");
    });
  }

  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
  drawAll();
})();
