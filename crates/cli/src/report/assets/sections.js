// The other sections: figures, bars, the matrix, the layers of an image.

function startGlance(data) {
  const { totals } = data;
  const saved = totals.apparent - totals.stored;
  const onDisk = totals.disk.reduce((all, [, , blocks]) => all + blocks, 0);
  const largest = data.images[0];
  const figure = (id, bytes) => el("p", { class: "figure" }, sized(bytes, { id }));
  const card = (label, ...content) =>
    el("div", { class: "card" }, el("p", { class: "label" }, label), content);
  byId("cards").replaceChildren(
    card("The store holds", figure("total-stored", totals.stored), el("p", { class: "more" },
      sized(onDisk, { id: "total-disk" }), " on disk in all")),
    card("Without sharing", figure("total-apparent", totals.apparent), el("p", { class: "more" },
      `${many(data.in_store, "image")}, ${many(totals.layers, "layer")}, ` +
      `${many(totals.files, "content")}`)),
    card("Sharing saves", figure("total-saved", saved), el("p", { class: "more" },
      `${percent(saved, totals.apparent)} of it: ${times(totals.apparent, totals.stored)} smaller`)),
    card("Holds the most alone", el("p", { class: "figure name",
      title: largest ? imageName(largest) : "" }, largest ? imageName(largest) : "–"),
    el("p", { class: "more" }, largest
      ? ["removing it frees ", sized(largest.unique)] : "no images")),
  );

  const unique = data.images.length === data.in_store ? sum(data.images, "unique") : null;
  const layers = totals.apparent - totals.layered, files = totals.layered - totals.stored;
  const parts = [
    ...unique === null ? [["c-3", totals.stored, "stored"]]
      : [["c-0", unique, "in one image alone"], ["c-3", totals.stored - unique, "in several images"]],
    ["c-saved", files, "saved: equal files"],
    ["c-again", layers, "saved: equal layers"],
  ];
  const bar = el("div", { class: "bar", role: "img", "aria-label": parts.map(([, bytes, words]) =>
    `${words} ${size(bytes)}`).join(", ") });
  for (const [name, bytes, words] of parts.filter(([, bytes]) => bytes > 0)) {
    const part = el("span", { class: name, title: `${words}: ${exact(bytes)}` });
    part.style.flexGrow = bytes / totals.apparent;
    bar.append(part);
  }
  byId("strip").replaceChildren(bar, el("ul", { class: "legend" }, parts.map(
    ([name, bytes, words]) => el("li", {}, el("span", { class: `swatch ${name}` }),
      el("span", {}, `${words} `, el("strong", {}, sized(bytes)))))),
  el("details", {}, el("summary", {}, "Everything on disk, part by part"), el("div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Everything on disk" },
    el("table", { id: "disk-table" }, heads("Part", "Size ", "On disk, in whole blocks "),
      el("tbody", {}, totals.disk.map(([part, bytes, blocks]) => el("tr", {}, el("td", {}, part),
        sizedCell(bytes), sizedCell(blocks))), el("tr", {}, el("th", { scope: "row" }, "Total"),
        sizedCell(totals.disk.reduce((all, [, bytes]) => all + bytes, 0)), sizedCell(onDisk)))))));
}

/** Arrow keys over a chart's items, and what is said of the one that is chosen. */
function walkable(drawn, { count, show, open, label, said }) {
  let at = -1;
  const go = (next) => {
    at = Math.max(0, Math.min(count() - 1, next));
    show(at);
    if (said) byId(said).textContent = label(at);
    else drawn.node.setAttribute("aria-label", label(at));
  };
  drawn.node.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !count()) return;
    const moves = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
    if (event.key in moves) go(at < 0 ? 0 : at + moves[event.key]);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(count() - 1);
    else if (event.key === "Enter" && at >= 0 && open) open(at);
    else if (event.key === "Escape") drawn.chart.dispatchAction({ type: "hideTip" });
    else return;
    event.preventDefault();
  });
  drawn.node.addEventListener("blur", () => drawn.chart.dispatchAction({ type: "hideTip" }));
}

