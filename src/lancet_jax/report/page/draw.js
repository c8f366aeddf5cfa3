// Paints the strips: one compute lane, one exchange lane and memory per view, on one time axis.

const LANE = { title: 20, compute: 38, gap: 3, exchange: 24, space: 7, memory: 34, below: 18, axis: 24 };
const canvas = document.getElementById("strips");
const context = canvas.getContext("2d");
const seen = { from: 0, to: page.end };
const chosen = { window: null, bar: null, colour: "change" };
let colours = {}, width = 0, gutter = 0, hatch = null;

const VIEW_HEIGHT = LANE.title + LANE.compute + LANE.gap + LANE.exchange + LANE.space + LANE.memory + LANE.below;
const topOf = (view) => view.index * VIEW_HEIGHT;
const computeTop = (view) => topOf(view) + LANE.title;
const exchangeTop = (view) => computeTop(view) + LANE.compute + LANE.gap;
const memoryTop = (view) => exchangeTop(view) + LANE.exchange + LANE.space;
const height = () => page.views.length * VIEW_HEIGHT - LANE.below + LANE.axis + 4;
const x = (ns) => gutter + ((ns - seen.from) / (seen.to - seen.from)) * (width - gutter);
const nsAt = (px) => seen.from + ((px - gutter) / (width - gutter)) * (seen.to - seen.from);

const CHANGE = ["compute", "moved", "piece"];
const ROLES = { forward: "forward", dX: "backward", dW: "weight", optimizer: "optimizer" };
const ROLE = ["forward", "backward", "weight", "optimizer", "other"];
const categories = () => (chosen.window ? ["faded", "candidate", "filler"] : chosen.colour === "role" ? ROLE : CHANGE);

// Sorts every bar into a category, and sums up time per category so that a pixel column that holds
// hundreds of ops costs two look-ups.
function categorise() {
  for (const view of page.views) {
    const lane = view.compute;
    const window = chosen.window && (chosen.window.view === view ? chosen.window : chosen.window.twin);
    if (chosen.window) {
      lane.cat.fill(0);
      if (window) {
        for (const bar of candidatesOf(window)) lane.cat[bar] = 1;
        for (const [bar] of fillersOf(window)) lane.cat[bar] = 2;
      }
    } else {
      for (let i = 0; i < lane.size; i++) lane.cat[i] = categoryOf(lane.op[i]);
    }
    lane.sums = categories().map((_, cat) => {
      const sums = new Float64Array(lane.size + 1);
      for (let i = 0; i < lane.size; i++) sums[i + 1] = sums[i] + (lane.cat[i] === cat ? lane.end[i] - lane.start[i] : 0);
      return sums;
    });
  }
}

function categoryOf(op) {
  if (chosen.colour === "role") return ROLE.indexOf(ROLES[roleOf(op)] ?? "other");
  return ops.moved.has(op) ? 1 : ops.piece[op] ? 2 : 0;
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "raised", "ink", "muted", "rule", "compute", "moved", "piece", "hidden", "sum", "exposed", "hatch", "memory", "focus", "forward", "backward", "weight", "optimizer", "other"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
  colours.filler = colours.moved;
  colours.candidate = colours.compute;
  colours.faded = colours.rule;
  const tile = document.createElement("canvas");
  tile.width = tile.height = 12;
  const brush = tile.getContext("2d");
  brush.fillStyle = colours.exposed;
  brush.fillRect(0, 0, 12, 12);
  brush.strokeStyle = colours.hatch;
  brush.lineWidth = 2;
  brush.beginPath();
  for (const at of [-6, 0, 6, 12]) { brush.moveTo(at - 3, 15); brush.lineTo(at + 15, -3); }
  brush.stroke();
  hatch = context.createPattern(tile, "repeat");
  hatch.setTransform(new DOMMatrix().scale(1 / (globalThis.devicePixelRatio || 1)));
}

