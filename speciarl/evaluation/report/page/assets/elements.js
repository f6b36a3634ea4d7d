// Elements of HTML and SVG. Text is only ever set as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
const at = (id) => document.getElementById(id);

function drawing(width, height, label, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
}

function table(headings, rows) {
  const head = headings.map((heading) => el("th", { scope: "col", class: heading.number ? "number" : null }, heading.text));
  return el("table", { class: "plain" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

function select(label, options, value, act) {
  const list = el("select", { on: { change: () => act(list.value) } },
    options.map(([key, text]) => el("option", { value: key }, text)));
  list.value = String(value);
  return el("label", {}, label, list);
}

// Numbers as in the rest of the report: three decimals without the leading zero.
function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2014";
  if (Math.abs(value) > 1) return value.toFixed(1);
  return value.toFixed(3).replace(/^(-?)0\./, "$1.");
}
const signed = (value) => (value >= 0 ? "+" : "") + number(value);
const interval = ([, low, high]) => (low === null || high === null ? "" : `[${number(low)}, ${number(high)}]`);
const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
const count = (value) => value.toLocaleString("en");