/** Horizontal bars, the first item on top. */
function bars(items, series, { left = 150, label, split = 4, head } = {}) {
  return {
    grid: { left, right: 24, top: 6, bottom: 26 },
    xAxis: byteAxis({ position: "bottom", splitNumber: split }),
    yAxis: {
      type: "category", inverse: true, data: items.map((_, at) => at),
      axisLine: { show: false }, axisTick: { show: false },
      axisLabel: { color: color("ink"), fontSize: 13, interval: 0,
        formatter: (at) => fitted(label(items[at]), left - 14, 13, head) },
    },
    series: series.map((one) => ({
      type: "bar", stack: "all", barMaxWidth: 22, name: one.name, data: items.map(one.value),
      itemStyle: { color: color(one.color) }, emphasis: { disabled: true },
    })),
  };
}

function startUnique(data, map) {
  if (!data.images.length) return byId("unique").closest("section").remove();
  const items = data.images.slice(0, 12);
  const narrow = () => byId("unique").clientWidth < 560;
  byId("unique").style.height = `${46 + 34 * Math.max(2, items.length)}px`;
  const series = [
    { name: "in this image alone", color: "only", value: (image) => image.unique },
    { name: "in other images too", color: "share-3", value: (image) => image.shared },
  ];
  legendAbove("unique", series);
  const about = (image) => tip(imageName(image), [
    ["Alone", bothSizes(image.unique)],
    ["With others", bothSizes(image.shared)],
    ["Attributed", bothSizes(image.attributed)],
  ], "Click to walk in.");
  const drawn = chart("unique", () => ({
    ...bars(items, series, { left: narrow() ? 130 : 190, label: imageName,
      split: narrow() ? 2 : 4 }),
    tooltip: { ...tooltip((all) => about(items[all[0].dataIndex])), trigger: "axis",
      axisPointer: { type: "shadow" } },
  }), { renew: true });
  drawn.chart.on("click", (info) => map.show(items[info.dataIndex]));
  const words = (at) => `${imageName(items[at])}: ${size(items[at].unique)} alone, ` +
    `${size(items[at].shared)} with others`;
  drawn.node.setAttribute("aria-label", `The ${items.length} images that hold the most alone. ` +
    items.map((_, at) => words(at)).join("; ") + ". The table of images has all.");
  walkable(drawn, {
    count: () => items.length, label: words, open: (at) => map.show(items[at]),
    show: (at) => drawn.chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at }),
  });
}

function startLevels(data) {
  const { totals } = data;
  const levels = [
    ["Nothing shared", totals.apparent, "each image with all its layers for itself", "again"],
    ["Equal layers", totals.layered, "as overlay2 keeps them", "share-3"],
    ["Equal files", totals.stored, "this store", "only"],
    ...data.levels.map((level) => [level.name, level.bytes, level.about, "share-2"]),
  ];
  byId("levels").style.height = `${56 + 46 * levels.length}px`;
  const drawn = chart("levels", () => ({
    grid: { left: 118, right: 64, top: 8, bottom: 26 },
    xAxis: byteAxis({ splitNumber: byId("levels").clientWidth < 500 ? 2 : 3 }),
    yAxis: { type: "category", inverse: true, data: levels.map(([name]) => name),
      axisLine: { show: false }, axisTick: { show: false },
      axisLabel: { color: color("ink"), fontSize: 13 } },
    tooltip: tooltip((info) => tip(levels[info.dataIndex][0], [
      ["Size", bothSizes(levels[info.dataIndex][1])]], levels[info.dataIndex][2])),
    series: [{ type: "bar", barMaxWidth: 26, emphasis: { disabled: true },
      data: levels.map(([, bytes, , name]) =>
        ({ value: bytes, itemStyle: { color: color(name), borderRadius: [0, 3, 3, 0] } })),
      label: { show: true, position: "right", color: color("ink"), fontSize: 13,
        formatter: (info) => size(info.value) } }],
  }), { renew: true });
  const words = (at) => `${levels[at][0]}: ${size(levels[at][1])}, ` +
    `${times(totals.apparent, levels[at][1])} smaller`;
  drawn.node.setAttribute("aria-label", levels.map((_, at) => words(at)).join("; "));
  walkable(drawn, { count: () => levels.length, label: words,
    show: (at) => drawn.chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at }) });
  byId("levels-table").replaceChildren(heads("Shared", "Size ", "Ratio "),
    el("tbody", {}, levels.map(([name, bytes, about]) => el("tr", {},
      el("td", { title: about }, name), sizedCell(bytes),
      el("td", { class: "number" }, times(totals.apparent, bytes))))));
}

