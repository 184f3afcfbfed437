// What pages do better with a script: the list answers as one types, keys move through it, commands are copied, tables
// are sorted. Without it every page shows the same.
"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const live = "live" in document.body.dataset;

function showAddress(address, push = false) {
  try {
    history[push ? "pushState" : "replaceState"](null, "", address);
  } catch { /* some browsers keep the addresses of files as they are */ }
}

// ---- copying

for (const button of all(".copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// ---- keys

const search = document.querySelector('input[type="search"]');
const typing = (target) => target.closest("input, textarea, select, [contenteditable]");

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target === search) { search.blur(); return; }
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (typing(event.target)) {
    if (event.target !== search || event.key !== "ArrowDown") return;
  } else if (event.key === "/") {
    event.preventDefault();
    search?.focus();
    search?.select();
    return;
  }
  if (!step) return;
  const links = all("main .open").filter((link) => link.offsetParent !== null);
  const now = links.indexOf(document.activeElement);
  if (event.key.startsWith("Arrow") && now < 0 && event.target !== search) return; // arrows scroll until a row is chosen
  const next = links[now < 0 ? 0 : Math.min(Math.max(now + step, 0), links.length - 1)];
  if (!next) return;
  event.preventDefault();
  next.focus({ focusVisible: true });
  next.scrollIntoView({ block: "nearest" });
});

// ---- facets on narrow screens are closed until they are asked for

function closeFacets() {
  if (!matchMedia("(max-width: 46rem)").matches) return;
  for (const facet of all(".facets > details")) facet.open = !!facet.querySelector("[aria-current]");
}
closeFacets();
addEventListener("htmx:afterSwap", closeFacets); // a program sent the list anew

// ---- the list, where no program answers

const results = document.getElementById("results");
if (results && !live) listInPlace(results);

