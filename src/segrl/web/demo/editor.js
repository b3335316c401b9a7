// An editor of boxes and points over a picture. Gradio gives `element`, `props`, `watch` and `trigger`.
// From Python: props.value = {key, files, preview, size_wh, masks, name, objects, words}, an answer (words: whether the
// segmenter takes words and example boxes); the same with `edit`, a number, in place of `objects` and `words`: the masks
// of that edit, or {edit} alone where there are none; or {busy: true} while a new answer
// is made and what is shown belongs to an earlier one.
// To Python: the event 'nudged', with nothing (see nudge); and the event 'edited' with {number, of, objects: [{box_xyxy, points_xy, labels, …}]} as POST /v1/masks takes them;
// of: the key of the answer. One edit is on its way at a time; whatever changes meanwhile is sent once it is back, so
// that the last one wins. Previews of a point under the pointer are asked of the address `preview`; nothing waits for
// them, and none is shown after anything else has happened.

const COLOURS = ["230 159 0", "86 180 233", "0 158 115", "240 228 66", "0 114 178", "213 94 0", "204 121 167"];
const ON = "rgb(0 158 115)", OFF = "rgb(204 60 140)";
const REACH = 14; // how near a finger or mouse must come, in CSS pixels
const SEND_AFTER = 250; // milliseconds after the last key
const AGAIN_AFTER = [15000, 45000]; // milliseconds without an answer after which an edit is sent once more; then it is lost
const NUDGE_AFTER = [3000, 9000, 27000]; // milliseconds after something happened, see nudge
const PREVIEW_AFTER = 90; // milliseconds that the pointer must rest

const root = element.querySelector(".editor"), canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d"), said = element.querySelector(".said"), phrase = element.querySelector("[data-phrase]");

let size = null, picture = null, layer = null, hidden = false;
let objects = [], chosen = 0, part = null; // part: null, {box: true, corner?} or {point: i}, of objects[chosen]
let tool = "move", drag = null, cross = null, past = [], undone = [], timer = null, latest = 0;
let of = null, number = 0, flying = null, changed = false; // flying: the number of the edit on its way
let address = null, ghost = null, resting = null, asking = null; // of previews; asking: what can stop the one asked for

const current = () => objects[chosen];
const clone = (value) => JSON.parse(JSON.stringify(value));
const empty = () => ({ box_xyxy: null, points_xy: [], labels: [], phrase: "", exemplars_xyxy: [], exemplar_labels: [] });
const isWhole = (o) => Boolean(o.box_xyxy || o.points_xy.length || o.phrase || o.exemplar_labels.includes(1));
const whole = (some) => some.filter(isWhole);
const isExample = () => tool === "like" || tool === "unlike";
const say = (text) => { said.textContent = text; };
const clampX = (x) => Math.min(Math.max(x, 0), size[0]), clampY = (y) => Math.min(Math.max(y, 0), size[1]);
const onto = (value, length) => Math.min(Math.max(value, 0), length - 1);

function load(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error(url));
    image.src = url;
  });
}

async function receive() {
  const value = props.value;
  nudge();
  root.toggleAttribute("data-busy", Boolean(value && value.busy));
  if (!value) return;
  const isNew = Boolean(value.objects);
  if (isNew) {
    clearTimeout(timer); clearTimeout(lost);
    of = value.key; address = value.preview; flying = null; changed = false;
    forget();
  } else if (value.edit !== undefined) {
    if (value.edit !== flying) return; // of an edit before the last answer
    landed();
    if (changed) return; // it is overtaken already
  }
  if (!value.files) { rest(); return; }
  const mine = ++latest;
  try {
    const images = await Promise.all([isNew ? load(value.files + "picture.jpg") : picture, load(value.files + "layer.png")]);
    if (mine !== latest) return;
    [picture, layer] = images;
    ghost = null;
  } catch {
    say("The picture is no longer on the server: ask again.");
    return;
  }
  size = value.size_wh;
  if (isNew) {
    objects = clone(value.objects).map((o) => ({ ...empty(), ...o }));
    element.querySelector(".words").hidden = !value.words;
    if (!value.words && isExample()) use("move");
    chosen = 0; part = null; past = []; undone = []; cross = [size[0] / 2, size[1] / 2]; drag = null;
    say("");
  }
  for (const link of element.querySelectorAll("[data-file]")) {
    link.href = value.files + link.dataset.file;
    link.download = `${value.name}-${link.dataset.file}`;
    link.removeAttribute("aria-disabled");
  }
  root.removeAttribute("data-empty");
  root.dataset.masks = value.masks;
  root.dataset.shown = value.files;
  rest();
  fit();
  if (isNew && window.innerWidth < 700 && document.querySelector(".editor") === root) toAnswer();
}

