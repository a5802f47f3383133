"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];

  // Colors that plotly.js cannot take from the style sheet.
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

  async function drawPlot(plot) {
    const { data, layout } = figures[plot.dataset.figure];
    // On a touch screen a drag scrolls the page; it must not zoom a plot.
    layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    layout.font = { family: "system-ui, sans-serif", size: 13 };
    await Plotly.newPlot(plot, data, layout, { responsive: true, displayModeBar: false });
    await Plotly.relayout(plot, themed(layout));
  }

  // A missing value stands last, whichever way a column is sorted.
  function compare(one, other, direction) {
    if (one === "" || other === "") return (one === "") - (other === "");
    return direction * (typeof one === "number" ? one - other : one.localeCompare(other));
  }

  function makeSortable(table) {
    const headers = [...table.querySelectorAll("th")];
    const body = table.querySelector("tbody");
    const valueOf = ({ dataset, textContent }) => (dataset.value ? Number(dataset.value) : dataset.value ?? textContent);
    headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
      const order = header.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      const keyed = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
      keyed.sort(([one], [other]) => compare(one, other, order === "ascending" ? 1 : -1));
      headers.forEach((each) => each.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", order);
      body.replaceChildren(...keyed.map(([, row]) => row));
    }));
  }

  document.querySelectorAll("table").forEach(makeSortable);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    plots.forEach((plot) => Plotly.relayout(plot, themed(plot.layout)));
  });
  Promise.all(plots.map(drawPlot)).then(() => { document.documentElement.dataset.ready = "true"; });
})();
