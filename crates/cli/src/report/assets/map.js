// The map: a treemap of one place and what is in it, walked from the store to a file.
//
// A place is { kind, label, bytes, charged, files, inside() }. `charged` is its area: the bytes
// of its contents, each split among the images that hold it. Only the place that is shown and two
// levels below it are ever made into tiles, so the size of the store does not matter.

/** Tiles with less than this part of the map are folded into one. */
const SMALLEST = 0.0004;
const MOST_TILES = 600;
/** Tiles with less than this part of the map show nothing inside. */
const NESTED = 0.02;

const SHARES = ["1 image alone", "2 images", "3–4 images", "5–9 images", "10 images or more"];
const SHARE_COLORS = ["only", "share-2", "share-3", "share-5", "share-10"];

/** How many images hold a place's bytes, on average. */
const holdersOf = (place) => place.charged > 0 ? Math.max(1, place.bytes / place.charged) : 1;

function shareOf(place) {
  const holders = holdersOf(place);
  return holders < 1.5 ? 0 : holders < 2.5 ? 1 : holders < 4.5 ? 2 : holders < 9.5 ? 3 : 4;
}
const shareClass = (place) => place.kind === "elsewhere" ? "c-nobody" : `c-${shareOf(place)}`;
const tileColor = (place) =>
  color(place.kind === "elsewhere" ? "nobody" : SHARE_COLORS[shareOf(place)]);

function sum(places, name) {
  return places.reduce((total, place) => total + place[name], 0);
}

/** What is in a directory of a layer; see `Shown` in tree.rs for the lists. */
function nodePlace(node, parent) {
  const [kind, name, bytes, charged, files = 1, children] = node;
  const place = { parent, bytes, charged, files, layer: parent.layer };
  if (kind === 2) return { ...place, kind: "folded", label: many(name, "more entry", "more entries") };
  place.label = name;
  place.path = `${parent.path === "/" ? "" : parent.path}/${name}`;
  if (kind === 0) return { ...place, kind: "file" };
  if (kind === 1) return { ...place, kind: "closed", label: `${name}/` };
  return Object.assign(place, {
    kind: "directory", label: `${name}/`,
    inside: () => children.map((child) => nodePlace(child, place)),
  });
}

function layerPlace(data, part, index, parent) {
  const layer = data.layers[part.layer];
  const step = part.step === null ? null : data.texts[part.step];
  const place = {
    kind: "layer", parent, path: "/", layer, step,
    label: `${index} · ${step || shortId(layer.diff_id)}`,
    bytes: part.only + part.shared, charged: part.charged, files: null,
  };
  if (layer.tree) {
    place.inside = () => layer.tree[5].map((child) => nodePlace(child, place));
  }
  return place;
}

const imageName = (image) =>
  image.names.length ? image.names[0].replace(/:latest$/, "") : shortId(image.id);

function storePlace(data) {
  const store = {
    kind: "store", label: "Store", parent: null, bytes: data.totals.stored,
    charged: data.totals.stored, files: data.totals.files,
  };
  const images = data.images.map((image) => {
    const place = {
      kind: "image", parent: store, image, label: imageName(image),
      bytes: image.stored, charged: image.attributed, files: image.files,
    };
    place.inside = () => image.layers.map((part, at) => layerPlace(data, part, at, place));
    return place;
  });
  if (data.elsewhere) {
    images.push({
      kind: "elsewhere", parent: store, bytes: data.elsewhere, charged: data.elsewhere,
      files: null, label: data.images.length < data.in_store ? "Other images" : "In no image",
    });
  }
  store.inside = () => images;
  return store;
}

