// Reads the page's data: sums up differences, and gives every bar its begin and end in ns.

const summed = (numbers) => {
  let total = 0;
  return numbers.map((n) => (total += n));
};

function readLane(lane, ns) {
  const op = Int32Array.from(summed(lane.op));
  const start = new Float64Array(op.length), end = new Float64Array(op.length);
  let at = 0;
  for (let i = 0; i < op.length; i++) {
    start[i] = at + lane.gap[i];
    at = end[i] = start[i] + ns[op[i]];
  }
  return { size: op.length, op, start, end, cat: new Uint8Array(op.length), sums: [] };
}

// A set of numbers, written as how many are out of it, how many in it, and so on in turn.
function readRuns(lengths) {
  const found = [];
  let at = 0;
  lengths.forEach((length, i) => {
    if (i % 2) for (let n = at; n < at + length; n++) found.push(n);
    at += length;
  });
  return found;
}

function readView(raw, ns, index) {
  const view = { ...raw, index, compute: readLane(raw.compute, ns), exchange: readLane(raw.exchange, ns) };
  view.group = raw.compute.group;
  view.groups = raw.groups.map(readRuns);
  view.exchange.window = raw.exchange.window;
  view.memory = { ...raw.memory, ns: summed(raw.memory.ns), size: summed(raw.memory.size).map((n) => n * raw.memory.unit) };
  view.windows.forEach((window, i) => {
    window.index = i;
    window.twin = null;
    window.view = view;
    window.bars = [];
  });
  view.exchange.window.forEach((w, i) => view.windows[w].bars.push(i));
  for (const window of view.windows) {
    window.op = view.exchange.op[window.bars[0]];
    window.start = view.exchange.start[window.bars[0]];
    window.end = view.exchange.end[window.bars[0]];
  }
  return view;
}

// Finds the same exchange in both views: the only one of its name in each. (XLA renames an exchange
// that it folds into one op.)
function pairUp([before, later], name) {
  const single = (view) => {
    const found = new Map();
    for (const w of view.windows) if (!w.twin) found.set(name(w), found.has(name(w)) ? null : w);
    return found;
  };
  const old = single(before);
  for (const [key, w] of single(later)) {
    const other = old.get(key);
    if (w && other) [w.twin, other.twin] = [other, w];
  }
}

function readPage() {
  const raw = JSON.parse(document.getElementById("data").textContent);
  const ops = raw.ops;
  ops.number = summed(ops.number);
  ops.moved = new Map(raw.moves.map(([op, beside, reason]) => [op, { beside, reason: ops.reasons[reason] }]));
  const views = raw.views.map((view, i) => readView(view, ops.ns, i));
  // Keys count ops of one scope: once a step is cut, the same key may be another exchange.
  if (views.length > 1 && !raw.cut) for (const name of [(w) => w.key, (w) => `${w.tokens} ${ops.scope[w.op]}`]) pairUp(views, name);
  const last = views.at(-1).compute, roles = {}, costs = {};
  for (const op of last.op) roles[ops.roles[ops.role[op]]] = (roles[ops.roles[ops.role[op]]] ?? 0) + ops.ns[op];
  for (const op of new Set([...last.op, ...views.at(-1).exchange.op])) costs[ops.costs[ops.cost[op]]] = (costs[ops.costs[ops.cost[op]]] ?? 0) + 1;
  return { ...raw, ops, views, roles, costs, end: Math.max(1, ...views.map((view) => view.ns)) };
}

const page = readPage();
const ops = page.ops;

const nameOf = (op) => ops.stems[ops.stem[op]] + (ops.number[op] >= 0 ? ops.number[op] : "");
const kindOf = (op) => ops.kinds[ops.kind[op]];
const roleOf = (op) => ops.roles[ops.role[op]];
const fileOf = (op) => ops.files[ops.file[op]];
const shortFile = (path) => path.split("/").slice(-2).join("/");

function scopeOf(op) {
  const path = [];
  for (let node = ops.scope[op]; node >= 0; node = ops.scopes.parent[node]) {
    path.unshift(ops.segments[ops.scopes.segment[node]]);
  }
  return path;
}

// What jit, grad and shard_map add to a scope says nothing about the place in the model.
function placeOf(op) {
  const bare = scopeOf(op).map((s) => {
    let name = s;
    for (let m; (m = /^(?:transpose|jvp|vmap|remat|checkpoint)\((.*)\)$/.exec(name)); ) name = m[1];
    return name;
  });
  const kept = bare.filter((s) => s && !/^(p?jit\(.*|shard_map|shmap_body|eval_jaxpr|rematted_computation|while|body|cond|closed_call|checkpoint|remat\d*|custom_[jv][vj]p_call.*)$/.test(s));
  return kept.join("/") || nameOf(op);
}

// The layer an op belongs to; in a step without named scopes the line that it was written on.
const layerOf = (op) => placeOf(op).split("/").slice(0, -1).join("/") || shortFile(fileOf(op)) || placeOf(op);

function ms(ns) {
  const us = ns / 1000;
  if (us >= 100000) return [(us / 1000).toFixed(1), "ms"];
  if (us >= 1000) return [(us / 1000).toFixed(2), "ms"];
  if (us >= 100 || us < 0.0005) return [us.toFixed(0), "us"];
  return [us.toFixed(us >= 10 ? 1 : us >= 1 ? 2 : 3), "us"];
}
const time = (ns) => ms(ns).join(" ");
function amount(bytes) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= size) return [(bytes / size).toFixed(bytes >= 100 * size ? 0 : bytes >= 10 * size ? 1 : 2), unit];
  }
  return [String(bytes), "B"];
}
const bytes = (n) => amount(n).join(" ");
const percent = (old, now) => (old && Math.abs(now / old - 1) >= 0.0005 ? `${now > old ? "+" : "\u2212"}${Math.abs(((now - old) / old) * 100).toFixed(1)}%` : "");

// First index whose value is above `value`; values ascend.
function after(values, value) {
  let low = 0, high = values.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (values[mid] > value) high = mid;
    else low = mid + 1;
  }
  return low;
}

// What runs beside a window: [bar, ns of overlap], longest first.
function fillersOf(window) {
  const lane = window.view.compute, found = [];
  for (let i = Math.max(after(lane.start, window.start) - 1, 0); i < lane.size && lane.start[i] < window.end; i++) {
    const overlap = Math.min(lane.end[i], window.end) - Math.max(lane.start[i], window.start);
    if (overlap > 0) found.push([i, overlap]);
  }
  return found.sort((a, b) => b[1] - a[1]);
}

// Bars whose op neither needs the exchange nor feeds it, longest first.
function candidatesOf(window) {
  const { compute: lane, group, groups } = window.view;
  const fits = groups.map((exchanges) => exchanges.includes(window.index));
  const found = [];
  for (let i = 0; i < lane.size; i++) if (fits[group[i]]) found.push(i);
  return found.sort((a, b) => lane.end[b] - lane.start[b] - (lane.end[a] - lane.start[a]));
}
