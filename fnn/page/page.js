"use strict";
// Draws the network of #network and steps through its lines. Every value shown was computed in Python.
const net = JSON.parse(document.getElementById("network").textContent);
const ROOMY = 6, CIRCLES = 12, MOST = 40, MOST_ARROWS = 1500; // neurons: values inside, names below or beside; small; heat map
const $ = (id) => document.getElementById(id);
const graph = net.kind === "graph";
let step = 0, chosen = null; // {neuron} or {arrow}

// --- The network: columns, neurons, arrows ---
let first = 0;
for (const column of net.columns) { column.first = first; first += column.count; }
const columnOf = net.columns.flatMap((column, c) => Array(column.count).fill(c));
const into = net.names.map(() => []), out = net.names.map(() => []), arrows = [];
for (const block of net.blocks) {
  if (!block.w) continue;
  const n = block.ends ? 0 : net.columns[block.to - 1].count;
  block.w.forEach((w, i) => {
    const [from, to] = block.ends ? block.ends[i]
      : [net.columns[block.to - 1].first + i % n, net.columns[block.to].first + Math.floor(i / n)];
    const arrow = { from, to, w, dw: block.dw[i], new: block.new[i], number: arrows.length };
    arrows.push(arrow); into[to].push(arrow); out[from].push(arrow);
  });
}
const known = {}, wrong = {}; // quantity → neuron → the step that computes it, and the one that computes it wrongly
net.steps.forEach((one, s) => {
  const at = known[one.quantity] ??= {};
  for (const neuron of one.neurons) { at[neuron] = s; if (one.wrong) (wrong[one.quantity] ??= {})[neuron] = s; }
});
const isKnown = (quantity, neuron) => known[quantity]?.[neuron] <= step;
const isWrong = (quantity, neuron) => wrong[quantity]?.[neuron] <= step;
const isNow = (quantity, neuron) => known[quantity]?.[neuron] === step;
const value = (quantity, neuron) => net.values[quantity]?.[neuron] ?? null;

// --- Words and symbols ---
function number(v, digits = 4) {
  if (typeof v !== "number") return v ?? "";
  const text = String(Number(v.toPrecision(digits)));
  return (text.length > digits + 4 && !text.includes("e") ? v.toExponential(digits - 2) : text).replace(/-/g, "−");
}
const inside = (v) => (number(v, 3).length > 6 ? number(v, 2) : number(v, 3)); // of a circle
const factor = (v) => (typeof v === "number" && v < 0 ? `(${number(v)})` : number(v));
const escaped = (text) => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const LETTERS = graph ? { a: "o", delta: "λ", b: "β" } : { delta: "δ" };
function symbol(quantity, k) { // HTML
  const name = escaped(net.names[k]), c = columnOf[k], up = graph ? "" : `<sup>${c}</sup>`;
  const plain = (letter) => `${letter}${up}<sub>${name}</sub>`;
  if (quantity === "direct") return `∂L/∂${plain(LETTERS.a ?? "a")}`;
  if (quantity === "slope") return `${graph ? `σ<sub>${name}</sub>` : "σ"}′(${plain("z")})`;
  if (quantity === "db") return `∂C/∂${plain(LETTERS.b ?? "b")}`;
  if (quantity === "new") return `${plain(LETTERS.b ?? "b")} new`;
  if (quantity === "g" && c === 0) return `∂C/∂x<sub>${name}</sub>`;
  return plain(LETTERS[quantity] ?? quantity);
}
const weight = (arrow) => { // HTML
  const names = `<sub>${escaped(net.names[arrow.to])},${escaped(net.names[arrow.from])}</sub>`;
  return graph ? `w${names}` : `W<sup>${columnOf[arrow.to]}</sup>${names}`;
};
const neuronSaid = (k) => (graph ? `neuron ${net.names[k]}` : `${columnOf[k] ? "neuron" : "input"} ${net.names[k]}`
  + (columnOf[k] ? ` of layer ${columnOf[k]}` : ""));

