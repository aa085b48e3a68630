// How to call the model, with the address of this server and the name of this model, to copy.
import { h } from "./elements.js";
import { strings } from "./strings.js";

// `model`: reference (a path or a name) and shell (the same, quoted for a shell), needs_token. Texts by their kind.
export function snippets(model, address) {
  const header = model.needs_token ? ' -H "Authorization: Bearer $SPECTAG_TOKEN"' : "";
  const headers = model.needs_token ? ', headers={"Authorization": f"Bearer {os.environ[\'SPECTAG_TOKEN\']}"}' : "";
  return {
    python: ["import spectag", "", `tagger = spectag.load(${pythonText(model.reference)})`, 'print(tagger.tag("recording.wav"))', 'print(tagger.segments("recording.wav"))'],
    shell: [`spectag tag ${model.shell} recording.wav`, `spectag tag ${model.shell} recording.wav --segments -o segments.csv`],
    curl: [`curl -F file=@recording.wav${header} ${address}/v1/tag`, `curl -F file=@recording.wav${header} ${address}/v1/segments`],
    http: [model.needs_token ? "import os\n\nimport requests" : "import requests", "", 'with open("recording.wav", "rb") as file:', `    answer = requests.post("${address}/v1/tag", files={"file": file}${headers})`, 'print(answer.json()["results"])'],
  };
}

// The command that writes a new model with other thresholds.
export function thresholdCommand(model, thresholds) {
  const options = [...thresholds].map(([label, threshold]) => `--set ${shellText(`${label}=${threshold}`)}`);
  return ["spectag calibrate", model.shell, "-o", model.new_shell, ...options].join(" ");
}

const pythonText = (text) => JSON.stringify(text);
const shellText = (text) => (/^[\w%+,./:=@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`);

// A text in a box, with a button that copies it.
export function copyBox(text, title, announce) {
  const code = h("code", {}, text);
  const button = h("button", { type: "button", class: "action copy" });
  const name = (text) => {
    button.textContent = text;
    button.setAttribute("aria-label", `${text}: ${title}`);
  };
  name(strings.model.copy);
  button.addEventListener("click", async () => {
    await copy(code);
    name(strings.model.copied);
    announce(strings.model.copied);
    setTimeout(name, 2000, strings.model.copy);
  });
  return h("div", { class: "copy-box" }, h("pre", { tabindex: "0", role: "region", "aria-label": title }, code), button);
}

// The clipboard is only for pages of this computer or with https; otherwise the text is selected and copied.
async function copy(element) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return;
    } catch { /* not allowed: select it */ }
  }
  getSelection().selectAllChildren(element);
  document.execCommand("copy");
}

export function snippetList(model, address, announce) {
  const texts = snippets(model, address);
  const parts = Object.entries(texts).flatMap(([kind, lines]) => [h("h3", {}, strings.model.callHints[kind]), copyBox(lines.join("\n"), strings.model.callHints[kind], announce)]);
  return h("div", { class: "snippets" }, model.needs_token && h("p", {}, strings.model.token), parts);
}
