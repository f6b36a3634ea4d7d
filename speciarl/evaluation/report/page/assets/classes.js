// Classes: HM of each in A and B, by the definitions of the configuration, from the index.
let classOrder = "worst";

function perClass(codes) {
  const size = classes.length;
  const scored = new Float64Array(size), right = new Float64Array(size), graded = new Float64Array(size), weight = new Float64Array(size);
  const weights = LADDER.map((code) => numbers.weights[outcomes.get(code).key] ?? 0);
  const lowest = numbers.abstain_is_wrong ? 1 : 0;
  const shown = shownDatasets();
  for (let row = 0; row < total; row++) {
    const code = codes[row];
    if (code < -2 || !shown[datasetOf[row]]) continue;
    const of = classOf[row];
    scored[of]++;
    if (code > lowest) right[of]++;
    if (code >= 2) { graded[of]++; weight[of] += weights[code]; }
  }
  return { scored, hm: (of) => {
    const correctness = right[of] / scored[of], specificity = graded[of] ? weight[of] / graded[of] : NaN;
    if (!scored[of]) return NaN;
    return correctness + (specificity || 0) === 0 || !graded[of] ? 0 : (2 * correctness * specificity) / (correctness + specificity);
  } };
}

painters.push(() => {
  const one = column(state.a, state.judge, state.best), other = column(state.b, state.judge, state.best);
  if (!one || !other) return at("classes").replaceChildren(el("p", { class: "note" }, "These answers are not in the page's index."));
  const a = perClass(one), b = perClass(other);
  const rows = classes.map((name, of) => ({ name, of, n: b.scored[of], a: a.hm(of), b: b.hm(of) })).filter((row) => row.n && !Number.isNaN(row.a));
  const keys = {
    worst: (row) => row.b, best: (row) => -row.b, gained: (row) => row.a - row.b, lost: (row) => row.b - row.a,
  };
  const key = keys[classOrder];
  const first = [...rows].sort((x, y) => key(x) - key(y) || y.n - x.n || x.of - y.of).slice(0, 12);
  const bar = (value) => {
    const fill = el("i", { class: "swatch o-specific" });
    fill.style.width = `${(100 * value).toFixed(1)}px`;
    return fill;
  };
  const orders = [["worst", "worst in B"], ["best", "best in B"], ["gained", "gained most"], ["lost", "lost most"]];
  at("classes").replaceChildren(
    el("div", { class: "tools" }, select("First", orders, classOrder, (value) => { classOrder = value; paintAll(); }),
      el("span", { class: "count" }, `${Math.min(12, rows.length)} of ${count(rows.length)} classes`)),
    el("div", { class: "scroll" }, table(
      [{ text: "class" }, { text: "answers", number: true }, { text: `${labels[state.a]} (A)`, number: true }, { text: `${labels[state.b]} (B)`, number: true }, { text: "" }, { text: "B \u2212 A", number: true }],
      first.map((row) => el("tr", {},
        el("td", {}, el("button", { type: "button", class: "foreign", on: { click: () => showClass(row.of) } }, row.name || "(no name)")),
        el("td", { class: "number" }, count(row.n)), el("td", { class: "number" }, number(row.a)), el("td", { class: "number" }, number(row.b)),
        el("td", {}, bar(row.b)), el("td", { class: "number" }, signed(row.b - row.a)))))));
});
