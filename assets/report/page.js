"use strict";
(() => {
  const root = document.documentElement;
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const redraw = [];
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    redraw.forEach((draw) => draw());
  });

  for (const input of document.querySelectorAll(".slider + input")) {
    const cut = () => input.previousElementSibling.style.setProperty("--cut", input.value + "%");
    input.addEventListener("input", cut);
    cut();
  }

  const COLOURS = ["#2b7bdc", "#d9541e", "#2e9e5b", "#9a5bd0", "#c79a00", "#c7417b"];
  for (const place of document.querySelectorAll(".plot")) {
    const given = JSON.parse(place.querySelector("script").textContent);
    const names = Object.keys(given.series);
    const draw = () => {
      place.querySelector(".uplot")?.remove();
      const ink = getComputedStyle(root).getPropertyValue("--ink"), line = getComputedStyle(root).getPropertyValue("--line");
      const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
      // a value a million times below the largest is nothing, and would take all of a logarithmic scale
      const most = Math.max(...names.flatMap((name) => given.series[name].filter(Number.isFinite)));
      const shown = (y) => given.log && !(y > 1e-6 * most) ? null : y;
      const short = (u, ticks) => ticks.map((tick) => tick == null ? "" : String(Number(tick.toPrecision(3))));
      const digits = (u, value) => value == null ? "" : Number(value).toPrecision(3);
      new uPlot({
        width: Math.max(place.clientWidth - 18, 200), height: 240,
        scales: { x: { time: false }, y: { distr: given.log ? 3 : 1 } },
        axes: [{ ...axis, label: given.label, labelSize: 20 }, { ...axis, size: 64, values: short }],
        series: [{ label: given.label, value: (u, value) => value == null ? "" : String(value) },
          ...names.map((name, i) => ({ label: name, stroke: COLOURS[i % COLOURS.length], width: 2, value: digits }))],
      }, [given.x, ...names.map((name) => given.series[name].map(shown))], place);
    };
    draw();
    redraw.push(draw);
  }
  let wait;
  addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(() => redraw.forEach((draw) => draw()), 150); });

  const canvas = document.querySelector("canvas.head");
  if (!canvas) return;
  const told = document.getElementById("head-told");
  const text = atob(document.getElementById("head-data").textContent.trim());
  const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
  let renderer;
  try {
    renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
  } catch (error) {
    told.textContent = "This browser draws no WebGL, so the head cannot be turned here; pmv export writes it as a file.";
    return;
  }
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(canvas.dataset.ground);
  const camera = new THREE.PerspectiveCamera(20, 1, 0.01, 10);
  const controls = new THREE.OrbitControls(camera, canvas);
  controls.enablePan = false;
  const draw = () => {
    const side = Math.round(canvas.clientWidth * Math.min(devicePixelRatio, 2));
    if (canvas.width !== side) renderer.setSize(side, side, false);
    renderer.render(scene, camera);
  };
  controls.addEventListener("change", draw);
  redraw.push(draw);
  let home;
  new THREE.GLTFLoader().parse(bytes.buffer, "", (gltf) => {
    scene.add(gltf.scene);
    const box = new THREE.Box3().setFromObject(gltf.scene);
    const size = box.getSize(new THREE.Vector3()), middle = box.getCenter(new THREE.Vector3());
    const away = 0.54 * Math.max(size.x, size.y) / Math.tan(camera.fov * Math.PI / 360);
    home = () => {
      controls.target.copy(middle);
      camera.position.set(middle.x, middle.y, middle.z + away + size.z / 2);
      controls.minDistance = 0.4 * away;
      controls.maxDistance = 3 * away;
      controls.update();
      draw();
    };
    home();
    canvas.dataset.ready = "yes";
  }, (error) => { told.textContent = "The head cannot be shown: " + error; });
  const turn = (yaw, pitch) => {
    const offset = camera.position.clone().sub(controls.target);
    const side = new THREE.Vector3(offset.z, 0, -offset.x).normalize();
    const tilted = offset.clone().applyAxisAngle(side, pitch);
    if (Math.abs(tilted.y) < 0.98 * tilted.length()) offset.copy(tilted);
    offset.applyAxisAngle(new THREE.Vector3(0, 1, 0), yaw);
    camera.position.copy(controls.target).add(offset);
    controls.update();
    draw();
  };
  const STEP = Math.PI / 24;
  const KEYS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Home" && home) home();
    else if (event.key in KEYS) turn(...KEYS[event.key]);
    else return;
    event.preventDefault();
  });
})();
