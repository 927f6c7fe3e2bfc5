// Light and dark, and charts that follow.

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";
let printing = false;

function remembered() {
  // A page from a file may have no storage.
  try { return localStorage.getItem("strata-report-theme") || "auto"; } catch { return "auto"; }
}

function remember(choice) {
  try { localStorage.setItem("strata-report-theme", choice); } catch { /* it lasts until closed */ }
}

const charts = [];

/**
 * Draws `build()`'s option in an element, again on each new size and theme. What `fit` finds out
 * from what is drawn is for drawing it a second time.
 */
function chart(id, build, { renew = false, fit } = {}) {
  const node = byId(id);
  const drawn = { node, chart: echarts.init(node, null, { renderer: "canvas" }) };
  drawn.draw = () => {
    const option = {
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily },
      ...build(drawn),
    };
    drawn.chart.setOption(option, { notMerge: true });
    if (!fit) return;
    fit(drawn.chart);
    drawn.chart.setOption(option, { notMerge: true });
  };
  // For a program that looks at the page: what a canvas shows is in no element.
  node.chart = drawn.chart;
  drawn.draw();
  charts.push(drawn);
  new ResizeObserver(() => {
    if (printing) return;
    drawn.chart.resize();
    if (renew) drawn.draw();
  }).observe(node);
  return drawn;
}

/** What a theme calls `name`. */
const color = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function applyTheme() {
  const dark = !printing && (theme === "dark" || (theme === "auto" && prefersDark.matches));
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  for (const button of document.querySelectorAll("[data-theme-choice]")) {
    button.setAttribute("aria-pressed", button.dataset.themeChoice === theme);
  }
  charts.forEach((drawn) => drawn.draw());
}

function startTheme() {
  theme = remembered();
  for (const button of document.querySelectorAll("[data-theme-choice]")) {
    button.addEventListener("click", () => {
      theme = button.dataset.themeChoice;
      remember(theme);
      applyTheme();
    });
  }
  prefersDark.addEventListener("change", applyTheme);
  addEventListener("beforeprint", () => {
    printing = true;
    applyTheme();
    // A page of paper is narrower than most windows.
    charts.forEach((drawn) => drawn.chart.resize({ width: 680 }));
  });
  addEventListener("afterprint", () => {
    printing = false;
    applyTheme();
    charts.forEach((drawn) => drawn.chart.resize({ width: "auto" }));
  });
  applyTheme();
}

/** Black or white, whichever is easier to read on a color. */
function inkOn(hex) {
  const channel = (at) => {
    const value = parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const light = 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
  return light > 0.2 ? "#10161d" : "#ffffff";
}

/** A color for the frame of tiles that have it: a little darker. */
const shade = (hex) => "#" + [1, 3, 5].map((at) =>
  Math.round(parseInt(hex.slice(at, at + 2), 16) * 0.8).toString(16).padStart(2, "0")).join("");

const axisText = () => ({ color: color("muted"), fontSize: 12.5 });
const byteAxis = (more = {}) => ({
  type: "value",
  axisLabel: { ...axisText(), formatter: size, hideOverlap: true },
  splitLine: { lineStyle: { color: color("line") } },
  ...more,
});

const tooltip = (content) => ({
  confine: true,
  appendTo: "body",
  backgroundColor: color("card"),
  borderColor: color("line"),
  padding: [8, 12],
  transitionDuration: 0,
  formatter: content,
});

/** A tooltip's content: a heading, pairs of a word and a value, and remarks. */
function tip(heading, pairs, ...remarks) {
  return el("div", { class: "tip" }, el("strong", { class: "name" }, heading),
    el("dl", {}, pairs.flatMap(([word, value]) => [el("dt", {}, word), el("dd", {}, value)])),
    remarks.filter(Boolean).map((remark) => el("p", {}, remark)));
}
const bothSizes = (bytes) => bytes < 1000 ? exact(bytes) : `${size(bytes)} (${exact(bytes)})`;
