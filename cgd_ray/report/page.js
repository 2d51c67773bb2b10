"use strict";
/* Shows the rows of the report, searchable. Texts come from models and are never trusted: they
   reach the page as text nodes only. */
(() => {
  const PAGE_SIZE = 20;
  const data = JSON.parse(document.getElementById("data").textContent);

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    element.className = className;
    element.append(...children);
    return element;
  }

  /** A pattern that finds the query literally, whatever its case; null for an empty query. */
  function pattern(query) {
    const literal = query.trim().replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
    return literal ? new RegExp(literal, "giu") : null;
  }

  function marked(text, find) {
    const parts = document.createDocumentFragment();
    let end = 0;
    for (const match of find ? text.matchAll(find) : []) {
      parts.append(text.slice(end, match.index), make("mark", "", match[0]));
      end = match.index + match[0].length;
    }
    parts.append(text.slice(end));
    return parts;
  }

  const SIGNS = { right: "\u2713 right", wrong: "\u2717 wrong" };

  function badge(word) {
    return make("span", "badge " + word.replace(" ", "-"), SIGNS[word] || word);
  }

  function cell(name, badges, text, find, ...more) {
    const body = text ? make("div", "text", marked(text, find)) : make("div", "text none", "none");
    body.dir = "auto";
    const td = make("td", "", make("div", "head", make("b", "", name), ...badges), body, ...more);
    td.setAttribute("role", "cell");
    return td;
  }

  function promptCell(row, badges, find) {
    const more = [];
    if (row.reason) more.push(make("p", "reason " + row.status, marked(row.reason, find)));
    if (row.reference) {
      more.push(make("p", "reference", "Reference ", make("span", "", marked(row.reference, find))));
    }
    const unfold = make("button", "unfold", "Show all");
    unfold.type = "button";
    unfold.hidden = true;
    return cell("Prompt " + row.number, badges, row.prompt, find, ...more, unfold);
  }

  function graded(text, word) {
    return text ? [badge(word)] : [];
  }

  const CELLS = {
    rows: (row, find) => [
      promptCell(row, [badge(row.status)], find),
      cell("Draft", graded(row.draft, row.draft_verdict), row.draft, find),
      cell("Critique", [], row.critique, find),
      cell("Refinement", graded(row.refinement, row.refinement_verdict), row.refinement, find),
    ],
    answers: (row, find) => [
      promptCell(row, [badge(row.outcome)], find),
      cell("Base model", [badge(row.base_verdict)], row.base, find),
      cell("Student", [badge(row.student_verdict)], row.student, find),
    ],
  };

  /** Offer "Show all" where a text is cut, and bring the first hit of a search into view. */
  function fold(tr) {
    if (tr.classList.contains("open")) return;
    let cut = false;
    for (const text of tr.querySelectorAll(".text")) {
      const hidden = text.scrollHeight > text.clientHeight + 2;
      text.classList.toggle("cut", hidden);
      cut = cut || hidden;
      const hit = hidden ? text.querySelector("mark") : null;
      text.scrollTop = hit ? Math.max(0, hit.offsetTop - text.clientHeight / 2) : 0;
    }
    tr.querySelector(".unfold").hidden = !cut;
  }

  class Browser {
    constructor(section, name, prefix) {
      this.section = section;
      this.prefix = prefix;
      this.cells = CELLS[name];
      this.rows = data[name].map((row, index) => ({ ...row, number: index + 1 }));
      this.search = section.querySelector("input[type=search]");
      this.filters = [...section.querySelectorAll("fieldset")];
      this.body = section.querySelector("tbody");
      this.page = 0;
      this.listen();
    }

    listen() {
      this.section.addEventListener("input", () => this.turnTo(0));
      this.section.addEventListener("submit", (event) => event.preventDefault());
      this.section.addEventListener("click", (event) => {
        const button = event.target.closest("button");
        if (!button) return;
        if (button.dataset.turn) this.turnTo(this.page + Number(button.dataset.turn), true);
        else if ("clear" in button.dataset) this.clear();
        else if (button.className === "unfold") this.toggle(button);
      });
    }

    toggle(button) {
      const tr = button.closest("tr");
      const open = tr.classList.toggle("open");
      button.textContent = open ? "Show less" : "Show all";
      button.setAttribute("aria-expanded", String(open));
      if (!open) fold(tr);
    }

    clear() {
      this.read(new URLSearchParams());
      this.turnTo(0);
      this.search.focus();
    }

    /** Take search, filters and page from the address, so that a search can be shared. */
    read(params) {
      this.search.value = params.get(this.prefix + "q") || "";
      for (const field of this.filters) {
        const wanted = params.get(this.prefix + field.dataset.filter) || "";
        const inputs = [...field.querySelectorAll("input")];
        (inputs.find((input) => input.value === wanted) || inputs[0]).checked = true;
      }
      this.page = Math.max(0, (parseInt(params.get(this.prefix + "page"), 10) || 1) - 1);
    }

    write(params) {
      if (this.search.value.trim()) params.set(this.prefix + "q", this.search.value.trim());
      for (const [key, value] of this.chosen()) params.set(this.prefix + key, value);
      if (this.page) params.set(this.prefix + "page", String(this.page + 1));
    }

    chosen() {
      return this.filters
        .map((field) => [field.dataset.filter, field.querySelector("input:checked").value])
        .filter(([, value]) => value);
    }

    matching(find) {
      const chosen = this.chosen();
      const texts = ["prompt", "reference", "draft", "critique", "refinement", "reason", "base", "student"];
      return this.rows.filter(
        (row) =>
          chosen.every(([key, value]) => row[key] === value) &&
          (!find || texts.some((key) => row[key] && row[key].search(find) >= 0)),
      );
    }

    counted(found) {
      const all = this.rows.length.toLocaleString("en");
      if (found === this.rows.length) return all + (found === 1 ? " row" : " rows");
      return found.toLocaleString("en") + " of " + all + (found === 1 ? " rows matches" : " rows match");
    }

    turnTo(page, scroll = false) {
      this.page = page;
      this.show();
      remember();
      if (scroll && this.section.getBoundingClientRect().top < 0) this.section.scrollIntoView();
    }

    show() {
      const find = pattern(this.search.value);
      const found = this.matching(find);
      const pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
      this.page = Math.min(Math.max(0, this.page), pages - 1);
      const shown = found.slice(this.page * PAGE_SIZE, (this.page + 1) * PAGE_SIZE);
      this.body.replaceChildren(
        ...shown.map((row) => {
          const tr = make("tr", "", ...this.cells(row, find));
          tr.setAttribute("role", "row");
          return tr;
        }),
      );
      this.body.querySelectorAll("tr").forEach(fold);
      this.section.querySelector(".nothing").hidden = found.length > 0;
      this.section.querySelector(".found").textContent = this.counted(found.length);
      for (const pager of this.section.querySelectorAll(".pager")) {
        const [back, next] = pager.querySelectorAll("button");
        back.setAttribute("aria-disabled", String(this.page === 0));
        next.setAttribute("aria-disabled", String(this.page === pages - 1));
        pager.querySelector(".place").textContent = "Page " + (this.page + 1) + " of " + pages;
      }
    }
  }

  const browsers = [];
  for (const [name, prefix] of [["rows", ""], ["answers", "answers."]]) {
    const section = document.getElementById(name);
    if (data[name].length) browsers.push(new Browser(section, name, prefix));
  }

  function remember() {
    const params = new URLSearchParams();
    for (const browser of browsers) browser.write(params);
    const words = params.toString();
    history.replaceState(null, "", words ? "#" + words : location.pathname + location.search);
  }

  function follow() {
    const words = location.hash.slice(1);
    const params = new URLSearchParams(words.includes("=") ? words : "");
    for (const browser of browsers) {
      if (words.includes("=") || !browser.body.firstChild) browser.read(params);
      browser.show();
    }
    const first = [...params.keys()][0];
    if (first) {
      document.getElementById(first.startsWith("answers.") ? "answers" : "rows").scrollIntoView();
    }
  }

  addEventListener("hashchange", follow);
  addEventListener("resize", () => document.querySelectorAll(".texts tbody tr").forEach(fold));
  follow();
})();