/** The table of images: sorted by a click on a heading, filtered by a part of a name. */
function startImages(data, map) {
  const columns = [
    ["Image", (image) => imageName(image)],
    ["Layers", (image) => image.layers.length],
    ["Apparent", (image) => image.apparent, "apparent"],
    ["Stored", (image) => image.stored, "stored"],
    ["Unique", (image) => image.unique, "unique"],
    ["Shared", (image) => image.shared, "shared"],
    ["Attributed", (image) => image.attributed, "attributed"],
  ];
  let by = 4, down = true; // Unique
  function draw() {
    const part = byId("images-filter").value.trim().toLowerCase();
    const wanted = (image) => !part || image.id.includes(part) ||
      image.names.some((name) => name.toLowerCase().includes(part));
    const value = columns[by][1];
    const order = (a, b) => by === 0 ? value(a).localeCompare(value(b)) : value(a) - value(b);
    const images = data.images.filter(wanted).sort((a, b) => down ? -order(a, b) : order(a, b));
    byId("images-table").replaceChildren(
      el("caption", { class: "visually-hidden" }, "The images and what they hold"),
      el("thead", {}, el("tr", {}, columns.map(([name], at) => el("th", {
        scope: "col", class: at ? "number" : null,
        "aria-sort": at === by ? (down ? "descending" : "ascending") : null,
      }, el("button", { type: "button", onclick: () => {
        down = at === by ? !down : at > 0;
        by = at;
        draw();
        byId("images-table").querySelectorAll("th button")[at].focus();
      } }, name))))),
      el("tbody", {}, images.map((image) => el("tr", { "data-image": image.id },
        el("td", { title: image.names.join(", ") || image.id }, el("button", { type: "button",
          class: "link name", onclick: () => map.show(image) }, imageName(image)),
        image.names.length > 1 ? el("span", { class: "muted" },
          ` +${image.names.length - 1}`) : null),
        el("td", { class: "number" }, String(image.layers.length)),
        columns.slice(2).map(([, bytes, name]) =>
          sizedCell(bytes(image), { "data-column": name }))))));
    foldable(byId("images-table"));
    byId("images-note").textContent = images.length < data.images.length
      ? `${images.length} of ${data.images.length} images` : "";
  }
  byId("images-filter").addEventListener("input", draw);
  draw();
}

