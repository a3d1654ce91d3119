// Decodes the episode, and lets pointer, keys and time move camera and cursor.

const TYPES = { float32: Float32Array, uint16: Uint16Array };
const find = (id) => document.getElementById(id);

function readEpisode() {
  const arrays = ({ dtype, data }) => new TYPES[dtype](Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer);
  return JSON.parse(find("episode").textContent, (_, value) => (value && value.dtype ? arrays(value) : value));
}

function play() {
  const episode = readEpisode();
  const canvas = find("scene"), scrub = find("scrub");
  const scene = makeScene(canvas, episode);
  const tracks = makeTracks(find("tracks"), episode, (step) => (stop(), seek(step)));
  if (!scene) find("hint").textContent = "This browser offers no WebGL 2: only the numbers are shown.";
  let time = 0, playing = false, last = 0, stale = true;

  const stepNow = () => Math.min(episode.steps - 1, Math.floor(time / episode.stepSeconds + 1e-6));
  function seek(step) {
    time = Math.min(episode.steps - 1, Math.max(0, step)) * episode.stepSeconds;
    stale = true;
  }
  function stop() {
    playing = false;
    find("play").classList.remove("playing");
  }
  function toggle() {
    if (playing) return stop();
    if (stepNow() === episode.steps - 1) seek(0);
    playing = true;
    find("play").classList.add("playing");
  }

  function follow(step) {
    if (!scene || !find("follow").checked) return;
    const [x, , z] = poseOf(episode, step, episode.pelvis).place;
    const moved = follow.at ? [x - follow.at[0], z - follow.at[1]] : [x, z];
    scene.camera.focus[0] += moved[0];
    scene.camera.focus[2] += moved[1];
    follow.at = [x, z];
  }
  function frame(now) {
    if (playing) {
      time += ((now - last) / 1000) * Number(find("speed").value);
      if (time >= (episode.steps - 1) * episode.stepSeconds) stop(), seek(episode.steps - 1);
      stale = true;
    }
    last = now;
    if (stale) {
      stale = false;
      const step = stepNow();
      follow(step);
      if (scene) scene.draw(step);
      tracks.show(step);
      scrub.value = step;
      const [done, whole] = [step + 1, episode.steps].map((count) => (count * episode.stepSeconds).toFixed(2));
      find("clock").textContent = `${done} of ${whole} s`;
    }
    requestAnimationFrame(frame);
  }

  scrub.max = episode.steps - 1;
  scrub.addEventListener("input", () => (stop(), seek(Number(scrub.value))));
  find("play").addEventListener("click", toggle);
  find("follow").addEventListener("change", () => ((follow.at = null), (stale = true), recentre()));
  const recentre = () => scene && (scene.camera.focus = [0, EYE_HEIGHT, 0], follow.at = null, follow(stepNow()));
  for (const button of document.querySelectorAll("[data-view]"))
    button.addEventListener("click", () => {
      if (!scene) return;
      [scene.camera.azimuth, scene.camera.elevation] = VIEWS[button.dataset.view];
      scene.camera.focus[1] = EYE_HEIGHT;
      stale = true;
    });
  window.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT" || event.target.type === "range") return;
    const keys = { " ": toggle, ArrowLeft: () => (stop(), seek(stepNow() - 1)), ArrowRight: () => (stop(), seek(stepNow() + 1)),
      Home: () => seek(0), End: () => seek(episode.steps - 1) };
    if (keys[event.key]) event.preventDefault(), keys[event.key]();
  });
  const resize = () => (tracks.paint(), (stale = true));
  window.addEventListener("resize", resize);
  if (scene) turnByPointer(canvas, scene.camera, () => (stale = true));
  // page.html#120 opens at step 120, standing still
  if (/^#\d+$/.test(location.hash)) seek(Number(location.hash.slice(1)));
  else toggle();
  resize();
  requestAnimationFrame((now) => ((last = now), frame(now)));
}

function turnByPointer(canvas, camera, changed) {
  const down = new Map();
  const clamp = (low, value, high) => Math.min(high, Math.max(low, value));
  const zoom = (factor) => ((camera.distance = clamp(0.6, camera.distance * factor, 20)), changed());
  const turn = (x, y) => {
    camera.azimuth -= 0.008 * x;
    camera.elevation = clamp(-0.1, camera.elevation + 0.008 * y, 1.55);
    changed();
  };
  const move = (x, y) => {
    const size = (camera.distance * Math.tan(0.25) * 2) / canvas.clientHeight;
    const [right, up] = axesOf(camera, eyeOf(camera));
    camera.focus = camera.focus.map((value, i) => value + size * (y * up[i] - x * right[i]));
    changed();
  };
  const spread = () => {
    const [a, b] = [...down.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, size: Math.hypot(a.x - b.x, a.y - b.y) };
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const two = down.size === 2 ? spread() : null;
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (two) {
      const now = spread();
      zoom(two.size / Math.max(1, now.size));
      move(now.x - two.x, now.y - two.y);
    } else (event.shiftKey || event.buttons & 6 ? move : turn)(event.clientX - before.x, event.clientY - before.y);
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => down.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => (event.preventDefault(), zoom(Math.exp(0.0012 * event.deltaY))), { passive: false });
}

play();
