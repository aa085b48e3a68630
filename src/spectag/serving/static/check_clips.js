// Decisions as labels of the project: a job cuts the clips, which are then added.
import { h } from "./elements.js";
import { strings } from "./strings.js";

const MILLISECONDS_TO_ASK = 1000;
const WORKING = ["waiting", "running"];

export class UseAsLabels {
  constructor(state, page) {
    Object.assign(this, { state, page });
    this.button = h("button", { type: "button", class: "action", onclick: () => this.start() }, strings.check.useAsLabels);
    this.status = h("p", { class: "result", role: "status" });
    this.element = h("section", { class: "use-as-labels" }, h("p", { class: "hint" }, strings.check.useAsLabelsHint), this.button, this.status);
  }

  async start() {
    const { address } = this.state;
    this.button.disabled = true;
    this.status.classList.remove("problem");
    this.status.textContent = strings.check.cuttingClips;
    try {
      const { job } = await this.page.request(`${address}/clips`, { method: "POST", patience: 3 });
      await this.hasEnded(job);
      const counts = await this.page.request(`${address}/labels`, { method: "POST", body: { job }, patience: 3 });
      const link = (view) => h("a", { href: `#${view}` }, strings.views[view]);
      this.status.replaceChildren(strings.check.labelsAdded(counts), " ", link("review"), " ", link("train"));
    } catch (error) {
      this.status.classList.add("problem");
      this.status.textContent = error.message;
    } finally {
      this.button.disabled = false;
    }
  }

  async hasEnded(number) {
    while (WORKING.includes((await this.page.request(`/project/jobs/${number}`)).state)) {
      await new Promise((resolve) => { setTimeout(resolve, MILLISECONDS_TO_ASK); });
    }
  }
}