function listInPlace(results) {
  const form = document.getElementById("ask");
  const field = form.elements.namedItem("q");
  const order = form.elements.namedItem("sort");
  form.querySelector("button").hidden = true;
  const front = results.dataset.front;
  const whole = "whole" in results.dataset;
  if (!whole) { // a page of one facet: words and orders lead to the whole list
    form.addEventListener("submit", () => all("input[type=hidden]", form).forEach((one) => one.remove()));
    order.addEventListener("change", () => form.requestSubmit());
    return;
  }

  const facets = Object.fromEntries(all(".facets > details").map((one) => [one.dataset.facet, one]));
  const rows = all(".row", results).map((element, place) => ({
    element, place, key: element.dataset.key, title: element.querySelector(".open").textContent.trim(),
    values: Object.fromEntries(Object.keys(facets).map((name) => [name, element.dataset[name].split(" ").filter(Boolean)])),
  }));
  const list = results.querySelector(".list");
  const count = document.getElementById("count");
  const noun = count.nextSibling;
  const nothing = Object.assign(document.createElement("p"), {
    className: "nothing", textContent: "No paper has all of this. Fewer words, or one facet less, will find more.",
  });
  const clear = Object.assign(document.createElement("a"), { className: "clear", href: front, textContent: "Show all", hidden: true });
  clear.addEventListener("click", (event) => { event.preventDefault(); history.pushState(null, "", front); read(); });
  count.parentElement.append(" ", clear);
  const best = new Option("best match first", "relevance");

  let index = null; // words by key, loaded when one first searches; what stands on the page does until then
  let loading = false;
  const load = async () => {
    if (loading) return;
    loading = true;
    try {
      index = await (await fetch(results.dataset.index)).json();
      show();
    } catch { /* opened from disk: the words on the page are searched */ }
  };
  const words = (text) => text.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "").match(/[\p{L}\p{N}]+/gu) ?? [];
  const texts = (row) => index?.[row.key] ?? (row.onPage ??= [words(row.element.textContent).join(" ")]);
  const weights = [8, 6, 4, 4, 3, 2, 1];
  const score = (row, wanted) => {
    let sum = 0;
    for (const word of wanted) {
      const where = texts(row).findIndex((text) => ` ${text}`.includes(` ${word}`));
      if (where < 0) return 0;
      sum += weights[where] ?? 1;
    }
    return sum;
  };

  let query = { text: "", sort: "", chosen: {} };

  function read() { // from the address
    const given = new URLSearchParams(location.search);
    query = { text: given.get("q") ?? "", sort: given.get("sort") ?? "", chosen: {} };
    for (const name of Object.keys(facets)) {
      const values = given.getAll(name).filter(Boolean);
      if (values.length) query.chosen[name] = new Set(values);
    }
    field.value = query.text;
    show();
  }

  function write(push) { // to the address
    const pairs = new URLSearchParams();
    if (query.text.trim()) pairs.append("q", query.text.trim());
    for (const [name, values] of Object.entries(query.chosen)) for (const value of [...values].sort()) pairs.append(name, value);
    if (query.sort) pairs.append("sort", query.sort);
    showAddress(front + (pairs.size ? `?${pairs}` : ""), push);
  }

  const matches = (row, but) => Object.entries(query.chosen).every(
    ([name, values]) => name === but || row.values[name].some((value) => values.has(value)));

  const headings = {
    newest: (row) => (row.values.year[0] === "unknown" ? "Year not recorded" : row.values.year[0]),
    status: (row) => row.values.status[0][0].toUpperCase() + row.values.status[0].slice(1),
    family: (row) => facets.family.querySelector(`[data-value="${row.values.family[0]}"] span`).textContent,
    title: () => "", relevance: () => "",
  };
  const places = (name) => all(".choice", facets[name]).map((one) => one.dataset.value);
  const ranks = { status: places("status"), family: places("family") };

  function show() {
    const wanted = [...new Set(words(query.text))].slice(0, 24);
    if (wanted.length) load();
    const found = wanted.length ? rows.filter((row) => (row.score = score(row, wanted)) > 0) : rows;
    const listed = found.filter((row) => matches(row));
    const sort = query.sort || (wanted.length ? "relevance" : "newest");
    const compare = {
      newest: () => 0, title: (a, b) => a.title.localeCompare(b.title), relevance: (a, b) => b.score - a.score,
    }[sort] ?? ((a, b) => ranks[sort].indexOf(a.values[sort][0]) - ranks[sort].indexOf(b.values[sort][0]));
    listed.sort((a, b) => compare(a, b) || a.place - b.place);

    const groups = new Map();
    for (const row of listed) {
      const heading = headings[sort](row);
      if (!groups.has(heading)) groups.set(heading, []);
      groups.get(heading).push(row.element);
    }
    for (const old of all(".group, .nothing", list)) old.remove();
    for (const [heading, elements] of groups) {
      const section = document.createElement("section");
      section.className = heading ? "group" : "group plain";
      const title = document.createElement("h2");
      if (heading) {
        title.append(heading, " ", Object.assign(document.createElement("small"), { textContent: elements.length }));
      } else {
        title.className = "unseen";
        title.textContent = "Papers found";
      }
      const items = document.createElement("ol");
      items.append(...elements);
      section.append(title, items);
      list.append(section);
    }
    if (!listed.length) list.append(nothing);
    count.textContent = listed.length;
    noun.textContent = listed.length === 1 ? " paper" : " papers";
    clear.hidden = !query.text && !query.sort && !Object.keys(query.chosen).length;

    for (const [name, facet] of Object.entries(facets)) {
      const counts = new Map();
      for (const row of found) if (matches(row, name)) for (const value of row.values[name]) counts.set(value, (counts.get(value) ?? 0) + 1);
      for (const choice of all(".choice", facet)) {
        const value = choice.dataset.value, chosen = !!query.chosen[name]?.has(value);
        choice.querySelector("b").textContent = counts.get(value) ?? 0;
        choice.hidden = !counts.has(value) && !chosen;
        choice.toggleAttribute("aria-current", chosen);
        if (chosen) choice.setAttribute("aria-current", "true");
      }
    }
    if (wanted.length && !best.parentElement) order.prepend(best);
    if (!wanted.length) best.remove();
    order.value = query.sort || (wanted.length ? "relevance" : "");
  }

  field.addEventListener("input", () => { query.text = field.value; show(); write(false); });
  order.addEventListener("change", () => {
    query.sort = ["", "relevance"].includes(order.value) && !(order.value === "" && query.text) ? "" : order.value || "newest";
    show();
    write(true);
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); write(true); list.querySelector(".open")?.focus(); });
  results.addEventListener("click", (event) => {
    const choice = event.target.closest(".choice");
    if (!choice || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const name = choice.closest("[data-facet]").dataset.facet, value = choice.dataset.value;
    const values = (query.chosen[name] ??= new Set());
    values.has(value) ? values.delete(value) : values.add(value);
    if (!values.size) delete query.chosen[name];
    show();
    write(true);
  });
  addEventListener("popstate", read);
  if (location.search) read();
}

// ---- tables of measurements: only the named rows, sorted by a column

for (const form of all("[data-pick]")) {
  form.hidden = false;
  const field = form.elements.namedItem("mixers");
  const only = () => {
    const names = field.value.split(",").map((name) => name.trim()).filter(Boolean);
    for (const row of all("tr[data-name]")) row.hidden = names.length > 0 && !names.includes(row.dataset.name);
  };
  if (live) continue;
  field.value = new URLSearchParams(location.search).get("mixers") ?? field.value;
  form.querySelector("button").hidden = true;
  form.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", () => {
    only();
    const address = new URL(location.href);
    address.search = field.value.trim() ? new URLSearchParams({ mixers: field.value.trim() }) : "";
    showAddress(address);
  });
  only();
}

for (const table of all("[data-sortable]")) {
  const body = table.tBodies[0];
  const heads = all("thead th", table);
  const marked = (head) => {
    const button = head.querySelector(".sort");
    if (button) button.textContent = { ascending: "↑", descending: "↓", none: "↕" }[head.getAttribute("aria-sort")];
  };
  heads.forEach((head, column) => {
    if (!column) return;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "sort" });
    button.setAttribute("aria-label", `Sort by ${head.querySelector("a").textContent}`);
    head.append(button);
    marked(head);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const turned = now === "none" ? head.dataset.first : now === "ascending" ? "descending" : "ascending";
      for (const one of heads.slice(1)) { one.setAttribute("aria-sort", one === head ? turned : "none"); marked(one); }
      const sign = turned === "ascending" ? 1 : -1;
      const value = (row) => { const held = row.cells[column].dataset.value; return held === undefined ? Infinity : sign * held; };
      body.append(...all("tr", body).sort((a, b) => value(a) - value(b)));
    });
  });
}