function startMatrix(data) {
  const { rows, bytes, files } = data.matrix;
  if (rows.length < 2) return byId("matrix").closest("section").remove();
  const rowName = (row) => row.length === 1 ? imageName(data.images[row[0]])
    : `${imageName(data.images[row[0]])} +${row.length - 1}`;
  const names = rows.map(rowName);
  const cell = (table, a, b) => table[Math.max(a, b)][Math.min(a, b)];
  // Bytes that both hold by bytes that at least one holds.
  const part = (a, b) => {
    const either = bytes[a][a] + bytes[b][b] - cell(bytes, a, b);
    return either ? cell(bytes, a, b) / either : 1;
  };
  let unit = "part";
  const cells = rows.flatMap((_, y) => rows.map((_, x) => [x, y]));
  const about = (x, y) => tip(x === y ? names[x] : `${names[y]} and ${names[x]}`, [
    [x === y ? "Holds" : "Both hold", bothSizes(cell(bytes, x, y))],
    ["Contents", grouped.format(cell(files, x, y))],
    ...x === y ? [] : [["Of what either holds", percent(part(x, y), 1)]],
  ], rows[x].length > 1 && x === y
    ? `Images: ${rows[x].slice(0, 12).map((at) => imageName(data.images[at])).join(", ")}` +
      (rows[x].length > 12 ? ` and ${rows[x].length - 12} more` : "") : null);
  const labelWidth = () => byId("matrix").clientWidth < 760 ? 110 : 190;
  const rowHeight = () => rows.length <= 14 ? 40 : rows.length <= 24 ? 28 : 20;
  const drawn = chart("matrix", () => {
    byId("matrix").style.height = `${40 + rowHeight() * rows.length + 66}px`;
    const left = labelWidth(), dense = rows.length > 14;
    const value = ([x, y]) => unit === "part" ? part(x, y) : cell(bytes, x, y);
    const wide = (byId("matrix").clientWidth - left - 8) / rows.length;
    const flat = wide > 96;
    // Where slanting names would cover each other, columns have the numbers of the rows.
    const numbered = wide < 24;
    const top = flat || numbered ? 30 : 96;
    const row = (at, room, pixels) => {
      const number = numbered ? `${at + 1} · ` : "";
      return number + fitted(names[at], room - widthOf(number, pixels), pixels);
    };
    const column = (at) => numbered ? (at % Math.ceil(18 / wide) ? "" : String(at + 1))
      : fitted(names[at], flat ? wide - 8 : 112, dense ? 11 : 12.5);
    const text = (info) => {
      const [x, y] = info.value;
      return unit === "part" ? percent(part(x, y), 1) : size(cell(bytes, x, y));
    };
    const most = unit === "part" ? 1 : Math.max(1, ...cells.map(value));
    const shade = (at) => at / most > 0.68 ? 1 : 0;
    const dark = document.documentElement.dataset.theme === "dark";
    const inks = dark ? ["#e8edf3", "#10161d"] : ["#17202b", "#ffffff"];
    const axis = { type: "category", axisLine: { show: false }, axisTick: { show: false },
      splitArea: { show: false } };
    return {
      grid: { left, right: 8, top, bottom: 8 },
      xAxis: { ...axis, position: "top", data: names.map((_, at) => at), axisLabel: {
        ...axisText(), interval: 0, rotate: flat || numbered ? 0 : -45,
        formatter: (at) => column(Number(at)), fontSize: dense ? 11 : 12.5 } },
      yAxis: { ...axis, inverse: true, data: names.map((_, at) => at), axisLabel: {
        color: color("ink"), interval: 0, fontSize: dense ? 11 : 13,
        formatter: (at) => row(Number(at), left - 14, dense ? 11 : 13) } },
      visualMap: { show: false, min: 0, max: most, dimension: 2,
        inRange: { color: [color("heat-0"), color("heat-half"), color("heat-1")] } },
      tooltip: tooltip((info) => about(info.value[0], info.value[1])),
      series: [{
        type: "heatmap",
        data: cells.map((at) => ({ value: [...at, value(at)],
          label: { color: inks[shade(value(at))] } })),
        label: { show: wide > 46 && !dense, fontSize: 12.5, formatter: text },
        itemStyle: { borderColor: color("card"), borderWidth: rows.length > 24 ? 1 : 2,
          borderRadius: 3 },
        emphasis: { itemStyle: { borderColor: color("ink"), borderWidth: 2 } },
      }],
    };
  }, { renew: true });

  const folded = rows.some((row) => row.length > 1);
  byId("matrix-note").textContent = "Contents that both hold, whichever layers they are in: " +
    "as a part of what either holds, or in bytes. " + (folded ? `Of ${data.images.length} images, alike ones share a row (+N: how many more).` : "");
  const words = (at) => {
    const [x, y] = cells[at];
    return x === y ? `${names[x]} holds ${size(bytes[x][x])}`
      : `${names[y]} and ${names[x]}: ${size(cell(bytes, x, y))}, ` +
        `${percent(part(x, y), 1)} of what either holds`;
  };
  drawn.node.setAttribute("aria-label", `What images have in common, ${rows.length} rows and ` +
    "columns. Arrow keys walk over the cells; the table below has the same numbers.");
  let at = -1;
  drawn.node.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: rows.length, ArrowUp: -rows.length };
    if (event.key === "Escape") return drawn.chart.dispatchAction({ type: "hideTip" });
    if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return undefined;
    const next = at < 0 ? 0 : at + moves[event.key];
    if (next >= 0 && next < cells.length) at = next;
    drawn.chart.dispatchAction({ type: "downplay", seriesIndex: 0 });
    drawn.chart.dispatchAction({ type: "highlight", seriesIndex: 0, dataIndex: at });
    drawn.chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at });
    byId("matrix-said").textContent = words(at);
    return event.preventDefault();
  });
  drawn.node.addEventListener("blur", () => {
    drawn.chart.dispatchAction({ type: "downplay", seriesIndex: 0 });
    drawn.chart.dispatchAction({ type: "hideTip" });
  });
  const buttons = byId("matrix-unit").querySelectorAll("button");
  const press = (choice) => {
    unit = choice;
    buttons.forEach((one) => one.setAttribute("aria-pressed", one.dataset.unit === unit));
    drawn.draw();
  };
  buttons.forEach((one) => one.addEventListener("click", () => press(one.dataset.unit)));
  press("part");
  // A large table is made only for those who open it.
  byId("matrix-details").addEventListener("toggle", () => {
    if (byId("matrix-table").childElementCount) return;
    byId("matrix-table").append(
      el("thead", {}, el("tr", {}, el("td", {}), names.map((name) =>
        el("th", { scope: "col", class: "number", title: name }, name)))),
      el("tbody", {}, rows.map((_, y) => el("tr", {}, el("th", { scope: "row" }, names[y]),
        rows.map((_, x) => sizedCell(cell(bytes, x, y)))))));
  });
}

