// Data of the page: numbers, the index of all samples in typed columns, and the samples that are here whole.
const read = (name) => JSON.parse(at(`data-${name}`).textContent);
const numbers = read("numbers");
const index = read("index");
const samples = read("samples").samples;

function bytes(text) {
  const raw = atob(text);
  const array = new Uint8Array(raw.length);
  for (let place = 0; place < raw.length; place++) array[place] = raw.charCodeAt(place);
  return array;
}

function nibbles(text, length, offset) {
  const packed = bytes(text);
  const codes = new Int8Array(length);
  for (let row = 0; row < length; row++) codes[row] = ((packed[row >> 1] >> ((row & 1) << 2)) & 15) - offset;
  return codes;
}

function wide({ bytes: width, data }) {
  const raw = bytes(data);
  return width === 1 ? raw : width === 2 ? new Uint16Array(raw.buffer) : new Uint32Array(raw.buffer);
}

const total = index.datasets.reduce((sum, dataset) => sum + dataset.rows, 0);
const datasetOf = new Uint16Array(total);
const beginOf = [];
index.datasets.reduce((begin, dataset, place) => {
  beginOf.push(begin);
  datasetOf.fill(place, begin, begin + dataset.rows);
  return begin + dataset.rows;
}, 0);
const classes = index.classes.names;
const classOf = wide(index.classes);
const sourceOf = index.sources.data ? wide(index.sources) : null;
const columns = new Map(index.columns.map(({ run, best, data }) =>
  [best ? `${run} best` : `${run}`, nibbles(data, total, index.offset)]));
const sampleAt = new Map(samples.map((sample, place) => [sample.row, place]));

const outcomes = new Map(numbers.outcomes.map((outcome) => [outcome.code, outcome]));
const NOT_ASKED = -index.offset;
const LADDER = [0, 1, 2, 3, 4, 5];
const AROUND = [-1, -2, -3]; // unparsable, too long, unscored: shown where there are any

// A name is a model with a prompt; a run is a name as judged by one judge.
const names = [...new Set(numbers.runs.map((run) => run.name))];
const labels = names.map((name) => numbers.runs.find((run) => run.name === name).label);
const runOf = (name, judge) => numbers.runs.findIndex((run) => run.name === names[name] && run.judge === judge);

function column(name, judge, best) {
  const run = runOf(name, judge);
  return (best && columns.get(`${run} best`)) || columns.get(`${run}`) || null;
}

function chip(code) {
  const outcome = outcomes.get(code);
  return outcome
    ? el("span", { class: `chip o-${outcome.key}`, title: outcome.label }, outcome.short)
    : el("span", { class: "chip none", title: "not asked" }, "\u2014");
}

function legend(codes) {
  return el("div", { class: "legend" }, codes.map((code) =>
    el("span", {}, el("i", { class: `swatch o-${outcomes.get(code).key}` }), outcomes.get(code).label)));
}
