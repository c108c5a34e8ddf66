"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const spec = JSON.parse(document.getElementById("spec").textContent);
  const $ = (id) => document.getElementById(id);
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const COLORS = 7;
  const DASHES = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 1]];
  const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"];
  const AXES = data.axes;  // {name: {title, unit, full}}; full is null on measured axes
  const color = (i) => css(`--s${i % COLORS}`);
  const dash = (i) => DASHES[Math.floor(i / COLORS) % DASHES.length];
  const trim = (v) => Number(v.toPrecision(4)).toString();
  const percent = (v) => `${(100 * v).toFixed(2)} %`;

  // Wilson's interval: a single seed's accuracies carry no interval of their own.
  function wilson(p, n) {
    const z2 = 3.8414588, mid = (p + z2 / (2 * n)) / (1 + z2 / n);
    const half = (Math.sqrt(z2) / (1 + z2 / n)) * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n * n));
    return { value: p, low: Math.max(0, mid - half), high: Math.min(1, mid + half) };
  }

  // One line per curve that the controls ask for: [{index, label, seed, points: [{exit, cost, value, low, high}]}].
  function curves(state) {
    const lines = [];
    const push = (line) => lines.push({ series: `${line.index}/${line.seed}`, ...line });
    data.rows.forEach((row, index) => {
      if (!state.rows.has(index)) return;
      if (state.curve === "horizons") {
        const axis = row.axes[state.axis];
        if (axis) push({ index, label: row.label, seed: `mean of ${row.seeds.length}`, points: data.horizons.map((cost, h) => ({ cost, exit: `H = ${cost}`, ...axis.curve[h] })) });
        return;
      }
      if (state.curve !== "anytime") {
        const found = row.stopping[state.curve];
        if (!found) return;
        const points = found.cost.map((cost, k) => ({ cost, value: found.accuracy[k], low: null, high: null, exit: null, rule: true }));
        push({ index, label: row.label, seed: `mean of ${row.seeds.length}`, points: points.sort((a, b) => a.cost - b.cost) });
        return;
      }
      const axis = row.axes[state.axis];
      if (!axis) return;
      const add = (seed, cost, accuracy) => push({
        index, label: row.label, seed, points: cost.map((c, k) => ({ exit: k, cost: c, ...accuracy[k] })),
      });
      if (state.seed === "mean") add(row.seeds.length === 1 ? `${row.seeds[0]}` : `mean of ${row.seeds.length}`, axis.cost, row.accuracy);
      row.seeds.forEach((seed, s) => {
        if (state.seed === "each" || state.seed === `${seed}`)
          add(`${seed}`, (axis.cost_by_seed || [])[s] || axis.cost, row.accuracy_by_seed[s].map((p) => wilson(p, row.n)));
      });
    });
    return lines;
  }

  // What is drawn over any axis; stopping rules are simulated over MACs only.
  const byAxis = (curve) => curve === "anytime" || curve === "horizons";

  function read() {
    return {
      curve: $("curve").value, axis: byAxis($("curve").value) ? chosen("axis") : "macs", scale: chosen("scale"),
      seed: $("seed").value, bands: $("bands").checked,
      rows: new Set([...document.querySelectorAll('input[name="row"]:checked')].map((box) => Number(box.value))),
    };
  }

  function texts(line, point, axis) {
    const full = AXES[axis].full, absolute = full ? `${trim(point.cost * full)} ${AXES[axis].unit}` : "";
    return {
      label: line.label, seed: line.seed, costText: `${trim(point.cost)} x the reference's ${AXES[axis].title}`,
      absolute: absolute || "measured in the same rounds as the reference", accuracyText: percent(point.value),
      interval: point.low === null ? "not given" : `${percent(point.low)} to ${percent(point.high)}`,
    };
  }

  // The axis from the curves shown: to their ends and at least to H; logarithmic where full costs span a decade.
  function extent(lines, state) {
    const costs = lines.flatMap((line) => line.points.map((p) => p.cost));
    const ends = lines.map((line) => Math.max(...line.points.map((p) => p.cost)));
    const most = Math.max(...ends, 0.1), least = Math.min(...costs, most);
    const wide = ends.length > 0 && Math.max(...ends, 1) / Math.min(...ends, 1) >= 10;
    const type = state.scale === "auto" ? (wide ? "log" : "linear") : state.scale;
    return { type, start: type === "log" ? Math.min(0.5, least) / 1.5 : 0, limit: Math.max(1.05, most * 1.03) };
  }

  // Long form for Vega: the guess before exit 0, the exits, and the last answer held to the end of the axis.
  function long(lines, state, { start, limit }) {
    const values = [];
    for (const line of lines) {
      const series = line.series;
      const look = { color: color(line.index), dash: dash(line.index), shape: SHAPES[line.index % SHAPES.length] };
      const row = (p, more) => ({ series, ...look, cost: p.cost, accuracy: p.value, low: p.low ?? p.value, high: p.high ?? p.value, ...more });
      if (state.curve === "anytime") {
        const guess = { cost: start, value: data.chance, low: data.chance, high: data.chance };
        const last = { ...line.points[line.points.length - 1], cost: limit };
        values.push(row(guess), ...line.points.map((p) => row(p, { exit: p.exit, ...texts(line, p, state.axis) })), row(last));
      } else {
        values.push(...line.points.map((p, k) => row(p, { exit: p.exit ?? `threshold ${k}`, ...texts(line, p, state.axis) })));
      }
    }
    return values;
  }

  // What a chart shows, as data and parameters that a drawn one takes; "type" is the only part that it does not.
  function shown(state, lines, narrow) {
    const range = extent(lines, state), free = byAxis(state.curve);
    const horizons = state.curve === "horizons" ? "H: " : "";
    return {
      type: range.type,
      data: { curves: long(lines, state, range), horizons: [1, 2].filter((h) => h <= range.limit).map((cost) => ({ cost })), cursor: [] },
      parameters: {
        start: range.start, limit: range.limit,
        title: `${horizons}${AXES[state.axis].title} (${narrow ? "x reference" : "multiples of the reference's full answer"})`,
        joined: state.curve === "anytime" ? "step-after" : "linear",
        size: free ? 46 : 9,  // A hundred thresholds: dots, not beads.
        // Many bands together are mud: they fade with the number of curves and come out under the pointer.
        band: !state.bands || !free ? 0 : lines.length > 3 ? 0.5 / lines.length : 0.18,
      },
    };
  }

  function specification({ type, data, parameters }, height, narrow) {
    const view = structuredClone(spec);
    view.datasets = data;
    view.params.forEach((each) => { if (each.name in parameters) each.value = parameters[each.name]; });
    view.height = height;
    view.layer.forEach((layer) => { layer.encoding.x.scale.type = type; });
    view.layer[4].mark.stroke = css("--text");
    view.layer[0].mark.stroke = css("--soft");
    view.title.color = css("--text");
    const ink = { labelColor: css("--text"), titleColor: css("--text"), gridColor: css("--grid"), domainColor: css("--line"), tickColor: css("--line") };
    view.config = {
      background: "transparent", view: { stroke: null }, font: "system-ui, 'DejaVu Sans', sans-serif",
      axis: { ...ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelOverlap: true, tickCount: narrow ? 5 : 9 },
    };
    return view;
  }

  const embed = (target, view) => vegaEmbed(target, view, {
    actions: false, renderer: "svg", ast: true, tooltip: { theme: "custom", disableDefaultStyle: false },
  });

  const cursor = { line: 0, point: -1 };
  function cursorValues(lines) {
    const line = lines[cursor.line], point = line && line.points[cursor.point];
    return point ? [{ cost: point.cost, accuracy: point.value }] : [];
  }

  let drawn = { lines: [], state: null, view: null, built: "" };
  let queue = Promise.resolve();
  function draw() {
    // One drawing after the other: a later choice must not be overtaken by an earlier one.
    queue = queue.then(async () => {
      const state = read(), lines = curves(state);
      cursor.line = Math.min(cursor.line, Math.max(0, lines.length - 1));
      const narrow = window.innerWidth < 760, now = shown(state, lines, narrow);
      now.data.cursor = cursorValues(lines);
      const built = JSON.stringify([now.type, narrow, dark()]);
      let view = drawn.view;
      if (built === drawn.built) {
        Object.entries(now.parameters).forEach(([name, value]) => view.signal(name, value));
        Object.entries(now.data).forEach(([name, values]) => view.data(name, values));
        await view.runAsync();
      } else {
        if (view) view.finalize();
        view = (await embed("#chart", specification(now, narrow ? 300 : 420, narrow))).view;
      }
      drawn = { lines, state, view, built };
      const svg = document.querySelector("#chart svg");
      if (svg) svg.setAttribute("aria-hidden", "true");
      $("chart").dataset.axis = state.axis;
      $("chart").dataset.series = `${lines.length}`;
      $("chart").dataset.drawn = `${Number($("chart").dataset.drawn || 0) + 1}`;
      document.querySelectorAll('input[name="axis"]').forEach((box) => { box.disabled = !byAxis(state.curve); });
      say(lines, state);
    });
    return queue;
  }

  function say(lines, state) {
    const line = lines[cursor.line], point = line && line.points[cursor.point];
    if (!lines.length) { $("readout").textContent = "No method is chosen, or none was measured on this axis."; return; }
    if (!point) { $("readout").textContent = "Point at an exit, or focus the chart and use the arrow keys: left and right for exits, up and down for methods."; return; }
    const t = texts(line, point, state.axis);
    const place = point.exit === null ? `threshold ${cursor.point}` : typeof point.exit === "number" ? `exit ${point.exit}` : point.exit;
    $("readout").textContent = `${line.label}, seed ${line.seed}, ${place}: accuracy ${t.accuracyText} (95 % interval ${t.interval}) at ${t.costText}${AXES[state.axis].full ? `, ${t.absolute}` : ""}.`;
  }

  $("chart").addEventListener("keydown", (event) => {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Escape: null };
    if (!(event.key in moves) || !drawn.view) return;
    event.preventDefault();
    const { lines, state } = drawn;
    if (!lines.length) return;
    if (moves[event.key] === null) cursor.point = -1;
    else {
      const [up, right] = moves[event.key];
      cursor.line = (cursor.line + up + lines.length) % lines.length;
      const last = lines[cursor.line].points.length - 1;
      cursor.point = Math.min(last, Math.max(0, cursor.point + right));
    }
    drawn.view.data("cursor", cursorValues(lines)).runAsync();
    say(lines, state);
  });

  function paintKeys() {
    document.querySelectorAll("svg.key").forEach((key) => {
      const i = Number(key.dataset.index);
      const line = key.querySelector("line"), mark = key.querySelector("path");
      line.setAttribute("stroke", color(i));
      line.setAttribute("stroke-dasharray", dash(i).join(" "));
      mark.setAttribute("fill", color(i));
      mark.setAttribute("d", markPath(SHAPES[i % SHAPES.length]));
    });
  }
  function markPath(shape) {
    return {
      circle: "M14.5 7a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0", square: "M15 4h6v6h-6z", "triangle-up": "M18 3l4 7h-8z",
      diamond: "M18 2.5l4 4.5l-4 4.5l-4 -4.5z", cross: "M16.8 3h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z",
      "triangle-down": "M18 11l4 -7h-8z", "triangle-right": "M22 7l-7 4v-8z",
    }[shape];
  }

  function dark() {
    const set = document.documentElement.dataset.theme;
    return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function repaint() {
    $("theme").textContent = dark() ? "Light" : "Dark";
    $("theme").setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
    paintKeys();
    return draw();
  }
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    repaint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  $("controls").addEventListener("change", draw);
  $("rows").addEventListener("change", draw);
  const setRows = (wanted) => { document.querySelectorAll('input[name="row"]').forEach((box) => { if (!box.closest("li").hidden) box.checked = wanted; }); draw(); };
  $("all").addEventListener("click", () => setRows(true));
  $("none").addEventListener("click", () => setRows(false));
  $("find").addEventListener("input", () => {
    const wanted = $("find").value.toLowerCase();
    document.querySelectorAll("#rows li").forEach((item) => { item.hidden = !item.textContent.toLowerCase().includes(wanted); });
  });

  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (head.dataset.first === "up" && !head.hasAttribute("aria-sort"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => { const raw = row.cells[column].dataset.value; return raw === undefined ? null : isNaN(raw) ? raw : Number(raw); };
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === null || y === null) return (x === null) - (y === null);
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      });
      table.tBodies[0].append(...rows);
    }));
  });

  // A row's record: its part of the page in a dialog, with its curve and its stopping rules beside each other.
  const dialog = $("record");
  function open(index) {
    const row = data.rows[index], body = $("record-body");
    $("record-name").textContent = row.label;
    body.replaceChildren(document.querySelector(`#${row.anchor} .record`).cloneNode(true));
    dialog.showModal();
    dialog.scrollTop = 0;
    // The record is on the screen first; its address and its charts come after that frame.
    requestAnimationFrame(() => setTimeout(() => {
      history.replaceState(null, "", `#${row.anchor}`);
      drawMinis(row, index, body.querySelector(".minis"));
    }));
  }
  function drawMinis(row, index, place) {
    place.replaceChildren();
    const axis = data.axis in row.axes ? data.axis : Object.keys(row.axes)[0];
    const curve = { series: "0", index, label: row.label, seed: `mean of ${row.seeds.length}`,
      points: row.axes[axis].cost.map((c, k) => ({ exit: k, cost: c, ...row.accuracy[k] })) };
    mini(place, "Interrupted", { curve: "anytime", axis, scale: "auto", bands: true }, [curve], []);
    const rules = Object.entries(row.stopping).map(([rule, part], i) => ({ series: rule, index: i, label: rule, seed: curve.seed,
      points: part.cost.map((cost, k) => ({ cost, value: part.accuracy[k], low: null, high: null, exit: null })).sort((a, b) => a.cost - b.cost) }));
    if (rules.length) mini(place, "Stopping", { curve: "rules", axis: "macs", scale: "auto", bands: false }, rules, rules.map((line) => line.label));
    paintKeys();
  }
  function mini(place, title, state, lines, names) {
    const figure = document.createElement("figure"), head = document.createElement("h3"), chart = document.createElement("div");
    head.textContent = title;
    chart.className = "mini";
    figure.append(head, chart);
    names.forEach((name, i) => {
      const item = document.createElement("span"), key = $("rows").querySelector("svg.key").cloneNode(true);
      key.dataset.index = `${i}`;
      item.className = "rule";
      item.append(key, name);
      figure.append(item);
    });
    place.append(figure);
    return embed(chart, specification(shown(state, lines, true), 220, true)).then(() => { place.dataset.drawn = `${Number(place.dataset.drawn || 0) + 1}`; });
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-row]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(Number(link.dataset.row));
  });
  dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname));
  $("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  let narrow = window.innerWidth < 760;
  addEventListener("resize", () => {
    if ((window.innerWidth < 760) !== narrow) { narrow = !narrow; draw(); }
  });
  function openAsked() {
    const asked = data.rows.findIndex((row) => `#${row.anchor}` === location.hash);
    if (asked >= 0 && !dialog.open) open(asked);
  }
  addEventListener("hashchange", openAsked);
  repaint().then(openAsked);
})();
