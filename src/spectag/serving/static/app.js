// The shell: asks for the token if one is needed, shows the navigation, and shows one view after another.
import { request } from "./api.js";
import { h } from "./elements.js";
import { empty, failed, loading } from "./states.js";
import { strings } from "./strings.js";

const main = document.getElementById("main");
const navigation = document.getElementById("views");
const help = document.getElementById("help");
const close = document.getElementById("close");
const dialog = document.getElementById("keys");
const mounted = new Map(); // what mount() returned and the section, by name of the view
const SECONDS_TO_LOOK = 30;
let info = null;
let current = null;
let nRefreshes = 0;
let isLooking = false;

function announce(text) {
  const announcer = document.getElementById("announcer");
  announcer.textContent = "";
  requestAnimationFrame(() => { announcer.textContent = text; });
}

async function start() {
  if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname + location.hash);
  main.replaceChildren(loading());
  try {
    info = await request("/views");
  } catch (error) {
    main.replaceChildren(error.status === 401 ? tokenForm() : failed(strings.shell.failed, error.message, start));
    return;
  }
  main.replaceChildren();
  showNames();
  if (info.views.length === 0) main.append(empty(strings.shell.noViews, strings.shell.noViewsHint));
  else showNavigation();
}

function showNames() {
  const { model, project, version } = info;
  document.getElementById("model").textContent = model === null ? "" : strings.shell.opened(model.name, project?.name, version);
  close.hidden = project === null;
}

// Goes back to the start page. A job that runs is stopped, and can be resumed when the project is opened again.
async function closeProject() {
  try {
    const jobs = await request("/project/jobs/");
    const running = jobs.find((job) => job.state === "running");
    if (running && !confirm(strings.shell.closeRunning(running.title))) return;
    close.disabled = true;
    await request("/project/close", { method: "POST" });
    location.hash = "";
    location.reload();
  } catch (error) {
    close.disabled = false;
    alert(error.message);
  }
}

// Asks the server what is open now, after another model, version or project was opened. Views with `changed()` hear of
// another model; other views of the page mean another page.
async function refresh() {
  nRefreshes += 1;
  take(await request("/views"));
}

// Another browser or program may open another version, or close the project.
async function look() {
  if (document.hidden || isLooking) return;
  isLooking = true;
  const before = nRefreshes;
  try {
    const found = await request("/views");
    if (before === nRefreshes && JSON.stringify(found) !== JSON.stringify(info)) take(found);
  } catch { /* the views show that the server does not answer */ } finally {
    isLooking = false;
  }
}

function take(found) {
  if (JSON.stringify([found.views, found.project]) !== JSON.stringify([info.views, info.project])) {
    location.reload();
    return;
  }
  Object.assign(info, found);
  showNames();
  for (const { view } of mounted.values()) view?.changed?.();
}

function tokenForm() {
  const field = h("input", { type: "password", autocomplete: "current-password", required: true, id: "token" });
  const problem = h("p", { class: "problem", role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      await request("/session", { method: "POST", headers: { authorization: `Bearer ${field.value.trim()}` } });
      await start();
    } catch (error) {
      problem.textContent = error.message;
      field.select();
    }
  };
  const button = h("button", { class: "action primary" }, strings.shell.open);
  const form = h("form", { class: "token", onsubmit: submit }, h("label", { for: "token" }, strings.shell.tokenLabel), field, button, problem);
  return empty(strings.shell.token, strings.shell.tokenHint, form);
}

function showNavigation() {
  const items = info.views.map((name) => h("li", {}, h("a", { href: `#${name}`, id: `to-${name}`, title: strings.viewHints[name] }, strings.views[name])));
  navigation.firstElementChild.replaceChildren(...items);
  navigation.setAttribute("aria-label", strings.shell.navigation);
  navigation.hidden = false;
  help.hidden = false;
  navigation.firstElementChild.addEventListener("scroll", showMore);
  new ResizeObserver(showMore).observe(navigation.firstElementChild);
  addEventListener("hashchange", () => { showChosen(); look(); });
  document.addEventListener("visibilitychange", look);
  setInterval(look, 1000 * SECONDS_TO_LOOK);
  showChosen();
}

