"use strict";
const all = (query, root = document) => [...root.querySelectorAll(query)];
const press = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));

// Light or dark: as the system has it, until the button is used.
const dark = matchMedia("(prefers-color-scheme: dark)");
document.getElementById("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
});

// Runs: a tab shows one panel of its section; in the legend of the curves it hides or shows a run.
all("[data-tab]").forEach((button) => button.addEventListener("click", () => {
  const section = button.closest("section");
  press(all("[data-tab]", section), button);
  all("[data-panel]", section).forEach((panel) => { panel.hidden = panel.dataset.panel !== button.dataset.tab; });
}));
const hiddenRuns = new Set();
all("[data-toggle]").forEach((button) => button.addEventListener("click", () => {
  const run = button.dataset.toggle, hide = button.getAttribute("aria-pressed") === "true";
  button.setAttribute("aria-pressed", String(!hide));
  if (hide) hiddenRuns.add(Number(run)); else hiddenRuns.delete(Number(run));
  all(`#curves [data-run="${run}"]`).forEach((curve) => { curve.style.display = hide ? "none" : ""; });
}));

// Curves: the values at the pointer, or at the place that the arrow keys move.
all(".plot").forEach((plot) => {
  const data = JSON.parse(plot.querySelector("script").textContent);
  const line = plot.querySelector(".line"), tip = plot.querySelector(".tip");
  const [first, last] = data.range;
  const shown = (value) => data.share ? `${(100 * value).toFixed(2)}%` : String(Number(value.toPrecision(4)));
  let step = first;
  const show = (wanted) => {
    const curves = data.series.filter((s) => !hiddenRuns.has(s.run));
    if (!curves.length) return hide();
    const nearest = (s) => s.x.reduce((best, x, i) => Math.abs(x - wanted) < Math.abs(s.x[best] - wanted) ? i : best, 0);
    const places = curves.map(nearest);
    const steps = curves.map((s, i) => s.x[places[i]]);
    step = steps.reduce((best, x) => Math.abs(x - wanted) < Math.abs(best - wanted) ? x : best);
    const left = 100 * (step - first) / (last - first);
    line.style.left = `${left}%`;
    tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: `step ${step.toLocaleString("en")}` }));
    curves.forEach((s, i) => {
      if (Math.abs(steps[i] - step) > (last - first) / 40) return;  // no value near this step
      const row = document.createElement("div"), dot = document.createElement("i");
      dot.style.setProperty("--c", s.colour || `var(--s${s.run % 10})`);
      const label = data.series.length > 1 ? ` ${s.label}` : "";
      row.append(dot, shown(s.y[places[i]]) + label);
      tip.append(row);
    });
    tip.style.left = left > 55 ? "auto" : `calc(${left}% + 10px)`;
    tip.style.right = left > 55 ? `calc(${100 - left}% + 10px)` : "auto";
    line.hidden = tip.hidden = false;
  };
  const hide = () => { line.hidden = tip.hidden = true; };
  const at = (event) => {
    const box = plot.getBoundingClientRect();
    show(first + (last - first) * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  plot.addEventListener("pointermove", at);
  plot.addEventListener("pointerdown", at);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const wanted = step + way * (last - first) / 60, steps = data.series.filter((s) => !hiddenRuns.has(s.run)).flatMap((s) => s.x);
    const beyond = steps.filter((x) => way * (x - wanted) >= 0);
    if (beyond.length) show(way * Math.min(...beyond.map((x) => way * x)));
  });
});

// Tables: a click on a heading sorts, numbers from the largest on, and in the other direction at the second click.
all("[data-sortable]").forEach((table) => all("thead th:not(.grow, .strip)", table).forEach((head) => {
  head.tabIndex = 0;
  const sort = () => {
    const place = head.cellIndex, body = table.tBodies[0], rows = [...body.rows];
    const numbers = head.classList.contains("n");
    const before = head.getAttribute("aria-sort");
    const rising = before ? before === "descending" : !numbers;
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => numbers ? Number(row.cells[place].dataset.v ?? parseFloat(row.cells[place].textContent)) : row.cells[place].textContent;
    const order = (a, b) => numbers ? key(a) - key(b) : key(a).localeCompare(key(b));
    rows.sort((a, b) => (rising ? 1 : -1) * order(a, b));
    body.append(...rows);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } });
}));

