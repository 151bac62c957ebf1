// Part of Locust's own page: shows the live page in its tab, and in every tab if a run could not start. Enters what
// a chosen scenario or target needs in the other fields of the form.
const TITLE = "LLM limits";
const {scenarios, targets} = window.templateArgs.bltybench;
const frame = Object.assign(document.createElement("iframe"), {src: "./bltybench/page/live.html", title: TITLE});
frame.style.cssText = "display: none; width: 100%; border: 0";

function openLists() {
  const list = document.querySelector("select[name=scenario]");
  if (!list || list.dataset.opened) return;
  list.dataset.opened = "yes";
  list.closest(".MuiAccordion-root")?.querySelector("button[aria-expanded=false]")?.click();
}

// React redraws Locust's page often, so this compares instead of listening to it.
setInterval(() => {
  const main = document.querySelector("main");
  if (!main) return;
  if (!frame.isConnected) main.append(frame);
  const selected = main.querySelector("[role=tab][aria-selected=true]")?.textContent === TITLE;
  const failed = frame.contentDocument?.body?.dataset.phase === "failed";
  frame.style.display = selected || failed ? "block" : "none";
  openLists();
}, 100);

function enter(field, value) {
  // React only notices values that are set by the prototype's setter.
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(field, value ?? "");
  field.dispatchEvent(new Event("input", {bubbles: true}));
}

document.addEventListener("change", ({target: {name, form}}) => {
  if (name !== "scenario" && name !== "target") return;
  const {host, ...rest} = scenarios[form.elements.scenario.value];
  const address = targets[form.elements.target.value] || host;
  const values = {...(name === "scenario" ? rest : {}), ...(address ? {host: address} : {})};
  for (const [field, value] of Object.entries(values)) enter(form.elements[field], value);
});
