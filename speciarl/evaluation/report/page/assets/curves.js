// Curves: a metric of the best of k answers. Over several data sets their mean, for which no interval is computed.
const ladderMetrics = [["hm", "HM"], ["correctness", "correctness"], ["specificity", "specificity"]];
let curveMetric = "hm";

function curve(run) {
  const per = numbers.scopes[state.scope].datasets.map((dataset) => numbers.best[dataset]?.[run]?.[curveMetric]);
  if (per.some((values) => !values?.length)) return null;
  if (per.length === 1) return per[0];
  return Array.from({ length: Math.min(...per.map((values) => values.length)) }, (_, k) => {
    const values = per.map((one) => one[k][0]);
    return [values.includes(null) ? null : values.reduce((sum, one) => sum + one, 0) / values.length, null, null];
  });
}

painters.push(() => {
  const lines = names.map((_, name) => ({ name, of: curve(runOf(name, state.judge)) })).filter(({ of }) => of);
  at("s-curves").hidden = !Object.values(numbers.best).some((runs) => runs.some(Boolean));
  if (!lines.length) return at("curves").replaceChildren(el("p", { class: "note" }, "No run has several answers here."));
  const width = 1120, height = 320, left = 46, right = 130, top = 10, bottom = 40;
  const most = Math.max(...lines.map(({ of }) => of.length));
  const ys = range(lines.flatMap(({ of }) => of.flat()).filter((one) => one !== null));
  const x = (k) => left + (Math.log(k) / Math.log(Math.max(2, most))) * (width - left - right);
  const y = (value) => height - bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (height - top - bottom);
  const parts = [];
  for (let k = 1; k <= most; k *= 2) parts.push(svg("text", { class: "tick", x: x(k), y: height - bottom + 16, "text-anchor": "middle" }, k));
  for (const tick of ticks(ys)) parts.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
    svg("text", { class: "tick", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, number(tick).replace(/0$/, "")));
  const path = (points) => points.map(([k, value], place) => `${place ? "L" : "M"}${x(k).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const ends = [];
  for (const { name, of } of lines) {
    const known = of.map((one, k) => [k + 1, ...one]).filter(([, value]) => value !== null);
    const sure = known.filter(([, , low]) => low !== null);
    if (sure.length > 1) parts.push(svg("path", { class: "band", fill: ink(name), d: `${path(sure.map(([k, , low]) => [k, low]))}${path(sure.map(([k, , , high]) => [k, high]).reverse()).replace("M", "L")}Z` }));
    parts.push(svg("path", { class: "line", stroke: ink(name), d: path(known) }));
    for (const [k, value] of known) parts.push(svg("g", {}, svg("title", {}, `${labels[name]}, best of ${k}: ${number(value)} ${interval(of[k - 1])}`), mark(name, x(k), y(value), most > 20 ? 2.5 : 4)));
    if (known.length) ends.push({ name, x: x(known.at(-1)[0]), y: y(known.at(-1)[1]) });
  }
  let lowest = -Infinity;
  for (const end of ends.sort((one, other) => one.y - other.y)) {
    lowest = Math.max(end.y + 4, lowest + 14);
    parts.push(svg("text", { x: end.x + 12, y: lowest, "font-weight": 600 }, labels[end.name]));
  }
  parts.push(svg("text", { class: "dim", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "k, the number of answers"));
  at("curves").replaceChildren(
    el("div", { class: "tools" }, select("Metric", ladderMetrics, curveMetric, (value) => { curveMetric = value; paintAll(); })),
    drawing(width, height, "Metric of the best of k answers", ...parts));
});