// On a phone the answer stands below the question.
function toAnswer() {
  (root.closest(".segrl-panel") || root).scrollIntoView();
}

function fit() {
  if (!size) return;
  const room = element.querySelector(".stage").clientWidth - 14;
  const scale = Math.min(room / size[0], Math.max(260, window.innerHeight * 0.62) / size[1]);
  const ratio = window.devicePixelRatio || 1;
  canvas.style.width = `${Math.round(size[0] * scale)}px`;
  canvas.style.height = `${Math.round(size[1] * scale)}px`;
  canvas.width = Math.round(size[0] * scale * ratio);
  canvas.height = Math.round(size[1] * scale * ratio);
  draw();
}

const zoom = () => canvas.width / size[0];
const thick = () => 2 * (window.devicePixelRatio || 1);

function draw() {
  if (!size) return;
  const z = zoom();
  pen.imageSmoothingEnabled = z < 3;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  if (ghost) pen.globalAlpha = 0.7;
  if (ghost || !hidden) pen.drawImage(ghost || layer, 0, 0, canvas.width, canvas.height);
  pen.globalAlpha = 1;
  objects.forEach((object, i) => drawBox(object, i, z));
  objects.forEach((object) => object.exemplars_xyxy.forEach((box, j) => drawExample(box, object.exemplar_labels[j], z)));
  objects.forEach((object, i) => object.points_xy.forEach((point, j) => drawPoint(point, object.labels[j], i, j, z)));
  if (drag && drag.example) drawExample(drag.example, tool === "like" ? 1 : 0, z);
  if (document.activeElement === canvas && cross && !part) drawCross(z);
  if (document.activeElement !== phrase) phrase.value = current() ? current().phrase : "";
}

function drawBox(object, i, z) {
  if (!object.box_xyxy) return;
  const [x1, y1, x2, y2] = object.box_xyxy.map((v) => v * z), isChosen = i === chosen;
  pen.lineWidth = thick() + 2; pen.strokeStyle = "rgb(20 20 20)";
  pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  pen.lineWidth = thick(); pen.strokeStyle = `rgb(${COLOURS[i % COLOURS.length]})`;
  pen.setLineDash(isChosen || objects.length === 1 ? [] : [6, 4]);
  pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  pen.setLineDash([]);
  if (!isChosen) return;
  const r = 2.5 * thick();
  for (const [x, y] of [[x1, y1], [x2, y1], [x1, y2], [x2, y2]]) {
    pen.fillStyle = part && part.box ? "white" : `rgb(${COLOURS[i % COLOURS.length]})`;
    pen.strokeStyle = "rgb(20 20 20)"; pen.lineWidth = thick() / 2;
    pen.fillRect(x - r, y - r, 2 * r, 2 * r);
    pen.strokeRect(x - r, y - r, 2 * r, 2 * r);
  }
}

