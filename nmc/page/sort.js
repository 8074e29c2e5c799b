"use strict";
// Sorts a table by the column whose heading is pressed; without JavaScript the order is that of the network.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
    const key = (row) => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent.trim(); };
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const x = key(a), y = key(b), p = Number(x), q = Number(y);
      return down * (Number.isNaN(p) || Number.isNaN(q) || x === "" || y === "" ? x.localeCompare(y) : p - q);
    });
    table.tBodies[0].append(...rows);
  });
}
for (const block of document.querySelectorAll("details")) {  // print everything
  addEventListener("beforeprint", () => { block.dataset.was = block.open; block.open = true; });
  addEventListener("afterprint", () => { block.open = block.dataset.was === "true"; });
}
