// Part of Locust's own page: shows the live page in its tab, and in every tab if a run could not start.
const TITLE = "LLM limits";
const frame = Object.assign(document.createElement("iframe"), {src: "./bltybench/page/live.html", title: TITLE});
frame.style.cssText = "display: none; width: 100%; border: 0";

// React draws Locust's page again and again, so this compares instead of listening to it.
setInterval(() => {
  const main = document.querySelector("main");
  if (!main) return;
  if (!frame.isConnected) main.append(frame);
  const selected = main.querySelector("[role=tab][aria-selected=true]")?.textContent === TITLE;
  const failed = frame.contentDocument?.body?.dataset.phase === "failed";
  frame.style.display = selected || failed ? "block" : "none";
}, 100);