function drawExample(box, label, z) {
  const [x1, y1, x2, y2] = box.map((v) => v * z);
  for (const [width, colour, dash] of [[thick() + 2, "rgb(20 20 20)", []], [thick(), label === 1 ? ON : OFF, [3, 3]]]) {
    pen.lineWidth = width; pen.strokeStyle = colour; pen.setLineDash(dash);
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  pen.setLineDash([]);
}

function drawPoint(point, label, i, j, z) {
  const x = (point[0] + 0.5) * z, y = (point[1] + 0.5) * z, r = 4 * thick(), a = 2 * thick();
  const isChosen = i === chosen && part && part.point === j;
  pen.beginPath();
  if (label === 1) pen.arc(x, y, r, 0, 7); else pen.rect(x - r, y - r, 2 * r, 2 * r);
  pen.fillStyle = label === 1 ? ON : OFF; pen.fill();
  pen.lineWidth = isChosen ? 2 * thick() : thick(); pen.strokeStyle = "white"; pen.stroke();
  pen.beginPath(); pen.lineWidth = thick();
  if (label === 1) { pen.moveTo(x - a, y); pen.lineTo(x + a, y); pen.moveTo(x, y - a); pen.lineTo(x, y + a); }
  else { pen.moveTo(x - a, y - a); pen.lineTo(x + a, y + a); pen.moveTo(x - a, y + a); pen.lineTo(x + a, y - a); }
  pen.stroke();
}

function drawCross(z) {
  const x = cross[0] * z, y = cross[1] * z, a = 6 * thick();
  for (const [width, colour] of [[thick() + 2, "rgb(20 20 20)"], [thick(), "white"]]) {
    pen.lineWidth = width; pen.strokeStyle = colour; pen.beginPath();
    pen.moveTo(x - a, y); pen.lineTo(x + a, y); pen.moveTo(x, y - a); pen.lineTo(x, y + a); pen.stroke();
  }
}

// Changes: `keep` before, `send` after.

function keep(before = clone({ objects, chosen })) {
  past.push(before);
  undone = [];
  if (past.length > 50) past.shift();
}

function send(wait = 0) {
  forget();
  draw();
  clearTimeout(timer);
  changed = true;
  root.dataset.edits = "waiting";
  timer = setTimeout(fly, wait);
}

let lost = null;

function fly() {
  if (flying !== null || !changed) return;
  flying = ++number; changed = false;
  say("Segmenting again …");
  nudge();
  ask({ number, of, objects: clone(whole(objects)) });
}

// Gradio closes the stream of answers with the last answer that it waits for, and opens it again with the next event
// only. So the answer to an event that was sent just then, by a person or as the next of a chain, waits on the server.
// Whatever happens is followed by events that ask for nothing and open the stream. An edit of which nothing is heard all
// the same is sent once more, late, so that a slow segmenter does not make the mask twice.
let nudging = null;

function nudge(tries = 0) {
  clearTimeout(nudging);
  if (tries >= NUDGE_AFTER.length) return;
  nudging = setTimeout(() => { trigger("nudged", {}); nudge(tries + 1); }, NUDGE_AFTER[tries]);
}

function ask(edit, tries = 0) {
  trigger("edited", edit);
  lost = setTimeout(() => {
    if (tries + 1 < AGAIN_AFTER.length) return ask(edit, tries + 1);
    landed();
    if (changed) return;
    root.dataset.edits = "lost";
    say("The server does not answer: these boxes and points have no masks yet.");
  }, AGAIN_AFTER[tries]);
}

const onPixel = (at) => [onto(Math.floor(at[0]), size[0]), onto(Math.floor(at[1]), size[1])];

// The preview: what a click here would give.

function hover(at) {
  if (flying !== null || changed) return;
  unhover();
  const hit = find(at);
  if ((tool !== "on" && tool !== "off") || !address || (hit && hit.part.point !== undefined)) return;
  resting = setTimeout(() => preview(at), PREVIEW_AFTER);
}

async function preview(at) {
  if (flying !== null || changed) return;
  const some = clone(objects), object = some[chosen] || empty();
  if (!some[chosen]) some.push(object);
  object.points_xy.push(onPixel(at));
  object.labels.push(tool === "on" ? 1 : 0);
  const mine = asking = new AbortController();
  try {
    const response = await fetch(address + encodeURIComponent(JSON.stringify(whole(some))), { signal: mine.signal });
    const image = response.ok ? await createImageBitmap(await response.blob()) : null;
    if (mine !== asking || !image) return;
    ghost = image;
    root.dataset.preview = "shown";
    draw();
  } catch (error) {
    if (error.name !== "AbortError") say("There is no preview now.");
  }
}

// No preview is waited for any more, and none is shown.
function forget() {
  clearTimeout(resting);
  if (asking) asking.abort();
  asking = ghost = null;
  delete root.dataset.preview;
}

function unhover() {
  const had = ghost;
  forget();
  if (had) draw();
}

function landed() {
  clearTimeout(lost);
  flying = ghost = null;
  if (changed) { clearTimeout(timer); timer = setTimeout(fly, 0); }
}

// Says that what is shown is of the last edit, if it is.
function rest() {
  if (flying !== null || changed) return;
  root.dataset.edits = "done";
  say("");
}

function ensure() {
  if (!current()) { objects.push(empty()); chosen = objects.length - 1; }
  return current();
}

function addPoint(point, label) {
  keep();
  const object = ensure();
  object.points_xy.push(onPixel(point));
  object.labels.push(label);
  part = { point: object.points_xy.length - 1 };
  const seen = ghost; // stands until the mask itself is there
  send();
  ghost = seen;
  draw();
}

function between(a, b) {
  const box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])].map(Math.round);
  if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return null;
  return [clampX(box[0]), clampY(box[1]), clampX(box[2]), clampY(box[3])];
}

function setBox(a, b) {
  const box = between(a, b);
  if (!box) return false;
  ensure().box_xyxy = box;
  part = { box: true };
  return true;
}

