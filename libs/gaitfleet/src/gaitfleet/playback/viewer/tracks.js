// What is told beside the skeleton: rows of one time axis, each a label, a drawing over the whole episode, a value.

const LINE = "#3e70a0", TARGET = "#c45c4a", FAINT = "#969ea5", TRACK = "#eef1f3", GAIN = "#5c9e6e", LOSS = "#ca6254";
const AXES = { forward: LINE, up: "#8a9a5b", right: "#9a6bb0" };

function makeTracks(panel, episode, seek) {
  const rows = [];
  const cursor = Object.assign(document.createElement("div"), { className: "cursor" });

  function heading(text, note = "", colours = {}) {
    const title = document.createElement("h2");
    title.append(text);
    if (note) title.append(Object.assign(document.createElement("span"), { textContent: note }));
    for (const [name, colour] of Object.entries(colours)) {
      const key = document.createElement("span"), square = document.createElement("i");
      square.className = "key";
      square.style.background = colour;
      key.append(square, name);
      title.append(key);
    }
    panel.append(title);
  }

  function row(name, height, paint, tell) {
    const element = Object.assign(document.createElement("div"), { className: "track" });
    const label = Object.assign(document.createElement("label"), { textContent: name, title: name });
    const canvas = document.createElement("canvas"), output = document.createElement("output");
    canvas.style.height = `${height}px`;
    element.append(label, canvas, output);
    panel.append(element);
    const point = (event) => {
      if (event.buttons) seek(Math.floor(((event.offsetX + 0.5) / canvas.clientWidth) * episode.steps));
    };
    canvas.addEventListener("pointerdown", (event) => (canvas.setPointerCapture(event.pointerId), point(event)));
    canvas.addEventListener("pointermove", point);
    rows.push({ canvas, output, paint, tell });
  }

  const velocity = { forward: 0, up: 1, right: 2 };
  const ahead = (step) => episode.velocity[3 * step];
  heading("pelvis velocity", "m/s", { ...AXES, target: TARGET });
  row("", 86, (pen, w, h) => {
    const values = Object.entries(velocity).map(([name, i]) => [AXES[name], (t) => episode.velocity[3 * t + i]]);
    curves(pen, w, h, episode.steps, [[TARGET, (t) => episode.target[t], true], ...values.reverse()]);
  }, (t) => `${signed(ahead(t))}\nof ${episode.target[t].toFixed(2)}`);
  heading("score, official");
  row("", 36, (pen, w, h) => curves(pen, w, h, episode.steps, [[LINE, (t) => episode.score[t]]]),
    (t) => episode.score[t].toFixed(1));

  heading("reward terms", "of each step, one scale");
  const largest = Math.max(1e-9, ...episode.terms.map(({ values }) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0)));
  for (const { name, values } of episode.terms)
    row(name, episode.terms.length > 12 ? 13 : 18, (pen, w, h) => bars(pen, w, h, values, largest), (t) => signed(values[t], 3));
  heading("muscle activations", "0 to 1");
  for (const { name, values } of episode.activations)
    row(name.replace(/_/g, " "), 13, (pen, w, h) => strip(pen, w, h, values), (t) => values[t].toFixed(2));
  panel.append(cursor);

  function paint() {
    const scale = window.devicePixelRatio || 1;
    for (const { canvas, paint } of rows) {
      const width = canvas.clientWidth, height = canvas.clientHeight;
      [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.round(height * scale)];
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      pen.fillStyle = TRACK;
      pen.fillRect(0, 0, width, height);
      paint(pen, width, height);
    }
  }

  function show(step) {
    for (const { output, tell } of rows) output.textContent = tell(step);
    const first = rows[0].canvas, last = rows[rows.length - 1].canvas;
    cursor.style.left = `${first.offsetLeft + ((step + 0.5) / episode.steps) * first.clientWidth}px`;
    cursor.style.top = `${first.offsetTop}px`;
    cursor.style.height = `${last.offsetTop + last.offsetHeight - first.offsetTop}px`;
  }

  return { paint, show };
}

function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
}

// Lines over one scale that holds zero; a third entry draws it dashed.
function curves(pen, width, height, steps, lines) {
  let low = 0, high = 0;
  for (const [, value] of lines)
    for (let t = 0; t < steps; t++) [low, high] = [Math.min(low, value(t)), Math.max(high, value(t))];
  const y = (value) => height - 3 - ((value - low) / (high - low || 1)) * (height - 6);
  pen.strokeStyle = "#cfd5da";
  pen.strokeRect(-1, y(0), width + 2, 0);
  for (const [colour, value, dashed] of lines) {
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.setLineDash(dashed ? [4, 3] : []);
    pen.beginPath();
    for (let t = 0; t < steps; t++) pen.lineTo(((t + 0.5) / steps) * width, y(value(t)));
    pen.stroke();
  }
  pen.setLineDash([]);
  pen.fillStyle = FAINT;
  pen.font = "9px system-ui, sans-serif";
  pen.fillText(high.toFixed(1), 2, 9);
  pen.fillText(low.toFixed(1), 2, height - 2);
}

// Gains above the middle, losses below it.
function bars(pen, width, height, values, largest) {
  const middle = height / 2;
  values.forEach((value, t) => {
    const size = (value / largest) * (middle - 1);
    pen.fillStyle = value < 0 ? LOSS : GAIN;
    pen.fillRect((t / values.length) * width, middle - Math.max(size, 0), width / values.length + 0.5, Math.abs(size));
  });
  pen.fillStyle = "#cfd5da";
  pen.fillRect(0, middle - 0.5, width, 1);
}

function strip(pen, width, height, values) {
  values.forEach((value, t) => {
    const part = Math.min(1, Math.max(0, value));
    pen.fillStyle = `rgb(${[[247, 196], [240, 52], [232, 44]].map(([quiet, active]) => quiet + (active - quiet) * part)})`;
    pen.fillRect((t / values.length) * width, 1, width / values.length + 0.5, height - 2);
  });
}
