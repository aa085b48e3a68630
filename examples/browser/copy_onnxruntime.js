// Copies the three files of onnxruntime-web that the page needs to the folder ort. `npm install` calls this.

import { cpSync, mkdirSync } from "node:fs";

mkdirSync("ort", { recursive: true });
for (const name of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
  cpSync(`node_modules/onnxruntime-web/dist/${name}`, `ort/${name}`);
}
