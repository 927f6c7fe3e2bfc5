// Starts everything. What fails here is said on the page, for nobody looks into a console.

try {
  const data = JSON.parse(byId("data").textContent);
  document.documentElement.dataset.theme = "light";
  const made = new Date(data.created);
  const day = made.toISOString().slice(0, 16).replace("T", " ");
  const images = many(data.in_store, "image");
  byId("subtitle").textContent = `The store at ${data.root}: ${
    data.images.length < data.in_store ? `${data.images.length} of its ${images}` : images
  }, ${day} UTC`;
  byId("made").textContent = `Made by strata ${data.strata}. Charts: Apache ECharts.`;
  startTheme();
  startGlance(data);
  const map = startMap(data);
  startUnique(data, map);
  startLevels(data);
  startImages(data, map);
  startMatrix(data);
  startGrowth(data);
  startWaste(data);
  document.documentElement.dataset.ready = "yes";
} catch (error) {
  document.querySelector("main").prepend(el("p", { class: "card", role: "alert" },
    `This page could not be drawn: ${error.message}`));
  throw error;
}
