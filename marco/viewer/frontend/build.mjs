// Bundles the page into marco/viewer/static/, which is committed: see marco/viewer/assets.py.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = "../static";
rmSync(out, { recursive: true, force: true });
mkdirSync(out);

// Every browser that runs this page reads WOFF2, so the other forms of KaTeX's fonts are left out.
const onlyWoff2 = {
  name: "only-woff2",
  setup(run) {
    run.onLoad({ filter: /katex\.css$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replace(/,\s*url\([^)]*\.(?:woff|ttf)\)\s*format\([^)]*\)/g, ""),
      loader: "css",
    }));
  },
};

await build({
  entryPoints: { viewer: "src/main.ts" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "inline",
  loader: { ".woff2": "copy" },
  assetNames: "[name]",
  plugins: [onlyWoff2],
});
for (const name of ["index.html", "icon.svg"]) copyFileSync(`src/${name}`, `${out}/${name}`);
const licences = ["katex", "d3-hierarchy"].map((name) => `${name}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8")}`);
writeFileSync(`${out}/LICENSES.txt`, licences.join("\n\n"));

const digest = createHash("sha256");
const names = readdirSync("src").sort();
const sources = ["package.json", "package-lock.json", "build.mjs", ...names.map((name) => `src/${name}`)];
for (const path of sources) {
  digest.update(`${path.split("/").pop()}\0`).update(readFileSync(path)).update("\0");
}
writeFileSync(`${out}/build.json`, `${JSON.stringify({ sources: digest.digest("hex") })}\n`);
