// Puts the page together. `lancet` is for consoles and tests: what a click or a key would do.

const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  root.dataset.theme = theme;
  root.style.colorScheme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  readColours();
  repaint();
}

function start() {
  totals();
  facts();
  windowsTable();
  resize();
  setTheme(prefersDark.matches ? "dark" : "light");
  categorise();
  panelOf(null);
  listenToKeys();
  listenToPointer();
  byId("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
  byId("in").addEventListener("click", () => zoom(1.6));
  byId("out").addEventListener("click", () => zoom(1 / 1.6));
  byId("fit").addEventListener("click", () => show(0, page.end));
  for (const input of document.querySelectorAll("[name=colour]")) {
    input.addEventListener("change", () => { chosen.colour = input.value; categorise(); legend(); repaint(); });
  }
  for (const input of document.querySelectorAll("[name=which]")) {
    input.addEventListener("change", () => { windowsTable(); markRow(chosen.window); });
  }
  new ResizeObserver(() => { resize(); readColours(); paint(); }).observe(canvas.parentElement);
  paint();
  globalThis.lancet = { page, seen, chosen, show, zoom, select, paint, fillersOf, candidatesOf, nameOf };
}

start();
