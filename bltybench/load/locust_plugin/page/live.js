// The live page: fetches the state once per second and draws it. All text is set as text, never as HTML.
const INTERVAL_MS = 1000;
const MIN_SPAN_S = 60;
const LEFT = 44, RIGHT = 10, TOP = 10, BOTTOM = 22;
const FAR = 2.5; // A limit this many times above everything else is not drawn, because it would flatten the lines.
const DASHES = ["6 5", "2 4", "12 4"];
const CHARTS = {
  requests: {accepted: "accepted", refused: "refused", failed: "failed"},
  ttft: {ttft_p50_ms: "p50", ttft_p95_ms: "p95"},
  tokens: {tokens: "all", input_tokens: "input", output_tokens: "output"},
  flight: {in_flight: "in flight"},
};
const NO_LIMITS = {lines: [], note: ""};
const COLORS = ["first", "second", "third"];
const at = (id) => document.getElementById(id);

function html(tag, text = "", name = "") {
  return Object.assign(document.createElement(tag), {textContent: text, className: name});
}

function svg(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

// The sample of a limit's line in a legend.
function swatch(dashes) {
  const sample = svg("svg", {class: "swatch", "aria-hidden": "true"});
  sample.append(svg("line", {class: "limit", "stroke-dasharray": dashes, x1: 0, x2: 30, y1: 4, y2: 4}));
  return sample;
}

// Screen readers announce a changed headline, so it is only set if it differs.
function say(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

const shown = (value) => value === null ? "–" : Math.round(value).toLocaleString("en-US");
const compact = new Intl.NumberFormat("en-US", {notation: "compact"});
const minutes = (s) => `${Math.floor(s / 60)}:${String(Math.round(s % 60)).padStart(2, "0")}`;

// The distance of grid lines: 1, 2, or 5 times a power of ten, at least 1, for about four of them.
function step(range) {
  const power = 10 ** Math.floor(Math.log10(range / 4));
  return Math.max(1, power * [1, 2, 5, 10].find((factor) => range / (factor * power) <= 5));
}

function drawChart(id, state) {
  const series = CHARTS[id], points = state.points, last = points.at(-1);
  const {lines, note} = state[id] ?? NO_LIMITS, keys = Object.keys(series), figure = at(id);
  const highest = Math.max(...points.flatMap((point) => keys.map((key) => point[key] ?? 0)), 4);
  const far = FAR * Math.max(highest, Math.min(...lines.map(({height}) => height)));
  const drawn = lines.filter(({height}) => height <= far);
  const legend = html("div", "", "legend");
  keys.forEach((key, index) => {
    const item = html("span");
    item.append(html("i", "", COLORS[index]), `${series[key]} `, html("b", last ? shown(last[key]) : "–"));
    legend.append(item);
  });
  for (const line of lines) {
    const index = drawn.indexOf(line), item = html("span");
    if (index < 0) item.append(`▲ ${line.text}, far above`);
    else item.append(swatch(DASHES[index % DASHES.length]), line.text);
    legend.append(item);
  }
  const plot = html("div", "", "plot");
  figure.replaceChildren(figure.querySelector("figcaption"), legend, plot, html("p", note, "note"));

  const width = plot.clientWidth, height = plot.clientHeight;
  const end = Math.max(MIN_SPAN_S, last?.at_s ?? 0), start = Math.min(points[0]?.at_s ?? 0, end - MIN_SPAN_S);
  const room = 1.1 * Math.max(highest, ...drawn.map(({height}) => height));
  const unit = step(room), top = unit * Math.ceil(room / unit);
  const x = (s) => LEFT + (s - start) / (end - start) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value / top) * (height - TOP - BOTTOM);
  const label = `${figure.querySelector("figcaption").textContent}: ${[...legend.children].map((item) => item.textContent).join(", ")}`;
  const chart = svg("svg", {role: "img", "aria-label": label});
  for (let value = 0; value <= top; value += unit) {
    chart.append(svg("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value)}));
    chart.append(svg("text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"}, compact.format(value)));
  }
  const apart = (end - start) / 60 > (width / 90) ? 60 : 30;
  for (let s = Math.ceil(start / apart) * apart; s <= end; s += apart) {
    chart.append(svg("text", {x: x(s), y: height - 4, "text-anchor": s > end - apart / 4 ? "end" : "middle"}, minutes(s)));
  }
  drawn.forEach(({height: value}, index) => chart.append(svg("line", {
    class: "limit", "stroke-dasharray": DASHES[index % DASHES.length], x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value),
  })));
  keys.forEach((key, index) => {
    const known = points.filter((point) => point[key] !== null).map((point) => [x(point.at_s), y(point[key])]);
    if (!known.length) return;
    chart.append(svg("polyline", {class: COLORS[index], points: known.map((pair) => pair.join()).join(" ")}));
    chart.append(svg("circle", {class: COLORS[index], cx: known.at(-1)[0], cy: known.at(-1)[1], r: 4}));
  });
  plot.append(chart);
}

function drawRow({measure, now, limit}) {
  const row = html("tr"), name = html("th", measure);
  name.scope = "row";
  row.append(name, html("td", now), html("td", limit));
  return row;
}

function draw(state) {
  document.body.dataset.phase = state.phase;
  say("headline", state.headline);
  say("clock", state.clock);
  say("about", state.about);
  at("result").hidden = !state.lines.length;
  at("lines").replaceChildren(...state.lines.map(({text, tone}) => html("p", text, tone)));
  at("report").hidden = !state.report;
  if (state.report) at("report").href = `../report/${encodeURIComponent(state.report)}`;
  at("figures").hidden = !state.rows.length;
  at("rows").replaceChildren(...state.rows.map(drawRow));
  if (state.rows.length) for (const id of Object.keys(CHARTS)) drawChart(id, state);
}

async function refresh() {
  // Locust's page has a button for its colors. In its tab, this page follows it.
  document.documentElement.style.colorScheme = localStorage.theme ?? "light dark";
  try {
    const response = await fetch("../state");
    if (!response.ok) throw new Error(`status ${response.status}`);
    draw(await response.json());
  } catch (error) {
    say("headline", "Locust does not respond");
    say("clock", `(${error.message})`);
  }
  if (window.frameElement) window.frameElement.style.height = `${document.body.offsetHeight}px`;
  setTimeout(refresh, INTERVAL_MS);
}

refresh();