function startGrowth(data) {
  if (!data.images.length || data.hosts) return byId("growth").closest("section").remove();
  const select = byId("growth-image");
  const order = data.images.map((_, at) => at)
    .sort((a, b) => imageName(data.images[a]).localeCompare(imageName(data.images[b])));
  select.append(...order.map((at) => el("option", { value: at }, imageName(data.images[at]))));
  select.value = data.images.reduce((best, image, at) =>
    image.layers.length > data.images[best].layers.length ? at : best, 0);
  let rows = [];
  const read = () => {
    rows = data.images[select.value].layers.map((part, at) => {
      const layer = data.layers[part.layer];
      return { part, layer, at, again: Math.max(0, layer.stored - part.only - part.shared),
        twice: layer.apparent - layer.stored,
        step: part.step === null ? shortId(layer.diff_id) : data.texts[part.step] };
    });
  };
  const series = [
    { name: "new, in this image alone", color: "only", value: (row) => row.part.only },
    { name: "new, in other images too", color: "share-3", value: (row) => row.part.shared },
    { name: "in a lower layer already", color: "again", value: (row) => row.again },
    { name: "in this layer twice", color: "twice", value: (row) => row.twice },
  ];
  const about = (row) => tip(`${row.at} · ${shortened(row.step, 260)}`, [
    ["Layer", shortId(row.layer.diff_id)],
    ["Apparent", bothSizes(row.layer.apparent)],
    ...series.map((one) => [one.name, bothSizes(one.value(row))]),
    ["Entries", grouped.format(row.layer.entries)],
  ]);
  read();
  legendAbove("growth", series);
  const drawn = chart("growth", () => {
    const wide = byId("growth").clientWidth;
    byId("growth").style.height = `${46 + 34 * Math.max(2, rows.length)}px`;
    const option = bars(rows, series, { left: wide < 500 ? 150 : wide < 900 ? 260 : 380,
      label: (row) => `${row.at} · ${row.step}`, split: wide < 500 ? 2 : 4, head: STEP_HEAD });
    return { ...option, tooltip: { ...tooltip((all) => about(rows[all[0].dataIndex])),
      trigger: "axis", axisPointer: { type: "shadow" } } };
  }, { renew: true });
  const words = (at) => `Layer ${at}, ${rows[at].step}: ` +
    series.map((one) => `${size(one.value(rows[at]))} ${one.name}`).join(", ");
  walkable(drawn, { count: () => rows.length, label: words, said: "growth-said",
    show: (at) => drawn.chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at }) });
  function table() {
    drawn.node.setAttribute("aria-label", `The ${rows.length} layers of ` +
      `${imageName(data.images[select.value])}, base first. Arrow keys walk over them; the table ` +
      "below has the same numbers.");
    byId("growth-table").replaceChildren(
      heads("Layer", "Step", "Apparent ", ...series.map((one) => `${one.name} `)),
      el("tbody", {}, rows.map((row) => el("tr", {}, el("td", {}, String(row.at)),
        el("td", { class: "text name" }, row.step), sizedCell(row.layer.apparent),
        series.map((one) => sizedCell(one.value(row)))))));
    foldable(byId("growth-table"));
  }
  table();
  select.addEventListener("change", () => {
    read();
    drawn.draw();
    drawn.chart.resize();
    table();
  });
}

