// Zooming, panning, pointing and selecting, by mouse, touch and keyboard.

const tip = document.getElementById("tip");
const live = document.getElementById("live");
const NEAREST = 60; // the axis never shows less than this many ns

function show(from, to) {
  const span = Math.min(Math.max(to - from, NEAREST), page.end);
  seen.from = Math.min(Math.max(from, 0), page.end - span);
  seen.to = seen.from + span;
  repaint();
}

function zoom(factor, around = (seen.from + seen.to) / 2) {
  show(around - (around - seen.from) / factor, around + (seen.to - around) / factor);
}

const pan = (share) => show(seen.from + share * (seen.to - seen.from), seen.to + share * (seen.to - seen.from));
const isWhole = () => seen.from <= 0 && seen.to >= page.end;

// What lies under a point: a bar on a lane, or a moment of memory.
function under(px, py) {
  if (px < gutter) return null;
  const ns = nsAt(px), slack = (3 * (seen.to - seen.from)) / (width - gutter);
  for (const view of page.views) {
    if (py >= computeTop(view) && py < computeTop(view) + LANE.compute) return barAt(view, view.compute, ns, slack);
    if (py >= exchangeTop(view) && py < exchangeTop(view) + LANE.exchange) return barAt(view, view.exchange, ns, slack);
    if (py >= memoryTop(view) && py < memoryTop(view) + LANE.memory && ns <= view.ns) return { view, ns };
  }
  return null;
}

function barAt(view, lane, ns, slack) {
  const i = after(lane.start, ns) - 1;
  const near = [i, i + 1].filter((j) => j >= 0 && j < lane.size && lane.start[j] - slack <= ns && ns <= lane.end[j] + slack);
  if (!near.length) return null;
  const far = (j) => Math.max(lane.start[j] - ns, ns - lane.end[j], 0);
  return { view, lane, i: near.sort((a, b) => far(a) - far(b))[0] };
}

function hint(found, px, py) {
  tip.hidden = !found;
  if (!found) return;
  tip.replaceChildren(...(found.lane ? aboutBar(found) : aboutMemory(found)));
  const left = Math.min(Math.max(px + 14, 0), width - tip.offsetWidth - 2);
  const below = py + 18, fits = below + tip.offsetHeight < height();
  tip.style.left = `${Math.max(left, 0)}px`;
  tip.style.top = `${fits ? below : Math.max(py - tip.offsetHeight - 12, 0)}px`;
}

function line(words, bold) {
  const node = document.createElement(bold ? "b" : "div");
  node.textContent = words;
  return node;
}

function aboutBar({ view, lane, i }) {
  const op = lane.op[i], lines = [line(placeOf(op), true)];
  if (lane === view.exchange) lines.push(line(aboutExchange(view.windows[lane.window[i]])));
  lines.push(line(`${kindOf(op)} ${nameOf(op)}, ${roleOf(op)}`));
  lines.push(line(`${time(ops.ns[op])} (${ops.costs[ops.cost[op]]}), from ${time(lane.start[i])}`));
  const work = [ops.bytes[op] && bytes(ops.bytes[op]), ops.flops[op] && `${(ops.flops[op] / 1e9).toPrecision(3)} GFLOP`].filter(Boolean);
  if (work.length) lines.push(line(work.join(", ")));
  if (fileOf(op)) lines.push(line(shortFile(fileOf(op))));
  const move = ops.moved.get(op);
  if (move) lines.push(line(`moved${move.beside >= 0 ? ` beside ${placeOf(move.beside)}` : ""}${move.reason ? `: ${move.reason}` : ""}`));
  if (ops.piece[op]) lines.push(line("part of a cut"));
  return lines;
}

function aboutMemory({ view, ns }) {
  const size = view.memory.size[after(view.memory.ns, ns) - 1] ?? 0;
  return [line(`${bytes(size)} of temporary memory`, true), line(`at ${time(ns)}, estimated; peak ${bytes(view.memory.peak)}`)];
}

function aboutExchange(window) {
  const way = window.tokens ? (window.backward ? "backward " : "forward ") : "";
  const times = window.times > 1 ? ` \u00d7${window.times}` : "";
  return `${way}${window.phase}${times}: ${time(window.exposed_ns)} of ${time(window.end - window.start)} exposed`;
}

function select(window, { jump = false } = {}) {
  chosen.window = window;
  chosen.bar = null;
  if (window && jump) {
    const span = (window.end - window.start) * 6, middle = (window.start + window.end) / 2;
    show(middle - span / 2, middle + span / 2);
  }
  categorise();
  panelOf(window);
  live.textContent = window ? `${placeOf(window.op)}, ${window.view.name}. ${aboutExchange(window)}` : "";
  repaint();
}