// Confusion matrix: shares of the true or of the predicted pixels, and the numbers of a cell.
all(".matrix").forEach((matrix) => {
  const names = all("li", matrix).map((item) => item.textContent), readout = matrix.parentElement.querySelector(".readout");
  const cells = new Map(all("rect", matrix).map((rect) => [`${rect.getAttribute("x")},${rect.getAttribute("y")}`, rect]));
  const svg = matrix.querySelector("svg");
  const read = (event) => {
    const box = svg.getBoundingClientRect();
    const x = Math.floor(names.length * (event.clientX - box.left) / box.width);
    const y = Math.floor(names.length * (event.clientY - box.top) / box.height);
    if (!(x in names) || !(y in names)) return;
    const cell = cells.get(`${x},${y}`);
    all("rect.on", matrix).forEach((rect) => rect.classList.remove("on"));
    if (cell) cell.classList.add("on");
    const share = (key) => cell ? `${(100 * cell.dataset[key]).toFixed(1)}%` : "less than 0.2%";
    readout.textContent = `${names[y]} ${x === y ? "found" : `mistaken for ${names[x]}`}: ${share("t")} of all ${names[y]}, ${share("p")} of all predicted ${names[x]}.`;
  };
  svg.addEventListener("pointermove", read);
  svg.addEventListener("pointerdown", read);  // a tap moves nothing
});
all("[data-norm]").forEach((button) => button.addEventListener("click", () => {
  press(all("[data-norm]"), button);
  all(".matrix rect").forEach((rect) => rect.setAttribute("fill-opacity", rect.dataset[button.dataset.norm] ** 0.6));
}));

// Reliability diagram: the numbers of the bar at the pointer, or of the one that the arrow keys move to.
all(".reliability").forEach((diagram) => {
  const bins = all(".bin", diagram), readout = diagram.parentElement.querySelector(".readout");
  let place = -1;
  const read = (next) => {
    place = Math.min(Math.max(next, 0), bins.length - 1);
    bins.forEach((bin, i) => bin.classList.toggle("on", i === place));
    readout.textContent = bins[place].dataset.text;
  };
  bins.forEach((bin, i) => ["pointermove", "pointerdown"].forEach((kind) => bin.addEventListener(kind, () => read(i))));
  diagram.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way || !bins.length) return;
    event.preventDefault();
    read(place + way);
  });
});

// Gallery: two views of each image, left and right of the handle.
const chosen = {};
all("[data-choose][aria-pressed=true]").forEach((button) => { chosen[button.dataset.side] = button.dataset.choose; });
const showViews = () => {
  all(".frame img + img").forEach((image) => {
    const left = image.dataset.view === chosen.left, right = image.dataset.view === chosen.right;
    image.hidden = !(left || right);
    image.classList.toggle("left", left);
    image.classList.toggle("right", right);
  });
  all(".key[data-for]").forEach((key) => {
    const views = key.dataset.for.split(" ");
    key.hidden = !views.includes(chosen.left) && !views.includes(chosen.right);
  });
};
all("[data-choose]").forEach((button) => button.addEventListener("click", () => {
  chosen[button.dataset.side] = button.dataset.choose;
  press(all(`[data-side="${button.dataset.side}"]`), button);
  showViews();
}));
all(".wipe").forEach((slider) => slider.addEventListener("input", () => slider.parentElement.style.setProperty("--x", `${slider.value}%`)));
const strength = document.getElementById("strength");
if (strength) strength.addEventListener("input", () => all(".frame").forEach((frame) => frame.style.setProperty("--strength", strength.value / 100)));
showViews();

// Differences from another variant; settings by a part of their name.
all(".reference").forEach((reference) => reference.addEventListener("change", () => {
  all("[data-reference]", reference.closest("section")).forEach((row) => { row.hidden = row.dataset.reference !== reference.value; });
}));
const filter = document.getElementById("filter");
if (filter) filter.addEventListener("input", () => all("#all tbody tr").forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(filter.value.toLowerCase()); }));
