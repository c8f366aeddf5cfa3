// Everything around the timeline: totals, legend, tables, the panel of what is selected.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null && child !== ""));
  return node;
}

const byId = (id) => document.getElementById(id);
const report = page.report;
const single = page.views.length === 1;
const us = (n) => time(n * 1000);

function totals() {
  const { before, after: now } = report;
  const bound = page.bound_us;
  const rows = [
    ["Step", ms(now.step_us * 1e3), time(before.step_us * 1e3), percent(before.step_us, now.step_us), ""],
    ["Exposed communication", ms(now.exposed_us * 1e3), time(before.exposed_us * 1e3), percent(before.exposed_us, now.exposed_us), now.exposed_us < 0.0005 ? "" : "exposed"],
    ["of it, all-to-alls", ms(now.exposed_all_to_all_us * 1e3), time(before.exposed_all_to_all_us * 1e3), percent(before.exposed_all_to_all_us, now.exposed_all_to_all_us), ""],
    ["Exposed in any order", ms(bound * 1e3), null, null, ""],
    ["Exchanges, hidden or not", ms(now.exchange_us * 1e3), time(before.exchange_us * 1e3), percent(before.exchange_us, now.exchange_us), ""],
    ["Temporary memory, peak", amount(now.peak_bytes), bytes(before.peak_bytes), percent(before.peak_bytes, now.peak_bytes), ""],
  ];
  byId("totals").replaceChildren(...rows.map(([name, [number, unit], old, change, kind]) =>
    el("div", { class: kind }, el("dt", {}, name), el("dd", { class: "big" }, number, el("small", {}, ` ${unit}`)),
      single && old ? "" : el("dd", { class: "from" }, old == null ? "at least" : change ? `from ${old}, ${change}` : "unchanged"))));
  const source = single || before.source === now.source ? now.source : `${before.source} before, ${now.source} after`;
  byId("where").textContent = `on ${report.target}; all times ${source}, none measured`.replace(/(measured), none measured/, "$1");
}

function legend() {
  const compute = chosen.window ? [["filler", "runs beside the selected exchange"], ["candidate", "could"], ["faded", "cannot: one needs the other"]]
    : chosen.colour === "role" ? [["forward", "forward"], ["backward", "dX"], ["weight", "dW"], ["optimizer", "optimizer"], ["other", "other"]]
      : [["compute", "compute"], ...(ops.moved.size ? [["moved", "moved beside an exchange"]] : []), ...(ops.piece.some(Boolean) ? [["piece", "part of a cut"]] : [])];
  const exchange = [["hidden", "all-to-all"], ["sum", "other exchange"], ["", "exposed: nothing runs beside it"], ["memory", "temporary memory"]];
  byId("legend").replaceChildren(...[...compute, ...exchange].map(([name, words]) =>
    el("li", {}, el("i", name ? { style: `background:var(--${{ filler: "moved", candidate: "compute", faded: "rule" }[name] ?? name})` } : { class: "hatched" }), words)));
}

const trackOf = (window) => {
  const whole = window.end - window.start, share = whole ? window.exposed_ns / whole : 0;
  return el("span", { class: "track", "aria-hidden": "true" }, el("i", { style: `width:${(share * 100).toFixed(1)}%` }));
};

function windowsTable() {
  const view = page.views.at(-1), which = document.querySelector("[name=which]:checked").value;
  const kept = view.windows.filter((w) => which === "all" || (which === "bare" ? w.exposed_ns > 0 : w.tokens));
  const head = el("tr", {}, el("th", { scope: "col" }, "exchange"), el("th", { scope: "col", class: "hide-narrow" }, "place"), el("th", { scope: "col", class: "n hide-narrow" }, "size"),
    el("th", { scope: "col", class: "n" }, "time"), el("th", { scope: "col", class: "n" }, single ? "exposed" : page.cut ? "exposed after" : "exposed, before \u2192 after"), el("th", { class: "hide-narrow" }));
  const rows = kept.map((w) => {
    const old = single || page.cut ? "" : w.twin ? `${time(w.twin.exposed_ns)} \u2192 ` : "new \u2192 ";
    const way = w.tokens ? (w.backward ? "bwd " : "fwd ") : "";
    const row = el("tr", {}, el("td", { class: "name" }, el("button", { type: "button", onclick: () => { select(w, { jump: true }); canvas.scrollIntoView({ block: "nearest" }); } }, `${way}${w.phase}${w.times > 1 ? ` \u00d7${w.times}` : ""}`)),
      el("td", { class: "path hide-narrow", title: scopeOf(w.op).join("/") }, layerOf(w.op)), el("td", { class: "n hide-narrow" }, bytes(ops.bytes[w.op])), el("td", { class: "n" }, time(w.end - w.start)),
      el("td", { class: "n" }, old + time(w.exposed_ns)), el("td", { class: "hide-narrow" }, trackOf(w)));
    row.dataset.window = w.index;
    return row;
  });
  const none = el("tr", {}, el("td", { colspan: "6", class: "muted" }, which === "bare" ? "Nothing is exposed." : "None in this step."));
  byId("windows").replaceChildren(el("thead", {}, head), el("tbody", {}, ...(rows.length ? rows : [none])));
}