// --- The drawing ---
const NS = "http://www.w3.org/2000/svg";
function add(parent, tag, attributes = {}, text = "") {
  const made = parent.appendChild(document.createElementNS(NS, tag));
  for (const [name, v] of Object.entries(attributes)) made.setAttribute(name, v);
  if (text) made.textContent = text;
  return made;
}
const place = []; // neuron → {x, y, r, element}
function press(element, act) {
  element.addEventListener("click", act);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(event); }
  });
}
function layout() {
  const gapOf = (count) => (count <= ROOMY ? 82 : count <= CIRCLES ? 60 : 20);
  const heights = net.columns.map((c) => (c.count > MOST ? 190 : c.count * gapOf(c.count)));
  const height = Math.max(190, ...heights), widths = net.columns.map((c) => (c.count > MOST ? 220 : c.count > CIRCLES ? 110 : c.count > ROOMY ? 150 : 126));
  const width = widths.reduce((a, b) => a + b, 0), svg = $("drawing");
  svg.setAttribute("viewBox", `0 0 ${width} ${height + 58}`);
  svg.style.minWidth = `${Math.round(width * 0.85)}px`;
  svg.style.maxWidth = `${Math.round(width * 1.45)}px`;
  svg.style.maxHeight = "clamp(320px, 58vh, 640px)"; // of the window, or of the frame in a notebook
  let x = 0;
  net.columns.forEach((column, c) => {
    const gap = gapOf(column.count), middle = x + widths[c] / 2;
    Object.assign(column, { gap, x: middle, middle: 14 + height / 2, heat: column.count > MOST });
    for (let i = 0; i < column.count; i++) {
      const y = column.middle + (column.heat ? 0 : (i - (column.count - 1) / 2) * gap);
      const shift = graph && column.count < 3 ? (c % 2 ? -16 : 16) : 0; // so that an arrow past a column can be seen
      place[column.first + i] = { x: middle, y: y + shift, r: column.heat ? 95 : gap > 30 ? 25 : 8 };
    }
    x += widths[c];
  });
  svg.setAttribute("aria-label", net.columns.map((c) => `${c.label}: ${c.count}`).join(", "));
  return { svg, height };
}
function draw() {
  const { svg, height } = layout();
  const bands = add(svg, "g"), seen = new Set();
  const drawable = arrows.length <= MOST_ARROWS ? arrows
    : arrows.filter((a) => !net.columns[columnOf[a.from]].heat && !net.columns[columnOf[a.to]].heat);
  for (const arrow of drawable) {
    const a = net.columns[columnOf[arrow.from]], b = net.columns[columnOf[arrow.to]];
    if (!a.heat && !b.heat && drawable.length <= MOST_ARROWS) drawArrow(svg, arrow);
  }
  net.columns.slice(1).forEach((b, c) => {
    const a = net.columns[c];
    if ((a.heat || b.heat) && !graph && !seen.has(c)) band(bands, a, b);
  });
  net.columns.forEach((column, c) => {
    add(svg, "text", { x: column.x, y: height + 48, class: "name" }, column.label + (column.heat ? `: ${column.count} neurons` : ""));
    if (column.heat) drawHeat(svg, column);
    else for (let i = 0; i < column.count; i++) drawNeuron(svg, column.first + i);
  });
}
function band(parent, a, b) {
  const half = (column) => (column.heat ? 95 : column.gap * column.count / 2);
  const [x1, x2] = [a.x + (a.heat ? 95 : 20), b.x - (b.heat ? 95 : 20)];
  add(parent, "path", { class: "band", d: `M${x1} ${a.middle - half(a)}L${x2} ${b.middle - half(b)}V${b.middle + half(b)}L${x1} ${a.middle + half(a)}Z` });
}
function drawArrow(svg, arrow) {
  const a = place[arrow.from], b = place[arrow.to], far = columnOf[arrow.to] - columnOf[arrow.from] > 1;
  const bend = far ? -70 : 0, mid = (a.x + b.x) / 2;
  const d = bend ? `M${a.x} ${a.y}Q${mid} ${(a.y + b.y) / 2 + bend} ${b.x} ${b.y}` : `M${a.x} ${a.y}L${b.x} ${b.y}`;
  const group = add(svg, "g", { class: "arrow", "data-arrow": arrow.number });
  arrow.title = add(group, "title");
  arrow.seen = add(group, "path", { class: "seen", d });
  add(group, "path", { class: "hit", d });
  arrow.element = group;
  group.addEventListener("click", () => choose({ arrow: arrow.number }));
}
function drawNeuron(svg, k) {
  const { x, y, r } = place[k];
  const element = add(svg, "g", { class: "neuron", tabindex: 0, role: "button", "data-neuron": k });
  const parts = { element, title: add(element, "title") };
  add(element, "circle", { class: "ground", cx: x, cy: y, r });
  parts.fill = add(element, "circle", { cx: x, cy: y, r });
  add(element, "circle", { class: "ring", cx: x, cy: y, r });
  if (r > 20) {
    parts.text = add(element, "text", { x, y: y + 4.5 });
    const beside = net.columns[columnOf[k]].gap < 80;
    parts.math = add(element, "text", beside ? { x: x + r + 5, y: y + 4, class: "math beside" } : { x, y: y + r + 14, class: "math" });
  }
  Object.assign(place[k], parts);
  press(element, () => choose({ neuron: k }));
}
function drawHeat(svg, column) {
  const across = Math.ceil(Math.sqrt(column.count)), down = Math.ceil(column.count / across), size = 190;
  const tall = size * down / across, [left, top] = [column.x - size / 2, column.middle - tall / 2];
  const element = add(svg, "g", { class: "heat", tabindex: 0, role: "button" });
  column.image = add(element, "image", { x: left, y: top, width: size, height: tall });
  add(element, "rect", { x: left, y: top, width: size, height: tall });
  Object.assign(column, { element, across, down });
  press(element, (event) => {
    let i = 0; // by keyboard, the largest entry; the panel has a field for any other
    if (event.clientX || event.clientY) {
      const box = column.image.getBoundingClientRect();
      i = Math.floor((event.clientY - box.top) / box.height * down) * across + Math.floor((event.clientX - box.left) / box.width * across);
    } else {
      const size = (j) => Math.abs(value(latest(column.first + j), column.first + j) ?? 0);
      for (let j = 0; j < column.count; j++) if (size(j) > size(i)) i = j;
    }
    choose({ neuron: column.first + Math.min(Math.max(i, 0), column.count - 1) });
  });
}
const ORDER = ["y", "b", "a", "z", "direct", "slope", "g", "delta", "dw", "db", "new"];
function latest(k) { // the quantity that was computed last here
  let found = columnOf[k] === 0 ? "a" : null, at = -1;
  for (const q of Object.keys(known)) {
    if (q !== "dw" && q !== "loss" && isKnown(q, k) && known[q][k] > at && value(q, k) !== null) { found = q; at = known[q][k]; }
  }
  return found;
}
const most = (values) => values.reduce((top, v) => (typeof v === "number" ? Math.max(top, Math.abs(v)) : top), 1e-300);
const largest = {}; // forward by column; backward of all, so that a gradient that vanishes fades
for (const [q, all] of Object.entries(net.values)) {
  const whole = most(all);
  largest[q] = net.columns.map((c) => ("az".includes(q) ? most(all.slice(c.first, c.first + c.count)) : whole));
}
const strength = (v, most) => (typeof v === "number" ? Math.min(1, Math.abs(v) / most) : 0);
const colour = (v) => (v < 0 ? "var(--minus)" : "var(--plus)");
function rgba(v, most) {
  const style = getComputedStyle(document.documentElement), hex = style.getPropertyValue(v < 0 ? "--minus" : "--plus").trim();
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).concat(Math.round(255 * strength(v, most)));
}
function paint(canvas, across, entries, most) {
  canvas.width = across; canvas.height = Math.ceil(entries.length / across);
  const image = canvas.getContext("2d").createImageData(canvas.width, canvas.height);
  entries.forEach((v, i) => image.data.set(typeof v === "number" ? rgba(v, most) : [0, 0, 0, 0], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
const mostOf = { w: most(arrows.map((a) => a.w)), dw: most(arrows.map((a) => a.dw)), new: most(arrows.map((a) => a.new)) };
const arrowShows = (arrow) => (isKnown("new", arrow.to) ? "new" : isKnown("dw", arrow.to) ? "dw" : "w");
function show() {
  net.columns.forEach((column) => {
    if (!column.heat) return;
    const entries = Array.from({ length: column.count }, (_, i) => column.first + i), q = latest(column.first);
    const shown = q ? entries.map((k) => value(q, k)) : entries.map(() => null);
    column.image.setAttribute("href", paint(document.createElement("canvas"), column.across, shown, largest[q]?.[columnOf[column.first]] ?? 1).toDataURL());
    flags(column.element, entries.some((k) => isWrong(q, k)), isNow(q, column.first), entries.includes(chosen?.neuron));
    column.element.setAttribute("aria-label", `${column.label}, heat map of ${column.count} neurons${q ? `, ${textOf(symbol(q, column.first)).replace(/\d+$/, "")}` : ""}; press to choose one`);
  });
  place.forEach((at, k) => {
    if (!at.element) return;
    const q = latest(k), v = q ? value(q, k) : null, bad = ORDER.some((one) => one !== "dw" && isWrong(one, k));
    at.fill.style.fill = colour(v);
    at.fill.style.fillOpacity = v === null ? 0 : 0.72 * strength(v, largest[q][columnOf[k]]);
    if (at.text) { at.text.textContent = inside(v); at.math.innerHTML = q ? svgMath(symbol(q, k)) : ""; }
    flags(at.element, bad, isNow(q, k), chosen?.neuron === k);
    const said = `${neuronSaid(k)}${q ? `, ${textOf(symbol(q, k))} = ${number(v)}` : ""}${bad ? ", wrong" : ""}`;
    at.element.setAttribute("aria-label", said); at.title.textContent = said;
  });
  for (const arrow of arrows) {
    if (!arrow.element) continue;
    const q = arrowShows(arrow), v = arrow[q];
    arrow.seen.style.stroke = colour(v);
    arrow.seen.style.strokeOpacity = 0.25 + 0.75 * strength(v, mostOf[q]);
    arrow.seen.style.strokeWidth = 0.8 + 4 * strength(v, mostOf[q]);
    arrow.title.textContent = `${textOf(weight(arrow))} = ${number(arrow.w)}${q === "w" ? "" : `, gradient ${number(arrow.dw)}`}`;
    flags(arrow.element, isWrong("dw", arrow.to), isNow("dw", arrow.to), chosen?.arrow === arrow.number);
  }
}
function follow() { // a wide network scrolls to what is computed now
  const frame = $("scroll"), now = place[net.steps[step].neurons[0]];
  if (now && frame.scrollWidth > frame.clientWidth) {
    frame.scrollLeft = now.x / $("drawing").viewBox.baseVal.width * frame.scrollWidth - frame.clientWidth / 2;
  }
}
function flags(element, bad, now, picked) {
  element.classList.toggle("wrong", Boolean(bad)); element.classList.toggle("now", now); element.classList.toggle("chosen", picked);
}
const textOf = (markup) => { const made = document.createElement("div"); made.innerHTML = markup; return made.textContent; };
const svgMath = (markup) => markup.replace(/<su([pb])>(.*?)<\/su[pb]>/g, (_, up, text) =>
  `<tspan dy="${up === "p" ? -4 : 4}" font-size="9">${text}</tspan><tspan dy="${up === "p" ? 4 : -4}">\u200b</tspan>`);

// --- The card of this step, and the panel of what was chosen ---
function card() {
  const one = net.steps[step], line = $("line");
  line.classList.toggle("wrong", Boolean(one.wrong));
  line.innerHTML = `<h2>Step ${step + 1} of ${net.steps.length}: ${escaped(one.said)} ${one.number ? `<span>equation ${escaped(one.number)}</span>` : ""}</h2>`
    + one.formulas.map((f) => `<div class="formula">${f.html}</div><div class="numbers">${f.numbers}</div>`).join("")
    + (one.more ? `<p class="soft">${one.more}</p>` : "")
    + (one.wrong ? `<p class="wrongnote">✗ Wrong: ${escaped(one.wrong)}</p>` : "");
  $("slider").value = step + 1;
  $("slider").setAttribute("aria-valuetext", `step ${step + 1}: ${one.said}, ${one.text}`);
  $("back").disabled = step === 0; $("next").disabled = step === net.steps.length - 1;
  for (const button of $("parts").children) {
    if (button.dataset.part === one.part) button.setAttribute("aria-current", "step"); else button.removeAttribute("aria-current");
  }
  const q = one.quantity, shown = q === "dw" ? "gradients on the weights" : q === "loss" ? "the loss" : one.said;
  $("legend").innerHTML = `<span><i class="key" style="background:var(--plus)"></i>positive</span>
    <span><i class="key" style="background:var(--minus)"></i>negative</span><span>stronger colour: larger value</span><span>now: ${escaped(shown)}</span>`;
}
function sum(terms, last) { // terms: [HTML symbol, HTML numbers]; at most six are written out
  const few = terms.slice(0, 6), rest = terms.length > 6 ? [`… (${terms.length} terms)`] : [];
  return [0, 1].map((i) => [...few.map((t) => t[i]), ...rest, ...(last ? [last[i]] : [])].join(" + "));
}
const button = (arrow) => `<button data-arrow="${arrow.number}" aria-label="weight ${escaped(textOf(weight(arrow)))} = ${number(arrow.w)}">${number(arrow.w)}</button>`;
function rightSide(q, k) { // [symbols, numbers] of what a quantity of a neuron is computed from
  const letter = (one, i = k) => symbol(one, i), of = (one, i = k) => factor(value(one, i));
  const back = () => sum(out[k].map((a) => [`${weight(a)} ${letter("delta", a.to)}`, `${button(a)} · ${of("delta", a.to)}`]));
  const slope = value("slope", k) !== null;
  switch (q) {
    case "z": return sum(into[k].map((a) => [`${weight(a)} ${letter("a", a.from)}`, `${button(a)} · ${of("a", a.from)}`]), [letter("b"), of("b")]);
    case "a": return columnOf[k] ? [`σ(${letter("z")})`, `σ(${number(value("z", k))})`] : ["x", ""];
    case "slope": return ["", `σ′(${number(value("z", k))})`];
    case "g": return back();
    case "db": return [letter("delta"), ""];
    case "new": return [`${letter("b")} − η ${letter("db")}`, `${number(value("b", k))} − ${net.rate} · ${of("db")}`];
    case "delta": {
      const above = graph ? out[k].length > 0 : value("direct", k) === null, terms = [];
      if (above && graph) { const [s, n] = back(); terms.push([`(${s})`, `(${n})`]); }
      if (above && !graph) terms.push([letter("g"), of("g")]);
      if (value("direct", k) !== null) terms.push([letter("direct"), of("direct")]);
      if (graph && columnOf[k] === 0) return terms[0] ?? ["0", ""];
      if (!slope) return [`(∂a/∂z)<sup>T</sup> ${terms.map((t) => t[0]).join("")}`, ""];
      return [0, 1].map((i) => terms.map((t) => `${t[i]} · ${i ? of("slope") : letter("slope")}`).join(" + "));
    }
    default: return ["", ""];
  }
}
function equation(left, [symbols, numbers], result, bad, now) {
  return `<div class="eq${now ? " now" : ""}${bad ? " wrong" : ""}"><div class="sym">${left}${symbols ? ` = ${symbols}` : ""}</div>`
    + `<div class="numbers">${numbers ? `= ${numbers} ` : ""}= <b>${number(result)}</b></div>${bad ? `<div class="wrongnote">✗ Wrong: ${escaped(bad)}</div>` : ""}</div>`;
}
const saidWrong = (q, k) => (isWrong(q, k) ? net.steps[wrong[q][k]].wrong : "");
function panel() {
  const target = $("panel");
  if (!chosen) {
    const at = net.steps.findIndex((one) => one.quantity === "loss");
    target.innerHTML = `<h2>Nothing chosen</h2><p class="soft">Click a neuron or a weight to see its equations with its numbers. Target: y = ${net.target.slice(0, 10).map((v) => number(v)).join(", ")}${net.target.length > 10 ? ", …" : ""}.</p>`
      + (at <= step ? `<div class="soft numbers">Loss ${net.steps[at].formulas[0].numbers}</div>` : "");
    return;
  }
  if (chosen.arrow !== undefined) { target.innerHTML = arrowPanel(arrows[chosen.arrow]); return; }
  const k = chosen.neuron, column = net.columns[columnOf[k]], said = neuronSaid(k);
  const quantities = [...new Set(net.steps.map((one) => one.quantity))].filter((q) => isKnown(q, k) && value(q, k) !== null)
    .sort((p, q) => known[p][k] - known[q][k]);
  if (graph && columnOf[k] === 0) quantities.unshift("a");
  target.innerHTML = `<h2>${escaped(said[0].toUpperCase() + said.slice(1))}</h2>`
    + (column.heat ? `<label>Number in ${column.label} <input type="number" id="which" min="1" max="${column.count}" value="${k - column.first + 1}"></label>` : "")
    + (quantities.map((q) => equation(symbol(q, k), rightSide(q, k), value(q, k), saidWrong(q, k), isNow(q, k))).join("") || '<p class="soft">Nothing is computed here yet.</p>')
    + (value("y", k) === null ? "" : `<p class="soft">Target y = ${number(value("y", k))}</p>`);
  $("which")?.addEventListener("change", (event) => {
    const i = Math.round(Number(event.target.value));
    if (i >= 1 && i <= column.count) choose({ neuron: column.first + i - 1 });
  });
  const before = columnOf[k] ? net.columns[columnOf[k] - 1] : null;
  if (before?.heat && into[k].length === before.count) maps(target, into[k], before, isKnown("dw", k));
}
function maps(target, arrows, before, gradients) { // of the weights into a neuron from a heat map
  const both = target.appendChild(document.createElement("div"));
  both.className = "maps";
  for (const [q, said] of [["w", "Its weights"], ...(gradients ? [["dw", "Their gradients"]] : [])]) {
    const figure = both.appendChild(document.createElement("figure")), entries = arrows.map((a) => a[q]);
    const canvas = figure.appendChild(paint(document.createElement("canvas"), before.across, entries, most(entries)));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${said}, ${entries.length} numbers of at most ${number(most(entries))} in size`);
    figure.appendChild(document.createElement("figcaption")).textContent = `${said}, at most ${number(most(entries), 3)}`;
  }
}
function arrowPanel(arrow) {
  const { from, to } = arrow, now = (q) => isNow(q, to);
  let text = `<h2>Weight ${weight(arrow)}</h2><p class="soft">From ${escaped(neuronSaid(from))} to ${escaped(neuronSaid(to))}.</p>`;
  text += equation(weight(arrow), ["", ""], arrow.w, "", false);
  if (isKnown("dw", to)) {
    const right = [`${symbol("delta", to)} ${symbol("a", from)}`, `${factor(value("delta", to))} · ${factor(value("a", from))}`];
    text += equation(`∂C/∂${weight(arrow)}`, right, arrow.dw, saidWrong("dw", to), now("dw"));
  }
  if (isKnown("new", to)) {
    const right = [`${weight(arrow)} − η ∂C/∂${weight(arrow)}`, `${number(arrow.w)} − ${net.rate} · ${factor(arrow.dw)}`];
    text += equation(`${weight(arrow)} new`, right, arrow.new, "", now("new"));
  }
  return text;
}

// --- Keys, clicks and the address, such as #step=3&neuron=4 ---
let noted = 0;
function update() {
  card(); show(); panel(); follow();
  clearTimeout(noted);
  noted = setTimeout(note, 150); // browsers refuse an address that changes as fast as a key repeats
}
function note() {
  const words = [`step=${step + 1}`, ...(chosen ? Object.entries(chosen).map(([kind, n]) => `${kind}=${n}`) : [])];
  try { history.replaceState(null, "", `#${words.join("&")}`); } catch { /* a frame without an address */ }
}
function go(to) { step = Math.min(Math.max(to, 0), net.steps.length - 1); update(); }
function choose(what) { chosen = what; update(); }
function read() {
  const given = new URLSearchParams(location.hash.slice(1)), whole = (name) => Number.parseInt(given.get(name), 10);
  const [k, a] = [whole("neuron"), whole("arrow")];
  chosen = k >= 0 && k < net.names.length ? { neuron: k } : a >= 0 && a < arrows.length ? { arrow: a } : null;
  go((whole("step") || 1) - 1);
}
for (const part of new Set(net.steps.map((one) => one.part))) {
  const made = $("parts").appendChild(document.createElement("button"));
  const bad = net.steps.findIndex((one) => one.part === part && one.wrong);
  made.dataset.part = part; made.textContent = bad >= 0 ? `✗ ${part}` : part;
  if (bad >= 0) { made.classList.add("wrong"); made.setAttribute("aria-label", `${part}, wrong`); }
  made.addEventListener("click", () => go(bad >= 0 ? bad : net.steps.findIndex((one) => one.part === part)));
}
$("slider").max = net.steps.length;
$("slider").addEventListener("input", (event) => go(Number(event.target.value) - 1));
$("back").addEventListener("click", () => go(step - 1));
$("next").addEventListener("click", () => go(step + 1));
$("panel").addEventListener("click", (event) => {
  const arrow = event.target.closest("[data-arrow]");
  if (arrow) choose({ arrow: Number(arrow.dataset.arrow) });
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches?.("input") || event.altKey || event.ctrlKey || event.metaKey) return; // a field has its own keys
  const to = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: net.steps.length - 1 }[event.key];
  if (to !== undefined) { event.preventDefault(); go(to); }
  if (event.key === "Escape") choose(null);
});
window.addEventListener("hashchange", read);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
draw();
read();
