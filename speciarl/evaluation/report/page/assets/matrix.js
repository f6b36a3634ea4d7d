// Matrix of outcomes: how often one column of the index says i where another says j.
function pairs(one, other) {
  const counts = new Uint32Array(256); // by both codes, in four bits each
  const shown = shownDatasets();
  for (let row = 0; row < total; row++) {
    if (!shown[datasetOf[row]] || one[row] === NOT_ASKED || other[row] === NOT_ASKED) continue;
    counts[(one[row] + 8) * 16 + other[row] + 8]++;
  }
  return (i, j) => counts[(i + 8) * 16 + j + 8];
}

// The sums are over pairs of which neither code is below `lowest`.
function matrix(one, other, lowest, rowsAre, columnsAre, press) {
  const of = pairs(one, other);
  const all = [...AROUND.slice().reverse(), ...LADDER];
  const codes = all.filter((code) => code >= 0 || all.some((second) => of(code, second) || of(second, code)));
  const shade = (i, j, sum) => {
    const share = Math.sqrt(of(i, j) / Math.max(1, sum));
    const hue = i === j || i === -3 || j === -3 ? "var(--dim)" : j > i ? "var(--o-specific)" : "var(--o-wrong)";
    return `color-mix(in srgb, ${hue} ${Math.round(70 * share)}%, var(--card))`;
  };
  const rows = codes.slice().reverse().map((i) => {
    const sum = codes.reduce((all, j) => all + of(i, j), 0);
    return el("tr", {}, el("th", { scope: "row" }, outcomes.get(i).label, " ", chip(i)),
      codes.map((j) => {
        const label = `${rowsAre} ${outcomes.get(i).label}, ${columnsAre} ${outcomes.get(j).label}: ${count(of(i, j))}`;
        const button = el("button", { type: "button", title: label, "aria-label": label, on: { click: () => press(i, j) } },
          of(i, j) ? count(of(i, j)) : "\u00b7");
        button.style.background = shade(i, j, sum);
        return el("td", { class: i === j ? "same" : null }, button);
      }), el("td", { class: "sum" }, count(sum)));
  });
  const sums = { better: 0, worse: 0, same: 0, all: 0 };
  for (const i of codes) for (const j of codes) {
    if (i < lowest || j < lowest) continue;
    sums.all += of(i, j);
    sums[i === j ? "same" : j > i ? "better" : "worse"] += of(i, j);
  }
  const head = el("thead", {}, el("tr", {}, el("td"), codes.map((code) => el("th", { scope: "col" }, chip(code))), el("th", { class: "sum" }, "all")));
  return [el("div", { class: "scroll" }, el("table", { class: "matrix" }, head, el("tbody", {}, rows))), sums];
}

painters.push(() => {
  const one = column(state.a, state.judge, state.best), other = column(state.b, state.judge, state.best);
  if (!one || !other) return at("transitions").replaceChildren(el("p", { class: "note" }, "These answers are not in the page's index."));
  const [grid, sums] = matrix(one, other, -2, `${labels[state.a]} (A)`, `${labels[state.b]} (B)`, (i, j) => showSamples(i, j));
  at("transitions").replaceChildren(grid, el("p", { class: "verdict" }, el("b", {}, count(sums.better)), " better, ",
    el("b", {}, count(sums.worse)), " worse, ", count(sums.same), " the same, of ", count(sums.all), " scored in both."));
});

let otherJudge = numbers.judges[1] ?? null;
painters.push(() => {
  at("s-judges").hidden = numbers.judges.length < 2;
  if (numbers.judges.length < 2) return;
  if (otherJudge === state.judge) otherJudge = numbers.judges.find((judge) => judge !== state.judge);
  const choose = select("With", numbers.judges.filter((judge) => judge !== state.judge).map((judge) => [judge, judge]), otherJudge,
    (value) => { otherJudge = value; paintAll(); });
  const one = column(state.b, state.judge, false), other = column(state.b, otherJudge, false);
  if (!one || !other) return at("judges").replaceChildren(choose, el("p", { class: "note" }, "These verdicts are not in the page's index, for its size."));
  const [grid, sums] = matrix(one, other, 0, state.judge, otherJudge, () => at("samples").scrollIntoView());
  at("judges").replaceChildren(choose, grid, el("p", { class: "verdict" }, `${state.judge} (rows) and ${otherJudge} (columns) agree on `,
    el("b", {}, percent(sums.same / Math.max(1, sums.all))), " of the first answers that both judged."));
});