function markRow(window) {
  const last = page.views.at(-1), mine = window && (window.view === last ? window : window.twin);
  for (const row of byId("windows").querySelectorAll("tbody tr")) {
    const on = Boolean(mine) && row.dataset.window === String(mine.index);
    row.classList.toggle("on", on);
    if (on) row.scrollIntoView({ block: "nearest" });
  }
}

const SHOWN = 12;

function opList(view, bars, words) {
  const items = bars.slice(0, SHOWN).map(([bar, note]) => {
    const op = view.compute.op[bar];
    const jump = () => { chosen.bar = { view, lane: view.compute, i: bar }; centre(view.compute, bar); };
    return el("li", {}, el("span", {}, el("button", { type: "button", title: nameOf(op), onclick: jump }, placeOf(op)), ops.moved.has(op) ? " (moved)" : ""), el("span", { class: "n" }, note));
  });
  const more = bars.length - SHOWN;
  return [el("ul", { class: "list" }, ...items), ...(more > 0 ? [el("p", { class: "hint" }, `and ${more.toLocaleString("en")} more`)] : []), ...(bars.length ? [] : [el("p", { class: "muted" }, words)])];
}

function centre(lane, bar) {
  const span = Math.max(Math.min(seen.to - seen.from, (lane.end[bar] - lane.start[bar]) * 40), NEAREST);
  const middle = (lane.start[bar] + lane.end[bar]) / 2;
  if (lane.start[bar] < seen.from || lane.end[bar] > seen.to) show(middle - span / 2, middle + span / 2);
  repaint();
}

function panelOf(window) {
  legend();
  markRow(window);
  if (!window) {
    byId("chosen").replaceChildren(el("h2", {}, "Selection"), el("p", { class: "muted" }, "Select an exchange, in the timeline or in the table, to see what runs beside it and what else could."));
    return;
  }
  const { view } = window, beside = fillersOf(window), busy = new Set(beside.map(([bar]) => bar));
  const able = candidatesOf(window), could = able.reduce((sum, bar) => sum + view.compute.end[bar] - view.compute.start[bar], 0);
  const why = page.plans.flatMap((plan) => plan.refusals).filter((r) => r.op === window.key && window.exposed_ns > 0).map((r) => r.reason);
  const facts = [
    ["Place", scopeOf(window.op).join("/") || nameOf(window.op)],
    ["Exposed", `${time(window.exposed_ns)} of ${time(window.end - window.start)}${window.times > 1 ? `, ${window.times} times a step` : ""}`],
    ...why.map((reason) => ["Why", reason]),
    ["No order hides", time(window.bound_ns)],
    ["Could run beside it", `${time(could)} of compute, ${able.length.toLocaleString("en")} ops`],
    ["Cost", `${bytes(ops.bytes[window.op])}, priced by ${ops.costs[ops.cost[window.op]]}`],
    ...(fileOf(window.op) ? [["Source", fileOf(window.op)]] : []),
  ];
  byId("chosen").replaceChildren(
    el("div", { class: "bar" }, el("h2", {}, `${window.tokens ? (window.backward ? "Backward " : "Forward ") : ""}${window.phase}, ${view.name}`), el("button", { type: "button", onclick: () => select(null) }, "Clear")),
    el("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("h3", {}, "Runs beside it"), ...opList(view, beside.map(([bar, ns]) => [bar, time(ns)]), "Nothing."),
    el("h3", {}, "Could, but does not"), ...opList(view, able.filter((bar) => !busy.has(bar)).map((bar) => [bar, `${time(view.compute.end[bar] - view.compute.start[bar])} at ${time(view.compute.start[bar])}`]),
      able.length ? "All of it does already." : "Nothing: all compute needs the exchange or feeds it."));
}

function panelOfBar({ view, lane, i }) {
  const op = lane.op[i], exchanges = view.groups[view.group[i]] ?? [];
  byId("chosen").replaceChildren(
    el("h2", {}, placeOf(op)),
    el("dl", { class: "facts" }, ...[
      ["Scope", scopeOf(op).join("/") || "none"], ["Op", `${kindOf(op)} ${nameOf(op)}`], ["Role", roleOf(op)],
      ["Time", `${time(ops.ns[op])}, priced by ${ops.costs[ops.cost[op]]}`], ...(fileOf(op) ? [["Source", fileOf(op)]] : []),
      ["May run beside", `${exchanges.length} of ${view.windows.length} exchanges`],
    ].flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("ul", { class: "list" }, ...exchanges.slice(0, SHOWN).map((w) => {
      const window = view.windows[w];
      return el("li", {}, el("span", {}, el("button", { type: "button", onclick: () => select(window, { jump: true }) }, `${placeOf(window.op)}`)), el("span", { class: "n" }, `${time(window.exposed_ns)} exposed`));
    })));
}

function table(title, head, rows) {
  return el("section", {}, el("h2", {}, title), el("table", {}, el("thead", {}, el("tr", {}, ...head.map((name, i) => el("th", { scope: "col", class: i ? "n" : false }, name)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) => el("td", { class: i ? "n" : false }, cell)))))));
}

