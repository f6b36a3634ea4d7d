// Leaderboard: the table is there without us; we sort it, show one judge's rows and mark the best of each column.
function leaderboard() {
  const board = at("leaderboard");
  const [upper, lower] = board.tHead.rows;
  const headings = [...lower.cells, ...[...upper.cells].filter((cell) => cell.querySelector("button"))];
  const value = (row, place) => parseFloat(row.cells[place + 1].dataset.value);
  const rows = [...board.tBodies[0].rows];

  function sort(place, descending) {
    headings.forEach((heading) => heading.removeAttribute("aria-sort"));
    headings[place].setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => (Number.isNaN(value(row, place)) ? -Infinity : descending ? value(row, place) : -value(row, place));
    board.tBodies[0].append(...rows.sort((one, other) => key(other) - key(one)));
  }

  headings.forEach((heading, place) => {
    heading.querySelector("button").addEventListener("click", () =>
      sort(place, heading.getAttribute("aria-sort") ? heading.getAttribute("aria-sort") === "ascending" : place < lower.cells.length));
  });

  painters.push(() => {
    for (const row of rows) row.hidden = row.dataset.judge !== state.judge;
    const shown = rows.filter((row) => !row.hidden);
    for (let place = 0; place < lower.cells.length; place++) {
      const best = Math.max(...shown.map((row) => value(row, place)).filter((one) => !Number.isNaN(one)));
      for (const row of shown) row.cells[place + 1].classList.toggle("top", shown.length > 1 && value(row, place) === best);
    }
  });
  sort(2, true);
}
