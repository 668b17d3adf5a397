// Sorts a table by the column whose head is clicked; a second click turns the order around.
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.tabIndex = 0;
  const sort = () => {
    const column = head.cellIndex, body = head.closest("table").tBodies[0];
    const turned = head.ariaSort === "descending";
    for (const other of head.parentElement.cells) other.ariaSort = "none";
    head.ariaSort = turned ? "ascending" : "descending";
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
    };
    const order = (a, b) => (typeof a === "number" ? b - a : a.localeCompare(b));
    const rows = [...body.rows].sort((a, b) => order(value(a), value(b)) * (turned ? -1 : 1));
    body.append(...rows);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
}
