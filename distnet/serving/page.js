"use strict";
// A sheet to draw on. While something is drawn, the server is asked what it is: one question at a
// time, always about the newest state of the sheet.

const at = (id) => document.getElementById(id);
const about = JSON.parse(at("about").textContent);
const sheet = at("sheet");
const pen = sheet.getContext("2d", { willReadFrequently: true });
const SENT_SIDE = 640; // dots of the longer side of a photograph that is sent

let strokes = []; // each a list of points [x, y], in dots of the sheet
let photograph = null;
let asking = false, changed = false;

const isDark = matchMedia("(prefers-color-scheme: dark)");
const DARK = ["#22272e", "#f2f4f7"], LIGHT = ["#ffffff", "#101418"]; // paper and ink
const isEmpty = () => strokes.length === 0 && photograph === null;

function redraw() {
  paint(pen, isDark.matches ? DARK : LIGHT);
  if (photograph) draw(pen, photograph, sheet.width, sheet.height);
}

function paint(context, [paper, ink]) {
  context.fillStyle = paper;
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.strokeStyle = context.fillStyle = ink;
  context.lineWidth = about.pen;
  context.lineCap = context.lineJoin = "round";
  for (const [first, ...rest] of strokes) {
    context.beginPath();
    context.arc(...first, about.pen / 2, 0, 2 * Math.PI); // a line of no length would not be seen
    context.fill();
    context.beginPath();
    context.moveTo(...first);
    for (const point of rest) context.lineTo(...point);
    context.stroke();
  }
}

function canvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
}

// The whole of a picture in the middle.
function draw(context, picture, width, height) {
  const scale = Math.min(width / picture.width, height / picture.height);
  const [w, h] = [picture.width * scale, picture.height * scale];
  context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
}

// What is on the sheet as an array of bytes in NumPy's format (NEP 1), which the server reads.
function content() {
  let context, { width, height } = sheet;
  if (photograph) {
    const scale = Math.min(1, SENT_SIDE / Math.max(photograph.width, photograph.height));
    [width, height] = [photograph.width, photograph.height].map((side) => Math.max(1, Math.round(side * scale)));
    context = canvas(width, height);
    context.fillStyle = "#ffffff"; // shows through what is transparent
    context.fillRect(0, 0, width, height);
    draw(context, photograph, width, height);
  } else {
    context = canvas(width, height);
    paint(context, LIGHT); // the answer shall not hang on the colours of the page
  }
  const rgba = context.getImageData(0, 0, width, height).data;
  // Grey, it would be an image of the network's own shape, which is not prepared as pictures are.
  const isOwnSize = height === about.rows && width === about.columns;
  const isGrey = about.channels === 1 && !isOwnSize;
  const pixels = new Uint8Array(width * height * (isGrey ? 1 : 3));
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const [r, g, b] = [rgba[from], rgba[from + 1], rgba[from + 2]];
    if (isGrey) pixels[to++] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
    else { pixels[to++] = r; pixels[to++] = g; pixels[to++] = b; }
  }
  const shape = isGrey ? `${height}, ${width}` : `${height}, ${width}, 3`;
  const text = `{'descr': '|u1', 'fortran_order': False, 'shape': (${shape}), }`;
  const length = Math.ceil((text.length + 11) / 64) * 64 - 10;
  const start = [0x93, ..."NUMPY"].map((c) => (typeof c === "number" ? c : c.charCodeAt(0)));
  const header = [...text.padEnd(length - 1), "\n"].map((c) => c.charCodeAt(0));
  return new Blob([new Uint8Array([...start, 1, 0, length & 255, length >> 8, ...header]), pixels]);
}

async function ask() {
  changed = true;
  if (asking) return; // whoever asks will see that it has changed
  asking = true;
  document.body.ariaBusy = "true"; // what is shown is not of all strokes yet
  while (changed) {
    changed = false;
    if (isEmpty()) { show(null); continue; }
    try {
      const reply = await fetch(about.question, { method: "POST", body: content() });
      const found = await reply.json();
      if (!reply.ok) throw new Error(found.error);
      show(isEmpty() ? null : found);
      at("trouble").textContent = found.warning ?? "";
    } catch (error) {
      const isGone = error instanceof TypeError || error instanceof SyntaxError;
      at("trouble").textContent = isGone ? "The server does not answer: is distnet serve still there?" : error.message;
    }
  }
  asking = false;
  document.body.ariaBusy = "false";
}

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`; // on one line

function show(found) {
  const chances = found ? Object.entries(found.probabilities) : about.classes.map((name) => [name, 0]);
  if (chances.length > about.mostBars) chances.sort((a, b) => b[1] - a[1]).splice(about.mostBars);
  at("verdict").textContent = found ? `${found.class}, ${percent(found.probabilities[found.class])}` : "";
  at("bars").replaceChildren(...chances.flatMap(([name, share]) => bar(name, share, found?.class === name)));
  picture(at("seen"), found?.input);
  const tiles = found?.layers ?? [];
  const place = at("layers");
  while (place.children.length > tiles.length) place.lastChild.remove();
  while (place.children.length < tiles.length) place.append(tile());
  tiles.forEach((layer, number) => {
    const [image, name, shape] = place.children[number].children;
    picture(image, layer);
    image.alt = `the answer of ${layer.name}`;
    name.textContent = layer.name;
    shape.textContent = layer.shape;
  });
}

function picture(image, found) {
  image.hidden = !found;
  if (!found) return;
  image.onload = () => { image.width = image.naturalWidth * found.scale; };
  image.src = found.picture;
}

function tile() {
  const whole = Object.assign(document.createElement("div"), { className: "tile" });
  const shape = Object.assign(document.createElement("span"), { className: "quiet" });
  whole.append(document.createElement("img"), document.createElement("span"), shape);
  return whole;
}

function bar(name, share, isMost) {
  const [label, track, told] = ["name", isMost ? "track most" : "track", "share"].map((className) =>
    Object.assign(document.createElement("div"), { className }));
  label.textContent = name;
  told.textContent = share || isMost ? percent(share) : "";
  track.append(document.createElement("span"));
  track.firstChild.style.width = `${100 * share}%`;
  return [label, track, told];
}

function place(event) {
  const box = sheet.getBoundingClientRect();
  return [((event.clientX - box.left) * sheet.width) / box.width, ((event.clientY - box.top) * sheet.height) / box.height];
}

function renew() { redraw(); ask(); }

sheet.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  sheet.setPointerCapture(event.pointerId);
  photograph = null;
  strokes.push([place(event)]);
  renew();
});
sheet.addEventListener("pointermove", (event) => {
  if (!sheet.hasPointerCapture(event.pointerId) || strokes.length === 0) return;
  const points = event.getCoalescedEvents?.() ?? [];
  strokes.at(-1).push(...(points.length ? points : [event]).map(place));
  renew();
});

at("clear").addEventListener("click", () => { strokes = []; photograph = null; renew(); });
at("undo").addEventListener("click", () => { strokes.pop(); photograph = null; renew(); });

async function take(file) {
  try {
    photograph = await createImageBitmap(file);
    strokes = [];
    renew();
  } catch {
    at("trouble").textContent = `${file.name}: no picture that this browser can read`;
  }
}
at("file").addEventListener("change", (event) => {
  if (event.target.files[0]) take(event.target.files[0]);
  event.target.value = ""; // so that the same one can be chosen again
});
sheet.addEventListener("dragover", (event) => event.preventDefault());
sheet.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});

isDark.addEventListener("change", renew);
at("curl").textContent = `curl --data-binary @digit.png ${location.origin}/predict`;
redraw();
show(null);