/** What is in a place, the largest first, small things folded into one place of their own. */
function unfolded(place, most, smallest) {
  const rank = (a) => a.kind === "folded" || a.kind === "elsewhere" ? -1 : a.charged;
  const all = place.inside().slice().sort((a, b) => rank(b) - rank(a));
  const whole = sum(all, "charged");
  let shown = all.findIndex((inner, at) => at >= most || inner.charged < whole * smallest);
  if (shown < 0 || all.length - shown < 2) return all;
  // Of a heap of small things some are shown all the same.
  shown = Math.max(shown, Math.min(all.length, 12, most));
  const rest = all.slice(shown);
  if (rest.length < 2) return all;
  const noun = { store: "image", image: "layer" }[place.kind] || "entry";
  const folded = {
    kind: "rest", parent: place, path: place.path, layer: place.layer,
    label: many(rest.length, `more ${noun}`, noun === "entry" ? "more entries" : `more ${noun}s`),
    bytes: sum(rest, "bytes"), charged: sum(rest, "charged"), files: sum(rest, "files"),
    inside: () => rest,
  };
  return [...all.slice(0, shown), folded];
}

const KINDS = {
  store: "the store", image: "image", layer: "layer", directory: "directory", file: "file",
  closed: "directory, too small to be opened here", folded: "folded: too small to be shown here",
  rest: "small ones together", elsewhere: "not shown on this page",
};

function placeFacts(place) {
  const facts = [["Size", bothSizes(place.bytes)]];
  const image = place.image;
  const holders = holdersOf(place);
  if (holders > 1.0001 && place.kind !== "elsewhere") {
    facts.push(["Its part of the disk", bothSizes(place.charged)]);
  }
  if (image) facts.push(["Removing it frees", bothSizes(image.unique)]);
  if (place.kind !== "elsewhere" && place.kind !== "store") {
    facts.push(["Held by", place.kind === "file"
      ? many(Math.round(holders), "image")
      : holders < 1.0001 ? "1 image" : `${holders.toFixed(1)} images on average`]);
  }
  if (place.files !== null && place.kind !== "file") {
    facts.push(["Contents", grouped.format(place.files)]);
  }
  if (place.kind === "layer") {
    facts.push(["Layer", shortId(place.layer.diff_id)]);
    facts.push(["Images with this layer", grouped.format(place.layer.images)]);
  }
  return facts;
}

function placeTip(place) {
  const heading = place.kind === "file" || place.kind === "directory" ? place.path : place.label;
  const repeated = place.kind === "layer" && place.layer.stored > place.bytes
    ? `${size(place.layer.stored - place.bytes)} more of it are in lower layers already.` : null;
  const closed = place.kind === "layer" && !place.inside
    ? "What is in it is not on this page: strata ls shows it." : null;
  return tip(heading, placeFacts(place), KINDS[place.kind], repeated, closed);
}

const TILE_FONT = 12.5;

/** What a tile of that size says: its bytes whole or not at all, and as much of its name as fits. */
function tileText(place, width, height, upper) {
  const room = width - 12, bytes = size(place.charged);
  const head = place.kind === "layer" ? STEP_HEAD : NAME_HEAD;
  const bytesWidth = widthOf(bytes, TILE_FONT);
  if (room < 24 || height < 22) return "";
  if (upper) {
    const beside = room - bytesWidth - 8;
    return beside < 48 ? fitted(place.label, room, TILE_FONT, head)
      : `${fitted(place.label, beside, TILE_FONT, head)}  ${bytes}`;
  }
  const name = fitted(place.label, room, TILE_FONT, head);
  return height < 40 || bytesWidth > room ? name : `${name}\n${bytes}`;
}

/** Why an image's tile, its size and what removing it frees are not the same. */
function imageWords({ image, label }) {
  if (!image.shared) {
    return `No other image holds anything of ${label}: its tile, its size and what removing it ` +
      `frees are all ${size(image.stored)}.`;
  }
  const frees = image.unique ? `Removing it frees the ${size(image.unique)} that it holds alone`
    : "Removing it frees nothing, for it holds nothing alone";
  return `The files of ${label} take ${size(image.stored)}. ${size(image.shared)} of that is in ` +
    `other images too and split evenly among them, so its tile is ${size(image.attributed)}. ` +
    `${frees}; the rest stays for the others.`;
}

