// Values under the pointer, or under the arrow keys, in figures that have a time axis. Nothing else needs this.
(() => {
  const tip = document.getElementById("tip");
  for (const figure of document.querySelectorAll("[data-hover]")) {
    const data = JSON.parse(figure.dataset.hover);
    const cross = document.createElement("div");
    cross.className = "cross";
    cross.hidden = true;
    figure.append(cross);
    let at = -1;
    const shown = () => [...figure.querySelectorAll("svg")].find((svg) => svg.getBoundingClientRect().width > 0);
    const edges = (svg) => {
      const box = svg.getBoundingClientRect();
      const [left, right] = svg.parentElement.className === "wide" ? data.wide : data.narrow;
      return [box.left + left * box.width, box.left + right * box.width];
    };
    const hide = () => { tip.hidden = cross.hidden = true; };
    const show = (index) => {
      at = Math.max(0, Math.min(data.labels.length - 1, index));
      const [left, right] = edges(shown());
      const x = left + ((at + 0.5) / data.labels.length) * (right - left);
      const box = figure.getBoundingClientRect();
      cross.style.left = `${x - box.left}px`;
      cross.hidden = tip.hidden = false;
      const title = document.createElement("b");
      title.textContent = data.labels[at];
      tip.replaceChildren(title);
      for (const [name, values] of Object.entries(data.columns)) {
        if (values[at] === null) continue;
        const row = document.createElement("span");
        const value = document.createElement("b");
        value.textContent = values[at].toLocaleString("en");
        row.append(name, value);
        tip.append(row);
      }
      const beside = x + 16 + tip.offsetWidth > document.documentElement.clientWidth ? x - 16 - tip.offsetWidth : x + 16;
      tip.style.left = `${Math.max(8, beside) + scrollX}px`;
      tip.style.top = `${box.top + 60 + scrollY}px`;
    };
    figure.addEventListener("pointermove", (event) => {
      const [left, right] = edges(shown());
      const share = (event.clientX - left) / (right - left);
      if (share < 0 || share > 1) hide();
      else show(Math.floor(share * data.labels.length));
    });
    figure.addEventListener("pointerleave", hide);
    figure.addEventListener("blur", hide);
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); show(at + step); }
      if (event.key === "Escape") hide();
    });
  }
})();