function addExample(box, label) {
  keep();
  const object = ensure();
  object.exemplars_xyxy.push(box);
  object.exemplar_labels.push(label);
  if (isWhole(object)) send(); else say("An example of what is not meant needs words, or one of what is meant.");
}

phrase.addEventListener("change", () => {
  if (!size) return;
  keep();
  ensure().phrase = phrase.value.trim();
  if (!isWhole(current())) { objects.splice(chosen, 1); chosen = 0; part = null; }
  send();
});

function remove() {
  if (!current()) return;
  keep();
  if (part && part.point !== undefined) {
    current().points_xy.splice(part.point, 1); current().labels.splice(part.point, 1);
  } else if (part && part.box) {
    current().box_xyxy = null;
  } else {
    objects.splice(chosen, 1); chosen = Math.max(0, chosen - 1);
  }
  if (current() && !isWhole(current())) { objects.splice(chosen, 1); chosen = 0; }
  part = null;
  send();
}

function clear() {
  if (!current()) { say("There is no object to clear."); return; }
  keep();
  objects.splice(chosen, 1); chosen = Math.max(0, chosen - 1); part = null;
  send();
}

function back(from, to, nothing) {
  const state = from.pop();
  if (!state) { say(nothing); return; }
  to.push(clone({ objects, chosen }));
  ({ objects, chosen } = state);
  part = null;
  send();
}

const undo = () => back(past, undone, "Nothing to undo.");
const redo = () => back(undone, past, "Nothing to redo.");

function add() {
  forget();
  keep();
  objects = whole(objects);
  objects.push(empty()); chosen = objects.length - 1; part = null;
  if (tool === "move") use("box");
  say("New object: draw its box, or put a point on it.");
  draw();
}

