// Preference pairs: chosen and rejected side by side.

import { get } from "./api";
import { type App, go, type Page, place } from "./app";
import { button, h, number, on, put, words } from "./dom";
import type { Pair, PairRow, Segment, Side } from "./types";

const LIMIT = 100;
const SCOPES = ["none", "preference", "sft", "all"];

export async function pairsPage(app: App, values: URLSearchParams): Promise<Page> {
  if (!app.session.has_pairs) {
    const text = "No pairs were made of these trees yet: run generate.py, or name a dataset with --pairs.";
    return { element: h("main", { class: "empty" }, h("p", {}, text)), title: "pairs" };
  }
  const tree = values.get("tree") ?? "";
  const offset = Number(values.get("offset") ?? 0);
  const { total, rows, dataset } = await get<{ total: number; rows: PairRow[]; dataset: string }>("/api/pairs", { tree, offset, limit: LIMIT });
  const turn = (by: number): void => {
    const next = offset + by * LIMIT;
    if (next >= 0 && next < total) go(place("pairs", { tree, offset: next }));
  };
  const head = ["row", "tree", "bucket", "chosen", "rejected", "shared prefix", "margin (nats)"].map((name, i) => h("th", { class: i > 2 ? "number" : "" }, name));
  const body = h("tbody");
  for (const row of rows) put(body, rowOf(row));
  const element = h("main", { class: "list" },
    h("div", { class: "results" },
      h("div", { class: "summary" },
        h("span", { class: "counts" }, h("b", {}, `${number(total)} pairs`), ` of ${dataset}${tree ? `, tree ${tree}` : ""}`),
        tree ? h("a", { href: place("pairs") }, "all pairs") : null,
        h("span", { class: "pages" }, button("‹", "page before", () => turn(-1)), `from ${number(offset + 1)}`, button("›", "next page", () => turn(1)))),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...head)), body))));
  return { element, title: "pairs" };
}

function rowOf(row: PairRow): HTMLElement {
  const numbers = [number(row.chosen_tokens), number(row.rejected_tokens), number(row.shared_prefix_tokens), number(row.margin_nats, 2)];
  return h("tr", {},
    h("td", {}, row.row),
    h("td", { class: "what" }, h("a", { href: place(`pair/${row.row}`) }, row.id)),
    h("td", {}, row.bucket),
    ...numbers.map((text) => h("td", { class: "number" }, text)));
}

export async function pairPage(_: App, row: number, values: URLSearchParams): Promise<Page> {
  const scope = values.get("scope") ?? "none";
  const pair = await get<Pair>(`/api/pairs/${row}`, { scope });
  const { n } = await get<{ n: number | null }>("/api/number", { id: pair.id });
  const to = (by: number): void => { if (row + by >= 0) go(place(`pair/${row + by}`, { scope })); };
  const select = h("select", { "aria-label": "mask scope" });
  for (const name of SCOPES) put(select, h("option", { value: name, selected: name === scope }, name));
  on(select, { change: () => go(place(`pair/${row}`, { scope: select.value })) });
  const margins = pair.margins.slice(-4).map((m) =>
    `${m.student}, step ${m.step}: margin ${number(m.margin_nats, 2)} nats, rewards ${number(m.chosen_reward, 2)} and ${number(m.rejected_reward, 2)}`);
  const element = h("main", { class: "pair" },
    h("div", { class: "head" },
      h("h2", {}, n === null ? pair.id : h("a", { href: place(`tree/${n}`) }, pair.id), ` · pair ${pair.row}`),
      h("label", {}, "loss.mask ", select),
      h("span", { class: "actions" }, button("‹", "pair before (←)", () => to(-1)), button("›", "next pair (→)", () => to(1)))),
    h("p", { class: "facts" }, margins.length ? margins.join(" · ") : "margin: not known, no student that learnt these pairs lies beside them"),
    h("pre", { class: "prompt" }, pair.prompt),
    h("div", { class: "legend" },
      h("span", { class: "segment is-shared" }, "shared prefix"),
      h("span", { class: "segment differs" }, "differs"),
      h("span", { class: "segment carries-preference" }, "preference loss"),
      h("span", { class: "segment carries-sft" }, "SFT loss (where loss.alpha > 0)"),
      pair.has_tokens ? null : h("b", {}, "The tokenizer of this dataset is not to be had here: which tokens carry loss is shown only where that does not depend on it.")),
    h("div", { class: "sides" }, sideOf("chosen", pair.chosen, n), sideOf("rejected", pair.rejected, n)));
  return {
    element,
    title: `pair ${row}`,
    keys: (event) => {
      if (event.key === "ArrowLeft") to(-1);
      else if (event.key === "ArrowRight") to(1);
      else return false;
      return true;
    },
  };
}

function sideOf(name: string, side: Side, n: number | null): HTMLElement {
  const carrying = Object.entries(side.carrying_tokens).map(([term, count]) => `${words(term)} loss on ${number(count)}`);
  const facts = [`${number(side.tokens)} tokens and the end token`, `${number(side.shared_tokens)} shared`, ...carrying];
  const text = h("pre");
  for (const segment of side.segments) put(text, h("span", { class: classes(segment) }, segment.text));
  put(text, h("span", { class: `segment end ${"sft" in side.carrying_tokens ? "carries-sft" : ""} carries-preference`, title: "the end token" }, "⏎"));
  const title = n === null ? name : h("a", { href: place(`tree/${n}`, { node: side.node }) }, `${name}: chain ${side.node}`);
  return h("section", { class: `side ${name}` }, h("h3", {}, title), h("p", { class: "facts" }, facts.join(" · ")), text);
}

function classes(segment: Segment): string {
  const names = ["segment"];
  if (segment.shared) names.push("is-shared");
  if (segment.differs) names.push("differs");
  if (segment.preference) names.push("carries-preference");
  if (segment.sft) names.push("carries-sft");
  return names.join(" ");
}
