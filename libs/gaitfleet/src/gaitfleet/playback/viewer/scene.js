// The skeleton over the ground, drawn by WebGL 2: axes are OpenSim's, x forward, y up, z to the walker's right.

const SKY = [0.965, 0.973, 0.98];
const LIGHT = [0.449, 0.749, 0.479];
const BONE = [0.93, 0.89, 0.8];
const PROSTHESIS = [0.36, 0.54, 0.7];
const SHADOW = [0.77, 0.795, 0.815];
const EYE_HEIGHT = 0.9;
const VIEWS = { side: [0.42, 0.14], front: [Math.PI / 2, 0.1], back: [-Math.PI / 2, 0.1], top: [0.0, 1.45] };

const BONE_SHADERS = [`#version 300 es
in vec3 point, normal;
uniform mat4 camera;
uniform mat3 turn;
uniform vec3 place, light;
uniform float shadow;
out vec3 world, facing;
void main() {
  world = turn * point + place;
  facing = turn * normal;
  if (shadow > 0.5) world = vec3(world.xz - light.xz * (world.y / light.y), 0.0).xzy;
  gl_Position = camera * vec4(world, 1.0);
}`, `#version 300 es
precision highp float;
in vec3 world, facing;
uniform vec3 light, eye, colour;
uniform float shadow;
out vec4 pixel;
void main() {
  vec3 view = normalize(eye - world), n = normalize(facing);
  if (dot(n, view) < 0.0) n = -n;  // the mirrored meshes of the left leg wind the other way round
  float sky = 0.5 + 0.5 * n.y;
  float shine = pow(max(dot(n, normalize(light + view)), 0.0), 40.0);
  vec3 lit = colour * (0.30 + 0.22 * sky + 0.60 * max(dot(n, light), 0.0)) + 0.10 * shine;
  pixel = vec4(shadow > 0.5 ? colour : lit, 1.0);
}`];

const GROUND_SHADERS = [`#version 300 es
in vec2 corner;
uniform mat4 camera;
uniform vec3 eye;
out vec3 world;
void main() {
  world = vec3(eye.x + 40.0 * corner.x, 0.0, eye.z + 40.0 * corner.y);
  gl_Position = camera * vec4(world, 1.0);
}`, `#version 300 es
precision highp float;
in vec3 world;
uniform vec3 eye, sky;
uniform float start;
out vec4 pixel;
float line(float value, float blur, float width) {
  return (1.0 - smoothstep(width, width + 1.5 * blur, abs(value))) * min(1.0, 2.0 * width / blur + 0.35);
}
float grid(vec2 cells) {
  vec2 off = abs(fract(cells - 0.5) - 0.5);
  vec2 blur = fwidth(cells);  // of the cells: the distance to a line has a kink on the line
  vec2 lines = vec2(line(off.x, blur.x, 0.008), line(off.y, blur.y, 0.008)) * (1.0 - smoothstep(0.2, 0.6, blur));
  return max(lines.x, lines.y);
}
void main() {
  vec3 colour = mix(vec3(0.886, 0.906, 0.918), vec3(0.79, 0.82, 0.84), grid(world.xz * 2.0));
  colour = mix(colour, vec3(0.70, 0.73, 0.76), grid(world.xz));
  colour = mix(colour, vec3(0.77, 0.36, 0.29), line(world.x - start, fwidth(world.x), 0.008));
  pixel = vec4(mix(colour, sky, smoothstep(6.0, 24.0, distance(world, eye))), 1.0);
}`];

function makeScene(canvas, episode) {
  const gl = canvas.getContext("webgl2", { antialias: true });
  if (!gl) return null;
  const bones = program(gl, BONE_SHADERS), ground = program(gl, GROUND_SHADERS);
  const pieces = loadPieces(gl, bones, episode);
  const floor = vertices(gl, ground, { corner: [new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), 2] });
  const camera = { azimuth: VIEWS.side[0], elevation: VIEWS.side[1], distance: 4.6, focus: [0, EYE_HEIGHT, 0] };
  gl.clearColor(...SKY, 1);
  gl.enable(gl.DEPTH_TEST);

  function draw(step) {
    const scale = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const eye = eyeOf(camera), matrix = cameraMatrix(camera, eye, width / Math.max(1, height));
    drawGround(matrix, eye);
    const poses = pieces.map((piece) => poseOf(episode, step, piece.body));
    gl.useProgram(bones.id);
    gl.uniformMatrix4fv(bones.at("camera"), false, matrix);
    gl.uniform3fv(bones.at("light"), LIGHT);
    gl.uniform3fv(bones.at("eye"), eye);
    gl.disable(gl.DEPTH_TEST);  // only the ground lies below the shadow
    drawPieces(poses, true);
    gl.enable(gl.DEPTH_TEST);
    drawPieces(poses, false);
  }

  function drawGround(matrix, eye) {
    gl.useProgram(ground.id);
    gl.uniformMatrix4fv(ground.at("camera"), false, matrix);
    gl.uniform3fv(ground.at("eye"), eye);
    gl.uniform3fv(ground.at("sky"), SKY);
    gl.uniform1f(ground.at("start"), episode.start);
    gl.bindVertexArray(floor);
    gl.depthMask(false);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    gl.depthMask(true);
  }

  function drawPieces(poses, shadow) {
    gl.uniform1f(bones.at("shadow"), shadow ? 1 : 0);
    pieces.forEach((piece, i) => {
      gl.uniformMatrix3fv(bones.at("turn"), false, poses[i].turn);
      gl.uniform3fv(bones.at("place"), poses[i].place);
      gl.uniform3fv(bones.at("colour"), shadow ? SHADOW : piece.prosthesis ? PROSTHESIS : BONE);
      gl.bindVertexArray(piece.array);
      gl.drawElements(gl.TRIANGLES, piece.count, gl.UNSIGNED_SHORT, 0);
    });
  }

  return { camera, draw };
}

