// Filters of the browser of samples: over all samples by column, over those that are here whole also by their texts.
const filter = { dataset: "", a: "", b: "", text: "", changed: false, whole: false };
const haystacks = samples.map((sample) => [sample.id, ...sample.path, ...sample.runs.flat().map((answer) => `${answer.answer?.[0] ?? ""}\n${answer.text[0]}`)].join("\n").toLowerCase());
const lowerClasses = classes.map((name) => name.toLowerCase());
const lowerSources = index.sources.names.map((name) => name.toLowerCase());
const wholeFirst = Int32Array.from(samples, (sample) => sample.row);
const isWhole = new Uint8Array(total);
for (const row of wholeFirst) isWhole[row] = 1;

// Rows that pass, those that are here whole first.
function passing() {
  const one = column(state.a, state.judge, state.best), other = column(state.b, state.judge, state.best);
  const dataset = filter.dataset === "" ? -1 : +filter.dataset;
  const a = filter.a === "" || !one ? null : +filter.a, b = filter.b === "" || !other ? null : +filter.b;
  const text = filter.text.trim().toLowerCase();
  const classHit = text && Uint8Array.from(lowerClasses, (name) => (name.includes(text) ? 1 : 0));
  const sourceHit = text && sourceOf && Uint8Array.from(lowerSources, (name) => (name.includes(text) ? 1 : 0));
  const textHit = text && haystacks.map((haystack) => haystack.includes(text));
  const passes = (row) =>
    (dataset < 0 || datasetOf[row] === dataset) &&
    (a === null || one[row] === a) && (b === null || other[row] === b) &&
    (!filter.changed || !one || !other || one[row] !== other[row]) &&
    (!text || classHit[classOf[row]] || (sourceHit && sourceHit[sourceOf[row]]) || (isWhole[row] && textHit[sampleAt.get(row)]));
  const found = new Int32Array(total);
  let size = 0;
  for (const row of wholeFirst) if (passes(row)) found[size++] = row;
  if (!filter.whole) for (let row = 0; row < total; row++) if (!isWhole[row] && passes(row)) found[size++] = row;
  return found.subarray(0, size);
}

function outcomeChoices() {
  return [["", "any outcome"], ...[...LADDER].reverse().concat(AROUND, NOT_ASKED).map((code) => [code, outcomes.get(code)?.label ?? "not asked"])];
}

function filterTools(act) {
  const change = (part) => { Object.assign(filter, part); act(); };
  const check = (label, key) => {
    const box = el("input", { type: "checkbox", on: { change: () => change({ [key]: box.checked }) } });
    box.checked = filter[key];
    return el("label", { class: "row" }, box, label);
  };
  const text = el("input", { type: "search", placeholder: "class, answer or response", on: { input: () => change({ text: text.value }) } });
  text.value = filter.text;
  return el("div", { class: "tools" },
    select("Data set", [["", "all"], ...index.datasets.map((dataset, place) => [place, dataset.name])], filter.dataset, (value) => change({ dataset: value })),
    select(`Outcome of ${labels[state.a]} (A)`, outcomeChoices(), filter.a, (value) => change({ a: value })),
    select(`Outcome of ${labels[state.b]} (B)`, outcomeChoices(), filter.b, (value) => change({ b: value })),
    el("label", {}, "Text", text), check("A and B differ", "changed"), check("with texts only", "whole"),
    el("span", { class: "count", "aria-live": "polite" }));
}

function showSamples(a, b) {
  Object.assign(filter, { a: String(a), b: String(b), changed: false, text: "" });
  filter.dataset = numbers.scopes[state.scope].datasets.length === 1 ? String(index.datasets.findIndex((one) => one.name === numbers.scopes[state.scope].datasets[0])) : "";
  openBrowser();
}

function showClass(of) {
  Object.assign(filter, { a: "", b: "", changed: false, text: classes[of], dataset: "" });
  openBrowser();
}
