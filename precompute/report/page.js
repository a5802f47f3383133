"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const ROWS_AT_ONCE = 10;
  const HOVER_CHARACTERS = 60;

  // Tables. Cells get textContent and nothing else: whatever a text holds, it is shown as text.

  function drawTable(article) {
    const { digits, rows } = data.tables[article.dataset.table];
    const [headers, body] = [[...article.querySelectorAll("th")], article.querySelector("tbody")];
    const [search, told, more] = ["input", "output", ".more"].map((name) => article.querySelector(name));
    const haystacks = new Map(rows.map((row) => [row, row.filter((cell) => typeof cell === "string").join("\n").toLowerCase()]));
    let shown = ROWS_AT_ONCE;

    function cell(value, column) {
      const made = document.createElement("td");
      made.setAttribute("role", "cell");
      made.dataset.name = headers[column].textContent;
      made.classList.toggle("text", digits[column] === null);
      made.textContent = value === null ? "none" : digits[column] === null ? value : number(value, digits[column]);
      return made;
    }

    function draw() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = rows.filter((row) => words.every((word) => haystacks.get(row).includes(word)));
      body.replaceChildren(...found.slice(0, shown).map((row) => {
        const made = document.createElement("tr");
        made.setAttribute("role", "row");
        made.append(...row.map(cell));
        return made;
      }));
      told.textContent = words.length ? `${found.length} of ${rows.length} rows` : `${rows.length} rows`;
      more.hidden = found.length <= shown;
    }

    function sortBy(column, order) {
      headers.forEach((header) => header.removeAttribute("aria-sort"));
      headers[column].setAttribute("aria-sort", order);
      rows.sort((one, other) => compare(one[column], other[column], order === "ascending" ? 1 : -1));
      draw();
    }

    headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
      sortBy(column, header.getAttribute("aria-sort") === "descending" ? "ascending" : "descending");
    }));
    search.addEventListener("input", () => { shown = ROWS_AT_ONCE; draw(); });
    more.addEventListener("click", () => { shown += ROWS_AT_ONCE; draw(); });
    sortBy(headers.findIndex((header) => header.hasAttribute("aria-sort")), "descending");
  }

  function number(value, digits) {
    return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  // What is missing stands last, whichever way a column is sorted.
  function compare(one, other, direction) {
    if (one === null || other === null) return (one === null) - (other === null);
    return direction * (typeof one === "number" ? one - other : one.localeCompare(other));
  }

  // Figures. plotly.js takes some tags in names and hover texts for markup: they are escaped here.

  function escaped(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function wrapped(text) {
    const pieces = text.split("\n").flatMap((line) => line.match(new RegExp(`.{1,${HOVER_CHARACTERS}}(\\s|$)|.{1,${HOVER_CHARACTERS}}`, "gu")) || []);
    return pieces.map((piece) => escaped(piece.trim())).join("<br>");
  }

  function themed(layout) {
    const style = getComputedStyle(document.body);
    const [ink, paper] = [style.color, style.backgroundColor];
    const line = getComputedStyle(document.querySelector("h2")).borderBottomColor;
    const changes = { paper_bgcolor: "transparent", plot_bgcolor: "transparent", "font.color": ink };
    Object.assign(changes, { "hoverlabel.bgcolor": paper, "hoverlabel.font.color": ink, "hoverlabel.bordercolor": line });
    for (const axis of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      for (const part of ["gridcolor", "zerolinecolor", "linecolor"]) changes[`${axis}.${part}`] = line;
    }
    return changes;
  }

  const plots = [...document.querySelectorAll(".plot")];

  async function drawPlot(plot) {
    const figure = data.figures[plot.dataset.figure];
    for (const trace of figure.data) {
      if (trace.name) trace.name = escaped(trace.name);
      if (trace.text) trace.text = trace.text.map(wrapped);
    }
    // On a touch screen a drag scrolls the page; it must not zoom a plot.
    figure.layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    figure.layout.font = { family: "system-ui, sans-serif", size: 13 };
    await Plotly.newPlot(plot, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    await Plotly.relayout(plot, themed(figure.layout));
  }

  // Theme: the system's, until the button is pressed.

  const button = document.getElementById("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
  }

  function showTheme() {
    button.textContent = isDark() ? "Light theme" : "Dark theme";
    return Promise.all(plots.filter((plot) => plot.layout).map((plot) => Plotly.relayout(plot, themed(plot.layout))));
  }

  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; showTheme(); });
  systemDark.addEventListener("change", showTheme);

  document.querySelectorAll("[data-table]").forEach(drawTable);
  showTheme();
  Promise.all(plots.map(drawPlot)).then(() => { root.dataset.ready = "true"; });
})();
