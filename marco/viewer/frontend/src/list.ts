// The list of trees: filters, counts, order, pages.

import { get } from "./api";
import { type App, go, type Page, place } from "./app";
import { button, h, number, on, put, words } from "./dom";
import type { Counts, Row } from "./types";

const LIMIT = 100;
const COLUMNS: [string, string, boolean][] = [
  // by which it is sorted, its head, and whether it is a number
  ["n", "#", true],
  ["id", "problem", false],
  ["status", "status", false],
  ["pattern", "pattern", false],
  ["solved_share", "correct chains", true],
  ["nodes", "nodes", true],
  ["tokens", "tokens", true],
  ["shortest", "shortest", true],
  ["longest", "longest", true],
];
export const FILTERS = ["text", "status", "pattern", "verdict", "kind", "error_class"] as const;

export function filterOf(values: URLSearchParams): Record<string, string> {
  return Object.fromEntries(FILTERS.map((name) => [name, values.get(name) ?? ""]));
}

export async function listPage(app: App, values: URLSearchParams): Promise<Page> {
  const filter = filterOf(values);
  const sort = values.get("sort") ?? "n";
  const descending = values.get("descending") === "true";
  const offset = Number(values.get("offset") ?? 0);
  const found = await get<{ counts: Counts; rows: Row[] }>("/api/trees", { ...filter, sort, descending, offset, limit: LIMIT });
  const to = (changes: Record<string, string | number | boolean>): void =>
    go(place("trees", { ...filter, sort: sort === "n" ? "" : sort, descending: descending || "", offset: offset || "", ...changes }));

  const table = tableOf(found.rows, sort, descending, to);
  const turn = (by: number): void => {
    const next = offset + by * LIMIT;
    if (next >= 0 && next < found.counts.trees) to({ offset: next || "" });
  };
  const { trees } = found.counts;
  const element = h(
    "main",
    { class: "list" },
    filters(app, filter, to),
    h(
      "div",
      { class: "results" },
      h(
        "div",
        { class: "summary" },
        counts(found.counts),
        button("annotate these", "go through the chains of these trees", () => go(place("annotate", { ...filter, todo: true }))),
        h("span", { class: "pages" },
          button("‹", "page before (PageUp)", () => turn(-1)),
          trees ? `${number(offset + 1)}–${number(Math.min(offset + LIMIT, trees))} of ${number(trees)}` : "no trees",
          button("›", "next page (PageDown)", () => turn(1))),
      ),
      table,
    ),
  );
  return { element, title: "trees", keys: (event) => keys(event, element, turn), opened: () => focusIn(element, values) };
}

function focusIn(element: HTMLElement, values: URLSearchParams): void {
  const isSearching = values.get("searching") !== null;
  const search = element.querySelector<HTMLInputElement>("input[type=search]");
  if (isSearching) search?.focus();
  else element.querySelector<HTMLElement>("tbody a")?.focus({ preventScroll: true });
}

function keys(event: KeyboardEvent, element: HTMLElement, turn: (by: number) => void): boolean {
  const links = [...element.querySelectorAll<HTMLElement>("tbody a")];
  const at = links.indexOf(document.activeElement as HTMLElement);
  if (event.key === "ArrowDown" || event.key === "j") links[Math.min(at + 1, links.length - 1)]?.focus();
  else if (event.key === "ArrowUp" || event.key === "k") links[Math.max(at - 1, 0)]?.focus();
  else if (event.key === "PageDown") turn(1);
  else if (event.key === "PageUp") turn(-1);
  else if (event.key === "/") element.querySelector<HTMLElement>("input[type=search]")?.focus();
  else return false;
  return true;
}

function filters(app: App, filter: Record<string, string>, to: (changes: Record<string, string>) => void): HTMLElement {
  const search = h("input", { type: "search", placeholder: "words in a tree, or its id  ( / )", "aria-label": "search", value: filter.text ?? "" });
  const form = h("form", { class: "filters", role: "search" }, search);
  on(form, {
    submit: (event) => {
      event.preventDefault();
      to({ text: search.value, offset: "" });
    },
  });
  // The cross in the field, that empties it.
  search.addEventListener("input", () => { if (search.value === "" && filter.text) to({ text: "", offset: "" }); });
  const choices: [string, string, string[]][] = [
    ["status", "status", app.session.choices.status],
    ["pattern", "pattern", app.session.choices.pattern],
    ["verdict", "has a chain", ["correct", "wrong", "no_answer", "mixed"]],
    ["kind", "has a node", app.session.choices.kinds],
    ["error_class", "error class", app.session.choices.error_classes],
  ];
  for (const [name, label, options] of choices) {
    const select = h("select", { name, "aria-label": label }, h("option", { value: "" }, `${label}: any`));
    for (const option of options) put(select, h("option", { value: option, selected: option === filter[name] }, words(option)));
    on(select, { change: () => to({ text: search.value, [name]: select.value, offset: "" }) });
    put(form, select);
  }
  put(form, button("clear", "all trees", () => go(place("trees"))));
  return form;
}

function counts(found: Counts): HTMLElement {
  const status = Object.entries(found.by_status).map(([name, count]) => `${words(name)} ${number(count)}`);
  const chains = (["correct", "wrong", "no_answer"] as const).map((name) => `${words(name)} ${number(found[name])}`);
  return h("span", { class: "counts" },
    h("b", {}, `${number(found.trees)} trees`), status.length ? `: ${status.join(", ")} · ` : " · ",
    h("b", {}, `${number(found.chains)} chains`), `: ${chains.join(", ")}`);
}

function tableOf(rows: Row[], sort: string, descending: boolean, to: (changes: Record<string, string | number | boolean>) => void): HTMLElement {
  const head = h("tr");
  for (const [name, title, isNumber] of COLUMNS) {
    const isSorted = name === sort;
    const sign = isSorted ? (descending ? " ↓" : " ↑") : "";
    const act = (): void => to({ sort: name, descending: isSorted ? !descending || "" : isNumber && name !== "n" ? true : "", offset: "" });
    put(head, h("th", { "aria-sort": isSorted ? (descending ? "descending" : "ascending") : "none", class: isNumber ? "number" : "" },
      button(title + sign, `sort by ${title}`, act, "plain")));
  }
  const body = h("tbody");
  for (const row of rows) put(body, rowOf(row));
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, head), body));
}

function rowOf(row: Row): HTMLElement {
  const link = h("a", { href: place(`tree/${row.n}`) }, h("span", { class: "id" }, row.id), " ", h("span", {}, row.problem.slice(0, 300)));
  const classes = row.error_classes.trim().split(" ").filter(Boolean).map((name) => h("span", { class: "error-class" }, words(name)));
  return h(
    "tr",
    {},
    h("td", { class: "number" }, row.n),
    h("td", { class: "what" }, link, ...classes),
    h("td", {}, h("span", { class: "status" }, words(row.status))),
    h("td", {}, row.pattern),
    h("td", { class: "number" }, share(row)),
    ...[row.nodes, row.tokens, row.shortest, row.longest].map((value) => h("td", { class: "number" }, number(value))),
  );
}

// How many of the chains have which verdict, as a bar and in words.
function share(row: Row): HTMLElement {
  const bar = h("span", { class: "bar", title: `${row.correct} correct, ${row.wrong} wrong, ${row.no_answer} no answer` });
  for (const name of ["correct", "wrong", "no_answer"] as const) {
    const part = h("span", { class: `is-${name}` });
    part.style.flexGrow = String(row[name]);
    put(bar, part);
  }
  return h("span", { class: "share" }, bar, `${row.correct}/${row.chains}`);
}
