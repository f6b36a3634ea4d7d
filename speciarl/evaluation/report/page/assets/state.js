// What the page shows: a scope, a judge, the two runs that are compared, and first or best answers.
const hmOf = (name) => numbers.values[0][runOf(name, numbers.judges[0])]?.hm?.[0] ?? -1;
const state = { scope: 0, judge: numbers.judges[0], a: 0, b: 0, best: false };
state.b = names.reduce((best, _, name) => (name !== state.a && (best === state.a || hmOf(name) > hmOf(best)) ? name : best), state.a);

const painters = [];
const paintAll = () => painters.forEach((paint) => paint());

function set(change) {
  Object.assign(state, change);
  paintAll();
}

function shownDatasets() {
  const shown = new Uint8Array(index.datasets.length);
  index.datasets.forEach((dataset, place) => {
    shown[place] = numbers.scopes[state.scope].datasets.includes(dataset.name) ? 1 : 0;
  });
  return shown;
}

function controls() {
  const runs = labels.map((label, name) => [name, label]);
  at("controls").append(...[
    select("Show", numbers.scopes.map((scope, place) => [place, scope.title]), 0, (value) => set({ scope: +value })),
    numbers.judges.length > 1 &&
      select("Judged by", numbers.judges.map((judge) => [judge, judge]), state.judge, (value) => set({ judge: value })),
    select("Compare A", runs, state.a, (value) => set({ a: +value })),
    select("with B", runs, state.b, (value) => set({ b: +value })),
    index.columns.some((one) => one.best) &&
      select("Of each question", [["", "the first answer"], ["best", "the best answer"]], "", (value) => set({ best: value === "best" })),
  ].filter(Boolean));
}

painters.push(() => {
  for (const element of document.querySelectorAll(".name-a")) element.textContent = labels[state.a];
  for (const element of document.querySelectorAll(".name-b")) element.textContent = labels[state.b];
});