// Where a body is after a step: body-fixed x-y-z angles, as Simbody defines them; a column-major matrix.
function poseOf(episode, step, body) {
  const [x, y, z, a, b, c] = episode.poses.subarray((step * episode.bodies + body) * 6);
  const [cx, cy, cz, sx, sy, sz] = [Math.cos(a), Math.cos(b), Math.cos(c), Math.sin(a), Math.sin(b), Math.sin(c)];
  return {
    place: [x, y, z],
    turn: [
      cy * cz, cx * sz + sx * sy * cz, sx * sz - cx * sy * cz,
      -cy * sz, cx * cz - sx * sy * sz, sx * cz + cx * sy * sz,
      sy, -sx * cy, cx * cy,
    ],
  };
}

function eyeOf(camera) {
  const level = Math.cos(camera.elevation), [x, y, z] = camera.focus;
  return [
    x + camera.distance * Math.sin(camera.azimuth) * level,
    Math.max(0.05, y + camera.distance * Math.sin(camera.elevation)),
    z + camera.distance * Math.cos(camera.azimuth) * level,
  ];
}

// Right, up and back of a camera at `eye`, unit vectors.
function axesOf(camera, eye) {
  const back = unit(eye.map((value, i) => value - camera.focus[i]));
  const right = [Math.cos(camera.azimuth), 0, -Math.sin(camera.azimuth)];
  return [right, cross(back, right), back];
}

function cameraMatrix(camera, eye, aspect) {
  const [right, up, back] = axesOf(camera, eye);
  const tall = 1 / Math.tan(0.5 * 0.5), wide = tall / aspect, near = 0.05, far = 80;
  const along = (axis) => -dot(axis, eye);
  const [m, n] = [(far + near) / (near - far), (2 * far * near) / (near - far)];
  const columns = [0, 1, 2].map((i) => [wide * right[i], tall * up[i], m * back[i], -back[i]]);
  return new Float32Array([...columns.flat(), wide * along(right), tall * along(up), m * along(back) + n, -along(back)]);
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((value) => value / Math.hypot(...a));

function loadPieces(gl, bones, episode) {
  let firstPoint = 0, firstCorner = 0;
  return episode.pieces.map((piece) => {
    const coarse = episode.points.subarray(firstPoint, (firstPoint += 3 * piece.points));
    const corners = episode.corners.subarray(firstCorner, (firstCorner += 3 * piece.triangles));
    const point = Float32Array.from(coarse, (value, i) => piece.low[i % 3] + value * piece.step[i % 3]);
    const array = vertices(gl, bones, { point: [point, 3], normal: [normalsOf(point, corners), 3] });
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    return { body: piece.body, prosthesis: piece.prosthesis, count: corners.length, array };
  });
}

// Mean of the triangles' normals at each point, by area. The prosthesis' triangles share no points: they stay flat.
function normalsOf(point, corners) {
  const normal = new Float32Array(point.length);
  for (let t = 0; t < corners.length; t += 3) {
    const [a, b, c] = [0, 1, 2].map((i) => point.subarray(3 * corners[t + i], 3 * corners[t + i] + 3));
    const area = cross([b[0] - a[0], b[1] - a[1], b[2] - a[2]], [c[0] - a[0], c[1] - a[1], c[2] - a[2]]);
    for (let i = 0; i < 9; i++) normal[3 * corners[t + Math.floor(i / 3)] + (i % 3)] += area[i % 3];
  }
  for (let i = 0; i < normal.length; i += 3) {
    const size = Math.hypot(normal[i], normal[i + 1], normal[i + 2]) || 1;
    for (let j = i; j < i + 3; j++) normal[j] /= size;
  }
  return normal;
}

// A vertex array of {attribute: [values, size]}; it stays bound.
function vertices(gl, shaders, attributes) {
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  for (const [name, [values, size]] of Object.entries(attributes)) {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const location = gl.getAttribLocation(shaders.id, name);
    gl.enableVertexAttribArray(location);
    gl.vertexAttribPointer(location, size, gl.FLOAT, false, 0, 0);
  }
  return array;
}

function program(gl, sources) {
  const id = gl.createProgram();
  [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((kind, i) => {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, sources[i]);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(id, shader);
  });
  gl.linkProgram(id);
  if (!gl.getProgramParameter(id, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(id));
  const places = {};
  return { id, at: (name) => (places[name] ??= gl.getUniformLocation(id, name)) };
}