const barOf = (share, won) => el("span", { class: "track plain", "aria-hidden": "true" }, el("i", { class: won ? "won" : false, style: `width:${(100 * share).toFixed(1)}%` }));

function facts() {
  const blocks = [];
  if (page.race.length) {
    const longest = Math.max(...page.race.map((r) => r.step_us));
    blocks.push(table("What competed, by prediction", ["way", "step", "", "exposed", "memory"], page.race.map((r) =>
      [r.won ? el("strong", {}, `${r.name}, taken`) : r.name, us(r.step_us), barOf(r.step_us / longest, r.won), us(r.exposed_us), bytes(r.peak_bytes)])));
  }
  const roles = Object.entries(page.roles).sort((a, b) => b[1] - a[1]), most = Math.max(1, ...roles.map(([, n]) => n));
  const whole = roles.reduce((sum, [, n]) => sum + n, 0);
  if (roles.length) blocks.push(table("Compute by role", ["role", "time", "", "share"], roles.map(([role, n]) => [role, time(n), barOf(n / most), `${((100 * n) / whole).toFixed(1)}%`])));
  decisions();
  const refused = refusals();
  if (refused) blocks.push(refused);
  byId("facts").replaceChildren(...blocks);
}

function decisions() {
  const lines = page.plans.flatMap((plan) => {
    const what = plan.splits.length ? plan.splits.map((s) => `${s.ops} ops of ${s.block} cut into ${s.k} parts along ${s.along}`) : [plan.moved ? `${plan.moved} ops moved beside exchanges` : plan.changes ? "another order" : "nothing changed"];
    return [["Plan", `${plan.hash}${plan.passes.length ? `, ${plan.passes.join(", ")}` : ""}`], ["Decided", `${plan.strategy}: ${what.join("; ")}`]];
  });
  if (!single && !page.cut && page.plans.some((plan) => plan.splits.length)) lines.push(["Before", "the cut step, in the order that XLA gives it"]);
  if (report.drift) lines.push(["Drift", `${report.drift.moved} of ${report.drift.common} ops out of place, ${report.drift.missing} folded by XLA`]);
  lines.push(["Costs of ops", Object.entries(page.costs).map(([source, n]) => `${n.toLocaleString("en")} ${source}`).join(", ")]);
  if (report.planner_seconds) lines.push(["Planning", `${report.planner_seconds.toFixed(2)} s, with editing`]);
  for (const view of page.views) for (const loop of view.folded) lines.push(["Drawn as one", `${loop}: too many trips to draw each`]);
  for (const note of report.notes) lines.push(["Note", note]);
  byId("decided").replaceChildren(el("h2", { id: "decided-title" }, "What was decided"), el("dl", { class: "facts" }, ...lines.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function refusals() {
  const groups = new Map();
  for (const refusal of page.plans.flatMap((plan) => plan.refusals)) groups.set(refusal.reason, [...(groups.get(refusal.reason) ?? []), refusal]);
  if (!groups.size) return null;
  return el("section", {}, el("h2", {}, "Left alone, and why"), el("ul", { class: "reasons" }, ...[...groups].map(([reason, all]) => {
    const places = [...new Set(all.map((r) => r.source).filter(Boolean))].map(shortFile);
    const list = el("details", { class: "plain-details" }, el("summary", { class: "muted" }, `${all.length} ${all.length === 1 ? "op" : "ops"}${places.length ? `, ${places.slice(0, 2).join(", ")}${places.length > 2 ? ", \u2026" : ""}` : ""}`),
      el("ul", { class: "list" }, ...all.slice(0, 40).map((r) => el("li", {}, el("span", {}, r.op), el("span", { class: "n" }, shortFile(r.source))))));
    return el("li", {}, reason, list);
  })));
}
