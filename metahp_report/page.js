"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures");
  const themes = read("themes");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const colours = () => (dark.matches && !printing ? themes.dark : themes.light);

  // Colour tokens such as "@blue:0.2" stand only under keys that name a colour: a text is never read as one.
  function coloured(value, palette, isColour) {
    if (Array.isArray(value)) return value.map((item) => coloured(item, palette, false));
    if (value !== null && typeof value === "object") {
      const result = {};
      for (const key of Object.keys(value)) result[key] = coloured(value[key], palette, key.includes("color"));
      return result;
    }
    if (!isColour || typeof value !== "string" || value[0] !== "@") return value;
    const [name, alpha] = value.slice(1).split(":");
    return `rgba(${palette[name].join(",")},${alpha === undefined ? 1 : alpha})`;
  }

  const config = {
    responsive: true, displaylogo: false, showTips: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "hoverClosestCartesian", "hoverCompareCartesian", "toggleSpikelines"],
  };

  function draw(element) {
    const found = figures[element.dataset.figure];
    try {
      const figure = coloured(found, colours(), false);
      const options = { ...config, toImageButtonOptions: { filename: element.dataset.file || "plot", scale: 2 } };
      const done = Plotly.react(element, figure.data, figure.layout, options);
      element.dataset.drawn = element.dataset.figure;
      return done;
    } catch (error) {
      element.textContent = "This plot could not be drawn: " + error.message;
      element.className = "failed";
      return null;
    }
  }

  const plots = Array.from(document.querySelectorAll(".plot"));
  const drawAll = () => plots.forEach(draw);
  // One after the other, so that the page can be read while the rest is drawn.
  (function next(index) {
    if (index >= plots.length) { document.body.dataset.ready = "yes"; return; }
    draw(plots[index]);
    window.setTimeout(() => next(index + 1), 0);
  })(0);

  document.querySelectorAll("select[data-plot]").forEach((list) => {
    const element = document.getElementById(list.dataset.plot);
    const note = document.getElementById(list.dataset.plot + "-note");
    const show = () => {
      const chosen = list.selectedOptions[0];
      element.dataset.figure = chosen.value;
      element.dataset.file = chosen.dataset.file;
      if (note) { note.textContent = chosen.dataset.note; note.hidden = !chosen.dataset.note; }
      draw(element);
    };
    list.selectedIndex = 0;
    list.addEventListener("change", show);
  });
  dark.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => { printing = true; drawAll(); });
  window.addEventListener("afterprint", () => { printing = false; drawAll(); });
})();