/** Files that one layer adds and a later one takes away, content by content, the largest first. */
function startWaste(data) {
  if (data.hosts) return byId("waste").closest("section").remove();
  const { rows, count, bytes, contents, lost, images } = data.waste;
  const asked = images < data.images.length ? `Of the first ${images} images: ` : "";
  byId("waste-note").textContent = count
    ? `${asked}${many(count, "file")}, ${size(bytes)}, with ` +
      `${many(contents, "different content")}. ${size(lost)} are stored for nothing, the rest ` +
      `would be held all the same.${contents > rows.length
        ? ` ${rows.length} contents are shown, what is stored for nothing first.` : ""}`
    : `${asked || "No image: "}nothing is added by one layer and taken away by a later one.`;
  if (!rows.length) {
    byId("waste").remove();
    return byId("waste-table").parentElement.remove();
  }
  const stepOf = (file, at) => {
    const part = data.images[file.image].layers[at];
    return `${at} · ${part.step === null ? shortId(data.layers[part.layer].diff_id)
      : data.texts[part.step]}`;
  };
  const top = rows.slice(0, 10);
  const others = (row) => row.count > 1 ? ` +${row.count - 1}` : "";
  const nobodys = (row) => row.kept === "stored for nothing";
  const series = [
    { name: "stored for nothing", color: "only", value: (row) => nobodys(row) ? row.bytes : 0 },
    { name: "held for others all the same", color: "again",
      value: (row) => nobodys(row) ? 0 : row.bytes },
  ];
  byId("waste").style.height = `${46 + 30 * Math.max(2, top.length)}px`;
  legendAbove("waste", series);
  const drawn = chart("waste", () => {
    const wide = byId("waste").clientWidth;
    return {
      ...bars(top, series, { left: wide < 500 ? 170 : wide < 900 ? 260 : 380,
        label: (row) => `${row.files[0].path}${others(row)}`, split: wide < 500 ? 2 : 4 }),
      tooltip: { ...tooltip((all) => {
        const row = top[all[0].dataIndex], file = row.files[0];
        return tip(`${file.path}${others(row)}`, [["Size", bothSizes(row.bytes)],
          ["Files of this content", grouped.format(row.count)],
          ["Image", imageName(data.images[file.image])], ["Images", grouped.format(row.images)]],
        `Added by ${shortened(stepOf(file, file.added), 160)}`,
        `${file.how} by ${shortened(stepOf(file, file.removed), 160)}`, row.kept);
      }), trigger: "axis", axisPointer: { type: "shadow" } },
    };
  }, { renew: true });
  const words = (at) => `${top[at].files[0].path}${others(top[at])}: ${size(top[at].bytes)}, ` +
    `${top[at].files[0].how} by ${stepOf(top[at].files[0], top[at].files[0].removed)}`;
  drawn.node.setAttribute("aria-label", `The ${top.length} largest wasted contents. ` +
    "The table below has them with their causes.");
  walkable(drawn, { count: () => top.length, label: words,
    show: (at) => drawn.chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at }) });
  /** The other files of a content, each with what is not as the first one's. */
  const more = (row) => {
    const [first, ...rest] = row.files;
    const line = (file) => {
      const cause = file.removed === first.removed && file.image === first.image ? ""
        : ` (${imageName(data.images[file.image])}, ${file.how} by ` +
          `${shortened(stepOf(file, file.removed), 80)})`;
      return el("li", { class: "name" }, `${file.path}${cause}`);
    };
    const unnamed = row.count - row.files.length;
    return rest.length ? el("details", {},
      el("summary", {}, `and ${many(row.count - 1, "more file")} with this content`),
      el("ul", { class: "more-files" }, rest.map(line),
        unnamed ? el("li", {}, `and ${grouped.format(unnamed)} more`) : null)) : null;
  };
  byId("waste-table").replaceChildren(
    heads("File", "Size ", "Added by", "Taken away by", "How", "Image"),
    el("tbody", {}, rows.map((row) => {
      const file = row.files[0];
      return el("tr", {}, el("td", { class: "text" }, el("span", { class: "name" }, file.path),
        more(row)), sizedCell(row.bytes),
      el("td", { class: "text name" }, stepOf(file, file.added)),
      el("td", { class: "text name" }, stepOf(file, file.removed)),
      el("td", {}, `${file.how}; ${row.kept}`),
      el("td", {}, imageName(data.images[file.image]),
        row.images > 1 ? ` +${row.images - 1}` : ""));
    })));
  foldable(byId("waste-table"));
}
