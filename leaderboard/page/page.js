"use strict";
// The page is complete without this: it adds sorting, filters, tabs, a dialog, a theme button and copying.
// Texts go in as textContent or as copies of elements that are there already; nothing is parsed here.
(() => {
  const root = document.documentElement;
  const THEME = "lite-bench-theme";

  function storedTheme() {
    try {
      return localStorage.getItem(THEME);
    } catch {
      return null; // pages opened from a file may be refused their storage
    }
  }

  function storeTheme(theme) {
    try {
      localStorage.setItem(THEME, theme);
    } catch {
      // it then lasts as long as the page
    }
  }

  function setUpTheme() {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const show = () => button.setAttribute("aria-pressed", String(dark()));
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      storeTheme(root.dataset.theme);
      show();
    });
    system.addEventListener("change", show);
    show();
  }

  const rowsOf = (body) => [...body.rows].filter((row) => row.dataset.row);

  // Sorting: one order for all grids of a board, so that a row can be followed from block to block.
  function setUpSorting(board) {
    const heads = [...board.querySelectorAll(".grid thead th")];
    const places = new Map();
    for (const body of board.querySelectorAll(".grid tbody")) {
      for (const row of rowsOf(body)) {
        if (!places.has(row.dataset.row)) places.set(row.dataset.row, places.size);
      }
    }
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const reverse = now === "ascending" ? "descending" : "ascending";
        const direction = now ? reverse : head.dataset.first;
        sort(board, head, direction, places);
        mark(heads, head, direction);
        say(board, `Sorted by ${button.textContent}, ${direction}.`);
      });
    }
    const rank = heads.find((head) => head.dataset.key === "rank");
    if (rank) mark(heads, rank, "ascending");
  }

  function mark(heads, chosen, direction) {
    for (const head of heads) {
      if (head.dataset.key === chosen.dataset.key) head.setAttribute("aria-sort", direction);
      else head.removeAttribute("aria-sort");
    }
  }

  function sort(board, head, direction, places) {
    const values = new Map();
    for (const body of head.closest("table").tBodies) {
      for (const row of rowsOf(body)) values.set(row.dataset.row, valueOf(row.cells[head.cellIndex], head.dataset.sort));
    }
    const sign = direction === "ascending" ? 1 : -1;
    const compare = (one, other) => {
      const [a, b] = [values.get(one.dataset.row), values.get(other.dataset.row)];
      const missing = (a === undefined) - (b === undefined); // last, whatever the direction
      const order = missing || (a === undefined ? 0 : sign * compareValues(a, b));
      return order || places.get(one.dataset.row) - places.get(other.dataset.row);
    };
    for (const body of board.querySelectorAll(".grid tbody")) body.append(...rowsOf(body).sort(compare));
  }

  function valueOf(cell, kind) {
    const text = cell.dataset.value;
    if (text === undefined || kind === "text") return text;
    const number = Number(text);
    return Number.isNaN(number) ? undefined : number;
  }

  function compareValues(a, b) {
    if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true, sensitivity: "base" });
    return a - b;
  }

  function say(board, text) {
    board.querySelector(".status").textContent = text;
  }

  // Filters: every word must be in the row's names; grids and published rows alike.
  function setUpFilter(board) {
    const input = board.querySelector(".filter");
    const box = board.querySelector(".show-published");
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const shown = new Set();
      const all = new Set();
      for (const body of board.querySelectorAll(".grid tbody")) {
        const off = body.classList.contains("published") && !box.checked;
        for (const row of rowsOf(body)) {
          const text = row.dataset.search.toLowerCase();
          row.hidden = off || !words.every((word) => text.includes(word));
          all.add(row.dataset.row);
          if (!row.hidden) shown.add(row.dataset.row);
        }
        body.hidden = body.classList.contains("published") && rowsOf(body).every((row) => row.hidden);
      }
      say(board, shown.size === all.size ? "" : `${shown.size} of ${all.size} rows`);
    };
    input.addEventListener("input", filter);
    if (box) box.addEventListener("change", filter);
    filter(); // a browser that reloads the page may keep what was typed
  }

  // Tabs: one block of a wide suite at a time.
  function setUpTabs(board) {
    const blocks = [...board.querySelectorAll(".block")];
    if (blocks.length < 2) return;
    const list = document.createElement("div");
    list.className = "tabs";
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", "Blocks of columns");
    const tabs = blocks.map((block) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.id = `${block.id}-tab`;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", block.id);
      const title = block.querySelector("h3");
      tab.textContent = title.textContent;
      title.classList.add("in-tab");
      block.setAttribute("role", "tabpanel");
      list.append(tab);
      return tab;
    });
    const choose = (chosen) => {
      tabs.forEach((tab, number) => {
        tab.setAttribute("aria-selected", String(number === chosen));
        tab.tabIndex = number === chosen ? 0 : -1;
        blocks[number].hidden = number !== chosen;
      });
    };
    list.addEventListener("click", (event) => {
      const number = tabs.indexOf(event.target);
      if (number >= 0) choose(number);
    });
    list.addEventListener("keydown", (event) => {
      const now = tabs.indexOf(event.target);
      const last = tabs.length - 1;
      const steps = { ArrowRight: now === last ? 0 : now + 1, ArrowLeft: now === 0 ? last : now - 1, Home: 0, End: last };
      if (now < 0 || !(event.key in steps)) return;
      event.preventDefault();
      choose(steps[event.key]);
      tabs[steps[event.key]].focus();
    });
    board.querySelector(".blocks").before(list);
    choose(0);
  }

  // Details: a row opens in a dialog, at the line of the score that was clicked.
  function setUpDetails() {
    const dialog = document.getElementById("details");
    const body = document.getElementById("details-body");
    let opener = null;

    const open = (link, column) => {
      const content = document.getElementById(link.getAttribute("href").slice(1));
      const title = content.closest("details").querySelector("summary").textContent;
      document.getElementById("details-title").textContent = title;
      body.replaceChildren(...content.cloneNode(true).childNodes);
      opener = link;
      dialog.showModal();
      dialog.scrollTop = 0;
      const line = [...body.querySelectorAll("tr")].find((row) => column !== undefined && row.dataset.column === column);
      if (line) {
        line.classList.add("chosen");
        line.scrollIntoView({ block: "nearest" });
      }
    };

    document.addEventListener("click", (event) => {
      const link = event.target.closest("a.open");
      if (link) {
        event.preventDefault();
        open(link);
        return;
      }
      const row = event.target.closest(".grid tr[data-row]");
      if (!row || event.target.closest("a, button") || String(getSelection())) return;
      open(row.querySelector("a.open"), event.target.closest("td")?.dataset.column);
    });
    for (const link of document.querySelectorAll("a.open")) {
      link.setAttribute("role", "button");
      link.setAttribute("aria-haspopup", "dialog");
      link.addEventListener("keydown", (event) => {
        if (event.key !== " ") return; // Enter is a click already
        event.preventDefault();
        open(link);
      });
    }
    document.getElementById("close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the backdrop
    });
    dialog.addEventListener("close", () => {
      if (!dialog.open && opener) opener.focus(); // it may be open again: this comes a moment after closing
    });
  }

  function setUpCopying() {
    document.addEventListener("click", async (event) => {
      const button = event.target.closest(".copy");
      if (!button) return;
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => {
        button.textContent = "Copy";
      }, 2500);
    });
  }

  root.classList.add("js");
  const theme = storedTheme();
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  document.addEventListener("DOMContentLoaded", () => {
    setUpTheme();
    for (const board of document.querySelectorAll(".board")) {
      setUpSorting(board);
      setUpFilter(board);
      setUpTabs(board);
    }
    setUpDetails();
    setUpCopying();
  });
})();