// Steps through the exchanges of the last view, in the order of time.
function stepWindow(by) {
  const view = chosen.window ? chosen.window.view : page.views.at(-1);
  const next = (chosen.window ? chosen.window.index : by > 0 ? -1 : view.windows.length) + by;
  if (view.windows[next]) select(view.windows[next], { jump: true });
}

// Steps through the ops of a lane, and says what each is.
function stepBar(by) {
  const now = chosen.bar ?? firstBar(), i = chosen.bar ? now.i + by : now.i;
  if (i < 0 || i >= now.lane.size) return;
  chosen.bar = { ...now, i };
  const { start, end } = now.lane, span = seen.to - seen.from;
  if (start[i] < seen.from || end[i] > seen.to) show(start[i] - span / 2, start[i] + span / 2);
  const about = aboutBar(chosen.bar);
  hint(chosen.bar, Math.max(x(start[i]), gutter), computeTop(now.view) + LANE.compute);
  live.textContent = about.map((node) => node.textContent).join(". ");
  repaint();
}

function firstBar() {
  const view = chosen.window ? chosen.window.view : page.views.at(-1);
  const from = chosen.window ? chosen.window.start : seen.from;
  return { view, lane: view.compute, i: Math.min(after(view.compute.end, from), view.compute.size - 1) };
}

const KEYS = {
  "+": () => zoom(1.6), "=": () => zoom(1.6), "-": () => zoom(1 / 1.6), ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2),
  0: () => show(0, page.end), Home: () => show(0, seen.to - seen.from), End: () => show(page.end - (seen.to - seen.from), page.end),
  n: () => stepWindow(1), p: () => stepWindow(-1), ".": () => stepBar(1), ",": () => stepBar(-1),
  Escape: () => { tip.hidden = true; select(null); },
};

function listenToKeys() {
  canvas.addEventListener("keydown", (event) => {
    const act = !event.ctrlKey && !event.metaKey && !event.altKey && KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  canvas.addEventListener("blur", () => (tip.hidden = true));
}

function listenToPointer() {
  const fingers = new Map();
  let drag = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("wheel", (event) => {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (!sideways && isWhole() && event.deltaY > 0) return; // nothing left to zoom out of: let the page scroll
    event.preventDefault();
    const turn = (event.deltaMode === 1 ? 30 : 1) * (sideways ? event.deltaX || event.deltaY : event.deltaY);
    if (sideways) pan(turn / width);
    else zoom(Math.exp(-turn * 0.002), nsAt(Math.max(place(event)[0], gutter)));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    const [px, py] = place(event);
    fingers.set(event.pointerId, px);
    canvas.setPointerCapture(event.pointerId);
    drag = { px, py, from: seen.from, to: seen.to, pans: event.pointerType === "touch" || event.shiftKey, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    const [px, py] = place(event);
    if (!drag) return hint(under(px, py), px, py);
    if (fingers.size === 2) return pinch(event.pointerId, px);
    drag.moved ||= Math.abs(px - drag.px) > 4;
    if (!drag.moved) return undefined;
    tip.hidden = true;
    if (drag.pans) {
      const by = ((drag.px - px) / (width - gutter)) * (drag.to - drag.from);
      return show(drag.from + by, drag.to + by);
    }
    paint();
    context.fillStyle = colours.focus;
    context.globalAlpha = 0.18;
    context.fillRect(Math.min(px, drag.px), 0, Math.abs(px - drag.px), height() - LANE.axis);
    context.globalAlpha = 1;
    return undefined;
  });
  const pinch = (id, px) => {
    const [other] = [...fingers].filter(([finger]) => finger !== id).map(([, at]) => at);
    const before = Math.abs(fingers.get(id) - other), now = Math.abs(px - other);
    if (before > 4 && now > 4) zoom(now / before, nsAt((px + other) / 2));
    fingers.set(id, px);
    drag.moved = true;
  };
  const done = (event) => {
    const [px, py] = place(event);
    fingers.delete(event.pointerId);
    if (!drag || fingers.size) return;
    const { moved, pans, px: began } = drag;
    drag = null;
    if (event.type === "pointercancel") return repaint();
    if (!moved) return click(px, py);
    if (!pans && Math.abs(px - began) > 4) show(...[nsAt(began), nsAt(px)].sort((a, b) => a - b));
    return repaint();
  };
  canvas.addEventListener("pointerup", done);
  canvas.addEventListener("pointercancel", done);
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));
  canvas.addEventListener("dblclick", () => show(0, page.end));
}

function click(px, py) {
  const found = under(px, py);
  if (!found || !found.lane) return select(null);
  if (found.lane === found.view.exchange) return select(found.view.windows[found.lane.window[found.i]]);
  chosen.bar = found;
  hint(found, px, py);
  if (!chosen.window) panelOfBar(found);
  return repaint();
}
