"use strict";
// Without this script the tables are in the order of the advice; with it, headers are buttons that sort.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : parseFloat(cell.dataset.value);
  };
  const sort = (header) => {
    const column = headers.indexOf(header);
    const numeric = header.classList.contains("num");
    // The first press puts the largest number, or the first word, on top.
    const up = header.hasAttribute("aria-sort") ? header.getAttribute("aria-sort") !== "ascending" : !numeric;
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => {
      if (numeric && (isNaN(a) || isNaN(b))) return isNaN(a) - isNaN(b);
      const order = numeric ? a - b : a.localeCompare(b);
      return up ? order : -order;
    });
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...rows.map(([, row]) => row));
  };
  for (const header of headers.filter((cell) => "sort" in cell.dataset)) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(header));
    header.append(button);
  }
}
