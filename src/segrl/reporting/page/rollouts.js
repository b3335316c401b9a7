"use strict";
// The rollout viewer: draws the chosen step's chosen group from #rollout-data. No text of a policy becomes markup.
(() => {
  const { pictures, groups } = JSON.parse(document.getElementById("rollout-data").textContent);
  const viewer = document.querySelector(".viewer");
  const part = (name) => viewer.querySelector(`[data-choose="${name}"], [data-show="${name}"]`);
  const steps = [...new Set(groups.map((group) => group.step))];
  const SVG = "http://www.w3.org/2000/svg";
  const ANSWER = [230, 159, 0, 110];
  const POINT_SIZE = 0.034; // radius, as a share of the longer side
  let step = 0, place = 0;

  const node = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const shape = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));

  // COCO's compressed run lengths → one byte per pixel, down the columns: pixel (x, y) is at x * height + y.
  const decode = (counts, width, height) => {
    const mask = new Uint8Array(width * height), runs = [];
    for (let i = 0; i < counts.length; ) {
      let run = 0, shift = 0, more = true;
      while (more) {
        const code = counts.charCodeAt(i++) - 48;
        run |= (code & 31) << shift;
        shift += 5;
        more = (code & 32) !== 0;
        if (!more && code & 16) run |= -1 << shift;
      }
      runs.push(runs.length > 2 ? run + runs[runs.length - 2] : run);
    }
    let at = 0;
    runs.forEach((run, i) => { if (i % 2) mask.fill(1, at, at + run); at += run; });
    return mask;
  };

  // The pixel edges between inside and outside as an SVG path, straight runs as one stroke each.
  const outline = (mask, width, height) => {
    const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[x * height + y] === 1;
    const strokes = [];
    const trace = (lines, length, isEdge, stroke) => {
      for (let line = 0; line <= lines; line++)
        for (let at = 0, from = -1; at <= length; at++) {
          const edge = at < length && isEdge(line, at);
          if (edge && from < 0) from = at;
          if (!edge && from >= 0) { strokes.push(stroke(line, from, at)); from = -1; }
        }
    };
    trace(height, width, (y, x) => inside(x, y - 1) !== inside(x, y), (y, x0, x1) => `M${x0} ${y}H${x1}`);
    trace(width, height, (x, y) => inside(x - 1, y) !== inside(x, y), (x, y0, y1) => `M${x} ${y0}V${y1}`);
    return strokes.join("");
  };

  const fill = (mask, width, height) => {
    const canvas = document.createElement("canvas");
    canvas.width = width; canvas.height = height;
    const context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
    for (let x = 0; x < width; x++)
      for (let y = 0; y < height; y++)
        if (mask[x * height + y]) pixels.data.set(ANSWER, 4 * (y * width + x));
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  };

  const point = ([x, y, label], unit) => {
    const group = shape("g", { transform: `translate(${x} ${y})` }), r = unit * POINT_SIZE, a = r * 0.5;
    group.append(label
      ? shape("circle", { class: "plus", r })
      : shape("rect", { class: "minus", x: -r * 0.9, y: -r * 0.9, width: r * 1.8, height: r * 1.8 }));
    group.append(shape("path", { class: "sign",
      d: label ? `M${-a} 0H${a}M0 ${-a}V${a}` : `M${-a} ${-a}L${a} ${a}M${-a} ${a}L${a} ${-a}` }));
    return group;
  };

  const picture = (group, truth, completion) => {
    const [width, height] = group.wh, svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const small = width <= 256 ? "pixels" : "";
    if (group.picture !== null) svg.append(shape("image", { href: pictures[group.picture], width, height, class: small }));
    const line = (d, name) => d && svg.append(shape("path", { class: "ov halo", d }), shape("path", { class: `ov ${name}`, d }));
    if (completion && completion.mask) {
      const mask = decode(completion.mask, width, height);
      svg.append(shape("image", { href: fill(mask, width, height), width, height, class: "pixels" }));
      line(truth, "truth");
      line(outline(mask, width, height), "answer");
    } else line(truth, "truth");
    for (const [x, y, w, h] of completion ? completion.boxes : [])
      for (const name of ["halo", "box"]) svg.append(shape("rect", { class: `ov ${name}`, x, y, width: w, height: h }));
    for (const one of completion ? completion.points : []) svg.append(point(one, Math.max(width, height)));
    return svg;
  };

  const advantage = (value, largest) => {
    const half = largest > 0 ? 50 * Math.abs(value || 0) / largest : 0;
    const bar = node("i", { class: value < 0 ? "low" : "", style: `width:${half}%;left:${value < 0 ? 50 - half : 50}%` });
    return node("div", { class: "advantage", title: "advantage" }, bar);
  };

  const said = (one) => node("div", { class: "text" }, one.reasoning, node("code", {}, one.answer));

  // One turn of a conversation: the mask that stood after it, and what was written.
  const turn = (group, truth, one, number_) => node("div", {}, picture(group, truth, one),
    node("p", { class: "facts" }, `turn ${number_}, ${one.move} · `, node("b", {}, `IoU ${number(one.iou)}`), ` · ${one.tokens} tokens`),
    said(one));

  const answer = (group, truth, one, largest) => {
    const status = one.status === "ok" ? "" : ` · ${one.status.replaceAll("_", " ")}`;
    const facts = node("p", { class: "facts" }, node("b", {}, `IoU ${number(one.iou)}`),
      `${status}${one.outside ? " · beyond the image" : ""} · ${one.tokens} tokens`);
    const rows = [...Object.entries(one.terms), ["reward", one.reward], ["advantage", one.advantage]];
    const table = node("table", {}, ...rows.map(([name, value]) => node("tr", {}, node("td", {}, name), node("td", {}, number(value)))));
    const strip = node("div", { class: "turns" }, ...one.turns.map((each, i) => turn(group, truth, each, i + 1)));
    const shown = one.turns.length ? [strip] : [picture(group, truth, one)];
    return node("div", {}, ...shown, facts, advantage(one.advantage, largest), table, ...(one.turns.length ? [] : [said(one)]));
  };

  const draw = () => {
    const here = groups.filter((group) => group.step === steps[step]);
    place = Math.min(place, here.length - 1);
    const group = here[place], [width, height] = group.wh;
    part("step").value = part("slide").value = step;
    part("group").replaceChildren(...here.map((other, i) => {
      const tab = node("button", { type: "button", role: "tab", "aria-selected": i === place }, other.query);
      tab.onclick = () => { place = i; draw(); };
      return tab;
    }));
    part("query").textContent = `“${group.query}”`;
    const mean = group.completions.reduce((sum, one) => sum + (one.reward || 0), 0) / group.completions.length;
    part("facts").textContent = [group.kind && group.kind.replaceAll("_", " "), group.example,
      `${group.completions.length} answers`, `mean reward ${number(mean)}`].filter(Boolean).join(" · ");
    const truth = group.truth ? outline(decode(group.truth, width, height), width, height) : "";
    const largest = Math.max(...group.completions.map((one) => Math.abs(one.advantage || 0)));
    const sorted = [...group.completions].sort((a, b) => (b.advantage || 0) - (a.advantage || 0));
    const gold = node("div", {}, picture(group, truth, null),
      node("p", { class: "facts" }, group.truth ? "ground truth" : "ground truth: nothing is there"));
    part("answers").replaceChildren(gold, ...sorted.map((one) => answer(group, truth, one, largest)));
  };
  const go = (to) => { step = Math.max(0, Math.min(steps.length - 1, to)); draw(); };

  part("slide").max = steps.length - 1;
  part("step").append(...steps.map((value, i) => node("option", { value: i }, value)));
  part("step").onchange = part("slide").oninput = (event) => go(Number(event.target.value));
  for (const button of viewer.querySelectorAll("[data-move]"))
    button.onclick = () => go(step + Number(button.dataset.move));
  go(steps.length - 1);
})();