/** The map with its trail, its table and its keys. */
function startMap(data) {
  const root = storePlace(data);
  let here = root, tiles = [], texts = [], chosen = -1, drawn;

  /** Finds out what each tile has room for. The chart counts its root first, as below. */
  function fit(instance) {
    const laid = instance.getModel().getSeriesByIndex(0).getData();
    texts = tiles.map((node, at) => {
      const box = laid.getItemLayout(at + 1);
      const upper = Boolean(node.children && node.children.length && box && box.upperHeight);
      return box ? tileText(node.place, box.width, upper ? 24 : box.height, upper) : "";
    });
  }

  /** A tile of the chart, and what is in it as far as it can be seen. */
  function tile(place, whole, level) {
    const paint = tileColor(place), frame = shade(paint);
    const node = {
      name: place.label, value: place.charged, place,
      itemStyle: { color: paint, borderColor: frame },
      label: { color: inkOn(paint) },
      upperLabel: { color: inkOn(frame) },
    };
    tiles.push(node);
    if (level < (here.kind === "store" ? 2 : 3) && place.inside &&
        place.kind !== "rest" && place.charged > whole * NESTED) {
      node.children = unfolded(place, 30, 0.01).filter((inner) => inner.charged > 0)
        .map((inner) => tile(inner, whole, level + 1));
    }
    return node;
  }

  function option(now) {
    drawn = now;
    tiles = [];
    texts = [];
    const inside = unfolded(here, MOST_TILES, SMALLEST);
    const whole = Math.max(1, sum(inside, "charged"));
    const shown = inside.filter((place) => place.charged > 0);
    const text = { overflow: "none", fontSize: TILE_FONT, lineHeight: 16, padding: [3, 5],
      formatter: (info) => texts[info.dataIndex - 1] || "" };
    return {
      tooltip: tooltip((info) => info.data && info.data.place ? placeTip(info.data.place) : ""),
      series: [{
        type: "treemap", data: shown.map((place) => tile(place, whole, 1)), name: here.label,
        width: "100%", height: "100%", left: 0, top: 0, roam: false, nodeClick: false,
        breadcrumb: { show: false }, squareRatio: 1.2, sort: "desc",
        label: { ...text, position: "insideTopLeft", distance: 0 },
        upperLabel: { ...text, show: true, height: 24 },
        itemStyle: { borderWidth: 0, gapWidth: 2, borderColor: color("card") },
        emphasis: { itemStyle: { borderColor: color("ink"), borderWidth: 2 },
          upperLabel: { show: true, color: color("card") } },
        levels: [
          { itemStyle: { borderWidth: 0, gapWidth: shown.length > 60 ? 1 : 4, borderColor: color("card") },
            upperLabel: { show: false } },
          { itemStyle: { borderWidth: 2, gapWidth: 1 } },
          { itemStyle: { borderWidth: here.kind === "store" ? 0 : 1, gapWidth: 1 },
            upperLabel: { show: here.kind !== "store" } },
          { itemStyle: { borderWidth: 0, gapWidth: 1 }, upperLabel: { show: false } },
        ],
      }],
    };
  }

  chart("map", option, { renew: true, fit });
  const instance = drawn.chart;

  function describe(place) {
    const facts = placeFacts(place).map(([word, value]) => `${word}: ${value}`);
    return `${place.label}, ${KINDS[place.kind]}. ${facts.join(". ")}.`;
  }

  /** Marks a tile: on the map, in the table, and aloud. */
  function choose(at, { aloud = true } = {}) {
    instance.dispatchAction({ type: "downplay", seriesIndex: 0 });
    chosen = at;
    const node = tiles[at];
    for (const row of byId("map-table").querySelectorAll("tr.chosen")) row.className = "";
    if (!node) return instance.dispatchAction({ type: "hideTip" });
    // The chart counts its root first, then the tiles as they were made.
    instance.dispatchAction({ type: "highlight", seriesIndex: 0, dataIndex: at + 1 });
    instance.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at + 1 });
    if (aloud) byId("map-said").textContent = describe(node.place);
  }

  function walk(place, { focus = false } = {}) {
    if (!place.inside) return;
    here = place;
    chosen = -1;
    instance.dispatchAction({ type: "hideTip" });
    drawn.draw();
    trail();
    table();
    byId("map-said").textContent = describe(place);
    if (focus) byId("map").focus();
  }

  function up() {
    if (!here.parent) return;
    const from = here;
    walk(here.parent);
    choose(tiles.findIndex((node) => node.place.label === from.label), { aloud: false });
  }

  function trail() {
    const places = [];
    for (let place = here; place; place = place.parent) places.unshift(place);
    byId("crumbs").replaceChildren(...places.map((place) => el("li", {}, place === here
      ? el("span", { "aria-current": "location", class: "name", title: place.label }, place.label)
      : el("button", { type: "button", class: "link name", title: place.label,
        onclick: () => walk(place) }, place.label))));
    const facts = placeFacts(here).map(([word, value]) => `${word} ${value}`);
    byId("here").textContent = [here.path && here.path !== "/" ? here.path : null, ...facts]
      .filter(Boolean).join(" · ");
    const image = places.find((place) => place.image);
    byId("here-words").textContent = image && here === image ? imageWords(image) : "";
    byId("map").setAttribute("aria-label", `Map of ${here.label}. ${facts.join(". ")}. ` +
      "Arrow keys choose a tile, Enter walks in, Escape walks up. The table that follows has " +
      "the same tiles.");
  }

  function table() {
    const whole = Math.max(1, sum(here.inside(), "charged"));
    const rows = unfolded(here, MOST_TILES, SMALLEST).map((place) => {
      const name = place.inside
        ? el("button", { type: "button", class: "link name", onclick: () => walk(place) },
          place.label)
        : el("span", { class: "name" }, place.label);
      const row = el("tr", {}, el("td", {}, el("div", { class: "with-swatch",
        title: `${place.label}: ${KINDS[place.kind]}, ${SHARES[shareOf(place)].toLowerCase()}` },
      el("span", { class: `swatch ${shareClass(place)}` }), name)),
      sizedCell(place.charged), sizedCell(place.bytes));
      row.addEventListener("mouseenter", () => {
        instance.dispatchAction({ type: "downplay", seriesIndex: 0 });
        const at = tiles.findIndex((node) => node.place === place);
        if (at >= 0) {
          instance.dispatchAction({ type: "highlight", seriesIndex: 0, dataIndex: at + 1 });
        }
      });
      return row;
    });
    const noun = { store: "Image", image: "Layer" }[here.kind] || "Name";
    byId("map-table").replaceChildren(
      el("caption", { class: "visually-hidden" }, `What is in ${here.label}: ` +
        `${rows.length} rows, ${size(whole)}`),
      heads(noun, "Part of disk ", "Size "), el("tbody", {}, rows));
  }

  instance.on("click", (info) => {
    const node = tiles[info.dataIndex - 1];
    if (!node) return;
    if (node.place.inside) walk(node.place);
    else choose(info.dataIndex - 1);
  });
  byId("map").addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in moves) {
      const next = chosen < 0 ? 0 : chosen + moves[event.key];
      choose(Math.max(0, Math.min(tiles.length - 1, next)));
    } else if (event.key === "Home") choose(0);
    else if (event.key === "End") choose(tiles.length - 1);
    else if (event.key === "Enter" || event.key === " ") {
      if (tiles[chosen]) walk(tiles[chosen].place);
    } else if (event.key === "Escape" || event.key === "Backspace") up();
    else return;
    event.preventDefault();
  });
  byId("map").addEventListener("blur", () => choose(-1));

  byId("legend").replaceChildren(el("li", {}, "Held by, on average:"), ...SHARES.map((words, at) =>
    el("li", {}, el("span", { class: `swatch c-${at}` }), words)));
  trail();
  table();
  return {
    /** Shows an image, from elsewhere on the page. */
    show(image) {
      const place = root.inside().find((inner) => inner.image === image);
      if (!place) return;
      walk(place, { focus: true });
      byId("map-heading").scrollIntoView();
    },
  };
}