function use(name) {
  unhover();
  tool = name;
  for (const button of element.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  canvas.style.cursor = name === "move" ? "default" : "crosshair";
}

function hide() {
  hidden = !hidden;
  element.querySelector('[data-do="hide"]').setAttribute("aria-pressed", String(hidden));
  draw();
}

// What lies under a place of the picture: {object, part}, points before corners before insides.

function find(at) {
  const reach = REACH * size[0] / canvas.clientWidth;
  const near = (p) => Math.hypot(p[0] - at[0], p[1] - at[1]) <= reach;
  const order = objects.map((_, i) => i).sort((a, b) => (b === chosen) - (a === chosen));
  for (const i of order) for (let j = objects[i].points_xy.length - 1; j >= 0; j--) {
    const [x, y] = objects[i].points_xy[j];
    if (near([x + 0.5, y + 0.5])) return { object: i, part: { point: j } };
  }
  for (const i of order) if (objects[i].box_xyxy) {
    const [x1, y1, x2, y2] = objects[i].box_xyxy;
    for (const [x, y, opposite] of [[x1, y1, [x2, y2]], [x2, y1, [x1, y2]], [x1, y2, [x2, y1]], [x2, y2, [x1, y1]]])
      if (near([x, y])) return { object: i, part: { box: true }, opposite };
  }
  for (const i of order) if (objects[i].box_xyxy) {
    const [x1, y1, x2, y2] = objects[i].box_xyxy;
    if (at[0] >= x1 && at[0] <= x2 && at[1] >= y1 && at[1] <= y2) return { object: i, part: { box: true } };
  }
  return null;
}

function place(event) {
  const rect = canvas.getBoundingClientRect();
  return [clampX((event.clientX - rect.left) / rect.width * size[0]), clampY((event.clientY - rect.top) / rect.height * size[1])];
}

function move(by) {
  const object = current();
  if (part.point !== undefined) {
    const p = object.points_xy[part.point];
    object.points_xy[part.point] = [onto(p[0] + by[0], size[0]), onto(p[1] + by[1], size[1])];
  } else {
    const [x1, y1, x2, y2] = object.box_xyxy;
    const dx = Math.min(Math.max(by[0], -x1), size[0] - x2), dy = Math.min(Math.max(by[1], -y1), size[1] - y2);
    object.box_xyxy = [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
  }
}

canvas.addEventListener("pointerdown", (event) => {
  if (!size || event.button > 0) return;
  const at = place(event), hit = find(at);
  if (tool !== "on" && tool !== "off") forget();
  canvas.setPointerCapture(event.pointerId);
  if (isExample()) drag = { from: at, example: null };
  else if (tool === "box") drag = { from: at, box: true, before: clone({ objects, chosen }) };
  else if (tool !== "move" && !(hit && hit.part.point !== undefined)) addPoint(at, tool === "on" ? 1 : 0);
  else if (hit) {
    chosen = hit.object; part = hit.part;
    drag = { from: at, last: at, opposite: hit.opposite, before: clone({ objects, chosen }) };
  } else part = null;
  draw();
});

canvas.addEventListener("pointermove", (event) => {
  if (!size) return;
  const at = place(event);
  if (!drag) {
    if (tool === "move") canvas.style.cursor = find(at) ? "grab" : "default";
    if (event.pointerType !== "touch") hover(at);
    return;
  }
  if ("example" in drag) drag.example = between(drag.from, at);
  else if (drag.box) drag.moved = setBox(drag.from, at) || drag.moved;
  else if (drag.opposite) drag.moved = setBox(drag.opposite, at) || drag.moved;
  else {
    const step = [Math.round(at[0] - drag.last[0]), Math.round(at[1] - drag.last[1])];
    if (!step[0] && !step[1]) return;
    move(step);
    drag.last = [drag.last[0] + step[0], drag.last[1] + step[1]];
    drag.moved = true;
  }
  draw();
});

function drop() {
  const done = drag;
  drag = null;
  if (done && done.example) addExample(done.example, tool === "like" ? 1 : 0);
  else if (done && done.moved) { keep(done.before); send(); }
}
canvas.addEventListener("pointerup", drop);
canvas.addEventListener("pointerleave", unhover);
canvas.addEventListener("pointercancel", drop);
canvas.addEventListener("focus", draw);
canvas.addEventListener("blur", draw);

// The keyboard.

function parts() {
  return objects.flatMap((object, i) => [
    ...(object.box_xyxy ? [{ object: i, part: { box: true } }] : []),
    ...object.points_xy.map((_, j) => ({ object: i, part: { point: j } })),
  ]);
}

function next() {
  const all = parts();
  const now = part ? all.findIndex((p) => p.object === chosen && (part.box ? p.part.box : p.part.point === part.point)) : -1;
  const found = all[now + 1];
  part = found ? found.part : null;
  if (found) chosen = found.object;
  const what = !found ? "the cross" : part.box ? "box" : current().labels[part.point] ? "point on it" : "point off it";
  say(found ? `Object ${chosen + 1}: ${what}.` : "The cross.");
  draw();
}

function arrow(event, dx, dy) {
  const by = event.shiftKey ? 10 : 1, step = [dx * by, dy * by];
  if (!part) { cross = [clampX(cross[0] + step[0]), clampY(cross[1] + step[1])]; draw(); return; }
  keep();
  if (event.ctrlKey && part.box) {
    const [x1, y1, x2, y2] = current().box_xyxy;
    setBox([x1, y1], [Math.max(x1 + 1, clampX(x2 + step[0])), Math.max(y1 + 1, clampY(y2 + step[1]))]);
  } else move(step);
  send(SEND_AFTER);
}

function boxHere() {
  keep();
  const [w, h] = [size[0] / 6, size[1] / 6];
  setBox([clampX(cross[0] - w), clampY(cross[1] - h)], [clampX(cross[0] + w), clampY(cross[1] + h)]);
  send(SEND_AFTER);
}

const KEYS = {
  ArrowLeft: (e) => arrow(e, -1, 0), ArrowRight: (e) => arrow(e, 1, 0), ArrowUp: (e) => arrow(e, 0, -1), ArrowDown: (e) => arrow(e, 0, 1),
  s: next, b: boxHere, "+": () => addPoint(cross, 1), "=": () => addPoint(cross, 1), "-": () => addPoint(cross, 0),
  n: add, c: clear, h: hide, v: () => use("move"), Delete: remove, Backspace: remove, Escape: () => { part = null; draw(); },
};

canvas.addEventListener("keydown", (event) => {
  if (!size) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && (key === "y" || (key === "z" && event.shiftKey))) redo();
  else if ((event.ctrlKey || event.metaKey) && key === "z") undo();
  else if (KEYS[key] && !event.metaKey && !event.altKey && (!event.ctrlKey || key.startsWith("Arrow"))) KEYS[key](event);
  else return;
  event.preventDefault();
  event.stopPropagation();
});

const DO = { add, remove, clear, undo, redo, hide };
root.addEventListener("click", (event) => {
  const button = event.target.closest("button, a");
  if (!button) return;
  if (button.dataset.tool) use(button.dataset.tool);
  else if (button.dataset.do && size) DO[button.dataset.do]();
});

for (const kind of ["click", "change", "keyup"]) document.addEventListener(kind, () => nudge());
new ResizeObserver(fit).observe(element.querySelector(".stage"));
watch("value", receive);
receive();
