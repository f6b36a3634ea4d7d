// Browser of samples: a list of which only the visible part exists, and the chosen sample whole.
const ROW_HEIGHT = 60; // as in the style sheet
const MOST_ROWS = 200000; // taller elements are cut by browsers
const browser = { rows: new Int32Array(0), chosen: -1 };

const list = el("div", { class: "list", tabindex: "0", role: "listbox", "aria-label": "Samples", on: { scroll: () => paintList(), keydown: (event) => listKey(event) } });
const spacer = el("div", { class: "spacer", role: "presentation" });
const detail = el("div", { class: "detail", tabindex: "0", role: "region", "aria-label": "Chosen sample", "aria-live": "polite" });
list.append(spacer);

function item(place) {
  const row = browser.rows[place];
  const sample = samples[sampleAt.get(row)];
  const answer = sample?.runs[state.b]?.[0]?.answer?.[0];
  const chips = [...new Set([state.a, state.b])].map((name) => chip(column(name, state.judge, state.best)?.[row] ?? NOT_ASKED));
  const line = el("div", { class: "item", role: "option", id: `item-${place}`, "aria-selected": String(place === browser.chosen), on: { click: () => choose(place) } },
    sample?.picture ? el("img", { src: sample.picture, alt: "" }) : el("span", { class: "blank" }),
    el("div", { class: "what" }, el("b", { class: "foreign", dir: "auto" }, classes[classOf[row]] || "(no name)"),
      el("small", { class: "foreign", dir: "auto" }, answer ?? `${index.datasets[datasetOf[row]].name}, row ${count(row - beginOf[datasetOf[row]])}`)),
    el("div", { class: "chips" }, chips));
  line.style.top = `${place * ROW_HEIGHT}px`;
  return line;
}

function paintList() {
  const size = Math.min(browser.rows.length, MOST_ROWS);
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - 5);
  const last = Math.min(size, Math.ceil((list.scrollTop + (list.clientHeight || 600)) / ROW_HEIGHT) + 5);
  const items = [];
  for (let place = first; place < last; place++) items.push(item(place));
  spacer.style.height = `${size * ROW_HEIGHT}px`;
  spacer.replaceChildren(...items);
  if (browser.chosen >= first && browser.chosen < last) list.setAttribute("aria-activedescendant", `item-${browser.chosen}`);
  else list.removeAttribute("aria-activedescendant");
}

function choose(place) {
  if (!browser.rows.length) return;
  browser.chosen = Math.max(0, Math.min(place, Math.min(browser.rows.length, MOST_ROWS) - 1));
  const top = browser.chosen * ROW_HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
  paintList();
  paintDetail();
}

function listKey(event) {
  const page = Math.max(1, Math.floor(list.clientHeight / ROW_HEIGHT) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (!(event.key in steps)) return;
  event.preventDefault();
  choose(browser.chosen + steps[event.key]);
}

const cutNote = ([text, length]) => (length > [...text].length ? el("small", {}, ` \u2026 cut, ${count(length)} characters in all`) : null);

function answerParts(answer, best) {
  const said = numbers.judges.filter((judge) => answer.said[judge]).flatMap((judge) => {
    const [code, reason] = answer.said[judge];
    return [chip(code), el("small", {}, `${outcomes.get(code)?.label ?? ""}${reason ? ` (${reason})` : ""}${numbers.judges.length > 1 ? ` by ${judge}` : ""}`)];
  });
  const about = [best && `best, answer ${answer.n + 1}`, answer.tokens !== null && `${count(answer.tokens)} tokens`, answer.end !== "stop" && answer.end].filter(Boolean).join(", ");
  return [el("div", { class: "who" }, said, el("small", {}, about)),
    el("p", { class: "answer foreign", dir: "auto" }, answer.answer ? answer.answer[0] : el("i", {}, "no answer in the response"), answer.answer && cutNote(answer.answer)),
    answer.text[0] && el("details", {}, el("summary", {}, "response"), el("pre", { class: "foreign", dir: "auto" }, answer.text[0]), cutNote(answer.text))];
}

function paintDetail() {
  const row = browser.rows[browser.chosen];
  if (row === undefined) return detail.replaceChildren(el("p", { class: "note" }, "No sample passes the filters."));
  const sample = samples[sampleAt.get(row)];
  const dataset = index.datasets[datasetOf[row]].name;
  const source = sourceOf ? index.sources.names[sourceOf[row]] : dataset;
  const place = [dataset, source !== dataset && source, sample?.id, `row ${count(row - beginOf[datasetOf[row]])}`].filter(Boolean).join(" \u00b7 ");
  const head = el("div", { class: "head" }, sample?.picture && el("img", { src: sample.picture, alt: "" }),
    el("div", {}, el("h3", { class: "foreign", dir: "auto" }, classes[classOf[row]] || "(no name)"),
      sample && el("small", { class: "foreign", dir: "auto" }, sample.path.join(" \u203a ")), el("br"), el("small", { class: "foreign" }, place)));
  const order = [...new Set([state.a, state.b, ...names.keys()])];
  const body = order.map((name) => {
    const who = [state.a === name && "A", state.b === name && "B"].filter(Boolean).join(", ");
    const title = el("b", {}, labels[name], who ? ` (${who})` : "");
    const answers = sample?.runs[name];
    if (answers?.length) return el("article", {}, title, answers.map((answer, number) => answerParts(answer, number > 0)));
    return el("article", {}, el("div", { class: "who" }, title, chip(column(name, state.judge, state.best)?.[row] ?? NOT_ASKED)));
  });
  const note = sample ? null : el("p", { class: "note" }, "The texts of this sample are not in the page; its row in the tables of predictions has them.");
  detail.replaceChildren(head, ...[note].filter(Boolean), ...body);
  detail.scrollTop = 0;
}

function applyFilters() {
  browser.rows = passing();
  browser.chosen = browser.rows.length ? 0 : -1;
  list.scrollTop = 0;
  const size = browser.rows.length;
  at("browser").querySelector(".count").textContent = `${count(size)} of ${count(total)} samples${size > MOST_ROWS ? `, the first ${count(MOST_ROWS)} in the list` : ""}`;
  paintList();
  paintDetail();
}

function paintBrowser() {
  at("browser").replaceChildren(
    el("p", { class: "hint" }, `All ${count(total)} samples can be filtered; ${count(samples.length)} are here with their texts and come first: an example of every outcome and change, then a spread.${index.left_out ? ` ${index.left_out} columns of outcomes are left out for the page's size.` : ""}`),
    filterTools(applyFilters), el("div", { class: "panes" }, list, detail));
  applyFilters();
}

function openBrowser() {
  paintBrowser();
  at("samples").scrollIntoView({ block: "start" });
  list.focus({ preventScroll: true });
}
painters.push(paintBrowser);