// Where the row of views goes on beyond its edges, it fades.
function showMore() {
  const row = navigation.firstElementChild;
  row.classList.toggle("more-before", row.scrollLeft > 1);
  row.classList.toggle("more-after", row.scrollLeft + row.clientWidth < row.scrollWidth - 1);
}

function showChosen() {
  const [wanted] = location.hash.slice(1).split("/");
  show(info.views.includes(wanted) ? wanted : info.views[0]);
}

async function show(name) {
  if (current === name) return;
  if (current) {
    mounted.get(current).section.hidden = true;
    mounted.get(current).view?.hidden?.();
  }
  current = name;
  for (const link of navigation.querySelectorAll("a")) {
    if (link.id !== `to-${name}`) { link.removeAttribute("aria-current"); continue; }
    link.setAttribute("aria-current", "page");
    link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  document.title = `${strings.views[name]} – ${strings.shell.title}`;
  if (!mounted.has(name)) await mountView(name);
  const { section, view } = mounted.get(name);
  section.hidden = current !== name;
  if (current === name) view?.shown?.();
}

async function mountView(name) {
  const section = h("section", { class: `view ${name}-view`, "aria-label": strings.views[name] });
  mounted.set(name, { section, view: null });
  section.append(loading());
  main.append(section);
  try {
    const module = await import(`./${name}.js`);
    section.replaceChildren();
    mounted.get(name).view = module.mount(section, { request, announce, info, refresh });
  } catch (error) {
    const retry = () => location.reload();
    section.replaceChildren(failed(strings.shell.failed, error.message, retry));
  }
}

function showKeys() {
  const texts = strings[current]?.keys ?? {};
  const known = Object.keys(mounted.get(current)?.view?.keys ?? {}).filter((key) => texts[key]);
  const rows = [...known.filter((key) => !/\d/.test(key)), ...known.filter((key) => /\d/.test(key))];
  const list = [...rows.map((key) => [key, texts[key]]), ["?", strings.shell.helpKey]];
  dialog.querySelector("dl").replaceChildren(...list.flatMap(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]));
  dialog.showModal();
}

const NAMES = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "esc", Delete: "del" };

const FIELDS = "input:not([type=checkbox], [type=range], [type=file]), select, textarea, dialog";
const REPEATED = /^[←→↑↓+-]$/; // keys that act again while they are held
const NATIVE = [ // what a key does by itself with the focus there
  ["button, summary, a, audio, input[type=checkbox]", /^space$/],
  ["input[type=range], .scrolls, pre, .label-choice", /^[←→↑↓]$/],
];

function onKey(event) {
  const isField = event.target.closest(FIELDS) || document.querySelector("dialog[open]");
  if (isField || event.ctrlKey || event.metaKey || event.altKey || !current) return;
  const key = NAMES[event.key] ?? event.key;
  if (key === "?") { showKeys(); return; }
  const isNative = NATIVE.some(([elements, keys]) => event.target.matches(elements) && keys.test(key));
  const action = mounted.get(current)?.view?.keys?.[key];
  if (!action || isNative) return;
  event.preventDefault();
  if (!event.repeat || REPEATED.test(key)) action(event);
}

document.getElementById("skip").textContent = strings.shell.skip;
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
help.textContent = "?";
help.setAttribute("aria-label", strings.shell.help);
help.title = strings.shell.help;
help.addEventListener("click", showKeys);
close.textContent = strings.shell.closeProject;
close.addEventListener("click", closeProject);
dialog.querySelector("h2").textContent = strings.shell.help;
dialog.querySelector("button").textContent = strings.shell.close;
document.addEventListener("keydown", onKey);
// A file that is dropped beside a view would be opened by the browser, which leaves the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
start();
