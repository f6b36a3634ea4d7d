// Bars: what share of each run's scored answers is in each category, from best to worst.
const BEST_FIRST = [5, 4, 3, 2, 1, 0, -1, -2];

painters.push(() => {
  const values = numbers.values[state.scope];
  const shown = names.map((_, name) => ({ name, of: values[runOf(name, state.judge)] })).filter(({ of }) => of);
  const width = 560, left = 110, gap = 14, high = Math.max(22, Math.min(70, 370 / shown.length - gap));
  const parts = shown.flatMap(({ name, of }, row) => {
    const y = row * (high + gap);
    const shares = BEST_FIRST.map((code) => [code, of[`rate/${outcomes.get(code).key}`]?.[0] ?? 0]);
    const sum = shares.reduce((all, [, share]) => all + share, 0) || 1;
    let x = left;
    const bars = shares.filter(([, share]) => share > 0).flatMap(([code, share]) => {
      const { key, label } = outcomes.get(code);
      const wide = (share / sum) * (width - left);
      const begin = x;
      x += wide;
      const light = ["generic", "less_specific", "abstain", "unparsable", "too_long"].includes(key);
      return [svg("rect", { class: `o-${key}`, x: begin, y, width: wide, height: high },
        svg("title", {}, `${labels[name]}: ${label} ${percent(share / sum)}`)),
      wide > 30 && svg("text", { class: light ? "on-light" : "on", x: begin + wide / 2, y: y + high / 2 + 4, "text-anchor": "middle" },
        Math.round((100 * share) / sum))].filter(Boolean);
    });
    const label = labels[name].length > 16 ? `${labels[name].slice(0, 15)}\u2026` : labels[name];
    return [svg("text", { x: left - 8, y: y + high / 2 + 4, "text-anchor": "end" }, svg("title", {}, labels[name]), label), ...bars];
  });
  at("bars").replaceChildren(drawing(width, Math.max(1, shown.length * (high + gap) - gap), "Share of each category", ...parts),
    legend(BEST_FIRST));
});
