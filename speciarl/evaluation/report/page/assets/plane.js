// Plane of specificity and correctness, with lines of equal HM and the intervals of every run.
const ink = (name) => `var(--run-${name % 8})`;

function mark(name, x, y, size = 6) {
  const fill = { fill: ink(name), stroke: "var(--card)", "stroke-width": 1.2 };
  const points = (...pairs) => svg("polygon", { ...fill, points: pairs.map(([dx, dy]) => `${x + dx * size},${y + dy * size}`).join(" ") });
  switch (name % 4) {
    case 0: return svg("circle", { ...fill, cx: x, cy: y, r: size });
    case 1: return svg("rect", { ...fill, x: x - size, y: y - size, width: 2 * size, height: 2 * size });
    case 2: return points([0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]);
    default: return points([0, -1.2], [1.2, 1], [-1.2, 1]);
  }
}

function range(values) {
  const low = Math.max(0, Math.floor((Math.min(...values) - 0.02) * 20) / 20);
  const high = Math.min(1, Math.ceil((Math.max(...values) + 0.02) * 20) / 20);
  return high - low < 0.1 ? [Math.max(0, high - 0.1), Math.max(0.1, high)] : [low, high];
}

function ticks([low, high], most = 6) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((one) => (high - low) / one <= most) ?? 0.5;
  const found = [];
  for (let one = Math.ceil(low / step - 1e-9); one * step <= high + 1e-9; one++) found.push(one * step);
  return found;
}

painters.push(() => {
  const values = numbers.values[state.scope];
  const points = names.map((_, name) => ({ name, of: values[runOf(name, state.judge)] }))
    .filter(({ of }) => of?.specificity?.[0] != null && of?.correctness?.[0] != null);
  if (!points.length) return at("plane").replaceChildren(el("p", { class: "note" }, "No run has both numbers here."));
  const ends = (metric) => points.flatMap(({ of }) => of[metric].slice(0, 3)).filter((one) => one !== null);
  const width = 560, height = 430, left = 46, right = 12, top = 10, bottom = 40;
  const xs = range(ends("specificity")), ys = range(ends("correctness"));
  const x = (value) => left + ((value - xs[0]) / (xs[1] - xs[0])) * (width - left - right);
  const y = (value) => height - bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (height - top - bottom);
  const parts = [];
  for (const tick of ticks(xs)) parts.push(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom }),
    svg("text", { class: "tick", x: x(tick), y: height - bottom + 16, "text-anchor": "middle" }, number(tick).replace(/0$/, "")));
  for (const tick of ticks(ys)) parts.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
    svg("text", { class: "tick", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, number(tick).replace(/0$/, "")));
  parts.push(...contours(xs, ys, x, y));
  for (const { name, of } of points) {
    const [s, sLow, sHigh] = of.specificity, [c, cLow, cHigh] = of.correctness;
    const line = { class: "thin", stroke: ink(name) };
    if (sLow !== null) parts.push(svg("line", { ...line, x1: x(sLow), x2: x(sHigh), y1: y(c), y2: y(c) }));
    if (cLow !== null) parts.push(svg("line", { ...line, x1: x(s), x2: x(s), y1: y(cLow), y2: y(cHigh) }));
  }
  for (const { name, of } of points) {
    parts.push(svg("g", {}, svg("title", {}, `${labels[name]}: HM ${number(of.hm?.[0])} ${interval(of.hm ?? [])}`),
      mark(name, x(of.specificity[0]), y(of.correctness[0]))));
  }
  parts.push(...planeLabels(points.map(({ name, of }) => ({ name, x: x(of.specificity[0]), y: y(of.correctness[0]) })), width));
  parts.push(svg("text", { class: "dim", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "specificity"),
    svg("text", { class: "dim", x: 12, y: (height - bottom) / 2, transform: `rotate(-90 12 ${(height - bottom) / 2})`, "text-anchor": "middle" }, "correctness"));
  at("plane").replaceChildren(drawing(width, height, "Specificity and correctness of each run", ...parts));
});

function contours(xs, ys, x, y) {
  const parts = [];
  const levels = xs[1] - xs[0] < 0.3 && ys[1] - ys[0] < 0.3 ? 0.02 : 0.05;
  for (let step = 1; step * levels < 1; step++) {
    const hm = step * levels;
    let path = "", last = null;
    for (let place = 0; place <= 120; place++) {
      const s = xs[0] + ((xs[1] - xs[0]) * place) / 120;
      const c = (hm * s) / (2 * s - hm);
      if (2 * s <= hm || c > ys[1] || c < ys[0]) continue;
      path += `${path ? "L" : "M"}${x(s).toFixed(1)} ${y(c).toFixed(1)}`;
      last ??= [x(s), y(c)];
    }
    if (!path.includes("L")) continue;
    parts.push(svg("path", { class: "contour", d: path }),
      svg("text", { class: "dim", x: last[0] + 3, y: Math.max(last[1] + 11, 20), "font-size": 10 }, `HM ${number(hm).replace(/0$/, "")}`));
  }
  return parts;
}

function planeLabels(points, width) {
  const placed = [];
  const sorted = [...points].sort((one, other) => one.y - other.y);
  return sorted.flatMap((point) => {
    const end = point.x > width * 0.75;
    let y = point.y - 9;
    while (placed.some((other) => Math.abs(other.x - point.x) < 110 && Math.abs(other.y - y) < 14)) y += 7;
    placed.push({ x: point.x, y });
    const moved = Math.abs(y - point.y + 9) > 10;
    return [moved && svg("line", { class: "leader", x1: point.x, y1: point.y, x2: point.x + (end ? -10 : 10), y2: y - 4 }),
      svg("text", { x: point.x + (end ? -11 : 11), y, "text-anchor": end ? "end" : "start", "font-weight": 600 }, labels[point.name])].filter(Boolean);
  });
}
