// Hover values in figures, for pointer and arrow keys, and tables that can be scrolled with the keyboard.
(() => {
  const sides = () => {
    for (const part of document.querySelectorAll(".scroll")) {
      if (part.scrollWidth <= part.clientWidth) {
        for (const name of ["tabindex", "role", "aria-label"]) part.removeAttribute(name);
        continue;
      }
      const heading = part.closest("section").querySelector("h2, h3");
      part.tabIndex = 0;
      part.setAttribute("role", "group");
      part.setAttribute("aria-label", `Table: ${heading ? heading.textContent : "verdict"}`);
    }
  };
  sides();
  addEventListener("resize", sides);
  document.addEventListener("toggle", sides, true);
  const tip = document.getElementById("tip");
  for (const figure of document.querySelectorAll("[data-hover]")) {
    const data = JSON.parse(figure.dataset.hover);
    const count = data.labels.length;
    const cross = document.createElement("div");
    cross.className = data.rows ? "cross row" : "cross";
    cross.hidden = true;
    figure.append(cross);
    let at = -1;
    const shown = () => [...figure.querySelectorAll("svg")].find((svg) => svg.getBoundingClientRect().width > 0);
    const edges = (svg) => {
      const box = svg.getBoundingClientRect();
      const [left, right] = svg.parentElement.className === "wide" ? data.wide : data.narrow;
      return [box.left + left * box.width, box.left + right * box.width];
    };
    const share = (index) => data.at ? data.at[index] : (index + 0.5) / count;
    const nearest = (part) => {
      if (!data.at) return Math.floor(part * count);
      return data.at.reduce((best, place, index) => Math.abs(place - part) < Math.abs(data.at[best] - part) ? index : best, 0);
    };
    const hide = () => { tip.hidden = cross.hidden = true; };
    const show = (index) => {
      at = Math.max(0, Math.min(count - 1, index));
      const svg = shown();
      const drawn = svg.getBoundingClientRect();
      const [left, right] = edges(svg);
      const box = figure.getBoundingClientRect();
      let x = left + share(at) * (right - left);
      let y = box.top + 60;
      if (data.rows) {
        const [top, bottom] = data.rows.map((part) => drawn.top + part * drawn.height);
        x = left;
        y = top + share(at) * (bottom - top);
        Object.assign(cross.style, { top: `${y - box.top}px`, left: `${left - box.left}px`, width: `${right - left}px` });
        y += 10;
      } else cross.style.left = `${x - box.left}px`;
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
      const tipLeft = x + 16 + tip.offsetWidth > document.documentElement.clientWidth ? x - 16 - tip.offsetWidth : x + 16;
      tip.style.left = `${Math.max(8, tipLeft) + scrollX}px`;
      tip.style.top = `${y + scrollY}px`;
    };
    figure.addEventListener("pointermove", (event) => {
      const drawn = shown().getBoundingClientRect();
      const [left, right] = edges(shown());
      const [top, bottom] = (data.rows || [0, 1]).map((part) => drawn.top + part * drawn.height);
      const across = (event.clientX - left) / (right - left);
      const down = (event.clientY - top) / (bottom - top);
      if (data.rows ? down < 0 || down > 1 : across < 0 || across > 1) hide();
      else show(nearest(data.rows ? down : across));
    });
    figure.addEventListener("pointerleave", hide);
    figure.addEventListener("blur", hide);
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: data.rows && 1, ArrowUp: data.rows && -1 }[event.key];
      if (step) { event.preventDefault(); show(at + step); }
      if (event.key === "Escape") hide();
    });
  }
})();