function resize() {
  const ratio = globalThis.devicePixelRatio || 1;
  width = canvas.parentElement.clientWidth;
  gutter = width >= 640 ? 76 : 0;
  canvas.style.height = `${height()}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height() * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
}

function paint() {
  const began = performance.now();
  context.fillStyle = colours.paper;
  context.fillRect(0, 0, width, height());
  paintAxis();
  for (const view of page.views) paintView(view);
  canvas.dataset.paintMs = (performance.now() - began).toFixed(2);
}

function paintView(view) {
  const step = view.name, exposed = view.windows.reduce((sum, w) => sum + w.exposed_ns * w.times, 0);
  const facts = `step ${time(view.ns)}, exposed ${time(exposed)} (${view.source})`;
  text(step, gutter, topOf(view) + 13, colours.ink, "600 12.5px");
  const ends = gutter + 8 + context.measureText(step).width;
  text(facts, ends, topOf(view) + 13, colours.muted, "12px");
  if (gutter) {
    for (const [name, y] of [["compute", computeTop(view) + LANE.compute / 2], ["exchange", exchangeTop(view) + LANE.exchange / 2], ["memory", memoryTop(view) + LANE.memory / 2]]) {
      text(name, 0, y + 4, colours.muted, "12px");
    }
  }
  context.save();
  context.beginPath();
  context.rect(gutter, topOf(view), width - gutter, VIEW_HEIGHT);
  context.clip();
  context.fillStyle = colours.raised;
  context.fillRect(gutter, computeTop(view), x(view.ns) - gutter, LANE.compute);
  context.fillRect(gutter, exchangeTop(view), x(view.ns) - gutter, LANE.exchange);
  paintCompute(view);
  paintExchanges(view);
  paintMemory(view);
  paintLoops(view, ends);
  paintChoice(view);
  context.restore();
}

function paintCompute(view) {
  const lane = view.compute, y = computeTop(view);
  const first = after(lane.end, seen.from), last = after(lane.start, seen.to);
  if (last - first > 2 * width) paintColumns(lane, y, LANE.compute);
  else paintBars(lane, first, last, y, LANE.compute);
}

// Every bar by itself; neighbours of one colour that no eye could tell apart are painted as one.
function paintBars(lane, first, last, y, h) {
  const names = categories();
  for (let i = first; i < last; i++) {
    const left = x(lane.start[i]), cat = lane.cat[i];
    let right = x(lane.end[i]);
    const wide = right - left > 5;
    if (!wide) {
      while (i + 1 < last && lane.cat[i + 1] === cat && x(lane.start[i + 1]) - right < 0.3 && x(lane.end[i + 1]) - x(lane.start[i + 1]) <= 5) right = x(lane.end[++i]);
    }
    context.fillStyle = colours[names[cat]];
    context.fillRect(left, y, Math.max(right - left - (wide ? 0.75 : 0), 0.35), h);
    if (wide && right - left > 44) label(placeOf(lane.op[i]), Math.max(left, gutter), Math.min(right, width), y, h, cat);
  }
}

// One column per pixel: the category with most time in it, as strong as the column is full.
function paintColumns(lane, y, h) {
  const names = categories(), per = (seen.to - seen.from) / (width - gutter);
  let from = 0, colour = "", strength = 0;
  const flush = (to) => {
    if (colour && to > from) { context.globalAlpha = strength; context.fillStyle = colour; context.fillRect(from, y, to - from, h); }
    from = to;
  };
  for (let px = gutter; px < width; px++) {
    const start = nsAt(px), end = start + per;
    let best = 0, most = 0, total = 0;
    for (let cat = 0; cat < names.length; cat++) {
      const share = (spent(lane, cat, end) - spent(lane, cat, start)) / per;
      total += share;
      if (share > most) { most = share; best = cat; }
    }
    const next = total > 0.01 ? colours[names[best]] : "", level = Math.min(1, Math.round((0.2 + 0.8 * total) * 8) / 8);
    if (next !== colour || level !== strength) { flush(px); colour = next; strength = level; }
  }
  flush(width);
  context.globalAlpha = 1;
}

function spent(lane, cat, ns) {
  const i = after(lane.start, ns) - 1;
  if (i < 0) return 0;
  return lane.sums[cat][i] + (lane.cat[i] === cat ? Math.min(ns, lane.end[i]) - lane.start[i] : 0);
}

function label(words, left, right, y, h, cat) {
  context.save();
  context.beginPath();
  context.rect(left, y, right - left - 3, h);
  context.clip();
  text(words, left + 4, y + h / 2 + 4, inkOn(colours[categories()[cat]]), "11px");
  context.restore();
}

// White or near black, whichever can be read better on a colour (WCAG's relative luminance).
const inks = new Map();
function inkOn(colour) {
  if (!inks.has(colour)) {
    const [r, g, b] = [1, 3, 5].map((i) => (parseInt(colour.slice(i, i + 2), 16) / 255) ** 2.2);
    inks.set(colour, 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#14181c" : "#ffffff");
  }
  return inks.get(colour);
}

function paintExchanges(view) {
  const lane = view.exchange, y = exchangeTop(view);
  const first = after(lane.end, seen.from), last = after(lane.start, seen.to);
  const mine = chosen.window && (chosen.window.view === view ? chosen.window : chosen.window.twin);
  for (let i = first; i < last; i++) {
    const window = view.windows[lane.window[i]];
    context.globalAlpha = chosen.window && window !== mine ? 0.35 : 1;
    context.fillStyle = window.tokens ? colours.hidden : colours.sum;
    context.fillRect(x(lane.start[i]), y, Math.max(x(lane.end[i]) - x(lane.start[i]), 0.5), LANE.exchange);
  }
  context.globalAlpha = 1;
  for (let i = 0; i < view.bare.length; i += 2) {
    const left = x(view.bare[i]), right = x(view.bare[i] + view.bare[i + 1]);
    if (right <= gutter || left >= width) continue;
    context.fillStyle = right - left < 5 ? colours.exposed : hatch;
    context.fillRect(left, y, Math.max(right - left, 0.5), LANE.exchange);
  }
}

function paintMemory(view) {
  const { ns, size } = view.memory, y = memoryTop(view), base = y + LANE.memory;
  const top = Math.max(...page.views.map((v) => v.memory.peak)) || 1;
  const first = Math.max(after(ns, seen.from) - 1, 0), last = Math.min(after(ns, seen.to) + 1, ns.length);
  const level = (bytes) => base - (bytes / top) * (LANE.memory - 1);
  context.beginPath();
  context.moveTo(x(ns[first] ?? 0), base);
  let at = base;
  for (let i = first; i < last; i++) {
    context.lineTo(x(ns[i]), at);
    at = level(size[i]);
    context.lineTo(x(ns[i]), at);
  }
  const end = Math.min(x(last < ns.length ? ns[last] : view.ns), width + 2);
  context.lineTo(end, at);
  context.lineTo(end, base);
  context.closePath();
  context.globalAlpha = 0.55;
  context.fillStyle = colours.memory;
  context.fill();
  context.globalAlpha = 1;
  context.fillStyle = colours.rule;
  context.fillRect(gutter, base, x(view.ns) - gutter, 1);
  const peak = size.indexOf(Math.max(...size)), place = x(ns[peak]);
  if (place >= gutter && place <= width) {
    context.fillStyle = colours.muted;
    context.fillRect(place - 0.5, level(size[peak]) - 1, 1, base - level(size[peak]) + 1);
    const words = `peak ${bytes(view.memory.peak)}`, wide = measure(words, "11px");
    text(words, place + 5 + wide > width ? place - 5 - wide : place + 5, base - 5, colours.ink, "11px");
  }
}

function paintLoops(view, titled) {
  const free = titled + measure("step 00.00 ms, exposed 00.00 ms (predicted)", "12px") + 12;
  for (const [op, start, ns, trips] of view.loops) {
    const left = Math.max(x(start), gutter), right = Math.min(x(start + ns), width);
    if (right - left < 2) continue;
    const y = computeTop(view) - 3;
    context.fillStyle = colours.muted;
    context.fillRect(left, y, right - left, 1);
    context.fillRect(left, y, 1, 3);
    context.fillRect(right - 1, y, 1, 3);
    const words = `${kindOf(op)} \u00d7${trips}`;
    if (right - measure(words, "11px") - 4 > Math.max(free, left)) text(words, right - measure(words, "11px") - 2, y - 3, colours.muted, "11px");
  }
}

function paintChoice(view) {
  const window = chosen.window && (chosen.window.view === view ? chosen.window : chosen.window.twin);
  context.strokeStyle = colours.ink;
  context.lineWidth = 1;
  if (window) {
    const left = Math.round(x(window.start)) - 0.5, right = Math.round(x(window.end)) + 0.5;
    context.strokeRect(left, computeTop(view) - 2, Math.max(right - left, 2), exchangeTop(view) + LANE.exchange - computeTop(view) + 4);
  }
  if (chosen.bar && chosen.bar.view === view) {
    const { lane, i } = chosen.bar, compute = lane === view.compute;
    context.lineWidth = 2;
    context.strokeRect(x(lane.start[i]) - 1, (compute ? computeTop(view) : exchangeTop(view)) - 1, Math.max(x(lane.end[i]) - x(lane.start[i]), 1) + 2, (compute ? LANE.compute : LANE.exchange) + 2);
  }
}

function paintAxis() {
  const y = height() - LANE.axis, span = seen.to - seen.from;
  let step = 10 ** Math.floor(Math.log10(span));
  const wanted = Math.max(2, Math.floor((width - gutter) / 110));
  while (span / step < wanted) step /= span / step < wanted / 2 ? (span / step < wanted / 5 ? 10 : 5) : 2;
  const unit = step >= 1e5 ? ["ms", 1e6] : step >= 100 ? ["us", 1e3] : ["ns", 1];
  const digits = Math.max(0, -Math.floor(Math.log10(step / unit[1]) + 1e-9));
  const marks = [];
  for (let at = Math.ceil(seen.from / step) * step; at <= seen.to; at += step) marks.push(at);
  let free = width; // labels are set from the right, so that the one with the unit always is there
  for (const at of marks.reverse()) {
    const px = x(at), words = (at / unit[1]).toFixed(digits) + (free === width ? ` ${unit[0]}` : ""), wide = measure(words, "11px");
    context.fillStyle = colours.rule;
    context.fillRect(Math.round(px), LANE.title - 4, 1, y - LANE.title + 8);
    const left = Math.min(Math.max(px - wide / 2, gutter), width - wide);
    if (left + wide > free) continue;
    text(words, left, y + 18, colours.muted, "11px");
    free = left - 8;
  }
}

function measure(words, font) {
  context.font = `${font} system-ui, -apple-system, "Segoe UI", Arial, sans-serif`;
  return context.measureText(words).width;
}

function text(words, left, base, colour, font) {
  context.font = `${font} system-ui, -apple-system, "Segoe UI", Arial, sans-serif`;
  context.fillStyle = colour;
  context.fillText(words, left, base);
}

let waiting = false;
function repaint() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; paint(); });
}
